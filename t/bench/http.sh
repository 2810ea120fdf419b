# Part of scripts/bench: areg and bare programs behind one nginx, asked over HTTP by t/bench/load.
# Every bare program has a server block of its own that is a copy of areg's but for where
# fastcgi_pass leads, so that parameters, buffers, headers and the log are the same.

readonly CALLERS=16    # keys, each far below the greatest limit that can be set
readonly LIMIT=250000  # requests a minute, the greatest that can be set
readonly CACHED=1000   # agents whose stats are asked for where they are to come from the cache
readonly BARE='constant row write'

# The ceiling of a subject; - where there is none.
ceiling_of()
{
	case $1 in
	constant) echo nginx ;;
	stats) echo constant ;;
	agent) echo row ;;
	feedback | hot) echo write ;;
	*) echo - ;;
	esac
}

# What one load says on its line "all", or of a kind: requests failed seconds p50 p99 p99.9 longest.
# load_of STACK NAME OPTION…: prints all its lines.
load_of()
{
	local stack=$1 name=$2 host=$2 workload=$2 only=()

	shift 2
	case $name in
	nginx | constant) workload=stats ;;
	row) workload=agent ;;
	write) workload=feedback ;;
	*) host=localhost ;;
	esac
	case $name in
	stats) only=(--only $CACHED) ;;
	hot)
		workload=feedback
		only=(--only 1)
		;;
	esac
	"$build/t/bench/load" --port "$(cat "$stack/bench/port")" --host "$host" \
		--connections "$connections" --callers "$stack/bench/callers" \
		--agents "$stack/bench/agents" "${only[@]}" "$@" "$root/t/bench/workloads/$workload"
}

# ---- processes -------------------------------------------------------------------------------

children()
{
	cat "/proc/$1/task/$1/children"
}

pid_of()
{
	head -n 1 "$1/$2.pid"
}

# The workers that answer: of a bare program, or of areg, whose master has other children too.
workers_of()
{
	local stack=$1 name=$2 pid

	if [[ " $BARE " == *" $name "* ]]; then
		children "$(cat "$stack/bench/$name.pid")"
		return
	fi
	[ "$name" != nginx ] || return 0
	for pid in $(children "$(pid_of "$stack" aregd)"); do
		[ "$(cat "/proc/$pid/comm")" != aregd ] || printf '%s ' "$pid"
	done
}

# Nanoseconds that processes have had of the processors.
cpu_of()
{
	local pid

	for pid in "$@"; do
		cat "/proc/$pid/schedstat" 2>/dev/null || true
	done | awk '{ sum += $1 } END { printf "%.0f", sum }'
}

# KiB that are the largest process's own.
private_of()
{
	local pid

	for pid in "$@"; do
		awk '/^Private_Dirty:/ { print $2 }' "/proc/$pid/smaps_rollup"
	done | sort -n | tail -n 1
}

# ---- the stack -------------------------------------------------------------------------------

# A port that is free, as is the one for TLS; below those that the kernel gives to connections.
free_port()
{
	local number

	while :; do
		number=$((20000 + RANDOM % 9000))
		if [ -z "$(port_holder $number)$(port_holder $((number + 363)))" ]; then
			echo $number
			return
		fi
	done
}

# http_stack AGENTS: areg and the bare programs, with that many sample agents.
http_stack()
{
	local count=$1 port class limits=() name url

	port=$(free_port)
	for class in register feedback payments search read sign_in; do
		limits+=(--set "limit_$class=$LIMIT $LIMIT $LIMIT $LIMIT")
	done
	start_stack --port "$port" --workers "$workers" "${limits[@]}" --set max_requests=0 \
		"${settings[@]}" --no-aregd
	mkdir "$dir/bench"
	echo "$port" >"$dir/bench/port"
	say "loading $count agents, ten times as many feedback records, half as many payments"
	url=$(. "$dir/quickstart.env" && echo "$DATABASE_URL")
	"$root/scripts/gen-sample" "$count" --feedback 10 | "$root/scripts/instance" aregctl --dir "$dir" -- import - >"$dir/log/load.log" ||
		die 'the sample could not be loaded'
	sql areg <<<'VACUUM ANALYZE'
	"$root/scripts/instance" start-aregd --dir "$dir"
	http_callers
	sql areg <<<"SELECT agent_uuid FROM erc8004_agents WHERE status = 'active'
		ORDER BY md5(chain || ':' || agent_id)" >"$dir/bench/agents"
	for name in $BARE; do
		http_bare "$name" "$url"
	done
	http_servers
}

http_callers()
{
	local i wallet key

	for ((i = 1; i <= CALLERS; i++)); do
		wallet=$(printf '0xbe%038x' "$i")
		"$root/scripts/instance" aregctl --dir "$dir" -- user add --name "bench $i" --wallet "$wallet" \
			--tier enterprise >/dev/null
		key=$("$root/scripts/instance" aregctl --dir "$dir" -- key create --quiet --user "$wallet")
		echo "$key $wallet"
	done >"$dir/bench/callers"
}

# Starts a bare program as aregd is started.
http_bare()
{
	local name=$1 url=$2 socket

	socket=$(readlink -f "$dir/sock")/$name
	spawn-fcgi -n -s "$socket" -M 0660 -G "$(stat -c %G "$(dirname "$socket")/aregd")" -- \
		"$build/t/bench/bare" "$workers" "$name" "$url" 2>"$dir/log/$name.log" &
	beside+=($!)
	echo $! >"$dir/bench/$name.pid"
}

