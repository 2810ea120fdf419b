# SPDX-License-Identifier: Apache-2.0
# The control socket: aregctl status, workers and reload, and clients that mean no good.
use strict;
use warnings;

use File::Basename qw(dirname);
use IO::Select;
use IO::Socket::UNIX;
use POSIX ();
use Test::More;
use Time::HiRes qw(sleep time);

use lib dirname(__FILE__) . '/../lib';
use Areg::Test qw(alive from_json wait_until);

my $areg = Areg::Test->start(workers => 2, set => { request_timeout => '3s' });
my $master = $areg->pid('aregd');
my $socket = $areg->socket_path('control');

sub status { return from_json($areg->aregctl('--json', 'status')->{stdout}) || {} }

# What the master answers to those bytes; undef when it says nothing within the seconds.
sub ask
{
	my ($bytes, $seconds) = @_;
	my $client = IO::Socket::UNIX->new(Peer => $socket) || die "$socket: $!\n";
	my $answer = '';
	syswrite $client, $bytes;
	while (IO::Select->new($client)->can_read($seconds // 2)) {
		sysread $client, $answer, 65536, length $answer or return $answer;
	}
	return undef;
}

# A connection to a worker that says nothing more than the beginning of a request.
sub busy_one
{
	my $client = IO::Socket::UNIX->new(Peer => $areg->socket_path('aregd')) || die "aregd: $!\n";
	syswrite $client, 'x';
	return $client;
}

# ---- who may ask ----

is((stat $socket)[2] & 0777, 0600, 'the socket is its owner\'s only');

# ---- status ----

my $status = status();
is($status->{pid}, $master, 'status: the pid of the master');
is($status->{state}, 'serving', 'it serves');
is($status->{generation}, 1, 'the first generation');
like($status->{version}, qr/^\d+\.\d+/, 'the version');
cmp_ok($status->{uptime_ms}, '>', 0, 'for how long it is up');
is_deeply([sort map { $_->{pid} } @{ $status->{workers} }], [sort $areg->worker_pids], 'every worker');
ok(!(grep { $_->{private_bytes} < 100_000 || $_->{private_bytes} > 100_000_000 } @{ $status->{workers} }),
	'and its own memory');
$areg->get('/api/v1/chains') for 1 .. 5;
my $requests = 0;
$requests += $_->{requests} for @{ status()->{workers} };
is($requests, 5, 'requests are counted, and health checks are not among them');

my $silent = busy_one();
ok(wait_until(2, sub { grep { $_->{state} eq 'busy' } @{ status()->{workers} } }), 'a busy worker is said to be');
my ($busy) = grep { $_->{state} eq 'busy' } @{ status()->{workers} };
my $first = $busy->{for_ms};
sleep 0.3;
my ($again) = grep { $_->{state} eq 'busy' } @{ status()->{workers} };
cmp_ok($again->{for_ms}, '>=', $first + 250, 'and for how long it is');
close $silent;

# What it serves: a request held up by a lock in the database.
my $user = $areg->make_user(scopes => ['payments:write']);
my $pid = fork // die "fork: $!\n";
if ($pid == 0) {
	$areg->psql('BEGIN; LOCK TABLE users IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(2)');
	POSIX::_exit(0);
}
ok(wait_until(5, sub { $areg->psql_value("SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock'"
	. " AND relation = 'users'::regclass") }), 'a table is locked');
my $asking = fork // die "fork: $!\n";
if ($asking == 0) {
	$areg->api(GET => '/api/v1/me', undef, { key => $user->{key} });
	POSIX::_exit(0);
}
ok(wait_until(3, sub { grep { ($_->{serving} // '') eq 'GET /api/v1/me' } @{ status()->{workers} } }),
	'status tells method and route of what a worker is at');
like($areg->aregctl('workers')->{stdout}, qr{busy.*GET /api/v1/me$}m, 'so does the table of workers');
waitpid $_, 0 for $pid, $asking;

my $text = $areg->aregctl('status')->{stdout};
like($text, qr/^areg \S+, pid $master, serving, up for /, 'status for people');
like($text, qr/^generation 1: areg \S+, serving, 2 workers$/m, 'with the generations');

# ---- clients that mean no good ----

like(ask("dance\n"), qr/^\{"error":"there is no such request"\}\n\z/, 'what is not known is refused');
is(ask('x' x 200), '', 'what is too long is hung up on');
my @idle = map { IO::Socket::UNIX->new(Peer => $socket) || die "$socket: $!\n" } 1 .. 20;
my $began = time;
my $worker = ($areg->worker_pids)[0];
kill 'KILL', $worker;
ok(wait_until(3, sub { my @now = $areg->worker_pids; @now == 2 && !grep { $_ == $worker } @now }),
	'with 20 clients that say nothing the master goes on: a killed worker is replaced');
ok(wait_until(30, sub { ($areg->aregctl('status')->{exit}) == 0 }), 'and they are hung up on in time');
close $_ for @idle;
my $deaf = IO::Socket::UNIX->new(Peer => $socket) || die "$socket: $!\n";
syswrite $deaf, "status\n";
is($areg->aregctl('status')->{exit}, 0, 'one that does not read its answer holds up nobody');
close $deaf;

# ---- more and fewer workers ----

kill 'TTIN', $master;
ok(wait_until(2, sub { $areg->worker_pids == 3 }), 'SIGTTIN adds a worker');
ok(wait_until(2, sub { $areg->get('/health')->{json}{status} eq 'healthy' }), 'healthy with three');
for my $left (2, 1) {
	kill 'TTOU', $master;
	ok(wait_until(3, sub { $areg->worker_pids == $left }), "SIGTTOU removes one: $left");
}
is($areg->get('/health')->{json}{status}, 'healthy', 'healthy with one');
kill 'TTOU', $master;
ok(wait_until(2, sub { $areg->log_text('areg') =~ /stays at 1/ }), 'the last one stays');
is($areg->get('/api/v1/chains')->{status}, 200, 'and serves');

# ---- reload by hand ----

my $reload = $areg->aregctl('reload');
is($reload->{exit}, 0, 'aregctl reload') or diag $reload->{stderr};
like($reload->{stdout}, qr/^reloaded: areg \S+, generation 2$/, 'says how it ended');
is($areg->worker_pids, 2, 'and goes back to the configured number of workers')
	if wait_until(5, sub { $areg->worker_pids == 2 && status()->{state} eq 'serving' });
is($areg->pid('aregd'), status()->{pid}, 'the master has the same pid');
cmp_ok(status()->{uptime_ms}, '>=', $status->{uptime_ms}, 'and is up for as long');

# ---- schemas of other releases ----

my $newest = 'version = (SELECT max(version) FROM schema_migrations)';
$areg->psql("UPDATE schema_migrations SET version = version + 1 WHERE $newest");
$reload = $areg->aregctl('reload');
is($reload->{exit}, 0, 'a schema of a later release is no reason to refuse a reload') or diag $reload->{stderr};
ok(wait_until(20, sub { status()->{state} eq 'serving' }), 'the old generation ends');
$areg->psql("DELETE FROM schema_migrations WHERE $newest");
$reload = $areg->aregctl('reload');
is($reload->{exit}, 3, 'one that misses a migration is');
like($reload->{stderr}, qr/schema version \d+ where this program needs \d+: run aregctl migrate/, 'and what to do is said');

$areg->stop_server('postgres');
$reload = $areg->aregctl('reload');
is($reload->{exit}, 3, 'a reload that is refused has exit code 3');
like($reload->{stderr}, qr/^aregctl: reload refused: database: /, 'and says why');
is(status()->{reloads}{last_failure} =~ /^database: / ? 1 : 0, 1, 'so does the status');
$areg->start_server('postgres');

kill 'TERM', $master;
ok(wait_until(5, sub { !alive($master) }), 'SIGTERM ends the master');
ok(!-e $socket, 'and takes the socket along');
my $none = $areg->aregctl('status');
is($none->{exit}, 1, 'aregctl status fails then');
like($none->{stderr}, qr/aregd does not run/, 'and says that aregd does not run');

done_testing();
