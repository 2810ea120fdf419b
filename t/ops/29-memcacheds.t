#!/usr/bin/perl
# SPDX-License-Identifier: Apache-2.0
# A registry on more than one machine: three memcacheds, of which one dies, hangs and comes back with
# what it had, and two hosts behind one nginx, of which one is killed. No read fails or shows an old
# state. Four times as long with AREG_TEST_FULL=1.
use strict;
use warnings;

use FindBin;
use IO::Socket::INET;
use POSIX qw(_exit);
use Test::More;
use Time::HiRes qw(sleep time);

use lib "$FindBin::Bin/../lib";
use Areg::Test qw(alive build_dir root wait_until);
use Areg::Truth;

use constant { AGENTS => 40, WRITERS => 4, READERS => 12, LIMIT => 60,
	SECONDS => $ENV{AREG_TEST_FULL} ? 20 : 5 };

# ---- Three memcacheds ----

my @ports = map { Areg::Test::reserve_port() } 1 .. 3;
my @names = map { "127.0.0.1:$_" } @ports;
my @pids;
my $owner = $$;

sub start_memcached
{
	my ($number) = @_;
	my @user = $> == 0 ? qw(-u root) : ();

	$pids[$number] = fork // die "fork: $!\n";
	if ($pids[$number] == 0) {
		open STDERR, '>', '/dev/null';
		exec 'memcached', @user, qw(-U 0 -m 64 -t 2 -l 127.0.0.1 -p), $ports[$number] or _exit(127);
	}
	wait_until(10, sub { defined stats($number) }) or die "memcached $number does not start\n";
}

sub end_memcached
{
	my ($number) = @_;

	kill 'KILL', $pids[$number];
	waitpid $pids[$number], 0;
}

END {
	my $status = $?;
	if ($$ == $owner) { end_memcached($_) for grep { $pids[$_] } 0 .. 2 }
	$? = $status;
}

# The statistics of one, as a hash; undef when it does not answer.
sub stats
{
	my ($number) = @_;
	my $socket = IO::Socket::INET->new(PeerAddr => $names[$number], Timeout => 2) or return;
	my %stats;

	print $socket "stats\r\n";
	while (my $line = <$socket>) {
		return \%stats if $line =~ /^END/;
		$stats{$1} = $2 if $line =~ /^STAT (\S+) (\S+)\r$/;
	}
	return;
}

start_memcached($_) for 0 .. 2;

# ---- Two hosts behind one nginx ----

# Each lists the servers in another order, as whoever wrote its areg.conf pleased.
my %set = (public_url => 'http://registry.test', cache_retry => '200ms', limit_search => '250000 ' . LIMIT . ' 250000 250000');
my $here = Areg::Test->start(workers => 4, without => ['memcached'],
	set => { %set, memcached_servers => join ', ', @names });
my $there = Areg::Test->start(workers => 4, beside => $here,
	set => { %set, memcached_servers => join ', ', reverse @names });
my $front = Areg::Test->start(without => [qw(postgres memcached aregd migrate)]);
my @hosts = ($here, $there);

# As docs/scaling.md shows, with other addresses.
sub become_front
{
	my $http = $front->dir . '/nginx/http.conf';
	my ($page, $text) = map { read_file($_) } root() . '/docs/scaling.md', $http;
	for my $name ('areg', 'areg_reads') {
		my $block = qr/^upstream $name \{\n.*?^\}\n/ms;
		my ($upstream) = $page =~ /($block)/ or die "no upstream $name in docs/scaling.md\n";
		my @sockets = map { 'unix:' . $_->socket_path('aregd') } @hosts;

		$upstream =~ s/10\.0\.0\.\d+:\d+/shift @sockets/ge;
		die "docs/scaling.md shows other than two hosts\n" if @sockets;
		$text =~ s/$block/$upstream/ or die "no upstream $name in http.conf\n";
	}
	open my $out, '>', $http or die "$http: $!\n";
	print $out $text;
	close $out or die "$http: $!\n";
	kill 'HUP', $front->pid('nginx');
	return wait_until(10, sub { $front->get('/api/v1/chains')->{status} == 200 });
}

sub read_file
{
	my ($path) = @_;
	open my $in, '<', $path or die "$path: $!\n";
	local $/;
	return scalar <$in>;
}

