#!/usr/bin/perl
# SPDX-License-Identifier: Apache-2.0
# areg behind PgBouncer: what works with session pooling, and that transaction pooling is noticed.
use strict;
use warnings;

use File::Temp qw(tempdir);
use FindBin;
use POSIX qw(_exit setsid);
use Test::More;
use Time::HiRes qw(sleep);

use lib "$FindBin::Bin/../lib";
use Areg::Test qw(build_dir wait_until);

use constant PORT => 6432; # the name of a socket, nothing more

$ENV{PATH} .= ':/usr/sbin';

my $areg = Areg::Test->start(workers => 3);
my $data = $areg->dir . '/pgdata';
my ($uid, $gid) = (stat $data)[4, 5];
my $dir = tempdir('areg-pgbouncer-XXXXXX', TMPDIR => 1, CLEANUP => 1);
my $url = "postgresql:///areg?host=$dir&port=" . PORT . '&user=areg';
my $pid;

END {
	my $status = $?;
	stop_pooler() if $pid;
	$? = $status;
}

sub start_pooler
{
	my ($mode) = @_;

	open my $ini, '>', "$dir/pgbouncer.ini" or die "$dir/pgbouncer.ini: $!\n";
	printf $ini <<"INI", $areg->socket_path('pg'), $dir, PORT, $mode;
[databases]
areg = host=%s user=areg
[pgbouncer]
listen_addr =
unix_socket_dir = %s
listen_port = %d
auth_type = any
pool_mode = %s
INI
	close $ini;
	chown $uid, $gid, $dir, "$dir/pgbouncer.ini";
	$pid = fork // die "fork: $!\n";
	if ($pid == 0) {
		setsid;
		open STDOUT, '>>', "$dir/log";
		open STDERR, '>&', \*STDOUT;
		my @as = $> == 0 ? ('setpriv', "--reuid=$uid", "--regid=$gid", '--clear-groups', '--') : ();
		exec @as, 'pgbouncer', "$dir/pgbouncer.ini" or _exit(127);
	}
	wait_until(10, sub { -S "$dir/.s.PGSQL." . PORT }) or die "no PgBouncer: see $dir/log\n";
}

sub stop_pooler
{
	kill 'KILL', $pid;
	waitpid $pid, 0;
	undef $pid;
	unlink "$dir/.s.PGSQL." . PORT;
}

sub check
{
	my $aregd = build_dir() . '/aregd';
	local $ENV{AREG_DATABASE_URL} = $url;
	my $said = qx($aregd -t -c ${\ $areg->conf } 2>&1);
	return ($? >> 8, $said);
}

chmod 0711, $dir;

# ---- Session pooling ----

start_pooler('session');
$areg->stop_server('aregd');
$areg->start_server('aregd', set => { database_url => $url, database_statement_timeout => '700ms' });
my ($exit, $said) = check();
is($exit, 0, 'session pooling: aregd -t finds the database in order') or diag $said;

my $user = $areg->make_user(tier => 'enterprise');
my $other = $areg->make_user(tier => 'enterprise');
my $giver = $areg->make_user(tier => 'enterprise');
my $uuid = $areg->post('/api/v1/agents/register', { owner_address => $user->{wallet}, chain => 'base',
	registration_file => { name => 'Thermometer', description => 'tells how warm it is' } },
	{ key => $user->{key} })->{json}{agent_uuid};
ok(defined $uuid, 'an agent is registered');
is($areg->post('/api/v1/agents/feedback', { agent_uuid => $uuid, client_address => $other->{wallet}, score => 90 },
	{ key => $other->{key}, 'Idempotency-Key' => 'one' })->{status}, 201, 'feedback is given, in a transaction');
is($areg->get("/api/v1/agents/$uuid/stats")->{json}{total_feedback}, 1, 'and read');
is_deeply([map { $_->{agent_uuid} } @{ $areg->get('/api/v1/agents?q=thermomeder')->{json}{agents} }], [$uuid],
	'a misspelt search finds it: the session has its settings');
is($areg->psql_value(q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'areg listener'}), 1,
	'the listener has a server process of its own');

is($areg->get('/api/v1/me', { key => $other->{key} })->{status}, 200, 'a key is good');
$areg->psql("UPDATE api_keys SET is_active = false, revoked_at = now() WHERE user_id = '$other->{id}'");
ok(wait_until(10, sub { $areg->get('/api/v1/me', { key => $other->{key} })->{status} == 401 }),
	'and refused once it was revoked elsewhere');
like($areg->log_text('areg'), qr/listens to changes/, 'the listener listens');

{
	my $holder = fork // die "fork: $!\n";
	if ($holder == 0) {
		$areg->psql('BEGIN; LOCK TABLE erc8004_reputation; SELECT pg_sleep(3)');
		_exit(0);
	}
	wait_until(10, sub { $areg->psql_value(q{SELECT count(*) FROM pg_locks JOIN pg_class c ON c.oid = relation
		WHERE relname = 'erc8004_reputation' AND mode = 'AccessExclusiveLock' AND granted}) });
	is($areg->post('/api/v1/agents/feedback', { agent_uuid => $uuid, client_address => $giver->{wallet}, score => 1 },
		{ key => $giver->{key} })->{status}, 503, 'a statement that takes too long is refused');
	like($areg->log_text('areg'), qr/57014/, 'by the server, which was told the timeout');
	waitpid $holder, 0;
}

stop_pooler();
is($areg->post('/api/v1/agents/feedback', { agent_uuid => $uuid, client_address => $giver->{wallet}, score => 1 },
	{ key => $giver->{key} })->{status}, 503, 'PgBouncer is lost: a write is refused');
start_pooler('session');
ok(wait_until(20, sub {
	$areg->post('/api/v1/agents/feedback', { agent_uuid => $uuid, client_address => $giver->{wallet}, score => 70 },
		{ key => $giver->{key} })->{status} == 201;
}), 'PgBouncer is back: it is done');
is($areg->get("/api/v1/agents/$uuid/stats")->{json}{total_feedback}, 2, 'and read');

# ---- Transaction pooling ----

stop_pooler();
start_pooler('transaction');
($exit, $said) = check();
is($exit, 3, 'transaction pooling: aregd -t warns');
like($said, qr/^database: .* shares sessions between clients: set its pool_mode to session/m, 'and says what to do');

done_testing;
