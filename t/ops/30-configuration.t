# SPDX-License-Identifier: Apache-2.0
# What aregd says of its configuration before it serves: aregd -t, -p, and how it is started.
use strict;
use warnings;

use File::Basename qw(dirname);
use File::Temp qw(tempdir);
use IO::Socket::INET;
use POSIX ();
use Test::More;

use lib dirname(__FILE__) . '/../lib';
use Areg::Test qw(build_dir root);

my $dir = tempdir(CLEANUP => 1);
my $file = "$dir/areg.conf";
my $identity = '0x8004A169FB4a3325136EB29fA0ceB6D2e539a432';
my $reputation = '0x8004BAa17C55a88189AE136b182e5fdA19dE9b63';

# Runs aregd with nothing in its environment but the given variables. Returns its exit code and all
# that it printed.
sub aregd
{
	my ($arguments, %env) = @_;
	my $output = "$dir/output";
	my $pid = fork // die "fork: $!\n";
	if ($pid == 0) {
		open STDIN, '<', $env{stdin} // '/dev/null' or die "stdin: $!\n";
		open STDOUT, '>', $output or die "$output: $!\n";
		open STDERR, '>&', \*STDOUT;
		delete $env{stdin};
		%ENV = (%env, map { ($_ => $ENV{$_}) } grep { defined $ENV{$_} } qw(ASAN_OPTIONS UBSAN_OPTIONS));
		exec build_dir() . '/aregd', @$arguments or die "exec: $!\n";
	}
	waitpid $pid, 0;
	my $exit = $? & 127 ? "signal $?" : $? >> 8;
	open my $in, '<', $output or die "$output: $!\n";
	local $/;
	return ($exit, scalar <$in> // '');
}

sub write_conf
{
	my ($text) = @_;
	open my $out, '>', $file or die "$file: $!\n";
	print $out $text;
	close $out or die "$file: $!\n";
}

# ---- broken configurations ----

my $right = "database_url = postgresql:///areg?host=$dir\n\n[chain base]\nchain_id = 8453\n"
	. "identity_registry = $identity\n";
my @lines = split /\n/, $right;

# Each: what is wrong, the line, the lines in its place, what must be said.
for my $case (
	['an unknown key', 1, ['databse_url = x', $lines[0]], qr/unknown key databse_url.*database_url/],
	['an unknown section', 3, ['[chian base]'], qr/unknown section/],
	['a section header without its end', 3, ['[chain base'], qr/\]/],
	['a number that is none', 2, ['workers = many'], qr/workers/],
	['a number out of range', 2, ['workers = 0'], qr/workers.*1\.\.1024/],
	['a duration without a unit', 2, ['request_timeout = 30'], qr/request_timeout/],
	['a duration out of range', 2, ['request_timeout = 2h'], qr/request_timeout/],
	['a word that is not offered', 2, ['log_level = loud'], qr/log_level.*debug/],
	['a bad URL', 2, ['public_url = ftp://a.example'], qr/public_url.*https?:/],
	['a bad database URL', 1, ['database_url = mysql://a'], qr/database_url/],
	['a line without =', 2, ['workers 4'], qr/=/],
	['a key that stands twice', 2, ['workers = 2', 'workers = 3'], qr/workers.*twice|first at/, 3],
	['a key in the wrong section', 4, ['workers = 4', 'chain_id = 8453'], qr/workers belongs/],
	['a chain without chain_id', 4, [], qr/chain base.*chain_id/, 3],
	['a bad address', 5, ['identity_registry = 0x1234'], qr/identity_registry.*40 hex/],
	['a bad checksum', 5, ['identity_registry = ' . $identity =~ s/FB4a/fB4a/r],
		qr/identity_registry.*checksum/],
	['a chain_id that another has', 6,
		['[chain basic]', 'chain_id = 8453', "identity_registry = $identity"], qr/chain base/, 7],
	['a chain that stands twice', 6,
		['[chain base]', 'chain_id = 1', "identity_registry = $identity"], qr/twice.*:3/, 6],
	['an RPC address that is no URL', 6, ['rpc_url = localhost:8545'], qr/rpc_url/],
) {
	my ($what, $number, $instead, $said, $named) = @$case;
	my @broken = @lines;
	splice @broken, $number - 1, 1, @$instead;
	write_conf(join "\n", @broken, '');
	my ($exit, $output) = aregd(['-t', '-c', $file]);
	$named //= $number;
	is($exit, 1, "$what is refused");
	like($output, qr/^aregd: \Q$file\E:$named: .*$said/m, "$what: line $named and why");
}
write_conf("nonsense = 1\nworkers = x\n$right" . "[chain x]\n");
my ($exit, $output) = aregd(['-t', '-c', $file]);
is(scalar(() = $output =~ /^aregd: \Q$file\E:[12689]: /mg), 4, 'several faults are all named')
	or diag($output);
