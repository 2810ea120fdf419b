# SPDX-License-Identifier: Apache-2.0
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
	feedback) echo write ;;
	hot) echo feedback ;;
	kept) echo separate ;;
	micro) echo nginx ;;
	*) echo - ;;
	esac
}

# load_command STACK NAME OPTION…: puts what asks for a subject into the array `command`.
load_command()
{
	local stack=$1 name=$2 host=localhost workload=$2 which=() callers=(--callers "$1/bench/callers")

	shift 2
	case $name in
	nginx | constant | separate | kept | micro) workload=stats ;;
	row) workload=agent ;;
	write | hot) workload=feedback ;;
	newest | words | leaders | offers | opinions)
		workload=search
		which=(--kind "$name")
		;;
	esac
	case $name in
	nginx | constant | row | write | separate) host=$name ;;
	esac
	case $name in
	stats | separate | kept) which=(--only $CACHED) ;;
	hot) which=(--only 1) ;;
	micro)
		which=(--only 1)
		callers=()
		;;
	esac
	command=("$build/t/bench/load" --port "$(cat "$stack/bench/port")" --host "$host"
		--connections "$connections" "${callers[@]}" --agents "$stack/bench/agents" "${which[@]}" "$@"
		"$root/t/bench/workloads/$workload")
}

