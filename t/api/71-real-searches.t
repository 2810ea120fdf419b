# SPDX-License-Identifier: Apache-2.0
# Searches over the agents found on Ethereum mainnet give what the source file itself says.
use strict;
use warnings;
use utf8;

use File::Basename qw(dirname);
use HTTP::Tiny;
use JSON::PP ();
use Test::More;

use lib dirname(__FILE__) . '/../lib';
use Areg::Test qw(mainnet_agents);

binmode $_, ':utf8' for Test::More->builder->output, Test::More->builder->failure_output;

my $AGENTS = mainnet_agents()
	or plan skip_all => 'the real data is not there: ../shared/data/mainnet-agents.jsonl.gz';


my $areg = Areg::Test->start(workers => 2);
is($areg->aregctl('import', "$AGENTS")->{exit}, 0, 'the agents are imported');

# The source: every line, with what a reader of the file would take from it.
open my $lines, '<', $AGENTS or die "$AGENTS: $!\n";
my $json = JSON::PP->new->utf8->allow_bignum;
my @agents;
while (defined(my $line = <$lines>)) {
	my $agent = $json->decode($line);
	my $file = ref $agent->{registration_file} eq 'HASH' ? $agent->{registration_file} : undef;
	my %services = map { $_ => 1 } services($file);
	push @agents, { id => "$agent->{agent_id}", owner => lc $agent->{owner_address}, file => $file,
		has_file => defined $agent->{registration_file}, services => \%services,
		name => $file && !ref $file->{name} ? $file->{name} : undef,
		x402 => is_true($file, 'x402Support', 'x402support') };
}
is(scalar @agents, 18412, 'and read');

sub is_true
{
	my ($file, @spellings) = @_;
	my ($found) = grep { $file && exists $file->{$_} } @spellings;
	return $found && JSON::PP::is_bool($file->{$found}) && $file->{$found} ? 1 : 0;
}

# The names of a file's services, as API.md and the standard have them, and as they are in the wild.
sub services
{
	my ($file) = @_;
	my $list = $file && (exists $file->{services} ? $file->{services} : $file->{endpoints});

	return map { lc } keys %$list if ref $list eq 'HASH';
	return if ref $list ne 'ARRAY';
	return map { lc } grep { defined && !ref && $_ ne '' } map {
		ref eq 'HASH' ? exists $_->{name} ? $_->{name} : $_->{type}
			: ref || !defined || /:/ ? undef : $_
	} @$list;
}

# The ids that a search gives, all pages of it, and its total.
sub found
{
	my ($query) = @_;
	my $http = HTTP::Tiny->new(timeout => 40);
	my ($cursor, $total, @ids) = ('');

	while (defined $cursor) {
		my $page = $http->get($areg->url . "/api/v1/agents?limit=100&$query$cursor");
		die "no page: $query: $page->{content}\n" if $page->{status} != 200;
		push @ids, $page->{content} =~ /\{"agent_uuid":"[^"]+","agent_id":(\d+)/g;
		($total) = $page->{content} =~ /"total":(\d+)/;
		$cursor = $page->{content} =~ /"next_cursor":"([^"]+)"/ ? "&cursor=$1" : undef;
	}
	return ($total, @ids);
}

# The search gives the agents of the source that the sub picks, and says how many; there are some.
sub search_ok
{
	my ($query, $picks) = @_;
	my @expected = sort { $a <=> $b } map { $_->{id} } grep { $picks->($_) } @agents;
	my ($total, @ids) = found($query);
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	is(join(' ', sort { $a <=> $b } @ids), "@expected", "?$query: " . @expected . ' agents');
	is($total, scalar @expected, 'and says so') if @expected <= 10000;
	cmp_ok(scalar @expected, '>', 0, 'which are some');
}

for my $service (qw(mcp MCP a2a web oasf)) {
	search_ok("service=$service", sub { $_[0]{services}{ lc $service } });
}
search_ok('service=mcp&service=A2A', sub { $_[0]{services}{mcp} && $_[0]{services}{a2a} });
search_ok('service=mcp&chain=ethereum', sub { $_[0]{services}{mcp} });
is((found('service=mcp&chain=base'))[0], 0, 'on another chain there is none');
search_ok('has_registration_file=true', sub { $_[0]{has_file} });
search_ok('has_registration_file=false', sub { !$_[0]{has_file} });
search_ok('x402=true&has_registration_file=true', sub { $_[0]{x402} && $_[0]{has_file} });
search_ok('x402=false&has_registration_file=true', sub { !$_[0]{x402} && $_[0]{has_file} });
search_ok('x402=true&service=web&sort=name', sub { $_[0]{x402} && $_[0]{services}{web} });
for my $flag ('true', 'false') {
	search_ok("active=$flag", sub { my $file = $_[0]{file};
		$file && JSON::PP::is_bool($file->{active}) && ($file->{active} ? 'true' : 'false') eq $flag });
}
search_ok('supported_trust=reputation', sub { my $file = $_[0]{file} or return 0;
	my $list = exists $file->{supportedTrust} ? $file->{supportedTrust} : $file->{supportedTrusts};
	ref $list eq 'ARRAY' && grep { defined && $_ eq 'reputation' } @$list });

my %owned;
$owned{ $_->{owner} }++ for @agents;
for my $owner ((sort { $owned{$b} <=> $owned{$a} || $a cmp $b } keys %owned)[0, 40]) {
	search_ok("owner_address=$_", sub { $_[0]{owner} eq $owner }) for $owner, '0x' . uc substr $owner, 2;
}

# Imported now: nothing before, everything after; and the time of one of them parts them.
search_ok('registered_after=2026-01-01T00:00:00Z&has_registration_file=true', sub { $_[0]{has_file} });
is((found('registered_before=2026-01-01T00:00:00Z'))[0], 0, 'none was imported before this year');
my $time = $areg->psql_value('SELECT rfc3339(created_at) FROM erc8004_agents ORDER BY created_at LIMIT 1');
my ($before) = found("service=mcp&registered_before=$time");
my ($after) = found("service=mcp&registered_after=$time");
my $then = $areg->psql_value("SELECT count(*) FROM erc8004_agents WHERE created_at = '$time'"
	. " AND 'mcp' = ANY (services)");
is($before + $after + $then, scalar(grep { $_->{services}{mcp} } @agents),
	'before, at and after a time are all');

# A letter of a long word is wrong: the agents with that word in their name are among what is found.
my %word;
for my $agent (grep { defined $_->{name} } @agents) {
	$word{$_}{ $agent->{id} } = 1 for lc($agent->{name}) =~ /\b([a-z]{8,14})\b/g;
}
my @rare = grep { keys %{ $word{$_} } <= 5 } sort keys %word;
for my $word (@rare[map { $_ * int(@rare / 25) } 0 .. 24]) {
	(my $typo = $word) =~ s/^(.{4})(.)(.)/$1$3$2/;
	my ($total, @ids) = found("q=$typo");
	my %found = map { $_ => 1 } @ids;
	my @missed = grep { !$found{$_} } keys %{ $word{$word} };
	is("@missed", '', "$typo finds $word, among $total");
}

done_testing;
