# SPDX-License-Identifier: Apache-2.0
# Reloads while the registry is used: new configurations, new programs, and what cannot start.
# AREG_TEST_FULL=1: 50 reloads and 20 that are refused in five minutes.
use strict;
use warnings;

use File::Basename qw(dirname);
use POSIX ();
use List::Util qw(sum0);
use Test::More;
use Time::HiRes qw(sleep time);

use lib dirname(__FILE__) . '/../lib';
use Areg::Reload qw(write_file);
use Areg::Test qw(alive in_parallel wait_until);

my $full = $ENV{AREG_TEST_FULL};
use constant { CLIENTS => 4, LIMIT => 50, AGENTS => '/api/v1/agents' };
my ($good, $bad, $pause) = $full ? (50, 20, 5) : (10, 5, 0.3);

my $areg = Areg::Reload->start(workers => 3, set => { shutdown_timeout => '10s',
	limit_search => LIMIT . ' 250000 250000 250000' });
my $master = $areg->pid('aregd');
my $built = $areg->program;
my ($version) = `@{[$areg->build]}/aregd -V` =~ /^areg (\S+)$/ or die "no version\n";
my %program = (
	new => $built =~ s/\Q$version\E(?=[\0 \n])/other_version()/ger,
	unlinked => $built =~ s/libfcgi\.so\.0/libfcgj.so.0/r,
	crashing => "#!/bin/sh\nkill -SEGV \$\$\n",
	silent => "#!/bin/sh\nexit 0\n",
);
my @users = map { $areg->make_user(tier => 'enterprise') } 1 .. CLIENTS;

# As long as the version is.
sub other_version { return 'N' . substr $version, 1 }

# Answered requests by the metrics, without those for operators.
sub counted
{
	my $sum = 0;
	for ($areg->get('/metrics')->{body} =~ /^(erc8004_api_requests_total\{.*\} \d+)$/mg) {
		$sum += (split)[-1] unless m{/health|/metrics};
	}
	return $sum;
}

# ---- the load ----

sub agent
{
	my ($number, $name) = @_;
	return { owner_address => $users[$number]{wallet}, chain => 'base',
		registration_file => { name => $name, description => 'made while the registry reloads' } };
}

my $stop = $areg->dir . '/stop';

# Registers, edits and reads until told to stop: what it says must be there at once.
sub client
{
	my ($number) = @_;
	my %headers = (key => $users[$number]{key});
	my ($requests, @failed, %agents) = (0);
	my $ask = sub {
		my ($want, @request) = @_;
		my $answer = $areg->api(@request);
		$requests++;
		push @failed, "@request[0, 1]: $answer->{status} $answer->{body}" if $answer->{status} != $want;
		return $answer;
	};

	for (my $n = 0; !-e $stop; $n++) {
		my $name = "client $number agent $n";
		my $answer = $ask->(201, POST => AGENTS . '/register', agent($number, $name), \%headers);
		next if $answer->{status} != 201;
		my $id = $answer->{json}{agent_uuid};
		for my $turn ('', ' edited', ' edited again') {
			$ask->(200, PATCH => AGENTS . "/$id",
				{ registration_file => agent($number, "$name$turn")->{registration_file} }, \%headers) if $turn;
			my $seen = $ask->(200, GET => AGENTS . "/$id", undef, \%headers);
			push @failed, "stale: $seen->{body}"
				if $seen->{status} == 200 && $seen->{json}{registration_file}{name} ne "$name$turn";
			$agents{$id} = "$name$turn";
		}
		$ask->(200, GET => AGENTS . '?limit=3', undef, \%headers);
		sleep 0.005;
	}
	return { requests => $requests, failed => \@failed, agents => \%agents };
}

# ---- good reloads and bad ones ----

