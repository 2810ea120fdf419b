# SPDX-License-Identifier: Apache-2.0
# Walks by cursor over 20,000 agents, in every order and both ways, while more agents come in and
# are given feedback: each agent of before is seen once.
use strict;
use warnings;

use File::Basename qw(dirname);
use HTTP::Tiny;
use Test::More;

use lib dirname(__FILE__) . '/../lib';
use Areg::Test qw(in_parallel root);

my $AGENTS = 20000;
my $WALKERS = 3;
my $BATCHES = 400; # at most: a walk that meets what comes in must end

my $areg = Areg::Test->start(workers => $WALKERS);
{
	open my $in, '<', root() . '/t/lib/crowd.sql' or die "crowd.sql: $!\n";
	my $sql = do { local $/; <$in> };
	$sql =~ s/:n\b/$AGENTS/g;
	# Active, all of them, with a word for a search that more than 10,000 fit, and a service whose list
	# becomes too long to be looked through while walks are on.
	$areg->psql("$sql; UPDATE erc8004_agents SET status = 'active', agent_id = coalesce(agent_id,"
		. " 1000000 + areg_take_agent_id(chain, registry_address)), name = coalesce(name, 'Nameless')"
		. " || ' everyone', services = services || '{all}'; ANALYZE");
}

# Follows next_cursor to the end: the agents seen, by number of times.
sub walk
{
	my ($query) = @_;
	my $http = HTTP::Tiny->new(timeout => 40, keep_alive => 1);
	my ($cursor, %seen) = ('');

	while (defined $cursor) {
		my $page = $http->get($areg->url . "/api/v1/agents?limit=100&$query$cursor");
		die "no page: $query: $page->{content}\n" if $page->{status} != 200;
		$seen{$_}++ for $page->{content} =~ /\{"agent_uuid":"([^"]+)"/g;
		$cursor = $page->{content} =~ /"next_cursor":"([^"]+)"/ ? "&cursor=$1" : undef;
	}
	return \%seen;
}

# Agents before, between and behind those that are there, in every order; and feedback for those of
# the batches before, which moves them while the walks are on.
sub batch
{
	my ($number) = @_;
	my $client = sprintf '0x%040x', $number + 1;
	return "INSERT INTO erc8004_agents (chain, chain_id, registry_address, agent_id, owner_address,"
		. " status, source, name, services, created_at) SELECT 'base', 8453, '0x' || repeat('3', 40),"
		. " $number * 20 + n, '0x' || repeat('4', 40), 'active', 'import',"
		. " chr(65 + (random() * 60)::integer) || md5(random()::text) || ' oracle everyone', '{mcp,all}',"
		. " '2025-12-31'::timestamptz + random() * 8 * interval '1 day' FROM generate_series(1, 20) n;"
		. "INSERT INTO erc8004_reputation (agent_uuid, client_address, feedback_index, has_explicit_score,"
		. " value) SELECT agent_uuid, '$client', n, true, (random() * 100)::integer"
		. " FROM (SELECT agent_uuid FROM erc8004_agents WHERE owner_address = '0x' || repeat('4', 40)"
		. " ORDER BY random() LIMIT 20) a, generate_series(1, 3) n;";
}

my @walks = map { my $query = $_; map { "$query&order=$_" } qw(asc desc) } (map { "sort=$_" }
	qw(registered_at reputation_score total_feedback last_activity_at name)),
	'sort=reputation_score&automatic_feedback=exclude', 'q=everyone', 'q=oracle',
	'service=mcp', 'service=all';
my $uuids = "SELECT string_agg(agent_uuid::text, ' ') FROM erc8004_agents";
my $everyone = $areg->psql_value($uuids);
my $serving = $areg->psql_value("$uuids WHERE 'mcp' = ANY (services)");
my $matching = join ' ', sort keys %{ walk('q=oracle') };
my $found = split ' ', $matching;
ok($found > 100 && $found < 10000, "oracle finds $found agents, which are ranked");

my @results = in_parallel($WALKERS + 1, sub {
	my ($i) = @_;
	my $done = sub { return $areg->dir . "/walked.$_[0]" };
	my ($batches, %seen) = (0);

	if ($i == $WALKERS) {
		until ($batches == $BATCHES || !grep { !-e $done->($_) } 0 .. $WALKERS - 1) {
			$areg->psql(batch($batches++));
		}
		return $batches;
	}
	for (my $at = $i; $at < @walks; $at += $WALKERS) {
		$seen{ $walks[$at] } = walk($walks[$at]);
	}
	open my $mark, '>', $done->($i) or die "$!\n";
	return \%seen;
});
my $batches = pop @results;
cmp_ok($batches, '>=', 10, "20 agents more, and feedback for 20, came in $batches times meanwhile");
my %seen = map { %$_ } @results;
is($everyone =~ tr/ // + 1, $AGENTS, "$AGENTS agents were there");
my $new = 0;
for my $walk (@walks) {
	my $seen = $seen{$walk};
	my @old = split ' ', $walk =~ /oracle/ ? $matching : $walk =~ /mcp/ ? $serving : $everyone;
	my @missed = grep { !$seen->{$_} } @old;
	my @twice = grep { ($seen->{$_} // 0) > 1 } @old;

	is("missed @missed, twice @twice", 'missed , twice ', "?$walk: each of " . @old . ' once');
	$new += keys(%$seen) - @old;
}
cmp_ok($new, '>', 0, 'the walks met new agents too');

done_testing;
