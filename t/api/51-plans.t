# SPDX-License-Identifier: Apache-2.0
# The plans of searches, as PostgreSQL ran them for the server: an index leads to every page, and
# where it gives the order nothing is sorted.
# AREG_PLANS_AGENTS=1000000 does it with so many agents, and tells what each search took.
use strict;
use warnings;

use File::Basename qw(dirname);
use Test::More;
use Time::HiRes qw(time);

use lib dirname(__FILE__) . '/../lib';
use Areg::Test qw(from_json json_text root wait_until);

my $AGENTS = $ENV{AREG_PLANS_AGENTS} || 50000;
my $MOST_SORTED = 10001; # where no index gives the order, as many as are counted
my $areg = Areg::Test->start(workers => 1, set => { database_statement_timeout => '30s' });

# A log that PostgreSQL writes of what it ran; the plan is in it.
$areg->psql("ALTER DATABASE areg SET $_") for "session_preload_libraries = 'auto_explain'",
	map { "auto_explain.$_" } 'log_min_duration = 0', 'log_analyze = on', 'log_timing = off',
	'log_format = json';
{
	open my $in, '<', root() . '/t/lib/crowd.sql' or die "crowd.sql: $!\n";
	my $sql = do { local $/; <$in> };
	$sql =~ s/:n\b/$AGENTS/g;
	$areg->psql($sql);
	$areg->psql('VACUUM ANALYZE');
}
$areg->stop_server('aregd');
$areg->start_server('aregd');

my ($whale) = map { $_->[0] } $areg->psql(
	'SELECT owner_address FROM erc8004_agents GROUP BY 1 ORDER BY count(*) DESC LIMIT 1');
my ($somebody, $wallet, $time, $tx) = map { @$_ } $areg->psql("SELECT owner_address, agent_wallet,"
	. " rfc3339(created_at), registered_tx FROM erc8004_agents WHERE agent_uuid = md5('agent1234')::uuid");

# Searches whose order an index gives.
my @ordered = ('', 'status=suspended', 'chain=base', 'chain=base-sepolia',
	"registered_after=$time", 'has_registration_file=true',
	'has_registration_file=false', 'x402=false', 'active=true', 'service=mcp',
	'supported_trust=reputation', 'trust_level=poor', 'trust_level=new',
	'min_feedback=1', 'min_reputation_score=0', 'max_reputation_score=100',
	map { my $sort = "sort=$_"; map { $_ eq '' ? $sort : "$sort&$_" } '', 'order=asc', 'order=desc', 'chain=base',
		'chain=base&chain=ethereum', 'service=mcp', 'has_registration_file=true', 'min_reputation_score=0' }
		qw(registered_at reputation_score total_feedback last_activity_at name));
push @ordered, map { "sort=reputation_score&automatic_feedback=exclude&$_" } 'order=asc', 'order=desc';
push @ordered, map { ($_, "$_&order=asc") } 'q=oracle', 'service=mcp&x402=true', 'service=ens&active=true';
# Searches that leave few, which are gathered to be counted, and sorted; and of words.
my @few = ("owner_address=$whale", "registered_before=$time", 'service=WEB&service=mcp',
	'trust_level=good', "owner_address=$somebody", "agent_wallet=$wallet", "registered_tx=$tx", 'trust_level=excellent',
	'trust_level=excellent&sort=name', 'min_reputation_score=99.9', 'max_reputation_score=60.1',
	'min_success_rate=99', 'min_success_rate=1&sort=name', 'min_feedback=390',
	'min_reputation_score=99&automatic_feedback=exclude', 'service=did', 'service=did&service=ens',
	'service=did&sort=reputation_score', 'skill=skill%20199', 'domain=domain%2049',
	'supported_trust=tee-attestation', 'x402=true&service=ens', 'active=false',
	'x402=true&has_registration_file=true&chain=base-sepolia', 'skill=skill%20100&sort=total_feedback',
	'status=revoked&service=ens&sort=last_activity_at', 'status=pending&min_reputation_score=50',
	'q=quivero', 'q=agnet', 'q=karaa%20kara', 'q=agent', 'q=agent&order=asc', 'q=oracle&chain=base',
	'q=quivero&sort=name', 'q=agent&sort=total_feedback', 'q=agent&service=mcp&min_feedback=1');

