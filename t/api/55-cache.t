#!/usr/bin/perl
# SPDX-License-Identifier: Apache-2.0
# Answers are kept and never wrong: what is served from where, and what every kind of write drops.
use strict;
use warnings;

use FindBin;
use IO::Handle;
use IO::Socket::UNIX;
use POSIX ();
use Test::More;
use Time::HiRes qw(sleep time);

use lib "$FindBin::Bin/../lib";
use Areg::Test qw(address alive from_json hash in_parallel problem_ok wait_until);

use constant { WORKERS => 8, RETRY => 6 };

my $areg = Areg::Test->start(workers => WORKERS, set => { database_connect_timeout => '1s',
	cache_retry => RETRY . 's' });
my ($owner, $client) = map { $areg->make_user(tier => 'enterprise') } 1, 2;
my $agents = 0;

sub register
{
	my ($headers) = @_;
	my $answer = $areg->post('/api/v1/agents/register', { owner_address => $owner->{wallet},
		chain => 'base', registration_file => { name => 'Agent ' . ++$agents, description => 'is there' } },
		{ key => $owner->{key}, %{ $headers || {} } });

	is($answer->{status}, 201, 'an agent is registered') or diag $answer->{body};
	return $answer->{json};
}

sub give_feedback
{
	my ($id, $headers) = @_;
	my $answer = $areg->post('/api/v1/agents/feedback', { agent_uuid => $id,
		client_address => $client->{wallet}, score => 90 }, { key => $client->{key}, %{ $headers || {} } });

	is($answer->{status}, 201, 'feedback is given') or diag $answer->{body};
	return $answer->{json}{id};
}

# A counter of /metrics, over all its labels or for those given.
sub counter
{
	my ($name, $labels) = @_;
	my $sum = 0;

	for ($areg->get('/metrics')->{body} =~ /^\Q$name\E(?:\{[^}]*\})? \d+$/mg) {
		$sum += $1 if (!defined $labels || /\Q{$labels}\E/) && / (\d+)$/;
	}
	return $sum;
}

# By how much each counter grows while the sub runs.
sub growth
{
	my ($sub) = @_;
	my %counters = (memory => ['areg_cache_hits_total', 'level="memory"'],
		memcached => ['areg_cache_hits_total', 'level="memcached"'],
		outage => ['areg_cache_hits_total', 'level="outage"'], misses => ['areg_cache_misses_total'],
		bypasses => ['areg_cache_bypasses_total'], waits => ['areg_cache_waits_total']);
	my %before = map { ($_ => counter(@{ $counters{$_} })) } keys %counters;

	$sub->();
	my %grown = map { ($_ => counter(@{ $counters{$_} }) - $before{$_}) } keys %counters;
	return { map { $grown{$_} ? ($_ => $grown{$_}) : () } keys %grown };
}

sub gauge
{
	my ($name) = @_;
	my ($value) = $areg->get('/metrics')->{body} =~ /^\Q$name\E (\d+)$/m;
	return $value;
}

sub is_trusted { return gauge('areg_cache_memcached_trusted') == 1 }

# When each connection of a worker was last asked anything, /metrics aside.
sub asked
{
	return join ' ', map { join '/', @$_ } $areg->psql("SELECT pid, query_start, state_change"
		. " FROM pg_stat_activity WHERE application_name = 'areg' AND query !~ 'count' ORDER BY pid");
}

