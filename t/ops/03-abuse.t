# SPDX-License-Identifier: Apache-2.0
# One client that wants everything: slow bodies, floods of health checks. Others go on.
use strict;
use warnings;

use File::Basename qw(dirname);
use IO::Socket::INET;
use IO::Socket::UNIX;
use Test::More;
use Time::HiRes qw(sleep time);

use lib dirname(__FILE__) . '/../lib';
use Areg::Test qw(problem_ok wait_until);

use constant { CONNECTIONS => 200, OF_ONE => 20, OF_NETWORK => 40, SLOW => 300 };

my $areg = Areg::Test->start(workers => 2);
my ($port) = $areg->url =~ /(\d+)$/;
my $user = $areg->make_user;

# ---- the private nginx, as a small one; and believing addresses that are told to it ----

$areg->reload_nginx(
	'private.conf' => sub { s/worker_connections \d+;/worker_connections @{[CONNECTIONS]};/ },
	'private.conf' => sub { s/worker_processes\s+\d+;/worker_processes 1;/ },
	'app.conf' => sub { s/(limit_conn\s+areg_connections) \d+;/$1 @{[OF_ONE]};/ },
	'app.conf' => sub { s/(limit_conn\s+areg_networks\s+)\d+;/$1@{[OF_NETWORK]};/ },
	'app.conf' => sub { $_ .= "set_real_ip_from 127.0.0.77;\nreal_ip_header X-Forwarded-For;\n" });

sub from
{
	my ($address) = @_;
	return IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port, LocalAddr => $address, Timeout => 2);
}

