# SPDX-License-Identifier: Apache-2.0
# Whatever is sent, the answer names what is wrong with it, nothing is stored, and no worker is lost:
# bodies first, then request lines and headers, then the FastCGI socket itself.
use strict;
use warnings;

use Encode qw(encode_utf8);
use File::Basename qw(dirname);
use IO::Select;
use IO::Socket::UNIX;
use Test::More;
use Time::HiRes qw(sleep time);

use lib dirname(__FILE__) . '/../lib';
use Areg::Test qw(address hash problem_ok wait_until json_text from_json);

use constant { MIB => 1024 * 1024, WORKERS => 3, TIMEOUT => 5 };

my $areg = Areg::Test->start(workers => WORKERS, set => { request_timeout => TIMEOUT . 's' });
my $user = $areg->make_user(tier => 'enterprise');
my $owner = $areg->make_user(tier => 'enterprise');
my $register = '/api/v1/agents/register';
my $feedback = '/api/v1/agents/feedback';
my %key = (key => $user->{key});

# A JSON object from texts of JSON, in order of the names; undef leaves a member out.
sub object
{
	my (%text) = @_;
	return '{' . join(',', map { json_text($_) . ":$text{$_}" }
		grep { defined $text{$_} } sort keys %text) . '}';
}

sub file { return object(name => '"Ada"', description => '"Adds numbers"', @_) }

sub registration
{
	return object(chain => '"base"', owner_address => json_text($user->{wallet}),
		registration_file => file(), @_);
}

sub with_file { return registration(registration_file => file(@_)) }

