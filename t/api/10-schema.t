#!/usr/bin/perl
# SPDX-License-Identifier: Apache-2.0
# The schema by itself, in a private PostgreSQL: migrations up and down, what the constraints
# refuse, and that the statistics are exact whatever several clients do at once.
use strict;
use warnings;
use Cwd qw(abs_path);
use File::Basename qw(dirname);
use File::Temp qw(tempdir);
use POSIX ();
use Test::More;

my $sql_dir = abs_path(dirname(__FILE__) . '/../../sql');
my ($bin) = reverse sort glob('/usr/lib/postgresql/*/bin');
die "PostgreSQL server programs are not installed\n" unless $bin && -x "$bin/initdb";

my $seed = $ENV{AREG_TEST_SEED} // time;
srand $seed;
note "AREG_TEST_SEED=$seed";

# --- a private server; PostgreSQL refuses to run as root ---
my $dir = tempdir('areg-schema-XXXXXX', TMPDIR => 1, CLEANUP => 1);
my @user = $> == 0 ? getpwnam('postgres') : ();
chown $user[2], $user[3], $dir or die "$dir: $!" if @user;

sub as_server {
	my @command = @_;
	defined(my $pid = fork) or die "fork: $!";
	return $pid if $pid;
	if (@user) {
		$) = "$user[3] $user[3]";
		POSIX::setgid($user[3]);
		POSIX::setuid($user[2]);
	}
	chdir $dir;
	open STDOUT, '>>', "$dir/log";
	open STDERR, '>&', \*STDOUT;
	exec @command or POSIX::_exit(127);
}
waitpid as_server("$bin/initdb", '-D', "$dir/data", qw(-A trust -U postgres -E UTF8 --locale=C.UTF-8 --no-sync)), 0;
die "initdb failed\n" if $?;
my $server = as_server("$bin/postgres", '-D', "$dir/data", '-k', $dir,
	map { ('-c', $_) } 'listen_addresses=', 'max_connections=100', 'fsync=off', 'deadlock_timeout=200ms');
my $parent = $$;
END {
	if ($server && $$ == $parent) {
		my $status = $?;
		kill QUIT => $server;
		waitpid $server, 0;
		$? = $status;
	}
}
@ENV{qw(PGHOST PGUSER PGDATABASE PGOPTIONS)} = ($dir, 'postgres', 'postgres', '-c client_min_messages=warning');
for (1 .. 200) {
	last if system("$bin/pg_isready -q") == 0;
	select undef, undef, undef, 0.05;
}
# As README makes them; from here on as the owner, who is no superuser.
is system('createuser', 'areg') || system('createuser', 'areg_owner')
	|| system(qw(createdb -O areg_owner -E UTF8 -T template0 --locale=C.UTF-8 areg)), 0, 'two roles and a database';
@ENV{qw(PGUSER PGDATABASE)} = qw(areg_owner areg);

# Runs SQL in a session of its own; gives (output, errors).
my $sessions = 0;
sub session {
	my ($sql) = @_;
	my $file = "$dir/in.$$." . ++$sessions;
	open my $in, '>', $file or die "$file: $!";
	print $in "\\set VERBOSITY verbose\n$sql\n";
	close $in;
	my $out = `psql -XAtq -f $file 2>$file.err`;
	chomp $out;
	open my $err, '<', "$file.err" or die "$file.err: $!";
	local $/;
	my $errors = <$err>;
	unlink $file, "$file.err";
	return ($out, $errors);
}
sub psql { return (session(@_))[0] }
sub psql_errors { return (session(@_))[1] }

# Each script in a session of its own, all at once; gives their errors.
sub at_once {
	my (@scripts) = @_;
	my (@pids, $errors);
	for my $i (0 .. $#scripts) {
		defined(my $pid = fork) or die "fork: $!";
		if (!$pid) {
			my $err = psql_errors($scripts[$i]);
			open my $to, '>', "$dir/errors.$i";
			print $to $err;
			close $to;
			POSIX::_exit(0);
		}
		push @pids, $pid;
	}
	waitpid $_, 0 for @pids;
	for my $i (0 .. $#scripts) {
		open my $from, '<', "$dir/errors.$i" or die;
		$errors .= join '', <$from>;
	}
	return $errors;
}

sub migrate {
	my ($direction) = @_;
	my @files = sort glob "$sql_dir/[0-9]*.$direction.sql";
	@files = reverse @files if $direction eq 'down';
	my $errors = '';
	for my $file (@files) {
		$errors .= `psql -Xq1 -v ON_ERROR_STOP=1 -f $file 2>&1 >/dev/null`;
	}
	return $errors;
}

my $left = q{SELECT (SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace)
	+ (SELECT count(*) FROM pg_type WHERE typnamespace = 'public'::regnamespace AND NOT EXISTS
		(SELECT FROM pg_depend WHERE objid = pg_type.oid AND deptype = 'e')
		AND typname NOT LIKE '%gtrgm')
	+ (SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND NOT EXISTS
		(SELECT FROM pg_depend WHERE objid = pg_proc.oid AND deptype = 'e'))};
is migrate('up'), '', 'all migrations apply';
is migrate('down'), '', 'all migrations can be undone';
is psql($left), 0, 'undone, nothing is left';
is migrate('up'), '', 'all migrations apply again';

# --- the role that aregd runs as ---
# Whether a role may do all of these to a relation.
my $grants = do { local (@ARGV, $/) = "$sql_dir/grants.sql"; <> };
is psql('SELECT rolsuper FROM pg_roles WHERE rolname = current_user'), 'f', 'the owner is no superuser';
sub grant_runtime { return psql("SET areg.runtime_role = 'areg';\n$grants") }
is grant_runtime(), '', 'grants.sql grants';
is grant_runtime(), '', 'and once more';
my @relations = split /\n/, psql(q{SELECT relname FROM pg_class c
	WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
		AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype IN ('i', 'e')) ORDER BY 1});
