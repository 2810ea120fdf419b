# SPDX-License-Identifier: Apache-2.0
# The fault run: one after another, what the registry consists of and depends on is killed, stopped,
# filled up or cut off while it is used through nginx. Each time callers see what the failure policy
# says and nothing else; each write is done once when it was acknowledged, and it is acknowledged in
# the end to whoever asks again with its Idempotency-Key; and then all is as it was before.
# AREG_TEST_FULL=1: every fault, and longer ones; else the quickest, and not what 10-faults.t shows.
use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename qw(dirname);
use File::Temp qw(tempdir);
use IO::Select;
use IO::Socket::UNIX;
use List::Util qw(max sum0);
use Test::More;
use Time::HiRes qw(sleep time);

use lib dirname(__FILE__) . '/../lib';
use Areg::Test qw(alive from_json in_parallel wait_until);

my $full = $ENV{AREG_TEST_FULL};
use constant { WORKERS => 4, READERS => 2, WRITERS => 2, AGENTS => '/api/v1/agents', MIB => 1 << 20 };
use constant DISK => 48 * MIB;
my $hang_s = $full ? 10 : 3;

# What PostgreSQL commits here survives a power cut, too.
my $areg = Areg::Test->start(workers => WORKERS, durable => 1, set => { request_timeout => '8s',
	database_connect_timeout => '1s', database_statement_timeout => '1s' });
my @users = map { $areg->make_user(tier => 'enterprise') } 0 .. WRITERS; # the last owns what others rate
my ($known, $rated) = map { register(WRITERS, "$_ agent", $_)->{json}{agent_uuid} } qw(known rated);
my $stop = $areg->dir . '/stop';
my $run = 0; # number of the fault
my $mended; # when the fault began to be mended

# ---- the load ----

sub register
{
	my ($number, $name, $key) = @_;
	return $areg->post(AGENTS . '/register', { owner_address => $users[$number]{wallet}, chain => 'base',
		registration_file => { name => $name, description => 'registered while things break' } },
		{ key => $users[$number]{key}, 'Idempotency-Key' => $key });
}

sub rate
{
	my ($number, $name) = @_;
	return $areg->post(AGENTS . '/feedback', { agent_uuid => $rated, client_address => $users[$number]{wallet},
		score => 80, tag1 => 'fault', tag2 => $name }, { key => $users[$number]{key}, 'Idempotency-Key' => $name });
}

# A read that no cache has: each time another part of a list.
my $reads = 0;
sub uncached { return AGENTS . '?limit=1&offset=' . (131 * $$ + ++$reads) % 100000 }

# Asks until told to stop. Each answer becomes [kind, status, began, ended].
sub reader
{
	my @seen;

	until (-e $stop) {
		for my $one ([cached => AGENTS . "/$known"], [uncached => uncached()]) {
			my $began = time;
			push @seen, [$one->[0], $areg->get($one->[1])->{status}, $began, time];
		}
		sleep 0.005;
	}
	return { seen => \@seen };
}

# Writes one thing after another, each until it is acknowledged, and reads back what it registered.
sub writer
{
	my ($number) = @_;
	my (@seen, %done);

	for (my $n = 0; !-e $stop; $n++) {
		my $name = "run-$run-writer-$number-$n";
		my $gives_up = time + 60;
		my $answer;
		do {
			my $began = time;
			$answer = $n % 2 ? rate($number, $name) : register($number, $name, $name);
			push @seen, [write => $answer->{status}, $began, time];
			sleep($answer->{status} == 201 ? 0.005 : 0.05);
		} until ($answer->{status} !~ /^(?:502|503|504|599)$/ || time > $gives_up);
		my $id = $answer->{json}{$n % 2 ? 'id' : 'agent_uuid'};
		$done{$name} = "1 $id" if $answer->{status} == 201;
		next if $n % 2 || $answer->{status} != 201;
		my $began = time;
		push @seen, ['read back' => $areg->get(AGENTS . "/$id")->{status}, $began, time];
	}
	return { seen => \@seen, done => \%done };
}

