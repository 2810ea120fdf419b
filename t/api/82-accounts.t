#!/usr/bin/perl
# One's own account: /me, making keys, listing them and revoking them.
use strict;
use warnings;
use FindBin;
use Test::More;

use lib "$FindBin::Bin/../lib";
use Areg::Test qw(in_parallel problem_ok);

my $areg = Areg::Test->start(set => { limit_register => '- 100000 100000 100000',
	limit_search => '100000 100000 100000 100000', limit_read => '100000 1000 5000 50000' });
my $alice = $areg->make_user(scopes => ['payments:write'], tier => 'pro');
my $bob = $areg->make_user;

sub me { return $areg->get('/api/v1/me', { key => $_[0] }) }
sub keys_of { return $areg->get('/api/v1/keys' . ($_[1] // ''), { key => $_[0] }) }
sub make { my ($key, %body) = @_; return $areg->post('/api/v1/keys', { name => 'ci', %body }, { key => $key }) }
sub revoke { return $areg->api(DELETE => "/api/v1/keys/$_[1]", undef, { key => $_[0] }) }

subtest 'without a key there is no account' => sub {
	problem_ok($areg->api(@$_), 401, 'unauthorized')
		for [GET => '/api/v1/me'], [GET => '/api/v1/keys'], [POST => '/api/v1/keys', { name => 'x' }],
			[DELETE => '/api/v1/keys/00000000-0000-0000-0000-000000000000'];
};

subtest '/me says who calls and what is left of each limit' => sub {
	sleep 4 if time % 60 > 56; # counts must not move into the next minute meanwhile
	my $answer = me($alice->{key});
	my $read = $answer->{json}{limits}{read};

	is($answer->{status}, 200, 'status') or diag $answer->{body};
	is($answer->{json}{user}{id}, $alice->{id}, 'user');
	is($answer->{json}{user}{wallet_address}, $alice->{wallet}, 'wallet');
	is($answer->{json}{user}{tier}, 'pro', 'tier');
	is_deeply($answer->{json}{user}{scopes}, ['payments:write'], "user's scopes");
	is_deeply($answer->{json}{key}{scopes}, ['keys:write', 'payments:write'], "key's scopes");
	is($answer->{json}{key}{key_prefix}, substr($alice->{key}, 0, 18), 'prefix');
	is_deeply([sort keys %{ $answer->{json}{limits} }],
		[qw(feedback payments read register search sign_in)], 'every class');
	is($read->{limit}, 5000, 'limit of the tier');
	is($read->{remaining}, $answer->{headers}{'x-ratelimit-remaining'}, 'as the header says');
	is($read->{reset}, $answer->{headers}{'x-ratelimit-reset'}, 'reset as well');
	is(me($alice->{key})->{json}{limits}{read}{remaining}, $read->{remaining} - 1, 'one less each time');
	unlike($answer->{body}, qr/key_hash|\Q$alice->{key}\E/, 'no secret');
};

subtest 'a key is made, shown once and works at once' => sub {
	my $answer = make($alice->{key}, name => 'build server', expires_at => '2999-12-31T23:59:59+01:00');
	my $made = $answer->{json};
	my ($listed) = @{ keys_of($alice->{key})->{json}{keys} };

	is($answer->{status}, 201, 'created') or diag $answer->{body};
	is_deeply([sort keys %$made], [qw(api_key created_at expires_at id is_active key_prefix
		last_used_at name revoked_at scopes)], 'members');
	is($made->{name}, 'build server', 'name');
	is($made->{expires_at}, '2999-12-31T22:59:59.000000Z', 'expiry in UTC');
	is_deeply($made->{scopes}, ['keys:write', 'payments:write'], 'scopes of the calling key');
	is(me($made->{api_key})->{status}, 200, 'works');
	delete $made->{api_key};
	is_deeply($listed, $made, 'listed first, without the key');
	is($areg->psql_value("SELECT count(*) FROM audit_log WHERE action = 'key.create'"
		. " AND subject_id = '$made->{id}' AND actor_user = '$alice->{id}'"
		. " AND after ->> 'key_hash' IS NULL AND request_id IS NOT NULL AND client_address IS NOT NULL"),
		1, 'in the log');
};

subtest 'a key cannot have more than the one that makes it' => sub {
	my $none = make($alice->{key}, scopes => [])->{json};

	is_deeply($none->{scopes}, [], 'none asked, none given');
	my $maker = make($alice->{key}, scopes => ['keys:write'])->{json};
	problem_ok(make($maker->{api_key}, scopes => ['payments:write']), 403, 'forbidden');
	is_deeply(make($maker->{api_key})->{json}{scopes}, ['keys:write'], 'its own by default');
	problem_ok(make($bob->{key}, scopes => ['payments:write']), 403, 'forbidden');
	is_deeply(make($alice->{key}, scopes => ['payments:write'])->{json}{scopes}, ['payments:write'],
		'what it has it may pass on');
};

subtest 'a key without keys:write makes and revokes none' => sub {
	my $plain = make($alice->{key}, scopes => [])->{json};
	my $by_operator = $areg->aregctl(qw(key create --quiet --scope none --user), $alice->{id})->{stdout};

	chomp $by_operator;
	for my $key ($plain->{api_key}, $by_operator) {
		problem_ok(make($key), 403, 'scope_required');
		problem_ok(make($key, scopes => []), 403, 'scope_required');
		problem_ok(revoke($key, $plain->{id}), 403, 'scope_required');
		is(keys_of($key)->{status}, 200, 'it may look');
	}
	is(me($plain->{api_key})->{status}, 200, 'nothing was revoked');
	is(revoke($alice->{key}, $plain->{id})->{status}, 204, 'a key with it revokes this one');
	my $all = $areg->aregctl(qw(key create --quiet --user), $bob->{id})->{stdout};
	chomp $all;
	is_deeply(me($all)->{json}{key}{scopes}, ['keys:write'], 'an operator gives every right unless told');
};

subtest 'a key does not outlive the key that made it' => sub {
	my $soon = make($alice->{key}, expires_at => '2900-01-01T00:00:00Z')->{json};
	my $heir = make($soon->{api_key})->{json};

	is($heir->{expires_at}, $soon->{expires_at}, 'it ends with its maker unless told');
	is(make($soon->{api_key}, expires_at => '2899-12-31T00:00:00Z')->{json}{expires_at},
		'2899-12-31T00:00:00.000000Z', 'it may end before');
	my $answer = make($soon->{api_key}, expires_at => '2900-01-01T00:00:01Z');
	problem_ok($answer, 400, 'validation_failed');
	is($answer->{json}{errors}[0]{pointer}, '/expires_at', 'but not later');
	problem_ok(make($heir->{api_key}, expires_at => '2900-01-01T00:00:01Z'), 400, 'validation_failed');
	is($areg->psql_value("SELECT count(*) FROM api_keys WHERE user_id = '$alice->{id}'"
		. " AND expires_at > '2900-01-01' AND created_at >= (SELECT created_at FROM api_keys"
		. " WHERE id = '$soon->{id}')"), 0, 'none was made that does');
};

subtest 'a key loses the scopes that its user loses' => sub {
	my $carol = $areg->make_user(scopes => ['payments:write']);

	$areg->aregctl(qw(user set), $carol->{id}, qw(--scope none));
	is_deeply(me($carol->{key})->{json}{key}{scopes}, ['keys:write'], 'in /me');
	is_deeply(keys_of($carol->{key})->{json}{keys}[0]{scopes}, ['keys:write'], 'in the list');
	is_deeply(make($carol->{key})->{json}{scopes}, ['keys:write'], 'and for new keys');
};

subtest 'bad input is refused with every fault' => sub {
	my $answer = make($alice->{key}, name => '', expires_at => 'soon', scopes => ['everything'], x => 1);

	problem_ok($answer, 400, 'validation_failed');
	is_deeply([map { $_->{pointer} } @{ $answer->{json}{errors} }],
		['/name', '/expires_at', '/scopes/0', '/x'], 'pointers');
	$answer = make($alice->{key}, expires_at => '2020-01-01T00:00:00Z');
	problem_ok($answer, 400, 'validation_failed');
	is($answer->{json}{errors}[0]{pointer}, '/expires_at', 'a time gone by');
	problem_ok(keys_of($alice->{key}, '?colour=red'), 400, 'validation_failed');
	problem_ok(keys_of($alice->{key}, '?cursor=6e65776573740a780a79'), 400, 'validation_failed');
};

subtest 'a revoked key is refused from the next request on, by every worker' => sub {
	my $made = make($alice->{key})->{json};
	my %count;

	in_parallel(8, sub { me($made->{api_key})->{status} }); # hot in shared memory
	is(revoke($alice->{key}, $made->{id})->{status}, 204, 'revoked');
	$count{$_}++ for in_parallel(16, sub { me($made->{api_key})->{status} });
	is_deeply(\%count, { 401 => 16 }, 'refused');
	is(revoke($alice->{key}, $made->{id})->{status}, 204, 'again is the same');
	is($areg->psql_value("SELECT count(*) FROM audit_log WHERE action = 'key.revoke'"
		. " AND subject_id = '$made->{id}' AND before ->> 'is_active' = 'true'"
		. " AND after ->> 'is_active' = 'false'"), 1, 'one entry');
	my ($listed) = grep { $_->{id} eq $made->{id} } @{ keys_of($alice->{key})->{json}{keys} };
	ok(!$listed->{is_active} && $listed->{revoked_at}, 'listed as revoked');
};

subtest 'a key can revoke itself' => sub {
	my $made = make($bob->{key})->{json};

	is(revoke($made->{api_key}, $made->{id})->{status}, 204, 'revoked');
	problem_ok(revoke($made->{api_key}, $made->{id}), 401, 'unauthorized');
};

subtest 'nobody sees or revokes the keys of another' => sub {
	my $hers = keys_of($alice->{key})->{json}{keys};
	my %his = map { $_->{id} => 1 } @{ keys_of($bob->{key})->{json}{keys} };

	is(scalar(grep { $his{ $_->{id} } } @$hers), 0, 'lists are apart');
	problem_ok(revoke($bob->{key}, $hers->[-1]{id}), 404, 'key_not_found');
	problem_ok(revoke($bob->{key}, '00000000-0000-0000-0000-000000000000'), 404, 'key_not_found');
	problem_ok(revoke($bob->{key}, 'x'), 404, 'key_not_found');
	is(me($alice->{key})->{status}, 200, 'her key still works');
};

subtest 'a list is walked from the newest to the oldest' => sub {
	my (@ids, $cursor);
	my @made = map { make($bob->{key}, name => "key $_")->{json}{id} } 1 .. 7;

	do {
		my $page = keys_of($bob->{key}, '?limit=3' . ($cursor ? "&cursor=$cursor" : ''))->{json};
		push @ids, map { $_->{id} } @{ $page->{keys} };
		$cursor = $page->{next_cursor};
		make($bob->{key}, name => 'meanwhile') if @ids == 3;
	} while ($cursor);
	is_deeply([@ids[0 .. 6]], [reverse @made], 'newest first, each once');
	is(keys_of($bob->{key}, '?offset=1000')->{json}{total}, @ids + 1, 'total');
};

subtest 'a user has at most 100 active keys, also when many are made at once' => sub {
	my $dave = $areg->make_user;
	my %count;

	$areg->psql("INSERT INTO api_keys (user_id, name, key_hash, key_prefix) SELECT '$dave->{id}', 'x',"
		. " sha256(('$dave->{id}' || n)::bytea), 'areg_live_x' FROM generate_series(1, 94) n");
	$count{ $_->[0] . ' ' . $_->[1] }++ for in_parallel(12, sub {
		my $answer = make($dave->{key});
		return [$answer->{status}, $answer->{json}{code} // 'made'];
	});
	is_deeply(\%count, { '201 made' => 5, '409 too_many_keys' => 7 }, 'five fit');
	my ($last) = @{ keys_of($dave->{key})->{json}{keys} };
	revoke($dave->{key}, $last->{id});
	is(make($dave->{key})->{status}, 201, 'a revoked one makes room');
};

subtest 'changes of users and keys are told to every host, other writes are not' => sub {
	my $listen = sub {
		my ($sql) = @_;
		my $out = join "\n", map { join ' ', map { $_ // '' } @$_ }
			$areg->psql("LISTEN areg_callers; $sql; SELECT 1");
		return () = $out =~ /Asynchronous notification "areg_callers" with payload "user:$alice->{id}"/g;
	};
	my $user = "WHERE id = '$alice->{id}'";
	my $keys = "WHERE user_id = '$alice->{id}'";

	is($listen->("UPDATE users SET tier = 'free' $user"), 1, 'tier');
	is($listen->("UPDATE users SET scopes = '{}' $user"), 1, 'scopes');
	is($listen->("UPDATE users SET is_active = false $user"), 1, 'switched off');
	is($listen->("UPDATE users SET name = 'Alice' $user"), 0, 'not for a name');
	is($listen->("UPDATE users SET tier = 'free' $user"), 0, 'nor for what was so before');
	is($listen->("UPDATE api_keys SET last_used_at = now() $keys"), 0, 'nor for the last use');
	is($listen->("UPDATE api_keys SET expires_at = now() $keys"), 1, 'expiry, once a transaction');
	is($listen->("DELETE FROM api_keys $keys"), 1, 'a key gone');
	is($listen->("DELETE FROM users $user"), 1, 'a user gone');
};

done_testing;
