#!/usr/bin/perl
# SPDX-License-Identifier: Apache-2.0
# The registry as a whole: chains, totals, leaders, accounts.
use strict;
use warnings;

use File::Basename qw(dirname);
use Test::More;

use lib dirname(__FILE__) . '/../lib';
use Areg::Test qw(address hash in_parallel problem_ok sample_registry wait_until);

my $V1 = '/api/v1';

my $areg = Areg::Test->start(workers => 3);

sub ok_json
{
	my ($path) = @_;
	my $answer = $areg->get("$V1$path");

	is($answer->{status}, 200, "GET $path") or diag($answer->{body});
	return $answer->{json};
}

sub value { return $areg->psql_value($_[0]) }

# ---- an empty registry ----

is_deeply(ok_json('/stats'), {
	agents => { total => 0, active => 0, pending => 0, suspended => 0, revoked => 0 },
	feedback => { total => 0, revoked => 0 },
	payments => { total => 0, verified => 0, failed => 0, amount_usdc => '0.000000' },
	validations => { total => 0, completed => 0 },
	chains => 4 }, 'an empty registry has nothing of anything');
my $empty = { total => 0, newest => [] };
my $nobody = address('nobody');
is_deeply(ok_json("/accounts/$nobody"), { address => $nobody, agents => $empty, feedback => $empty,
	validations => $empty }, 'an unknown account has nothing');
is_deeply(ok_json('/leaderboard'), { by => 'reputation_score', chain => undef, min_feedback => 3,
	leaders => [] }, 'nobody leads');

# ---- read after write, through the API ----

my $owner = $areg->make_user;
my $client = $areg->make_user;

sub register
{
	my ($name, $chain) = @_;
	my $answer = $areg->post("$V1/agents/register", { owner_address => $owner->{wallet},
		chain => $chain, registration_file => { name => $name, description => "It is $name." } },
		{ key => $owner->{key} });

	die $answer->{body} if $answer->{status} != 201;
	return $answer->{json};
}

sub give
{
	my ($agent, $score) = @_;
	my $answer = $areg->post("$V1/agents/feedback", { agent_uuid => $agent->{agent_uuid},
		client_address => $client->{wallet}, score => $score }, { key => $client->{key} });

	die $answer->{body} if $answer->{status} != 201;
	return $answer->{json};
}

my $first = register('First', 'base');
is_deeply($areg->get("$V1/stats")->{json}{agents},
	{ total => 1, active => 1, pending => 0, suspended => 0, revoked => 0 },
	'a registration is in the totals on the read that follows');
my @wrong;
for my $n (1 .. 250) {
	give($first, 80);
	my $total = $areg->get("$V1/stats")->{json}{feedback}{total};
	push @wrong, "$total after $n" if $total != $n;
}
is_deeply(\@wrong, [], 'and so is each of 250 feedback records');
ok(wait_until(20, sub { value('SELECT count(*) FROM erc8004_total_changes') < 100 }),
	'what makes up the totals is folded by the way');
is($areg->get("$V1/stats")->{json}{feedback}{total}, 250, 'and they stay the same');

# ---- a registry with everything in it ----

# 400 agents on three chains in every status, with feedback and payments of every kind; agents that
# share a score, so that ties are there to be broken.
$areg->psql(<<'SQL');
INSERT INTO erc8004_agents (chain, chain_id, registry_address, agent_id, owner_address, status, source, name)
SELECT chain, n, '0x' || repeat('1', 40), CASE WHEN status <> 'pending' THEN 1000 + n END,
	'0x' || repeat('2', 40), status, 'import', 'Agent ' || n
FROM (SELECT n, (ARRAY['base', 'ethereum', 'sepolia'])[n % 3 + 1] AS chain,
	CASE n % 20 WHEN 0 THEN 'suspended' WHEN 1 THEN 'revoked' WHEN 2 THEN 'pending' ELSE 'active' END AS status
	FROM generate_series(1, 400) n) AS given;
INSERT INTO erc8004_reputation (agent_uuid, client_address, feedback_index, value, tag1, is_revoked, revoked_at)
SELECT agent_uuid, '0x' || repeat(to_hex(8 + k % 7), 40), k, (chain_id * 7 + chain_id % 5 * k) % 100,
	CASE WHEN k = 8 THEN 'uptime' ELSE '' END, k = 9, CASE WHEN k = 9 THEN now() END
