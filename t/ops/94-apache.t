#!/usr/bin/perl
# SPDX-License-Identifier: Apache-2.0
# Apache httpd before areg, with the site that docs/other-web-servers.md shows: what is asked is
# answered as behind nginx, and what is closed there is closed.
use strict;
use warnings;

use File::Basename qw(dirname);
use File::Temp qw(tempdir);
use HTTP::Tiny;
use IO::Socket::INET;
use Test::More;

use lib dirname(__FILE__) . '/../lib';
use Areg::Test qw(build_dir from_json json_text root skip_file_without wait_until);

my ($httpd) = grep { -x } '/usr/sbin/apache2', '/usr/sbin/httpd';
my ($modules) = grep { -d } '/usr/lib/apache2/modules', '/usr/lib/httpd/modules';
skip_file_without('Apache httpd is not installed') if !$httpd || !$modules;

my $areg = Areg::Test->start(workers => 2, limits => 'default', set => { limit_read => '5000 5000 5000 5000' });
my $user = $areg->make_user;
my $dir = tempdir('areg-apache-XXXXXX', TMPDIR => 1, CLEANUP => 1);
my ($port, $tls_port) = map { Areg::Test::reserve_port() } 1, 2;
chmod 0755, $dir;

sub text_of
{
	my ($name) = @_;
	open my $in, '<', $name or return '';
	local $/;
	return scalar <$in>;
}

sub write_file
{
	my ($name, $text) = @_;
	open my $out, '>', "$dir/$name" or die "$name: $!\n";
	print $out $text;
	close $out or die "$name: $!\n";
}

# ---- the site, as the page shows it, for this machine ----

my $page = text_of(root() . '/docs/other-web-servers.md');
my ($site) = $page =~ /^```apache\n(.*?)^```/ms or die "the page has no site\n";
my ($enabled) = $page =~ /^a2enmod (.+)$/m or die "the page enables no modules\n";
my %value = (
	'/run/areg/aregd.sock' => $areg->socket_path('aregd'), '/run/areg/health.sock' => $areg->socket_path('health'),
	'/etc/areg/tls' => $areg->dir . '/tls', '/usr/share/areg/docs' => build_dir() . '/docs',
	'*:80' => "127.0.0.1:$port", '*:443' => "127.0.0.1:$tls_port");
my @missing = grep { index($site, $_) < 0 } sort keys %value;
is("@missing", '', 'the site names sockets, certificate and documentation as they are installed');
$site =~ s/(@{[ join '|', map { quotemeta } sort { length $b <=> length $a } keys %value ]})/$value{$1}/g;

# What Debian's apache2.conf and its enabled modules say beside it; proxy comes with proxy_fcgi.
my @load = (qw(mpm_event authz_core authz_host alias dir mime env deflate filter socache_shmcb proxy), split ' ', $enabled);
my $load = join '', map { "LoadModule ${_}_module $modules/mod_$_.so\n" } grep { -e "$modules/mod_$_.so" } @load;
write_file('httpd.conf', <<"END" . $site);
$load
ServerRoot $dir
PidFile $dir/pid
DefaultRuntimeDir $dir
ErrorLog $dir/error.log
ServerName localhost
@{[ $> == 0 ? "User www-data\nGroup www-data" : '' ]}
Listen 127.0.0.1:$port
Listen 127.0.0.1:$tls_port
TypesConfig /etc/mime.types
AddOutputFilterByType DEFLATE text/html application/json
<Directory />
	Require all denied
	AllowOverride None
</Directory>
END
my ($exit, $said) = map { ($_->{exit}, $_->{stdout} . $_->{stderr}) } Areg::Test::_run([$httpd, '-t', '-f', "$dir/httpd.conf"]);
is($exit, 0, 'Apache takes the site') or BAIL_OUT($said);
my $apache = fork // die "fork: $!\n";
if ($apache == 0) {
	exec $httpd, '-DFOREGROUND', '-f', "$dir/httpd.conf" or die "$httpd: $!\n";
}
sub stop_apache { return unless $apache; kill TERM => $apache; waitpid $apache, 0; undef $apache }
END { my $status = $?; stop_apache(); $? = $status }
wait_until(20, sub { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $tls_port) })
	or die "Apache does not start:\n" . text_of("$dir/error.log");

# ---- asking ----

