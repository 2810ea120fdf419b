#!/usr/bin/perl
# SPDX-License-Identifier: Apache-2.0
# Validations: asking for them, responding to them, and reading them with count and average.
use strict;
use warnings;
use Digest::SHA qw(sha256_hex);
use FindBin;
use Test::More;

use lib "$FindBin::Bin/../lib";
use Areg::Test qw(address from_json hash in_parallel json_text problem_ok);

my $areg = Areg::Test->start(workers => 4);
my $owner = $areg->make_user;
my @validators = map { $areg->make_user } 1 .. 3;
my $made = 0;

# Registers an agent and returns its agent_uuid.
sub new_agent { return $areg->make_agent($owner, description => 'It is looked at.')->{agent_uuid} }

sub request
{
	my (%member) = @_;
	return { validator_address => $validators[0]{wallet}, request_uri => 'ipfs://bafy/request.json',
		request_hash => hash('request', ++$made), %member };
}

sub ask
{
	my ($uuid, $request, $user) = @_;
	return $areg->post("/api/v1/agents/$uuid/validations", $request, { key => ($user || $owner)->{key} });
}

# Asks for a validation that must be taken, and returns its request_hash.
sub asked
{
	my ($uuid, %member) = @_;
	my $answer = ask($uuid, request(%member));
	die $answer->{body} if $answer->{status} != 201;
	return $answer->{json}{request_hash};
}

sub respond
{
	my ($hash, $validator, %member) = @_;
	return $areg->post("/api/v1/validations/$hash/response", { %member }, { key => $validator->{key} });
}

sub list
{
	my ($uuid, $query) = @_;
	return $areg->get("/api/v1/agents/$uuid/validations" . ($query ? "?$query" : ''))->{json};
}

sub validation { return $areg->get("/api/v1/validations/$_[0]") }
sub stored { return $areg->psql_value('SELECT count(*) FROM erc8004_validations') }

