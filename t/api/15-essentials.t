# SPDX-License-Identifier: Apache-2.0
# What everybody expects of a registry of agents, one test each: real requests through nginx, and a
# look into the database.
use strict;
use warnings;

use File::Basename qw(dirname);
use Test::More;

use lib dirname(__FILE__) . '/../lib';
use Areg::Test qw(address hash problem_ok wait_until);

my $areg = Areg::Test->start(workers => 4, limits => 'default');
my $owner = $areg->make_user(tier => 'enterprise');
my $client = $areg->make_user(tier => 'enterprise');
my $facilitator = $areg->make_user(tier => 'enterprise', scopes => ['payments:write']);
my $names = 0;

sub file { return { name => 'Agent ' . ++$names, description => 'It answers.', @_ } }

sub register
{
	my ($who, %member) = @_;
	return $areg->post('/api/v1/agents/register',
		{ owner_address => $who->{wallet}, chain => 'base', registration_file => file(), %member },
		{ key => $who->{key} });
}

sub give
{
	my ($uuid, %member) = @_;
	return $areg->post('/api/v1/agents/feedback',
		{ agent_uuid => $uuid, client_address => $client->{wallet}, score => 90, %member },
		{ key => $client->{key} });
}

sub count { return $areg->psql_value("SELECT count(*) FROM $_[0]") }

my $agent = register($owner)->{json} or BAIL_OUT('no agent can be registered');
my $nobody = '00000000-0000-4000-8000-000000000000';

subtest 'registration succeeds' => sub {
	my $answer = register($owner, metadata => { team => 'blue' });

	is($answer->{status}, 201, 'created');
	my ($row) = $areg->psql(qq{SELECT a.owner_address, a.status, a.agent_id, m.key, convert_from(m.value, 'UTF8')
		FROM erc8004_agents a JOIN erc8004_agent_metadata m USING (agent_uuid)
		WHERE agent_uuid = '$answer->{json}{agent_uuid}'});
	is_deeply($row, [$owner->{wallet}, 'active', $answer->{json}{agent_id}, 'team', 'blue'], 'stored');
};

subtest 'duplicate registration refused' => sub {
	my $before = count('erc8004_agents');
	my $file = file();

	my $first = register($owner, registration_file => $file);
	is($first->{status}, 201, 'the first is created');
	my $second = register($owner, registration_file => $file);
	problem_ok($second, 409, 'agent_already_exists');
	is($second->{json}{agent_uuid}, $first->{json}{agent_uuid}, 'and told which agent it is');
	is(count('erc8004_agents'), $before + 1, 'one is stored');
};

subtest 'invalid owner' => sub {
	my $before = count('erc8004_agents');

	problem_ok(register($owner, owner_address => '0x123'), 400, 'invalid_address');
	problem_ok(register($owner, owner_address => address('a stranger')), 403, 'forbidden');
	is(count('erc8004_agents'), $before, 'nothing is stored');
};

subtest 'without authentication' => sub {
	my $before = count('erc8004_agents');
	my $body = { owner_address => $owner->{wallet}, chain => 'base', registration_file => file() };
	my $answer = $areg->post('/api/v1/agents/register', $body);

	problem_ok($answer, 401, 'unauthorized');
	like($answer->{headers}{'www-authenticate'}, qr/^Bearer/, 'says how');
	problem_ok($areg->post('/api/v1/agents/register', $body, { key => 'areg_live_wrong' }), 401,
		'unauthorized');
	is(count('erc8004_agents'), $before, 'nothing is stored');
};

