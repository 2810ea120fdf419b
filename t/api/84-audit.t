#!/usr/bin/perl
# SPDX-License-Identifier: Apache-2.0
# The audit log: every call that changes something leaves an entry, nobody can take one back, and
# whoever tampers with the log as PostgreSQL's superuser is found out by aregctl audit verify.
use strict;
use warnings;
use Digest::SHA qw(sha256);
use FindBin;
use File::Temp qw(tempdir);
use Math::BigInt;
use Test::More;

use lib "$FindBin::Bin/../lib";
use Areg::Test qw(build_dir from_json hash in_parallel json_text sample_registry wait_until);

my ($aregd, $aregctl) = map { build_dir() . "/$_" } qw(aregd aregctl);
my $areg = Areg::Test->start(workers => 2);
my $scratch = tempdir('audit-XXXXXX', TMPDIR => 1, CLEANUP => 1);
my $psql = ['psql', '-qAtX', '-v', 'ON_ERROR_STOP=1', '-h', $areg->socket_path('pg'), '-U', 'postgres'];

# ---- a wallet ----

# Keccak-256 (FIPS 202 with the padding of Ethereum).
sub keccak256
{
	my ($bytes) = @_;
	no warnings 'portable';
	my @constants = map { hex } qw(0000000000000001 0000000000008082 800000000000808A
		8000000080008000 000000000000808B 0000000080000001 8000000080008081 8000000000008009
		000000000000008A 0000000000000088 0000000080008009 000000008000000A 000000008000808B
		800000000000008B 8000000000008089 8000000000008003 8000000000008002 8000000000000080
		000000000000800A 800000008000000A 8000000080008081 8000000000008080 0000000080000001
		8000000080008008);
	my @turns = (1, 3, 6, 10, 15, 21, 28, 36, 45, 55, 2, 14, 27, 41, 56, 8, 25, 43, 62, 18, 39, 61,
		20, 44);
	my @steps = (10, 7, 11, 17, 18, 3, 5, 16, 8, 21, 24, 4, 15, 23, 19, 13, 12, 2, 20, 14, 22, 9,
		6, 1);
	my $turn = sub { ($_[0] << $_[1]) | ($_[0] >> (64 - $_[1])) };
	my @a = (0) x 25;

	$bytes .= "\x01" . "\0" x (135 - length($bytes) % 136);
	substr($bytes, -1) |= "\x80";
	for my $block (unpack '(a136)*', $bytes) {
		my @words = unpack 'Q<17', $block;
		$a[$_] ^= $words[$_] for 0 .. 16;
		for my $constant (@constants) {
			my @c = map { $a[$_] ^ $a[$_ + 5] ^ $a[$_ + 10] ^ $a[$_ + 15] ^ $a[$_ + 20] } 0 .. 4;
			for my $x (0 .. 4) {
				my $d = $c[($x + 4) % 5] ^ $turn->($c[($x + 1) % 5], 1);
				$a[$x + 5 * $_] ^= $d for 0 .. 4;
			}
			my $moved = $a[1];
			for my $i (0 .. 23) {
				($a[$steps[$i]], $moved) = ($turn->($moved, $turns[$i]), $a[$steps[$i]]);
			}
			for my $y (map { 5 * $_ } 0 .. 4) {
				my @row = @a[$y .. $y + 4];
				$a[$y + $_] = $row[$_] ^ (~$row[($_ + 1) % 5] & $row[($_ + 2) % 5]) for 0 .. 4;
			}
			$a[0] ^= $constant;
		}
	}
	return pack 'Q<4', @a;
}
is(unpack('H*', keccak256('')), 'c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470',
	'this test can compute Keccak-256');

# The wallet of the private key 1: with 1 for the random number, too, signing needs no curve, since
# its only point is the generator. No secret, and good enough to sign in to a test.
my $wallet = '0x7e5f4552091a69125d5dfcb7b8c2659029395bdf';
sub signature
{
	my ($message) = @_;
	my $n = Math::BigInt->from_hex('fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141');
	my $r = Math::BigInt->from_hex('79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798');
	my $digest = keccak256("\x19Ethereum Signed Message:\n" . length($message) . $message);
	my $s = Math::BigInt->from_hex(unpack 'H*', $digest)->badd($r)->bmod($n);
	my $v = 27;

	if ($s > $n / 2) {
		$s = $n - $s;
		$v = 28;
	}
	my ($r_hex, $s_hex) = map { substr $_->as_hex, 2 } $r, $s;
	return '0x' . join('', map { ('0' x (64 - length)) . $_ } $r_hex, $s_hex) . sprintf('%02x', $v);
}

