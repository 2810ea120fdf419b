#!/usr/bin/perl
# The documentation is true: every problem code that areg or nginx can answer has its entry, every
# entry is a code that exists, and no link leads nowhere.
use strict;
use warnings;
use FindBin;
use Test::More;

use lib "$FindBin::Bin/../lib";
use Areg::Test qw(root);

my $root = root();

sub text_of
{
	my ($name) = @_;
	open my $in, '<', $name or die "$name: $!\n";
	local $/;
	return <$in>;
}

my %known;
for my $file (glob("$root/app/*.c"), glob("$root/lib/*.c")) {
	my $text = text_of($file);
	# Literals where a code stands: calls, tables of fields, problems.
	$known{$1}++ while $text =~ /call_problem\(\s*call,\s*\d+,\s*"([a-z_]+)"/g;
	$known{$1}++ while $text =~ /fault_add\(\s*&?\w+,\s*"([a-z_]+)"/g;
	$known{$1}++ while $text =~ /\.code = "([a-z_]+)"/g;
	$known{$1}++ while $text =~ /\d{3},\s*"([a-z]+_[a-z_]+)",\s*"[A-Z]/g;
	$known{$1}++, $known{$2}++ while $text =~ /\? "([a-z_]+)"\s*:\s*"([a-z_]+)",\s*arena_printf/g;
}
my $nginx = text_of("$root/conf/nginx/http.conf.in");
$known{$1}++ while $nginx =~ /"([a-z_]+)\|[A-Z]/g;
cmp_ok(scalar keys %known, '>', 20, 'codes are found in the sources');

my %page = map { $_ => text_of($_) } glob "$root/docs/*.html";
my %entry = map { $_ => 1 } $page{"$root/docs/errors.html"} =~ /<dt id="([a-z_]+)"/g;
is(join(' ', grep { !$entry{$_} } sort keys %known), '', 'every code has its entry in errors.html');
is(join(' ', grep { !$known{$_} } sort keys %entry), '', 'and every entry is a code that exists');

for my $name (sort keys %page) {
	my @broken;

	for my $link ($page{$name} =~ /(?:href|src)="([^"]+)"/g) {
		next if $link =~ /^https:/;
		my ($file, $anchor) = split /#/, $link, 2;
		my $target = $file eq '' ? $name : "$root/docs/$file";
		push @broken, $link if !-e $target
			|| (defined $anchor && text_of($target) !~ /id="\Q$anchor\E"/);
	}
	is("@broken", '', 'no link leads nowhere in ' . $name =~ s{.*/}{}r);
}

done_testing;
