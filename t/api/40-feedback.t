# SPDX-License-Identifier: Apache-2.0
# Feedback: giving it, the numbers that follow from it, and the list of it.
use strict;
use warnings;
use utf8;

use File::Basename qw(dirname);
use Digest::SHA qw(sha256_hex);
use Math::BigFloat;
use Test::More;

use lib dirname(__FILE__) . '/../lib';
use Areg::Test qw(address hash in_parallel problem_ok);

my $GIVE = '/api/v1/agents/feedback';
my $CLIENTS = 6;

my $areg = Areg::Test->start(workers => 4);
my $owner = $areg->make_user;
my @clients = map { $areg->make_user } 1 .. $CLIENTS;

# Registers an agent and returns its agent_uuid.
sub new_agent { return $areg->make_agent($owner)->{agent_uuid} }

sub give { my @given = @_; return $areg->give_feedback(@given) }

sub given
{
	my $answer = give(@_);
	is($answer->{status}, 201, 'feedback is taken') or diag($answer->{body});
	return $answer->{json};
}

sub of { my ($uuid, $part) = @_; return $areg->get("/api/v1/agents/$uuid/$part")->{json} }

# The value of a JSON number as a text without needless zeros; undef stays.
sub number { return defined $_[0] ? Math::BigFloat->new("$_[0]")->bstr : undef }

# Rounded to 2 decimals, halves away from zero, as PostgreSQL's numeric does.
sub rounded
{
	my ($value) = @_;
	return number(Math::BigFloat->new("$value")->bfround(-2, 'common'));
}

sub average
{
	my $mean = Math::BigFloat->new(0);

	return undef unless @_;
	$mean->badd($_) for @_;
	$mean->bdiv(scalar @_, 60); # digits; as a list it would be quotient and rest
	return rounded($mean);
}

# Counts each client once: the mean of the means of the clients, which are rounded to 8 decimals.
sub average_of_clients
{
	my ($key, @rows) = @_;
	my %of;

	push @{ $of{ $_->{client} } }, $_->{$key} for grep { defined $_->{$key} } @rows;
	return average(map {
		my $mean = Math::BigFloat->new(0);
		$mean->badd($_) for @$_;
		$mean->bdiv(scalar @$_, 60);
		Math::BigFloat->new("$mean")->bfround(-8, 'common')->bstr;
	} values %of);
}

my %rows; # by agent_uuid: what was given, as {client, score (BigFloat or undef), value, tag1, revoked}

