#!/usr/bin/perl
# SPDX-License-Identifier: Apache-2.0
# aregctl as an administrator meets it: migrations, users, keys, agents and imports, on a private
# PostgreSQL.
use strict;
use warnings;
use Digest::MD5 qw(md5_hex);
use Encode qw(encode_utf8);
use File::Basename qw(dirname);
use File::Temp qw(tempdir);
use IO::Compress::Gzip qw(gzip);
use POSIX ();
use Test::More;
use Time::HiRes qw(sleep time);

use lib dirname(__FILE__) . '/../lib';
use Areg::Test qw(address build_dir from_json hash json_text mainnet_agents root sample_registry wait_until);

my $areg = Areg::Test->start(without => [qw(memcached aregd nginx)]);
my $scratch = tempdir('aregctl-XXXXXX', TMPDIR => 1, CLEANUP => 1);
my $registry = sample_registry('ethereum');
my $alice = '0x9ce7082814bDA389F3ba548BDf2626006279569c';

# Starts aregctl by itself, its output in a file: what is AREG_ in the environment of a test is no
# setting of areg. Returns its pid.
sub spawn
{
	my ($out, @arguments) = @_;
	my $pid = fork // die "fork: $!\n";

	return $pid if $pid;
	delete $ENV{$_} for grep { /^AREG_/ } keys %ENV;
	open STDOUT, '>', $out or POSIX::_exit(127);
	open STDERR, '>&', \*STDOUT;
	exec build_dir() . '/aregctl', '-c', $areg->conf, @arguments or POSIX::_exit(127);
}

sub read_file
{
	my ($path) = @_;
	open my $file, '<:raw', $path or die "$path: $!\n";
	local $/;
	return readline $file;
}

sub ctl { return $areg->aregctl(@_) }
sub ctl_json { return from_json(ctl('--json', @_)->{stdout}) }

# ctl_is(exit, qr/output/, arguments…): what it says on both channels together, and its exit code.
sub ctl_is
{
	my ($exit, $says, @arguments) = @_;
	my $run = ctl(@arguments);
	my $name = join ' ', map { ref() || length() > 60 ? '…' : $_ } @arguments;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($run->{exit}, $exit, "$name: exit $exit") or diag($run->{stderr});
	like("$run->{stdout}$run->{stderr}", $says, "$name: says $says");
	return $run;
}

sub write_file
{
	my ($name, $text) = @_;
	open my $file, '>:raw', "$scratch/$name" or die "$name: $!\n";
	print $file $text;
	close $file or die "$name: $!\n";
	return "$scratch/$name";
}

sub jsonl { return join '', map { (ref() ? json_text($_) : $_) . "\n" } @_ }

sub agent
{
	my ($id, %more) = @_;
	return { agent_id => $id, chain => 'ethereum', registry_address => $registry,
		owner_address => address("owner $id"), registered_block => 24339925 + $id,
		registered_tx => hash("tx $id"), registration_file => undef, %more };
}

sub feedback
{
	my ($id, $index, %more) = @_;
	return { record => 'feedback', chain => 'ethereum', agent_id => $id,
		client_address => address("client"), feedback_index => $index, %more };
}

sub payment
{
	my ($n, %more) = @_;
	return { record => 'payment', chain => 'ethereum', tx_hash => hash("payment $n"),
		amount_usdc => '1.250000', payer => address('payer'), payee => address('payee'),
		status => 'verified', %more };
}

sub audit_count { return $areg->psql_value('SELECT count(*) FROM audit_log') }

# Everything an import may change, to see that nothing did.
sub snapshot
{
	return $areg->psql_value(q{SELECT md5(string_agg(t, '|' ORDER BY t)) FROM (
		SELECT a::text AS t FROM erc8004_agents a UNION ALL SELECT r::text FROM erc8004_reputation r
		UNION ALL SELECT p::text FROM x402_payments p UNION ALL SELECT l::text FROM erc8004_agent_payments l
		UNION ALL SELECT s::text FROM erc8004_agent_stats s UNION ALL SELECT m::text FROM erc8004_agent_metadata m
		UNION ALL SELECT c::text FROM erc8004_agent_counters c UNION ALL SELECT id::text FROM audit_log) AS all_rows});
}