($exit, $output) = aregd(['-c', $file]);
is($exit, 1, 'without -t it does not start with them either');
($exit, $output) = aregd(['-t', '-c', "$dir/none.conf"]);
is($exit, 1, 'a file that is not there is refused');
like($output, qr/\Q$dir\E\/none\.conf: .*No such file/, 'by its name');
write_conf($right);
($exit, $output) = aregd(['-t', '-c', $file], AREG_WORKERS => '-3');
is($exit, 1, 'a bad value of the environment is refused');
like($output, qr/AREG_WORKERS/, 'by its name');
($exit, $output) = aregd(['-t', '-c', $file], AREG_WORKRES => '3');
is($exit, 1, 'a variable that means nothing is refused');
like($output, qr/AREG_WORKRES.*AREG_WORKERS/, 'with the one that was meant');

# ---- right ones, with and without what they need ----

($exit, $output) = aregd(['-t', '-c', $file]);
is($exit, 3, 'without a database: exit code 3');
like($output, qr/configuration: .* is right/, 'the configuration is called right');
like($output, qr/^database: .*database_url/m, 'and it says what to look at');
unlike($output, qr/password/i, 'without a secret');

my $areg = Areg::Test->start(without => [qw(memcached aregd nginx migrate)]);
($exit, $output) = aregd(['-t', '-c', $areg->conf]);
is($exit, 3, 'a database that is not migrated: 3');
like($output, qr/^database: .*aregctl migrate/m, 'and it says what to do');
$areg->instance('start', '--no-nginx');
($exit, $output) = aregd(['-t', '-c', $areg->conf]);
is($exit, 0, 'with all there: 0') or diag($output);
like($output, qr/^database: PostgreSQL \d+.*schema version \d+$/m, 'it names what answers');
like($output, qr/^memcached: memcached 1\./m, 'both of them');
$areg->stop_server('memcached');
($exit, $output) = aregd(['-t', '-c', $areg->conf]);
is($exit, 3, 'without memcached: 3');
like($output, qr/^memcached: .*works without.*memcached_servers/m, 'and it says what that means');
my $url = 'postgresql:///areg?user=areg&host=' . $areg->socket_path('pg');

# ---- databases and roles that areg cannot use ----

# aregctl on a database of the stack, as a role: its exit code and all that it says.
sub migrate
{
	my ($database, $role, @more) = @_;
	my $socket = $areg->socket_path('pg');
	my $said = do {
		local %ENV = (%ENV, AREG_DATABASE_URL => "host=$socket dbname=$database user=$role", @more);
		my ($aregctl, $conf, $sql) = (build_dir() . '/aregctl', $areg->conf, root() . '/sql');
		`$aregctl -c $conf migrate --dir $sql 2>&1`;
	};
	return ($? >> 8, $said);
}

sub test_as
{
	my ($database, $role) = @_;
	my $socket = $areg->socket_path('pg');
	return aregd(['-t', '-c', $areg->conf], AREG_MEMCACHED_SERVERS => 'none',
		AREG_DATABASE_URL => "host=$socket dbname=$database user=$role");
}