# A string of JSON with `count` characters, of several bytes each unless they are given.
sub characters
{
	my ($count, $character) = @_;
	return '"' . encode_utf8(($character // "\x{1f916}") x $count) . '"';
}

sub list { my ($count, $text) = @_; return '[' . join(',', ($text) x $count) . ']' }
sub nested { my ($levels) = @_; return '[' x $levels . ']' x $levels }
sub padded { my ($text, $size) = @_; return $text . ' ' x ($size - length $text) }

my $service = '{"name":"mcp","endpoint":"https://a.example/"}';
my $entry = '{"agentId":1,"agentRegistry":"eip155:1:' . address('registry') . '"}';
my $uri = 'https://a.example/';

my $agent = $areg->post($register, registration(owner_address => json_text($owner->{wallet})),
	{ key => $owner->{key} })->{json};
ok($agent && $agent->{agent_uuid}, 'there is an agent to give feedback to');

sub opinion
{
	return object(agent_uuid => json_text($agent->{agent_uuid}),
		client_address => json_text($user->{wallet}), score => '90', @_);
}

sub valued { return opinion(score => undef, value => '1', @_) }

# ---- what is just right ----

# Everything below is one past these.
for my $case (
	['a name of 200 characters, 800 bytes', with_file(name => characters(200))],
	['a description of 2,000 characters', with_file(description => characters(2000))],
	['an image of 2,048 characters',
		with_file(image => '"' . $uri . 'a' x (2048 - length $uri) . '"')],
	['20 services', with_file(services => list(20, $service))],
	['10 registrations', with_file(registrations => list(10, $entry))],
	['a metadata key of 256 bytes', registration(metadata => object('k' x 256 => '"v"'))],
	['metadata keys as they are on chains', registration(metadata => object('a.b/c:d' => '"v"'), registration_file => file(name => '"Chain keys"'))],
	['64 KiB of metadata', registration(metadata => object(k => '"' . 'v' x 65536 . '"'),
		registration_file => file(name => '"Much metadata"'))],
	['a file of 64 KiB', with_file(x => '"' . 'x' x (65536 - length file(x => '""')) . '"')],
	['nesting of 32', with_file(x => nested(30))],
	['a body of 512 KiB', padded(with_file(x => '"512 KiB"'), 512 * 1024)],
	['charset=utf-8', with_file(x => '"utf-8"'), { 'Content-Type' => 'application/json; charset=UTF-8' }],
	['a pair of surrogates', with_file(x => '"\ud83e\udd16"')],
) {
	my ($name, $body, $headers) = @$case;
	my $answer = $areg->post($register, $body, { %key, %{ $headers || {} } });
	is($answer->{status}, 201, "register: $name is taken") or diag($answer->{body});
}
for my $case (
	['score 0', opinion(score => '0')],
	['score 100', opinion(score => '100')],
	['score 99.99', opinion(score => '99.99')],
	['value 1e38 in digits', valued(value => '1' . '0' x 38)],
	['value -1e38 in digits', valued(value => '-1' . '0' x 38)],
	['18 decimals', valued(value_decimals => '18')],
	['a tag of 256 characters, 1,024 bytes', opinion(tag1 => characters(256), tag2 => characters(256))],
	['an endpoint of 2,048 characters', opinion(endpoint => characters(2048))],
	['null for what is optional', opinion(tag1 => 'null', value => 'null', file_hash => 'null')],
) {
	my ($name, $body) = @$case;
	my $answer = $areg->post($feedback, $body, \%key);
	is($answer->{status}, 201, "feedback: $name is taken") or diag($answer->{body});
}

# ---- what is wrong with any body ----

# But for what is written in the background: seals of the audit log, and when a key was used last.
my $tables = join ' UNION ALL ', map {
	"SELECT '$_->[0]', md5(coalesce(string_agg(row, E'\\n' ORDER BY row), ''))"
	. " FROM (SELECT (to_jsonb(t) - 'last_used_at')::text AS row FROM $_->[0] t) rows"
} $areg->psql("SELECT quote_ident(table_name) FROM information_schema.tables
	WHERE table_schema = 'public' AND table_type = 'BASE TABLE'
	AND table_name NOT IN ('audit_seals', 'audit_sealing')");

sub digest { return join "\n", sort map { "@$_" } $areg->psql($tables) }

my $before = digest();
my $pids = join ' ', $areg->worker_pids;
my ($bad, $invalid) = (400, 'validation_failed');

# Bodies wrong for every POST. `$make` gives a right body with the members named changed.
sub any_body
{
	my ($make) = @_;
	my $right = $make->();
	my $text = sub { return $make->(x => $_[0]) };

	return (
		['an empty body', '', ''],
		['blanks only', " \t\r\n", ''],
		['a list', '[]', ''],
		['a string', '"x"', ''],
		['null', 'null', ''],
		['a number', '42', ''],
		['a body cut in the middle', substr($right, 0, length($right) / 2)],
		['a body without its last byte', substr($right, 0, -1), ''],
		['a body cut within a string', substr($right, 0, -4)],
		['bytes behind the value', "$right x", ''],
		['a second value', "$right$right", ''],
		['a NUL behind the value', "$right\0", ''],
		['a byte order mark', "\xef\xbb\xbf$right", ''],
		['a body of 16 KiB that is no JSON', 'x' x (16 * 1024), ''],
		['a key twice', $make->() =~ s/\}\z/,"twice":1,"twice":1}/r, '/twice'],
		['a key twice, once escaped', $make->() =~ s/\}\z/,"twice":1,"tw\\u0069ce":1}/r, '/twice'],
		['nesting of 33', $text->(nested(32)), '/x' . '/0' x 31],
		['nesting of 5,000', $text->(nested(5000)), '/x' . '/0' x 31],
		['10,000 open brackets', '[' x 10000],
		$right =~ /registration_file/ ? ['20,000 empty lists', $text->(list(20000, '[]'))] : (),
		['NUL as an escape', $text->('"a\u0000b"'), '/x'],
		['NUL as it is', $text->("\"a\0b\""), '/x'],
		['NUL in a key', $make->() =~ s/\}\z/,"a\\u0000b":1}/r, ''],
		['a line break within a string', $text->("\"a\nb\""), '/x'],
		['a byte that is no UTF-8', $text->("\"\xff\""), '/x'],
		['UTF-8 cut short', $text->("\"\xe2\x82\""), '/x'],
		['a stray continuation byte', $text->("\"\x80\""), '/x'],
		['overlong UTF-8 of a slash', $text->("\"\xc0\xaf\""), '/x'],
		['overlong UTF-8 of NUL', $text->("\"\xe0\x80\x80\""), '/x'],
		['a surrogate in UTF-8', $text->("\"\xed\xa0\x80\""), '/x'],
		['past U+10FFFF', $text->("\"\xf4\x90\x80\x80\""), '/x'],
		['UTF-16', join('', map { "$_\0" } split //, $right), ''],
		['half of a surrogate pair', $text->('"\ud83e"'), '/x'],
		['the other half', $text->('"\udd16"'), '/x'],
		['a pair the wrong way round', $text->('"\udd16\ud83e"'), '/x'],
		['an escape of nothing known', $text->('"\x41"'), '/x'],
		['an escape cut short', $text->('"\u12"'), '/x'],
		(map { ["the number $_", $text->($_), '/x'] }
			qw(NaN Infinity -Infinity - +1 .5 1e 1e+)),
		(map { ["the number $_", $text->($_)] } qw(01 0x10 1. 1.e5)),
		['a comment', $text->('/* */ 1'), '/x'],
		['single quotes', $text->("'a'"), '/x'],
		['a comma at the end', $right =~ s/\}\z/,}/r, ''],
		['no colon', $right =~ s/:/ /r, ''],
		['an unknown field', $text->('1'), '/x'],
		['an unknown field that JSON pointers escape', $make->('a/b~c' => '1'), '/a~1b~0c'],
	);
}

