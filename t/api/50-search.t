# SPDX-License-Identifier: Apache-2.0
# Search: every filter and order against plain SQL, words and typos, walks by cursor, and what is
# refused.
use strict;
use warnings;
use utf8;

use File::Basename qw(dirname);
use HTTP::Tiny;
use Test::More;

use lib dirname(__FILE__) . '/../lib';
use Areg::Test qw(address build_dir from_json in_parallel json_text problem_ok root wait_until);

binmode $_, ':utf8' for Test::More->builder->output, Test::More->builder->failure_output;

my $SEARCH = '/api/v1/agents';
my $AGENTS = 3000;
my $MIXED_CASE = '0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed'; # checksum from EIP-55 itself
my $TYPO_THRESHOLD = 0.4;

# Sort keys in plain SQL, and the order that each has by itself.
my %SORTS = (
	registered_at => ['a.created_at', 'desc'],
	reputation_score => ['coalesce(s.reputation_score, -1)', 'desc'],
	total_feedback => ['s.total_feedback', 'desc'],
	last_activity_at => ['s.last_activity_at', 'desc'],
	name => [q{left(lower(coalesce(a.name, '')), 100) COLLATE "C"}, 'asc'],
);

my $areg = Areg::Test->start(workers => 4);
my $user = $areg->make_user(wallet => $MIXED_CASE);
my $elsewhere = $areg->make_user;

{
	local $ENV{AREG_BUILD} = build_dir();
	my $sample = qx{"${\root()}/scripts/gen-sample" $AGENTS};
	my $report = from_json($areg->aregctl('--json', 'import', '-', \$sample)->{stdout});
	is($report->{agents}{stored}, $AGENTS, "$AGENTS agents of the sample are loaded");
}

sub register
{
	my ($name, $description, $owner) = @_;
	$owner //= $user;
	my $answer = $areg->post("$SEARCH/register", { owner_address => $owner->{wallet},
		chain => 'base-sepolia', registration_file => { name => $name, description => $description,
		services => [{ name => 'MCP', endpoint => 'https://example.com/mcp', version => '1' }],
		image => 'https://example.com/i.png', x402Support => JSON::PP::true } },
		{ key => $owner->{key} });
	die $answer->{body} if $answer->{status} != 201;
	return $answer->{json};
}

my $oracle = register('Quokka Weather Oracle', 'Tells what the sky will do.');
my $desk = register('Harbor Desk', 'Knows every quokka by name, and the weather of Rottnest.');
my $unicode = register('Größe 数字 🤖', 'Misst Höhe und Breite.');
# Words of scripts without blanks, in longer names.
my $beijing = register('天气预报代理', '提供全球天气预报服务。', $elsewhere);
my $tokyo = register('東京の天気予報エージェント', '毎朝の予報', $elsewhere);
my $gpt = register('GPT助手2号', '用GPT-5写代码', $elsewhere);
my $thai = register('ผู้ช่วยพยากรณ์อากาศ', 'บอกอากาศวันนี้', $elsewhere);
my $khmer = register("ព្យាករណ៍អាកាស", "ជំនួយការ\x{200b}អាកាសធាតុ", $elsewhere);
my $lao = register('ພະຍາກອນອາກາດ', 'x', $elsewhere);
my $myanmar = register('မိုးလေဝသခန့်မှန်းချက်', 'x', $elsewhere);
my $seoul = register('서울날씨예보 도우미', '날씨를 알려 줍니다.', $elsewhere);
my $rare = register('𠮷野家案内', 'x', $elsewhere);
my $lines = register("Two\nLines", 'Its name has a line feed.');

