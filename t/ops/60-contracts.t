#!/usr/bin/perl
# SPDX-License-Identifier: Apache-2.0
# From contracts to a configuration: what a deployment prints is what aregd and verify-contracts take.
use strict;
use warnings;
use FindBin;
use File::Temp qw(tempdir);
use HTTP::Tiny;
use IO::Socket::INET;
use Test::More;

use lib "$FindBin::Bin/../lib";
use Areg::Test qw(build_dir root skip_file_without wait_until);

my $contracts = root() . '/contracts';
my $bin = "$contracts/node_modules/.bin";
skip_file_without 'needs the contracts compiled: make -C contracts build'
	if !-x "$bin/anvil" || !-d "$contracts/out";

my $areg = Areg::Test->start(without => ['aregd', 'nginx']);
my $folder = tempdir(CLEANUP => 1);
my $port = Areg::Test::reserve_port();
my $rpc = "http://127.0.0.1:$port";
$ENV{PATH} = "$bin:$ENV{PATH}";

my $anvil = fork // die "fork: $!\n";
if (!$anvil) {
	open STDOUT, '>', "$folder/anvil.log";
	open STDERR, '>&', \*STDOUT;
	exec 'anvil', '--port', $port;
	exit 127;
}
END {
	if ($anvil) { my $status = $?; kill TERM => $anvil; waitpid $anvil, 0; $? = $status }
}
ok(wait_until(20, sub { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port) }),
	'a chain of our own runs');

# One of the chain's own rich accounts signs: anvil is the external signer.
my $account = rpc('eth_accounts')->[0];
sub rpc
{
	my ($method) = @_;
	my $answer = HTTP::Tiny->new->post($rpc, {
		headers => { 'Content-Type' => 'application/json' },
		content => qq({"jsonrpc":"2.0","id":1,"method":"$method","params":[]}),
	});
	return Areg::Test::from_json($answer->{content})->{result};
}

sub node
{
	my ($script, @arguments) = @_;
	return run('node', '--disable-warning=ExperimentalWarning', "$contracts/scripts/$script.ts",
		@arguments);
}

sub run
{
	my (@command) = @_;
	my $pid = open my $output, '-|' // die "fork: $!\n";
	if (!$pid) {
		open STDERR, '>&', \*STDOUT;
		exec @command or exit 127;
	}
	my $text = do { local $/; <$output> };
	close $output;
	return ($? >> 8, $text // '');
}

my ($code, $text) = node('deploy-local', '--rpc-url', $rpc, '--signer', $rpc, '--from', $account,
	'--admin', $account, '--out', $folder, '--yes');
is($code, 0, 'the registries are deployed') or diag $text;

my ($section) = glob "$folder/*.conf";
my ($chain) = $section =~ m{/([^/]+)\.conf\z};
my $conf = "$folder/with-areg.conf";
my $database = $areg->env('DATABASE_URL');
open my $file, '>', $conf or die "$conf: $!\n";
print $file "database_url = $database\nmemcached_servers = " . $areg->env('MEMCACHED_SERVERS') . "\n";
print $file do { local (@ARGV, $/) = ($section); <> };
close $file;

($code, $text) = run('env', '-i', build_dir() . '/aregd', '-t', '-c', $conf);
like($text, qr/take rpc_url out/, 'aregd -t reads no chain, and says so of the section that the deployment printed');
is(system('sed', '/^rpc_url /d', '-i.kept', $conf), 0, 'without that line');
($code, $text) = run('env', '-i', build_dir() . '/aregd', '-t', '-c', $conf);
is($code, 0, 'it accepts the section') or diag $text;
rename "$conf.kept", $conf or die "$conf: $!\n";

($code, $text) = run(root() . '/scripts/verify-contracts', '-c', $conf, '--rpc', $rpc, $chain);
if ($text =~ /until 0x\w+ accepts/) {
	node('govern', 'accept-admin', '--chain', $chain, '--rpc-url', $rpc, '--signer', $rpc, '--from',
		$account, '--out', $folder);
	($code, $text) = run(root() . '/scripts/verify-contracts', '-c', $conf, '--rpc', $rpc, $chain);
}
is($code, 0, 'verify-contracts finds everything as it should be') or diag $text;

kill TERM => $anvil;
waitpid $anvil, 0;
undef $anvil;
($code, $text) = run(root() . '/scripts/verify-contracts', '-c', $conf, '--rpc', $rpc, $chain);
is($code, 1, 'and says so when the node does not answer');

done_testing;
