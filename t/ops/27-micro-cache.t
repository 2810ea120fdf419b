# SPDX-License-Identifier: Apache-2.0
# The optional micro-cache of nginx: what anonymous readers are told, and who is not concerned.
use strict;
use warnings;

use File::Basename qw(dirname);
use IO::Socket::INET;
use POSIX ();
use Test::More;
use Time::HiRes qw(sleep time);

use lib dirname(__FILE__) . '/../lib';
use Areg::Test qw(build_dir from_json in_parallel problem_ok wait_until);

use constant { AGENTS => '/api/v1/agents', SEARCHES => 60, READS => 120, PROXY => '127.0.5.1' };

my $areg = Areg::Test->start(workers => 2, limits => 'default');
my $user = $areg->make_user(tier => 'enterprise');

sub file
{
	my ($name) = @_;
	return { name => $name, description => 'read by many' };
}

sub register
{
	my ($name) = @_;
	return $areg->post(AGENTS . '/register', { owner_address => $user->{wallet}, chain => 'base',
		registration_file => file($name) }, { key => $user->{key} })->{json}{agent_uuid};
}

sub turn_on
{
	$areg->reload_nginx('http.conf' => sub { s/^#(include .*micro-cache\.conf)/$1/m },
		'app.conf' => sub { $_ .= "set_real_ip_from @{[PROXY]};\nreal_ip_header X-Forwarded-For;\n" });
	my $verdict = `PATH=\$PATH:/usr/sbin nginx -t -p '@{[$areg->dir]}/nginx' -c '@{[$areg->dir]}/nginx/private.conf' -e stderr 2>&1`;
	like($verdict, qr/test is successful/, 'nginx takes the configuration') or diag($verdict);
	unlike($verdict, qr/\[warn\]/, 'and has nothing to say about it');
}

# A GET without a key, of an address of its own unless told; over that socket, if given.
my $callers = 0;
sub anonymous
{
	my ($path, %option) = @_;
	my $socket = $option{socket} || from('127.0.1.' . ++$callers);
	my $headers = join '', map { "$_: $option{headers}{$_}\r\n" } sort keys %{ $option{headers} || {} };
	return $areg->raw("GET $path HTTP/1.1\r\nHost: a\r\n$headers\r\n", socket => $socket, seconds => 40);
}

sub from
{
	my ($address) = @_;
	my ($port) = $areg->url =~ /(\d+)$/;
	return IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port, LocalAddr => $address)
		|| die "connect: $!\n";
}

