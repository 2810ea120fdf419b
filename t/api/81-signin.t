#!/usr/bin/perl
# SPDX-License-Identifier: Apache-2.0
# Signing in with a wallet, against signatures that viem makes: who gets a key, and who does not.
use strict;
use warnings;
use FindBin;
use IPC::Open2;
use Test::More;

use lib "$FindBin::Bin/../lib";
use Areg::Test qw(address in_parallel json_text from_json problem_ok root skip_file_without);

$ENV{NODE_PATH} //= root() . '/contracts/node_modules';
skip_file_without 'needs node and viem: npm ci in contracts/'
	if system(q{node -e 'require("viem/accounts")' >/dev/null 2>&1}) != 0;

# One line of JSON in, one out: {key, message} gives {address, signature, mirrored}, the latter with
# s replaced by n - s.
my ($from, $to);
my $signer = open2($from, $to, 'node', '-e', <<'JS');
const { privateKeyToAccount } = require("viem/accounts");
const n = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;
require("readline").createInterface({ input: process.stdin }).on("line", async (line) => {
	const { key, message } = JSON.parse(line);
	const account = privateKeyToAccount(key);
	const signature = await account.signMessage({ message });
	const s = (n - BigInt("0x" + signature.slice(66, 130))).toString(16).padStart(64, "0");
	const v = signature.endsWith("1b") ? "1c" : "1b";
	console.log(JSON.stringify({ address: account.address, signature,
		mirrored: signature.slice(0, 66) + s + v }));
});
JS
END { if ($signer) { my $status = $?; close $to; waitpid $signer, 0; $? = $status } }

sub sign
{
	my ($key, $message) = @_;
	print $to json_text({ key => $key, message => $message }), "\n";
	$to->flush;
	return from_json(scalar <$from>);
}

my $areg = Areg::Test->start(set => { limit_sign_in => '100000 100000 100000 100000',
	limit_read => '100000 100000 100000 100000' });
my ($alice, $bob) = map { '0x' . $_ x 64 } 1, 2;
my $alice_address = sign($alice, '')->{address};
my $bob_address = sign($bob, '')->{address};

sub challenge
{
	my ($address) = @_;
	my $answer = $areg->post('/api/v1/auth/challenge', { address => $address });
	is($answer->{status}, 200, 'a challenge is given') or diag $answer->{body};
	return $answer->{json};
}

sub verify
{
	my ($message, $signature) = @_;
	return $areg->post('/api/v1/auth/verify', { message => $message, signature => $signature });
}

sub sign_in
{
	my ($key, $address) = @_;
	my $message = challenge($address)->{message};
	return verify($message, sign($key, $message)->{signature});
}

sub entries
{
	my ($action, $actor) = @_;
	return $areg->psql_value("SELECT count(*) FROM audit_log WHERE action = '$action'"
		. " AND actor = lower('$actor')");
}

subtest 'a challenge is a text of EIP-4361 for this registry and wallet' => sub {
	my $challenge = challenge(lc $alice_address);
	my $url = $areg->psql_value("SELECT split_part(message, E'\\n', 6) FROM auth_nonces") =~ s/^URI: //r;

	like($challenge->{nonce}, qr/^[A-Za-z0-9]{22}$/, 'nonce');
	like($challenge->{expires_at}, qr/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/, 'expiry');
	like($challenge->{message}, qr{^[^/ ]+ wants you to sign in with your Ethereum account:\n}, 'domain');
	like($challenge->{message}, qr/\n\nSign in to areg\.\n\n/, 'statement');
	like($challenge->{message}, qr/\n\Q$alice_address\E\n/, 'address with its checksum');
	like($challenge->{message}, qr/\nURI: \Q$url\E\n/, 'URI');
	like($challenge->{message}, qr/\nNonce: $challenge->{nonce}\n/, 'the nonce is in it');
	like($challenge->{message}, qr/\nExpiration Time: $challenge->{expires_at}\z/, 'and the expiry');
	is($areg->psql_value("SELECT expires_at BETWEEN now() + interval '4 min 50 s'"
		. " AND now() + interval '5 min' FROM auth_nonces"), 't', 'five minutes');
};

subtest 'what is no challenge is refused' => sub {
	problem_ok($areg->post('/api/v1/auth/challenge', { address => '0x12' }), 400, 'invalid_address');
	problem_ok($areg->post('/api/v1/auth/challenge', {}), 400, 'invalid_address');
	problem_ok($areg->post('/api/v1/auth/challenge', { address => $bob_address, chain_id => 424242 }),
		400, 'chain_not_supported');
	problem_ok($areg->post('/api/v1/auth/challenge', { address => $bob_address, chain_id => 0 }),
		400, 'validation_failed');
};

