# SPDX-License-Identifier: Apache-2.0
# What happens to feedback after it was given: its client revokes it, anybody responds to it.
use strict;
use warnings;
use utf8;

use Digest::SHA qw(sha256_hex);
use Encode qw(encode_utf8);
use File::Basename qw(dirname);
use Test::More;
use Time::HiRes qw(sleep time);

use lib dirname(__FILE__) . '/../lib';
use Areg::Test qw(from_json hash in_parallel problem_ok wait_until);

binmode $_, ':utf8' for Test::More->builder->output, Test::More->builder->failure_output;

my $FEEDBACK = '/api/v1/agents/feedback';

my $areg = Areg::Test->start(workers => 4);
my $owner = $areg->make_user;
my ($client, $other) = map { $areg->make_user } 1 .. 2;
sub new_agent { return $areg->make_agent($owner)->{agent_uuid} }

# Gives feedback and returns its record.
sub given
{
	my ($uuid, $who, %member) = @_;
	my $answer = $areg->post($FEEDBACK, { agent_uuid => $uuid, client_address => $who->{wallet},
		%member }, { key => $who->{key} });
	die $answer->{body} if $answer->{status} != 201;
	return $answer->{json};
}

sub revoke
{
	my ($id, $who, %headers) = @_;
	return $areg->post("$FEEDBACK/$id/revoke", undef, { key => ($who || $client)->{key}, %headers });
}

sub respond
{
	my ($id, $body, $who, %headers) = @_;
	return $areg->post("$FEEDBACK/$id/responses", $body, { key => ($who || $owner)->{key},
		%headers });
}

