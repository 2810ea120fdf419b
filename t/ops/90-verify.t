#!/usr/bin/perl
# SPDX-License-Identifier: Apache-2.0
# scripts/verify-deployment, an operator's acceptance test: it passes an installation that is as it
# should be, and whatever of it is broken fails its own check, with what to do, and no other.
use strict;
use warnings;

use File::Basename qw(basename dirname);
use File::Temp qw(tempdir);
use IO::Socket::UNIX;
use Test::More;
use Time::HiRes qw(time);

use lib dirname(__FILE__) . '/../lib';
use Areg::Test qw(root build_dir from_json wait_until);

my $NAME = 'registry.example';
my $URL = "https://$NAME";
my $scratch = tempdir('verify-XXXXXX', TMPDIR => 1, CLEANUP => 1);
chmod 0755, $scratch;
my ($bin, $backups, $logs) = map { my $dir = "$scratch/$_"; mkdir $dir; $dir } qw(bin backups log);
my %set = (public_url => $URL, limit_read => '5000 5000 5000 5000', limit_register => '- 5000 5000 5000');
my $areg = Areg::Test->start(workers => 2, set => \%set, limits => 'default');
my $port = Areg::Test::reserve_port();
my $plain_port = Areg::Test::reserve_port();
my $nginx; # its pid

sub write_file
{
	my ($name, $text) = @_;
	open my $out, '>', $name or die "$name: $!\n";
	print $out $text;
	close $out or die "$name: $!\n";
}

sub text_of
{
	my ($name) = @_;
	open my $in, '<', $name or die "$name: $!\n";
	local $/;
	return scalar <$in>;
}

# ---- a site as it is installed, and how to break it ----

sub certificate
{
	my ($name, $days, $subject) = @_;

	system("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days $days"
		. " -subj /CN=$subject -addext subjectAltName=DNS:$subject -addext basicConstraints=critical,CA:FALSE"
		. " -addext extendedKeyUsage=serverAuth -keyout $scratch/$name.key -out $scratch/$name.pem"
		. " 2>$logs/openssl.log") == 0 or die text_of("$logs/openssl.log");
}
certificate('right', 365, $NAME);
certificate('ending', 5, $NAME);
certificate('foreign', 365, 'other.example');

# Starts nginx anew with the private stack's files, as a public site. The sub gets the text of each
# file in $_ and its name, and may change it.
sub site
{
	my ($change) = @_;
	my ($from, $to) = ($areg->dir . '/nginx', "$scratch/nginx");
	my $dir = $areg->dir;

	stop_site();
	mkdir $to;
	for my $file (glob "$from/*.conf") {
		my $name = basename($file);

		local $_ = text_of($file);
		s/\Q$from\E/$to/g;
		if ($name eq 'private.conf') {
			s/\Q$dir\E\/log/$logs/g;
			s/(\$areg_hsts \{).*?\}/$1 default ""; on "max-age=63072000"; }/s;
			s/listen\s+127\.0\.0\.1:\d+;/listen 127.0.0.1:$plain_port;/;
			s/listen\s+127\.0\.0\.1:\d+ ssl/listen 127.0.0.1:$port ssl/;
			s/server_name\s+\S+;/server_name $NAME;/;
			s/(ssl_certificate(?:_key)?)\s+\S+\/(?:cert\.(pem)|(key)\.pem);/$1 $scratch\/right.@{[ $2 || $3 ]};/g;
		}
		$change->($name) if $change;
		write_file("$to/$name", $_);
	}
	$nginx = fork // die "fork: $!\n";
	if ($nginx == 0) {
		exec 'nginx', '-p', $to, '-c', "$to/private.conf", '-e', "$logs/nginx-error.log"
			or die "nginx: $!\n";
	}
	wait_until(20, sub { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port) })
		or die "nginx does not start:\n" . text_of("$logs/nginx-error.log");
}

sub stop_site
{
	return unless $nginx;
	kill 'TERM', $nginx;
	waitpid $nginx, 0;
	undef $nginx;
}
END { my $status = $?; stop_site() if $nginx; $? = $status }

# A site in whose file the sub changes something: it must find it there.
sub with
{
	my ($file, $change) = @_;
	my $found = 0;

	site(sub { $found = $change->() if $_[0] eq $file });
	die "there is nothing to change in $file\n" unless $found;
}

# A further location of the site.
sub with_location
{
	my ($location) = @_;
	with('app.conf', sub { $_ .= "location $location\n" });
}

