# SPDX-License-Identifier: Apache-2.0
# Connections that nginx keeps open to the workers: used again, never in anybody's way, and no request
# is lost when one is closed. AREG_TEST_FULL=1: five minutes of load with 4, 8 and 16 workers.
use strict;
use warnings;

use Errno qw(EAGAIN);
use File::Basename qw(dirname);
use IO::Select;
use Test::More;
use Time::HiRes qw(sleep time);

use lib dirname(__FILE__) . '/../lib';
use Areg::Test qw(from_json in_parallel wait_until);

my $full = $ENV{AREG_TEST_FULL};
use constant { WORKERS => 3, KEPT_PLACES => 128, CLIENTS => 48, AGENTS => '/api/v1/agents' };

my $areg = Areg::Test->start(workers => WORKERS, set => { max_requests => 400 });
# All clients here have one address, and more connections than nginx lets one have.
$areg->reload_nginx('app.conf' => sub { s/(limit_conn\s+areg_connections) \d+;/$1 4096;/ });
my $user = $areg->make_user(tier => 'enterprise');

sub register
{
	my ($name) = @_;
	return $areg->post(AGENTS . '/register', { owner_address => $user->{wallet}, chain => 'base',
		registration_file => { name => $name, description => 'asked for over kept connections' } },
		{ key => $user->{key} });
}

my $agent = AGENTS . '/' . register('an agent')->{json}{agent_uuid};

# The inodes of the workers' ends of nginx's connections that are open.
sub connections
{
	my $path = $areg->socket_path('aregd');
	open my $in, '<', '/proc/net/unix' or die "/proc/net/unix: $!\n";
	my @all = sort map { (split)[5] == 3 ? (split)[6] : () } grep { / \Q$path\E$/ } <$in>;
	return @all;
}

