# SPDX-License-Identifier: Apache-2.0
# The agents found on Ethereum mainnet: imported, counted and given back exactly as they are.
use strict;
use warnings;

use File::Basename qw(dirname);
use HTTP::Tiny;
use Test::More;

use lib dirname(__FILE__) . '/../lib';
use Areg::Test qw(canonical from_json in_parallel mainnet_agents);

my $AGENTS = mainnet_agents()
	or plan skip_all => 'the real data is not there: ../shared/data/mainnet-agents.jsonl.gz';
my $READERS = 4;


my $areg = Areg::Test->start(workers => 4);

sub import_ok
{
	my ($name, %expected) = @_;
	my $run = $areg->aregctl('--json', 'import', "$AGENTS");
	my $report = from_json($run->{stdout});

	is($run->{exit}, 0, "$name: it succeeds") or diag($run->{stderr});
	is_deeply($report->{agents}, { stored => 0, already_there => 0, differs => 0, refused => 0,
		%expected }, "$name: the report");
	is($report->{refused}, 0, "$name: no line is refused");
	is($report->{lines}, 18412, "$name: every line is read");
	return $report->{seconds};
}

note "the import took ", import_ok('import', stored => 18412), " s";
import_ok('the same import again', already_there => 18412);

is($areg->get('/api/v1/agents?chain=ethereum&limit=1')->{json}{total}, 18412,
	'the search counts them all');
my $first = $areg->get('/api/v1/agents/ethereum:0');
is($first->{status}, 200, 'ethereum:0 answers');
is($first->{json}{agent_id}, 0, 'and is agent 0');

# What the file says of an agent with a registration file: its id, its owner, the file's text.
open my $lines, '<', $AGENTS or die "$AGENTS: $!\n";
my (@agents, $without);
while (defined(my $line = <$lines>)) {
	my ($id) = $line =~ /"agent_id":\s*(\d+)/;
	my ($owner) = $line =~ /"owner_address":\s*"(0x[0-9a-fA-F]{40})"/;
	# The file is the last member of each line.
	my ($file) = $line =~ /"registration_file":\s*(.+)\}\s*\z/s;
	die "line $.: of another shape\n" if !defined $id || !defined $owner || !defined $file;
	if ($file eq 'null') {
		$without //= $id;
	} else {
		push @agents, [$id, lc $owner, $file];
	}
}
is(scalar @agents, 7478, 'so many of them have a registration file');
is($areg->get("/api/v1/agents/ethereum:$without/registration")->{status}, 404,
	'of one that has none, /registration is not found');

# Numbers are compared digit for digit: a float in between would change some.
sub same { return $_[0] eq $_[1] || canonical($_[0]) eq canonical($_[1]) }

ok(same('{"b":[1.50],"a":"\u00e9"}', qq({"a" : "\xc3\xa9", "b":[1.50]})),
	'order, space and escapes make no difference');
ok(!same('[1.50]', '[1.5]'), 'digits do');

my @read = in_parallel($READERS, sub {
	my ($reader) = @_;
	my $http = HTTP::Tiny->new(timeout => 40, keep_alive => 1);
	my (%wrong, $read);

	for (my $i = $reader; $i < @agents; $i += $READERS) {
		my ($id, $owner, $file) = @{ $agents[$i] };
		my $url = $areg->url . "/api/v1/agents/ethereum:$id";
		my $agent = $http->get($url);
		my $registration = $http->get("$url/registration");
		my ($given) = $agent->{content} =~ /"registration_file":(.*),"conformance":/s;

		$read++;
		push @{ $wrong{agent} }, $id
			if $agent->{status} != 200 || !defined $given || !same($given, $file);
		push @{ $wrong{owner} }, $id if $agent->{content} !~ /"owner_address":"$owner"/;
		push @{ $wrong{registration} }, $id
			if $registration->{status} != 200 || !same($registration->{content}, $file);
	}
	return { read => $read, wrong => \%wrong };
});

my $read = 0;
$read += $_->{read} for @read;
is($read, 7478, 'every one of them is read');
for my $case (['agent', "the agent's registration_file equals the source"],
	['registration', '/registration equals the source'], ['owner', 'the owner is that of the source']) {
	my ($what, $name) = @$case;
	is(join(' ', map { @{ $_->{wrong}{$what} || [] } } @read), '', $name);
}

done_testing;
