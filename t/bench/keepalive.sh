# SPDX-License-Identifier: Apache-2.0
# Part of scripts/bench: what kept connections between nginx and the workers bring, and the
# micro-cache of nginx.

readonly KEPT_CONNECTIONS=64 KEPT_SEARCHERS=8

# keepalive_rounds LABEL SEARCHERS NAME…: measures them with as many workers as are said, while
# others search where there are any, and prints lines for t/bench/table.
keepalive_rounds()
{
	local label=$1 searchers=$2 command searching=

	shift 2
	"$root/scripts/instance" stop-aregd --dir "$dir"
	"$root/scripts/instance" start-aregd --dir "$dir" --workers "$workers"
	if [ "$searchers" -gt 0 ]; then
		load_command "$dir" search --seconds 86400
		"${command[@]}" --connections "$searchers" >/dev/null &
		searching=$!
		beside+=("$searching")
	fi
	rm -f "$dir/bench/results"
	http_rounds "$dir/bench/results" "$@"
	if [ -n "$searching" ]; then
		kill "$searching"
		wait "$searching" 2>/dev/null || true
		unset 'beside[-1]'
	fi
	in_order "$dir/bench/results" "$@" | sed -E "s, (separate|kept)\>, \1$label,g"
}

# keepalive_table NAME…: of separate and kept connections.
keepalive_table()
{
	local workers connections=$KEPT_CONNECTIONS

	workers=4
	http_stack "$agents"
	for workers in 4 8 16; do
		keepalive_rounds "/$workers" 0 "$@" >>"$dir/bench/table"
	done
	workers=8
	keepalive_rounds "/8+$KEPT_SEARCHERS" $KEPT_SEARCHERS "$@" >>"$dir/bench/table"
	workers='4, 8 and 16'
	printf '### Kept connections\n\n%s Statistics from the cache, 2 nginx workers. Where others search meanwhile, their processor time is counted too.\n\n' \
		"$(conditions "$agents")"
	"$root/t/bench/table" <"$dir/bench/table"
	echo
	remove_stack
}

keepalive()
{
	keepalive_table separate kept
}

kept()
{
	keepalive_table kept
}

micro()
{
	local connections=$KEPT_CONNECTIONS

	http_stack "$agents"
	sed -i -E 's/^#(include .*micro-cache\.conf"?;)/\1/' "$dir/nginx/http.conf"
	# One address asks for all: its limits are out of the way.
	sed -i -E 's/rate=[0-9]+r.m/rate=100000r\/s/; s/burst=[0-9]+/burst=100000/' "$dir/nginx/micro-cache.conf"
	http_reload
	http_rounds "$dir/bench/results" nginx kept micro
	printf '### Micro-cache\n\n%s Statistics of one agent, read without a key.\n\n' "$(conditions "$agents")"
	in_order "$dir/bench/results" nginx kept micro | "$root/t/bench/table"
	echo
	remove_stack
}
