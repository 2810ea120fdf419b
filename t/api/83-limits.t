#!/usr/bin/perl
# Rate limits: exactly so many a minute, whoever asks however many at once, on one host or on two.
use strict;
use warnings;

use Compress::Zlib qw(crc32);
use FindBin;
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

my $areg = Areg::Test->start(workers => WORKERS, limits => 'default');

# Makes one call of a class, as a user or, without one, from an address. Users have an address that
# nobody asks from without a key: where that has been done too often, new keys are not looked up.
sub call
{
	my ($class, $from, $host) = @_;
	my ($method, $path, $body) = @{ $calls{$class} };
	return ($host || $areg)->api($method, $path, $body,
		ref $from ? { key => $from->{key}, from => '127.0.0.2' } : { from => $from });
}

# An address that nobody has asked from yet.
my $addresses = 0;
sub new_address { return sprintf '127.0.7.%d', ++$addresses }
sub new_caller { my ($tier) = @_; return $tier eq 'anonymous' ? new_address() : $areg->make_user(tier => $tier) }

# Waits, if need be, until the minute has so many seconds left.
sub have_seconds_left { my ($seconds) = @_; my $gone = time - 60 * int time() / 60; sleep 60.1 - $gone if $gone > 60 - $seconds }

sub limit_headers { return map { $_[0]{headers}{"x-ratelimit-$_"} } qw(limit remaining reset) }

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

	have_seconds_left(15);
	my $reset = 60 * (1 + int time() / 60);
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
			cmp_ok(time + $wait, '>=', $reset, 'not before the next minute');
			cmp_ok(time + $wait, '<=', $reset + 60 / $limit + 2, 'nor much later than it must');
			$refused++;
		}
	}
	cmp_ok(time, '<', $reset, 'all of that within one minute');
	is(metric($areg, 'areg_limiter_refusals_total') - $refused_before, $refused,
		'metrics count what was refused');
};

subtest 'callers are counted apart, and what does not exist is counted like reads' => sub {
	my ($one, $another, $user) = (new_address(), new_address(), new_caller('free'));
	my $second = $areg->aregctl(qw(key create --quiet --user), $user->{id})->{stdout};
	my @like_reads = (['GET', '/api/v1/nowhere'], ['GET', '/'], ['DELETE', '/api/v1/agents'],
		['OPTIONS', '/api/v1/agents'], ['POST', '/api/v1/agents/register', {}],
		['GET', '/api/v1/agents/base:999'], ['GET', '/api/v1/me']);

	chomp $second;
	have_seconds_left(10);
	is_deeply([map { (limit_headers($areg->api(@$_[0 .. 2], { from => $one })))[1] } @like_reads],
		[reverse 0 .. 6], 'each is one less');
	is(call('read', $one)->{status}, 429, 'then there is none left');
	is($areg->api(OPTIONS => '/api/v1/agents', undef, { from => $one })->{status}, 429,
		'nor for a preflight');
	is(call('search', $one)->{status}, 200, 'but for searches, which are counted apart');
	is(call('read', $another)->{status}, 404, 'another address is not concerned');
	is($areg->get('/api/v1/nowhere', { from => $one, key => $user->{key} })->{status}, 404,
		'nor is a key used there, though nobody has seen it before');
	call('read', $user) for 1 .. 8;
	is(call('read', $user)->{status}, 429, 'a key that has used up its own');
	is(call('read', { key => $second })->{status}, 404, 'leaves the other key of its user alone');
	is($areg->get('/api/v1/nowhere', { from => $one, key => $second })->{status}, 404,
		'and a key that is known counts for itself, wherever it is used');
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

	have_seconds_left(30);
	my $minute = int time() / 60;
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
	is(int time() / 60, $minute, 'all of that within one minute');
	ok(wait_until(15, sub { $areg->worker_pids == WORKERS }), 'all workers are back');
};

my $other = Areg::Test->start(beside => $areg, workers => 4, set => \%set);

