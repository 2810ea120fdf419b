#!/usr/bin/perl
# SPDX-License-Identifier: Apache-2.0
# Who is let in, who is not, and how soon what changed counts: keys, tiers and wallets.
use strict;
use warnings;

use Compress::Zlib qw(crc32);
use FindBin;
use IO::Socket::UNIX;
use Test::More;
use Time::HiRes qw(sleep time);

use lib "$FindBin::Bin/../lib";
use Areg::Test qw(address in_parallel problem_ok wait_until);

use constant WORKERS => 4;

# Feedback's limits tell the tiers apart: 1000, 2000 and 3000 a minute.
my $areg = Areg::Test->start(workers => WORKERS, set => { limit_feedback => '- 1000 2000 3000',
	database_connect_timeout => '1s' });
my $nowhere = '/api/v1/nowhere'; # costs no look into the database
my @base62 = (0 .. 9, 'A' .. 'Z', 'a' .. 'z');

# The second host has an address of its own to be asked from: little is left of the first one.
sub status
{
	my ($key, $host) = @_;
	return $host->get($nowhere, { key => $key, from => '127.0.0.11' })->{status} if $host;
	return $areg->get($nowhere, { key => $key })->{status};
}

# The limit of feedback that the caller of this key has.
sub limit_of
{
	return $areg->post('/api/v1/agents/feedback', {}, { key => $_[0] })->{headers}{'x-ratelimit-limit'};
}

# A key of the right form that nobody was given: its last six digits are the CRC-32 of the rest.
sub unknown_key
{
	my $key = 'areg_live_' . join '', map { $base62[rand 62] } 1 .. 43;
	my ($crc, @digits) = crc32($key);

	for (1 .. 6) {
		unshift @digits, $base62[$crc % 62];
		$crc = int $crc / 62;
	}
	return join '', $key, @digits;
}

sub make_key
{
	my ($user, %body) = @_;
	my $answer = $areg->post('/api/v1/keys', { name => 'another', %body }, { key => $user->{key} });
	is($answer->{status}, 201, 'a key is made') or diag $answer->{body};
	return $answer->{json};
}

# After this the key is in the shared memory of its host.
sub warm { my ($key, $host) = @_; is(status($key, $host), 404, 'the key works') }

# When each connection of a worker was last asked anything. A statement that is running now would
# show as another time later.
sub asked
{
	return join ' ', map { join '/', @$_ } $areg->psql("SELECT pid, query_start, state_change"
		. " FROM pg_stat_activity WHERE application_name = 'areg' ORDER BY pid");
}

sub no_database_ok
{
	my ($name, $sub) = @_;
	my $before = asked();

	isnt($before, '', 'workers are connected');
	$sub->();
	is(asked(), $before, "$name: no worker asked the database");
}

# Commands of the protocol's text form; returns all until END.
sub memcached
{
	my ($command) = @_;
	my $socket = IO::Socket::UNIX->new(Peer => $areg->socket_path('memcached')) or die "memcached: $!\n";
	my $text = '';

	print $socket "$command\r\n";
	while (defined(my $line = <$socket>)) {
		last if $line =~ /^END/;
		$text .= $line;
	}
	return $text;
}

# What memcached was asked for so far: every command that reads. The listener notes something in it
# every second.
sub cache_commands { return join ' ', sort(memcached('stats') =~ /STAT ((?:cmd_get|get_|incr_|decr_|delete_|cas_|touch_)\w* \d+)/g) }

# Seconds until the key is refused, at most 5. It is to be within one; what is asked for is more, since a machine
# may be busy with other things: what it took is in the notes.
sub refused_after
{
	my ($key, $host) = @_;
	my $began = time;

	wait_until(5, sub { status($key, $host) == 401 });
	note sprintf '%.0f ms', 1000 * (time - $began);
	return time - $began;
}

