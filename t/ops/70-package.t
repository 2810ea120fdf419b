# SPDX-License-Identifier: Apache-2.0
# Installed like a native: what `make install` puts where, the unit of systemd started by hand with
# what it forbids, and the Debian package from its build to its purge in a clean Debian 12.
use strict;
use warnings;

use File::Basename qw(basename dirname);
use File::Find qw(find);
use File::Temp qw(tempdir);
use List::Util qw(sum0);
use POSIX qw(_exit);
use Test::More;

use lib dirname(__FILE__) . '/../lib';
use Areg::Test qw(root build_dir alive from_json json_text skip_without wait_until);

my $root = root();
my $build = build_dir();
my $as_root = $> == 0;
my $work = tempdir('areg-package-XXXXXX', TMPDIR => 1);
chmod 0755, $work;
my ($version) = text_of("$root/configure.ac") =~ /AC_INIT\(\[areg\], \[(.*?)\]\)/;
my @children; # that end with this test

$ENV{PATH} .= ':/usr/local/sbin:/usr/sbin:/sbin';
$ENV{LC_ALL} = 'C.UTF-8';
delete @ENV{qw(MAKEFLAGS MAKELEVEL MFLAGS)};

END {
	my $status = $?;
	if (defined $work) {
		kill KILL => $_ for @children; # unshare lets nothing else end it
		waitpid $_, 0 for @children;
		system 'rm', '-rf', $work;
	}
	$? = $status;
}

sub text_of
{
	my ($name) = @_;
	open my $in, '<', $name or die "$name: $!\n";
	local $/;
	return scalar <$in>;
}

sub write_file
{
	my ($name, $text) = @_;
	open my $out, '>', $name or die "$name: $!\n";
	print $out $text;
	close $out or die "$name: $!\n";
}

# Runs a command; returns its exit code and all that it printed.
sub run
{
	my (@command) = @_;
	my $pid = open(my $out, '-|') // die "fork: $!\n";

	if ($pid == 0) {
		open STDERR, '>&', \*STDOUT;
		open STDIN, '<', '/dev/null';
		exec { $command[0] } @command or do { print "$command[0]: $!\n"; _exit(127) };
	}
	local $/;
	my $text = <$out> // '';
	close $out;
	return ($? >> 8, $text);
}

sub run_ok
{
	my ($name, @command) = @_;
	my ($status, $said) = run(@command);
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	is($status, 0, $name) or diag(substr $said, -3000);
	return $said;
}

# A variable of the Makefile.
sub variable
{
	my ($name) = @_;
	my ($status, $value) = run('make', '-s', '-C', $build, '--eval', "areg-say:;\@echo \$($name)",
		'areg-say');

	die "make cannot say $name: $value" if $status != 0;
	chomp $value;
	return $value;
}

# What is in a folder, as sorted paths from it on; folders themselves are not named.
sub files_in
{
	my ($folder) = @_;
	my @files;

	find({ no_chdir => 1, wanted => sub { push @files, substr($_, 1 + length $folder) if -l || !-d } },
		$folder);
	return sort @files;
}

sub mode_of { return sprintf '%04o', (stat $_[0])[2] & 07777 }

# The values of a key in a unit, in order; a continued list of them is one.
sub unit_values
{
	my ($unit, $key) = @_;
	return $unit =~ /^\Q$key\E=(.*)$/mg;
}

# ---- make install ----

my %dir = map { $_ => variable($_) }
	qw(sbindir mandir sysconfdir localstatedir runstatedir pkgdatadir systemdsystemunitdir sysusersdir
	tmpfilesdir);
my $stage = "$work/stage";
my @install = ('make', '-C', $build, "DESTDIR=$stage");

run_ok('make install puts everything into a folder', @install, 'install');
my @missing = grep { !-s "$stage$_" } (
	(map { "$dir{sbindir}/$_" } qw(aregd aregctl areg-backup verify-deployment)),
	(map { "$dir{mandir}/$_" } qw(man5/areg.conf.5 man7/areg.7 man8/areg-backup.8 man8/aregd.8 man8/aregctl.8)),
	"$dir{sysconfdir}/areg/areg.conf", "$dir{sysconfdir}/logrotate.d/areg",
	(map { "$dir{systemdsystemunitdir}/$_" } qw(areg.service areg-backup.service areg-backup.timer
		areg-sweep.service areg-sweep.timer)),
	"$dir{sysusersdir}/areg.conf", "$dir{tmpfilesdir}/areg.conf",
	(map { "$dir{pkgdatadir}/$_" } qw(areg.conf nginx/areg.conf docs/index.html postgresql/areg.conf spawn-fcgi/aregd.init
		sql/0001_types.up.sql)));
is("@missing", '', 'programs, manual pages, configuration, unit and site are at their places');
is(mode_of("$stage$dir{sysconfdir}/areg/areg.conf"), '0640', 'the configuration is not for everybody');
is(mode_of("$stage$dir{pkgdatadir}/spawn-fcgi/aregd.init"), '0755', 'the init script can be run');

my @unfilled;
for my $file (grep { !/(?:aregd|aregctl)$/ } files_in($stage)) {
	push @unfilled, $file if text_of("$stage/$file") =~ /\@[a-z]+dir\@|\@socket\@|\@webgroup\@/;
}
is("@unfilled", '', 'no name of a folder was left out of them');

my $init = "$stage$dir{pkgdatadir}/spawn-fcgi/aregd.init";
run_ok("$_ is a shell script", 'sh', '-n', $_) for $init, map { "$root/debian/areg.$_" } qw(postinst postrm prerm);