# load_of STACK NAME OPTION…: asks for a subject and prints what t/bench/load does.
load_of()
{
	local command

	load_command "$@"
	"${command[@]}"
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

# The processes that answer: of a bare program, or of areg, workers and writers.
workers_of()
{
	local stack=$1 name=$2 pid

	if [[ " $BARE " == *" $name "* ]]; then
		children "$(cat "$stack/bench/$name.pid")"
		return
	fi
	[ "$name" != nginx ] || return 0
	for pid in $(children "$(pid_of "$stack" aregd)"); do
		[[ ! $(cat "/proc/$pid/comm") =~ ^aregd(\ writer.*)?$ ]] || printf '%s ' "$pid"
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
		--set feedback_per_client_per_day=0 "${settings[@]}" --no-aregd
	mkdir "$dir/bench"
	echo "$port" >"$dir/bench/port"
	say "loading $count agents, ten times as many feedback records, half as many payments"
	url=$(. "$dir/quickstart.env" && echo "${DATABASE_URL/user=areg/user=postgres}")
	AREG_BUILD=$build "$root/scripts/gen-sample" "$count" --feedback 10 --into "$url" ||
		die 'the sample could not be loaded'
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

# Has nginx read its files again, and waits until nobody serves by what was there before.
http_reload()
{
	local pid before until=$((SECONDS + 30))

	before=$(children "$(pid_of "$dir" nginx)")
	kill -HUP "$(pid_of "$dir" nginx)"
	for pid in $before; do
		while [ -d "/proc/$pid" ]; do
			[ $SECONDS -lt $until ] || { tail "$dir/log/nginx-error.log" >&2; die 'nginx does not reload'; }
			sleep 0.1
		done
	done
}

# Server blocks of the bare programs beside areg's, which is the first and so the default. Theirs open
# a connection for each request: libfcgi serves one at a time, and kept ones would occupy its processes.
# One more does the same with areg.
http_servers()
{
	local conf=$dir/nginx name upstream until=$((SECONDS + 30))

	for name in $BARE separate; do
		upstream=bench_$name
		[ "$name" != separate ] || upstream=areg
		sed -e "s/^\(\s*fastcgi_pass\s*\)\$areg_upstream;/\1$upstream;/" \
			-e 's/^\(\s*fastcgi_keep_conn\s*\)on;/\1off;/' "$conf/app.conf" >"$conf/app-$name.conf"
		grep -q "$upstream;" "$conf/app-$name.conf" || die "nginx would not ask $upstream"
	done
	{
		sed '/^http {/q' "$conf/private.conf"
		for name in $BARE; do
			printf '\tupstream bench_%s {\n\t\tserver "unix:%s" max_fails=0;\n\t}\n' "$name" \
				"$(readlink -f "$dir/sock")/$name"
		done
		sed '1,/^http {/d; $d' "$conf/private.conf"
		for name in $BARE separate nginx; do
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
	http_reload
	for name in nginx $BARE separate; do
		until [[ $(load_of "$dir" "$name" --requests 1 2>/dev/null) == *' 1 0 '* ]]; do
			[ $SECONDS -lt $until ] ||
				{ tail "$dir/log/nginx-error.log" "$dir/log/$name.log" >&2; die "$name does not answer"; }
			sleep 0.1
		done
	done
}

# Reads tables and indexes into PostgreSQL's memory and the kernel's; the indexes last, as they are
# what has to stay where not all has room.
http_warm()
{
	sql areg >/dev/null <<-END
		CREATE EXTENSION IF NOT EXISTS pg_prewarm;
		SELECT pg_prewarm(oid) FROM pg_class
		WHERE relkind IN ('r', 'i', 't') AND relnamespace <> 'pg_catalog'::regnamespace
		ORDER BY relkind DESC, pg_relation_size(oid);
	END
}

# http_warm_writes AGENTS: after a checkpoint, PostgreSQL's log takes each page as a whole when it is
# first changed. The next checkpoint is many minutes away: so that is over before writes are measured.
http_warm_writes()
{
	local length=$((5 + $1 / 15000)) # as pages grow with agents; for a million it is a minute

	sql areg <<<CHECKPOINT
	say "feedback for $length s that is not counted"
	load_of "$dir" feedback --seconds "$length" >/dev/null
}

# ---- measuring -------------------------------------------------------------------------------

# http_measure ROUND STACK NAME LABEL CEILING: measures a subject and prints a line for t/bench/table.
http_measure()
{
	local round=$1 stack=$2 name=$3 label=$4 ceiling=$5 pids postgres nginx before after said

	read -ra pids <<<"$(workers_of "$stack" "$name")"
	read -ra postgres <<<"$(pid_of "$stack" postgres) $(children "$(pid_of "$stack" postgres)")"
	read -ra nginx <<<"$(children "$(pid_of "$stack" nginx)")"
	before="$(cpu_of "${pids[@]}") $(cpu_of "${postgres[@]}") $(cpu_of "${nginx[@]}")"
	said=$(load_of "$stack" "$name" --seconds "$seconds" | sed -n 's/^all //p')
	[ -n "$said" ] || die "$name could not be measured"
	after="$(cpu_of "${pids[@]}") $(cpu_of "${postgres[@]}") $(cpu_of "${nginx[@]}")"
	awk -v label="$round $label" -v ceiling="$ceiling" -v said="$said" \
		-v has_workers="${#pids[@]}" -v kib="$(private_of "${pids[@]}")" '
		{
			printf "%s %s %s %s %.0f %.0f %s\n", label, ceiling, said,
				has_workers ? sprintf("%.0f", $4 - $1) : "-", $5 - $2, $6 - $3,
				has_workers ? kib : "-"
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
		load_of "$dir" "$name" --seconds 0.5 >/dev/null
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
			http_measure "$round" "$dir" "$name" "$name" "$(ceiling_of "$name")" >>"$results"
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
		"$(nproc)" "$workers" "$connections" "$1" "$rounds" "$seconds"
	# It takes them where there are enough of them.
	! grep -q 'KernelPageSize: *2048' "/proc/$(pid_of "$dir" postgres)/smaps" ||
		printf ' PostgreSQL has huge pages.'
}

http_subjects()
{
	local names

	read -ra names <<<"$(http_with_ceilings "${subjects[@]}")"
	http_stack "$agents"
	http_warm_writes "$agents"
	http_rounds "$dir/bench/results" "${names[@]}"
	printf '### areg and its ceilings\n\n%s\n\n' "$(conditions "$agents")"
	in_order "$dir/bench/results" "${names[@]}" | "$root/t/bench/table"
	echo
	remove_stack
}

# Writes a second of 8 KiB, each synced as PostgreSQL syncs its log, one after the other.
disk_syncs()
{
	local writes=200 file=$dir/bench/syncs began

	dd if=/dev/zero of="$file" bs=8k count=$writes conv=fsync 2>/dev/null
	began=$EPOCHREALTIME
	dd if=/dev/zero of="$file" bs=8k count=$writes oflag=dsync conv=notrunc 2>/dev/null
	awk -v n=$writes -v began="$began" -v ended="$EPOCHREALTIME" 'BEGIN {
		printf "%.0f\n", n / (ended - began) }'
}

hot()
{
	local round

	http_stack "$agents"
	http_warm_writes "$agents"
	http_rounds "$dir/bench/results" feedback hot
	for ((round = 1; round <= rounds; round++)); do
		disk_syncs >>"$dir/bench/disk"
	done
	printf '### Feedback to one agent\n\n%s Every write is on disk when it is acknowledged; the disk alone does %s such writes a second, one after the other. Those that come together share one.\n\n' \
		"$(conditions "$agents")" "$(median <"$dir/bench/disk")"
	in_order "$dir/bench/results" feedback hot | "$root/t/bench/table"
	echo
	remove_stack
}

memory()
{
	local requests=100000 before after pids said

	http_stack "$agents"
	read -ra pids <<<"$(workers_of "$dir" mixed)"
	before=$(private_of "${pids[@]}")
	say "memory: $requests mixed requests"
	said=$(load_of "$dir" mixed --requests $requests | sed -n 's/^all //p')
	after=$(private_of "${pids[@]}")
	[ "$(workers_of "$dir" mixed)" = "${pids[*]} " ] || die 'a worker was replaced meanwhile'
	printf '### Memory\n\n'
	awk -v workers="$workers" -v before="$before" -v after="$after" '{
		printf "Private memory of the largest of %d workers: %.1f MiB at first, %.1f MiB after %d mixed requests to all of them.\n\n",
			workers, before / 1024, after / 1024, $1 }' <<<"$said"
	remove_stack
}

http_open_loop()
{
	local round

	http_stack "$agents"
	http_warm
	say "open loop: $seconds s that are not counted"
	load_of "$dir" mixed --seconds "$seconds" --rate "$open_loop" >/dev/null
	for ((round = 1; round <= rounds; round++)); do
		say "open loop: round $round of $rounds"
		load_of "$dir" mixed --seconds "$seconds" --rate "$open_loop" |
			awk -v round="$round" '{ $1 = round " open:" $1 " -"; print $0, "- - - -" }'
	done >"$dir/bench/results"
	printf '### Mixed load at %s requests a second\n\n%s Times count from when a request was due. Before, PostgreSQL had read its tables, and the same load was on for %s s.\n\n' \
		"$open_loop" "$(conditions "$agents")" "$seconds"
	"$root/t/bench/table" <"$dir/bench/results"
	echo
	remove_stack
}

http_scale()
{
	local small large round name stack names=${subjects[*]} order

	http_stack "$agents"
	http_warm
	http_warm_writes "$agents"
	small=$dir
	http_stack "$scale"
	http_warm
	http_warm_writes "$scale"
	large=$dir
	for name in $names; do
		for stack in "$small" "$large"; do
			load_of "$stack" "$name" --seconds 2 >/dev/null
		done
	done
	for ((round = 1; round <= rounds; round++)); do
		say "scale: round $round of $rounds"
		order='small large'
		[ $((round % 2)) = 1 ] || order='large small'
		for name in $names; do
			for stack in $order; do
				if [ "$stack" = small ]; then
					http_measure "$round" "$small" "$name" "$name@$agents" -
				else
					http_measure "$round" "$large" "$name" "$name@$scale" "$name@$agents"
				fi
			done
		done
	done >"$large/bench/results"
	printf '### Scale\n\n%s PostgreSQL had read its tables before, and written its log past what follows a checkpoint.\n\n' \
		"$(conditions "$agents and $scale")"
	for name in $names; do
		in_order "$large/bench/results" "$name@$agents" "$name@$scale"
	done | "$root/t/bench/table"
	echo
	remove_stack
}
