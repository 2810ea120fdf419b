#!/usr/bin/perl
# SPDX-License-Identifier: Apache-2.0
# What is built is built again when what it depends on changes: a new migration, a new version. And
# `make check` says what it lacks.
use strict;
use warnings;

use File::Basename qw(dirname);
use File::Temp qw(tempdir);
use Test::More;

use lib dirname(__FILE__) . '/../lib';
use Areg::Test qw(root build_dir skip_without);

my $work = tempdir('areg-build-XXXXXX', TMPDIR => 1, CLEANUP => 1);
my $copy = "$work/build";
delete @ENV{qw(MAKEFLAGS MAKELEVEL MFLAGS)};
$ENV{LC_ALL} = 'C.UTF-8';

sub edit
{
	my ($name, $edit) = @_;
	open my $in, '<', $name or die "$name: $!\n";
	local $_ = do { local $/; <$in> };
	$edit->() or die "$name does not hold what is to be changed\n";
	close $in;
	open my $out, '>', $name or die "$name: $!\n";
	print $out $_;
	close $out or die "$name: $!\n";
}

# Runs make in the copy of the build; returns its exit code and what it said.
sub make
{
	my $said = `make -C '$copy' V=1 @_ 2>&1`;
	return ($? >> 8, $said);
}

# The objects among those that are compiled again.
sub compiled
{
	my ($status, $said) = make(@_);
	diag($said) if $status != 0;
	return join ' ', sort grep { $said =~ /-c -o \Q$_\E / } @_;
}

# Without what tests leave in it.
mkdir $copy;
is(system("cd '" . build_dir() . "' && find . -name pg-template-\\* -prune -o -name check -prune -o -name fuzz -prune "
	. "-o \\( -type f -o -type d \\) -print0 | tar -cf - --null --no-recursion -T - | tar -C '$copy' -xf -"), 0,
	'a build is copied, with its times');
my @schema = qw(app/cache/memcached_answers.o app/process/backend_checks.o);
my @version = qw(app/process/health.o app/describe.o);
my @neither = qw(lib/arena.o);
make(@schema, @version, @neither); # whatever was changed in the sources before
is(compiled(@schema, @version, @neither), '', 'where nothing changed, nothing is compiled');

# Automake writes the list of migrations from Makefile.am to Makefile.
edit("$copy/Makefile", sub { s{^(dist_sql_DATA = )}{$1sql/9999_later.up.sql sql/9999_later.down.sql }m });
is(compiled(@schema, @neither), "@schema", 'a new migration compiles what knows the schema, and nothing else');
is(compiled(@schema, @neither), '', 'once');

# The list of problems: a copy of it, so that it can be changed.
system('cp', root() . '/docs/problems', "$work/problems") == 0 or die "no copy\n";
edit("$copy/Makefile", sub { s{^PROBLEMS = .*}{PROBLEMS = $work/problems}m });
my @problems = qw(app/problem_list.o app/api/accounts.o);
make(@problems);
edit("$work/problems", sub { s/^title: .*/title: Another title/mg });
is(compiled(@problems, @neither), '', 'another title of a problem compiles nothing');
edit("$work/problems", sub { s/^(code: invalid_address\n)status: 400/$1status: 400, 422/m });
my ($failed, $why) = make('app/api/accounts.o');
isnt($failed, 0, 'a problem with a second status must be named with its status');
like($why, qr/PROBLEM_INVALID_ADDRESS\b.* undeclared/, 'the compiler says where');
edit("$work/problems", sub { s/^code: invalid_address$/code: invalid_adress/m; s/^status: 400, 422/status: 400/m });
($failed, $why) = make('app/api/accounts.o');
isnt($failed, 0, 'a misspelt code does not compile');
like($why, qr/PROBLEM_INVALID_ADDRESS\b.* undeclared/, 'and the compiler says where');
edit("$work/problems", sub { s/^code: invalid_adress$/code: invalid_address/m });
is(compiled(@problems, @neither), join(' ', sort @problems),
	'a change of the list compiles what knows problems, and nothing else');
is(compiled(@problems, @neither), '', 'once');

edit("$copy/config.status", sub { s/\b0\.1\.0\b/0.1.987/g });
utime undef, undef, "$copy/config.status";
is(compiled(@version), join(' ', sort @version), 'another version compiles what tells the version');
is(compiled(@version), '', 'once');
make('man/areg.7');
open my $page, '<', "$copy/man/areg.7" or die "man/areg.7: $!\n";
like(join('', <$page>), qr/0\.1\.987/, 'and fills in the manual pages anew');

# Somebody who has built by README, but has no cmocka. pkg-config of a host without it says the same.
open my $pkg_config, '>', "$work/pkg-config" or die "pkg-config: $!\n";
print $pkg_config "#!/bin/sh\ncase \" \$* \" in *cmocka*) exit 1 ;; esac\nexec pkg-config \"\$\@\"\n";
close $pkg_config;
chmod 0755, "$work/pkg-config";
my ($status, $said) = make("PKG_CONFIG='$work/pkg-config'", 't/unit/test_arena');
isnt($status, 0, 'without cmocka no unit test is built');
like($said, qr/apt-get install libcmocka-dev\n.*make check again/, 'make says which package to install, and what then');
unlike($said, qr/-c -o /, 'before it compiles anything');
SKIP: {
	skip_without 'cmocka is not installed', 1 if system('pkg-config --exists cmocka') != 0;
	($status, $said) = make('t/unit/test_arena');
	is($status, 0, 'once it is installed, make goes on without a second configure') or diag($said);
}

# cmocka prints "not ok 1 # SKIP" for a test that calls skip(), which prove counts as failed.
is(`grep -lE '\\bskip\\(\\)' @{[ root() ]}/t/unit/*.c`, '', 'no unit test skips itself');

done_testing;