# The status that a GET of an address gets, 0 for none within two seconds.
sub status
{
	my ($path, $address, $more) = @_;
	my $socket = from($address) or return 0;

	return $areg->raw("GET $path HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" . ($more // '') . "\r\n",
		socket => $socket, seconds => 2)->{status} || 0;
}

# A request of this client whose body never comes to its end; the answer that came so far.
sub slow
{
	my ($address, $more) = @_;
	my $socket = from($address) or return;

	print $socket "POST /api/v1/auth/challenge HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
		. "Content-Length: 1000\r\n" . ($more // '') . "\r\n{";
	$socket->flush;
	$socket->blocking(0);
	return { socket => $socket, said => '', is_open => 1 };
}

# Sends one more byte over each, as slow senders do.
sub go_on
{
	for my $client (grep { $_->{is_open} } @_) {
		my $got = sysread $client->{socket}, $client->{said}, 65536, length $client->{said};

		$client->{is_open} = 0 if defined $got ? $got == 0 : !$!{EAGAIN};
		syswrite $client->{socket}, ' ' if $client->{is_open};
	}
}

sub are_refused { return scalar grep { $_->{said} =~ m{^HTTP/1.1 429 .*application/problem\+json.*"rate_limit_exceeded"}s } @_ }
sub are_open { return scalar grep { $_->{is_open} && $_->{said} eq '' } @_ }

subtest 'slow bodies of one client do not keep others out' => sub {
	my @slow;
	my $until = time + 60;

	while (@slow < SLOW && time < $until) {
		my $client = slow('127.0.0.9');
		$client ? push @slow, $client : sleep 0.05;
		go_on(@slow) if @slow % 50 == 0;
	}
	ok(wait_until(40, sub { go_on(@slow); status('/api/v1/chains', '127.0.0.8') == 200 }),
		'another client is answered while they go on');
	wait_until(20, sub { go_on(@slow); sleep 0.2; are_open(@slow) <= OF_ONE && !grep { $_->{is_open} && $_->{said} ne '' } @slow });
	is(are_open(@slow), OF_ONE, 'so many requests of one client are waited for');
	cmp_ok(are_refused(@slow), '>', 0, 'the others were told why they are not');
	is(status('/api/v1/chains', '127.0.0.9'), 429, 'that client has no more');
	is(status('/livez', '127.0.0.9'), 200, 'but liveness');
	is(status('/api/v1/chains', '127.0.0.8'), 200, 'others have');
	close $_->{socket} for @slow;
	ok(wait_until(10, sub { status('/api/v1/chains', '127.0.0.9') == 200 }), 'once they are gone it goes on');
};

subtest 'a slow body is waited for for seconds only' => sub {
	my $client = slow('127.0.0.9');
	my $next = time + 7;

	# One byte every 7 s keeps a time-out of 15 s from ever running out.
	my $is_over = wait_until(40, sub {
		go_on($client), $next += 7 if time >= $next;
		# nginx resets the connection, or says 408 and ends it.
		my $got = sysread $client->{socket}, $client->{said}, 65536, length $client->{said};
		return defined $got ? $got == 0 : !$!{EAGAIN};
	});
	ok($is_over, 'one byte every 7 s, and it is over');
};

subtest 'clients of one /64 are one client' => sub {
	my @slow = map { slow('127.0.0.77', sprintf "X-Forwarded-For: 2001:db8:1:2:%x::%x\r\n", $_, $_) } 1 .. OF_ONE;
	my $ask = sub { return status('/api/v1/chains', '127.0.0.77', "X-Forwarded-For: $_[0]\r\n") };

	ok(wait_until(10, sub { $ask->('2001:db8:1:2:ffff::1') == 429 }), 'the whole /64 has no more');
	is($ask->('2001:db8:1:3::1'), 200, 'the next one has');
	is($ask->('192.0.2.1'), 200, 'and so has one of IPv4');
	close $_->{socket} for @slow;
	@slow = map { slow('127.0.0.77', "X-Forwarded-For: ::ffff:192.0.2.1\r\n") } 1 .. OF_ONE;
	ok(wait_until(10, sub { $ask->('::ffff:192.0.2.1') == 429 }), 'IPv4 within IPv6');
	is($ask->('192.0.2.1'), 429, 'is the same client as without');
	is($ask->('::ffff:192.0.2.2'), 200, 'and another one is not');
	close $_->{socket} for @slow;
};

subtest 'clients of one /48 have a limit together, those of IPv4 have none' => sub {
	my $from = sub { return slow('127.0.0.77', "X-Forwarded-For: $_[0]\r\n") };
	my $ask = sub { return status('/api/v1/chains', '127.0.0.77', "X-Forwarded-For: $_[0]\r\n") };
	my @slow = map { $from->(sprintf '2001:db8:4:%x::1', $_) } 1 .. OF_NETWORK;

	ok(wait_until(10, sub { $ask->('2001:db8:4:ffff::1') == 429 }), 'the whole /48 has no more');
	is($ask->('2001:db8:5:1::1'), 200, 'the next one has');
	push @slow, map { ($from->("192.0.2.$_"), $from->("::ffff:198.51.100.$_")) } 1 .. OF_NETWORK;
	is($ask->('192.0.2.200'), 200, 'and so has another one of IPv4');
	is($ask->('::ffff:198.51.100.200'), 200, 'also within IPv6');
	close $_->{socket} for @slow;
	ok(wait_until(10, sub { $ask->('2001:db8:4:ffff::1') == 200 }), 'once they are gone it goes on');
};

subtest 'a long request is a short line in the logs' => sub {
	my $id = 'long-request';
	my %line;

	is(status('/api/v1/' . 'a' x 15_000, '127.0.0.8',
		"X-Request-ID: $id\r\nUser-Agent: " . 'b' x 8_000 . "\r\n"), 414, 'it is refused');
	for my $log ('nginx-access', 'areg') {
		($line{$log}) = wait_until(10, sub { my ($found) = $areg->log_text($log) =~ /^(.*"$id".*)$/m; return $found });
		ok($line{$log}, "$log tells of it");
		cmp_ok(length $line{$log}, '<', 2048, 'in short');
		like($line{$log}, qr{"/api/v1/a{1016}"}, 'with the beginning of its address');
	}
	like($line{'nginx-access'}, qr/"b{256}"/, 'and of its user agent');
	status('/api/v1/chains', '127.0.0.8', "X-Request-ID: short-request\r\nUser-Agent: a \"short\" one\r\n");
	like(wait_until(10, sub { my ($found) = $areg->log_text('nginx-access') =~ /^(.*"short-request".*)$/m; return $found }),
		qr{"method":"GET","uri":"/api/v1/chains",.*"user_agent":"a \\"short\\" one"}, 'a short one is there whole');
	$areg->raw(('A' x 8_000) . " /method HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Request-ID: long-method\r\n\r\n",
		socket => from('127.0.0.8'), seconds => 2);
	like(wait_until(10, sub { my ($found) = $areg->log_text('nginx-access') =~ /^(.*"\/method".*)$/m; return $found }),
		qr/"method":"A{32}"/, 'and of a long method the beginning');
};

# ---- operators' routes ----

my $requests = sub {
	my ($sum) = (0);
	$sum += $_ for $areg->aregctl('--json', 'status')->{stdout} =~ /"requests":(\d+)/g;
	return $sum;
};

subtest "operators' routes never reach a worker, however they are written" => sub {
	my $before = $requests->();
	my $path;

	is(status($_, '127.0.0.1'), 200, $_) for '/health', '/health/', '/%68ealth', '/api/v1/agents/health',
		 '/api/v1/agents/health/', '/api/v1/agents/%68ealth', '/metrics', '/metrics/';
	# The process that they reach reads the address as it was sent.
	is(status($_, '127.0.0.1'), 404, $_) for '//health', '/x/../health', '/api/v1//agents/health';
	for $path ('/metrics', '/metrics/', '//metrics', '/%6detrics', '/metrics/x') {
		is(status($path, '127.0.0.8'), 403, "$path of another address");
	}
	is($requests->(), $before, 'no worker was asked');
	# And where something in front passes them on all the same.
	is(fastcgi_status($_), 404, "a worker knows no $_")
		for '/health', '/health/', '/metrics', '/metrics/', '/api/v1/agents/health', '/api/v1/agents/health/',
			'/api/v1/agents/%68ealth';
};

sub fastcgi_status
{
	my ($uri) = @_;
	my %params = (REQUEST_METHOD => 'GET', REQUEST_URI => $uri, REMOTE_ADDR => '127.0.0.6');
	my $record = sub { my ($type, $content) = @_; return pack('CCnnCC', 1, $type, 1, length $content, 0, 0) . $content };
	my $pairs = join '', map { pack('CC', length, length $params{$_}) . $_ . $params{$_} } sort keys %params;
	my $socket = IO::Socket::UNIX->new(Peer => $areg->socket_path('aregd')) or die "aregd: $!\n";

	syswrite $socket, $record->(1, pack 'nCx5', 1, 0) . $record->(4, $pairs) . $record->(4, '') . $record->(5, '');
	my $said = do { local $/; <$socket> };
	return $said =~ /Status: (\d+)/ ? $1 : 0;
}

subtest 'asked for health often, areg asks the database once or twice a second' => sub {
	my $looks = sub { return $areg->psql_value("SELECT coalesce(seq_scan, 0) + coalesce(idx_scan, 0)"
		. " FROM pg_stat_all_tables WHERE relname = 'erc8004_agent_counts'") };
	my ($before, $began) = ($looks->(), time);
	my $socket = from('127.0.0.3');
	my %count;

	$count{ $areg->raw("GET /health HTTP/1.1\r\nHost: a\r\n\r\n", socket => $socket)->{status} }++ for 1 .. 90;
	is_deeply(\%count, { 200 => 90 }, '90 are answered');
	ok(wait_until(10, sub { $looks->() > $before }), 'PostgreSQL counts');
	sleep 2; # a backend tells what it did once a second
	cmp_ok($looks->() - $before, '<=', 5 + 2 * (time - $began), 'it was asked far less often');
};

subtest 'a flood of health checks is limited, by client' => sub {
	my $socket = from('127.0.0.5');
	my %count;

	my $began = time;
	for (1 .. 400) {
		$count{ $areg->raw("GET /health/ HTTP/1.1\r\nHost: a\r\n\r\n", socket => $socket)->{status} }++;
	}
	cmp_ok($count{200}, '>=', 100, 'so many pass at once');
	# On a machine that takes long to ask 400 times all of them may pass.
	cmp_ok($count{200}, '<=', 102 + 50 * (time - $began), 'then 50 a second');
	is(status('/health', '127.0.0.4'), 200, 'others are answered');
};

done_testing();
