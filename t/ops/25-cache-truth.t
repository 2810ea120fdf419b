#!/usr/bin/perl
# SPDX-License-Identifier: Apache-2.0
# No read that starts after a write was acknowledged shows the state before it, whatever is killed
# meanwhile; of what another host wrote, none that starts a second later. 30 seconds each with
# AREG_TEST_FULL=1.
use strict;
use warnings;

use FindBin;
use Test::More;
use Time::HiRes qw(sleep time);

use lib "$FindBin::Bin/../lib";
use Areg::Test qw(alive wait_until);
use Areg::Truth;

use constant { AGENTS => 50, WRITERS => 8, READERS => 24, WORKERS => 6,
	SECONDS => $ENV{AREG_TEST_FULL} ? 30 : 7 };

my $here = Areg::Test->start(workers => WORKERS);
my $there = Areg::Test->start(workers => 4, beside => $here);
my $truth = Areg::Truth->new($here, agents => AGENTS, writers => WRITERS);

sub run_all
{
	my ($writing_host, $after, $disturb) = @_;
	return $truth->run(writing => $writing_host, reading => [$here], readers => READERS,
		after => $after, seconds => SECONDS, disturb => $disturb);
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
sleep 1; # that one host may be behind another
is($truth->wrong($here, $there), 0, 'afterwards every answer is what the database says');
is((grep { alive($_->pid('aregd')) } $here, $there), 2, 'both hosts still serve');

done_testing;
