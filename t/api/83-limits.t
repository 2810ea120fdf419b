#!/usr/bin/perl
# SPDX-License-Identifier: Apache-2.0
# Rate limits: exactly so many a minute, whoever asks however many at once, on one host or on two.
use strict;
use warnings;

use Compress::Zlib qw(crc32);
use FindBin;
use IO::Socket::UNIX;
use POSIX ();
use Test::More;
use Time::HiRes qw(sleep time);

use lib "$FindBin::Bin/../lib";
use Areg::Test qw(in_parallel problem_ok wait_until);

use constant { WORKERS => 8, CLIENTS => 32 };

# Requests a minute, small enough to be counted out: anonymous, free, pro, enterprise. Those of the
# last tier are for many clients at once.
my %limits = (register => [0, 2, 3, 4], feedback => [0, 3, 4, 5], search => [5, 6, 30, 300],
	read => [7, 8, 200, 2000], sign_in => [3, 4, 5, 6]);
my %calls = (register => [POST => '/api/v1/agents/register', {}],
	feedback => [POST => '/api/v1/agents/feedback', {}], search => [GET => '/api/v1/agents'],
	read => [GET => '/api/v1/nowhere'], sign_in => [POST => '/api/v1/auth/challenge', {}]);
my @tiers = qw(anonymous free pro enterprise);
my %set = map { ("limit_$_" => join ' ', @{ $limits{$_} }) } keys %limits;

# So that minutes need not be waited for.
$set{environment} = 'test';
my $areg = Areg::Test->start(workers => WORKERS, limits => 'default', set => { environment => 'test' });
my @hosts = $areg;

# Makes one call of a class, as a user or, without one, from an address. Users have an address that
# nobody asks from without a key: where that has been done too often, new keys are not looked up.
sub call
{
	my ($class, $from, $host) = @_;
	my ($method, $path, $body) = @{ $calls{$class} };
	return ($host || $areg)->api($method, $path, $body,
		ref $from ? { key => $from->{key}, from => $from->{from} || '127.0.0.2' } : { from => $from });
}

# An address that nobody has asked from yet.
my $addresses = 0;
sub new_address { return sprintf '127.0.7.%d', ++$addresses }
# Signing in counts by address for everybody: so each has one.
sub new_caller
{
	my ($tier) = @_;
	return $tier eq 'anonymous' ? new_address() : { %{ $areg->make_user(tier => $tier) }, from => new_address() };
}

# What the registry's limits go by is this clock, which the tests turn.
my $ahead = 0;
sub now { return time + $ahead }
sub gone { return now() - 60 * int now() / 60 }
sub turn
{
	my ($seconds) = @_;

	$ahead += $seconds;
	$_->turn_limit_clock($ahead) for @hosts;
	# Hosts know of each other for a second of that clock.
	wait_until(10, sub { !grep { metric($_, 'areg_limiter_hosts') != @hosts } @hosts }) or die "a host is missing\n";
}

# Turns the clock, if need be, so that the minute has so many seconds left.
sub have_seconds_left { my ($seconds) = @_; turn(POSIX::ceil(60 - gone())) if gone() > 60 - $seconds }

sub limit_headers { return map { $_[0]{headers}{"x-ratelimit-$_"} } qw(limit remaining reset) }

# Asks a FastCGI server over its socket, and returns the status of the answer.
sub fastcgi_status
{
	my ($path, %params) = @_;
	my $record = sub { my ($type, $content) = @_; return pack('CCnnCC', 1, $type, 1, length $content, 0, 0) . $content };
	my $pairs = join '', map { pack('CC', length, length $params{$_}) . $_ . $params{$_} } sort keys %params;
	my $socket = IO::Socket::UNIX->new(Peer => $path) or die "$path: $!\n";

	syswrite $socket, $record->(1, pack 'nCx5', 1, 0) . $record->(4, $pairs) . $record->(4, '') . $record->(5, '');
	my $said = do { local $/; <$socket> };
	return $said =~ /Status: (\d+)/ ? $1 : 0;
}