my $unit_file = "$stage$dir{systemdsystemunitdir}/areg.service";
my $unit = text_of($unit_file);
my $aregd = "$dir{sbindir}/aregd";
my ($sweep_file, $timer_file) = map { "$stage$dir{systemdsystemunitdir}/areg-sweep.$_" } qw(service timer);
my ($backup_file, $nightly_file) = map { "$stage$dir{systemdsystemunitdir}/areg-backup.$_" } qw(service timer);
my $sweep = text_of($sweep_file);
my @start = split ' ', (unit_values($unit, 'ExecStart'))[0];
my @reload = split ' ', (unit_values($unit, 'ExecReload'))[0];
my ($socket) = "@start" =~ /-s (\S+)/;

is($socket, "$dir{runstatedir}/areg/aregd.sock", 'the unit listens where nginx looks');
like(text_of("$stage$dir{pkgdatadir}/nginx/http.conf"), qr/unix:\Q$socket\E /, 'as its configuration says');
like(text_of($timer_file), qr/^OnCalendar=hourly$/m, 'the timer sweeps every hour');
like(text_of($nightly_file), qr/^OnCalendar=\*-\*-\* /m, 'another backs up every day');
is(join(' ', map { unit_values(text_of($_), 'LimitCORE') } $unit_file, $sweep_file, $backup_file), '0 0 0',
	'none of them leaves a core, which would hold keys');
SKIP: {
	skip_without 'systemd-analyze is not installed', 4 if (run('systemd-analyze', '--version'))[0] != 0;
	# It looks for the programs, too.
	mkdir "$work/units";
	my @units = map { my $name = basename($_);
		write_file("$work/units/$name", text_of($_) =~ s{=\Q$dir{sbindir}/\E}{=$stage$dir{sbindir}/}gr);
		"$work/units/$name" } $unit_file, $sweep_file, $timer_file, $backup_file, $nightly_file;
	is((run('systemd-analyze', 'verify', '--man=no', @units))[1], '',
		'systemd finds no fault with the units');
	run_ok('and little exposed: ' . basename($_), 'systemd-analyze', 'security', '--offline=yes',
		'--threshold=20', '--no-pager', $_) for $unit_file, $sweep_file, $backup_file;
}
SKIP: {
	skip_without 'logrotate is not installed', 1 if (run('logrotate', '--version'))[0] != 0;
	my ($user, $group) = ((getpwuid $>)[0], (getgrgid $))[0]);
	write_file("$work/rotate", text_of("$stage$dir{sysconfdir}/logrotate.d/areg") =~ s/su areg adm/su $user $group/r);
	chmod 0644, "$work/rotate";
	unlike((run('logrotate', '-d', '-s', "$work/rotated", "$work/rotate"))[1], qr/error/i,
		'logrotate finds no fault with its part');
}

# ---- the unit, by hand ----

# A program for seccomp(2) that lets pass what the unit does; for this machine's numbers of calls.
sub filter_of
{
	my ($unit, %number) = @_;
	my %family = (AF_UNIX => 1, AF_INET => 2, AF_INET6 => 10);
	my ($error, $allow) = (0x50000, 0x7fff0000);
	my (%may, @code);
	my $op = sub { push @code, pack 'SCCL', @_ };
	my $equal = sub { $op->(0x15, $_[1], $_[2], $_[0]) };
	my $load = sub { $op->(0x20, 0, 0, $_[0]) };
	my $answer = sub { $op->(0x06, 0, 0, $_[0]) };
	my $calls;
	$calls = sub {
		my (undef, $said) = run('systemd-analyze', 'syscall-filter', '--no-pager', $_[0]);
		return map { /^\@/ ? $calls->($_) : $_ } $said =~ /^    ([@\w-]+)$/mg;
	};
	for my $list (unit_values($unit, 'SystemCallFilter')) {
		my $is_refusal = $list =~ s/^~//;
		for my $call (map { /^\@/ ? $calls->($_) : $_ } split ' ', $list) {
			$is_refusal ? delete $may{$call} : ($may{$call} = 1);
		}
	}
	$load->(4);
	$equal->(0xc000003e, 1, 0); # AUDIT_ARCH_X86_64
	$answer->(0x80000000);
	my @families = map { $family{$_} } split ' ', (unit_values($unit, 'RestrictAddressFamilies'))[0];
	$load->(0);
	$equal->($number{socket}, 0, 3 + @families);
	$load->(16);
	$equal->($families[$_], @families - $_, 0) for 0 .. $#families;
	$answer->($error | 97);
	$answer->($allow) if @families;
	die "memory that is written may be run\n" if (unit_values($unit, 'MemoryDenyWriteExecute'))[0] ne 'yes';
	$load->(0);
	$equal->($number{mmap}, 0, 4);
	$load->(32);
	$op->(0x54, 0, 0, 6); # writable and executable
	$equal->(6, 0, 1);
	$answer->($error | 1);
	$load->(0);
	$equal->($number{mprotect}, 0, 3);
	$load->(32);
	$op->(0x45, 0, 1, 4);
	$answer->($error | 1);
	$load->(0);
	for my $call (grep { defined } @number{sort keys %may}) {
		$equal->($call, 0, 1);
		$answer->($allow);
	}
	$answer->($error | 1);
	return @code;
}

# Puts the filter on itself and becomes the command: prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER).
my $under_filter = <<'END';
open my $in, '<', shift or die;
local $/;
my $code = <$in>;
my $program = pack 'S x![Q] P', length($code) / 8, $code;
syscall(157, 22, 2, $program) == 0 or die "seccomp: $!\n";
exec @ARGV or die "$ARGV[0]: $!\n";
END

# A command as systemd runs it for a unit: as that user, without a privilege, under the filter, and
# with a file system that can be written in these folders only.
sub as_unit
{
	my ($uid, $gid, $filter, $folders, @command) = @_;
	return ('env', '-i', "PATH=$ENV{PATH}", 'unshare', '-m', 'sh', '-ec', 'for folder in $1; do
			mount --bind "$folder" "$folder"
		done; mount -o remount,bind,ro /; shift; exec "$@"', 'sh', join(' ', @$folders), 'setpriv',
		"--reuid=$uid", "--regid=$gid", '--clear-groups', '--no-new-privs', '--bounding-set=-all',
		'perl', '-e', $under_filter, $filter, map { m{^/} ? "$stage$_" : $_ } @command);
}

