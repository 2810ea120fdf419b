#!/usr/bin/perl
# SPDX-License-Identifier: Apache-2.0
# A backup taken while many write, restored into an empty cluster: by the commands of the page
# "Backup and restore" as they stand there. Every write that was acknowledged before it began is in
# it, the audit log verifies, a recount confirms the statistics, and events go on.
use strict;
use warnings;

use File::Basename qw(basename dirname);
use File::Temp qw(tempdir);
use Test::More;
use Time::HiRes qw(sleep time);

use lib dirname(__FILE__) . '/../lib';
use Areg::Test qw(address hash in_parallel json_text root build_dir wait_until);

my $V1 = '/api/v1';
my ($WRITERS, $BEFORE, $AFTER) = (4, 150, 20); # acknowledged writes of each, before and after the dump

my $scratch = tempdir('backup-XXXXXX', TMPDIR => 1, CLEANUP => 1);
my ($bin, $backups) = map { mkdir "$scratch/$_"; "$scratch/$_" } qw(bin backups);

# ---- the page ----

# The commands under a heading, the blocks in order.
sub commands
{
	my ($title) = @_;
	open my $in, '<', root() . '/docs/runbook-backup.md' or die "runbook-backup.md: $!\n";
	my $page = do { local $/; <$in> };
	my ($section) = $page =~ /^## \Q$title\E\n(.*?)(?=^## |\z)/ms;
	my @blocks = ($section // '') =~ /^```sh\n(.*?)^```/gms;

	die "the page has no commands under \"$title\"\n" unless @blocks;
	return @blocks;
}

sub write_file
{
	my ($name, $text) = @_;
	open my $out, '>', $name or die "$name: $!\n";
	print $out $text;
	close $out or die "$name: $!\n";
}

# Services of the host are those of a private stack, and the migrations those of this tree.
sub shims
{
	my ($areg) = @_;
	my $instance = root() . '/scripts/instance';
	my $dir = $areg->dir;
	my $socket = $areg->socket_path('pg');
	my %shim = (
		systemctl => <<~END,
			service=\$(echo "\$2" | sed 's/^areg\$/aregd/')
			case \$1 in
			restart) '$instance' "stop-\$service" --dir '$dir' && '$instance' "start-\$service" --dir '$dir' ;;
			*) '$instance' "\$1-\$service" --dir '$dir' ;;
			esac
			END
		# A user of the host is the role of that name.
		runuser => <<~END,
			[ "\$1" = -u ] && [ "\$3" = -- ] || exit 2
			export PGUSER="\$2" AREG_DATABASE_URL="postgresql:///areg?host=$socket&user=\$2"
			shift 3
			exec "\$@"
			END
		aregctl => 'case " $* " in *" migrate "*) set -- "$@" --dir "' . root() . '/sql" ;; esac' . "\n"
			. 'exec "' . build_dir() . '/aregctl" "$@"',
		'areg-backup' => "unset AREG_DATABASE_URL\nexec '" . root() . "/scripts/areg-backup' --dir '$backups' \"\$\@\"",
		# For the folder of backups, which is there.
		install => 'for folder; do :; done; test -d "$folder"',
	);

	for my $name (keys %shim) {
		write_file("$bin/$name", "#!/bin/sh\n$shim{$name}\n");
		chmod 0755, "$bin/$name";
	}
}

# Runs commands of the page on a stack, as they stand there, but for the folder. The first that fails ends it.
sub follow
{
	my ($areg, @titles) = @_;
	my $script = join '', 'set -eu', "\n", map { commands($_) } @titles;

	$script =~ s{/var/backups/areg}{$backups}g or die "the page names no folder of backups\n";
	local @ENV{qw(PATH PGHOST AREG_CONF)} = (join(':', $bin, $ENV{PATH}, reverse glob '/usr/lib/postgresql/*/bin'),
		$areg->socket_path('pg'), $areg->conf);
	return Areg::Test::_run(['bash', '-euo', 'pipefail', '-c', $script]);
}

# As PostgreSQL's superuser.
sub drop_database
{
	my ($areg) = @_;

	$areg->end_sessions; # what is dropped is in nobody's use
	local $ENV{PATH} = join ':', $ENV{PATH}, reverse glob '/usr/lib/postgresql/*/bin';
	return system 'dropdb', '-h', $areg->socket_path('pg'), '-U', 'postgres', 'areg';
}

# ---- writers ----

my $areg = Areg::Test->start(workers => 3, durable => 1);
my $facilitator = $areg->make_user(scopes => ['payments:write'], tier => 'enterprise');
my @users = map { $areg->make_user } 0 .. 2 * $WRITERS - 1;
my $dumped = "$scratch/dumped";
# A cluster that has seen more transactions than a new one: its events stand at their numbers.
$areg->psql('DO $$ BEGIN FOR i IN 1 .. 20000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$');