FROM erc8004_agents, generate_series(1, 9) k WHERE source = 'import' AND k <= chain_id % 10;
INSERT INTO x402_payments (tx_hash, chain, amount_usdc, payer, payee, status, settled_at)
SELECT '0x' || lpad(to_hex(n), 64, '0'), 'base', n % 50 + 0.25, '0x' || repeat('4', 40), '0x' || repeat('5', 40),
	(ARRAY['pending', 'verified', 'failed', 'rejected'])[n % 4 + 1], CASE WHEN n % 4 > 0 THEN now() END
FROM generate_series(1, 800) n;
INSERT INTO erc8004_agent_payments (payment_id, agent_uuid)
SELECT p.id, a.agent_uuid FROM x402_payments p JOIN erc8004_agents a ON a.chain_id = p.id % 300
WHERE a.source = 'import' AND p.id < 700;
INSERT INTO erc8004_validations (agent_uuid, validator_address, request_uri, request_hash, status, response, responded_at)
SELECT agent_uuid, '0x' || repeat('6', 40), 'ipfs://request', '0x' || lpad(to_hex(chain_id), 64, '0'),
	CASE WHEN chain_id % 3 = 0 THEN 'completed' ELSE 'pending' END, CASE WHEN chain_id % 3 = 0 THEN 50 END,
	CASE WHEN chain_id % 3 = 0 THEN now() - chain_id % 7 * interval '1 hour' END
FROM erc8004_agents WHERE source = 'import';
SQL

sub counted_totals
{
	my ($row) = $areg->psql(<<'SQL');
SELECT (SELECT count(*) FROM erc8004_agents), (SELECT count(*) FROM erc8004_agents WHERE status = 'active'),
	(SELECT count(*) FROM erc8004_agents WHERE status = 'pending'),
	(SELECT count(*) FROM erc8004_agents WHERE status = 'suspended'),
	(SELECT count(*) FROM erc8004_agents WHERE status = 'revoked'),
	(SELECT count(*) FROM erc8004_reputation), (SELECT count(*) FROM erc8004_reputation WHERE is_revoked),
	(SELECT count(*) FROM x402_payments), (SELECT count(*) FROM x402_payments WHERE status = 'verified'),
	(SELECT count(*) FROM x402_payments WHERE status = 'failed'),
	(SELECT sum(amount_usdc) FROM x402_payments WHERE status = 'verified'),
	(SELECT count(*) FROM erc8004_validations), (SELECT count(*) FROM erc8004_validations WHERE status = 'completed')
SQL
	my @of = @$row;
	my %totals = (chains => 4);
	@{ $totals{agents} }{qw(total active pending suspended revoked)} = @of[0 .. 4];
	@{ $totals{feedback} }{qw(total revoked)} = @of[5, 6];
	@{ $totals{payments} }{qw(total verified failed amount_usdc)} = @of[7 .. 10];
	@{ $totals{validations} }{qw(total completed)} = @of[11, 12];
	return \%totals;
}

my $stats = ok_json('/stats');
is_deeply($stats, counted_totals(), 'totals are what a count gives');
ok(!(grep { !$_ || $_ eq '0.000000' } map { ref $_ ? values %$_ : $_ } values %$stats),
	'of everything there is');
$areg->psql("UPDATE erc8004_reputation SET is_revoked = true, revoked_at = now() WHERE feedback_index = 3;"
	. "UPDATE x402_payments SET status = 'verified', settled_at = now() WHERE status = 'pending';"
	. "UPDATE erc8004_validations SET status = 'completed', response = 1, responded_at = now()"
	. " WHERE status = 'pending' AND request_hash > '0x' || repeat('0', 61) || '100';"
	. "DELETE FROM erc8004_agents WHERE chain_id % 50 = 7");
is_deeply(ok_json('/stats'), counted_totals(), 'and after revocations, settlements, responses and deletions');