cmp_ok scalar @relations, '>', 25, 'there are tables';
is_deeply [grep { $grants !~ /\['$_', '/ } @relations], [], 'grants.sql decides about each table, view and sequence';
is psql(q{SELECT p.oid::regprocedure FROM pg_proc p WHERE pronamespace = 'public'::regnamespace AND prosecdef
	AND array_to_string(proconfig, ' ') !~ 'search_path=pg_catalog, public, pg_temp$'}), '',
	'what runs with its owner\'s rights looks nothing up where others can put it';
is_deeply [grep { $grants !~ /\['\Q$_\E', 'EXECUTE'/ } split /\n/, psql(q{SELECT p.oid::regprocedure FROM pg_proc p
	WHERE pronamespace = 'public'::regnamespace AND prosecdef})], [], 'and is named in grants.sql';
is psql(q{SELECT DISTINCT grantee || ' ' || privilege_type FROM information_schema.table_privileges
	WHERE grantee = 'PUBLIC' AND table_schema = 'public'
	UNION SELECT table_name || ' ' || privilege_type FROM information_schema.table_privileges
	WHERE grantee = 'areg' AND (privilege_type NOT IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
		OR table_name IN ('audit_seals', 'audit_sealing') AND privilege_type <> 'SELECT'
		OR table_name = 'audit_log' AND privilege_type NOT IN ('SELECT', 'INSERT')
		OR table_name = 'schema_migrations' AND privilege_type <> 'SELECT')}), '', 'nobody else may do anything, nor areg too much';
is psql(q{SELECT has_schema_privilege('areg', 'public', 'CREATE'), has_sequence_privilege('areg', 'audit_log_ids', 'UPDATE')}),
	'f|f', 'it makes nothing of its own, and sets no sequence';

# --- values of the field ---
my $registry = '0x' . '80' x 20;
sub address { return sprintf '0x%040x', $_[0] }
sub hash { return sprintf '0x%064x', $_[0] }
sub agent_values {
	my (%with) = @_;
	my %row = (chain => "'base'", chain_id => 8453, registry_address => "'$registry'",
		agent_id => "areg_take_agent_id('base', '$registry')", owner_address => "'" . address(1) . "'",
		status => "'active'", source => "'api'", %with);
	my @columns = sort keys %row;
	return sprintf 'INSERT INTO erc8004_agents (%s) VALUES (%s)', join(', ', @columns),
		join(', ', @row{@columns});
}

is psql(agent_values() . ' RETURNING agent_id'), 0, 'the first agent has id 0';
is psql(q{SELECT rfc3339('2026-03-01 02:03:04.5+02')}), '2026-03-01T00:03:04.500000Z', 'times are RFC 3339';
is psql(q{SELECT string_agg(areg_trust_level(s, r, p, f), ' ') FROM (VALUES (NULL, NULL, 0, 0),
	(80, 95, 10, 1), (79, 95, 10, 1), (80, 95, 5, 1), (80, 95, 4, 1), (60, 75, 1, 1),
	(59, 75, 1, 1), (90, NULL, 0, 3)) AS v (s, r, p, f)}),
	'new excellent good good fair fair poor poor', 'trust levels are those of API.md';
is psql(q{SELECT areg_trust_score(80, 50), areg_trust_score(80, NULL) IS NULL}), '68|t', 'and the trust score';

my $agent = psql('SELECT agent_uuid FROM erc8004_agents');
my $feedback = sub {
	my ($rest, $columns) = @_;
	return "INSERT INTO erc8004_reputation (agent_uuid, client_address, feedback_index$columns)"
		. " VALUES ('$agent', '" . address(9) . "', 1$rest)";
};
my @refused = (
	['an address in upper case', agent_values(owner_address => "'0x" . 'AB' x 20 . "'"), 'eth_address_check'],
	['an agent id below 0', agent_values(agent_id => -1), 'uint256_check'],
	['an agent id of 2^256', agent_values(agent_id => '2::numeric ^ 256'), 'uint256_check'],
	['an agent id that is no integer', agent_values(agent_id => 1.5), 'uint256_check'],
	['an agent id twice', agent_values(agent_id => 0), 'erc8004_agents_identity'],
	['an active agent without id', agent_values(agent_id => 'NULL'), 'erc8004_agents_pending_has_no_id'],
	['a pending agent with id', agent_values(status => "'pending'"), 'erc8004_agents_pending_has_no_id'],
	['an unknown status', agent_values(status => "'dead'"), 'erc8004_agents_status_known'],
	['a file without digest', agent_values(registration_file => "'{}'"), 'erc8004_agents_digest_of_file'],
	['a short digest', agent_values(registration_file => "'{}'", registration_digest => "'\\x00'"), 'erc8004_agents_registration_digest_length'],
	['a name of 201 characters', agent_values(name => "repeat('x', 201)"), 'erc8004_agents_name_length'],
	['a bad chain name', agent_values(chain => "'Base!'"), 'chain_name_check'],
	['the metadata key agentWallet', "INSERT INTO erc8004_agent_metadata (agent_uuid, key, value) VALUES ('$agent', 'agentWallet', '')", 'erc8004_agent_metadata_key_valid'],
	['feedback to nobody', "INSERT INTO erc8004_reputation (agent_uuid, client_address, feedback_index, value) VALUES (gen_random_uuid(), '" . address(9) . "', 1, 1)", 'erc8004_reputation_agent_uuid_fkey'],
	['a score above 100', $feedback->(', 101, true', ', value, has_explicit_score'), 'erc8004_reputation_score_range'],
	['19 decimals', $feedback->(', 1, 19', ', value, value_decimals'), 'feedback_decimals_range'],
	['a value past 1e38', $feedback->(', 1e38 + 1', ', value'), 'feedback_value_range'],
	['feedback revoked without a time', $feedback->(', 1, true', ', value, is_revoked'), 'erc8004_reputation_revoked_has_time'],
	['a feedback index of 0', "INSERT INTO erc8004_reputation (agent_uuid, client_address, feedback_index, value) VALUES ('$agent', '" . address(9) . "', 0, 1)", 'feedback_index_range'],
	['more scores than feedback', 'UPDATE erc8004_agent_stats SET scored_feedback = total_feedback + 1', 'erc8004_agent_stats_range'],
	['a tag on fewer than no feedback', "INSERT INTO erc8004_agent_tags VALUES ('$agent', 'x', -1, 0)", 'record_count_range'],
	['a completed validation without response', "INSERT INTO erc8004_validations (agent_uuid, validator_address, request_uri, request_hash, status) VALUES ('$agent', '" . address(9) . "', '', '" . hash(1) . "', 'completed')", 'erc8004_validations_completed_has_response'],
	['a response of 101', "INSERT INTO erc8004_validations (agent_uuid, validator_address, request_uri, request_hash, status, response, responded_at) VALUES ('$agent', '" . address(9) . "', '', '" . hash(1) . "', 'completed', 101, now())", 'erc8004_validations_response_range'],
	['a negative amount', "INSERT INTO x402_payments (tx_hash, chain, amount_usdc, payer, payee, status) VALUES ('" . hash(1) . "', 'base', -1, '" . address(1) . "', '" . address(2) . "', 'pending')", 'x402_payments_amount_range'],
	['a verified payment without its time', "INSERT INTO x402_payments (tx_hash, chain, amount_usdc, payer, payee, status) VALUES ('" . hash(1) . "', 'base', 1, '" . address(1) . "', '" . address(2) . "', 'verified')", 'x402_payments_settled_has_time'],
	['an unknown tier', "INSERT INTO users (tier) VALUES ('gold')", 'users_tier_known'],
	['a bad scope', "INSERT INTO users (scopes) VALUES ('{payments}')", 'scope_list_check'],
	['two scopes in one', "INSERT INTO users (scopes) VALUES ('{\"a:b c:d\"}')", 'scope_list_check'],
	['a key hash of 31 bytes', "WITH u AS (INSERT INTO users DEFAULT VALUES RETURNING id) INSERT INTO api_keys (user_id, key_hash, key_prefix) SELECT gen_random_uuid(), '\\x00', 'p' FROM u", 'api_keys_key_hash_length'],
);
for my $case (@refused) {
	my ($what, $sql, $constraint) = @$case;
	my $errors = psql_errors("BEGIN; $sql; COMMIT;");
	like $errors, qr/CONSTRAINT NAME:\s+\Q$constraint\E\n/, "refused: $what";
}
is psql("INSERT INTO users (scopes) VALUES ('{a:b,payments:write}'), ('{}'); SELECT count(*) FROM users"), 2, 'scopes that are right are taken';

psql("INSERT INTO audit_log (actor, action, subject_type, subject_id) VALUES ('test', 'did', 'agent', '0')");
for my $sql ('UPDATE audit_log SET actor = NULL', 'DELETE FROM audit_log', 'TRUNCATE audit_log') {
	my $errors = psql_errors($sql);
	like $errors, qr/55000: .*the log is append-only/, "refused: $sql";
}
for my $sql ("UPDATE erc8004_agents SET chain = 'other'", "UPDATE erc8004_agents SET created_at = 'epoch'", 'TRUNCATE erc8004_reputation CASCADE') {
	my $errors = psql_errors($sql);
	like $errors, qr/55000/, "refused: $sql";
}

# --- feedback, one by one ---
sub give {
	my ($to, $client, $score, $value, $decimals, $tag) = @_;
	return "SELECT outcome, feedback_index, score, value, value_decimals FROM areg_give_feedback('$to', '"
		. address($client) . "', $score, $value, $decimals, '$tag', '', NULL, NULL, NULL);";
}
is psql(give($agent, 2, "'95.50'", 'NULL', 0, 'x')), 'created|1|95.5|9550|2', 'an explicit score is stored exactly';
is psql(give($agent, 2, 'NULL', "'12345'", 3, '')), 'created|2|12.35|12345|3', 'a value without tag is a score';
is psql(give($agent, 2, 'NULL', "'250'", 0, 'responseTime')), 'created|3||250|0', 'milliseconds are not';
is psql(give($agent, 3, 'NULL', "'101'", 0, 'starred')), 'created|1||101|0', 'nor is a star count past 100';
is psql(give($agent, 1, "'95'", 'NULL', 0, '')), 'own_agent||||', 'an owner cannot praise his own agent';
is psql(give('00000000-0000-0000-0000-000000000000', 2, "'95'", 'NULL', 0, '')), 'agent_not_found||||', 'nobody to give it to';
is psql("BEGIN; UPDATE erc8004_agents SET status = 'suspended';" . give($agent, 2, "'95'", 'NULL', 0, '') . 'ROLLBACK'), 'agent_suspended||||', 'a suspended agent takes none';
is psql("BEGIN; UPDATE erc8004_agents SET status = 'revoked';" . give($agent, 2, "'95'", 'NULL', 0, '') . 'ROLLBACK'), 'agent_not_active||||', 'nor does a revoked one';
like psql_errors(give($agent, 2, "'100.5'", 'NULL', 0, '')), qr/erc8004_reputation_score_range/, 'a score past 100 is refused';
like psql_errors(give($agent, 2, "'1'", "'1'", 0, '')), qr/22023/, 'a score and a value at once are refused';
my $stats = 'SELECT total_feedback, reputation_score, positive_feedback, negative_feedback, revoked_feedback, unique_clients FROM v_erc8004_agent_stats';
is psql($stats), '4|53.92|1|1|0|2', 'the statistics are right on the read that follows';
psql("UPDATE erc8004_reputation SET is_revoked = true, revoked_at = now() WHERE value = 9550");
is psql($stats), '3|12.35|0|1|1|2', 'and after a revocation';
like psql_errors("UPDATE erc8004_reputation SET $_"), qr/55000/, "what was said cannot be changed: $_"
	for 'value = 1', 'is_automatic = true';

is psql('WITH claimed AS (UPDATE erc8004_reputation SET score = 1, normalized = 1 RETURNING score, normalized)'
	. ' SELECT * FROM claimed ORDER BY normalized'), "12.345|12.345\n95.50|95.50\n|101\n|250",
	'what follows from it neither, whatever a statement says';

# --- many at once ---
my $hammer = psql(agent_values(owner_address => "'" . address(500) . "'") . ' RETURNING agent_uuid');
is at_once(map { give($hammer, 7, "'80'", 'NULL', 0, '') x 10 } 1 .. 16), '', '16 clients on one agent all succeed';
is psql("SELECT count(*), min(feedback_index), max(feedback_index) FROM erc8004_reputation WHERE agent_uuid = '$hammer'"), '160|1|160', 'with consecutive feedback indexes';
# A client may be told to try again, as areg does by itself; then its id is not lost.
my $registered = at_once(map { join '', (agent_values() . ';') x 25 } 1 .. 8);
my @again = $registered =~ /^.*ERROR:  40(?:001|P01): .*$/mg;
diag $registered if $registered ne '';
is scalar(() = $registered =~ /(?:ERROR|FATAL|error):/g), scalar @again, '200 registrations from 8 clients all succeed';
my $agents = 202 - @again;
is psql('SELECT count(*), count(DISTINCT agent_id), max(agent_id) FROM erc8004_agents'), "$agents|$agents|" . ($agents - 1), 'with consecutive ids';
psql(agent_values(agent_id => 5000, source => "'import'"));
is psql(agent_values() . ' RETURNING agent_id'), 5001, 'an import moves the counter past what it stored';
psql("DELETE FROM erc8004_agents WHERE agent_id > 30");

# --- whose an agent is and was ---
# As lines "role address", those of today marked; addresses by their number.
sub whose {
	my ($of) = @_;
	return psql("SELECT role || ' ' || ('x' || right(address, 8))::bit(32)::int || CASE WHEN until IS NULL THEN ' now'"
		. " ELSE '' END FROM erc8004_agent_addresses WHERE agent_uuid = '$of' ORDER BY role, since");
}
my $sold = psql(agent_values(created_at => "'2026-01-02Z'", owner_address => "'" . address(71) . "'") . ' RETURNING agent_uuid');
is whose($sold), 'owner 71 now', 'an agent without a wallet has an owner';
is psql("SELECT rfc3339(since) FROM erc8004_agent_addresses WHERE agent_uuid = '$sold'"), '2026-01-02T00:00:00.000000Z',
	'since it is in the registry';
psql("UPDATE erc8004_agents SET agent_wallet = '" . address(72) . "' WHERE agent_uuid = '$sold'");
is whose($sold), "owner 71 now\nwallet 72 now", 'a wallet comes';
is psql("SELECT now() - since < interval '1 minute' FROM erc8004_agent_addresses WHERE agent_uuid = '$sold' AND role = 'wallet'"), 't', 'from then on';
my $count = "SELECT count(*) FROM erc8004_agent_addresses WHERE agent_uuid = '$sold'";
psql("UPDATE erc8004_agents SET name = 'Renamed', status = 'suspended' WHERE agent_uuid = '$sold'");
is psql($count), 2, 'other changes leave that alone';
psql("UPDATE erc8004_agents SET owner_address = '" . address($_) . "', agent_wallet = NULL, status = 'active'"
	. " WHERE agent_uuid = '$sold'") for 73, 71;
is whose($sold), "owner 71\nowner 73\nowner 71 now\nwallet 72", 'a sale and a sale back are three periods';
is psql("SELECT count(*) FROM erc8004_agent_addresses a JOIN erc8004_agent_addresses b USING (agent_uuid, role)"
	. " WHERE agent_uuid = '$sold' AND a.until > b.since AND a.since < b.since"), 0, 'that do not overlap';
# One that was taken in with a time to come, and changes hands today.
psql("UPDATE erc8004_agent_addresses SET since = now() + interval '1 day' WHERE agent_uuid = '$sold' AND until IS NULL;"
	. "UPDATE erc8004_agents SET owner_address = '" . address(74) . "' WHERE agent_uuid = '$sold'");
like whose($sold), qr/owner 74 now/, 'a clock that went back ends no period before it began';
psql("ALTER TABLE erc8004_agents DISABLE TRIGGER USER; UPDATE erc8004_agents SET owner_address = '" . address(75)
	. "', agent_wallet = '" . address(76) . "' WHERE agent_uuid = '$sold'; ALTER TABLE erc8004_agents ENABLE TRIGGER USER;"
	. 'SELECT areg_rebuild_stats()');
like whose($sold), qr/owner 75 now\n(?:.*\n)*wallet 76 now/, 'a recount mends what was changed with triggers off';
psql("DELETE FROM erc8004_agents WHERE agent_uuid = '$sold'");
is psql($count), 0, 'a deleted agent leaves none';
is psql("WITH made AS (INSERT INTO erc8004_agents (chain, chain_id, registry_address, agent_id, owner_address, agent_wallet,"
	. " status, source) SELECT 'base', 8453, '$registry', 6000 + n, '" . address(77) . "', CASE WHEN n % 2 = 0 THEN '" . address(78)
	. "' END, 'active', 'import' FROM generate_series(1, 6) n RETURNING agent_uuid) SELECT FROM made;"
	. " SELECT count(*) FILTER (WHERE role = 'owner'), count(*) FILTER (WHERE role = 'wallet') FROM erc8004_agent_addresses"
	. " WHERE address IN ('" . address(77) . "', '" . address(78) . "')"), "6|3", 'an import brings many at once';
psql('DELETE FROM erc8004_agents WHERE agent_id > 30');

my $tx = 0;
sub random_step {
	my ($worker) = @_;
	my $pick = 'ORDER BY agent_uuid OFFSET ' . int(rand 30) . ' LIMIT 1';
	my $one = "(SELECT agent_uuid FROM erc8004_agents $pick)";
	my $row = '(SELECT id FROM erc8004_reputation ORDER BY id OFFSET ' . int(rand 400) . ' LIMIT 1)';
	my $link = '(SELECT payment_id FROM erc8004_agent_payments ORDER BY payment_id OFFSET ' . int(rand 60) . ' LIMIT 1)';
	my $payment = '(SELECT id FROM x402_payments ORDER BY id OFFSET ' . int(rand 100) . ' LIMIT 1)';
	my $tag = ('', 'starred', 'responseTime', 'uptime')[rand 4];
	my $status = (qw(pending verified failed rejected))[rand 4];
	my $settled = $status eq 'pending' ? 'NULL' : 'now()';
	my $client = address(600 + int rand 8);
	my $own = address(1000 * $worker + int rand 3); # a client of this worker only
	my $amount = sprintf '%.6f', rand 100;
	my $value = int rand 130;
	my $kind = rand 100;

	return "SELECT FROM areg_give_feedback($one, '$client', NULL, '$value', 0, '$tag', '', NULL, NULL, NULL);" if $kind < 23;
	return "UPDATE erc8004_agents SET owner_address = '$client', agent_wallet = CASE WHEN $value > 60 THEN '$own' END"
		. " WHERE agent_uuid = $one;" if $kind < 25;
	if ($kind < 30) {
		my $asked = hash(100_000 * $worker + ++$tx);
		return "INSERT INTO erc8004_validations (agent_uuid, validator_address, request_uri, request_hash)"
			. " SELECT a, '$own', 'ipfs://request', '$asked' FROM (SELECT $one a) s WHERE a IS NOT NULL;" . ($value < 50 ? '' : "UPDATE erc8004_validations SET"
			. " status = 'completed', response = 80, responded_at = now() WHERE request_hash = '$asked';");
	}
	if ($kind < 38) { # an import: several agents, its own indexes or the first ones, some revoked
		my $at = int(rand 2) * (100_000 * $worker + 100 * ++$tx);
		my $others = 1 + int rand 4;
		return "INSERT INTO erc8004_reputation (agent_uuid, client_address, feedback_index, value,"
			. " value_decimals, tag1, is_revoked, revoked_at, source, created_at) SELECT agent_uuid,"
			. " CASE WHEN $at > 0 AND n > 2 THEN areg_system_address() ELSE '$own' END,"
			. " $at + n, $value + n, n % 3, '$tag', n % 2 = 0, CASE n % 2 WHEN 0 THEN now() END, 'import',"
			. " now() - n * interval '1 hour' FROM erc8004_agents, generate_series(1, $others) n"
			. " WHERE agent_id % 4 = " . int(rand 4) . ' ORDER BY agent_uuid, n ON CONFLICT DO NOTHING;';
	}
	return "UPDATE erc8004_reputation SET is_revoked = true, revoked_at = now() WHERE id = $row;" if $kind < 52;
	return "UPDATE erc8004_reputation SET is_revoked = false, revoked_at = NULL WHERE id = $row;" if $kind < 56;
	return "DELETE FROM erc8004_reputation WHERE id = $row;" if $kind < 58;
	if ($kind < 74) {
		my $hash = hash(100_000 * $worker + ++$tx);
		my ($by, $enough) = ("'00000000-0000-4000-8000-00000000000" . int(rand 2) . "'", $value % 5 ? 'true' : 'false');
		return "INSERT INTO x402_payments (tx_hash, chain, amount_usdc, payer, payee, status, settled_at, recorded_by,"
			. " reaches_minimum) VALUES ('$hash', 'base', $amount, '$client', '$own', '$status', $settled,"
			. ($value % 7 ? $by : 'NULL') . ", $enough);"
			. "INSERT INTO erc8004_agent_payments (payment_id, agent_uuid) SELECT p.id, a.agent_uuid FROM x402_payments p,"
			. " erc8004_agents a WHERE p.tx_hash = '$hash' AND a.agent_uuid = $one ON CONFLICT DO NOTHING;";
	}
	return "UPDATE x402_payments SET status = '$status', settled_at = $settled, amount_usdc = $amount WHERE id = $payment;" if $kind < 86;
	return "DELETE FROM erc8004_agent_payments WHERE payment_id = $link;" if $kind < 89;
	return "INSERT INTO erc8004_agent_payments (payment_id, agent_uuid) SELECT p, a FROM (SELECT $payment p, $one a) s"
		. ' WHERE p IS NOT NULL AND a IS NOT NULL ON CONFLICT DO NOTHING;' if $kind < 93;
	return "UPDATE erc8004_agents SET status = CASE status WHEN 'active' THEN 'suspended' ELSE 'active' END WHERE agent_uuid = $one;" if $kind < 95;
	return "UPDATE erc8004_agents SET owner_address = '$client', agent_wallet = nullif('$own', '" . address(1000 * $worker) . "')"
		. " WHERE agent_uuid = $one;" if $kind < 95.5;
	return "UPDATE erc8004_agents SET name = 'Agent $value', description = CASE WHEN $value > 50 THEN 'an agent, $status' END,"
		. " services = (ARRAY['{}', '{mcp}', '{mcp,a2a,mcp}', '{a2a,web}'])[1 + $value % 4]::text[],"
		. " x402_support = $value % 3 = 0 WHERE agent_uuid = $one;" if $kind < 96;
	return "DELETE FROM erc8004_agents WHERE agent_uuid = $one;" if $kind < 98;
	return agent_values() . ';';
}
my @scripts = map { my $worker = $_; join "\n", map { random_step($worker) } 1 .. 600 } 1 .. 6;
# Meanwhile two fold the totals, and one holds them against a count in one and the same snapshot.
my $fold = 'SELECT areg_fold_totals();' . "SELECT pg_sleep(0.02);\n";
my $counted = q{(SELECT count(*) FROM erc8004_reputation),
	(SELECT count(*) FROM erc8004_reputation WHERE is_revoked), (SELECT count(*) FROM x402_payments),
	(SELECT count(*) FROM x402_payments WHERE status = 'verified'),
	(SELECT count(*) FROM x402_payments WHERE status = 'failed'),
	(SELECT coalesce(sum(amount_usdc), 0) FROM x402_payments WHERE status = 'verified'),
	(SELECT count(*) FROM erc8004_validations),
	(SELECT count(*) FROM erc8004_validations WHERE status = 'completed')};
my $look = "DO \$\$ BEGIN IF (SELECT (t.*) <> ($counted) FROM v_erc8004_totals t) THEN"
	. " RAISE EXCEPTION 'the totals are not what a count gives'; END IF; END \$\$; SELECT pg_sleep(0.01);\n";
my $errors = at_once(@scripts, ($fold x 200) x 2, $look x 150);
# Chance may have suspended or deleted each agent: one at least is in all lists.
psql(agent_values(name => "'Listed'", services => "'{mcp}'") . ';');
# A record may be given to an agent that is deleted meanwhile; nothing else may go wrong.
my @errors = grep { !/23503: .*_agent_uuid_fkey/ } $errors =~ /^.*ERROR: .*$/mg;
if (@errors) {
	diag $errors;
	# What each of those that waited in a circle was at, only the server says.
	open my $log, '<', "$dir/log" or die "$dir/log: $!";
	diag grep { /deadlock detected/ .. /STATEMENT:/ } <$log>;
}
is_deeply \@errors, [], '3,600 random changes by 6 clients: no deadlock, no other failure';
cmp_ok psql('SELECT count(*) FROM erc8004_reputation'), '>', 500, 'and they did leave records';

is psql("SELECT count(*) FROM (SELECT agent_uuid FROM erc8004_agent_clients UNION ALL SELECT agent_uuid"
	. " FROM erc8004_agent_tags UNION ALL SELECT agent_uuid FROM erc8004_agent_payers) AS of LEFT JOIN erc8004_agents a USING (agent_uuid) WHERE a.agent_uuid IS NULL"),
	0, 'a deleted agent leaves nothing behind';

my @derived = map { "erc8004_agent_$_" } qw(stats clients tags client_tags payers counts counters words services);
psql(join "", "CREATE SCHEMA kept;", map { "CREATE TABLE kept.$_ AS SELECT * FROM $_;" } @derived);
# No statement of theirs changes two payments.
cmp_ok psql('SELECT count(*) FROM erc8004_total_changes WHERE payments > 1'), '>', 0, 'totals were folded meanwhile';
my $totals = psql('SELECT * FROM v_erc8004_totals');
is $totals, psql("SELECT $counted"), 'and are what a count gives';
unlike $totals, qr/\|0\||\|0\z/, 'of every kind of record';
psql('SELECT areg_rebuild_stats()');
is psql('SELECT * FROM v_erc8004_totals'), $totals, 'a recount gives the same totals';
for my $table (@derived) {
	# Rows that say 0 are as good as none.
	my $where = $table =~ /tags$/ ? 'WHERE feedback_count > 0' : $table =~ /payers$/ ? 'WHERE verified + failed > 0' : $table =~ /counts$/ ? 'WHERE agents > 0' : '';
	cmp_ok psql("SELECT count(*) FROM $table $where"), '>', 0, "$table has rows";
	is psql("SELECT count(*) FROM ((SELECT * FROM kept.$table $where EXCEPT SELECT * FROM $table) UNION ALL"
		. " (SELECT * FROM $table $where EXCEPT SELECT * FROM kept.$table $where)) AS d"), 0, "$table is what a recount gives";
}
is psql(q{SELECT count(*) FROM erc8004_agents a WHERE ARRAY[owner_address, agent_wallet] IS DISTINCT FROM ARRAY(
	SELECT d.address FROM (VALUES ('owner'), ('wallet')) AS r (role) LEFT JOIN erc8004_agent_addresses d
	ON d.agent_uuid = a.agent_uuid AND d.role = r.role AND d.until IS NULL ORDER BY r.role)}), 0, 'everybody is known to own what he owns';
cmp_ok psql('SELECT count(*) FROM erc8004_agent_addresses WHERE until IS NOT NULL'), '>', 0, 'after some changed hands';
# The recount itself, held against the plainest words for the same numbers.
is psql(q{SELECT count(*) FROM erc8004_agents a JOIN erc8004_agent_stats s USING (agent_uuid) WHERE
	(s.total_feedback, s.revoked_feedback, s.unique_clients, s.positive_feedback, s.total_payments, s.total_amount_usdc)
	= ((SELECT count(*) FROM erc8004_reputation r WHERE r.agent_uuid = a.agent_uuid AND NOT is_revoked),
	(SELECT count(*) FROM erc8004_reputation r WHERE r.agent_uuid = a.agent_uuid AND is_revoked),
	(SELECT count(DISTINCT client_address) FROM erc8004_reputation r WHERE r.agent_uuid = a.agent_uuid AND NOT is_revoked
		AND NOT is_automatic),
	(SELECT count(*) FROM erc8004_reputation r WHERE r.agent_uuid = a.agent_uuid AND NOT is_revoked AND score >= 80),
	(SELECT count(*) FROM erc8004_agent_payments l WHERE l.agent_uuid = a.agent_uuid),
	(SELECT coalesce(sum(amount_usdc), 0) FROM erc8004_agent_payments l JOIN x402_payments p ON p.id = l.payment_id
		WHERE l.agent_uuid = a.agent_uuid AND p.status = 'verified'))
	AND (s.counted_payers, s.payer_rate_sum) = (SELECT count(*), coalesce(sum(round(verified / (verified + failed), 18)), 0)
		FROM (SELECT payer, sum(verified) AS verified, sum(least(verified, failed)) AS failed
			FROM (SELECT payer, recorded_by, count(*) FILTER (WHERE status = 'verified') AS verified,
					count(*) FILTER (WHERE status = 'failed') AS failed
				FROM erc8004_agent_payments l JOIN x402_payments p ON p.id = l.payment_id
				WHERE l.agent_uuid = a.agent_uuid AND reaches_minimum GROUP BY payer, recorded_by) AS of_facilitator
			WHERE payer NOT IN (SELECT address FROM erc8004_agent_addresses d WHERE d.agent_uuid = a.agent_uuid)
			GROUP BY payer HAVING sum(verified) > 0) AS of_payer)
	AND s.payment_success_rate IS NOT DISTINCT FROM trim_scale(round(100 * s.payer_rate_sum / nullif(s.counted_payers, 0), 2))
	AND s.reputation_score IS NOT DISTINCT FROM (SELECT trim_scale(areg_average_with_own(
			coalesce(sum(mean) FILTER (WHERE NOT is_own), 0), count(mean) FILTER (WHERE NOT is_own),
			coalesce(array_agg(mean ORDER BY mean) FILTER (WHERE is_own), '{}'))) FROM (
		SELECT CASE WHEN bool_or(is_automatic) THEN round(30 + 65 * s.payer_rate_sum / nullif(s.counted_payers, 0), 8)
			ELSE round(avg(score), 8) END AS mean, NOT bool_or(is_automatic) AND EXISTS (SELECT FROM erc8004_agent_addresses d
			WHERE d.agent_uuid = a.agent_uuid AND d.address = r.client_address) AS is_own
		FROM erc8004_reputation r WHERE r.agent_uuid = a.agent_uuid AND NOT is_revoked AND score IS NOT NULL
		GROUP BY client_address) AS of_client)
	AND s.direct_score IS NOT DISTINCT FROM (SELECT trim_scale(areg_average_with_own(
			coalesce(sum(mean) FILTER (WHERE NOT is_own), 0), count(mean) FILTER (WHERE NOT is_own),
			coalesce(array_agg(mean ORDER BY mean) FILTER (WHERE is_own), '{}'))) FROM (
		SELECT round(avg(score), 8) AS mean, EXISTS (SELECT FROM erc8004_agent_addresses d
			WHERE d.agent_uuid = a.agent_uuid AND d.address = r.client_address) AS is_own
		FROM erc8004_reputation r WHERE r.agent_uuid = a.agent_uuid AND NOT is_revoked AND NOT is_automatic
			AND score IS NOT NULL
		GROUP BY client_address) AS of_client)}),
	psql('SELECT count(*) FROM erc8004_agents'), 'a recount counts what it says';
my $tags = q{SELECT agent_uuid, tag1, feedback_count, opinions, areg_average(opinion_sum, opinions)
	FROM erc8004_agent_tags WHERE feedback_count > 0};
my $plain_tags = q{SELECT agent_uuid, tag1, sum(times), count(*), round(avg(mean), 2) FROM (
	SELECT agent_uuid, tag1, count(*) AS times, round(avg(normalized), 8) AS mean
	FROM erc8004_reputation WHERE NOT is_revoked GROUP BY agent_uuid, client_address, tag1) AS of_client
	GROUP BY agent_uuid, tag1};
is psql("SELECT count(*) FROM (($tags EXCEPT $plain_tags) UNION ALL ($plain_tags EXCEPT $tags)) AS d"), 0,
	'a recount averages tags by client';
cmp_ok psql("SELECT count(*) FROM erc8004_agent_stats WHERE own_opinions <> '{}'"), '>', 0, 'some agents have opinions of their own';

# The rule about an agent's own opinions, against every choice that there is.
is psql(q{SELECT count(*) FROM (
	SELECT others, own, (SELECT min(areg_average(coalesce((SELECT sum(o) FROM unnest(others) o), 0)
			+ coalesce((SELECT sum(own[i]) FROM generate_subscripts(own, 1) i WHERE choice & (1 << i - 1) <> 0), 0),
			cardinality(others) + (SELECT count(*) FROM generate_subscripts(own, 1) i WHERE choice & (1 << i - 1) <> 0)))
		FROM generate_series(0, (1 << cardinality(own)) - 1) choice) AS least,
		areg_average_with_own(coalesce((SELECT sum(o) FROM unnest(others) o), 0), cardinality(others), own) AS found
	FROM (SELECT ARRAY(SELECT round((random() * 100 + n * 0)::numeric, 1) FROM generate_series(1, n % 4)) AS others,
			ARRAY(SELECT round((random() * 100 + n * 0)::numeric, 1) FROM generate_series(1, n % 6) ORDER BY 1) AS own
		FROM generate_series(1, 400) n) AS cases) AS compared
	WHERE found IS DISTINCT FROM CASE WHEN others <> '{}' OR least < 50 THEN least END}), 0,
	'own opinions: the lowest average that any choice of them gives';

# One client, however loud, is one opinion.
my $calm = psql(agent_values() . ' RETURNING agent_uuid');
psql(join '', map({ give($calm, 2000 + $_, "'95'", 'NULL', 0, 'quality') } 1 .. 20),
	map { give($calm, 2100, "'0'", 'NULL', 0, 'quality') } 1 .. 100);
is psql("SELECT reputation_score, raw_average_score FROM v_erc8004_agent_stats s JOIN v_erc8004_agent_reputation USING (agent_uuid)"
	. " WHERE agent_uuid = '$calm'"), '90.48|15.83', 'a hundred zeros of one client among twenty 95s weigh as one';
is psql("SELECT feedback_count, opinions, areg_average(opinion_sum, opinions) FROM erc8004_agent_tags WHERE agent_uuid = '$calm'"),
	'120|21|90.48', 'by tag likewise';
psql("UPDATE erc8004_reputation SET is_revoked = true, revoked_at = now() WHERE agent_uuid = '$calm' AND value = 0");
is psql("SELECT reputation_score FROM v_erc8004_agent_stats WHERE agent_uuid = '$calm'"), 95, 'and revoked as none';

# Thirds, in any order and taken back again, leave nothing of themselves.
my $thirds = psql(agent_values() . ' RETURNING agent_uuid');
my @thirds = map { my $client = 2200 + $_; map { give($thirds, $client, "'$_'", 'NULL', 0, '') } 0, 0.01, 100, 33.33 } 1 .. 7;
psql(join '', @thirds);
psql("UPDATE erc8004_reputation SET is_revoked = true, revoked_at = now() WHERE agent_uuid = '$thirds' AND score IN (0, 33.33)");
psql("DELETE FROM erc8004_reputation WHERE agent_uuid = '$thirds' AND score = 0.01");
psql("UPDATE erc8004_reputation SET is_revoked = true, revoked_at = now() WHERE agent_uuid = '$thirds' AND client_address < '" . address(2207) . "' AND NOT is_revoked");
is psql("SELECT opinions, opinion_sum FROM erc8004_agent_stats WHERE agent_uuid = '$thirds'"), '1|100.00000000', 'no opinion drifts';

# Texts of any size, as an import stores them.
is psql_errors("INSERT INTO erc8004_reputation (agent_uuid, client_address, feedback_index, value, tag1, tag2,"
	. " endpoint, file_uri, source) SELECT '$calm', '" . address(2300) . "', n, 50, t || n, t, t, repeat(t, 8), 'import'"
	. " FROM (SELECT string_agg(md5(n::text), '') AS t FROM generate_series(1, 4000) n) AS long, generate_series(1, 3) n"),
	'', 'a tag of 128 kB and a URI of a megabyte are stored';
is psql("SELECT count(*), count(DISTINCT tag_key), max(octet_length(tag1)), max(octet_length(tag_key)) FROM erc8004_reputation"
	. " WHERE client_address = '" . address(2300) . "'"), '3|3|128001|174', 'whole, and only the key is cut';
is psql("SELECT count(*) FROM erc8004_agent_tags WHERE agent_uuid = '$calm' AND tag1 LIKE '%...sha256:%'"), 3, 'each counted by its own';
is psql_errors("WITH v AS (INSERT INTO erc8004_validations (agent_uuid, validator_address, request_uri, request_hash, status, response,"
	. " responded_at, response_uri, tag) SELECT '$calm', '" . address(2300) . "', t, '" . hash(7_000_000) . "', 'completed', 1, now(), t, t"
	. " FROM (SELECT string_agg(md5(n::text), '') AS t FROM generate_series(1, 32000) n) AS long)"
	. " INSERT INTO erc8004_feedback_responses (feedback_id, responder_address, response_uri) SELECT id, client_address, t"
	. " FROM erc8004_reputation, (SELECT string_agg(md5(n::text), '') AS t FROM generate_series(1, 32000) n) AS long"
	. " WHERE client_address = '" . address(2300) . "'"), '', 'validations and responses of a megabyte likewise';

# Words: of whatever can stand in a description, each with its relevance.
srand 8004;
psql(join '', map {
	my $text = join '', map { chr 32 + int rand 95 } 1 .. 200;
	$text =~ s/'/''/g;
	agent_values(name => "'Odd $_'", description => "'\xc3\xa9lan \xe5\xa4\xa9\xe6\xb0\x94 http://a.b/c''d\\e $text'") . ';'
} 1 .. 300);
my $listed = "erc8004_agent_words w JOIN erc8004_agents a USING (agent_uuid) WHERE word ~ '^[a-z][a-z0-9]*\$'";
is psql('SELECT count(*) FROM erc8004_agent_words'),
	psql("SELECT count(*) FROM erc8004_agents, unnest(search) WHERE status = 'active' AND lexeme ~ '^[[:ascii:]]'"),
	'every word of active agents that begins in ASCII is listed';
cmp_ok psql("SELECT count(*) FROM erc8004_agents, unnest(search) WHERE status = 'active' AND lexeme !~ '^[[:ascii:]]'"), '>', 0,
	'some do not';
cmp_ok psql("SELECT count(*) FROM $listed"), '>', 1000, 'many of one kind of letters';
is psql("SELECT count(*) FROM $listed AND (plainto_tsquery('simple', word)::text <> quote_literal(word)"
	. " OR relevance <> areg_words_relevance(search, plainto_tsquery('simple', word)))"), 0, 'as a query finds them';

for my $case ('counted_payers > 1', 'payer_rate_sum < counted_payers', 'counted_payers < successful_payments') {
	cmp_ok psql("SELECT count(*) FROM erc8004_agent_stats WHERE $case"), '>', 0, "some have $case";
}
cmp_ok psql('SELECT count(*) FROM erc8004_agent_payers WHERE is_self AND verified > 0'), '>', 0, 'some paid themselves';
cmp_ok psql('SELECT count(*) FROM erc8004_agent_stats WHERE direct_score <> reputation_score'), '>', 0,
	'automatic feedback makes a difference';

psql('DROP SCHEMA kept CASCADE');
is migrate('down'), '', 'the migrations can be undone with data in place';
done_testing;
