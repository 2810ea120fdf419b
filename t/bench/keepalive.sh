#!/usr/bin/env bash
# Measures what kept connections between nginx and the workers bring, and the micro-cache: on private
# stacks that it starts and removes. What is compared is measured in turns; the table has medians.
#
# Usage: t/bench/keepalive.sh [OPTION…] [SUBJECT…]
#
#   hot            one cached read, 64 connections, with 4, 8 and 16 workers
#   mixed          the same with 8 workers, while 8 more connections search without end
#   micro          the same read from the micro-cache, against a constant of nginx
#
#   --rounds N     rounds, each measuring everything once (default 3)
#   --seconds N    length of one measurement (default 10)
#   --build DIR    the build to run (default build/, or $AREG_BUILD)
#
# Without a subject, all of them. Needs wrk.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/../../scripts/lib.sh"

readonly CONNECTIONS=64 SEARCHERS=8 AGENTS=20000 KEYS=16
rounds=3
seconds=10
subjects=()

while [ $# -gt 0 ]; do
	case $1 in
	--rounds | --seconds)
		[[ ${2-} =~ ^[1-9][0-9]{0,4}$ ]] || usage_error "$1 needs a number, 1 to 99999"
		declare "${1#--}=$2"
		shift
		;;
	--build)
		[ $# -gt 1 ] || usage_error "$1 needs a value"
		build=$(readlink -f "$2") || die "there is no folder $2"
		shift
		;;
	-h | --help)
		print_help
		exit
		;;
	hot | mixed | micro) subjects+=("$1") ;;
	*) usage_error "unknown argument: $1" ;;
	esac
	shift