# The entries of a request: action, subject, before and after.
sub audited
{
	my ($answer) = @_;
	return map { { action => $_->[0], subject => $_->[1], before => from_json($_->[2] // 'null'),
		after => from_json($_->[3] // 'null') } }
		$areg->psql("SELECT action, subject_type || ' ' || subject_id, before, after FROM audit_log"
			. " WHERE request_id = '$answer->{headers}{'x-request-id'}' ORDER BY id");
}

my $TIME = qr/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/;

subtest 'a validation is asked for, responded to, and read' => sub {
	my ($uuid, $hash) = (new_agent(), hash('whole'));
	my $asked = ask($uuid, request(request_hash => '0x' . uc substr($hash, 2)));
	is($asked->{status}, 201, 'asked for') or diag $asked->{body};
	my %pending = %{ $asked->{json} };
	like(delete $pending{requested_at}, $TIME, 'requested_at');
	is_deeply(\%pending, { request_hash => $hash, agent_uuid => $uuid,
		validator_address => $validators[0]{wallet}, request_uri => 'ipfs://bafy/request.json',
		status => 'pending', is_self => JSON::PP::false, map { $_ => undef } qw(response response_uri
		response_hash tag responded_at) }, 'the record: pending, its hash in lower case');
	is_deeply(validation($hash)->{json}, $asked->{json}, 'and so it is read');
	my ($entry, @more) = audited($asked);
	is_deeply([@$entry{qw(action subject before)}, $entry->{after}{status}, @more],
		['validation.request', "validation $hash", undef, 'pending'], 'one audit entry');

	my $given = respond($hash, $validators[0], response => 87, response_uri => 'https://v.example/87',
		response_hash => hash('87'), tag => 'tee');
	is($given->{status}, 200, 'responded to') or diag $given->{body};
	my %completed = %{ $given->{json} };
	like(delete $completed{responded_at}, $TIME, 'responded_at');
	is_deeply([@completed{qw(status response response_uri response_hash tag requested_at)}],
		['completed', 87, 'https://v.example/87', hash('87'), 'tee', $asked->{json}{requested_at}],
		'completed, with what was said');
	is_deeply(validation(uc($hash) =~ s/^0X/0x/r)->{json}, $given->{json}, 'and so it is read');
	is_deeply([$areg->psql("SELECT status, response, tag FROM erc8004_validations"
		. " WHERE request_hash = '$hash'")], [['completed', 87, 'tee']], 'and stored');
	($entry, @more) = audited($given);
	is_deeply([@$entry{qw(action subject)}, $entry->{before}{status}, $entry->{after}{response}, @more],
		['validation.respond', "validation $hash", 'pending', 87], 'one audit entry');
};

subtest 'the last response counts' => sub {
	my $uuid = new_agent();
	my $hash = asked($uuid);
	respond($hash, $validators[0], response => 10, tag => 'first', response_uri => 'https://v.example/1');
	my $again = respond($hash, $validators[0], response => 100);
	is($again->{status}, 200, 'a second one is taken');
	is_deeply([@{ $again->{json} }{qw(response tag response_uri)}], [100, undef, undef],
		'and replaces the first whole');
	my ($entry) = audited($again);
	is_deeply([map { $entry->{$_}{response} } qw(before after)], [10, 100], 'the audit entry has both');
	is_deeply([@{ list($uuid) }{qw(total count average_response)}], [1, 1, 100], 'it is one validation');

	my @answers = in_parallel(8, sub { respond($hash, $validators[0], response => 10 * $_[0]) });
	is_deeply([map { $_->{status} } @answers], [(200) x 8], 'eight at once are all taken');
	my @changes = $areg->psql("SELECT before ->> 'response', after ->> 'response' FROM audit_log"
		. " WHERE action = 'validation.respond' AND subject_id = '$hash' ORDER BY (after ->> 'responded_at')::timestamptz");
	is_deeply([map { $_->[0] } @changes[1 .. $#changes]], [map { $_->[1] } @changes[0 .. $#changes - 1]],
		'each entry says what it replaced');
	is(validation($hash)->{json}{response}, $changes[-1][1], 'and the last stands');
};

subtest 'who responds again and again does not fill the audit log' => sub {
	my ($long, $tag) = ('https://v.example/' . 'x' x 2000, 't' x 256);
	my $asked = ask(new_agent(), request(request_uri => $long));
	my ($entry) = audited($asked);
	is($entry->{after}{request_uri}, 'sha256:' . sha256_hex($long), 'a long request_uri is logged by its digest');
	for my $response (1, 2) {
		my $given = respond($asked->{json}{request_hash}, $validators[0], response => $response,
			response_uri => "$long$response", tag => $tag);
		is($given->{json}{response_uri}, "$long$response", "response $response is stored whole");
		($entry) = audited($given);
	}
	is_deeply([map { @{ $entry->{$_} }{qw(response response_uri tag)} } qw(before after)],
		[map { ($_, 'sha256:' . sha256_hex("$long$_"), $tag) } 1, 2], 'so is a long response_uri, before and after');
	cmp_ok(length(json_text($entry)), '<', 2048, 'an entry is short, whatever was sent');
};

subtest 'only who may can ask or respond' => sub {
	my $uuid = new_agent();
	my $before = stored();
	problem_ok($areg->post("/api/v1/agents/$uuid/validations", request()), 401, 'unauthorized');
	problem_ok(ask($uuid, request(), $validators[0]), 403, 'forbidden');
	problem_ok(ask('00000000-0000-4000-8000-000000000000', request()), 404, 'agent_not_found');
	problem_ok(ask('base:99999999', request()), 404, 'agent_not_found');
	problem_ok(ask('nonsense', request()), 404, 'agent_not_found');
	$areg->aregctl('agent', 'suspend', $uuid);
	problem_ok(ask($uuid, request()), 403, 'agent_suspended');
	problem_ok(ask($uuid, request(), $validators[0]), 403, 'forbidden');
	$areg->aregctl('agent', 'reactivate', $uuid);
	$areg->psql("UPDATE erc8004_agents SET status = 'revoked' WHERE agent_uuid = '$uuid'");
	problem_ok(ask($uuid, request()), 409, 'agent_not_active');
	$areg->psql("UPDATE erc8004_agents SET status = 'active' WHERE agent_uuid = '$uuid'");
	is(stored(), $before, 'nothing is stored by all that');

	my $agent_id = $areg->get("/api/v1/agents/$uuid")->{json}{agent_id};
	my $request = request();
	is(ask("base:$agent_id", $request)->{json}{agent_uuid}, $uuid, 'an agent named by chain:agent_id');
	problem_ok(ask($uuid, $request), 409, 'validation_already_exists');
	problem_ok(ask(new_agent(), $request), 409, 'validation_already_exists');
	my $hash = $request->{request_hash};
	problem_ok($areg->post("/api/v1/validations/$hash/response", { response => 1 }), 401, 'unauthorized');
	problem_ok(respond($hash, $owner, response => 100), 403, 'forbidden');
	problem_ok(respond($hash, $validators[1], response => 100), 403, 'forbidden');
	is(validation($hash)->{json}{status}, 'pending', 'and it stays as it was');
};

subtest 'one request_hash asked for by eight at once is one validation' => sub {
	my ($uuid, $request) = (new_agent(), request());
	my @answers = in_parallel(8, sub { ask($uuid, $request) });
	is_deeply([sort map { $_->{status} } @answers], [201, (409) x 7], 'one 201, seven 409');
	is(list($uuid)->{total}, 1, 'one validation');
};

subtest 'what is no request_hash is not found' => sub {
	for my $wrong (hash('nothing'), '0x1', 'abc', substr(hash('x'), 2), hash('x') . '00', '%00',
		'0x' . 'g' x 64, "' OR true --", '-1') {
		my $path = $wrong =~ s/([ '])/sprintf '%%%02x', ord $1/ger;
		my @answers = ($areg->get("/api/v1/validations/$path"), respond($path, $owner, response => 1));
		if ($wrong eq '%00') {
			is($_->{status}, 400, 'a NUL in a path is refused') for @answers;
		} else {
			problem_ok($_, 404, 'validation_not_found') for @answers;
		}
	}
};

subtest 'bad input is refused with every fault' => sub {
	my $uuid = new_agent();
	my $hash = asked($uuid);
	my $before = stored();
	my @requests = (
		[request(validator_address => '0x1'), 'invalid_address', '/validator_address'],
		[request(request_uri => 'no uri'), 'validation_failed', '/request_uri'],
		[request(request_uri => ''), 'validation_failed', '/request_uri'],
		[request(request_uri => 'https://x.example/' . 'x' x 2048), 'validation_failed', '/request_uri'],
		[request(request_hash => '0x12'), 'validation_failed', '/request_hash'],
		[request(agent_uuid => $uuid), 'validation_failed', '/agent_uuid'],
		[{}, 'validation_failed', qw(/request_hash /request_uri /validator_address)],
	);
	for my $case (@requests) {
		my ($body, $code, @at) = @$case;
		my $answer = ask($uuid, $body);
		is_deeply([$answer->{status}, sort map { $_->{pointer} } @{ $answer->{json}{errors} }],
			[400, @at], "@at");
		like($answer->{json}{code}, qr/^(?:$code|invalid_address)$/, 'its code');
	}
	is(stored(), $before, 'nothing is stored');
	my @responses = (
		[{}, '/response'], [{ response => 101 }, '/response'], [{ response => -1 }, '/response'],
		[{ response => 1.5 }, '/response'], [{ response => '50' }, '/response'],
		[{ response => undef }, '/response'], ['{"response":1e2}', '/response'],
		['{"response":100000000000000000000000000000000000000000}', '/response'],
		[{ response => 1, tag => 'x' x 257 }, '/tag'],
		[{ response => 1, response_uri => 'x' }, '/response_uri'],
		[{ response => 1, response_hash => 'x' }, '/response_hash'],
		[{ response => 1, score => 1 }, '/score'],
	);
	for my $case (@responses) {
		my ($body, $at) = @$case;
		problem_ok($areg->post("/api/v1/validations/$hash/response", $body,
			{ key => $validators[0]{key} }), 400, 'validation_failed', $at);
	}
	is(validation($hash)->{json}{status}, 'pending', 'and it stays as it was');
	for my $response (0, 100) {
		is(respond($hash, $validators[0], response => $response, tag => "\x{e4}" x 256)->{json}{response},
			$response, "$response is a response");
	}
};

subtest 'the list counts and averages as the contract does' => sub {
	my ($uuid, $other) = (new_agent(), new_agent());
	is_deeply(list($uuid), { validations => [], count => 0, self_count => 0,
		average_response => undef, raw_average_response => undef, total => 0,
		limit => 50, offset => 0 }, 'an empty one');

	# validator, response (undef: none), tag
	my @all = ([0, 100, 'tee'], [0, 99, 'tee'], [0, 0, 'zk'], [1, 50, 'tee'], [1, 33, undef],
		[2, undef, undef], [0, undef, undef], [1, 1, 'zk']);
	my @hashes;
	for my $one (@all) {
		my ($validator, $response, $tag) = @$one;
		push @hashes, asked($uuid, validator_address => $validators[$validator]{wallet});
		respond($hashes[-1], $validators[$validator], response => $response, tag => $tag)
			if defined $response;
	}
	respond(asked($other), $validators[0], response => 77, tag => 'tee');

	for my $wanted ([[], ''], [[0], ''], [[1], ''], [[2], ''], [[0, 1], ''], [[0, 1, 2], 'tee'],
		[[], 'tee'], [[], 'zk'], [[1], 'zk'], [[2], 'tee'], [[], 'none'], [[0, 0], 'tee']) {
		my ($who, $tag) = @$wanted;
		my %who = map { $_ => 1 } @$who;
		my @mine = grep { (!@$who || $who{ $all[$_][0] }) && ($tag eq '' || ($all[$_][2] // '') eq $tag) }
			reverse 0 .. $#all;
		my @responses = map { $all[$_][1] // () } @mine;
		my $sum = 0;
		$sum += $_ for @responses;
		my $query = join '&', (map { "validator=$validators[$_]{wallet}" } @$who), "tag=$tag";
		my $answer = list($uuid, $query);
		my $name = "validators @$who, tag '$tag'";
		is_deeply([map { $_->{request_hash} } @{ $answer->{validations} }], [@hashes[@mine]],
			"$name: newest first");
		is_deeply([@$answer{qw(total count average_response)}],
			[scalar @mine, scalar @responses, @responses ? int($sum / @responses) : undef],
			"$name: total, count, average");
	}

	my $upper = '0x' . uc substr($validators[1]{wallet}, 2);
	is(list($uuid, "validator=$upper")->{total}, 3, 'an address in upper case');
	my $page = list($uuid, 'limit=3&offset=6');
	is_deeply([map({ $_->{request_hash} } @{ $page->{validations} }), @$page{qw(total count limit offset)},
		$page->{next_cursor}], [@hashes[1, 0], 8, 6, 3, 6, undef],
		'a page counts all, and not what it shows');
	my @seen;
	for (my $cursor = ''; defined $cursor;) {
		my $part = list($uuid, 'limit=3' . ($cursor && "&cursor=$cursor"));
		push @seen, map { $_->{request_hash} } @{ $part->{validations} };
		$cursor = $part->{next_cursor};
		asked($uuid);
	}
	is_deeply(\@seen, [reverse @hashes], 'a walk by cursor sees each once, whatever comes meanwhile');

	problem_ok($areg->get('/api/v1/agents/base:99999999/validations'), 404, 'agent_not_found');
	for my $wrong ('limit=0', 'cursor=zz', 'validator=0x1', 'validator=', 'client=x', 'tag=a&tag=b',
		'cursor=' . unpack 'H*', "newest\nx\nx") {
		my ($name) = $wrong =~ /^(\w+)/;
		problem_ok($areg->get("/api/v1/agents/$uuid/validations?$wrong"), 400,
			$name eq 'validator' ? 'invalid_address' : 'validation_failed', $name);
	}
};

subtest 'what the agent says of itself counts only where it lowers the average' => sub {
	my $uuid = new_agent();
	my $numbers = sub { my ($query) = @_;
		return join ' ', map { $_ // '-' } @{ list($uuid, $query) }{qw(total count self_count average_response raw_average_response)} };
	my $says = sub { my ($validator, $response) = @_;
		my $hash = asked($uuid, validator_address => $validator->{wallet});
		return defined $response ? respond($hash, $validator, response => $response)->{json} : undef };
	my $make_own = sub { my ($user, $role) = @_;
		$areg->psql("INSERT INTO erc8004_agent_addresses (agent_uuid, address, role, since)
			VALUES ('$uuid', '$user->{wallet}', '$role', now())");
		# No event tells of a row that is written by hand.
		$areg->aregctl('cache', 'flush');
		$areg->settle; };

	my $by_owner = $says->($owner, 100);
	ok($by_owner->{is_self}, 'the owner validates the agent itself, and that is marked');
	is($numbers->(), '1 1 1 - 100', 'it is no average');
	$says->($owner, undef);
	is($numbers->(), '2 1 1 - 100', 'nor with one that is still pending');
	my $critical = $says->($validators[0], 20);
	ok(!$critical->{is_self}, 'a stranger is none of its own');
	is($numbers->(), '3 2 1 20 60', 'a stranger is critical');
	$make_own->($validators[0], 'operator');
	is($numbers->(), '3 2 2 20 60', 'and is made an operator: the criticism stands');
	ok(validation($critical->{request_hash})->{json}{is_self}, 'marked');
	is_deeply([map { $_->{is_self} } @{ list($uuid)->{validations} }], [(JSON::PP::true) x 3], 'in the list too');
	$areg->psql("UPDATE erc8004_agent_addresses SET until = now() WHERE agent_uuid = '$uuid' AND role = 'operator'");
	$says->($validators[1], 50);
	is($numbers->(), '4 3 2 35 56', 'beside others it counts, though it ended, and praise does not');
	$says->($owner, 34);
	is($numbers->(), '5 4 3 34 51', 'each own one counts as long as it lowers what is below it');
	$says->($owner, 40);
	is($numbers->(), '6 5 4 34 48', 'and one that is lower than others, but not than the average, does not');
	is($numbers->("validator=$owner->{wallet}"), '4 3 3 34 58', 'the same within a filter');
	is($numbers->("validator=$validators[1]{wallet}"), '1 1 0 50 50', 'of strangers alone');
};

is_deeply([grep { /"status":5/ } split /\n/, $areg->log_text('areg')], [], 'no answer was a 5xx');
unlike($areg->log_text('areg'), qr/database call failed/, 'nor did a statement fail unexpectedly');

done_testing;
