# SPDX-License-Identifier: Apache-2.0
# Metrics, and what watches them: /metrics says what API.md promises, promtool has nothing to say
# against it, and alerts and dashboard ask only for what is there.
use strict;
use warnings;

use File::Basename qw(dirname);
use File::Temp;
use IO::Handle;
use Test::More;

use lib dirname(__FILE__) . '/../lib';
use Areg::Test qw(address from_json hash root skip_without wait_until);

my $areg = Areg::Test->start(workers => 2);
my $user = $areg->make_user(tier => 'enterprise');
my $other = $areg->make_user(tier => 'enterprise');
my $rules = root() . '/conf/prometheus/areg.rules.yml';

sub slurp
{
	my ($path) = @_;
	open my $in, '<', $path or die "$path: $!\n";
	local $/;
	return scalar <$in>;
}

# Runs promtool with bytes in a file at the end of its arguments; returns exit code and output.
sub promtool
{
	my ($bytes, @arguments) = @_;
	my $file = File::Temp->new(SUFFIX => '.yml');

	print $file $bytes;
	close $file;
	my $output = $arguments[1] eq 'metrics' ? `promtool @arguments <$file 2>&1` :
		`promtool @arguments $file 2>&1`;
	return ($? >> 8, $output);
}

# {name => [{labels, value}…]} of a host's /metrics, and {name => type}.
sub scrape
{
	my ($host) = (@_, $areg);
	my (%samples, %types);
	my $text = $host->get('/metrics')->{body};
	for (split /\n/, $text) {
		$types{$1} = $2 if /^# TYPE (\S+) (\w+)$/;
		next unless /^(\w+)(?:\{(.*)\})? (\S+)$/;
		my ($name, $labels, $value) = ($1, $2 // '', $3);
		push @{ $samples{$name} }, { labels => { $labels =~ /(\w+)="((?:[^"\\]|\\.)*)"/g },
			value => $value };
	}
	return { text => $text, samples => \%samples, types => \%types };
}

