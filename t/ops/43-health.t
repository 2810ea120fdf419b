# SPDX-License-Identifier: Apache-2.0
# Health checks and metrics while nothing else answers: by a process of their own.
use strict;
use warnings;

use File::Basename qw(dirname);
use IO::Socket::UNIX;
use POSIX ();
use Test::More;
use Time::HiRes qw(sleep time);

use lib dirname(__FILE__) . '/../lib';
use Areg::Test qw(alive from_json in_parallel wait_until);

use constant { WORKERS => 3, QUEUED => 90, LOOKS => 20, IN_TIME => 0.1 };

my $areg = Areg::Test->start(workers => WORKERS, set => { request_timeout => '60s',
	database_statement_timeout => '60s' });
my $user = $areg->make_user;
my @paths = qw(/health /api/v1/agents/health /metrics);

sub postgres_pids
{
	my $parent = $areg->pid('postgres');
	open my $in, '<', "/proc/$parent/task/$parent/children" or return $parent;
	return ($parent, split ' ', join '', <$in>);
}

# Seconds that each of so many requests took, in order of length.
sub durations
{
	my ($path, $count) = @_;
	return sort { $a <=> $b } map {
		my $began = time;
		$areg->get($path);
		time - $began;
	} 1 .. $count;
}

# ---- who answers ----

my ($health) = $areg->pids_named('aregd health');
ok($health, 'there is one process for health checks');
for my $path (@paths) {
	is($areg->get($path)->{status}, 200, "GET $path");
}
my $status = from_json($areg->aregctl('--json', 'status')->{stdout});
is((grep { $_->{requests} > 0 } @{ $status->{workers} }), 0, 'no worker was asked');
unlike($areg->log_text('areg'), qr{"path":"/(?:health|metrics|api/v1/agents/health)"}, 'nothing is logged of it');
is((stat $areg->socket_path('health'))[2] & 0777, (stat $areg->socket_path('aregd'))[2] & 0777,
	'its socket has the mode of the other');
is((stat $areg->socket_path('health'))[5], (stat $areg->socket_path('aregd'))[5], 'and its group');

# What is not for operators is not to be had there.
sub record { my ($type, $content) = @_; return pack('CCnnCC', 1, $type, 1, length $content, 0, 0) . $content }
sub pair { my ($name, $value) = @_; return pack('CC', length $name, length $value) . $name . $value }
my $direct = IO::Socket::UNIX->new(Peer => $areg->socket_path('health')) or die "health: $!\n";
syswrite $direct, record(1, pack 'nCx5', 1, 0) . record(4, join '', map { pair(@$_) } [REQUEST_METHOD => 'GET'],
	[REQUEST_URI => '/api/v1/me'], [HTTP_AUTHORIZATION => "Bearer $user->{key}"]) . record(4, '') . record(5, '');
my $said = do { local $/; <$direct> };
like($said, qr/Status: 404/, 'the private socket knows no other address');

# ---- every worker busy, and a queue ----

my $lock = fork // die "fork: $!\n";
if ($lock == 0) {
	$areg->psql('BEGIN; LOCK TABLE users IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(12)');
	POSIX::_exit(0);
}
ok(wait_until(5, sub { $areg->psql_value("SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock'"
	. " AND relation = 'users'::regclass") }), 'a lock that requests wait for');
my @queue = map {
	my $client = $areg->connection;
	syswrite $client, "GET /api/v1/me HTTP/1.1\r\nHost: areg\r\nAuthorization: Bearer $user->{key}\r\n\r\n";
	$client;
} 1 .. QUEUED;
my $busy = sub { return $areg->get('/metrics')->{body} =~ /^areg_workers_busy (\d+)$/m ? $1 : -1 };
ok(wait_until(5, sub { $busy->() == WORKERS }), 'every worker is busy, and ' . QUEUED . ' requests are there');
for my $path (@paths) {
	my @took = durations($path, LOOKS);
	# The machine is shared with other tests: the median says it.
	cmp_ok($took[LOOKS / 2], '<', IN_TIME, "$path answers in time");
	diag(sprintf '%s: median %.1f ms, longest %.1f ms', $path, 1000 * $took[LOOKS / 2], 1000 * $took[-1]);
}
my $answer = $areg->get('/health');
is($answer->{status}, 200, 'and tells the truth');
is($answer->{json}{status}, 'healthy', 'busy is not unhealthy');
is($busy->(), WORKERS, 'they are all busy still');
ok(alive($health), 'by the same process as before');
close $_ for @queue;
waitpid $lock, 0;

# ---- what it depends on fails ----

ok(wait_until(20, sub { $busy->() == 0 }), 'the queue is gone');
kill 'STOP', postgres_pids();
ok(wait_until(10, sub { $areg->get('/health')->{status} == 503 }), 'PostgreSQL hangs: unhealthy');
my @took = durations('/health', LOOKS);
cmp_ok($took[LOOKS / 2], '<', IN_TIME, 'said in time');
$answer = $areg->get('/metrics');
is($answer->{status}, 200, 'metrics go on');
like($answer->{body}, qr/^areg_worker_starts_total \d+$/m, 'with what is counted');
unlike($answer->{body}, qr/^erc8004_active_agents_total/m, 'without what the database would have to say');
kill 'CONT', postgres_pids();
ok(wait_until(10, sub { $areg->get('/health')->{json}{status} eq 'healthy' }), 'healthy again');

kill 'STOP', $areg->pid('memcached');
ok(wait_until(10, sub { $areg->get('/health')->{json}{status} eq 'degraded' }), 'memcached hangs: degraded');
@took = durations('/health', LOOKS);
cmp_ok($took[LOOKS / 2], '<', IN_TIME, 'said in time');
kill 'CONT', $areg->pid('memcached');
ok(wait_until(10, sub { $areg->get('/health')->{json}{status} eq 'healthy' }), 'healthy again');

$areg->stop_server('postgres');
ok(wait_until(3, sub { $areg->get('/health')->{status} == 503 }), 'PostgreSQL stopped: unhealthy within a second or two');
$areg->start_server('postgres');
ok(wait_until(10, sub { $areg->get('/health')->{status} == 200 }), 'healthy again');

# ---- its own end ----

kill 'KILL', $health;
ok(wait_until(3, sub { my @now = $areg->pids_named('aregd health'); @now == 1 && $now[0] != $health }),
	'killed, it is replaced');
ok(wait_until(10, sub { $areg->get('/health')->{status} == 200 }), 'and answers');
kill 'STOP', $areg->pids_named('aregd health');
is($areg->get('/api/v1/chains')->{status}, 200, 'stopped, it is missed by no other request');
kill 'CONT', $areg->pids_named('aregd health');

done_testing();