sub metric
{
	my ($host, $name) = @_;
	return $host->get('/metrics')->{body} =~ /^\Q$name\E (\d+)$/m ? $1 : 0;
}

sub servers_in { return $_[0]->get('/health')->{json}{cache_servers}{in} }

# Until both hosts use so many, and believe them.
sub are_in
{
	my ($count) = @_;
	return wait_until(20, sub {
		2 == grep { servers_in($_) == $count && metric($_, 'areg_cache_memcached_trusted') } @hosts;
	});
}

my $truth = Areg::Truth->new($here, agents => AGENTS, writers => WRITERS);
my @agents = $truth->agents;
my $asked = 0;

# Of what one host has asked the database for, the part that the other one finds in memcached. The first
# time may be in vain: where a token is missing it is made, for the next.
sub hit_rate
{
	my $limit = 1 + $asked++ % 90;
	my @paths = map { "/api/v1/agents/$_/feedback?limit=$limit" } @agents;
	my $before = metric($there, 'areg_cache_hits_total{level="memcached"}');

	for my $host (@hosts) {
		$host->get($_) for @paths;
	}
	return (metric($there, 'areg_cache_hits_total{level="memcached"}') - $before) / @paths;
}

sub rate_ok
{
	my ($name) = @_;
	my $began = time;
	my $rate;

	ok(wait_until(60, sub { ($rate = hit_rate()) >= 0.9 }), $name);
	note sprintf '%.0f %% after %.1f s', 100 * $rate, time - $began;
}

sub truth_ok
{
	my ($sum, $name) = @_;

	note "$sum->{writes} writes, $sum->{reads} reads";
	is($sum->{late}, 0, "$name: no read shows the state before") or diag $sum->{example};
	is($sum->{failed}, 0, "$name: no read fails") or diag "the first with status $sum->{failure}";
	cmp_ok($sum->{writes}, '>', 20, "$name: writes");
	cmp_ok($sum->{reads}, '>', 100, "$name: reads");
}

sub check_configuration
{
	my ($host) = @_;
	my $program = build_dir() . '/aregd';
	# Names that are the tests' own are no settings.
	local %ENV = map { ($_ => $ENV{$_}) } grep { !/^AREG_/ } keys %ENV;
	my $out = `$program -t -c @{[$host->conf]} 2>&1`;
	return ($out, $? >> 8);
}

# ---- All is well ----

ok(become_front(), 'nginx takes the upstream of docs/scaling.md');
ok(are_in(3), 'three memcacheds are in');
rate_ok('what one host has asked for, the other finds in them');
cmp_ok((sort { $a <=> $b } map { stats($_)->{curr_items} } 0 .. 2)[0], '>=', AGENTS / 3 / 3,
	'keys are spread over all of them');
my ($said, $code) = check_configuration($here);
is($code, 0, 'aregd -t is content');
like($said, qr/^memcached: memcached 1\S+ at $names[0]; memcached 1\S+ at $names[1]; memcached 1\S+ at $names[2]$/m,
	'and names each');

# ---- One is killed, restarted, and hangs, under load ----

truth_ok($truth->run(writing => $here, reading => [$here], readers => READERS, after => 0,
	seconds => SECONDS, disturb => sub {
		my ($until) = @_;

		while (time + 2.5 < $until) {
			kill 'KILL', $pids[1];
			sleep 0.6;
			start_memcached(1);
			sleep 0.6;
			kill 'STOP', $pids[2];
			sleep 0.3;
			kill 'CONT', $pids[2];
			sleep 0.6;
		}
		kill 'KILL', $pids[1];
	}), 'memcacheds killed and stopped');
cmp_ok(metric($here, 'areg_cache_hits_total{level="memory"}'), '>', 20, 'answers came from memory, too');

# ---- One stays away ----

ok(are_in(2), 'two are left');
my $health = $here->get('/health');
is($health->{status}, 200, 'the host is as healthy as it need be');
is_deeply([@{ $health->{json} }{qw(status cache_servers limits)}], ['degraded', { in => 2, out => 1 }, 'shared'],
	'and says what is missing');
