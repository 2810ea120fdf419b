#!/usr/bin/perl
# SPDX-License-Identifier: Apache-2.0
# The documents, followed to the letter in clean roots of Debian 12 and 13: the commands are taken out
# of README and of the runbook as they stand there, and run in order: install, first agent, backup, restore
# into an empty cluster, upgrade, roll back, uninstall. A command is run as root, as the pages say, and is
# only what the page shows. What a page says in words (edit the site, put the certificate there) is done
# here in its place.
#
# Always: that there are such commands, and that a shell understands them. The roots: AREG_TEST_FULL=1.
use strict;
use warnings;

use File::Basename qw(dirname);
use File::Temp qw(tempdir);
use Test::More;

use lib dirname(__FILE__) . '/../lib';
use Areg::CleanRoot;
use Areg::Test qw(root from_json);

my $work = tempdir('areg-documents-XXXXXX', DIR => '/var/tmp');
chmod 0755, $work;
my $clean;
END { my $status = $?; $clean->remove if ref $clean; system 'rm', '-rf', $work if defined $work; $? = $status }

sub text_of
{
	my ($name) = @_;
	open my $in, '<', root() . "/$name" or die "$name: $!\n";
	local $/;
	return scalar <$in>;
}

# The commands of README, section "Install": lines that are indented by four blanks.
sub readme { return text_of('README') =~ /^Install\n(.*?)^\n^\n/ms ? $1 =~ /^ {4}(\S.*)$/mg : () }

# The blocks of commands under a heading of a page; those that are meant to be pasted are marked "sh".
sub page
{
	my ($page, $title) = @_;
	my ($section) = text_of("docs/$page.md") =~ /^## \Q$title\E\n(.*?)(?=^## |\z)/ms;
	return ($section // '') =~ /^```sh\n(.*?)^```/gms;
}

my %blocks = (
	'README, Install' => [readme()],
	map { my ($page, $title) = @$_; ("$page, $title" => [page($page, $title)]) }
		['runbook-backup', 'Back up'], ['runbook-backup', 'Restore'], ['runbook', 'Upgrade'],
		['runbook', 'Roll back'], ['runbook', 'Uninstall'], ['runbook', 'Is it well?']);
for my $name (sort keys %blocks) {
	cmp_ok(scalar @{ $blocks{$name} }, '>', 0, "$name: there are commands");
	open my $shell, '|-', 'bash', '-n' or die "bash: $!\n";
	print $shell "$_\n" for @{ $blocks{$name} };
	ok(close($shell), "$name: a shell understands them");
}
is(join(' ', grep { /\bsudo\b|-U postgres|\bsu\b/ } map { @$_ } values %blocks), '',
	'nothing becomes a superuser of PostgreSQL but by "runuser -u postgres"');

# cron looks in /usr/bin and /bin only.
my @cron = map { text_of($_) =~ /^(?:[\d*]+ ){5}\w+ (\S+)/mg } qw(docs/runbook-backup.md man/areg.7.in);
is(scalar @cron, 2, 'there are lines for cron');
is(join(' ', grep { !m{^(?:/|\@sbindir\@/)} } @cron), '', 'and they name programs with their folders');

# A systemctl for a root without systemd, which does what systemd would about areg's units and those of
# Debian's servers.
my $systemctl = <<'END';
#!/bin/bash
value()
{
	sed -n "s/^$1=+\{0,1\}//p" "$unit"
}
for unit in /usr/lib/systemd/system/areg.service /lib/systemd/system/areg.service; do
	[ ! -e "$unit" ] || break
done
as_unit()
{
	exec setpriv --reuid=areg --regid=areg --init-groups --no-new-privs --bounding-set=-all "$@"
}
runs()
{
	[ -r "/tmp/$1.pid" ] && kill -0 "$(cat "/tmp/$1.pid")" 2>/dev/null
}
# Whoever starts it next finds its port and its sockets free.
stop_and_wait()
{
	runs "$1" || return 0
	kill "$(cat "/tmp/$1.pid")"
	for i in {1..400}; do runs "$1" || return 0; sleep 0.1; done
	return 1
}
one()
{
	case "$1 $2" in
	'start areg')
		! runs aregd || return 0
		$(value ExecStartPre) || return 1
		as_unit $(value ExecStart) </dev/null >/tmp/aregd.log 2>&1 &
		echo $! >/tmp/aregd.pid
		;;
	'reload areg') runs aregd && (as_unit $(value ExecReload)) ;;
	'stop areg') stop_and_wait aregd ;;
	'restart memcached') one stop memcached; one start memcached ;;
	'start memcached')
		! runs memcached || return 0
		memcached -u memcache -l 127.0.0.1 </dev/null >/tmp/memcached.log 2>&1 &
		echo $! >/tmp/memcached.pid
		for i in {1..400}; do
			runs memcached || return 1
			! { : <>/dev/tcp/127.0.0.1/11211; } 2>/dev/null || return 0
			sleep 0.1
		done
		return 1
		;;
	'stop memcached') stop_and_wait memcached ;;
	'reload nginx') nginx -s reload 2>/dev/null || nginx ;;
	'start areg-'*.timer | 'stop areg-'*.timer) ;;
	*) echo "systemctl: $*?" >&2; return 1 ;;
	esac
}
words=()
now=
for word; do
	case $word in
	--now) now=yes ;;
	-*) ;;
	*) words+=("${word%.service}") ;;
	esac
