# Registration files as they are found on chains: each of these did not do what it should once.
use strict;
use warnings;
use utf8;

use File::Basename qw(dirname);
use Test::More;

use lib dirname(__FILE__) . '/../lib';
use Areg::Test qw(address from_json json_text problem_ok);

binmode $_, ':utf8' for Test::More->builder->output, Test::More->builder->failure_output;

my $REGISTRY = '0x8004A169FB4a3325136EB29fA0ceB6D2e539a432';
my $areg = Areg::Test->start(workers => 2);
my $user = $areg->make_user;
my $next_id = 1000;

# Imports agents with files of exactly these texts; returns their numbers. More members of the lines
# are given as text, too.
sub imported_all
{
	my ($files, %more) = @_;
	my ($lines, @ids) = ('');

	for my $file (@$files) {
		my %line = (agent_id => $next_id, chain => '"base"', registry_address => qq("$REGISTRY"),
			owner_address => '"' . address('owner') . '"', registration_file => $file, %more);

		push @ids, $next_id++;
		$lines .= '{' . join(',', map { qq("$_":$line{$_}) } sort keys %line) . "}\n";
	}
	my $run = $areg->aregctl('import', '-', \$lines);
	is($run->{exit}, 0, 'all lines are imported') or diag($run->{stderr});
	return @ids;
}

sub imported { return (imported_all([shift], @_))[0] }

sub encoded
{
	my ($text) = @_;
	utf8::encode($text);
	return $text =~ s/([^A-Za-z0-9_.-])/sprintf '%%%02X', ord $1/ger;
}

# The agents that a search finds, by number.
sub found
{
	my ($query) = @_;
	my $answer = $areg->get("/api/v1/agents?$query");

	is($answer->{status}, 200, "?$query is answered") or diag($answer->{body});
	return { map { $_->{agent_id} => $_ } @{ $answer->{json}{agents} || [] } };
}

subtest 'escapes of NUL and of half a surrogate pair may stand anywhere in a file' => sub {
	my @all;
	my @odd = ('\u0000', 'a\u0000b', '\ud800', 'x\udc00y', '\ud83d', '\udc00\ud800', '\ud800\u0041');

	for my $odd (@odd) {
		push @all, (qq({"name":"$odd Nul","description":"d"}), qq({"name":"n","description":"$odd"}),
			qq({"name":"n","description":"d","$odd":1}), qq({"name":"n","description":"d","x":{"$odd":["$odd"]}}),
			qq({"name":"n","description":"d","image":"$odd"}),
			qq({"name":"n","description":"d","services":[{"name":"$odd","endpoint":"$odd","$odd":{"$odd":"$odd"},)
				. qq("skills":["$odd"],"domains":["$odd"]},"$odd"]}),
			qq({"name":"n","description":"d","services":{"$odd":"$odd"}}),
			qq({"name":"n","description":"d","endpoints":[{"name":"mcp","endpoint":"https://a.example/"}],"services":null,"$odd":"$odd"}),
			qq({"name":"n","description":"d","supportedTrust":["$odd"],"registrations":[{"agentId":"$odd","agentRegistry":"$odd"}]}));
	}
	my @ids = imported_all(\@all);
	for my $file (@all) {
		my $id = shift @ids;
		my $agent = $areg->get("/api/v1/agents/base:$id");

		is($areg->get("/api/v1/agents/base:$id/registration")->{body}, $file, 'the file is served byte for byte');
		is($agent->{status}, 200, 'the agent is shown');
		isnt(index($agent->{body}, $file), -1, 'with its file');
	}
	for my $query ('', 'owner_address=' . address('owner'), 'q=nul', 'sort=name', 'service=mcp', 'chain=base') {
		my ($cursor, $seen) = ('', 0);

		for (;;) {
			my $answer = $areg->get("/api/v1/agents?limit=7&$query$cursor");

			last if !is($answer->{status}, 200, "a page of ?$query");
			unlike($answer->{body}, qr/\\u(?:0000|d[89a-f])/i, 'holds nothing that readers refuse');
			$seen += @{ $answer->{json}{agents} };
			last if !$answer->{json}{next_cursor};
			$cursor = '&cursor=' . encoded($answer->{json}{next_cursor});
		}
		ok($seen > 0, 'has agents');
	}
	is($areg->aregctl('--json', qw(agent show base:1000))->{exit}, 0, 'aregctl shows such an agent');
};

subtest 'lists show the services as they stand in the file, and the agent shows all' => sub {
	my $services = '[{"endpoint":"https://a.example/\u00e4","name":"MCP","version":1.50,"x":[true,null,{}]},"web",7]';
	my $id = imported(qq({"name":"Shown","description":"d","services": $services }));
	my @many = map { { name => "s$_", endpoint => "https://a.example/$_" } } 1 .. 25;

	is_deeply(found('q=shown')->{$id}{services}, from_json($services), 'a list');
	like($areg->get('/api/v1/agents?q=shown')->{body}, qr/"version":1\.50,/, 'a number keeps its text');
	for my $none ('', ',"services":null', ',"services":{"mcp":"https://a.example/"}', ',"services":"mcp"', ',"services":[]') {
		$id = imported(qq({"name":"Without","description":"d"$none}));
		is_deeply(found('q=without')->{$id}{services}, [], "nothing of: $none");
	}

	$id = imported(json_text({ name => 'Many', description => 'd', services => \@many }));
	is_deeply(found('q=many')->{$id}{services}, [@many[0 .. 19]], 'twenty of many');
	is_deeply($areg->get("/api/v1/agents/base:$id")->{json}{registration_file}{services}, \@many, 'the agent shows all');

	$many[$_]{skills} = ['é' x 3000] for 1, 3, 4;
	$id = imported(json_text({ name => 'Large', description => 'd', services => [@many[0 .. 5]] }));
	is_deeply(found('q=large')->{$id}{services}, [@many[0 .. 2, 5]], 'whole entries, up to 8 KiB');
	is_deeply($areg->get("/api/v1/agents/base:$id")->{json}{registration_file}{services}, [@many[0 .. 5]], 'the agent shows all');
};

done_testing;