SKIP: {
	my $numbers = (grep { -r } '/usr/include/x86_64-linux-gnu/asm/unistd_64.h',
		'/usr/include/asm/unistd_64.h')[0];
	skip 'only root can start it as systemd does', 1 if !$as_root;
	skip 'the numbers of system calls are known for x86_64 only', 1
		if (POSIX::uname())[4] ne 'x86_64' || !$numbers;
	skip_without 'systemd is not installed', 1 if (run('systemd-sysusers', '--version'))[0] != 0;

	my ($web_group) = text_of("$stage$dir{tmpfilesdir}/areg.conf") =~ m{^d \S+ 2750 areg (\S+)$}m;
	my $web_gid = getgrnam $web_group;
	skip "there is no group $web_group", 1 if !defined $web_gid;
	mkdir "$stage/etc";
	write_file("$stage/etc/group", "adm:x:4:\n$web_group:x:$web_gid:\n");
	run_ok('sysusers.d makes the user', 'systemd-sysusers', "--root=$stage", 'areg.conf');
	my ($uid, $gid, $shell) = text_of("$stage/etc/passwd") =~ /^areg:[^:]*:(\d+):(\d+):.*:(.*)$/m;
	like($shell, qr/nologin$/, 'who cannot log in');
	run_ok('tmpfiles.d makes its folders', 'systemd-tmpfiles', "--root=$stage", '--create', 'areg.conf');
	my ($run, $log) = ("$stage$dir{runstatedir}/areg", "$stage$dir{localstatedir}/log/areg");
	is(join(' ', mode_of($run), (stat $run)[4, 5]), "2750 $uid $web_gid",
		'one for the socket, which the web server can enter');
	is(join(' ', mode_of($log), (stat $log)[4, 5]), "2750 $uid 4",
		'one for the log, which administrators can read');
	my $conf = "$stage$dir{sysconfdir}/areg/areg.conf";
	is(join(' ', mode_of($conf), (stat $conf)[4, 5]), "0640 0 $gid", 'and lets it read its configuration');

	my $areg = Areg::Test->start(without => ['aregd']);
	my $sockets = dirname($areg->socket_path('aregd'));
	# The stack's servers are for their owner only; aregd is somebody else here.
	chmod 0755, "$sockets/pg";
	chmod 0777, "$sockets/pg/.s.PGSQL.5432", "$sockets/memcached";
	symlink "$stage$socket", "$sockets/aregd" or die "symlink: $!\n";
	my $settings = text_of($areg->conf) =~ s{^log_file.*$}{log_file = "$log/areg.log"}mr;
	for my $name (qw(control health)) {
		$settings =~ s{^${name}_socket.*$}{${name}_socket = "$run/$name.sock"}m;
		symlink "$run/$name.sock", "$sockets/$name" or die "symlink: $!\n";
	}
	my $secret = "$work/cache.secret";
	write_file($secret, 'only for the user of aregd');
	chown $uid, $gid, $secret and chmod 0600, $secret or die "$secret: $!\n";
	$settings =~ s{^cache_secret_file.*$}{cache_secret_file = "$secret"}m or die "areg.conf names no secret\n";
	write_file($conf, $settings);
	my %numbers = text_of($numbers) =~ /^#define __NR_(\w+) (\d+)$/mg;
	write_file("$work/filter", join '', filter_of($unit, %numbers));
	write_file("$work/sweep", join '', filter_of($sweep, %numbers));

	is((unit_values($unit, 'ProtectSystem'))[0], 'strict', 'the unit lets it write nowhere');
	is((unit_values($unit, 'ReadWritePaths'))[0], "$dir{runstatedir}/areg $dir{localstatedir}/log/areg",
		'but in those folders');
	is((unit_values($unit, 'CapabilityBoundingSet'))[0], '', 'and gives it no privilege');
	my $pid = fork // die "fork: $!\n";
	if ($pid == 0) {
		open STDIN, '<', '/dev/null';
		open STDOUT, '>', "$work/aregd.log";
		open STDERR, '>&', \*STDOUT;
		exec as_unit($uid, $gid, "$work/filter", [$run, $log], @start) or _exit(127);
	}
	push @children, $pid;
	ok(wait_until(20, sub { !alive($pid) || $areg->get('/health')->{status} == 200 }) && alive($pid),
		'started as the unit says, it serves through nginx')
		or diag(text_of("$work/aregd.log"), -e "$log/areg.log" ? text_of("$log/areg.log") : '');
	my $status = text_of("/proc/$pid/status");
	like($status, qr/^Uid:\t$uid\t$uid\t$uid\t$uid$/m, 'as its own user');
	like($status, qr/^NoNewPrivs:\t1\nSeccomp:\t2$/m, 'under the filter');
	like($status, qr/^CapBnd:\t0+$/m, 'without a privilege');
	is(join(' ', mode_of("$stage$socket"), (stat "$stage$socket")[4, 5]), "0660 $uid $web_gid",
		'its socket is open to the web server, and to nobody else');

	my $user = $areg->make_user;
	my $answer = $areg->post('/api/v1/agents/register', { chain => 'base',
		owner_address => $user->{wallet}, registration_file => { name => 'Hardened',
			description => 'Behind a unit.',
			type => 'https://eips.ethereum.org/EIPS/eip-8004#registration-v1' } },
		{ key => $user->{key} });
	is($answer->{status}, 201, 'it registers an agent') or diag($answer->{body});
	is($areg->get("/api/v1/agents/$answer->{json}{agent_uuid}")->{status}, 200, 'and finds it again');
	is($areg->get('/metrics')->{status}, 200, 'it tells its metrics');

	my ($status_code, $said) = run(as_unit($uid, $gid, "$work/filter", [$run, $log], @reload));
	is("$status_code $said", "0 reloaded: areg $version, generation 2\n", 'the reload of the unit says that it is done');
	ok(alive($pid), 'by the same process');
	is($areg->get('/health')->{status}, 200, 'and it serves');
	write_file($conf, "workers = many\n");
	($status_code, $said) = run(as_unit($uid, $gid, "$work/filter", [$run, $log], @reload));
	is($status_code, 2, 'the reload of a broken configuration fails');
	like($said, qr/areg\.conf:1: workers: /, 'and says why');
	write_file($conf, $settings =~ s{^database_url = .*}{database_url = postgresql:///areg?host=/nowhere}mr);
	($status_code, $said) = run(as_unit($uid, $gid, "$work/filter", [$run, $log], @reload));
	is($status_code, 3, 'so does that of one that cannot serve');
	like($said, qr/reload refused: database: /, 'and says why');
	is($areg->get('/health')->{status}, 200, 'it still serves');
	write_file($conf, $settings);
	($status_code, $said) = run(as_unit($uid, $gid, "$work/sweep", [],
		split ' ', (unit_values($sweep, 'ExecStart'))[0]));
	is($status_code, 0, 'what the timer starts succeeds') or diag($said);
	like($said, qr/^removed 0 sign-in challenges$/m, 'and says what it removed');
	is(join(' ', mode_of("$log/areg.log"), (stat "$log/areg.log")[4, 5]), "0640 $uid 4",
		'its log is where it should be');
	my $areg_log = text_of("$log/areg.log");
	like($areg_log, qr/"memcached[^"]*: /, 'it found memcached');
	unlike($areg_log, qr/not permitted|Permission denied|Read-only|not supported/,
		'and nothing was refused to it');
	kill TERM => $pid;
	ok(wait_until(30, sub { !alive($pid) }), 'it ends when it is told to');
	waitpid $pid, 0;
	is($?, 0, 'and says that all is well');
	@children = ();
}

# ---- make uninstall ----

my $again = "$work/again";
my ($etc, $share) = ("$again$dir{sysconfdir}", "$again$dir{pkgdatadir}");
# Files that somebody made, as make uninstall leaves them: with their places from /etc and the like on.
sub left { return join ' ', map { "/$_" } files_in($again) }
run('make', '-C', $build, "DESTDIR=$again", 'install');
run_ok('make uninstall succeeds', 'make', '-C', $build, "DESTDIR=$again", 'uninstall');
is(left(), '', 'and leaves no file behind');

# As README says: a copy of the site, edited and enabled; and a configuration that was edited.
run('make', '-C', $build, "DESTDIR=$again", 'install');
run('mkdir', '-p', map { "$again/etc/nginx/$_" } qw(sites-available sites-enabled conf.d));
my $site = text_of("$share/nginx/areg.conf") =~ s/areg\.example\.org/mine.example.org/gr;
write_file("$again/etc/nginx/$_", $site) for 'sites-available/areg', 'conf.d/another.conf';
write_file("$again/etc/nginx/conf.d/other.conf", "# include $dir{pkgdatadir}/nginx/app.conf;\nserver { }\n");
symlink '../sites-available/areg', "$again/etc/nginx/sites-enabled/areg" or die "symlink: $!\n";
write_file("$etc/areg/areg.conf", "# mine\n");
# What another version had installed.
write_file("$share/nginx/areg.conf", "# a site of before\n");
write_file("$share/areg.conf", "# a configuration of before\n");
my $said = run_ok('make install over another version', @install[0 .. 2], "DESTDIR=$again", 'install');
is(text_of("$etc/areg/areg.conf"), "# mine\n", 'the configuration is as it was edited');
is(text_of("$again/etc/nginx/sites-enabled/areg"), $site, 'and so is the site');
for my $name ('areg.conf', 'nginx/areg.conf') {
	like($said, qr{^ +diff -u \Q$dir{pkgdatadir}/$name.before $dir{pkgdatadir}/$name\E$}m, "how to see what is new in $name is said");
	like(text_of("$share/$name.before"), qr/of before/, 'and can be done');
}
$said = run_ok('make install over the same version', @install[0 .. 2], "DESTDIR=$again", 'install');
unlike($said, qr/diff -u/, 'says nothing of it');
$said = run_ok('make uninstall, with a site that is enabled', 'make', '-C', $build, "DESTDIR=$again", 'uninstall');
is(left(), join(' ', sort "$dir{sysconfdir}/areg/areg.conf", '/etc/nginx/another.conf.uninstalled',
	'/etc/nginx/conf.d/other.conf', '/etc/nginx/sites-available/areg'),
	'leaves what was edited, and nothing that nginx would read files of areg for');
like($said, qr{sites-enabled/areg\b.*another\.conf}s, 'and says what it took away');

# What an upgrade does that brings the secret: the group is there already, and nothing else gives it.
my $group = getgrgid((split ' ', $( )[0]);
run_ok('a secret for memcached is made', 'make', '-C', $build, "DESTDIR=$again", "SECRET_GROUP=$group", 'cache-secret');
is(mode_of("$etc/areg/cache.secret") . ' ' . getgrgid((stat _)[5]), "0640 $group", 'that areg can read, and not everybody');
is(-s "$etc/areg/cache.secret", 64, 'of 32 random bytes in hex');
run_ok('and where there is no such group', 'make', '-C', $build, "DESTDIR=$again", 'SECRET_GROUP=nobody-of-areg', 'cache-secret');
is(mode_of("$etc/areg/cache.secret"), '0600', 'only by root');
unlink "$etc/areg/cache.secret";

# ---- packaging agrees with the build ----

my $native = "$work/native";
run('make', '-C', $build, "DESTDIR=$native", 'prefix=/usr', 'sysconfdir=/etc', 'localstatedir=/var',
	'systemdsystemunitdir=/lib/systemd/system', 'install');
my @listed = grep { /\S/ } split /\n/, text_of("$root/debian/areg.install");
# debian/rules copies it.
my @made = ('etc/nginx/sites-available/areg', files_in($native));
my $covers = sub { my ($entry, $file) = @_; $file eq $entry || index($file, "$entry/") == 0 };
is(join(' ', grep { my $file = $_; !grep { $covers->($_, $file) } @listed } @made), '',
	'every file that is installed is in the package');
is(join(' ', grep { my $entry = $_; !grep { $covers->($entry, $_) } @made } @listed), '',
	'and the package expects no other');
is(join(' ', map { s{^debian/}{}r } sort grep { m{^debian/} } split ' ', variable('EXTRA_DIST')),
	join(' ', sort grep { !m{^(?:\.debhelper|areg|build|tmp)/|debhelper|substvars$|^files$} }
		files_in("$root/debian")),
	'make dist takes all of debian/ along');

like(text_of("$root/debian/changelog"), qr/\Aareg \(\Q$version\E-\d+\) /,
	'the package has the version of the sources');

my %section;
for (split /\n/, text_of("$root/scripts/packages")) {
	push @{ $section{$1} }, $2 if /^(\w+)\s+(\S+)/;
}
my $control = text_of("$root/debian/control");
# The names in a field of debian/control, the first of alternatives, without versions.
my $field = sub {
	my ($list) = $control =~ /^$_[0]:\n((?: .*\n)+)/m;
	return grep { !/[\$:]/ } map { /^ ([^\s,(]+)/ ? $1 : () } split /\n/, $list;
};
# What debhelper and build-essential bring; what only scripts need.
my %with_debhelper = map { $_ => 1 } qw(autoconf automake gcc libc6-dev make);
my %scripts_only = map { $_ => 1 } qw(ca-certificates curl openssl perl);
is(join(' ', sort grep { !/^(?:debhelper|dh-)/ } $field->('Build-Depends')),
	join(' ', sort grep { !$with_debhelper{$_} } @{ $section{build} }),
	'it is built with what scripts/packages lists');
is(join(' ', sort grep { $_ ne 'systemd' } $field->('Depends'), $field->('Recommends')),
	join(' ', sort grep { !$scripts_only{$_} } @{ $section{run} }), 'and run with it');

# ---- the package in a clean Debian 12 ----

my $holder; # a process whose namespaces are those of the clean root
my $clean = "$work/debian";

# Runs a shell command in the clean root, where there is only a loopback network;
# `online` is for apt.
sub inside
{
	my ($command, %option) = @_;
	return run('nsenter', '-t', $holder, '-m', '-p', $option{online} ? () : '-n', 'chroot',
		$clean, 'env', '-i', 'PATH=/usr/sbin:/usr/bin:/sbin:/bin', 'LC_ALL=C.UTF-8',
		'DEBIAN_FRONTEND=noninteractive', 'sh', '-c', $command);
}

sub inside_ok
{
	my ($name, $command, %option) = @_;
	my ($status, $said) = inside($command, %option);
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	is($status, 0, $name) or diag("$command\n", substr $said, -3000);
	return $said;
}

sub said_inside { my ($said) = (inside($_[0]))[1]; chomp $said; return $said }

# Status of a GET over TLS.
sub status_of
{
	my ($path) = @_;
	my (undef, $said) = run('nsenter', '-t', $holder, '-n', 'curl', '-sk', '-m', 10,
		'-o', '/dev/null', '-w', '%{http_code}', '--resolve',
		'areg.example.org:443:127.0.0.1', "https://areg.example.org$path");
	return $said;
}

# The sources as they are published, under $work/NAME, as that version; returns the package
# built from them. Another version than that of the sources is a later one, which adds a migration.
sub build_package
{
	my ($name, $as) = @_;
	my $tree = "$work/$name/tree";

	mkdir "$work/$name";
	run_ok("make dist gives the sources of version $as", 'make', '-C', $build, 'distdir', "distdir=$tree");
	make_later($tree, $as) if $as ne $version;
	run_ok("version $as is built from a clean tree", 'sh', '-c',
		'cd "$1" && dpkg-buildpackage -us -uc -b', 'sh', $tree);
	return glob "$work/$name/areg_*.deb";
}

sub make_later
{
	my ($tree, $as) = @_;
	my $log = text_of("$tree/debian/changelog");
	my ($signed) = $log =~ /^( -- .*)$/m;
	my $schema = @{ [glob "$tree/sql/*.up.sql"] } + 1;
	my $name = sprintf 'sql/%04d_later', $schema;

	write_file("$tree/debian/changelog",
		"areg ($as-1) bookworm; urgency=medium\n\n  * Later.\n\n$signed\n\n$log");
	write_file("$tree/configure.ac", text_of("$tree/configure.ac") =~ s/\[\Q$version\E\]/[$as]/r);
	write_file("$tree/Makefile.am", text_of("$tree/Makefile.am")
		=~ s/^(dist_sql_DATA = )/$1$name.up.sql $name.down.sql /mr);
	write_file("$tree/$name.up.sql", "-- A table.\n-- Safe under load: creates only.\n\nCREATE TABLE later (one int);\n");
	write_file("$tree/$name.down.sql", "DROP TABLE later;\n");
}

# debootstrap and apt in the clean root use the mirrors that this machine uses.
sub make_clean_root
{
	my (undef, $targets) = run('apt-get', 'indextargets', '--format', '$(REPO_URI) $(RELEASE)',
		'Created-By: Packages', 'Origin: Debian');
	my %sources = map { ($_ => 1) } grep { / bookworm/ } split /\n/, $targets;
	my ($mirror) = map { /^(\S+) bookworm$/ } sort keys %sources;
	my (undef, $settings) = run('apt-config', 'dump');

	return 'no mirror of Debian 12 among the sources of apt' if !$mirror;
	run_ok('a clean Debian 12 is made', 'debootstrap', '--variant=minbase', 'bookworm', $clean, $mirror);
	write_file("$clean/etc/apt/sources.list", join '', map { "deb $_ main\n" } sort keys %sources);
	write_file("$clean/etc/apt/apt.conf.d/90host",
		join "\n", grep { /^Acquire::(?!Languages)/ } split /\n/, $settings);
	run('cp', '-L', '/etc/resolv.conf', '/etc/hosts', "$clean/etc/");
	write_file("$clean/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n");
	chmod 0755, "$clean/usr/sbin/policy-rc.d";

	my $pid = fork // die "fork: $!\n";
	if ($pid == 0) {
		open STDIN, '<', '/dev/null';
		# Interface lo up: SIOCSIFFLAGS, IFF_UP | IFF_RUNNING. The last is init there, and reaps.
		exec 'unshare', '-mpnf', '--kill-child', 'sh', '-ec', 'mount -t proc proc "$1/proc"
			mount --rbind /dev "$1/dev"
			perl -MSocket -e \'socket S, AF_INET, SOCK_DGRAM, 0;
				my $lo = pack "a16 s x22", "lo", 0x41;
				ioctl S, 0x8914, $lo or die $!\'
			touch "$1/.ready"; exec perl -e \'$SIG{CHLD} = "IGNORE"; sleep 60 while 1\'',
			'sh', $clean or _exit(127);
	}
	push @children, $pid;
	wait_until(20, sub { -e "$clean/.ready" }) or die "no namespace for the clean root\n";
	unlink "$clean/.ready";
	($holder) = split ' ', text_of("/proc/$pid/task/$pid/children");
	return;
}

# A systemctl for the clean root, which does by hand what systemd would about areg's units. What needs
# no systemd that runs is left to the real one.
my $systemctl = <<'END';
#!/bin/sh
echo "$*" >>/tmp/systemctl.log
unit=/lib/systemd/system/areg.service
value()
{
	sed -n "s/^$1=+\{0,1\}//p" "$unit"
}
as_unit()
{
	exec setpriv --reuid="$(value User)" --regid="$(value User)" --clear-groups --no-new-privs --bounding-set=-all "$@"
}
runs()
{
	[ -r /tmp/aregd.pid ] && kill -0 "$(cat /tmp/aregd.pid)" 2>/dev/null
}
action=
name=
for word; do
	case $word in
	-*) ;;
	*) [ -z "$action" ] && action=$word || name=${word%.service} ;;
	esac
done
case "$action $name" in
'is-enabled '*) exec /usr/bin/systemctl --root=/ is-enabled "$name" ;;
'preset '*) exec /usr/bin/systemctl "$@" ;;
'is-active areg') runs || exit 3 ;;
'is-active '*) exit 3 ;;
'start areg')
	runs && exit
	$(value ExecStartPre)
	as_unit $(value ExecStart) </dev/null >/tmp/aregd.log 2>&1 &
	echo $! >/tmp/aregd.pid
	;;
