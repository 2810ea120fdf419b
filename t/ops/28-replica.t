#!/usr/bin/perl
# SPDX-License-Identifier: Apache-2.0
# Reads from replicas (database_read): real hot standbys, which lag, hang, die and are promoted, and a
# primary that dies. A minute of load with AREG_TEST_FULL=1.
use strict;
use warnings;

use File::Temp qw(tempdir);
use FindBin;
use POSIX qw(_exit setsid);
use Test::More;
use Time::HiRes qw(sleep time);

use lib "$FindBin::Bin/../lib";
use Areg::Test qw(alive build_dir in_parallel wait_until);

use constant { REPLICAS => 2, READERS => 6, SECONDS => $ENV{AREG_TEST_FULL} ? 60 : 1.5 };

$ENV{PATH} = join ':', (reverse glob '/usr/lib/postgresql/*/bin'), $ENV{PATH};

my $here = Areg::Test->start(workers => 4);
my @replicas;

END {
	my $status = $?;
	$_->stop for grep { $_->{owner} == $$ } @replicas;
	$? = $status;
}

# ---- Replicas ----

package Replica;

# A copy of the registry's database that follows it.
sub start
{
	my ($class, $areg) = @_;
	my $data = readlink($areg->dir . '/pgdata') || $areg->dir . '/pgdata';
	my $self = bless { owner => $$, uid => (stat $data)[4], gid => (stat $data)[5],
		primary => $areg->socket_path('pg') }, $class;

	$self->{dir} = File::Temp::tempdir('areg-replica-XXXXXX', TMPDIR => 1, CLEANUP => 1);
	chown $self->{uid}, $self->{gid}, $self->{dir};
	$self->wait_for($self->launch('pg_basebackup', '-h', $self->{primary}, '-U', 'postgres', '-D',
		"$self->{dir}/data", '-R', '-X', 'stream', '--checkpoint=fast', '--no-sync')) == 0
		or die "pg_basebackup: see $self->{dir}/log\n";
	$self->begin;
	return $self;
}

# Runs a program as the user of the primary's server, in a group of its own.
sub launch
{
	my ($self, @command) = @_;
	my $pid = fork // die "fork: $!\n";

	if ($pid == 0) {
		POSIX::setsid();
		open STDIN, '<', '/dev/null';
		open STDOUT, '>>', "$self->{dir}/log";
		open STDERR, '>&', \*STDOUT;
		chdir '/';
		unshift @command, 'setpriv', "--reuid=$self->{uid}", "--regid=$self->{gid}", '--clear-groups', '--'
			if $> == 0;
		exec @command or POSIX::_exit(127);
	}
	return $pid;
}

sub wait_for { waitpid $_[1], 0; return $? }

sub begin
{
	my ($self) = @_;

	$self->{pid} = $self->launch('postgres', '-D', "$self->{dir}/data", '-c', 'listen_addresses=',
		'-c', "unix_socket_directories=$self->{dir}", '-c', 'max_connections=200',
		'-c', 'shared_buffers=32MB', '-c', 'fsync=off', '-c', 'wal_retrieve_retry_interval=200ms');
	Areg::Test::wait_until(30, sub { $self->ask('SELECT 1') eq '1' }) or die "no replica: see $self->{dir}/log\n";
}

sub ask
{
	my ($self, $sql) = @_;

	open my $out, '-|', 'sh', '-c', 'exec psql -qAtX -h "$1" -U postgres -d areg -c "$2" 2>/dev/null', 'sh',
		$self->{dir}, $sql or die "psql: $!\n";
	my $text = join '', <$out>;
	close $out;
	chomp $text;
	return $text;
}

sub url { return "postgresql:///areg?host=$_[0]{dir}&user=areg" }

# The server and all its children.
sub pids
{
	my ($self) = @_;
	open my $in, '<', "/proc/$self->{pid}/task/$self->{pid}/children" or return;
	return ($self->{pid}, split ' ', join '', <$in>);
}

