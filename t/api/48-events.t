#!/usr/bin/perl
# SPDX-License-Identifier: Apache-2.0
# Events: every change once and in order, for a reader that comes and goes while many write.
use strict;
use warnings;

use File::Basename qw(dirname);
use File::Temp qw(tempdir);
use List::Util qw(shuffle);
use Test::More;
use Time::HiRes qw(sleep time);

use lib dirname(__FILE__) . '/../lib';
use Areg::Test qw(address hash in_parallel problem_ok root wait_until);

my $V1 = '/api/v1';
my ($WRITERS, $READERS, $AGENTS) = (16, 2, 12);

my $seed = $ENV{AREG_TEST_SEED} // time % 100000;
note "AREG_TEST_SEED=$seed";

my $areg = Areg::Test->start(workers => 4);
my $owner = $areg->make_user;
my @clients = map { $areg->make_user } 1 .. $WRITERS / 2;

sub page
{
	my ($areg, $after, $limit) = @_;
	my @query = ((defined $after ? "after=$after" : ()), (defined $limit ? "limit=$limit" : ()));
	my $answer = $areg->get("$V1/events" . (@query ? '?' . join('&', @query) : ''));

	die "GET /events: $answer->{status} $answer->{body}" if $answer->{status} != 200;
	return $answer->{json};
}

# All from there on that is shown.
sub rest
{
	my ($areg, $after) = @_;
	my @events;

	while (1) {
		my $page = page($areg, $after, 100);
		push @events, @{ $page->{events} };
		return @events unless $page->{has_more};
		$after = $page->{next_after};
	}
}

# The same once there are that many, or after a while.
sub awaited
{
	my ($areg, $after, $count) = @_;
	my @events;

	wait_until(20, sub { @events = rest($areg, $after); @events >= $count });
	return @events;
}

sub kinds { return [map { $_->{type} . ($_->{subject} ? " $_->{subject}" : '') } @_] }

sub give
{
	my ($areg, $agent, $client) = @_;
	my $answer = $areg->post("$V1/agents/feedback", { agent_uuid => $agent,
		client_address => $client->{wallet}, score => 80 }, { key => $client->{key} });

	die "feedback: $answer->{status} $answer->{body}" if $answer->{status} != 201;
	return $answer->{json}{id};
}

# A session of psql that stays open: print SQL into it. `$name` finds it in pg_stat_activity.
sub session
{
	my ($areg, $name) = @_;

	open my $in, '|-', root() . '/scripts/instance', 'psql', '--dir', $areg->dir, '--', '-o', '/dev/null'
		or die "psql: $!\n";
	$in->autoflush(1);
	print $in "SET application_name = '$name';\n";
	return $in;
}

# Runs SQL in such a session and waits until it is done there.
sub told
{
	my ($areg, $session, $name, $sql) = @_;
	my $mark = "mark $name " . time;

	print $session "$sql;\nSELECT '$mark';\n";
	return wait_until(20, sub { $areg->psql_value("SELECT count(*) FROM pg_stat_activity"
		. " WHERE application_name = '$name' AND query LIKE '%$mark%' AND state LIKE 'idle%'") });
}

# ---- what events say ----

my $start = page($areg)->{next_after};
is($start, '0.0', 'before anything changed there is a place to begin at');
my $agent = $areg->post("$V1/agents/register", { owner_address => $owner->{wallet}, chain => 'base',
	registration_file => { name => 'First', description => 'It is the first.' } },
	{ key => $owner->{key} })->{json}{agent_uuid};
my $id = give($areg, $agent, $clients[0]);
my @events = awaited($areg, undef, 2);
is_deeply(kinds(@events), ['agent.registered', "feedback.given $id"], 'a registration and a feedback are events');
is_deeply([sort keys %{ $events[1] }], [qw(agent_uuid at cursor subject type)], 'whole');
is_deeply([map { $_->{agent_uuid} } @events], [$agent, $agent], 'that name the agent');
like($events[1]{at}, qr/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/, 'and the time');

my $now = page($areg, 'now');
is_deeply([@$now{qw(events has_more)}], [[], JSON::PP::false()], 'who starts now gets no events');
$id = give($areg, $agent, $clients[0]);
is_deeply(kinds(awaited($areg, $now->{next_after}, 1)), ["feedback.given $id"], 'but a place, and from there what comes');
my $one = page($areg, undef, 1);
is_deeply([scalar @{ $one->{events} }, !!$one->{has_more}, $one->{next_after}], [1, 1, $events[0]{cursor}],
	'a page of one goes on behind it');

