# SPDX-License-Identifier: Apache-2.0
# Shell functions that the scripts share; sourced, with `set -euo pipefail` in force.

root=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
build=${AREG_BUILD:-$root/build}
export LC_ALL=C.UTF-8
# PostgreSQL's programs are not on everybody's PATH on Debian, nor are nginx and spawn-fcgi.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
for pg_bin in /usr/lib/postgresql/*/bin; do
	[ ! -d "$pg_bin" ] || PATH=$pg_bin:$PATH  # the newest version ends up in front
done

# What is said to people goes to stderr: stdout is for results.
say()
{
	printf '%s\n' "$*" >&2
}

# die MESSAGE [WHAT-TO-DO-NEXT]
die()
{
	say "${0##*/}: $1"
	[ $# -lt 2 ] || say "$2"
	exit 1
}

usage_error()
{
	say "${0##*/}: $1"
	say "Try: ${0##*/} --help"
	exit 2
}

# The text of a script's own --help: its opening comment.
print_help()
{
	sed -n '3,/^[^#]/ { /^#/ !d; s/^# \{0,1\}//; p }' "$0"
}

# A program of the build, wherever automake put it.
find_program()
{
	local at

	for at in "$build/$1" "$build/app/$1"; do
		if [ -x "$at" ]; then
			printf '%s\n' "$at"
			return
		fi
	done
	die "$1 has not been built in $build" "Run: scripts/quickstart, or ./configure && make there"
}

# Names of the packages in those sections of scripts/packages that are not installed.
missing_packages()
{
	local name wanted

	wanted=$(awk -v sections=" $* " 'index(sections, " " $1 " ") && !/^#/ { print $2 }' \
		"$root/scripts/packages")
	for name in $wanted; do
		[ "$(dpkg-query -W -f '${Status}' "$name" 2>/dev/null)" = 'install ok installed' ] ||
			printf '%s\n' "$name"
	done
}

# need_packages SECTION…: installs what is missing (root), or says how to (anybody else).
need_packages()
{
	local missing policy=/usr/sbin/policy-rc.d

	command -v dpkg-query >/dev/null ||
		die 'this is not Debian or Ubuntu' \
			"Install what scripts/packages lists, then build with ./configure && make"
	missing=$(missing_packages "$@" | tr '\n' ' ')
	[ -n "$missing" ] || return 0
	if [ "$(id -u)" != 0 ]; then
		die 'packages are missing; install them as root, then run this again:' \
			"    apt-get install --no-install-recommends $missing"
	fi
	say "installing packages: $missing"
	(
		# Services must not start by being installed: a private stack touches none.
		if [ ! -e "$policy" ]; then
			trap 'rm -f "$policy"' EXIT
			trap 'exit 130' INT TERM HUP
			printf '#!/bin/sh\n# Put here while packages are installed.\nexit 101\n' >"$policy"
			chmod 755 "$policy"
		fi
		export DEBIAN_FRONTEND=noninteractive
		apt-get update -q >&2
		# shellcheck disable=SC2086 # a list of names
		apt-get install -q -y --no-install-recommends -o Dpkg::Use-Pty=0 $missing >&2
	) || die 'the packages could not be installed' "Run: apt-get install $missing"
}

# step TITLE LOG COMMAND…: one line for a long step; its output goes to the log, whose end is
# shown when it fails.
step()
{
	local title=$1 log=$2 began=$SECONDS pid

	shift 2
	printf '%-44s' "$title" >&2
	set -m  # a process group of its own, so that an interruption ends all of it
	"$@" >"$log" 2>&1 </dev/null &
	pid=$!
	set +m
	step_group=$pid
	if [ -t 2 ]; then
		while kill -0 "$pid" 2>/dev/null; do
			printf '\r%-44s%3d s' "$title" $((SECONDS - began)) >&2
			sleep 0.5
		done
		printf '\r%-44s' "$title" >&2
	fi
	if wait "$pid"; then
		step_group=
		printf '%3d s\n' $((SECONDS - began)) >&2
		return 0
	fi
	step_group=
	say 'failed; the end of its output:'
	tail -n 25 "$log" >&2
	say "all of it: $log"
	return 1
}

# For scripts that take steps: an interruption ends the step under way and what was begun beside it,
# and then the script.
stop_on_interrupt()
{
	trap 'for group in ${step_group-} ${beside_group-}; do kill -- "-$group" 2>/dev/null || true; done
		exit 130' INT TERM HUP
}

# build_tree BUILD-DIR LOG-DIR [CONFIGURE-OPTION…]: configures when that was not done yet, or with
# other options than those asked for, and makes. Without options any configured build will do.
build_tree()
{
	local dir=$1 logs=$2

	shift 2
	mkdir -p "$dir" "$logs"
	if [ ! -x "$root/configure" ] || [ "$root/configure.ac" -nt "$root/configure" ] ||
		[ ! -e "$root/Makefile.in" ] || [ "$root/Makefile.am" -nt "$root/Makefile.in" ]; then
		step 'preparing the build (autoreconf)' "$logs/autoreconf.log" autoreconf -fi "$root" ||
			return 1
	fi
	if [ ! -e "$dir/Makefile" ] || [ "$root/configure" -nt "$dir/config.status" ] ||
		{ [ $# -gt 0 ] && [ "$(cat "$dir/.options" 2>/dev/null)" != "$*" ]; }; then
		step 'configuring' "$logs/configure.log" configure_in "$dir" "$@" || return 1
		printf '%s' "$*" >"$dir/.options"
	fi
	step 'compiling' "$logs/make.log" make -C "$dir" -j"$(nproc)" || return 1
}

configure_in()
{
	cd "$1" || return 1
	shift
	"$root/configure" "$@"
}

# Whoever listens on a TCP port of this machine, as "name (pid N)", as far as this user may know.
port_holder()
{
	perl -e '
		my $hex = sprintf "%04X", shift;
		my %inode;
		for my $table ("/proc/net/tcp", "/proc/net/tcp6") {
			open my $in, "<", $table or next;
			while (<$in>) {
				my @f = split;
				$inode{$f[9]} = 1 if @f > 9 && $f[1] =~ /:$hex$/ && $f[3] eq "0A";
			}
		}
		exit unless %inode;
		for my $fd (glob "/proc/[0-9]*/fd/*") {
			my ($socket) = (readlink($fd) // "") =~ /^socket:\[(\d+)\]/ or next;
			next unless $inode{$socket};
			my ($pid) = $fd =~ m{^/proc/(\d+)};
			open my $in, "<", "/proc/$pid/comm" or next;
			chomp(my $name = <$in>);
			print "$name (pid $pid)\n";
			exit;
		}
		print "another user'"'"'s program\n";
	' "$1"
}