subtest 'help is everywhere' => sub {
	ctl_is(0, qr/migrate.*user.*key.*agent.*import/s, '--help');
	for my $group (qw(migrate user key agent import)) {
		ctl_is(0, qr/aregctl $group/, $group, '--help');
		ctl_is(0, qr/aregctl $group/, 'help', $group);
	}
	for my $command ('migrate up', 'migrate down', 'migrate status', 'user add', 'user list',
		'user set', 'key create', 'key list', 'key revoke', 'agent show', 'agent suspend',
		'agent reactivate') {
		my @words = split / /, $command;
		ctl_is(0, qr/^usage: aregctl $command/, @words, '--help');
		ctl_is(0, qr/^usage: aregctl $command/, 'help', @words);
		ok(-e root() . "/man/aregctl-$words[0].8.in", "$words[0] has a manual page");
	}
	ctl_is(0, qr/^aregctl \d+\.\d+/, '--version');
};

subtest 'wrong usage exits 2 and says where help is' => sub {
	ctl_is(2, qr/aregctl --help/);
	ctl_is(2, qr/unknown command "frob".*--help/, 'frob');
	ctl_is(2, qr/unknown command "user frob".*user --help/, 'user', 'frob');
	ctl_is(2, qr/aregctl key --help/, 'key');
	ctl_is(2, qr/unknown option --frob/, 'user', 'list', '--frob');
	ctl_is(2, qr/--json takes no argument/, 'user', 'list', '--json=yes');
	ctl_is(2, qr/--name needs an argument/, 'user', 'add', '--name');
	ctl_is(2, qr/unexpected "x"/, 'user', 'list', 'x');
	ctl_is(2, qr/import needs FILE/, 'import');
	ctl_is(2, qr/needs --to/, 'migrate', 'down');
};

subtest 'migrations go up and down, and a history that does not fit is refused' => sub {
	my $env = $areg->socket_path('pg');
	my $user = $areg->psql_value('SELECT current_user');
	my $n = 0;

	$areg->psql('CREATE DATABASE other OWNER areg_owner');
	local $ENV{DATABASE_URL} = "postgresql:///other?host=$env&user=$user";
	my $direct = sub {
		my @arguments = @_;
		my $out = "$scratch/direct." . $n++;
		my $pid = spawn($out, @arguments);
		return sub {
			waitpid $pid, 0;
			return ($? >> 8, read_file($out));
		};
	};
	my $says = sub {
		my ($exit, $pattern, @arguments) = @_;
		my ($got, $text) = $direct->(@arguments)->();
		local $Test::Builder::Level = $Test::Builder::Level + 1;
		is($got, $exit, "@arguments[0 .. 1]: exit $exit") or diag($text);
		like($text, $pattern, "says $pattern");
	};
	my @dir = ('--dir', "$scratch/sql");

	mkdir "$scratch/sql" or die;
	for my $i (1 .. 3) {
		write_file("sql/000${i}_t$i.up.sql", "CREATE TABLE t$i (x int); SELECT pg_sleep(0.2);");
		write_file("sql/000${i}_t$i.down.sql", "DROP TABLE t$i;");
	}
	$says->(1, qr/database has not been set up.*run aregctl migrate/, 'user', 'list');
	my @both = map { $direct->('migrate', @dir) } 1, 2;
	my @said = map { [$_->()] } @both;
	is_deeply([map { $_->[0] } @said], [0, 0], 'two at once both succeed') or diag(map { $_->[1] } @said);
	is(scalar(() = "$said[0][1]$said[1][1]" =~ /^applied /mg), 3, 'and apply each migration once');
	$says->(0, qr/nothing to do: the schema is at version 3/, 'migrate', 'up', @dir);
	$says->(0, qr/1 +t1 +applied.*3 +t3 +applied/s, 'migrate', 'status', @dir);
	$says->(0, qr/undid 0003_t3\n.*version 2/s, 'migrate', 'down', '--to', '2', @dir);
	$says->(0, qr/3 +t3 +pending/, 'migrate', 'status', @dir);

	write_file('sql/0003_t3.up.sql', 'CREATE TABLE t3 (x int); CREATE TABLE t1 (x int);');
	$says->(1, qr/0003_t3.*"t1" already exists/, 'migrate', 'up', @dir);
	write_file('sql/0003_t3.up.sql', 'CREATE TABLE t3 (x int);');
	$says->(0, qr/applied 0003_t3/, 'migrate', 'up', @dir);

	write_file('sql/0002_t2.up.sql', 'CREATE TABLE t2 (y int);');
	$says->(3, qr/0002_t2.up.sql was changed after it was applied/, 'migrate', 'up', @dir);
	$says->(3, qr/t2 +changed/, 'migrate', 'status', @dir);
	unlink "$scratch/sql/0002_t2.up.sql", "$scratch/sql/0002_t2.down.sql";
	$says->(3, qr/version 2 \(t2\) has no .up.sql file/, 'migrate', 'up', @dir);
	write_file('sql/0002_t2.up.sql', "CREATE TABLE t2 (x int); SELECT pg_sleep(0.2);");
	$says->(3, qr/version 2 .*no .down.sql/, 'migrate', 'down', '--to', '1', @dir);
	write_file('sql/0005_t5.up.sql', 'SELECT 1;');
	$says->(3, qr/no file of version 4/, 'migrate', 'up', @dir);
	$says->(1, qr/name the folder .* with --dir/, 'migrate', 'up', '--dir', "$scratch/none");
};

