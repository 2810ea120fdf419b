# SPDX-License-Identifier: Apache-2.0
# Changing an agent: its registration file, its metadata, taking it out of the registry.
use strict;
use warnings;
use utf8;

use File::Basename qw(dirname);
use Test::More;
use Time::HiRes qw(sleep time);

use lib dirname(__FILE__) . '/../lib';
use Areg::Test qw(canonical from_json in_parallel json_text problem_ok sample_registry);

binmode $_, ':utf8' for Test::More->builder->output, Test::More->builder->failure_output;

my $REGISTER = '/api/v1/agents/register';
my $NO_UUID = '00000000-0000-4000-8000-000000000000';
my $REGISTRY = lc sample_registry('base');

my $areg = Areg::Test->start(workers => 4);
my $owner = $areg->make_user;
my $other = $areg->make_user;
my $agents = 0;

sub file { return { name => 'Agent', description => 'It answers.', @_ } }

# Registers an agent of a name of its own and returns it.
sub new_agent
{
	my (%member) = @_;
	my $answer = $areg->post($REGISTER, { owner_address => $owner->{wallet}, chain => 'base',
		registration_file => file(name => 'Agent ' . $agents++), %member },
		{ key => $owner->{key} });
	die $answer->{body} if $answer->{status} != 201;
	return $answer->{json};
}

sub edit
{
	my ($id, $body, $who) = @_;
	return $areg->api(PATCH => "/api/v1/agents/$id", $body, { key => ($who || $owner)->{key} });
}

sub edited
{
	my ($id, $body, $name) = @_;
	my $answer = edit($id, $body);
	is($answer->{status}, 200, $name) or diag($answer->{body});
	return $answer->{json};
}

sub shown { return $areg->get("/api/v1/agents/$_[0]")->{json} }

# All that an edit writes to.
sub stored
{
	return $areg->psql_value(q{
		SELECT md5((SELECT string_agg(a::text, ' ' ORDER BY a.agent_uuid) FROM erc8004_agents a)
			|| coalesce((SELECT string_agg(m::text, ' ' ORDER BY m.agent_uuid, m.key)
				FROM erc8004_agent_metadata m), ''))
			|| (SELECT count(*) FROM audit_log) || ' entries, '
			|| (SELECT count(*) FROM erc8004_events) || ' events'});
}

# The audit entry written last: [action, actor's id, before, after].
sub audited
{
	my ($uuid) = @_;
	my ($row) = $areg->psql("SELECT action, actor_user, before, after FROM audit_log"
		. " WHERE subject_type = 'agent' AND subject_id = '$uuid' ORDER BY id DESC LIMIT 1");
	return [@$row[0, 1], map { from_json($_) } @$row[2, 3]];
}

