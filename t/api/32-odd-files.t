# SPDX-License-Identifier: Apache-2.0
# Registration files as they are found on chains: each of these did not do what it should once.
use strict;
use warnings;
use utf8;

use File::Basename qw(dirname);
use Test::More;

use lib dirname(__FILE__) . '/../lib';
use Areg::Test qw(address from_json json_text problem_ok sample_registry);

binmode $_, ':utf8' for Test::More->builder->output, Test::More->builder->failure_output;

my $REGISTRY = sample_registry('base');
my $areg = Areg::Test->start(workers => 2);
my $user = $areg->make_user;
my $next_id = 1000;

# Imports agents with files of exactly these texts; returns their numbers. More members of the lines
# are given as text, too.
sub imported_all
{
	my ($files, %more) = @_;
	my ($lines, @ids) = ('');

	for my $file (@$files) {
		my %line = (agent_id => $next_id, chain => '"base"', registry_address => qq("$REGISTRY"),
			owner_address => '"' . address('owner') . '"', registration_file => $file, %more);

		push @ids, $next_id++;
		$lines .= '{' . join(',', map { qq("$_":$line{$_}) } sort keys %line) . "}\n";
	}
	my $run = $areg->aregctl('import', '-', \$lines);
	is($run->{exit}, 0, 'all lines are imported') or diag($run->{stderr});
	return @ids;
}

sub imported { return (imported_all([shift], @_))[0] }

sub encoded
{
	my ($text) = @_;
	utf8::encode($text);
	return $text =~ s/([^A-Za-z0-9_.-])/sprintf '%%%02X', ord $1/ger;
}

# The agents that a search finds, by number.
sub found
{
	my ($query) = @_;
	my $answer = $areg->get("/api/v1/agents?$query");

	is($answer->{status}, 200, "?$query is answered") or diag($answer->{body});
	return { map { $_->{agent_id} => $_ } @{ $answer->{json}{agents} || [] } };
}

subtest 'escapes of NUL and of half a surrogate pair may stand anywhere in a file' => sub {
	my @all;
	my @odd = ('\u0000', 'a\u0000b', '\ud800', 'x\udc00y', '\ud83d', '\udc00\ud800', '\ud800\u0041');

	for my $odd (@odd) {
		push @all, (qq({"name":"$odd Nul","description":"d"}), qq({"name":"n","description":"$odd"}),
			qq({"name":"n","description":"d","$odd":1}), qq({"name":"n","description":"d","x":{"$odd":["$odd"]}}),
			qq({"name":"n","description":"d","image":"$odd"}),
			qq({"name":"n","description":"d","services":[{"name":"$odd","endpoint":"$odd","$odd":{"$odd":"$odd"},)
				. qq("skills":["$odd"],"domains":["$odd"]},"$odd"]}),
			qq({"name":"n","description":"d","services":{"$odd":"$odd"}}),
			qq({"name":"n","description":"d","endpoints":[{"name":"mcp","endpoint":"https://a.example/"}],"services":null,"$odd":"$odd"}),
			qq({"name":"n","description":"d","supportedTrust":["$odd"],"registrations":[{"agentId":"$odd","agentRegistry":"$odd"}]}));
	}
	my @ids = imported_all(\@all);
	for my $file (@all) {
		my $id = shift @ids;
		my $agent = $areg->get("/api/v1/agents/base:$id");

		is($areg->get("/api/v1/agents/base:$id/registration")->{body}, $file, 'the file is served byte for byte');
		is($agent->{status}, 200, 'the agent is shown');
		isnt(index($agent->{body}, $file), -1, 'with its file');
	}
	for my $query ('', 'owner_address=' . address('owner'), 'q=nul', 'sort=name', 'service=mcp', 'chain=base') {
		my ($cursor, $seen) = ('', 0);

		for (;;) {
			my $answer = $areg->get("/api/v1/agents?limit=7&$query$cursor");

			last if !is($answer->{status}, 200, "a page of ?$query");
			unlike($answer->{body}, qr/\\u(?:0000|d[89a-f])/i, 'holds nothing that readers refuse');
			$seen += @{ $answer->{json}{agents} };
			last if !$answer->{json}{next_cursor};
			$cursor = '&cursor=' . encoded($answer->{json}{next_cursor});
		}
		ok($seen > 0, 'has agents');
	}
	is($areg->aregctl('--json', qw(agent show base:1000))->{exit}, 0, 'aregctl shows such an agent');
};

