# SPDX-License-Identifier: Apache-2.0
# Part of scripts/bench: what callers see while somebody abuses the registry. The abuser has an address,
# a key of a free user, and processor time of the same machine, as everybody here.

readonly ABUSES='keys bodies slow health lists'
readonly ABUSE_LISTED=40 # agents whose files are nearly as large as a file may be

# abuse_stack: as http_stack(), with limits that are the shipped ones for the abuser's class.
abuse_stack()
{
	local class limit wallet

	http_stack "$agents"
	"$root/scripts/instance" stop-aregd --dir "$dir"
	settings=()
	for class in 'register 0 10 60' 'feedback 0 100 600' 'payments 0 50 500' 'search 60 300 1500' \
		'read 120 1000 5000' 'sign_in 10 10 10'; do
		read -ra limit <<<"$class"
		settings+=(--set "limit_${limit[0]}=${limit[*]:1} $LIMIT")
	done
	"$root/scripts/instance" start-aregd --dir "$dir" "${settings[@]}" --set max_requests=0
	wallet=$(printf '0xab%038x' 1)
	"$root/scripts/instance" aregctl --dir "$dir" -- user add --name abuser --wallet "$wallet" >/dev/null
	abuse_large_agents "$wallet" | "$root/scripts/instance" aregctl --dir "$dir" -- import - >/dev/null
	abuser=("$("$root/scripts/instance" aregctl --dir "$dir" -- key create --quiet --user "$wallet" \
		--scope keys:write)" "$wallet")
}

# Agents for an import, with as many services as go into a file of 1,000,000 bytes.
abuse_large_agents()
{
	perl -e '
		my ($count, $owner, $registry) = @ARGV;
		my $services = join ",", map { qq({"name":"web","endpoint":"https://large-$_.example.com/) . "x" x 60 . qq("}) }
			1 .. 8000;
		print qq({"agent_id":9$_,"chain":"base","registry_address":"$registry","owner_address":"$owner",)
			. qq("registration_file":)
			. qq({"name":"Large $_","description":"A file of many services.","services":[$services]}}\n)
			for 100000 .. 99999 + $count;' $ABUSE_LISTED "$1" \
		"$(sed -n '/^\[chain base\]/,/^\[/ s/^identity_registry *= *//p' "$dir/areg.conf")"
}

# abuse_meanwhile KIND COMMAND…: runs it while somebody abuses; `none` is nobody. What became of the
# abuser's requests goes to DIR/bench/abuse.
abuse_meanwhile()
{
	local kind=$1 pid

	shift
	if [ "$kind" = none ]; then
		"$@"
		return
	fi
	"$root/t/bench/abuse" "$kind" --port "$(cat "$dir/bench/port")" --key "${abuser[0]}" \
		--wallet "${abuser[1]}" --seconds $((seconds + 1)) >>"$dir/bench/abuse" &
	pid=$!
	beside+=("$pid")
	sleep 0.5
	"$@"
	wait "$pid" || true
	unset 'beside[-1]'
}

abuse()
{
	local round kind name abuser=()

	abuse_stack
	for ((round = 1; round <= rounds; round++)); do
		say "abuse: round $round of $rounds"
		for kind in none $ABUSES; do
			for name in stats search feedback; do
				[ "$kind" = none ] && ceiling=- || ceiling="$name+none"
				abuse_meanwhile "$kind" http_measure "$round" "$dir" "$name" "$name+$kind" "$ceiling"
			done
		done
	done >"$dir/bench/results"
	printf '### Beside one abuser\n\n%s The abuser has the same processors.\n\n' "$(conditions "$agents")"
	for name in stats search feedback; do
		for kind in none $ABUSES; do
			in_order "$dir/bench/results" "$name+$kind"
		done
	done | "$root/t/bench/table"
	printf '\nOf the abuser: kind, requests, answered with 2xx, 4xx, 5xx, not answered.\n\n'
	awk '{ n[$1] += $2; a[$1] += $3; b[$1] += $4; c[$1] += $5; d[$1] += $6 }
		END { for (k in n) printf "- %s: %d, %d, %d, %d, %d\n", k, n[k], a[k], b[k], c[k], d[k] }' "$dir/bench/abuse"
	echo
	remove_stack
}