# ---- every route that changes something ----

my $alice = $areg->make_user(tier => 'enterprise');
my $bob = $areg->make_user(tier => 'enterprise');
my $carol = $areg->make_user(tier => 'enterprise', scopes => ['payments:write']); # facilitates and validates
my $asked = 0;

sub ask
{
	my ($method, $path, $body, $user) = @_;
	my $headers = { 'X-Request-ID' => sprintf('audit-test-%d', ++$asked) };

	$headers->{key} = $user->{key} if $user;
	return $areg->api($method, $path, $body, $headers);
}

sub register
{
	my ($name) = @_;
	return ask(POST => '/api/v1/agents/register', { owner_address => $alice->{wallet}, chain => 'base',
		registration_file => { name => $name, description => "It is called $name." } }, $alice);
}

# Feedback of carol about a new agent; its id.
sub given
{
	my ($name) = @_;
	return ask(POST => '/api/v1/agents/feedback', { agent_uuid => register($name)->{json}{agent_uuid},
		client_address => $carol->{wallet}, score => 80 }, $carol)->{json}{id};
}

sub report_payment
{
	my ($word) = @_;
	return ask(POST => '/api/v1/payments', { tx_hash => hash($word), chain => 'base',
		amount_usdc => '1', payer => $bob->{wallet}, payee => $alice->{wallet}, status => 'verified' },
		$carol);
}

sub request_validation
{
	my ($word) = @_;
	my $agent = register("Validated: $word")->{json}{agent_uuid};
	return ask(POST => "/api/v1/agents/$agent/validations", { validator_address => $carol->{wallet},
		request_uri => 'ipfs://bafy', request_hash => hash($word) }, $alice);
}

# What each does: returns the answer, who did it, and type and id of what was changed.
my %recipes = (
	'POST /api/v1/agents/register' => sub {
		my $answer = register('Auditor');
		return ($answer, $alice, agent => $answer->{json}{agent_uuid});
	},
	'POST /api/v1/agents/feedback' => sub {
		my $agent = register('Audited')->{json}{agent_uuid};
		my $answer = ask(POST => '/api/v1/agents/feedback', { agent_uuid => $agent,
			client_address => $bob->{wallet}, score => 80 }, $bob);
		return ($answer, $bob, feedback => $answer->{json}{id});
	},
	'PATCH /api/v1/agents/{id}' => sub {
		my $agent = register('Edited')->{json}{agent_uuid};
		my $answer = ask(PATCH => "/api/v1/agents/$agent", { metadata => { a => '1' } }, $alice);
		return ($answer, $alice, agent => $agent);
	},
	'POST /api/v1/agents/feedback/{feedback_id}/revoke' => sub {
		my $id = given('Revoked');
		return (ask(POST => "/api/v1/agents/feedback/$id/revoke", undef, $carol), $carol,
			feedback => $id);
	},
	'POST /api/v1/agents/feedback/{feedback_id}/responses' => sub {
		my $id = given('Answered');
		return (ask(POST => "/api/v1/agents/feedback/$id/responses",
			{ response_uri => 'https://example.com/why' }, $alice), $alice, feedback => $id);
	},
	'POST /api/v1/payments' => sub {
		my $answer = report_payment('recorded');
		return ($answer, $carol, payment => "base:$answer->{json}{tx_hash}");
	},
	'POST /api/v1/agents/link-payment' => sub {
		my $agent = register('Paid')->{json}{agent_uuid};
		my $tx_hash = report_payment('linked')->{json}{tx_hash};
		my $answer = ask(POST => '/api/v1/agents/link-payment',
			{ agent_uuid => $agent, tx_hash => $tx_hash, chain => 'base' }, $carol);
		return ($answer, $carol, payment => "base:$tx_hash");
	},
	'DELETE /api/v1/agents/link-payment' => sub {
		my %link = (agent_uuid => register('Paid by mistake')->{json}{agent_uuid}, chain => 'base');
		$link{tx_hash} = report_payment('unlinked')->{json}{tx_hash};
		ask(POST => '/api/v1/agents/link-payment', \%link, $carol);
		return (ask(DELETE => '/api/v1/agents/link-payment', \%link, $carol), $carol,
			payment => "base:$link{tx_hash}");
	},
	'POST /api/v1/agents/{id}/validations' => sub {
		my $answer = request_validation('requested');
		return ($answer, $alice, validation => $answer->{json}{request_hash});
	},
	'POST /api/v1/validations/{request_hash}/response' => sub {
		my $hash = request_validation('responded')->{json}{request_hash};
		return (ask(POST => "/api/v1/validations/$hash/response", { response => 1 }, $carol), $carol,
			validation => $hash);
	},
	'POST /api/v1/auth/verify' => sub {
		my $message = ask(POST => '/api/v1/auth/challenge', { address => $wallet })->{json}{message};
		my $answer = ask(POST => '/api/v1/auth/verify',
			{ message => $message, signature => signature($message) });
		my $key = $areg->psql_value(
			"SELECT id FROM api_keys WHERE key_prefix = '$answer->{json}{key_prefix}'");
		# Who signs in has no key yet, and acts as the wallet.
		return ($answer, { id => $answer->{json}{user}{id}, actor => $wallet }, api_key => $key);
	},
	'POST /api/v1/keys' => sub {
		my $answer = ask(POST => '/api/v1/keys', { name => 'another' }, $alice);
		return ($answer, $alice, api_key => $answer->{json}{id});
	},
	'DELETE /api/v1/keys/{key_id}' => sub {
		my $key = ask(POST => '/api/v1/keys', { name => 'for a moment' }, $alice)->{json}{id};
		return (ask(DELETE => "/api/v1/keys/$key", undef, $alice), $alice, api_key => $key);
	},
);
my %changes_nothing = map { $_ => 1 } 'POST /api/v1/auth/challenge';