done
[ ${#subjects[@]} -gt 0 ] || subjects=(hot mixed micro)
command -v wrk >/dev/null || die 'wrk is not installed' 'On Debian or Ubuntu: apt-get install wrk'

dir=$(mktemp -d /var/tmp/areg-bench-XXXXXXXX)
chmod 0711 "$dir"
port=$((24000 + RANDOM % 3000))
url=http://127.0.0.1:$port
searching=

clean_up()
{
	[ -z "$searching" ] || kill "$searching" 2>/dev/null || true
	"$root/scripts/instance" remove --dir "$dir" || true
}
trap clean_up EXIT
trap 'exit 130' INT TERM HUP

# begin WORKERS: the stack, with agents to search for and callers enough for nobody to meet a limit.
begin()
{
	local class limits=() number user

	for class in read search; do
		limits+=(--set "limit_$class=250000 250000 250000 250000")
	done
	"$root/scripts/instance" start --dir "$dir" --port "$port" --workers "$1" --build "$build" \
		--fast --set log_level=warn --set max_requests=0 "${limits[@]}"
	mkdir "$dir/installed"
	cp "$dir/nginx"/*.conf "$dir/installed/"
	"$root/scripts/instance" psql --dir "$dir" <<-END
		INSERT INTO erc8004_agents (chain, chain_id, registry_address, agent_id, owner_address,
			status, source, name)
		SELECT 'base', 8453, '0x' || repeat('8', 40), number, '0x' || lpad(to_hex(number), 40, 'a'),
			'active', 'api', 'agent ' || md5(number::text)
		FROM generate_series(1, $AGENTS) AS number;
		ANALYZE;
	END
	agent=$url/api/v1/agents/$("$root/scripts/instance" psql --dir "$dir" \
		<<<'SELECT agent_uuid FROM erc8004_agents LIMIT 1')/stats
	for ((number = 1; number <= KEYS; number++)); do
		user=$(printf '0x%040x' $number)
		"$root/scripts/instance" aregctl --dir "$dir" -- user add --name "user $number" \
			--wallet "$user" --tier enterprise >/dev/null
		"$root/scripts/instance" aregctl --dir "$dir" -- key create --quiet --user "$user"
	done >"$dir/keys"
	{
		printf 'local keys = {'
		sed 's/.*/"Bearer &",/' "$dir/keys"
		cat <<-'END'
			}
			local n = 0
			request = function()
				n = n + 1
				wrk.headers.Authorization = keys[n % #keys + 1]
				return wrk.format()
			end
		END
	} >"$dir/hot.lua"
	sed 's|return.*|return wrk.format("GET", "/api/v1/agents?limit=100\&q=" .. string.format("%x", n * 7919 % 65536))|' \
		"$dir/hot.lua" >"$dir/search.lua"
}

end()
{
	"$root/scripts/instance" remove --dir "$dir"
	mkdir -m 0711 "$dir"
}

server_pid()
{
	head -n 1 "$dir/$1.pid"
}

# The processes of a server but its first.
children()
{
	cat "/proc/$(server_pid "$1")/task/$(server_pid "$1")/children"
}

# with MODE: has nginx serve so, and waits until all of its workers do.
with()
{
	local pid before until=$((SECONDS + 30))

	before=$(children nginx)
	cp "$dir/installed"/*.conf "$dir/nginx/"
	case $1 in
	on) ;;
	off)
		sed -i -E 's/^(\s*fastcgi_keep_conn\s+)on;/\1off;/; s/\$areg_upstream;/areg;/' \
			"$dir/nginx/app.conf"
		;;
	micro)
		sed -i -E 's/^#(include .*micro-cache\.conf"?;)/\1/' "$dir/nginx/http.conf"
		sed -i -E 's/rate=[0-9]+r.m/rate=100000r\/s/; s/burst=[0-9]+/burst=100000/' \
			"$dir/nginx/micro-cache.conf"
		;;
	constant)
		sed -i "s|^location / {|location = /constant { return 200 '$(printf 'x%.0s' {1..600})'; }\n&|" \
			"$dir/nginx/app.conf"
		;;
	esac
	sed -i -E 's/^(\s*access_log\s).*/\1off;/' "$dir/nginx/private.conf"
	kill -HUP "$(server_pid nginx)"
	for pid in $before; do
		while [ -d "/proc/$pid" ]; do
			[ $SECONDS -lt $until ] || die 'nginx does not reload'
			sleep 0.1
		done
	done
}

# Clock ticks that the children of a server took of the processors.
ticks()
{
	local pid sum=0

	for pid in $(children "$1"); do
		sum=$((sum + $(awk '{ sub(/.*\) /, ""); print $12 + $13 }' "/proc/$pid/stat")))
	done
	echo $sum
}

# measure NAME URL [WRK-OPTION…]: appends "requests/s p50-ms p99-ms most-ms nginx-µs areg-µs failed" to DIR/NAME.
measure()
{
	local name=$1 nginx areg

	shift
	wrk -t 1 -c $CONNECTIONS -d 1s "$@" >/dev/null
	nginx=$(ticks nginx)
	areg=$(ticks aregd)
	wrk -t 1 -c $CONNECTIONS -d "${seconds}s" --latency "$@" >"$dir/wrk.out"
	nginx=$(($(ticks nginx) - nginx))
	areg=$(($(ticks aregd) - areg))
	awk -v nginx=$nginx -v areg=$areg -v hz="$(getconf CLK_TCK)" '
		function ms(text) {
			return text + 0 * 1 == 0 ? 0 : text * (text ~ /us$/ ? 0.001 : text ~ /ms$/ ? 1 : 1000)
		}
		$1 == "Latency" && NF == 5 { most = ms($4) }
		$1 == "50%" { p50 = ms($2) }
		$1 == "99%" { p99 = ms($2) }
		/requests in/ { count = $1 }
		/Requests\/sec/ { rate = $2 }
		/Non-2xx/ { failed += $NF }
		/Socket errors/ { gsub(",", ""); failed += $4 + $6 + $8 + $10 }
		END { print rate, p50, p99, most, nginx * 1000000 / hz / count,
			areg * 1000000 / hz / count, failed + 0 }' "$dir/wrk.out" >>"$dir/$name"
}

# The median of the numbers in stdin.
median()
{
	sort -g | awk '{ n[NR] = $1 } END { print (n[int((NR + 1) / 2)] + n[int(NR / 2) + 1]) / 2 }'
}

# row TITLE NAME BASE: the medians of NAME, and its rate against that of BASE.
row()
{
	local field values=()

	for field in 1 2 3 4 5 6; do
		values+=("$(awk -v f=$field '{ print $f }' "$dir/$2" | median)")
	done
	printf '| %s | %.0f | %.2f | %.2f | %.2f | %.0f | %.0f | %d | %.2f |\n' "$1" "${values[@]}" \
		"$(awk '{ sum += $7 } END { print sum }' "$dir/$2")" "$(awk -v a="${values[0]}" \
		-v b="$(awk '{ print $1 }' "$dir/$3" | median)" 'BEGIN { print a / b }')"
}

head_row()
{
	cat <<-END
		### $1

		$CONNECTIONS connections, 2 nginx workers, $(nproc) cores, medians of $rounds rounds of $seconds s.

		| | requests/s | p50 ms | p99 ms | longest ms | nginx µs | areg µs | failed | ratio |
		| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
	END
}

# in_turns MODE…: each round each mode, the first another one each time.
in_turns()
{
	local round mode modes=("$@")

	rm -f "${modes[@]/#/$dir/m.}"
	for ((round = 1; round <= rounds; round++)); do
		say "round $round of $rounds"
		for mode in "${modes[@]}"; do
			with "$mode"
			case $mode in
			constant) measure "m.$mode" "$url/constant" ;;
			micro) measure "m.$mode" "$agent" ;;
			*) measure "m.$mode" -s "$dir/hot.lua" "$agent" ;;
			esac
		done
		modes=("${modes[@]:1}" "${modes[0]}")
	done
}

hot()
{
	local workers

	head_row 'Kept connections: one cached read'
	for workers in 4 8 16; do
		begin $workers
		in_turns off on
		row "$workers workers, off" m.off m.off
		row "$workers workers, on" m.on m.off
		end
	done
	echo
}

# Searches that no level of the cache knows, until killed.
search()
{
	exec wrk -t 1 -c $SEARCHERS -d 24h -s "$dir/search.lua" "$url" >/dev/null
}

mixed()
{
	head_row "Kept connections: one cached read while $SEARCHERS more connections search"
	begin 8
	search &
	searching=$!
	in_turns off on
	kill "$searching"
	wait "$searching" || true
	searching=
	row '8 workers, off' m.off m.off
	row '8 workers, on' m.on m.off
	end
	echo
}

micro()
{
	head_row 'The micro-cache: one cached read'
	begin 4
	in_turns constant on micro
	row 'a constant of nginx' m.constant m.constant
	row 'areg' m.on m.constant
	row 'micro-cache' m.micro m.constant
	end
	echo
}

for subject in "${subjects[@]}"; do
	"$subject"
done