# A program in front of the real one.
sub shim
{
	my ($name, $text) = @_;
	write_file("$bin/$name", "#!/bin/sh\n$text\n");
	chmod 0755, "$bin/$name";
}

sub dump_to
{
	my ($file, $database) = @_;
	system('pg_dump', '-Fc', '-h', $areg->socket_path('pg'), '-U', 'areg_owner', '-f', $file, $database) == 0
		or die "pg_dump failed\n";
}

# ---- running it ----

my @inside = ('--conf', $areg->conf, '--backups', $backups, '--nginx', "$scratch/nginx/private.conf");
my @outside = ('--cacert', "$scratch/right.pem", '--connect', "127.0.0.1:$port");
# aregctl takes AREG_… for settings, and this one is of the tests.
my @command = (root() . '/scripts/verify-deployment');
$ENV{PATH} = join ':', $bin, build_dir(), $ENV{PATH}, glob '/usr/lib/postgresql/*/bin';
delete $ENV{AREG_API_KEY};

# Returns {exit, text, and for each check that it names [status, words]}.
sub verify
{
	my (@arguments) = @_;
	my $run = Areg::Test::_run([@command, @arguments]);
	my %checks;

	push @{ $checks{$2} }, [$1, $3] while $run->{stdout} =~ /^(ok|FAILED|skipped) ([a-z-]+): (.+)$/mg;
	return { exit => $run->{exit}, text => $run->{stdout} . $run->{stderr}, checks => \%checks };
}

sub with_status
{
	my ($run, $status) = @_;
	return join ' ', grep { grep { $_->[0] eq $status } @{ $run->{checks}{$_} } } sort keys %{ $run->{checks} };
}