# Those of one process.
sub held_by
{
	my ($pid) = @_;
	my %open = map { ((readlink) // '') =~ /^socket:\[(\d+)\]$/ ? ($1 => 1) : () } glob "/proc/$pid/fd/*";
	my @held = grep { $open{$_} } connections();
	return @held;
}

# What nginx said of connections that were closed under a request.
sub complaints { return scalar(() = $areg->log_text('nginx-error') =~ /upstream/g) }

# GETs over so many connections at once, from this process, until the sub says stop: each connection
# asks again when it is answered, with one of the keys, if any. Returns how often each status came, and
# the longest that one took.
sub load
{
	my ($clients, $path, $until, @keys) = @_;
	my $select = IO::Select->new;
	my (%of, %count);
	my ($longest, $stop) = (0, 0);
	my $ask = sub {
		my ($one) = @_;
		@$one{qw(got began)} = ('', time);
		syswrite $one->{socket}, $one->{request};
	};
	my $begin = sub {
		my ($request) = @_;
		my $socket = $areg->connection;
		$socket->blocking(0);
		$select->add($socket);
		$ask->($of{ fileno $socket } = { socket => $socket, request => $request });
	};

	for (1 .. $clients) {
		my $header = @keys ? "Authorization: Bearer $keys[$_ % @keys]\r\n" : '';
		$begin->("GET $path HTTP/1.1\r\nHost: a\r\n$header\r\n");
	}
	while ($select->count) {
		my @ready = $select->can_read(40);
		if (!@ready) {
			$count{'no answer'} += $select->count;
			last;
		}
		$stop ||= $until->();
		for my $socket (@ready) {
			my $one = $of{ fileno $socket };
			if (!sysread $socket, $one->{got}, 65536, length $one->{got}) {
				next if $! == EAGAIN;
				$count{closed}++;
				$select->remove($socket);
				next;
			}
			next unless $one->{got} =~ m{\AHTTP/1.1 (\d+).*?\r\nContent-Length: (\d+)\r\n.*?\r\n\r\n}s
				&& length $one->{got} >= $2 + $+[0];
			$count{$1}++;
			my $took = time - $one->{began};
			$longest = $took if $took > $longest;
			# nginx ends a client's connection after so many requests.
			my $is_last = $one->{got} =~ /^Connection: close\r$/m;
			if ($stop || $is_last) {
				$select->remove($socket);
				delete $of{ fileno $socket };
				close $socket;
				$begin->($one->{request}) unless $stop;
				next;
			}
			$ask->($one);
		}
	}
	return (\%count, $longest);
}

# Load from another process for as long as the sub runs here.
sub under_load
{
	my ($clients, $sub) = @_;
	my $stop = $areg->dir . '/stop';
	unlink $stop;
	my ($loaded) = in_parallel(2, sub {
		my ($which) = @_;
		if ($which == 0) {
			my ($count) = load($clients, "$agent/stats", sub { -e $stop });
			return $count;
		}
		my $done = eval { $sub->(); 1 };
		open my $out, '>', $stop;
		die $@ unless $done;
		return 1;
	});
	return $loaded;
}

sub only_200
{
	my ($count, $name) = @_;
	is_deeply([sort keys %$count], [200], $name)
		or diag(join ', ', map { "$_: $count->{$_} times" } sort keys %$count);
}

sub for_seconds { my $end = time + $_[0]; return sub { time > $end } }

# ---- kept, used again, closed ----

$areg->get("$agent/stats");
my @first = connections();
is(scalar @first, 1, 'after a read its connection is still open');
$areg->get("$agent/stats") for 1 .. 20;
is_deeply([connections()], \@first, 'the next reads go over it');
is($areg->api(HEAD => $agent)->{status}, 200, 'HEAD is answered');
is(register('another')->{status}, 201, 'a change is made');
ok(wait_until(5, sub { "@{[connections()]}" eq "@first" }), 'each over a connection of its own, which ends with it');
my ($holder) = grep { held_by($_) } $areg->worker_pids;
$areg->reload_nginx;
ok(wait_until(5, sub { !held_by($holder) }), 'a worker notices that nginx has closed its end');

my $status = sub { from_json($areg->aregctl('status', '--json')->{stdout}) || {} };
$areg->get("$agent/stats");
ok(wait_until(5, sub { !grep { $_->{state} ne 'idle' } @{ $status->()->{workers} || [{}] } }),
	'who only holds connections counts as idle');

# ---- nobody waits behind a slow request ----

# All workers keep connections; then all of them but one are busy.
only_200((load(CLIENTS, "$agent/stats", for_seconds(1)))[0], 'many clients at once are answered');
cmp_ok(scalar connections(), '>', 1, 'and many connections kept');
open my $lock, '|-', 'psql', '-qAtX', '-o', '/dev/null', '-h', $areg->socket_path('pg'), '-U', 'areg_owner',
	'-d', 'areg' or die "psql: $!\n";
$lock->autoflush(1);
print $lock "BEGIN; LOCK TABLE erc8004_agents IN ACCESS EXCLUSIVE MODE;\n";
wait_until(5, sub { $areg->psql_value("SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock'
	AND granted AND relation = 'erc8004_agents'::regclass") }) or die "no lock\n";
my $released = $areg->dir . '/released';
my ($hot, @slow) = in_parallel(WORKERS, sub {
	my ($which) = @_;
	if ($which > 0) {
		my $answer = $areg->get(AGENTS . "?q=slow$which");
		return { status => $answer->{status}, too_early => -e $released ? 0 : 1 };
	}
	wait_until(10, sub { WORKERS - 1 == grep { $_->{state} eq 'busy' } @{ $status->()->{workers} } })
		or return { '' => 'the slow ones are not at work' };
	my ($count) = load(CLIENTS, "$agent/stats", for_seconds(1));
	open my $out, '>', $released;
	print $lock "COMMIT;\n";
	return $count;
});
only_200($hot, 'while all workers but one wait for the database, every other read is answered');
is_deeply(\@slow, [({ status => 200, too_early => 0 }) x (WORKERS - 1)], 'before the slow ones are');
close $lock;

# ---- workers come and go ----

my $said = complaints();
my ($ends) = (scalar(() = $areg->log_text('areg') =~ /worker ends after/g));
only_200((load(CLIENTS, "$agent/stats", for_seconds(2)))[0], 'workers end after 400 requests: no read fails');
cmp_ok(scalar(() = $areg->log_text('areg') =~ /worker ends after/g) - $ends, '>', 3, 'several did meanwhile');
my $count = under_load(CLIENTS, sub {
	for (1 .. 2) {
		my $done = $status->()->{reloads}{done};
		kill 'HUP', $areg->pid('aregd');
		wait_until(60, sub { my $now = $status->(); ($now->{reloads}{done} // 0) > $done
			&& $now->{state} eq 'serving' }) or die "a reload has no end\n";
	}
});
only_200($count, 'two reloads: no read fails');
is(complaints() - $said, 0, 'and nginx was never hung up on');

$count = under_load(CLIENTS, sub {
	for (1 .. 4) {
		my ($victim) = $areg->worker_pids;
		kill 'KILL', $victim;
		wait_until(10, sub { my @now = $areg->worker_pids; @now == WORKERS && !grep { $_ == $victim } @now });
	}
});
my %others = map { ($_ => $count->{$_}) } grep { $_ != 200 } keys %$count;
ok(($others{502} // 0) <= 4 && !grep({ $_ != 502 } keys %others),
	'four workers killed: at most the read that each was at fails, whatever connections it held')
	or diag(join ', ', map { "$_: $count->{$_} times" } sort keys %$count);

# ---- more connections than a worker keeps ----

$areg->stop_server('aregd');
$areg->instance('start-aregd', '--workers', 1);
only_200((load(3 * CLIENTS, "$agent/stats", for_seconds(1)))[0],
	'a single worker closes what is too many under load: no read fails');
ok(wait_until(10, sub { my @held = held_by($areg->worker_pids); @held <= KEPT_PLACES }), 'it holds at most ' . KEPT_PLACES);
cmp_ok(scalar held_by($areg->worker_pids), '>', 1, 'and several');

# ---- keep-alive turned off ----

my $conf = $areg->dir . '/nginx/app.conf';
open my $in, '<', $conf or die "$conf: $!\n";
my $text = join '', <$in>;
$text =~ s/fastcgi_keep_conn\s+\Kon;/off;/ or die "no fastcgi_keep_conn\n";
open my $out, '>', $conf or die "$conf: $!\n";
print $out $text;
close $out or die "$conf: $!\n";
$areg->reload_nginx;
only_200((load(8, "$agent/stats", for_seconds(0.5)))[0], 'with fastcgi_keep_conn off reads are answered');
ok(wait_until(5, sub { !connections() }), 'and no connection stays open');

# ---- five minutes ----

my @keys = map { $areg->make_user(tier => 'enterprise')->{key} } 1 .. ($full ? 16 : 0);
for my $workers ($full ? (4, 8, 16) : ()) {
	$areg->stop_server('aregd');
	$areg->stop_server('nginx');
	$areg->instance('start-aregd', '--workers', $workers, $areg->_settings({}));
	$areg->start_server('nginx');
	my ($counted, $longest) = load(64, "$agent/stats", for_seconds(100), @keys);
	only_200($counted, "100 seconds with $workers workers: every read is answered");
	cmp_ok($longest, '<', 1, 'within a second');
	diag("$workers workers: $counted->{200} requests, the longest took $longest s");
}

done_testing();