my @routes = map { chomp; [split /\t/] } do {
	open my $out, '-|', $aregd, '-r' or die "aregd: $!\n";
	<$out>;
};
cmp_ok(scalar @routes, '>', 10, 'aregd -r prints the routes');
for my $route (@routes) {
	my ($method, $template, undef, undef, $action) = @$route;
	my $name = "$method $template";

	if ($action eq '-') {
		ok($method eq 'GET' || $changes_nothing{$name}, "$name: changes nothing, and leaves no entry");
		next;
	}
	my $recipe = delete $recipes{$name};
	ok($recipe, "$name: this test knows how to call it") or next;
	my ($answer, $user, $type, $id) = $recipe->();
	like($answer->{status}, qr/^20[0-9]$/, "$name: done") or diag $answer->{body};
	my $request = $answer->{headers}{'x-request-id'};
	my @entries = $areg->psql("SELECT actor_user, actor, subject_type, subject_id, client_address"
		. " FROM audit_log WHERE request_id = '$request' AND action = '$action'");
	is_deeply(\@entries, [[$user->{id}, $user->{actor} // substr($user->{key}, 0, 18), $type, $id,
		'127.0.0.1']], "$name: one entry $action: who, what, which request, from where");
}
is_deeply([keys %recipes], [], 'no recipe is left over');
is($areg->psql_value("SELECT count(*) FROM audit_log WHERE concat(before, after) ~ 'key_hash'"), 0,
	'no entry holds the hash of a key');

my $count = $areg->psql_value('SELECT count(*) FROM audit_log');
is(ask(POST => '/api/v1/agents/register', {}, $alice)->{status}, 400, 'a refused call');
is(ask(POST => '/api/v1/agents/register', {})->{status}, 401, 'and one without a key');
is($areg->psql_value('SELECT count(*) FROM audit_log'), $count, 'leave no entry');

# ---- aregctl ----

sub newest { return $areg->psql('SELECT action, subject_type, subject_id FROM audit_log'
	. ' ORDER BY id DESC LIMIT 1') }

my $agent = register('Suspect')->{json}{agent_uuid};
$areg->aregctl('user', 'set', $bob->{id}, '--tier', 'pro');
is_deeply([newest()], [['user.set', 'user', $bob->{id}]], 'aregctl user set leaves an entry');
$areg->aregctl('agent', 'suspend', $agent);
is_deeply([newest()], [['agent.suspend', 'agent', $agent]], 'aregctl agent suspend, too');
$areg->aregctl('agent', 'reactivate', $agent);
is_deeply([newest()], [['agent.reactivate', 'agent', $agent]], 'and agent reactivate');
my $import = json_text({ agent_id => 70_000, chain => 'base', owner_address => $bob->{wallet},
	registry_address => sample_registry('base'), registration_file => undef });
is($areg->aregctl('import', '-', \"$import\n")->{exit}, 0, 'an import');
is_deeply([newest()], [['import', 'registry', '-']], 'is one entry');

