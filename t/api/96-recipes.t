#!/usr/bin/perl
# SPDX-License-Identifier: Apache-2.0
# The recipes of the documentation work: every program that docs/recipes.md shows runs as it stands
# there, in each language, and does what the page says.
use strict;
use warnings;
use utf8;
use FindBin;
use File::Temp qw(tempdir);
use IO::Socket::INET;
use POSIX qw(_exit);
use Test::More;

use lib "$FindBin::Bin/../lib";
use Areg::Test qw(root address hash);

my @languages = (
	[sh => 'bash', '-euo', 'pipefail'],
	[python => 'python3'],
	[js => 'node', '--no-experimental-global-webcrypto'], # as in Node 18
	[php => 'php'],
);
my %extension = (js => 'mjs');

# {title}{language}: the programs of the page.
sub recipes
{
	my (%recipes, $title);
	open my $in, '<:encoding(UTF-8)', root() . '/docs/recipes.md' or die "recipes.md: $!\n";
	my $text = do { local $/; <$in> };

	for my $section (split /^## /m, $text =~ s/\A.*?(?=^## )//msr) {
		my ($title) = $section =~ /\A(.+)/ or next;
		$recipes{$title}{$1} = $2 while $section =~ /^```(\w+)\n(.*?)^```/gms;
		delete $recipes{$title} if $recipes{$title}{text}; # prose, and says so
	}
	return \%recipes;
}

my $areg = Areg::Test->start;
my $recipes = recipes();
my $owner = $areg->make_user;
my %run; # titles of the recipes that were run
my $number = 0;

sub new_agent
{
	my ($name, $chain) = @_;
	return $areg->make_agent($owner, name => $name, chain => $chain)->{agent_uuid};
}

# Runs a recipe in one language; returns its lines. `in` is the folder to run in.
sub run_recipe
{
	my ($title, $language, %env) = @_;
	my ($name, @command) = @$language;
	my $folder = delete $env{in} || tempdir(CLEANUP => 1);
	my $program = "$folder/recipe." . ($extension{$name} || $name);

	$run{$title} = 1;
	open my $out, '>:encoding(UTF-8)', $program or die "$program: $!\n";
	print $out $recipes->{$title}{$name} // die "\"$title\" has nothing in $name\n";
	close $out or die "$program: $!\n";
	local %ENV = (%ENV, AREG_URL => $areg->url, no_proxy => '127.0.0.1', %env);
	my $pid = open my $in, '-|';
	die "fork: $!\n" if !defined $pid;
	if ($pid == 0) {
		chdir $folder or _exit(126);
		exec 'timeout', 60, @command, $program or _exit(127);
	}
	chomp(my @lines = <$in>);
	close $in;
	is($?, 0, "\"$title\" runs in $name");
	return @lines;
}

# A server that passes requests on to the registry, one at a time, and spoils one: `spoil` is called
# with the request's bytes and a sub that passes it on, and returns the bytes to answer, or undef to
# leave it alone. Returns its address and a sub that says what it passed on: the request lines.
sub in_between
{
	my ($spoil) = @_;
	my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 16) or die "listen: $!\n";
	my $log = tempdir(CLEANUP => 1) . '/requests';
	my $pid = fork // die "fork: $!\n";

	if ($pid == 0) {
		$SIG{TERM} = 'DEFAULT';
		alarm 300; # should the test not end it
		while (my $client = $listener->accept) {
			my $request = read_request($client) // next;
			my $pass_on = sub { return $areg->raw($request)->{raw} };
			my $answer = $spoil->($request, $pass_on) // $pass_on->();
			open my $out, '>>', $log or _exit(1);
			print $out +($request =~ /\A([^\r]*)/)[0], "\n";
			close $out;
			print $client $answer;
			close $client;
		}
		_exit(0);
	}
	return ('http://127.0.0.1:' . $listener->sockport, sub {
		kill 'TERM', $pid;
		waitpid $pid, 0;
		open my $in, '<', $log or return;
		chomp(my @lines = <$in>);
		return @lines;
	});
}

# The bytes of one request, made the last of its connection.
sub read_request
{
	my ($client) = @_;
	my ($bytes, $end) = ('', -1);

	while (($end = index $bytes, "\r\n\r\n") < 0) {
		sysread $client, $bytes, 65536, length $bytes or return;
	}
	my ($length) = substr($bytes, 0, $end) =~ /^Content-Length: (\d+)/mi;
	while (length $bytes < $end + 4 + ($length || 0)) {
		sysread $client, $bytes, 65536, length $bytes or return;
	}
	$bytes =~ s/^Connection: [^\r]*\r\n//mi;
	$bytes =~ s/\r\n/\r\nConnection: close\r\n/;
	return $bytes;
}

# ---- What there is ----

