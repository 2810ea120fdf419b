# SPDX-License-Identifier: Apache-2.0
# Agents: registering them, reading them back, who may, and what HTTP is owed on the way.
use strict;
use warnings;
use utf8;

use File::Basename qw(dirname);
use Test::More;
use Time::HiRes qw(sleep time);

use lib dirname(__FILE__) . '/../lib';
use Areg::Test qw(address canonical from_json in_parallel json_text problem_ok sample_registry skip_without);

binmode $_, ':utf8' for Test::More->builder->output, Test::More->builder->failure_output;

my $REGISTER = '/api/v1/agents/register';
my $REGISTRY = sample_registry('base'); # of ethereum and base, EIP-55
my $NO_UUID = '00000000-0000-4000-8000-000000000000';
my $TYPE = 'https://eips.ethereum.org/EIPS/eip-8004#registration-v1';

my $areg = Areg::Test->start(workers => 4);
my $user = $areg->make_user;
my $other = $areg->make_user;

sub file { return { type => $TYPE, name => 'Agent', description => 'It answers.', @_ } }

sub body
{
	my (%member) = @_;
	return { owner_address => $user->{wallet}, chain => 'base', registration_file => file(),
		%member };
}

sub register
{
	my ($body, $who) = @_;
	return $areg->post($REGISTER, $body, { key => ($who || $user)->{key} });
}

# Registers an agent of that name and returns it.
sub registered
{
	my ($name, %member) = @_;
	my $answer = register(body(registration_file => file(name => $name), %member));

	is($answer->{status}, 201, "$name is registered") or diag($answer->{body});
	return $answer->{json};
}

# All that a registration writes to.
sub stored
{
	return $areg->psql_value(q{
		SELECT (SELECT count(*) FROM erc8004_agents) || ' agents, '
			|| (SELECT count(*) FROM erc8004_agent_metadata) || ' metadata, '
			|| (SELECT count(*) FROM erc8004_agent_stats) || ' stats, next '
			|| (SELECT string_agg(chain || ':' || next_agent_id, ' ' ORDER BY chain)
				FROM erc8004_agent_counters) || ', counts '
			|| (SELECT string_agg(chain || ':' || status || ':' || agents, ' '
				ORDER BY chain, status) FROM erc8004_agent_counts)});
}

sub agent { return '/api/v1/agents/' . $_[0] }

my ($agent, $uuid);

subtest 'a registration answers with the whole agent' => sub {
	my $file = file(name => 'Erster Agent', image => 'https://example.com/i.png',
		services => [{ name => 'MCP', endpoint => 'https://example.com/mcp' }],
		x402Support => JSON::PP::true, active => JSON::PP::true,
		supportedTrust => ['reputation']);
	my $before = time;
	my $answer = register(body(registration_file => $file,
		metadata => { b_2 => 'zweiter', 'a-1' => '数' }));

	is($answer->{status}, 201, 'status') or diag($answer->{body});
	$agent = $answer->{json};
	$uuid = $agent->{agent_uuid};
	my %expected = (
		agent_id => 0, chain => 'base', chain_id => 8453, registry_address => lc $REGISTRY,
		agent_registry => 'eip155:8453:' . lc $REGISTRY, owner_address => $user->{wallet},
		agent_wallet => $user->{wallet}, status => 'active', registration_file => $file,
		token_uri => $areg->url . "/api/v1/agents/$uuid/registration",
		metadata => { b_2 => 'zweiter', 'a-1' => '数' }, conformance => [], authority => 'registry',
		registered_tx => undef,
	);
	is_deeply([sort keys %$agent],
		[sort keys %expected, qw(agent_uuid created_at updated_at)], 'every field, no more');
	is_deeply($agent->{$_}, $expected{$_}, $_) for sort keys %expected;
	like($uuid, qr/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/,
		'agent_uuid');
	like($answer->{body}, qr/"agent_id":0,"chain":"base","chain_id":8453,/, 'ids are numbers');
	for my $name (qw(created_at updated_at)) {
		like($agent->{$name}, qr/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/, "$name is RFC 3339");
	}
	my $at = $areg->psql_value("SELECT extract(epoch FROM timestamptz '$agent->{created_at}')");
	cmp_ok(abs($at - $before), '<', 10, 'created_at is now, in UTC');
	is($answer->{headers}{location}, "/api/v1/agents/$uuid", 'Location');
	is_deeply($areg->get($answer->{headers}{location})->{json}, $agent, 'and there it is');
};