done
verb=${words[0]}
case $verb in
daemon-reload) exit ;;
enable | disable)
	for name in "${words[@]:1}"; do
		case $name in *.*) name_of_unit=$name ;; *) name_of_unit=$name.service ;; esac
		[ -e "${unit%/*}/$name_of_unit" ] || { echo "there is no unit $name_of_unit" >&2; exit 1; }
		[ -z "$now" ] || one "$([ "$verb" = enable ] && echo start || echo stop)" "$name" || exit 1
	done
	;;
*)
	for name in "${words[@]:1}"; do
		one "$verb" "$name" || exit 1
	done
	;;
esac
END

# Runs a command in the clean root as root; says which one failed, and how.
sub follow
{
	my ($where, $command, %option) = @_;
	my ($status, $said) = $clean->inside("cd $option{in}\nset -eo pipefail\n$command", online => scalar($command =~ /apt-get/));
	my ($first) = $command =~ /\A(.{1,100})/;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	is($status, 0, "$where: $first") or diag(substr $said, -3000);
	return $said;
}

# Files of the sources, as they are published.
sub unpack_sources
{
	my ($to) = @_;
	my $files = -d root() . '/.git' || -e root() . '/.git'
		? 'git ls-files -z --cached --others --exclude-standard' : 'find . -type f -print0';
	mkdir "$clean->{dir}$to";
	system('sh', '-c', 'cd "$1" && ' . $files . ' | tar -cf - --null -T - | tar -C "$2" -xf -', 'sh', root(), "$clean->{dir}$to");
}