my $alice_id;
subtest 'a signed challenge makes the user and a key that works' => sub {
	my $answer = sign_in($alice, $alice_address);
	my $me;

	is($answer->{status}, 201, 'created') or diag $answer->{body};
	like($answer->{json}{api_key}, qr/^areg_live_/, 'a key');
	is($answer->{json}{key_prefix}, substr($answer->{json}{api_key}, 0, 18), 'its prefix');
	is($answer->{json}{user}{wallet_address}, lc $alice_address, 'wallet');
	is($answer->{json}{user}{tier}, 'free', 'tier');
	is_deeply($answer->{json}{user}{scopes}, [], 'no scopes');
	$alice_id = $answer->{json}{user}{id};
	$me = $areg->get('/api/v1/me', { key => $answer->{json}{api_key} });
	is($me->{status}, 200, 'the key works');
	is($me->{json}{user}{id}, $alice_id, 'as that user');
	is(entries('user.create', $alice_address), 1, 'the new user is in the log');
	is(entries('user.sign_in', $alice_address), 1, 'and the sign-in');
	is($areg->psql_value(q{SELECT count(*) FROM audit_log WHERE after::text LIKE '%key_hash%'}), 0,
		'without the hash of the key');
};

subtest 'signing in again gives the same user another key' => sub {
	my $answer = sign_in($alice, $alice_address);

	is($answer->{status}, 201, 'created');
	is($answer->{json}{user}{id}, $alice_id, 'same user');
	is(entries('user.create', $alice_address), 1, 'no other user');
};

sub refused
{
	my ($answer, $detail, $name) = @_;
	problem_ok($answer, 401, 'unauthorized');
	is($answer->{headers}{'www-authenticate'}, 'Bearer', 'with WWW-Authenticate');
	like($answer->{json}{detail}, $detail, $name);
}

subtest 'a nonce works once' => sub {
	my $message = challenge($alice_address)->{message};
	my $signature = sign($alice, $message)->{signature};

	is(verify($message, $signature)->{status}, 201, 'first');
	refused(verify($message, $signature), qr/used already/, 'second');
};

subtest 'the signature of another wallet is refused and does not use up the nonce' => sub {
	my $message = challenge($alice_address)->{message};

	refused(verify($message, sign($bob, $message)->{signature}), qr/signature/, 'refused');
	is(verify($message, sign($alice, $message)->{signature})->{status}, 201, 'then the right one');
};

subtest 'a text other than the one given out is refused' => sub {
	my $message = challenge($alice_address)->{message};
	my @altered = (
		[qr/another address/, $bob, $message =~ s/\Q$alice_address\E/$bob_address/r],
		[qr/another domain/, $alice, $message =~ s/^\S+/evil.example/r],
		[qr/not the one that was given/, $alice, $message =~ s/Sign in to areg\./Give all./r],
		[qr/nonce is not one/, $alice, $message =~ s/Nonce: \S+/Nonce: abcdefgh12345678/r],
	);
	my @not_the_one = map { $message =~ s/$_->[0]/$_->[1]/r } [qr/Chain ID: \d+/, 'Chain ID: 7'],
		[qr/URI: \S+/, 'URI: https://evil.example'], [qr/\nExpiration Time:.*/, ''],
		[qr/Issued At: 2/, 'Issued At: 3'], [qr/\z/, "\nRequest ID: 1"];

	for (@altered) {
		my ($detail, $key, $text) = @$_;
		refused(verify($text, sign($key, $text)->{signature}), $detail, 'altered');
	}
	refused(verify($_, sign($alice, $_)->{signature}), qr/not the one that was given/, 'altered')
		for @not_the_one;
	is(verify($message, sign($alice, $message)->{signature})->{status}, 201, 'the true one passes');
};

subtest 'an expired challenge is refused' => sub {
	my $challenge = challenge($alice_address);

	$areg->psql("UPDATE auth_nonces SET expires_at = now() WHERE nonce = '$challenge->{nonce}'");
	refused(verify($challenge->{message}, sign($alice, $challenge->{message})->{signature}),
		qr/expired/, 'expired');
};

