# SPDX-License-Identifier: Apache-2.0
# The log: one line per request that says where its time went, slow ones and faults under the id
# that the client saw, and the same id in the audit trail and in PostgreSQL.
use strict;
use warnings;

use File::Basename qw(dirname);
use Test::More;

use lib dirname(__FILE__) . '/../lib';
use Areg::Test qw(from_json in_parallel problem_ok wait_until);

my $areg = Areg::Test->start(workers => 2, set => { slow_request => '300ms' });
my $user = $areg->make_user(tier => 'enterprise');
my $agents = '/api/v1/agents';

sub lines_of
{
	my ($request_id) = @_;
	return grep { ($_->{request_id} // '') eq $request_id }
		map { from_json($_) } split /\n/, $areg->log_text('areg');
}

# The one line of a request that says how it was answered; waits for it, since it is written after
# the answer.
sub request_line
{
	my ($request_id) = @_;
	my @found;
	wait_until(5, sub { @found = grep { $_->{message} =~ /request$/ } lines_of($request_id) });
	is(scalar @found, 1, "there is one line for request $request_id");
	return $found[0] // {};
}

sub microseconds { return sprintf '%.0f', 1000 * $_[0] }

# ---- one line per request ----

my $answer = $areg->post("$agents/register", { owner_address => $user->{wallet}, chain => 'base',
	registration_file => { name => 'an agent', description => 'x' } },
	{ key => $user->{key}, from => '127.0.0.9' });
is($answer->{status}, 201, 'an agent is registered');
my $id = $answer->{headers}{'x-request-id'};
my $line = request_line($id);
my %is = (level => 'info', message => 'request', method => 'POST', path => "$agents/register",
	route => "$agents/register", status => 201, bytes => length $answer->{body}, user => $user->{id},
	key => substr($user->{key}, 0, length($line->{key} // '')), client => '127.0.0.9');
is($line->{$_}, $is{$_}, "its line says $_") for sort keys %is;
isnt($line->{key}, $user->{key}, 'of the key no more than its prefix');
cmp_ok($line->{database_ms}, '>', 0, 'it says how long the database took');
is(microseconds($line->{database_ms}) + microseconds($line->{cache_ms}) + microseconds($line->{own_ms}),
	microseconds($line->{ms}), 'database, cache and own time are all of its time');
is($areg->psql_value("SELECT count(*) FROM audit_log WHERE request_id = '$id'"), 1,
	'the audit trail has it under the same id');

$areg->get("$agents/base:77?", { 'X-Request-ID' => 'not-there' });
$line = request_line('not-there');
is($line->{route}, "$agents/{id}", 'the route is the template');
is($line->{path}, "$agents/base:77", 'the path is what was asked');
is($line->{code}, 'agent_not_found', 'a refusal has its code');
ok(!exists $line->{user} && !exists $line->{key}, 'who has no key has no user');

$areg->get('/nowhere', { 'X-Request-ID' => 'no-route' });
$line = request_line('no-route');
is($line->{database_ms} + $line->{cache_ms}, 0, 'what asks nobody waits for nobody');
ok(!exists $line->{route}, 'what is no route has none');
$areg->get('/metrics', { 'X-Request-ID' => 'a-scrape' });
is(scalar lines_of('a-scrape'), 0, 'scrapes are not logged');

# ---- slow ones ----

my ($held, $slow) = in_parallel(2, sub {
	if ($_[0] == 0) {
		$areg->psql('BEGIN; LOCK TABLE erc8004_agents IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(2)');
		return 1;
	}
	wait_until(10, sub { $areg->psql_value("SELECT count(*) FROM pg_locks
		WHERE mode = 'AccessExclusiveLock' AND granted AND relation = 'erc8004_agents'::regclass") });
	return $areg->get("$agents/base:0", { 'X-Request-ID' => 'was-slow' })->{status};
});
is($slow, 200, 'a request that waited for a lock is answered');
$line = request_line('was-slow');
is($line->{message}, 'slow request', 'and logged as slow');
is($line->{level}, 'warn', 'at level warn');
cmp_ok($line->{database_ms}, '>', 300, 'it was the database');
cmp_ok($line->{own_ms}, '<', $line->{database_ms}, 'and not areg');

# ---- faults ----

$areg->psql('ALTER TABLE erc8004_agents RENAME TO gone');
$answer = $areg->get("$agents/base:55");
$areg->psql('ALTER TABLE gone RENAME TO erc8004_agents');
problem_ok($answer, 500, 'internal');
my ($fault) = grep { $_->{level} eq 'error' } lines_of($answer->{headers}{'x-request-id'});
is($fault->{sqlstate}, '42P01', 'a fault is logged under the id that the client saw');
ok($fault->{statement}, 'with the name of the statement');
is(request_line($answer->{headers}{'x-request-id'})->{code}, 'internal', 'beside the request');

# ---- PostgreSQL ----

sub application_names
{
	return join ' ', map { $_->[0] } $areg->psql("SELECT DISTINCT application_name
		FROM pg_stat_activity WHERE application_name LIKE 'areg%' AND application_name NOT LIKE '%listener%'
		ORDER BY 1");
}

$areg->get("$agents/base:56", { 'X-Request-ID' => 'unnamed' });
unlike(application_names(), qr/unnamed/, 'PostgreSQL is not told the id unless that is wanted');
$areg->stop_server('aregd');
$areg->start_server('aregd', set => { database_request_ids => 'on' });
is($areg->get("$agents/base:$_->[0]", { 'X-Request-ID' => $_->[1] })->{status}, $_->[2],
	"with database_request_ids, GET base:$_->[0]") for [0, 'named-1', 200], [7, 'named-2', 404];
like(application_names(), qr/\bareg named-2\b/, 'pg_stat_activity names the request');
$answer = $areg->post("$agents/register", { owner_address => $user->{wallet}, chain => 'base',
	registration_file => { name => 'another', description => 'x' } },
	{ key => $user->{key}, 'Idempotency-Key' => 'once', 'X-Request-ID' => 'named-3' });
is($answer->{status}, 201, 'a change in a transaction');
like(application_names(), qr/\bareg named-3\b/, 'is named, too');

done_testing();
