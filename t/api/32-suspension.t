# SPDX-License-Identifier: Apache-2.0
# What an operator has suspended stays suspended, whichever way its owner tries.
use strict;
use warnings;

use File::Basename qw(dirname);
use File::Temp qw(tempfile);
use Test::More;
use Time::HiRes qw(sleep);

use lib dirname(__FILE__) . '/../lib';
use Areg::Test qw(address in_parallel json_text problem_ok wait_until);

my $areg = Areg::Test->start(workers => 3);
my ($owner, $other, $giver) = map { $areg->make_user(tier => 'enterprise') } 1 .. 3;
my %registry = map { ($_->{name} => $_->{identity_registry}) } @{ $areg->get('/api/v1/chains')->{json}{chains} };
my $next_import = 70_000;

sub file { return { name => $_[0], description => 'is there' } }

sub register
{
	my ($who, $name, $chain) = @_;
	return $areg->post('/api/v1/agents/register', { owner_address => $who->{wallet},
		chain => $chain // 'base', registration_file => file($name) }, { key => $who->{key} });
}

sub registered { my $answer = register(@_); is($answer->{status}, 201, "$_[1] is registered"); return $answer->{json} }

sub edit
{
	my ($who, $uuid, $body) = @_;
	return $areg->api(PATCH => "/api/v1/agents/$uuid", $body, { key => $who->{key} });
}

sub status_of { return $areg->get("/api/v1/agents/$_[0]")->{json}{status} }
sub ctl { return $areg->aregctl(@_) }

sub ctl_ok
{
	my (@arguments) = @_;
	my $run = ctl(@arguments);
	is($run->{exit}, 0, "aregctl @arguments[0, 1]") or diag $run->{stderr};
	return $run->{stdout};
}

# Imports an agent of this owner and with this file, on base unless said, and returns its agent_uuid.
sub imported
{
	my ($who, $name, $chain) = (@_, 'base');
	my ($out, $path) = tempfile(SUFFIX => '.jsonl', UNLINK => 1);
	my $number = $next_import++;

	print $out json_text({ chain => $chain, registry_address => $registry{$chain}, agent_id => $number,
		owner_address => $who->{wallet}, registration_file => file($name) }), "\n";
	close $out;
	ctl_ok('import', $path);
	return $areg->get("/api/v1/agents/$chain:$number")->{json}{agent_uuid};
}

subtest 'an agent' => sub {
	my $bad = registered($owner, 'Phisher')->{agent_uuid};
	my $honest = registered($owner, 'Honest')->{agent_uuid};

	ctl_ok('agent', 'suspend', $bad, '--reason', 'phishing');
	problem_ok(edit($owner, $bad, $_), 403, 'agent_suspended') for { status => 'revoked' },
		{ metadata => { a => 'b' } }, { registration_file => file('Phisher of another name') };
	is(status_of($bad), 'suspended', 'it cannot be edited or revoked');

	my $again = register($owner, 'Phisher');
	problem_ok($again, 403, 'agent_suspended');
	is($again->{json}{agent_uuid}, $bad, 'the twin is refused, and the answer names it');
	is($areg->post('/api/v1/agents/register', { owner_address => $owner->{wallet}, chain => 'base',
		registration_file => { description => 'is there', name => 'Phisher' } }, { key => $owner->{key} })->{status}, 403,
		'also with its members in another order');
	problem_ok(edit($owner, $honest, { registration_file => file('Phisher') }), 403, 'agent_suspended');
	is($areg->get("/api/v1/agents/$honest")->{json}{name} // $areg->get("/api/v1/agents/$honest")->{json}{registration_file}{name},
		'Honest', 'another agent does not take its file');
	is(register($other, 'Phisher')->{status}, 201, 'another owner is not concerned');

	my $twin = imported($owner, 'Phisher');
	is(status_of($twin), 'suspended', 'an imported twin is stored, and suspended');
	problem_ok(register($owner, 'Phisher', 'ethereum'), 403, 'agent_suspended');
	my $elsewhere = registered($owner, 'Elsewhere', 'ethereum')->{agent_uuid};
	problem_ok(edit($owner, $elsewhere, { registration_file => file('Phisher') }), 403, 'agent_suspended');
	is(status_of(imported($owner, 'Phisher', 'ethereum')), 'suspended', 'nor on another chain');
	is(register($owner, 'Honest', 'ethereum')->{status}, 201, 'the file of an active one can be on two chains');
	my %seen;
	$seen{$_}++ for in_parallel(6, sub { register($owner, 'Phisher')->{status} });
	is_deeply(\%seen, { 403 => 6 }, 'nor does it go through with six at once');

	ctl_ok('agent', 'reactivate', $bad);
	is(edit($owner, $bad, { status => 'revoked' })->{status}, 200, 'reactivated, it can be revoked');
	ctl_ok('agent', 'suspend', $bad);
	problem_ok(register($owner, 'Phisher'), 403, 'agent_suspended');
	ctl_ok('agent', 'reactivate', $bad);
	is(status_of($bad), 'revoked', 'a revoked one that was suspended is revoked again');
};

subtest 'an owner' => sub {
	my ($mine, $single, $sold) = map { registered($owner, $_)->{agent_uuid} } 'Mine', 'Single', 'Sold';
	my $given = registered($other, 'Given')->{agent_uuid};
	my $import = imported($owner, 'Imported');
	my $was = $areg->psql_value("SELECT count(*) FROM erc8004_agents WHERE status = 'active' AND agent_uuid <> '$given'"
		. " AND areg_registered_by(agent_uuid) = '$owner->{wallet}'");

	# As the chain's transfers will have it.
	$areg->psql("UPDATE erc8004_agents SET owner_address = '$owner->{wallet}' WHERE agent_uuid = '$given'");
	$areg->psql("UPDATE erc8004_agents SET owner_address = '$other->{wallet}' WHERE agent_uuid = '$sold'");
	ctl_ok('agent', 'suspend', $single);

	my $out = ctl_ok('agent', 'suspend-owner', $owner->{wallet}, '--reason', 'spam');
	is($out, sprintf("suspended %s and %d agents\n", $owner->{wallet}, $was - 1), 'says how many agents');
	is(status_of($_->[1]), 'suspended', "$_->[0] is suspended") for ['what they registered', $mine],
		['what they registered and gave away', $sold], ['what was imported as theirs', $import];
	is(status_of($given), 'active', 'what was given to them is not');
	problem_ok(register($owner, 'Something new'), 403, 'owner_suspended');
	problem_ok(register($owner, 'Mine', 'ethereum'), 403, 'owner_suspended');
	problem_ok(edit($owner, $given, { registration_file => file('Something new') }), 403, 'owner_suspended');
	problem_ok(edit($owner, $mine, { status => 'revoked' }), 403, 'agent_suspended');
	is($areg->post('/api/v1/agents/register', { owner_address => $owner->{wallet}, chain => 'base',
		registration_file => file('With a key') }, { key => $owner->{key}, 'Idempotency-Key' => 'one' })->{status}, 403,
		'nor with an Idempotency-Key');
	is(status_of(imported($owner, 'Imported later')), 'suspended', 'what is imported now is suspended');
	is(register($other, 'Of somebody else')->{status}, 201, 'others go on');

	like(ctl_ok('agent', 'suspended-owners'), qr/\Q$owner->{wallet}\E.*spam/, 'aregctl lists them');
	my $shown = Areg::Test::from_json(ctl_ok('--json', 'agent', 'show', $sold));
	is($shown->{suspended_as}, 'owner', 'and shows of an agent what it is suspended for');
	is($shown->{registered_by}, $owner->{wallet}, 'and who registered it');
	is_deeply([$areg->psql("SELECT subject_id, after->>'agents', after->>'reason' FROM audit_log WHERE action = 'owner.suspend'")],
		[[$owner->{wallet}, $was - 1, 'spam']], 'the audit log has the owner');
	is($areg->psql_value("SELECT count(*) FROM audit_log WHERE action = 'agent.suspend' AND after->>'owner' = '$owner->{wallet}'"),
		$was - 1, 'and each agent');
	is(ctl('agent', 'suspend-owner', $owner->{wallet})->{exit}, 3, 'once is enough');

	# One more that is to stay suspended for itself.
	ctl_ok('agent', 'suspend', $mine, '--reason', 'worse');
	ctl_ok('agent', 'reactivate-owner', $owner->{wallet});
	is(status_of($_->[1]), $_->[2], "lifted: $_->[0]") for ['what was active is active', $sold, 'active'],
		['what was suspended before stays so', $single, 'suspended'],
		['what was suspended for itself meanwhile stays so', $mine, 'suspended'];
	is(register($owner, 'Something new')->{status}, 201, 'and they register again');
	is(ctl('agent', 'reactivate-owner', $owner->{wallet})->{exit}, 3, 'lifting it twice is refused');
	is(ctl('agent', 'suspend-owner', 'base:1')->{exit}, 2, 'an address is asked for');
};

subtest 'an owner who registers without a pause' => sub {
	my @seen = in_parallel(4, sub {
		my ($client) = @_;
		my $stored = 0;

		if ($client == 0) {
			sleep 0.5;
			return ctl('agent', 'suspend-owner', $other->{wallet})->{exit};
		}
		for (1 .. 5000) {
			my $status = register($other, "Number $_ of $client")->{status};
			return $stored if $status == 403;
			return "status $status" if $status != 201;
			$stored++;
		}
	});
	is($seen[0], 0, 'is suspended');
	is((grep { !/^\d+$/ } @seen), 0, 'each client is refused in the end') or diag "@seen";
	is($areg->psql_value("SELECT count(*) FROM erc8004_agents WHERE status = 'active'"
		. " AND areg_registered_by(agent_uuid) = '$other->{wallet}'"), 0, 'and none of their agents is left active');
};

done_testing;