# Each: name, body, pointers; the code that is expected can stand first, as \'code'.
sub refused
{
	my ($path, @cases) = @_;

	for my $case (@cases) {
		my ($name, $body, @pointers) = @$case;
		my $code = ref $pointers[0] ? ${ shift @pointers } : $invalid;
		$name = substr($name, 0, 70) =~ s/[^ -~]+/?/gr;
		subtest "$path refuses $name" => sub {
			problem_ok($areg->post($path, $body, \%key), $bad, $code, @pointers);
		};
	}
}

refused($register, any_body(\&registration));
refused($feedback, any_body(\&opinion));

# ---- what is wrong with a registration ----

my $mixed = '0x8004A169FB4a3325136EB29fA0ceB6D2e539a432';
my ($address, $chain, $of_file) = map { \$_ }
	qw(invalid_address chain_not_supported invalid_registration_file);
my $in = '/registration_file';
refused($register,
	(map { ["no $_", registration($_ => undef), "/$_"] } qw(chain)),
	['null for chain', registration(chain => 'null'), '/chain'],
	['no owner_address', registration(owner_address => undef), $address, '/owner_address'],
	['no registration_file', registration(registration_file => undef), $of_file, $in],
	['null for owner_address', registration(owner_address => 'null'), $address, '/owner_address'],
	['null for registration_file', registration(registration_file => 'null'), $of_file, $in],
	(map { ["the address $_", registration(owner_address => $_), $address, '/owner_address'] }
		'""', '"0x"', '42', '[]', 'true', '1e30', '"vitalik.eth"',
		json_text(substr $user->{wallet}, 0, 41), json_text("$user->{wallet}0"),
		json_text(substr $user->{wallet}, 2), json_text(" $user->{wallet}"),
		json_text("$user->{wallet}\n"), json_text('0x' . 'g' x 40)),
	['a wrong EIP-55 checksum', registration(owner_address => json_text($mixed =~ s/FB4a/FB4A/r)),
		$address, '/owner_address'],
	(map { ["the chain $_", registration(chain => $_), $chain, '/chain'] }
		'"solana"', '"Base"', '"base "', "\"base' OR 1=1 --\"", characters(64)),
	(map { ["the chain " . substr($_, 0, 10), registration(chain => $_), '/chain'] }
		'""', '8453', '["base"]', 'false', characters(65)),
	(map { ["the file $_", registration(registration_file => $_), $of_file, $in] }
		'[]', '"{}"', '0', 'true', '"https://a.example/file.json"'),
	['a file of 64 KiB and one byte',
		with_file(x => '"' . 'x' x (65537 - length file(x => '""')) . '"'), $of_file, $in],
	['a key twice in the file', registration(registration_file => '{"name":"a","name":"b"}'),
		"$in/name"],
	(map { my ($what, $member, $text) = @$_;
		["a file with $what", with_file($member => $text), $of_file, "$in/$member"] }
		['no name', 'name', undef], ['null for the name', 'name', 'null'],
		['an empty name', 'name', '""'], ['a number for the name', 'name', '7'],
		['a name of 201 characters', 'name', characters(201)],
		['no description', 'description', undef], ['an empty description', 'description', '""'],
		['a description of 2,001 characters', 'description', characters(2001)],
		['another type', 'type', '"https://a.example/registration-v9"'],
		['an image that is no URI', 'image', '"logo.png"'],
		['an image that is no string', 'image', '{}'],
		['an image of 2,049 characters', 'image',
			'"' . $uri . 'a' x (2049 - length $uri) . '"'],
		['services that are no list', 'services', '7'],
		['21 services', 'services', list(21, $service)],
		['11 registrations', 'registrations', list(11, $entry)],
		['trust that is no list', 'supportedTrust', '"reputation"'],
		['active as a word', 'active', '"yes"'], ['x402Support as a number', 'x402Support', '1']),
	['a service without an endpoint', with_file(services => '[{"name":"mcp"}]'), $of_file,
		"$in/services/0/endpoint"],
	['a service that is a number', with_file(services => "[$service,5]"), $of_file,
		"$in/services/1"],
	['an agentId as a string',
		with_file(registrations => '[{"agentId":"1","agentRegistry":"eip155:1:0x00"}]'), $of_file,
		"$in/registrations/0/agentId"],
	['trust that is a number', with_file(supportedTrust => '["reputation",1]'), $of_file,
		"$in/supportedTrust/1"],
	(map { ["metadata $_", registration(metadata => $_), '/metadata'] } '[]', '"a"', '0'),
	['a byte more than 64 KiB of metadata', registration(metadata => object(k => '"' . 'v' x 65537 . '"')),
		'/metadata'],
	(map { ["a metadata key with U+$_", registration(metadata => qq({"a\\u${_}b":"v"})), "/metadata/a" . chr(hex $_) . 'b'] }
		qw(0009 001F 007F 0080 009F)),
	['an empty metadata key', registration(metadata => '{"":"v"}'), '/metadata/'],
	['a metadata key of 257 bytes', registration(metadata => object('k' . 'é' x 128 => '"v"')),
		'/metadata/k' . 'é' x 128],
	['agentWallet in metadata', registration(metadata => '{"agentWallet":"0x00"}'),
		'/metadata/agentWallet'],
	(map { ["the metadata value $_", registration(metadata => "{\"k\":$_,\"good\":\"v\"}"),
		'/metadata/k'] } '1', 'null', '{}', '[]', 'true'),
	['several faults, each of them named',
		registration(owner_address => '"0x12"', chain => '"solana"',
			registration_file => '{"name":"","image":"x","active":1}', metadata => '{"k":1}',
			extra => '{}'),
		$address, '/owner_address', '/chain', "$in/name", "$in/description", "$in/image",
		"$in/active", '/metadata/k', '/extra']);

