#!/usr/bin/perl
# SPDX-License-Identifier: Apache-2.0
# Clients that send a request again with its Idempotency-Key until they have an answer, while
# PostgreSQL, its sessions and the workers are killed at random: at the end there is one record for
# each key, and each answer was the truth.
use strict;
use warnings;
use FindBin;
use List::Util qw(shuffle sum0 uniq);
use Test::More;
use Time::HiRes qw(sleep time);

use lib "$FindBin::Bin/../lib";
use Areg::Test qw(alive canonical in_parallel wait_until);

use constant { CLIENTS => 8, AGENTS => 6, WORKERS => 4 };

my $seconds = $ENV{AREG_TEST_FULL} ? 240 : 20;
my $many = '250000 250000 250000 250000';
my $areg = Areg::Test->start(workers => WORKERS, durable => 1, set => {
	limit_read => $many, limit_register => $many, limit_feedback => $many,
	database_connect_timeout => '1s', database_statement_timeout => '5s' });
my $owner = $areg->make_user(tier => 'enterprise');
my @users = map { $areg->make_user(tier => 'enterprise') } 1 .. CLIENTS;
my @rated = map {
	$areg->post('/api/v1/agents/register', agent($owner, "rated $_"), { key => $owner->{key} })->{json}{agent_uuid}
} 1 .. AGENTS;

sub agent
{
	my ($user, $name) = @_;
	return { owner_address => $user->{wallet}, chain => 'base',
		registration_file => { name => $name, description => 'registered while things break' } };
}

# It is there when all has happened.
my $over = $areg->dir . '/all-has-happened';

# What the n-th request of a client is: path, body and key; everything follows from the numbers.
sub request
{
	my ($client, $n) = @_;
	my ($user, $key) = ($users[$client], "client-$client-$n");

	return ('/api/v1/agents/register', agent($user, $key), $key) if $n % 3 == 0;
	return ('/api/v1/agents/feedback', { agent_uuid => $rated[$n % AGENTS], client_address => $user->{wallet},
		score => $n % 101, tag1 => 'tag ' . $n % 4, tag2 => $key }, $key);
}

sub ask
{
	my ($client, $n) = @_;
	my ($path, $body, $key) = request($client, $n);
	return $areg->post($path, $body, { key => $users[$client]{key}, 'Idempotency-Key' => $key });
}