# Reads until the answer comes out of shared memory. What was written just before is heard of a second
# time, from the database: that comes first.
sub heat
{
	my ($path) = @_;

	$areg->settle;
	return wait_until(10, sub {
		my $answer = $areg->get($path);
		my $grown = growth(sub { $areg->get($path) });
		($grown->{memory} // 0) == 1 ? $answer : undef;
	}) || die "$path is not kept\n";
}

sub truth { return $areg->get($_[0], { key => $client->{key}, 'Cache-Control' => 'no-cache' })->{body} }

# A psql that is told what to do line by line, and holds what it locks until it is closed.
sub hold_agents
{
	open my $to, '|-', 'psql', '-qAtX', '-o', '/dev/null', '-h', $areg->socket_path('pg'), '-U',
		'areg_owner', '-d', 'areg' or die "psql: $!\n";
	$to->autoflush(1);
	print $to "BEGIN; LOCK TABLE erc8004_agents IN ACCESS EXCLUSIVE MODE;\n";
	wait_until(10, sub { $areg->psql_value("SELECT count(*) FROM pg_locks
		WHERE mode = 'AccessExclusiveLock' AND granted AND relation = 'erc8004_agents'::regclass") })
		or die "no lock\n";
	return $to;
}

sub waiting_for_lock
{
	return $areg->psql_value("SELECT count(*) FROM pg_stat_activity
		WHERE application_name = 'areg' AND wait_event_type = 'Lock'");
}

my $agent = register();
my $id = $agent->{agent_uuid};
my $path = "/api/v1/agents/$id";
my $other = register()->{agent_uuid};

subtest 'a second read is served from memory, byte for byte, and asks nobody' => sub {
	for my $read ($path, "$path/stats", "$path/reputation", "$path/registration", "$path/feedback",
		'/api/v1/agents?q=agent', '/api/v1/agents?chain=base&limit=1') {
		my $first = heat($read);
		my $before = asked();
		kill 'STOP', $areg->pid('memcached');
		my @answers = map { $areg->get($read) } 1 .. 5;
		is(asked(), $before, "$read: the database is not asked");
		kill 'CONT', $areg->pid('memcached');
		is_deeply([map { $_->{body} } @answers], [($first->{body}) x 5], "$read: the same body");
		is_deeply([map { $_->{headers}{etag} } @answers], [($first->{headers}{etag}) x 5], "$read: the same ETag");
		is($answers[0]{headers}{'cache-control'}, 'no-cache', "$read: clients ask again");
		is(truth($read), $first->{body}, "$read: it is what the database says");
	}
	ok($areg->log_text('areg') !~ qr/"process":"worker[^\n]*cache not reached/, 'no worker missed the stopped memcached');
};

subtest 'hits answer HEAD, and 304 to a known ETag' => sub {
	my $first = heat("$path/stats");
	my $grown = growth(sub {
		my $head = $areg->api(HEAD => "$path/stats");
		is($head->{status}, 200, 'HEAD');
		is($head->{body}, '', 'HEAD: no body');
		is($head->{headers}{'content-length'}, length $first->{body}, 'HEAD: the length');
		is($head->{headers}{etag}, $first->{headers}{etag}, 'HEAD: the ETag');
		my $known = $areg->get("$path/stats", { 'If-None-Match' => $first->{headers}{etag} });
		is($known->{status}, 304, 'If-None-Match');
		is($known->{body}, '', '304: no body');
	});
	is_deeply($grown, { memory => 2 }, 'both from memory');
};

subtest 'all names of an agent share its answers, and questions that differ share none' => sub {
	my $stats = heat("$path/stats")->{body};
	my @tokens = ("base:$agent->{agent_id}", "eip155:$agent->{chain_id}:$agent->{registry_address}:$agent->{agent_id}");
	my $grown = growth(sub {
		is($areg->get("/api/v1/agents/$_/stats")->{body}, $stats, $_) for @tokens, uc $id;
	});
	is_deeply($grown, { memory => 3 }, 'from memory');
	isnt(heat("$path/feedback?limit=2")->{body}, heat("$path/feedback?limit=3")->{body}, 'limit');
	isnt(heat("/api/v1/agents/$other/stats")->{body}, $stats, 'another agent');
	isnt(heat($path)->{body}, $stats, 'another route');
};

subtest 'Cache-Control: no-cache reaches the database with a key, and refreshes what is kept' => sub {
	heat("$path/stats");
	is_deeply(growth(sub { truth("$path/stats") }), { bypasses => 1 }, 'with a key');
	is_deeply(growth(sub { $areg->get("$path/stats", { 'Cache-Control' => 'no-cache' }) }), { memory => 1 }, 'without one');
	is_deeply(growth(sub { $areg->get("$path/stats", { key => $client->{key} }) }), { memory => 1 }, 'with a key alone');
};

subtest 'what is not there is asked for each time' => sub {
	my $next = "/api/v1/agents/base:" . ($agent->{agent_id} + $agents);
	is($areg->get($next)->{status}, 404, 'nobody has the number yet') for 1, 2;
	register();
	is($areg->get($next)->{status}, 200, 'who was just registered is found');
};

# ---- Every kind of write ----

my $facilitator = $areg->make_user(tier => 'enterprise', scopes => ['payments:write']);
my $given; # the last feedback
my ($request, $validator) = (hash('request'), $client);

# Sends something as a user, and wants that status.
sub send_ok
{
	my ($method, $path, $body, $user, $status) = @_;
	my $answer = $areg->api($method, "/api/v1$path", $body, { key => $user->{key} });

	is($answer->{status}, $status, "$method $path") or diag $answer->{body};
	return $answer->{json};
}

sub payment
{
	my ($name, $status, $wanted) = @_;
	send_ok(POST => '/payments', { tx_hash => hash($name), chain => 'base', amount_usdc => '1.500000',
		payer => $client->{wallet}, payee => $owner->{wallet}, status => $status }, $facilitator, $wanted);
}

sub link_payment
{
	send_ok(POST => '/agents/link-payment', { agent_uuid => $id, tx_hash => hash($_[0]), chain => 'base' }, $facilitator, 200);
}

# Name, what it does, and whether it comes from elsewhere, so that it may take a second to show. Each
# must change some of the answers below.
my @writes = (
	['POST /agents/register', sub { register() }],
	['POST /agents/register with an Idempotency-Key', sub { register({ 'Idempotency-Key' => 'r1' }) }],
	['POST /agents/feedback', sub { $given = give_feedback($id) }],
	['POST /agents/feedback with an Idempotency-Key', sub { give_feedback($id, { 'Idempotency-Key' => 'f1' }) }],
	['PATCH /agents/{id}', sub { send_ok(PATCH => "/agents/$id", { metadata => { color => 'green' } }, $owner, 200) }],
	['PATCH /agents/{token}', sub { send_ok(PATCH => "/agents/base:$agent->{agent_id}", { metadata => { color => undef } }, $owner, 200) }],
	['POST /agents/feedback/{id}/responses', sub { send_ok(POST => "/agents/feedback/$given/responses",
		{ response_uri => 'https://example.com/r' }, $owner, 201) }],
	['POST /agents/feedback/{id}/revoke', sub { send_ok(POST => "/agents/feedback/$given/revoke", undef, $client, 200) }],
	['POST /payments', sub { payment('one', 'pending', 201) }],
	['POST /agents/link-payment', sub { link_payment('one') }],
	['POST /payments of a pending one', sub { payment('one', 'verified', 200) }],
	['POST /payments of a verified one', sub { payment('two', 'verified', 201) }],
	['POST /agents/link-payment of that', sub { link_payment('two') }],
	['POST /agents/{id}/validations', sub { send_ok(POST => "/agents/$id/validations", { validator_address => $validator->{wallet},
		request_uri => 'https://example.com/v', request_hash => $request }, $owner, 201) }],
	['POST /validations/{hash}/response', sub { send_ok(POST => "/validations/$request/response", { response => 77 }, $validator, 200) }],
	['aregctl agent suspend', sub { is($areg->aregctl('agent', 'suspend', $id)->{exit}, 0, 'suspended') }, 'elsewhere'],
	['aregctl agent reactivate', sub { is($areg->aregctl('agent', 'reactivate', $id)->{exit}, 0, 'reactivated') }, 'elsewhere'],
	['SQL by hand', sub { $areg->psql("UPDATE erc8004_agents SET agent_wallet = '0x" . 'ab' x 20 . "' WHERE agent_uuid = '$id'") }, 'elsewhere'],
);
my @reads = ($path, "$path/stats", "$path/reputation", "$path/registration", "$path/feedback",
	"$path/feedback?include_revoked=true&limit=1", '/api/v1/agents', '/api/v1/agents?status=suspended',
	'/api/v1/agents?sort=total_feedback', "$path/summary?clients=$client->{wallet}", "$path/payments",
	"$path/validations", "/api/v1/validations/$request", '/api/v1/chains', '/api/v1/stats',
	'/api/v1/leaderboard?min_feedback=0', map { "/api/v1/accounts/$_->{wallet}" } $owner, $client);

# A body without what is new in each problem.
sub read_body
{
	my ($read, $how) = @_;
	my $body = $how ? $how->($read) : $areg->get($read)->{body};
	return $body =~ s/"request_id":"[^"]*"//r;
}

for my $write (@writes) {
	my ($name, $do, $elsewhere) = @$write;

	subtest "after $name every answer is the present one" => sub {
		push @reads, "/api/v1/agents/feedback/$given/responses" if $given && !grep { /responses/ } @reads;
		my %before = map { my $read = $_; ($read => [map { read_body($read) } 1 .. 2]->[1]) } @reads;
		$do->();
		# Directly after it was acknowledged, before anything else is asked.
		my %after = map { my $read = $_; ($read => [map { read_body($read) } 1 .. 4]) } @reads;
		my %truth = map { ($_ => read_body($_, \&truth)) } @reads;
		if ($elsewhere) {
			wait_until(5, sub { !grep { read_body($_) ne $truth{$_} } @reads });
			%after = map { my $read = $_; ($read => [map { read_body($read) } 1 .. 4]) } @reads;
		}
		is_deeply($after{$_}, [($truth{$_}) x 4], $_) for @reads;
		ok((grep { $truth{$_} ne $before{$_} } @reads), 'something changed');
	};
}

subtest 'an answer given again to a retry drops what the first one changed' => sub {
	my $body = { agent_uuid => $id, client_address => $client->{wallet}, score => 10 };
	my %headers = (key => $client->{key}, 'Idempotency-Key' => 'f2');
	is($areg->post('/api/v1/agents/feedback', $body, \%headers)->{status}, 201, 'given');
	is($areg->psql_value("SELECT changed FROM idempotency_keys WHERE key = 'f2'"), $id, 'what it changed is known');
	heat("$path/stats");
	my $grown = growth(sub {
		is($areg->post('/api/v1/agents/feedback', $body, \%headers)->{headers}{'idempotency-replayed'}, 'true', 'given again');
		$areg->get("$path/stats");
	});
	ok(!$grown->{memory}, 'the next read looks further');
};

subtest 'signing in, keys and refused writes drop nothing' => sub {
	my $grown;

	wait_until(10, sub {
		heat("$path/stats");
		heat('/api/v1/agents');
		$grown = growth(sub {
			$areg->post('/api/v1/keys', { name => 'one more' }, { key => $client->{key} });
			problem_ok($areg->post('/api/v1/agents/feedback', {}, { key => $client->{key} }), 400, 'validation_failed');
			$areg->get("$path/stats");
			$areg->get('/api/v1/agents');
		});
		($grown->{memory} // 0) == 2;
	});
	is_deeply($grown, { memory => 2 }, 'what was kept is still served');
};

# ---- The second level ----

sub restart_aregd
{
	my ($sub) = @_;
	$areg->stop_server('aregd');
	$sub->() if $sub;
	$areg->start_server('aregd');
	wait_until(10, sub { my $grown = growth(sub { $areg->get("/api/v1/agents/$other/stats") }); !$grown->{bypasses} })
		or die "the listener does not listen\n";
}

# Empties shared memory, and nothing else: the listener does so when it was cut off.
sub forget
{
	my $logged = length $areg->log_text('areg');

	$areg->psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'areg listener'");
	wait_until(10, sub { substr($areg->log_text('areg'), $logged) =~ /kept in memory are dropped/ })
		or die "the listener does not listen\n";
	wait_until(10, sub { my $grown = growth(sub { $areg->get("/api/v1/agents/$other/stats") }); !$grown->{bypasses} })
		or die "the listener's word is not fresh\n";
}

# Fills memcached: whatever a token was missing for is there after the second time.
sub fill
{
	for (1 .. 2) {
		forget();
		$areg->get($_) for @_;
	}
}

subtest 'a restarted areg is warm: answers come from memcached in one trip' => sub {
	my @rest = map { ("/api/v1/agents/$other$_") } '', '/reputation';
	my %before = map { ($_ => truth($_)) } @rest;
	fill(@rest);
	restart_aregd();
	my $grown = growth(sub { is($areg->get($_)->{body}, $before{$_}, $_) for @rest });
	is_deeply($grown, { memcached => 2 }, 'from memcached');
	is_deeply(growth(sub { $areg->get($_) for @rest }), { memory => 2 }, 'and from memory afterwards');
};

# Says a command to memcached, as anybody can who reaches it; returns the reply.
sub say_to_memcached
{
	my ($command) = @_;
	my $socket = IO::Socket::UNIX->new(Peer => $areg->socket_path('memcached')) or die "memcached: $!\n";
	my $reply = '';

	print $socket "$command\r\n";
	while ($reply !~ /(?:^|\n)(?:END|STORED)\r\n\z/ && sysread $socket, my $more, 65536) { $reply .= $more }
	return $reply;
}

# Changes a byte of each answer that lies in memcached. Returns how many there are.
sub forge_answers
{
	my $count = 0;

	for my $key (say_to_memcached('lru_crawler metadump all') =~ /^key=(\S+)/mg) {
		$key =~ s/%3A/:/g;
		my ($len, $value) = say_to_memcached("get $key") =~ /^VALUE \S+ \d+ (\d+)\r\n(.*)\r\nEND\r\n\z/s or next;
		next if $len < 200 || $value !~ s/(?<=Agent )\d/x/;
		like(say_to_memcached("set $key 0 3600 $len\r\n$value"), qr/^STORED/, 'an answer is forged');
		$count++;
	}
	return $count;
}

subtest 'what somebody else put into memcached is not served' => sub {
	my $forged = "/api/v1/agents/$other";
	my $before = truth($forged);
	fill($forged);
	ok(forge_answers() > 0, 'there are answers to forge');
	forget();
	my $refused = counter('areg_cache_refused_total');
	is($areg->get($forged)->{body}, $before, 'the answer is right');
	is(counter('areg_cache_refused_total'), $refused + 1, 'the forged one is counted');
	my @said = $areg->log_text('areg') =~ /memcached holds what this registry did not store there/g;
	is(scalar @said, 1, 'and logged once');
	forget();
	is_deeply(growth(sub { is($areg->get($forged)->{body}, $before, 'asked again') }), { memcached => 1 },
		'a right one has taken its place');
};

subtest 'what changed while no areg ran is not served from memcached, and the rest is' => sub {
	my $unchanged = "/api/v1/agents/$other/reputation";
	fill("$path/stats", $path, '/api/v1/agents', $unchanged);
	sleep 2.5; # until it is noted how far changes were heard
	restart_aregd(sub { $areg->aregctl('agent', 'suspend', $id) });
	is($areg->get($_)->{json}{status}, 'suspended', $_) for $path, "$path/stats";
	unlike($areg->get('/api/v1/agents')->{body}, qr/$id/, 'the list');
	is_deeply(growth(sub { $areg->get($unchanged) }), { memcached => 1 }, 'another agent comes from memcached');
	$areg->aregctl('agent', 'reactivate', $id);
	wait_until(5, sub { $areg->get($path)->{json}{status} eq 'active' });
};

subtest 'what memcached was never told of, it is not believed' => sub {
	# Writes about another agent teach every process to leave it alone: of this one it hears nothing.
	fill("$path/reputation");
	kill 'STOP', $areg->pid('memcached');
	my $logged = length $areg->log_text('areg');
	ok(wait_until(RETRY - 1, sub {
		in_parallel(2 * WORKERS, sub { $areg->post('/api/v1/agents/feedback', { agent_uuid => $other,
			client_address => $client->{wallet}, score => 1 }, { key => $client->{key} })->{status} });
		my %processes = map { ($_ => 1) } substr($areg->log_text('areg'), $logged)
			=~ /"process":"(listener|worker \d+)"[^\n]*"cache not reached"/g;
		WORKERS + 1 == keys %processes;
	}), 'every worker and the listener have found out');
	give_feedback($id);
	my $count = from_json(truth("$path/stats"))->{total_feedback};
	kill 'CONT', $areg->pid('memcached');
	sleep RETRY + 0.5;
	is($areg->get("$path/reputation")->{json}{total_feedback}, $count, 'afterwards');
	ok(wait_until(20, \&is_trusted), 'it is used again');
};

subtest 'a memcached that slept through a write and wakes up shows nothing of before' => sub {
	fill("$path/stats", "$path/feedback", '/api/v1/agents?sort=total_feedback');
	for my $round (1 .. 3) {
		my $before = $areg->get("$path/stats")->{json}{total_feedback};
		fill("$path/stats");
		kill 'STOP', $areg->pid('memcached');
		give_feedback($id);
		is($areg->get("$path/stats")->{json}{total_feedback}, $before + 1, 'while it sleeps');
		kill 'CONT', $areg->pid('memcached');
		my ($until, %seen) = (time + 1);
		while (time < $until) {
			$seen{ $areg->get("$path/stats")->{json}{total_feedback} }++;
			$seen{ $areg->get("$path/feedback")->{json}{total} }++;
		}
		is_deeply([keys %seen], [$before + 1], 'after it woke up');
	}
	ok(counter('areg_cache_distrusts_total') > 0, 'it was distrusted');
	ok(wait_until(20, \&is_trusted), 'it is used again by itself');
	fill("$path/stats");
	ok($areg->log_text('areg') =~ qr/answers in memcached are void, and it is used again/, 'the log says so');
};

# The statement that reads statistics takes half a second from here on: it sees what was there when it
# began. Returns a sub that makes it as fast as before.
sub slow_statistics
{
	my $view = $areg->psql_value("SELECT pg_get_viewdef('v_erc8004_agent_stats'::regclass)") =~ s/;\s*\z//r;

	$areg->psql("CREATE OR REPLACE VIEW v_erc8004_agent_stats AS SELECT v.* FROM ($view) AS v"
		. " WHERE (SELECT pg_sleep(1)) IS NOT NULL");
	return sub { $areg->psql("CREATE OR REPLACE VIEW v_erc8004_agent_stats AS $view") };
}

subtest 'what a slow read saw before a write is served to nobody after it' => sub {
	my $count = $areg->get("$path/stats")->{json}{total_feedback};
	truth("$path/stats") for 1, 2; # tokens are there
	$areg->aregctl('cache', 'flush');
	$areg->settle;
	fill("$path/reputation");
	my $fast = slow_statistics();
	my ($seen) = in_parallel(2, sub {
		return $areg->get("$path/stats")->{json}{total_feedback} if $_[0] == 0;
		sleep 0.5;
		give_feedback($id);
		return 0;
	});
	is($seen, $count, 'the slow read saw what was there before');
	$fast->();
	is($areg->get("$path/stats")->{json}{total_feedback}, $count + 1, 'the next one sees the write');
	sleep 2.5;
	restart_aregd();
	is($areg->get("$path/stats")->{json}{total_feedback}, $count + 1, 'so does one past shared memory');
};

subtest 'a restarted memcached costs nothing but its answers' => sub {
	$areg->stop_server('memcached');
	give_feedback($id);
	my $count = $areg->get("$path/stats")->{json}{total_feedback};
	$areg->start_server('memcached');
	is($areg->get("$path/stats")->{json}{total_feedback}, $count, 'read') for 1 .. 5;
	give_feedback($id);
	is($areg->get("$path/stats")->{json}{total_feedback}, $count + 1, 'read after the next write') for 1 .. 5;
	ok(wait_until(20, \&is_trusted), 'it is used again');
};

subtest 'cache flush: every answer is asked for anew' => sub {
	heat("$path/stats");
	fill("$path/stats");
	my $run = $areg->aregctl('cache', 'flush');
	is($run->{exit}, 0, 'aregctl cache flush') or diag $run->{stderr};
	ok(wait_until(5, sub { growth(sub { $areg->get("$path/stats") })->{misses} }), 'the next read asks the database');
};

subtest 'cache warm: what is asked for most is in memcached' => sub {
	my $hot = '/api/v1/agents?q=agent&limit=7';
	heat($hot);
	$areg->get($hot) for 1 .. 50;
	$areg->aregctl('cache', 'flush');
	ok(wait_until(30, sub {
		$areg->get($hot);
		my $run = $areg->aregctl('--json', 'cache', 'warm', '--top', '100');
		$run->{exit} == 0 && $run->{stdout} =~ /"stored":\d+/ && $areg->aregctl('cache', 'warm')->{stdout} =~ /asked for most/;
	}), 'aregctl cache warm takes what the hosts have noted');
	restart_aregd();
	is_deeply(growth(sub { $areg->get($hot) }), { memcached => 1 }, 'the first read of a new areg');
	$areg->stop_server('memcached');
	my $run = $areg->aregctl('cache', 'warm');
	is($run->{exit}, 1, 'without memcached it fails');
	like($run->{stderr}, qr/no memcached answers/, 'and says why');
	is($areg->aregctl('cache', 'flush')->{exit}, 1, 'so does a flush');
	$areg->start_server('memcached');
	$run = $areg->aregctl('cache', 'warm', '--top', '3');
	is($run->{exit}, 0, 'where nothing was noted');
	like($run->{stdout}, qr/^6 answers about the agents with the most feedback: /, 'it takes the agents with the most feedback');
	is($areg->aregctl('cache', 'warm', '--top', $_)->{exit}, 2, "--top $_ is refused") for '0', '-1', 'x', '1000001', '';
	ok(wait_until(20, \&is_trusted), 'memcached is used again');
};

# ---- Many at once ----

subtest 'of 64 clients that miss the same one asks the database' => sub {
	my $cold = '/api/v1/agents?q=agent&limit=9';
	my $grown = growth(sub {
		my $lock = hold_agents();
		my $asking = fork // die "fork: $!\n";
		if ($asking == 0) {
			my @bodies = in_parallel(64, sub { $areg->get($cold)->{body} });
			POSIX::_exit((grep { $_ ne $bodies[0] || $_ !~ /"agents"/ } @bodies) ? 1 : 0);
		}
		ok(wait_until(5, sub { waiting_for_lock() }), 'one waits for the database');
		sleep 0.5;
		is(waiting_for_lock(), 1, 'and nobody else');
		print $lock "ROLLBACK;\n";
		waitpid $asking, 0;
		is($?, 0, 'all get the same answer');
	});
	is($grown->{misses}, 1, 'one query');
	is(($grown->{memory} // 0) + $grown->{misses}, 64, 'the others are served from memory');
	cmp_ok($grown->{waits} // 0, '>=', WORKERS - 2, 'after waiting, those of them that were first');
};

subtest 'when the one who asks is killed another asks, and the rest are told' => sub {
	my $cold = '/api/v1/agents?q=agent&limit=11';
	my @statuses;
	my $grown = growth(sub {
		my $lock = hold_agents();
		my $asking = fork // die "fork: $!\n";
		if ($asking == 0) {
			@statuses = in_parallel(6, sub { $areg->get($cold)->{status} });
			# Over a connection that was kept, nginx asks another worker.
			POSIX::_exit((grep { $_ == 502 } @statuses) <= 1 && !(grep { $_ !~ /^(?:200|502)$/ } @statuses) ? 0 : 1);
		}
		ok(wait_until(20, sub { waiting_for_lock() == 1 && grep({ wchan($_) =~ /futex/ } $areg->worker_pids) >= 2 }),
			'one asks the database, and others wait for it');
		my @victims = grep { asks_the_database($_) } $areg->worker_pids;
		is(scalar @victims, 1, 'that one is known');
		kill 'KILL', @victims;
		ok(wait_until(20, sub { !grep { alive($_) } @victims }), 'and is killed');
		ok(wait_until(20, sub { grep({ asks_the_database($_) } $areg->worker_pids) == 1 }), 'another one asks, at once');
		print $lock "ROLLBACK;\n";
		waitpid $asking, 0;
		is($?, 0, 'its client gets 502 at worst, and all others the answer');
	});
	is($grown->{misses}, 2, 'the database was asked twice, and by nobody else');
};

# Where in the kernel a process waits: in a mutex, for descriptors (epoll) when it is idle, or for one
# descriptor (poll), which is PostgreSQL's.
sub wchan
{
	my ($pid) = @_;
	open my $in, '<', "/proc/$pid/wchan" or return '';
	return scalar(<$in>) // '';
}

sub asks_the_database
{
	my ($pid) = @_;
	return wchan($pid) =~ /poll_schedule_timeout|do_sys_poll|do_poll/;
}

# ---- Failures ----

subtest 'with the database away what is kept is served, and the rest is 503' => sub {
	heat("$path/stats");
	my $body = $areg->get("$path/stats")->{body};
	$areg->stop_server('postgres');
	sleep 1.3; # past the time for which the listener has vouched
	for (1 .. 10) {
		my $answer = $areg->get("$path/stats");
		is("$answer->{status} $answer->{body}", "200 $body", 'kept');
	}
	problem_ok($areg->get("$path/feedback?limit=77"), 503, 'unavailable');
	problem_ok($areg->get("$path/stats", { key => $client->{key}, 'Cache-Control' => 'no-cache' }), 503, 'unavailable');
	$areg->start_server('postgres');
	ok(wait_until(20, sub { $areg->get("$path/feedback?limit=77")->{status} == 200 }), 'it comes back');
	ok(wait_until(10, sub { $areg->log_text('areg') =~ qr/connected again: changes may have been missed/ }),
		'the listener says that it emptied the cache');
};

subtest 'while the listener hears nothing the database is asked, and nothing is stale afterwards' => sub {
	ok(wait_until(10, sub { heat("$path/stats") }), 'kept again');
	my ($listener) = $areg->pids_named('aregd listener');
	kill 'STOP', $listener;
	sleep 1.2;
	my $count = $areg->get("$path/stats")->{json}{total_feedback};
	$areg->psql("SELECT areg_give_feedback('$id', '" . address('elsewhere') . "', '70', NULL, NULL, '', '', NULL, NULL, NULL)");
	is($areg->get("$path/stats")->{json}{total_feedback}, $count + 1, 'stopped: a change from elsewhere shows at once');
	kill 'CONT', $listener;
	my ($until, %seen) = (time + 1);
	$seen{ $areg->get("$path/stats")->{json}{total_feedback} }++ while time < $until;
	is_deeply([keys %seen], [$count + 1], 'going on: nothing of before');
	$areg->psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'areg listener'");
	$areg->psql("SELECT areg_give_feedback('$id', '" . address('elsewhere') . "', '70', NULL, NULL, '', '', NULL, NULL, NULL)");
	sleep 1;
	($until, %seen) = (time + 2);
	$seen{ $areg->get("$path/stats")->{json}{total_feedback} }++ while time < $until;
	is_deeply([keys %seen], [$count + 2], 'cut off and connected again: nothing of before');
};

done_testing;