sub is_invalid_token
{
	my ($answer, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	problem_ok($answer, 401, 'unauthorized');
	is($answer->{headers}{'www-authenticate'}, 'Bearer error="invalid_token"', "$name: WWW-Authenticate");
}

my ($alice, $bob) = map { $areg->make_user } 1, 2;

subtest 'without a key, reads are open and the rest is refused' => sub {
	is($areg->get('/api/v1/agents')->{status}, 200, 'searching');
	for my $call ([POST => '/api/v1/agents/register', {}], [POST => '/api/v1/agents/feedback', {}],
		[GET => '/api/v1/me'], [GET => '/api/v1/keys'], [POST => '/api/v1/keys', {}]) {
		my $answer = $areg->api(@$call);

		problem_ok($answer, 401, 'unauthorized');
		is($answer->{headers}{'www-authenticate'}, 'Bearer', "$call->[0] $call->[1]: WWW-Authenticate");
	}
};

subtest 'a key is taken from either header, and a wrong one is refused everywhere' => sub {
	my $wrong = unknown_key();

	is($areg->get($nowhere, { 'X-API-Key' => $alice->{key} })->{status}, 404, 'X-API-Key');
	is($areg->get($nowhere, { Authorization => "bearer $alice->{key}" })->{status}, 404, 'bearer');
	is_invalid_token($areg->api(@$_), "$_->[0] $_->[1]") for
		[GET => '/api/v1/agents', undef, { key => $wrong }],
		[GET => $nowhere, undef, { key => $wrong }],
		[GET => $nowhere, undef, { 'X-API-Key' => $wrong }],
		[DELETE => '/api/v1/agents', undef, { key => $wrong }],
		[OPTIONS => '/api/v1/agents', undef, { key => $wrong }],
		[POST => '/api/v1/agents/register', {}, { key => $wrong }],
		[POST => '/api/v1/auth/challenge', {}, { key => $wrong }];
};

subtest 'credentials of another kind do not matter beside a key' => sub {
	my $basic = 'Basic YWxpY2U6c2VjcmV0'; # as curl adds them from .netrc

	is($areg->get($nowhere, { Authorization => $basic, 'X-API-Key' => $alice->{key} })->{status}, 404, 'the key counts');
	is_invalid_token($areg->get($nowhere, { Authorization => $basic, 'X-API-Key' => unknown_key() }), 'a wrong key');
	my $answer = $areg->get($nowhere, { Authorization => $basic });
	is_invalid_token($answer, 'Basic alone');
	like($answer->{json}{detail}, qr/Basic.*\.netrc.*X-API-Key/, 'what is wrong is said');
	unlike($answer->{json}{detail}, qr/mistyped/, 'and not what is not');
};

subtest 'a page may send what browsers and tracing add' => sub {
	my $answer = $areg->api(OPTIONS => '/api/v1/agents', undef, { Origin => 'https://page.example',
		'Access-Control-Request-Method' => 'GET' });
	my %allowed = map { (lc $_ => 1) } split /,\s*/, $answer->{headers}{'access-control-allow-headers'};

	is($answer->{status}, 204, 'the preflight is answered');
	ok($allowed{$_}, $_) for qw(authorization baggage cache-control content-type idempotency-key if-none-match
		pragma sentry-trace traceparent tracestate x-api-key x-request-id);
};

subtest 'a key that cannot be one is refused without asking the database' => sub {
	my $key = $alice->{key};
	my @mistyped = map { my $copy = $key; substr($copy, $_, 1) =~ tr/0-9A-Za-z/1-9A-Za-z0/; $copy }
		10 .. length($key) - 1;

	status($key) for 1 .. 4 * WORKERS;
	no_database_ok('mistyped' => sub {
		is_invalid_token($areg->get($nowhere, { key => $_ }), 'one character') for @mistyped[0, 21, -1];
		my @statuses = map { status($_) } @mistyped;
		is_deeply(\@statuses, [(401) x @mistyped], 'in any place');
		is(status($_), 401, 'of another form') for 'x', "$key$key", substr($key, 0, -1), "areg_test_x";
		is($areg->get($nowhere, { Authorization => 'Basic YTpi' })->{status}, 401, 'Basic');
	});
};

subtest 'a hot key costs no round trip, whichever worker is asked' => sub {
	my @beside = map { $areg->pids_named("aregd $_") } qw(ledger health);
	is(scalar @beside, 2, 'the ledger keeper and the health process can be held still');

	in_parallel(8, sub { status($alice->{key}) for 1 .. 20; 1 });
	kill STOP => @beside; # they ask memcached by themselves
	sleep 0.3;
	my $commands = cache_commands();
	like($commands, qr/cmd_get \d+.*get_hits \d+/, 'memcached counts');
	no_database_ok('1,000 requests' => sub {
		my %count;
		$count{$_}++ for map { @$_ } in_parallel(8, sub { [map { status($alice->{key}) } 1 .. 125] });
		is_deeply(\%count, { 404 => 1000 }, 'all are answered');
	});
	is(cache_commands(), $commands, 'nor was memcached asked anything');
	kill CONT => @beside;
};

# Starts when nothing is measured any more that two hosts would disturb. Its readers without a key
# have little, and its free users may not register.
my $other = Areg::Test->start(beside => $areg, workers => 2, set => {
	limit_read => '20 250000 250000 250000', limit_register => '- - 100 100',
	limit_search => '- 100 100 100', database_connect_timeout => '1s' });

subtest 'wrong keys past the limit are not looked up and leave no trace' => sub {
	my $guess = sub { $other->get($nowhere, { key => unknown_key(), from => '127.0.0.9' }) };
	my (%count, $last);

	sleep 10 if time % 60 > 50;
	my $keys = $areg->psql_value('SELECT count(*) FROM api_keys');
	is_invalid_token($guess->(), 'within the limit');
	$guess->() for 2 .. 30;
	no_database_ok('200 guesses' => sub {
		for (1 .. 200) {
			$last = $guess->();
			$count{ $last->{status} }++;
		}
	});
	is_deeply(\%count, { 429 => 200 }, 'all are over the limit');
	problem_ok($last, 429, 'rate_limit_exceeded');
	is($areg->psql_value('SELECT count(*) FROM api_keys'), $keys, 'no row was made');
	is(join(' ', grep { !/^areg%3A(?:rl|host|[0-9a-f]{16})%3A/ } memcached('lru_crawler metadump all') =~ /^key=(\S+)/mg),
		'', 'nor is anything about keys in memcached');
	is($other->get($nowhere, { key => $bob->{key}, from => '127.0.0.8' })->{status}, 404,
		'others are not affected');
};

subtest 'a key that is hot goes on from an address that guesses' => sub {
	is($other->get($nowhere, { key => $bob->{key}, from => '127.0.0.9' })->{status}, 404, 'it works');
};

subtest 'a key is looked up for an address whose reads without one are used up' => sub {
	my $carol = $areg->make_user(tier => 'pro');

	sleep 10 if time % 60 > 50;
	$other->get($nowhere, { from => '127.0.0.7' }) for 1 .. 25;
	is($other->get($nowhere, { from => '127.0.0.7' })->{status}, 429, 'without a key it is over');
	is($other->get($nowhere, { key => $carol->{key}, from => '127.0.0.7' })->{status}, 404,
		'with a key that nobody has used yet it goes on');
};

subtest 'a class that is closed to a tier says which tier it is' => sub {
	my $pro = $areg->make_user(tier => 'pro');
	my $answer = $other->post('/api/v1/agents/register', {}, { key => $bob->{key} });

	problem_ok($answer, 403, 'tier_required');
	like($answer->{json}{detail}, qr/Tier free/, 'the tier is named');
	is($answer->{headers}{'x-ratelimit-limit'}, 250000, 'counted as a read');
	is($other->post('/api/v1/agents/register', {}, { key => $pro->{key} })->{status}, 400,
		'a higher one may');
	$answer = $other->get('/api/v1/agents', { from => '127.0.0.10' });
	problem_ok($answer, 401, 'unauthorized');
	is($answer->{headers}{'www-authenticate'}, 'Bearer', 'closed to those without a key');
	is($other->get('/api/v1/agents', { key => $bob->{key} })->{status}, 200, 'and open with one');
};

subtest 'a key expires on the second, also when it is hot' => sub {
	my $expires_at = time + 2.5;
	my ($whole, $fraction) = (int $expires_at, $expires_at - int $expires_at);
	my @utc = gmtime $whole;
	my $key = make_key($alice, expires_at => sprintf('%04d-%02d-%02dT%02d:%02d:%02d.%03dZ',
		$utc[5] + 1900, $utc[4] + 1, @utc[3, 2, 1, 0], 1000 * $fraction))->{api_key};

	warm($key);
	wait_until(5, sub { status($key) != 404 });
	cmp_ok(time, '>=', $expires_at - 0.01, 'not too early');
	cmp_ok(time, '<', $expires_at + 3, 'nor late');
	is_invalid_token($areg->get($nowhere, { key => $key }), 'then');
};

subtest 'a key revoked through the API is refused by every worker on the very next request' => sub {
	for (1 .. 5) {
		my $made = make_key($alice);
		my %count;

		in_parallel(8, sub { status($made->{api_key}) for 1 .. 5; 1 });
		is($areg->api(DELETE => "/api/v1/keys/$made->{id}", undef, { key => $alice->{key} })->{status},
			204, 'revoked');
		$count{$_}++ for map { @$_ } in_parallel(8, sub { [map { status($made->{api_key}) } 1 .. 5] });
		is_deeply(\%count, { 401 => 40 }, 'refused');
	}
};

subtest 'a key revoked on another host is refused within a second' => sub {
	my $made = make_key($alice);

	warm($made->{api_key}, $_) for $areg, $other;
	$areg->api(DELETE => "/api/v1/keys/$made->{id}", undef, { key => $alice->{key} });
	cmp_ok(refused_after($made->{api_key}, $other), '<', 3, 'seconds');
};

subtest 'what aregctl changes counts within a second' => sub {
	my $carol = $areg->make_user;
	my $made = make_key($carol);

	warm($made->{api_key});
	is($areg->aregctl(qw(key revoke), $made->{id})->{exit}, 0, 'key revoke');
	cmp_ok(refused_after($made->{api_key}), '<', 3, 'a revoked key is refused');
	is(limit_of($carol->{key}), 1000, 'tier free');
	is($areg->aregctl(qw(user set), $carol->{id}, qw(--tier pro))->{exit}, 0, 'user set --tier');
	my $began = time;
	wait_until(5, sub { limit_of($carol->{key}) == 2000 });
	cmp_ok(time - $began, '<', 3, 'another tier has its limits');
	is($areg->aregctl(qw(user set), $carol->{id}, qw(--active off))->{exit}, 0, 'user set --active off');
	cmp_ok(refused_after($carol->{key}), '<', 3, 'a user who is switched off is refused');
	is($areg->aregctl(qw(user set), $carol->{id}, qw(--active on))->{exit}, 0, 'user set --active on');
	is(status($carol->{key}), 404, 'and let in again at once');
};

subtest 'a wallet can be spoken for by its own keys only' => sub {
	my $file = { name => 'mine', description => 'an agent' };
	my $register = sub {
		my ($owner) = @_;
		return $areg->post('/api/v1/agents/register',
			{ owner_address => $owner, chain => 'base', registration_file => $file },
			{ key => $alice->{key} });
	};
	my $rate = sub {
		my ($user, $client, $agent) = @_;
		return $areg->post('/api/v1/agents/feedback',
			{ agent_uuid => $agent, client_address => $client, score => 90 },
			{ key => $user->{key} });
	};

	problem_ok($register->($bob->{wallet}), 403, 'forbidden');
	my $agent = $register->($alice->{wallet})->{json}{agent_uuid};
	problem_ok($rate->($bob, $alice->{wallet}, $agent), 403, 'forbidden');
	problem_ok($rate->($bob, address('nobody'), $agent), 403, 'forbidden');
	my $own = $rate->($alice, $alice->{wallet}, $agent);
	problem_ok($own, 403, 'forbidden');
	like($own->{json}{detail}, qr/owner/, 'the owner gives none to its own agent');
	is($rate->($bob, $bob->{wallet}, $agent)->{status}, 201, 'another may');
};

subtest "nobody sees or revokes another's keys" => sub {
	my $made = make_key($alice);
	my $list = $areg->get('/api/v1/keys', { key => $bob->{key} });

	unlike($list->{body}, qr/\Q$made->{id}\E|\Q$made->{key_prefix}\E/, 'not in the list');
	problem_ok($areg->api(DELETE => "/api/v1/keys/$made->{id}", undef, { key => $bob->{key} }),
		404, 'key_not_found');
	is(status($made->{api_key}), 404, 'it still works');
};

# Switches a key off without telling anybody: with this setting no trigger runs.
sub revoke_silently
{
	$areg->psql("SET session_replication_role = replica; UPDATE api_keys SET is_active = false,"
		. " revoked_at = now() WHERE id = '$_[0]'");
}

subtest 'a listener that was cut off trusts nothing from before' => sub {
	my $made = make_key($alice);

	warm($made->{api_key});
	revoke_silently($made->{id});
	is(status($made->{api_key}), 404, 'nobody was told: still hot');
	$areg->psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
		. " WHERE application_name = 'areg listener'");
	cmp_ok(refused_after($made->{api_key}), '<', 5, 'seconds until all was dropped');
	ok(wait_until(5, sub { $areg->log_text('areg') =~ /connected again: changes may have been missed/ }),
		'the log says so');
};

