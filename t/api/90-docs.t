#!/usr/bin/perl
# SPDX-License-Identifier: Apache-2.0
# The documentation is true: every problem code has its page, the examples there are what the
# registry answers, tables say what the program does, and no link leads nowhere.
use strict;
use warnings;
use utf8;
use FindBin;
use List::Util qw(uniq);
use Test::More;

use lib "$FindBin::Bin/../lib", "$FindBin::Bin/../../docs/lib";
use Areg::Docs::Problems;
use Areg::Test qw(root build_dir from_json json_text canonical);

my $root = root();
my $build = build_dir();
my $docs = "$build/docs";
my $areg = Areg::Test->start;
my $user = $areg->make_user;

sub text_of
{
	my ($name) = @_;
	open my $in, '<:encoding(UTF-8)', $name or die "$name: $!\n";
	local $/;
	return scalar <$in>;
}

# The rows of a page's tables, as lists of texts.
sub table_of
{
	my ($page) = @_;
	my @lines = grep { /^\|/ && !/^\| ---/ } split /\n/, text_of("$root/docs/$page.md");
	return map { [map { s/^[\s`]+|[\s`]+$//gr } split /\|/, s/^\||\|$//gr] } @lines;
}

sub fetch { return $areg->get("/docs/$_[0]") }

# ---- Problem codes ----

# "code status" of every problem that a program answers: areg says its own, nginx has them in a table.
my %answers = (
	areg => [map { "$_->{code} $_->{status}" } @{ from_json(scalar `$build/aregd -j`)->{problems} }],
	nginx => ['internal 500'], # its default
);
my $nginx = text_of("$root/conf/nginx/http.conf.in");
while ($nginx =~ /"~\^(\d)(\d)(\d|\[\d+\]) [^"]*"\s+"([a-z_]+)\|[A-Z]/g) {
	my ($start, $ends, $code) = ("$1$2", $3, $4);
	push @{ $answers{nginx} }, map { "$code $start$_" } $ends =~ /\d/g;
}
cmp_ok(scalar @{ $answers{areg} }, '>', 20, 'areg knows its problems');

my $problems = Areg::Docs::Problems->read("$root/docs/problems");
my %told = map { $_->{code} => $_ } $problems->all;
for my $who (qw(areg nginx)) {
	my @listed = map { my $problem = $_; map { "$problem->{code} $_" } @{ $problem->{"${who}_statuses"} } }
		$problems->all;
	is_deeply([sort { $a cmp $b } uniq(@{ $answers{$who} })], [sort @listed], "docs/problems has what $who answers, and no more");
}

# No problem is in the list of which no source makes use, and no code stands in the sources beside the list.
my %sources = map { $_ => text_of($_) } map { glob("$root/$_/*.[ch]") } qw(app app/* lib);
my $sources = join '', map { $sources{$_} } grep { !m{/app/problem_list\.} } keys %sources;
my @constants = text_of("$build/app/problem_list.h") =~ /^#define (PROBLEM_\w+) /mg;
is(scalar @constants, scalar @{ $answers{areg} }, 'each problem of areg has a constant');
is(join(' ', grep { $sources !~ /\b$_\b/ } @constants), '', 'and each constant is used');
# The same words mean other things there: a setting, and how a call of the database failed.
my %means_else = ('app/registry/settings.c' => 'request_timeout', 'lib/db.c' => 'unavailable outcome_unknown');
my @literals;
for my $name (sort keys %sources) {
	my $file = $name =~ s{^\Q$root\E/}{}r;
	my %else = map { $_ => 1 } split / /, $means_else{$file} // '';

	next if $file =~ m{^app/problem_list\.}; # made there when the build is where the sources are
	push @literals, map { "$file: $_" } grep { $told{$_} && !$else{$_} } $sources{$name} =~ /"([a-z]+(?:_[a-z]+)*)"/g;
}
is(join(', ', @literals), '', 'no code is spelt out in a source');

my $errors = fetch('errors.html')->{body};
is(join(' ', grep { $errors !~ m{<a href="errors/$_\.html">} } sort keys %told), '',
	'the page "Errors" leads to all of them');

# What their examples show is what comes when they are tried, where no history is needed for it.
my %with_key = map { $_ => 1 } qw(invalid_registration_file invalid_score key_not_found tier_required);
for my $code (qw(validation_failed invalid_address invalid_score invalid_registration_file
	chain_not_supported unauthorized not_found agent_not_found key_not_found method_not_allowed
	unsupported_media_type)) {
	my $problem = $told{$code};
	my ($method, $path) = split / /, $problem->{request};
	my $body = $problem->{body};
	my %headers = $with_key{$code} ? (key => $user->{key}) : ();

	$headers{'Content-Type'} = 'text/plain' if $code eq 'unsupported_media_type';
	if (defined $body) {
		my $uuid = '00000000-0000-4000-8000-000000000000';
		$body =~ s/"0x…"/"$user->{wallet}"/g;
		$body =~ s/"…"/"$uuid"/g;
	}
	my $answer = $areg->api($method, $path, $body // ($method eq 'POST' ? '{}' : undef), \%headers);
	my $want = JSON::PP->new->decode(Areg::Docs::Problems::example($problem));
	is($answer->{json}{type}, $areg->env('AREG_URL') . "/docs/errors/$code.html",
		"$code leads to its page");
	delete $_->{request_id}, delete $_->{type} for $want, $answer->{json};
	is(canonical(json_text($answer->{json})), canonical(json_text($want)),
		"the example of $code is what the registry answers");
	for my $header (@{ $problem->{headers} }) {
		my ($name, $value) = split /: /, $header, 2;
		is($answer->{headers}{ lc $name }, $value, "and so is its header $name");
	}
}

# ---- Tables ----

my %limits;
for ((text_of("$root/app/registry/limits.c") =~ /rate_defaults = \{(.*?)\n\};/s)[0] =~ /(\[.*?\] = \{.*?\})/g) {
	my ($class, $numbers) = /\[RATE_(\w+)\] = \{ (.*?) \}/;
	$limits{ lc $class } = join ' ', split /,\s*/, $numbers;
}
my %shown = map { $_->[0] => join ' ', map { tr/,//dr =~ s/–/0/r } @$_[1 .. 4] }
	grep { @$_ == 5 && $_->[1] =~ /^[\d–]/ } table_of('limits');
is_deeply(\%shown, \%limits, 'the page "Rate limits" shows the numbers of the program');
my %quotas = text_of("$root/app/registry/settings.c") =~ /"quota_(\w+)", CONF_TEXT, .*?, "(.*?)"/g;
%shown = map { $_->[0] => join ' ', map { tr/,//dr =~ s/ ([MG])iB/\l$1/r } @$_[1 .. 3] }
	grep { @$_ == 4 && $_->[1] =~ /^\d/ } table_of('limits');
is_deeply(\%shown, \%quotas, 'and its quotas');

my ($types) = text_of("$root/sql/0010_events.up.sql") =~ /type_known CHECK \(VALUE IN \((.*?)\)/s;
is(join(' ', sort map { $_->[0] =~ /^(\w+\.\w+)$/ } table_of('events')),
	join(' ', sort $types =~ /'([^']+)'/g), 'the page "Events" tells every type that there is');

# ---- Pages ----

my @pages = map { s{^\Q$docs\E/}{}r } grep { !/\/template\.html$/ }
	glob("$docs/*.html $docs/errors/*.html $docs/alerts/*.html $docs/manual/*.html");
is(join(' ', grep { !-e "$docs/errors/$_.html" } sort keys %told), '', 'each code\'s page is built');
is(fetch('')->{body}, fetch('index.html')->{body}, '/docs/ is the overview');

my %page;
for my $name (@pages) {
	my $answer = fetch($name);
	my $text = text_of("$docs/$name");

	is("$answer->{status} $answer->{headers}{'content-type'}", '200 text/html; charset=utf-8',
		"$name is served");
	utf8::decode($answer->{body});
	$page{$name} = $answer->{body};
}

sub anchors { return { map { $_ => 1 } $_[0] =~ /\bid="([^"]+)"/g } }

my (%served, %anchors);
for my $name (sort keys %page) {
	my ($folder) = $name =~ m{^(.*/)?};
	my @broken;

	for my $link (uniq $page{$name} =~ /(?:href|src)="([^"]+)"/g) {
		next if $link =~ /^https:/;
		my ($path, $anchor) = split /#/, $link, 2;
		my $url = $path eq '' ? "/docs/$name" : $path =~ m{^/} ? $path : '/docs/' . ($folder // '') . $path;
		1 while $url =~ s{[^/]+/\.\./}{};
		$served{$url} //= $areg->get($url);
		push @broken, $link if $served{$url}{status} != 200;
		next unless defined $anchor;
		$anchors{$url} //= anchors($served{$url}{body});
		push @broken, $link unless $anchors{$url}{$anchor};
	}
	is("@broken", '', "no link leads nowhere in $name");
	my @ids = $page{$name} =~ /\bid="([^"]+)"/g;
	is(scalar @ids, scalar uniq(@ids), 'and no two places in it have one name');
}

# ---- The navigation, the search, the keywords ----

# The page itself, or the one that lists it ("Errors" for errors/not_found.html), is in the navigation,
# and marked there as where the reader is.
is(join(' ', grep {
	my ($entry) = m{^([\w-]+)};
	my ($navigation) = $page{$_} =~ m{<nav class="site"[^>]*>(.*?)</nav>}s;
	$navigation !~ m{<a href="(?:\.\./)?\Q$entry\E\.html" aria-current="(?:page|true)">};
} sort keys %page), '', 'every page is in the navigation');
is(join(' ', grep { $page{$_} !~ m{<nav class="site"[^>]*>\s*<details><summary>} } sort keys %page), '',
	'which is closed at first where there is little room');
is(join(' ', grep { $page{$_} !~ m{<form id="site-search"[^>]* hidden>}
		|| $page{$_} !~ m{<a id="site-keywords" href="(?:\.\./)?keywords\.html">} } sort keys %page), '',
	'without scripts no page shows the search field, and each leads to the keywords');

for my $script (qw(search.js search-index.js)) {
	my $served = fetch($script);
	is("$served->{status} $served->{headers}{'content-type'}", '200 text/javascript', "$script is served");
	unlike(text_of("$docs/$script"), qr/[^\x00-\x7f]/, 'and needs no charset to be read');
}

# One list of the index, which is JSON.
sub list_of_index
{
	my ($list) = text_of("$docs/search-index.js") =~ /^$_[0]: (\[.*?^\]),?$/ms;
	return @{ from_json($list) };
}

my @indexed_pages = list_of_index('pages');
my %indexed = map { $_->[0] => 1 } @indexed_pages;
is(join(' ', grep { !$indexed{$_} } sort keys %page), '', 'every page is in the index');
is(join(' ', grep { !$page{$_} } sort keys %indexed), '', 'and no other is');
my @entries = list_of_index('entries');
cmp_ok(scalar @entries, '>', 500, 'headings and entries of tables are in the index');
is(join(' ', map { "$indexed_pages[$_->[0]][0]#$_->[1]" } grep {
	$_->[1] ne '' && !anchors($page{ $indexed_pages[$_->[0]][0] })->{ $_->[1] } } @entries), '',
	'and stand where it says');
my %has_entry = map { ("$indexed_pages[$_->[0]][0]#$_->[1]" => 1) } @entries;
my @lost;
for my $name (grep { $_ ne 'keywords.html' } sort keys %page) {
	my ($content) = $page{$name} =~ m{<main[^>]*>(.*)</main>}s;
	push @lost, grep { !$has_entry{$_} } map { "$name#$_" } $content =~ /<h[23] id="([^"]+)"/g;
}
is("@lost", '', 'every heading is in the index');

# The script as a browser has it: queries go in as a JSON list, and lists of results come out.
my $asks = <<'END';
const fs = require('fs'), vm = require('vm'), browser = vm.createContext({});
for (const name of ['search-index.js', 'search.js'])
	vm.runInContext(fs.readFileSync(process.argv[1] + '/' + name, 'utf8'), browser, name);
console.log(JSON.stringify(JSON.parse(process.argv[2]).map(query => {
	browser.query = query;
	return vm.runInContext('aregSearch.find(aregSearchIndex, query)', browser);
})));
END
# The addresses that each of the queries finds, the best first.
sub found
{
	open my $node, '-|', 'node', '-e', $asks, $docs, json_text([@_]) or die "node: $!\n";
	my $text = do { local $/; <$node> };
	close $node or die "node: the search script failed\n";
	return map { [map { $_->{url} } @$_] } @{ from_json($text) };
}

my $metrics_text = $areg->get('/metrics')->{body};
my @metrics = $metrics_text =~ /^# HELP (\w+) /mg;
my @keys = uniq map { /^\.It Ic (\w+)/mg } text_of("$root/man/areg.conf.5.in");
my @in_sample = uniq map { /^#?\s?(\w+) = /mg } text_of("$root/conf/areg.conf.in");
my %is_key = map { $_ => 1 } @keys;
cmp_ok(scalar @in_sample, '>', 20, 'the sample of the configuration names keys');
is(join(' ', grep { !$is_key{$_} } @in_sample), '', 'all of which the manual page explains');

my @commands = map { my $page = $_; my ($name) = $page =~ /aregctl-(\w+)/;
	map { "aregctl $name $_" } uniq text_of($page) =~ /^\.Nm aregctl \w+ ([\w-]+)/mg } glob "$root/man/aregctl-*.8.in";
cmp_ok(scalar @commands, '>', 15, 'and manual pages have commands');
my %place_of = ((map { $_ => "errors/$_.html" } keys %told), (map { $_ => "metrics.html#$_" } @metrics),
	(map { $_ => "manual/areg.conf.5.html#$_" } @keys),
	(map { my ($name, $verb) = /^aregctl (\w+) (\S+)/; $_ => "manual/aregctl-$name.8.html#$verb" } @commands),
	'rate limit' => 'limits.html', 'RATE LIMIT' => 'limits.html', 'rat lim' => 'limits.html',
	'aregctl reload' => 'manual/aregctl.8.html#reload', 'agent.registered' => 'events.html#agent-registered',
	'X-RateLimit-Remaining' => 'limits.html#x-ratelimit-remaining', 'areg.conf' => 'manual/areg.conf.5.html');
my @queries = sort keys %place_of;
my @found = found(@queries);
# Some names are of two things: request_timeout is a code and a key.
is(join("\n", map { "$queries[$_]: @{ $found[$_] }" } grep {
	my ($at, @first) = ($_, @{ $found[$_] });
	$#first = 2 if @first > 3;
	!grep { $_ eq $place_of{ $queries[$at] } } @first } 0 .. $#queries), '',
	'the search finds codes, metrics, keys, commands and pages by their names, among the first three');
my %first = map { $queries[$_] => $found[$_][0] } 0 .. $#queries;
is_deeply([@first{'rate limit', 'rate_limit_exceeded', 'database_url', 'aregctl key create'}],
	['limits.html', 'errors/rate_limit_exceeded.html', 'manual/areg.conf.5.html#database_url',
		'manual/aregctl-key.8.html#create'],
	'and what only one thing is called first of all');
my ($both, $one, $none, $empty, $markup, $end) = found('deadlock xylophone', 'deadl', 'xylophone', ' ', '<script>alert(1)</script>', 'imit');
is_deeply([scalar @$both, scalar @$none, scalar @$empty], [0, 0, 0], 'all words must be there, and one at least');
is(scalar(grep { /imits?\b/ } @$end), 0, 'and each is the beginning of a word, not its end');
is(join(' ', grep { !/^[\w.\/-]+(?:#[\w.-]+)?$/ } map { @$_ } @found, $markup), '', 'addresses are plain');
unlike(text_of("$root/docs/search.js"), qr/innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|fetch\(|XMLHttpRequest/,
	'the script puts nothing into a page as HTML, and asks no server');

my %linked = map { $_ => 1 } $page{'keywords.html'} =~ m{<a href="([^"]+)">}g;
is(join(' ', grep { !$linked{$_} } map { $place_of{$_} } sort keys %told, @keys, @metrics, @commands), '',
	'the page of keywords leads to every code, key, metric and command');
my %listed_term = map { s/<[^>]*>//gr =~ s/: .*//r => 1 } $page{'keywords.html'} =~ m{<li>(.*?)</li>}g;
is(join(' ', grep { !$listed_term{$_} } sort keys %told, @keys, @metrics, @commands), '', 'by its name');

# ---- Metrics, Internals ----

my %described = map { $_->[0] => $_ } grep { @$_ == 4 && $_->[0] =~ /^(?:areg|erc8004)_/ } table_of('metrics');
my %help = $metrics_text =~ /^# HELP (\w+) (.*)$/mg;
my %type = $metrics_text =~ /^# TYPE (\w+) (.*)$/mg;
is(join(' ', grep { "$described{$_}[1]: $described{$_}[3]" ne "$type{$_}: $help{$_}" } grep { $described{$_} } sort keys %help),
	'', 'the page "Metrics" says what /metrics says');
# Those of replicas are there only where there are some.
is(join(' ', grep { !$described{$_} } sort keys %help), '', 'of all of them');
is(join(' ', grep { !$help{$_} } sort keys %described), 'areg_replica_lag_seconds areg_replica_up',
	'and of none that is not there');
my %labels;
while ($metrics_text =~ /^(\w+?)(?:_bucket|_sum|_count)?\{(.*)\} /mg) {
	my ($name, $texts) = ($1, $2);
	$labels{$name} = join ', ', grep { $_ ne 'le' } $texts =~ /(\w+)="/g;
}
is(join(' ', grep { $labels{$_} ne '' && $described{$_}[2] =~ tr/`//dr ne $labels{$_} } grep { $described{$_} } sort keys %labels),
	'', 'with their labels');

my @internals = table_of('internals');
for my $room (map { s{.*/app/(\w+)/README}{$1}r } glob "$root/app/*/README") {
	my ($row) = grep { @$_ == 3 && $_->[0] eq $room } @internals;
	my ($may) = text_of("$root/app/$room/README") =~ /^May include: ([\w, ]+)\./m;
	is($row && $row->[2], $may, "\"Internals\" says what $room may include, as its README does");
}
my $headers = join '', map { text_of($_) } glob("$root/app/*/*.h"), glob("$root/lib/*.h");
my ($words) = text_of("$root/docs/internals.md") =~ /^## Words of our own\n(.*)/ms;
is(join(' ', grep { $headers !~ /(?<![a-z])\Q$_\E/i } my @words = $words =~ /^\| `([a-z]+)` \|/mg), '',
	'and explains no word that no header knows');
cmp_ok(scalar @words, '>', 20, 'but many that are ours');
is(join(' ', grep { my ($file) = glob "$root/$_"; !defined $file || !-e $file }
	uniq text_of("$root/docs/internals.md") =~ m{`((?:app|lib|conf|scripts|sql|t|docs|man)/[\w./*-]*)`}g), '',
	'nor leads to a file that is not there');

# tidy of Debian 12 does not know every attribute that there is by now.
my @faults = grep { !/proprietary attribute "aria-current"/ }
	map { my $name = $_; map { "$name: $_" } `tidy -q -e --gnu-emacs yes '$docs/$name' 2>&1` } @pages;
is(join('', @faults), '', 'every page is right by the rules of HTML');

my $answer = fetch('index.html');
like($answer->{headers}{'content-security-policy'},
	qr/^default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'$/,
	'a page may load its own style, icon and script, and nothing else');
is(join(' ', grep { s{<script src="(?:\.\./)?search\.js" defer></script>}{}r =~ /<script|<style|\bstyle="|\bon\w+="/ }
	map { $page{$_} } sort keys %page), '', 'and none has a script or a style within it');
is(join(' ', grep { $page{$_} !~ m{<script src="(?:\.\./)?search\.js" defer></script>} } sort keys %page), '',
	'each loads the script of the search');
is(join(' ', grep { !m{^manual/} && $page{$_} =~ /localhost:8080/ } sort keys %page), '',
	'and none but manual pages, of defaults, names an address where the registry may not be');

# What lists leave out is said in numbers, and those are the program's.
my $program = from_json(scalar `$build/aregd -j`);
my ($mib, $services, $kib) = ($program->{page_bytes_max} / 1024 ** 2, $program->{shown_services_max},
	$program->{shown_services_bytes_max} / 1024);
like(text_of("$root/docs/lists.md"), qr/ends where its rows reach $mib MiB of JSON/, 'lists.md says how long a page is');
like(text_of("$root/docs/lists.md"), qr/the first $services `services` .*fit into\n$kib KiB/s, 'and how many services it shows');
my $schemas = from_json(scalar $areg->get('/openapi.json')->{body})->{components}{schemas};
my ($found) = grep { $_ } map { $_->{properties}{services} } map { ($_, @{ $_->{allOf} || [] }) } $schemas->{FoundAgent};
is($found->{maxItems}, $services, 'so does openapi.json');
like($found->{description}, qr/up to $services and $kib KiB/, 'in words, too');
my ($list) = map { $schemas->{$_}{properties} } 'FoundAgentPage';
like($list->{agents}{description}, qr/reach $mib MiB/, 'and where a page ends');

is(fetch('style.css')->{headers}{'content-type'}, 'text/css', 'the style is served');
is(fetch('icon.svg')->{headers}{'content-type'}, 'image/svg+xml', 'and the icon');

done_testing;
