#!/usr/bin/perl
# SPDX-License-Identifier: Apache-2.0
# What runs on Debian 12 runs on Debian 13, with its PostgreSQL 17, nginx 1.26, json-c 0.18 and gcc 14: in
# a clean root the packages of scripts/packages are installed, scripts/quickstart starts a registry that
# answers, the sources build without a warning, and the unit and API tests pass.
#
# Always: that scripts/packages names no package of one version of LLVM only. The root: AREG_TEST_FULL=1.
use strict;
use warnings;

use File::Basename qw(dirname);
use File::Temp qw(tempdir);
use Test::More;

use lib dirname(__FILE__) . '/../lib';
use Areg::CleanRoot;
use Areg::Test qw(root from_json);

my $work = tempdir('areg-debian13-XXXXXX', DIR => '/var/tmp');
chmod 0755, $work;
my $clean;
END { my $status = $?; $clean->remove if ref $clean; system 'rm', '-rf', $work if defined $work; $? = $status }

open my $list, '<', root() . '/scripts/packages' or die "scripts/packages: $!\n";
my @packages = map { /^\w+\s+(\S+)/ ? $1 : () } grep { !/^#/ } <$list>;
is(join(' ', grep { /^(?:lib)?(?:clang|llvm|postgresql|php).*\d/ } @packages), '', 'packages are named as both releases name them');

sub inside_ok
{
	my ($name, $command, %option) = @_;
	my ($status, $said) = $clean->inside("cd /srv/areg && $command", %option);
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	is($status, 0, $name) or diag(substr $said, -6000);
	return $said;
}

SKIP: {
	skip 'Debian 13 is made with AREG_TEST_FULL=1 only', 1 if !$ENV{AREG_TEST_FULL};
	skip 'a clean root needs root', 1 if $> != 0;
	$clean = Areg::CleanRoot->make('trixie', "$work/trixie");
	is(ref $clean, 'Areg::CleanRoot', 'a clean Debian 13 is made') or do { diag($clean); last SKIP };
	mkdir "$clean->{dir}/srv/areg";
	# With the tools of the tests that make fetches, where they are here.
	system('sh', '-c', 'cd "$1" && { { git ls-files -z --cached --others --exclude-standard 2>/dev/null || find . -type f -print0; };'
		. ' find contracts/node_modules contracts/out t/openapi/node_modules \( -type f -o -type l \) -print0 2>/dev/null; }'
		. ' | tar -cf - --null -T - | tar -C "$2" -xf -', 'sh', root(), "$clean->{dir}/srv/areg");
	inside_ok('its packages are installed', q{apt-get update -q && apt-get install -q -y --no-install-recommends}
		. q{ $(awk '/^(build|run|unit|test) / { print $2 }' scripts/packages)}, online => 1);
	my $said = inside_ok('scripts/quickstart starts a registry', 'scripts/quickstart --dir /srv/run');
	my ($curl) = $said =~ m{^(curl \S+ \S+/health)$}m;
	is((from_json(inside_ok('the first line that it prints is run', $curl // 'false')) // {})->{status}, 'healthy', 'and it answers');
	inside_ok('nginx finds nothing to warn of', q{! grep -rh '\[warn\]' /srv/run/log/});
	inside_ok('it is removed again', 'scripts/quickstart remove --dir /srv/run');
	inside_ok('the sources build without a warning',
		'. scripts/lib.sh && mkdir -p build-13/check && build_tree "$PWD/build-13" "$PWD/build-13/check" --enable-werror');
	$said = inside_ok('the unit tests pass', 'make -C build-13 check');
	diag($said =~ /^(Files=.*)$/m);
	$said = inside_ok('the API tests pass', 'AREG_BUILD=$PWD/build-13 prove -j 3 t/api');
	diag($said =~ /^(Files=.*)$/m);
}

done_testing;
