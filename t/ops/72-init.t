#!/usr/bin/perl
# SPDX-License-Identifier: Apache-2.0
# A host without systemd: the init script makes the folders of aregd, says why aregd does not start, and
# stops what it started.
use strict;
use warnings;

use File::Basename qw(dirname);
use File::Copy qw(copy);
use File::Temp qw(tempdir);
use Test::More;

use lib dirname(__FILE__) . '/../lib';
use Areg::Test qw(root build_dir wait_until);

plan skip_all => 'only root can become the user that aregd runs as' if $> != 0;

my $work = tempdir('areg-init-XXXXXX', TMPDIR => 1);
chmod 0755, $work;
# A user with a group of its own name, as areg has.
my ($group) = (getgrgid((getpwnam 'daemon')[3]))[0];
my %mine = (user => 'daemon', web_group => $group, log_group => $group, rundir => "$work/run", logdir => "$work/log",
	conf => "$work/areg.conf", daemon => "$work/aregd");
END { my $status = $?; if (defined $work) { system "$work/init stop >/dev/null 2>&1"; system 'rm', '-rf', $work } $? = $status }

sub write_file
{
	my ($name, $text) = @_;
	open my $out, '>', $name or die "$name: $!\n";
	print $out $text;
	close $out or die "$name: $!\n";
}

sub init
{
	my $said = `$work/init $_[0] 2>&1`;
	return ($? >> 8, $said);
}

copy(build_dir() . '/aregd', "$work/aregd") or die "aregd: $!\n";
chmod 0755, "$work/aregd";
open my $in, '<', build_dir() . '/conf/spawn-fcgi/aregd.init' or die "aregd.init: $!\n";
my $script = do { local $/; <$in> };
for my $name (keys %mine) {
	$script =~ s/^$name=\S*/$name=$mine{$name}/m or die "aregd.init does not set $name\n";
}
write_file("$work/init", $script);
chmod 0755, "$work/init";

my $right = qq{database_url = "postgresql:///areg?host=$work/nowhere"\nmemcached_servers = none\nworkers = 1\nlog_file = $work/log/areg.log\n}
	. qq{control_socket = $work/run/control.sock\nhealth_socket = $work/run/health.sock\npublic_url = https://areg.example.org\n}
	. do { open my $sample, '<', root() . '/conf/areg.conf.in' or die; local $/; <$sample> =~ /^(\[chain .*)/ms ? $1 : '' };

write_file($mine{conf}, "workers = many\n$right");
my ($status, $said) = init('start');
is($status, 1, 'a configuration that is wrong does not start');
like($said, qr/areg\.conf:1: workers: /, 'and the line that is wrong is named');
is((init('status'))[0], 3, 'nothing runs');

write_file($mine{conf}, $right);
($status, $said) = init('start');
is($status, 0, 'without its database aregd starts') or diag($said);
like($said, qr/aregd starts all the same/, 'and it is said that it waits');
for my $name (qw(run log)) {
	my @stat = stat "$work/$name";
	is(sprintf('%o %s', $stat[2] & 07777, (getpwuid $stat[4])[0] // ''), '2750 daemon', "the folder $name was made for it");
}
ok(wait_until(20, sub { -s "$work/log/areg.log" }), 'where its log is');
($status, $said) = init('status');
is($status, 0, 'it runs');
my ($pid) = $said =~ /pid (\d+)/;
is((init('stop'))[0], 0, 'it is stopped');
ok(!kill(0, $pid // 0), 'and has ended');

done_testing;