subtest 'users' => sub {
	my $before = audit_count();
	my $user = ctl_json(qw(user add --name Alice --tier pro --scope payments:write --wallet), $alice);
	is($user->{wallet_address}, lc $alice, 'a user is added');
	is_deeply($user->{scopes}, ['payments:write'], 'with its scopes');
	ctl_is(3, qr/already/, qw(user add --wallet), lc $alice);
	ctl_is(2, qr/checksum/, qw(user add --wallet), '0x9Ce7082814bDA389F3ba548BDf2626006279569c');
	ctl_is(2, qr/not free, pro or enterprise/, qw(user add --name x --tier gold));
	ctl_is(2, qr/is no scope/, qw(user add --name x --scope payments));
	ctl_is(2, qr/scopes are longer than 244 bytes/, qw(user add --name x --wallet), $alice,
		map { ('--scope', $_) } 'payments:write_' . 'x' x 226, 'a:b');
	ok(!eval { $areg->psql("UPDATE users SET scopes = ARRAY['payments:write_' || repeat('x', 230)]"
		. " WHERE wallet_address = lower('$alice')"); 1 } && $@ =~ /users_scopes_leave_room_for_keys_write/, 'nor does the database take them');
	ctl_is(2, qr/needs --name/, qw(user add));
	is(audit_count(), $before + 1, 'what was refused left no trace');

	is(ctl_json(qw(user set --tier enterprise), $user->{id})->{tier}, 'enterprise', 'set by id');
	my $set = ctl_json(qw(user set --scope none), $alice);
	is_deeply([@$set{qw(name tier scopes)}], ['Alice', 'enterprise', []], 'set by wallet; the rest stays');
	ctl_is(3, qr/no user/, qw(user set --tier pro), address('nobody'));
	ctl_is(2, qr/needs an option/, qw(user set), $alice);
	my ($entry) = $areg->psql(q{SELECT actor, action, before->>'tier', after->>'tier'
		FROM audit_log WHERE action = 'user.set' ORDER BY id LIMIT 1});
	like($entry->[0], qr/^aregctl:./, 'the audit log says who');
	is_deeply([@$entry[1 .. 3]], [qw(user.set pro enterprise)], 'and what');
	ctl(qw(user add --name), "odd\e[31m\nname");
	unlike(ctl(qw(user list))->{stdout}, qr/\e/, 'no control character reaches the terminal');
	like(ctl(qw(user list))->{stdout}, qr/Alice +0x9ce/, 'users are listed');
};

