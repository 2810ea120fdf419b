#!/usr/bin/perl
# SPDX-License-Identifier: Apache-2.0
# A POST sent again with its Idempotency-Key is done once and answered the same, whatever happened to
# the first try.
use strict;
use warnings;
use FindBin;
use List::Util qw(uniq);
use MIME::Base64 qw(encode_base64);
use Test::More;
use Time::HiRes qw(sleep time);

use lib "$FindBin::Bin/../lib";
use Areg::Test qw(address alive build_dir hash in_parallel json_text problem_ok wait_until);

use constant WORKERS => 8;

my $many = '- 250000 250000 250000';
my $areg = Areg::Test->start(workers => WORKERS, set => { limit_read => '250000 250000 250000 250000',
	limit_search => '250000 250000 250000 250000', limit_sign_in => '250000 250000 250000 250000',
	limit_register => $many, limit_feedback => '- 2 250000 250000', limit_payments => $many,
	database_connect_timeout => '1s', database_statement_timeout => '2s' });
my $alice = $areg->make_user(tier => 'enterprise', scopes => ['payments:write']);
my $bob = $areg->make_user(tier => 'enterprise');
my $register = '/api/v1/agents/register';
my $feedback = '/api/v1/agents/feedback';
my $number = 0;

sub fresh_key { return "key-$$-" . ++$number }

sub agent
{
	my ($name, $owner) = @_;
	return { owner_address => ($owner || $alice)->{wallet}, chain => 'base',
		registration_file => { name => $name, description => 'retried' } };
}

my $agent = $areg->post($register, agent('the rated one', $bob), { key => $bob->{key} })->{json}{agent_uuid};

sub opinion
{
	my ($tag, $client) = @_;
	return { agent_uuid => $agent, client_address => ($client || $alice)->{wallet}, score => 87,
		tag1 => $tag };
}

sub send_with
{
	my ($key, $path, $body, $user) = @_;
	return $areg->post($path, $body, { key => ($user || $alice)->{key}, 'Idempotency-Key' => $key });
}

