/* SPDX-License-Identifier: Apache-2.0 */
/* A backend that cannot be asked is reported as away. */
#include "app/process/backend_health.h"

#include "lib/buf.h"

static const struct db_statement active_agents = {
	.name = "active_agents",
	.effect = DB_READS,
	.sql = "SELECT chain, agents FROM erc8004_agent_counts WHERE status = 'active' ORDER BY chain",
};

static const struct db_statement events_held_back = {
	.name = "events_held_back",
	.effect = DB_READS,
	.sql = "SELECT (extract(epoch FROM clock_timestamp() - at) * 1000)::bigint"
	       "  FROM erc8004_events WHERE place >= areg_event_horizon() ORDER BY place, id LIMIT 1",
};

static int64_t held_back_ms(struct db *db, struct arena *arena)
{
	struct db_rows rows;
	int64_t age_ms;

	if (db_run(db, &events_held_back, NULL, 0, arena, &rows) != DB_OK)
		return -1;
	age_ms = rows.count == 0 ? 0 : db_int(&rows, 0, 0);
	return age_ms < 0 ? 0 : age_ms; /* a clock may be set back */
}

static const char *agents_text(const struct db_rows *rows, struct arena *arena)
{
	struct buf out;

	buf_init(&out, arena, 256);
	for (size_t row = 0; row < rows->count; row++)
		buf_printf(&out, "erc8004_active_agents_total{chain=\"%s\"} %s\n",
			db_text(rows, row, 0), db_text(rows, row, 1));
	return arena_strdup(arena, out.data);
}

size_t health_cache_servers(const struct health_report *report)
{
	return (size_t)__builtin_popcount(report->cache_servers);
}

void health_look(
	struct db *db, struct cache *cache, struct arena *arena, struct health_report *report)
{
	struct db_rows rows;

	*report = (struct health_report){ .database = UNHEALTHY, .events_held_back_ms = -1 };
	if (db_run(db, &active_agents, NULL, 0, arena, &rows) == DB_OK) {
		report->database = HEALTHY;
		report->agents = agents_text(&rows, arena);
		report->events_held_back_ms = held_back_ms(db, arena);
	}
	/* None may be wanted. */
	report->cache_servers = cache_check(cache);
	if (health_cache_servers(report) < cache_server_count(cache))
		report->cache = DEGRADED;
}

void health_look_at_replicas(
	struct replicas *replicas, struct arena *arena, struct health_report *report)
{
	struct replica_report found;

	report->replica_count = replicas_count(replicas);
	for (size_t i = 0; i < report->replica_count; i++) {
		replicas_look(replicas, i, arena, &found);
		report->replicas[i] = (struct replica_health){ .lag_ms = found.lag_ms,
			.role = !found.is_reachable ? "unknown"
				: found.is_replica  ? "replica"
						    : "primary" };
	}
}
