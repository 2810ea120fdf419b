# SPDX-License-Identifier: Apache-2.0
# scripts/bench: what it prints is right by its own measurements, it measures every subject, and it
# leaves nothing behind. How fast anything is, no test can say on a shared machine.
use strict;
use warnings;

use File::Basename qw(dirname);
use File::Temp;
use Test::More;

use lib dirname(__FILE__) . '/../lib';
use Areg::Test qw(build_dir root);

my @subjects = qw(nginx constant row write stats agent search register feedback mixed);

# Runs a command of the shell with bytes for it to read; returns exit code, stdout and stderr.
sub run
{
	my ($command, $bytes) = @_;
	my ($in, $errors) = (File::Temp->new, File::Temp->new);

	print $in $bytes // '';
	close $in;
	local $ENV{AREG_BUILD} = build_dir();
	my $output = qx(cd '${\ root()}' && $command <'$in' 2>'$errors');
	my $exit = $? >> 8;
	local $/;
	return ($exit, $output, scalar readline($errors));
}

# The rows of a Markdown table as lists of cells, by what stands in the first one.
sub table_of
{
	my ($text) = @_;
	my @rows = map { [split /\s*\|\s*/, s/^\|\s*//r] } grep { /^\| / } split /\n/, $text;
	return { map { $_->[0] => $_ } @rows[2 .. $#rows] };
}

my ($exit, $output, $errors) = run('scripts/bench --help');
is($exit, 0, 'scripts/bench says how it is used');
like($output, qr/^  $_ /m, "$_ is explained") for @subjects, qw(hot memory keepalive kept micro abuse audit);

($exit, $output, $errors) = run('scripts/bench stats speed');
is($exit, 2, 'an unknown subject is refused');
like($errors, qr/unknown argument: speed$/m, 'and named');
($exit, $output, $errors) = run('scripts/bench --agents none');
is($exit, 2, 'so is a number that is none');

subtest 'a table shows medians, spreads and ratios of its measurements' => sub {
	my $fixture = <<'END';
1 constant nginx 1000 0 2 1000 4000 5000 9000 30000000 1000000 9000000 300
2 constant nginx 2000 0 2 2000 5000 6000 9000 60000000 2000000 18000000 400
3 constant nginx 4000 0 2 9000 6000 7000 9000 120000000 4000000 36000000 500
1 stats constant 900 0 2 1500 2500 3500 9000 36000000 900000 8100000 1024
3 stats constant 2000 0 2 2500 3500 4500 9000 80000000 2000000 18000000 3072
2 stats constant 1600 0 2 3500 4500 5500 9000 64000000 1600000 14400000 2048
1 open:read - 10 2 1 7 8 9 9 - - - -
1 separate/8+4 - 10 0 1 7 8 9 1000 - - - -
2 separate/8+4 - 10 0 1 7 8 9 3000 - - - -
END
	my ($exit, $output) = run('t/bench/table', $fixture);
	my $rows = table_of($output);

	is($exit, 0, 'measurements become a table');
	is("@{ $rows->{'bare: 600 bytes (b)'} }[1 .. 11]",
		'1000 (500–2000) 2.00 5.00 6.00 9.00 30.0 1.0 9.0 0.4 – –',
		'medians of the rounds in any order; a ceiling that was not measured gives no ratio');
	is("@{ $rows->{'stats, cached'} }[1 .. 11]",
		'800 (450–1000) 2.50 3.50 4.50 9.00 40.0 1.0 9.0 2.0 0.80 (0.50–0.90) 0.80 (0.80–0.80)',
		'a ratio is that of the same round');
	is("@{ $rows->{reads} }[1 .. 11]", '8 (8–8) 0.01 0.01 0.01 0.01 – – – – – –',
		'failed requests do not count as answered, and what was not measured is left out');
	is($rows->{'a connection for each, 8 workers, 4 search'}[5], '3.00',
		'the longest is that of all rounds, and a name says how it was measured');
	like($output, qr/^2 requests of “reads” failed\.$/m, 'and the table says that they failed');
	($exit, $output) = run('t/bench/table', "1 search+slow - 10 0 1 7 8 9 9 - - - -\n");
	like($output, qr/^\| search, from the database, beside 500 slow bodies \|/m, 'an abuser is named');
	isnt((run('t/bench/table', "1 stats constant 5 5 1 1 1 1 1 - - - -\n"))[0], 0,
		'a subject of which every request failed has no figures');
	isnt((run('t/bench/table', "1 stats constant\n"))[0], 0, 'nor has half a line');
};

subtest 'every subject can be measured in a second' => sub {
	my ($exit, $output, $errors) = run("scripts/bench --rounds 1 --seconds 1 --agents 200 --workers 2 @subjects");
	my $rows = table_of($output);
	my %title = (nginx => qr/\(a\)/, constant => qr/\(b\)/, row => qr/\(c\)/, write => qr/\(d\)/,
		map { $_ => qr/^$_/ } qw(stats agent search register feedback mixed));
	my %has_ratio = map { $_ => 1 } qw(constant stats agent feedback);

	is($exit, 0, 'a run ends well') or diag($errors);
	unlike($output, qr/failed/, 'no request failed');
	for my $subject (@subjects) {
		my ($row) = map { $rows->{$_} } grep { $_ =~ $title{$subject} } keys %$rows;

		ok($row, "$subject has its row") or next;
		like($row->[1], qr/^[1-9]\d* \(/, 'with requests a second');
		like($row->[2], qr/^\d+\.\d\d$/, 'and how long they took');
		like($row->[6], $subject eq 'nginx' ? qr/^–$/ : qr/^[1-9]\d*\.\d$/,
			$subject eq 'nginx' ? 'without workers' : 'and what they cost a worker');
		like($row->[10], $has_ratio{$subject} ? qr/^\d+\.\d\d \(/ : qr/^–$/,
			$has_ratio{$subject} ? 'and its ratio to its ceiling' : 'but no ratio, as it has no ceiling');
	}
	my $bare = build_dir() . '/t/bench/bare';
	is_deeply([grep { (readlink($_) // '') eq $bare } glob '/proc/[0-9]*/exe'], [],
		'and no program is left running');
};

subtest 'kept connections and the micro-cache are measured beside what they are compared with' => sub {
	my ($exit, $output, $errors) = run('scripts/bench --rounds 1 --seconds 1 --agents 200 keepalive micro');
	my $rows = table_of($output);

	is($exit, 0, 'a run ends well') or diag($errors);
	unlike($output, qr/failed/, 'no request failed');
	for my $how ('4 workers', '8 workers', '16 workers', '8 workers, 8 search') {
		ok($rows->{"a connection for each, $how"}, "$how: without");
		like($rows->{"kept connections, $how"}[10], qr/^\d+\.\d\d \(/, 'and with kept connections, and the ratio');
	}
	like($rows->{'micro-cache'}[10], qr/^\d+\.\d\d \(/, 'the micro-cache has its ratio to a constant of nginx');
	cmp_ok($rows->{'micro-cache'}[6], '<', 1, 'and leaves the workers alone');
};

subtest 'requests come at a steady rate in an open loop' => sub {
	plan skip_all => 'AREG_TEST_FULL=1 runs it' unless $ENV{AREG_TEST_FULL};
	my ($exit, $output, $errors) = run('scripts/bench --rounds 1 --seconds 2 --agents 200 --open-loop 50');
	my $rows = table_of($output);

	is($exit, 0, 'a run ends well') or diag($errors);
	like($rows->{all}[1], qr/^(4[0-9]|50) /, 'as many were answered as were due');
	ok($rows->{$_}, "$_ have times of their own") for qw(reads searches);
};

subtest 'two sizes are measured beside each other' => sub {
	plan skip_all => 'AREG_TEST_FULL=1 runs it' unless $ENV{AREG_TEST_FULL};
	my ($exit, $output, $errors) = run('scripts/bench --rounds 1 --seconds 1 --agents 200 --scale 400');
	my $rows = table_of($output);

	is($exit, 0, 'a run ends well') or diag($errors);
	for my $search ('search: newest', 'search: by words', 'search: leaders of a chain',
			'search: by what is offered', 'search: by what is said') {
		ok($rows->{"$search, 200 agents"}, "$search, few agents");
		like($rows->{"$search, 400 agents"}[10], qr/^\d+\.\d\d \(/, 'many, and their ratio');
	}
};

done_testing();