# Sends new requests until all has happened, each until it is answered. 599 is a lost connection.
sub client
{
	my ($client) = @_;
	my @done;

	for (my $n = 0; !-e $over; $n++) {
		my ($answer, %tries, $gives_up);

		$gives_up = time + 60;
		while (1) {
			$answer = ask($client, $n);
			last unless $answer->{status} =~ /^(?:502|503|504|599)$/ && time < $gives_up;
			$tries{ ($answer->{json} || {})->{code} // $answer->{status} }++;
			sleep 0.02 + rand 0.1;
		}
		push @done, { client => $client, n => $n, status => $answer->{status}, body => $answer->{body},
			json => $answer->{json}, tries => \%tries,
			replayed => defined $answer->{headers}{'idempotency-replayed'} ? 1 : 0 };
	}
	return \@done;
}

# ---- what breaks ----

# All processes of PostgreSQL, the first its parent.
sub postgres_pids
{
	my $parent = $areg->pid('postgres');
	open my $in, '<', "/proc/$parent/task/$parent/children" or return $parent;
	return ($parent, split ' ', join '', <$in>);
}

sub start_again
{
	my (@pids) = @_;
	wait_until(10, sub { !grep { alive($_) } @pids }) or die "PostgreSQL does not end\n";
	sleep rand 0.3;
	$areg->start_server('postgres');
}

my %faults = (
	'PostgreSQL killed' => sub {
		my @pids = postgres_pids();
		kill 'KILL', @pids;
		start_again(@pids);
	},
	'PostgreSQL stopped at once' => sub { # as pg_ctl stop -m immediate does
		my @pids = postgres_pids();
		kill 'QUIT', $pids[0];
		start_again(@pids);
	},
	'a session killed' => sub { # PostgreSQL then ends all of them and recovers
		my @pids = grep { Areg::Test::name_of($_) eq 'postgres' } postgres_pids();
		my ($victim) = shuffle grep { command_line($_) =~ /^postgres: areg areg/ } @pids[1 .. $#pids];
		kill 'KILL', $victim if $victim;
	},
	'sessions terminated' => sub {
		for (1 .. 10) {
			$areg->psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity
				WHERE application_name = 'areg' AND random() < 0.7");
			sleep rand 0.05;
		}
	},
	'workers killed' => sub {
		for (1 .. 4) {
			my ($victim) = shuffle $areg->worker_pids;
			kill 'KILL', $victim if $victim;
			sleep rand 0.1;
		}
	},
);

sub command_line
{
	my ($pid) = @_;
	open my $in, '<', "/proc/$pid/cmdline" or return '';
	return scalar <$in> // '';
}

# Every fault in turn, each turn in another order, until the time is over and each has happened.
sub break_things
{
	my ($until) = @_;
	my %count;

	srand;
	while (time < $until || keys %count < keys %faults) {
		for my $fault (shuffle keys %faults) {
			# A fault that needs psql may come while PostgreSQL recovers from the one before.
			eval { $faults{$fault}->(); $count{$fault}++; 1 } or warn $@ if time < $until || !$count{$fault};
			sleep 0.2 + rand 0.4;
		}
	}
	wait_until(30, sub { eval { $areg->psql_value('SELECT 1') } }) or die "PostgreSQL is not back\n";
	return \%count;
}

my $until = time + $seconds;
my ($count, @each) = in_parallel(CLIENTS + 1, sub {
	my ($number) = @_;
	return client($number - 1) if $number > 0;
	my $happened = eval { break_things($until) };
	my $failed = $@;
	open my $flag, '>', $over or die "$over: $!\n";
	die $failed if $failed;
	return $happened;
});
my @done = map { @$_ } @each;
my %retried;
for my $one (@done) {
	$retried{$_} += $one->{tries}{$_} for keys %{ $one->{tries} };
}
diag(scalar @done . ' requests in ' . $seconds . ' s; ' . join(', ', map { "$_ $count->{$_} times" } sort keys %$count));
diag('tried again: ' . join(', ', map { "$_ $retried{$_} times" } sort keys %retried)
	. '; replayed: ' . sum0(map { $_->{replayed} } @done));

ok($count->{$_}, "it happened: $_") for sort keys %faults;
cmp_ok(sum0(values %retried), '>', 10, 'requests were hit, and tried again');
cmp_ok(scalar @done, '>', 100, 'and went on being answered');

# ---- what is there ----

is_deeply([grep { $_ != 201 } uniq map { $_->{status} } @done], [], 'every request was done in the end')
	or diag(map { "$_->{status} $_->{body}\n" } (grep { $_->{status} != 201 } @done)[0 .. 2]);

my @registered = grep { $_->{n} % 3 == 0 } @done;
my @rated_by = grep { $_->{n} % 3 != 0 } @done;
my %agents = map { ($_->[0] => $_) } $areg->psql("SELECT name, count(*), min(agent_uuid::text)
	FROM erc8004_agents WHERE name LIKE 'client-%' GROUP BY name");
my %opinions = map { ($_->[0] => $_) } $areg->psql("SELECT tag2, count(*), min(id) FROM erc8004_reputation
	GROUP BY tag2");

sub key_of { return "client-$_[0]{client}-$_[0]{n}" }

is_deeply([sort keys %agents], [sort map { key_of($_) } @registered], 'there is an agent for each key');
is_deeply([grep { $_->[1] != 1 } values %agents], [], 'and one only');
is_deeply([sort keys %opinions], [sort map { key_of($_) } @rated_by], 'there is feedback for each key');
is_deeply([grep { $_->[1] != 1 } values %opinions], [], 'and one only');
is($areg->psql_value("SELECT count(*) FROM idempotency_keys WHERE status = 201 AND key LIKE 'client-%'"),
	scalar @done, 'one answer is kept for each key');
is($areg->psql_value('SELECT count(*) FROM idempotency_keys WHERE status IS DISTINCT FROM 201'), 0, 'and no other');

# Every record is what its answer said.
my @wrong = grep {
	my $now = $areg->get("/api/v1/agents/$_->{json}{agent_uuid}");
	$now->{status} != 200 || canonical($now->{body}) ne canonical($_->{body});
} @registered;
is(scalar @wrong, 0, 'each agent is as its registration was answered') or diag($wrong[0]{body});

my %records;
for my $agent (@rated) {
	my $cursor = '';
	while (defined $cursor) {
		my $page = $areg->get("/api/v1/agents/$agent/feedback?limit=100$cursor")->{json};
		$records{ $_->{id} } = $_ for @{ $page->{feedback} };
		$cursor = $page->{next_cursor} ? "&cursor=$page->{next_cursor}" : undef;
	}
}
is_deeply(\%records, { map { ($_->{json}{id} => $_->{json}) } @rated_by }, 'all feedback is as it was answered');

@wrong = grep {
	my $again = ask($_->{client}, $_->{n});
	!defined $again->{headers}{'idempotency-replayed'} || $again->{body} ne $_->{body};
} (shuffle @done)[0 .. 99];
is(scalar @wrong, 0, 'whoever asks again has the same answer') or diag($wrong[0]{body});

# ---- how it hangs together ----

is($areg->psql_value('SELECT count(*) - 1 - max(agent_id) FROM erc8004_agents'), 0, 'agent ids have no gaps');
is($areg->psql_value('SELECT min(agent_id) FROM erc8004_agents'), 0, 'from 0');
is($areg->psql_value('SELECT count(*) FROM (SELECT FROM erc8004_reputation GROUP BY agent_uuid, client_address
	HAVING min(feedback_index) <> 1 OR max(feedback_index) <> count(*)) AS gaps'), 0,
	"nor have the numbers of each client's feedback");

# Every derived table, before and after a recount that is taken back.
my @derived = qw(erc8004_agent_stats erc8004_agent_clients erc8004_agent_tags erc8004_agent_counts
	erc8004_agent_counters);
my @differ = $areg->psql('BEGIN;' . join('', map { "CREATE TEMP TABLE kept_$_ AS SELECT * FROM $_;" } @derived)
	. 'DO $$ BEGIN PERFORM areg_rebuild_stats(); END $$;'
	. join(' UNION ALL ', map { "SELECT '$_', count(*), (SELECT count(*) FROM (
		(SELECT * FROM kept_$_ EXCEPT ALL SELECT * FROM $_)
		UNION ALL (SELECT * FROM $_ EXCEPT ALL SELECT * FROM kept_$_)) AS d) FROM $_" } @derived)
	. '; ROLLBACK');
is(scalar @differ, scalar @derived, 'all statistics are recounted');
ok($_->[1] > 0 && $_->[2] == 0, "$_->[0]: equal to a recount") or diag("$_->[2] rows differ of $_->[1]") for @differ;
is($areg->psql_value('SELECT sum(total_feedback) FROM erc8004_agent_stats'), scalar @rated_by,
	'they count each feedback once');

is($areg->psql_value("SELECT count(*) FROM audit_log WHERE action = 'agent.register'"), @registered + AGENTS,
	'the audit log has each registration');
is($areg->psql_value("SELECT count(*) FROM audit_log WHERE action = 'feedback.give'"), scalar @rated_by,
	'and each feedback');
is($areg->psql_value("SELECT count(*) FROM (SELECT FROM audit_log WHERE action IN ('agent.register', 'feedback.give')
	GROUP BY action, subject_id HAVING count(*) > 1) AS twice"), 0, 'once');
my $verified = $areg->aregctl('audit', 'verify');
is($verified->{exit}, 0, 'and nothing is wrong with it') or diag($verified->{stdout}, $verified->{stderr});

ok(wait_until(5, sub { $areg->get('/health')->{json}{status} eq 'healthy' }), 'the registry is healthy');
is(scalar(() = $areg->worker_pids), WORKERS, 'with all its workers');

done_testing();
