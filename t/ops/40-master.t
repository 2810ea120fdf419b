# SPDX-License-Identifier: Apache-2.0
# The master: workers, crashes, log rotation, and metrics that outlive the workers.
use strict;
use warnings;

use File::Basename qw(dirname);
use Test::More;
use Time::HiRes qw(sleep time);

use lib dirname(__FILE__) . '/../lib';
use Areg::Test qw(alive from_json in_parallel wait_until);

my $areg = Areg::Test->start(workers => 3);
my $master = $areg->pid('aregd');
my $agents = '/api/v1/agents';

# A metric's values, added up, of the lines whose labels match.
sub metric
{
	my ($name, $labels) = @_;
	my $sum = 0;
	for ($areg->get('/metrics')->{body} =~ /^(\Q$name\E(?:\{.*\})? \S+)$/mg) {
		$sum += (split)[-1] if !defined $labels || /$labels/;
	}
	return $sum;
}

sub log_lines { return map { from_json($_) } split /\n/, $_[0] // $areg->log_text('areg') }

sub read_file
{
	my ($path) = @_;
	open my $in, '<', $path or return '';
	local $/;
	return scalar <$in> // '';
}

# Whether a process has that file open.
sub has_open
{
	my ($pid, $path) = @_;
	return (grep { (readlink // '') eq $path } glob "/proc/$pid/fd/*") ? 1 : 0;
}

# ---- workers ----

is(scalar $areg->worker_pids, 3, 'there are as many workers as configured');
my $health = $areg->get('/health');
is($health->{status}, 200, 'healthy');
is_deeply($health->{json}{checks},
	{ database => 'healthy', cache => 'healthy', workers => 'healthy' }, 'in all its parts');
is($areg->get("$agents/health")->{json}{status}, 'healthy', 'at its older address, too');

# ---- metrics ----

my $reads = 'method="GET",endpoint="/api/v1/agents/{id}",status_code="404"';
my $before = metric('erc8004_api_requests_total', qr/\Q$reads\E/);
in_parallel(4, sub { $areg->get("$agents/base:99") for 1 .. 25; return 1 });
is(metric('erc8004_api_requests_total', qr/\Q$reads\E/) - $before, 100,
	'100 requests of four clients are counted as 100');
is(metric('erc8004_api_request_duration_seconds_count', qr/endpoint="\/api\/v1\/agents\/\{id\}"[,}]/)
	- $before, 100, 'and timed as 100');

my @first = $areg->worker_pids;
my ($starts, $crashes) = map { metric($_) } qw(areg_worker_starts_total areg_worker_crashes_total);
kill 'KILL', $first[0];
ok(wait_until(1, sub { my @now = $areg->worker_pids; @now == 3 && !grep { $_ == $first[0] } @now }),
	'a killed worker is replaced within a second');
is(metric('areg_worker_crashes_total') - $crashes, 1, 'its end is counted as a crash');
is(metric('areg_worker_starts_total') - $starts, 1, 'and its successor as a start');
is(metric('erc8004_api_requests_total', qr/\Q$reads\E/) - $before, 100, 'what it counted is kept');
my ($crash) = grep { $_->{msg} // $_->{message} // '' eq 'worker crashed' } log_lines();
my ($line) = grep { ($_->{worker_pid} // 0) == $first[0] } log_lines();
is($line && $line->{level}, 'error', 'the log has it as an error');
is($line && $line->{signal}, 'Killed', 'with the signal');

# ---- the log ----

my %status = ('/api/v1/agents?limit=1' => 200, "$agents/base:7" => 404, "$agents?nonsense=1" => 400);
my %id;
for my $path (sort keys %status) {
	my $answer = $areg->get($path);
	is($answer->{status}, $status{$path}, "GET $path");
	$id{ $answer->{headers}{'x-request-id'} } = $path;
}
$areg->get($agents, { 'X-Request-ID' => 'from.the-client:1' });
my @lines = log_lines();
is(scalar(grep { !defined } @lines), 0, 'every line of the log is JSON');
for my $request_id (sort keys %id) {
	my ($line) = grep { ($_->{request_id} // '') eq $request_id } @lines;
	is($line && $line->{status}, $status{ $id{$request_id} },
		"the request id that the client saw finds the line of $id{$request_id}");
}
ok((grep { ($_->{request_id} // '') eq 'from.the-client:1' } @lines), 'and the client\'s own its own');
ok(!(grep { ($_->{path} // '') eq '/health' } @lines), 'health checks are not logged');

my $log = $areg->dir . '/log/areg.log';
rename $log, "$log.1" or die "$log: $!\n";
$areg->get($agents, { 'X-Request-ID' => 'before-usr1' });
like(read_file("$log.1"), qr/before-usr1/, 'renamed, the log goes on where it was');
kill 'USR1', $master;
ok(wait_until(2, sub { read_file($log) =~ /log reopened/ }), 'after SIGUSR1 the master writes to a new file');
in_parallel(6, sub { $areg->get($agents, { 'X-Request-ID' => "after-usr1-$_[0]-$_" }) for 1 .. 20; 1 });
is(scalar(() = read_file($log) =~ /"after-usr1-/g), 120, 'so do all workers');
unlike(read_file("$log.1"), qr/after-usr1/, 'and nothing goes to the old one');
is_deeply([map { has_open($_, $log) . has_open($_, "$log.1") } $areg->worker_pids], [(10) x 3],
	'every worker has the new one open, and no longer the old one');

my @pids = $areg->worker_pids;
kill $_, @pids for qw(HUP INT QUIT);
sleep 0.3;
is_deeply([$areg->worker_pids], \@pids, 'keys pressed at a terminal do not end workers');

# ---- a worker that does not come up ----

# One place crashes as soon as it is taken: 0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2 s between its starts.
my %settled = map { ($_ => 1) } @pids[1, 2];
my (@started, %seen);
kill 'KILL', $pids[0];
my $until = time + 5;
while (time < $until) {
	for my $pid (grep { !$settled{$_} && !$seen{$_} } $areg->worker_pids) {
		next if $pid == $pids[0];
		$seen{$pid} = 1;
		push @started, time;
		kill 'KILL', $pid;
	}
	sleep 0.01;
}
cmp_ok(scalar @started, '>=', 4, 'a worker that crashes at its start is started again');
cmp_ok(scalar @started, '<=', 8, 'but not for ever at once');
cmp_ok($started[-1] - $started[-2], '>', 2 * ($started[2] - $started[1]), 'with growing delay');
is((grep { alive($_) } @pids[1, 2]), 2, 'the others are left alone');
$health = $areg->get('/health');
is($health->{status}, 200, 'while one is missing');
is($health->{json}{status}, 'degraded', 'the registry is degraded');
ok(wait_until(6, sub { $areg->worker_pids == 3 }), 'it is back when it stops crashing');
ok(wait_until(1, sub { $areg->get('/health')->{json}{status} eq 'healthy' }), 'and all is healthy');

# ---- the end ----

kill 'TERM', $master;
ok(wait_until(3, sub { !alive($master) }), 'SIGTERM ends the master');
is((grep { alive($_) } @pids), 0, 'and all workers');
like(read_file($log), qr/"stopped"/, 'the log says so');

done_testing();