for my $bad ('x', '1', '1.', '.1', '01.1', '1.01', '-1.0', '1.2.3', '1.1%00', '1,1', 'NOW', '', '9' x 19 . '.1', '1.' . '9' x 19) {
	problem_ok($areg->get("$V1/events?after=$bad"), 400, 'validation_failed');
}
problem_ok($areg->get("$V1/events?limit=101&after=x&agent=1&limit=1"), 400, 'validation_failed', qw(limit after agent));
is_deeply(page($areg, '999999999999999999.999999999999999999')->{events}, [], 'behind the end there is nothing');

# ---- a long transaction ----

my $end = page($areg, 'now')->{next_after};
my $long = session($areg, 'long');
told($areg, $long, 'long', "BEGIN; INSERT INTO x402_payments (tx_hash, chain, amount_usdc, payer, payee, status)"
	. " VALUES ('" . hash('long') . "', 'base', 1, '" . address(1) . "', '" . address(2) . "', 'pending')");
$id = give($areg, $agent, $clients[0]);
is_deeply([rest($areg, $end)], [], 'a transaction that is still open holds back what was changed after it began');
told($areg, $long, 'long', "UPDATE erc8004_reputation SET is_revoked = true, revoked_at = now() WHERE id = $id; COMMIT");
is_deeply(kinds(awaited($areg, $end, 3)), ['payment.recorded', "feedback.given $id", "feedback.revoked $id"],
	'and what it then does about that comes behind it, although it began before');
close $long;

# ---- many writers ----

my @agents = map { $_->[0] } $areg->psql("INSERT INTO erc8004_agents (chain, chain_id, registry_address,"
	. " agent_id, owner_address, status, source) SELECT 'base', 8453, '" . address('registry') . "', n, '"
	. $owner->{wallet} . "', 'active', 'import' FROM generate_series(100, 99 + $AGENTS) n RETURNING agent_uuid");
@agents = sort @agents;
my $begin = page($areg, 'now')->{next_after};
my $done = tempdir(CLEANUP => 1);

