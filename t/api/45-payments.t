#!/usr/bin/perl
# SPDX-License-Identifier: Apache-2.0
# Payments: reporting them, linking them to agents, and what follows for the agent.
use strict;
use warnings;
use FindBin;
use Test::More;

use lib "$FindBin::Bin/../lib";
use Areg::Test qw(address from_json hash in_parallel json_text problem_ok wait_until);

my $SYSTEM = '0x0000000000000000000000000000000000000001';
my ($RECORD, $LINK) = ('/api/v1/payments', '/api/v1/agents/link-payment');

my $areg = Areg::Test->start(workers => 8);
my $owner = $areg->make_user;
my $other = $areg->make_user;
my $facilitator = $areg->make_user(scopes => ['payments:write']);
my ($payer, $payee) = (address('payer'), address('payee'));
my $made = 0;

my %wallet; # of each agent, to be paid at: its owner has many agents

# Registers an agent and returns its agent_uuid.
sub new_agent
{
	my $uuid = $areg->make_agent($owner, description => 'It is paid.')->{agent_uuid};
	$wallet{$uuid} = address('wallet', $uuid);
	$areg->psql("UPDATE erc8004_agents SET agent_wallet = '$wallet{$uuid}' WHERE agent_uuid = '$uuid'");
	return $uuid;
}

# As new_agent(), for a user who may have no other: then the payee can be the owner himself.
sub agent_of { return $areg->make_agent($_[0], description => 'It is paid.')->{agent_uuid} }

sub payment
{
	my (%member) = @_;
	my $agent = delete $member{for};
	$member{payee} //= $wallet{$agent} if $agent;
	return { tx_hash => hash('payment', ++$made), chain => 'base', amount_usdc => '10',
		payer => $payer, payee => $payee, status => 'verified', %member };
}

sub record
{
	my ($payment, $user) = @_;
	return $areg->post($RECORD, $payment, { key => ($user || $facilitator)->{key} });
}

# Reports a payment that must be taken, and returns its tx_hash.
sub recorded
{
	my $answer = record(payment(@_));
	die $answer->{body} if $answer->{status} != 201;
	return $answer->{json}{tx_hash};
}

sub link_to
{
	my ($uuid, $tx_hash, $user, %member) = @_;
	return $areg->post($LINK, { agent_uuid => $uuid, tx_hash => $tx_hash, chain => 'base', %member },
		{ key => ($user || $owner)->{key} });
}

sub unlink_from
{
	my ($uuid, $tx_hash, $user, %member) = @_;
	return $areg->api(DELETE => $LINK, { agent_uuid => $uuid, tx_hash => $tx_hash, chain => 'base', %member },
		{ key => ($user || $facilitator)->{key} });
}

sub of { my ($uuid, $part) = @_; return $areg->get("/api/v1/agents/$uuid/$part")->{json} }

# What Stats say that hangs on payments, as one line.
sub stats
{
	my $stats = of($_[0], 'stats');
	return join ' ', map { $stats->{$_} // '-' } qw(total_payments successful_payments
		failed_payments total_amount_usdc payment_success_rate total_feedback reputation_score);
}

# The automatic feedback of an agent, as lines "score tag1".
sub automatic
{
	return [map { "@$_" } $areg->psql("SELECT score, tag1 FROM erc8004_reputation"
		. " WHERE agent_uuid = '$_[0]' AND is_automatic AND client_address = '$SYSTEM' ORDER BY id")];
}

sub row { return ($areg->psql("SELECT $_[1] FROM x402_payments WHERE tx_hash = '$_[0]'"))[0] }
sub payments { return $areg->psql_value('SELECT count(*) FROM x402_payments') }

