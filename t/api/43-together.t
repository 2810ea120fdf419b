# SPDX-License-Identifier: Apache-2.0
# Feedback that comes at the same time: stored together by a writer, and each answered as if alone.
use strict;
use warnings;

use FindBin;
use Test::More;
use Time::HiRes qw(sleep time);

use lib "$FindBin::Bin/../lib";
use Areg::Test qw(address in_parallel problem_ok wait_until);

use constant WORKERS => 8;

my $areg = Areg::Test->start(workers => WORKERS, set => { database_statement_timeout => '20s' });
my $owner = $areg->make_user;
my @clients = map { $areg->make_user } 1 .. WORKERS;

sub new_agent { return $areg->make_agent($owner)->{agent_uuid} }

sub give { my @given = @_; return $areg->give_feedback(@given) }

sub writer
{
	my @pids = wait_until(10, sub { my @pids = $areg->pids_named('aregd writer 1'); @pids == 1 ? \@pids : undef });
	return $pids[0] ? $pids[0][0] : undef;
}

# How many workers wait for something.
sub busy { return scalar(() = $areg->aregctl('workers', '--json')->{stdout} =~ /"state":\s*"busy"/g) }

# Makes all these calls while the writer stands still, then lets it go on (or calls $then), so that it
# finds all of them. Returns the answers, in order.
sub in_one_lot
{
	my ($calls, $then) = @_;
	my $writer = writer();
	my @answers;

	kill STOP => $writer;
	@answers = in_parallel(1 + @$calls, sub {
		my ($number) = @_;

		if ($number > 0) {
			my $answer = $calls->[$number - 1]->();
			return { %$answer, at => time };
		}
		wait_until(10, sub { busy() == @$calls }) or warn 'not all calls wait for the writer';
		return $then ? $then->($writer) : kill CONT => $writer;
	});
	shift @answers;
	return @answers;
}

# Every number that is kept, of all agents, against the records.
sub recount_ok
{
	my ($what) = @_;
	# Of a number 0.00 is as good as 0: sums may have the decimals of what was taken away again.
	my $numbers = q{SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM (
		SELECT s.agent_uuid, total_feedback, scored_feedback, trim_scale(score_sum), opinions,
			trim_scale(opinion_sum), positive_feedback, negative_feedback, unique_clients, last_feedback_at,
			reputation_score
		FROM erc8004_agent_stats s) AS t};
	my $lists = q{SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM (
		SELECT agent_uuid::text, client_address::text AS who, last_index, active_feedback::numeric,
			trim_scale(score_sum), scored_feedback::numeric AS more FROM erc8004_agent_clients
		UNION ALL SELECT agent_uuid::text, tag1, feedback_count, trim_scale(value_sum), trim_scale(opinion_sum), opinions
		FROM erc8004_agent_tags
		UNION ALL SELECT agent_uuid::text, client_address || tag1, feedback_count, trim_scale(value_sum), 0, 0
		FROM erc8004_agent_client_tags
		UNION ALL SELECT agent_uuid::text, client_address || tag1, tag_feedback, trim_scale(tag_sum), 1, 0
		FROM erc8004_agent_clients) AS t};
	my $totals = 'SELECT feedback FROM v_erc8004_totals';
	my @before = map { $areg->psql_value($_) } $numbers, $lists, $totals;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$areg->psql('SELECT areg_rebuild_stats()');
	is_deeply([map { $areg->psql_value($_) } $numbers, $lists, $totals], \@before, "$what: statistics are those of the records");
}

is(scalar(() = $areg->pids_named('aregd writer 1')), 1, 'there is a writer');
ok(wait_until(10, sub { give(new_agent(), $clients[0], score => 1); $areg->psql_value(
	"SELECT count(*) FROM pg_stat_activity WHERE application_name = 'areg writer'") }), 'which stores feedback');

