#!/usr/bin/perl
# SPDX-License-Identifier: Apache-2.0
# openapi.json: it is what the web server gives out, it keeps to the standard and to itself, it cannot
# leave anything out, and the registry answers whatever it lets one ask as it says.
use strict;
use warnings;
use File::Temp;
use FindBin;
use Test::More;

use lib "$FindBin::Bin/../lib";
use Areg::Test qw(build_dir from_json json_text root skip_file_without);

skip_file_without 'needs what t/openapi installs: make -C t/openapi'
	if !-d root() . '/t/openapi/node_modules';

my $is_full = $ENV{AREG_TEST_FULL};
my $areg = Areg::Test->start(workers => 4);
my $file = build_dir() . '/docs/openapi.json';

sub text_of
{
	my ($name) = @_;
	open my $in, '<', $name or die "$name: $!\n";
	local $/;
	return <$in>;
}

my $text = text_of($file);

subtest 'the web server gives it out' => sub {
	for my $path (qw(/openapi.json /docs/openapi.json)) {
		my $answer = $areg->get($path);

		is($answer->{status}, 200, "$path: 200");
		is($answer->{headers}{'content-type'}, 'application/json', 'as JSON');
		is($answer->{headers}{'access-control-allow-origin'}, '*', 'to pages of any origin');
		ok($answer->{body} eq $text, 'as it was built');
	}
	is(from_json($text)->{servers}[0]{url}, '/', 'its addresses are of the registry that gave it out');
};

subtest 'it keeps to the standard, and its examples to their schemas' => sub {
	my $lint = Areg::Test::openapi_tool('lint.js');
	is($lint->{exit}, 0, 'the linter finds no error') or diag("$lint->{stdout}$lint->{stderr}");

	my $examples = Areg::Test::openapi_tool('examples.js');
	is($examples->{exit}, 0, 'every example fits') or diag("$examples->{stdout}$examples->{stderr}");
	cmp_ok($examples->{stdout} =~ /^(\d+)\n\z/m ? $1 : 0, '>', 30, 'and there are many');
};

# What the generator says of a program, and whether that is a description.
sub generated_from
{
	my ($program) = @_;
	my $in = File::Temp->new;
	my $root = root();

	print $in json_text($program);
	close $in;
	my $said = `'$root/scripts/gen-openapi' '$root/docs/openapi' <'$in' 2>&1`;
	return ($said, $? == 0);
}

subtest 'nothing can be left out, and nothing be made up' => sub {
	my $known = `'@{[ build_dir() ]}/aregd' -j`;
	my %gap = (
		'a route without a description' =>
			[sub { push @{ $_[0] }, { %{ $_[1] }, template => '/api/v1/new' } },
			'POST /api/v1/new: has no description'],
		'a field without one' =>
			[sub { push @{ $_[1]{fields} }, { name => 'new', kind => 'bool', code => 'x' } },
			'POST /api/v1/agents/register: field new has no description'],
		'a parameter without one' => [sub { push @{ $_[1]{params} }, 'new' },
			'POST /api/v1/agents/register: parameter new has no description'],
		'a description without a route' =>
			[sub { @{ $_[0] } = grep { $_->{template} ne '/api/v1/me' } @{ $_[0] } },
			'GET /api/v1/me: is described and not there'],
		'one without a field' => [sub { pop @{ $_[1]{fields} } },
			'POST /api/v1/agents/register: field metadata is described and not there'],
		'a problem that areg does not know' =>
			[sub { @{ $_[3] } = grep { $_->{code} ne 'quota_exceeded' } @{ $_[3] } },
			'POST /api/v1/agents/register: areg has no problem quota_exceeded with status 403'],
		'one without a parameter' =>
			[sub { $_->{params} = [] for grep { $_->{template} =~ /agents$/ } @{ $_[0] } },
			'GET /api/v1/agents: parameter q is described and not there'],
		'a column without one' =>
			[sub { push @{ $_[2]{Agent} }, { name => 'new', kind => 'text' } },
			'schema Agent: column new has no description'],
		'a description without a column' => [sub { pop @{ $_[2]{AgentStats} } },
			'schema AgentStats: trust_score is described and is no column'],
	);

	is((generated_from(from_json($known)))[0], $text, 'the same program gives the same, to the byte');
	for my $what (sort keys %gap) {
		my ($change, $told) = @{ $gap{$what} };
		my $program = from_json($known);
		my ($register) = grep { $_->{template} =~ /register$/ } @{ $program->{routes} };

		$change->($program->{routes}, $register, @$program{qw(columns problems)});
		my ($said, $is_made) = generated_from($program);
		ok(!$is_made, "$what stops the build");
		like($said, qr/\Q$told\E/, 'and is named');
	}
};

# A caller of each kind: without a key, with one, with one that has every scope.
my @users = map { $areg->make_user(scopes => $_) } [], [], ['payments:write'];
my @callers = ({ name => 'anonymous' },
	map { { name => 'a user', key => $_->{key}, wallet => $_->{wallet} } } @users);
my $seed = $ENV{AREG_TEST_SEED} || 1 + int rand 2**31;

subtest 'whatever it lets one ask is answered as it says, and never with 5xx' => sub {
	diag("AREG_TEST_SEED=$seed");
	my $run = Areg::Test::openapi_tool('fuzz.js', json_text({
		url => $areg->url, seed => $seed, callers => \@callers,
		chains => [qw(base base-sepolia baseSepolia nowhere)],
		requests => $is_full ? 100_000 : 4000, seconds => $is_full ? 600 : 40,
	}));
	my ($last) = $run->{stdout} =~ /^(\{.*\})\n\z/m;
	my $report = from_json($last // 'null') || {};

	is($run->{exit}, 0, 'no fault') or diag(substr("$run->{stdout}$run->{stderr}", 0, 8000));
	cmp_ok($report->{requests} // 0, '>', 500, ($report->{requests} // 0) . ' requests');
	note(json_text($report->{statuses}));
	my $asked = $report->{operations} || {};
	my @never = grep { !$asked->{$_}{served} } sort keys %$asked;
	note("never served: @never");
	my $paths = from_json($text)->{paths};
	my @operations = map { my $path = $_; map { uc($_) . " $path" } keys %{ $paths->{$path} } } keys %$paths;
	is_deeply([sort keys %$asked], [sort @operations], 'every operation was asked');
};

done_testing;