subtest 'a new registration file takes the place of the old one' => sub {
	my $before = new_agent(metadata => { kept => 'as it was' });
	my $uuid = $before->{agent_uuid};
	my $text = '{"name":"Nachfolger 数","description":"Er antwortet auch.","image":"ipfs://bafy",'
		. '"services":[{"name":"MCP","endpoint":"https://example.com/mcp","skills":["sing"],'
		. '"domains":["music"]},{"name":"web","endpoint":"https://example.com/"}],'
		. '"x402Support":true,"active":false,"supportedTrust":["reputation"],'
		. '"big":123456789012345678901234567890,"x":{"b":1,"a":[]}}';
	utf8::encode(my $bytes = $text);
	my $answer = edit($uuid, qq({"registration_file":$bytes}));
	is($answer->{status}, 200, 'status') or diag($answer->{body});
	my $after = $answer->{json};
	is_deeply(shown($uuid), $after, 'the answer is the agent as GET gives it');
	is($answer->{headers}{'cache-control'}, 'no-store', 'and is not kept by others');
	is_deeply([map { $after->{$_} } qw(agent_id token_uri status created_at metadata owner_address)],
		[map { $before->{$_} } qw(agent_id token_uri status created_at metadata owner_address)],
		'what was not named stays');
	cmp_ok($after->{updated_at}, 'gt', $before->{updated_at}, 'updated_at moves');
	is(canonical($areg->get("/api/v1/agents/$uuid/registration")->{body}), canonical($bytes),
		'the file is served as it was given, every digit of it');
	is_deeply([$areg->psql("SELECT name, description, image, x402_support, file_active, services,"
		. " skills, domains, supported_trust FROM erc8004_agents WHERE agent_uuid = '$uuid'")],
		[[map { utf8::encode(my $x = $_); $x } 'Nachfolger 数', 'Er antwortet auch.',
			'ipfs://bafy', 't', 'f', '{mcp,web}', '{sing}', '{music}', '{reputation}']],
		'what searches read out of it is read anew');
	is($areg->get("/api/v1/agents/$uuid/stats")->{json}{name}, 'Nachfolger 数', 'so is the name');

	edited($uuid, { registration_file => file(name => 'Plain') }, 'a plainer file after that');
	is_deeply([$areg->psql("SELECT image, x402_support, file_active, services, skills, domains,"
		. " supported_trust FROM erc8004_agents WHERE agent_uuid = '$uuid'")],
		[[undef, undef, undef, '{}', '{}', '{}', '{}']], 'leaves nothing of the one before');
};

subtest 'metadata is set, replaced and removed key by key' => sub {
	my $uuid = new_agent(metadata => { a => '1', b => '2', c => '3' })->{agent_uuid};
	is_deeply(edited($uuid, { metadata => { b => 'zwei ü', c => undef, d => '', gone => undef } },
		'some keys')->{metadata}, { a => '1', b => 'zwei ü', d => '' }, 'the others stay');
	is_deeply(shown($uuid)->{metadata}, { a => '1', b => 'zwei ü', d => '' }, 'and so it is stored');
	is_deeply(audited($uuid), ['agent.update', $owner->{id},
		{ metadata => { b => '2', c => '3', d => undef } },
		{ metadata => { b => 'zwei ü', c => undef, d => '' } }],
		'the log says what changed, from what to what, and nothing else');
	edited($uuid, { metadata => { a => undef, b => undef, d => undef } }, 'all keys');
	is_deeply(shown($uuid)->{metadata}, {}, 'none is left');
	my $long = 'x' x 300;
	edited($uuid, { metadata => { long => $long } }, 'a long value');
	like(audited($uuid)->[3]{metadata}{long}, qr/^sha256:[0-9a-f]{64}$/,
		'stands in the log as its digest');
	is(shown($uuid)->{metadata}{long}, $long, 'and is stored whole');
};

subtest 'metadata has at most 64 KiB of values, whatever steps it came in' => sub {
	my $uuid = new_agent->{agent_uuid};
	my $half = 'x' x (32 * 1024);
	edited($uuid, { metadata => { a => $half } }, 'half of it');
	edited($uuid, { metadata => { b => $half } }, 'just as much as may be');
	my $before = stored();
	problem_ok(edit($uuid, { metadata => { c => 'x' } }), 400, 'validation_failed', '/metadata');
	problem_ok(edit($uuid, { metadata => { c => 'x', a => $half . '' } }), 400,
		'validation_failed', '/metadata');
	is(stored(), $before, 'one byte more is refused, and nothing of it stored');
	edited($uuid, { registration_file => file(name => 'Large') }, 'the file may still change');
	edited($uuid, { metadata => { a => undef, c => 'x' } }, 'one that makes room for itself');
	is(join(' ', sort keys %{ shown($uuid)->{metadata} }), 'b c', 'is taken');
};