# The entries of a request: action, subject, before and after.
sub audited
{
	my ($answer) = @_;
	return map { { action => $_->[0], subject => $_->[1], before => from_json($_->[2] // 'null'),
		after => from_json($_->[3] // 'null') } }
		$areg->psql("SELECT action, subject_type || ' ' || subject_id, before, after FROM audit_log"
			. " WHERE request_id = '$answer->{headers}{'x-request-id'}' ORDER BY id");
}

my $TIME = qr/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/;

# ---- Reporting ----

subtest 'a payment is stored and answered whole' => sub {
	my $tx_hash = hash('whole');
	my $answer = record(payment(tx_hash => '0x' . uc substr($tx_hash, 2), chain => 'baseSepolia',
		amount_usdc => '1234567.891', endpoint => 'https://a.example/x?y=1', status => 'failed',
		failure_reason => 'Kein Guthaben'));
	is($answer->{status}, 201, 'status') or diag $answer->{body};
	my $payment = $answer->{json};
	my $id = delete $payment->{payment_id};
	is($id, row($tx_hash, 'id')->[0], 'with its number');
	my %times = map { $_ => delete $payment->{$_} } qw(created_at updated_at settled_at);
	like($times{$_}, $TIME, $_) for sort keys %times;
	is_deeply($payment, { tx_hash => $tx_hash, chain => 'base-sepolia', nonce => undef, log_index => undef,
		amount_usdc => '1234567.891000', payer => $payer, payee => $payee, status => 'failed',
		endpoint => 'https://a.example/x?y=1', failure_reason => 'Kein Guthaben',
		agent_uuid => undef, linked_at => undef },
		'the record: hash in lower case, the chain by its name, six digits');
	is_deeply(row($tx_hash, 'chain, amount_usdc, payer, payee, status, endpoint, failure_reason,'
		. ' settled_at = created_at'), ['base-sepolia', '1234567.891000', $payer, $payee, 'failed',
		'https://a.example/x?y=1', 'Kein Guthaben', 't'], 'and so it is stored');
	my ($entry, @more) = audited($answer);
	is_deeply([$entry->{action}, $entry->{subject}, $entry->{before}, $entry->{after}{status}, @more],
		['payment.record', "payment base-sepolia:$tx_hash", undef, 'failed'], 'one audit entry');
	my $pending = record(payment(status => 'pending'))->{json};
	is($pending->{settled_at}, undef, 'a pending one is not settled');
};

subtest 'amounts are exact or refused' => sub {
	my @taken = (['"0"', '0.000000'], ['"-0.0"', '0.000000'], ['"0.000001"', '0.000001'],
		['12.5', '12.500000'], ['0.3', '0.300000'], ['7', '7.000000'],
		['999999999999999999.999999', '999999999999999999.999999'],
		['"999999999999999999.999999"', '999999999999999999.999999'],
		['"1000000000000000000"', '1000000000000000000.000000'],
		['1e-05', '0.000010'], ['1E-6', '0.000001'], ['1e5', '100000.000000'], ['1.0000000', '1.000000'],
		['12345678901234567.1234565e1', '123456789012345671.234565'], ['0.1e+1', '1.000000']);
	for my $case (@taken) {
		my ($text, $stored) = @$case;
		(my $body = json_text(payment(amount_usdc => 'X'))) =~ s/"X"/$text/;
		my $answer = record($body);
		is($answer->{json}{amount_usdc}, $stored, "$text is $stored") or diag $answer->{body};
		is(row($answer->{json}{tx_hash}, 'amount_usdc')->[0], $stored, 'in the database, too');
	}
	my $before = payments();
	for my $text ('"1e5"', '"1e-05"', '1e-7', '1e19', '"-1"', -1, '-0.000001', '"NaN"', '"Infinity"', '"0.0000001"',
		'"1.0000000"', '"1' . '0' x 40 . '"', '1' . '0' x 40, '"1000000000000000000.000001"', '""',
		'" 1"', '"1 "', '"+1"', '"01"', '".5"', '"5."', '"1,5"', '"0x10"', '"1\u0000"', 'true', '[]',
		'{}', 'null') {
		(my $body = json_text(payment(amount_usdc => 'X'))) =~ s/"X"/$text/;
		my $answer = record($body);
		problem_ok($answer, 400, 'validation_failed', '/amount_usdc');
	}
	like(record(payment(amount_usdc => '1' . '0' x 30))->{json}{detail},
		qr/amount_usdc: .*0\.\.1000000000000000000/, 'the detail names the bounds');
	is(payments(), $before, 'nothing of that is stored');
};

subtest 'bad input is refused with every fault' => sub {
	my $before = payments();
	my @cases = (
		[{}, 'validation_failed', qw(/tx_hash /chain /amount_usdc /payer /payee /status)],
		[payment(tx_hash => '0x12'), 'validation_failed', '/tx_hash'],
		[payment(tx_hash => hash('x') . '0'), 'validation_failed', '/tx_hash'],
		[payment(chain => 'dogecoin'), 'chain_not_supported', '/chain'],
		[payment(chain => ''), 'validation_failed', '/chain'],
		[payment(chain => 8453), 'validation_failed', '/chain'],
		[payment(payer => '0x12'), 'invalid_address', '/payer'],
		[payment(payee => '0x8004a169FB4a3325136EB29fA0ceB6D2e539a432'), 'invalid_address', '/payee'],
		[payment(status => 'paid'), 'validation_failed', '/status'],
		[payment(status => undef), 'validation_failed', '/status'],
		[payment(endpoint => 'x' x 2049), 'validation_failed', '/endpoint'],
		[payment(failure_reason => 'x' x 2001), 'validation_failed', '/failure_reason'],
		[payment(agent_uuid => hash('x')), 'validation_failed', '/agent_uuid'],
		[payment(tx_hash => undef), 'validation_failed', '/tx_hash'],
		[payment(tx_hash => undef, status => 'pending'), 'validation_failed', '/tx_hash'],
		[payment(tx_hash => undef, status => 'failed', log_index => 1), 'validation_failed', '/log_index'],
		[payment(nonce => '0x12'), 'validation_failed', '/nonce'],
		[payment(nonce => 7), 'validation_failed', '/nonce'],
		[payment(log_index => -1), 'validation_failed', '/log_index'],
		[payment(log_index => 1.5), 'validation_failed', '/log_index'],
		[payment(amount_usdc => 'x', payer => 7, chain => 'x'), 'validation_failed',
			qw(/amount_usdc /payer /chain)],
		['[]', 'validation_failed'], ['{', 'validation_failed'],
	);
	for my $case (@cases) {
		my ($body, $code, @at) = @$case;
		my $answer = record($body);
		if (@at > 1) {
			is_deeply([sort map { $_->{pointer} } @{ $answer->{json}{errors} }], [sort @at], "@at");
		} else {
			problem_ok($answer, 400, $code, @at);
		}
	}
	is($areg->post("$RECORD?x=1", payment(), { key => $facilitator->{key} })->{status}, 400,
		'a parameter is refused');
	is(record(payment(endpoint => 'ö' x 1024, failure_reason => 'y' x 2000))->{status}, 201,
		'the longest are taken');
	is(payments(), $before + 1, 'and nothing else is stored');
};

subtest 'only who may report payments can' => sub {
	my $before = payments();
	problem_ok($areg->post($RECORD, payment()), 401, 'unauthorized');
	problem_ok(record(payment(), $owner), 403, 'scope_required');
	problem_ok($areg->get($RECORD), 405, 'method_not_allowed');
	is(payments(), $before, 'nothing is stored');
};

subtest 'a pending payment is updated until it settles' => sub {
	my $payment = payment(status => 'pending', endpoint => 'https://a.example/');
	my $first = record($payment);
	is($first->{status}, 201, 'reported');
	my $again = record({ %$payment, amount_usdc => '11.5', endpoint => 'https://b.example/' });
	is($again->{status}, 200, 'updated') or diag $again->{body};
	is_deeply([@{ $again->{json} }{qw(payment_id amount_usdc payer endpoint status settled_at created_at)}],
		[$first->{json}{payment_id}, '10.000000', $payer, 'https://b.example/', 'pending', undef,
		$first->{json}{created_at}], 'but for the amount, which stays as recorded');
	cmp_ok($again->{json}{updated_at}, 'gt', $first->{json}{updated_at}, 'updated_at moves');
	my ($entry, @more) = audited($again);
	is_deeply([@$entry{qw(action subject)}, map({ $_->{endpoint} } @$entry{qw(before after)}), @more],
		['payment.update', "payment base:$payment->{tx_hash}", 'https://a.example/', 'https://b.example/'],
		'the audit entry says what it was and what it is');
	my $second = $areg->make_user(scopes => ['payments:write']);
	problem_ok(record({ %$payment, status => 'failed' }, $second), 409, 'payment_already_recorded');
	is(row($payment->{tx_hash}, 'status')->[0], 'pending', 'another facilitator cannot settle it');

	my $settled = record({ %$payment, status => 'failed', endpoint => undef, failure_reason => 'late' });
	is($settled->{status}, 200, 'settled');
	is_deeply([@{ $settled->{json} }{qw(status endpoint failure_reason)}],
		['failed', 'https://b.example/', 'late'], 'an endpoint that is not said again stays');
	is($settled->{json}{settled_at}, $settled->{json}{updated_at}, 'settled_at is when');
	for my $status (qw(failed verified pending)) {
		my $answer = record({ %$payment, status => $status, failure_reason => 'late' });
		problem_ok($answer, 409, 'payment_already_settled');
		like($answer->{json}{detail}, qr/as failed/, 'that says how');
		is_deeply([audited($answer)], [], 'and leaves no entry');
	}
	is_deeply(row($payment->{tx_hash}, 'status, amount_usdc'), ['failed', '10.000000'], 'it stays');
	is(record({ %$payment, chain => 'sepolia' })->{status}, 201, 'on another chain it is another');
};

subtest 'one payment reported by eight at once is one payment' => sub {
	for my $case (['pending', 200], ['verified', 409]) {
		my ($status, $otherwise) = @$case;
		my $payment = payment(status => $status);
		my @statuses = sort map { $_->{status} } in_parallel(8, sub { record($payment) });
		is_deeply(\@statuses, [sort 201, ($otherwise) x 7], "$status: one 201, seven $otherwise");
		is($areg->psql_value("SELECT count(*) FROM x402_payments WHERE tx_hash = '$payment->{tx_hash}'"),
			1, 'one row');
	}
};

# ---- Linking ----

subtest 'payment linking succeeds' => sub {
	my $uuid = new_agent();
	my $tx_hash = recorded(for => $uuid, amount_usdc => '2.5', endpoint => 'https://a.example/mcp');
	is(stats($uuid), '0 0 0 0.000000 - 0 -', 'nothing yet');
	my $answer = link_to($uuid, $tx_hash);
	is($answer->{status}, 200, 'linked') or diag $answer->{body};
	is_deeply([sort keys %{ $answer->{json} }], ['message', 'success'], 'success and message');
	is($answer->{json}{success}, JSON::PP::true(), 'success is true');
	is(stats($uuid), '1 1 0 2.500000 100 1 95', 'the statistics say so at once');

	my ($entry, @more) = audited($answer);
	my $feedback = of($uuid, 'feedback')->{feedback}[0];
	is_deeply([@$entry{qw(action subject before after)}, @more], ['payment.link',
		"payment base:$tx_hash", undef, { agent_uuid => $uuid, feedback_id => $feedback->{id},
		payment_id => row($tx_hash, 'id')->[0] }],
		'one audit entry');
	is_deeply([@$feedback{qw(client_address score tag1 tag2 feedback_index)}],
		[$SYSTEM, 95, 'payment_success', '', 1], 'feedback of the system address');
	is_deeply([$areg->psql("SELECT is_automatic, has_explicit_score, endpoint FROM erc8004_reputation"
		. " WHERE id = $feedback->{id}")], [['t', 't', 'https://a.example/mcp']],
		'marked, about the endpoint that was paid');
	my $listed = of($uuid, 'payments');
	is_deeply([map { @$_{qw(tx_hash agent_uuid status)} } @{ $listed->{payments} }],
		[$tx_hash, $uuid, 'verified'], 'listed with its agent');
	like($listed->{payments}[0]{linked_at}, $TIME, 'and since when');
	my $again = record(payment(for => $uuid, tx_hash => $tx_hash));
	problem_ok($again, 409, 'payment_already_settled');

	my $twice = link_to($uuid, '0x' . uc substr($tx_hash, 2), $facilitator);
	is($twice->{status}, 200, 'linked to the same agent again: 200') or diag $twice->{body};
	isnt($twice->{json}{message}, $answer->{json}{message}, 'with another message');
	is(stats($uuid), '1 1 0 2.500000 100 1 95', 'and nothing changes');
	is_deeply([audited($twice)], [], 'nor is it audited');
	my $twin = new_agent();
	$areg->psql("INSERT INTO erc8004_agent_addresses VALUES ('$twin', '$wallet{$uuid}', 'wallet', 'epoch', now())");
	problem_ok(link_to($twin, $tx_hash), 409, 'payment_already_linked');
};

subtest 'nonexistent payment' => sub {
	my $uuid = new_agent();
	problem_ok(link_to($uuid, hash('nothing')), 404, 'payment_not_found');
	problem_ok(link_to($uuid, recorded(), undef, chain => 'sepolia'), 404, 'payment_not_found');
	is(stats($uuid), '0 0 0 0.000000 - 0 -', 'nothing changes');
};

subtest 'what cannot be linked is refused' => sub {
	my $uuid = new_agent();
	my $tx_hash = recorded(for => $uuid);
	problem_ok($areg->post($LINK, { agent_uuid => $uuid, tx_hash => $tx_hash, chain => 'base' }),
		401, 'unauthorized');
	problem_ok(link_to('00000000-0000-4000-8000-000000000000', $tx_hash), 404, 'agent_not_found');
	problem_ok(link_to($uuid, $tx_hash, $other), 403, 'forbidden');
	problem_ok(link_to($uuid, hash('nothing'), $other), 403, 'forbidden');
	problem_ok(link_to('base:0', $tx_hash), 400, 'validation_failed', '/agent_uuid');
	problem_ok(link_to($uuid, '0x1'), 400, 'validation_failed', '/tx_hash');
	problem_ok(link_to($uuid, $tx_hash, undef, chain => 'x'), 400, 'chain_not_supported', '/chain');
	problem_ok(link_to($uuid, $tx_hash, undef, more => 1), 400, 'validation_failed', '/more');
	$areg->aregctl('agent', 'suspend', $uuid);
	problem_ok(link_to($uuid, $tx_hash), 403, 'agent_suspended');
	$areg->aregctl('agent', 'reactivate', $uuid);
	$areg->psql("UPDATE erc8004_agents SET status = 'revoked' WHERE agent_uuid = '$uuid'");
	problem_ok(link_to($uuid, $tx_hash), 409, 'agent_not_active');
	$areg->psql("UPDATE erc8004_agents SET status = 'active' WHERE agent_uuid = '$uuid'");
	is($areg->psql_value("SELECT count(*) FROM erc8004_agent_payments WHERE agent_uuid = '$uuid'"), 0,
		'nothing is linked by all that');
	is(link_to($uuid, $tx_hash, $facilitator)->{status}, 200, 'its facilitator links for any agent');
	$areg->psql("INSERT INTO users (wallet_address) VALUES ('$SYSTEM')");
	$areg->psql("UPDATE erc8004_agents SET owner_address = '$SYSTEM' WHERE agent_uuid = '$uuid'");
	is(link_to($uuid, recorded(for => $uuid), $facilitator)->{status}, 200,
		"an agent that the system's address owns is like any other");
	is_deeply(automatic($uuid), [('95 payment_success') x 2], 'and gets its feedback');
};

subtest 'statistics and feedback follow every step' => sub {
	my $uuid = new_agent();
	# Linked as, settled as: payments, verified, failed, amount, rate, feedback, score.
	my @steps = (
		['verified', undef, '1 1 0 10.000000 100 1 95'],
		['failed', undef, '2 1 1 10.000000 50 2 62.5'],
		['rejected', undef, '3 1 1 10.000000 50 2 62.5'],
		['pending', undef, '4 1 1 10.000000 50 2 62.5'],
		['pending', 'verified', '5 2 1 20.000000 66.67 3 73.33'],
		['pending', 'failed', '6 2 2 20.000000 50 4 62.5'],
		['pending', 'rejected', '7 2 2 20.000000 50 4 62.5'],
		['pending', 'pending', '8 2 2 20.000000 50 4 62.5'],
	);
	for my $step (@steps) {
		my ($as, $later, $expected) = @$step;
		my $payment = payment(for => $uuid, status => $as);
		record($payment);
		is(link_to($uuid, $payment->{tx_hash})->{status}, 200, "linked while $as");
		if ($later) {
			my $answer = record({ %$payment, status => $later });
			is($answer->{status}, 200, "then $later");
			is($answer->{json}{agent_uuid}, $uuid, 'and the answer names the agent');
			my ($entry) = audited($answer);
			my $id = $areg->psql_value('SELECT max(id) FROM erc8004_reputation');
			is($entry->{after}{feedback_id}, $later =~ /verified|failed/ ? $id : undef,
				'the audit entry names the feedback that it gave');
		}
		is(stats($uuid), $expected, 'what Stats say then');
	}
	is_deeply(automatic($uuid), ['95 payment_success', '30 payment_failure', '95 payment_success',
		'30 payment_failure'], 'automatic feedback: once for each that was verified or failed');
	is($areg->psql_value("SELECT count(*) FROM erc8004_reputation WHERE agent_uuid = '$uuid'"
		. ' AND NOT is_automatic'), 0, 'and no other');
};

subtest 'an agent that is not active gets no feedback when its payment settles' => sub {
	my $uuid = new_agent();
	my $payment = payment(for => $uuid, status => 'pending');
	record($payment);
	link_to($uuid, $payment->{tx_hash});
	$areg->aregctl('agent', 'suspend', $uuid);
	is(record({ %$payment, status => 'verified' })->{status}, 200, 'the payment settles');
	is(stats($uuid), '1 1 0 10.000000 100 0 -', 'is counted, and gives no feedback');
};

subtest 'eight link one payment to two agents at once: one agent gets it' => sub {
	for my $round (1 .. 5) {
		my @agents = map { new_agent() } 1 .. 2;
		$areg->psql("UPDATE erc8004_agents SET agent_wallet = '$wallet{$agents[0]}' WHERE agent_uuid = '$agents[1]'");
		my $tx_hash = recorded(for => $agents[0]);
		my @answers = in_parallel(8, sub { link_to($agents[$_[0] % 2], $tx_hash, $facilitator) });
		is_deeply([sort map { $_->{status} } @answers], [(200) x 4, (409) x 4], "round $round");
		is_deeply([sort map { stats($_) } @agents],
			['0 0 0 0.000000 - 0 -', '1 1 0 10.000000 100 1 95'], 'and one automatic feedback');
	}
};

subtest 'a payment that settles while it is linked gives feedback once' => sub {
	my $uuid = new_agent();
	for my $round (1 .. 12) {
		my $payment = payment(for => $uuid, status => 'pending');
		record($payment);
		my @answers = in_parallel(4, sub { $_[0] % 2 ? link_to($uuid, $payment->{tx_hash})
			: record({ %$payment, status => 'verified' }) });
		is_deeply([sort map { $_->{status} } @answers], [200, 200, 200, 409], "round $round");
	}
	is(stats($uuid), '12 12 0 120.000000 100 12 95', 'twelve payments, twelve feedbacks');
};

subtest 'a payment that is linked while it waits to settle is looked at anew' => sub {
	my $uuid = new_agent();
	my $payment = payment(for => $uuid, status => 'pending');
	my $retries = sub { ($areg->get('/metrics')->{body} =~ /^areg_database_retries_total (\d+)$/m)[0] };
	my $before = $retries->();
	record($payment);
	# Links it, and commits when the other waits for it.
	my (undef, $answer) = in_parallel(2, sub {
		return $areg->psql("DO \$\$ BEGIN PERFORM areg_link_payment('$uuid', NULL, '$payment->{tx_hash}',"
			. " 'base', '$owner->{wallet}', NULL, true); FOR i IN 1 .. 500 LOOP"
			. ' EXIT WHEN EXISTS (SELECT FROM pg_locks WHERE NOT granted); PERFORM pg_sleep(0.02);'
			. ' END LOOP; END $$') if $_[0] == 0;
		wait_until(20, sub { $areg->psql_value("SELECT count(*) FROM pg_locks WHERE"
			. " relation = 'erc8004_agent_payments'::regclass AND mode = 'RowExclusiveLock'") });
		return record({ %$payment, status => 'verified' });
	});
	is($answer->{status}, 200, 'it settles') or diag $answer->{body};
	is($answer->{json}{agent_uuid}, $uuid, 'and names the agent');
	is(stats($uuid), '1 1 0 10.000000 100 1 95', 'which gets its feedback');
	is($retries->(), $before + 1, 'at the second try');
};

subtest 'an agent that is deleted while its payment settles blocks nobody' => sub {
	my $uuid = new_agent();
	my $payment = payment(for => $uuid, status => 'pending');
	record($payment);
	link_to($uuid, $payment->{tx_hash});
	# Begins as a DELETE does, and goes on when the other waits for it.
	my (undef, $answer) = in_parallel(2, sub {
		return $areg->psql("DO \$\$ BEGIN PERFORM FROM erc8004_agents WHERE agent_uuid = '$uuid' FOR UPDATE;"
			. ' FOR i IN 1 .. 500 LOOP EXIT WHEN EXISTS (SELECT FROM pg_locks WHERE NOT granted);'
			. ' PERFORM pg_sleep(0.02); END LOOP;'
			. " DELETE FROM erc8004_agents WHERE agent_uuid = '$uuid'; END \$\$") if $_[0] == 0;
		wait_until(20, sub { $areg->psql_value("SELECT count(*) FROM pg_locks WHERE"
			. " relation = 'erc8004_agents'::regclass AND mode = 'RowShareLock'") });
		return record({ %$payment, status => 'verified' });
	});
	is_deeply([$answer->{status}, @{ $answer->{json} }{qw(status agent_uuid)}], [200, 'verified', undef],
		'the payment settles, and has no agent any more') or diag $answer->{body};
	unlike($areg->log_text('postgres'), qr/deadlock detected/, 'nobody waited in a circle');
};

subtest 'agents are deleted and given feedback while their payments settle' => sub {
	for my $round (1 .. 4) {
		my $uuid = new_agent();
		my @payments = map { payment(for => $uuid, status => 'pending') } 1 .. 6;
		for (@payments) { record($_); link_to($uuid, $_->{tx_hash}) }
		my @statuses = in_parallel(8, sub {
			my ($i) = @_;
			return record({ %{ $payments[$i] }, status => 'verified' })->{status} if $i < 6;
			return $areg->post('/api/v1/agents/feedback', { agent_uuid => $uuid, score => 1,
				client_address => $other->{wallet} }, { key => $other->{key} })->{status} if $i == 6;
			$areg->psql("DELETE FROM erc8004_agents WHERE agent_uuid = '$uuid'");
			return 0;
		});
		is_deeply([@statuses[0 .. 5]], [(200) x 6], "round $round: every payment settles");
		like($statuses[6], qr/^(?:201|404)$/, 'feedback is taken, or there is no agent any more');
	}
	unlike($areg->log_text('postgres'), qr/deadlock detected/, 'nobody waited in a circle');
};

# ---- Whose payments, and whose word ----

subtest 'payments made to somebody else cannot be stolen' => sub {
	my ($payee_user, $thief) = map { $areg->make_user } 1 .. 2;
	my ($agent, $own) = (agent_of($payee_user), agent_of($thief));
	my @paid = map { recorded(payee => $payee_user->{wallet}, payer => address('client', $_)) } 1 .. 12;
	for my $tx_hash (@paid) {
		my $answer = link_to($own, $tx_hash, $thief);
		problem_ok($answer, 403, 'payee_mismatch');
		is_deeply([audited($answer)], [], 'nothing is audited');
	}
	problem_ok(link_to($own, $paid[0], $facilitator), 403, 'payee_mismatch');
	is(stats($own), '0 0 0 0.000000 - 0 -', 'the thief has nothing of it');
	is(of($own, 'stats')->{trust_level}, 'new', 'and is as new as before');
	problem_ok(link_to($agent, $paid[0], $thief), 403, 'forbidden');
	is(link_to($agent, $_, $payee_user)->{status}, 200, 'the payee links his own') for @paid;
	is_deeply([@{ of($agent, 'stats') }{qw(trust_level counted_payers total_payments)}],
		['excellent', 12, 12], 'and is excellent');
};

subtest 'events do not name payments that are not linked' => sub {
	my $uuid = new_agent();
	my $last = $areg->psql_value('SELECT max(id) FROM erc8004_events');
	my $payment = payment(for => $uuid, status => 'pending');
	my $id = record($payment)->{json}{payment_id};
	record({ %$payment, endpoint => 'https://a.example/' });
	is_deeply([$areg->psql("SELECT type, agent_uuid, subject FROM erc8004_events WHERE id > $last ORDER BY id")],
		[['payment.recorded', undef, undef], ['payment.updated', undef, undef]], 'recorded and changed, no more');
	link_to($uuid, $payment->{tx_hash});
	record({ %$payment, status => 'failed' });
	unlink_from($uuid, $payment->{tx_hash});
	is_deeply([$areg->psql("SELECT type, agent_uuid, subject FROM erc8004_events WHERE id > $last"
		. " AND type LIKE 'payment.%' ORDER BY id OFFSET 2")],
		[['payment.linked', $uuid, "base:$payment->{tx_hash}"], ['payment.updated', $uuid, "base:$payment->{tx_hash}"],
			['payment.unlinked', $uuid, undef]], 'a linked one has its name');
	my $never = recorded();
	unlike($areg->get("/api/v1/events?limit=100")->{body}, qr/\Q$never\E/, 'in the answer neither');
};

subtest 'the time of the payment decides who could be paid' => sub {
	my ($seller, $buyer) = map { $areg->make_user } 1 .. 2;
	my $early = recorded(payee => $seller->{wallet});
	my $uuid = agent_of($seller);
	my $before = recorded(payee => $seller->{wallet});
	my $too_early = recorded(payee => $buyer->{wallet});
	# As a transfer does in the contract.
	$areg->psql("UPDATE erc8004_agents SET owner_address = '$buyer->{wallet}', agent_wallet = NULL WHERE agent_uuid = '$uuid'");
	my $after = recorded(payee => $seller->{wallet});
	my $since = recorded(payee => $buyer->{wallet});
	problem_ok(link_to($uuid, $before, $seller), 403, 'forbidden');
	problem_ok(link_to($uuid, $_, $buyer), 403, 'payee_mismatch') for $early, $too_early, $after;
	problem_ok(link_to($uuid, $_, $facilitator), 403, 'payee_mismatch') for $early, $too_early, $after;
	is(link_to($uuid, $_, $buyer)->{status}, 200, 'paid to who owned it then') for $before, $since;
};

subtest 'a payee of several agents does not choose' => sub {
	my $many = $areg->make_user;
	my ($one, $another) = map { agent_of($many) } 1 .. 2;
	my $tx_hash = recorded(payee => $many->{wallet});
	problem_ok(link_to($one, $tx_hash, $many), 403, 'payee_ambiguous');
	is(link_to($another, $tx_hash, $facilitator)->{status}, 200, 'the facilitator does');
	problem_ok(link_to($one, $tx_hash, $facilitator), 409, 'payment_already_linked');
	$areg->psql("UPDATE erc8004_agents SET agent_wallet = '" . address('own wallet') . "' WHERE agent_uuid = '$one'");
	is(link_to($one, recorded(payee => address('own wallet')), $many)->{status}, 200, 'a wallet of its own is not in doubt');
};

subtest 'a facilitator touches only what it recorded' => sub {
	my $uuid = new_agent();
	my $second = $areg->make_user(scopes => ['payments:write']);
	my $tx_hash = recorded(for => $uuid);
	problem_ok(link_to($uuid, $tx_hash, $second), 403, 'forbidden');
	is(link_to($uuid, $tx_hash)->{status}, 200, 'the owner links');
	problem_ok(unlink_from($uuid, $tx_hash, $second), 403, 'forbidden');
	problem_ok(unlink_from($uuid, $tx_hash, $owner), 403, 'scope_required');
	my $feedback = of($uuid, 'feedback')->{feedback}[0]{id};
	my $answer = unlink_from($uuid, $tx_hash);
	is($answer->{status}, 200, 'who recorded it unlinks') or diag $answer->{body};
	my ($entry, @more) = audited($answer);
	is_deeply([@$entry{qw(action subject)}, @{ $entry->{before} }{qw(agent_uuid feedback_id)}, $entry->{after}, @more],
		['payment.unlink', "payment base:$tx_hash", $uuid, $feedback, undef], 'that is audited');
	is(stats($uuid), '0 0 0 0.000000 - 0 -', 'nothing of it is left');
	is(of($uuid, 'stats')->{revoked_feedback}, 1, 'but a revoked feedback');
	is_deeply(of($uuid, 'payments')->{payments}, [], 'nor is it listed');
	problem_ok(unlink_from($uuid, $tx_hash), 409, 'payment_not_linked');
	problem_ok(unlink_from($uuid, hash('nothing')), 404, 'payment_not_found');
	is(link_to($uuid, $tx_hash)->{status}, 200, 'it can be linked again');
	is(stats($uuid), '1 1 0 10.000000 100 1 95', 'and counts again');
};

subtest 'a link that was stolen before is taken back' => sub {
	my ($robbed, $thief) = (new_agent(), new_agent());
	my @paid = map { recorded(for => $robbed, payer => address('robbed', $_)) } 1 .. 3;
	$areg->psql("INSERT INTO erc8004_agent_payments (payment_id, agent_uuid) SELECT id, '$thief' FROM x402_payments"
		. " WHERE tx_hash = '$_'") for @paid;
	problem_ok(link_to($robbed, $paid[0]), 409, 'payment_already_linked');
	is(unlink_from($thief, $paid[0])->{status}, 200, 'by who recorded it');
	my $run = $areg->aregctl('payment', 'unlink', row($paid[1], 'id')->[0], '--reason', 'stolen');
	is($run->{exit}, 0, 'by an operator') or diag $run->{stderr};
	is_deeply([$areg->psql("SELECT action, before ->> 'agent_uuid', after ->> 'reason' FROM audit_log"
		. " WHERE subject_id = 'base:$paid[1]' AND action = 'payment.unlink'")], [['payment.unlink', $thief, 'stolen']], 'audited');
	is($areg->aregctl('payment', 'unlink', row($paid[1], 'id')->[0])->{exit}, 3, 'once');
	is($areg->aregctl('payment', 'unlink', $_)->{exit}, 2, "$_ is no payment") for 'x', '-1', '1x', '9' x 19;
	is($areg->aregctl('payment', 'unlink', 999999)->{exit}, 3, 'nor is there one of that number');
	is(link_to($robbed, $_)->{status}, 200, 'the payee links') for @paid[0, 1];
	is_deeply([stats($thief), stats($robbed)], ['1 1 0 10.000000 100 0 -', '2 2 0 20.000000 100 2 95'], 'and each has what is linked');
};

subtest 'a transaction of several payments' => sub {
	my ($uuid, $elsewhere) = (new_agent(), new_agent());
	my $tx_hash = hash('of several');
	my @of_tx = (tx_hash => $tx_hash, for => $uuid);
	my @answers = map { record(payment(@of_tx, %$_)) } { payer => address('first') }, { payer => address('second') },
		{ payer => address('first'), log_index => 0 }, { payer => address('first'), log_index => 9223372036854775807 },
		{ payer => address('first'), nonce => hash('nonce') };
	is_deeply([map { $_->{status} } @answers], [(201) x 5], 'each is recorded') or diag $answers[1]{body};
	is(@{ [keys %{ { map { $_->{json}{payment_id} => 1 } @answers } }] }, 5, 'under a number of its own');
	problem_ok(record(payment(@of_tx, payer => address('first'), log_index => 0)), 409, 'payment_already_settled');
	my $foreign = record(payment(tx_hash => $tx_hash, for => $elsewhere))->{json}{payment_id};
	my $answer = link_to($uuid, $tx_hash);
	problem_ok($answer, 409, 'payment_ambiguous');
	my @ids = map { $_->{json}{payment_id} } @answers;
	like($answer->{json}{detail}, qr/They are \Q@{[join ', ', @ids]}\E\./, 'the numbers of those that could be meant');
	is(link_to($elsewhere, $tx_hash)->{status}, 200, 'one that is the only one of its payee needs none');
	is(link_to($uuid, $tx_hash, undef, payment_id => $ids[1])->{status}, 200, 'by number');
	is(link_to($uuid, $tx_hash, undef, payment_id => $ids[1])->{status}, 200, 'again');
	my $by_id = $areg->post($LINK, { agent_uuid => $uuid, payment_id => $ids[2] }, { key => $owner->{key} });
	is($by_id->{status}, 200, 'by number alone') or diag $by_id->{body};
	problem_ok(link_to($uuid, hash('another'), undef, payment_id => $ids[0]), 404, 'payment_not_found');
	problem_ok(link_to($uuid, $tx_hash, undef, payment_id => $ids[0], chain => 'sepolia'), 404, 'payment_not_found');
	problem_ok(link_to($uuid, $tx_hash, undef, payment_id => $foreign), 403, 'payee_mismatch');
	problem_ok(link_to($uuid, $tx_hash, undef, payment_id => $_), 400, 'validation_failed', '/payment_id') for 0, -1, 1.5, '"1"';
	problem_ok($areg->post($LINK, { agent_uuid => $uuid }, { key => $owner->{key} }), 400, 'validation_failed');
	problem_ok($areg->post($LINK, { agent_uuid => $uuid, payment_id => undef, tx_hash => undef, chain => 'base' },
		{ key => $owner->{key} }), 400, 'validation_failed', '/payment_id');
	problem_ok(unlink_from($uuid, $tx_hash), 409, 'payment_ambiguous');
	is(unlink_from($uuid, $tx_hash, undef, payment_id => $ids[2])->{status}, 200, 'one is unlinked by number');
	is(unlink_from($uuid, $tx_hash)->{status}, 200, 'the last one without');
	is(stats($uuid), '0 0 0 0.000000 - 0 -', 'nothing is left');
};

subtest 'a failed settlement without a transaction' => sub {
	my $uuid = new_agent();
	my $failed = payment(for => $uuid, status => 'failed', tx_hash => undef, failure_reason => 'insufficient_funds');
	my @answers = map { record($failed) } 1 .. 2;
	is_deeply([map { $_->{status} } @answers], [201, 201], 'two attempts are two') or diag $answers[0]{body};
	isnt($answers[0]{json}{payment_id}, $answers[1]{json}{payment_id}, 'with numbers of their own');
	is($answers[0]{json}{tx_hash}, undef, 'and no transaction');
	my $rejected = { %$failed, status => 'rejected', nonce => hash('attempt') };
	is(record($rejected)->{status}, 201, 'one with a nonce');
	problem_ok(record($rejected), 409, 'payment_already_settled');
	is(record({ %$rejected, payer => address('else') })->{status}, 201, 'a nonce is one of a payer');
	my %once = ('Idempotency-Key' => 'attempt-1', key => $facilitator->{key});
	my @same = map { $areg->post($RECORD, $failed, { %once }) } 1 .. 2;
	is_deeply([map { @$_{qw(status body)} } @same], [(201, $same[0]{body}) x 2], 'an Idempotency-Key makes two reports one');
	is($areg->psql_value("SELECT count(*) FROM x402_payments WHERE payee = '$wallet{$uuid}'"), 5, 'five in all');
	my $linked = $areg->post($LINK, { agent_uuid => $uuid, payment_id => $answers[0]{json}{payment_id} },
		{ key => $facilitator->{key} });
	is($linked->{status}, 200, 'it is linked by its number') or diag $linked->{body};
	my $id = $answers[0]{json}{payment_id};
	is((audited($linked))[0]{subject}, "payment payment_id:$id", 'and audited by it');
	is_deeply([$areg->psql("SELECT subject FROM erc8004_events WHERE type = 'payment.linked' ORDER BY id DESC LIMIT 1")],
		[["payment_id:$id"]], 'as the event says');
	is(of($uuid, 'stats')->{failed_payments}, 1, 'it is counted as it is');
};

# ---- Trust ----

# Records a payment for the agent and links it; returns its tx_hash.
sub pay
{
	my ($uuid, $user, %member) = @_;
	my $payment = payment(for => $uuid, %member);
	my $answer = record($payment, $user);
	die $answer->{body} if $answer->{status} != 201;
	my $linked = $areg->post($LINK, { agent_uuid => $uuid, payment_id => $answer->{json}{payment_id} },
		{ key => ($user || $facilitator)->{key} });
	die $linked->{body} if $linked->{status} != 200;
	return $payment->{tx_hash};
}

sub trust
{
	my $stats = of($_[0], 'stats');
	return join ' ', map { $stats->{$_} // '-' } qw(trust_level trust_score payment_success_rate counted_payers
		total_payments reputation_score);
}

subtest 'an agent that pays itself buys nothing' => sub {
	my $uuid = new_agent();
	my @own = ($owner->{wallet}, $wallet{$uuid}, address('operator'), address('former'));
	$areg->psql("INSERT INTO erc8004_agent_addresses VALUES ('$uuid', '$own[2]', 'operator', now(), NULL),"
		. " ('$uuid', '$own[3]', 'owner', 'epoch', now())");
	for my $payer (@own) { pay($uuid, undef, payer => $payer, amount_usdc => $_) for 10, '0.000001' }
	is(trust($uuid), 'new - - 0 8 -', 'from owner, wallet, operator and a former owner');
	is(stats($uuid), '8 8 0 40.000004 - 0 -', 'though all of it is listed');
	pay($uuid, undef, payer => address('dust', $_), amount_usdc => '0.009999') for 1 .. 10;
	is(trust($uuid), 'new - - 0 18 -', 'nor do ten payments below the minimum');
	pay($uuid, undef, payer => address('real'), amount_usdc => '0.01');
	is(trust($uuid), 'fair 97 100 1 19 95', 'one at the minimum counts');
	pay($uuid, undef, payer => address('real')) for 1 .. 10;
	is(trust($uuid), 'fair 97 100 1 29 95', 'and ten more of the same payer count as that one');
	$areg->psql("UPDATE erc8004_agents SET owner_address = '" . address('real') . "' WHERE agent_uuid = '$uuid'");
	is((of($uuid, 'stats'))->{counted_payers}, 0, 'a payer who buys the agent counts no more');
	$areg->psql("UPDATE erc8004_agents SET owner_address = '$owner->{wallet}' WHERE agent_uuid = '$uuid'");
	is((of($uuid, 'stats'))->{counted_payers}, 0, 'nor when it is sold back');
};

subtest 'failures that cost nothing move no trust' => sub {
	my $uuid = new_agent();
	my $enemy = $areg->make_user(scopes => ['payments:write']);
	pay($uuid, undef, payer => address('customer', $_)) for 1 .. 10;
	my $excellent = qr/^excellent 97 100 10 /;
	like(trust($uuid), $excellent, 'ten customers');
	pay($uuid, $enemy, payer => address('nobody', $_), status => 'failed', tx_hash => undef) for 1 .. 10;
	like(trust($uuid), $excellent, 'failures of payers that never paid do not count');
	pay($uuid, $enemy, payer => address('customer', $_), status => 'failed', tx_hash => undef) for 1 .. 10;
	like(trust($uuid), $excellent, 'nor do those of customers, by somebody who brought none of them');
	is(of($uuid, 'stats')->{failed_payments}, 20, 'though they are on record');
	pay($uuid, undef, payer => address('customer', 1), status => 'failed', tx_hash => undef) for 1 .. 50;
	is(of($uuid, 'stats')->{payment_success_rate}, 95, 'of one customer they count up to what he paid for');
	pay($uuid, undef, payer => address('customer', $_), status => 'failed') for 2, 3;
	is(of($uuid, 'stats')->{payment_success_rate}, 85, 'and by customer');
	is(of($uuid, 'stats')->{trust_level}, 'good', 'that is what the level follows');
};

subtest 'an operator sees and stops a facilitator' => sub {
	my ($uuid, $liar) = (new_agent(), $areg->make_user(scopes => ['payments:write'], name => 'Liar'));
	pay($uuid, undef, payer => address('honest'));
	my @lies = map { pay($uuid, $liar, payer => address('made up', $_)) } 1 .. 11;
	is(of($uuid, 'stats')->{counted_payers}, 12, 'payers that it made up count');
	my ($row) = grep { $_->{id} eq $liar->{id} } @{ from_json($areg->aregctl('payment', 'facilitators', '--json')->{stdout}) };
	is_deeply([@$row{qw(name wallet_address recorded verified failed linked)}], ['Liar', $liar->{wallet}, 11, 11, 0, 11], 'listed');
	ok($row->{may_record}, 'as one that may');
	my $list = from_json($areg->aregctl('payment', 'list', '--json', '--recorded-by', $liar->{wallet})->{stdout});
	is_deeply([map { $_->{tx_hash} } @$list], [reverse @lies], 'what it recorded is listed');
	is_deeply([map { $_->{tx_hash} } @{ from_json($areg->aregctl('payment', 'list', '--json', '--transaction', $lies[0])->{stdout}) }],
		[$lies[0]], 'or one transaction');
	my $run = $areg->aregctl('payment', 'distrust', $liar->{wallet}, '--reason', 'made up', '--json');
	is_deeply(from_json($run->{stdout}), { id => $liar->{id}, unlinked => 11 }, 'distrusted') or diag $run->{stderr};
	is(trust($uuid), 'fair 97 100 1 1 95', 'what it said counts no more');
	wait_until(5, sub { record(payment(), $liar)->{status} == 403 });
	problem_ok(record(payment(), $liar), 403, 'scope_required');
	is($areg->psql_value("SELECT count(*) FROM audit_log WHERE action = 'payment.unlink' AND after ->> 'reason' = 'made up'"), 11,
		'each is audited');
	problem_ok(link_to($uuid, $lies[0]), 403, 'facilitator_distrusted');
	is(trust($uuid), 'fair 97 100 1 1 95', 'and the owner of the agent does not bring it back');
	$areg->aregctl('user', 'set', $liar->{wallet}, '--scope', 'payments:write');
	is(link_to($uuid, $lies[0])->{status}, 200, 'unless the operator trusts the facilitator again');
	is($areg->aregctl('payment', 'distrust', address('nobody'))->{exit}, 3, 'there must be such a user');
};

# ---- Lists ----

subtest 'the list of payments is paged, newest first' => sub {
	my $uuid = new_agent();
	is_deeply(of($uuid, 'payments'), { payments => [], total => 0, limit => 50, offset => 0 },
		'an empty one');
	my @hashes = map { recorded(for => $uuid) } 1 .. 25;
	link_to($uuid, $_) for @hashes;
	my @newest = reverse @hashes;
	my $hashes = sub { return [map { $_->{tx_hash} } @{ $_[0]{payments} }] };
	is_deeply($hashes->(of($uuid, 'payments')), \@newest, 'all of them');
	my $page = of($uuid, 'payments?limit=10&offset=20');
	is_deeply([$hashes->($page), @$page{qw(total limit offset next_cursor)}],
		[[@newest[20 .. 24]], 25, 10, 20, undef], 'by offset');
	is(of($uuid, 'payments?limit=25')->{next_cursor}, undef, 'a page that ends with the list');

	my @seen;
	for (my $cursor = ''; defined $cursor;) {
		my $part = of($uuid, 'payments?limit=7' . ($cursor && "&cursor=$cursor"));
		push @seen, @{ $hashes->($part) };
		$cursor = $part->{next_cursor};
		link_to($uuid, recorded(for => $uuid)) if @seen < 20;
	}
	is_deeply(\@seen, \@newest, 'a walk by cursor sees each once, whatever is linked meanwhile');

	my $agent_id = of($uuid, '')->{agent_id};
	is(of("base:$agent_id", 'payments?limit=1')->{total}, 27, 'by chain:agent_id, too');
	problem_ok($areg->get('/api/v1/agents/base:999999/payments'), 404, 'agent_not_found');
	problem_ok($areg->get('/api/v1/agents/nonsense/payments'), 404, 'agent_not_found');
	for my $wrong ('limit=0', 'limit=101', 'offset=-1', 'cursor=zz', 'status=verified') {
		my ($name) = $wrong =~ /^(\w+)/;
		problem_ok($areg->get("/api/v1/agents/$uuid/payments?$wrong"), 400, 'validation_failed', $name);
	}
	my $no_number = unpack 'H*', "newest\nx\nx";
	problem_ok($areg->get("/api/v1/agents/$uuid/payments?cursor=$no_number"), 400,
		'validation_failed', 'cursor');
};

# ---- The whole ----

subtest 'links are counted by chain and outcome' => sub {
	my $metrics = sub { return { $areg->get('/metrics')->{body}
		=~ /^erc8004_payment_links_total\{(.*)\} (\d+)$/mg } };
	my $before = $metrics->();
	my $uuid = new_agent();
	link_to($uuid, recorded(for => $uuid));
	link_to($uuid, hash('nothing'));
	link_to($uuid, recorded(for => $uuid), undef, chain => 'x');
	my $after = $metrics->();
	for my $series ('chain="base",status="success"', 'chain="base",status="refused"',
		'chain="unknown",status="refused"') {
		is($after->{$series}, ($before->{$series} || 0) + 1, $series);
	}
};

subtest 'the statistics are what a recount gives' => sub {
	# Of a number 0.00 is as good as 0: sums may have the decimals of what was taken away again.
	my $kept = 'SELECT agent_uuid, total_payments, successful_payments, failed_payments,'
		. ' total_amount_usdc, total_feedback, trim_scale(score_sum), counted_payers, trim_scale(payer_rate_sum) FROM erc8004_agent_stats ORDER BY 1';
	my @before = $areg->psql($kept);
	$areg->psql('SELECT areg_rebuild_stats()');
	is_deeply([$areg->psql($kept)], \@before, 'of ' . @before . ' agents');
};

subtest 'auto_feedback = off stops the feedback' => sub {
	my $uuid = new_agent();
	my $payment = payment(for => $uuid, status => 'pending');
	record($payment);
	link_to($uuid, $payment->{tx_hash});
	$areg->stop_server('aregd');
	$areg->start_server('aregd', set => { auto_feedback => 'off' });
	is(link_to($uuid, recorded(for => $uuid))->{status}, 200, 'a payment is linked');
	is(record({ %$payment, status => 'failed' })->{status}, 200, 'one that is linked fails');
	is(stats($uuid), '2 1 1 10.000000 50 0 -', 'both are counted, and neither gives feedback');
};

is_deeply([grep { /"status":5/ } split /\n/, $areg->log_text('areg')], [], 'no answer was a 5xx');
unlike($areg->log_text('areg'), qr/database call failed/, 'nor did a statement fail unexpectedly');

subtest 'an outcome that the program does not know' => sub {
	# As of a later migration.
	$areg->psql(<<~'END');
		CREATE OR REPLACE FUNCTION areg_unlink_payment(of_agent uuid, of_payment bigint, of_tx_hash text,
			on_chain text, by_facilitator uuid)
		RETURNS TABLE (outcome text, payment x402_payments, link erc8004_agent_payments, choices bigint[])
		LANGUAGE sql AS $$ SELECT 'moved_elsewhere', NULL::x402_payments, NULL::erc8004_agent_payments, NULL::bigint[] $$
		END
	problem_ok(unlink_from(new_agent(), hash('any')), 500, 'internal');
	ok(wait_until(20, sub { $areg->log_text('areg') =~ /does not know.*"outcome":"moved_elsewhere"/ }), 'stands in the log');
	my $run = $areg->aregctl('payment', 'unlink', 1);
	is($run->{exit}, 3, 'aregctl refuses, too');
	like($run->{stderr}, qr/does not know: moved_elsewhere/, 'and says why');
};

done_testing;
