# SPDX-License-Identifier: Apache-2.0
# What callers see while something is stopped or cut off, word for word, and how it recovers by itself.
# 11-fault-run.t kills the rest, under load.
use strict;
use warnings;

use File::Basename qw(dirname);
use IO::Handle;
use POSIX ();
use Test::More;
use Time::HiRes qw(sleep time);

use lib dirname(__FILE__) . '/../lib';
use Areg::Test qw(address alive build_dir in_parallel problem_ok wait_until);

use constant WORKERS => 4;

# What PostgreSQL commits here survives a power cut, too.
my $areg = Areg::Test->start(workers => WORKERS, durable => 1, set => {
	database_connect_timeout => '1s', database_statement_timeout => '4s' });
my @workers = $areg->worker_pids;
my $user = $areg->make_user(tier => 'enterprise');
my $register = '/api/v1/agents/register';
my $id = register('the first')->{json}{agent_uuid};

# A read that is nowhere in the cache: each time another part of a list.
my $reads = 0;
sub uncached { return '/api/v1/agents?limit=1&offset=' . (131 * $$ + ++$reads) % 100000 }

sub register
{
	my ($name) = @_;
	return $areg->post($register, { owner_address => $user->{wallet}, chain => 'base',
		registration_file => { name => $name, description => 'is there' } },
		{ key => $user->{key} });
}

# Reads in `clients` processes for some seconds while $disturb runs. Returns how often each status
# came, and what that returned.
sub under_load
{
	my ($clients, $seconds, $disturb) = @_;
	my %count;
	my @each = in_parallel($clients + 1, sub {
		my ($number) = @_;
		if ($number == 0) {
			sleep 0.3;
			return { said => $disturb->() };
		}
		my ($until, %seen) = (time + $seconds);
		$seen{ $areg->get(uncached())->{status} }++ while time < $until;
		return { seen => \%seen };
	});
	for my $one (@each[1 .. $clients]) {
		$count{$_} += $one->{seen}{$_} for keys %{ $one->{seen} };
	}
	return (\%count, $each[0]{said});
}