'start areg-sweep.timer') touch /var/lib/systemd/timers/stamp-areg-sweep.timer ;;
'reload areg') runs && as_unit $(value ExecReload) ;;
'stop areg')
	runs || exit 0
	kill "$(cat /tmp/aregd.pid)"
	for i in $(seq 400); do
		runs || exit 0
		sleep 0.1
	done
	exit 1
	;;
esac
END

# The commands of a section of the runbook, with what is the host's put in.
sub runbook
{
	my ($page, $title, %mine) = @_;
	my ($section) = text_of("$root/docs/$page.md") =~ /^## \Q$title\E\n(.*?)(?=^## |\z)/ms;
	my @blocks = ($section // '') =~ /^```sh\n(.*?)^```/gms;

	for my $name (keys %mine) {
		s/^$name=.*/$name=$mine{$name}/m for @blocks;
	}
	return @blocks;
}

# What the running aregd says of itself.
sub status_inside { return from_json(said_inside('runuser -u areg -- aregctl --json status')) || {} }

# Everything in the clean root but what its other programs keep and log.
sub all_files
{
	my $others = join ' -o ', map { "-path $_" } qw(/proc /sys /dev /tmp /srv /run/nginx.pid /run/postgresql
		/var/cache /var/log/postgresql), map { "/var/lib/$_" } qw(apt logrotate nginx postgresql);
	return map { ($_ => 1) } split /\n/, said_inside("find / -xdev \\( $others \\) -prune -o -print");
}

# Clients that register and read over TLS until they are told to stop, each by curl with a new
# connection for every turn.
my ($stop, @clients);
use constant { CLIENTS => 3, READS => 6 };

sub start_load
{
	my ($key, $owner) = @_;
	my $turn = '';
	my %body = (chain => 'base', owner_address => $owner, registration_file => { name => 'Under load',
		description => 'Registered while the package is upgraded.',
		type => 'https://eips.ethereum.org/EIPS/eip-8004#registration-v1' });
	$stop = "$work/stop";
	write_file("$work/body", json_text(\%body));
	for my $path ('/agents/register', ('/agents?limit=3', '/me') x (READS / 2)) {
		$turn .= "next\n" if $turn ne '';
		$turn .= qq{url = "https://areg.example.org/api/v1$path"\nresolve = "areg.example.org:443:127.0.0.1"\n}
			. qq{silent\nshow-error\ninsecure\nmax-time = 30\noutput = "/dev/null"\n}
			. qq{header = "Authorization: Bearer $key"\nwrite-out = "%{method} $path %{http_code}\\n"\n};
		$turn .= qq{data-binary = "\@-"\nheader = "Content-Type: application/json"\n} if $path =~ /register/;
	}
	write_file("$work/turn", $turn);
	for my $client (1 .. CLIENTS) {
		my $pid = fork // die "fork: $!\n";
		if ($pid == 0) {
			open STDIN, '<', '/dev/null';
			open STDOUT, '>', "$work/client-$client";
			open STDERR, '>&', \*STDOUT;
			# Each registers agents of other names: the same one twice is refused.
			exec 'nsenter', '-t', $holder, '-n', 'sh', '-c', 'while [ ! -e "$1" ]; do
					n=$((n + 1))
					sed "s/Under load/& $$ $n/" "$3" | curl -q -K "$2"
				done', 'sh', $stop, "$work/turn", "$work/body" or _exit(127);
		}
		push @clients, $pid;
		push @children, $pid;
	}
}

# What was answered so far, a line for each request.
sub answers { return map { split /\n/, text_of($_) } glob "$work/client-*" }

# Waits until each client has gone on by some turns: what happens, happens under load.
sub load_goes_on
{
	my $more = answers() + 5 * CLIENTS * (1 + READS);
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	ok(wait_until(120, sub { answers() >= $more }), 'the load goes on');
}

sub stop_load
{
	write_file($stop, '');
	waitpid $_, 0 for @clients;
	@clients = ();
}

SKIP: {
	skip 'the package is built and installed with AREG_TEST_FULL=1 only', 1 if !$ENV{AREG_TEST_FULL};
	skip 'a clean root needs root', 1 if !$as_root;
	my $later = $version =~ s/(\d+)$/$1 + 1/er;
	my ($first) = build_package('first', $version);
	my ($second) = build_package('second', $later);
	my (undef, $lint) = run('lintian', '--fail-on', 'none', glob "$work/first/*.changes");
	unlike($lint, qr/^E:/m, 'lintian finds no error') or diag($lint);

	my $why = make_clean_root();
	skip $why, 1 if defined $why;
	run('mkdir', "$clean/srv/packages");
	run('cp', $first, $second, "$clean/srv/packages");
	my %package = map { /_(\Q$version\E|\Q$later\E)-1_/; ($1 => $_) } map { basename($_) } $first, $second;
	my $install = "apt-get install -q -y /srv/packages/$package{$version}";

	# What it needs stays when it is purged: so the difference is its own.
	inside_ok('apt finds its packages', 'apt-get update -q', online => 1);
	inside_ok('the package is installed with what it needs', $install, online => 1);
	inside('apt-get install -q -y --no-install-recommends curl logrotate openssl', online => 1);
	inside_ok('and purged again', 'dpkg --purge areg');
	unlink "$clean/usr/sbin/policy-rc.d";
	run('mkdir', '-p', "$clean/run/systemd", "$clean/var/lib/systemd/timers");
	my %before = all_files();
	write_file("$clean/usr/sbin/systemctl", $systemctl);
	chmod 0755, "$clean/usr/sbin/systemctl";
	run('mkdir', '-p', "$clean/run/systemd/system");

	inside_ok('the package is installed on a running host', $install);
	is(said_inside('dpkg -s areg | grep ^Status'), 'Status: install ok installed', 'it is configured');
	is(said_inside('stat -c "%a %U:%G" /etc/areg/areg.conf /run/areg /var/log/areg'),
		"640 root:areg\n2750 areg:www-data\n2750 areg:adm", 'configuration and folders have their owners');
	is(said_inside('ls /etc/nginx/sites-enabled'), 'default', 'no site was enabled');
	my @wanted = map { "/etc/systemd/system/$_" } 'multi-user.target.wants/areg.service',
		'timers.target.wants/areg-sweep.timer';
	is(said_inside("ls @wanted"), join("\n", @wanted), 'service and timer start with the host');
	is(said_inside('systemctl is-active areg; echo $?'), 0, 'and were started');

	# What README.Debian says.
	my @said = text_of("$clean/usr/share/doc/areg/README.Debian") =~ /^ {4}(\S.*)$/mg;
	inside_ok('PostgreSQL starts', 'pg_ctlcluster --skip-systemctl-redirect 15 main start');
	inside_ok('memcached starts', 'memcached -d -u memcache -l 127.0.0.1');
	inside_ok("as README.Debian says: $_", $_) for grep { /^runuser/ } @said;
	inside('mkdir /etc/areg/tls && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
		-subj /CN=areg.example.org -addext subjectAltName=DNS:areg.example.org -days 90 \
		-keyout /etc/areg/tls/key.pem -out /etc/areg/tls/cert.pem');
	inside_ok("as README.Debian says: $_", $_) for grep { /^ln/ } @said;
	inside_ok('nginx takes the site beside its own', 'nginx -t && nginx');
	my @mine = ('public_url = https://areg.example.org', 'log_file = /var/log/areg/areg.log',
		map { "limit_$_ = 50000 250000 250000 250000" } qw(register search read));
	inside(join '; ', map { "sed -i '1i $_' /etc/areg/areg.conf" } @mine);
	inside_ok("as README.Debian says: $_", $_) for grep { /^systemctl reload areg/ } @said;
	ok(wait_until(20, sub { status_of('/health') eq '200' }), 'started as the unit says, it serves over TLS')
		or diag(said_inside('cat /tmp/aregd.log /var/log/areg/areg.log'));
	is(status_of('/api/v1/agents'), 200, 'it answers from the database');
	is(status_of('/docs/'), 200, 'nginx serves the documentation');

	# The runbook, under load.
	my $verify = 'runuser -u areg -- verify-deployment https://areg.example.org --conf /etc/areg/areg.conf'
		. ' --backups /var/backups/areg --cacert /etc/areg/tls/cert.pem --connect 127.0.0.1';
	my $owner = '0x9ce7082814bDA389F3ba548BDf2626006279569c';
	inside("runuser -u areg -- aregctl user add --name load --tier enterprise --wallet $owner");
	my $key = said_inside("runuser -u areg -- aregctl key create --quiet --user $owner");
	start_load($key, $owner);
	load_goes_on();
	inside_ok('the runbook makes a backup', join "\n", runbook('runbook-backup', 'Back up'));
	like(inside_ok('verify-deployment, as it is installed, finds nothing wrong', $verify),
		qr/^ok version: \Q$version\E, as installed$/m, 'with the version that was installed');
	my %there = (package => "/srv/packages/$package{$later}", before => "/srv/packages/$package{$version}");
	my ($upgrade, $migrate) = runbook('runbook', 'Upgrade', %there);
	like(inside_ok('the runbook installs a later version', $upgrade),
		qr/^areg: the new version does not serve yet, the one before goes on/m, 'which says that it waits');
	my $status = status_inside();
	is($status->{version}, $version, 'the version of before serves');
	like($status->{reloads}{last_failure}, qr/: run aregctl migrate$/, 'and it is said what the later one waits for');
	load_goes_on();
	inside_ok('the runbook migrates and reloads', $migrate) or diag(said_inside('tail -n 20 /var/log/areg/areg.log'));
	is(status_inside()->{version}, $later, 'the later version serves');
	load_goes_on();
	like(inside_ok('verify-deployment finds nothing wrong', $verify), qr/^ok version: \Q$later\E, as installed$/m,
		'with the later version');
	my ($back, $down) = runbook('runbook', 'Roll back', %there);
	inside_ok('the runbook puts the version of before back', $back);
	is(status_inside()->{version}, $version, 'which serves, reloaded by the installation, with the later schema');
	load_goes_on();
	my $schema = () = glob "$root/sql/*.up.sql";
	inside_ok('the runbook undoes the migration', $down =~ s/--to \d+/--to $schema/r);
	like(inside_ok('verify-deployment finds nothing wrong', $verify), qr/^ok version: \Q$version\E, as installed$/m,
		'with the version of before');
	load_goes_on();
	stop_load();
	my %answered;
	$answered{$_}++ for answers();
	my $registered = $answered{'POST /agents/register 201'} // 0;
	my @failed = grep { !/^POST \S+ 201$|^GET \S+ 200$/ } sort keys %answered;
	diag(scalar(answers()), " requests under load, $registered of them registrations, ",
		sum0(@answered{@failed}), ' failed');
	is(join("\n", map { "$_: $answered{$_}" } @failed), '', 'no request failed in all that');
	is(said_inside('runuser -u areg -- psql -Atc "SELECT count(*) FROM erc8004_agents"'), $registered,
		'as many as were acknowledged are there');
	unlike(text_of("$clean/tmp/systemctl.log"), qr/(?:stop|restart) areg(?:\.service)?$/m, 'nothing stopped the service');
	inside_ok('it stops', 'systemctl stop areg');

	# Without systemd.
	inside('mv /usr/sbin/systemctl /tmp/systemctl; rmdir /run/systemd/system');
	my $init = '/usr/share/areg/spawn-fcgi/aregd.init';
	inside_ok('the init script starts it', "$init start");
	ok(wait_until(20, sub { status_of('/health') eq '200' }), 'and it serves');
	like(said_inside("$init status"), qr/^aregd runs, pid \d+$/, 'and it says so');
	inside_ok('logrotate rotates', 'logrotate -f /etc/logrotate.d/areg');
	ok(wait_until(10, sub { said_inside('grep -c reopened /var/log/areg/areg.log') eq '1' }), 'and it goes on in a new log')
		or diag(said_inside('ls -la /var/log/areg; cat /var/log/areg/*'));
	is(said_inside('stat -c "%a %U:%G" /var/log/areg/areg.log'), '640 areg:adm', 'which administrators can read');
	my $pid = said_inside('cat /run/areg/aregd.pid');
	inside_ok('an upgrade', "dpkg -i /srv/packages/$package{$version}");
	$status = status_inside();
	is("$status->{pid} $status->{generation}", "$pid 2", 'reloads it there, too');
	is(said_inside('head -n 5 /etc/areg/areg.conf; stat -c "%a %U:%G" /etc/areg/areg.conf'),
		join("\n", reverse(@mine), '640 root:areg'), 'the configuration is as it was');
	is(said_inside('find /etc/areg /etc/nginx /etc/logrotate.d -name "*.dpkg-*"'), '', 'and nobody was asked about it');
	inside_ok('the init script stops it', "$init stop");
	is(said_inside("$init status; echo \$?"), "aregd does not run\n3", 'and it says so');
	inside_ok('started once more without systemd', "$init start");
	$pid = said_inside('cat /run/areg/aregd.pid');
	inside_ok('the package is removed there', 'dpkg --remove areg');
	is(said_inside("kill -0 $pid 2>/dev/null; echo \$?"), 1, 'which stops aregd, too');
	inside_ok('and installed again', "dpkg -i /srv/packages/$package{$version}");

	inside('mkdir -p /run/systemd/system; mv /tmp/systemctl /usr/sbin/systemctl; systemctl start areg');
	is(said_inside('systemctl is-active areg; echo $?'), 0, 'once more by the unit');
	inside_ok('the package is removed', 'dpkg --remove areg');
	is(said_inside('systemctl is-active areg; echo $?'), 3, 'which stops it');
	is(said_inside('ls /etc/areg/areg.conf /usr/sbin/aregd /run/areg 2>/dev/null'), '/etc/areg/areg.conf',
		'its configuration stays, its program goes');
	inside_ok('nginx can go on without its site', 'nginx -t');
	inside_ok('the package is purged', 'dpkg --purge areg');
	inside('rm -r /usr/sbin/systemctl /run/systemd/system');
	my %after = all_files();
	is(join("\n", grep { !$before{$_} && !m{^/etc/areg(?:/tls|$)|^/var/backups/areg} } sort keys %after), '',
		'nothing is left of it but the certificate and the backups, which are the administrator\'s');
	is(join("\n", grep { !$after{$_} } sort keys %before), '', 'and nothing is missing');
	is(said_inside('runuser -u postgres -- psql -Atc "SELECT datname FROM pg_database WHERE datname = \'areg\'"'),
		'areg', 'nor is the database, which is never touched');
}

done_testing();