my $read = 0;

# The plans that were logged since it was last asked, of statements that find agents.
sub plans
{
	my $log = substr $areg->log_text('postgres'), $read;
	my @plans = map { from_json($_ =~ s/^\t//gmr) } $log =~ /duration: [\d.]+ ms  plan:\n((?:\t.*\n)+)/g;
	return grep { $_ && $_->{'Query Text'} =~ /^WITH .*\berc8004_agent/s } @plans;
}

sub nodes
{
	my ($plan) = @_;
	return ($plan, map { nodes($_) } @{ $plan->{Plans} || [] });
}

sub rows { return $_[0]{'Actual Rows'} * $_[0]{'Actual Loops'} }

# How many rows a sort was given.
sub sorted
{
	my ($sort) = @_;
	my ($from) = grep { $_->{'Parent Relationship'} eq 'Outer' } @{ $sort->{Plans} };
	return rows($from);
}

# What is wrong with a plan that may sort so many.
sub faults
{
	my ($plan, $most) = @_;
	my @nodes = nodes($plan->{Plan});
	my @scans = grep { $_->{'Node Type'} =~ /^(?:Parallel )?Seq Scan/
		&& $_->{'Relation Name'} =~ /^erc8004_(?:agents|agent_stats|reputation)$/ } @nodes;
	my @sorts = grep { $_->{'Node Type'} =~ /Sort$/ && sorted($_) > $most } @nodes;
	return ((map { "Seq Scan on $_->{'Relation Name'}" } @scans),
		map { 'a sort of ' . sorted($_) . ' by ' . join ', ', @{ $_->{'Sort Key'} } } @sorts);
}

# Searches, and looks at the plan; returns answer and plan.
sub search_ok
{
	my ($query, $most, $name) = @_;
	my $began = time;
	$read = length $areg->log_text('postgres');
	my $answer = $areg->get("/api/v1/agents?$query");
	my $took = time - $began;
	my ($plan) = wait_until(10, sub { my @plans = plans(); return @plans ? $plans[-1] : undef });
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	if ($answer->{status} != 200 || !$plan) {
		fail("$name: ?$query") or diag($plan ? $answer->{body} : 'no plan was logged');
		return;
	}
	my @faults = faults($plan, $most);
	is("@faults", '', "$name: ?$query") or diag(JSON::PP->new->pretty->canonical->encode($plan));
	note sprintf '%7.1f ms, total %d, ?%s', 1000 * $took, $answer->{json}{total}, $query;
	return ($answer->{json}, $plan);
}

for my $query (@ordered) {
	my ($answer) = search_ok("limit=50&$query", 51, 'nothing is sorted');
	my $cursor = $answer && $answer->{next_cursor} or next;
	my (undef, $plan) = search_ok("limit=50&$query&cursor=$cursor", 51, 'nor on the page behind') or next;
	like(json_text($plan), qr/"Index Cond":"[^"]*ROW\(/, 'where the index goes on at the cursor');
}
search_ok("limit=50&$_", $MOST_SORTED, 'few are sorted') for @few;

my $crowd = 'limit=50&x402=false&has_registration_file=true';
my ($first, $counted) = search_ok($crowd, 51, 'nothing is sorted');
my ($second, $remembered) = search_ok("$crowd&order=asc", 51, 'nor the other way round');
is($first->{total_is_estimate}, JSON::PP::true, 'of a crowd');
like(json_text($counted), qr/CTE matched/, 'which is counted');
unlike(json_text($remembered), qr/CTE matched/, 'and then remembered');
is($second->{total}, $first->{total}, 'as it was');

# What the test stands on: that it would see a bad plan.
my ($plan) = map { from_json(join '', map { "$_->[0]\n" } @$_) } [$areg->psql('SET enable_indexscan = off;'
	. ' SET enable_bitmapscan = off; SET enable_indexonlyscan = off; EXPLAIN (ANALYZE, FORMAT JSON)'
	. ' SELECT FROM erc8004_agents ORDER BY created_at')];
is(scalar(my @faults = faults($plan->[0], 51)), 2, 'a scan and a sort would be seen');

done_testing;
