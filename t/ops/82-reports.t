# SPDX-License-Identifier: Apache-2.0
# Reports of errors: well-formed envelopes at a stand-in for Sentry, nothing secret in them, equal
# ones folded, and requests that never wait for it, whatever it does.
use strict;
use warnings;

use File::Basename qw(dirname);
use IO::Select;
use IO::Socket::INET;
use POSIX qw(_exit);
use Test::More;
use Time::HiRes qw(sleep time);

use lib dirname(__FILE__) . '/../lib';
use Areg::Test qw(alive from_json in_parallel json_text wait_until);

my ($KEY, $PROJECT, $PER_MINUTE) = ('0123456789abcdef', 42, 6);

# ---- the stand-in ----

# It answers as the file `mode` says: ok, a status with headers behind it, or hang. Each request goes
# to the file `got`, a line of JSON: {at, raw}.
my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 20) or die "listen: $!\n";
my $port = $listener->sockport;
my $areg = Areg::Test->start(workers => 2, set => { environment => 'staging',
	sentry_dsn => "http://$KEY\@127.0.0.1:$port/$PROJECT", sentry_per_minute => $PER_MINUTE });
my ($mode_file, $got_file) = map { $areg->dir . "/sentry-$_" } qw(mode got);
my $stand_in = fork // die "fork: $!\n";
if ($stand_in == 0) {
	$SIG{TERM} = 'DEFAULT';
	serve();
	_exit(0);
}
close $listener;
END { kill 'KILL', $stand_in if $stand_in }

sub serve
{
	my @hanging;
	open my $got, '>>', $got_file or _exit(1);
	while (my $socket = $listener->accept) {
		my $raw = '';
		while (sysread $socket, $raw, 65536, length $raw) {
			my ($head, $body) = split /\r\n\r\n/, $raw, 2;
			last if defined $body && $head =~ /^Content-Length: (\d+)\r?$/mi && length $body >= $1;
		}
		my $mode = mode();
		syswrite $got, json_text({ at => time, raw => $raw, mode => $mode }) . "\n";
		if ($mode eq 'hang') {
			push @hanging, $socket;
			next;
		}
		my ($status, $headers) = $mode eq 'ok' ? (200, '') : split / /, $mode, 2;
		syswrite $socket, "HTTP/1.1 $status x\r\n" . ($headers ? "$headers\r\n" : '')
			. "Content-Length: 2\r\nConnection: close\r\n\r\n{}";
		close $socket;
	}
}

sub mode
{
	if (@_) {
		open my $out, '>', "$mode_file.new" or die "$mode_file: $!\n";
		print $out $_[0];
		close $out;
		rename "$mode_file.new", $mode_file or die "$mode_file: $!\n";
		return;
	}
	open my $in, '<', $mode_file or return 'ok';
	return scalar <$in>;
}

sub got
{
	open my $in, '<', $got_file or return;
	return map { from_json($_) } grep { /\n\z/ } <$in>;
}