# One writer: goes on until the dump is there and some more, and returns what was acknowledged and
# when: [time, kind, id].
sub writes
{
	my ($i) = @_;
	my ($owner, $client) = @users[2 * $i, 2 * $i + 1];
	my (@acknowledged, $agent, $feedback, $left);
	my $until = time + 600; # a hang, not a slow machine
	my $send = sub {
		my ($kind, $who, $status, $path, $body, $id) = @_;
		my $answer = $areg->post("$V1$path", $body, { key => $who->{key} });

		die "$kind: $answer->{status} $answer->{body}" if $answer->{status} != $status;
		push @acknowledged, [time, $kind, $id // $answer->{json}{id} // $answer->{json}{agent_uuid}];
		return $acknowledged[-1][2];
	};

	for (my $n = 0; !defined $left || $left > 0; $n++) {
		die "the dump does not come\n" if time > $until;
		if ($n % 10 == 0) {
			$agent = $send->(agent => $owner, 201, '/agents/register', { owner_address => $owner->{wallet},
				chain => 'base', registration_file => { name => "Agent $i $n", description => 'Answers.' } });
		} elsif ($n % 10 == 5) {
			my $tx = hash('payment', $i, $n);
			$send->(payment => $facilitator, 201, '/payments', { tx_hash => $tx, chain => 'base',
				amount_usdc => '1.250000', payer => $client->{wallet}, payee => $owner->{wallet},
				status => 'verified' }, $tx);
			# The owner has several agents: only the facilitator can say which was paid.
			$send->(link => $facilitator, 200, '/agents/link-payment',
				{ agent_uuid => $agent, tx_hash => $tx, chain => 'base' }, $tx);
		} elsif ($n % 10 == 7) {
			$send->(validation => $owner, 201, "/agents/$agent/validations", { validator_address => $client->{wallet},
				request_uri => 'https://a.example/r', request_hash => hash('validation', $i, $n) }, hash('validation', $i, $n));
		} elsif ($n % 10 == 9) {
			$send->(revocation => $client, 200, "/agents/feedback/$feedback/revoke", undef, $feedback);
		} else {
			$feedback = $send->(feedback => $client, 201, '/agents/feedback',
				{ agent_uuid => $agent, client_address => $client->{wallet}, score => ($i * 31 + $n * 7) % 101 });
		}
		write_file("$scratch/ready-$i", '') if @acknowledged >= $BEFORE && !-e "$scratch/ready-$i";
		$left = $AFTER if !defined $left && -e $dumped;
		$left-- if defined $left;
	}
	return \@acknowledged;
}

shims($areg);
my @done = in_parallel($WRITERS + 1, sub {
	my ($i) = @_;

	return writes($i) if $i < $WRITERS;
	wait_until(500, sub { $WRITERS == grep { -e "$scratch/ready-$_" } 0 .. $WRITERS - 1 });
	my $began = time;
	my $run = follow($areg, 'Back up');
	my $ended = time;
	write_file($dumped, '');
	return { %$run, began => $began, ended => $ended };
});
my $backup = pop @done;
is($backup->{exit}, 0, 'the commands of the page make a backup, under load') or diag($backup->{stderr});
my @files = map { basename($_) } sort glob "$backups/*";
like("@files", qr/\Aareg-\d{8}T\d{6}Z\.dump areg-\d{8}T\d{6}Z\.dump\.head\z/, 'that is two files');
is((stat "$backups/$files[0]")[2] & 027, 0, 'whom nobody else can read it from, and nobody else changes');
my @acknowledged = map { @$_ } @done;
my @before = grep { $_->[0] < $backup->{began} } @acknowledged;
my @meanwhile = grep { $_->[0] >= $backup->{began} && $_->[0] <= $backup->{ended} } @acknowledged;
cmp_ok(scalar @before, '>=', $WRITERS * $BEFORE, 'hundreds of writes were acknowledged before it began');
cmp_ok(scalar @meanwhile, '>', 0, 'and ' . @meanwhile . ' while it was made');

# ---- an empty cluster ----

my $new = Areg::Test->start(workers => 2, without => [qw(aregd nginx migrate)], durable => 1);
$new->instance('start-nginx');
is(drop_database($new), 0, 'an empty cluster');
shims($new);
my $restored = follow($new, 'Restore');
is($restored->{exit}, 0, 'the commands of the page restore it') or diag($restored->{stdout} . $restored->{stderr});
like($restored->{stdout}, qr/^head: \d+:[0-9a-f]{64}$/m, 'the audit log verifies, against the head that was noted before');
is($new->get('/health')->{json}{status}, 'healthy', 'and the registry serves');

# ---- what is in it ----

my %present = (
	agent => 'SELECT agent_uuid FROM erc8004_agents',
	feedback => 'SELECT id FROM erc8004_reputation',
	revocation => 'SELECT id FROM erc8004_reputation WHERE is_revoked',
	payment => 'SELECT tx_hash FROM x402_payments',
	link => 'SELECT tx_hash FROM x402_payments p JOIN erc8004_agent_payments l ON l.payment_id = p.id',
	validation => 'SELECT request_hash FROM erc8004_validations',
);
my $stored = 0;
for my $kind (sort keys %present) {
	my %there = map { $_->[0] => 1 } $new->psql($present{$kind});
	my @asked = map { $_->[2] } grep { $_->[1] eq $kind } @before;

	cmp_ok(scalar @asked, '>', 10, "$kind: some were acknowledged before the backup began");
	is(scalar(grep { !$there{$_} } @asked), 0, 'and all of them are there');
	$stored += keys %there;
}
cmp_ok($stored, '>=', @before, 'nothing of before is missing');
is($new->psql_value("SELECT count(*) FROM audit_log WHERE action IN ('agent.register', 'feedback.give', 'feedback.revoke',"
	. " 'payment.record', 'payment.link', 'validation.request')"), $stored - $new->psql_value(
	'SELECT count(*) FROM erc8004_reputation WHERE is_automatic'), 'each has its entry in the audit log, and no entry is of what is not there');

my @derived = map { "erc8004_agent_$_" } qw(stats clients tags counts counters);
my @differ = $new->psql('BEGIN;' . join('', map { "CREATE TEMP TABLE kept_$_ AS SELECT * FROM $_;" } @derived)
	. 'CREATE TEMP TABLE kept_totals AS SELECT * FROM v_erc8004_totals;'
	. 'DO $$ BEGIN PERFORM areg_rebuild_stats(); END $$;'
	. join(' UNION ALL ', map { "SELECT '$_->[0]', count(*), (SELECT count(*) FROM (
		(SELECT * FROM $_->[1] EXCEPT ALL SELECT * FROM $_->[0])
		UNION ALL (SELECT * FROM $_->[0] EXCEPT ALL SELECT * FROM $_->[1])) AS d) FROM $_->[0]" }
		(map { [$_, "kept_$_"] } @derived), ['v_erc8004_totals', 'kept_totals'])
	. '; ROLLBACK');