subtest 'lists show the services as they stand in the file, and the agent shows all' => sub {
	my $services = '[{"endpoint":"https://a.example/\u00e4","name":"MCP","version":1.50,"x":[true,null,{}]},"web",7]';
	my $id = imported(qq({"name":"Shown","description":"d","services": $services }));
	my @many = map { { name => "s$_", endpoint => "https://a.example/$_" } } 1 .. 25;

	is_deeply(found('q=shown')->{$id}{services}, from_json($services), 'a list');
	like($areg->get('/api/v1/agents?q=shown')->{body}, qr/"version":1\.50,/, 'a number keeps its text');
	for my $none ('', ',"services":null', ',"services":{"mcp":"https://a.example/"}', ',"services":"mcp"', ',"services":[]') {
		$id = imported(qq({"name":"Without","description":"d"$none}));
		is_deeply(found('q=without')->{$id}{services}, [], "nothing of: $none");
	}

	$id = imported(json_text({ name => 'Many', description => 'd', services => \@many }));
	is_deeply(found('q=many')->{$id}{services}, [@many[0 .. 19]], 'twenty of many');
	is_deeply($areg->get("/api/v1/agents/base:$id")->{json}{registration_file}{services}, \@many, 'the agent shows all');

	$many[$_]{skills} = ['é' x 3000] for 1, 3, 4;
	$id = imported(json_text({ name => 'Large', description => 'd', services => [@many[0 .. 5]] }));
	is_deeply(found('q=large')->{$id}{services}, [@many[0 .. 2, 5]], 'whole entries, up to 8 KiB');
	is_deeply($areg->get("/api/v1/agents/base:$id")->{json}{registration_file}{services}, [@many[0 .. 5]], 'the agent shows all');
};

sub register
{
	my ($file, %member) = @_;
	return $areg->post('/api/v1/agents/register', { owner_address => $user->{wallet}, chain => 'base',
		registration_file => ref $file ? { name => 'Agent ' . $next_id++, description => 'd', %$file } : $file,
		%member }, { key => $user->{key} });
}

subtest 'what SDKs write is registered: null and an empty image mean none' => sub {
	for my $file ({ image => '' }, { image => undef }, { services => undef, endpoints => undef },
		{ registrations => undef, supportedTrust => undef, x402Support => undef, active => undef, type => undef },
		{ image => undef, updatedAt => 1767225600, services => [{ name => 'MCP', endpoint => 'https://a.example/mcp',
			version => '2025-06-18', mcpTools => ['chart'] }], registrations => [], supportedTrust => ['reputation'],
			active => \0, x402Support => \0 }) {
		my $answer = register($file);

		is($answer->{status}, 201, json_text($file)) or diag($answer->{body});
		is_deeply($answer->{json}{conformance}, [], 'with nothing to say');
		is_deeply($areg->get("/api/v1/agents?owner_address=$user->{wallet}&limit=1")->{json}{agents}[0]{image}, undef, 'shown as none');
	}
	problem_ok(register({ image => 7 }), 400, 'invalid_registration_file', '/registration_file/image');
	my $id = imported('{"name":"n","description":"d","image":"","services":null,"endpoints":[{"name":"MCP-null","endpoint":"https://n.example/"}]}');
	is_deeply($areg->get("/api/v1/agents/base:$id")->{json}{conformance}, [], 'nor of an import');
	is_deeply([keys %{ found('service=mcp-null') }], [$id], 'where services is null, endpoints count');
};