my @changes = (
	['the same again', sub { }],
	['more workers', sub { s/^workers = .*/workers = 5/m }],
	['another program', sub { $areg->install($program{new}) }],
	['another size of the shared memory', sub { s/^workers/hot_cache_size = 32m\nworkers/m }],
	['one more chain', sub { $_ .= "\n[chain extra]\nchain_id = 77\nidentity_registry = "
		. '0x' . '77' x 20 . "\n" }],
);
my @mistakes = (
	['a broken configuration', sub { s/^workers = .*/workers = many/m }, qr/areg\.conf:\d+: workers: /],
	['a database that is away', sub { s{^database_url = .*}{database_url = postgresql:///areg?host=/nowhere}m },
		qr{^database: .*check that PostgreSQL runs}s],
	['a missing library', sub { $areg->install($program{unlinked}) }, qr/libfcgj\.so\.0/],
	['a program that crashes', sub { $areg->install($program{crashing}) },
		qr/killed by signal 11/],
	['one that ends and says nothing', sub { $areg->install($program{silent}) },
		qr/did not say that it could serve/],
	['no program', sub { unlink $areg->build . '/aregd' }, qr/No such file/],
);
my (%went, %refused, @wrong_reason, @back, $last_count);

# Counters that went back are noted.
sub look_at_counters
{
	my $count = counted();
	push @back, "$last_count, then $count" if defined $last_count && $count < $last_count;
	$last_count = $count;
}

sub reload_with
{
	my ($change, $went, $reason) = @_;
	my ($name, $edit) = @$change;
	$areg->install;
	$areg->configure($edit);
	my $failure = $areg->reload;
	if (defined $reason ? $failure =~ $reason : $failure eq '') {
		$went->{$name}++;
	} else {
		push @wrong_reason, "$name: '$failure'";
	}
	look_at_counters();
	sleep rand $pause;
}

sub all_reloads
{
	my @order = ((map { [$changes[$_ % @changes]] } 0 .. $good - 1),
		(map { [$mistakes[$_ % @mistakes], 1] } 0 .. $bad - 1));
	my $generation = $areg->status->{generation};

	srand;
	@order = sort { $a->[2] <=> $b->[2] } map { [@$_[0, 1], rand] } @order;
	my $until = $full ? time + 300 : 0;
	for my $one (@order) {
		my ($change, $is_bad) = @$one;
		reload_with($change, $is_bad ? (\%refused, $change->[2]) : (\%went));
	}
	sleep 1 while time < $until;
	my $now = $areg->status;
	return { went => \%went, refused => \%refused, wrong => \@wrong_reason, back => \@back,
		generations => $now->{generation} - $generation };
}

my $began = counted();
my ($reloads, @done) = in_parallel(CLIENTS + 1, sub {
	my ($number) = @_;
	return client($number - 1) if $number > 0;
	my $result = eval { all_reloads() } || { wrong => [$@] };
	write_file($stop, '', 0600);
	return $result;
});
my $requests = sum0(map { $_->{requests} } @done);
my @failed = map { @{ $_->{failed} } } @done;
my %agents = map { %{ $_->{agents} } } @done;
diag("$requests requests, " . keys(%agents) . ' agents registered and edited; reloads: ', join ', ', map { "$_ $reloads->{went}{$_} times" } sort keys %{ $reloads->{went} });

is_deeply($reloads->{wrong}, [], 'every reload ended as it should');
is(sum0(values %{ $reloads->{went} }), $good, "$good reloads went well");
is(sum0(values %{ $reloads->{refused} }), $bad, "$bad were refused, with the reason");
is($reloads->{generations}, $good, 'and began no generation');
is($areg->pid('aregd'), $master, 'the master has the same pid');
ok(alive($master), 'and lives');
cmp_ok($requests, '>', 100, 'the registry was used meanwhile');
is(scalar @failed, 0, 'no request failed, and none was answered with what was no longer true')
	or diag(join "\n", grep { defined } @failed[0 .. 4]);
unlike($areg->log_text('nginx-error'), qr/connect\(\) to|upstream prematurely/, 'nginx was never refused or hung up on');
my %stored = map { ($_->[0] => $_->[1]) } $areg->psql('SELECT agent_uuid, name FROM erc8004_agents');
is_deeply(\%stored, \%agents, 'every acknowledged write is there, and nothing else');
is_deeply($reloads->{back}, [], 'counters never went back');
ok(wait_until(5, sub { counted() - $began == $requests }), 'and every request was counted once')
	or diag(counted() - $began, " counted, $requests made");
# PostgreSQL learns a little later that one has gone.
ok(wait_until(20, sub {
	$areg->psql_value("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'areg listener'") == 1
}), 'one listener is left');
my $errors = join "\n", grep { /"level":"error"/ && !/reload refused/ } split /\n/, $areg->log_text('areg');
is($errors, '', 'the log has no errors but those of refused reloads');

# ---- a new program ----

$areg->install($program{new});
$areg->configure(sub { });
is($areg->reload, '', 'a new program takes over');
is($areg->get('/health')->{json}{version}, other_version(), 'health tells its version');
is($areg->get("/api/v1/nothing")->{status}, 404, 'it serves');

# ---- limits go on ----

# So many of a caller's requests pass, of so many.
sub passed
{
	my ($from, $count) = @_;
	return scalar grep { $areg->get(AGENTS . '?limit=1', { from => $from })->{status} == 200 } 1 .. $count;
}

sub limit_holds
{
	my ($from, $edit, $name) = @_;
	my $start = time;
	my $sum = passed($from, 30);
	$areg->configure($edit);
	is($areg->reload, '', "a reload between requests of one caller, $name");
	$sum += passed($from, 40);
	# Within a minute's window a little comes free with time.
	my $most = LIMIT + (time - $start) + 1;
	ok($sum >= LIMIT - 5 && $sum <= $most, "the limit counts on: $sum of 70 passed, " . LIMIT . ' may');
}

limit_holds('127.0.0.21', sub { }, 'with the same shared memory');
limit_holds('127.0.0.22', sub { s/^workers/hot_cache_size = 16m\nworkers/m }, 'with other shared memory');

# ---- old workers and new ones ----

# A worker that is at a request when the reload comes finishes it.
my $lock = fork // die "fork: $!\n";
if ($lock == 0) {
	$areg->psql('BEGIN; LOCK TABLE erc8004_agents IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(3)');
	POSIX::_exit(0);
}
wait_until(5, sub { $areg->psql_value("SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock'
	AND relation = 'erc8004_agents'::regclass") }) or die "no lock\n";
my ($answer, $state) = in_parallel(2, sub {
	return $areg->api(POST => AGENTS . '/register', agent(0, 'slow'), { key => $users[0]{key} })->{status}
		if $_[0] == 0;
	wait_until(3, sub { grep { $_->{state} eq 'busy' } @{ $areg->status->{workers} } }) or return 'nobody is busy';
	my $before = $areg->status->{reloads}{done};
	kill 'HUP', $master;
	wait_until(5, sub { ($areg->status->{state} // '') eq 'retiring' }) or return 'nobody retires';
	my $now = $areg->status;
	return join ' ', map { $_->{state} } @{ $now->{generations} };
});
is($state, 'retiring serving', 'while one is at a request, the old generation retires and the new one serves');
is($answer, 201, 'and the request is finished');
waitpid $lock, 0;
ok(wait_until(15, sub { ($areg->status->{state} // '') eq 'serving' }), 'then the old generation ends');

# ---- the end ----

kill 'TERM', $master;
ok(wait_until(10, sub { !alive($master) }), 'SIGTERM ends it all');
done_testing();