subtest 'keys' => sub {
	ctl(qw(user set --scope payments:write --scope agents:read), $alice);
	my $quiet = ctl(qw(key create --quiet --user), $alice);
	like($quiet->{stdout}, qr/\Aareg_live_[0-9A-Za-z]{49}\n\z/, '--quiet prints the key alone');
	is($quiet->{stderr}, '', 'and nothing on standard error');
	my $key = ctl_json(qw(key create --name ci --scope payments:write --expires 90d --user), $alice);
	is_deeply($key->{scopes}, ['payments:write'], 'a key may have fewer scopes than its user');
	my $days = $areg->psql_value("SELECT round(extract(epoch FROM expires_at - now()) / 86400) FROM api_keys WHERE id = '$key->{id}'");
	is($days, 90, 'and a time when it ends');
	my $hash = $areg->psql_value("SELECT key_hash = sha256('$key->{key}') FROM api_keys WHERE id = '$key->{id}'");
	is($hash, 't', 'its SHA-256 is stored');
	ctl_is(3, qr/no scope that its user has not/, qw(key create --scope admin:all --user), $alice);
	ctl_is(3, qr/not to come/, qw(key create --expires 2020-01-01T00:00:00Z --user), $alice);
	ctl_is(2, qr/neither an RFC 3339 time/, qw(key create --expires), $_, '--user', $alice)
		for '90', '0d', '-1d', '90m', '1e9d', '99999999999999999999d', '2027-02-30T00:00:00Z';
	ctl_is(3, qr/no user/, qw(key create --user), address('nobody'));
	ctl_is(2, qr/needs --user/, qw(key create));
	is(scalar @{ ctl_json(qw(key list --user), $alice) }, 2, 'keys are listed');
	unlike(ctl(qw(key list --json))->{stdout}, qr/\Q$key->{key}\E/, 'but for their secret part');

	ctl_is(0, qr/revoked/, qw(key revoke), $key->{key_prefix});
	ctl_is(3, qr/revoked before/, qw(key revoke), $key->{id});
	ctl_is(3, qr/no key/, qw(key revoke), 'areg_live_00000000');
	ctl_is(2, qr/id of a key or its prefix/, qw(key revoke), 'x');
	my ($state) = map { $_->{state} } grep { $_->{id} eq $key->{id} } @{ ctl_json(qw(key list)) };
	is($state, 'revoked', 'and shown as such');
	ctl(qw(user set --active off), $alice);
	ctl_is(3, qr/is off/, qw(key create --user), $alice);
	my $leaks = $areg->psql_value("SELECT count(*) FROM audit_log l WHERE l::text LIKE '%$key->{key}%'
		OR l::text ILIKE '%' || encode(sha256('$key->{key}'), 'hex') || '%'");
	is($leaks, 0, 'neither key nor hash is in the audit log');
};

subtest 'an import stores every line exactly once' => sub {
	my $file = '{ "name":"Odd",  "x":1.50, "n":"a\u0000b", "type":"Wrong" }';
	my @lines = (agent(0), jsonl_agent_with($file, 1), agent(2, registered_tx => undef,
			tx_hash => '0x' . uc substr(hash('tx 2'), 2), metadata => { role => "tr\x{e4}der" },
			token_uri => "tab\tnew\nline\\", registered_at => '2026-01-02T03:04:05Z', status => 'suspended'),
		'', feedback(0, 1, score => 87.5, tag1 => 'starred'),
		feedback(0, 2, value => -5, value_decimals => 2, tag1 => 'uptime', is_revoked => \1),
		payment(1, agent_id => 1), payment(2, status => 'pending'));
	my $path = write_file('good.jsonl', jsonl(@lines));
	my $report = ctl_json('import', $path);

	is_deeply([map { $report->{$_}{stored} } qw(agents feedback payments)], [3, 2, 2], 'all are stored');
	is($areg->psql_value('SELECT registration_file::text FROM erc8004_agents WHERE agent_id = 1'), $file,
		'a registration file stays as it was written');
	is($areg->psql_value("SELECT conformance <> '[]'::text FROM (SELECT conformance::text FROM erc8004_agents WHERE agent_id = 1) c"),
		't', 'with what is off about it');
	is($areg->psql_value('SELECT token_uri FROM erc8004_agents WHERE agent_id = 2'), "tab\tnew\nline\\",
		'tabs, newlines and backslashes arrive');
	is_deeply([$areg->psql('SELECT registered_tx FROM erc8004_agents ORDER BY agent_id')],
		[map { [hash("tx $_")] } 0 .. 2], 'registered_tx, too, in lower case, and by its older name');
	is($areg->psql_value(q{SELECT encode(value, 'hex') FROM erc8004_agent_metadata WHERE key = 'role'}),
		unpack('H*', "tr\xc3\xa4der"), 'so does metadata');
	is_deeply([$areg->psql(q{SELECT score, value, value_decimals, is_revoked FROM erc8004_reputation ORDER BY feedback_index})],
		[['87.5', 875, 1, 'f'], [undef, -5, 2, 't']], 'scores and values are exact');
	is_deeply([$areg->psql(q{SELECT total_payments, total_amount_usdc FROM erc8004_agent_stats
		JOIN erc8004_agents USING (agent_uuid) WHERE agent_id = 1})], [[1, '1.250000']], 'payments are linked');
	is($areg->psql_value(q{SELECT next_agent_id FROM erc8004_agent_counters WHERE chain = 'ethereum'}), 3,
		'the next id follows');
	is($areg->psql_value(q{SELECT after->'agents'->>'stored' FROM audit_log WHERE action = 'import'}), 3,
		'the audit log has the counts');

	my $before = snapshot();
	$report = ctl_json('import', $path);
	is_deeply([map { @{ $report->{$_} }{qw(stored already_there differs)} } qw(agents feedback payments)],
		[0, 3, 0, 0, 2, 0, 0, 2, 0], 'a second time all are there');
	is(snapshot(), $before, 'and nothing changes');

	my $changed = jsonl(agent(0, owner_address => address('new'), registered_tx => hash('other')), agent(1), feedback(0, 1, score => 10),
		payment(1, amount_usdc => 2, agent_id => 0));
	my $run = ctl(qw(import --verbose -), \$changed);
	is($run->{exit}, 0, 'other content is no failure');
	like($run->{stderr}, qr/^line 1: already there, but differs: owner_address, registered_tx$/m, 'it is named');
	like($run->{stderr}, qr/^line 2: .*registration_file/m, "line by line");
	like($run->{stderr}, qr/^line 3: .*score or value/m, 'for feedback');
	like($run->{stderr}, qr/^line 4: .*amount_usdc, agent_id/m, 'and payments');
	like($run->{stdout}, qr/agents +0 +2 +2 +0/, 'and counted');
	is(snapshot(), $before, 'and changes nothing');

	gzip(\jsonl(agent(3), agent(4), agent(3)) => "$scratch/small.gz") or die;
	$report = ctl_json('import', "$scratch/small.gz");
	is_deeply([@{ $report->{agents} }{qw(stored already_there)}], [2, 1], 'gzip is read; a line that stands twice counts once');
};

subtest 'feedback is stored whole, however long its texts are' => sub {
	my $long = join '', map { sprintf '%x', $_ } 1 .. 27_000;
	my @texts = ({ tag1 => 't' x 300, tag2 => "\x{263a}" x 300 }, { tag1 => $long }, { tag1 => $long . 'x', tag2 => $long },
		{ endpoint => "https://agent.example/$long" }, { file_uri => 'data:,' . 'z' x 1_000_000 });
	my $report = ctl_json('import', '-', \jsonl(map { feedback(1, 1 + $_, score => 50 + $_, %{ $texts[$_] }) } 0 .. $#texts));

	cmp_ok(length $long, '>', 100_000, 'more than 100 kB');
	is_deeply([@{ $report->{feedback} }{qw(stored refused)}], [scalar @texts, 0], 'all are stored');
	for my $i (0 .. $#texts) {
		for my $column (sort keys %{ $texts[$i] }) {
			is($areg->psql_value("SELECT md5($column) FROM erc8004_reputation JOIN erc8004_agents USING (agent_uuid)
				WHERE agent_id = 1 AND feedback_index = 1 + $i"), md5_hex(encode_utf8($texts[$i]{$column})), "record $i: $column is as it was");
		}
	}
	my $tags = q{SELECT string_agg(length(tag1) || ' ' || feedback_count, ', ' ORDER BY length(tag1)) FROM erc8004_agent_tags
		JOIN erc8004_agents USING (agent_uuid) WHERE agent_id = 1};
	is($areg->psql_value($tags), '0 2, 174 1, 174 1, 300 1', 'the statistics tell them all apart, by keys that fit an index');
	$areg->psql('SELECT areg_rebuild_stats()');
	is($areg->psql_value($tags), '0 2, 174 1, 174 1, 300 1', 'a recount likewise');
};

sub jsonl_agent_with
{
	my ($file, $id) = @_;
	(my $line = json_text(agent($id))) =~ s/"registration_file":null/"registration_file":$file/;
	return $line;
}

subtest 'bad lines are refused by number, each fault named, and the others stored' => sub {
	my $before = snapshot();
	my @bad = (
		['not json' => qr/not JSON/], ['[]' => qr/not an object/], ['{"agent_id":1' => qr/ends too early/],
		[agent(100, agent_id => '5') => qr/agent_id is not a number/], [agent(100, agent_id => -1) => qr/agent_id/],
		[jsonl_agent_number('1e3') => qr/agent_id/], [jsonl_agent_number('1' . '0' x 78) => qr/agent_id/],
		[agent(100, chain => 'mars') => qr/chain is not a chain of the configuration/],
		[agent(100, registry_address => '0x8004A818BFB912233c491871b3d84c89A494BD9e') => qr/not the identity registry/],
		[agent(100, owner_address => '0x9Ce7082814bDA389F3ba548BDf2626006279569c', chain => 'mars') => qr/owner_address.*checksum.*chain is not/],
		[agent(100, colour => 'red') => qr/colour is not a field/], [agent(100, registration_file => 'x') => qr/registration_file/],
		[agent(100, status => 'pending') => qr/status is not one of/], [agent(100, registered_at => 'now') => qr/registered_at not an RFC 3339/],
		[agent(100, metadata => { agentWallet => 'x' }) => qr/reserved/], [agent(100, metadata => { 'a b' => 1 }) => qr/not a string/],
		[agent(100, registered_tx => '0x12') => qr/registered_tx/], [agent(100, registered_tx => 1) => qr/registered_tx/],
		[agent(100, registered_tx => hash('x') . '0') => qr/registered_tx/],
		[agent(100, tx_hash => hash('tx 100')) => qr/tx_hash is an older name/],
		[agent(100, token_uri => "a\0b") => qr/token_uri holds a NUL/],
		[feedback(99999, 1, score => 5) => qr/no such agent/], [feedback(0, 9, score => 101) => qr/score is not within 0..100/],
		[feedback(0, 9) => qr/either score or value/], [feedback(0, 9, score => 1, value => 2) => qr/either score or value/],
		[feedback(0, 9, score => 1, value_decimals => 2) => qr/stands without value/], [feedback(0, 0, score => 1) => qr/feedback_index/],
		[feedback(0, 9, value => 1, value_decimals => 19) => qr/value_decimals/],
		[payment(9, amount_usdc => '-1') => qr/amount_usdc/], [payment(9, amount_usdc => '1.0000001') => qr/amount_usdc/],
		[payment(9, status => 'paid') => qr/status is not one of/], [payment(9, agent_id => 99999) => qr/no such agent/],
		[{ record => 'validation' } => qr/record is neither/], ['"' . 'x' x (1024 * 1024) . '"' => qr/longer than 1 MiB/],
		["\xff" => qr/UTF-8/],
	);
	my $path = write_file('bad.jsonl', jsonl(map { $_->[0] } @bad));
	my $run = ctl('import', '--json', $path);
	my $report = from_json($run->{stdout});

	is($run->{exit}, 4, 'refused lines exit 4');
	is($report->{refused}, scalar @bad, 'all are refused');
	is_deeply([sort { $a <=> $b } map { $_->{line} } @{ $report->{refusals} }], [1 .. @bad], 'by their numbers');
	for my $i (1 .. @bad) {
		my ($said) = $run->{stderr} =~ /^line $i: refused: (.*)$/m;
		like($said, $bad[$i - 1][1], "line $i");
	}
	is(snapshot(), $before, 'nothing was stored');
	$run = ctl('import', '--json', '-', \jsonl(agent(200), 'x', agent(201, chain => 'mars', colour => 1), agent(202)));
	is_deeply([@{ from_json($run->{stdout})->{agents} }{qw(stored refused)}], [2, 1], 'good lines between bad ones are stored');
	like($run->{stderr}, qr/^line 3: .*colour.*chain/m, 'every fault is named');
};

sub jsonl_agent_number
{
	my ($number) = @_;
	(my $line = json_text(agent(100))) =~ s/"agent_id":100/"agent_id":$number/;
	return $line;
}

subtest 'a constraint that nobody foresaw refuses only its line' => sub {
	$areg->psql("ALTER TABLE erc8004_agents ADD CONSTRAINT surprise CHECK (agent_id NOT IN (305, 399))");
	my $run = ctl('import', '--json', '-', \jsonl(map { agent($_) } 300 .. 420));
	is($run->{exit}, 4, 'lines are refused');
	is_deeply([map { $_->{line} } @{ from_json($run->{stdout})->{refusals} }], [6, 100], 'those, and no other');
	is(from_json($run->{stdout})->{agents}{stored}, 119, 'the rest is stored');
	$areg->psql('ALTER TABLE erc8004_agents DROP CONSTRAINT surprise');
};

subtest 'what can be read of a broken file is stored, and the rest comes with the next run' => sub {
	my $text = jsonl(map { agent($_, token_uri => hash($_) . hash("$_ too")) } 1000 .. 1999);
	gzip(\$text => "$scratch/whole.gz") or die;
	my $whole = read_file("$scratch/whole.gz");
	my $cut = write_file('cut.gz', substr $whole, 0, length($whole) / 2);
	my $run = ctl('import', '--json', $cut);
	my $stored = from_json($run->{stdout})->{agents}{stored};
	is($run->{exit}, 1, 'a gzip file that is cut off exits 1');
	like($run->{stderr}, qr/cut off/, 'and says so');
	cmp_ok($stored, '>', 100, 'what was whole is stored');
	is(from_json($run->{stdout})->{refused}, 0, 'half a line is not taken for a bad one');
	my $report = ctl_json('import', "$scratch/whole.gz");
	is($report->{agents}{stored} + $stored, 1000, 'the whole file brings the rest');
	ctl_is(1, qr/No such file/, 'import', "$scratch/absent");
	ctl_is(1, qr/directory/, 'import', $scratch);
};

subtest 'an import that is killed half-way is finished by running it again' => sub {
	my $path = write_file('many.jsonl', jsonl(map { agent($_) } 5000 .. 44999));
	my $count = sub { $areg->psql_value('SELECT count(*) FROM erc8004_agents WHERE agent_id BETWEEN 5000 AND 44999') };
	my $pid = spawn('/dev/null', 'import', $path);
	wait_until(30, sub { $count->() > 0 });
	kill KILL => $pid;
	waitpid $pid, 0;
	my $half = $count->();
	cmp_ok($half, '>', 0, 'some batches were stored');
	cmp_ok($half, '<', 40000, 'and some were not');
	my $report = ctl_json('import', $path);
	is($count->(), 40000, 'nothing is lost');
	is($report->{agents}{stored} + $report->{agents}{already_there}, 40000, 'every line is accounted for');
	is($areg->psql_value(q{SELECT agents FROM erc8004_agent_counts WHERE chain = 'ethereum' AND status = 'active'}),
		$areg->psql_value(q{SELECT count(*) FROM erc8004_agents WHERE chain = 'ethereum' AND status = 'active'}),
		'and the counts are exact');
};

subtest 'agents are shown, suspended and reactivated' => sub {
	my $shown = ctl_json(qw(agent show ethereum:1));
	is($shown->{registration_file}{name}, 'Odd', 'show by chain and number');
	is(ctl_json(qw(agent show), "eip155:1:$registry:1")->{agent_uuid}, $shown->{agent_uuid}, 'by the global form');
	is(ctl_json(qw(agent show), uc $shown->{agent_uuid})->{agent_id}, 1, 'by agent_uuid');
	ctl_is(3, qr/no agent/, qw(agent show ethereum:77777));
	ctl_is(3, qr/not configured/, qw(agent show mars:1));
	ctl_is(2, qr/not an agent_uuid/, qw(agent show), 'one');
	ctl_is(0, qr/suspended/, qw(agent suspend ethereum:1 --reason phishing));
	ctl_is(3, qr/is suspended: only one that is active or revoked/, qw(agent suspend ethereum:1));
	is(ctl_json(qw(agent show ethereum:1))->{status}, 'suspended', 'the status is changed');
	is_deeply([$areg->psql(q{SELECT before->>'status', after->>'status', after->>'reason', subject_id
		FROM audit_log WHERE action = 'agent.suspend'})],
		[['active', 'suspended', 'phishing', $shown->{agent_uuid}]], 'the audit log says why');
	ctl_is(0, qr/reactivated/, qw(agent reactivate ethereum:1));
	ctl_is(3, qr/is active: only one that is suspended/, qw(agent reactivate ethereum:1));
};

subtest 'the agents of mainnet' => sub {
	my $file = mainnet_agents() or plan skip_all => 'the real data is not here';
	$areg->psql('DELETE FROM erc8004_agents');
	my $report = ctl_json('import', "$file");
	is($report->{agents}{stored}, 18412, 'are all stored');
	note "in $report->{seconds} seconds";
	$report = ctl_json('import', "$file");
	is_deeply([@{ $report->{agents} }{qw(stored already_there differs)}], [0, 18412, 0], 'and there the second time');
};

subtest 'a sweep removes what has expired, without a running aregd' => sub {
	my $old = "now() - CASE n WHEN 0 THEN interval '23 h 50 min' ELSE interval '24 h 1 s' END";
	$areg->psql("INSERT INTO idempotency_keys (user_id, key, route, body_digest, created_at)
		SELECT (SELECT min(id::text)::uuid FROM users), 'key' || n, 'POST /', sha256(''), $old
		FROM generate_series(0, 1500) AS n");
	$areg->psql("INSERT INTO auth_nonces (nonce, address, chain_id, message, expires_at)
		SELECT 'nonce' || lpad(n::text, 8, '0'), '0x' || repeat('0', 40), 1, 'm',
			now() + CASE n WHEN 0 THEN interval '10 min' ELSE interval '-1 s' END
		FROM generate_series(0, 1000) AS n");
	$areg->psql('INSERT INTO erc8004_total_changes (feedback) SELECT 1 FROM generate_series(1, 200)');
	my $rows = $areg->psql_value('SELECT count(*) FROM erc8004_total_changes');
	my $totals = $areg->psql_value('SELECT feedback FROM v_erc8004_totals');

	# Somebody else is at one of them; who sweeps does not wait.
	my $holder = fork // die "fork: $!\n";
	if ($holder == 0) {
		open STDERR, '>', '/dev/null'; # its session is ended
		eval { $areg->psql(q{BEGIN; SELECT FROM idempotency_keys WHERE key = 'key7' FOR UPDATE;
			SELECT pg_advisory_lock(7); SELECT pg_sleep(60)}) };
		POSIX::_exit(0);
	}
	my $held = q{SELECT min(pid) FROM pg_locks WHERE locktype = 'advisory' AND objid = 7};
	ok(wait_until(20, sub { $areg->psql_value($held) }), 'one row is held');
	$areg->psql(q{INSERT INTO erc8004_events (place, type, at) SELECT 1, 'agent.updated', now() - interval '91 days'
		FROM generate_series(1, 1001)});
	my $logged = $areg->psql_value('SELECT count(*) FROM audit_log');
	ctl_is(0, qr/\Aremoved 1,499 answers kept for retries\nremoved 1,000 sign-in challenges\nremoved $rows rows .*\nremoved 1,001 events /,
		'sweep');
	$areg->psql("SELECT pg_terminate_backend(($held))");
	waitpid $holder, 0;
	is_deeply([map { @$_ } $areg->psql('SELECT key FROM idempotency_keys ORDER BY key')], ['key0', 'key7'],
		'what is held, or kept for less than a day, stays');
	is($areg->psql_value('SELECT count(*) FROM audit_log'), $logged, 'the audit log is what it was');
	is($areg->psql_value('SELECT count(*) FROM auth_nonces'), 1, 'so does a challenge that holds');
	is($areg->psql_value('SELECT feedback FROM v_erc8004_totals'), $totals, 'totals are what they were');
	is_deeply(ctl_json('sweep'), { retries => 1, challenges => 0, totals => 0, events => 0 }, 'for programs');
	ctl_is(0, qr/\Aremoved 0 .*\nremoved 0 .*\nremoved 0 /, 'sweep');
};

subtest 'without a database' => sub {
	$areg->stop_server('postgres');
	ctl_is(1, qr/check that PostgreSQL runs, and the host and port in database_url/, qw(user list));
	ctl_is(1, qr/check that PostgreSQL runs/, 'import', "$scratch/good.jsonl");
	ctl_is(1, qr/check that PostgreSQL runs/, 'sweep');
};

done_testing();
