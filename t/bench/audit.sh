# SPDX-License-Identifier: Apache-2.0
# Part of scripts/bench: what the audit log costs a writer. Straight in PostgreSQL, where nothing else
# is in the way.

readonly AUDIT_CONNECTIONS=8
readonly AUDIT_AGENTS=2000

# Agents to give feedback to. Two databases that differ in the one migration.
audit_prepare()
{
	sql areg <<-END
		INSERT INTO erc8004_agents (chain, chain_id, registry_address, agent_id, owner_address,
			status, source, name)
		SELECT 'base', 8453, '0x' || repeat('8', 40), number, '0x' || lpad(to_hex(number), 40, 'a'),
			'active', 'api', 'agent ' || number
		FROM generate_series(1, $AUDIT_AGENTS) AS number;
		CREATE TABLE bench_agents AS
			SELECT agent_id::integer AS number, agent_uuid FROM erc8004_agents;
		ALTER TABLE bench_agents ADD PRIMARY KEY (number);
		VACUUM ANALYZE;
	END
	sql postgres <<<'CREATE DATABASE plain TEMPLATE areg'
	sql plain <"$root/sql/0009_audit.down.sql"
	cat >"$dir/feedback.sql" <<-'END'
		\set agent random(1, :agents)
		\set client random(1, 100000)
		\set score random(0, 100)
		WITH agent AS (
			SELECT agent_uuid FROM bench_agents WHERE number = :agent
		), given AS (
			SELECT g.*, agent_uuid, client_address
			FROM agent, (SELECT '0x' || lpad(to_hex((:client)::integer), 40, 'c')) AS c (client_address),
				areg_give_feedback(agent_uuid, client_address, (:score)::text, NULL, NULL, 'quality', '',
				'https://agent.example/a2a', NULL, NULL) AS g
		), audited AS (
			INSERT INTO audit_log (actor_user, actor, request_id, client_address, action,
				subject_type, subject_id, after)
			SELECT '0d1ff2b5-6d5b-4c0b-9d1b-0c1c2f5ad6b3'::uuid, 'areg_live_ABCDEFGH',
				'b0f4a1c2d3e4f5a6', '192.0.2.7'::inet, 'feedback.give', 'feedback', given.id,
				jsonb_build_object('agent_uuid', agent_uuid, 'client_address', client_address,
					'feedback_index', feedback_index, 'score', score, 'value', value,
					'value_decimals', value_decimals, 'tag1', 'quality', 'tag2', '')
			FROM given WHERE outcome = 'created'
		)
		SELECT outcome, id, created_at FROM given;
	END
}

# What the listener of aregd does; to be run in the background.
audit_seal()
{
	exec psql -h "$(readlink -f "$dir/sock")/pg" -U postgres -d areg -qAtX -o /dev/null \
		-f - <<<'SELECT areg_seal_audit() \watch 1'
}

# Clock ticks that PostgreSQL's processes which have ended took of the processors.
server_ticks()
{
	awk '{ sub(/.*\) /, ""); print $14 + $15 }' "/proc/$(head -n 1 "$dir/postgres.pid")/stat"
}

# audit_measure DATABASE NAME PGBENCH-OPTION…: appends a line "writes/s mean-ms p50-ms p99-ms cpu-µs"
# to DIR/NAME.DATABASE.
audit_measure()
{
	local database=$1 name=$2 transactions ticks

	shift 2
	rm -f "$dir"/times.*
	ticks=$(server_ticks)
	in_database "$database" pgbench -n -M prepared -f "$dir/feedback.sql" -c $AUDIT_CONNECTIONS -j 2 -D agents=$AUDIT_AGENTS \
		-T "$seconds" -l --log-prefix="$dir/times" "$@" >"$dir/pgbench.out" 2>&1 ||
		{ cat "$dir/pgbench.out" >&2; die "pgbench failed on $database"; }
	while [ -n "$(sql postgres <<<"SELECT 1 FROM pg_stat_activity WHERE application_name = 'pgbench'")" ]
	do
		sleep 0.1
	done
	ticks=$(($(server_ticks) - ticks))
	transactions=$(cat "$dir"/times.* | wc -l)
	# The third field is the time from when the write was due, in microseconds.
	cat "$dir"/times.* | awk '{ print $3 }' | sort -n | awk -v n="$transactions" \
		-v cpu=$((ticks * 1000000 / $(getconf CLK_TCK) / transactions)) -v t="$(
		sed -nE 's/^tps = ([0-9.]+).*/\1/p' "$dir/pgbench.out")" '
		{ sum += $1 }
		NR == int(n * 0.5) + 1 { p50 = $1 }
		NR == int(n * 0.99) + 1 { p99 = $1 }
		END { print t, sum / n / 1000, p50 / 1000, p99 / 1000, cpu }' >>"$dir/$name.$database"
}

# audit_row TITLE NAME FIELD
audit_row()
{
	local plain chained

	plain=$(awk -v f="$3" '{ print $f }' "$dir/$2.plain" | median)
	chained=$(awk -v f="$3" '{ print $f }' "$dir/$2.areg" | median)
	awk -v title="$1" -v plain="$plain" -v chained="$chained" 'BEGIN {
		digits = plain < 100 ? 2 : 0
		printf "| %s | %.*f | %.*f | %.3f |\n", title, digits, plain, digits, chained,
			chained / plain }'
}

audit()
{
	local round database order sealer verdict

	start_stack --no-memcached --no-aregd --no-nginx
	audit_prepare
	audit_seal &
	sealer=$!
	beside=("$sealer")
	for database in plain areg; do # fills caches; not counted
		audit_measure "$database" warm
	done
	for ((round = 1; round <= rounds; round++)); do
		say "audit: round $round of $rounds"
		# Who goes first changes, so that neither always comes after the other.
		order='plain areg'
		[ $((round % 2)) = 1 ] || order='areg plain'
		for database in $order; do
			audit_measure "$database" full
			audit_measure "$database" offered -R "$rate"
		done
	done
	kill "$sealer"
	wait "$sealer" || true
	beside=()
	cat <<-END
		### Audit log: feedback given straight in PostgreSQL

		$AUDIT_CONNECTIONS connections, every write on disk when it is acknowledged, $(nproc) cores, medians of $rounds rounds of $seconds s. Chained: hashed, and sealed once a second.

		| | plain log | chained log | ratio |
		| --- | ---: | ---: | ---: |
	END
	audit_row 'as fast as it goes: writes/s' full 1
	audit_row 'as fast as it goes: mean, ms' full 2
	audit_row 'as fast as it goes: p99, ms' full 4
	audit_row 'as fast as it goes: processor time of a write, µs' full 5
	audit_row "$rate writes/s offered: writes/s" offered 1
	audit_row "$rate writes/s offered: mean, ms" offered 2
	audit_row "$rate writes/s offered: p50, ms" offered 3
	audit_row "$rate writes/s offered: p99, ms" offered 4
	audit_row "$rate writes/s offered: processor time of a write, µs" offered 5
	echo
	verdict=$("$root/scripts/instance" aregctl --dir "$dir" -- audit verify)
	printf 'The log afterwards is %s.\n\n' "$(head -n 1 <<<"$verdict")"
	remove_stack
}