subtest 'feedback succeeds' => sub {
	my $answer = give($agent->{agent_uuid}, score => 95.5, tag1 => 'starred');

	is($answer->{status}, 201, 'created');
	my ($row) = $areg->psql("SELECT agent_uuid, client_address, feedback_index, trim_scale(score), tag1
		FROM erc8004_reputation WHERE id = $answer->{json}{id}");
	is_deeply($row, [$agent->{agent_uuid}, $client->{wallet}, 1, '95.5', 'starred'], 'stored');
};

subtest 'invalid score' => sub {
	my $before = count('erc8004_reputation');

	problem_ok(give($agent->{agent_uuid}, score => $_), 400, 'invalid_score') for 101, -1;
	is(count('erc8004_reputation'), $before, 'nothing is stored');
};

subtest 'nonexistent agent' => sub {
	my $before = count('erc8004_reputation');

	problem_ok($areg->get("/api/v1/agents/$nobody$_"), 404, 'agent_not_found')
		for '', '/stats', '/reputation';
	problem_ok(give($nobody), 404, 'agent_not_found');
	is(count('erc8004_reputation'), $before, 'nothing is stored');
};

sub link_payment
{
	my ($who, $tx) = @_;
	return $areg->post('/api/v1/agents/link-payment',
		{ agent_uuid => $agent->{agent_uuid}, tx_hash => $tx, chain => 'base' }, { key => $who->{key} });
}

subtest 'payment linking succeeds' => sub {
	my $tx = hash('paid');
	my $paid = $areg->post('/api/v1/payments',
		{ tx_hash => $tx, chain => 'base', amount_usdc => '12.500000', payer => $client->{wallet},
			payee => $owner->{wallet}, status => 'verified' },
		{ key => $facilitator->{key} });

	is($paid->{status}, 201, 'the payment is recorded');
	# The owner has several agents: whom it was for, the one who recorded it knows.
	problem_ok(link_payment($owner, $tx), 403, 'payee_ambiguous');
	my $answer = link_payment($facilitator, $tx);
	is($answer->{status}, 200, 'and linked');
	is($answer->{json}{success}, JSON::PP::true, 'says so');
	my ($row) = $areg->psql("SELECT l.agent_uuid, p.amount_usdc, r.client_address, trim_scale(r.score), r.tag1
		FROM erc8004_agent_payments l JOIN x402_payments p ON p.id = l.payment_id
		JOIN erc8004_reputation r ON r.agent_uuid = l.agent_uuid AND r.is_automatic
		WHERE p.tx_hash = '$tx'");
	is_deeply($row, [$agent->{agent_uuid}, '12.500000', '0x0000000000000000000000000000000000000001', 95,
		'payment_success'], 'the link and its feedback are stored');
	is(link_payment($facilitator, $tx)->{status}, 200, 'once more is no fault');
	is(count("erc8004_reputation WHERE is_automatic"), 1, 'and gives no second feedback');
};

subtest 'nonexistent payment' => sub {
	problem_ok(link_payment($owner, hash('never paid')), 404, 'payment_not_found');
	is(count('erc8004_agent_payments'), 1, 'nothing is stored');
};

subtest 'get by uuid' => sub {
	my $answer = $areg->get("/api/v1/agents/$agent->{agent_uuid}");

	is($answer->{status}, 200, 'found');
	is_deeply([@{ $answer->{json} }{qw(agent_uuid agent_id owner_address chain)}],
		[@$agent{qw(agent_uuid agent_id owner_address chain)}], 'it is that one');
	is_deeply($answer->{json}{registration_file}, $agent->{registration_file}, 'with its file');
};

subtest 'stats' => sub {
	my $stats = $areg->get("/api/v1/agents/$agent->{agent_uuid}/stats")->{json};
	my ($row) = $areg->psql("SELECT sum(times), round(avg(mean), 2)::text FROM (
		SELECT count(*) AS times, round(avg(score), 8) AS mean FROM erc8004_reputation
		WHERE agent_uuid = '$agent->{agent_uuid}' AND NOT is_revoked GROUP BY client_address) AS of_client");

	is($stats->{total_feedback}, $row->[0], 'feedback is counted');
	cmp_ok($stats->{reputation_score}, '==', $row->[1], 'and averaged by client');
	is($stats->{total_amount_usdc}, '12.500000', 'payments are added up');
};

subtest 'search' => sub {
	my $found = $areg->get("/api/v1/agents?owner_address=$owner->{wallet}&limit=100");

	is($found->{status}, 200, 'answers');
	is_deeply([sort map { $_->{agent_uuid} } @{ $found->{json}{agents} }],
		[map { $_->[0] } $areg->psql("SELECT agent_uuid FROM erc8004_agents
			WHERE owner_address = '$owner->{wallet}' ORDER BY agent_uuid::text")], 'all agents of the owner');
	is($found->{json}{total}, count("erc8004_agents WHERE owner_address = '$owner->{wallet}'"), 'and their number');
};

subtest 'rate limit enforced' => sub {
	my $free = $areg->make_user(tier => 'free');
	my @answers = map { register($free) } 1 .. 14;
	my ($refused) = grep { $_->{status} == 429 } @answers;
	my $stored = count("erc8004_agents WHERE owner_address = '$free->{wallet}'");

	# The minute may turn over on the way, and then a few more pass.
	cmp_ok(scalar(grep { $_->{status} == 201 } @answers), '>=', 10, 'ten a minute pass');
	ok($refused, 'more do not') or return;
	problem_ok($refused, 429, 'rate_limit_exceeded');
	like($refused->{headers}{'retry-after'}, qr/^[1-9]\d*$/, 'says when to come again');
	is($stored, scalar(grep { $_->{status} == 201 } @answers), 'what was refused is not stored');
};

# How often PostgreSQL has been asked for an agent's statistics, by its log.
sub stats_queries { return scalar(() = $areg->log_text('postgres') =~ /FROM v_erc8004_agent_stats/g) }

subtest 'stats cached and invalidated by the write that changes them' => sub {
	my $path = "/api/v1/agents/$agent->{agent_uuid}/stats";
	my $key = { key => $owner->{key} };

	$areg->psql("ALTER SYSTEM SET log_statement = 'all'");
	$areg->psql('SELECT pg_reload_conf()');
	my $logged = wait_until(10, sub {
		give($agent->{agent_uuid});
		my $before = stats_queries();
		$areg->get($path, $key);
		return wait_until(0.5, sub { stats_queries() > $before });
	});
	ok($logged, 'a read after a write asks the database');
	$areg->settle; # the write is heard of a second time, from the database
	my $total = $areg->get($path, $key)->{json}{total_feedback};
	my $before = stats_queries();
	is($areg->get($path, $key)->{json}{total_feedback}, $total, "read $_") for 1 .. 20;
	is(stats_queries(), $before, 'reading on asks it nothing');
	for my $n (1 .. 10) {
		is(give($agent->{agent_uuid})->{status}, 201, 'a client gives feedback');
		is($areg->get($path, $key)->{json}{total_feedback}, $total + $n, 'and the next read counts it');
	}
	$areg->psql('ALTER SYSTEM RESET log_statement');
	$areg->psql('SELECT pg_reload_conf()');
};

subtest 'registration rolled back whole when its last metadata entry fails' => sub {
	my @tables = qw(erc8004_agents erc8004_agent_metadata erc8004_agent_stats audit_log erc8004_events);
	my %before = map { $_ => count($_) } @tables;
	my $next = $areg->psql_value("SELECT next_agent_id FROM erc8004_agent_counters WHERE chain = 'base'");

	my $refused = register($owner, metadata => { aa => 'fine', zz => 17 });
	problem_ok($refused, 400, 'validation_failed');
	$areg->psql("ALTER TABLE erc8004_agent_metadata ADD CONSTRAINT fails_late CHECK (key <> 'zz')");
	my $failed = register($owner, metadata => { aa => 'fine', zz => 'refused by the database' });
	cmp_ok($failed->{status}, '>=', 400, 'an entry that the database refuses');
	$areg->psql('ALTER TABLE erc8004_agent_metadata DROP CONSTRAINT fails_late');
	is(count($_), $before{$_}, "$_ is as it was") for @tables;
	is($areg->psql_value("SELECT next_agent_id FROM erc8004_agent_counters WHERE chain = 'base'"), $next,
		'no id is lost');
	is(register($owner, metadata => { aa => 'fine', zz => 'fine' })->{status}, 201, 'the next is whole');
};

subtest 'health' => sub {
	my $answer = $areg->get('/health');

	is($answer->{status}, 200, 'answers');
	is($answer->{json}{status}, 'healthy', 'healthy');
	is_deeply([sort keys %{ $answer->{json}{checks} }], [qw(cache database workers)], 'by its checks');
	is($areg->get('/api/v1/agents/health')->{status}, 200, 'also where old clients look');
};

subtest 'metrics' => sub {
	my $text = $areg->get('/metrics')->{body};
	my $registered = count("erc8004_agents WHERE chain = 'base'");

	like($text, qr/^erc8004_agent_registrations_total\{chain="base",status="success"\} $registered$/m,
		'registrations are counted');
	like($text, qr/^erc8004_feedback_submissions_total\{status="success"\} \d+$/m, 'feedback is');
	like($text, qr{^erc8004_api_requests_total\{method="GET",endpoint="/api/v1/agents/\{id\}/stats",status_code="200"\} \d+$}m,
		'and requests, by route');
};

done_testing;