# The event of the envelope, with what is wrong with its form.
sub event
{
	my ($request) = @_;
	my ($head, $body) = split /\r\n\r\n/, $request->{raw}, 2;
	my @lines = split /\n/, $body, -1;
	my ($envelope, $item, $event) = map { from_json($_ // '') } @lines[0 .. 2];
	my @wrong;

	push @wrong, 'three lines' unless @lines == 4 && $lines[3] eq '';
	push @wrong, 'JSON' if grep { ref ne 'HASH' } $envelope, $item, $event;
	push @wrong, 'the length of the item' unless ($item->{length} // -1) == length $lines[2];
	push @wrong, 'an event' unless ($item->{type} // '') eq 'event';
	push @wrong, 'an id' unless ($event->{event_id} // '') =~ /^[0-9a-f]{32}$/;
	push @wrong, 'the same id' unless $envelope->{event_id} eq $event->{event_id};
	push @wrong, 'the address' unless $head =~ m{\APOST /api/$PROJECT/envelope/ HTTP/1};
	push @wrong, 'the key'
		unless $head =~ /^X-Sentry-Auth: Sentry sentry_version=7, .*sentry_key=$KEY\r?$/m;
	push @wrong, 'the type' unless $head =~ m{^Content-Type: application/x-sentry-envelope\r?$}mi;
	return { %$event, wrong => join ', ', @wrong };
}

# Waits for an event with that fingerprint, and returns the first.
sub event_of
{
	my ($place, $code) = @_;
	my $found;
	wait_until(30, sub {
		($found) = grep { $_->{fingerprint}[0] eq $place && $_->{fingerprint}[1] eq $code }
			map { event($_) } grep { $_->{mode} eq 'ok' } got();
	});
	ok($found, "$code in $place is reported");
	return $found || {};
}

sub outcome
{
	my ($outcome) = @_;
	my ($count) = $areg->get('/metrics')->{body}
		=~ /^areg_error_reports_total\{outcome="$outcome"\} (\d+)$/m;
	return $count;
}

# ---- a fault ----

my $user = $areg->make_user(tier => 'enterprise');
my $agents = '/api/v1/agents';
is(scalar(() = $areg->pids_named('aregd reporter')), 1, 'with a DSN there is a reporter');
is($areg->get("$agents/base:1")->{status}, 404, 'what callers do wrong');
is($areg->get("$agents?nonsense=1")->{status}, 400, 'in any way');

$areg->psql('ALTER TABLE erc8004_agents RENAME TO gone');
my $answer = $areg->post("$agents/register?", { owner_address => $user->{wallet}, chain => 'base',
	registration_file => { name => 'sesame-name', description => 'sesame-description' } },
	{ key => $user->{key}, from => '127.0.0.77', 'User-Agent' => 'sesame-agent' });
is($answer->{status}, 500, 'what areg does wrong');
my $event = event_of("POST $agents/register", '42P01');
my ($version) = $areg->get('/health')->{json}{version};
is($event->{wrong}, '', 'the envelope is well-formed');
is($event->{release}, "areg\@$version", 'it says the release');
is($event->{environment}, 'staging', 'the environment');
is($event->{level}, 'error', 'the level');
is($event->{platform}, 'c', 'the platform');
is($event->{transaction}, "POST $agents/register", 'and where it was');
is($event->{tags}{request_id}, $answer->{headers}{'x-request-id'}, 'with the id that the client saw');
like($event->{tags}{statement}, qr/^\w+$/, 'and the name of the statement');
is($event->{extra}{count}, 1, 'once');
cmp_ok(abs($event->{timestamp} - time), '<', 60, 'and when');
is(scalar got(), 1, 'of what callers do wrong nothing is reported');

$answer = $areg->get("$agents/base:0?fields=sesame-query");
$answer = $areg->get("$agents/base:31337", { key => $user->{key}, from => '127.0.0.77' });
is($answer->{status}, 500, 'another fault');
event_of("GET $agents/{id}", '42P01');
my $all = join '', map { $_->{raw} } got();
my $prefix = $areg->psql_value("SELECT key_prefix FROM api_keys LIMIT 1");
for my $secret ($user->{key}, $prefix, $user->{wallet}, $user->{id}, 'sesame', '127.0.0.77', '31337', 'gone') {
	ok(index($all, $secret) < 0, 'not sent: ' . substr $secret, 0, 12);
}

# ---- a crash ----

my ($worker) = $areg->worker_pids;
kill 'ABRT', $worker;
$event = event_of('worker', 'SIGABRT');
is($event->{level}, 'fatal', 'a crash is fatal');
is($event->{wrong}, '', 'and well-formed');

# ---- Sentry does not take it ----

mode('503');
my %status;
$status{ $areg->get("$agents/base:0/feedback")->{status} }++ for 1 .. 20;
is_deeply(\%status, { 500 => 20 }, 'while Sentry fails, requests are answered as before');
ok(wait_until(20, sub { outcome('retried') >= 2 }), 'the reporter tries again');
my @tries = map { $_->{at} } grep { $_->{mode} eq '503' } got();
cmp_ok($tries[1] - $tries[0], '>=', 0.9, 'but not at once');
mode("429 Retry-After: 3");
ok(wait_until(20, sub { grep { $_->{mode} =~ /^429/ } got() }), 'it is told to wait');
mode('ok');
$event = event_of("GET $agents/{id}/feedback", '42P01');
my ($told) = grep { $_->{mode} =~ /^429/ } got();
my ($after) = grep { $_->{at} > $told->{at} } got();
cmp_ok($after->{at} - $told->{at}, '>=', 2.9, 'and waits as long as it was told');
is($event->{extra}{count}, 20, '20 equal faults are one report that says so');
is(outcome('folded'), 19, 'and counted as folded');
is(outcome('dropped'), 0, 'none is lost');
like($areg->log_text('areg'), qr/Sentry takes no reports.*Sentry takes reports again/s, 'the log says both');

# ---- Sentry hangs ----

mode('hang');
my $retried = outcome('retried');
$areg->get("$agents/base:0/reputation");
ok(wait_until(10, sub { grep { $_->{mode} eq 'hang' } got() }), 'a report hangs');
%status = ();
$status{$_}++ for map { $areg->get($_)->{status} } map { ("$agents/base:0", '/api/v1/me', '/api/v1/chains') } 1 .. 20;
is_deeply(\%status, { 500 => 20, 401 => 20, 200 => 20 }, 'meanwhile requests are answered as before');
is(outcome('retried'), $retried, 'all of them before the report was given up');
my ($reporter) = $areg->pids_named('aregd reporter');
# They find no room only while the reporter is busy, and it counts them afterwards.
ok(wait_until(60, sub {
	in_parallel(4, sub { $areg->get("$agents/base:0") for 1 .. 150; return 1 });
	sleep 0.5;
	return outcome('dropped') > 0;
}), 'more than the ring holds are counted, and not waited for');
ok(alive($reporter), 'the reporter is still the same');

# ---- at most so many a minute ----

mode('ok');
ok(wait_until(30, sub { outcome('sent') >= 5 }), 'it goes on when Sentry answers');
$areg->get("$agents/base:0/$_") for qw(stats registration payments validations);
ok(wait_until(20, sub { outcome('sent') == $PER_MINUTE }), "$PER_MINUTE reports are sent");
sleep 2;
is(outcome('sent'), $PER_MINUTE, 'and no more within the minute');

# ---- the end ----

$areg->psql('ALTER TABLE gone RENAME TO erc8004_agents');
is($areg->get("$agents/base:0")->{status}, 404, 'all is well again');
$areg->stop_server('aregd');
my $log = $areg->log_text('areg');
like($log, qr/ends with \d+ reports that were not sent/, 'what was not sent is told at the end');
unlike($log, qr/ms are over: killing/, 'and nobody waits for it');
unlike($log, qr/$KEY/, 'the log does not have the key of the DSN');

done_testing();
