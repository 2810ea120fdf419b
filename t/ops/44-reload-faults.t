# SPDX-License-Identifier: Apache-2.0
# Reloads that go wrong half way: workers that do not come up, a trial without an end, requests
# that outlast shutdown_timeout, a program that lays the shared memory out in another way, a master
# that is killed in between.
use strict;
use warnings;

use File::Basename qw(dirname);
use POSIX ();
use Test::More;
use Time::HiRes qw(sleep time);

use lib dirname(__FILE__) . '/../lib';
use Areg::Reload qw(read_file write_file);
use Areg::Test qw(alive build_dir in_parallel root skip_without wait_until);

use constant { WORKERS => 3, AGENTS => '/api/v1/agents', TRIAL_S => 20 };

my $areg = Areg::Reload->start(workers => WORKERS, set => { shutdown_timeout => '20s' });
my $build = $areg->build;
my $master = $areg->pid('aregd');
my $user = $areg->make_user(tier => 'enterprise');
my $agent = register('the agent', 'first')->{json}{agent_uuid};

sub register
{
	my ($name, $idempotency_key) = @_;
	return $areg->post(AGENTS . '/register', { owner_address => $user->{wallet}, chain => 'base',
		registration_file => { name => $name, description => 'made between reloads' } },
		{ key => $user->{key}, 'Idempotency-Key' => $idempotency_key });
}

sub rename_agent
{
	my ($name) = @_;
	return $areg->api(PATCH => AGENTS . "/$agent",
		{ registration_file => { name => $name, description => 'edited' } }, { key => $user->{key} });
}