subtest 'the transaction that registered an agent is shown where it is known' => sub {
	my $agent = registered('On a chain');
	my $tx = '0x' . 'c4' x 32;

	is($agent->{registered_tx}, undef, 'one that is registered here has none');
	$areg->psql("UPDATE erc8004_agents SET registered_tx = '$tx' WHERE agent_uuid = '$agent->{agent_uuid}'");
	my $shown = $areg->get(agent($agent->{agent_uuid}))->{json};
	is($shown->{registered_tx}, $tx, 'another has');
};

subtest 'an agent is found by every form of its id' => sub {
	my $lower = lc $REGISTRY;
	my $upper = '0x' . uc substr $lower, 2;
	my $encoded = "eip155:8453:$lower:0" =~ s/:/%3A/gr;

	for my $id ($uuid, uc $uuid, ucfirst $uuid, 'base:0', 'base%3A0', 'base%3a0',
		"eip155:8453:$lower:0", "eip155:8453:$REGISTRY:0", "eip155:8453:$upper:0", $encoded) {
		is_deeply($areg->get(agent($id))->{json}, $agent, $id);
		is_deeply($areg->get(agent("$id/"))->{json}, $agent, "$id/");
	}
	for my $part (qw(registration stats reputation feedback)) {
		is($areg->get(agent("base:0/$part/"))->{status}, 200, "$part/, with a slash at the end");
	}
	my $sepolia = registered('On Base Sepolia', chain => 'base-sepolia');
	is($sepolia->{chain}, 'base-sepolia', 'a chain by its name');
	is($areg->get(agent('baseSepolia:0'))->{json}{agent_uuid}, $sepolia->{agent_uuid},
		'and by its alias');
	is(registered('By alias', chain => 'baseSepolia')->{chain}, 'base-sepolia',
		'an alias is answered with the name');
};

subtest 'what cannot name an agent is not found' => sub {
	for my $id ($NO_UUID, 'base:4711', 'base:' . '9' x 77, "eip155:8453:$REGISTRY:4711",
		'eip155:8453:' . address('nobody') . ':0', "eip155:1:$REGISTRY:0", 'ethereum:0',
		"eip155:424242:$REGISTRY:0", 'nowhere:0', 'base:-1', 'base:01x', 'base:', ':0', 'base',
		'base:1e1', 'base:' . '9' x 79, 'base:' . '9' x 500, "eip155:8453:0x12:0",
		"eip155:8453:\L$REGISTRY\E", 'eip155::0x:0', 'eip155:8453:' . ($REGISTRY =~ s{D}{d}r) . ':0',
		'%C3%A4', 'a%20b', "$uuid ", substr($uuid, 1), "{$uuid}", "'%3B--") {
		my $path = agent($id =~ s/ /%20/gr);
		problem_ok($areg->get($path), 404, 'agent_not_found');
		problem_ok($areg->get("$path/registration"), 404, 'agent_not_found');
	}
	problem_ok($areg->get(agent("$NO_UUID/$_")), 404, 'agent_not_found')
		for qw(stats reputation feedback);
	problem_ok($areg->get($_), 404, 'not_found')
		for '/', '/api', '/api/v1', '/api/v2/agents', agent("$uuid/nothing"),
		agent("$uuid/registration/more"), '/api/v1/Agents';
	is($areg->get(agent($_))->{status}, 400, "a path with $_ is refused")
		for 'a%00b', 'a%ff', 'a%2', 'a%zz', '%zzb';
};