subtest 'a skill is found wherever an SDK writes it' => sub {
	my $id = imported(json_text({ name => 'Skilled', description => 'd', skills => ['top-skill'], services => [
		{ name => 'A2A', endpoint => 'https://s.example/card.json', a2aSkills => ['a2a-skill'] },
		{ name => 'MCP', endpoint => 'https://s.example/mcp', mcpTools => ['mcp-tool', { name => 'mcp-object' }],
			mcpPrompts => ['mcp-prompt'], mcpResources => ['mcp-resource'] },
		{ name => 'OASF', endpoint => 'https://s.example/oasf', skills => ['oasf-skill'], domains => ['oasf-domain'] }] }));

	is_deeply([keys %{ found($_) }], [$id], $_) for 'domain=oasf-domain',
		map { "skill=$_" } qw(top-skill a2a-skill mcp-tool mcp-object mcp-prompt mcp-resource oasf-skill);
};

subtest 'a URI is shown whole or not at all' => sub {
	my $short = 'data:image/png;base64,' . 'A' x 2026;
	my $long = 'data:image/png;base64,' . 'A' x 50000;
	my ($whole, $none) = imported_all([map { json_text({ name => 'Pixel', description => 'd', image => $_ }) } $short, $long]);
	my $found = found('q=pixel');

	is($found->{$whole}{image}, $short, 'of 2048 characters');
	is($found->{$none}{image}, undef, 'longer');
	is($areg->get("/api/v1/agents/base:$none")->{json}{registration_file}{image}, $long, 'the file has it');
};

subtest 'metadata may have any key' => sub {
	my %odd = ('filecoin.pieceCID' => 'bafk', 'endpoint/MCP' => 'https://m.example/', 'a b' => 'x', '' => 'none', "tab\t\x{1}" => 'y',
		'鍵' => 'z', 'k' x 5000 => 'long', 'k' x 4999 . 'l' => 'as long');
	my $id = imported('{"name":"n","description":"d"}', metadata => json_text(\%odd));
	is_deeply($areg->get("/api/v1/agents/base:$id")->{json}{metadata}, \%odd, 'of an import');

	my %new = ('filecoin.pieceCID' => 'bafk', 'endpoint/MCP' => 'x', 'a b' => 'y', 'é' x 128 => 'z', "\x{a0}" => 'a');
	my $answer = register({}, metadata => \%new);
	is($answer->{status}, 201, 'the API takes what has no control characters') or diag($answer->{body});
	is_deeply($answer->{json}{metadata}, \%new, 'and shows it');
	$answer = $areg->api(PATCH => "/api/v1/agents/$answer->{json}{agent_uuid}", { metadata => { 'a b' => 'new', "\x{a0}" => undef,
		'é' x 128 => 'z' } }, { key => $user->{key} });
	delete $new{"\x{a0}"};
	is_deeply($answer->{json}{metadata}, { %new, 'a b' => 'new' }, 'and changes it');
};

subtest 'the number of a chain names it in an id' => sub {
	my $id = imported('{"name":"Numbered","description":"d"}');
	for my $path ('', qw(/registration /stats /reputation /feedback /payments /validations)) {
		is($areg->get("/api/v1/agents/8453:$id$path")->{body}, $areg->get("/api/v1/agents/base:$id$path")->{body}, "8453:$id$path");
	}
	my $answer = $areg->get("/api/v1/agents/8454:$id");
	problem_ok($answer, 404, 'agent_not_found');
	like($answer->{json}{detail}, qr/chain_id:agent_id \(8453:42\)/, 'which names the forms that work');
	is($areg->aregctl(qw(agent show), "8453:$id")->{exit}, 0, 'aregctl knows it, too');
};

subtest 'an import from a file with any name is in the audit log' => sub {
	my $path = $areg->dir . "/na\xefve\xff\x{e2}\x{82}.jsonl";
	open my $file, '>', $path or die "$path: $!\n";
	printf $file qq({"agent_id":%d,"chain":"base","registry_address":"$REGISTRY","owner_address":"%s"}\n), $next_id++, address('owner');
	close $file or die "$path: $!\n";
	my $run = $areg->aregctl('--json', 'import', $path);

	is($run->{exit}, 0, 'exit 0') or diag($run->{stderr});
	like(from_json($run->{stdout})->{file}, qr/na\\xefve\\xff\\xe2\\x82\.jsonl$/, 'the report shows its bytes');
	like($areg->psql_value("SELECT subject_id FROM audit_log WHERE action = 'import' ORDER BY id DESC LIMIT 1"),
		qr/na\\xefve\\xff\\xe2\\x82\.jsonl$/, 'so does the audit entry');
};