# When the workers last asked the database anything.
sub asked
{
	my ($sum) = $areg->psql("SELECT string_agg(pid || ' ' || query_start, ' ' ORDER BY pid)"
		. " FROM pg_stat_activity WHERE application_name = 'areg'");
	return $sum->[0];
}

# The sum of a metric over the labels that match.
sub metric
{
	my ($host, $name, $labels) = @_;
	my $sum = 0;

	for ($host->get('/metrics')->{body} =~ /^(\Q$name\E(?:\{.*\})? \S+)$/mg) {
		$sum += (split)[-1] if !defined $labels || /$labels/;
	}
	return $sum;
}

# Many clients at once, on all hosts, make so many calls each; returns how often each status came on
# each host. Meanwhile $disturb runs once.
sub storm
{
	my ($class, $from, $calls_each, $hosts, $disturb) = @_;
	my @counts = map { {} } @$hosts;
	my ($said, @seen) = in_parallel(1 + CLIENTS, sub {
		my ($number) = @_;
		my %seen;

		return $disturb ? $disturb->() : 1 if $number == 0;
		for (1 .. $calls_each) {
			$seen{ call($class, $from, $hosts->[$number % @$hosts])->{status} }++;
		}
		return [$number % @$hosts, \%seen];
	});

	for (@seen) {
		my ($host, $seen) = @$_;
		$counts[$host]{$_} += $seen->{$_} for keys %$seen;
	}
	return $disturb ? ($said, @counts) : @counts;
}

# A key of the right form that nobody was given: its last six digits are the CRC-32 of the rest.
sub unknown_key
{
	my @base62 = (0 .. 9, 'A' .. 'Z', 'a' .. 'z');
	my $key = 'areg_live_' . join '', map { $base62[rand 62] } 1 .. 43;
	my ($crc, @digits) = crc32($key);

	for (1 .. 6) {
		unshift @digits, $base62[$crc % 62];
		$crc = int $crc / 62;
	}
	return join '', $key, @digits;
}

subtest 'by default the limits are those of the documentation' => sub {
	my %default = (
		register => [0, 10, 60, 600],
		feedback => [0, 100, 600, 6000],
		payments => [0, 50, 500, 5000],
		search => [60, 300, 1500, 15000],
		read => [120, 1000, 5000, 50000],
		sign_in => [10, 10, 10, 10],
	);

	for my $tier (1 .. 3) {
		my $user = $areg->make_user(tier => $tiers[$tier]);
		my $shown = $areg->get('/api/v1/me', { key => $user->{key} })->{json}{limits};
		my %want = map { ($_ => $default{$_}[$tier]) } keys %default;

		is_deeply({ map { ($_ => $shown->{$_}{limit}) } keys %$shown }, \%want, "/me, $tiers[$tier]");
		is((limit_headers(call($_, $user)))[0], $default{$_}[$tier], "header, $tiers[$tier], $_")
			for sort keys %calls;
	}
	is((limit_headers(call($_, '127.0.6.1')))[0], $default{$_}[0], "header, anonymous, $_")
		for qw(search read sign_in);
};

$areg->stop_server('aregd');
$areg->start_server('aregd', set => \%set);

