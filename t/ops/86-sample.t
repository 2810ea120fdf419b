# SPDX-License-Identifier: Apache-2.0
# scripts/gen-sample --into: what it loads with triggers off is what `aregctl import` makes of the
# same records with them on, row by row, in every table that is derived from others.
use strict;
use warnings;

use File::Basename qw(dirname);
use Test::More;

use lib dirname(__FILE__) . '/../lib';
use Areg::Test qw(build_dir root);

my $areg = Areg::Test->start(without => [qw(memcached aregd nginx)]);
# Loading fires no triggers, which takes a superuser.
my $other = $areg->env('DATABASE_URL') =~ s{///areg\?}{///other?}r =~ s/user=areg\b/user=postgres/r;
# What is compared is read as the owner: the role of aregd may not draw numbers from these sequences.
my $imported_by_lines = $areg->env('DATABASE_URL') =~ s{user=areg\b}{user=areg_owner}r;
my @sample = (300, '--feedback', 7, '--payments', 400, '--seed', 3);

# The rows that a statement gives on a database, as texts.
sub rows_of
{
	my ($url, $sql) = @_;

	open my $psql, '-|', 'psql', '-qAtX', '-v', 'ON_ERROR_STOP=1', '-d', $url, '-c', $sql or die "psql: $!\n";
	chomp(my @rows = <$psql>);
	close $psql or die "psql failed\n";
	return \@rows;
}

# Runs scripts/gen-sample; returns exit code and what it said.
sub gen_sample
{
	local $ENV{AREG_BUILD} = build_dir();
	my $said = qx('${\ root()}/scripts/gen-sample' @_ 2>&1);

	return ($? >> 8, $said);
}

my $structure = q{
	SELECT indexrelid::regclass || ': ' || pg_get_indexdef(indexrelid) || ' '
		|| coalesce(obj_description(indexrelid), '')
		|| (SELECT string_agg(' ' || attstattarget, '' ORDER BY attnum) FROM pg_attribute
			WHERE attrelid = indexrelid)
	FROM pg_index JOIN pg_class c ON c.oid = indrelid
	WHERE c.relnamespace = 'public'::regnamespace AND NOT c.relname LIKE 'pg_%'
	UNION ALL SELECT tgrelid::regclass || ' ' || tgname || ' ' || tgenabled::text FROM pg_trigger
	WHERE NOT tgisinternal
	ORDER BY 1};

$areg->end_sessions; # what is copied is in nobody's use
rows_of($other =~ s{///other\?}{///postgres?}r, 'CREATE DATABASE other TEMPLATE areg');
my $before = rows_of($other, $structure);

my ($exit, $said) = gen_sample(@sample, '--into', "'$other'");
is($exit, 0, 'a sample is loaded into an empty registry') or diag($said);
like($said, qr/^statistics\nevents\nindexes\nvacuum\n/m, 'and what takes long is named when it begins');
my $lines = qx('${\ build_dir()}/scripts/gen_sample' @sample);
my $import = $areg->aregctl('import', '-', \$lines);
is($import->{exit}, 0, 'the same records are imported line by line') or diag($import->{stderr});

my $agent = "a.chain || ':' || a.agent_id";
my %derived = (
	'agents' => "SELECT to_jsonb(a) - '{agent_uuid,updated_at}'::text[] FROM erc8004_agents a ORDER BY $agent",
	'feedback' => "SELECT $agent, to_jsonb(t) - 'agent_uuid' FROM erc8004_reputation t
		JOIN erc8004_agents a USING (agent_uuid) ORDER BY t.id",
	'payments' => "SELECT to_jsonb(t) - 'updated_at' FROM x402_payments t ORDER BY id",
	'links of payments' => "SELECT $agent, to_jsonb(t) - 'agent_uuid' FROM erc8004_agent_payments t
		JOIN erc8004_agents a USING (agent_uuid) ORDER BY payment_id",
	'statistics' => "SELECT $agent, to_jsonb(t) - 'agent_uuid' FROM erc8004_agent_stats t
		JOIN erc8004_agents a USING (agent_uuid) ORDER BY 1",
	'clients' => "SELECT $agent, to_jsonb(t) - 'agent_uuid' FROM erc8004_agent_clients t
		JOIN erc8004_agents a USING (agent_uuid) ORDER BY 1, client_address",
	'tags' => "SELECT $agent, to_jsonb(t) - 'agent_uuid' FROM erc8004_agent_tags t
		JOIN erc8004_agents a USING (agent_uuid) ORDER BY 1, tag1",
	'counts of agents' => 'SELECT to_jsonb(t) FROM erc8004_agent_counts t ORDER BY chain, status',
	'counters of agent ids' => 'SELECT to_jsonb(t) FROM erc8004_agent_counters t ORDER BY 1',
	'totals' => 'SELECT to_jsonb(t) FROM v_erc8004_totals t',
	'events' => "SELECT type, $agent, subject FROM erc8004_events e
		LEFT JOIN erc8004_agents a USING (agent_uuid) ORDER BY 1, 2, 3",
	'next ids' => q{SELECT nextval(pg_get_serial_sequence('erc8004_reputation', 'id')),
		nextval(pg_get_serial_sequence('x402_payments', 'id'))},
);
for my $what (sort keys %derived) {
	my $loaded = rows_of($other, $derived{$what});
	my $imported = rows_of($imported_by_lines, $derived{$what});

	cmp_ok(scalar @$loaded, '>', 0, "there are $what");
	is_deeply($loaded, $imported, "$what are those that triggers make");
}
is_deeply(rows_of($other, $structure), $before, 'every index and trigger is as it was before');

($exit, $said) = gen_sample(5, '--into', "'$other'");
isnt($exit, 0, 'a registry that holds agents is left alone');
like($said, qr/the registry is not empty/, 'and that is said');
is(rows_of($other, 'SELECT count(*) FROM erc8004_agents')->[0], 300, 'nothing was added to it');

done_testing();