for my $encoding (qw(LATIN1 SQL_ASCII)) {
	$areg->psql("CREATE DATABASE \L$encoding\E OWNER areg_owner ENCODING $encoding TEMPLATE template0 LOCALE 'C'");
	($exit, $output) = migrate(lc $encoding, 'areg_owner');
	is($exit, 3, "aregctl migrate refuses $encoding");
	like($output, qr/is in $encoding.*createdb -O areg_owner -E UTF8 -T template0 --locale=C.UTF-8 \L$encoding\E/,
		'and says what to do');
	($exit, $output) = test_as(lc $encoding, 'areg');
	is($exit, 3, 'so does aregd -t');
	like($output, qr/^database: .*is in $encoding.*-E UTF8 -T template0 --locale=C.UTF-8/m, 'which says it as well');
}
$areg->psql("CREATE DATABASE sorted OWNER areg_owner ENCODING UTF8 TEMPLATE template0 LOCALE_PROVIDER icu"
	. " ICU_LOCALE 'en-US' LOCALE 'C.UTF-8'");
is((migrate('sorted', 'areg_owner'))[0], 0, 'a database with a collation of its own can be migrated');
($exit, $output) = test_as('sorted', 'areg');
is($exit, 3, 'but aregd -t complains');
like($output, qr/^database: .*sorted sorts text by .*--locale=C.UTF-8 sorted, and restore a dump/m, 'and says what to do');

($exit, $output) = migrate('areg', 'areg');
is($exit, 3, 'the role that aregd runs as cannot migrate');
like($output, qr/role areg may not change the schema of areg: .*runuser -u areg_owner -- aregctl migrate/, 'and is told who can');
($exit, $output) = migrate('areg', 'areg_owner', AREG_RUNTIME_ROLE => 'nobody_at_all');
is($exit, 3, 'a runtime_role that is not there is refused');
like($output, qr/no role nobody_at_all .*createuser nobody_at_all/, 'with what to run');
unlike((test_as('areg', 'areg'))[1], qr/^warning: the role/m, 'two roles: no warning');
($exit, $output) = test_as('areg', 'areg_owner');
is($exit, 0, 'one role that owns all works');
like($output, qr/^warning: the role areg_owner owns the audit log/m, 'with a warning');
($exit, $output) = test_as('areg', 'not_there');
is($exit, 3, 'a role that is not there');
like($output, $> == 0 ? qr/^database: .*PostgreSQL runs, but does not let root in.*runuser -u areg -- aregd -t/m
	: qr/^database: .*PostgreSQL runs, but does not let this user in/m, 'is not called a PostgreSQL that is down');
like((migrate('areg', 'not_there'))[1], $> == 0 ? qr/runuser -u areg_owner -- aregctl/ : qr/does not let this user in/,
	'and aregctl migrate names the user that may migrate');
$areg->psql('CREATE ROLE other LOGIN; /* as a superuser: */ SET session_replication_role = origin');
($exit, $output) = test_as('areg', 'other');
is($exit, 3, 'a role that was granted nothing');
like($output, qr/^database: .*role other may not use the tables: set runtime_role = other, and run runuser -u areg_owner -- aregctl migrate/m,
	'is told how to be');
is((migrate('areg', 'areg_owner', AREG_RUNTIME_ROLE => 'other'))[0], 0, 'and once that is done');
is((test_as('areg', 'other'))[0], 0, 'it serves');

# ---- what is well formed, and will not work ----

sub tested
{
	my ($text, $mode) = @_;
	write_conf($text);
	chmod $mode, $file if $mode;
	return aregd(['-t', '-c', $file]);
}