sub curl { return (from_json(($clean->inside("curl -sk --resolve areg.example.org:443:127.0.0.1 $_[0]"))[1]) // {}) }
my $at = 'https://areg.example.org';
sub is_healthy
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $health;
	Areg::Test::wait_until(30, sub { $health = curl("$at/health"); ($health->{status} // '') eq 'healthy' });
	is($health->{status}, 'healthy', $name)
		or diag(($clean->inside('tail -n 20 /tmp/aregd.log /var/log/areg/areg.log /var/log/nginx/error.log 2>&1'))[1]);
	return $health;
}

# What a host has that a container has not: the servers run once they are installed.
sub start_servers
{
	$clean->inside('for v in /usr/lib/postgresql/*; do v=${v##*/}; [ -d /etc/postgresql/$v/main ] || pg_createcluster $v main;'
		. ' pg_ctlcluster --skip-systemctl-redirect $v main start; done; systemctl start memcached; nginx');
}

my ($key, $agent); # of the first user, and of the first agent
my %version = (bookworm => 12, trixie => 13);
for my $suite (sort keys %version) {
	SKIP: {
		skip "Debian $version{$suite} is made and installed on with AREG_TEST_FULL=1 only", 1 if !$ENV{AREG_TEST_FULL};
		skip 'a clean root needs root', 1 if $> != 0;
		skip "only $ENV{AREG_SUITES}", 1 if $ENV{AREG_SUITES} && $ENV{AREG_SUITES} !~ /\b$suite\b/;
		$clean = Areg::CleanRoot->make($suite, "$work/$suite");
		is(ref $clean, 'Areg::CleanRoot', "a clean Debian $version{$suite} is made") or do { diag($clean); next };
		# Which every host has.
		follow('a host', 'apt-get update -q && apt-get install -q -y --no-install-recommends systemd openssl curl util-linux procps', in => '/');
		$clean->write_file('/usr/local/sbin/systemctl', $systemctl, 0755);
		unpack_sources('/srv/areg');
		install();
		first_agent();
		backup_and_restore();
		upgrade_and_back();
		uninstall();
		$clean->remove;
	}
}
done_testing;

sub install
{
	for my $command (readme()) {
		if ($command =~ /createuser areg_owner/) {
			start_servers();
		} elsif ($command =~ /aregctl migrate$/) {
			# Step 3 says: edit public_url and, here without systemd, log_file.
			$clean->inside('sed -i -e "1i public_url = https://areg.example.org" -e "1i log_file = /var/log/areg/areg.log" /etc/areg/areg.conf');
		} elsif ($command =~ m{^ln -s .*sites-enabled}) {
			# Step 5 says: edit the copy. The name in it is the one of the page; the certificate is of its place.
			$clean->inside('mkdir -p /etc/areg/tls && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
				. ' -subj /CN=areg.example.org -addext subjectAltName=DNS:areg.example.org -days 90'
				. ' -keyout /etc/areg/tls/key.pem -out /etc/areg/tls/cert.pem');
			$clean->inside('echo 127.0.0.1 areg.example.org >>/etc/hosts; cp /etc/areg/tls/cert.pem /usr/local/share/ca-certificates/areg.crt; update-ca-certificates');
		} elsif ($command =~ /areg-backup$/ && $command =~ /runuser/) {
			# The timer's service would have made the folder.
			follow('runbook-backup', (page('runbook-backup', 'Back up'))[0], in => '/srv/areg');
		}
		my $said = follow('README', $command, in => '/srv/areg');
		($key) = $said =~ /(areg_live_\w+)/ if $command =~ /key create/;
	}
	is_healthy('it serves over TLS');
}

sub first_agent
{
	my ($register) = grep { m{/agents/register} } text_of('docs/getting-started.md') =~ /^```sh\n(.*?)^```/gms;
	my $answer = from_json(follow('getting-started', "AREG_URL=$at WALLET=0x9ce7082814bDA389F3ba548BDf2626006279569c AREG_API_KEY=$key\n"
		. ($register =~ s/^curl /curl -s /mr), in => '/')) // {};
	like($answer->{agent_uuid}, qr/^[0-9a-f-]{36}$/, 'the first agent is registered');
	$agent = $answer->{agent_uuid};
}

sub agent_is_there
{
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(curl("$at/api/v1/agents/$agent")->{agent_uuid}, $agent, $_[0]);
}

sub backup_and_restore
{
	follow('runbook-backup', $_, in => '/') for page('runbook-backup', 'Back up');
	# The machine is lost, and its database with it.
	follow('an empty cluster', 'systemctl stop areg; v=$(ls /usr/lib/postgresql | tail -n 1); pg_dropcluster --stop $v main;'
		. ' pg_createcluster $v main && pg_ctlcluster --skip-systemctl-redirect $v main start', in => '/');
	follow('runbook-backup', join("\n", page('runbook-backup', 'Restore')), in => '/');
	is_healthy('it serves what was restored');
	agent_is_there('with the agent');
	follow('runbook', $_, in => '/') for page('runbook', 'Is it well?') ? (page('runbook', 'Is it well?'))[0] : ();
}

# From sources, as the pages say: make and make install take the place of the first block.
sub upgrade_and_back
{
	my $schema = () = glob root() . '/sql/*.up.sql';
	my $later = sprintf '%04d_later', $schema + 1;
	$clean->inside('cp -a /srv/areg /srv/areg-later');
	$clean->write_file("/srv/areg-later/sql/$later.up.sql", "-- A table.\n-- Safe under load: creates only.\n\nCREATE TABLE later (one int);\n");
	$clean->write_file("/srv/areg-later/sql/$later.down.sql", "DROP TABLE later;\n");
	$clean->inside("cd /srv/areg-later && sed -i 's|^dist_sql_DATA = |&sql/$later.up.sql sql/$later.down.sql |' Makefile.am"
		. " && sed -i '/^AC_INIT/s/0\\.1\\.0/0.1.1/' configure.ac && echo '# Of a later version.' >>conf/areg.conf.in");
	my $edited = ($clean->inside('cat /etc/areg/areg.conf /etc/nginx/sites-available/areg'))[1];
	like(follow('runbook', 'make && make install', in => '/srv/areg-later'),
		qr{diff -u /usr/share/areg/areg.conf.before /usr/share/areg/areg.conf}, 'how to see what is new is said');
	is(($clean->inside('cat /etc/areg/areg.conf /etc/nginx/sites-available/areg'))[1], $edited, 'what was edited is as it was');
	my (undef, @blocks) = page('runbook', 'Upgrade');
	follow('runbook', $_, in => '/srv/areg-later') for @blocks;
	is(is_healthy('the later version serves')->{version}, '0.1.1', 'by its number');
	my ($back, $down) = page('runbook', 'Roll back');
	follow('runbook', $_, in => '/') for grep { /^cp / } split /\n/, $back;
	follow('runbook', 'make install && systemctl reload areg', in => '/srv/areg');
	is(is_healthy('the version of before serves')->{version}, '0.1.0', 'by its number');
	like($down, qr/--to $schema /, 'the page names the newest migration of this release');
	follow('runbook', $down, in => '/');
	is_healthy('with the schema of before');
	agent_is_there('and the agent');
}

sub uninstall
{
	my @blocks = page('runbook', 'Uninstall');
	follow('runbook', shift @blocks, in => '/srv/areg');
	follow('runbook', 'make uninstall', in => '/srv/areg-later');
	follow('runbook', 'nginx -t', in => '/');
	follow('runbook', $_, in => '/') for @blocks;
	is(($clean->inside('find /usr/share/areg 2>/dev/null; find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path "/srv/areg*" -o -path /tmp \) -prune -o -iname "*areg*" -print'
		. ' | grep -v "^/etc/ssl/\|^/usr/local/share/ca-certificates/"; ps ax -o user:20,args | grep "^areg"; getent passwd areg areg_owner'))[1], '',
		'nothing is left of it');
}