subtest 'what comes at the same time is stored together, and answered one by one' => sub {
	my ($one, $two) = (new_agent(), new_agent());
	my @given = ([$one, 0, score => 90, tag1 => 'quality', tag2 => 'fast', endpoint => 'https://agent.example/a2a'],
		[$two, 1, score => 87.5, file_uri => 'ipfs://file', file_hash => '0x' . '1' x 64],
		[$one, 2, value => -15, value_decimals => 1, tag1 => 'starred'],
		[$one, 3, value => 1234567890123456, tag1 => "it's {\"odd\", NULL\\}"],
		[$two, 4, score => 0], [$one, 0, score => 100], [$one, 0, score => 49.5, tag1 => "\x{263a}"],
		[$two, 6, value => 995, value_decimals => 1]);
	my @answers = in_one_lot([map { my ($uuid, $client, %member) = @$_;
		sub { give($uuid, $clients[$client], %member) } } @given]);
	my %stored = map { ($_->{id} => $_) } map { @{ $areg->get("/api/v1/agents/$_/feedback")->{json}{feedback} } } $one, $two;
	my $ids = join ',', map { $_->{json}{id} // 0 } @answers;

	is_deeply([map { $_->{status} } @answers], [(201) x 8], 'all are taken');
	is_deeply([map { $_->{json} } @answers], [map { $stored{ $_->{json}{id} // '' } } @answers], 'each hears of its own what the list says');
	for my $i (0 .. $#given) {
		my ($uuid, $client, %member) = @{ $given[$i] };
		my $said = $answers[$i]{json};

		is_deeply([@$said{qw(agent_uuid client_address)}], [$uuid, $clients[$client]{wallet}], 'who and whom');
		cmp_ok($said->{$_}, 'eq', $member{$_}, "and $_") for keys %member;
	}
	is($areg->psql_value("SELECT count(DISTINCT xmin::text) FROM erc8004_reputation WHERE id IN ($ids)"), 1, 'in one transaction');
	is_deeply([sort map { $answers[$_]{json}{feedback_index} } 0, 5, 6], [1, 2, 3], 'what one client gave an agent is counted on');
	is($areg->psql_value("SELECT string_agg(request_id, ',' ORDER BY subject_id::bigint) FROM audit_log
		WHERE action = 'feedback.give' AND subject_id IN (SELECT unnest(ARRAY[$ids])::text)"),
		join(',', map { $_->{headers}{'x-request-id'} } sort { $a->{json}{id} <=> $b->{json}{id} } @answers), 'each has its entry in the audit log');
	is($areg->psql_value("SELECT count(*) FROM audit_log l JOIN users u ON u.id = l.actor_user
		WHERE l.subject_id IN (SELECT unnest(ARRAY[$ids])::text) AND action = 'feedback.give'
			AND after->>'client_address' = u.wallet_address"), 8, 'by who gave it');
	is($areg->psql_value("SELECT count(*) FROM erc8004_events WHERE type = 'feedback.given' AND subject IN (SELECT unnest(ARRAY[$ids])::text)"), 8, 'and its event');
	is($areg->get("/api/v1/agents/$one/stats")->{json}{total_feedback}, 5, 'statistics say so at once');
	$areg->psql('SELECT areg_seal_audit()');
	my $verified = $areg->aregctl(qw(audit verify));
	is($verified->{exit}, 0, 'the chain of the log holds') or diag($verified->{stdout}, $verified->{stderr});
	recount_ok('a lot');
};

subtest 'what is refused is refused alone' => sub {
	my ($good, $asleep) = (new_agent(), new_agent());
	my $nowhere = '00000000-0000-4000-8000-000000000000';

	$areg->psql("UPDATE erc8004_agents SET status = 'suspended' WHERE agent_uuid = '$asleep'");
	$areg->settle;
	my @answers = in_one_lot([sub { give($good, $clients[0], score => 1) }, sub { give($nowhere, $clients[1], score => 2) },
		sub { give($asleep, $clients[2], score => 3) }, sub { give($good, $owner, score => 4) },
		sub { give($good, $clients[3], score => 5) }]);
	is($answers[$_]{status}, 201, 'taken') for 0, 4;
	problem_ok($answers[1], 404, 'agent_not_found');
	problem_ok($answers[2], 403, 'agent_suspended');
	problem_ok($answers[3], 403, 'forbidden');
	is($areg->get("/api/v1/agents/$good/stats")->{json}{total_feedback}, 2, 'nothing else is counted');
	recount_ok('refusals');
};

subtest 'nobody waits for an agent that somebody else holds but who gives it feedback' => sub {
	my ($held, $other) = (new_agent(), new_agent());
	my @answers = in_parallel(2, sub {
		my ($number) = @_;

		if ($number == 0) {
			my $begun = time;

			$areg->psql("DO \$\$ BEGIN PERFORM FROM erc8004_agent_stats WHERE agent_uuid = '$held' FOR UPDATE;
				FOR i IN 1 .. 600 LOOP PERFORM pg_sleep(0.1);
				EXIT WHEN 4 = (SELECT count(*) FROM erc8004_reputation WHERE agent_uuid = '$other'); END LOOP; END \$\$");
			return time - $begun;
		}
		wait_until(30, sub { $areg->psql_value("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'DO %pg_sleep(0.1)%' AND wait_event = 'PgSleep'") });
		return [map { { %$_ } } in_one_lot([sub { give($held, $clients[0], score => 1) },
			map { my $client = $_; sub { give($other, $client, score => 2) } } @clients[1 .. 4]])];
	});
	my ($held_s, $given) = @answers;

	is_deeply([map { $_->{status} } @$given], [(201) x 5], 'all are taken');
	cmp_ok($held_s, '<', 60, 'the agent was held until the others were stored, so they did not wait');
	recount_ok('a held agent');
};

subtest 'a lot that PostgreSQL refuses is stored one by one' => sub {
	my $agent = new_agent();
	my @answers;

	$areg->psql(q{CREATE FUNCTION refuse_thirteen() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		IF NEW.value = 13 THEN RAISE EXCEPTION 'no' USING ERRCODE = 'XX000'; END IF; RETURN NEW; END $$;
		CREATE TRIGGER refuse_thirteen BEFORE INSERT ON erc8004_reputation FOR EACH ROW EXECUTE FUNCTION refuse_thirteen()});
	@answers = in_one_lot([map { my $score = $_; sub { give($agent, $clients[$score - 11], score => $score) } } 11 .. 15]);
	$areg->psql('DROP TRIGGER refuse_thirteen ON erc8004_reputation; DROP FUNCTION refuse_thirteen()');
	is_deeply([map { $_->{status} } @answers], [201, 201, 500, 201, 201], 'only the one that is refused fails');
	recount_ok('a refused lot');
};

subtest 'a writer that dies: what it had may be lost or not, and that is said' => sub {
	my $agent = new_agent();
	my @answers = in_one_lot([map { my $client = $_; sub { give($agent, $client, score => 50) } } @clients[0 .. 3]],
		sub { kill KILL => $_[0] });

	problem_ok($_, 503, 'outcome_unknown') for @answers;
	is(give($agent, $clients[4], score => 50)->{status}, 201, 'the next one is stored without it');
	ok(writer(), 'and it is replaced');
	ok(wait_until(15, sub { give($agent, $clients[5], score => 50); $areg->psql_value(
		"SELECT count(*) FROM pg_stat_activity WHERE application_name = 'areg writer'") }), 'by one that stores');
	recount_ok('a dead writer');
};

# Clients at once who give feedback to few agents while something happens; returns what they were
# answered, by status, and the ids of what was acknowledged.
sub storm
{
	my ($agents, $each, $disturb) = @_;
	my ($said, @seen) = in_parallel(1 + 2 * @clients, sub {
		my ($number) = @_;
		my (%count, @ids);

		return $disturb->() if $number == 0;
		for (1 .. $each) {
			my $answer = give($agents->[rand @$agents], $clients[$number % @clients], score => int rand 101);
			$count{ $answer->{status} }++;
			push @ids, $answer->{json}{id} if $answer->{status} == 201;
		}
		return [\%count, \@ids];
	});
	my (%count, @ids);

	for (@seen) {
		my ($of, $ids) = @$_;
		$count{$_} += $of->{$_} for keys %$of;
		push @ids, @$ids;
	}
	return (\%count, \@ids);
}

sub stored_ok
{
	my ($agents, $count, $ids, $what) = @_;
	my $list = join ',', map { "'$_'" } @$agents;
	my $stored = $areg->psql_value("SELECT count(*) FROM erc8004_reputation WHERE agent_uuid IN ($list)");
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	is($areg->psql_value('SELECT count(DISTINCT id) FROM erc8004_reputation WHERE id IN (' . join(',', @$ids) . ')'),
		scalar @$ids, "$what: everything acknowledged is there, once");
	cmp_ok($stored, '<=', @$ids + ($count->{503} // 0), 'and nothing that nobody asked for');
	recount_ok($what);
}

subtest 'writers are killed under load, and nothing is lost or doubled' => sub {
	my @agents = map { new_agent() } 1 .. 3;
	my ($count, $ids) = storm(\@agents, 40, sub {
		for (1 .. 8) {
			my ($writer) = $areg->pids_named('aregd writer 1');
			kill KILL => $writer if $writer;
			sleep 0.15;
		}
		return 1;
	});

	cmp_ok($count->{201}, '>', 500, "most are stored: $count->{201}");
	is_deeply([grep { !/^(?:201|503)$/ } keys %$count], [], 'the rest is told that it may not be');
	stored_ok(\@agents, $count, $ids, 'killed writers');
};

subtest 'a reload loses none' => sub {
	my @agents = map { new_agent() } 1 .. 3;
	my ($count, $ids) = storm(\@agents, 60, sub {
		for (1 .. 3) {
			$areg->aregctl('reload');
			sleep 0.2;
		}
		return 1;
	});

	is_deeply($count, { 201 => 16 * 60 }, 'all are stored');
	stored_ok(\@agents, $count, $ids, 'reloads');
	ok(wait_until(40, sub { 1 == (() = $areg->pids_named('aregd writer 1')) }), 'old writers end');
};

subtest 'PostgreSQL restarts under load' => sub {
	my @agents = map { new_agent() } 1 .. 3;
	my ($count, $ids) = storm(\@agents, 40, sub {
		sleep 0.3;
		$areg->stop_server('postgres');
		$areg->start_server('postgres');
		return 1;
	});

	is_deeply([grep { !/^(?:201|503)$/ } keys %$count], [], 'stored, or told that it may not be');
	stored_ok(\@agents, $count, $ids, 'a restart');
};

subtest 'no writer' => sub {
	my @agents = map { new_agent() } 1 .. 3;

	$areg->stop_server('aregd');
	$areg->start_server('aregd', set => { feedback_writers => 0 });
	is(scalar(() = $areg->pids_named('aregd writer 1')), 0, 'with feedback_writers = 0 there is none');
	my ($count, $ids) = storm(\@agents, 20, sub { 1 });
	is_deeply($count, { 201 => 16 * 20 }, 'all are stored');
	stored_ok(\@agents, $count, $ids, 'no writer');
};

subtest 'a writer that hangs is waited for, but not for long' => sub {
	my $agent = new_agent();

	$areg->stop_server('aregd');
	$areg->start_server('aregd', set => { database_statement_timeout => '1s', database_connect_timeout => '1s' });
	ok(wait_until(10, sub { give(new_agent(), $clients[0], score => 1); $areg->psql_value(
		"SELECT count(*) FROM pg_stat_activity WHERE application_name = 'areg writer'") }), 'the writer stores');
	my $writer = writer();
	kill STOP => $writer;
	problem_ok(give($agent, $clients[0], score => 1), 503, 'outcome_unknown');
	my @answers = in_parallel(WORKERS, sub { give($agent, $clients[$_[0]], score => 2)->{status} });
	kill CONT => $writer;
	my $stored = grep { $_ == 201 } @answers;
	ok(wait_until(10, sub { give(new_agent(), $clients[0], score => 1)->{status} == 201 }), 'it goes on');
	is($areg->get("/api/v1/agents/$agent/stats")->{json}{total_feedback}, $stored, 'what was given up is not stored later');
	recount_ok('a hanging writer');
};

for my $writers (8, 0) {
	subtest "one client gives one agent so much a day, with feedback_writers = $writers" => sub {
		my @answers;

		$areg->stop_server('aregd');
		$areg->start_server('aregd', set => { feedback_writers => $writers, feedback_per_client_per_day => 5,
			database_statement_timeout => '20s' });
		my ($agent, $other) = (new_agent(), new_agent());
		if ($writers) {
			ok(wait_until(10, sub { give(new_agent(), $clients[0], score => 1); $areg->psql_value(
				"SELECT count(*) FROM pg_stat_activity WHERE application_name = 'areg writer'") }), 'the writer stores');
			@answers = in_one_lot([map { sub { give($agent, $clients[0], score => 1) } } 1 .. WORKERS]);
			is_deeply([sort map { $_->{status} } @answers], [(201) x 5, (429) x 3], 'of one lot');
		} else {
			@answers = in_parallel(2 * WORKERS, sub { give($agent, $clients[0], score => 1) });
			is_deeply([sort map { $_->{status} } @answers], [(201) x 5, (429) x 11], 'at the same time');
		}
		for my $answer (grep { $_->{status} == 429 } @answers) {
			problem_ok($answer, 429, 'feedback_limit_exceeded');
			cmp_ok(abs($answer->{headers}{'retry-after'} - (86400 - time % 86400)), '<=', 60, 'until the day ends');
		}
		is_deeply([sort { $a <=> $b } map { $_->{json}{feedback_index} // () } @answers], [1 .. 5], 'counted on without gaps');

		my ($count) = storm([$agent], 20, sub { 1 });
		is_deeply($count, { 201 => 5 * (WORKERS - 1), 429 => 16 * 20 - 5 * (WORKERS - 1) }, 'each client, to the last');
		is($areg->psql_value("SELECT count(*) FROM erc8004_reputation WHERE agent_uuid = '$agent'"), 5 * WORKERS,
			'nothing else is stored');
		is(give($other, $clients[0], score => 1)->{status}, 201, 'another agent is another matter');
		$areg->psql("UPDATE erc8004_reputation SET is_revoked = true, revoked_at = now() WHERE agent_uuid = '$agent'");
		problem_ok(give($agent, $clients[0], score => 1), 429, 'feedback_limit_exceeded');
		recount_ok('limits a day');
		problem_ok(give($agent, $clients[0], score => 1), 429, 'feedback_limit_exceeded');

		# An import counts for nothing, and the system has no limit.
		$areg->psql("INSERT INTO erc8004_reputation (agent_uuid, client_address, feedback_index, value, source)
			SELECT '$other', '$clients[0]{wallet}', 100 + n, 50, 'import' FROM generate_series(1, 20) n");
		is(give($other, $clients[0], score => 1)->{status}, 201, 'what was imported is not counted');
		is($areg->psql_value("SELECT string_agg(DISTINCT outcome, ' ') FROM generate_series(1, 9), areg_give_feedback('$agent',
			areg_system_address(), '95', NULL, NULL, '', '', NULL, NULL, NULL, true)"), 'created', 'nor automatic feedback');

		$areg->psql('UPDATE erc8004_agent_clients SET given_on = given_on - 1');
		is_deeply([map { give($agent, $clients[0], score => 1)->{status} } 1 .. 6], [(201) x 5, 429], 'the next day is a new one');
	};
}

$areg->remove;

subtest 'two writers' => sub {
	$areg = Areg::Test->start(workers => 2 * WORKERS);
	$owner = $areg->make_user;
	@clients = map { $areg->make_user } 1 .. WORKERS;
	my @agents = map { new_agent() } 1 .. 12;

	is(scalar(map { $areg->pids_named("aregd writer $_") } 1 .. 8), 2, 'for every eight workers there is one');
	my ($count, $ids) = storm(\@agents, 40, sub { 1 });
	is_deeply($count, { 201 => 16 * 40 }, 'all are stored');
	stored_ok(\@agents, $count, $ids, 'two writers');
	is($areg->psql_value("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'areg writer'"), 2, 'by both');
};

done_testing;