# Some of every status and trust level, and ties in every order.
$areg->psql(q{
	UPDATE erc8004_agents SET status = CASE agent_id % 4 WHEN 0 THEN 'suspended' ELSE 'revoked' END
		WHERE chain = 'base' AND agent_id % 4 < 2 AND agent_id < 80;
	INSERT INTO erc8004_agents (chain, chain_id, registry_address, owner_address, status, source, name)
		SELECT chain, chain_id, registry_address, owner_address, 'pending', 'api', name
		FROM erc8004_agents WHERE chain = 'sepolia' AND agent_id < 10;
	WITH best AS (SELECT agent_uuid FROM erc8004_agent_stats JOIN erc8004_agents a USING (agent_uuid)
		WHERE reputation_score >= 80 AND a.status = 'active' ORDER BY agent_uuid LIMIT 5),
	paid AS (INSERT INTO x402_payments (tx_hash, chain, amount_usdc, payer, payee, status, settled_at)
		SELECT '0xff' || lpad(to_hex(n), 62, '0'), 'base', 1, '0xee' || lpad(to_hex(n), 38, '0'),
			'0x' || repeat('2', 40), 'verified', now() FROM generate_series(1, 200) n RETURNING id)
	INSERT INTO erc8004_agent_payments (payment_id, agent_uuid)
		SELECT id, (SELECT agent_uuid FROM best ORDER BY agent_uuid OFFSET paid.id % 5 LIMIT 1)
		FROM paid;
	INSERT INTO erc8004_reputation (agent_uuid, client_address, feedback_index, has_explicit_score,
			value, is_automatic)
		SELECT agent_uuid, '0x' || repeat('0', 39) || '1', 1, true,
			CASE agent_id % 2 WHEN 0 THEN 95 ELSE 30 END, true
		FROM erc8004_agents WHERE chain = 'base' AND agent_id BETWEEN 100 AND 300;
	INSERT INTO erc8004_reputation (agent_uuid, client_address, feedback_index, has_explicit_score, value)
		SELECT agent_uuid, address, 1000, true, value FROM erc8004_agents, LATERAL (VALUES (owner_address, 5),
			('0x' || repeat('6', 40), 10), ('0x' || repeat('8', 40), 100)) AS own (address, value)
		WHERE chain = 'base' AND agent_id BETWEEN 100 AND 200;
	INSERT INTO erc8004_agent_addresses (agent_uuid, address, role, since)
		SELECT agent_uuid, '0x' || repeat(digit, 40), 'operator', created_at FROM erc8004_agents,
			unnest('{6,8}'::text[]) AS digit WHERE chain = 'base' AND agent_id BETWEEN 100 AND 200;
	UPDATE erc8004_agents SET x402_support = NULL, file_active = NULL, agent_wallet = NULL
		WHERE chain = 'sepolia' AND agent_id BETWEEN 20 AND 40;
	UPDATE erc8004_agents SET file_active = false, agent_wallet = '0x' || repeat('7', 40),
			registered_tx = CASE WHEN agent_id < 44 THEN '0x' || repeat('a7', 32) END,
			skills = '{a skill,mixed Case}', domains = '{"a,b","{x}"}',
			supported_trust = '{reputation,tee-attestation}'
		WHERE chain = 'sepolia' AND agent_id BETWEEN 41 AND 47;
	UPDATE erc8004_agents SET registration_file = NULL, registration_digest = NULL, name = NULL,
			services = '{}'
		WHERE chain = 'sepolia' AND agent_id BETWEEN 50 AND 70;
	UPDATE erc8004_agents SET services = services || '{größe}'
		WHERE chain = 'sepolia' AND agent_id BETWEEN 80 AND 82;
	ANALYZE;
});

sub uuid_of { return $_[0]{agent_uuid} }

sub quoted { return join ', ', map { "'" . s/'/''/gr . "'" } @_ }

# The agents that a condition leaves, in order, by SQL that has nothing to do with the program's.
sub by_sql
{
	my ($where, $sort, $order) = @_;
	return map { $_->[0] } $areg->psql("SELECT a.agent_uuid FROM erc8004_agents a"
		. " JOIN erc8004_agent_stats s ON s.agent_uuid = a.agent_uuid"
		. " WHERE $where ORDER BY $SORTS{$sort}[0] $order, a.agent_uuid $order");
}

sub encoded
{
	my ($text) = @_;
	utf8::encode($text);
	return $text =~ s/([^A-Za-z0-9_.-])/sprintf '%%%02X', ord $1/ger;
}

sub search { my ($query) = @_; return $areg->get("$SEARCH?$query") }

# Follows next_cursor to the end; returns the total said first and the agent_uuids seen. It reads
# the text of the pages: parsing some hundred thousand agents in Perl would take minutes.
sub walk
{
	my ($query, $limit) = @_;
	my $http = HTTP::Tiny->new(timeout => 40);
	my ($cursor, $total, @uuids);

	do {
		my $page = $http->get($areg->url . "$SEARCH?limit=$limit&$query"
			. (defined $cursor ? "&cursor=$cursor" : ''));
		die "no page: $query: $page->{content}\n" if $page->{status} != 200;
		my ($said) = $page->{content} =~ /"total":(\d+)/;
		$total //= $said;
		push @uuids, $page->{content} =~ /\{"agent_uuid":"([^"]+)"/g;
		($cursor) = $page->{content} =~ /"next_cursor":"([^"]+)"/;
	} while defined $cursor;
	return ($total, @uuids);
}

sub walk_of { my ($total, @uuids) = walk($_[0], 100); return @uuids }