subtest 'the registration file is served as it was given' => sub {
	my $text = '{"name":"Grüße, 世界 🤖","description":"\u00e9\ud83e\udd16 \/ \"quoted\" \\\\",'
		. '"zero":-0.0,"big":123456789012345678901234567890123456789012345678901234567890,'
		. '"fraction":0.1000000000000000000000001,"exponent":1.50E+10,"yes":true,"none":null,'
		. '"empty":{},"list":[1,[2,{"deep":[]}],"x"],"x-unknown":{"b":1,"a":{"ü":"ö"}}}';
	utf8::encode(my $bytes = $text);
	my $answer = register(qq({"owner_address":"$user->{wallet}","chain":"base",)
		. qq("registration_file":$bytes}));
	is($answer->{status}, 201, 'unknown fields, huge numbers and any script are taken')
		or diag($answer->{body});
	my $id = $answer->{json}{agent_uuid};
	my $served = $areg->get(agent("$id/registration"));
	is($served->{status}, 200, 'status');
	is($served->{headers}{'content-type'}, 'application/json', 'content type');
	is(canonical($served->{body}), canonical($bytes), 'equal as JSON, every digit of it');
	is(canonical(($areg->get(agent($id))->{body} =~ /"registration_file":(.*),"conformance":/s)[0]),
		canonical($bytes), 'and in the agent too');
	is($answer->{json}{token_uri}, $areg->url . "/api/v1/agents/$id/registration",
		'token_uri is its own address');
	my $path = substr $answer->{json}{token_uri}, length $areg->url;
	is($areg->get($path)->{body}, $served->{body}, 'and answers');
	my $name = $areg->get(agent("$id/stats"))->{json}{name};
	is($name, 'Grüße, 世界 🤖', 'the name is read out of it');
};

subtest 'the same registration again is refused and says which agent it is' => sub {
	my $first = registered('Twice', registration_file => file(name => 'Twice', n => 1));
	my $again = sub {
		my ($what, $body) = @_;
		my $before = stored();
		my $answer = register($body);
		problem_ok($answer, 409, 'agent_already_exists');
		is($answer->{json}{agent_uuid}, $first->{agent_uuid}, "agent_uuid: $what");
		is(stored(), $before, 'nothing is stored');
	};

	$again->('the same', body(registration_file => file(name => 'Twice', n => 1)));
	$again->('with metadata', body(registration_file => file(name => 'Twice', n => 1),
		metadata => { new => 'x' }));
	$again->('members in another order, with space between',
		qq({"registration_file": { "n":\t1, "name" : "\\u0054wice",\n "type":"$TYPE",)
			. qq( "description":"It answers."},"chain":"base","owner_address":"$user->{wallet}"}));
	$again->('the owner in capitals', body(owner_address => '0x' . uc substr($user->{wallet}, 2),
		registration_file => file(name => 'Twice', n => 1)));

	registered('Twice', chain => 'ethereum', registration_file => file(name => 'Twice', n => 1));
	is(register(body(owner_address => $other->{wallet},
		registration_file => file(name => 'Twice', n => 1)), $other)->{status}, 201,
		'another owner may');
	registered('Twice', registration_file => file(name => 'Twice', n => 2));

	for my $round (1 .. 5) {
		my $start = time + 0.2;
		my @answers = in_parallel(2, sub {
			sleep $start - time if $start > time;
			return register(body(registration_file => file(name => "At once $round")));
		});
		is(join(' ', sort map { $_->{status} } @answers), '201 409',
			"two at the same instant, round $round: one is stored");
		is($answers[0]{json}{agent_uuid}, $answers[1]{json}{agent_uuid}, 'both name it');
	}
};

