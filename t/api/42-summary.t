# SPDX-License-Identifier: Apache-2.0
# The summary of feedback is that of ERC-8004's getSummary, to the last digit: by hand where a rule
# can be seen, and for thousands of random sets against a model of the standard's own words.
use strict;
use warnings;
use utf8;

use File::Basename qw(dirname);
use Math::BigInt;
use Test::More;

use lib dirname(__FILE__) . '/../lib';
use Areg::Test qw(address in_parallel problem_ok sample_registry);

binmode $_, ':utf8' for Test::More->builder->output, Test::More->builder->failure_output;

my $SETS = 5000;
my $AGENTS = 25; # that the sets are spread over
my $READERS = 4;
my $REGISTRY = lc sample_registry('base');
my $E38 = '1' . '0' x 38;

my $areg = Areg::Test->start(workers => 4);
my $owner = $areg->make_user;
sub new_agent { return $areg->make_agent($owner) }

# Stores feedback as an import would: rows {agent, client, index, value, decimals, tag1, tag2,
# revoked}.
sub store
{
	my @lines = map { join "\t", @$_{qw(agent client index value decimals tag1 tag2)},
		$_->{revoked} ? ('t', '2026-01-01') : ('f', '\N') } @_;
	$areg->psql("COPY erc8004_reputation (agent_uuid, client_address, feedback_index, value,"
		. " value_decimals, tag1, tag2, is_revoked, revoked_at) FROM STDIN;\n"
		. join("\n", @lines, '\.', ''));
}

sub escaped
{
	utf8::encode(my $text = $_[0]);
	return $text =~ s/([^A-Za-z0-9_.-])/sprintf '%%%02X', ord $1/ger;
}

sub summary
{
	my ($agent, $clients, %tags) = @_;
	return $areg->get("/api/v1/agents/$agent/summary?" . join '&', (map { "clients=$_" } @$clients),
		map { "$_=" . escaped($tags{$_}) } sort keys %tags);
}

# The answer as it is sent: numbers with all their digits.
sub text
{
	my ($count, $value, $decimals) = @_;
	return qq({"count":$count,"summary_value":$value,"summary_value_decimals":$decimals});
}

# ---- the model, from ERC8004.md ----

sub power_of_ten { return Math::BigInt->new('1' . '0' x $_[0]) }

# Integer division that truncates toward zero.
sub divided
{
	my ($value, $by) = @_;
	my $size = $value->copy->babs->bdiv($by);
	return $value->is_neg ? $size->bneg : $size;
}

# count, summaryValue and summaryValueDecimals over rows of one agent.
sub model
{
	my ($rows, $clients, $tag1, $tag2) = @_;
	my ($count, $sum, %times) = (0, Math::BigInt->new(0));

	for my $client (map { lc } @$clients) {
		for my $row (@$rows) {
			next if $row->{client} ne $client || $row->{revoked};
			next if $tag1 ne '' && $row->{tag1} ne $tag1;
			next if $tag2 ne '' && $row->{tag2} ne $tag2;
			$sum->badd(Math::BigInt->new($row->{value})->bmul(power_of_ten(18 - $row->{decimals})));
			$times{ $row->{decimals} }++;
			$count++;
		}
	}
	return (0, 0, 0) if $count == 0;
	my ($most) = sort { $times{$b} <=> $times{$a} || $a <=> $b } keys %times;
	my $average = divided($sum, Math::BigInt->new($count));
	return ($count, divided($average, power_of_ten(18 - $most))->bstr, $most);
}

# ---- by hand ----