is(scalar @differ, @derived + 1, 'all statistics are recounted');
ok($_->[1] > 0 && $_->[2] == 0, "$_->[0]: equal to a recount") or diag("$_->[2] rows differ of $_->[1]") for @differ;
my ($agent) = map { $_->[2] } grep { $_->[1] eq 'agent' } @before;
my $stats = $new->get("$V1/agents/$agent/stats")->{json};
is($stats->{total_feedback}, $new->psql_value("SELECT count(*) FROM erc8004_reputation WHERE agent_uuid = '$agent' AND NOT is_revoked"),
	'and the API says them');

# ---- it goes on ----

# All events behind a cursor.
sub events
{
	my ($after) = @_;
	my @events;

	while (1) {
		my $page = $new->get("$V1/events?limit=100" . (defined $after ? "&after=$after" : ''))->{json};

		push @events, @{ $page->{events} };
		$after = $page->{next_after};
		return (\@events, $after) unless $page->{has_more};
	}
}

my ($old, $after) = events();
my %told = map { ("$_->{type} " . ($_->{subject} // $_->{agent_uuid} // '') => 1) } @$old;
my %type = (agent => 'agent.registered', feedback => 'feedback.given', revocation => 'feedback.revoked');
is(scalar(grep { $type{ $_->[1] } && !$told{"$type{ $_->[1] } $_->[2]"} } @before), 0, 'every event of before is told');
cmp_ok($new->psql_value('SELECT pg_current_xact_id()'), '<', $new->psql_value('SELECT min(place) FROM erc8004_events'),
	'though the numbers of transactions begin anew');
my $given = $new->post("$V1/agents/feedback", { agent_uuid => $agent, client_address => $users[-1]{wallet}, score => 77 },
	{ key => $users[-1]{key} });
is($given->{status}, 201, 'an API key of before writes');
my $behind;
wait_until(20, sub { ($behind) = events($after); @$behind });
is(json_text([map { "$_->{type} $_->{subject}" } @$behind]), json_text(["feedback.given $given->{json}{id}"]),
	'and whoever follows events hears of it, and of nothing twice');
my $registered = $new->post("$V1/agents/register", { owner_address => $users[0]{wallet}, chain => 'base',
	registration_file => { name => 'After', description => 'Comes after the restore.' } }, { key => $users[0]{key} });
is($registered->{json}{agent_id}, $new->psql_value("SELECT count(*) - 1 FROM erc8004_agents WHERE chain = 'base'"),
	'a new agent gets the next number');
my $verified = $new->aregctl('audit', 'verify');
is($verified->{exit}, 0, 'the audit log verifies with what came since') or diag($verified->{stdout});

# ---- and what would not be found out otherwise ----

is(follow($new, 'Restore')->{exit} != 0, 1, 'a restore over a database that is there is refused');
write_file("$backups/$files[1]", '1:' . '0' x 64 . "\n");
$new->stop_server('aregd') if eval { $new->pid('aregd') };
is(drop_database($new), 0, 'once more from nothing');
$restored = follow($new, 'Restore');
is($restored->{exit}, 3, 'a log that does not go with the head of then stops it');

done_testing;
