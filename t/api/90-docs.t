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
my $docs = build_dir() . '/docs';
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

# Code => {status => 1}, as the sources answer them.
my %known;
for my $file (glob("$root/app/{,*/}*.c"), glob("$root/lib/*.c")) {
	my $text = text_of($file);
	# Literals where a code stands: calls, tables of fields, problems.
	$known{$2}{$1}++ while $text =~ /call_problem\(\s*call,\s*(\d+),\s*"([a-z_]+)"/g;
	$known{$1}{400}++ while $text =~ /fault_add\(\s*&?\w+,\s*"([a-z_]+)"/g;
	$known{$2}{$1}++ while $text =~ /\.status = (\d+),\s*\.code = "([a-z_]+)"/g;
	$known{$1} ||= {} while $text =~ /\.code = "([a-z_]+)"/g;
	$known{$2}{$1}++ while $text =~ /(\d{3}),\s*"([a-z]+_[a-z_]+)",\s*"[A-Z]/g;
	$known{$1} ||= {}, $known{$2} ||= {}
		while $text =~ /\? "([a-z_]+)"\s*:\s*"([a-z_]+)",\s*arena_printf/g;
}
my $nginx = text_of("$root/conf/nginx/http.conf.in");
$known{$2}{$1}++ while $nginx =~ /"~\^(\d{3}) [^"]*"\s+"([a-z_]+)\|[A-Z]/g;
for my $code (uniq $nginx =~ /"~\^50\[24\] [^"]*"\s+"([a-z_]+)\|[A-Z]/g) {
	$known{$code}{$_}++ for 502, 504;
}
cmp_ok(scalar keys %known, '>', 20, 'codes are found in the sources');

my $problems = Areg::Docs::Problems->read("$root/docs/problems");
my %told = map { $_->{code} => $_ } $problems->all;
is(join(' ', grep { !$told{$_} } sort keys %known), '', 'every code that is answered has its page');
is(join(' ', grep { !$known{$_} } sort keys %told), '', 'and every page is about a code that exists');
for my $code (grep { $told{$_} } sort keys %known) {
	my %listed = map { $_ => 1 } @{ $told{$code}{statuses} };
	is(join(' ', grep { !$listed{$_} } sort keys %{ $known{$code} }), '',
		"$code comes with no other status than its page says");
}
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

my @pages = map { s{^\Q$docs\E/}{}r } glob("$docs/*.html $docs/errors/*.html $docs/alerts/*.html");
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

# tidy of Debian 12 does not know every attribute that there is by now.
my @faults = grep { !/proprietary attribute "aria-current"/ }
	map { my $name = $_; map { "$name: $_" } `tidy -q -e --gnu-emacs yes '$docs/$name' 2>&1` } @pages;
is(join('', @faults), '', 'every page is right by the rules of HTML');

my $answer = fetch('index.html');
like($answer->{headers}{'content-security-policy'}, qr/default-src 'none'; style-src 'self'/,
	'a page may load its style and nothing else');
is(join(' ', grep { $page{$_} =~ /<script|<style|\bstyle="|\bon\w+="/ } sort keys %page), '',
	'and none has a script or a style of its own');
is(join(' ', grep { $page{$_} =~ /localhost:8080/ } sort keys %page), '',
	'and none names an address where the registry may not be');

# What lists leave out is said in numbers, and those are the program's.
my $program = from_json(scalar `@{[ build_dir() ]}/aregd -j`);
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