sub stored { return $areg->psql_value('SELECT count(*) FROM idempotency_keys' . ($_[0] ? " WHERE $_[0]" : '')) }
sub is_stored { return stored("key = '$_[0]'") }
sub agents_named { return $areg->psql_value("SELECT count(*) FROM erc8004_agents WHERE name = '$_[0]'") }
sub opinions_of { return $areg->psql_value("SELECT count(*) FROM erc8004_reputation WHERE tag1 = '$_[0]'") }
sub is_replayed { return ($_[0]{headers}{'idempotency-replayed'} // '') eq 'true' }

sub created_ok
{
	my ($answer, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok($answer->{status} == 201 && !is_replayed($answer), $name) || diag("$answer->{status} $answer->{body}");
}

# The same answer once more: status, type, place and every byte of the body.
sub replayed_ok
{
	my ($again, $first, $name) = @_;
	my $shown = sub {
		my ($answer) = @_;
		return [$answer->{status}, @{ $answer->{headers} }{qw(content-type location)}, $answer->{body}];
	};
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is_deeply([is_replayed($again), @{ $shown->($again) }], [!!1, @{ $shown->($first) }], $name);
}

# A psql that is told what to do line by line, and holds what it locks until it is closed.
sub session
{
	my ($sql) = @_;
	open my $to, '|-', 'psql', '-qAtX', '-o', '/dev/null', '-h', $areg->socket_path('pg'), '-U',
		'areg_owner', '-d', 'areg' or die "psql: $!\n";
	$to->autoflush(1);
	print $to "BEGIN; $sql;\n";
	wait_until(5, sub { $areg->psql_value("SELECT count(*) FROM pg_stat_activity
		WHERE application_name = 'psql' AND state = 'idle in transaction'") }) or die "no session\n";
	return $to;
}

sub waiting
{
	return $areg->psql_value("SELECT count(*) FROM pg_stat_activity
		WHERE application_name = 'areg' AND wait_event_type = 'Lock'");
}

# For clients in parallel: what each calls with its number to begin together with the others. The first
# waits until all are there, and lets them go. A client that waits for one that has died is killed.
sub starting_line
{
	my ($n) = @_;
	pipe my $there, my $say_there or die "pipe: $!\n";
	pipe my $go, my $say_go or die "pipe: $!\n";

	return sub {
		my ($i) = @_;
		my ($seen, $byte) = (0, '.');

		alarm 120;
		if ($i > 0) {
			syswrite $say_there, $byte;
			sysread $go, $byte, 1;
		} else {
			$seen += sysread $there, $byte, $n while $seen < $n - 1;
			syswrite $say_go, '.' x ($n - 1);
		}
		alarm 0;
	};
}

# ---- one record ----

sub given { return $areg->post($feedback, opinion('given before'), { key => $alice->{key} })->{json}{id} }
my ($taken_back, $answered) = map { given() } 1 .. 2;

sub payment
{
	my ($word) = @_;
	return { tx_hash => hash($word), chain => 'base', amount_usdc => '1', status => 'pending',
		payer => $bob->{wallet}, payee => $alice->{wallet} };
}

sub validation
{
	my ($word) = @_;
	return { validator_address => $alice->{wallet}, request_uri => 'ipfs://bafy', request_hash => hash($word) };
}

my $own = $areg->post($register, agent('its own'), { key => $alice->{key} })->{json}{agent_uuid};
my %to_link = (agent_uuid => $own, tx_hash => hash('linked'), chain => 'base');
$areg->post('/api/v1/payments', payment('linked'), { key => $alice->{key} });
$areg->post("/api/v1/agents/$own/validations", validation('responded'), { key => $alice->{key} });

# How to call each POST that takes an API key: path, body, the member that names the record or the
# record itself, and the status where it is not 201.
my %posts = (
	"POST $register" => [$register, agent('fifty times'), 'agent_uuid'],
	"POST $feedback" => [$feedback, opinion('fifty times'), 'id'],
	"POST $feedback/{feedback_id}/revoke" => ["$feedback/$taken_back/revoke", undef, 'id', 200],
	"POST $feedback/{feedback_id}/responses" => ["$feedback/$answered/responses",
		{ response_uri => 'ipfs://bafy' }, 'feedback_id'],
	'POST /api/v1/keys' => ['/api/v1/keys', { name => 'fifty times' }, 'id'],
	'POST /api/v1/payments' => ['/api/v1/payments', payment('fifty times'),
		\('base:' . hash('fifty times'))],
	'POST /api/v1/agents/link-payment' => ['/api/v1/agents/link-payment', \%to_link,
		\('base:' . hash('linked')), 200],
	'POST /api/v1/agents/{id}/validations' => ["/api/v1/agents/$own/validations",
		validation('fifty times'), 'request_hash'],
	'POST /api/v1/validations/{request_hash}/response' => ['/api/v1/validations/' . hash('responded')
		. '/response', { response => 50 }, 'request_hash', 200],
);

open my $routes, '-|', build_dir() . '/aregd', '-r' or die "aregd: $!\n";
my @mutating = grep { $_->[0] eq 'POST' && $_->[2] eq 'key' } map { chomp; [split /\t/] } <$routes>;
close $routes;

for my $route (@mutating) {
	my ($method, $template, undef, undef, $action) = @$route;
	my $how = delete $posts{"$method $template"};

	subtest "$method $template: sent 50 times at once, done once" => sub {
		ok($how, 'this test knows how to call it') or return;
		my ($path, $body, $named, $status) = (@$how, 201);
		my ($key, $begin_together) = (fresh_key(), starting_line(50));
		my $entries = $areg->psql_value('SELECT count(*) FROM audit_log');
		my @answers = in_parallel(50, sub {
			$areg->get('/api/v1/me', { key => $alice->{key} });
			$begin_together->($_[0]);
			return send_with($key, $path, $body);
		});
		my $record = ref $named ? $$named : $answers[0]{json}{$named};

		is_deeply([uniq map { $_->{status} } @answers], [$status], "all are answered $status");
		is(scalar(uniq map { $_->{body} } @answers), 1, 'with the same bytes')
			or diag(join "\n", uniq map { $_->{body} } @answers);
		is_deeply([uniq map { $_->{headers}{'content-type'} } @answers], ['application/json'], 'of JSON');
		is(scalar(uniq map { $_->{headers}{location} // '' } @answers), 1, 'and the same Location');
		is((grep { is_replayed($_) } @answers), 49, '49 of them as a replay');
		is($areg->psql_value('SELECT count(*) FROM audit_log'), $entries + 1, 'one entry in the log');
		is($areg->psql_value("SELECT subject_id FROM audit_log ORDER BY id DESC LIMIT 1"), $record,
			'of the record');
		is($areg->psql_value("SELECT action FROM audit_log ORDER BY id DESC LIMIT 1"), $action,
			'that says what was done');
		is(stored("key = '$key' AND status = $status"), 1, 'and one answer kept');
	};
}
is_deeply([keys %posts], [], 'no route is missing');
is(agents_named('fifty times'), 1, 'one agent');
is(opinions_of('fifty times'), 1, 'one feedback');
is($areg->psql_value("SELECT count(*) FROM api_keys WHERE name = 'fifty times'"), 1, 'one API key');
like(send_with(fresh_key(), $register, agent('located'))->{headers}{location}, qr{^/api/v1/agents/},
	'a registration has a Location');

subtest 'a POST that needs no API key replays to those who show one' => sub {
	my ($key, $body) = (fresh_key(), { address => address('somebody') });
	my $path = '/api/v1/auth/challenge';
	my $first = send_with($key, $path, $body);

	replayed_ok(send_with($key, $path, $body), $first, 'the same challenge');
	my @others = map { $areg->post($path, $body, { 'Idempotency-Key' => $key }) } 1 .. 2;
	is((grep { is_replayed($_) } @others), 0, 'without API key the header counts for nothing');
	is(scalar(uniq map { $_->{json}{nonce} } $first, @others), 3, 'each has a nonce of its own');
};

# ---- another request ----

subtest 'one key is for one request of one user' => sub {
	my $key = fresh_key();
	my $first = send_with($key, $register, agent('conflict'));
	my $bytes = json_text(agent('conflict'));

	created_ok($first, 'the first');
	problem_ok(send_with($key, $register, agent('conflict, other')), 409, 'idempotency_conflict');
	problem_ok(send_with($key, $register, "$bytes "), 409, 'idempotency_conflict');
	problem_ok(send_with($key, $feedback, $bytes), 409, 'idempotency_conflict');
	problem_ok(send_with($key, '/api/v1/keys', { name => 'conflict' }), 409, 'idempotency_conflict');
	is($areg->psql_value("SELECT count(*) FROM api_keys WHERE name = 'conflict'"), 0, 'nothing is done');
	is(agents_named('conflict, other'), 0, 'nor registered');
	replayed_ok(send_with($key, $register, $bytes), $first, 'the first is still answered');
	replayed_ok(send_with($key, "$register/", $bytes), $first, 'at the same address with a slash, too');
	created_ok(send_with($key, $register, agent('conflict', $bob), $bob), "another user's key is another");
	is(stored("key = '$key'"), 2, 'kept for each of them');
	is(send_with($key, $register, agent('conflict', $bob), $bob)->{json}{owner_address}, $bob->{wallet},
		'each has their own');
};

# Random, so that PostgreSQL cannot make it smaller.
sub noise
{
	my ($bytes) = @_;
	return substr encode_base64(join('', map { chr rand 256 } 1 .. $bytes), ''), 0, $bytes;
}

subtest 'what a registration stores is not kept twice' => sub {
	my $size = sub { $areg->psql_value("SELECT sum(pg_total_relation_size(name::regclass))
		FROM unnest('{$_[0]}'::text[]) AS name") };
	my @bodies = map { { %{ agent("large $_") }, metadata => { notes => noise(60_000), "caf\xe9" => "\x{5929}" } } } 1 .. 20;
	$_->{registration_file}{padding} = noise(30_000) for @bodies;
	my @keys = map { fresh_key() } @bodies;
	my ($kept, $stored) = map { $size->($_) } 'idempotency_keys', 'erc8004_agents,erc8004_agent_metadata';
	my @first = map { send_with($keys[$_], $register, $bodies[$_]) } 0 .. $#bodies;

	is((grep { $_->{status} == 201 } @first), 20, 'registered');
	$stored = $size->('erc8004_agents,erc8004_agent_metadata') - $stored;
	$kept = $size->('idempotency_keys') - $kept;
	cmp_ok($stored, '>', 20 * 90_000, 'they store what was sent');
	cmp_ok($kept, '<', 20 * 4096, 'and what is kept for the keys is small beside that') or diag("$kept of $stored");
	is($areg->psql_value("SELECT count(*) FROM idempotency_keys WHERE body ~ 'padding' OR octet_length(body) > 2000"),
		0, 'it has neither file nor metadata');

	# Whatever has become of the agent meanwhile.
	my ($changed, $revoked) = map { $_->{json}{agent_uuid} } @first[0, 1];
	$areg->api(PATCH => "/api/v1/agents/$changed", { registration_file => agent('other')->{registration_file},
		metadata => { notes => undef } }, { key => $alice->{key} });
	$areg->api(PATCH => "/api/v1/agents/$revoked", { status => 'revoked' }, { key => $alice->{key} });
	replayed_ok(send_with($keys[$_], $register, $bodies[$_]), $first[$_], "the answer to registration $_ is the same")
		for 0 .. $#bodies;
	my $file = json_text({ name => 'spaced', description => 'd', 'x' => '\\u0001\x01' });
	$file =~ s/,/ ,\n\t/g;
	my $spaced = qq({"registration_file": $file, "metadata": { "b" : "1", "a":"\\u00012" },)
		. qq( "chain": "base", "owner_address": "$alice->{wallet}"});
	my $key = fresh_key();
	created_ok(my $answer = send_with($key, $register, $spaced), 'a file with spaces and control characters');
	isnt(index($answer->{body}, $file), -1, 'is answered as it was sent');
	replayed_ok(send_with($key, $register, $spaced), $answer, 'and so again');
};

subtest 'two keys, one registration, one instant: one agent' => sub {
	my @keys = map { fresh_key() } 1 .. 2;
	# Both have seen that there is no such agent before either can store it.
	my $lock = session("SELECT FROM erc8004_agent_counters WHERE chain = 'base' FOR UPDATE");
	my @answers = (in_parallel(3, sub {
		my ($i) = @_;
		return send_with($keys[$i], $register, agent('twins')) if $i < 2;
		my $both = wait_until(5, sub { waiting() == 2 });
		print $lock "ROLLBACK;\n";
		return $both;
	}));
	close $lock;

	ok(pop @answers, 'both wait for a number');
	my ($made, $refused) = sort { $a->{status} <=> $b->{status} } @answers;
	created_ok($made, 'one is made');
	problem_ok($refused, 409, 'agent_already_exists');
	is($refused->{json}{agent_uuid}, $made->{json}{agent_uuid}, 'the other is told which');
	is(agents_named('twins'), 1, 'there is one');
	replayed_ok(send_with($keys[$_], $register, agent('twins')), $answers[$_], 'key ' . ($_ + 1) . ' has its answer')
		for 0, 1;
};

subtest 'what is counted is what was done' => sub {
	my ($counted) = $areg->get('/metrics')->{body} =~
		/^erc8004_agent_registrations_total\{chain="base",status="success"\} (\d+)/m;
	is($counted, $areg->psql_value('SELECT count(*) FROM erc8004_agents'), 'registrations that succeeded');
};

# ---- refusals ----

subtest 'a refusal is kept like any answer' => sub {
	my ($invalid, $missing, $suspended) = map { fresh_key() } 1 .. 3;
	my $first = send_with($invalid, $register, agent(''));
	my $unknown = { %{ opinion('unknown') }, agent_uuid => '00000000-0000-4000-8000-000000000000' };

	problem_ok($first, 400, 'invalid_registration_file', '/registration_file/name');
	replayed_ok(send_with($invalid, $register, agent('')), $first, 'bad input');
	problem_ok($first = send_with($invalid . 'json', $register, '{'), 400, 'validation_failed');
	replayed_ok(send_with($invalid . 'json', $register, '{'), $first, 'what is no JSON');
	problem_ok($first = send_with($missing, $feedback, $unknown), 404, 'agent_not_found');
	replayed_ok(send_with($missing, $feedback, $unknown), $first, 'an unknown agent');

	$areg->psql("UPDATE erc8004_agents SET status = 'suspended' WHERE agent_uuid = '$agent'");
	problem_ok($first = send_with($suspended, $feedback, opinion('suspended')), 403, 'agent_suspended');
	$areg->psql("UPDATE erc8004_agents SET status = 'active' WHERE agent_uuid = '$agent'");
	replayed_ok(send_with($suspended, $feedback, opinion('suspended')), $first, 'an agent that was suspended');
	created_ok(send_with(fresh_key(), $feedback, opinion('suspended')), 'a new key asks anew');
	is(opinions_of('suspended'), 1, 'one feedback');
};

subtest 'a long refusal is not kept' => sub {
	my ($key, $before) = (fresh_key(), stored());
	my %body = (%{ agent('never') }, metadata => { map { ("$_" . 'k' x 500) => '' } 1 .. 100 });
	my @answers = map { send_with($key, $register, \%body) } 1 .. 2;

	problem_ok($_, 400, 'validation_failed') for @answers;
	cmp_ok(length $answers[0]{body}, '>', 16 * 1024, 'it is long');
	is((grep { is_replayed($_) } @answers), 0, 'it is made anew');
	is(stored(), $before, 'nothing is stored');
};

subtest 'what is refused at the door is not kept' => sub {
	my $carol = $areg->make_user(tier => 'free');
	my ($key, $before) = (fresh_key(), stored());
	my $body = opinion('later', $carol);

	problem_ok(send_with($key, $feedback, $body, { key => substr($carol->{key}, 0, -1) . '!' }), 401,
		'unauthorized');
	problem_ok($areg->post($feedback, $body, { 'Idempotency-Key' => $key }), 401, 'unauthorized');
	is(stored(), $before, 'nothing is kept of who shows no API key');
	# Far enough from the end of a minute for three requests.
	sleep 2 if time % 60 > 58;
	$areg->post($feedback, opinion("now $_", $carol), { key => $carol->{key} }) for 1 .. 2;
	problem_ok(send_with($key, $feedback, $body, $carol), 429, 'rate_limit_exceeded');
	is(stored(), $before, 'nor of who asks too often');
	is($areg->aregctl('user', 'set', $carol->{id}, '--tier', 'enterprise')->{exit}, 0, 'who then may');
	ok(wait_until(2, sub { send_with($key, $feedback, $body, $carol)->{status} == 201 }),
		'and succeeds with the same key');
	is(opinions_of('later'), 1, 'once');
};

subtest 'a body that cannot be read is not kept' => sub {
	my ($key, $before) = (fresh_key(), stored());
	my %headers = (key => $alice->{key}, 'Idempotency-Key' => $key);

	problem_ok($areg->post($register, 'x' x (1024 * 1024 + 1), \%headers), 413, 'payload_too_large');
	problem_ok($areg->post($register, json_text(agent('readable')), { %headers, 'Content-Type' => 'text/plain' }),
		415, 'unsupported_media_type');
	is(stored(), $before, 'nothing is stored');
	created_ok(send_with($key, $register, agent('readable')), 'the key is as good as new');
};

subtest 'a key is 1 to 255 visible ASCII characters' => sub {
	my $before = stored();
	my $ask = sub {
		my ($header) = @_;
		my $body = json_text(agent('never'));
		return $areg->raw("POST $register HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
			. "Authorization: Bearer $alice->{key}\r\nContent-Type: application/json\r\n"
			. 'Content-Length: ' . length($body) . "\r\nIdempotency-Key:$header\r\n\r\n$body");
	};
	my %bad = ('empty' => '', 'blank' => '  ', '256 characters' => ' ' . 'x' x 256, 'a blank within' => ' a b',
		'a tab within' => " a\tb", 'DEL' => " a\x7f", 'UTF-8' => " caf\xc3\xa9", 'Latin-1' => " \xe9");

	problem_ok($ask->($bad{$_}), 400, 'validation_failed') or diag($_) for sort keys %bad;
	is($ask->(" a\x01b")->{status}, 400, 'a control character: 400');
	is(stored(), $before, 'nothing is stored');
	is(agents_named('never'), 0, 'or done');
	for my $key ('~', '!"#$%&\'()*+,-./:;<=>?@[\\]^_`{|}~', 'x' x 255) {
		my $first = send_with($key, $feedback, opinion('visible'));
		created_ok($first, length($key) . ' characters are good');
		replayed_ok(send_with($key, $feedback, opinion('visible')), $first, 'and replayed');
	}
};

subtest 'other methods ignore the header' => sub {
	my $before = stored();
	my $made = $areg->post('/api/v1/keys', { name => 'to be revoked' }, { key => $alice->{key} })->{json}{id};

	for my $key (fresh_key(), 'not a key') {
		my %headers = (key => $alice->{key}, 'Idempotency-Key' => $key);
		my @answers = map { $areg->get('/api/v1/me', \%headers) } 1 .. 2;
		is_deeply([map { ($_->{status}, is_replayed($_)) } @answers], [200, !!0, 200, !!0], "GET with '$key'");
	}
	my ($gone) = $areg->api(DELETE => "/api/v1/keys/$made", undef,
		{ key => $alice->{key}, 'Idempotency-Key' => 'not a key' });
	is($gone->{status}, 204, 'DELETE');
	is(stored(), $before, 'nothing is stored');
};

subtest 'without the header each POST is its own' => sub {
	my $before = stored();
	my @answers = map { $areg->post($feedback, opinion('twice'), { key => $alice->{key} }) } 1 .. 2;

	created_ok($_, 'done') for @answers;
	is(opinions_of('twice'), 2, 'both');
	is(stored(), $before, 'nothing is kept');
};

# ---- trouble ----

subtest 'a failure of the registry is not kept' => sub {
	my $key = fresh_key();
	my $lock = session('LOCK TABLE erc8004_agents IN ACCESS EXCLUSIVE MODE');
	my $failed = send_with($key, $register, agent('locked out'));

	problem_ok($failed, 503, 'unavailable');
	like($failed->{headers}{'retry-after'}, qr/^[1-9]\d*$/, 'with Retry-After');
	print $lock "ROLLBACK;\n";
	close $lock;
	is(is_stored($key), 0, 'nothing is kept');
	my $done = send_with($key, $register, agent('locked out'));
	created_ok($done, 'the retry is done');
	replayed_ok(send_with($key, $register, agent('locked out')), $done, 'and kept');

	$areg->stop_server('postgres');
	problem_ok(send_with($key, $register, agent('locked out')), 503, 'unavailable');
	$areg->start_server('postgres');
	my $again;
	wait_until(5, sub { ($again = send_with($key, $register, agent('locked out')))->{status} != 503 });
	replayed_ok($again, $done, 'still so after PostgreSQL was away');
	is(agents_named('locked out'), 1, 'one agent');
};

subtest 'a connection cut before the end is nothing to the caller' => sub {
	my $key = fresh_key();
	my $lock = session('LOCK TABLE erc8004_agents IN ACCESS EXCLUSIVE MODE');
	my ($answer, $cut) = in_parallel(2, sub {
		my ($i) = @_;
		return send_with($key, $register, agent('cut')) if $i == 0;
		wait_until(1.5, sub { waiting() });
		my $n = $areg->psql_value("SELECT count(pg_terminate_backend(pid, 1000)) FROM pg_stat_activity
			WHERE application_name = 'areg' AND wait_event_type = 'Lock'");
		print $lock "ROLLBACK;\n";
		return $n;
	});
	close $lock;

	is($cut, 1, 'one is cut');
	created_ok($answer, 'it is done on the next try');
	replayed_ok(send_with($key, $register, agent('cut')), $answer, 'and kept');
	is(agents_named('cut'), 1, 'once');
};

# What happens to a session at COMMIT, the first time that the key is stored.
sub at_commit
{
	my ($key, $what) = @_;
	$areg->psql("CREATE SEQUENCE test_commits; GRANT USAGE ON SEQUENCE test_commits TO areg;
		CREATE FUNCTION test_at_commit() RETURNS trigger LANGUAGE plpgsql AS \$\$
		BEGIN IF nextval('test_commits') = 1 THEN $what; END IF; RETURN NULL; END \$\$;
		CREATE CONSTRAINT TRIGGER test_at_commit AFTER INSERT ON idempotency_keys
			DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.key = '$key')
			EXECUTE FUNCTION test_at_commit()");
}

sub no_more_at_commit
{
	$areg->psql('DROP FUNCTION test_at_commit() CASCADE; DROP SEQUENCE test_commits');
}

subtest 'a transaction that is done again gives one answer' => sub {
	my $key = fresh_key();

	at_commit($key, "RAISE EXCEPTION 'again' USING ERRCODE = 'serialization_failure'");
	my $answer = send_with($key, $register, agent('again'));
	is($areg->psql_value('SELECT last_value FROM test_commits'), 2, 'it was done twice');
	no_more_at_commit();
	created_ok($answer, 'created');
	is(($answer->{json} || {})->{registration_file}{name}, 'again', 'the body is one JSON text');
	ok(!ref $answer->{headers}{location}, 'and Location is there once') or diag(explain($answer->{headers}));
	replayed_ok(send_with($key, $register, agent('again')), $answer, 'which is what is kept');
	is(agents_named('again'), 1, 'one agent');
};

subtest 'the end of a connection while nothing is stored yet: the retry does it' => sub {
	my $key = fresh_key();

	at_commit($key, 'PERFORM pg_terminate_backend(pg_backend_pid())');
	my $answer = send_with($key, $register, agent('lost'));
	no_more_at_commit();
	problem_ok($answer, 503, 'outcome_unknown');
	is(agents_named('lost'), 0, 'nothing is stored');
	created_ok(send_with($key, $register, agent('lost')), 'the same key tells the truth: not done before');
	is(agents_named('lost'), 1, 'one agent');
};

subtest 'the end of a connection after all was stored: the retry finds it' => sub {
	my $key = fresh_key();
	my $standby = sub {
		$areg->psql("ALTER SYSTEM SET synchronous_standby_names = '$_[0]'");
		$areg->psql('SELECT pg_reload_conf()');
	};

	# What is committed waits for a standby that there is not, and is not told meanwhile.
	$standby->('nobody');
	my ($answer, $cut) = in_parallel(2, sub {
		my ($i) = @_;
		return send_with($key, $register, agent('found')) if $i == 0;
		return wait_until(1.5, sub { $areg->psql_value("SELECT count(pg_terminate_backend(pid))
			FROM pg_stat_activity WHERE application_name = 'areg' AND wait_event = 'SyncRep'") });
	});
	$standby->('');

	is($cut, 1, 'the connection is cut between');
	problem_ok($answer, 503, 'outcome_unknown');
	is(agents_named('found'), 1, 'the agent is stored');
	my $again = send_with($key, $register, agent('found'));
	is($again->{status}, 201, 'the same key tells the truth: done before');
	ok(is_replayed($again), 'as a replay');
	is($areg->get("/api/v1/agents/$again->{json}{agent_uuid}")->{status}, 200, 'of an agent that is there');
	is(agents_named('found'), 1, 'once');
};

subtest 'a user who is gone is told so' => sub {
	my $dave = $areg->make_user(tier => 'enterprise');
	my ($listener) = grep { Areg::Test::name_of($_) eq 'aregd listener' } children();

	# Known to the workers until the listener says otherwise.
	is($areg->get('/api/v1/me', { key => $dave->{key} })->{status}, 200, 'while there');
	kill 'STOP', $listener;
	$areg->psql("DELETE FROM users WHERE id = '$dave->{id}'");
	my $answer = send_with(fresh_key(), $register, agent('gone', $dave), $dave);
	kill 'CONT', $listener;
	problem_ok($answer, 401, 'unauthorized');
	is(agents_named('gone'), 0, 'and nothing is done');
};

# ---- secrets ----

subtest 'a new API key is replayed only to who shows the same one' => sub {
	my ($key, $body) = (fresh_key(), { name => 'kept sealed' });
	my $other = $areg->post('/api/v1/keys', { name => 'another' }, { key => $alice->{key} })->{json}{api_key};
	my $first = send_with($key, '/api/v1/keys', $body);
	my $secret = $first->{json}{api_key};

	created_ok($first, 'made');
	replayed_ok(send_with($key, '/api/v1/keys', $body), $first, 'replayed');
	replayed_ok($areg->post('/api/v1/keys', $body, { 'X-API-Key' => $alice->{key}, 'Idempotency-Key' => $key }),
		$first, 'in the other header, too');
	is($areg->get('/api/v1/me', { key => $secret })->{status}, 200, 'it works');
	my %basic = (Authorization => 'Basic ' . encode_base64('user:word', ''));
	replayed_ok($areg->post('/api/v1/keys', $body,
		{ %basic, 'X-API-Key' => $alice->{key}, 'Idempotency-Key' => $key }),
		$first, 'and beside credentials of another kind, which seal nothing');
	my $stranger = send_with($key, '/api/v1/keys', $body, { key => $other });
	problem_ok($stranger, 409, 'idempotency_conflict');
	unlike($stranger->{body}, qr/\Q$secret\E/, "not shown to the user's other key");
	problem_ok(send_with($key, '/api/v1/keys', $body, { key => $secret }), 409, 'idempotency_conflict');

	my $plain = $first->{body};
	open my $dump, '-|', 'pg_dump', '-h', $areg->socket_path('pg'), '-U', 'areg_owner', 'areg' or die "pg_dump: $!\n";
	my $text = do { local $/; <$dump> };
	close $dump;
	my $logs = join '', map { $areg->log_text($_) } qw(areg aregd postgres nginx-access nginx-error);
	for my $where ([dump => $text], [logs => $logs]) {
		my ($name, $in) = @$where;
		like($in, qr/\Q$first->{json}{key_prefix}\E/, "$name: what may be seen is there");
		for my $it ($secret, substr($secret, 18), $alice->{key}) {
			is(index(lc $in, lc $_), -1, "$name: no API key is, nor its hex or base64")
				for $it, unpack('H*', $it), substr(encode_base64($it, ''), 0, 40);
		}
	}
	my $sealed = $areg->psql_value("SELECT body FROM idempotency_keys WHERE key = '$key'");
	like($sealed, qr/^(?:[0-9a-f]{2})+$/, 'what is kept is sealed');
	is(length $sealed, 2 * (12 + length($plain) + 16), 'all of it, with nonce and tag');

	# One bit of it turned: refused, not shown.
	$areg->psql("UPDATE idempotency_keys SET body = overlay(body PLACING
		CASE WHEN substr(body, 60, 1) = '0' THEN '1' ELSE '0' END FROM 60 FOR 1) WHERE key = '$key'");
	problem_ok(send_with($key, '/api/v1/keys', $body), 409, 'idempotency_conflict');
};

# ---- a day later ----

sub children
{
	my $master = $areg->pid('aregd');
	open my $in, '<', "/proc/$master/task/$master/children" or return;
	return grep { alive($_) } split ' ', join '', <$in>;
}

subtest 'an answer is kept for a day' => sub {
	my ($old, $young) = map { fresh_key() } 1 .. 2;
	my ($first) = map { send_with($_, $feedback, opinion('a day')) } $old, $young;

	$areg->psql("UPDATE idempotency_keys SET created_at = now() - CASE key WHEN '$old'
		THEN interval '24 hours 1 second' ELSE interval '23 hours 50 minutes' END
		WHERE key IN ('$old', '$young')");
	# It sweeps once a minute, and first when it begins.
	my ($listener) = grep { Areg::Test::name_of($_) eq 'aregd listener' } children();
	kill 'KILL', $listener;
	ok(wait_until(20, sub { !is_stored($old) }), 'then it is swept');
	is(is_stored($young), 1, 'and not before');
	my $again = send_with($old, $feedback, opinion('a day'));
	created_ok($again, 'the key can be used anew');
	isnt($again->{json}{id}, $first->{json}{id}, 'for another record');
	ok(is_replayed(send_with($young, $feedback, opinion('a day'))), 'the younger is replayed');
};

is(stored('status IS NULL'), 0, 'no key is without an answer');
is($areg->aregctl('audit', 'verify')->{exit}, 0, 'the audit log is whole');

done_testing();