# What is broken fails that check alone, in those words, and says what to do.
sub fails
{
	my ($check, $what, $said, %option) = @_;
	my $run = verify($option{url} || $URL, @{ $option{arguments} || [@outside, @inside] });
	my ($failed) = grep { $_->[0] eq 'FAILED' } @{ $run->{checks}{$check} || [] };

	subtest $what => sub {
		is($run->{exit}, 1, 'exit code 1');
		is(with_status($run, 'FAILED'), $check, "$check fails, and nothing else");
		like($failed->[1] // '', $said, 'it says why');
		like($failed->[1] // '', qr/: [a-zA-Z\$].{10,}$/, 'and what to do');
		is(with_status($run, 'skipped'), $option{skips} // '', 'what cannot be done is left out');
	} or diag($run->{text});
}

# ---- as it should be ----

dump_to("$backups/areg-1.dump", 'areg');
site();
my $run = verify($URL, @outside, @inside);
is($run->{exit}, 0, 'an installation that is as it should be passes') or diag($run->{text});
my @all = qw(backups certificate clock docs headers health hsts limits live metrics migrations nginx openapi
	protocols public-url version write);
my $only_loopback = `hostname -I` !~ /\S/;
@all = grep { $_ ne 'metrics' } @all if $only_loopback;
is(with_status($run, 'ok'), "@all", 'every check says ok');
is(scalar(() = $run->{text} =~ /\n/g), @all + $only_loopback, 'in one line each');
like($run->{text}, qr/^ok certificate: valid for another 36\d days$/m, 'it says how long the certificate is valid');

sub live_keys
{
	return $areg->psql_value("SELECT count(*) FROM api_keys k JOIN users u ON u.id = k.user_id"
		. " WHERE u.name = 'verify-deployment' AND k.is_active");
}
is($areg->psql_value("SELECT count(*) FROM api_keys WHERE name = 'verify-deployment'"), 2, 'it made two keys');
is(live_keys(), 0, 'and none of them lives');
is($areg->psql_value('SELECT count(*) FROM erc8004_agents'), 0, 'the registry has no agent more');

my $json = Areg::Test::_run([@command, $URL, @outside, @inside, '--json']);
my $report = from_json($json->{stdout});
is($json->{exit}, 0, '--json passes, too');
is_deeply([$report->{ok}, $report->{url}, join ' ', sort map { $_->{check} } grep { $_->{status} eq 'ok' } @{ $report->{checks} }],
	[JSON::PP::true(), $URL, "@all"], 'and says the same as one JSON object') or diag($json->{stdout});

my $user = $areg->make_user;
$run = verify($URL, @outside, '--key', $user->{key});
is($run->{exit}, 0, 'from another machine, with a key, it passes') or diag($run->{text});
is(with_status($run, 'skipped'), 'backups migrations nginx', 'but for what is only seen on the host');
is($areg->psql_value("SELECT count(*) FROM api_keys WHERE user_id = '$user->{id}' AND is_active"), 1,
	'the key that was given lives on, alone');

$run = verify($areg->url, '--conf', $areg->conf);
is($run->{exit}, 0, 'a private stack on loopback passes, without TLS') or diag($run->{text});
is(with_status($run, 'skipped'), 'backups certificate hsts nginx protocols public-url' =~ s/hsts/$only_loopback ? 'hsts metrics' : 'hsts'/er,
	'and without what is for the public');

# Starts aregd anew.
sub serve_with
{
	my (%more) = @_;
	$areg->stop_server('aregd');
	$areg->start_server('aregd', set => { %set, %more });
	until_healthy();
}

# A worker leaves a memcached that failed alone for two seconds.
sub until_healthy
{
	my $row = 0;
	wait_until(40, sub {
		my $health = $areg->get('/health')->{json} || {};
		$row = ($health->{status} // '') eq 'healthy' ? $row + 1 : 0;
		return $row >= 10;
	}) or die "the registry does not become healthy\n";
}

# ---- broken: nginx ----

with('app.conf', sub { s/return\s+200 '\{"status":"alive"\}\\n'/return 500/ });
fails(live => 'liveness fails', qr/500 internal to \/livez/);

my $mine = sub { my ($name) = @_; sub { s/\Q$scratch\E\/right\.(pem|key)/$scratch\/$name.$1/g } };
with('private.conf', $mine->('ending'));
fails(certificate => 'the certificate ends soon', qr/it ends in [45] days/,
	arguments => ['--cacert', "$scratch/ending.pem", @outside[2, 3], @inside]);
with('private.conf', $mine->('foreign'));
fails(certificate => 'the certificate is for another name', qr/no alternative certificate subject name/,
	arguments => ['--cacert', "$scratch/foreign.pem", @outside[2, 3], @inside], skips => 'write');
with('private.conf', sub { 1 });
fails(certificate => 'nobody vouches for the certificate', qr/self-signed/,
	arguments => [@outside[2, 3], @inside], skips => 'write');
serve_with(public_url => "http://$NAME");
fails(certificate => 'it is plain HTTP', qr/everybody on the way reads the keys/, url => "http://$NAME",
	arguments => ['--connect', "127.0.0.1:$plain_port", @inside], skips => 'hsts protocols write');
serve_with();

with('tls.conf', sub { s/ssl_protocols .*/ssl_protocols TLSv1.1 TLSv1.2 TLSv1.3;/
	&& s/ssl_ciphers .*/ssl_ciphers ALL:\@SECLEVEL=0;/ });
fails(protocols => 'old TLS is still spoken', qr/still speaks tls1_1/);
with('private.conf', sub { s/max-age=63072000/max-age=300/ });
fails(hsts => 'browsers are not told to stay with TLS', qr/is "max-age=300"/);
SKIP: {
	skip 'this machine has only its loopback address', 1 if $only_loopback;
	with('app.conf', sub { s/deny\s+all;/allow all;/ });
	fails(metrics => 'metrics are public', qr/200 to \/metrics from /);
}
with('headers.conf', sub { s/^add_header X-Content-Type-Options.*//m });
fails(headers => 'a header is missing', qr/X-Content-Type-Options is not nosniff/);
with('app.conf', sub { s/server_tokens\s+off/server_tokens on/ });
fails(headers => 'nginx tells its version', qr/Server tells a version \(nginx\/1/);
with('fastcgi.conf', sub { $_ .= "fastcgi_hide_header X-RateLimit-Limit;\n" });
fails(limits => 'answers do not tell a limit', qr/without X-RateLimit-Limit/);
with('app.conf', sub { s/(location \/docs\/ \{\s+alias)\s+[^;]+;/$1 $scratch\/;/ });
fails(docs => 'the documentation is not there', qr/40[34] \w+ to \/docs\//);
with('app.conf', sub { s/(location = \/openapi\.json \{\s+alias)\s+[^;]+;/$1 $scratch\/none.json;/ });
fails(openapi => 'the description is not there', qr/404 not_found to \/openapi\.json/);
write_file("$scratch/old.json", '{"info":{"version":"0.0.1"},"openapi":"3.1.0"}');
with('app.conf', sub { s/(location = \/openapi\.json \{\s+alias)\s+[^;]+;/$1 $scratch\/old.json;/ });
fails(openapi => 'the description is of another version', qr/describes version 0\.0\.1/);
with_location('= /api/v1/me { default_type application/json; return 200 "{}"; }');
fails(write => 'something in between keeps answers', qr/right after a write that was acknowledged/);
is(live_keys(), 0, 'no key lives on after that');

with('private.conf', sub { s/worker_connections \d+/worker_connections 768/ });
fails(nginx => 'nginx has few connections', qr/worker_connections is 768/);
with('private.conf', sub { s/worker_rlimit_nofile\s+\d+/worker_rlimit_nofile 8192/ });
fails(nginx => 'nginx may open few files', qr/worker_rlimit_nofile is 8192, not twice/);
SKIP: {
	my $socket = $areg->socket_path('health');
	my ($user) = text_of("$scratch/nginx/private.conf") =~ /^user (\S+);/m;
	skip 'nginx runs as the user of this test', 2 if !$user || $user eq 'root';
	site();
	chmod 0700, $socket;
	my $text = verify($URL, @outside, @inside)->{text};
	chmod 0770, $socket;
	like($text, qr/^FAILED nginx: nginx does not reach areg: user $user may not use \Q$socket\E, .*: see that/m,
		'a socket that nginx may not use is named');
	like($text, qr/^FAILED health: the answer is 50\d.*Permission denied/m, 'and health says where to look');
	my $missing = $socket =~ s/health$/none/r;
	like(do { with('http.conf', sub { s/unix:\Q$socket\E/unix:$missing/ }); verify($URL, @outside, @inside)->{text} },
		qr/^FAILED nginx: nginx does not reach areg: there is no socket \Q$missing\E: /m, 'one that is not there, too');
}
with('app.conf', sub { s/limit_conn\s+areg_connections.*// });
fails(nginx => 'one client may take all connections', qr/any number of requests/);
with('app.conf', sub { s/client_body_timeout\s+\S+;/client_body_timeout 2m;/ });
fails(nginx => 'slow bodies are waited for', qr/waits 120 s/);
SKIP: {
	skip 'this machine has only its loopback address', 1 if $only_loopback;
	with_location('= /metrics/ { fastcgi_pass areg_health; include fastcgi.conf; }');
	fails(metrics => 'metrics are public when they are written with a slash', qr/200 to \/metrics\/ from /);
}

# ---- broken: the host ----

site();
$areg->stop_server('memcached');
fails(health => 'memcached is down', qr/it says cache:degraded/);
$areg->start_server('memcached');
until_healthy();

shim(aregctl => '[ "$1" != -V ] || { echo aregctl 9.9.9; exit; }; exec "' . build_dir() . '/aregctl" "$@"');
fails(version => 'another version is installed than the one that serves', qr/is serving, 9\.9\.9 is installed/);
unlink "$bin/aregctl";

shim(date => '[ "$*" != +%s ] || { echo $(($(/bin/date +%s) + 600)); exit; }; exec /bin/date "$@"');
fails(clock => 'the clocks differ', qr/is -(59\d|600) s off/);
unlink "$bin/date";

serve_with(limit_read => '250000 250000 250000 250000');
fails(limits => 'limits are so high that there are none', qr/may read 250000 times a minute/);
serve_with(public_url => 'http://localhost:8080');
fails('public-url' => 'public_url was forgotten', qr/takes http:\/\/localhost:8080 for its address.*public_url = $URL/);
serve_with();

my $last = $areg->psql_value('SELECT max(version) FROM schema_migrations');
$areg->psql("UPDATE schema_migrations SET version = 9999 WHERE version = $last");
fails(migrations => 'a migration is pending', qr/\b$last is pending.*aregctl migrate/);
$areg->psql("UPDATE schema_migrations SET version = $last WHERE version = 9999");

# Refuses what the condition says of the table of keys.
sub refusing
{
	my ($event, $condition, $sub) = @_;
	$areg->psql("CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
		. " \$\$ BEGIN RAISE 'refused' USING ERRCODE = 'disk_full'; END \$\$;"
		. " CREATE TRIGGER refuse BEFORE $event ON api_keys FOR EACH ROW WHEN ($condition) EXECUTE FUNCTION refuse()");
	$sub->();
	$areg->psql('DROP TRIGGER refuse ON api_keys; DROP FUNCTION refuse()');
}
# That of aregctl has a scope, and that of the API has none; both expire.
refusing(INSERT => 'cardinality(NEW.scopes) = 0', sub {
	fails(write => 'the API cannot write', qr/503 unavailable to POST \/api\/v1\/keys: look for \S+ in the log/);
});
is(live_keys(), 0, 'no key lives on after that, either');
refusing(INSERT => 'true', sub {
	fails(write => 'aregctl cannot write', qr/no key can be made: ./);
});
refusing(UPDATE => 'NOT NEW.is_active', sub {
	fails(write => 'keys cannot be revoked', qr/DELETE \/api\/v1\/keys/);
});
is(live_keys(), 2, 'then they live on');
like(verify($URL, @outside, '--key', 'areg_live_' . 'x' x 49)->{text}, qr/^FAILED write: the key is not known there: /m,
	'a wrong key is called that');
$areg->psql("UPDATE api_keys SET is_active = false, revoked_at = now() WHERE name = 'verify-deployment' AND is_active");

# What root is told of a database that takes root for nobody.
shim(aregctl => 'echo "aregctl: migrate status: the database cannot be used: no role root" >&2;'
	. ' echo "         do it as that user: runuser -u areg -- aregctl ..." >&2; exit 1');
SKIP: {
	skip 'only root is told to be another user', 2 if $> != 0;
	my $text = verify($URL, @outside, @inside)->{text};
	my $advice = qr/run this as the user of areg: runuser -u areg -- verify-deployment \Q$URL\E --conf \S+/;
	like($text, qr/^FAILED migrations: .*: $advice$/m, 'as root it says as whom to look at the migrations');
	like($text, qr/^FAILED write: .*: $advice$/m, 'and as whom to write');
}
unlink "$bin/aregctl";

utime time - 30 * 3600, time - 30 * 3600, "$backups/areg-1.dump";
fails(backups => 'the newest backup is old', qr/areg-1\.dump is older than 26 hours/);
dump_to("$backups/areg-2.dump", 'areg');
truncate "$backups/areg-2.dump", (-s "$backups/areg-2.dump") - 2000;
fails(backups => 'the newest backup was cut short', qr/areg-2\.dump cannot be read/);
dump_to("$backups/areg-2.dump", 'postgres');
fails(backups => 'the newest backup is of another database', qr/areg-2\.dump holds no agents/);
unlink glob "$backups/*";
fails(backups => 'there is no backup', qr/no \*\.dump is in .*: make one now: runuser -u postgres -- areg-backup;/);

# ---- interrupted ----

# A server that takes requests and says nothing.
my $stuck = IO::Socket::UNIX->new(Local => "$scratch/stuck", Listen => 5) or die "socket: $!\n";
chmod 0777, "$scratch/stuck";
with_location("= /api/v1/keys { fastcgi_pass unix:$scratch/stuck; include $scratch/nginx/fastcgi.conf; }");
mkdir "$scratch/tmp";
my $pid = fork // die "fork: $!\n";
if ($pid == 0) {
	$ENV{TMPDIR} = "$scratch/tmp";
	setpgrp;
	open STDOUT, '>', "$logs/interrupted";
	exec @command, $URL, @outside, @inside or die "exec: $!\n";
}
my $curl;
ok(wait_until(40, sub {
	for my $dir (glob '/proc/[0-9]*') {
		open my $in, '<', "$dir/cmdline" or next;
		my $line = do { local $/; readline($in) } // next;
		return $curl = $line if $line =~ /\Acurl\0.*\Q$URL\E\/api\/v1\/keys\0/s;
	}
	return 0;
}), 'it can be caught while it writes');
unlike($curl // '', qr/areg_live_/, 'the process list does not show the key then');
is(live_keys(), 1, 'which lives');
kill 'TERM', -$pid;
waitpid $pid, 0;
is($? >> 8, 130, 'interrupted, it ends');
is(live_keys(), 0, 'and takes its key along');
is(join(' ', glob "$scratch/tmp/*"), '', 'and its files');

# ---- called wrongly ----

for my $wrong ([], ['registry.example'], ['https://registry.example/docs'], ['ftp://registry.example'], ['--nonsense'],
	['--key'], [$URL, $URL], [$URL, '--conf', "$scratch/none.conf"], [$URL, '--connect', 'a b']) {
	my $run = verify(@$wrong);
	is($run->{exit}, 2, "verify-deployment @$wrong: a wrong call");
	like($run->{text}, qr/^verify-deployment: .+\nTry: /, 'it says what is wrong');
}
like(verify('--help')->{text}, qr/^\s+--backups DIR/m, '--help explains the options');
$run = verify('http://127.0.0.1:1');
is($run->{exit}, 1, 'where nothing answers it fails');
like($run->{text}, qr/^FAILED live: no answer \(.+\) to \/livez: /m, 'and says so');

done_testing;