# By curl, which speaks TLS and HTTP/2: {status, headers, body, json}.
sub ask
{
	my ($method, $path, %option) = @_;
	my @headers = map { ('-H', "$_: $option{headers}{$_}") } sort keys %{ $option{headers} || {} };

	write_file('body', $option{body}) if defined $option{body};
	my $run = Areg::Test::_run(['curl', '-sk', '--path-as-is', '-i', '-m', 40, $option{http} || '--http1.1',
		'-X', $method, $method eq 'HEAD' ? '-I' : (), @headers, defined $option{body} ? ('-H', 'Expect:', '--data-binary', "\@$dir/body") : (),
		$option{from} ? ('--interface', $option{from}) : (),
		$option{plain} ? "http://127.0.0.1:$port$path" : "https://127.0.0.1:$tls_port$path"]);
	my ($head, $body) = split /\r\n\r\n/, $run->{stdout}, 2;
	my ($status) = ($head // '') =~ m{^HTTP/\S+ (\d+)};
	my %headers = map { /^([^:]+):\s*(.*?)\r?$/ ? (lc $1 => $2) : () } split /\n/, $head // '';
	return { status => $status // 0, headers => \%headers, body => $body, json => from_json($body // '') };
}

my $key = { Authorization => "Bearer $user->{key}", 'Content-Type' => 'application/json' };

my $made = ask(POST => '/api/v1/agents/register', headers => $key, body => json_text({ owner_address => $user->{wallet},
	chain => 'base', registration_file => { type => 'https://eips.ethereum.org/EIPS/eip-8004#registration-v1',
		name => 'Apache', description => 'It stands behind another server.' } }));
is($made->{status}, 201, 'POST: an agent is registered, with the key in Authorization') or diag($made->{body}, text_of("$dir/error.log"));
my $uuid = $made->{json}{agent_uuid} // 'none';
for my $http ('--http1.1', '--http2') {
	my $got = ask(GET => "/api/v1/agents/$uuid", http => $http, headers => { 'X-Request-ID' => 'mine-1', 'Accept-Encoding' => 'gzip' });
	is_deeply([$got->{status}, $got->{json}{agent_uuid}, $got->{headers}{'x-request-id'}], [200, $uuid, 'mine-1'],
		"GET over $http: the agent, with the caller's request id");
	is(ask(GET => "/api/v1/agents/$uuid", http => $http, headers => { 'If-None-Match' => $got->{headers}{etag} // '',
		'Accept-Encoding' => 'gzip' })->{status}, 304, 'and its ETag holds');
}
my $encoded = $made->{json}{agent_registry} // '';
is(ask(GET => "/api/v1/agents/" . ("$encoded:" =~ s/:/%3A/gr) . ($made->{json}{agent_id} // ''))->{json}{agent_uuid}, $uuid,
	'the path reaches areg as it was sent');
is(ask(GET => "/api/v1/agents/a%2Fb")->{json}{code}, $areg->get('/api/v1/agents/a%2Fb')->{json}{code}, 'also with an encoded slash');
for my $query ('q=Ap%61che', "owner_address=$user->{wallet}&limit=1", 'limit=0%261') {
	my ($got, $same) = (ask(GET => "/api/v1/agents?$query"), $areg->get("/api/v1/agents?$query"));
	delete @{ $_->{json} }{qw(request_id)} for $got, $same;
	is_deeply([@$got{qw(status json)}], [@$same{qw(status json)}], "$query: as behind nginx");
}
is(ask(PATCH => "/api/v1/agents/$uuid", headers => $key, body => '{')->{json}{code}, 'validation_failed', 'a problem is areg\'s own');
like(ask(HEAD => "/api/v1/agents/$uuid")->{headers}{'content-type'} // '', qr{^application/json}, 'HEAD');

# ---- what the table of the page asks for ----

my $headers = ask(GET => '/api/v1/chains')->{headers};
is_deeply([map { $headers->{$_} } qw(x-content-type-options referrer-policy strict-transport-security server access-control-allow-origin)],
	['nosniff', 'no-referrer', 'max-age=63072000', 'Apache', '*'], 'the headers are there, and no version');
like($headers->{'content-security-policy'}, qr/^default-src 'none'; frame-ancestors 'none'$/, 'and the policy, once');
is(ask(GET => '/health')->{json}{status}, 'healthy', '/health is answered');
is(ask(GET => '/api/v1/agents/health/')->{json}{status}, 'healthy', 'by its other name, and with a slash');
my $live = ask(GET => '/livez');
is_deeply([$live->{status}, $live->{json}{status}, $live->{headers}{'content-type'}], [200, 'alive', 'application/json'], '/livez, too');
is(ask(GET => '/docs')->{headers}{location} =~ s{^https://[^/]+}{}r, '/docs/', '/docs leads to /docs/');
for my $file ('/docs/', '/docs/errors/not_found.html', '/openapi.json') {
	is(ask(GET => $file)->{status}, 200, "$file is served");
}
is(ask(GET => '/docs/../../')->{status} =~ /^[34]/ ? 'refused' : 'served', 'refused', 'and nothing above it');
is_deeply([map { $_->{status}, $_->{headers}{location} } ask(GET => '/x?y=1', plain => 1, headers => { Host => 'evil.example' })],
	[308, 'https://areg.example.org/x?y=1'], 'plain HTTP leads to the name of the site, whatever Host says');

like(ask(GET => '/metrics')->{body}, qr/^areg_/m, '/metrics answers Prometheus on this host');
for my $path (qw(/metrics /metrics/ //metrics /%6detrics /./metrics)) {
	for my $claim ({}, { 'X-Forwarded-For' => '127.0.0.1', 'X-Real-IP' => '127.0.0.1', Forwarded => 'for=127.0.0.1' }) {
		my $refused = ask(GET => $path, from => '127.0.0.2', headers => $claim);
		like($refused->{status}, qr/^40[34]$/, "$path is closed to others" . (%$claim ? ', whatever a header claims' : ''));
	}
}

# Limits go by the address of the connection.
sub left { return ask(GET => '/api/v1/chains', from => $_[0], headers => $_[1] || {})->{headers}{'x-ratelimit-remaining'} }
my $before = left('127.0.0.3');
is(left('127.0.0.3', { 'X-Forwarded-For' => '9.9.9.9', 'X-Real-IP' => '9.9.9.9', Forwarded => 'for=9.9.9.9', 'Remote-Addr' => '9.9.9.9',
	'Client-IP' => '9.9.9.9' }), $before - 1, 'a header that claims another address gives no other limit');
cmp_ok(left('127.0.0.4'), '>', $before - 2, 'another address has its own');
is(ask(GET => '/api/v1/me', headers => { 'Areg-Shared' => '1', 'X-API-Key' => $user->{key} })->{status}, 200, 'a header is no parameter');

is(ask(POST => '/api/v1/agents/register', headers => $key, body => 'x' x (2 * 1024 * 1024))->{status}, 413, 'a body of 2 MiB is refused');
my $slow = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port, Timeout => 5) or die "socket: $!\n";
print $slow "GET / HTTP/1.1\r\nHost: a\r\n"; # and not the end of it
$slow->blocking(0);
ok(wait_until(30, sub { sysread($slow, my $text, 4096); return defined $text && $text =~ /408|\A\z/ && !$!{EAGAIN} }), 'a header that does not end is not waited for');
my $tls = sub { return scalar `openssl s_client -connect 127.0.0.1:$tls_port @_ </dev/null 2>&1` };
like($tls->('-tls1_2'), qr/TLSv1\.2, Cipher is ECDHE-/, 'TLS 1.2, with forward secrecy');
unlike($tls->('-tls1_1 -cipher ALL:@SECLEVEL=0'), qr/Cipher is [A-Z]{3}/, 'but not 1.1');

{
	local $ENV{PATH} = join ':', build_dir(), $ENV{PATH};
	my $run = Areg::Test::_run([root() . '/scripts/verify-deployment', "https://127.0.0.1:$tls_port",
		'--cacert', $areg->dir . '/tls/cert.pem', '--key', $user->{key}]);
	is(join('', grep { /^FAILED/ } split /^/, $run->{stdout}), '', 'verify-deployment finds nothing wrong') or diag($run->{stderr});
	like($run->{stdout}, qr/^ok write: /m, 'and writes');
}

# ---- areg goes away, and comes back ----

$areg->stop_server('aregd');
is(ask(GET => "/api/v1/agents/$uuid")->{status}, 503, 'while areg is away: 503');
$areg->start_server('aregd');
ok(wait_until(20, sub { ask(GET => "/api/v1/agents/$uuid")->{status} == 200 }), 'and as soon as it is back, it is asked again');

done_testing;
