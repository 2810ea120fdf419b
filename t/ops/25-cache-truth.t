#!/usr/bin/perl
# No read that starts after a write was acknowledged shows the state before it, whatever is killed
# meanwhile; of what another host wrote, none that starts a second later. 30 seconds each with
# AREG_TEST_FULL=1.
use strict;
use warnings;

use Fcntl qw(SEEK_SET);
use FindBin;
use Test::More;
use Time::HiRes qw(sleep time);

use lib "$FindBin::Bin/../lib";
use Areg::Test qw(alive in_parallel wait_until);

use constant { AGENTS => 50, WRITERS => 8, READERS => 24, WORKERS => 6,
	SECONDS => $ENV{AREG_TEST_FULL} ? 30 : 7 };

my $here = Areg::Test->start(workers => WORKERS);
my $there = Areg::Test->start(workers => 4, beside => $here);
my $owner = $here->make_user(tier => 'enterprise');
my @givers = map { $here->make_user(tier => 'enterprise') } 1 .. WRITERS;
my @agents = map {
	$here->post('/api/v1/agents/register', { owner_address => $owner->{wallet}, chain => 'base',
		registration_file => { name => "Agent $_", description => 'is there' } },
		{ key => $owner->{key} })->{json}{agent_uuid}
} 1 .. AGENTS;
is((grep { defined } @agents), AGENTS, 'agents are registered');

# For each agent and writer the number of feedback records that were acknowledged, 4 bytes each, in a
# file: a writer writes its own number, a reader reads those of an agent at once.
open my $acknowledged, '+>', undef or die "temporary file: $!\n";
syswrite $acknowledged, "\0" x (4 * AGENTS * WRITERS);

sub acknowledge
{
	my ($agent, $writer, $count) = @_;
	# Processes share the place of a file that they inherit: this one is this process's own.
	open my $file, '+<', "/proc/self/fd/" . fileno($acknowledged) or die "reopening: $!\n";
	sysseek $file, 4 * ($agent * WRITERS + $writer), SEEK_SET;
	syswrite $file, pack 'L', $count;
}

my ($own_file, $own_pid);

