# SPDX-License-Identifier: Apache-2.0
# nginx in front of areg, with areg away: what it answers itself, and how.
use strict;
use warnings;

use File::Basename qw(dirname);
use File::Temp qw(tempdir);
use HTTP::Tiny;
use IO::Socket::INET;
use JSON::PP qw(decode_json);
use POSIX ();
use Test::More;

use lib dirname(__FILE__) . '/../lib';
use Areg::Test qw(root build_dir problem_ok skip_without wait_until);

my $areg = Areg::Test->start(without => [qw(postgres memcached aregd migrate)]);

is($areg->get('/livez')->{json}{status}, 'alive', 'liveness is answered while areg is away');
problem_ok($areg->get('/api/v1/agents'), 502, 'unavailable');
is($areg->get('/api/v1/agents')->{headers}{'retry-after'}, 1, 'with Retry-After');
problem_ok($areg->post('/api/v1/agents/register', {}), 502, 'outcome_unknown');
problem_ok($areg->post('/api/v1/agents/register', 'x' x (2 * 1024 * 1024)), 413,
	'payload_too_large');
is($areg->post('/api/v1/agents/register', 'x' x (1024 * 1024 + 1))->{status}, 502,
	'a body a little over 1 MiB is left to areg');
problem_ok($areg->get('/docs/no-such-page.html'), 404, 'not_found');
problem_ok($areg->get('/' . 'a' x 20000), 414, 'uri_too_long');
problem_ok($areg->get('/', { 'X-Long' => 'a' x 20000 }), 400, 'bad_request');
problem_ok($areg->raw("GET / HTTP/1.1\r\n\r\n"), 400, 'bad_request');
problem_ok($areg->raw("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\nConnection: close\r\n\r\n"),
	400, 'bad_request');

is($areg->get('/x', { 'X-Request-ID' => 'mine-1' })->{json}{request_id}, 'mine-1',
	'the caller\'s request id comes back');
unlike($areg->get('/x', { 'X-Request-ID' => 'a"b' })->{json}{request_id}, qr/"/,
	'but not one that is not sane');

my $headers = $areg->get('/livez')->{headers};
is($headers->{'x-content-type-options'}, 'nosniff', 'types are not guessed');
is($headers->{server}, 'nginx', 'the version of nginx is not told');
is($headers->{'strict-transport-security'}, undef, 'a private stack does not pin TLS');