subtest 'everything at once, in one entry of the log' => sub {
	my $agent = new_agent(metadata => { a => '1' });
	my $uuid = $agent->{agent_uuid};
	my $after = edited($uuid, { registration_file => file(name => 'All', image => 'ipfs://bafy'),
		metadata => { a => '2' }, status => 'revoked' }, 'file, metadata and status');
	is_deeply([@$after{qw(status metadata)}, $after->{registration_file}{name}],
		['revoked', { a => '2' }, 'All'], 'are changed together');
	my $entry = audited($uuid);
	like(delete $_->{registration_digest}, qr/^[0-9a-f]{64}$/, 'the log has the digest of the file')
		for @$entry[2, 3];
	is_deeply($entry, ['agent.revoke', $owner->{id},
		{ status => 'active', name => $agent->{registration_file}{name}, image => undef,
			metadata => { a => '1' } },
		{ status => 'revoked', name => 'All', image => 'ipfs://bafy', metadata => { a => '2' } }],
		'and what else changed, no more');
	is($areg->psql_value("SELECT count(*) FROM audit_log WHERE subject_id = '$uuid'"), 2,
		'in one entry, after that of the registration');
};

subtest 'an agent is revoked for good' => sub {
	my $agent = new_agent;
	my $uuid = $agent->{agent_uuid};
	is(edited($uuid, { status => 'revoked' }, 'its owner revokes it')->{status}, 'revoked', 'status');
	is_deeply(audited($uuid), ['agent.revoke', $owner->{id}, { status => 'active' },
		{ status => 'revoked' }], 'the log says so');
	is($areg->psql_value("SELECT type FROM erc8004_events WHERE agent_uuid = '$uuid'"
		. " ORDER BY place DESC, id DESC LIMIT 1"), 'agent.status_changed', 'so do the events');
	my $before = stored();
	problem_ok(edit($uuid, $_), 409, 'agent_not_active') for { status => 'revoked' },
		{ metadata => { a => 'x' } }, { registration_file => file(name => 'Back') };
	is(stored(), $before, 'and takes no more changes');
	problem_ok($areg->get("/api/v1/agents/$uuid/registration"), 404, 'agent_not_found');
	is(scalar(grep { $_->{agent_uuid} eq $uuid }
		@{ $areg->get("/api/v1/agents?owner_address=$owner->{wallet}&limit=100")->{json}{agents} }),
		0, 'searches do not find it');
	is($areg->post($REGISTER, { owner_address => $owner->{wallet}, chain => 'base',
		registration_file => $agent->{registration_file} }, { key => $owner->{key} })->{status}, 201,
		'the same file may be registered anew');

	$uuid = new_agent->{agent_uuid};
	is($areg->aregctl('agent', 'suspend', $uuid)->{exit}, 0, 'an operator suspends another');
	problem_ok(edit($uuid, $_), 403, 'agent_suspended') for { status => 'revoked' },
		{ metadata => { a => 'x' } }, { registration_file => file(name => 'Mended') };

	$areg->psql("INSERT INTO erc8004_agents (agent_uuid, chain, chain_id, registry_address,"
		. " owner_address, status, source) VALUES ('11111111-1111-4111-8111-111111111111', 'base',"
		. " 8453, '$REGISTRY', '$owner->{wallet}', 'pending', 'chain')");
	problem_ok(edit('11111111-1111-4111-8111-111111111111', { status => 'revoked' }), 409,
		'agent_not_active');
};

subtest 'only the owner may' => sub {
	my $uuid = new_agent->{agent_uuid};
	my $body = { metadata => { a => 'x' } };
	my $added = from_json($areg->aregctl('--json', 'user', 'add', '--name', 'no wallet')->{stdout});
	my $key = $areg->aregctl('key', 'create', '--quiet', '--user', $added->{id})->{stdout};
	chomp $key;
	my $before = stored();
	problem_ok(edit($uuid, $body, $other), 403, 'forbidden');
	problem_ok(edit($uuid, $body, { key => $key }), 403, 'forbidden');
	problem_ok($areg->api(PATCH => "/api/v1/agents/$uuid", $body), 401, 'unauthorized');
	problem_ok(edit($_, $body), 404, 'agent_not_found') for $NO_UUID, 'base:4711', 'nowhere:0', 'x';
	is(stored(), $before, 'nothing is changed');
};