is(metric($here, "areg_cache_server_in{server=\"$names[1]\"}"), 0, 'metrics say which');
is(metric($here, "areg_cache_server_in{server=\"$names[0]\"}"), 1, 'and which is in');
($said, $code) = check_configuration($here);
is($code, 3, 'aregd -t is not content');
like($said, qr/^memcached: .*; $names[1] does not answer; /m, 'and names it');
rate_ok('without it, as much is found as before within a minute');
my $run = $here->aregctl(qw(cache warm --top 20));
is($run->{exit}, 0, 'the cache can be warmed') or diag $run->{stderr};
is($here->aregctl(qw(cache flush))->{exit}, 0, 'and flushed');

# ---- It comes back ----

start_memcached(1);
ok(are_in(3), 'it comes back, empty');
rate_ok('as much is found as before');

# ---- One sleeps through changes, and wakes with what it had ----

# Each question is asked once before and once after: so it is not memory that answers, but whatever
# memcached has.
my @limits = 91 .. 96;
for my $limit (@limits) {
	$here->get("/api/v1/agents/$_/feedback?limit=$limit") for @agents;
}
my $kept = stats(0)->{curr_items};
kill 'STOP', $pids[0];
ok(are_in(2), 'one sleeps');
is((grep { $truth->give($here, 0, $_) == 201 } 0 .. AGENTS - 1), AGENTS, 'changes about all agents meanwhile');
sleep 1;
kill 'CONT', $pids[0];
my ($late, $until) = (0, time + 20);
for my $limit (@limits) {
	# The first before it is in, the others from the moment on that it is.
	sleep 0.002 until $limit == $limits[0] || servers_in($there) == 3 || time > $until;
	for my $agent (0 .. AGENTS - 1) {
		for my $host ($there, $here) {
			my $answer = $host->get("/api/v1/agents/$agents[$agent]/feedback?limit=$limit");
			$late++ if $answer->{status} != 200 || $answer->{json}{total} < $truth->acknowledged($agent);
		}
	}
}
is($late, 0, 'it wakes with what it had, and nothing of that is shown');
ok(are_in(3), 'it is in again');
cmp_ok(stats(0)->{curr_items}, '>=', $kept / 2, 'as it was');
is($truth->wrong(@hosts), 0, 'every answer is what the database says');

# ---- A host is killed, another one reloaded ----

my @started;
truth_ok($truth->run(writing => $here, reading => [$front], readers => READERS, after => 1,
	seconds => SECONDS + 1, disturb => sub {
		my ($until) = @_;

		sleep 1;
		my $master = $there->pid('aregd');
		open my $in, '<', "/proc/$master/task/$master/children" or die "children: $!\n";
		kill 'KILL', $master, split ' ', join '', <$in>;
		sleep 1;
		kill 'HUP', $here->pid('aregd');
		sleep 1;
		$there->start_server('aregd');
	}), 'a host killed and one reloaded');
ok(wait_until(10, sub { alive($there->pid('aregd')) && $there->get('/health')->{status} == 200 }), 'both serve again');
ok(are_in(3), 'with all memcacheds');

# ---- What one writes, the other shows; limits count together ----

my $shown_late = 0;
for my $agent (0 .. 9) {
	$truth->shown($there, $agent) for 1 .. 3;
	$truth->give($here, 0, $agent);
}
sleep 1;
for my $agent (0 .. 9) {
	$shown_late++ if ($truth->shown($there, $agent))[0] < $truth->acknowledged($agent);
}
is($shown_late, 0, 'a second after a change on one host the other one shows it');

my $user = $here->make_user(tier => 'free');
ok(wait_until(10, sub { 2 == grep { metric($_, 'areg_limiter_hosts') == 2 } @hosts }), 'the hosts know of each other');
my $gone = time - 60 * int(time() / 60);
sleep 60.1 - $gone if $gone > 50; # all of it within one minute
my %seen;
$seen{ $front->get('/api/v1/agents?limit=1', { key => $user->{key} })->{status} }++ for 1 .. 2 * LIMIT;
is_deeply([sort keys %seen], [200, 429], 'a caller is let through, and then refused');
cmp_ok($seen{200}, '>=', LIMIT * 0.9, "through both hosts: $seen{200} of " . LIMIT);
cmp_ok($seen{200}, '<=', LIMIT * 1.05, 'and no more than a few per cent over');

done_testing;
