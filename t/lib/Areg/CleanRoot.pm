# SPDX-License-Identifier: Apache-2.0
package Areg::CleanRoot;
# A clean Debian in a folder, with namespaces of its own, where tests install and run what a host would:
#
#     my $root = Areg::CleanRoot->make('trixie', "$work/trixie");  # dies, or
#     die $root unless ref $root;                                 # says why there can be none
#     my ($status, $said) = $root->inside('apt-get update', online => 1);
#
# Needs root. Its network is a loopback interface of its own, but for commands that are `online`. apt uses
# the mirrors that this machine uses. AREG_CLEAN_ROOTS may name a folder of roots made before, one for each
# suite, which are copied instead. MAKEFLAGS and CFLAGS of the environment hold there, too.
use strict;
use warnings;

use POSIX qw(_exit);

use Areg::Test qw(wait_until);

sub _run
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

sub write_file
{
	my ($self, $name, $text, $mode) = @_;
	open my $out, '>', "$self->{dir}$name" or die "$name: $!\n";
	print $out $text;
	close $out or die "$name: $!\n";
	chmod $mode, "$self->{dir}$name" if defined $mode;
}

sub text_of
{
	my ($self, $name) = @_;
	open my $in, '<', "$self->{dir}$name" or die "$name: $!\n";
	local $/;
	return scalar <$in>;
}

# make(suite, folder): the root, or a text that says why there can be none.
sub make
{
	my ($class, $suite, $dir) = @_;
	my $self = bless { dir => $dir, suite => $suite }, $class;
	my $why = $self->_files;

	return $why if defined $why;
	# No service starts by being installed.
	$self->write_file('/usr/sbin/policy-rc.d', "#!/bin/sh\nexit 101\n", 0755);
	$self->_namespaces;
	return $self;
}

sub _files
{
	my ($self) = @_;
	my ($dir, $suite) = @$self{qw(dir suite)};
	my $made = ($ENV{AREG_CLEAN_ROOTS} // '/nonexistent') . "/$suite";

	if (-d $made) {
		my ($status, $said) = _run('cp', '-a', '--reflink=auto', $made, $dir);
		return $status == 0 ? undef : $said;
	}
	my (undef, $targets) = _run('apt-get', 'indextargets', '--format', '$(REPO_URI) $(CODENAME) $(RELEASE)',
		'Created-By: Packages', 'Origin: Debian');
	my %sources; # of this machine's own release, as of that one
	for (split /\n/, $targets) {
		my ($uri, $own, $release) = split ' ';
		my ($base) = ($own // '') =~ /^(\w+)/ or next;
		$sources{"$uri $suite$1"} = 1 if ($release // '') =~ /^\Q$base\E(|-updates|-security)$/;
	}
	my ($mirror) = map { /^(\S+) \Q$suite\E$/ } sort keys %sources;
	return "no mirror of Debian among the sources of apt" if !$mirror;
	my ($status, $said) = _run('debootstrap', '--variant=minbase', $suite, $dir, $mirror);
	return "debootstrap $suite: " . substr $said, -500 if $status != 0;
	my (undef, $settings) = _run('apt-config', 'dump');
	$self->write_file('/etc/apt/sources.list', join '', map { "deb $_ main\n" } sort keys %sources);
	$self->write_file('/etc/apt/apt.conf.d/90host',
		join "\n", grep { /^Acquire::(?!Languages)/ } split /\n/, $settings);
	_run('cp', '-L', '/etc/resolv.conf', '/etc/hosts', "$dir/etc/");
	return;
}

sub _namespaces
{
	my ($self) = @_;
	my $dir = $self->{dir};
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
			'sh', $dir or _exit(127);
	}
	$self->{child} = $pid;
	wait_until(20, sub { -e "$dir/.ready" }) or die "no namespaces for the clean root\n";
	unlink "$dir/.ready";
	open my $children, '<', "/proc/$pid/task/$pid/children" or die "children: $!\n";
	($self->{holder}) = split ' ', <$children>;
}

# Runs a shell command there; returns its exit code and what it said.
sub inside
{
	my ($self, $command, %option) = @_;
	return _run('nsenter', '-t', $self->{holder}, '-m', '-p', $option{online} ? () : '-n', 'chroot',
		$self->{dir}, 'env', '-i', 'PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin', 'LC_ALL=C.UTF-8', 'HOME=/root',
		'DEBIAN_FRONTEND=noninteractive', (map { "$_=$ENV{$_}" } grep { defined $ENV{$_} } qw(MAKEFLAGS CFLAGS)),
		'bash', '-c', $command);
}

# Ends everything that runs there, and deletes it.
sub remove
{
	my ($self) = @_;

	if (my $child = delete $self->{child}) {
		kill KILL => $child; # unshare lets nothing else end it
		waitpid $child, 0;
	}
	_run('rm', '-rf', '--one-file-system', $self->{dir});
}

1;
