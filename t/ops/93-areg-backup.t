#!/usr/bin/perl
# SPDX-License-Identifier: Apache-2.0
# areg-backup makes a backup that is whole, or says why not: it never leaves a broken one behind, and
# never deletes the last good one.
use strict;
use warnings;

use File::Basename qw(basename dirname);
use File::Temp qw(tempdir);
use Test::More;

use lib dirname(__FILE__) . '/../lib';
use Areg::Test qw(root build_dir wait_until);

my $scratch = tempdir('areg-backup-XXXXXX', TMPDIR => 1, CLEANUP => 1);
my ($bin, $dir) = map { mkdir "$scratch/$_"; "$scratch/$_" } qw(bin backups);
my $areg = Areg::Test->start(without => [qw(memcached aregd nginx)]);
$areg->make_user; # an entry in the audit log

$ENV{PATH} = join ':', $bin, $ENV{PATH}, reverse glob '/usr/lib/postgresql/*/bin';
$ENV{PGHOST} = $areg->socket_path('pg');
$ENV{PGUSER} = $areg->psql_value('SELECT rolname FROM pg_roles WHERE rolsuper');
my ($pg_dump) = grep { -x } map { "$_/pg_dump" } split /:/, $ENV{PATH};

sub program
{
	my ($name, $text) = @_;
	open my $out, '>', "$bin/$name" or die "$name: $!\n";
	print $out "#!/bin/sh\n$text\n";
	close $out or die "$name: $!\n";
	chmod 0755, "$bin/$name";
}

sub write_file
{
	my ($name, $text) = @_;
	open my $out, '>', $name or die "$name: $!\n";
	print $out $text;
	close $out or die "$name: $!\n";
}

sub backup { return Areg::Test::_run([root() . '/scripts/areg-backup', '--dir', $dir, @_]) }
sub files { return join ' ', map { basename($_) } sort glob "$dir/*" }

# The names have a second in them.
sub next_second { my $now = time; wait_until(5, sub { time > $now }) }

program(aregctl => "exec '" . build_dir() . "/aregctl' \"\$@\"");
my $made = backup();
is($made->{exit}, 0, 'it makes a backup') or diag($made->{stderr});
like(files(), qr/\Aareg-\d{8}T\d{6}Z\.dump areg-\d{8}T\d{6}Z\.dump\.head\z/, 'of two files');
my ($first) = map { basename($_) } glob "$dir/*.dump";
like($made->{stdout}, qr{^\Q$dir/$first\E: \d+ bytes, audit head \d+:[0-9a-f]{64}$}, 'and says which, how large, and the head');
is((stat "$dir/$first")[2] & 07777, 0640, 'it is for its owner to write, and for its group to read');
my $all_good = files();

sub is_refused
{
	my ($name, $why, @arguments) = @_;
	next_second();
	my $run = backup(@arguments);
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	subtest $name => sub {
		is($run->{exit}, 1, 'no backup was made');
		like($run->{stderr}, $why, 'and it is said why');
		is(files(), $all_good, 'nothing is left of it, and the one of before stays');
	};
}

# ---- what goes wrong ----

is_refused('no database of that name', qr/database "nowhere" does not exist/, '--keep', 1, '--database', 'postgresql:///nowhere');
is_refused('a role that is not there', qr/role "nobody" does not exist.*runuser -u postgres -- areg-backup/s,
	'--keep', 1, '--database', 'postgresql:///areg?user=nobody');
is_refused('a database of something else', qr/audit|no table/, '--keep', 1, '--database', 'postgresql:///postgres');
is_refused('no folder', qr/no folder.*install -d -o postgres/s, '--dir', "$dir/nowhere");
program(pg_dump => 'echo half of it >"${2#--file=}"; echo "pg_dump: error: no space left" >&2; exit 1');
is_refused('a dump that fails', qr/no space left.*pg_dump failed/s, '--keep', 1);
program(pg_dump => "'$pg_dump' \"\$@\" && : >\"\${2#--file=}\"");
is_refused('a dump of no bytes', qr/wrote nothing/, '--keep', 1);
program(pg_dump => "'$pg_dump' \"\$@\" && truncate -s -2000 \"\${2#--file=}\"");
is_refused('a dump that is cut off', qr/cannot be read again|damaged/, '--keep', 1);
program(pg_dump => "exec '$pg_dump' --exclude-table-data=audit_seals \"\$@\"");
is_refused('a dump without a table', qr/holds no table audit_seals/, '--keep', 1);
unlink "$bin/pg_dump";
program(aregctl => "'" . build_dir() . "/aregctl' \"\$@\" >/dev/null && echo head: 7:" . 'ab' x 32);
is_refused('a dump of before the head', qr/does not hold the head/, '--keep', 1);
program(aregctl => "exec '" . build_dir() . "/aregctl' \"\$@\"");
open my $lock, '>', "$dir/.lock" or die "lock: $!\n";
flock $lock, 2 or die "flock: $!\n";
is_refused('two at once', qr/another areg-backup is at work/, '--keep', 1);
close $lock;

is(backup('--keep', 0)->{exit}, 2, 'keeping none is a wrong call');
is(backup('--nonsense')->{exit}, 2, 'so is an option that it does not know');

# ---- what is deleted ----

# As a run that was killed leaves it, and somebody's own file.
write_file("$dir/areg-20200101T000000Z.dump.partial", 'half');
write_file("$dir/notes", 'mine');
for my $n (2 .. 3) {
	next_second();
	is(backup('--keep', 2)->{exit}, 0, "backup $n");
}
is(scalar(() = glob "$dir/*.dump"), 2, 'two are kept');
is(scalar(() = glob "$dir/*.head"), 2, 'with their heads');
ok(!-e "$dir/$first", 'the oldest is gone');
ok(!-e "$dir/areg-20200101T000000Z.dump.partial", 'and so is half a backup of long ago');
ok(-e "$dir/notes", 'but nothing else');

# Somebody empties the database: what is backed up now must not push out what was good.
write_file("$dir/areg-20200101T000000Z.dump", 'x' x 5_000_000);
write_file("$dir/areg-20200101T000000Z.dump.head", "1:00\n");
next_second();
my $small = backup('--keep', 1);
is($small->{exit}, 3, 'a backup of less than half the size wants to be looked at');
like($small->{stderr}, qr/less than half as large.*no older backup was deleted/s, 'which it says');
is(scalar(() = glob "$dir/*.dump"), 4, 'it is there, and all others, too');
unlink glob "$dir/areg-20200101*";

$areg->psql('ALTER TABLE audit_log DISABLE TRIGGER USER; UPDATE audit_log SET actor = \'nobody\' WHERE id = (SELECT min(id) FROM audit_log);'
	. ' ALTER TABLE audit_log ENABLE TRIGGER USER');
next_second();
my $tampered = backup('--keep', 1);
is($tampered->{exit}, 3, 'where the audit log was changed, the backup wants to be looked at');
like($tampered->{stderr}, qr/the audit log does not verify/, 'which it says');
is(scalar(() = glob "$dir/*.dump"), 4, 'it is there, and all others, too');
is(scalar(() = glob "$dir/*.head"), 3, 'but without a head: it does not count as good');

done_testing;