subtest 'each rule of the summary' => sub {
	my @cases = (
		['of nothing', [], [0, 0, 0]],
		['of one', [[87, 0]], [1, 87, 0]],
		['of 0', [[0, 5]], [1, 0, 5]],
		['truncates', [[1, 0], [2, 0]], [2, 1, 0]],
		['truncates toward zero', [[-1, 0], [-2, 0]], [2, -1, 0]],
		['truncates to zero', [[-1, 0], [0, 0]], [2, 0, 0]],
		['brings decimals together', [[5, 0], [250, 2], [350, 2]], [3, 366, 2]],
		['has the most frequent decimals', [[1, 0], [1, 0], [12345, 4]], [3, 1, 0]],
		['has the smallest of them on a tie', [[1, 0], [15, 1]], [2, 1, 0]],
		['on a tie of three', [[100, 18], [1, 3], [7, 9]], [3, 0, 3]],
		['cuts at 18 decimals first', [[1, 18], [0, 18], [0, 18]], [3, 0, 18]],
		['of the largest', [[$E38, 0], [$E38, 0], [$E38, 0]], [3, $E38, 0]],
		['of the smallest', [["-$E38", 0], ["-$E38", 0]], [2, "-$E38", 0]],
		['cancels them', [["-$E38", 0], [$E38, 0], [-7, 0]], [3, -2, 0]],
		['widens to the decimals', [[$E38, 0], [1, 18], [1, 18]],
			[3, '33333333333333333333333333333333333333' . '333333333333333334', 18]],
		['of a thing and a bit', [[$E38, 18], [1, 18]], [2, '5' . '0' x 37, 18]],
	);
	my $agent = new_agent()->{agent_uuid};
	my $n = 0;
	for my $case (@cases) {
		my ($name, $feedback, $expected) = @$case;
		my $client = address('by hand', $n++);
		my @rows = map { { agent => $agent, client => $client, index => $_ + 1,
			value => $feedback->[$_][0], decimals => $feedback->[$_][1], tag1 => '', tag2 => '' }
		} 0 .. $#$feedback;
		store(@rows) if @rows;
		my $answer = summary($agent, [$client]);
		is($answer->{status}, 200, 'status') or diag($answer->{body});
		is($answer->{body}, text(@$expected), $name);
		is(text(model(\@rows, [$client], '', '')), text(@$expected), 'the model says so, too');
	}
};

subtest 'which feedback is summed up' => sub {
	my $agent = new_agent();
	my $uuid = $agent->{agent_uuid};
	my @clients = map { $areg->make_user } 1 .. 3;
	my $give = sub {
		my ($client, %member) = @_;
		my $answer = $areg->post('/api/v1/agents/feedback', { agent_uuid => $uuid,
			client_address => $client->{wallet}, %member }, { key => $client->{key} });
		die $answer->{body} if $answer->{status} != 201;
		return $answer->{json}{id};
	};
	my ($a, $b, $c) = map { $_->{wallet} } @clients;
	my $ok = sub {
		my ($clients, $tags, $name, @expected) = @_;
		is(summary($uuid, $clients, %$tags)->{body}, text(@expected), $name);
	};
	$give->($clients[0], value => 100, tag1 => 'größe 数', tag2 => 'day');
	$give->($clients[0], value => 200, tag1 => 'größe 数', tag2 => 'week');
	$give->($clients[0], value => 400, tag1 => 'a&b=c', tag2 => 'day');
	my $revoked = $give->($clients[1], value => 1000);
	$give->($clients[1], score => 99.5);
	$ok->([$a], {}, 'all of a client', 3, 233, 0);
	$ok->([$a], { tag1 => 'größe 数' }, 'of a tag', 2, 150, 0);
	$ok->([$a], { tag2 => 'day' }, 'of the other tag', 2, 250, 0);
	$ok->([$a], { tag1 => 'größe 数', tag2 => 'day' }, 'of both', 1, 100, 0);
	$ok->([$a], { tag1 => 'a&b=c' }, 'a tag of any characters', 1, 400, 0);
	$ok->([$a], { tag1 => '', tag2 => '' }, 'empty tags filter nothing', 3, 233, 0);
	$ok->([$a], { tag1 => 'Day' }, 'a tag that none has', 0, 0, 0);
	$ok->([$b], {}, 'a score is its value and decimals', 2, 549, 0);
	is($areg->post("/api/v1/agents/feedback/$revoked/revoke", undef, { key => $clients[1]{key} })
		->{status}, 200, 'a client revokes');
	$ok->([$b], {}, 'what is revoked counts no more', 1, 995, 1);
	$ok->([$a, $b], {}, 'of two clients', 4, 199, 0);
	$ok->([$c], {}, 'of a client who gave none', 0, 0, 0);
	$ok->([$b, $b, $a], {}, 'a client named twice counts twice, as in the contract', 5, 179, 0);
	$ok->(['0x' . uc substr $a, 2], {}, 'an address in capitals', 3, 233, 0);
	$ok->([$a, map { address('more', $_) } 1 .. 99], { tag1 => '', tag2 => 'week' },
		'of a hundred clients', 1, 200, 0);

	is(summary($_, [$a])->{body}, text(3, 233, 0), "by $_") for "base:$agent->{agent_id}",
		"eip155:8453:$REGISTRY:$agent->{agent_id}", uc $uuid;
	my $first = summary($uuid, [$a]);
	is($areg->get("/api/v1/agents/$uuid/summary?clients=$a",
		{ 'If-None-Match' => $first->{headers}{etag} })->{status}, 304, 'unchanged, it is not sent again');

	problem_ok(summary('base:4711', [$a]), 404, 'agent_not_found');
	problem_ok(summary('x', [$a]), 404, 'agent_not_found');
	problem_ok(summary($uuid, []), 400, 'validation_failed', 'clients');
	problem_ok(summary($uuid, [], tag1 => 'x'), 400, 'validation_failed', 'clients');
	problem_ok(summary($uuid, [map { address('more', $_) } 1 .. 101]), 400, 'validation_failed',
		'clients');
	problem_ok(summary($uuid, [$a, $_]), 400, 'invalid_address', 'clients')
		for '', 'x', '0x12', "${a}0", "$a,$b", '0x8004A169FB4a3325136EB29fA0ceB6D2e539A432';
	problem_ok($areg->get("/api/v1/agents/$uuid/summary?clients=$a&$_->[0]"), 400,
		'validation_failed', $_->[1])
		for ['tag1=a&tag1=b', 'tag1'], ['tag3=a', 'tag3'], ['client=x', 'client'], ['limit=1', 'limit'];
};