subtest 'two hosts together let through the limit and no more' => sub {
	have_seconds_left(30);
	my $minute = int time() / 60;

	for (['read', 'enterprise', 2000, 100], ['read', 'pro', 200, 20], ['search', 'pro', 30, 3],
		['search', 'enterprise', 300, 20]) {
		my ($class, $tier, $limit, $calls_each) = @$_;
		my @counts = storm($class, new_caller($tier), $calls_each, [$areg, $other]);
		my $passed = 0;

		$passed += $_->{404} // $_->{200} // 0 for @counts;
		cmp_ok($passed, '<=', $limit * 1.05, "$class, $limit: $passed passed");
		cmp_ok($passed, '>=', $limit * 0.9, 'and nearly all of it is to be had');
		cmp_ok($_->{429} // 0, '>', 0, 'each host refused some') for @counts;
	}
	is(int time() / 60, $minute, 'all of that within one minute');
	is(metric($areg, 'areg_limiter_hosts'), 2, 'metrics: two hosts');
};

subtest 'memcached killed: nothing fails, and each host counts by itself' => sub {
	my $user = new_caller('enterprise');

	have_seconds_left(30);
	my $minute = int time() / 60;
	my ($said, @counts) = storm('read', $user, 160, [$areg, $other], sub {
		sleep 0.15;
		return kill KILL => $areg->pid('memcached');
	});

	is($said, 1, 'killed');
	is(join(' ', sort keys %$_), '404 429', 'no other answer') for @counts;
	cmp_ok($_->{404}, '<=', 2000, "a host lets through its limit at most: $_->{404}") for @counts;
	is(int time() / 60, $minute, 'all of that within one minute');
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

# Last, for it waits for the end of a minute.
subtest 'the end of a minute does not give the limit twice' => sub {
	my %caller = (30 => new_caller('pro'), 300 => new_caller('enterprise'));
	my $guesser = new_address();
	my $guess = sub { $areg->get('/api/v1/nowhere', { key => unknown_key(), from => $guesser })->{status} };
	my $asked = sub {
		my ($sum) = $areg->psql("SELECT string_agg(pid || ' ' || query_start, ' ' ORDER BY pid)"
			. " FROM pg_stat_activity WHERE application_name = 'areg'");
		return $sum->[0];
	};
	my $gone = time - 60 * int time() / 60;
	my %passed;

	sleep $gone < 56 ? 56 - $gone : 116 - $gone;
	my $minute = int time() / 60;
	is_deeply([map { $guess->() } 1 .. 8], [(401) x 7, 429], 'wrong keys, as many as reads');
	for my $limit (30, 300) {
		$passed{$limit} = grep { call('search', $caller{$limit})->{status} == 200 } 1 .. $limit;
		is($passed{$limit}, $limit, "$limit at its end");
	}
	is(int time() / 60, $minute, 'all within the minute');
	my $before = $asked->();
	wait_until(10, sub { time >= 60 * ($minute + 1) + 0.1 });
	my ($began, $answer) = (time, call('search', $caller{30}));
	problem_ok($answer, 429, 'rate_limit_exceeded');
	my $wait = $answer->{headers}{'retry-after'};
	cmp_ok($wait, '<=', 3, 'Retry-After: a 30th of a minute, counted in seconds');
	is_deeply([map { $guess->() } 1 .. 50], [(429) x 50], 'wrong keys in the next minute: none fits');
	is($asked->(), $before, 'and none is looked up');
	my $left = $began + $wait - time;
	sleep $left if $left > 0;
	is(call('search', $caller{30})->{status}, 200, 'after it one passes');
	for my $limit (30, 300) {
		my $more = grep { call('search', $caller{$limit})->{status} == 200 } 1 .. $limit;
		my $elapsed = time - 60 * ($minute + 1);

		cmp_ok($more, '<=', $limit * $elapsed / 60, "of $limit: $more after $elapsed s");
	}
};

done_testing;