sub value
{
	my ($name, %labels) = @_;
	my $sum;
	for my $sample (@{ scrape()->{samples}{$name} || [] }) {
		next if grep { ($sample->{labels}{$_} // '') ne $labels{$_} } keys %labels;
		$sum += $sample->{value};
	}
	return $sum;
}

# ---- a little of everything ----

my $agent;
for my $number (1 .. 3) {
	my $answer = $areg->post('/api/v1/agents/register', { owner_address => $user->{wallet},
		chain => 'base', registration_file => { name => "agent $number", description => 'x' } },
		{ key => $user->{key} });
	is($answer->{status}, 201, "agent $number is registered");
	$agent = $answer->{json}{agent_uuid};
}
$areg->post('/api/v1/agents/feedback', { agent_uuid => $agent,
	client_address => $other->{wallet}, score => 90 }, { key => $other->{key} });
$areg->post('/api/v1/agents/link-payment', { agent_id => $agent, tx_hash => hash('none') },
	{ key => $user->{key} });
$areg->get("/api/v1/agents/$agent") for 1 .. 3;
$areg->get('/api/v1/agents?q=agent');
$areg->get('/nowhere');

# ---- what is exported ----

# What the backends say is told from a look that may be a second old.
ok(wait_until(10, sub { (value('erc8004_active_agents_total', chain => 'base') // 0) == 3 }),
	'a second later all is told');
my $scrape = scrape();
my %names_of = (erc8004_agent_registrations_total => 'counter',
	erc8004_agent_registration_duration_seconds => 'histogram',
	erc8004_feedback_submissions_total => 'counter', erc8004_payment_links_total => 'counter',
	erc8004_agent_search_duration_seconds => 'histogram', erc8004_active_agents_total => 'untyped',
	erc8004_api_requests_total => 'counter', erc8004_api_request_duration_seconds => 'histogram',
	areg_workers_busy => 'gauge', areg_workers_idle => 'gauge', areg_worker_starts_total => 'counter',
	areg_worker_crashes_total => 'counter', areg_workers_stuck_total => 'counter',
	areg_reloads_total => 'counter', areg_caller_cache_hits_total => 'counter',
	areg_caller_cache_misses_total => 'counter', areg_limiter_refusals_total => 'counter',
	areg_limiter_fallbacks_total => 'counter', areg_database_retries_total => 'counter',
	areg_database_reconnects_total => 'counter', areg_database_failures_total => 'counter',
	areg_worker_resident_memory_bytes => 'gauge', areg_worker_private_memory_bytes => 'gauge',
	areg_error_reports_total => 'counter', areg_events_held_back_seconds => 'gauge', areg_healthy => 'gauge');
for my $name (sort keys %names_of) {
	my $sample = $names_of{$name} eq 'histogram' ? "${name}_bucket" : $name;
	is($scrape->{types}{$name}, $names_of{$name}, "$name is a $names_of{$name}");
	ok($scrape->{samples}{$sample}, "$name has a value");
}
my @unexplained = grep { $scrape->{text} !~ /^# HELP $_ \S/m } sort keys %{ $scrape->{types} };
is("@unexplained", '', 'every metric says what it is');

is(value('erc8004_active_agents_total', chain => 'base'), 3, 'active agents are those of the registry');
is(value('erc8004_agent_registrations_total', chain => 'base', status => 'success'), 3,
	'registrations are counted by chain and outcome');
is(value('erc8004_feedback_submissions_total', status => 'success'), 1, 'so is feedback');
is(value('erc8004_api_requests_total', endpoint => '/api/v1/agents/{id}', method => 'GET',
	status_code => '200'), 3, 'requests are counted by route template and status');
cmp_ok(value('areg_worker_private_memory_bytes', worker => '1'), '>', 100_000, 'a worker has memory');
cmp_ok(value('areg_worker_private_memory_bytes', worker => '1'), '<',
	value('areg_worker_resident_memory_bytes', worker => '1'), 'some of which it shares');
cmp_ok(value('areg_database_duration_seconds_count'), '>=', 4, 'time in the database is observed');
is(value('areg_reloads_total', outcome => 'failed'), 0, 'what alerts watch begins at 0');
is(value('areg_info', version => ($areg->get('/health')->{json}{version})), 1, 'the version is told');
is(scalar(() = $areg->pids_named('aregd reporter')), 0, 'without a DSN there is no reporter');

is(value('areg_healthy', check => $_), 1, "$_: well") for qw(database cache workers);
$areg->stop_server('memcached');
ok(wait_until(5, sub { value('areg_healthy', check => 'cache') == 0 }), 'memcached away: it says so');
is(value('areg_healthy', check => 'database'), 1, 'of that alone');
$areg->start_server('memcached');
ok(wait_until(10, sub { value('areg_healthy', check => 'cache') == 1 }), 'and when it is back');

# A transaction that stays open holds back the events of those that began after it.
ok(wait_until(10, sub { (value('areg_events_held_back_seconds') // 1) == 0 }), 'no event is held back');
open my $psql, '|-', Areg::Test::psql_program(), '-qAtX', '-o', '/dev/null', '-h', $areg->socket_path('pg'), '-U',
	'areg_owner', '-d', 'areg' or die "psql: $!\n";
$psql->autoflush(1);
print $psql "BEGIN; SET LOCAL application_name = 'open'; SELECT pg_current_xact_id();\n";
ok(wait_until(10, sub { $areg->psql_value("SELECT count(*) FROM pg_stat_activity
	WHERE application_name = 'open' AND backend_xid IS NOT NULL") }), 'a transaction is open');
is($areg->post('/api/v1/agents/feedback', { agent_uuid => $agent, client_address => $other->{wallet}, score => 91 },
	{ key => $other->{key} })->{status}, 201, 'something changes');
ok(wait_until(10, sub { (value('areg_events_held_back_seconds') // 0) > 1 }), 'its event is held back, for longer and longer');
print $psql "COMMIT;\n";
ok(wait_until(10, sub { (value('areg_events_held_back_seconds') // 1) == 0 }), 'until the transaction has ended');
close $psql;

my $failures = value('areg_database_failures_total', kind => 'ours');
$areg->psql('ALTER TABLE erc8004_agents RENAME TO gone');
is($areg->get("/api/v1/agents/base:$_")->{status}, 500, 'a fault of ours') for 1 .. 2;
$areg->psql('ALTER TABLE gone RENAME TO erc8004_agents');
is(value('areg_database_failures_total', kind => 'ours') - $failures, 2, 'is counted as one');

# ---- alerts and dashboard ----

my $dashboard = from_json(slurp(root() . '/conf/grafana/areg.json'));
my @queries = map { { from => "panel $_->[0]", query => $_->[1] } }
	map { my $panel = $_; map { [$panel->{title}, $_->{expr}] } @{ $panel->{targets} || [] } }
	@{ $dashboard->{panels} };
cmp_ok(scalar @queries, '>', 30, 'the dashboard asks for something');
my @variables = map { $_->{query} =~ /^label_values\((\w+), (\w+)\)$/ ? { from => "variable $_->{name}",
	query => $1 } : () } @{ $dashboard->{templating}{list} };
is(scalar @variables, 1, 'and lets one choose the host');
my %alerts = slurp($rules) =~ /^ {6}- alert: (\w+)\n {8}expr: ((?:.*\n)(?: {10}.*\n)*)/mg;
s/\A\|?\s+|\s+\z//g, s/\s+/ /g for values %alerts;
is(scalar keys %alerts, 15, 'there are 15 alerts');
push @queries, @variables, map { { from => $_, query => $alerts{$_} } } sort keys %alerts;

# Replicas have metrics where there are any. The primary is none.
my $reader = Areg::Test->start(beside => $areg, workers => 1, set => { database_read => $areg->env('DATABASE_URL') });
my $replicas = scrape($reader)->{samples};
is($replicas->{areg_replica_up}[0]{value}, 0, 'a primary among the replicas is told from them');
$scrape->{samples}{$_} //= $replicas->{$_} for grep { /^areg_replica/ } keys %$replicas;

my (@missing, %used);
for my $asked (@queries) {
	(my $query = $asked->{query}) =~ s/up\{job="areg"\}//g;
	while ($query =~ /\b((?:areg|erc8004)_\w+)(?:\{([^}]*)\})?/g) {
		my ($name, $matchers) = ($1, $2 // '');
		my $samples = $scrape->{samples}{$name};
		$used{$name} = 1;
		push @missing, "$asked->{from}: $name" unless $samples;
		for my $label ($matchers =~ /(\w+)\s*(?:=~|!~|!=|=)/g) {
			push @missing, "$asked->{from}: $name\{$label\}"
				if $samples && $label ne 'instance' && !grep { exists $_->{labels}{$label} } @$samples;
		}
	}
}
cmp_ok(scalar keys %used, '>', 25, 'alerts and dashboard look at many metrics');
is(join("\n", @missing), '', 'each of which /metrics exports, with the labels that are asked for');
my @unlinked = grep { slurp($rules) !~ m{/docs/alerts/$_\.html'$}m } sort keys %alerts;
is("@unlinked", '', 'every alert names its page of the runbook');

SKIP: {
	skip_without 'promtool is not there: it comes with the package prometheus', 4
		if system('promtool --version >/dev/null 2>&1') != 0;
	my ($exit, $output) = promtool($scrape->{text}, 'check', 'metrics');
	is("$exit $output", '0 ', 'promtool has nothing against the metrics');
	($exit, $output) = promtool(slurp($rules), 'check', 'rules');
	is($exit, 0, 'nor against the rules') or diag($output);
	(my $tests = slurp(dirname(__FILE__) . '/prometheus/rules.test.yml')) =~ s/RULES/$rules/;
	($exit, $output) = promtool($tests, 'test', 'rules');
	is($exit, 0, 'alerts fire when they should, and only then') or diag($output);
	my $number = 0;
	my $panels = join '', map {
		(my $query = $_->{query}) =~ s/\$__rate_interval/5m/g;
		$query =~ s/\$instance/.*/g;
		$query =~ s/'/''/g;
		"      - {record: 'a:b', labels: {panel: 'p" . $number++ . "'}, expr: '$query'}\n";
	} @queries;
	($exit, $output) = promtool("groups:\n  - name: panels\n    rules:\n$panels", 'check', 'rules');
	is($exit, 0, 'every query of the dashboard is PromQL') or diag($output);
}

done_testing();
