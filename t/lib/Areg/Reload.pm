# SPDX-License-Identifier: Apache-2.0
# A private registry whose program and configuration a test replaces, as an upgrade would.
#
#	my $areg = Areg::Reload->start(workers => 3);
#	$areg->configure(sub { s/^workers = .*/workers = 5/m });
#	is($areg->reload, '', 'more workers');
#
# Otherwise like Areg::Test.
package Areg::Reload;

use strict;
use warnings;

use Exporter qw(import);
use File::Temp qw(tempdir);
use IO::Select;
use IO::Socket::UNIX;

use Areg::Test qw(build_dir from_json wait_until);

our @ISA = qw(Areg::Test);
our @EXPORT_OK = qw(read_file write_file);

sub read_file
{
	my ($path) = @_;
	open my $in, '<:raw', $path or die "$path: $!\n";
	local $/;
	return scalar <$in>;
}

# In one step, as package managers do.
sub write_file
{
	my ($path, $bytes, $mode) = @_;
	open my $out, '>:raw', "$path.new" or die "$path.new: $!\n";
	print $out $bytes;
	close $out or die "$path.new: $!\n";
	chmod $mode, "$path.new";
	rename "$path.new", $path or die "$path: $!\n";
}

# As Areg::Test's, from a build folder of its own.
sub start
{
	my ($class, %option) = @_;
	my $build = tempdir('areg-build-XXXXXX', TMPDIR => 1, CLEANUP => 1);
	my $program = read_file(build_dir() . '/aregd');

	chmod 0755, $build;
	symlink build_dir() . "/$_", "$build/$_" or die "$_: $!\n" for qw(aregctl docs);
	write_file("$build/aregd", $program, 0755);
	my $self = $class->SUPER::start(%option, build => $build);
	@$self{qw(build program configuration)} = ($build, $program, read_file($self->conf));
	return $self;
}

# The folder of the program, and the program as it was built.
sub build { return $_[0]{build} }
sub program { return $_[0]{program} }

# Puts another program into its place; without bytes the one that was built.
sub install
{
	my ($self, $bytes) = @_;
	write_file("$self->{build}/aregd", $bytes // $self->{program}, 0755);
}

# Writes the configuration that it was started with, as the sub changes it in $_.
sub configure
{
	my ($self, $edit) = @_;
	local $_ = $self->{configuration};
	$edit->();
	write_file($self->conf, $_, 0600);
}

# The master's own words; aregctl would stumble over a broken configuration.
sub status
{
	my ($self) = @_;
	my $client = IO::Socket::UNIX->new(Peer => $self->socket_path('control')) or return {};
	my $answer = '';
	syswrite $client, "status\n";
	while (IO::Select->new($client)->can_read(5)) {
		sysread $client, $answer, 65536, length $answer or last;
	}
	return from_json($answer) || {};
}

# Reloads and waits for its end. Returns why it was refused, '' when it went well.
sub reload
{
	my ($self) = @_;
	my $before = $self->status->{reloads}{done};
	my $now;
	kill 'HUP', $self->pid('aregd');
	wait_until(60, sub {
		$now = $self->status;
		return ($now->{reloads}{done} // 0) > $before && $now->{state} ne 'retiring';
	}) or die "a reload has no end\n";
	return $now->{reloads}{last_failure} // '';
}

1;