my $list = from_json($areg->aregctl('audit', 'list', '--json', '--user', $bob->{wallet})->{stdout});
is_deeply([map { $_->{action} } @$list], ['feedback.give'], 'audit list --user WALLET: what bob did');
is_deeply($list, from_json($areg->aregctl('audit', 'list', '--json', '--user', $bob->{id},
	'--actor', substr($bob->{key}, 0, 18), '--subject', "feedback:$list->[0]{subject_id}",
	'--since', '2020-01-01T00:00:00Z', '--until', '2999-01-01T00:00:00Z')->{stdout}),
	'the filters agree');
is($areg->aregctl('audit', 'list', '--until', '2020-01-01T00:00:00Z')->{stdout}, "no such entries\n",
	'and leave out');
like($areg->aregctl('audit', 'list', '--limit', 2)->{stdout}, qr/\AID .*\n.* import .*\n.*reactivate.*\n\z/,
	'audit list shows the newest first');
for my $wrong (['--since', 'noon'], ['--limit', 0], ['--limit', '1x'], ['--subject', 'agent'],
	['--user', 'bob']) {
	is($areg->aregctl('audit', 'list', @$wrong)->{exit}, 2, "audit list @$wrong is refused");
}
my @lines = split /\n/, $areg->aregctl('audit', 'export')->{stdout};
my @ids = map { from_json($_)->{id} } @lines;
is(scalar @lines, $areg->psql_value('SELECT count(*) FROM audit_log'), 'audit export: all entries');
is_deeply(\@ids, [sort { $a <=> $b } @ids], 'in order');
is(from_json((grep { /feedback[.]give/ } @lines)[0])->{after}{client_address}, $bob->{wallet},
	'with what they say');

# ---- append-only ----

for my $table (qw(audit_log audit_seals)) {
	for my $change ("UPDATE $table SET hash = hash", "DELETE FROM $table", "TRUNCATE $table",
		"UPDATE $table SET hash = hash WHERE false") {
		ok(!eval { $areg->psql($change); 1 } && $@ =~ /append-only/, "$change is refused");
	}
}
$areg->psql("INSERT INTO audit_log (id, at, lane, lane_seq, hash, actor, action, subject_type,"
	. " subject_id) VALUES (1, '2020-01-01', '00000000-0000-0000-0000-000000000000', 1,"
	. " sha256('x'), 'test', 'test', 'test', 'what it says of its place counts for nothing')");
is($areg->psql_value("SELECT count(*) FROM audit_log WHERE actor = 'test' AND id > $ids[-1]"
	. " AND at > now() - interval '1 minute' AND lane <> '00000000-0000-0000-0000-000000000000'"), 1,
	'an INSERT cannot choose its place');

# ---- verify ----

# aregctl audit verify on a database of the stack: {exit, report}.
sub verify
{
	my ($database, @arguments) = @_;
	my ($host) = map { s/([^A-Za-z0-9_.-])/sprintf '%%%02X', ord $1/ger } $areg->socket_path('pg');
	# What is AREG_ in the environment of a test is no setting of areg.
	delete local @ENV{ grep { /^AREG_/ } keys %ENV };
	local $ENV{DATABASE_URL} = "postgresql:///$database?host=$host&user=areg";

	open my $out, '-|', $aregctl, '-c', $areg->conf, 'audit', 'verify', '--json', @arguments
		or die "aregctl: $!\n";
	my $text = do { local $/; <$out> };
	close $out;
	return { exit => $? >> 8, report => from_json($text) };
}

sub intact_ok
{
	my ($database, $name) = @_;
	my $run = verify($database);

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok($run->{exit} == 0 && $run->{report}{intact}, $name) or diag explain $run;
	return $run->{report};
}

# psql as a superuser whose changes fire no trigger.
sub sql
{
	my ($database, $sql) = @_;

	$areg->end_sessions if $sql =~ /\bTEMPLATE\b/; # what is copied is in nobody's use
	open my $in, '|-', @$psql, '-d', $database or die "psql: $!\n";
	print $in "SET session_replication_role = replica;\n$sql\n";
	close $in or die "psql failed: $sql\n";
}

# Whatever stands in an entry, aregctl and PostgreSQL write it alike.
$areg->psql("INSERT INTO audit_log (actor, action, subject_type, subject_id, before, after) VALUES"
	. " (E'\\x01\\x08\\t\\n\\x0b\\f\\r\\x0e\\x7f \\\\ \" / \\u00e9 \\u2028 \\U0001f600', '', ' ', E'\\'',"
	. " '{\"a\": [1.50, 1e400, null, \"\\u00e9\\\\\\u0007\"]}', 'null')");
intact_ok('areg', 'an untouched log is intact');
ok(wait_until(5, sub { $areg->psql_value('SELECT settled_id = (SELECT max(id) FROM audit_log)'
	. ' FROM audit_sealing') eq 't' }), 'aregd seals it by itself');