my $chain = "[chain base]\nchain_id = 8453\nidentity_registry = 0x0000000000000000000000000000000000018004\n";
my $top = "database_url = $url\nmemcached_servers = none\n";
($exit, $output) = tested("$top$chain");
is($exit, 0, 'a registry of its own: 0') or diag($output);
unlike($output, qr/^warning: .*official/m, 'and no warning of an official one');
($exit, $output) = tested($top . $chain =~ s/^identity_registry.*/identity_registry = $identity/mr);
is($exit, 0, 'the registry of a real chain: 0');
like($output, qr/^warning: chain base: .*official registry of a real chain/m, 'and a warning');
my $shipped = do { open my $in, '<', root() . '/conf/areg.conf.in' or die; local $/; <$in> } =~ /^(\[chain .*)/ms ? $1 : die;
($exit, $output) = tested("$top$shipped");
is($exit, 0, 'the chains of areg.conf as shipped: 0') or diag($output);
unlike($output, qr/official/, 'and none claims to be a real one');
($exit, $output) = tested($top);
is($exit, 3, 'no chain: 3');
like($output, qr/^chains: none is configured/m, 'and it says so');
($exit, $output) = tested("$top${chain}rpc_url = https://node.example\n");
is($exit, 1, 'a node of a chain: 1, for this version does not read it');
like($output, qr/^chain base: rpc_url: this version does not read chains.*take rpc_url out/m, 'it says so');
unlike($output, qr/is right/, 'and does not call the configuration right');
($exit, $output) = tested("$top${chain}authority = chain\n");
is($exit, 1, 'the chain as the authority: 1, too');
like($output, qr/^chain base: authority = chain: this version does not read chains.*say authority = registry/m, 'it says so');
($exit, $output) = tested("$top${chain}authority = registry\n");
is($exit, 0, 'this registry as the authority: 0') or diag($output);
($exit, $output) = tested("${top}log_file = /nonexistent/areg.log\n$chain");
is($exit, 3, 'a log file in no folder: 3');
like($output, qr{^log_file: there is no folder /nonexistent}m, 'and it says which');
($exit, $output) = tested("${top}workers = 900\n$chain");
is($exit, 3, 'more workers than PostgreSQL has connections: 3');
like($output, qr/^database: .*9\d\d connections are needed.*max_connections/m, 'and it says how many');
($exit, $output) = tested("${top}sentry_dsn = https://abc\@sentry.example/1\n$chain", 0644);
is($exit, 3, 'a secret that everybody can read: 3');
like($output, qr/every user of this host can read it.*chmod 0640/m, 'and it says what to do');
($exit, $output) = tested("${top}sentry_dsn = https://abc\@sentry.example/1\n$chain", 0640);
is($exit, 0, 'only the group: 0') or diag($output);
for my $password ('qu/ux', 'qu@ux', 'q:u/ux', '%quux') {
	($exit, $output) = tested("database_url = postgresql://areg:$password\@db.invalid/areg\n$chain");
	is($exit, 1, 'a password that breaks its URI apart: 1');
	like($output, qr/percent-encode/, 'it says what to do');
	unlike($output, qr/ux\b|\bqu\b/, 'and no piece of the password');
}
($exit, $output) = tested("database_url = $url\nmemcached_servers = 127.0.0.1:11211 127.0.0.1:11212\n$chain");
is($exit, 1, 'blanks between servers of memcached: 1');
like($output, qr/memcached_servers: .*comma/, 'and it says what belongs there');

# ---- memory that holds keys ----

{
	# The health process and workers have it from the master; a program of another user shows the rest.
	my $own = Areg::Test->start(without => ['nginx']);
	for my $pid ($own->pid('aregd'), $own->worker_pids) {
		open my $in, '<', "/proc/$pid/limits" or die "limits: $!\n";
		like(join('', <$in>), qr/^Max core file size\s+0\s+0\s/m, 'no core file is written of a process');
	}
}
SKIP: {
	skip 'only root can run a program as another user', 1 if $> != 0 || build_dir() =~ /sanitized/;
	my $silent = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 1, Timeout => 30) or die "socket: $!\n";
	write_conf("database_url = postgresql://x\@127.0.0.1:" . $silent->sockport . "/x\nmemcached_servers = none\n"
		. "database_connect_timeout = 10s\n$chain");
	chmod 0644, $file;
	chmod 0711, $dir;
	my $pid = fork // die "fork: $!\n";
	if ($pid == 0) {
		open STDOUT, '>', "$dir/said";
		open STDERR, '>&', \*STDOUT;
		exec 'setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', build_dir() . '/aregd', '-t',
			'-c', $file or POSIX::_exit(127);
	}
	my $accepted = $silent->accept;
	ok($accepted, 'it asks the database') or diag(do { open my $in, '<', "$dir/said"; local $/; <$in> });
	is((stat "/proc/$pid/environ")[4], 0, 'nor can another process of the same user read its memory');
	kill 'KILL', $pid;
	waitpid $pid, 0;
}

# ---- the environment of the service being replaced ----