sub only_ok
{
	my ($count, $name) = @_;
	ok(($count->{200} // 0) > 50 && keys %$count == 1, $name)
		or diag(join ', ', map { "$_: $count->{$_} times" } sort keys %$count);
}

sub connections
{
	return $areg->psql_value("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'areg'");
}

# Statuses of reads by so many at once that each worker gets some.
sub from_all_workers
{
	return map { @$_ } in_parallel(4 * WORKERS, sub { [map { $areg->get(uncached())->{status} } 1 .. 5] });
}

# Whether several workers tried to connect, and the last failure made each of them wait for 1.6 s or longer.
sub workers_back_off_long
{
	my %waits = map { /"pid":(\d+).*"next_try_ms":(\d+)/ ? ($1 => $2) : () }
		grep { /"database not reached".*"as":"areg"/ } split /\n/, $areg->log_text('areg');
	return keys %waits > 1 && !grep { $_ < 1600 } values %waits;
}

# All processes of PostgreSQL, the first its parent.
sub postgres_pids
{
	my $parent = $areg->pid('postgres');
	open my $in, '<', "/proc/$parent/task/$parent/children" or die "children: $!\n";
	return ($parent, split ' ', join '', <$in>);
}

# A psql that is told what to do line by line, and holds what it locks until it is closed.
sub session
{
	open my $to, '|-', 'psql', '-qAtX', '-o', '/dev/null', '-h', $areg->socket_path('pg'), '-U',
		'areg_owner', '-d', 'areg' or die "psql: $!\n";
	$to->autoflush(1);
	return $to;
}

sub hold_agents
{
	my $session = session();
	print $session "BEGIN; LOCK TABLE erc8004_agents IN ACCESS EXCLUSIVE MODE;\n";
	wait_until(5, sub { $areg->psql_value("SELECT count(*) FROM pg_locks
		WHERE mode = 'AccessExclusiveLock' AND granted AND relation = 'erc8004_agents'::regclass") })
		or die "no lock\n";
	return $session;
}

# ---- PostgreSQL goes ----

sub registry_is_back
{
	my ($name) = @_;
	ok(wait_until(5, sub { $areg->get(uncached())->{status} == 200 }), "$name: reads answer again");
	ok(wait_until(5, sub { $areg->get('/health')->{json}{status} eq 'healthy' }), "$name: healthy again");
	# A worker that backs off answers 503 sooner than the others answer at all.
	is_deeply([grep { $_ != 200 } from_all_workers()], [], "$name: every worker does, at once");
	is_deeply([$areg->worker_pids], \@workers, "$name: no worker had to be replaced");
	ok(wait_until(3, sub { connections() <= WORKERS }), "$name: no connection is left over")
		or diag(connections());
}

$areg->settle; # the listener has heard of the registration: what is kept from now on stays
is($areg->get("/api/v1/agents/$id")->{status}, 200, 'a read that is kept');
$areg->stop_server('postgres');
for my $method (qw(GET HEAD)) {
	my $answer = $areg->api($method, uncached());
	is($answer->{status}, 503, "PostgreSQL stopped: $method answers 503");
	like($answer->{headers}{'retry-after'}, qr/^[1-9]\d*$/, 'with Retry-After');
}
problem_ok($areg->get(uncached()), 503, 'unavailable');
problem_ok($areg->get('/api/v1/agents?q=x'), 503, 'unavailable');
my $failed = register('while it is away');
problem_ok($failed, 503, 'unavailable');
unlike($failed->{json}{detail}, qr{PostgreSQL|libpq|socket|/}i, 'without a word on what lies behind');
is($areg->get("/api/v1/agents/$id")->{status}, 200, 'what is kept is answered all the while, failed writes or not');
my $health = $areg->get('/health');
is($health->{status}, 503, 'health: 503');
is($health->{json}{status}, 'unhealthy', 'unhealthy');
is($health->{json}{checks}{database}, 'unhealthy', 'because of the database');
is($areg->get('/metrics')->{status}, 200, 'metrics are there nevertheless');
is_deeply([$areg->worker_pids], \@workers, 'and all workers');
ok(wait_until(60, sub { from_all_workers(); workers_back_off_long() }), 'workers try more and more seldom');
$areg->start_server('postgres');
registry_is_back('PostgreSQL started');
is(register('after it came back')->{status}, 201, 'what was refused can be stored');

# ---- PostgreSQL hangs ----

kill 'STOP', postgres_pids();
my $began = time;
my @answers = in_parallel(WORKERS, sub {
	my $started = time;
	my $answer = $areg->get(uncached());
	return [$answer->{status}, ($answer->{json} || {})->{code}, time - $started];
});
is((grep { $_->[0] == 503 && $_->[1] eq 'unavailable' } @answers), WORKERS,
	'PostgreSQL hangs: 503 to all');
# A connected worker waits for its statement, a second longer for the server's own verdict, then
# tries to connect; the rest is for this machine.
is((grep { $_->[2] > 4 + 1 + 1 + 1.5 } @answers), 0, 'within the time-outs')
	or diag(join ' ', map { $_->[2] } @answers);
$began = time;
problem_ok($areg->get(uncached()), 503, 'unavailable');
cmp_ok(time - $began, '<', 4, 'who comes later waits for a connection only');
kill 'CONT', postgres_pids();
registry_is_back('PostgreSQL goes on');

# ---- connections are cut ----

# A read is tried three times, so none may be cut off more than twice: each load ends before the next cuts.
my %count;
for (1 .. 3) {
	my ($count) = under_load(4, 1.5, sub {
		for (1 .. 2) {
			$areg->psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity
				WHERE application_name = 'areg'");
			sleep 0.3;
		}
		return 1;
	});
	$count{$_} += $count->{$_} for keys %$count;
}
only_ok(\%count, 'connections cut six times under load: no read fails');
registry_is_back('connections cut');

# ---- PostgreSQL takes no more ----

my @guests = ($areg->guest);
while (@guests < 500) {
	my $guest = $areg->guest or last;
	push @guests, $guest;
}
cmp_ok(scalar @guests, '>', 100, 'all connections are taken');
my $query = "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity WHERE application_name = 'areg'\0";
syswrite $guests[0], 'Q' . pack('N', 4 + length $query) . $query;
sysread $guests[0], my $reply, 65536;
while (my $guest = $areg->guest) {
	push @guests, $guest;
}
problem_ok($areg->get(uncached()), 503, 'unavailable') for 1 .. 2 * WORKERS;
@guests = ();
registry_is_back('connections are to be had again');

# ---- aregd is stopped ----

# A read that waits for a lock, in a process of its own; the sub it gets lets it go.
sub slow_read
{
	my ($meanwhile) = @_;
	my $lock = hold_agents();
	my ($status) = in_parallel(2, sub {
		my ($number) = @_;
		return $areg->get(uncached())->{status} if $number == 0;
		sleep 0.3;
		my $said = $meanwhile->();
		print $lock "ROLLBACK;\n";
		return $said;
	});
	close $lock;
	return $status;
}

my $master = $areg->pid('aregd');
my $status = slow_read(sub {
	kill 'TERM', $master;
	sleep 0.4;
	return alive($master);
});
is($status, 200, 'SIGTERM: a request that is under way gets its answer');
ok(wait_until(3, sub { !alive($master) }), 'then aregd ends');
$areg->start_server('aregd');

# A successor binds a socket beside it and takes its name over: nobody finds it missing.
my $path = $areg->socket_path('aregd');
my $successor;
$master = $areg->pid('aregd');
(my $count, $successor) = under_load(16, 3, sub {
	my $program = build_dir() . '/aregd';
	my $pid = fork // die "fork: $!\n";
	if ($pid == 0) {
		POSIX::setsid();
		open STDOUT, '>', '/dev/null';
		open STDERR, '>', '/dev/null';
		%ENV = (PATH => $ENV{PATH});
		exec 'spawn-fcgi', '-n', '-M', '0666', '-s', "$path.next", '--', $program, '-c',
			$areg->conf or POSIX::_exit(127);
	}
	wait_until(5, sub { my $in; open($in, '<', "/proc/$pid/task/$pid/children") && <$in> });
	# While a lock stops all workers, others come to stand in the queue of the old socket.
	my $lock = hold_agents();
	rename "$path.next", $path or die "$path: $!\n";
	kill 'TERM', $master;
	sleep 0.2;
	print $lock "ROLLBACK;\n";
	close $lock;
	return $pid;
});
only_ok($count, 'a successor takes the socket over under load: no request is lost');
ok(wait_until(10, sub { !alive($master) }), 'the old aregd has ended');
ok(alive($successor), 'the new one serves');

kill 'KILL', $successor;
ok(wait_until(2, sub { !alive($successor) }), 'which is killed');
$areg->start_server('aregd');
is($areg->get(uncached())->{status}, 200, 'started again after its master was killed');

@workers = $areg->worker_pids;
kill 'KILL', $areg->pid('aregd');
ok(wait_until(2, sub { !grep { alive($_) } @workers }), 'the master killed: its workers end by themselves');
problem_ok($areg->get(uncached()), 502, 'unavailable');
$areg->start_server('aregd');
is($areg->get(uncached())->{status}, 200, 'it starts again on the same socket');

done_testing();