ok(wait_until(10, sub {
	my ($position, $hash) = map { @$_ } $areg->psql('SELECT * FROM areg_audit_head()');
	return grep { $_->{message} eq 'audit head' && $_->{position} == $position && $_->{hash} eq $hash }
		map { from_json($_) } grep { /"audit head"/ } split /\n/, $areg->log_text('areg');
}), 'and logs the head of what it sealed');

# By the manual page alone: SHA-256 of what was before and of a JSON array.
my %escapes = ('"' => '"', '\\' => '\\', "\b" => 'b', "\t" => 't', "\n" => 'n', "\f" => 'f', "\r" => 'r');
sub array { return '[' . join(', ', map { $_ // 'null' } @_) . ']' }
sub string
{
	my ($text) = @_;
	return undef if !defined $text;
	$text =~ s/(["\\\x00-\x1f])/'\\' . ($escapes{$1} || sprintf 'u%04x', ord $1)/ge;
	return "\"$text\"";
}
my (%before, $wrong);
for my $row ($areg->psql('SELECT hash, lane, lane_seq, id, rfc3339(at), actor_user, actor, action,'
	. ' subject_type, subject_id, before, after, request_id, client_address FROM audit_log'
	. ' ORDER BY lane, lane_seq')) {
	my ($hash, $lane, $seq, $id, $at, $user, $actor, $action, $type, $subject, $before, $after,
		$request, $address) = @$row;

	$before{$lane} = sha256(($before{$lane} // "\0" x 32) . array(string($lane), $seq, $id,
		string($at), string($user), string($actor), string($action), string($type),
		string($subject), $before, $after, string($request), string($address)));
	$wrong++ if '\x' . unpack('H*', $before{$lane}) ne $hash;
}
is($wrong, undef, 'the hashes of entries are those that the manual page describes');
$wrong = undef;
my $previous = "\0" x 32;
for my $row ($areg->psql("SELECT hash, position, rfc3339(sealed_at), lane, lane_seq,"
	. " encode(lane_hash, 'hex') FROM audit_seals ORDER BY position")) {
	my ($hash, $position, $at, $lane, $seq, $lane_hash) = @$row;

	$previous = sha256($previous . array($position, string($at), string($lane), $seq,
		string($lane_hash)));
	$wrong++ if '\x' . unpack('H*', $previous) ne $hash;
}
is($wrong, undef, 'and so are those of seals');

my $entries_before = verify('areg')->{report}{entries};
my @runs = in_parallel(10, sub {
	my ($i) = @_;
	if ($i >= 8) {
		return [map { verify('areg') } 1 .. 5];
	}
	my $insert = "INSERT INTO audit_log (actor, action, subject_type, subject_id, client_address)"
		. " SELECT 'writer $i', 'test', 'test', n, '2001:db8::$i' FROM generate_series(1, 3) AS n;\n";
	open my $in, '|-', @$psql, '-d', 'areg' or die "psql: $!\n";
	print $in "BEGIN;\n$insert SELECT pg_sleep(2); COMMIT;\n" if $i < 2;
	print $in $insert, "BEGIN; $insert ROLLBACK;\n",
		"BEGIN; SAVEPOINT s; $insert ROLLBACK TO s; $insert COMMIT;\n" for 1 .. 150;
	close $in or die "psql failed\n";
	return 0;
});
my @verified = map { @$_ } @runs[8, 9];
is_deeply([grep { $_->{exit} != 0 } @verified], [], 'it is found intact while 8 writers write');
cmp_ok($verified[-1]{report}{entries}, '>', $entries_before, 'and grows');
is($areg->psql_value("SELECT count(*) FROM audit_log WHERE actor LIKE 'writer%'"), 8 * 900 + 2 * 3,
	'all entries of all writers are there');

ok(wait_until(10, sub { $areg->psql_value('SELECT settled_id = (SELECT last_value FROM audit_log_ids)'
	. ' FROM audit_sealing') eq 't' }), 'and sealed');
is($areg->psql_value('SELECT count(*) FROM (SELECT lane, max(lane_seq) AS n FROM audit_log GROUP BY lane)'
	. ' AS l WHERE n <> (SELECT max(lane_seq) FROM audit_seals s WHERE s.lane = l.lane)'), 0,
	'to the last entry');
$areg->stop_server('aregd');
my $head = intact_ok('areg', 'intact afterwards')->{head};

# ---- who may do what ----

# The role that aregd runs as appends, and no more; PostgreSQL refuses, before any trigger is asked.
for my $change ('UPDATE audit_log SET hash = hash', 'DELETE FROM audit_log', 'TRUNCATE audit_log',
	'ALTER TABLE audit_log DISABLE TRIGGER ALL', 'DROP TRIGGER audit_log_chain ON audit_log',
	'CREATE TABLE mine (log bigint REFERENCES audit_log)', "SELECT setval('audit_log_ids', 1)",
	'ALTER SEQUENCE audit_log_ids RESTART', 'INSERT INTO audit_seals SELECT * FROM audit_seals LIMIT 1',
	'UPDATE audit_seals SET hash = hash', 'DELETE FROM audit_seals', 'TRUNCATE audit_seals',
	'UPDATE audit_sealing SET settled_id = 0', 'DELETE FROM audit_sealing',
	'CREATE FUNCTION public.mine() RETURNS int RETURN 1', 'ALTER FUNCTION areg_seal_audit() RESET ALL',
	"UPDATE schema_migrations SET checksum = repeat('0', 64)", 'SET ROLE areg_owner') {
	ok(!eval { $areg->psql($change, as => 'areg'); 1 } && $@ =~ /permission denied|must be owner/,
		"areg cannot $change") or diag($@);
}
# A table of its own with that name does not stand in for the one that areg_seal_audit() means.
$areg->psql("INSERT INTO audit_log (actor, action, subject_type, subject_id) VALUES ('test', 'test', 'test', '-')",
	as => 'areg');
$areg->psql('CREATE TEMP TABLE audit_seals (LIKE audit_seals); CREATE TEMP TABLE audit_sealing (LIKE audit_sealing);'
	. ' SELECT areg_seal_audit()', as => 'areg');
$head = intact_ok('areg', 'it appends, and has sealed what it appended')->{head};

# ---- tampering: each in a copy of its own ----

# The 5th entry of a lane of at least 100, as a condition.
my ($lane) = map { $_->[0] } $areg->psql("SELECT lane FROM audit_log WHERE actor = 'writer 3' LIMIT 1");
my $fifth = "lane = '$lane' AND lane_seq = 5";
my ($entry) = map { $_->[0] } $areg->psql("SELECT id FROM audit_log WHERE $fifth");
my ($next) = map { $_->[0] } $areg->psql("SELECT id FROM audit_log WHERE lane = '$lane' AND lane_seq = 6");
# A number that was rolled back.
my $unused = $areg->psql_value('SELECT n FROM generate_series(1, (SELECT max(id) FROM audit_log)) AS n'
	. ' WHERE NOT EXISTS (SELECT FROM audit_log WHERE id = n) ORDER BY n DESC LIMIT 1');

# The columns of an entry in the order in which they are hashed.
sub columns { return join ', ', map { "$_[0].$_" } qw(lane lane_seq id at actor_user actor action
	subject_type subject_id before after request_id client_address) }

# Computes the hashes of a lane anew, as a tamperer would.
my $rehash = sub {
	my ($of) = @_;
	return "DO \$\$ DECLARE e audit_log; h bytea := decode(repeat('00', 32), 'hex'); BEGIN"
		. " FOR e IN SELECT * FROM audit_log WHERE lane = '$of' ORDER BY lane_seq LOOP"
		. " h := areg_audit_hash(h, " . columns('e') . "); UPDATE audit_log SET hash = h WHERE id = e.id;"
		. " END LOOP; END \$\$;";
};
my $forged_lane = '00065000-0000-0000-0000-000000000bad';
my $forge = "INSERT INTO audit_log (id, at, lane, lane_seq, hash, actor, action, subject_type,"
	. " subject_id) VALUES (nextval('audit_log_ids'), '2026-02-03 04:05:06',";
my $values = "sha256(''), 'areg_live_AAAAAAAA', 'key.create', 'api_key', 'forged')";

# Name, what is done, and what must be found: pairs of kind and pattern.
my @tamperings = (
	['a row changed', "UPDATE audit_log SET actor = 'nobody' WHERE $fifth;",
		changed => qr/entry $entry /],
	['what was before set from null to empty', "UPDATE audit_log SET request_id = '' WHERE $fifth;",
		changed => qr/entry $entry /],
	['two fields run into each other', "UPDATE audit_log SET actor = actor || action, action = ''"
		. " WHERE $fifth;", changed => qr/entry $entry /],
	['a time changed', "UPDATE audit_log SET at = at - interval '1 microsecond' WHERE $fifth;",
		changed => qr/entry $entry /],
	['a row changed and its hash, too', "UPDATE audit_log SET actor = 'nobody' WHERE $fifth;"
		. "UPDATE audit_log e SET hash = areg_audit_hash((SELECT p.hash FROM audit_log p"
		. " WHERE p.lane = e.lane AND p.lane_seq = e.lane_seq - 1), " . columns('e')
		. ") WHERE $fifth;",
		changed => qr/entry \d+ .*\(6 of lane $lane\)/],
	['a row changed and all hashes behind it', "UPDATE audit_log SET actor = 'nobody' WHERE $fifth;"
		. $rehash->($lane), replaced => qr/of lane $lane/],
	['a row removed in the middle', "DELETE FROM audit_log WHERE $fifth;",
		removed => qr/entries 5 to 5 of lane $lane/],
	['the first row of a lane removed', "DELETE FROM audit_log WHERE lane = '$lane' AND lane_seq = 1;",
		removed => qr/entries 1 to 1 of lane $lane/],
	['a row removed and the gap closed', "DELETE FROM audit_log WHERE $fifth;"
		. " UPDATE audit_log SET lane_seq = lane_seq - 1000000 WHERE lane = '$lane' AND lane_seq > 5;"
		. " UPDATE audit_log SET lane_seq = lane_seq + 999999 WHERE lane = '$lane' AND lane_seq < 0;"
		. $rehash->($lane), removed => qr/entries 900 to 900 at the end of lane $lane/],
	['the end of a lane removed', "DELETE FROM audit_log WHERE lane = '$lane' AND lane_seq >= 899;",
		removed => qr/entries 899 to 900 at the end of lane $lane/],
	['a whole lane removed', "DELETE FROM audit_log WHERE lane = '$lane';",
		removed => qr/lane $lane, whole: its 900 entries/],
	['a whole lane removed with its seals', "DELETE FROM audit_log WHERE lane = '$lane';"
		. " DELETE FROM audit_seals WHERE lane = '$lane';", 'seals removed' => qr/^seals \d+ to \d+/],
	['a row inserted in a new lane', "$forge '$forged_lane', 1, $values;" . $rehash->($forged_lane),
		inserted => qr/says 2026-02-03T04:05:06.000000Z, but was not there/],
	['a row inserted at the end of an old lane', "$forge '$lane', 901, $values;" . $rehash->($lane),
		inserted => qr/says 2026-02-03T04:05:06.000000Z, but was not there/],
	['a row inserted with an old number', "$forge '$forged_lane', 1, $values;"
		. " UPDATE audit_log SET id = $unused WHERE subject_id = 'forged';" . $rehash->($forged_lane),
		inserted => qr/the first of number $unused, are not sealed/],
	['two rows swapped', "UPDATE audit_log SET lane_seq = CASE lane_seq WHEN 5 THEN -6 ELSE -5 END"
		. " WHERE lane = '$lane' AND lane_seq IN (5, 6);"
		. " UPDATE audit_log SET lane_seq = -lane_seq WHERE lane_seq < 0;",
		reordered => qr/entry $entry .* stands behind entry $next/, changed => qr/5 of lane/],
	['the contents of two rows swapped', "UPDATE audit_log a SET subject_id = b.subject_id,"
		. " at = b.at FROM audit_log b WHERE a.id IN ($entry, $next) AND b.id IN ($entry, $next)"
		. " AND a.id <> b.id;", changed => qr/entry $entry /, changed => qr/entry $next /],
	['a seal changed', "UPDATE audit_seals SET sealed_at = sealed_at - interval '1 day'"
		. " WHERE position = 2;", 'seal changed' => qr/^seal 2 /],
	['the last seals cut off', "DELETE FROM audit_seals WHERE position > 3;",
		inserted => qr/or their seals were removed/],
);
for my $tampering (@tamperings) {
	my ($name, $sql, @expected) = @$tampering;

	sql('postgres', 'SET client_min_messages = warning; DROP DATABASE IF EXISTS copy');
	sql('postgres', 'CREATE DATABASE copy TEMPLATE areg');
	sql('copy', $sql);
	my $run = verify('copy');
	my @found = @{ $run->{report}{findings} || [] };
	my $all = $run->{exit} == 3 && !$run->{report}{intact};
	while (my ($what, $why) = splice @expected, 0, 2) {
		$all &&= grep { $_->{what} eq $what && $_->{detail} =~ $why } @found;
	}
	ok($all, "$name: found and named") or diag explain $run;
	next if $name =~ /cut off/; # which is all lanes that were in them
	my @others = grep { ($_->{lane} // $lane) !~ /^(?:$lane|$forged_lane)$/ } @found;
	is(scalar @others, 0, "$name: no other lane is blamed");
}

# Who cuts off seals and has everything sealed anew leaves a log that fits, but not the head that
# somebody noted elsewhere.
sql('postgres', 'DROP DATABASE copy');
sql('postgres', 'CREATE DATABASE copy TEMPLATE areg');
is(verify('copy', '--expect', $head)->{exit}, 0, '--expect: a head noted before is still there');
sql('copy', "DELETE FROM audit_log WHERE lane = '$lane'; DELETE FROM audit_seals WHERE position > 3;"
	. ' UPDATE audit_sealing SET settled_id = 0;');
verify('copy') for 1 .. 2;
my $cut = verify('copy', '--expect', $head);
is($cut->{exit}, 3, '--expect: seals cut off and made anew are found');
like($cut->{report}{findings}[0]{what}, qr/^seals (removed|replaced)$/, 'and named');
is(verify('copy', '--expect', $_)->{exit}, 2, "--expect $_ is refused") for '1', '1:ab', "x:$head";

# The owner of the tables turns triggers off, and takes the end of the log away with its seals.
sub as_owner
{
	my ($sql) = @_;

	open my $in, '|-', 'psql', '-qAtX', '-v', 'ON_ERROR_STOP=1', '-h', $areg->socket_path('pg'), '-U', 'areg_owner',
		'-d', 'copy' or die "psql: $!\n";
	print $in "ALTER TABLE audit_log DISABLE TRIGGER USER; ALTER TABLE audit_seals DISABLE TRIGGER USER;\n$sql\n";
	close $in or die "psql failed: $sql\n";
}
my $cut_end = 'DELETE FROM audit_seals WHERE position > 3; DELETE FROM audit_log l WHERE NOT EXISTS'
	. ' (SELECT FROM audit_seals s WHERE s.lane = l.lane AND s.lane_seq >= l.lane_seq);';
my $forget = 'UPDATE audit_sealing SET settled_id = (SELECT max(id) FROM audit_log), pending_id = 0, sealed_position = 3;';
my @cuts = (
	['its end removed', $cut_end, 'seals removed' => qr/seals up to \d+ were made/],
	['its numbers set back', "SELECT setval('audit_log_ids', 7);", 'numbers set back' => qr/stands at 7, but number \d+ was/],
	['a seal made by hand', 'INSERT INTO audit_seals SELECT position + 1, sealed_at, gen_random_uuid(), 1, lane_hash,'
		. ' hash FROM audit_seals ORDER BY position DESC LIMIT 1;', 'seals inserted' => qr/only seals up to/],
);
for my $cut (@cuts) {
	my ($name, $sql, $what, $why) = @$cut;

	sql('postgres', 'DROP DATABASE copy');
	sql('postgres', 'CREATE DATABASE copy TEMPLATE areg');
	as_owner($sql);
	my $run = verify('copy');
	ok($run->{exit} == 3 && (grep { $_->{what} eq $what && $_->{detail} =~ $why } @{ $run->{report}{findings} }),
		"$name by the owner: found and named") or diag explain $run;
}
# Who changes all that the database knows of it is found by the head that was noted elsewhere.
sql('postgres', 'DROP DATABASE copy');
sql('postgres', 'CREATE DATABASE copy TEMPLATE areg');
as_owner("$cut_end $forget");
my $forgotten = verify('copy');
is($forgotten->{exit}, 0, 'all traces removed by the owner: the log is intact by itself');
cmp_ok($forgotten->{report}{unused_numbers}, '>', 1000, 'though numbers are missing');
is(verify('copy', '--expect', $head)->{exit}, 3, '--expect finds that');

intact_ok('areg', 'the log that all were copies of is intact');

# ---- dump and restore ----

sql('postgres', 'CREATE DATABASE restored');
my $dump = "$scratch/dump.sql";
is(system('pg_dump', '-h', $areg->socket_path('pg'), '-U', 'areg_owner', '-f', $dump, 'areg'), 0, 'pg_dump');
is(system(@$psql, '-o', '/dev/null', '-d', 'restored', '-f', $dump), 0, 'and restore');
my $restored = intact_ok('restored', 'a restored log is intact');
is($restored->{head}, $head, 'with the same head');
system @$psql, '-d', 'restored', '-c', "INSERT INTO audit_log (actor, action, subject_type, subject_id)"
	. " VALUES ('test', 'test', 'test', 'after the restore')";
my $later = intact_ok('restored', 'and stays so when it grows');
is($later->{entries}, $restored->{entries} + 1, 'by an entry');
is($later->{seals}, $restored->{seals} + 1, 'which is sealed');

done_testing;