my ($default) = (aregd(['-h']))[1] =~ /FILE is (\S+)/;
SKIP: {
	skip "there is a configuration at $default", 8 if -e $default;
	my %old = (DATABASE_URL => $url, MEMCACHED_SERVERS => 'none', ENVIRONMENT => 'staging',
		ERC8004_BASE_IDENTITY_REGISTRY => $identity, ERC8004_BASE_REPUTATION_REGISTRY => $reputation);
	($exit, $output) = aregd(['-t'], %old);
	is($exit, 0, 'its variables suffice') or diag($output);
	like($output, qr/the environment is right/, 'and are named as the source');
	($exit, $output) = aregd(['-p'], %old);
	like($output, qr/^\[chain base\]\n(?:.+\n)*chain_id = 8453$/m, 'the chain is known by its name');
	like($output, qr/^reputation_registry = "?\L$reputation\E"?$/m, 'with both registries');
	like($output, qr/^environment = "?staging"?$/m, 'and so is the rest');
	($exit, $output) = aregd(['-t'], %old, ERC8004_BASE_IDENTITY_REGISTRY => '0x12');
	is($exit, 1, 'a bad one is refused');
	like($output, qr/ERC8004_BASE_IDENTITY_REGISTRY/, 'by its name');
	($exit, $output) = aregd(['-t'], %old, DATABASE_URL => '');
	like($output, qr/database_url.*DATABASE_URL|DATABASE_URL.*database_url/,
		'a missing one is asked for by the name that it has');
}

$areg->psql('UPDATE schema_migrations SET version = 9999
	WHERE version = (SELECT max(version) FROM schema_migrations)');
($exit, $output) = aregd(['-t', '-c', $areg->conf]);
is($exit, 3, 'a database of a newer release: 3');
like($output, qr/^database: .*9999 is newer/m, 'and it says so');

# ---- options ----

write_conf(<<"END" . $right =~ s/.*\n//r . "rpc_url = https://node.example/v3/sesame4\n");
database_url = postgresql://areg:sesame1\@db.example/areg
sentry_dsn = https://sesame2\@sentry.example/1
workers = 7
END
($exit, $output) = aregd(['-p', '-c', $file]);
is($exit, 0, '-p prints the configuration in force') or diag($output);
unlike($output, qr/sesame/, 'without its secrets');
like($output, qr/^workers = 7$/m, 'what the file says');
like($output, qr/^max_requests = 100000$/m, 'and what it leaves unsaid');
like($output, qr/db\.example/, 'and of a secret what is none');

for my $option ('-V', '--version') {
	($exit, $output) = aregd([$option]);
	is($exit, 0, "$option succeeds");
	like($output, qr/^areg \d+\.\d+\.\d+\S*\n\z/, 'and prints the version');
}
for my $option ('-h', '--help') {
	($exit, $output) = aregd([$option]);
	is($exit, 0, "$option succeeds");
	like($output, qr/-t .*check/, 'and explains the options');
}
for my $wrong (['-x'], ['--nonsense'], ['-c'], ['areg.conf']) {
	($exit, $output) = aregd($wrong);
	is($exit, 2, "aregd @$wrong: wrong usage");
	like($output, qr/^usage:/m, "aregd @$wrong: the right one is shown");
}

# ---- started by hand ----

($exit, $output) = aregd(['-c', $areg->conf]);
is($exit, 2, 'started without a listening socket it refuses');
like($output, qr/not a listening socket.*spawn-fcgi/, 'and says how to start it');
SKIP: {
	require POSIX;
	open my $master, '+<', '/dev/ptmx' or skip 'no terminal can be made', 2;
	my ($number, $unlock) = (pack('i', 0), pack('i', 0));
	# ioctl_tty(2): TIOCSPTLCK and TIOCGPTN, as on every Linux but alpha, mips, powerpc and sparc.
	ioctl $master, 0x40045431, $unlock and ioctl $master, 0x80045430, $number
		or skip 'no terminal can be made', 2;
	($exit, $output) = aregd(['-c', $areg->conf], stdin => '/dev/pts/' . unpack 'i', $number);
	is($exit, 2, 'started at a terminal it refuses');
	like($output, qr/spawn-fcgi/, 'and says how to start it');
}

done_testing();