subtest 'malformed signatures and texts are bad input' => sub {
	my $message = challenge($alice_address)->{message};
	my $signed = sign($alice, $message);
	my $good = $signed->{signature};
	my %bad = ('high s' => [$signed->{mirrored}, qr/upper half/],
		'v 29' => [substr($good, 0, 130) . '1d', qr/\bv\b/],
		'v 255' => [substr($good, 0, 130) . 'ff', qr/\bv\b/],
		'short' => [substr($good, 0, 130), qr/130 hex digits/],
		'odd' => [substr($good, 0, 131), qr/130 hex digits/],
		'no hex' => ["${good}xy", qr/130 hex digits/],
		'of a contract wallet' => ["${good}00", qr/contract wallets cannot sign in yet, because/],
		'of one that is not there yet (ERC-6492)' => ['0x' . 'ab' x 1500 . '6492' x 16, qr/contract wallets cannot sign in/]);

	for my $name (sort keys %bad) {
		my $answer = verify($message, $bad{$name}[0]);
		problem_ok($answer, 400, 'validation_failed');
		is($answer->{json}{errors}[0]{pointer}, '/signature', "$name: pointer");
		like($answer->{json}{errors}[0]{detail}, $bad{$name}[1], "$name: why");
	}
	my $answer = verify($message =~ s/Version: 1/Version: 2/r, '0x');
	problem_ok($answer, 400, 'validation_failed');
	is_deeply([map { $_->{pointer} } @{ $answer->{json}{errors} }], ['/message', '/signature'],
		'both faults');
	like($answer->{json}{errors}[0]{detail}, qr/line 7/, 'the line is named');
	is(verify($message, $good)->{status}, 201, 'none of that used up the nonce');
};

subtest 'of many that bring the same nonce at once exactly one gets in' => sub {
	my $message = challenge($bob_address)->{message};
	my $signature = sign($bob, $message)->{signature};
	my %count;

	$count{$_}++ for in_parallel(16, sub { verify($message, $signature)->{status} });
	is_deeply(\%count, { 201 => 1, 401 => 15 }, 'one key');
};

subtest 'a new wallet that signs in several times at once becomes one user' => sub {
	my $carol = '0x' . '3' x 64;
	my $address = sign($carol, '')->{address};
	my @messages = map { challenge($address)->{message} } 1 .. 8;
	my @signatures = map { sign($carol, $_)->{signature} } @messages;
	my @answers = in_parallel(8, sub {
		my $answer = verify($messages[$_[0]], $signatures[$_[0]]);
		return [$answer->{status}, $answer->{json}{user}{id}];
	});
	my %ids = map { $_->[1] => 1 } @answers;

	is(scalar(grep { $_->[0] == 201 } @answers), 8, 'all get in');
	is(scalar(keys %ids), 1, 'as one user');
	is(entries('user.create', $address), 1, 'made once');
};

subtest 'keys of the oldest sign-ins make room' => sub {
	my $dave = '0x' . '4' x 64;
	my $address = sign($dave, '')->{address};
	my $first = sign_in($dave, $address)->{json}{api_key};

	is($areg->get('/api/v1/me', { key => $first })->{status}, 200, 'the first works');
	my $own = $areg->post('/api/v1/keys', { name => 'wallet sign-in' }, { key => $first })->{json}{api_key};
	is($areg->get('/api/v1/me', { key => $own })->{status}, 200, 'a key that its user names so works');
	$areg->psql("UPDATE api_keys SET created_at = created_at - interval '1 hour' WHERE name = 'wallet sign-in'"
		. " AND NOT made_by_sign_in");
	sign_in($dave, $address) for 1 .. 19;
	is($areg->get('/api/v1/me', { key => $first })->{status}, 200, 'still with 20');
	is(entries('key.revoke', $address), 0, 'none was revoked');
	is(sign_in($dave, $address)->{status}, 201, 'another');
	is($areg->get('/api/v1/me', { key => $first })->{status}, 401, 'then no more');
	is(entries('key.revoke', $address), 1, 'and the log says so');
	is($areg->get('/api/v1/me', { key => $own })->{status}, 200, 'what its user made and named so stays');
};

subtest 'a user with as many scopes as there may be can sign in' => sub {
	my $erin = '0x' . '5' x 64;
	my $address = sign($erin, '')->{address};
	my @scopes = ('payments:write', 'feedback:write', 'a:' . 'x' x 212);

	is(length "@scopes", 244, 'as long as they may be');
	is($areg->aregctl(qw(user add --wallet), $address, map { ('--scope', $_) } @scopes)->{exit}, 0, 'a user');
	my $answer = sign_in($erin, $address);
	is($answer->{status}, 201, 'signs in') or diag $answer->{body};
	is($areg->psql_value("SELECT array_to_string(scopes, ' ') FROM api_keys WHERE key_prefix = '"
		. substr($answer->{json}{api_key}, 0, 18) . "'"), join(' ', sort 'keys:write', @scopes),
		'with a key that has them all');
};

subtest 'a user who is switched off cannot sign in' => sub {
	$areg->aregctl(qw(user set), lc $alice_address, qw(--active off));
	problem_ok(sign_in($alice, $alice_address), 403, 'forbidden');
};

done_testing;