subtest 'URIs that run code are refused, and said of imports' => sub {
	my @bad = ('javascript:alert(1)', 'JAVASCRIPT:x', " java\tscript:x", 'vbscript:x', 'file:///etc/passwd', 'data:text/html,<script>x</script>');
	my $uuid = register({})->{json}{agent_uuid};
	my $client = $areg->make_user;

	for my $uri (@bad) {
		my @services = ({ name => 'web', endpoint => $uri });
		my $name = json_text($uri);

		problem_ok(register({ services => \@services }), 400, 'invalid_registration_file', '/registration_file/services/0/endpoint');
		problem_ok(register({ image => $uri }), 400, 'invalid_registration_file', '/registration_file/image');
		for my $field (qw(endpoint file_uri)) {
			problem_ok($areg->post('/api/v1/agents/feedback', { agent_uuid => $uuid, client_address => $client->{wallet}, score => 1,
				$field => $uri }, { key => $client->{key} }), 400, 'validation_failed', "/$field");
		}
		problem_ok($areg->post("/api/v1/agents/$uuid/validations", { validator_address => $client->{wallet}, request_uri => $uri,
			request_hash => '0x' . '1' x 64 }, { key => $user->{key} }), 400, 'validation_failed', '/request_uri');

		my $id = imported(json_text({ name => 'Script', description => 'd', image => $uri, external_url => $uri, services => \@services }));
		my %said = map { $_->{pointer} => $_->{detail} } @{ $areg->get("/api/v1/agents/base:$id")->{json}{conformance} };
		is_deeply([sort keys %said], ['/external_url', '/image', '/services/0/endpoint'], "$name is said of an import");
		like($said{'/image'}, qr/runs code/, 'with why');
		is(found('q=script')->{$id}{image}, undef, 'no list shows it as a picture');
	}
	for my $endpoint ('https://a.example/', 'did:web:a.example', 'mailto:a@a.example', 'vitalik.eth', 'eip155:1:0x80',
		'a.example:443', 'ipfs://bafy', 'wss://a.example/') {
		is(register({ services => [{ name => 'n', endpoint => $endpoint }] })->{status}, 201, "$endpoint is taken");
	}
};

subtest 'characters in a name that hide or turn the text are refused, and said of imports' => sub {
	for my $name ("ab\x{202e}cd", "Uni\x{200b}swap", "Uni\x{200d}swap", "\x{feff}x", "x\x{e0041}", "\x{2066}x") {
		my $id = imported(json_text({ name => $name, description => 'd', services => [{ name => $name, endpoint => 'e' }] }));

		problem_ok(register({ name => $name }), 400, 'invalid_registration_file', '/registration_file/name');
		is_deeply([sort map { $_->{pointer} } @{ $areg->get("/api/v1/agents/base:$id")->{json}{conformance} }], ['/name', '/services/0/name'],
			'both names');
	}
	is(register({ name => $_ })->{status}, 201, "$_ is taken") for "\x{645}\x{6cc}\x{200c}\x{62e}", "\x{1f469}\x{200d}\x{1f4bb} coder", '天气预报';
};

subtest 'after the highest id there is none: the registry is full, others go on' => sub {
	my $highest = '115792089237316195423570985008687907853269984665640564039457584007913129639935';
	my $line = qq({"agent_id":$highest,"chain":"base","registry_address":"$REGISTRY","owner_address":")
		. address('owner') . qq("}\n);

	is($areg->aregctl('import', '-', \$line)->{exit}, 0, 'an agent of the highest id is imported');
	like($areg->get("/api/v1/agents/base:$highest")->{body}, qr/"agent_id":$highest,/, 'and shown');
	for (1 .. 2) {
		problem_ok(register({}), 409, 'registry_full');
	}
	is(register({}, chain => 'ethereum')->{status}, 201, 'another registry goes on');
	is($areg->aregctl('import', '-', \$line)->{exit}, 0, 'the import may be run again');
	imported('{"name":"Lower","description":"d"}');
};

done_testing;