my $weather = new_agent('Weather forecast');
my $trusted = new_agent('Trusted');
$areg->psql("WITH paid AS (INSERT INTO x402_payments (tx_hash, chain, amount_usdc, payer, payee, status,"
	. " settled_at) SELECT '0x' || lpad(to_hex(n), 64, '0'), 'base', 1,"
	. " '0x' || lpad(to_hex(n), 40, '1'), '" . address('payee') . "', 'verified', now()"
	. " FROM generate_series(1, 10) n RETURNING id)"
	. " INSERT INTO erc8004_agent_payments (payment_id, agent_uuid) SELECT id, '$trusted' FROM paid");
my $client = $areg->make_user;
$areg->post('/api/v1/agents/feedback', { agent_uuid => $trusted, client_address => $client->{wallet},
	score => 95 }, { key => $client->{key} })->{status} == 201 or die "no feedback was stored\n";

for my $language (@languages) {
	my @lines = run_recipe('Search agents', $language);
	is($lines[0], "$weather new Weather forecast", 'the agent is found, with a typing error');

	my @verdicts = map { run_recipe('Decide whether to trust an agent', $language, AREG_AGENT => $_) }
		$trusted, "base:0";
	is_deeply(\@verdicts, ['hire Trusted', 'pass over Weather forecast'],
		'an excellent agent is hired, a new one is not');
}

# ---- Writing ----

for my $language (@languages) {
	my $user = $areg->make_user;
	my %env = (AREG_API_KEY => $user->{key}, AREG_AGENT => 'base:0');

	my ($line) = run_recipe('Register an agent', $language, %env);
	my $uuid = $areg->psql_value("SELECT agent_uuid FROM erc8004_agents"
		. " WHERE owner_address = '$user->{wallet}' AND name = 'Weather'");
	is($line, "registered $uuid", 'the agent is registered');
	is_deeply([run_recipe('Register an agent', $language, %env)],
		['This owner has registered the same file on this chain already.'],
		'a second time it says why not');

	($line) = run_recipe('Give feedback', $language, %env);
	my $id = $areg->psql_value("SELECT id FROM erc8004_reputation"
		. " WHERE client_address = '$user->{wallet}' AND agent_uuid = '$weather' AND score = 92.5");
	is($line, "feedback $id: 92.5", 'the feedback is stored');
}

# ---- Trouble ----

for my $language (@languages) {
	my $user = $areg->make_user;
	my %env = (AREG_API_KEY => $user->{key}, AREG_AGENT => 'base:0');
	my $spoilt = 0;

	my ($url, $requests) = in_between(sub {
		return if $spoilt++;
		return "HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/problem+json\r\n"
			. "Retry-After: 1\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
	});
	is_deeply([run_recipe('Wait when told to', $language, %env, AREG_URL => $url)], [$weather],
		'after a 429 the answer comes all the same');
	is(scalar(my @asked = $requests->()), 2, 'with one request more');

	$spoilt = 0;
	($url, $requests) = in_between(sub {
		my ($request, $pass_on) = @_;
		return if $request !~ /\APOST/ || $spoilt++;
		$pass_on->();
		return ''; # done, and the answer is lost
	});
	my ($line) = run_recipe('Retry safely', $language, %env, AREG_URL => $url);
	my @rows = $areg->psql("SELECT id, score FROM erc8004_reputation"
		. " WHERE client_address = '$user->{wallet}'");
	is(scalar(@rows), 1, 'after an answer that got lost the feedback is stored once');
	is($line, "feedback $rows[0][0]: 88", 'and the program knows of it');
	is(scalar(my @sent = grep { /^POST/ } $requests->()), 2, 'though it was sent twice');
}

# ---- Many ----

new_agent("Agent $_") for 1 .. 130;
new_agent("Elsewhere $_", 'ethereum') for 1 .. 3;
my @all = map { $_->[0] } $areg->psql("SELECT agent_uuid FROM erc8004_agents"
	. " WHERE chain = 'base' AND status = 'active' ORDER BY agent_uuid");
cmp_ok(scalar @all, '>', 100, 'there is more than one page of agents');
for my $language (@languages) {
	is_deeply([sort(run_recipe('Walk through all pages', $language))], \@all,
		'every agent of the chain comes once');
}

my @events = map { $_->[0] } $areg->psql('SELECT type FROM erc8004_events ORDER BY place, id');
cmp_ok(scalar @events, '>', 100, 'and more than one page of events');
my %folder = map { $_->[0] => tempdir(CLEANUP => 1) } @languages;
sub followed { return map { s/^\S+ //r } run_recipe('Follow events', $_[0], in => $folder{ $_[0][0] }) }
is_deeply([followed($_)], \@events, 'every event comes, in order') for @languages;
new_agent('One more');
is_deeply([followed($_)], ['agent.registered'], 'the next time, only what is new') for @languages;

is(join(', ', grep { !$run{$_} } sort keys %$recipes), '', 'no recipe of the page was left out');
done_testing;