ok(wait_until(5, sub { ($areg->log_text('nginx-access') // '') =~ /no-such-page/ }), 'there is a log');
my @lines = map { decode_json($_) } grep { /\S/ } split /\n/, $areg->log_text('nginx-access');
my ($line) = grep { $_->{request_id} eq 'mine-1' } @lines;
is($line->{status}, 502, 'each line of it is JSON, with the request id and the status');
ok(!grep({ $_->{uri} eq '/livez' } @lines), 'liveness is not logged');

SKIP: {
	skip_without 'openssl is not installed', 4 if system('openssl version >/dev/null 2>&1');
	my ($port) = $areg->tls_url =~ /(\d+)$/;
	my $handshake = sub {
		return scalar `openssl s_client -connect 127.0.0.1:$port @_ </dev/null 2>&1`;
	};
	like($handshake->('-tls1_3'), qr/TLSv1\.3, Cipher is TLS_/, 'TLS 1.3 is spoken');
	like($handshake->('-tls1_2'), qr/TLSv1\.2, Cipher is ECDHE-/, 'and 1.2, with forward secrecy');
	unlike($handshake->('-tls1_1 -cipher ALL:@SECLEVEL=0'), qr/Cipher is [A-Z]{3}/, 'but not 1.1');
	like($handshake->('-alpn h2'), qr/ALPN protocol: h2/, 'HTTP/2 is offered');
}

# The files as they are installed, filled in for a folder of ours, in an nginx that
# serves another host and says for all of them what a distribution does.
my $dir = tempdir(CLEANUP => 1);
my ($major, $minor, $patch) = `PATH=\$PATH:/usr/sbin nginx -v 2>&1` =~ m{nginx/(\d+)\.(\d+)\.(\d+)};
my $has_http2_on = $major * 1_000_000 + $minor * 1000 + $patch >= 1_025_001;
my %value = (socket => "$dir/aregd.sock", docsdir => build_dir() . '/docs', openapidir => build_dir() . '/docs',
	health_socket => "$dir/health.sock", microcache => "$dir/cache", nginxdir => $dir, logdir => $dir, nginxlogdir => $dir,
	tlsdir => $areg->dir . '/tls');
for my $from (glob root() . '/conf/nginx/*') {
	my ($name) = $from =~ m{([^/]+?)(?:\.in)?$};
	open my $in, '<', $from or die "$from: $!\n";
	my $text = do { local $/; <$in> };
	$text =~ s/\@(\w+)\@/$value{$1} \/\/ "\@$1\@"/ge;
	# As the file itself says.
	$text =~ s/ ssl http2;/ ssl;/, $text =~ s/^(\s*)#(?=http2 )/$1/ if $has_http2_on;
	open my $out, '>', "$dir/$name" or die "$dir/$name: $!\n";
	print $out $text;
	close $out or die "$dir/$name: $!\n";
}
open my $main, '>', "$dir/nginx.conf" or die "$dir/nginx.conf: $!\n";
print $main "pid $dir/nginx.pid;\nevents {}\nhttp {\n\tgzip on;\n\tserver_tokens build;\n\tkeepalive_timeout 65;\n"
	. "\tinclude $dir/areg.conf;\n\tserver { listen 80 default_server; server_name _; }\n}\n";
close $main or die "$dir/nginx.conf: $!\n";
my $verdict = `PATH=\$PATH:/usr/sbin nginx -t -p '$dir' -c '$dir/nginx.conf' -e stderr 2>&1`;
like($verdict, qr/test is successful/, 'the configuration that is installed is right')
	or diag($verdict);
unlike($verdict, qr/\[warn\]/, 'and nginx has nothing to say about it');

# Port 80, on a port of ours: it leads to the name that is configured, whatever the client calls it.
my $plain = Areg::Test::reserve_port();
my $site = do { open my $in, '<', "$dir/areg.conf" or die "$dir/areg.conf: $!\n"; local $/; <$in> };
$site =~ s/listen\s+80;/listen 127.0.0.1:$plain;/ or die "no port 80\n";
$site =~ s/listen\s+443 /listen 127.0.0.1:@{[$plain + 363]} / or die "no port 443\n";
$site =~ s/^\s*listen\s+\[::\].*\n//mg;
open my $out, '>', "$dir/areg.conf" or die "$dir/areg.conf: $!\n";
print $out $site;
close $out or die "$dir/areg.conf: $!\n";
open $main, '>', "$dir/nginx.conf" or die "$dir/nginx.conf: $!\n";
print $main "pid $dir/nginx.pid;\ndaemon off;\nevents {}\nhttp {\n\tinclude $dir/areg.conf;\n}\n";
close $main or die "$dir/nginx.conf: $!\n";
my $pid = fork // die "fork: $!\n";
if ($pid == 0) {
	$ENV{PATH} .= ':/usr/sbin';
	exec 'nginx', '-p', $dir, '-c', "$dir/nginx.conf", '-e', "$dir/nginx-error.log" or POSIX::_exit(1);
}
my $socket;
wait_until(20, sub { $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $plain) });
my $redirect = $areg->raw("GET /api/v1/agents?q=a%20b HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
	socket => $socket);
is($redirect->{status}, 308, 'plain HTTP is redirected');
is($redirect->{headers}{location}, 'https://areg.example.org/api/v1/agents?q=a%20b',
	'to the name of the site, not to one that the client told');
kill 'TERM', $pid;
waitpid $pid, 0;

done_testing();