# ---- thousands of random sets ----

sub pick { return $_[int rand @_] }

# An integer of the contract's range: often its ends, zero, or a random number of digits.
sub random_value
{
	my $sign = pick('', '', '-');
	my $digits = pick(1, 1, 2, 3, 5, 17, 18, 19, 20, 37, 38);
	my $kind = rand;

	return 0 if $kind < 0.05;
	return "$sign$E38" if $kind < 0.15;
	return $sign . (1 + int rand 9) . join '', map { int rand 10 } 2 .. $digits;
}

# A set: the feedback of up to four clients of its own, and what is asked of it.
sub random_set
{
	my ($i, $agent) = @_;
	my @clients = map { address("set $i client $_") } 1 .. 1 + int rand 4;
	my @decimals = map { int rand 19 } 1 .. 1 + int rand 4;
	my @tags = ('', 'starred', 'größe', 'a b');
	my (@rows, %index);

	for (1 .. int rand 13) {
		my $client = pick(@clients);
		push @rows, { agent => $agent, client => $client, index => ++$index{$client},
			value => random_value(), decimals => pick(@decimals), tag1 => pick(@tags),
			tag2 => pick(@tags[0, 1]), revoked => rand() < 0.15 };
	}
	my @asked = (map { rand() < 0.8 ? $_ : () } @clients);
	push @asked, pick(@clients) if !@asked || rand() < 0.1;
	push @asked, address("set $i stranger") if rand() < 0.2;
	return { agent => $agent, rows => \@rows, clients => \@asked,
		tag1 => rand() < 0.3 ? pick(@tags) : '', tag2 => rand() < 0.2 ? pick(@tags[0, 1]) : '' };
}

subtest "$SETS random sets" => sub {
	my $seed = $ENV{AREG_SEED} || 20260804;
	srand $seed;
	my @agents = map { new_agent()->{agent_uuid} } 1 .. $AGENTS;
	my @sets = map { random_set($_, $agents[$_ % $AGENTS]) } 1 .. $SETS;
	my @rows = map { @{ $_->{rows} } } @sets;
	store(@rows);
	is($areg->psql_value('SELECT count(*) FROM erc8004_reputation WHERE agent_uuid IN ('
		. join(',', map { "'$_'" } @agents) . ')'), scalar @rows, 'are stored');

	my @results = in_parallel($READERS, sub {
		my ($reader) = @_;
		my ($equal, $empty, @different) = (0, 0);
		for (my $i = $reader; $i < @sets; $i += $READERS) {
			my $set = $sets[$i];
			my $answer = summary($set->{agent}, $set->{clients}, tag1 => $set->{tag1},
				tag2 => $set->{tag2});
			my @expected = model(@$set{qw(rows clients tag1 tag2)});
			$empty++ if $expected[0] == 0;
			if ($answer->{status} == 200 && $answer->{body} eq text(@expected)) {
				$equal++;
			} else {
				push @different, "set $i: $answer->{body}, not " . text(@expected);
			}
		}
		return [$equal, $empty, @different[0 .. ($#different < 2 ? $#different : 2)]];
	});
	my ($equal, $empty, @different) = (0, 0);
	for (@results) {
		my ($its_equal, $its_empty, @its_different) = @$_;
		$equal += $its_equal;
		$empty += $its_empty;
		push @different, @its_different;
	}
	is($equal, $SETS, 'all are equal to the model') or diag(join "\n", "seed $seed", @different);
	cmp_ok($empty, '<', $SETS / 2, 'and most of them are of something');
	note(scalar @rows, " records; $empty sets are of nothing");
};

done_testing;