subtest 'an agent is changed by every form of its id' => sub {
	my $agent = new_agent;
	my $n = 0;
	for my $id ($agent->{agent_uuid}, uc $agent->{agent_uuid}, "base:$agent->{agent_id}",
		"eip155:8453:$REGISTRY:$agent->{agent_id}") {
		$n++;
		edited($id, { metadata => { n => "$n" } }, $id);
		is(shown($agent->{agent_uuid})->{metadata}{n}, $n, 'and read at once by its agent_uuid');
	}
};

subtest 'bad input is named, every fault of it, and changes nothing' => sub {
	my $uuid = new_agent(metadata => { a => '1' })->{agent_uuid};
	my $before = stored();
	problem_ok(edit($uuid, {}), 400, 'validation_failed', '');
	problem_ok(edit($uuid, { metadata => undef, status => undef }), 400, 'validation_failed', '');
	problem_ok(edit($uuid, { status => $_ }), 400, 'validation_failed', '/status')
		for 'active', 'suspended', '', 'Revoked', 1;
	problem_ok(edit($uuid, { owner_address => $other->{wallet}, metadata => { a => '2' } }), 400,
		'validation_failed', '/owner_address');
	problem_ok(edit($uuid, { metadata => { a => '2', "bad\tkey" => 'x', agentWallet => undef, b => 1,
		c => {} } }), 400, 'validation_failed', "/metadata/bad\tkey", '/metadata/agentWallet',
		'/metadata/b', '/metadata/c');
	problem_ok(edit($uuid, { registration_file => {}, metadata => { "\x7f" => 'x' }, status => 'x' }),
		400, 'validation_failed', '/status', '/registration_file/name',
		'/registration_file/description', "/metadata/\x7f");
	problem_ok(edit($uuid, { registration_file => [] }), 400, 'invalid_registration_file',
		'/registration_file');
	problem_ok(edit($uuid, { registration_file => file(x => 'x' x 66000) }), 400,
		'invalid_registration_file', '/registration_file');
	is(edit($uuid, '[]')->{status}, 400, 'no object');
	is(edit($uuid, '{"status":')->{status}, 400, 'no JSON');
	problem_ok($areg->api(PATCH => "/api/v1/agents/$uuid?x=1", {}, { key => $owner->{key} }), 400,
		'validation_failed', 'x');
	is(stored(), $before, 'nothing is changed');
};

subtest 'an edit is stored whole or not at all' => sub {
	my $uuid = new_agent(metadata => { a => '1', b => '2' })->{agent_uuid};
	my $before = stored();
	$areg->psql("ALTER TABLE erc8004_agent_metadata ADD CONSTRAINT no_z CHECK (key <> 'z')");
	my $answer = edit($uuid, { registration_file => file(name => 'Half'), status => 'revoked',
		metadata => { a => undef, b => 'x', z => 'the last one' } });
	cmp_ok($answer->{status}, '>=', 500, 'when the database refuses the last metadata entry');
	unlike($answer->{body}, qr/no_z|constraint|erc8004_/, 'what it says stays inside');
	is(stored(), $before, 'file, status, metadata and log are as they were');
	$areg->psql('ALTER TABLE erc8004_agent_metadata DROP CONSTRAINT no_z');
	$areg->psql(q{ALTER TABLE audit_log ADD CONSTRAINT no_edit
		CHECK (action <> 'agent.update') NOT VALID});
	$before = stored();
	cmp_ok(edit($uuid, { metadata => { a => 'x' } })->{status}, '>=', 500,
		'when the log cannot be written');
	is(stored(), $before, 'nothing is changed either');
	$areg->psql('ALTER TABLE audit_log DROP CONSTRAINT no_edit');
	edited($uuid, { metadata => { z => 'x' } }, 'later it is taken');
};

