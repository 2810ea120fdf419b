#!/usr/bin/perl
# SPDX-License-Identifier: Apache-2.0
# One's own account: /me, making keys, listing them and revoking them, and quotas of what is stored.
use strict;
use warnings;
use FindBin;
use Test::More;

use lib "$FindBin::Bin/../lib";
use Areg::Test qw(from_json in_parallel problem_ok wait_until);

my $areg = Areg::Test->start(set => { limit_register => '- 100000 100000 100000',
	limit_search => '100000 100000 100000 100000', limit_read => '100000 1000 5000 50000',
	quota_agents => '4 1000 0', quota_bytes => '8k 1m 0' });
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

# ---- Quotas ----

my $register = '/api/v1/agents/register';
my @MOST = (4, 8192); # of tier free, here; see the top

# Text and not a structure: bytes count as they are sent.
sub file { my ($name, $bytes) = @_; return qq({"name":"$name", "description":"d", "x":") . 'x' x ($bytes // 0) . '"}' }

sub add
{
	my ($user, $file, $metadata, %headers) = @_;
	return $areg->post($register, qq({"owner_address":"$user->{wallet}", "chain":"base", )
		. qq("registration_file":$file, "metadata":) . ($metadata // '{}') . '}', { key => $user->{key}, %headers });
}

sub edit
{
	my ($user, $agent, $body) = @_;
	return $areg->api(PATCH => "/api/v1/agents/$agent", $body, { key => $user->{key} });
}

sub edit_file { my ($user, $agent, $file) = @_; return edit($user, $agent, qq({"registration_file":$file})) }
sub used { my $quotas = me($_[0]{key})->{json}{quotas}; return [map { $quotas->{$_}{used} } qw(agents bytes)] }
sub done_ok { my ($answer, $name) = @_; return ok($answer->{status} =~ /^2/, $name) || diag $answer->{body} }

# What is counted is what is there.
sub counted_ok
{
	my @wrong = $areg->psql('SELECT * FROM user_storage s FULL JOIN v_user_storage v USING (user_id)
		WHERE (coalesce(s.agents, 0), coalesce(s.bytes, 0)) <> (coalesce(v.agents, 0), coalesce(v.bytes, 0))');
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is_deeply(\@wrong, [], 'what is counted is what is stored');
}

subtest '/me says what is stored, to the byte' => sub {
	my ($user, $rich) = map { $areg->make_user(tier => $_) } qw(free enterprise);

	is_deeply(me($user->{key})->{json}{quotas}, { agents => { quota => $MOST[0], used => 0 },
		bytes => { quota => $MOST[1], used => 0 } }, 'nothing');
	is_deeply(me($rich->{key})->{json}{quotas}, { map { $_ => { quota => undef, used => 0 } } qw(agents bytes) },
		'no limit where the configuration says 0');
	my $file = file("caf\xc3\xa9");
	my $made = add($user, $file, qq({"k":"v", "caf\xc3\xa9":"", "e":"\\u00e9"}));
	done_ok($made, 'registered');
	my $bytes = length($file) + 128 + 2 + 128 + 5 + 128 + 3;
	my $agent = $made->{json}{agent_uuid};
	is_deeply(used($user), [1, $bytes], 'file, keys and values, and 128 for each entry');
	done_ok(edit($user, $agent, { metadata => { k => undef, e => 'longer', none => undef } }), 'edited');
	is_deeply(used($user), [1, $bytes - 130 + 4], 'what went is not counted any more');
	my %shown = map { $_->{id} => [@$_{qw(agents agents_quota bytes bytes_quota)}] }
		@{ from_json($areg->aregctl(qw(user list --json))->{stdout}) };
	is_deeply($shown{ $user->{id} }, [1, $MOST[0], $bytes - 130 + 4, $MOST[1]], 'aregctl user list shows the same');
	is_deeply($shown{ $rich->{id} }, [0, undef, 0, undef], 'and no limit');
	like($areg->aregctl(qw(user set --name Poor), $user->{id})->{stdout},
		qr/^AGENTS: +1\nAGENTS QUOTA: +4\nBYTES: +@{[$bytes - 126]}\nBYTES QUOTA: +8192$/m, 'user set, too');
	like($areg->aregctl(qw(user add --name New --tier enterprise))->{stdout},
		qr/^AGENTS: +0\nAGENTS QUOTA: +-\nBYTES: +0\nBYTES QUOTA: +-$/m, 'and user add');
	done_ok(edit($user, $agent, { metadata => { e => 'longer' } }), 'the same again');
	is_deeply(used($user), [1, $bytes - 130 + 4], 'changes nothing');
	counted_ok();
};

subtest 'requests at once get no more agents than the quota' => sub {
	my $user = $areg->make_user(tier => 'free');
	my $next = sub { $areg->psql_value("SELECT next_agent_id FROM erc8004_agent_counters WHERE chain = 'base'") };
	my $before = $next->();
	my @answers = in_parallel(12, sub { add($user, file("one of twelve, $_[0]")) });

	is((grep { $_->{status} == 201 } @answers), $MOST[0], 'as many as fit');
	problem_ok($_, 403, 'quota_exceeded') for grep { $_->{status} != 201 } @answers;
	is(used($user)->[0], $MOST[0], 'are counted');
	is($next->(), $before + $MOST[0], 'a refusal takes no id');
	is($areg->psql_value("SELECT count(*) FROM audit_log WHERE actor_user = '$user->{id}'"), $MOST[0],
		'and no entry of the log');
	counted_ok();
};

subtest 'nor more bytes' => sub {
	my $user = $areg->make_user(tier => 'free');
	my @agents = map { add($user, file("growing $_"))->{json}{agent_uuid} } 1 .. 3;
	my @answers = in_parallel(12, sub {
		my ($i) = @_;
		return $i < 6 ? edit_file($user, $agents[$i % 3], file("grown $i", 2500))
			: edit($user, $agents[$i % 3], { metadata => { "key $i" => 'x' x 1200 } });
	});
	my %count;

	$count{$_->{status}}++ for @answers;
	is($count{200} + $count{403}, 12, 'each is done or refused') or diag explain \%count;
	cmp_ok(used($user)->[1], '<=', $MOST[1], 'the quota holds');
	counted_ok();
	problem_ok(add($_, file('too large', $MOST[1])), 403, 'quota_exceeded')
		for $user, $areg->make_user(tier => 'free');
};

subtest 'a refused change changes nothing' => sub {
	my $user = $areg->make_user(tier => 'free');
	my $agent = add($user, file('small'), '{"a":"1"}')->{json}{agent_uuid};
	my $look = sub { [$areg->get("/api/v1/agents/$agent")->{body}, used($user),
		$areg->psql_value('SELECT count(*) FROM audit_log')] };
	my $before = $look->();

	problem_ok(edit($user, $agent, '{"registration_file":' . file('large', 5000) . ', "metadata":{"a":null, "b":"'
		. 'b' x 4000 . '"}, "status":"revoked"}'), 403, 'quota_exceeded');
	is_deeply($look->(), $before, 'neither the agent, nor what is counted, nor the log');
};

subtest 'what is refused or repeated is not counted' => sub {
	my $user = $areg->make_user(tier => 'free');
	my $file = file('once');
	my @answers = map { add($user, $file, '{"a":"1"}', 'Idempotency-Key' => 'once') } 1 .. 2;
	my $used = used($user);

	is($answers[1]{body}, $answers[0]{body}, 'a repeated request is answered');
	is_deeply($used, [1, length($file) + 128 + 2], 'and counted once');
	problem_ok(add($user, $file), 409, 'agent_already_exists');
	problem_ok(add($user, file('')), 400, 'invalid_registration_file');
	is_deeply(used($user), $used, 'a refused one is not');
	@answers = in_parallel(6, sub { add($user, file('twin')) });
	is_deeply([sort map { $_->{status} } @answers], [201, (409) x 5], 'of six equal ones at once one is made');
	is(used($user)->[0], 2, 'and counted');
	counted_ok();
};

subtest 'who has more than the quota can make it less, and no more' => sub {
	my $user = $areg->make_user(tier => 'enterprise');
	my @agents = map { add($user, file("heavy $_", 3000), '{"a":"1234"}')->{json}{agent_uuid} } 1 .. 6;

	is($areg->aregctl('user', 'set', $user->{id}, '--tier', 'free')->{exit}, 0, 'the tier is lowered');
	ok(wait_until(30, sub { me($user->{key})->{json}{quotas}{agents}{quota} }), 'which is heard of');
	my ($count, $bytes) = @{ used($user) };
	is($count, 6, 'nothing is taken away');
	problem_ok(add($user, file('one more')), 403, 'quota_exceeded');
	problem_ok(edit($user, $agents[0], { metadata => { a => '12345' } }), 403, 'quota_exceeded');
	done_ok(edit($user, $agents[0], { metadata => { a => '4321' } }), 'as much as before is taken');
	done_ok(edit($user, $agents[0], { metadata => { a => '123' } }), 'and less');
	done_ok(edit_file($user, $agents[1], file('light')), 'and a shorter file');
	$bytes -= 1 + length(file('heavy 2', 3000)) - length(file('light'));
	is_deeply(used($user), [6, $bytes], 'each makes room');
	done_ok(edit($user, $agents[2], { status => 'revoked' }), 'revoking is taken');
	$areg->psql("UPDATE erc8004_agents SET status = 'suspended' WHERE agent_uuid = '$agents[3]'");
	is_deeply(used($user), [6, $bytes], 'revoked and suspended agents are still stored');
	counted_ok();
};

subtest 'a transferred agent costs its new owner nothing, until they store something' => sub {
	my ($giver, $taker) = map { $areg->make_user(tier => 'free') } 1 .. 2;
	my $of_both = sub { [map { used($_) } $giver, $taker] };
	my $give = sub { my ($to, $which) = @_;
		$areg->psql("UPDATE erc8004_agents SET owner_address = '$to->{wallet}' WHERE $which") };
	my @agents = map { add($giver, file("given $_", 1500), '{"a":"12"}')->{json}{agent_uuid} } 1 .. 4;
	add($taker, file("own $_")) for 1 .. 4;
	my ($before, $file) = ($of_both->(), file('mine now'));
	my ($given, $own) = map { $_->[1] } @$before;

	$give->($taker, "owner_address = '$giver->{wallet}'");
	is_deeply($of_both->(), $before, 'who stored it pays on');
	problem_ok(add($giver, file('instead')), 403, 'quota_exceeded');
	done_ok(edit($taker, $agents[0], { metadata => { b => '1' } }), 'whose quota of agents is used up can change one');
	is_deeply($of_both->(), [[4, $given], [4, $own + 130]], 'and pays for what they add');
	done_ok(edit($taker, $agents[0], { metadata => { a => '1' } }), 'something in the place of what was there');
	is_deeply($of_both->(), [[4, $given - 131], [4, $own + 260]], 'for which its former owner pays no more');
	done_ok(edit_file($taker, $agents[0], $file), 'the file');
	$given -= 131 + length file('given 1', 1500);
	is_deeply($of_both->(), [[4, $given], [4, $own + 260 + length $file]], 'as well');
	done_ok(edit($taker, $agents[0], { metadata => { a => undef, b => undef } }), 'its new owner takes something away');
	is_deeply($of_both->(), [[4, $given], [4, $own + length $file]], 'and pays less');

	$give->($giver, "agent_uuid = '$agents[0]'");
	my @answers = in_parallel(12, sub {
		my ($i) = @_;
		return $i % 2 ? edit_file($giver, $agents[0], file("back $i"))
			: edit($taker, $agents[1 + $i % 3], { metadata => { a => "$i" } });
	});
	is((grep { $_->{status} == 200 } @answers), 12, 'edits at once, each of which refunds the other')
		or diag explain [map { $_->{body} } @answers];
	counted_ok();
	$areg->psql("DELETE FROM erc8004_agents WHERE agent_uuid IN ('$agents[0]', '$agents[1]')");
	is_deeply([map { $_->[0] } @{ $of_both->() }], [2, 4], 'a deleted agent is not counted');
	counted_ok();
	done_ok(add($giver, file('in its place')), 'and makes room');
};

subtest 'an import counts for nobody, until somebody changes what it brought' => sub {
	my $user = $areg->make_user(tier => 'free');
	my $registry = $areg->psql_value("SELECT registry_address FROM erc8004_agents WHERE chain = 'base' LIMIT 1");
	my $import = $areg->aregctl('import', '-', \(qq({"chain":"base", "registry_address":"$registry", )
		. qq("agent_id":700, "owner_address":"$user->{wallet}", "registration_file":) . file('imported', 20_000)
		. qq(, "metadata":{"a":"1"}}\n)));

	is($import->{exit}, 0, 'imported') or diag explain $import;
	is_deeply(used($user), [0, 0], 'not counted');
	done_ok(edit($user, 'base:700', { metadata => { a => undef } }), 'what it brought is removed');
	done_ok(edit($user, 'base:700', { metadata => { b => '1' } }), 'something is added');
	is_deeply(used($user), [0, 130], 'that is counted');
	counted_ok();
};

subtest 'users go with their quota, and it can be counted anew' => sub {
	my ($goes, $stays) = map { $areg->make_user(tier => 'free') } 1 .. 2;
	my ($agent) = map { add($_, file('whose'), '{"a":"1"}')->{json}{agent_uuid} } $goes, $stays;
	my $used = used($stays);

	$areg->psql("DELETE FROM users WHERE id = '$goes->{id}'");
	is($areg->psql_value("SELECT count(*) FROM user_storage WHERE user_id = '$goes->{id}'"), 0, 'nothing is left');
	$areg->psql("UPDATE erc8004_agents SET owner_address = '$stays->{wallet}', registration_digest = sha256('')
		WHERE agent_uuid = '$agent'");
	done_ok(edit($stays, $agent, { metadata => { a => undef } }), 'what they stored can be changed');
	$areg->psql("DELETE FROM erc8004_agents WHERE agent_uuid = '$agent'");
	is_deeply(used($stays), $used, 'and goes');
	$areg->psql('UPDATE user_storage SET agents = 7, bytes = 7');
	$areg->psql('SELECT areg_rebuild_storage()');
	is_deeply(used($stays), $used, 'counted anew');
	counted_ok();
};

subtest 'the log does not grow without end by edits that say much' => sub {
	my $user = $areg->make_user(tier => 'enterprise');
	my @many = map { "key $_" } 1 .. 1000;
	my $metadata = '{' . join(',', map { qq("$_":"0") } @many) . '}';
	my $agent = add($user, file('talkative'), $metadata)->{json}{agent_uuid};

	done_ok(edit($user, $agent, { metadata => { map { $_ => '1' } @many } }), 'edited');
	is($areg->psql_value("SELECT count(*) FROM audit_log WHERE subject_id = '$agent'"), 2, 'two entries');
	is($areg->psql_value("SELECT count(*) FROM audit_log WHERE subject_id = '$agent'
		AND octet_length(concat(before, after)) > 2000"), 0, 'short ones');
	is($areg->psql_value("SELECT (after ->> 'metadata') ~ '^sha256:[0-9a-f]{64}\$' FROM audit_log
		WHERE subject_id = '$agent' AND action = 'agent.update'"), 't', 'with a digest of what is long');
};

done_testing;