sub name_seen { return $areg->get(AGENTS . "/$agent")->{json}{registration_file}{name} // 'nothing' }

# A psql that holds what it locks until release().
sub hold
{
	my ($lock) = @_;
	open my $session, '|-', 'psql', '-qAtX', '-o', '/dev/null', '-h', $areg->socket_path('pg'), '-U',
		'areg_owner', '-d', 'areg' or die "psql: $!\n";
	$session->autoflush(1);
	print $session "SET application_name = 'holder'; BEGIN; $lock;\n";
	wait_until(5, sub { $areg->psql_value("SELECT count(*) FROM pg_stat_activity
		WHERE application_name = 'holder' AND state = 'idle in transaction' AND query LIKE '%LOCK%'") })
		or die "nothing is locked\n";
	return $session;
}

sub release
{
	my ($session) = @_;
	print $session "ROLLBACK;\n\\q\n"; # who was forked since holds the pipe open, too
	close $session;
}

# Runs the sub in a process of its own. Returns what waits for it, and for what it returned.
sub meanwhile
{
	my ($sub) = @_;
	pipe my $read, my $write or die "pipe: $!\n";
	my $pid = fork // die "fork: $!\n";
	if ($pid == 0) {
		print $write $sub->();
		close $write;
		POSIX::_exit(0);
	}
	close $write;
	return sub {
		my $said = do { local $/; <$read> };
		waitpid $pid, 0;
		return $said;
	};
}

sub busy { return grep { $_->{state} eq 'busy' } @{ $areg->status->{workers} } }
sub states { return join ' ', map { $_->{state} } @{ $areg->status->{generations} } }

# Sums of a metric over its labels.
sub metric
{
	my ($name) = @_;
	my $sum = 0;
	$sum += $_ for $areg->get('/metrics')->{body} =~ /^\Q$name\E(?:\{.*\})? (\d+)$/mg;
	return $sum;
}

# All processes of this registry: what descends from the master.
sub crew { return map { $areg->pids_named($_) } 'aregd', map { "aregd $_" } qw(listener ledger health) }

# ---- a trial that hangs: another registry is at it while the rest of this file goes on ----

my $other = Areg::Reload->start(workers => 1, beside => $areg);
$other->install("#!/bin/sh\nexec sleep 1000\n");
kill 'HUP', $other->pid('aregd');
ok(wait_until(5, sub { $other->pids_named('sleep') }), 'a trial hangs');

# ---- a generation that does not come up, and one that is held ----

# The program that was built, with these sources compiled anew, or besides. undef where that cannot be
# done.
sub relinked
{
	my ($name, $flags, @sources) = @_;
	my @objects = map { "$build/$name-$_.o" } 0 .. $#sources;

	write_file("$build/$name.mk", "include Makefile\n$build/$name: app/aregd.\$(OBJEXT) \$(aregd_DEPENDENCIES)\n"
		. join('', map { "\t\$(COMPILE) $flags -c -o $objects[$_] $sources[$_]\n" } 0 .. $#sources)
		. "\t\$(LINK) app/aregd.\$(OBJEXT) @objects \$(aregd_LDADD) \$(LIBS)\n", 0600);
	return if !-e build_dir() . '/Makefile' || system('make', '-s', '-C', build_dir(), '-f', "$build/$name.mk",
		"$build/$name") != 0;
	return read_file("$build/$name");
}

# It passes the trial; taking over, its workers hang before they are ready, while a file is there.
sub hanging_program
{
	write_file("$build/hang.c", <<"END", 0600);
#include <dlfcn.h>
#include <fcgiapp.h>
#include <stdlib.h>
#include <unistd.h>
static int takes_over;
__attribute__((constructor)) static void look(void)
{
	takes_over = getenv("AREGD_HANDOVER") != NULL;
}
int FCGX_Init(void)
{
	int (*init)(void);
	*(void **)&init = dlsym(RTLD_NEXT, "FCGX_Init");
	while (takes_over && access("$build/hang", F_OK) == 0)
		usleep(10000);
	return init();
}
END
	return relinked('aregd.hanging', '', "$build/hang.c");
}

# As it was built, but for its HOST_MEMORY_LAYOUT: who reads that is compiled anew.
sub other_layout
{
	my $header = read_file(build_dir() . '/app/layouts.h');

	$header =~ s/(?<=HOST_MEMORY_LAYOUT UINT64_C\(0x)\w+/1000/ or die "no HOST_MEMORY_LAYOUT\n";
	write_file("$build/layouts.h", $header, 0600);
	return relinked('aregd.other', "-include $build/layouts.h", root() . '/app/cache/host_memory.c');
}

# ---- what says that a layout is another one ----

# The numbers that scripts/gen-layouts makes of the sources, after a change of one of them.
sub layouts
{
	my ($file, $change) = @_;
	my $copy = "$build/sources";

	system('rm', '-rf', $copy);
	system('mkdir', $copy) == 0 && system('cp', '-R', root() . '/app', root() . '/lib', $copy) == 0 or die "cp\n";
	if ($file) {
		local $_ = read_file("$copy/$file");
		$change->() or die "$file: nothing is changed\n";
		write_file("$copy/$file", $_, 0600);
	}
	my $script = root() . '/scripts/gen-layouts';
	return { `perl $script $copy` =~ /^#define (\w+) UINT64_C\((\w+)\)/mg };
}
my $layouts = layouts();
is(join(' ', sort keys %$layouts), 'HANDOVER_LAYOUT HOST_MEMORY_LAYOUT SCOREBOARD_LAYOUT', 'three layouts have numbers');
for (['app/cache/callers.c', sub { s/(?<=struct slot \{\n)|(?<=struct callers \{\n)/\tuint64_t another;\n/ }, 'HOST_MEMORY_LAYOUT'],
	['app/registry/limits.h', sub { s/TIER_FREE, TIER_PRO/TIER_PRO, TIER_FREE/ }, 'HOST_MEMORY_LAYOUT'],
	['lib/cache.h', sub { s/(?<=struct cache_view \{\n)/\tuint64_t another;\n/ }, 'HOST_MEMORY_LAYOUT'],
	['app/http/scoreboard.h', sub { s/int32_t state;/int64_t state;/ }, 'SCOREBOARD_LAYOUT'],
	['app/process/handover.h', sub { s/(?<=HANDOVER_PLACES = )\d+/7/ }, 'HANDOVER_LAYOUT']) {
	my ($file, $change, $changed) = @$_;
	my $others = layouts($file, $change);
	is(join(' ', grep { $others->{$_} ne $layouts->{$_} } sort keys %$others), $changed, "$file changes $changed");
}
is_deeply(layouts('app/process/handover.h', sub { s{\A}{/* Another comment. */\n\n} }), $layouts, 'a comment changes none');

my $compiling = meanwhile(sub { return other_layout() ? 'done' : 'no' });

SKIP: {
	my $hanging = hanging_program() or skip_without 'nothing to compile with', 20;
	my @before = $areg->worker_pids;
	my $generation = $areg->status->{generation};

	$areg->install($hanging);
	write_file("$build/hang", '', 0600);
	is($areg->reload, 'the new generation was not ready in time', 'workers that do not come up are noticed');
	is($areg->status->{state}, 'held', 'the old generation is held');
	is_deeply([sort $areg->worker_pids], [sort @before], 'its workers are the ones that were there, and no others are');
	is($areg->get(AGENTS . '?limit=1')->{status}, 200, 'they serve');
	is($areg->get('/health')->{json}{status}, 'healthy', 'and the registry is healthy');

	unlink "$build/hang";
	kill 'KILL', $before[0];
	ok(wait_until(5, sub { $areg->worker_pids == WORKERS && !alive($before[0]) }),
		'a worker that is lost meanwhile is replaced');
	is(states(), 'serving replacing', 'by the new program, which serves beside the old');
	ok(wait_until(5, sub { !grep { $_->{state} eq 'starting' } @{ $areg->status->{workers} } }), 'it comes up');
	kill 'KILL', @before;
	ok(wait_until(10, sub { my @now = $areg->worker_pids; @now == WORKERS && !grep { alive($_) } @before }),
		'so are all of them');
	ok(wait_until(10, sub { register('after all were lost', 'held')->{status} == 201 }), 'they serve');
	for my $name ('aregd listener', 'aregd health', 'aregd ledger') {
		my ($victim) = $areg->pids_named($name);
		kill 'KILL', $victim;
		ok(wait_until(10, sub { my @now = $areg->pids_named($name); @now == 1 && $now[0] != $victim }),
			"$name, lost meanwhile, is replaced");
	}
	ok(wait_until(10, sub { ($areg->get('/health')->{json}{status} // '') eq 'healthy' }), 'the registry is healthy');
	is(rename_agent('while held')->{status}, 200, 'a change');
	is(name_seen(), 'while held', 'is seen at once');

	$areg->install;
	is($areg->reload, '', 'the next reload goes well');
	is($areg->status->{generation}, $generation + 2, 'with a generation of its own');
	is(states(), 'serving', 'which is alone');

	write_file("$build/hang", '', 0600);
	$areg->install($hanging);
	my $slow = meanwhile(sub { sleep 2; unlink "$build/hang"; return 1 });
	is($areg->reload, '', 'workers that only take their time to come up are waited for');
	$slow->();
	$areg->install;
}

# ---- requests that outlast shutdown_timeout ----

$areg->configure(sub { s/^shutdown_timeout = .*/shutdown_timeout = 1s/m });
is($areg->reload, '', 'a short shutdown_timeout');
$areg->configure(sub { });
my $session = hold('LOCK TABLE erc8004_agents IN ACCESS EXCLUSIVE MODE');
my $asked = meanwhile(sub { return register('outlasts the old generation', 'outlasts')->{status} });
ok(wait_until(5, \&busy), 'a request waits for a lock');
my ($stopped) = map { $_->{pid} } grep { $_->{state} eq 'idle' } @{ $areg->status->{workers} };
kill 'STOP', $stopped;
is($areg->reload, '', 'a reload does not wait for it');
is($asked->(), 502, 'after shutdown_timeout its worker is killed');
ok(!alive($stopped), 'so is one that has stopped altogether');
like($areg->log_text('areg'), qr/shutdown_timeout is over: killing 2 workers/, 'the log says so');
is(states(), 'serving', 'the new generation is alone');
release($session);
is(register('outlasts the old generation', 'outlasts')->{status}, 201, 'asked again it is answered');
is($areg->psql_value("SELECT count(*) FROM erc8004_agents WHERE name = 'outlasts the old generation'"), 1,
	'and done once');

# ---- another layout of the shared memory ----

SKIP: {
	$compiling->() eq 'done' or skip_without 'nothing to compile with', 14;
	$session = hold("SELECT 'LOCK' FROM erc8004_agents WHERE agent_uuid = '$agent' FOR UPDATE");
	my $edit = meanwhile(sub { return rename_agent('by the old generation')->{status} . ' ' . name_seen() });
	ok(wait_until(5, \&busy), 'a worker is at a change');
	$areg->install(read_file("$build/aregd.other"));
	kill 'HUP', $master;
	ok(wait_until(10, sub { states() eq 'retiring serving' }), 'a program with another layout serves beside it');
	is(name_seen(), 'while held', 'what is about to change is read') for 1 .. 3;
	my ($bypasses, $hits) = map { metric("areg_cache_$_") } qw(bypasses_total hits_total);
	name_seen() for 1 .. 10;
	is(metric('areg_cache_bypasses_total') - $bypasses, 10, 'past what is kept in memory, each time');
	is(metric('areg_cache_hits_total'), $hits, 'never from there');
	is(scalar(() = $areg->pids_named('aregd listener')), 0, 'nobody says that it is fresh');
	release($session);
	is($edit->(), '200 by the old generation', 'the change is done, and seen by the new generation at once');
	ok(wait_until(10, sub { states() eq 'serving' }), 'the old generation ends');
	ok(wait_until(10, sub { name_seen(); metric('areg_cache_hits_total') > $hits }),
		'and answers come from memory again');
	is(rename_agent('by the new generation')->{status}, 200, 'a change now');
	is(name_seen(), 'by the new generation', 'is seen at once');
	$areg->install;
	is($areg->reload, '', 'and back to the layout of before');
}

# ---- another edition of the answers ----

sub made_anew { return scalar(() = $areg->log_text('areg') =~ /the shared memory is made anew, since this configuration or version answers otherwise/g) }

my $hits = metric('areg_cache_hits_total');
ok(wait_until(10, sub { name_seen(); metric('areg_cache_hits_total') > $hits }), 'an answer is kept in memory');
$areg->configure(sub { s{^slow_request = .*\n}{}m; $_ = "slow_request = 2s\n$_" });
is($areg->reload, '', 'a reload that changes no answer');
is(made_anew(), 0, 'keeps the memory');
$areg->configure(sub { s{^public_url = .*}{public_url = https://moved.example}m });
is($areg->reload, '', 'a reload to another public_url');
is(made_anew(), 1, 'begins with an empty one');
ok(wait_until(10, sub { states() eq 'serving' }), 'the old generation ends');
$areg->configure(sub { });
is($areg->reload, '', 'and back');
is(made_anew(), 2, 'with an empty one again');

# ---- the trial that hung ----

is($other->get(AGENTS . '?limit=1')->{status}, 200, 'beside the trial that hangs all goes on');
ok(wait_until(2 * TRIAL_S, sub { $other->status->{reloads}{done} }), 'it has an end');
is($other->status->{reloads}{last_failure}, 'it was not ready within ' . TRIAL_S . ' s', 'and a reason');
is(scalar(() = $other->pids_named('sleep')), 0, 'nothing is left of it');
is($other->status->{generation}, 1, 'the generation is the first');
$other->install;
is($other->reload, '', 'the next reload goes well');

$other->install("#!/bin/sh\nexec sleep 1000\n");
kill 'HUP', $other->pid('aregd');
ok(wait_until(5, sub { $other->pids_named('sleep') }), 'one more trial hangs');
my ($trial) = $other->pids_named('sleep');
my $other_master = $other->pid('aregd');
kill 'TERM', $other_master;
ok(wait_until(5, sub { !alive($other_master) }), 'SIGTERM does not wait for it');
ok(wait_until(5, sub { !alive($trial) }), 'it ends, too');

# ---- a master that is killed while two generations are there ----

$session = hold('LOCK TABLE erc8004_agents IN ACCESS EXCLUSIVE MODE');
$asked = meanwhile(sub { return register('while the master is killed', 'orphan')->{status} });
ok(wait_until(5, \&busy), 'a request waits for a lock');
kill 'HUP', $master;
ok(wait_until(10, sub { states() eq 'retiring serving' }), 'two generations are there');
my @crew = crew();
cmp_ok(scalar @crew, '>=', WORKERS + 1 + 3, 'with workers, listener, ledger keeper and health process');
kill 'KILL', $master;
release($session);
is($asked->(), 201, 'the master killed: a request under way gets its answer');
ok(wait_until(10, sub { !grep { alive($_) } @crew }), 'and all processes of both generations end by themselves')
	or diag(join ' ', map { Areg::Test::name_of($_) } grep { alive($_) } @crew);
$areg->start_server('aregd');
is($areg->get(AGENTS . "/$agent")->{status}, 200, 'it starts again on the same socket');
is($areg->status->{generation}, 1, 'afresh');

done_testing();