sub responses
{
	my ($id, $query) = @_;
	return $areg->get("$FEEDBACK/$id/responses" . ($query // ''));
}

sub of { my ($uuid, $part) = @_; return $areg->get("/api/v1/agents/$uuid/$part")->{json} }

# All that revoking and responding write to.
sub stored
{
	return $areg->psql_value(q{
		SELECT md5(string_agg(f::text, ' ' ORDER BY f.id)) || ' '
			|| (SELECT count(*) FROM erc8004_feedback_responses) || ' responses, '
			|| (SELECT count(*) FROM audit_log) || ' entries, '
			|| (SELECT count(*) FROM erc8004_events) || ' events' FROM erc8004_reputation f});
}

# A text as the audit log has it: its digest when it is long.
sub as_logged
{
	my ($text) = @_;
	return $text if length($text // '') <= 256;
	return 'sha256:' . sha256_hex(encode_utf8($text));
}

# The newest audit entry about a feedback: [action, actor's id, before, after].
sub audited
{
	my ($id) = @_;
	my ($row) = $areg->psql("SELECT action, actor_user, before, after FROM audit_log"
		. " WHERE subject_type = 'feedback' AND subject_id = '$id' ORDER BY id DESC LIMIT 1");
	return [@$row[0, 1], map { defined $_ ? from_json($_) : undef } @$row[2, 3]];
}

sub no_wallet
{
	my $added = from_json($areg->aregctl('--json', 'user', 'add', '--name', 'no wallet')->{stdout});
	my $key = $areg->aregctl('key', 'create', '--quiet', '--user', $added->{id})->{stdout};
	chomp $key;
	return { key => $key };
}

# What is no id of a feedback.
my @NO_ID = ('abc', 0, '00', '01', '-1', '+1', '1.0', '1e3', '0x1', '9223372036854775807',
	'9223372036854775808', '9' x 30, '%20', '1%20', '%C3%A4', '1;--', "1'", '4711');

subtest 'its client revokes feedback' => sub {
	my $uuid = new_agent();
	my $record = given($uuid, $client, score => 40, tag1 => 'starred', tag2 => 'ü',
		endpoint => 'https://example.com/mcp', file_uri => 'ipfs://bafy/1.json',
		file_hash => hash('file'));
	given($uuid, $client, score => 90);
	given($uuid, $other, value => 7, tag1 => 'responseTime');
	is_deeply([map { of($uuid, 'stats')->{$_} } qw(total_feedback negative_feedback unique_clients)],
		[3, 1, 2], 'there is some');

	my $answer = revoke($record->{id});
	is($answer->{status}, 200, 'status') or diag($answer->{body});
	my $revoked = $answer->{json};
	like($revoked->{revoked_at}, qr/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/, 'revoked_at');
	is_deeply($revoked, { %$record, is_revoked => JSON::PP::true,
		revoked_at => $revoked->{revoked_at} }, 'the record is as it was otherwise');
	is_deeply(audited($record->{id}), ['feedback.revoke', $client->{id}, { is_revoked => JSON::PP::false },
		{ is_revoked => JSON::PP::true, revoked_at => $revoked->{revoked_at} }], 'the log says so');
	is_deeply([$areg->psql("SELECT type, agent_uuid FROM erc8004_events WHERE subject ="
		. " '$record->{id}' ORDER BY place DESC, id DESC LIMIT 1")], [['feedback.revoked', $uuid]],
		'so do the events');
	is_deeply(of($uuid, 'feedback?include_revoked=true&tag1=starred')->{feedback}, [$revoked],
		'the list shows it where it is asked for');
	is(of($uuid, 'feedback')->{total}, 2, 'and not otherwise');
	my $stats = of($uuid, 'stats');
	is_deeply([@$stats{qw(total_feedback reputation_score positive_feedback negative_feedback
		revoked_feedback unique_clients)}], [2, 90, 1, 0, 1, 2], 'the statistics count it no more');
	my $reputation = of($uuid, 'reputation');
	is_deeply([map { $_->{tag1} } @{ $reputation->{by_tag} }], ['', 'responseTime'], 'nor its tag');
	is_deeply(of($uuid, "summary?clients=$client->{wallet}"),
		{ count => 1, summary_value => 90, summary_value_decimals => 0 }, 'nor the summary');

	my $before = stored();
	problem_ok(revoke($record->{id}), 409, 'feedback_already_revoked');
	is(stored(), $before, 'once is enough');
	is(given($uuid, $client, score => 1)->{feedback_index}, 3, 'its index is not used again');
};

subtest 'nobody else may' => sub {
	my $id = given(new_agent(), $client, score => 1)->{id};
	my $stranger = no_wallet();
	my $before = stored();
	problem_ok(revoke($id, $other), 403, 'forbidden');
	problem_ok(revoke($id, $owner), 403, 'forbidden');
	problem_ok(revoke($id, $stranger), 403, 'forbidden');
	problem_ok($areg->post("$FEEDBACK/$id/revoke"), 401, 'unauthorized');
	problem_ok(revoke($_), 404, 'feedback_not_found') for @NO_ID;
	problem_ok($areg->post("$FEEDBACK/$id/revoke?x=1", undef, { key => $client->{key} }), 400,
		'validation_failed', 'x');
	is(stored(), $before, 'nothing is changed');
	is(revoke($id)->{status}, 200, 'its client may');
};

subtest 'feedback of an agent that is suspended or revoked can be revoked' => sub {
	my ($suspended, $revoked) = map { new_agent() } 1 .. 2;
	my @ids = map { given($_, $client, score => 5)->{id} } $suspended, $revoked;
	is($areg->aregctl('agent', 'suspend', $suspended)->{exit}, 0, 'one is suspended');
	is($areg->api(PATCH => "/api/v1/agents/$revoked", { status => 'revoked' },
		{ key => $owner->{key} })->{status}, 200, 'the other revoked');
	is(revoke($_)->{status}, 200, 'its feedback can be taken back') for @ids;
};

subtest 'two revocations at the same instant are one' => sub {
	my $uuid = new_agent();
	for my $round (1 .. 5) {
		my $id = given($uuid, $client, score => 10)->{id};
		my $start = time + 0.2;
		my @answers = in_parallel(4, sub {
			sleep $start - time if $start > time;
			return revoke($id)->{status};
		});
		is(join(' ', sort @answers), '200 409 409 409', "round $round");
		is($areg->psql_value("SELECT count(*) FROM audit_log WHERE action = 'feedback.revoke'"
			. " AND subject_id = '$id'"), 1, 'one entry in the log');
	}
	is_deeply([@{ of($uuid, 'stats') }{qw(total_feedback revoked_feedback unique_clients)}],
		[0, 5, 0], 'and each is counted once');
};

subtest 'a revocation or response that is sent again with its Idempotency-Key is done once' => sub {
	my $id = given(new_agent(), $client, score => 10)->{id};
	my @revoked = map { revoke($id, $client, 'Idempotency-Key' => 'revoke-1') } 1 .. 2;
	is("$_->{status}", 200, 'revoked') for @revoked;
	is($revoked[1]{body}, $revoked[0]{body}, 'with the same answer');
	is($revoked[1]{headers}{'idempotency-replayed'}, 'true', 'which says that it is the first one');
	problem_ok(revoke($id, $client, 'Idempotency-Key' => 'revoke-2'), 409, 'feedback_already_revoked');
	my $body = { response_uri => 'ipfs://bafy/1' };
	my @responded = map { respond($id, $body, $owner, 'Idempotency-Key' => 'respond-1') } 1 .. 2;
	is("$_->{status}", 201, 'responded') for @responded;
	is($responded[1]{json}{id}, $responded[0]{json}{id}, 'with the same response');
	is(responses($id)->{json}{total}, 1, 'of which there is one');
};

subtest 'anybody with a wallet responds' => sub {
	my $uuid = new_agent();
	my $id = given($uuid, $client, score => 10)->{id};
	is_deeply(responses($id)->{json}, { responses => [], total => 0, limit => 50, offset => 0 },
		'of none the list is empty');
	my @all;
	for my $case ([$owner, response_uri => 'https://example.com/sorry'],
		[$client, response_uri => 'ipfs://bafy/2', response_hash => hash('response')],
		[$other, response_uri => 'data:,' . 'x' x 8186], [$owner, response_uri => 'ar://x']) {
		my ($who, %body) = @$case;
		my $answer = respond($id, \%body, $who);
		is($answer->{status}, 201, 'status') or diag($answer->{body});
		my $response = $answer->{json};
		like($response->{created_at}, qr/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/, 'created_at');
		is_deeply($response, { id => $response->{id}, feedback_id => $id,
			responder_address => $who->{wallet}, response_hash => undef, %body,
			created_at => $response->{created_at} }, 'the response, every field');
		is_deeply(audited($id), ['feedback.respond', $who->{id}, undef, {
			response_id => $response->{id}, map { $_ => as_logged($response->{$_}) }
			qw(responder_address response_uri response_hash) }], 'the log has it');
		push @all, $response;
	}
	is_deeply(responses($id)->{json}, { responses => \@all, total => 4, limit => 50, offset => 0 },
		'the list has them, oldest first');
	is($areg->psql_value("SELECT count(*) FROM erc8004_events WHERE type = 'feedback.responded'"
		. " AND agent_uuid = '$uuid' AND subject = '$id'"), 4, 'and the events tell of each');
	is(revoke($id)->{status}, 200, 'the feedback is revoked');
	is(respond($id, { response_uri => 'ar://thanks' })->{status}, 201, 'and may still be answered');

	my $stranger = no_wallet();
	my $before = stored();
	problem_ok(respond($id, { response_uri => 'ar://x' }, $stranger), 403, 'forbidden');
	problem_ok($areg->post("$FEEDBACK/$id/responses", { response_uri => 'ar://x' }), 401,
		'unauthorized');
	problem_ok(respond($id, $_), 400, 'validation_failed', '/response_uri')
		for {}, { response_uri => undef }, { response_uri => '' }, { response_uri => 'no uri' },
		{ response_uri => 1 }, { response_uri => 'data:,' . 'x' x 8187 };
	problem_ok(respond($id, { response_uri => 'data:,' . 'x' x 16384 }), 413, 'payload_too_large');
	problem_ok(respond($id, { response_uri => 'x', response_hash => '0x12', responder_address => 1 }),
		400, 'validation_failed', '/response_uri', '/response_hash', '/responder_address');
	for my $no (@NO_ID) {
		problem_ok(respond($no, { response_uri => 'ar://x' }), 404, 'feedback_not_found');
		problem_ok(responses($no), 404, 'feedback_not_found');
	}
	is(stored(), $before, 'nothing of that is stored');
};

subtest 'a response to feedback that is just being deleted finds none' => sub {
	my $id = given(new_agent(), $client, score => 10)->{id};
	open my $deleting, '|-', 'psql', '-qAtX', '-o', '/dev/null', '-h', $areg->socket_path('pg'),
		'-U', 'areg_owner', '-d', 'areg' or die "psql: $!\n";
	$deleting->autoflush(1);
	print $deleting "BEGIN; DELETE FROM erc8004_reputation WHERE id = $id;\n";
	my $sessions = sub { return $areg->psql_value("SELECT count(*) FROM pg_stat_activity WHERE $_[0]") };
	ok(wait_until(10, sub { $sessions->("application_name = 'psql' AND state = 'idle in transaction'") }),
		'an operator deletes it');
	my ($answer) = in_parallel(2, sub {
		return respond($id, { response_uri => 'ar://late' }) if $_[0] == 0;
		wait_until(10, sub { $sessions->("application_name = 'areg' AND wait_event_type = 'Lock'") });
		print $deleting "COMMIT;\n";
		return;
	});
	problem_ok($answer, 404, 'feedback_not_found');
	close $deleting;
};

subtest 'the list of responses is read in parts' => sub {
	my $id = given(new_agent(), $client, score => 10)->{id};
	$areg->psql("INSERT INTO erc8004_feedback_responses (feedback_id, responder_address,"
		. " response_uri) SELECT $id, '$owner->{wallet}', 'ar://' || n FROM generate_series(1, 23) n");
	my $uris = sub { return join ' ', map { $_->{response_uri} =~ /(\d+)/ } @{ $_[0]{responses} } };
	my $part = responses($id, '?limit=5&offset=10')->{json};
	is($uris->($part), '11 12 13 14 15', 'by offset');
	is_deeply([@$part{qw(total limit offset)}], [23, 5, 10], 'which says what it is');
	ok(defined $part->{next_cursor}, 'and where it goes on');
	is(responses($id, '?limit=23')->{json}{next_cursor}, undef, 'all at once end there');
	is($uris->(responses($id, '?offset=100')->{json}), '', 'past the end is nothing');

	my ($cursor, @seen) = ('');
	while (defined $cursor) {
		my $page = responses($id, '?limit=4' . ($cursor && "&cursor=$cursor"))->{json};
		push @seen, split ' ', $uris->($page);
		$cursor = $page->{next_cursor};
		last if @seen > 40;
		respond($id, { response_uri => 'ar://' . (24 + @seen / 4) }) if @seen <= 20;
	}
	is("@seen", join(' ', 1 .. 23, 25 .. 29), 'a walk sees each once, those that come in meanwhile last');

	for my $query ('limit=0', 'limit=101', 'offset=-1', 'cursor=zz', "cursor=$part->{next_cursor}&offset=1",
		'client=x', 'limit=1&limit=2', map { 'cursor=' . unpack 'H*', $_ } "newest\n1\n1",
		"oldest\n1\n1;--", "oldest\n1\n", "oldest\n1\n99999999999999999999") {
		is(responses($id, "?$query")->{status}, 400, $query);
	}
};

done_testing;
