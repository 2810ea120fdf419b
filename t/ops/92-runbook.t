#!/usr/bin/perl
# SPDX-License-Identifier: Apache-2.0
# The runbook goes with what it is about: each alert that can ring has its page, commands that pages
# show are there, and migrations say what the page on upgrades promises of them. Its sections "Upgrade"
# and "Roll back" are run by 70-package.t and 71-documents.t.
use strict;
use warnings;

use File::Basename qw(basename dirname);
use List::Util qw(uniq);
use Test::More;

use lib dirname(__FILE__) . '/../lib';
use Areg::Test qw(root build_dir);

my $root = root();

sub text_of
{
	my ($name) = @_;
	open my $in, '<', $name or die "$name: $!\n";
	local $/;
	return scalar <$in>;
}

# ---- alerts ----

my $rules = text_of("$root/conf/prometheus/areg.rules.yml");
my @alerts = sort $rules =~ /^\s*-?\s*alert:\s*"?(\w+)/mg;
my @pages = sort map { basename($_, '.md') } glob "$root/docs/alerts/*.md";
cmp_ok(scalar @alerts, '>', 5, 'there are alerts');
is("@pages", "@alerts", 'each has its page, and no page is about another');
for my $alert (@alerts) {
	like($rules, qr{^\s*runbook_url:\s*\S.*/docs/alerts/$alert\.html\b}m, "$alert links to its page");
	ok(-e build_dir() . "/docs/alerts/$alert.html", 'which is made');
	like(text_of("$root/docs/alerts/$alert.md"),
		qr/\A# $alert\n.+^## What callers see\n.+^## Look first\n.+^## And then\n.+^- /ms,
		"$alert: what it means, what callers see, what to look at, what to do");
}
is(join(' ', sort { $a cmp $b } text_of("$root/docs/alerts.md") =~ /^\| \[(\w+)\]\(alerts\/\1\.md\)/mg), "@pages",
	'the page "Alerts" leads to all');

# ---- migrations ----

for my $file (sort glob "$root/sql/*.up.sql") {
	my ($head) = text_of($file) =~ /\A((?:--.*\n)+)/;
	like($head // '', qr/\bunder load\b|\bwriters\b.*\bwait\b/i,
		basename($file) . ' says in its first lines whether anybody waits for it');
}

# ---- commands ----

my $text = join '', map { text_of($_) } glob("$root/docs/runbook*.md"), glob("$root/docs/alerts/*.md");
my $help = `@{[ build_dir() ]}/aregctl help 2>&1`;
for my $command (uniq sort $text =~ /\baregctl (?:-c \S+ )?([a-z]+)/g) {
	like($help, qr/^\s+(?:aregctl )?$command\b/m, "there is a command aregctl $command");
}
$help = `@{[ build_dir() ]}/aregd -h 2>&1`;
like($help, qr/^\s+aregd -$_\b/m, "there is an option aregd -$_") for uniq sort $text =~ /\baregd -([a-zA-Z])\b/g;

my $sources = join '', map { text_of($_) } glob "$root/app/{,*/}*.c";
# areg_owner is a user.
my @metrics = grep { $_ ne 'areg_owner' } uniq sort $text =~ /`((?:areg|erc8004_api)_[a-z_]+)`/g;
cmp_ok(scalar @metrics, '>', 5, 'the pages name metrics');
is(join(' ', grep { index($sources, $_) < 0 } @metrics), '', 'which the program exports');

done_testing;