sub acknowledged
{
	my ($agent) = @_;
	my $sum = 0;

	if (($own_pid // 0) != $$) {
		open $own_file, '<', "/proc/self/fd/" . fileno($acknowledged) or die "reopening: $!\n";
		$own_pid = $$;
	}
	sysseek $own_file, 4 * $agent * WRITERS, SEEK_SET;
	sysread $own_file, my $bytes, 4 * WRITERS;
	$sum += $_ for unpack 'L*', $bytes;
	return $sum;
}

# Gives feedback on the host until the time is over.
sub write_until
{
	my ($host, $writer, $until) = @_;
	my $giver = $givers[$writer];
	my %given;

	open my $file, '<', "/proc/self/fd/" . fileno($acknowledged) or die "reopening: $!\n";
	for my $agent (0 .. AGENTS - 1) {
		sysseek $file, 4 * ($agent * WRITERS + $writer), SEEK_SET;
		sysread $file, my $bytes, 4;
		$given{$agent} = unpack 'L', $bytes;
	}
	my $done = 0;
	while (time < $until) {
		my $agent = int rand AGENTS;
		my $answer = $host->post('/api/v1/agents/feedback', { agent_uuid => $agents[$agent],
			client_address => $giver->{wallet}, score => int rand 101 }, { key => $giver->{key} });

		next if $answer->{status} != 201;
		acknowledge($agent, $writer, ++$given{$agent});
		$done++;
		sleep rand 0.02;
	}
	return { writes => $done };
}

# How many feedback records an answer of the host shows for an agent, in one of four places; undef when
# there is none.
sub shown
{
	my ($host, $agent) = @_;
	my $uuid = $agents[$agent];
	my $how = int rand 20;

	if ($how == 0) {
		my $answer = $host->get("/api/v1/agents?owner_address=$owner->{wallet}&limit=100");
		my ($row) = grep { $_->{agent_uuid} eq $uuid } @{ ($answer->{json} || {})->{agents} || [] };
		return $row && $row->{total_feedback};
	}
	my ($path, $field) = @{ (['stats', 'total_feedback'], ['reputation', 'total_feedback'],
		['feedback?limit=1', 'total'])[$how % 3] };
	my $answer = $host->get("/api/v1/agents/$uuid/$path");
	return $answer->{status} == 200 ? $answer->{json}{$field} : undef;
}

# Reads from the host until the time is over, each time what was acknowledged `after` seconds before.
sub read_until
{
	my ($host, $after, $until) = @_;
	my ($reads, $late, @due, $example) = (0, 0);

	while (time < $until) {
		my $agent = int rand AGENTS;
		push @due, [time + $after, $agent, acknowledged($agent)] if @due < 100;
		sleep 0.01 if $after;
		if ($due[0][0] <= time) {
			my (undef, $which, $least) = @{ shift @due };
			my $shown = shown($host, $which) // next;

			$reads++;
			next if $shown >= $least;
			$late++;
			$example //= "agent $which: $shown shown, $least acknowledged";
		}
	}
	return { reads => $reads, late => $late, example => $example };
}

# Runs writers, readers and what disturbs them, all at once. Returns the sums.
sub run_all
{
	my ($writing_host, $after, $disturb) = @_;
	my %sum = (writes => 0, reads => 0, late => 0);
	my $until = time + SECONDS;

	for my $one (in_parallel(WRITERS + READERS + 1, sub {
		my ($number) = @_;
		return write_until($writing_host, $number, $until) if $number < WRITERS;
		return read_until($here, $after, $until) if $number < WRITERS + READERS;
		$disturb->($until);
		return {};
	})) {
		$sum{$_} += $one->{$_} // 0 for keys %sum;
		$sum{example} //= $one->{example};
	}
	return \%sum;
}

sub truth_ok
{
	my ($sum, $name) = @_;

	note "$sum->{writes} writes, $sum->{reads} reads";
	is($sum->{late}, 0, "$name: no read shows the state before") or diag $sum->{example};
	cmp_ok($sum->{writes}, '>', 20, "$name: writes");
	cmp_ok($sum->{reads}, '>', 100, "$name: reads");
}

sub kill_a_worker
{
	my ($host) = @_;
	my @workers = $host->worker_pids;
	kill 'KILL', $workers[rand @workers] if @workers;
}

sub pause
{
	my ($seconds, @pids) = @_;
	kill 'STOP', @pids;
	sleep $seconds;
	kill 'CONT', @pids;
}

sub hits
{
	my ($level) = @_;
	return $here->get('/metrics')->{body} =~ /^areg_cache_hits_total\{level="$level"\} (\d+)$/m ? $1 : 0;
}

# ---- On one host ----

my $sum = run_all($here, 0, sub {
	my ($until) = @_;
	while (time + 1.5 < $until) {
		kill_a_worker($here);
		sleep 0.4;
		pause(0.3, $here->pid('memcached'));
		sleep 0.4;
		$here->stop_server('memcached');
		$here->start_server('memcached');
	}
});
truth_ok($sum, 'one host, workers killed, memcached stopped and restarted');
cmp_ok(hits('memory'), '>', 20, 'answers came from memory');

# ---- From another ----

$sum = run_all($there, 1, sub {
	my ($until) = @_;
	my $round = 0;
	while (time + 2.5 < $until) {
		# One that was killed twice is replaced after a while only.
		my ($listener) = wait_until(10, sub { ($here->pids_named('aregd listener'))[0] }) or last;

		kill_a_worker($here);
		kill_a_worker($there);
		if (++$round % 3 == 0) {
			pause(1.5, $listener);
		} elsif ($round % 3 == 1) {
			$here->psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity
				WHERE application_name = 'areg listener'");
		} else {
			kill 'KILL', $listener;
		}
		pause(0.2, $here->pid('memcached'));
		sleep 0.3;
	}
});
truth_ok($sum, 'another host, workers and listeners cut off and killed');

# ---- And when all is quiet ----

ok(wait_until(20, sub { $here->get('/metrics')->{body} =~ /^areg_cache_memcached_trusted 1$/m }),
	'memcached is used again');
my $wrong = 0;
for my $agent (0 .. AGENTS - 1) {
	my $count = $here->psql_value("SELECT count(*) FROM erc8004_reputation WHERE agent_uuid = '$agents[$agent]'");
	for my $host ($here, $there) {
		$wrong++ if grep { $_ != $count } map { shown($host, $agent) // -1 } 1 .. 4;
	}
	$wrong++ if $count < acknowledged($agent);
}
is($wrong, 0, 'afterwards every answer is what the database says');
is((grep { alive($_->pid('aregd')) } $here, $there), 2, 'both hosts still serve');

done_testing;