# Readers while several write: totals never go back, and end where a count does.
my @seen = in_parallel(5, sub {
	my ($i) = @_;
	my ($last, @back) = (0);

	if ($i < 3) {
		give($first, 10 * $i) for 1 .. 60;
		return [];
	}
	for (1 .. 150) {
		my $total = $areg->get("$V1/stats")->{json}{feedback}{total};
		push @back, "$last, then $total" if $total < $last;
		$last = $total;
	}
	return \@back;
});
is_deeply([map { @$_ } @seen], [], 'totals never go back while others write');
is_deeply(ok_json('/stats'), counted_totals(), 'and are exact in the end');

# ---- chains ----

my %chains = map { ($_->{name} => $_) } @{ ok_json('/chains')->{chains} };
is_deeply([sort keys %chains], [qw(base base-sepolia ethereum sepolia)], 'the chains of the configuration');
is_deeply($chains{'base-sepolia'}, { name => 'base-sepolia', aliases => ['baseSepolia'], chain_id => 84532,
	identity_registry => lc sample_registry('base-sepolia'),
	reputation_registry => lc sample_registry('base-sepolia', 'reputation'), validation_registry => undef,
	authority => 'registry', agents => 0, indexed_block => undef }, 'each with what is said of it there');
is_deeply({ map { ($_ => $chains{$_}{agents}) } keys %chains },
	{ 'base-sepolia' => 0, map { @$_ } $areg->psql('SELECT chain, count(*) FROM erc8004_agents GROUP BY chain') },
	'and its number of agents');

# ---- leaderboard ----

# The uuids in order, and what they are ranked by, in plain words.
sub leaders
{
	my ($by, $chain, $min, $limit) = @_;
	my $of = { reputation_score => 'reputation_score', total_feedback => 'nullif(total_feedback, 0)',
		total_amount_usdc => 'nullif(total_amount_usdc, 0)' }->{$by};

	my $counted = $by ne 'reputation_score' ? 'total_feedback' : '(SELECT count(DISTINCT client_address)'
		. ' FROM erc8004_reputation r WHERE r.agent_uuid = v.agent_uuid AND NOT is_revoked AND score IS NOT NULL)';
	return [map { $_->[0] } $areg->psql("SELECT agent_uuid FROM v_erc8004_agent_stats v WHERE status = 'active'"
		. " AND $of IS NOT NULL AND $counted >= $min" . ($chain ? " AND chain = '$chain'" : '')
		. " ORDER BY $of DESC, agent_uuid DESC LIMIT $limit")];
}