# The search must give exactly the agents that SQL gives, in that order.
sub search_ok
{
	my ($query, $where, $sort, $order) = @_;
	my @expected = by_sql($where, $sort // 'registered_at', $order // 'desc');
	my ($total, @uuids) = walk($query, 100);
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	is(join(' ', @uuids), join(' ', @expected),
		'?' . $query . ' gives ' . @expected);
	is($total, scalar @expected, 'and says so');
	return scalar @expected;
}

# The score of an agent by docs/trust.md, from the records alone: the mean of what each client says on
# average, the payers being one client, and the least that it can be with any of the agent's own opinions.
sub score_of_records
{
	my ($uuid, $with_automatic) = @_;

	return $areg->psql_value(qq{
		WITH opinion AS (
			SELECT round(avg(score), 8) AS opinion,
				client_address IN (SELECT address FROM erc8004_agent_addresses WHERE agent_uuid = '$uuid') AS is_own
			FROM erc8004_reputation WHERE agent_uuid = '$uuid' AND NOT is_revoked AND NOT is_automatic
				AND score IS NOT NULL
			GROUP BY client_address
		), of_payer AS (
			SELECT sum(verified) / sum(verified + least(failed, verified)) AS rate
			FROM (SELECT payer, count(*) FILTER (WHERE status = 'verified') AS verified,
					count(*) FILTER (WHERE status = 'failed') AS failed
				FROM erc8004_agent_payments JOIN x402_payments ON id = payment_id
				WHERE agent_uuid = '$uuid' AND reaches_minimum GROUP BY payer, recorded_by) AS p
			WHERE payer NOT IN (SELECT address FROM erc8004_agent_addresses WHERE agent_uuid = '$uuid')
			GROUP BY payer HAVING sum(verified) > 0
		), others AS (
			SELECT count(*) AS count, coalesce(sum(opinion), 0) AS sum
			FROM (SELECT opinion FROM opinion WHERE NOT is_own
				UNION ALL SELECT round(30 + 65 * avg(rate), 8) FROM of_payer
				WHERE $with_automatic = 1 AND EXISTS (SELECT FROM erc8004_reputation WHERE agent_uuid = '$uuid'
					AND is_automatic AND NOT is_revoked AND score IS NOT NULL)
				HAVING count(*) > 0) AS o
		), own AS (
			SELECT 0 AS count, 0 AS sum UNION ALL
			SELECT row_number() OVER lowest, sum(opinion) OVER lowest FROM opinion WHERE is_own
			WINDOW lowest AS (ORDER BY opinion ROWS UNBOUNDED PRECEDING)
		)
		SELECT trim_scale(round(min((others.sum + own.sum) / (others.count + own.count)), 2)) FROM others, own
		WHERE others.count > 0 OR (own.count = 1 AND own.sum < 50)});
}

subtest 'each filter leaves what it should' => sub {
	my $active = "a.status = 'active'";
	search_ok('', $active);
	for my $status (qw(active suspended revoked pending)) {
		ok(search_ok("status=$status", "a.status = '$status'") > 0, 'some of them');
	}
	for my $chain (qw(ethereum base sepolia base-sepolia)) {
		ok(search_ok("chain=$chain", "$active AND a.chain = '$chain'") > 0, 'some of them');
	}
	search_ok('chain=base&chain=sepolia', "$active AND a.chain IN ('base', 'sepolia')");
	search_ok('chain=base&chain=base', "$active AND a.chain = 'base'");
	search_ok('chain=baseSepolia', "$active AND a.chain = 'base-sepolia'");
	for my $score (qw(0 50 79.99 80 100 33.3 007)) {
		search_ok("min_reputation_score=$score", "$active AND s.reputation_score >= $score");
	}
	for my $level (qw(excellent good fair poor new)) {
		ok(search_ok("trust_level=$level", "$active AND s.trust_level = '$level'") > 0,
			'some of them');
	}
	my $owner = $areg->psql_value("SELECT owner_address FROM erc8004_agents"
		. " GROUP BY 1 ORDER BY count(*) DESC LIMIT 1");
	my $upper = '0x' . uc substr $owner, 2;
	ok(search_ok("owner_address=$_", "$active AND a.owner_address = '$owner'") > 100, $_)
		for $owner, $upper;
	is(search_ok("owner_address=$_", "$active AND a.owner_address = '\L$MIXED_CASE\E'"), 4, $_)
		for $MIXED_CASE, lc $MIXED_CASE, '0x' . uc substr $MIXED_CASE, 2;
	is(search_ok('owner_address=' . address('nobody'), 'false'), 0, 'an owner of none');
};

subtest 'what the registration file says can be searched for' => sub {
	my $active = "a.status = 'active'";
	my $finds = sub {
		my ($query, $where) = @_;
		ok(search_ok($query, "$active AND $where") > 0, 'some of them');
	};
	for my $service (qw(mcp a2a web)) {
		$finds->("service=$_", "'$service' = ANY (a.services)") for $service, uc $service;
	}
	$finds->('service=mcp&service=A2A', "a.services @> '{mcp,a2a}'");
	$finds->('service=mcp&service=MCP', "a.services @> '{mcp}'");
	$finds->('service=' . encoded('größe'), "'größe' = ANY (a.services)");
	is(search_ok('service=' . encoded('%'), 'false'), 0, 'a service is no pattern');
	is(search_ok(join('&', map { "service=none$_" } 1 .. 90), 'false'), 0, '90 services at once');
	$finds->('skill=' . encoded($_), 'a.skills @> ARRAY[' . quoted($_) . ']') for 'a skill', 'mixed Case';
	$finds->('domain=' . encoded($_), 'a.domains @> ARRAY[' . quoted($_) . ']') for 'a,b', '{x}';
	is(search_ok('skill=mixed%20case', 'false'), 0, 'a skill is found as it is written');
	$finds->("supported_trust=$_", "'$_' = ANY (a.supported_trust)") for qw(reputation tee-attestation);
	$finds->('x402=true', 'a.x402_support');
	$finds->('x402=false', 'a.x402_support IS NOT TRUE');
	$finds->('has_registration_file=true', 'a.registration_file IS NOT NULL');
	$finds->('has_registration_file=false', 'a.registration_file IS NULL');
	$finds->('active=true', 'a.file_active');
	$finds->('active=false', 'NOT a.file_active');
	$finds->('agent_wallet=0x' . '7' x 40, "a.agent_wallet = '0x' || repeat('7', 40)");
	$finds->("agent_wallet=$_", "a.agent_wallet = '\L$MIXED_CASE\E'") for $MIXED_CASE, uc($MIXED_CASE) =~ s/X/x/r;
	$finds->("registered_tx=$_", "a.registered_tx = '0x' || repeat('a7', 32)") for '0x' . 'a7' x 32, '0x' . 'A7' x 32;
	is(search_ok('registered_tx=0x' . 'a8' x 32, 'false'), 0, 'a transaction of none');
	$finds->('service=mcp&x402=true&has_registration_file=true&supported_trust=reputation&chain=base',
		"a.services @> '{mcp}' AND a.x402_support AND a.registration_file IS NOT NULL"
		. " AND a.supported_trust @> '{reputation}' AND a.chain = 'base'");
};

subtest 'so can scores, rates, numbers and times' => sub {
	my $active = "a.status = 'active'";
	for my $score (qw(0 50 79.99 100)) {
		search_ok("max_reputation_score=$score", "$active AND s.reputation_score <= $score");
	}
	ok(search_ok('min_reputation_score=60&max_reputation_score=60.5',
		"$active AND s.reputation_score BETWEEN 60 AND 60.5"), 'some of them');
	search_ok('min_reputation_score=70&max_reputation_score=70.00', "$active AND s.reputation_score = 70");
	search_ok("min_success_rate=$_", "$active AND s.payment_success_rate >= $_") for qw(0 50.5 95 100);
	search_ok("min_feedback=$_", "$active AND s.total_feedback >= $_") for qw(0 1 3 007), '9' x 18;
	my ($first, $middle, $last) = map { $areg->psql_value("SELECT rfc3339(created_at)"
		. " FROM erc8004_agents WHERE status = 'active' ORDER BY created_at OFFSET $_ LIMIT 1") }
		0, 1500, 2900;
	search_ok("registered_after=$middle", "$active AND a.created_at > '$middle'");
	search_ok("registered_before=$middle", "$active AND a.created_at < '$middle'");
	search_ok("registered_after=$first&registered_before=$last",
		"$active AND a.created_at > '$first' AND a.created_at < '$last'");
	search_ok('registered_after=2026-01-01t01:00:00.5%2B01:00', "$active AND a.created_at > '2026-01-01 00:00:00.5Z'");
	search_ok("registered_after=$middle&registered_before=$middle", 'false');
	search_ok('registered_after=2000-01-01T00:00:00Z&sort=name', $active, 'name', 'asc');
};

subtest 'automatic feedback can be left out of the score' => sub {
	local $SORTS{reputation_score} = ['coalesce(s.direct_score, -1)', 'desc'];
	my $active = "a.status = 'active'";
	for my $order (qw(asc desc)) {
		search_ok("automatic_feedback=exclude&sort=reputation_score&order=$order", $active,
			'reputation_score', $order);
	}
	search_ok('automatic_feedback=exclude&min_reputation_score=60&max_reputation_score=90',
		"$active AND s.direct_score BETWEEN 60 AND 90");
	for my $with_own (0, 1) {
		my @agents = $areg->psql("SELECT agent_uuid, owner_address FROM erc8004_agent_stats s"
			. " JOIN erc8004_agents a USING (agent_uuid) WHERE direct_score <> reputation_score"
			. " AND $active AND (SELECT count(*) FROM erc8004_agents o WHERE o.owner_address = a.owner_address) <= 100"
			. " AND $with_own = (EXISTS (SELECT FROM erc8004_reputation f WHERE f.agent_uuid = a.agent_uuid"
			. " AND f.client_address = a.owner_address))::integer ORDER BY 1 LIMIT 3");
		ok(@agents > 0, $with_own ? 'agents that speak of themselves' : 'agents that do not');
		for my $case (['', 1], ['&automatic_feedback=include', 1], ['&automatic_feedback=exclude', 0]) {
			my ($query, $with_automatic) = @$case;

			for my $agent (@agents) {
				my ($uuid, $owner) = @$agent;
				my ($shown) = grep { uuid_of($_) eq $uuid }
					@{ search("limit=100&owner_address=$owner$query")->{json}{agents} };
				is($shown->{reputation_score}, score_of_records($uuid, $with_automatic), "the score shown: ?$query");
			}
		}
	}
	my $cursor = search('limit=1&sort=reputation_score')->{json}{next_cursor};
	problem_ok(search("sort=reputation_score&automatic_feedback=exclude&cursor=$cursor"), 400,
		'validation_failed', 'cursor');
};

subtest 'filters go together' => sub {
	my @owners = map { $_->[0] } $areg->psql("SELECT owner_address FROM erc8004_agents"
		. " GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 5");
	my $pick = sub { return $_[int rand @_] };
	my $found = 0;
	srand 7;
	for (1 .. 40) {
		my (@query, @where);
		my $status = rand() < 0.3 ? $pick->(qw(active suspended revoked pending)) : undef;
		push @query, "status=$status" if $status;
		push @where, 'a.status = ' . quoted($status // 'active');
		if (rand() < 0.6) {
			my @chains = map { $pick->(qw(ethereum base sepolia base-sepolia)) } 1 .. 1 + rand 3;
			push @query, map { "chain=$_" } @chains;
			push @where, 'a.chain IN (' . quoted(@chains) . ')';
		}
		if (rand() < 0.3) {
			my $owner = $pick->(@owners);
			push @query, "owner_address=$owner";
			push @where, 'a.owner_address = ' . quoted($owner);
		}
		if (rand() < 0.4) {
			my $score = $pick->(20, 45.5, 60, 75.25);
			push @query, "min_reputation_score=$score";
			push @where, "s.reputation_score >= $score";
		}
		if (rand() < 0.3) {
			my $level = $pick->(qw(good fair poor new));
			push @query, "trust_level=$level";
			push @where, 's.trust_level = ' . quoted($level);
		}
		if (rand() < 0.3) {
			my $q = $pick->('travel', 'open pull requests', 'agent');
			push @query, 'q=' . encoded($q);
			push @where, "(to_tsvector('simple', coalesce(a.name, '') || ' ' || coalesce(a.description, ''))"
				. " @@ plainto_tsquery('simple', '$q')"
				. " OR word_similarity('$q', lower(a.name)) >= $TYPO_THRESHOLD)";
		}
		my $sort = $pick->(sort keys %SORTS);
		my $order = rand() < 0.5 ? $pick->(qw(asc desc)) : undef;
		push @query, "sort=$sort";
		push @query, "order=$order" if $order;
		$found++ if search_ok(join('&', @query), join(' AND ', @where), $sort,
			$order // $SORTS{$sort}[1]);
	}
	cmp_ok($found, '>', 20, 'most of these find something');
};

subtest 'every order, both ways' => sub {
	for my $sort (sort keys %SORTS) {
		search_ok("sort=$sort", "a.status = 'active'", $sort, $SORTS{$sort}[1]);
		search_ok("sort=$sort&order=$_", "a.status = 'active'", $sort, $_) for qw(asc desc);
	}
	my @names = map { $_->{name} // '' } @{ search('sort=name&limit=100&min_reputation_score=60')
		->{json}{agents} };
	is_deeply(\@names, [sort { lc $a cmp lc $b } @names], 'names as a person sorts them');
};

subtest 'an agent found is told about in full' => sub {
	my ($found) = grep { $_->{agent_uuid} eq uuid_of($oracle) }
		@{ search('chain=base-sepolia&limit=100')->{json}{agents} };
	my $stats = $areg->get("$SEARCH/$oracle->{agent_uuid}/stats")->{json};
	my %own = (description => 'Tells what the sky will do.', image => 'https://example.com/i.png',
		services => [{ name => 'MCP', endpoint => 'https://example.com/mcp', version => '1' }],
		x402_support => JSON::PP::true);
	is_deeply($found, { %$stats, %own }, 'Stats, description, image, services, x402_support');
	my $agents = search('limit=100&sort=total_feedback')->{json}{agents};
	my @wrong = grep {
		my $stats = $areg->get("$SEARCH/$_->{agent_uuid}/stats")->{json};
		my %agent = %$_;
		delete @agent{qw(description image services x402_support)};
		json_text(\%agent) ne json_text($stats);
	} @$agents;
	is(scalar @wrong, 0, 'the numbers of a hundred agents are those of their Stats');
	ok(!grep({ ref $_->{services} ne 'ARRAY' } @$agents), 'services is always a list');
	is(search('status=pending&limit=1')->{json}{agents}[0]{agent_id}, undef,
		'a pending agent has no id yet');
};

subtest 'words find agents' => sub {
	my $names = sub { my @agents = @{ search('limit=100&q=' . encoded($_[0]))->{json}{agents} };
		return map { $_->{name} } @agents };
	my $finds = sub {
		my ($q, $name, @agents) = @_;
		is_deeply([$names->($q)], [map { $_->{registration_file}{name} } @agents], "$name: $q");
		is(search('limit=1&q=' . encoded($q))->{json}{total}, scalar @agents, 'and so many');
	};
	$finds->('quokka', 'in the name before in the description', $oracle, $desk);
	$finds->('QuOkKa', 'in any case', $oracle, $desk);
	$finds->('rottnest', 'in the description', $desk);
	$finds->('quoka', 'a letter is missing in the name', $oracle);
	$finds->('quokak', 'letters are swapped', $oracle);
	$finds->('rotnest', 'a typo is forgiven in names only');
	$finds->('höhe', 'in any script', $unicode);
	$finds->('größe 数字', 'in any script', $unicode);
	$finds->('天气', 'begins the name', $beijing);
	$finds->('气预', 'from the middle', $beijing);
	$finds->('预报代理', 'ends the name', $beijing);
	$finds->('全球天气', 'in a description without blanks', $beijing);
	$finds->('报预', 'not in this order');
	$finds->('预报 天气', 'two words', $beijing);
	$finds->('理', 'of one character', $beijing);
	$finds->('天気', 'Han in Japanese', $tokyo);
	$finds->('予報', 'Han in Japanese', $tokyo);
	$finds->('ージェン', 'kana', $tokyo);
	$finds->('gpt', 'Latin beside Han', $gpt);
	$finds->('2号', 'Han beside a number', $gpt);
	$finds->('GPT助手', 'Latin and Han', $gpt);
	$finds->('写代码', 'in a description of two scripts', $gpt);
	$finds->('อากาศ', 'Thai', $thai);
	$finds->('พยากรณ์', 'Thai', $thai);
	$finds->('អាកាស', 'Khmer', $khmer);
	$finds->('ជំនួយការអាកាសធាតុ', 'Khmer without the blank of no width', $khmer);
	$finds->('ອາກາດ', 'Lao', $lao);
	$finds->('လေဝသ', 'Myanmar', $myanmar);
	$finds->('날씨', 'a part of a compound in Hangul', $seoul);
	$finds->('예보', 'a part of a compound in Hangul', $seoul);
	$finds->('野家', 'of four bytes', $rare);
	$finds->('𠮷', 'of four bytes', $rare);
	$finds->('xylophone', 'none');
	$finds->("xylophone; rottnest -- \\ 100% 'or'='or' _", 'none of this is SQL');
	# Of several words some may do where they make up enough of a name; all of them are better.
	for my $q ('oracle quokka', 'quokka sky') {
		is(($names->($q))[0], 'Quokka Weather Oracle', "all words in any place come first: $q");
	}
	is(($names->('quokka rottnest'))[0], 'Harbor Desk',
		'all words in the description come before one that is half of a name');
	my @weather = $names->('wether');
	cmp_ok(scalar @weather, '>', 1, 'several may be meant');
	is(scalar(grep { $_ eq 'Quokka Weather Oracle' } @weather), 1, 'ours is among them');
	is(scalar(grep { !/weather/i } @weather), 0, 'and nothing else');
	is(search('q=' . encoded($_))->{status}, 200, "q=$_ is taken")
		for '%', '_', '\\', "'", '"', '&', '|', '!', '!!', '(', ':*', "a'b", '<->', '🤖', ' ',
		'a' x 200, '数' x 200;

	# One word is listed, and with a chain beside it looked for: both find the same, in the same order.
	my @chains = map { $_->[0] } $areg->psql('SELECT DISTINCT chain FROM erc8004_agents');
	for my $q (qw(agent AGENT travel quokka quoka a x402 8004 agent8 GPT), 'two words', 'GPT助手', '天气') {
		my ($query) = map { "q=" . encoded($_) } $q;
		for my $order (qw(asc desc)) {
			is_deeply([walk("$query&order=$order", 100)],
				[walk(join('&chain=', "$query&order=$order", @chains), 100)], "?$query, $order");
		}
	}
	my ($total, @uuids) = walk('q=agent', 100);
	my %rank = map { $_->[0] => $_->[1] } $areg->psql("SELECT agent_uuid,"
		. " ts_rank(search, plainto_tsquery('simple', 'agent')) + word_similarity('agent', lower(name))"
		. " FROM erc8004_agents WHERE name IS NOT NULL");
	my @ranks = map { sprintf '%.4f', $rank{$_} } @uuids;
	is_deeply(\@ranks, [sort { $b <=> $a } @ranks], 'the best comes first');
	cmp_ok($total, '>', 50, 'of many');
	is_deeply([walk_of('q=agent&sort=relevance')], \@uuids, 'which is the order relevance');
	is_deeply([walk_of('q=agent&sort=relevance&order=asc')], [reverse @uuids], 'and the other way round');
	search_ok('q=agent&sort=name', 'a.agent_uuid IN (' . quoted(@uuids) . ')',
		'name', 'asc');
};

subtest 'a part of a list' => sub {
	my ($total, @all) = walk('sort=name', 100);
	for ([10, 0], [1, 5], [100, 1234], [7, $total - 3], [5, $total], [5, 100000]) {
		my ($limit, $offset) = @$_;
		my $page = search("sort=name&limit=$limit&offset=$offset")->{json};
		my $last = $offset + $limit > $total ? $total - 1 : $offset + $limit - 1;
		is_deeply([map { uuid_of($_) } @{ $page->{agents} }], [@all[$offset .. $last]],
			"limit $limit, offset $offset");
		is_deeply([@$page{qw(total limit offset)}], [$total, $limit, $offset], 'as it says');
		is(defined $page->{next_cursor}, $offset + $limit < $total, 'next_cursor where there is more');
	}
	my $page = search('')->{json};
	is_deeply([@$page{qw(limit offset)}], [50, 0], '50 from the beginning when nothing is said');
	is(scalar @{ $page->{agents} }, 50, 'and as many there are');
	my $after = search("sort=name&limit=20&cursor=" . search('sort=name&limit=20&offset=40')
		->{json}{next_cursor})->{json};
	is_deeply([map { uuid_of($_) } @{ $after->{agents} }], [@all[60 .. 79]],
		'a cursor goes on where an offset ended');
};

subtest 'what is wrong is named' => sub {
	my $cursor = search('limit=1')->{json}{next_cursor};
	my $by_name = search('limit=1&sort=name')->{json}{next_cursor};
	my @cases = (
		['validation_failed', 'nothing=1', 'nothing'], ['validation_failed', 'Q=x', 'Q'],
		['validation_failed', 'a=1&b=2', 'a', 'b'], ['validation_failed', '=1', ''],
		['validation_failed', 'q=', 'q'], ['validation_failed', 'q=' . 'a' x 201, 'q'],
		['validation_failed', 'q=a&q=b', 'q'],
		['invalid_address', 'owner_address=', 'owner_address'],
		['invalid_address', 'owner_address=0x12', 'owner_address'],
		['invalid_address', 'owner_address=' . ($MIXED_CASE =~ s/aAe/AAe/r), 'owner_address'],
		['invalid_address', 'owner_address=vitalik.eth', 'owner_address'],
		['chain_not_supported', 'chain=nowhere', 'chain'], ['chain_not_supported', 'chain=', 'chain'],
		['chain_not_supported', 'chain=base&chain=8453x', 'chain'],
		(map { ['validation_failed', "status=$_", 'status'] } 'x', '', 'Active', 'active,pending'),
		(map { ['validation_failed', "trust_level=$_", 'trust_level'] } 'best', ''),
		(map { ['validation_failed', "sort=$_", 'sort'] } 'age', '', 'name%3B--', 'created_at'),
		(map { ['validation_failed', "order=$_", 'order'] } 'up', '', 'DESC'),
		['validation_failed', 'sort=relevance', 'sort'],
		(map { ['invalid_score', "min_reputation_score=$_", 'min_reputation_score'] }
			'x', '', '-1', '100.01', '1.234', '1e1', 'NaN', '.5', '5.', '0x10', '%2B5', '1000', '5%20'),
		(map { ['invalid_score', "max_reputation_score=$_", 'max_reputation_score'] } 'x', '', '-0', '101'),
		(map { ['invalid_score', "min_success_rate=$_", 'min_success_rate'] } 'x', '100.001', '95%25'),
		['invalid_score', 'min_reputation_score=60.01&max_reputation_score=60', 'max_reputation_score'],
		(map { ['validation_failed', "min_feedback=$_", 'min_feedback'] } 'x', '', '-1', '1.0', '1e3', '9' x 19),
		(map { my $name = $_; map { ['validation_failed', "$name=$_", $name] } 'yes', '', '1', 'TRUE', 'null' }
			qw(x402 has_registration_file active)),
		(map { my $name = $_; map { ['validation_failed', "$name=$_", $name] } '', 'x' x 201 }
			qw(service skill domain supported_trust)),
		(map { my $name = $_; map { ['validation_failed', "$name=$_", $name] } '', 'yesterday', '2026-02-30T00:00:00Z',
			'2026-03-01', '2026-03-01T00:00:00', '2026-03-01T00:00:00+00:00', '1772323200', '2026-13-01T00:00:00Z' }
			qw(registered_after registered_before)),
		['validation_failed', 'registered_after=2026-03-01T00:00:00Z&registered_before=2026-03-01T00:59:59%2B01:00',
			'registered_before'],
		(map { ['validation_failed', "automatic_feedback=$_", 'automatic_feedback'] } '', 'no', 'true'),
		(map { ['invalid_address', "agent_wallet=$_", 'agent_wallet'] } '', '0x12', $MIXED_CASE =~ s/aAe/AAe/r),
		(map { ['validation_failed', "registered_tx=$_", 'registered_tx'] } '', 'x', 'a7' x 32, '0x' . 'a7' x 31,
			'0x' . 'a7' x 31 . 'g7', '0x' . 'a7' x 33, '0X' . 'a7' x 32),
		(map { ['validation_failed', "$_=a&$_=b", $_] } qw(skill domain supported_trust)),
		(map { ['validation_failed', "limit=$_", 'limit'] } 0, 101, -1, '', 'x', '1.5', '9' x 30),
		(map { ['validation_failed', "offset=$_", 'offset'] } -1, 100001, '', 'x', '9' x 30),
		(map { ['validation_failed', "cursor=$_", 'cursor'] } '', 'x', 'abc', '00', 'zz', 'c3a4',
			"$cursor&offset=0", "$by_name", "$cursor&sort=registered_at&order=asc",
			"$cursor&cursor=$cursor", substr($cursor, 2), substr($cursor, 0, -1), "${cursor}00"),
		['validation_failed', 'nothing=1&status=x&owner_address=y&chain=z&limit=0&offset=x&order=x',
			qw(nothing status owner_address chain limit offset order)],
		['validation_failed', 'status=x&service=&x402=x&min_feedback=x&registered_after=x&agent_wallet=x',
			qw(status service x402 min_feedback registered_after agent_wallet)],
	);
	for my $case (@cases) {
		my ($code, $query, @names) = @$case;
		problem_ok(search($query), 400, $code, @names) or diag("?$query");
	}
	is(search($_)->{status}, 400, "?$_ is refused")
		for 'q=%ff', 'q=%00', 'q=%zz', 'q=%', '%ff=1', join('&', ('chain=base') x 129), 'service=%00', 'skill=a%00b',
		join '&', map { "service=$_" } 1 .. 500;
	is(search(join '&', map { "service=$_" } 1 .. 1000)->{status}, 414, '1,000 services are too long');
	is(search(join '&', ('chain=base', 'chain=sepolia') x 50)->{status}, 200, '100 chains are not');
	problem_ok(search('q=' . 'a' x 8300), 414, 'uri_too_long');
};

subtest 'a cursor that somebody made up is refused or harmless' => sub {
	my $uuid = uuid_of($oracle);
	my %keys = (
		registered_at => ['x', '', '2026-13-45', "'", '2026-01-01T00:00:00Z; DROP', '1e9'],
		last_activity_at => ['x', '', '99999-99-99'],
		reputation_score => ['x', '', '1,5', '0x1', '1e999999'],
		total_feedback => ['x', '', '1.5', '9' x 30, '1e5'],
	);
	for my $sort (sort keys %keys) {
		my $forged = sub { return search("sort=$sort&cursor=" . unpack 'H*', join "\n",
			"$sort desc", @_) };
		problem_ok($forged->($_, $uuid), 400, 'validation_failed', 'cursor') or diag("$sort $_")
			for @{ $keys{$sort} };
		my ($good) = search("sort=$sort&limit=1")->{json}{next_cursor};
		my ($order, $key) = split /\n/, pack 'H*', $good;
		is($forged->($key, $uuid)->{status}, 200, "$sort, a right key and id");
		problem_ok($forged->($key, $_), 400, 'validation_failed', 'cursor') or diag("$sort $_")
			for 'x', '', "$uuid'", '1', '{}';
		problem_ok($forged->($key), 400, 'validation_failed', 'cursor');
	}
	my @statuses;
	srand 11;
	for my $sort (sort(keys %SORTS), 'relevance') {
		my $query = "sort=$sort&q=agent";
		my $good = search("$query&limit=1")->{json}{next_cursor};
		for (1 .. 40) {
			my $bytes = pack 'H*', $good;
			substr($bytes, int rand length $bytes, 1) = chr int rand 256 for 1 .. 1 + rand 4;
			push @statuses, search("$query&cursor=" . unpack 'H*', $bytes)->{status};
		}
	}
	is(scalar(grep { $_ != 400 && $_ != 200 } @statuses), 0, 'never an error of ours')
		or diag("@statuses");
	is_deeply([search('limit=1')->{status}], [200], 'and the search goes on');
};

# Each that is there and matches throughout is seen once, in order; nothing is seen twice.
subtest 'a walk by cursor sees each agent once while more are registered' => sub {
	my @walks = ((map { my $sort = $_; map { [$sort, $_, "sort=$sort&order=$_"] } qw(asc desc) }
		sort keys %SORTS), map { ['relevance', $_, "q=agent&sort=relevance&order=$_"] } qw(asc desc));
	my %before = map { my $walk = $_; ($walk->[2] => [walk_of($walk->[2])]) } @walks;
	my @results = in_parallel(3, sub {
		my ($i) = @_;
		my $done = sub { return $areg->dir . "/walked.$_[0]" };
		my ($batches, %seen) = (0);

		if ($i == 2) {
			# Agents before, between and behind those that are there, in every order.
			until ((-e $done->(0) && -e $done->(1) && $batches >= 5) || $batches == 500) {
				my $words = $batches % 2 ? 'Agent' : 'Travel Agent Desk';
				$areg->psql("WITH a AS (INSERT INTO erc8004_agents (chain, chain_id, registry_address,"
					. " agent_id, owner_address, status, source, name, created_at)"
					. " SELECT 'base', 8453, '0x' || repeat('3', 40), $batches * 20 + n,"
					. " '0x' || repeat('4', 40), 'active', 'import',"
					. " chr(65 + (random() * 60)::integer) || md5(random()::text) || ' $words',"
					. " '2026-01-20'::timestamptz + random() * 300 * interval '1 day'"
					. " FROM generate_series(1, 20) n RETURNING agent_uuid)"
					. " INSERT INTO erc8004_reputation (agent_uuid, client_address, feedback_index,"
					. " has_explicit_score, value, value_decimals, created_at)"
					. " SELECT agent_uuid, '0x' || repeat('5', 40), n, true, (random() * 100)::integer, 0,"
					. " '2026-02-20'::timestamptz + random() * 300 * interval '1 day'"
					. " FROM a, generate_series(1, 4) n WHERE random() < 0.5");
				open my $mark, '>', $done->($i) or die "$!\n";
				$batches++;
			}
			return $batches;
		}
		wait_until(60, sub { -e $done->(2) }) or die "no agent came\n"; # that a walk can meet
		$areg->settle; # and that no cached page leaves out
		for (my $at = $i; $at < @walks; $at += 2) {
			$seen{ $walks[$at][2] } = [walk_of($walks[$at][2])];
		}
		open my $mark, '>', $done->($i) or die "$!\n";
		return \%seen;
	});
	note "20 agents more came in $results[2] times";
	my %seen = (%{ $results[0] }, %{ $results[1] });
	my $met = 0;
	for my $walk (@walks) {
		my ($sort, $order, $query) = @$walk;
		my %old = map { $_ => 1 } @{ $before{$query} };
		my @new = grep { !$old{$_} } @{ $seen{$query} };
		my %times;
		is(join(' ', grep { $old{$_} } @{ $seen{$query} }), join(' ', @{ $before{$query} }),
			"by $sort, $order: each agent of before, in order");
		is(scalar(grep { $times{$_}++ } @{ $seen{$query} }), 0, 'and none twice');
		$met += @new;
	}
	cmp_ok($met, '>', 0, 'the walks meet new agents too');
	search_ok('sort=name', "a.status = 'active'", 'name', 'asc');
};

subtest 'a total above 10,000 is exact where it is on record, else an estimate that says so' => sub {
	$areg->psql("INSERT INTO erc8004_agents (chain, chain_id, registry_address, agent_id,"
		. " owner_address, status, source, name) SELECT 'ethereum', 1, '0x' || repeat('3', 40), n,"
		. " '0x' || repeat('4', 40), 'active', 'import', 'Plenty ' || n"
		. " FROM generate_series(1, 12000) n; ANALYZE");
	for my $case (['', "status = 'active'"], ['chain=ethereum', "status = 'active' AND chain = 'ethereum'"]) {
		my ($query, $where) = @$case;
		my $answer = search("limit=1&$query")->{json};
		is($answer->{total}, $areg->psql_value("SELECT count(*) FROM erc8004_agents WHERE $where"),
			"?$query: exact");
		is($answer->{total_is_estimate}, undef, 'and said to be');
	}
	my $answer = search('limit=1&trust_level=new')->{json};
	my $true = $areg->psql_value("SELECT count(*) FROM erc8004_agents JOIN erc8004_agent_stats"
		. " USING (agent_uuid) WHERE trust_level = 'new' AND erc8004_agents.status = 'active'");
	is($answer->{total_is_estimate}, JSON::PP::true, 'an estimate');
	cmp_ok($answer->{total}, '>', 10000, 'above 10,000');
	cmp_ok(abs($answer->{total} - $true), '<', $true / 2, "not far off: $answer->{total} for $true");
	is(search('limit=1&chain=sepolia&trust_level=new')->{json}{total_is_estimate}, undef,
		'a smaller one is exact');
};

done_testing;