# Server blocks of the bare programs beside areg's, which is the first and so the default.
http_servers()
{
	local conf=$dir/nginx name until=$((SECONDS + 30))

	for name in $BARE; do
		sed "s/^\(\s*fastcgi_pass\s*\)areg;/\1bench_$name;/" "$conf/app.conf" >"$conf/app-$name.conf"
	done
	{
		sed '/^http {/q' "$conf/private.conf"
		for name in $BARE; do
			printf '\tupstream bench_%s {\n\t\tserver "unix:%s" max_fails=0;\n\t}\n' "$name" \
				"$(readlink -f "$dir/sock")/$name"
		done
		sed '1,/^http {/d; $d' "$conf/private.conf"
		for name in $BARE nginx; do
			printf '\tserver {\n\t\tlisten 127.0.0.1:%s;\n\t\tserver_name %s;\n' "$port" "$name"
			printf '\t\taccess_log "%s/log/nginx-access.log" areg;\n' "$dir"
			if [ "$name" = nginx ]; then
				printf '\t\tdefault_type application/json;\n\t\tkeepalive_requests 10000;\n'
				printf '\t\tlocation / {\n\t\t\treturn 200 %0600d;\n\t\t}\n\t}\n' 0
			else
				printf '\t\tinclude "%s/app-%s.conf";\n\t}\n' "$conf" "$name"
			fi
		done
		echo '}'
	} >"$conf/bench.conf"
	mv "$conf/bench.conf" "$conf/private.conf"
	kill -HUP "$(pid_of "$dir" nginx)"
	for name in nginx $BARE; do
		until [[ $(load_of "$dir" "$name" --requests 1 2>/dev/null) == *' 1 0 '* ]]; do
			[ $SECONDS -lt $until ] ||
				{ tail "$dir/log/nginx-error.log" "$dir/log/$name.log" >&2; die "$name does not answer"; }
			sleep 0.1
		done
	done
}

# ---- measuring -------------------------------------------------------------------------------

# http_measure ROUND LABEL STACK NAME OPTION-OF-LOAD…: a line for t/bench/table.
http_measure()
{
	local round=$1 label=$2 stack=$3 name=$4 pids postgres nginx before after said

	shift 4
	read -ra pids <<<"$(workers_of "$stack" "$name")"
	read -ra postgres <<<"$(pid_of "$stack" postgres) $(children "$(pid_of "$stack" postgres)")"
	read -ra nginx <<<"$(children "$(pid_of "$stack" nginx)")"
	before="$(cpu_of "${pids[@]}") $(cpu_of "${postgres[@]}") $(cpu_of "${nginx[@]}")"
	said=$(load_of "$stack" "$name" "$@" | sed -n 's/^all //p')
	[ -n "$said" ] || die "$name could not be measured"
	after="$(cpu_of "${pids[@]}") $(cpu_of "${postgres[@]}") $(cpu_of "${nginx[@]}")"
	awk -v label="$round $label" -v ceiling="$(ceiling_of "$name")" -v said="$said" \
		-v has_workers="${#pids[@]}" -v kib="$(private_of "${pids[@]}")" '
		{
			worker = has_workers ? $4 - $1 : "-"
			printf "%s %s %s %.0f %.0f %.0f %s\n", label, ceiling, said, worker, $5 - $2,
				$6 - $3, has_workers ? kib : "-"
		}' <<<"$before $after"
}

# The subjects with their ceilings, in the order of the help.
http_with_ceilings()
{
	local name wanted=" $* "

	for name in "$@"; do
		wanted+="$(ceiling_of "$name") "
	done
	for name in $SUBJECTS; do
		[[ $wanted != *" $name "* ]] || printf '%s ' "$name"
	done
}

# http_rounds RESULTS NAME…: measures each of them once a round. Who goes first changes, so that
# none always comes after another.
http_rounds()
{
	local results=$1 round name order turned

	shift
	for name in "$@"; do # fills caches; not counted
		load_of "$dir" "$name" --seconds 1 >/dev/null
	done
	for ((round = 1; round <= rounds; round++)); do
		say "round $round of $rounds: $*"
		order=$*
		if [ $((round % 2)) = 0 ]; then
			turned=
			for name in "$@"; do
				turned="$name $turned"
			done
			order=$turned
		fi
		for name in $order; do
			http_measure "$round" "$name" "$dir" "$name" --seconds "$seconds" >>"$results"
		done
	done
}

# Lines of results in the order of the names given, whatever the order of the rounds was.
in_order()
{
	local results=$1 name

	shift
	for name in "$@"; do
		awk -v name="$name" '$2 == name' "$results"
	done
}

conditions()
{
	printf '%s cores, %s workers, %s connections, %s agents, medians of %s rounds of %s s.' \
		"$(nproc)" "$workers" "$connections" "$agents" "$rounds" "$seconds"
}

http_subjects()
{
	local names

	read -ra names <<<"$(http_with_ceilings "${subjects[@]}")"
	http_stack "$agents"
	http_rounds "$dir/bench/results" "${names[@]}"
	printf '### areg and its ceilings\n\n%s\n\n' "$(conditions)"
	in_order "$dir/bench/results" "${names[@]}" | "$root/t/bench/table"
	echo
	remove_stack
}