for my $by (qw(reputation_score total_feedback total_amount_usdc)) {
	for my $case ([undef, undef, undef], ['base', undef, undef], ['sepolia', 0, 100], [undef, 6, 7],
		[undef, 0, 1], ['base-sepolia', 0, 10], [undef, 999999999, 50]) {
		my ($chain, $min, $limit) = @$case;
		my $path = "/leaderboard?by=$by" . ($chain ? "&chain=$chain" : '')
			. (defined $min ? "&min_feedback=$min" : '') . (defined $limit ? "&limit=$limit" : '');
		my $answer = ok_json($path);
		my $leaders = delete $answer->{leaders};

		is_deeply([map { $_->{agent_uuid} } @$leaders], leaders($by, $chain, $min // 3, $limit // 50),
			'gives who leads, in order');
		is_deeply([map { $_->{rank} } @$leaders], [1 .. @$leaders], 'ranked from 1');
		is_deeply($answer, { by => $by, chain => $chain, min_feedback => $min // 3 }, 'and says of what');
	}
}
my $praised = register('Praised', 'base');
give($praised, 100) for 1 .. 3;
sub leads { return scalar grep { $_->{agent_uuid} eq $praised->{agent_uuid} } @{ ok_json("/leaderboard?$_[0]")->{leaders} } }
is(leads('limit=100'), 0, 'one client with three records makes no leader');
is(leads('limit=100&min_feedback=2'), 0, 'nor one of two clients');
is(leads('limit=1&min_feedback=1'), 1, 'but one of one');
my ($leader) = @{ ok_json('/leaderboard?limit=1')->{leaders} };
is(delete $leader->{rank}, 1, 'a leader has its rank');
is_deeply($leader, $areg->get("$V1/agents/$leader->{agent_uuid}/stats")->{json}, 'and its statistics');
is(scalar @{ ok_json('/leaderboard?min_feedback=1&limit=100')->{leaders} }, 100, 'at most 100');
my $suspended = $areg->get("$V1/leaderboard?limit=1")->{json}{leaders}[0]{agent_uuid};
$areg->psql("UPDATE erc8004_agents SET status = 'suspended' WHERE agent_uuid = '$suspended'");
isnt($areg->get("$V1/leaderboard?limit=1")->{json}{leaders}[0]{agent_uuid}, $suspended,
	'who is suspended leads no more, on the read that follows');

problem_ok($areg->get("$V1/leaderboard?by=name"), 400, 'validation_failed', 'by');
problem_ok($areg->get("$V1/leaderboard?chain=mars"), 400, 'chain_not_supported', 'chain');
problem_ok($areg->get("$V1/leaderboard?min_feedback=-1&limit=0&by=&x=1&chain=base&chain=base"), 400,
	'validation_failed', qw(min_feedback limit by x chain));
problem_ok($areg->get("$V1/leaderboard?limit=101"), 400, 'validation_failed', 'limit');
problem_ok($areg->get("$V1/stats?x=1"), 400, 'validation_failed', 'x');
problem_ok($areg->get("$V1/chains?x=1"), 400, 'validation_failed', 'x');
problem_ok($areg->get("$V1/accounts/$nobody?limit=1"), 400, 'validation_failed', 'limit');
is(ok_json('/leaderboard?chain=baseSepolia')->{chain}, 'base-sepolia', 'a chain goes by its aliases, too');

# ---- accounts ----

my $rich = '0x' . '2' x 40;
my $account = ok_json("/accounts/$rich");
is($account->{agents}{total}, value("SELECT count(*) FROM erc8004_agents WHERE owner_address = '$rich'"),
	'an account: the number of its agents');
my @keys = qw(agent_uuid agent_id chain name status registered_at);
is_deeply([map { my $agent = $_; [map { $agent->{$_} } @keys] } @{ $account->{agents}{newest} }],
	[$areg->psql("SELECT agent_uuid, agent_id, chain, name, status, rfc3339(created_at) FROM erc8004_agents"
		. " WHERE owner_address = '$rich' ORDER BY created_at DESC, agent_uuid DESC LIMIT 10")],
	'and the newest ten');

$account = ok_json("/accounts/$client->{wallet}");
is($account->{feedback}{total}, value("SELECT count(*) FROM erc8004_reputation WHERE client_address = '$client->{wallet}'"),
	'feedback that it gave');
is_deeply([map { $_->{id} } @{ $account->{feedback}{newest} }], [map { $_->[0] } $areg->psql(
	"SELECT id FROM erc8004_reputation WHERE client_address = '$client->{wallet}' ORDER BY id DESC LIMIT 10")],
	'and the newest ten of it');
my $given = give($first, 99.5);
my $newest = ok_json("/accounts/$client->{wallet}")->{feedback}{newest}[0];
is_deeply({ map { ($_ => $newest->{$_}) } keys %$given }, $given,
	'the record that was just given, as it was answered');
is_deeply([sort keys %$newest], [sort qw(id agent_uuid client_address feedback_index score value value_decimals
	tag1 tag2 is_revoked created_at endpoint file_uri file_hash is_automatic revoked_at is_self)], 'whole');

my $validator = '0x' . '6' x 40;
$account = ok_json("/accounts/$validator");
is($account->{validations}{total}, value("SELECT count(*) FROM erc8004_validations"
	. " WHERE validator_address = '$validator' AND status = 'completed'"), 'validations that it answered');
is_deeply([map { $_->{request_hash} } @{ $account->{validations}{newest} }], [map { $_->[0] } $areg->psql(
	"SELECT request_hash FROM erc8004_validations WHERE status = 'completed' ORDER BY responded_at DESC, id DESC LIMIT 10")],
	'and the newest ten');
is_deeply([sort keys %{ $account->{validations}{newest}[0] }], [sort qw(request_hash agent_uuid validator_address
	request_uri status response response_uri response_hash tag requested_at responded_at is_self)], 'whole');
ok(!(grep { $_->{is_self} } @{ $account->{validations}{newest} }), 'none of them of an agent of its own');

# What an address says of an agent is marked once it was the agent's operator, and of that agent only.
my $own = $areg->psql_value("SELECT agent_uuid FROM erc8004_validations WHERE validator_address = '$validator'"
	. " AND status = 'completed' ORDER BY responded_at DESC, id DESC OFFSET 1 LIMIT 1");
$areg->psql("INSERT INTO erc8004_reputation (agent_uuid, client_address, feedback_index, value)"
	. " SELECT uuid, '$validator', 1, 1 FROM unnest(ARRAY['$own', '$first->{agent_uuid}']::uuid[]) AS uuid");
$areg->psql("INSERT INTO erc8004_agent_addresses (agent_uuid, address, role, since, until)"
	. " VALUES ('$own', '$validator', 'operator', now() - interval '1 day', now())");
$account = ok_json("/accounts/$validator");
for my $list (qw(feedback validations)) {
	my @newest = @{ $account->{$list}{newest} };
	is_deeply([map { $_->{is_self} ? 1 : 0 } @newest], [map { $_->{agent_uuid} eq $own ? 1 : 0 } @newest],
		"$list: is_self where it was once the agent's operator");
}
# A parser keeps one of two members of the same name, so the text is counted.
my $text = $areg->get("$V1/accounts/$validator")->{body};
is(scalar(() = $text =~ /"is_self":/g), scalar(map { @{ $account->{$_}{newest} } } qw(feedback validations)),
	'and each record says so once');

my $mixed = '0x8004A169FB4a3325136EB29fA0ceB6D2e539a432';
is(ok_json("/accounts/$mixed")->{address}, lc $mixed, 'an address in mixed case with its checksum');
for my $bad ('0x12', 'nobody', '0x8004a169FB4a3325136EB29fA0ceB6D2e539a432', "$nobody%00", "0x" . 'g' x 40) {
	problem_ok($areg->get("$V1/accounts/$bad"), 400, $bad =~ /%00/ ? 'bad_request' : 'invalid_address');
}

my $busy = address('busy');
my $give = "INSERT INTO erc8004_reputation (agent_uuid, client_address, feedback_index, value)"
	. " SELECT '$first->{agent_uuid}', '$busy', n, 1 FROM generate_series";
$areg->psql("$give(1, 10000) n");
is_deeply([@{ ok_json("/accounts/$busy")->{feedback} }{qw(total total_is_estimate)}], [10000, undef],
	'a total is exact up to 10,000');
$areg->psql("$give(10001, 10002) n");
my $many = ok_json("/accounts/$busy")->{feedback};
ok($many->{total} > 10000 && $many->{total_is_estimate}, 'and above says that it is an estimate');

# ---- plans ----

# Of the statements that the server sends, as it sends them: from PostgreSQL's log.
$areg->psql("LOAD 'auto_explain'; ALTER SYSTEM SET session_preload_libraries = 'auto_explain';"
	. " ALTER SYSTEM SET auto_explain.log_min_duration = 0; ALTER SYSTEM SET enable_seqscan = off");
$areg->stop_server($_) for qw(aregd postgres);
$areg->start_server($_) for qw(postgres aregd);
$areg->psql('ANALYZE');
my $before = length $areg->log_text('postgres');
my @asked = ('/leaderboard', map { ("/leaderboard?by=$_", "/leaderboard?by=$_&chain=base") }
	qw(reputation_score total_feedback total_amount_usdc));
ok_json($_) for @asked, "/accounts/$busy", '/events?limit=5';
my $log;
my @plans;
ok(wait_until(20, sub {
	$log = substr $areg->log_text('postgres'), $before;
	@plans = grep { /FROM erc8004_(?:agent_stats|reputation f|events)/ } $log =~ /(plan:\n(?:\t.*\n)+)/g;
	return @plans >= @asked + 2;
}), 'the plans of leaderboards, accounts and events');
for my $plan (@plans) {
	unlike($plan, qr/Seq Scan on erc8004_(?:agents|agent_stats|reputation|validations|events)\b/,
		'goes by indexes') or diag($plan);
	unlike($plan, qr/hashed SubPlan/, 'asks for the addresses of ten agents, not for all') or diag($plan);
}
is(scalar(grep { /erc8004_agent_stats_leaders_/ } @plans), scalar @asked,
	'every leaderboard from the index of its order');
is(scalar(grep { /Index Cond: .*\bopinions >= / } @plans), 3, 'which knows how many clients a score rests on');

done_testing;