subtest 'every class and tier lets through its number and refuses the next' => sub {
	my %user = map { ($_ => new_caller($_)) } @tiers;
	my ($refused_before, $refused) = metric($areg, 'areg_limiter_refusals_total');

	have_seconds_left(50);
	my $reset = 60 * (1 + int now() / 60);
	for my $class (sort keys %limits) {
		for my $tier (0 .. 3) {
			my ($limit, $user) = ($limits{$class}[$tier], $user{ $tiers[$tier] });
			my $name = "$class, $tiers[$tier]";
			my (@wrong, $answer);

			next if $limit == 0 || $limit > 200;
			for my $left (reverse 0 .. $limit - 1) {
				$answer = call($class, $user);
				push @wrong, "$answer->{status}: @{[limit_headers($answer)]}"
					if $answer->{status} == 429
					|| "@{[limit_headers($answer)]}" ne "$limit $left $reset"
					|| defined $answer->{headers}{'retry-after'};
			}
			is_deeply(\@wrong, [], "$name: $limit pass and count down");
			$answer = call($class, $user);
			problem_ok($answer, 429, 'rate_limit_exceeded');
			is_deeply([limit_headers($answer)], [$limit, 0, $reset], "$name: headers of the next");
			my $wait = $answer->{headers}{'retry-after'} // '';
			like($wait, qr/^[1-9]\d*$/, "$name: Retry-After");
			# One more fits when 1 / limit of the next minute is over.
			cmp_ok(now() + $wait, '>=', $reset, 'not before the next minute');
			cmp_ok(now() + $wait, '<=', $reset + 60 / $limit + 2, 'nor much later than it must');
			$refused++;
		}
	}
	cmp_ok(now(), '<', $reset, 'all of that within one minute');
	is(metric($areg, 'areg_limiter_refusals_total') - $refused_before, $refused,
		'metrics count what was refused');
};

subtest 'callers are counted apart, and what does not exist is counted like reads' => sub {
	my ($one, $another, $user) = (new_address(), new_address(), new_caller('free'));
	my $second = $areg->aregctl(qw(key create --quiet --user), $user->{id})->{stdout};
	my @like_reads = (['GET', '/api/v1/nowhere'], ['GET', '/'], ['DELETE', '/api/v1/agents'],
		['GET', '/api/v1/chains'], ['POST', '/api/v1/agents/register', {}],
		['GET', '/api/v1/agents/base:999'], ['GET', '/api/v1/me']);

	chomp $second;
	have_seconds_left(30);
	is_deeply([map { (limit_headers($areg->api(@$_[0 .. 2], { from => $one })))[1] } @like_reads],
		[reverse 0 .. 6], 'each is one less');
	is(call('read', $one)->{status}, 429, 'then there is none left');
	is(call('search', $one)->{status}, 200, 'but for searches, which are counted apart');
	is(call('read', $another)->{status}, 404, 'another address is not concerned');
	is($areg->get('/api/v1/nowhere', { from => $one, key => $user->{key} })->{status}, 404,
		'nor is a key used there, though nobody has seen it before');
	call('read', $user) for 1 .. 7;
	is(call('read', $user)->{status}, 429, 'a user whose limit is used up');
	is(call('read', { key => $second })->{status}, 429, 'has nothing left with another key');
	is($areg->get('/api/v1/me', { from => $one, key => $second })->{status}, 429, 'wherever it is used');
	is(call('search', { key => $second })->{json}{total}, 0, 'but in another class');
	is((limit_headers(call('search', $user)))[1], 4, 'which both of them share, too');
};

