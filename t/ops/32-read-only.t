# SPDX-License-Identifier: Apache-2.0
# The database takes no changes for a while: its disk is full and the provider has turned it read-only,
# an operator has, or a standby stands in the primary's place after a failover that went wrong.
use strict;
use warnings;

use File::Temp qw(tempdir);
use FindBin;
use POSIX qw(_exit setsid);
use Test::More;
use Time::HiRes qw(sleep time);

use lib "$FindBin::Bin/../lib";
use Areg::Test qw(build_dir in_parallel problem_ok wait_until);

use constant WORKERS => 2;

$ENV{PATH} = join ':', (reverse glob '/usr/lib/postgresql/*/bin'), $ENV{PATH};

my $areg = Areg::Test->start(workers => WORKERS);
my ($user, $giver) = map { $areg->make_user(tier => 'enterprise') } 1 .. 2;
my $agent = $areg->make_agent($user, name => 'The first')->{agent_uuid};
my $number = 0;

sub give { return $areg->give_feedback($agent, $giver, score => 90) }
sub new_agent
{
	return $areg->post('/api/v1/agents/register', { owner_address => $user->{wallet}, chain => 'base',
		registration_file => { name => 'Agent ' . ++$number . " of $$", description => 'is there' } },
		{ key => $user->{key} });
}
sub challenge { return $areg->post('/api/v1/auth/challenge', { address => $user->{wallet} }) }
sub health { return $areg->get('/health') }
sub new_question { return "/api/v1/agents/$agent/summary?clients=0x" . '1' x 40 . '&tag1=t' . ++$number }

# Calls until each worker has been asked, and returns the statuses that came.
sub all_workers
{
	my ($call) = @_;
	my %seen;

	$seen{$_}++ for in_parallel(4, sub { $number += 1000 * ($_[0] + 1); join ' ', map { $call->()->{status} } 1 .. 5 });
	return join ' ', sort keys %{ { map { $_ => 1 } map { split ' ' } keys %seen } };
}

sub set_read_only
{
	my ($on) = @_;

	$areg->psql($on ? 'ALTER SYSTEM SET default_transaction_read_only = on'
		: 'ALTER SYSTEM RESET default_transaction_read_only');
	$areg->psql('SELECT pg_reload_conf()');
	return wait_until(10, sub {
		$areg->psql_value('SHOW default_transaction_read_only') eq ($on ? 'on' : 'off')
	});
}

sub is_well_by_itself
{
	my ($what) = @_;

	ok(wait_until(15, sub { health()->{json}{status} eq 'healthy' }), "$what: health is well by itself");
	ok(wait_until(15, sub { all_workers(\&new_agent) eq '201' }), 'so are all workers');
	is(all_workers(\&give), '201', 'feedback as well');
	is(challenge()->{status}, 200, 'and sign-in');
}

# ---- Read-only, and back ----

is(health()->{status}, 200, 'all is well');
is(all_workers(\&give), '201', 'every worker stores');
ok(set_read_only(1), 'the database is read-only');
is(all_workers(\&new_agent), '503', 'a registration is refused');
is(all_workers(\&give), '503', 'feedback, too');
my $refused = new_agent();
problem_ok($refused, 503, 'unavailable');
ok($refused->{headers}{'retry-after'}, 'with Retry-After');
problem_ok(challenge(), 503, 'unavailable');
ok(wait_until(5, sub { health()->{status} == 503 }), 'health is 503 without any change being tried');
is(health()->{json}{checks}{database}, 'unhealthy', 'and says what it is');
like($areg->log_text('areg'), qr/read-only/, 'the log says why');
{
	my $said = qx(${\ build_dir() }/aregd -t -c ${\ $areg->conf } 2>&1);
	like($said, qr/database: .*read-only.*takes no changes/, 'so does aregd -t');
	like($areg->aregctl('user', 'list')->{stderr}, qr/takes no changes/, 'and aregctl') ;
}
set_read_only(0);
is_well_by_itself('writable again');

# Nobody wrote: only the check of health and readers hear of it.
set_read_only(1);
ok(wait_until(5, sub { health()->{status} == 503 }), 'health hears of it where nobody writes');
set_read_only(0);
ok(wait_until(10, sub { health()->{status} == 200 }), 'and that it is over');

# ---- A standby in the primary's place ----

my $data = readlink($areg->dir . '/pgdata') || $areg->dir . '/pgdata';
my ($uid, $gid) = (stat $data)[4, 5];
my $dir = tempdir('areg-standby-XXXXXX', TMPDIR => 1, CLEANUP => 1);
my $standby;

chown $uid, $gid, $dir;

sub launch
{
	my (@command) = @_;
	my $pid = fork // die "fork: $!\n";

	return $pid if $pid;
	setsid();
	open STDIN, '<', '/dev/null';
	open STDOUT, '>>', "$dir/log";
	open STDERR, '>&', \*STDOUT;
	chdir '/';
	unshift @command, 'setpriv', "--reuid=$uid", "--regid=$gid", '--clear-groups', '--' if $> == 0;
	exec @command or _exit(127);
}

sub start_standby
{
	$standby = launch('postgres', '-D', "$dir/data", '-c', 'listen_addresses=',
		'-c', "unix_socket_directories=$dir", '-c', 'max_connections=200',
		'-c', 'shared_buffers=32MB', '-c', 'fsync=off', '-c', 'wal_retrieve_retry_interval=200ms');
	return wait_until(30, sub { on_standby('SELECT 1') eq '1' });
}

sub on_standby
{
	my ($sql) = @_;
	open my $out, '-|', 'sh', '-c', 'exec psql -qAtX -h "$1" -U postgres -d areg -c "$2" 2>/dev/null', 'sh', $dir, $sql
		or die "psql: $!\n";
	my $text = join '', <$out>;
	close $out;
	chomp $text;
	return $text;
}

END {
	my $status = $?;
	if ($standby && $areg && $areg->{owner} == $$) {
		kill 'INT', $standby;
		waitpid $standby, 0;
	}
	$? = $status;
}

my $copy = launch('pg_basebackup', '-h', $areg->socket_path('pg'), '-U', 'postgres', '-D', "$dir/data", '-R', '-X',
	'stream', '--checkpoint=fast', '--no-sync');
waitpid $copy, 0;
is($?, 0, 'a standby is made');
ok(start_standby(), 'and follows');

# database_url names several hosts, the standby first.
my ($pg, $url) = ($areg->socket_path('pg'), $areg->env('DATABASE_URL'));
my ($name) = $url =~ m{^postgres(?:ql)?://[^/]*/([^?]+)};
my ($role) = $url =~ /[?&]user=([^&]+)/;
$role //= ($url =~ m{//([^:@/]+)@})[0] // 'areg';
$areg->stop_server('aregd');
$areg->start_server('aregd', set => { database_url => "postgresql:///$name?host=$dir,$pg&user=$role",
	database_connect_timeout => '2s' });
ok(wait_until(20, sub { health()->{status} == 200 }), 'of two hosts, the standby first, the primary is found');
is(all_workers(\&new_agent), '201', 'and takes changes');

# The primary goes, the standby is there and is none: nothing may take it for the primary.
$areg->stop_server('postgres');
ok(wait_until(10, sub { health()->{status} == 503 }), 'the primary is gone: a standby does not stand for it');
is(all_workers(\&new_agent), '503', 'a registration is refused');
is(all_workers(sub { $areg->get(new_question()) }), '503', 'and a read that no cache has');
on_standby('SELECT pg_promote()');
is_well_by_itself('the standby is promoted');

done_testing;