subtest 'a registration needs a valid key of the owner' => sub {
	my $before = stored();
	my $without = $areg->post($REGISTER, body());
	problem_ok($without, 401, 'unauthorized');
	like($without->{headers}{'www-authenticate'}, qr/^Bearer/, 'WWW-Authenticate');

	my $revoked = $areg->make_user;
	my $inactive = $areg->make_user;
	my $expired = $areg->make_user;
	is($areg->get(agent($uuid), $_)->{status}, 200, 'a key may come with a read')
		for map { ({ key => $_->{key} }, { 'X-API-Key' => $_->{key} }) } $revoked;
	is($areg->aregctl('key', 'revoke', substr($revoked->{key}, 0, 18))->{exit}, 0,
		'an operator revokes a key');
	$areg->psql("UPDATE users SET is_active = false WHERE id = '$inactive->{id}'");
	$areg->psql("UPDATE api_keys SET expires_at = now() - interval '1 second'"
		. " WHERE user_id = '$expired->{id}'");
	my $mistyped = $user->{key} =~ s/(.)$/$1 eq 'a' ? 'b' : 'a'/er;
	my %headers = (
		'revoked' => { key => $revoked->{key} },
		'of an inactive user' => { key => $inactive->{key} },
		'expired' => { key => $expired->{key} },
		'mistyped' => { key => $mistyped },
		'mistyped, as X-API-Key' => { 'X-API-Key' => $mistyped },
		'not a key' => { key => 'hello' },
		'empty' => { Authorization => 'Bearer ' },
		'too long' => { key => $user->{key} x 20 },
		'of another kind' => { Authorization => 'Basic dXNlcjpwYXNz' },
		'SQL' => { key => "' OR 1=1 --" },
	);
	for my $name (sort keys %headers) {
		for my $answer ($areg->post($REGISTER, body(), $headers{$name}),
			$areg->get(agent($uuid), $headers{$name}),
			$areg->get('/api/v1/agents', $headers{$name})) {
			problem_ok($answer, 401, 'unauthorized') or diag("key $name");
			like($answer->{headers}{'www-authenticate'} // '', qr/^Bearer/, "key $name");
		}
	}
	is(register(body(owner_address => $_))->{status}, 403, "not for $_")
		for $other->{wallet}, address('stranger');
	problem_ok(register(body(owner_address => $other->{wallet})), 403, 'forbidden');

	my $added = from_json($areg->aregctl('--json', 'user', 'add', '--name', 'no wallet')->{stdout});
	my $key = $areg->aregctl('key', 'create', '--quiet', '--user', $added->{id})->{stdout};
	chomp $key;
	problem_ok(register(body(), { key => $key }), 403, 'forbidden');
	is(stored(), $before, 'nothing of all that is stored');

	is($areg->post($REGISTER, body(registration_file => file(name => 'X-API-Key')),
		{ 'X-API-Key' => $user->{key} })->{status}, 201, 'X-API-Key serves as well');
	is($areg->post($REGISTER, body(registration_file => file(name => 'bearer')),
		{ Authorization => "bearer $user->{key}" })->{status}, 201, 'the scheme in any case');
};

subtest 'a registration is stored whole or not at all' => sub {
	my $before = stored();
	problem_ok(register(body(chain => 'nowhere')), 400, 'chain_not_supported', '/chain');
	problem_ok(register(body(chain => 'Base')), 400, 'chain_not_supported', '/chain');
	problem_ok(register(body(metadata => { good => 'x', "bad\tkey" => 'x' })), 400,
		'validation_failed', "/metadata/bad\tkey");
	problem_ok(register(body(metadata => { good => 'x', agentWallet => 'x' })), 400,
		'validation_failed', '/metadata/agentWallet');
	problem_ok(register(body(metadata => { good => 'x', a => 1, b => undef, "c/\x7f" => 'x' })), 400,
		'validation_failed', '/metadata/a', '/metadata/b', "/metadata/c~1\x7f");
	problem_ok(register(body(owner_address => '0x12', chain => 'nowhere', registration_file => {},
		metadata => { '' => 'x' })), 400, 'invalid_address', '/owner_address', '/chain',
		'/registration_file/name', '/registration_file/description', '/metadata/');
	is(stored(), $before, 'after bad input');

	$areg->psql("ALTER TABLE erc8004_agent_metadata ADD CONSTRAINT no_x CHECK (key <> 'x')");
	my $answer = register(body(registration_file => file(name => 'X'),
		metadata => { a => '1', x => '2' }));
	cmp_ok($answer->{status}, '>=', 400, 'an entry that only the database refuses');
	unlike($answer->{body}, qr/no_x|constraint|erc8004_/, 'what it says stays inside');
	is(stored(), $before, 'nothing is stored then either');
	$areg->psql('ALTER TABLE erc8004_agent_metadata DROP CONSTRAINT no_x');

	my $id = $areg->psql_value("SELECT next_agent_id FROM erc8004_agent_counters"
		. " WHERE chain = 'base'");
	is(registered('After the failures')->{agent_id}, $id, 'no id was lost');
};

subtest 'ids begin at 0 on each chain and follow one another' => sub {
	for my $id (0 .. 2) {
		is(registered("Sepolia $id", chain => 'sepolia')->{agent_id}, $id, "sepolia:$id");
	}
	my $next = $areg->psql_value("SELECT next_agent_id FROM erc8004_agent_counters"
		. " WHERE chain = 'base'");
	my @clients = in_parallel(16, sub {
		my ($client) = @_;
		return [map { my $answer = register(body(
			registration_file => file(name => "Client $client, agent $_")));
			$answer->{status} == 201 ? $answer->{json}{agent_id} : "status $answer->{status}"
		} 1 .. ($client < 8 ? 13 : 12)];
	});
	is_deeply([sort { $a <=> $b } map { @$_ } @clients], [$next .. $next + 199],
		'200 registrations at once from 16 clients get 200 consecutive ids');
	is($areg->get('/api/v1/agents?chain=base&limit=1')->{json}{total}, $next + 200,
		'and all are counted');
};

subtest 'a suspended or revoked agent is still shown, its registration is not' => sub {
	my $suspended = registered('To be suspended');
	my $revoked = registered('To be revoked');
	my $id = $suspended->{agent_uuid};

	is($areg->aregctl('agent', 'suspend', "base:$suspended->{agent_id}", '--reason', 'test')->{exit},
		0, 'an operator suspends an agent');
	$areg->psql("UPDATE erc8004_agents SET status = 'revoked'"
		. " WHERE agent_uuid = '$revoked->{agent_uuid}'");
	for ([suspended => $suspended], [revoked => $revoked]) {
		my ($status, $agent) = @$_;
		my $path = agent($agent->{agent_uuid});
		problem_ok($areg->get("$path/registration"), 404, 'agent_not_found');
		my $answer = $areg->get($path);
		is($answer->{status}, 200, "a $status agent answers");
		is($answer->{json}{status}, $status, 'with its status');
		is_deeply($answer->{json}{registration_file}, $agent->{registration_file},
			'and its registration file');
		cmp_ok($answer->{json}{updated_at}, 'gt', $agent->{updated_at}, 'updated_at says when');
		is($areg->get("$path/$_")->{status}, 200, "$_ answers") for qw(stats reputation feedback);
	}
	is($areg->aregctl('agent', 'reactivate', agent_id($revoked))->{exit}, 3,
		'a revoked agent does not come back');
	is($areg->aregctl('agent', 'reactivate', $id)->{exit}, 0, 'a suspended agent does');
	is($areg->get(agent("$id/registration"))->{status}, 200, 'and so does its registration');
};

sub agent_id { return "$_[0]{chain}:$_[0]{agent_id}" }

subtest 'unchanged answers are not sent again' => sub {
	my $path = agent($uuid);
	for my $path ($path, "$path/registration", "$path/stats", "$path/reputation", "$path/feedback",
		'/api/v1/agents') {
		my $full = $areg->get($path);
		my $etag = $full->{headers}{etag} // '';
		like($etag, qr/^"[^"]+"$/, "$path has an ETag");
		is($areg->get($path)->{headers}{etag}, $etag, 'the same for the same answer');
		for my $known ($etag, "W/$etag", qq("other", $etag), qq("a",W/$etag , "b"), '*') {
			my $answer = $areg->get($path, { 'If-None-Match' => $known });
			is($answer->{status}, 304, "If-None-Match: $known");
			is($answer->{body}, '', 'without a body');
			is($answer->{headers}{etag}, $etag, 'with the ETag');
		}
		for my $known ('"other"', substr($etag, 1, -1), 'W/"other", "' . ('0' x 32) . '"') {
			is($areg->get($path, { 'If-None-Match' => $known })->{status}, 200,
				"If-None-Match: $known");
		}
		my $head = $areg->api(HEAD => $path);
		is($head->{status}, 200, 'HEAD');
		is($head->{body}, '', 'has no body');
		is($head->{headers}{$_}, $full->{headers}{$_}, "its $_ is that of GET")
			for qw(etag content-type content-length cache-control);
		is($areg->api(HEAD => $path, undef, { 'If-None-Match' => $etag })->{status}, 304,
			'HEAD with If-None-Match');
	}
	my $of = registered('Changing');
	my $etag = $areg->get(agent($of->{agent_uuid}))->{headers}{etag};
	$areg->psql("UPDATE erc8004_agents SET status = 'suspended'"
		. " WHERE agent_uuid = '$of->{agent_uuid}'");
	is($areg->get(agent($of->{agent_uuid}), { 'If-None-Match' => $etag })->{status}, 200,
		'what changed is sent');
	is($areg->get(agent($NO_UUID))->{headers}{etag}, undef, 'a problem has none');
	problem_ok($areg->get(agent($NO_UUID), { 'If-None-Match' => '*' }), 404, 'agent_not_found');
};

subtest 'methods' => sub {
	my %allow = ($REGISTER => 'POST, OPTIONS', '/api/v1/agents/feedback' => 'POST, OPTIONS',
		(map { $_ => 'GET, HEAD, OPTIONS' } '/api/v1/agents',
			map { agent("$uuid$_") } qw(/registration /stats /reputation /summary /feedback)),
		agent($uuid) => 'GET, HEAD, PATCH, OPTIONS');
	for my $path (sort keys %allow) {
		for my $method (qw(GET POST PUT PATCH DELETE)) {
			next if $allow{$path} =~ /\b$method\b/;
			my $answer = $areg->api($method => $path, $method =~ /^P/ ? {} : undef);
			problem_ok($answer, 405, 'method_not_allowed');
			is($answer->{headers}{allow}, $allow{$path}, "$method $path: Allow");
		}
		my $answer = $areg->api(OPTIONS => $path, undef, { Origin => 'https://app.example',
			'Access-Control-Request-Method' => 'GET' });
		is($answer->{status}, 204, "OPTIONS $path");
		is($answer->{body}, '', 'has no body');
		is($answer->{headers}{allow}, $allow{$path}, 'Allow');
		is($answer->{headers}{'access-control-allow-methods'}, $allow{$path}, 'to other origins');
		is($answer->{headers}{'access-control-allow-origin'}, '*', 'to any of them');
		like($answer->{headers}{'access-control-allow-headers'}, qr/\b$_\b/i, "which may send $_")
			for qw(Authorization Content-Type Idempotency-Key If-None-Match X-API-Key);
	}
	problem_ok($areg->api(OPTIONS => '/api/v1/nothing'), 404, 'not_found');
	is($areg->get($_)->{headers}{'access-control-allow-origin'}, '*', "$_ can be read by any origin")
		for agent($uuid), agent($NO_UUID), '/api/v1/agents?limit=0';
};

subtest 'every answer has a request id' => sub {
	my $id = sub { return $areg->get(agent($uuid), @_ ? { 'X-Request-ID' => @_ } : {})
		->{headers}{'x-request-id'} };
	is($id->($_), $_, "the caller's own: $_")
		for 'abc', 'a.B:c_d-9', 'f' x 128;
	for my $bad ('a b', 'f' x 129, 'a"b', '<x>', '{}', 'a;b') {
		my $given = $id->($bad);
		isnt($given, $bad, "not $bad");
		like($given, qr/^[0-9a-f]{32}$/, 'but one of ours');
	}
	isnt($id->(), $id->(), 'each its own');
	is($areg->get(agent($NO_UUID), { 'X-Request-ID' => 'mine' })->{json}{request_id}, 'mine',
		'a problem says it too');
	like($areg->log_text('areg'), qr/"f{128}"/, 'and the log has it');
};

subtest 'problems explain themselves' => sub {
	my $answer = register(body(owner_address => 'me', chain => 7));
	problem_ok($answer, 400, 'invalid_address', '/owner_address', '/chain');
	my $problem = $answer->{json};
	is_deeply([sort keys %$problem],
		[sort qw(type title status detail code request_id errors)], 'nothing but RFC 9457 and ours');
	is($problem->{title}, 'Bad Request', 'title');
	like($problem->{type}, qr{/docs/errors/invalid_address\.html$}, 'type leads to a page');
	is($problem->{detail}, 'Invalid owner_address: not 0x and 40 hex digits',
		'detail names the first fault');
	ok(!grep({ join(' ', sort keys %$_) ne 'detail pointer' } @{ $problem->{errors} }),
		'each error has pointer and detail');
	is($answer->{headers}{'cache-control'}, 'no-store', 'it is not kept');
};

SKIP: {
	skip_without 'curl with HTTP/2 is not installed', 2
		if (qx{curl --version 2>/dev/null} || '') !~ /^Features:.*\bHTTP2\b/m;
	my $address = $areg->tls_url . agent($uuid);
	my $text = qx{curl -sk --http2 -w '\\n%{http_version} %{http_code}' $address};
	my ($body, $how) = $text =~ /^(.*)\n(.*)$/s;
	is($how, '2 200', 'HTTP/2 over TLS is spoken');
	is_deeply(from_json($body), $areg->get(agent($uuid))->{json}, 'with the same answer');
}

done_testing;
