# SPDX-License-Identifier: Apache-2.0
# From nothing to a registry that answers: scripts/quickstart does what README says of it.
use strict;
use warnings;

use File::Basename qw(dirname);
use File::Temp qw(tempdir);
use HTTP::Tiny;
use JSON::PP qw(decode_json);
use Test::More;
use Time::HiRes qw(sleep time);

use lib dirname(__FILE__) . '/../lib';
use Areg::Test qw(root build_dir alive wait_until);

my $parent = tempdir(CLEANUP => 1);
chmod 0711, $parent;
my $dir = "$parent/run";
my $quickstart = root() . '/scripts/quickstart';
my $port = Areg::Test::reserve_port();

$ENV{AREG_BUILD} = build_dir();
END { system "'$quickstart' remove --dir '$dir' >/dev/null 2>&1" if $dir && -d $dir }

# Runs a shell command; returns its exit code and all that it printed.
sub shell
{
	my ($command) = @_;
	my $output = `($command) 2>&1`;
	return ($? >> 8, $output);
}

# The variables of quickstart.env, as a shell that sources it has them.
sub environment
{
	my %env = `. '$dir/quickstart.env'; set` =~ /^(\w+)='?([^'\n]*)'?$/mg;
	return %env;
}

sub command_line
{
	my ($process) = @_;
	open my $in, '<', "$process/cmdline" or return '';
	local $/;
	return readline($in) // '';
}

my @servers = qw(AREGD NGINX POSTGRES MEMCACHED);
my ($status, $said) = shell("'$quickstart' --dir '$dir' --port $port");
is($status, 0, 'quickstart succeeds') or diag($said);
my %env = environment();

is($env{AREG_URL}, "http://127.0.0.1:$port", 'quickstart.env names the address');
is($env{AREG_TLS_URL}, 'https://127.0.0.1:' . ($port + 363), 'and the one with TLS');
like($env{AREG_API_KEY}, qr/^areg_live_\w{49}$/, 'and the key');
like($env{AREG_WALLET}, qr/^0x[0-9a-f]{40}$/, 'and the wallet');
ok(-r $env{AREG_CONF}, 'and the configuration');
is(sprintf('%04o', (stat "$dir/quickstart.env")[2] & 07777), '0600', 'it is only for its owner');
ok(alive($env{"${_}_PID"}), "the pid of $_ is in it and runs") for @servers;
is(`psql -XAtq '$env{DATABASE_URL}' -c 'SELECT count(*) FROM erc8004_agents'`, "2000\n",
	'the database that it names holds the sample');

my @curls = $said =~ /^(curl .*)$/mg;
is(scalar @curls, 3, 'three curl lines are printed');
my @answers = map { decode_json((shell($_))[1]) } @curls;
is($answers[0]{status}, 'healthy', 'the first, pasted, says that the registry is healthy');
ok(@{ $answers[1]{agents} } > 0, 'the second finds agents');
is($answers[2]{owner_address}, $env{AREG_WALLET}, 'the third registers one');
my (undef, $tls) = shell("curl -sS --cacert '$dir/tls/cert.pem' $env{AREG_TLS_URL}/health");
is(decode_json($tls)->{status}, 'healthy', 'TLS answers, with the certificate that it names');

my $http = HTTP::Tiny->new;
my $count = sub {
	decode_json($http->get("$env{AREG_URL}/api/v1/agents?limit=1")->{content})->{total};
};
is($count->(), 2001, 'the registry counts the sample and the new agent');

my $began = time;
($status, $said) = shell("'$quickstart' --dir '$dir'");
is($status, 0, 'again: it succeeds, on the port of before') or diag($said);
is_deeply({ environment() }->{$_}, $env{$_}, "again: $_ is the same")
	for 'AREG_API_KEY', map { "${_}_PID" } @servers;
is($count->(), 2001, 'again: nothing is loaded twice');

($status, $said) = shell("'$quickstart' status --dir '$dir'");
is($status, 0, 'status: everything runs');
is(scalar(() = $said =~ /running, pid \d+/g), 4, 'status names the four');

($status, $said) = shell("'$quickstart' --dir '$parent/other' --port $port");
isnt($status, 0, 'a second registry on a port in use is refused');
like($said, qr/port $port is in use by nginx \(pid \d+\)/, 'saying by what');
like($said, qr/--port/, 'and what to do');
unlike(join('', map { command_line($_) } glob '/proc/[0-9]*'), qr{\Q$parent/other/},
	'and leaves nothing running');
like(join('', map { command_line($_) } glob '/proc/[0-9]*'), qr{\Q$dir/},
	'while the first goes on');
shell("'$quickstart' remove --dir '$parent/other'");

($status, $said) = shell("'$quickstart' stop --dir '$dir'");
is($status, 0, 'stop succeeds') or diag($said);
ok(!alive($env{"${_}_PID"}), "stop: $_ has ended") for @servers;
like((shell("'$quickstart' stop --dir '$dir'"))[1], qr/stopped/, 'stop twice is harmless');
isnt((shell("'$quickstart' status --dir '$dir'"))[0], 0, 'status says that nothing runs');

($status, $said) = shell("'$quickstart' --dir '$dir'");
is($status, 0, 'started again after a stop') or diag($said);
is($count->(), 2001, 'it has the agents of before');
is({ environment() }->{AREG_API_KEY}, $env{AREG_API_KEY}, 'and the key of before');

# An interruption in the middle of a start.
shell("'$quickstart' stop --dir '$dir'");
my $pid = fork // die "fork: $!\n";
if ($pid == 0) {
	open STDOUT, '>', '/dev/null';
	open STDERR, '>', '/dev/null';
	exec $quickstart, '--dir', $dir;
}
ok(wait_until(60, sub { -e "$dir/postgres.pid" }), 'a start is under way');
kill 'TERM', $pid;
waitpid $pid, 0;
isnt($?, 0, 'interrupted, it fails');
like((shell("'$quickstart' status --dir '$dir'"))[1], qr/(not running\n?.*){4}/s,
	'and nothing that it began goes on running');

($status, $said) = shell("'$quickstart' remove --dir '$dir'");
is($status, 0, 'remove succeeds') or diag($said);
ok(!-e $dir, 'remove leaves nothing');

like((shell("'$quickstart' --help"))[1], qr/--port N/, '--help explains the options');
($status, $said) = shell("'$quickstart' --nonsense");
is($status, 2, 'an unknown option is a usage error');
like($said, qr/unknown argument: --nonsense/, 'that is named');

done_testing();
