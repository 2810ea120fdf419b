# SPDX-License-Identifier: Apache-2.0
# Workers keep their size under a mixed load, and are replaced after max_requests without anybody
# noticing. 20,000 requests; 100,000 with AREG_TEST_FULL set.
use strict;
use warnings;

use File::Basename qw(dirname);
use IO::Socket::INET;
use Test::More;
use Time::HiRes qw(time);

use lib dirname(__FILE__) . '/../lib';
use Areg::Test qw(in_parallel json_text wait_until);

use constant { WORKERS => 4, CLIENTS => 4, GROWTH_KIB => 1024 };
my $total = $ENV{AREG_TEST_FULL} ? 100_000 : 20_000;

my $areg = Areg::Test->start(workers => WORKERS, set => { max_requests => 0, log_level => 'warn' });
my @users = map { $areg->make_user(tier => 'enterprise') } 1 .. CLIENTS + 1;
my $agents = '/api/v1/agents';

sub registration
{
	my ($user, $name) = @_;
	return json_text({ owner_address => $user->{wallet}, chain => 'base', metadata => { a => 'b' },
		registration_file => { name => $name, description => "$name does things " x 20,
			services => [{ name => 'mcp', endpoint => 'https://a.example/mcp' }] } });
}

# The bytes of a request over a connection that stays open.
sub request
{
	my ($method, $path, $body, $user) = @_;
	my $head = "$method $path HTTP/1.1\r\nHost: localhost\r\n";
	$head .= "Authorization: Bearer $user->{key}\r\n" if $user;
	$head .= "Content-Type: application/json\r\nContent-Length: " . length($body) . "\r\n" if defined $body;
	return "$head\r\n" . ($body // '');
}

# One answer: its status, with its body read to the end.
sub ask
{
	my ($socket, $bytes) = @_;
	my $in = '';
	syswrite $socket, $bytes;
	until ($in =~ /\r\n\r\n/) {
		sysread $socket, $in, 65536, length $in or return 0;
	}
	my $end = index($in, "\r\n\r\n") + 4;
	my ($length) = $in =~ /^Content-Length: (\d+)/mi or return 0;
	while (length $in < $end + $length) {
		sysread $socket, $in, 65536, length $in or return 0;
	}
	return substr $in, 9, 3;
}

my $giver = $users[-1];
my @ids = map { $areg->post("$agents/register", registration($giver, "agent $_"),
	{ key => $giver->{key} })->{json}{agent_uuid} } 1 .. 50;
my $round = 0;

# A hundred requests of one client, mixed, and what each is answered.
sub mix
{
	my ($user, $client) = @_;
	$round++;
	my @mix;
	for my $i (1 .. 13) {
		my $id = $ids[rand @ids];
		push @mix, map { [request(GET => "$agents/$id$_"), 200] }
			'', '/stats', '/reputation', '/feedback', '/registration';
	}
	push @mix, map { [request(GET => "$agents?limit=10&$_"), 200] }
		'q=agent', 'chain=base', 'sort=name&order=asc', 'sort=reputation_score', "offset=" . $round % 100,
		"owner_address=$giver->{wallet}", 'q=nobody&sort=relevance';
	push @mix, map { [request(GET => $_), 404] } "$agents/base:999999999", '/nothing', "$agents/x/y/z";
	push @mix, map { [request(GET => "$agents?$_"), 400] } 'limit=0', 'x=y', 'q=%ff';
	push @mix, map { [request(POST => "$agents/register", $_, $user), 400] } '{', '[]', '{"a":"\u0000"}',
		'[' x 10000, registration($user, 'x' x 201);
	push @mix, [request(POST => "$agents/feedback", '{"score":101}', $user), 400];
	push @mix, [request(POST => "$agents/register", 'x' x 200_000, $user), 400] if $round % 10 == 1;
	push @mix, map { [request(POST => "$agents/register",
		registration($user, "made by $client in $round, number $_"), $user), 201] } 1 .. 3;
	push @mix, map { [request(POST => "$agents/feedback", json_text({ agent_uuid => $ids[rand @ids],
		client_address => $user->{wallet}, score => int rand 101, tag1 => "tag" . int rand 5 }),
		$user), 201] } 1 .. 5;
	push @mix, [request(GET => '/health'), 200], [request(GET => '/metrics'), 200];
	push @mix, [request(POST => "$agents/register", '{}'), 401] while @mix < 100;
	return @mix;
}

# Sends `count` requests from all clients; returns how many were answered otherwise than they
# should, with one example, and the requests per second.
sub load
{
	my ($count, $first_round) = @_;
	my $began = time;
	my @each = in_parallel(CLIENTS, sub {
		my ($client) = @_;
		my ($sent, $wrong, $example) = (0, 0, '');
		my $socket = $areg->connection;
		$round = $first_round;
		while ($sent < $count / CLIENTS) {
			for my $one (mix($users[$client], $client)) {
				# nginx ends a connection after many requests.
				$socket = $areg->connection if ++$sent % 5000 == 0;
				my $status = ask($socket, $one->[0]);
				next if $status == $one->[1];
				$wrong++;
				$example = "$status: " . substr $one->[0], 0, 200;
				$socket = $areg->connection;
			}
		}
		return { sent => $sent, wrong => $wrong, example => $example };
	});
	my ($sent, $wrong) = (0, 0);
	for my $one (@each) {
		$sent += $one->{sent};
		$wrong += $one->{wrong};
		diag($one->{example}) if $one->{wrong};
	}
	return ($wrong, $sent / (time - $began), $sent);
}

# Of a process: what is resident but for the memory that all processes share, which is of a fixed size
# and fills with answers; and what of it is its own and written to; in KiB.
sub sizes
{
	my ($pid) = @_;
	my %size = (Rss => 0, Private_Dirty => 0);

	open my $status, '<', "/proc/$pid/status" or return \%size;
	$size{Rss} += $_ for join('', <$status>) =~ /^Rss(?:Anon|File):\s+(\d+) kB/mg;
	open my $in, '<', "/proc/$pid/smaps_rollup" or return \%size;
	($size{Private_Dirty}) = join('', <$in>) =~ /^Private_Dirty:\s+(\d+) kB/m;
	return \%size;
}

my @pids = $areg->worker_pids;
my ($wrong) = load($total / 5, 0);
is($wrong, 0, 'warm-up: every request is answered as it should be');
my %warm = map { ($_ => sizes($_)) } @pids;
($wrong, my $rate, my $sent) = load($total * 4 / 5, 1_000_000);
is($wrong, 0, "$sent requests more: every one is, too");
diag(sprintf '%.0f requests/s', $rate);
is_deeply([$areg->worker_pids], \@pids, 'the workers are the same processes as before');
for my $at (0 .. $#pids) {
	for my $what (qw(Rss Private_Dirty)) {
		my ($from, $to) = map { $_->{$what} } $warm{ $pids[$at] }, sizes($pids[$at]);
		cmp_ok($to - $from, '<=', GROWTH_KIB, 'worker ' . ($at + 1)
			. ($what eq 'Rss' ? ': its memory has not grown by more than 1 MiB' : ': nor what is its own'))
			or diag("$what from $from to $to KiB");
	}
}

# ---- recycling ----

$areg->stop_server('aregd');
$areg->start_server('aregd', set => { max_requests => 100, log_level => 'warn' });
my @before = $areg->worker_pids;
($wrong, undef, $sent) = load(4000, 2_000_000);
is($wrong, 0, "workers that end after 100 requests each: none of $sent requests fails");
my %old = map { ($_ => 1) } @before;
is((grep { $old{$_} } $areg->worker_pids), 0, 'all of them have been replaced');
ok(wait_until(1, sub { $areg->worker_pids == WORKERS }), 'and there are as many as before');
my ($starts, $crashes) = map { $areg->get('/metrics')->{body} =~ /^$_ (\d+)$/m }
	qw(areg_worker_starts_total areg_worker_crashes_total);
cmp_ok($starts, '>=', 30, 'more than once each');
is($crashes, 0, 'and none of them counts as a crash');

done_testing();