sub with_key { return $areg->get($_[0], { key => $user->{key} }) }
sub cache { return $_[0]{headers}{'x-cache'} // 'none' }

my $agent = AGENTS . '/' . register('before');
my $plain = anonymous($agent);
is(cache($plain), 'none', 'without the include nothing is kept');
is($plain->{headers}{'x-ratelimit-limit'}, READS, 'and limits are told');
turn_on();

# ---- what is kept ----

my ($first, $hit);
wait_until(10, sub {
	($first, $hit) = map { anonymous($agent, headers => { 'X-Request-ID' => "reader-$_" }) } 1, 2;
	return cache($hit) eq 'HIT';
});
is(cache($hit), 'HIT', 'the second reader is answered by nginx');
is($hit->{body}, $first->{body}, 'the same');
is($hit->{headers}{etag}, $plain->{headers}{etag}, 'with the ETag that areg gave');
is_deeply([map { $_->{headers}{'x-request-id'} } $first, $hit], ['reader-1', 'reader-2'],
	'each has a request id of their own');
is_deeply([grep { /^x-(?:ratelimit|accel)/ } map { keys %{ $_->{headers} } } $first, $hit], [],
	'neither is told what another has left');
is(anonymous($agent, headers => { Connection => 'close', 'If-None-Match' => $plain->{headers}{etag} })
	->{status}, 304,
	'who knows the answer is told so');
is(cache(anonymous($agent, headers => { Cookie => 'a=b' })), 'HIT', 'a cookie changes nothing');
for my $case (['Cache-Control: no-cache', 'Cache-Control' => 'no-cache'],
	['a key', Authorization => "Bearer $user->{key}"], ['a key of the other form', 'X-API-Key' => $user->{key}]) {
	my ($name, %headers) = @$case;
	my $answer = anonymous($agent, headers => \%headers);
	is_deeply([$answer->{status}, cache($answer)], [200, 'none'], "with $name it is asked of areg");
	ok($answer->{headers}{'x-ratelimit-limit'}, 'which says what is left');
}
problem_ok(anonymous($agent, headers => { Authorization => 'Bearer wrong' }), 401, 'unauthorized');

my $nobody = AGENTS . '/base:999999';
my @missing = map { anonymous($nobody) } 1 .. 3;
problem_ok($missing[2], 404, 'agent_not_found');
ok(!(grep { cache($_) eq 'HIT' } @missing), 'what is missing is looked for each time');
my @me = map { anonymous('/api/v1/me') } 1 .. 2;
problem_ok($me[1], 401, 'unauthorized');
isnt(cache($me[1]), 'HIT', 'nor is it kept that something needs a key');
is(cache(anonymous('/health')), 'none', 'health is always asked');

# ---- how old ----

anonymous($agent);
$areg->api(PATCH => $agent, { registration_file => file('after') }, { key => $user->{key} });
is(with_key($agent)->{json}{registration_file}{name}, 'after', 'who has a key sees a change at once');
ok(wait_until(10, sub { anonymous($agent)->{json}{registration_file}{name} eq 'after' }), 'others soon after');

my $list = AGENTS . '?limit=7';
anonymous($list);
register('one more');
open my $lock, '|-', 'psql', '-qAtX', '-o', '/dev/null', '-h', $areg->socket_path('pg'), '-U', 'areg_owner',
	'-d', 'areg' or die "psql: $!\n";
$lock->autoflush(1);
print $lock "BEGIN; LOCK TABLE erc8004_agents IN ACCESS EXCLUSIVE MODE;\n";
wait_until(5, sub { $areg->psql_value("SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock'
	AND granted AND relation = 'erc8004_agents'::regclass") }) or die "no lock\n";
sleep 2.5;
my $released = $areg->dir . '/released';
my ($renewer, $other) = in_parallel(2, sub {
	my ($which) = @_;
	if ($which == 0) {
		my $answer = anonymous($list, socket => from('127.0.2.1'));
		return { total => $answer->{json}{total}, waited => -e $released ? 1 : 0 };
	}
	wait_until(10, sub { $areg->psql_value('SELECT count(*) FROM pg_locks WHERE NOT granted') });
	my $answer = anonymous($list, socket => from('127.0.2.2'));
	open my $out, '>', $released;
	print $lock "COMMIT;\n";
	return { total => $answer->{json}{total}, cache => cache($answer) };
});
close $lock;
is_deeply($renewer, { total => 2, waited => 1 }, 'of an answer that is too old one reader waits for the next');
is_deeply($other, { total => 1, cache => 'UPDATING' }, 'the others are told the old one meanwhile');

# ---- limits ----

# How many of so many requests of one address pass. The last that does not is kept.
my $refused;
sub passed
{
	my ($address, $path, $count) = @_;
	my $socket = from($address);
	my %status;
	for (1 .. $count) {
		my $answer = anonymous($path, socket => $socket);
		$status{ $answer->{status} }++;
		$refused = $answer if $answer->{status} == 429;
	}
	return \%status;
}

for my $case ([AGENTS . '?limit=7', SEARCHES, 'searches'], [$agent, READS, 'reads']) {
	my ($path, $limit, $name) = @$case;
	my $status = passed("127.0.3.$limit", $path, $limit + 80);
	cmp_ok($status->{200}, '>=', $limit, "$limit $name of one address pass");
	cmp_ok($status->{429} // 0, '>', 0, 'then no more');
	problem_ok($refused, 429, 'rate_limit_exceeded');
	ok($refused->{headers}{'retry-after'}, 'and when to come again');
	is(anonymous($path)->{status}, 200, 'other addresses go on');
	is(anonymous($path, socket => from("127.0.3.$limit"), headers => { 'X-API-Key' => $user->{key} })->{status},
		200, 'and so does who has a key at that address');
}

# Whatever is written differently, it is the same client with the same limit.
sub passes
{
	my ($address, $path, $headers) = @_;
	return anonymous($path, socket => from($address), headers => $headers)->{status} != 429;
}
for my $case ([$list, SEARCHES, '/api/v1/agent%73?limit=7', '/api/v1/agents/?limit=8', '//api/v1/agents'],
	[$agent, READS, $agent =~ s/agents/agent%73/r, "$agent/"]) {
	my ($path, $limit, @others) = @$case;
	my $address = "127.0.4.$limit";
	my $socket = from($address);

	is((grep { anonymous($path, socket => $socket)->{status} == 429 } 1 .. $limit + 60) > 0, 1, "the limit of $path is used up");
	my %passed = (path => [], headers => []);
	for (1 .. 12) {
		push @{ $passed{path} }, grep { passes($address, $_) } @others;
		push @{ $passed{headers} }, grep { passes($address, $path, { $_ => 'x' }) } qw(Cookie Cache-Control Pragma);
	}
	# A few fit again meanwhile: one a second of searches, two of reads.
	cmp_ok(@{ $passed{path} }, '<', 12, 'no other way to write it gives another limit');
	cmp_ok(@{ $passed{headers} }, '<', 18, 'nor does a header');
	ok((grep { $areg->raw("HEAD $path HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", socket => from($address))->{status} == 429 } 1 .. 10),
		'nor does HEAD');
}

# A subscriber of IPv6 has a whole /64, and each address of it is the same client.
for my $case ([$list, SEARCHES], [$agent, READS]) {
	my ($path, $limit) = @$case;
	my $socket = from(PROXY);
	my $ask = sub { return anonymous($path, socket => $socket, headers => { 'X-Forwarded-For' => $_[0] })->{status} };

	cmp_ok((grep { $ask->(sprintf '2001:db8:5:6:%x::1', $_) == 429 } 1 .. $limit + 60), '>', 0,
		"the addresses of one /64 share the limit of $path");
	is($ask->('2001:db8:5:7::1'), 200, 'the next /64 has a limit of its own');
}

# Which reads are searches is said once, in the table of calls.
my $described = from_json(scalar `@{[build_dir()]}/aregd -j`);
my ($routes, $rules) = map { open my $in, '<', $areg->dir . "/nginx/$_" or die "$_: $!\n"; join '', <$in> }
	qw(micro-cache-routes.conf micro-cache.conf);
my @patterns = $routes =~ /^\s+"~\^1:(\S+)"\s+\$areg_client;$/mg;
for my $route (grep { $_->{method} eq 'GET' && $_->{access} eq 'anyone' } @{ $described->{routes} }) {
	my $path = $route->{template} =~ s/\{\w+\}/base:7/gr;
	is((grep { $path =~ /^$_/ } @patterns) > 0 ? 'search' : 'read', $route->{rate}, "$route->{template} counts as areg counts it");
}
my %rate = $rules =~ /zone=areg_(\w+):\S+ rate=(\d+)r\/m/g;
my %burst = $rules =~ /zone=areg_(\w+) burst=(\d+)/g;
is_deeply([@rate{qw(searches reads)}], [map { $described->{rates}{$_}{anonymous} } qw(search read)],
	'the limits are those of areg by default');
is_deeply([map { $_ + 1 } @burst{qw(searches reads)}], [@rate{qw(searches reads)}], 'a minute of which may come at once');

# ---- areg goes away ----

anonymous($agent);
$areg->stop_server('aregd');
sleep 2.5;
my $stale = anonymous($agent);
is_deeply([$stale->{status}, cache($stale)], [200, 'STALE'], 'while areg is away the last answer is told');
problem_ok(anonymous($agent, headers => { 'X-API-Key' => $user->{key} }), 502, 'unavailable');

done_testing();