# A transaction of SQL: an early number for some, some steps on different agents in one order (so
# that none waits in a circle), pauses, and an end.
sub transaction
{
	my ($writer, $n) = @_;
	my @of = sort { $a <=> $b } (shuffle(0 .. $#agents))[0 .. int rand 4];
	my $client = address("writer $writer");
	my $sql = "BEGIN;\n" . (rand() < 0.5 ? "SELECT pg_current_xact_id();\n" : '');
	my $pause = sub { return $_[0] < 1 ? 'SELECT pg_sleep(' . rand(0.03) . ");\n" : '' };

	$sql .= $pause->(rand 1.5);
	for my $i (@of) {
		my $kind = rand 10;

		$sql .= $kind < 6 ? "SELECT FROM areg_give_feedback('$agents[$i]', '$client', '50', NULL, NULL, '', '', NULL, NULL, NULL);\n"
			: $kind < 8 ? "INSERT INTO erc8004_agent_metadata (agent_uuid, key, value) VALUES ('$agents[$i]', 'w$writer', 'x')"
			. " ON CONFLICT (agent_uuid, key_digest) DO UPDATE SET value = EXCLUDED.value;\n"
			: "INSERT INTO x402_payments (tx_hash, chain, amount_usdc, payer, payee, status, settled_at) VALUES ('"
			. hash("$writer $n $i") . "', 'base', 1, '$client', '$client', 'verified', now());"
			. "INSERT INTO erc8004_agent_payments (payment_id, agent_uuid) SELECT id, '$agents[$i]' FROM x402_payments"
			. " WHERE tx_hash = '" . hash("$writer $n $i") . "';\n";
		$sql .= $pause->(rand 4);
	}
	# By itself, since it waits for one agent's statistics: whose record it is changes.
	$sql = "BEGIN; SELECT pg_current_xact_id();\n" . $pause->(0) . "UPDATE erc8004_reputation SET is_revoked = true,"
		. " revoked_at = now() WHERE id = (SELECT max(id) FROM erc8004_reputation WHERE NOT is_revoked);\n"
		if $n % 4 == 0;
	$sql .= "SELECT pg_sleep(1.5);\n" if $writer == $WRITERS - 1 && $n % 20 == 7;
	return $sql . (rand() < 0.15 ? "ROLLBACK;\n" : "COMMIT;\n");
}

sub write_for_a_while
{
	my ($writer) = @_;
	my @given;

	if ($writer < @clients) {
		for (1 .. 60) {
			push @given, give($areg, $agents[rand @agents], $clients[$writer]);
			sleep rand 0.03;
		}
	} else {
		$areg->psql(join '', map { transaction($writer, $_) } 1 .. 40);
	}
	open my $mark, '>', "$done/$writer" or die "$done/$writer: $!\n";
	return \@given;
}

# From the first page on, over a new connection each time; sometimes a page twice, as a reader does
# that was killed before it noted where it was.
sub read_all
{
	my ($after, @seen) = ($begin);
	my ($pages, $until) = (0, time + 120);

	while (time < $until) {
		my $ended = () = glob "$done/*";
		delete $areg->{http};
		my $page = page($areg, $after, 1 + int rand 100);

		$pages++;
		if (rand() < 0.2) {
			next;
		}
		push @seen, @{ $page->{events} };
		$after = $page->{next_after};
		last if $ended == $WRITERS && !@{ $page->{events} }
			&& @seen >= $areg->psql_value('SELECT count(*) FROM erc8004_events WHERE (place, id) > ('
				. join(', ', split /\./, $begin) . ')');
		sleep rand 0.05;
	}
	return { pages => $pages, seen => \@seen };
}

my @results = in_parallel($WRITERS + $READERS, sub {
	my ($i) = @_;

	srand $seed + $i;
	return $i < $WRITERS ? write_for_a_while($i) : read_all();
});
my @acknowledged = map { @$_ } @results[0 .. $#clients];
my @readings = @results[$WRITERS .. $#results];
my @stored = $areg->psql("SELECT place || '.' || id, type, rfc3339(at), agent_uuid, subject FROM erc8004_events"
	. ' WHERE (place, id) > (' . join(', ', split /\./, $begin) . ') ORDER BY place, id');

cmp_ok(scalar @stored, '>', 800, 'many changes were made at once');
for my $reading (@readings) {
	my @seen = map { [@$_{qw(cursor type at agent_uuid subject)}] } @{ $reading->{seen} };

	cmp_ok($reading->{pages}, '>', 20, 'a reader that resumed often');
	is(scalar @seen, scalar @stored, 'saw as many events as there are');
	is_deeply(\@seen, \@stored, 'every one once, in order');
}

# What the records say happened, without the events.
@events = @{ $readings[0]{seen} };
sub subjects { my ($type) = @_; return [sort map { $_->{subject} } grep { $_->{type} eq $type } @events] }
sub recorded { return [sort map { $_->[0] } $areg->psql($_[0])] }
my $since = "agent_uuid IN ('" . join("','", @agents) . "')";
my %given = map { ($_ => 1) } @{ subjects('feedback.given') };
is_deeply(subjects('feedback.given'), recorded("SELECT id FROM erc8004_reputation WHERE $since"),
	'every feedback that was committed is an event, and none that was rolled back');
is_deeply([grep { !$given{$_} } @acknowledged], [], 'all that were acknowledged among them');
is_deeply(subjects('payment.linked'), recorded("SELECT chain || ':' || tx_hash FROM x402_payments p"
	. " JOIN erc8004_agent_payments l ON l.payment_id = p.id WHERE $since"), 'so is every payment linked');
is_deeply([grep { $given{$_} } @{ subjects('feedback.revoked') }],
	recorded("SELECT id FROM erc8004_reputation WHERE $since AND is_revoked"), 'and every revocation');

# Feedback of one agent is numbered under a lock that is held until the commit: its ids are in the
# order of the commits.
my (%last, %seen, @disorder, $revoked, $linked);
for my $event (@events) {
	my ($type, $agent, $subject) = @$event{qw(type agent_uuid subject)};

	if ($type eq 'feedback.given') {
		push @disorder, "feedback $subject after $last{$agent}" if ($last{$agent} // 0) > $subject;
		$last{$agent} = $subject;
	}
	$revoked++ if $type eq 'feedback.revoked';
	push @disorder, "$subject revoked before it was given" if $type eq 'feedback.revoked' && $given{$subject} && !$seen{"feedback.given $subject"};
	push @disorder, "$subject linked before one was recorded" if $type eq 'payment.linked'
		&& ++$linked > ($seen{'payment.recorded'} // 0);
	$seen{ $subject ? "$type $subject" : $type }++;
}
is_deeply(\@disorder, [], 'the events of one agent are in the order of their commits');
cmp_ok($revoked, '>', 20, 'revocations among them');
is(scalar(grep { $_ > 1 } map { $seen{$_} } grep { /^feedback\.given/ } keys %seen), 0, 'none twice');

# ---- kept for a while ----

my $kept = $events[-6]{cursor};
my ($kept_place, $kept_id) = split /\./, $kept;
is(page($areg, $start)->{retention_days}, 90, 'it says for how many days');
my $audited = $areg->psql_value('SELECT count(*) FROM audit_log');
my $swept = sub {
	my ($left, $name) = @_;
	# The listener may be at it, too.
	ok(wait_until(20, sub { $areg->aregctl('sweep')->{exit} == 0
		&& $areg->psql_value('SELECT count(*) FROM erc8004_events') == $left }), $name);
};
# Somebody else is at it: who sweeps does not wait.
my $sweeper = session($areg, 'sweeper');
told($areg, $sweeper, 'sweeper', 'BEGIN; SELECT FROM erc8004_events_pruned FOR UPDATE');
$areg->psql("UPDATE erc8004_events SET at = at - interval '91 days' WHERE (place, id) <= ($kept_place, $kept_id)");
like($areg->aregctl('sweep')->{stdout}, qr/^removed 0 events/m, 'two do not sweep at once');
print $sweeper "ROLLBACK;\n";
close $sweeper;
$swept->(5, 'what is older is swept');
is_deeply(kinds(rest($areg, $kept)), kinds(@events[-5 .. -1]), 'from the last that is gone on, nothing is missed');
is_deeply(kinds(rest($areg)), kinds(@events[-5 .. -1]), 'who does not say where from begins with the oldest that is kept');
problem_ok($areg->get("$V1/events?after=$_"), 410, 'events_gone')
	for $start, $events[0]{cursor}, $events[-7]{cursor}, '1.0';
like($areg->get("$V1/events?after=$start")->{json}{detail}, qr/after=now/, 'which says what to do');
$areg->psql("UPDATE erc8004_events SET at = at - interval '91 days'");
$swept->(1, 'of all, the newest stays');
is_deeply(kinds(rest($areg)), kinds($events[-1]), 'as the end of what was');
problem_ok($areg->get("$V1/events?after=$kept"), 410, 'events_gone');
is_deeply([rest($areg, $events[-1]{cursor})], [], 'a reader that has seen all may go on');
is($areg->psql_value('SELECT count(*) FROM audit_log'), $audited, 'the audit log is kept');
is($areg->psql_value('SELECT areg_prune_events(0)'), 0, 'for ever: none is swept');

# ---- restored into another cluster ----

# Its transaction numbers are far behind those that the events stand at.
$areg->psql('DO $$ BEGIN FOR i IN 1 .. 50000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$');
give($areg, $agents[0], $clients[0]);
my $here = (awaited($areg, $events[-1]{cursor}, 1))[-1]{cursor};
my $dump = "$done/dump.sql";
is(system('pg_dump', '-h', $areg->socket_path('pg'), '-U', 'areg_owner', '-f', $dump, 'areg'), 0, 'pg_dump');

my $other = Areg::Test->start(workers => 2);
$other->stop_server('aregd');
$other->psql('DROP SCHEMA public CASCADE; CREATE SCHEMA public');
is(system('psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-h', $other->socket_path('pg'), '-U', 'areg_owner', '-d', 'areg',
	'-o', '/dev/null', '-f', $dump), 0, 'restored');
cmp_ok($other->psql_value('SELECT pg_current_xact_id()'), '<', 20000, 'into a cluster whose transactions are behind');

my $insert = sub { return "INSERT INTO erc8004_reputation (agent_uuid, client_address, feedback_index, value)"
	. " VALUES ('$agents[1]', '" . address('restored') . "', $_[0], 1) RETURNING id" };
my ($early) = $other->psql_value($insert->(1));
my $open = session($other, 'open');
told($other, $open, 'open', 'BEGIN; ' . $insert->(2));
my $late = $early + 1;
my ($migrated, $waited) = in_parallel(2, sub {
	my ($i) = @_;

	return $other->aregctl('migrate', '--dir', root() . '/sql')->{exit} if $i == 0;
	my $waits = wait_until(20, sub { $other->psql_value("SELECT count(*) FROM pg_locks"
		. " WHERE relation = 'erc8004_events'::regclass AND NOT granted") });
	print $open "COMMIT;\n";
	return $waits ? 1 : 0;
});
is_deeply([$migrated, $waited], [0, 1], 'aregctl migrate waits for who is writing, and finishes');
close $open;
$other->start_server('aregd');
$id = give($other, $agents[1], $clients[0]);
is_deeply(kinds(awaited($other, $here, 3)), [map { "feedback.given $_" } $early, $late, $id],
	'a reader that resumes there sees what came after the dump, in order, and nothing else');
is_deeply([map { $_->{cursor} } rest($other, $events[-1]{cursor})]->[0], $here, 'behind what it saw before');

done_testing;