subtest 'a user who makes keys does not register more with them' => sub {
	my $user = new_caller('free');
	my (%count, @keys);

	have_seconds_left(40);
	my $register = sub {
		my ($key, $n) = @_;
		my $answer = $areg->post('/api/v1/agents/register', { owner_address => $user->{wallet},
			chain => 'base', registration_file => { name => "twin $n", description => 'one of many' } },
			{ key => $key, from => $user->{from} });
		$count{ $answer->{status} }++;
	};
	for my $n (1 .. 40) {
		my $made = $areg->post('/api/v1/keys', { name => "key $n" },
			{ key => $user->{key}, from => $user->{from} });
		push @keys, $made->{json}{api_key} if $made->{status} == 201;
		$register->($keys[-1] // $user->{key}, "$n.$_") for 1 .. 8;
		$areg->api(DELETE => "/api/v1/keys/$made->{json}{id}", undef,
			{ key => $user->{key}, from => $user->{from} }) if $made->{status} == 201;
	}
	is(@keys + ($count{201} // 0), 2, 'keys made and agents registered are two together');
	is($areg->psql_value("SELECT count(*) FROM api_keys WHERE user_id = '$user->{id}'"), 1 + @keys,
		'no more keys are there');
	is($areg->psql_value("SELECT count(*) FROM erc8004_agents WHERE owner_address = '$user->{wallet}'"),
		$count{201} // 0, 'nor agents');
	is($count{429}, 320 - ($count{201} // 0), 'of 320 registrations the rest is refused');
};

subtest 'a preflight costs nothing' => sub {
	my ($address, $user) = (new_address(), new_caller('enterprise'));
	my %ask = (from => $address, Origin => 'https://page.example',
		'Access-Control-Request-Method' => 'GET', 'Access-Control-Request-Headers' => 'x-api-key');
	my %count;

	have_seconds_left(30);
	$count{ $areg->api(OPTIONS => '/api/v1/agents', undef, \%ask)->{status} }++ for 1 .. 200;
	is_deeply(\%count, { 204 => 200 }, '200 are answered');
	is($areg->get('/api/v1/nowhere', { key => $user->{key}, from => $address })->{status}, 404,
		'then a page goes on with a key');
	is((limit_headers(call('read', $address)))[1], 6, 'and all reads without one are left');
	call('read', $address) for 1 .. 7;
	is(call('read', $address)->{status}, 429, 'when those are used up');
	is($areg->api(OPTIONS => $_, undef, \%ask)->{status}, $_ =~ /none/ ? 404 : 204, "a preflight of $_ is answered")
		for '/api/v1/agents', '/api/v1/none';
};

subtest 'keys that are none lock nobody out' => sub {
	my $address = new_address();
	my @later = map { new_caller('enterprise') } 1 .. 3; # whose keys nobody has used yet
	my %count;

	have_seconds_left(40);
	$count{ $areg->get('/api/v1/nowhere', { from => $address, key => "areg_live_mistyped$_" })->{status} }++ for 1 .. 120;
	is_deeply(\%count, { 401 => 7, 429 => 113 }, '120 malformed keys are refused, and limited for themselves');
	is($areg->get('/api/v1/nowhere', { from => $address, key => $later[0]{key} })->{status}, 404,
		'a right key that nobody has used yet goes on');
	%count = ();
	$count{ $areg->get('/api/v1/nowhere', { from => $address, key => unknown_key() })->{status} }++ for 1 .. 120;
	is_deeply(\%count, { 401 => 7, 429 => 113 }, '120 unknown keys likewise');
	is($areg->get('/api/v1/nowhere', { from => $address, key => $later[1]{key} })->{status}, 404,
		'another right key goes on');
	my $made = $areg->post('/api/v1/keys', { name => 'new' }, { key => $later[1]{key}, from => $address })->{json};
	is($areg->get('/api/v1/nowhere', { from => $address, key => $made->{api_key} })->{status}, 404,
		'so does one that was made just now');
	my $carol = new_caller('enterprise');
	ok(wait_until(5, sub { $areg->get('/api/v1/nowhere', { from => $address, key => $carol->{key} })->{status} == 404 }),
		'and one that aregctl made, soon after');
	is($areg->aregctl(qw(key revoke), substr $later[2]{key}, 0, 18)->{exit}, 0, 'one is revoked that nobody has used');
	is($areg->get('/api/v1/nowhere', { from => $address, key => $later[2]{key} })->{status}, 429, 'it is refused');
	my $before = asked();
	$areg->get('/api/v1/nowhere', { from => $address, key => $later[2]{key} }) for 1 .. 50;
	is(asked(), $before, 'and is looked up once, not each time');
};

subtest 'an address of IPv6 counts with its whole /64, IPv4 in it as IPv4' => sub {
	have_seconds_left(30);
	# Straight to a worker, as nginx asks it, with addresses that this machine need not have.
	my $ask = sub { return fastcgi_status($areg->socket_path('aregd'), REQUEST_METHOD => 'GET',
		REQUEST_URI => '/api/v1/nowhere', REMOTE_ADDR => $_[0]) };
	is_deeply([map { $ask->(sprintf '2001:db8:5:6:%x::%x', $_, 17 * $_) } 1 .. 9], [(404) x 7, 429, 429],
		'nine addresses of one /64');
	is($ask->('2001:db8:5:7::1'), 404, 'the next /64 counts apart');
	is_deeply([map { $ask->($_ % 2 ? '198.51.100.9' : '::ffff:198.51.100.9') } 1 .. 8], [(404) x 7, 429],
		'an IPv4 address in both of its forms');
	is($ask->('::ffff:198.51.100.10'), 404, 'another one counts apart');
};

subtest 'keys of many users sign in no more often from one address' => sub {
	my $address = new_address();
	my @users = map { $areg->make_user } 1 .. 4;
	my %count;

	have_seconds_left(30);
	for my $user (@users) {
		$count{ call('sign_in', { %$user, from => $address })->{status} }++ for 1 .. 4;
	}
	is_deeply(\%count, { 400 => 4, 429 => 12 }, 'their tier lets four through, together');
};

subtest 'health, liveness and metrics have no limit' => sub {
	my $address = '127.0.0.1'; # others may not see metrics
	my %seen;

	call('read', $address) for 1 .. 10;
	is(call('read', $address)->{status}, 429, 'the address has used up its reads');
	for my $path (qw(/health /api/v1/agents/health /livez /metrics)) {
		for (1 .. 20) {
			my $answer = $areg->get($path);
			$seen{ join ' ', $path, $answer->{status}, map { $_ // '-' } limit_headers($answer) }++;
		}
	}
	is_deeply(\%seen, { map { ("$_ 200 - - -" => 20) }
		qw(/health /api/v1/agents/health /livez /metrics) }, 'all answer, without limits');
	is($areg->get('/health')->{json}{limits}, 'shared', 'health: limits are shared');
};

subtest 'many clients at once get exactly the limit, while workers are killed at most that' => sub {
	my ($first, $second) = map { new_caller('enterprise') } 1, 2;

	have_seconds_left(50);
	my $minute = int now() / 60;
	my ($count) = storm('read', $first, 80, [$areg]);
	is_deeply($count, { 404 => 2000, 429 => 560 }, 'exactly so many pass');
	(my $kills, $count) = storm('read', $second, 80, [$areg], sub {
		my $kills = 0;
		for (1 .. 12) {
			my @workers = $areg->worker_pids;
			$kills += kill KILL => $workers[rand @workers] if @workers;
			sleep 0.04;
		}
		return $kills;
	});
	my ($passed, $lost) = map { $count->{$_} // 0 } 404, 502;
	cmp_ok($kills, '>=', 8, "$kills workers were killed");
	cmp_ok($passed, '<=', 2000, "no more than the limit: $passed");
	# nginx sends a GET whose worker died to another one, where it counts once more.
	cmp_ok($passed + $kills, '>=', 2000, "nothing is lost but what was being answered: $passed passed");
	cmp_ok($lost, '<=', $kills, 'and each killed worker answered one at most');
	delete @$count{404, 429, 502};
	is_deeply($count, {}, 'no other answer');
	is(int now() / 60, $minute, 'all of that within one minute');
	ok(wait_until(15, sub { $areg->worker_pids == WORKERS }), 'all workers are back');
};

my $other = Areg::Test->start(beside => $areg, workers => 4, set => \%set);
$other->turn_limit_clock($ahead);
push @hosts, $other;

subtest 'two hosts together let through the limit and no more' => sub {
	for (['read', 'enterprise', 2000, 100], ['read', 'pro', 200, 20], ['search', 'pro', 30, 3],
		['search', 'enterprise', 300, 20]) {
		my ($class, $tier, $limit, $calls_each) = @$_;
		my $caller = new_caller($tier);
		have_seconds_left(50);
		my $minute = int now() / 60;
		my @counts = storm($class, $caller, $calls_each, [$areg, $other]);
		my $passed = 0;

		$passed += $_->{404} // $_->{200} // 0 for @counts;
		cmp_ok($passed, '<=', $limit * 1.05, "$class, $limit: $passed passed");
		cmp_ok($passed, '>=', $limit * 0.9, 'and nearly all of it is to be had');
		cmp_ok($_->{429} // 0, '>', 0, 'each host refused some') for @counts;
		is(int now() / 60, $minute, 'all of that within one minute');
	}
	is(metric($areg, 'areg_limiter_hosts'), 2, 'metrics: two hosts');
};

subtest 'memcached killed: nothing fails, and each host counts by itself' => sub {
	my $user = new_caller('enterprise');

	have_seconds_left(50);
	my $minute = int now() / 60;
	my ($said, @counts) = storm('read', $user, 160, [$areg, $other], sub {
		sleep 0.15;
		return kill KILL => $areg->pid('memcached');
	});

	is($said, 1, 'killed');
	is(join(' ', sort keys %$_), '404 429', 'no other answer') for @counts;
	cmp_ok($_->{404}, '<=', 2000, "a host lets through its limit at most: $_->{404}") for @counts;
	is(int now() / 60, $minute, 'all of that within one minute');
	is(call('read', $user, $_)->{status}, 429, 'and then refuses') for $areg, $other;
	my $health = $areg->get('/health');
	is($health->{status}, 200, 'health: still 200');
	is($health->{json}{status}, 'degraded', 'degraded');
	is($health->{json}{limits}, 'per_host', 'limits are per host');
	is(metric($areg, 'areg_limiter_shared'), 0, 'metrics say so');
	$areg->start_server('memcached');
	ok(wait_until(10, sub { $areg->get('/health')->{json}{limits} eq 'shared'
		&& metric($areg, 'areg_limiter_hosts') == 2 && metric($other, 'areg_limiter_hosts') == 2 }),
		'with memcached back they are shared again');
};

subtest 'the end of a minute does not give the limit twice' => sub {
	my %caller = (30 => new_caller('pro'), 300 => new_caller('enterprise'));
	my ($guesser, $slow) = (new_address(), new_caller('free'));
	my $guess = sub { $areg->get('/api/v1/nowhere', { key => unknown_key(), from => $guesser })->{status} };
	my %passed;

	turn(POSIX::ceil((gone() < 40 ? 40 : 100) - gone()));
	my $minute = int now() / 60;
	is_deeply([map { $guess->() } 1 .. 8], [(401) x 7, 429], 'wrong keys, as many as reads');
	is_deeply([map { call('feedback', $slow)->{status} } 1 .. 4], [(400) x 3, 429], 'three of feedback');
	for my $limit (30, 300) {
		$passed{$limit} = grep { call('search', $caller{$limit})->{status} == 200 } 1 .. $limit;
		is($passed{$limit}, $limit, "$limit at its end");
	}
	is(int now() / 60, $minute, 'all within the minute');
	turn(POSIX::ceil(60 - gone()));
	my $before = asked();
	my ($began, $answer) = (now(), call('feedback', $slow));
	problem_ok($answer, 429, 'rate_limit_exceeded');
	my $wait = $answer->{headers}{'retry-after'};
	cmp_ok($wait, '<=', 21, 'Retry-After: a third of a minute, counted in seconds');
	is_deeply([map { $guess->() } 1 .. 20], [(429) x 20], 'wrong keys in the next minute: none fits');
	is(asked(), $before, 'and none is looked up');
	turn(POSIX::ceil($began + $wait - now())) if $began + $wait > now();
	is(call('feedback', $slow)->{status}, 400, 'after it one passes');
	for my $limit (30, 300) {
		my $more = grep { call('search', $caller{$limit})->{status} == 200 } 1 .. $limit;
		my $elapsed = now() - 60 * ($minute + 1);

		cmp_ok($more, '<=', $limit * $elapsed / 60, "of $limit: $more after $elapsed s");
	}
};

done_testing;
