#!/usr/bin/perl
# SPDX-License-Identifier: Apache-2.0
# Who may include whom: scripts/rooms finds the tree in order, and finds what breaks the rules.
use strict;
use warnings;

use File::Basename qw(dirname);
use File::Temp qw(tempdir);
use Test::More;

use lib dirname(__FILE__) . '/../lib';
use Areg::Test qw(root);

my $rooms = root() . '/scripts/rooms';

sub rooms
{
	my ($root, @arguments) = @_;
	my $said = `'$rooms' --root '$root' @arguments 2>&1`;
	return ($? >> 8, $said);
}

my ($exit, $said) = rooms(root(), '--check');
is($exit, 0, 'no room includes one that it may not, and no files include each other') or diag $said;

# Appends a line to one file of a copy, and returns what is found there.
sub with_line
{
	my ($file, $line) = @_;
	my $copy = tempdir('areg-rooms-XXXXXX', TMPDIR => 1, CLEANUP => 1);

	system('cp', '-R', root() . '/app', root() . '/lib', $copy) == 0 or die "no copy\n";
	open my $out, '>>', "$copy/$file" or die "$copy/$file: $!\n";
	print $out "$line\n";
	close $out or die "$copy/$file: $!\n";
	return rooms($copy, '--check');
}

for (['lib/buf.c', 'app/registry/settings.h', 'lib may not include registry'],
	['app/http/call.h', 'app/api/agents.h', 'http may not include api'],
	['app/process/worker.c', 'app/routes.h', 'process may not include app'],
	['app/registry/limits.h', 'app/cache/callers.h', 'registry may not include cache']) {
	my ($file, $included, $breach) = @$_;

	($exit, $said) = with_line($file, qq{#include "$included"});
	is($exit, 1, "$file includes $included: refused");
	like($said, qr/^\Q$file\E includes \Q$included\E: \Q$breach\E$/m, 'in these words');
}
($exit, $said) = with_line('lib/buf.h', '#include "lib/log.h"');
is($exit, 1, 'two files that include each other: refused');
like($said, qr{^a circle: lib/\w+ includes (?:lib/\w+ includes )*lib/\w+$}m, 'with the way round');
($exit, $said) = with_line('app/registry/limits.h', '#include "app/build.h"');
is($exit, 0, 'a room may include what make writes');
($exit, $said) = with_line('lib/buf.h', '#include "app/problem_list.h"');
is($exit, 1, 'lib may not: it knows nothing of agents');

for my $room (qw(ctl process api http cache registry)) {
	open my $in, '<', root() . "/app/$room/README" or fail("app/$room/README: $!"), next;
	my $text = do { local $/; <$in> };
	cmp_ok(($text =~ tr/\n//), '<=', 6, "app/$room/README can be read at the door");
	my ($may) = $text =~ /^May include: ([a-z, ]+)\./m;
	my ($from) = grep { /^\Q$room\E / } split /\n/, (rooms(root()))[1];
	my %may = map { $_ => 1 } split /, /, $may // '';
	is(join(' ', grep { !$may{$_} } $from =~ /(\w+) \(\d+\)/g), '', 'and names every room that it includes');
}

done_testing;