# ---- what is wrong with feedback ----

my $score = \'invalid_score';
refused($feedback,
	(map { ["the agent_uuid $_", opinion(agent_uuid => $_), '/agent_uuid'] }
		'null', '""', '1', '"base:0"', json_text("{$agent->{agent_uuid}}"),
		json_text(substr $agent->{agent_uuid}, 1), json_text("$agent->{agent_uuid}0"),
		json_text($agent->{agent_uuid} =~ tr/-//dr)),
	['no agent_uuid', opinion(agent_uuid => undef), '/agent_uuid'],
	['no client_address', opinion(client_address => undef), $address, '/client_address'],
	(map { ["the client_address $_", opinion(client_address => $_), $address, '/client_address'] }
		'null', '""', '{}', '"0x1"', json_text($mixed =~ s/FB4a/FB4A/r)),
	['neither score nor value', opinion(score => undef), $score, '/score'],
	['null for the score', opinion(score => 'null'), $score, '/score'],
	(map { ["the score $_", opinion(score => $_), $score, '/score'] }
		qw(-1 -0.01 101 100.01 90.123 1e2 1E1 1e400 -1e400 12345678901234567890 0.000001),
		'9' x 400, '"90"', 'true', '[]', '{}'),
	['both score and value', opinion(value => '5'), $score, '/value'],
	(map { ["the value $_", valued(value => $_), $score, '/value'] }
		qw(1.5 1e3 1e38 -0.1 "1" true [] {}), '1' . '0' x 37 . '1', '-1' . '0' x 37 . '1', '9' x 400),
	(map { ["value_decimals $_", valued(value_decimals => $_), $score, '/value_decimals'] }
		qw(-1 19 1.5 1e1 "2" 99999999999999999999 false)),
	['value_decimals without a value', opinion(value_decimals => '2'), $score, '/value_decimals'],
	(map { my $member = $_; map { ["$member of the wrong kind or length",
		opinion($member => $_), "/$member"] } '5', '[]', characters(257) } qw(tag1 tag2)),
	['an endpoint of 2,049 characters', opinion(endpoint => characters(2049)), '/endpoint'],
	['an endpoint that is a number', opinion(endpoint => '1'), '/endpoint'],
	(map { ['the file_uri ' . substr($_, 0, 20), opinion(file_uri => $_), '/file_uri'] }
		'"file.json"', '""', '"https://"', '"https://a.example/ b"', '7',
		'"' . $uri . 'a' x (2049 - length $uri) . '"'),
	(map { ["the file_hash $_", opinion(file_hash => $_), '/file_hash'] }
		'""', '"0x12"', '5', json_text(hash('x') . '0'), json_text('0x' . 'z' x 64)),
	['several faults, each of them named',
		opinion(agent_uuid => '"x"', client_address => '5', score => '101', tag1 => '1',
			file_hash => '""', extra => '0'),
		\$invalid, qw(/agent_uuid /client_address /score /tag1 /file_hash /extra)]);

# ---- what is wrong around a body ----

for my $path ($register, $feedback) {
	my $right = $path eq $register ? registration() : opinion();
	my $send = sub {
		my ($headers, $body) = @_;
		return $areg->raw("POST $path HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
			. "Authorization: Bearer $user->{key}\r\n$headers\r\n$body");
	};
	my $length = 'Content-Length: ' . length($right) . "\r\n";
	my $json = "Content-Type: application/json\r\n";
	my $chunked = sub {
		my ($body) = @_;
		my $chunks = join '', map { sprintf("%x\r\n", length) . "$_\r\n" }
			unpack '(a50000)*', $body;
		return $send->("${json}Transfer-Encoding: chunked\r\n", "${chunks}0\r\n\r\n");
	};

	subtest "$path: content types" => sub {
		problem_ok($send->($length, $right), 415, 'unsupported_media_type');
		problem_ok($areg->post($path, $right, { %key, 'Content-Type' => $_ }), 415,
			'unsupported_media_type')
			for 'text/plain', 'application/x-www-form-urlencoded', 'application/jsonp',
			'application/json; charset=iso-8859-1', 'application/json; charset=utf-16',
			'multipart/form-data; boundary=a', 'application/json, text/plain', '*/*';
		problem_ok($areg->post($path, $right, { %key, 'Content-Encoding' => $_ }), 415,
			'unsupported_media_type') for 'gzip', 'br', 'gzip, gzip';
	};
	subtest "$path: sizes" => sub {
		my $kib = $path eq $register ? 512 : 16;
		my $most = $kib * 1024;
		for my $answer ($areg->post($path, padded('{}', $most + 1), \%key), $chunked->(padded('{}', $most + 1))) {
			problem_ok($answer, 413, 'payload_too_large');
			like($answer->{json}{detail} // '', qr/ $kib KiB/, '… names the limit');
		}
		problem_ok($areg->post($path, padded('{}', 2 * MIB), \%key), 413, 'payload_too_large');
		problem_ok($chunked->(padded('{}', $most)), 400,
			$path eq $register ? 'invalid_address' : $invalid);
		problem_ok($chunked->(padded('{}', MIB + 1)), 413, 'payload_too_large');
		problem_ok($chunked->(padded('{}', 2 * MIB)), 413, 'payload_too_large');
	};
	subtest "$path: lengths that lie" => sub {
		problem_ok($send->("${json}Content-Length: 10\r\n", $right), 400, $invalid);
		problem_ok($send->("${json}Content-Length: -5\r\n", $right), 400, 'bad_request');
		problem_ok($send->("${json}Content-Length: 99999999999999999999999\r\n", $right), 400,
			'bad_request');
		problem_ok($send->("$json${length}Transfer-Encoding: chunked\r\n", "0\r\n\r\n"), 400,
			'bad_request');
		problem_ok($send->("${json}Transfer-Encoding: chunked\r\n", "zz\r\n$right\r\n"), 400,
			'bad_request');
	};
	subtest "$path: keys" => sub {
		problem_ok($areg->post($path, $right, { Authorization => $_ }), 401, 'unauthorized')
			for 'Bearer', 'Bearer x', 'Basic YTpi', "Bearer $user->{key}x", 'Bearer ' . 'a' x 5000,
			'Bearer areg_live_' . 'A' x 49;
		problem_ok($areg->post($path, $right), 401, 'unauthorized');
	};
}
is(digest(), $before, 'after all of that every table holds what it held before');
is(join(' ', $areg->worker_pids), $pids, 'and every worker is the one that it was');

# ---- request lines and headers ----

sub line
{
	my ($line, $headers) = @_;
	return $areg->raw("$line\r\nHost: localhost\r\nConnection: close\r\n" . ($headers // '') . "\r\n");
}
sub target { my ($target) = @_; return line("GET $target HTTP/1.1") }

my $agents = '/api/v1/agents';
subtest 'request lines' => sub {
	problem_ok(target("$agents/%zz"), 400, 'bad_request');
	problem_ok(target("$agents/a%00b"), 400, 'bad_request');
	problem_ok(target('/../../etc/passwd'), 400, 'bad_request');
	problem_ok(target("$agents/%ff"), 400, $invalid);
	problem_ok(target("$agents/%c0%af"), 400, $invalid);
	problem_ok(target("$agents/%ed%a0%80"), 400, $invalid);
	problem_ok(target("$agents?q=$_"), 400, $invalid)
		for '%', '%4', '%zz', '%00', '%ff', '%f4%90%80%80', "\xff";
	problem_ok(target("$agents?%ff=1"), 400, $invalid);
	problem_ok(target("$agents/" . 'a' x 3000), 414, 'uri_too_long');
	problem_ok(target("$agents?q=" . 'a' x 9000), 414, 'uri_too_long');
	problem_ok(target("$agents?" . join '&', map { "p$_=1" } 1 .. 200), 400, $invalid);
	problem_ok(target("$agents?limit=1&limit=1"), 400, $invalid, 'limit');
	problem_ok(target("$agents?limit=$_"), 400, $invalid, 'limit')
		for '0', '-1', '101', '1e1', '1.0', '99999999999999999999', '', '%C2%A01';
	problem_ok(target("$agents?cursor=$_"), 400, $invalid, 'cursor')
		for '', 'x', 'a' x 4000, '%27%20OR%201=1';
	problem_ok(target("$agents/%2e%2e/%2e%2e"), 404, 'not_found');
	problem_ok(target('/a' . '/b' x 500), 404, 'not_found');
	problem_ok(target("$agents/$_"), 404, 'agent_not_found')
		for 'base:-1', 'base:' . '9' x 79, 'eip155:1', 'base:0x1', '%27;--', ':', '%20';
	problem_ok(line("BREW $agents HTTP/1.1"), 405, 'method_not_allowed');
	problem_ok(line("get $agents HTTP/1.1"), 400, 'bad_request');
	problem_ok(line("GET $agents HTTP/1.1", "Authorization: Bearer \xff\xfe\r\n"), 401,
		'unauthorized');
};
is(target("$agents?" . '&' x 1000)->{status}, 200, 'empty parameters are none');
is($areg->get($agents, { 'If-None-Match' => '"' . ',' x 5000 })->{status}, 200,
	'a list of tags that is none is passed over');
isnt($areg->get($agents, { 'X-Request-ID' => 'a b' })->{headers}{'x-request-id'}, 'a b',
	'a request id that is not sane is replaced');

# ---- the FastCGI socket ----

# FastCGI specification, sections 3.3 (records) and 3.4 (name-value pairs).
sub record { my ($type, $content) = @_; return pack('CCnnCC', 1, $type, 1, length $content, 0, 0) . $content }
sub pairs { my (%value) = @_; return join '', map { pack('NN', map { length | 1 << 31 } $_, $value{$_}) . $_ . $value{$_} } sort keys %value }
sub begin { my ($role) = @_; return record(1, pack 'nCx5', $role // 1, 0) }

sub request
{
	my ($params, $body) = @_;
	return begin() . record(4, pairs(%$params)) . record(4, '')
		. join('', map { record(5, $_) } unpack '(a60000)*', $body // '') . record(5, '');
}

sub fastcgi { return IO::Socket::UNIX->new(Peer => $areg->socket_path('aregd')) || die "connect: $!\n" }

# Sends bytes to a worker, and says that there are no more unless told otherwise; what it answers.
sub fcgi
{
	my ($bytes, %option) = @_;
	my ($raw, $out) = ('', '');
	my $socket = fastcgi();
	my $until = time + TIMEOUT + 3;

	syswrite $socket, $bytes;
	shutdown $socket, 1 unless $option{open};
	while (time < $until && IO::Select->new($socket)->can_read($until - time)) {
		sysread $socket, $raw, 65536, length $raw or last;
	}
	while (length $raw >= 8) {
		my (undef, $type, undef, $length, $padding) = unpack 'CCnnC', $raw;
		$out .= substr $raw, 8, $length if $type == 6;
		substr $raw, 0, 8 + $length + $padding, '';
	}
	my ($head, $body) = split /\r\n\r\n/, $out, 2;
	my %headers = map { /^([^:]+): (.*)$/ ? (lc $1, $2) : () } split /\r\n/, $head // '';
	my ($status) = ($headers{status} // '') =~ /^(\d+)/;
	return { status => $status, headers => \%headers, body => $body, json => from_json($body // '') };
}

my %get = (REQUEST_METHOD => 'GET', REQUEST_URI => '/api/v1/agents', REMOTE_ADDR => '192.0.2.1');
my %post = (%get, REQUEST_METHOD => 'POST', REQUEST_URI => $register,
	CONTENT_TYPE => 'application/json', HTTP_AUTHORIZATION => "Bearer $user->{key}");
subtest 'parameters of FastCGI' => sub {
	is(fcgi(request(\%get))->{status}, 200, 'a right request is answered');
	problem_ok(fcgi(request({ REQUEST_METHOD => 'GET' })), 400, $invalid);
	problem_ok(fcgi(request({})), 400, $invalid);
	problem_ok(fcgi(request({ %get, REQUEST_URI => $_ })), 400, $invalid)
		for '', '*', 'http://a.example/', "/a\xff", '/%00', '/%', '/%4';
	problem_ok(fcgi(request({ %get, REQUEST_URI => '/' . 'a' x 60000 })), 414, 'uri_too_long');
	problem_ok(fcgi(request({ %get, REQUEST_METHOD => "\0" })), 405, 'method_not_allowed');
	problem_ok(fcgi(request({ %post, CONTENT_LENGTH => $_ }, registration())), 413,
		'payload_too_large')
		for '-1', '+5', '1e3', 'x', ' 5', '0x10', '9' x 30, MIB + 1;
	problem_ok(fcgi(request({ %post, CONTENT_LENGTH => 512 * 1024 }, registration())), 400, $invalid);
	problem_ok(fcgi(request({ %post, CONTENT_LENGTH => 10 }, registration())), 400, $invalid);
	problem_ok(fcgi(request(\%post, padded('{}', MIB + 1))), 413, 'payload_too_large');
	is(fcgi(request({ %get, HTTP_X_REQUEST_ID => "a\r\nSet-Cookie: a=b" }))->{headers}{'set-cookie'},
		undef, 'a request id cannot add a header');
};

# What is no request gets no answer, and costs no worker.
my $whole = request({ %post, CONTENT_LENGTH => length registration() }, registration());
my @broken = (
	['nothing', ''],
	['a record header cut short', substr $whole, 0, 5],
	['parameters cut short', substr $whole, 0, 60],
	['a body without its end', substr $whole, 0, -20],
	['HTTP', "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"],
	['noise', pack 'C*', map { ($_ * 7919 + 13) % 256 } 1 .. 5000],
	['another version', "\x09" . substr $whole, 1],
	['the role of an authorizer', begin(2) . substr $whole, 16],
	['a role that there is not', begin(99) . substr $whole, 16],
	['records of an unknown type', record(200, 'x' x 100) x 3],
	['a question for the application', record(9, pairs(FCGI_MAX_CONNS => ''))],
	['an abort', begin() . record(2, '')],
	['a parameter longer than all', begin() . record(4, pack('NN', 0xffffffff, 0xffffffff) . 'x')
		. record(4, '')],
	['a parameter that ends too early', begin() . record(4, "\x50\x50abc") . record(4, '')],
);
for my $case (@broken) {
	my ($name, $bytes) = @$case;
	unlike(fcgi($bytes)->{status} // '', qr/^2/, "$name is not taken for a request");
}
is(join(' ', $areg->worker_pids), $pids, 'no worker is lost by it');
is(digest(), $before, 'and nothing was stored');

# Two of three workers listen to somebody who says nothing, or nothing more.
my @silent = (fastcgi(), fastcgi());
my $asked = time;
syswrite $silent[1], substr $whole, 0, 30;
sleep 0.3;
for (1 .. 20) {
	my $answer = $areg->get("$agents?limit=1");
	$answer->{status} == 200 or fail('others are served') or last;
}
ok(time - $asked < 2, 'while two connections say nothing, others are served at once');
my $busy = sub {
	my ($count) = $areg->get('/metrics')->{body} =~ /^areg_workers_busy (\d+)$/m;
	return $count;
};
is($busy->(), 2, 'they hold two workers');
ok(wait_until(TIMEOUT + 1, sub { $busy->() == 0 }), 'which are free again');
ok(time - $asked < TIMEOUT + 0.5, 'within request_timeout');
is(join(' ', $areg->worker_pids), $pids, 'without being replaced');
close $_ for @silent;

# One that trickles outlasts every time-out of a single read: then the master ends the worker.
my $trickle = fastcgi();
syswrite $trickle, 'x';
ok(wait_until(2, sub { $busy->() == 1 }), 'one that trickles holds a worker');
ok(wait_until(TIMEOUT + 1, sub {
	syswrite $trickle, 'x';
	return $busy->() == 0;
}), 'for no longer than request_timeout either');
ok(wait_until(2, sub { $busy->() == 0 && $areg->worker_pids == WORKERS }), 'and all workers are there');

done_testing();
