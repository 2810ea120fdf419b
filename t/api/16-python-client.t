# SPDX-License-Identifier: Apache-2.0
# Clients written in Python against the older service go on working, unchanged.
use strict;
use warnings;

use File::Basename qw(dirname);
use JSON::PP ();
use Test::More;

use lib dirname(__FILE__) . '/../lib';
use Areg::Test qw(hash);

my ($python) = grep { -x } map { "$_/python3" } split /:/, $ENV{PATH};
BAIL_OUT('python3 is not installed (scripts/check installs it)') unless $python;

my $areg = Areg::Test->start(workers => 2);
my $owner = $areg->make_user;
my $client = $areg->make_user;
my $facilitator = $areg->make_user(scopes => ['payments:write']);
my $tx = hash('paid');
local @ENV{qw(AREG_URL OWNER_KEY OWNER_WALLET CLIENT_KEY CLIENT_WALLET FACILITATOR_KEY TX_HASH)} = ($areg->url,
	$owner->{key}, $owner->{wallet}, $client->{key}, $client->{wallet}, $facilitator->{key}, $tx);
open my $out, '-|', $python, dirname(__FILE__) . '/client.py' or die "python3: $!\n";
my %step = map { my $step = JSON::PP->new->utf8->decode($_); ($step->{step} => $step) } <$out>;
close $out;
is($?, 0, 'the client runs through');

my $uuid = $step{register}{answer}{agent_uuid};
my @status = map { "$_ " . ($step{$_}{status} // 'not done') } 'register', 'get', 'feedback', 'pay', 'link',
	'stats', 'reputation', 'search', 'search by trust', 'missing';
is_deeply(\@status, ['register 201', 'get 200', 'feedback 201', 'pay 201', 'link 200', 'stats 200', 'reputation 200',
	'search 200', 'search by trust 200', 'missing 404'], 'every call answers as it did');
is($step{get}{answer}{registration_file}{name}, 'Trader', 'the agent is read back');
is($step{feedback}{answer}{score}, 95, 'the score is');
is($step{link}{answer}{success}, JSON::PP::true, 'the payment is linked');
is_deeply([@{ $step{stats}{answer} }{qw(total_feedback total_payments successful_payments total_amount_usdc)}],
	[2, 1, 1, '3.250000'], 'stats hold feedback, also the automatic, and payments');
is($step{reputation}{answer}{average_score}, 95, 'reputation is the average');
is_deeply([map { $_->{agent_uuid} } @{ $step{search}{answer}{agents} }], [$uuid], 'the search finds it');
is_deeply([@{ $step{search}{answer} }{qw(total limit offset)}], [1, 20, 0], 'and counts it');
is_deeply([map { $_->{agent_uuid} } @{ $step{'search by trust'}{answer}{agents} }], [$uuid],
	'so does one by its trust level');
is($step{missing}{answer}{detail} ne '', 1, 'what is missing is said in words');

done_testing;