subtest 'an edit that says what is so already changes nothing' => sub {
	my $agent = new_agent(metadata => { a => '1' });
	my $uuid = $agent->{agent_uuid};
	my $before = stored();
	is_deeply(edited($uuid, $_, 'is taken'), $agent, 'and answers with the agent as it was')
		for { metadata => {} }, { metadata => { a => '1', none => undef } },
		{ registration_file => $agent->{registration_file} },
		qq({"registration_file": {"description":"It answers.", "name":)
			. json_text($agent->{registration_file}{name}) . '}}';
	is(stored(), $before, 'no time, no log entry, no event');
};

subtest 'the file of another active agent of the owner is refused' => sub {
	my $first = new_agent;
	my $second = new_agent;
	my $elsewhere = new_agent(chain => 'ethereum');
	my $same = { registration_file => $first->{registration_file} };
	my $before = stored();
	my $answer = edit($second->{agent_uuid}, $same);
	problem_ok($answer, 409, 'agent_already_exists');
	is($answer->{json}{agent_uuid}, $first->{agent_uuid}, 'and says which agent it is');
	problem_ok(edit($second->{agent_uuid}, { %$same, metadata => { a => 'x' } }), 409,
		'agent_already_exists');
	is(stored(), $before, 'nothing is changed');
	edited($elsewhere->{agent_uuid}, $same, 'on another chain it may');
	edited($first->{agent_uuid}, { status => 'revoked' }, 'once the other is revoked');
	edited($second->{agent_uuid}, $same, 'it may, too');

	for my $round (1 .. 5) {
		my @pair = map { new_agent()->{agent_uuid} } 1 .. 2;
		my $start = time + 0.2;
		my @answers = in_parallel(2, sub {
			sleep $start - time if $start > time;
			return edit($pair[$_[0]], { registration_file => file(name => "Pair $round") });
		});
		is(join(' ', sort map { $_->{status} } @answers), '200 409',
			"two take the same file at the same instant, round $round: one may");
	}
};

subtest 'edits at the same instant are all applied' => sub {
	my $uuid = new_agent->{agent_uuid};
	my @counts = in_parallel(8, sub {
		my ($i) = @_;
		return scalar grep { edit($uuid, { metadata => { "key-$i-$_" => "$i",
			shared => "$i-$_" } })->{status} == 200 } 1 .. 10;
	});
	is("@counts", '10 10 10 10 10 10 10 10', '80 edits of 8 clients are taken');
	my $metadata = shown($uuid)->{metadata};
	my $shared = delete $metadata->{shared};
	is_deeply($metadata, { map { my $i = $_; map { ("key-$i-$_" => "$i") } 1 .. 10 } 0 .. 7 },
		'none is lost');
	like($shared, qr/^\d-10$/, 'what they all change is what the last of one of them says');

	# Each entry begins where the one before ended: no edit worked on what another had changed.
	my @chain = $areg->psql("SELECT before -> 'metadata' ->> 'shared',"
		. " after -> 'metadata' ->> 'shared' FROM audit_log WHERE subject_id = '$uuid'"
		. " AND action = 'agent.update'");
	my %next = map { ($_->[0] // '') => $_->[1] } @chain;
	my ($at, $steps) = ('', 0);
	$steps++ while $steps < @chain && defined($at = $next{$at});
	is($steps, 80, 'and the log is one chain of 80 states');
	is($at, $shared, 'that ends at what is stored');

	# Together more than may be: whoever comes second is refused.
	my $room = new_agent->{agent_uuid};
	my $part = 'x' x (44 * 1024);
	my $start = time + 0.2;
	my @answers = in_parallel(2, sub {
		sleep $start - time if $start > time;
		return edit($room, { metadata => { "half-$_[0]" => $part } })->{status};
	});
	is(join(' ', sort @answers), '200 400', 'two that do not fit together: one is taken');
};

done_testing;