subtest 'a killed listener is replaced, and meanwhile revoked keys are refused' => sub {
	my $made = make_key($alice);
	my $other_made = make_key($alice);
	my ($listener) = $areg->pids_named('aregd listener');
	my $replaced;

	warm($_->{api_key}) for $made, $other_made;
	kill KILL => $listener;
	$areg->psql("UPDATE api_keys SET is_active = false, revoked_at = now() WHERE id = '$made->{id}'");
	cmp_ok(refused_after($made->{api_key}), '<', 5, 'seconds');
	ok(wait_until(5, sub { ($replaced) = $areg->pids_named('aregd listener') }), 'replaced');
	isnt($replaced, $listener, 'by another');
	ok(wait_until(5, sub { $areg->psql_value("SELECT count(*) FROM pg_stat_activity"
		. " WHERE application_name = 'areg listener'") == 2 }), 'which listens');
	warm($other_made->{api_key});
	$areg->psql("UPDATE api_keys SET is_active = false, revoked_at = now() WHERE id = '$other_made->{id}'");
	cmp_ok(refused_after($other_made->{api_key}), '<', 3, 'and hears');
};

subtest 'a listener that hangs does not make old keys valid' => sub {
	my $made = make_key($alice);
	my ($listener) = $areg->pids_named('aregd listener');

	warm($made->{api_key});
	kill STOP => $listener;
	$areg->psql("UPDATE api_keys SET is_active = false, revoked_at = now() WHERE id = '$made->{id}'");
	cmp_ok(refused_after($made->{api_key}), '<', 5, 'seconds');
	kill CONT => $listener;
};

subtest 'with PostgreSQL away, who is known goes on, and who is not is told to come back' => sub {
	my $cold = $areg->make_user;
	my $answer;

	warm($alice->{key}) for 1 .. 8;
	$areg->stop_server('postgres');
	is(status($alice->{key}), 404, 'at once');
	sleep 1.5;
	is(status($alice->{key}), 404, 'and when nothing was heard of the database for a while');
	$answer = $areg->get($nowhere, { key => $cold->{key} });
	problem_ok($answer, 503, 'unavailable');
	like($answer->{headers}{'retry-after'}, qr/^[1-9]\d*$/, 'with Retry-After');
	is(status(substr($alice->{key}, 0, -1) . '!'), 401, 'what is no key is refused all the same');
	$areg->start_server('postgres');
	ok(wait_until(10, sub { status($cold->{key}) == 404 }), 'once it is back, all goes on');
};

done_testing;