# What Stats and Reputation must say of an agent's rows.
sub expected
{
	my ($uuid) = @_;
	my @rows = grep { !$_->{revoked} } @{ $rows{$uuid} || [] };
	my @scores = map { $_->{score} // () } @rows;
	my (%clients, %tags);

	$clients{ $_->{client} } = 1 for @rows;
	push @{ $tags{ $_->{tag1} } }, $_ for @rows;
	my %same = (
		total_feedback => scalar @rows,
		positive_feedback => scalar(grep { $_ >= 80 } @scores),
		negative_feedback => scalar(grep { $_ < 50 } @scores),
		revoked_feedback => @{ $rows{$uuid} || [] } - @rows,
		unique_clients => scalar keys %clients,
	);
	my @by_tag = map {
		my @of_tag = @{ $tags{$_} };
		my @values = sort { $a <=> $b } map { $_->{value} } @of_tag;
		my %who = map { $_->{client} => 1 } @of_tag;
		{ tag1 => $_, count => scalar @values, clients => scalar keys %who,
			average => average_of_clients('value', @of_tag), raw_average => average(@values),
			min => rounded($values[0]), max => rounded($values[-1]) }
	} sort { @{ $tags{$b} } <=> @{ $tags{$a} } || $a cmp $b } keys %tags;
	return (\%same, average_of_clients('score', @rows), average(@scores), \@by_tag);
}

# Reads Stats and Reputation and holds them to what was given.
sub numbers_ok
{
	my ($uuid, $when) = @_;
	my ($same, $average, $raw_average, $by_tag) = expected($uuid);
	my ($stats, $reputation) = (of($uuid, 'stats'), of($uuid, 'reputation'));
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	for my $answer ($stats, $reputation) {
		is_deeply({ map { $_ => $answer->{$_} } keys %$same }, $same, "counts, $when");
	}
	is(number($stats->{reputation_score}), $average, "reputation_score, $when");
	is(number($reputation->{average_score}), $average, "average_score, $when");
	is(number($reputation->{raw_average_score}), $raw_average, "raw_average_score, $when");
	is($stats->{last_feedback_at}, $reputation->{last_feedback_at}, "last_feedback_at, $when");
	my @by_tag = map { my $tag = $_; +{ tag1 => $tag->{tag1}, count => $tag->{count},
		clients => $tag->{clients},
		map { $_ => number($tag->{$_}) } qw(average raw_average min max) } } @{ $reputation->{by_tag} };
	is_deeply(\@by_tag, $by_tag, "by_tag, $when");
}

# Gives feedback and remembers it for expected(); the score it must get is worked out here.
sub record
{
	my ($uuid, $client, %member) = @_;
	my $value = defined $member{score} ? Math::BigFloat->new("$member{score}")
		: Math::BigFloat->new("$member{value}")->bmul(
			Math::BigFloat->new('1e-' . ($member{value_decimals} // 0)));
	my $tag = $member{tag1} // '';
	my $scored = defined $member{score}
		|| (($tag eq '' || $tag eq 'starred') && $value >= 0 && $value <= 100);
	my $answer = given($uuid, $client, %member);

	push @{ $rows{$uuid} }, { client => $client->{wallet}, tag1 => $tag, value => $value,
		score => $scored ? $value : undef, id => $answer->{id} };
	is(number($answer->{score}), $scored ? rounded($value) : undef,
		'its score: ' . ($scored ? rounded($value) : 'none'));
	return $answer;
}

subtest 'feedback is answered whole' => sub {
	my $uuid = new_agent();
	my $answer = give($uuid, $clients[0], score => 87, tag1 => 'starred', tag2 => 'Größe 数',
		endpoint => 'https://example.com/mcp', file_uri => 'ipfs://bafy/1.json',
		file_hash => '0x' . uc substr hash('file'), 2);
	is($answer->{status}, 201, 'status') or diag($answer->{body});
	my $record = $answer->{json};
	my %expected = (agent_uuid => $uuid, client_address => $clients[0]{wallet},
		feedback_index => 1, score => 87, value => 87, value_decimals => 0, tag1 => 'starred',
		tag2 => 'Größe 数', is_revoked => JSON::PP::false, endpoint => 'https://example.com/mcp',
		file_uri => 'ipfs://bafy/1.json', file_hash => hash('file'),
		is_automatic => JSON::PP::false, revoked_at => undef, is_self => JSON::PP::false);
	is_deeply([sort keys %$record], [sort keys %expected, qw(id created_at)], 'every field');
	is_deeply($record->{$_}, $expected{$_}, $_) for sort keys %expected;
	like($record->{id}, qr/^[1-9]\d*$/, 'id is a number');
	like($record->{created_at}, qr/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/, 'created_at');
	is_deeply(of($uuid, 'feedback')->{feedback}, [$record], 'and stands in the list');
	is(of($uuid, 'reputation')->{last_feedback_at}, $record->{created_at}, 'last_feedback_at');
	is(of($uuid, 'stats')->{last_activity_at}, $record->{created_at}, 'last_activity_at');
	is_deeply([$areg->psql("SELECT endpoint, file_uri, file_hash FROM erc8004_reputation"
		. " WHERE id = $record->{id}")],
		[['https://example.com/mcp', 'ipfs://bafy/1.json', hash('file')]], 'the rest is stored');

	my $plain = given($uuid, $clients[0], score => 0);
	is($plain->{$_}, '', "without $_ it is empty") for qw(tag1 tag2);
	is($plain->{feedback_index}, 2, 'the same client again counts on');
	is(given($uuid, $clients[1], score => 100)->{feedback_index}, 1, 'another begins at 1');
	is(given(new_agent(), $clients[0], score => 1)->{feedback_index}, 1,
		'and so does another agent');
};

subtest 'which feedback has a score' => sub {
	my $uuid = new_agent();
	numbers_ok($uuid, 'of a new agent');
	my @cases = (
		[{ score => '99.95' }, '99.95', 9995, 2],
		[{ score => 12.5, tag1 => 'responseTime' }, '12.5', 125, 1],
		[{ score => 0 }, 0, 0, 0],
		[{ score => 100, tag1 => 'uptime' }, 100, 100, 0],
		[{ value => 9977, value_decimals => 2 }, '99.77', 9977, 2],
		[{ value => 9976, value_decimals => 2, tag1 => 'starred' }, '99.76', 9976, 2],
		[{ value => 9977, value_decimals => 2, tag1 => 'uptime' }, undef, 9977, 2],
		[{ value => 50, tag1 => 'Starred' }, undef, 50, 0],
		[{ value => 50, tag2 => 'uptime' }, 50, 50, 0],
		[{ value => 0 }, 0, 0, 0],
		[{ value => 100 }, 100, 100, 0],
		[{ value => 101 }, undef, 101, 0],
		[{ value => -1 }, undef, -1, 0],
		[{ value => 10001, value_decimals => 2 }, undef, 10001, 2],
		[{ value => -1, value_decimals => 18, tag1 => 'starred' }, undef, -1, 18],
		[{ value => 79995, value_decimals => 3 }, 80, 79995, 3],
		[{ value => 560, tag1 => 'responseTime' }, undef, 560, 0],
	);
	for my $case (@cases) {
		my ($member, $score, $value, $decimals) = @$case;
		# Numbers as numbers, whatever Perl thinks of them.
		my %member = map { $_ => /^tag/ ? $member->{$_} : 0 + $member->{$_} } keys %$member;
		my $record = record($uuid, $clients[0], %member);
		my $what = join ' ', map { "$_=$member->{$_}" } sort keys %$member;
		is(number($record->{score}), number($score), "score of $what");
		is("$record->{value} $record->{value_decimals}", "$value $decimals", "value of $what");
	}
	numbers_ok($uuid, 'after all of them');

	for my $value ('100000000000000000000000000000000000000', # 1e38, the contract's bound
		'-100000000000000000000000000000000000000') {
		my $answer = $areg->post($GIVE, qq({"agent_uuid":"$uuid","client_address":)
			. qq("$clients[0]{wallet}","value":$value,"value_decimals":0,"tag1":"revenues"}),
			{ key => $clients[0]{key} });
		is($answer->{status}, 201, "value $value");
		like($answer->{body}, qr/"value":$value,/, 'comes back digit for digit');
	}
};

subtest 'one wallet does not drown a reputation' => sub {
	my $uuid = new_agent();
	my $reputation;

	given($uuid, $clients[$_], score => 95, tag1 => 'quality') for 1 .. 5;
	given($uuid, $clients[0], score => 0, tag1 => 'quality') for 1 .. 15;
	$reputation = of($uuid, 'reputation');
	is($reputation->{average_score}, 79.17, 'fifteen zeros of one client weigh as one');
	is($reputation->{raw_average_score}, 23.75, 'the raw average is given beside it');
	is_deeply($reputation->{by_tag}, [{ tag1 => 'quality', count => 20, clients => 6,
		average => 79.17, raw_average => 23.75, min => 0, max => 95 }], 'by tag likewise');
	is(of($uuid, 'stats')->{reputation_score}, 79.17, 'trust rests on the former');
	is($areg->get("/api/v1/agents/$uuid/summary?" . join '&', map { "clients=$_->{wallet}" } @clients)
		->{json}{summary_value}, 23, 'and the summary is the contract\'s');
};

subtest 'tags of any size, as an import brings them' => sub {
	my $uuid = new_agent();
	my @tags = ('t' x 300, 'y' x 5000, 'y' x 5000 . 'z');

	$areg->psql(join ';', map { "INSERT INTO erc8004_reputation (agent_uuid, client_address, feedback_index, value, tag1, source)
		VALUES ('$uuid', '$clients[0]{wallet}', 1 + $_, 1 + $_, '$tags[$_]', 'import')" } 0 .. $#tags);
	$areg->settle;
	is_deeply([map { $_->{tag1} } @{ of($uuid, 'feedback')->{feedback} }], [reverse @tags], 'are listed whole');
	is(of($uuid, "feedback?tag1=$tags[0]")->{total}, 1, 'and found');
	my %min = map { $_->{tag1} => $_->{min} } @{ of($uuid, 'reputation')->{by_tag} };
	is($min{ $tags[0] }, 1, 'by_tag has what fits');
	is_deeply([map { $min{ 'y' x 100 . '...sha256:' . sha256_hex($_) } } @tags[1, 2]], [2, 3], 'and the rest by its beginning and its hash');
};

subtest 'an agent does not praise itself, and a critic is not silenced' => sub {
	my $uuid = new_agent();
	my $score = sub { of($uuid, 'stats')->{reputation_score} };
	my $transfer = sub { $areg->psql("UPDATE erc8004_agents SET owner_address = '$_[0]{wallet}' WHERE agent_uuid = '$uuid'");
		$areg->settle; };
	my $praise = given($uuid, $clients[0], score => 100);
	my $critic = given($uuid, $clients[1], score => 10);

	given($uuid, $clients[2], score => 60);
	is($score->(), 56.67, 'three strangers');
	ok(!$praise->{is_self}, 'none of them is the agent\'s own');
	$transfer->($clients[0]);
	is($score->(), 35, 'the agent is given to the one who praised it: the praise counts no more');
	is_deeply({ map { $_->{id} => $_->{is_self} } @{ of($uuid, 'feedback')->{feedback} } }->{ $praise->{id} },
		JSON::PP::true, 'and is marked, though it came before');
	$transfer->($clients[1]);
	is($score->(), 35, 'given to the critic: the criticism counts still');
	$transfer->($owner);
	is($score->(), 35, 'and given back: it was the agent\'s own once');
	my $more = given($uuid, $clients[0], score => 100);
	ok($more->{is_self}, 'a former owner is told that it is marked');
	is($score->(), 35, 'and gains nothing');
	given($uuid, $clients[0], score => 0) for 1 .. 10;
	is($score->(), 28.89, 'but counts where it lowers');
	is_deeply([@{ of($uuid, 'reputation') }{qw(unique_clients self_clients average_score)}], [3, 2, 28.89], 'counts say both');
	$areg->psql("UPDATE erc8004_agents SET agent_wallet = '$clients[2]{wallet}' WHERE agent_uuid = '$uuid'");
	$areg->settle;
	is($score->(), 10, 'nobody else is left: the lowest of its own, as it is below 50');
	$areg->psql("UPDATE erc8004_reputation SET is_revoked = true, revoked_at = now() WHERE agent_uuid = '$uuid' AND score < 50");
	$areg->settle;
	is($score->(), undef, 'own praise alone is no score');
};

subtest 'the numbers are right after each of a random series' => sub {
	my @uuids = map { new_agent() } 1 .. 2;
	srand 20260301;
	my $pick = sub { return $_[int rand @_] };
	for my $round (1 .. 60) {
		my $uuid = $pick->(@uuids);
		my %member;
		if (rand() < 0.5) {
			my $cents = int rand 10001;
			$member{score} = rand() < 0.5 ? int($cents / 100) : $cents / 100;
		} else {
			$member{value_decimals} = int rand 5;
			$member{value} = int(rand 3 * 10 ** (2 + $member{value_decimals}))
				- 10 ** $member{value_decimals};
		}
		$member{tag1} = $pick->(qw(starred uptime responseTime), 'π') if rand() < 0.6;
		$member{tag2} = 'day' if rand() < 0.3;
		record($uuid, $pick->(@clients), %member);
		my @left = grep { !$_->{revoked} } @{ $rows{$uuid} };
		if (@left && rand() < 0.25) {
			my $row = $pick->(@left);
			$areg->psql("UPDATE erc8004_reputation SET is_revoked = true, revoked_at = now()"
				. " WHERE id = $row->{id}");
			$row->{revoked} = 1;
		}
		numbers_ok($uuid, "round $round");
	}
};

my $payments = 0;

# Links so many payments of a status to an agent, each of another payer, the same ones every time.
sub pay
{
	my ($uuid, $count, $status, $amount) = @_;
	my $first = $payments + 1;
	my $settled = $status eq 'pending' ? 'NULL' : 'now()';

	$payments += $count;
	$areg->psql("WITH p AS (INSERT INTO x402_payments (tx_hash, chain, amount_usdc, payer, payee,"
		. " status, settled_at) SELECT '0x' || lpad(to_hex(n), 64, '0'), 'base', $amount,"
		. " '0x' || lpad(to_hex(n - $first + 4096), 40, '0'), '$owner->{wallet}', '$status', $settled"
		. " FROM generate_series($first, $payments) n RETURNING id)"
		. " INSERT INTO erc8004_agent_payments (payment_id, agent_uuid) SELECT id, '$uuid' FROM p");
}

subtest 'the trust level follows score and payments' => sub {
	my $level = sub { my $s = of($_[0], 'stats'); return join ' ', $s->{trust_level},
		number($s->{payment_success_rate}) // '-', number($s->{trust_score}) // '-' };
	my $uuid = new_agent();
	is($level->($uuid), 'new - -', 'nothing known: new');
	given($uuid, $clients[0], score => 100);
	is($level->($uuid), 'poor - -', 'feedback alone: poor');

	$uuid = new_agent();
	pay($uuid, 1, 'pending', 1);
	is($level->($uuid), 'new - -', 'a payment that is pending changes nothing');
	pay($uuid, 1, 'rejected', 1);
	is(of($uuid, 'stats')->{payment_success_rate}, undef, 'a rejected one counts for no rate');
	pay($uuid, 3, 'failed', 1);
	is($level->($uuid), 'new - -', 'nor do failures of payers that never paid');
	pay($uuid, 1, 'verified', '0.000001');
	is($level->($uuid), 'poor 50 -', 'no score: poor, and now the failure of that payer counts');

	# score, successful, failed: level, rate, trust score
	my @cases = (
		[80, 10, 1, 'excellent', 95, 86],
		[80, 10, 0, 'excellent', 100, 88],
		[80, 9, 0, 'good', 100, 88],
		[79.99, 10, 0, 'good', 100, 87.99],
		[80, 49, 5, 'good', 94.9, 85.96],
		[70, 10, 3, 'good', 85, 76],
		[70, 5, 0, 'good', 100, 82],
		[70, 4, 0, 'fair', 100, 82],
		[69.99, 10, 3, 'fair', 85, 75.99],
		[70, 16, 5, 'fair', 84.38, 75.75],
		[60, 4, 2, 'fair', 75, 66],
		[59.99, 4, 2, 'poor', 75, 65.99],
		[60, 50, 26, 'poor', 74, 65.6],
		[0, 0, 3, 'poor', undef, undef],
	);
	for my $case (@cases) {
		my ($score, $verified, $failed, $level, $rate, $trust) = @$case;
		my $agent = new_agent();
		given($agent, $clients[0], score => $score);
		pay($agent, $verified, 'verified', '12.5');
		pay($agent, $failed, 'failed', '1000');
		my $stats = of($agent, 'stats');
		my $what = "score $score, $verified payments verified, $failed failed";
		is($stats->{trust_level}, $level, "$what: $level");
		is(number($stats->{payment_success_rate}), number($rate), "$what: rate");
		is(number($stats->{trust_score}), number($trust), "$what: trust_score");
		is_deeply([@$stats{qw(total_payments successful_payments failed_payments)}],
			[$verified + $failed, $verified, $failed], "$what: counts");
		is($stats->{total_amount_usdc}, sprintf('%.6f', 12.5 * $verified),
			"$what: the amount of the verified ones, 6 digits");
		like($stats->{last_payment_at}, qr/Z$/, "$what: last_payment_at");
	}
};

subtest 'who may not give feedback' => sub {
	my $uuid = new_agent();
	my $before = $areg->psql_value('SELECT count(*) FROM erc8004_reputation');
	problem_ok(give($uuid, $owner, score => 100), 403, 'forbidden');
	problem_ok(give($uuid, { %{ $clients[0] }, wallet => $clients[1]{wallet} }, score => 1), 403,
		'forbidden');
	problem_ok($areg->post($GIVE, { agent_uuid => $uuid, client_address => $clients[0]{wallet},
		score => 1 }), 401, 'unauthorized');
	problem_ok(give('00000000-0000-4000-8000-000000000000', $clients[0], score => 1), 404,
		'agent_not_found');
	is($areg->aregctl('agent', 'suspend', $uuid)->{exit}, 0, 'an operator suspends the agent');
	problem_ok(give($uuid, $clients[0], score => 1), 403, 'agent_suspended');
	is($areg->aregctl('agent', 'reactivate', $uuid)->{exit}, 0, 'and reactivates it');
	my $revoked = new_agent();
	$areg->psql("UPDATE erc8004_agents SET status = 'revoked' WHERE agent_uuid = '$revoked'");
	is(give($revoked, $clients[0], score => 1)->{status}, 403, 'nor to a revoked agent');

	problem_ok(give($uuid, $clients[0]), 400, 'invalid_score', '/score');
	problem_ok(give($uuid, $clients[0], score => 1, value => 1), 400, 'invalid_score', '/value');
	problem_ok(give($uuid, $clients[0], score => 1, value_decimals => 1), 400, 'invalid_score',
		'/value_decimals');
	problem_ok(give($uuid, $clients[0], score => 101), 400, 'invalid_score', '/score');
	is($areg->psql_value('SELECT count(*) FROM erc8004_reputation'), $before, 'nothing is stored');
	is(given($uuid, { %{ $clients[0] }, wallet => '0x' . uc substr $clients[0]{wallet}, 2 },
		score => 1)->{client_address}, $clients[0]{wallet}, 'the wallet may come in capitals');
};

subtest 'feedback of many at once is all counted' => sub {
	my $uuid = new_agent();
	my @answers = map { @$_ } in_parallel(16, sub {
		my ($i) = @_;
		return [map { give($uuid, $clients[$i % $CLIENTS], score => $i) } 1 .. 4];
	});
	is(scalar(grep { $_->{status} == 201 } @answers), 64, '64 feedbacks from 16 clients are taken');
	my %indexes;
	for my $record (map { $_->{json} } @answers) {
		push @{ $indexes{ $record->{client_address} } }, $record->{feedback_index};
		push @{ $rows{$uuid} }, { client => $record->{client_address}, tag1 => '',
			score => Math::BigFloat->new($record->{score}),
			value => Math::BigFloat->new($record->{score}) };
	}
	is(scalar keys %indexes, $CLIENTS, 'of every client');
	is_deeply([sort { $a <=> $b } @{ $indexes{$_} }], [1 .. @{ $indexes{$_} }],
		'whose indexes follow one another from 1') for sort keys %indexes;
	numbers_ok($uuid, 'after all of them');
	is(of($uuid, 'feedback')->{total}, 64, 'and the list has them');
};

subtest 'the list of feedback' => sub {
	my $uuid = new_agent();
	is_deeply(of($uuid, 'feedback'), { feedback => [], total => 0, limit => 50, offset => 0 },
		'of none is empty');
	my @all = reverse map { given($uuid, $clients[$_ % 3], score => $_,
		tag1 => $_ % 2 ? 'starred' : '', tag2 => $_ % 5 ? 'a b' : 'ü') } 0 .. 29;
	my @revoked = @all[3, 4, 11];
	$areg->psql("UPDATE erc8004_reputation SET is_revoked = true, revoked_at = now() WHERE id IN ("
		. join(',', map { $_->{id} } @revoked) . ')');
	for (@revoked) {
		$_->{is_revoked} = JSON::PP::true;
		$_->{revoked_at} = $areg->psql_value(
			"SELECT rfc3339(revoked_at) FROM erc8004_reputation WHERE id = $_->{id}");
	}
	my @active = grep { !$_->{is_revoked} } @all;

	my $list_ok = sub {
		my ($query, $name, $total, @records) = @_;
		my $list = of($uuid, "feedback$query");
		is_deeply($list->{feedback}, \@records, $name) or diag($query);
		is($list->{total}, $total, "$name: total");
		return $list;
	};
	$list_ok->('', 'newest first, without the revoked', 27, @active);
	$list_ok->('?include_revoked=false', 'said so', 27, @active);
	$list_ok->('?include_revoked=true', 'with the revoked', 30, @all);
	for my $client (@clients[0 .. 2]) {
		my @of = grep { $_->{client_address} eq $client->{wallet} } @active;
		$list_ok->("?client=$client->{wallet}", 'of one client', scalar @of, @of);
		$list_ok->('?client=0x' . uc substr($client->{wallet}, 2), 'in capitals', scalar @of, @of);
	}
	$list_ok->('?client=' . address('nobody'), 'of nobody', 0);
	my @starred = grep { $_->{tag1} eq 'starred' } @all;
	$list_ok->('?tag1=starred&include_revoked=true', 'of a tag', scalar @starred, @starred);
	my @untagged = grep { $_->{tag1} eq '' } @active;
	$list_ok->('?tag1=', 'of the empty tag', scalar @untagged, @untagged);
	my @ab = grep { $_->{tag2} eq 'a b' } @active;
	$list_ok->("?tag2=$_", 'of a second tag with a blank in it', scalar @ab, @ab) for 'a%20b', 'a+b';
	my @both = grep { $_->{tag1} eq 'starred' && $_->{tag2} eq 'ü'
		&& $_->{client_address} eq $clients[0]{wallet} } @active;
	ok(@both > 0, 'some fit every filter');
	$list_ok->("?client=$clients[0]{wallet}&tag1=starred&tag2=%C3%BC", 'of all filters',
		scalar @both, @both);

	my $part = $list_ok->('?limit=10&offset=5', 'a part', 27, @active[5 .. 14]);
	is("$part->{limit} $part->{offset}", '10 5', 'says which');
	ok(defined $part->{next_cursor}, 'and where it goes on');
	is($list_ok->('?limit=27', 'just all', 27, @active)->{next_cursor}, undef, 'ends there');
	$list_ok->('?offset=100', 'past the end', 27);

	for my $case (['limit=0', 'limit'], ['limit=101', 'limit'], ['limit=x', 'limit'],
		['limit=', 'limit'], ['limit=-1', 'limit'], ['limit=1.0', 'limit'],
		['offset=-1', 'offset'], ['offset=100001', 'offset'],
		['offset=99999999999999999999', 'offset'], ['client=0x12', 'client'], ['client=', 'client'],
		['include_revoked=1', 'include_revoked'], ['include_revoked=', 'include_revoked'],
		['nothing=1', 'nothing'], ['tag1=a&tag1=b', 'tag1'], ['cursor=', 'cursor'],
		['cursor=zz', 'cursor'], ["cursor=$part->{next_cursor}&offset=1", 'cursor'],
		['limit=0&offset=x&client=me&what=1', qw(limit offset client what)]) {
		my ($query, @names) = @$case;
		my $answer = $areg->get("/api/v1/agents/$uuid/feedback?$query");
		problem_ok($answer, 400, $names[0] eq 'client' ? 'invalid_address'
			: $answer->{json}{code}, @names) or diag($query);
	}
	for my $text ("newest\nx\nx", "newest\n1\n", "newest\n1\n1;--", "newest\n1\n99999999999999999999",
		"newest\n1\n-1e5", "newest", "name asc\na\nb", "newest\n\xff\n1") {
		problem_ok($areg->get("/api/v1/agents/$uuid/feedback?cursor=" . unpack 'H*', $text), 400,
			'validation_failed', 'cursor');
	}
};

subtest 'a walk by cursor sees each imported record once, by when it was given' => sub {
	my $uuid = new_agent();
	# Given in another order than stored, several at the same microsecond; every third is revoked.
	$areg->psql("INSERT INTO erc8004_reputation (agent_uuid, client_address, feedback_index, value,"
		. " is_revoked, revoked_at, source, created_at) SELECT '$uuid', '$clients[0]{wallet}', n, n, n % 3 = 0,"
		. " CASE n % 3 WHEN 0 THEN now() END, 'import', now() - n * 37 % 20 * interval '1 microsecond'"
		. " FROM generate_series(1, 100) n");
	for my $case (['', 'WHERE NOT is_revoked'], ['&include_revoked=true', '']) {
		my ($query, $where) = @$case;
		my ($cursor, @seen) = ('');
		while (defined $cursor) {
			my $page = of($uuid, "feedback?limit=7$query" . ($cursor && "&cursor=$cursor"));
			push @seen, map { $_->{id} } @{ $page->{feedback} };
			$cursor = $page->{next_cursor};
		}
		my @all = map { $_->[0] } $areg->psql("SELECT id FROM (SELECT * FROM erc8004_reputation"
			. " WHERE agent_uuid = '$uuid') AS f $where ORDER BY created_at DESC, id DESC");
		is_deeply(\@seen, \@all, "newest first$query");
		is_deeply([map { $_->{id} } @{ of($uuid, "feedback?limit=10&offset=40$query")->{feedback} }],
			[@all[40 .. 49]], "and by offset$query");
	}
};

subtest 'a walk by cursor sees each record once while more come in' => sub {
	my $uuid = new_agent();
	$areg->psql("INSERT INTO erc8004_reputation (agent_uuid, client_address, feedback_index,"
		. " has_explicit_score, value, value_decimals) SELECT '$uuid', '$clients[0]{wallet}', n, true,"
		. " n % 101, 0 FROM generate_series(1, 500) n");
	my @before = map { $_->[0] } $areg->psql(
		"SELECT id FROM erc8004_reputation WHERE agent_uuid = '$uuid' ORDER BY id DESC");
	my ($walk, @inserted) = in_parallel(3, sub {
		if ($_[0] > 0) {
			return scalar grep { give($uuid, $clients[$_[0]], score => 5)->{status} == 201 } 1 .. 60;
		}
		my ($cursor, @seen) = ('');
		while (defined $cursor) {
			my $page = of($uuid, 'feedback?limit=7' . ($cursor && "&cursor=$cursor"));
			push @seen, map { $_->{id} } @{ $page->{feedback} };
			$cursor = $page->{next_cursor};
		}
		return \@seen;
	});
	is("@inserted", '60 60', 'others give feedback meanwhile');
	my %old = map { $_ => 1 } @before;
	is_deeply([grep { $old{$_} } @$walk], \@before, 'each that was there is seen once, in order');
	my %seen;
	is(scalar(grep { $seen{$_}++ } @$walk), 0, 'and nothing twice');
	is(of($uuid, 'feedback?limit=1')->{total}, 620, 'all are there in the end');
};

done_testing;