sub is_healthy
{
	my $answer = $areg->get('/health');
	return $answer->{status} == 200 && $answer->{json}{status} eq 'healthy';
}

# Does it, and tells the load to end when the registry is healthy again by itself.
sub break_it
{
	my ($break) = @_;
	my %said;

	undef $mended;
	sleep 0.5;
	$said{from} = time;
	$said{problems} = eval { [$break->()] } || [$@];
	$said{to} = time;
	$said{mended} = $mended // $said{to};
	push @{ $said{problems} }, 'not healthy again' unless wait_until(30, \&is_healthy);
	sleep 0.5;
	open my $out, '>', $stop or die "$stop: $!\n";
	return \%said;
}

# ---- what is to be seen ----

# Names that were written: how often, and the id.
sub stored
{
	return map { ($_->[0] => "$_->[1] $_->[2]") } $areg->psql(
		"SELECT name, count(*), min(agent_uuid::text) FROM erc8004_agents WHERE name LIKE 'run-$run-%' GROUP BY name
		UNION ALL
		SELECT tag2, count(*), min(id::text) FROM erc8004_reputation WHERE tag2 LIKE 'run-$run-%' GROUP BY tag2");
}

# Descriptors of a process.
sub descriptors
{
	my ($pid) = @_;
	opendir my $dir, "/proc/$pid/fd" or return 0;
	return scalar(grep { !/^\./ } readdir $dir);
}

sub workers { return @{ from_json($areg->aregctl('--json', 'status')->{stdout})->{workers} || [] } }

# Its workers end, and with them the connections that they keep.
sub renew_nginx
{
	my $master = $areg->pid('nginx');
	my @old = children($master);

	kill 'HUP', $master;
	wait_until(10, sub { my %now = map { ($_ => 1) } children($master); !grep { $now{$_} } @old })
		or die "nginx does not reload\n";
	return;
}

# What is not as it should be while nobody asks for anything.
sub leftovers
{
	my @workers = workers();
	my @wrong;

	push @wrong, @workers . ' workers' if @workers != WORKERS;
	push @wrong, "worker $_->{worker} is $_->{state}: " . ($_->{serving} // '') for grep { $_->{state} ne 'idle' } @workers;
	push @wrong, map { "worker $_->{worker} has $_->{private_bytes} bytes" } grep { $_->{private_bytes} > 8 * MIB } @workers;
	push @wrong, map { "worker $_->{worker} has " . descriptors($_->{pid}) . ' descriptors' }
		grep { descriptors($_->{pid}) > $areg->{descriptors} } @workers;
	push @wrong, "@{[scalar @$_]} of $_->[0]" for grep { @$_ != 2 } map { [$_, $areg->pids_named("aregd $_")] }
		qw(listener ledger health);
	my ($sessions) = $areg->psql_value("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'areg'");
	push @wrong, "$sessions sessions" if $sessions > WORKERS;
	return @wrong;
}

# fault(name, sub that breaks and mends it and returns problems, option => …): `allows` are the statuses
# per kind beside 200 and 201; `felt` is the kind that it must have hit; `goes_on` the kinds that must be
# answered well while that goes on; `at_most` the number of answers that are not good; `within` the
# seconds that one takes at most; `drops` says that what is cached is dropped when it is over; `keeps`
# that no worker is lost; `long` that it is left out but with AREG_TEST_FULL=1.
sub fault
{
	my ($name, $break, %option) = @_;
	my (%count, @wrong, @seen);

	return if $option{long} && !$full;
	$run++;
	unlink $stop;
	my @before = $areg->worker_pids;
	my ($said, @each) = in_parallel(1 + READERS + WRITERS, sub {
		my ($number) = @_;
		return break_it($break) if $number == 0;
		return $number <= READERS ? reader() : writer($number - READERS - 1);
	});
	@seen = map { @{ $_->{seen} } } @each;
	# Back again, the listener drops what may have changed meanwhile; a worker that still backs off cannot
	# ask for it anew.
	@seen = grep { !($_->[0] eq 'cached' && $_->[1] == 503 && $_->[3] > $said->{mended}) } @seen if $option{drops};
	$count{ $_->[0] }{ $_->[1] }++ for @seen;
	my $bad = grep { $_->[1] !~ /^20[01]$/ } @seen;
	diag("$name: ", join '; ', map { my $kind = $_; "$kind " . join ', ', map { "$_ $count{$kind}{$_} times" }
		sort keys %{ $count{$kind} } } sort keys %count);

	is_deeply($said->{problems}, [], "$name: it happens, and passes by itself");
	for my $kind (sort keys %count) {
		my $allowed = $option{allows}{$kind} // $option{allows}{all} // qr/^$/;
		push @wrong, "$kind: $_" for grep { !/^20[01]$/ && $_ !~ $allowed } keys %{ $count{$kind} };
	}
	is_deeply(\@wrong, [], "$name: callers see nothing else than the policy says");
	cmp_ok($bad, '<=', $option{at_most}, "$name: and no more of it than there must be") if defined $option{at_most};
	cmp_ok(max(map { $_->[3] - $_->[2] } @seen), '<', $option{within}, "$name: nobody waits for long") if $option{within};
	for my $kind (@{ $option{goes_on} || [] }) {
		ok((grep { $_->[0] eq $kind && $_->[1] =~ /^20[01]$/ && $_->[3] > $said->{from} && $_->[2] < $said->{to} } @seen),
			"$name: $kind goes on");
	}
	ok((grep { $_->[0] eq $option{felt} && $_->[1] !~ /^20[01]$/ } @seen), "$name: $option{felt} is hit") if $option{felt};
	my %done = map { %{ $_->{done} || {} } } @each;
	cmp_ok(scalar keys %done, '>', 5, "$name: writes are acknowledged");
	is_deeply({ stored() }, \%done, "$name: each is there, once, and nothing else");

	my @left;
	renew_nginx();
	ok(wait_until(10, sub { !(@left = leftovers()) }), "$name: nothing is left of it") or diag(join "\n", @left);
	is_deeply([sort $areg->worker_pids], [sort @before], "$name: no worker is lost") if $option{keeps};
}

sub children
{
	my ($parent) = @_;
	open my $in, '<', "/proc/$parent/task/$parent/children" or return;
	return split ' ', join '', <$in>;
}

# A server's process and its children.
sub all_of { my $parent = $areg->pid($_[0]); return ($parent, children($parent)) }

# Kills them and starts the server again after a while, as what supervises it would.
sub kill_and_start
{
	my ($server, $away_s, $meanwhile) = @_;
	my @pids = all_of($server);
	kill 'KILL', @pids;
	my @problems = wait_until(10, sub { !grep { alive($_) } @pids }) ? () : "$server does not end";
	push @problems, $meanwhile->() if $meanwhile;
	sleep $away_s;
	$mended = time;
	$areg->start_server($server);
	return @problems;
}

sub becomes
{
	my ($status) = @_;
	return wait_until(10, sub { ($areg->get('/health')->{json}{status} // '') eq $status }) ? () : "never $status";
}

sub hang
{
	my ($server, $becomes) = @_;
	my @pids = all_of($server);
	my $until = time + $hang_s;
	kill 'STOP', @pids;
	my @problems = becomes($becomes);
	sleep max(0, $until - time);
	$mended = time;
	kill 'CONT', @pids;
	return @problems;
}

my @without_database = (drops => 1,
	allows => { uncached => qr/^503$/, write => qr/^503$/, 'read back' => qr/^503$/ });

# As many as a worker has that was asked for everything.
in_parallel(2 * WORKERS, sub {
	$areg->get(uncached()) && $areg->get(AGENTS . "/$known") && $areg->get('/api/v1/me', { key => $users[0]{key} }) for 1 .. 20;
	return 1;
});
$areg->{descriptors} = max map { descriptors($_) } $areg->worker_pids;

# ---- our own processes ----

my $kills = $full ? 8 : 2;
fault('workers killed', sub {
	my @problems;
	for my $n (1 .. $kills) {
		my @workers = $areg->worker_pids;
		my $victim = $workers[$n % WORKERS];
		kill 'KILL', $victim;
		push @problems, "$victim is not replaced" unless wait_until(10, sub {
			my @now = $areg->worker_pids;
			return @now == WORKERS && !grep { $_ == $victim } @now;
		});
		sleep 0.3;
	}
	return @problems;
}, allows => { all => qr/^502$/ }, at_most => $kills, goes_on => [qw(cached uncached write)]);

fault('listener, ledger keeper and health process killed', sub {
	my @problems;
	for my $name (map { "aregd $_" } qw(listener ledger health)) {
		my ($victim) = $areg->pids_named($name);
		kill 'KILL', $victim;
		push @problems, "$name is not replaced" unless wait_until(10, sub {
			my @now = $areg->pids_named($name);
			return @now == 1 && $now[0] != $victim;
		});
		push @problems, becomes('healthy');
	}
	return @problems;
}, keeps => 1, goes_on => [qw(cached uncached write)]);

fault('master killed', sub {
	my ($master, @crew) = all_of('aregd');
	my @problems;
	kill 'KILL', $master;
	wait_until(10, sub { !grep { alive($_) } @crew }) or push @problems, 'orphans do not end';
	for my $name (qw(aregd health control)) {
		push @problems, "somebody listens on $name" if IO::Socket::UNIX->new(Peer => $areg->socket_path($name));
	}
	sleep 0.3;
	$areg->start_server('aregd');
	return @problems;
}, allows => { all => qr/^502$/ }, felt => 'write');

# ---- memcached ----

fault('memcached killed', sub { kill_and_start('memcached', 0.2, sub { becomes('degraded') }) },
	keeps => 1, within => 5, goes_on => [qw(cached uncached write)], long => 1);
fault('memcached stopped', sub { hang('memcached', 'degraded') },
	keeps => 1, within => 5, goes_on => [qw(cached uncached write)]);

# ---- PostgreSQL ----

fault('PostgreSQL killed', sub { kill_and_start('postgres', 1, sub { becomes('unhealthy') }) },
	@without_database, felt => 'write', keeps => 1, goes_on => ['cached']);
fault('one of its sessions killed', sub {
	my ($victim) = map { $_->[0] } $areg->psql("SELECT pid FROM pg_stat_activity WHERE application_name = 'areg' LIMIT 1");
	$mended = time;
	kill 'KILL', $victim; # PostgreSQL ends all the others, too, and recovers
	return wait_until(10, sub { !alive($victim) }) ? () : "$victim does not end";
}, @without_database, keeps => 1, long => 1);
fault('PostgreSQL stopped', sub { hang('postgres', 'unhealthy') },
	@without_database, felt => 'write', keeps => 1, goes_on => ['cached'], long => 1);

fault('PostgreSQL out of connections', sub {
	my @guests = ($areg->guest);
	my @problems;
	my $until = time + ($full ? 10 : 2);
	# Whoever lets go of a connection does not have it again.
	while (time < $until) {
		while (my $guest = $areg->guest) {
			push @guests, $guest;
		}
		my $query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name ^@ 'areg'\0";
		syswrite $guests[0], 'Q' . pack('N', 4 + length $query) . $query;
		sysread $guests[0], my $reply, 65536;
		sleep 0.05;
	}
	push @problems, 'only ' . @guests . ' guests' if @guests < 100;
	return @problems, becomes('unhealthy');
}, @without_database, felt => 'write', keeps => 1, goes_on => ['cached'], long => 1);

# A file system of its own for some folder of PostgreSQL's; it is unmounted with the test.
my @mounted;
END { system 'umount', '-l', $_ for reverse @mounted }
sub mount
{
	my ($folder, $bytes) = @_;
	my ($uid, $gid) = (stat $areg->dir . '/pgdata/.')[4, 5];
	return if system("mount -t tmpfs -o size=$bytes,mode=0700,uid=$uid,gid=$gid areg-test '$folder' 2>/dev/null") != 0;
	push @mounted, $folder;
	return 1;
}

sub fill
{
	my ($folder) = @_;
	open my $out, '>', "$folder/filler" or return "$folder: $!";
	1 while syswrite $out, 'x' x 65536;
	while (syswrite $out, 'x' x 512) { }
	return;
}

SKIP: {
	skip 'a disk that is full: only root can mount a small one', 1 if $> != 0;
	my $disk = tempdir('areg-disk-XXXXXX', TMPDIR => 1, CLEANUP => 1);
	skip 'a disk that is full: this machine mounts nothing', 1 if !mount($disk, DISK);
	$areg->psql("CREATE TABLESPACE small LOCATION '$disk'", as => 'postgres');
	$areg->psql("ALTER TABLE $_ SET TABLESPACE small", as => 'postgres') for qw(erc8004_agents erc8004_reputation audit_log);
	fault('disk full', sub {
		my @problems = fill($disk);
		sleep($full ? 10 : 2);
		unlink "$disk/filler";
		return @problems;
	}, allows => { write => qr/^503$/ }, felt => 'write', keeps => 1, goes_on => [qw(cached uncached)]);
}

SKIP: {
	skip 'a full disk of the write-ahead log: only with AREG_TEST_FULL=1', 1 if !$full;
	skip 'a full disk of the write-ahead log: only root can mount a small one', 1 if $> != 0;
	my $log = abs_path($areg->dir . '/pgdata') . '/pg_wal';
	$areg->stop_server('postgres');
	system("mv '$log' '$log.kept' && mkdir -m 0700 '$log'") == 0 && mount($log, 4 * DISK)
		&& system("cp -a '$log.kept/.' '$log/'") == 0 or BAIL_OUT('the write-ahead log cannot be moved');
	$areg->start_server('postgres');
	wait_until(30, \&is_healthy) or die "not healthy\n";
	# It panics, and cannot recover before there is room again: what supervises it starts it anew.
	fault('disk of the write-ahead log full', sub {
		my @problems = fill($log);
		for (1 .. 30) { # what was laid out ahead is used up
			eval { $areg->psql('SELECT pg_switch_wal()'); 1 } or last;
			sleep 0.1;
		}
		push @problems, becomes('unhealthy');
		sleep 5;
		$mended = time;
		unlink "$log/filler";
		$areg->start_server('postgres');
		return @problems;
	}, @without_database, felt => 'write', keeps => 1, goes_on => ['cached']);
	$areg->stop_server('postgres');
	system("cp -a '$log/.' '$log.kept/' && umount '$log' && rmdir '$log' && mv '$log.kept' '$log'") == 0
		or BAIL_OUT('the write-ahead log cannot be moved back');
	pop @mounted;
	$areg->start_server('postgres');
	wait_until(30, \&is_healthy) or die "not healthy\n";
}

# ---- clients ----

fault('slow clients', sub {
	my $body = '{"owner_address": "' . $users[0]{wallet} . '", "chain": "base", "registration_file": '
		. '{"name": "run slow", "description": "byte by byte"}}';
	my $request = 'POST ' . AGENTS . "/register HTTP/1.1\r\nHost: areg\r\nAuthorization: Bearer $users[0]{key}\r\n"
		. "Content-Type: application/json\r\nContent-Length: " . length($body) . "\r\nConnection: close\r\n\r\n$body";
	my @clients = map { $areg->connection } 1 .. 50;
	my @problems;
	my $step = 1 + int length($request) / ($full ? 80 : 15);
	my $sent = 0;
	while ($sent < length $request) {
		syswrite $_, substr $request, $sent, $step for $sent + $step >= length $request ? $clients[0] : @clients;
		$sent += $step;
		sleep 0.1;
	}
	my $answer = $areg->raw('', socket => $clients[0]);
	push @problems, "a slow client gets $answer->{status}" if $answer->{status} != 201;
	close $_ for @clients;
	return @problems;
}, keeps => 1, goes_on => [qw(cached uncached write)], long => 1);

sub record { my ($type, $content) = @_; return pack('CCnnCC', 1, $type, 1, length $content, 0, 0) . $content }

# Each holds a worker until half of request_timeout is over.
fault('half a request', sub {
	my @halves = ('', record(1, pack 'nCx5', 1, 0), record(1, pack 'nCx5', 1, 0) . pack('CCnnCC', 1, 4, 1, 5000, 0, 0) . 'x',
		'GET / HTTP/1.1');
	my @direct = map {
		my $socket = IO::Socket::UNIX->new(Peer => $areg->socket_path('aregd')) or die "aregd: $!\n";
		syswrite $socket, $halves[$_ % @halves];
		$socket;
	} 1 .. WORKERS;
	my @through = map {
		my $socket = $areg->connection;
		syswrite $socket, 'POST ' . AGENTS . "/register HTTP/1.1\r\nHost: areg\r\nAuthorization: Bearer $users[0]{key}\r\n"
			. "Content-Type: application/json\r\nContent-Length: 5000\r\n\r\n{\"owner";
		$socket;
	} 1 .. 10;
	my @problems = (wait_until(5, sub { grep { $_->{state} eq 'busy' } workers() }) ? () : 'no worker is held');
	for my $socket (@direct) {
		push @problems, 'a worker waits for ever' unless IO::Select->new($socket)->can_read(10);
	}
	close $_ for @through;
	return @problems;
}, keeps => 1, long => 1);

# ---- nginx ----

# A kept connection may close just when a request is sent on it (RFC 9112, section 9.3.1).
fault('nginx restarted', sub {
	kill 'HUP', $areg->pid('nginx');
	sleep 1;
	$areg->stop_server('nginx');
	$areg->start_server('nginx');
	return;
}, allows => { all => qr/^599$/ }, keeps => 1, long => 1);
fault('nginx killed', sub { kill_and_start('nginx', 0.3) }, allows => { all => qr/^599$/ }, felt => 'write', keeps => 1);

# ---- everything ----

fault('everything killed', sub {
	my @pids = map { all_of($_) } qw(postgres aregd memcached);
	kill 'KILL', @pids;
	wait_until(10, sub { !grep { alive($_) } @pids }) or return 'something does not end';
	$areg->instance('start');
	return;
}, allows => { all => qr/^50[23]$/ }, felt => 'write');

# ---- how it hangs together ----

is($areg->psql_value('SELECT count(*) FROM (SELECT FROM erc8004_agents GROUP BY chain, agent_id
	HAVING count(*) > 1) AS twice'), 0, 'no number was given twice');
is($areg->psql_value('SELECT sum(agents) FROM erc8004_agent_counts'),
	$areg->psql_value('SELECT count(*) FROM erc8004_agents'), 'agents are counted right');
is($areg->psql_value("SELECT total_feedback FROM erc8004_agent_stats WHERE agent_uuid = '$rated'"),
	$areg->psql_value("SELECT count(*) FROM erc8004_reputation WHERE agent_uuid = '$rated'"), 'so is feedback');
my $verified = $areg->aregctl('audit', 'verify');
is($verified->{exit}, 0, 'nothing is wrong with the audit log') or diag($verified->{stdout}, $verified->{stderr});

done_testing();