sub end
{
	my ($self, $signal) = @_;
	my @pids = $self->{pid} ? $self->pids : ();

	return if !$self->{pid};
	kill 'CONT', @pids;
	kill $signal, $signal eq 'KILL' ? @pids : $self->{pid};
	$self->wait_for(delete $self->{pid});
}

sub stop { $_[0]->end('INT') }

package main;

# ---- What is asked ----

my $number = 0;

# A question that nobody has asked before: no cache has its answer.
sub new_question
{
	return "/api/v1/agents/$_[0]/summary?clients=0x" . '1' x 40 . '&tag1=t' . $number++;
}

# One question after the other would go to one worker.
sub ask_all_workers
{
	my ($agent) = @_;

	in_parallel(8, sub { $here->get(new_question($agent) . "&tag2=p$$") for 1 .. 5; return 1 });
	return;
}

sub metric
{
	my ($host, $name) = @_;
	return $host->get('/metrics')->{body} =~ /^\Q$name\E (\S+)$/m ? $1 : undef;
}

sub reads { return metric($_[1] // $here, qq(areg_database_reads_total{server="$_[0]"})) // 0 }
sub fallbacks { return metric($here, qq(areg_replica_fallbacks_total{reason="$_[0]"})) // 0 }
sub health { return $here->get('/api/v1/agents/health') }

# Whether a read is answered by a replica now.
sub from_replica
{
	my ($uuid, $host) = (@_, $here);
	my $before = reads('replica', $host);
	return $host->get(new_question($uuid))->{status} == 200 && reads('replica', $host) > $before;
}

sub primary_pids
{
	my $parent = $here->pid('postgres');
	open my $in, '<', "/proc/$parent/task/$parent/children" or return $parent;
	return ($parent, split ' ', join '', <$in>);
}

push @replicas, Replica->start($here) for 1 .. REPLICAS;
my %set = (database_read => join(' ', map { $_->url } @replicas), database_read_timeout => '500ms',
	public_url => 'https://registry.example'); # the same, or they share no answers
$here->stop_server('aregd');
$here->start_server('aregd', set => \%set);
my $there = Areg::Test->start(workers => 2, beside => $here, set => \%set);

my $owner = $here->make_user(tier => 'enterprise');
my $giver = $here->make_user(tier => 'enterprise');
my $cold = $here->make_user(tier => 'enterprise');
my @agents = map {
	$here->post('/api/v1/agents/register', { owner_address => $owner->{wallet}, chain => 'base',
		registration_file => { name => "Agent $_", description => 'is there' } },
		{ key => $owner->{key} })->{json}{agent_uuid}
} 1 .. 4;
my $agent = $agents[0];
my %given;

sub give
{
	my ($uuid) = @_;
	my $answer = $here->post('/api/v1/agents/feedback', { agent_uuid => $uuid,
		client_address => $giver->{wallet}, score => int rand 101 }, { key => $giver->{key} });

	$given{$uuid}++ if $answer->{status} == 201;
	return $answer;
}

sub shown { return $_[0]->get("/api/v1/agents/$_[1]/stats")->{json}{total_feedback} }

# ---- In good order ----

my ($aregd, $check) = (build_dir() . '/aregd');
ok(wait_until(20, sub {
	$check = qx($aregd -t -c ${\ $here->conf } 2>&1);
	return $? == 0;
}), 'aregd -t finds the replicas in order') or diag $check;
like($check, qr/^replica 1: PostgreSQL \S+.* \d+ ms behind$/m, 'and says what they are');
like($here->log_text('areg'), qr/replica 2: PostgreSQL/, 'so does the log at start');

ok(wait_until(20, sub { from_replica($agent) }), 'a read that no cache has is answered by a replica');
ok(wait_until(20, sub {
	my $primary = reads('primary');
	$here->get(new_question($_)) for (@agents) x 5;
	reads('primary') == $primary;
}), 'and the primary is asked for none of twenty');
my $per_replica = q{SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'areg replica _'};
ok(wait_until(20, sub {
	ask_all_workers($agent);
	return !grep { $_->ask($per_replica) < 1 } @replicas;
}), 'the workers spread over the replicas');
is($here->get('/api/v1/me', { key => $owner->{key} })->{status}, 200, 'a caller reads of themselves');
is((grep { $_->ask(q{SELECT 1 FROM pg_stat_activity WHERE query ~ 'users|api_keys' AND pid <> pg_backend_pid()}) }
	@replicas), 0, 'and no replica is asked for that');
{
	my $health = health();
	is($health->{json}{status}, 'healthy', 'all is healthy');
	is_deeply([map { $_->{role} } @{ $health->{json}{replicas} }], ['replica', 'replica'], 'the replicas, too');
}

# ---- Replicas that lag ----

sub pause_replay
{
	$_->ask('SELECT pg_wal_replay_pause()') for @replicas;
	for my $replica (@replicas) {
		wait_until(10, sub { $replica->ask('SELECT pg_get_wal_replay_pause_state()') eq 'paused' });
	}
}

sub resume_replay { $_->ask('SELECT pg_wal_replay_resume()') for @replicas }

pause_replay();
{
	my ($behind, $wrong, $late) = (fallbacks('behind'), 0, 0);
	for my $round (1 .. 25) {
		my $uuid = $agents[$round % @agents];
		give($uuid)->{status} == 201 or $wrong++;
		$wrong++ if shown($here, $uuid) != $given{$uuid};
		$wrong++ if $here->get("/api/v1/agents/$uuid/feedback?limit=1")->{json}{total} != $given{$uuid};
	}
	is($wrong, 0, 'whoever writes reads what they wrote, however far replicas are behind');
	cmp_ok(fallbacks('behind'), '>', $behind, 'since the primary was asked');
	sleep 1.1;
	for my $uuid (@agents) {
		$late++ if shown($there, $uuid) != $given{$uuid};
	}
	is($late, 0, 'another host shows it a second later');
}
resume_replay();
ok(wait_until(20, sub { from_replica($agent) }), 'replicas that have caught up answer again');
is(shown($_, $agent), $given{$agent}, 'and nothing that they said earlier is left') for $here, $there;
{
	my $wrong = 0;
	for my $round (1 .. 4) {
		my $question = "/api/v1/agents/$agent/feedback?limit=" . (1 + $round);

		wait_until(20, sub { from_replica($agent, $there) });
		pause_replay();
		give($agent);
		# It has not heard of that yet, and may fill memcached with what it reads.
		$there->get($question);
		$wrong++ if $here->get($question)->{json}{total} != $given{$agent};
		resume_replay();
	}
	is($wrong, 0, 'another host does not put back what was before');
}

# ---- Replicas that lag, under load ----

# Each writer has an agent of its own, whose numbers all others read meanwhile, on both hosts.
sub truth_until
{
	my ($client, $until) = @_;
	my %count = (writes => 0, wrong => 0);

	while (time < $until) {
		if ($client >= @agents) {
			my $uuid = $agents[rand @agents];
			$_->get("/api/v1/agents/$uuid/" . (rand 2 < 1 ? 'stats' : 'feedback?limit=1')) for $here, $there;
			next;
		}
		my $uuid = $agents[$client];
		$count{writes}++ if give($uuid)->{status} == 201;
		$count{wrong}++ if shown($here, $uuid) != $given{$uuid};
		$count{wrong}++ if $here->get("/api/v1/agents/$uuid/feedback?limit=1")->{json}{total} != $given{$uuid};
	}
	return { %count, given => { %given } };
}

{
	my $until = time + SECONDS;
	my %sum;
	my @counts = in_parallel(@agents + READERS, sub {
		my ($client) = @_;
		return truth_until($client, $until) if $client < @agents + READERS - 1;
		while (time < $until) {
			for my $verb (qw(pause resume)) {
				$_->ask("SELECT pg_wal_replay_$verb()") for @replicas;
				sleep rand 0.3;
			}
		}
		return {};
	});
	for my $client (0 .. $#agents) {
		$sum{$_} += $counts[$client]{$_} for qw(writes wrong);
		$given{$agents[$client]} = $counts[$client]{given}{$agents[$client]};
	}
	resume_replay();
	is($sum{wrong}, 0, "who writes reads what they wrote, with $sum{writes} writes while replicas stop and go");
	cmp_ok($sum{writes}, '>', 10, 'and they did write');
	wait_until(20, sub { from_replica($agent) });
}

# ---- A replica that hangs, and dies ----

sub read_until
{
	my ($until) = @_;
	my %count;

	while (time < $until) {
		$count{$here->get(new_question($agents[rand @agents]))->{status}}++;
	}
	return \%count;
}

# Reads with all that disturbs them; returns how often which status was answered.
sub load
{
	my ($disturb) = @_;
	my $until = time + SECONDS;
	my %sum;

	for my $one (in_parallel(READERS + 1, sub {
		my ($reader) = @_;
		$number = ($reader + 1) * 1_000_000 + $number;
		return read_until($until) if $reader < READERS;
		$disturb->();
		return {};
	})) {
		$sum{$_} += $one->{$_} for keys %$one;
	}
	$number += 1_000;
	return \%sum;
}

my $statuses = load(sub { sleep 0.5; kill 'STOP', $replicas[0]->pids });
is_deeply([keys %$statuses], [200], "a replica hangs: no read fails of $statuses->{200}");
ok(wait_until(20, sub { health()->{json}{status} eq 'degraded' }), 'health is degraded');
is(health()->{status}, 200, 'but 200');
is_deeply(health()->{json}{replicas}[0], { role => 'unknown', lag_ms => undef }, 'and says which replica it is');
$replicas[0]->end('KILL');
$replicas[0]->begin;
ok(wait_until(20, sub { health()->{json}{status} eq 'healthy' }), 'it is back');
ok(wait_until(20, sub { ask_all_workers($agent); $replicas[0]->ask($per_replica) > 0 }), 'and asked again');
$statuses = load(sub {
	sleep 0.5;
	kill 'KILL', $replicas[1]->pids;
	sleep 1;
	$replicas[0]->ask(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name ~ '^areg'});
});
is_deeply([keys %$statuses], [200], "a replica is killed, connections to the other are: no read fails of $statuses->{200}");
$replicas[1]->end('KILL');

# ---- A primary that dies ----

shown($here, $agent);
wait_until(20, sub { from_replica($agents[1]) });
give($agent);
wait_until(20, sub { from_replica($agents[1]) });
kill 'KILL', primary_pids();
for my $when ('at once', 'when nothing was heard of it for long') {
	sleep 1.5 if $when ne 'at once';
	is(shown($here, $agent), $given{$agent}, "the primary is lost: a cached read is answered $when");
	is($here->get(new_question($agent), { key => $owner->{key} })->{status}, 200, "a replica answers others $when");
	is(give($agent)->{status}, 503, "a write is refused $when");
}
is($here->get(new_question($agent), { key => $cold->{key} })->{status}, 503, 'a key that was not used before cannot be checked');
is(health()->{status}, 503, 'health says so');
$statuses = load(sub { });
is_deeply([keys %$statuses], [200], "no read of $statuses->{200} fails without the primary");
$here->stop_server('postgres');
$here->start_server('postgres');
ok(wait_until(30, sub { give($agent)->{status} == 201 }), 'the primary is back: a write is done');
is(shown($here, $agent), $given{$agent}, 'and seen');
ok(wait_until(30, sub { health()->{status} == 200 }), 'health is well');

# ---- One that follows no more ----

$replicas[1]->begin;
ok(wait_until(20, sub { from_replica($agent) }), 'a replica answers');
$_->ask('SELECT pg_promote()') for @replicas;
wait_until(20, sub { health()->{json}{replicas}[0]{role} eq 'primary' && health()->{json}{replicas}[1]{role} eq 'primary' });
{
	my $wrong = 0;
	for my $round (1 .. 10) {
		give($agent)->{status} == 201 or $wrong++;
		$wrong++ if shown($here, $agent) != $given{$agent};
	}
	is($wrong, 0, 'replicas that were promoted by themselves are not asked');
	ok(!from_replica($agent), 'for anything');
}

done_testing;
