/* SPDX-License-Identifier: Apache-2.0 */
/* Each statement answers with the number of rows that it took away, which is the size of its batch
 * as long as there are more. Read beside this: the PostgreSQL manual, SELECT, SKIP LOCKED. */
#include "app/registry/sweep.h"

static const struct db_statement retries = {
	.name = "sweep_retries",
	.effect = DB_CHANGES,
	.sql = "WITH gone AS (DELETE FROM idempotency_keys WHERE (user_id, key) IN ("
	       "SELECT user_id, key FROM idempotency_keys "
	       "WHERE created_at < now() - interval '24 hours' "
	       "ORDER BY created_at LIMIT 1000 FOR UPDATE SKIP LOCKED) RETURNING 1) "
	       "SELECT count(*) FROM gone",
};

static const struct db_statement challenges = {
	.name = "sweep_challenges",
	.effect = DB_CHANGES,
	.sql = "WITH gone AS (DELETE FROM auth_nonces WHERE nonce IN ("
	       "SELECT nonce FROM auth_nonces WHERE expires_at < now() "
	       "ORDER BY expires_at LIMIT 1000 FOR UPDATE SKIP LOCKED) RETURNING 1) "
	       "SELECT count(*) FROM gone",
};

static const struct db_statement totals = {
	.name = "sweep_totals",
	.effect = DB_CHANGES,
	.sql = "SELECT areg_fold_totals()",
};

static const struct db_statement events = {
	.name = "sweep_events",
	.effect = DB_CHANGES,
	.sql = "SELECT areg_prune_events($1::integer)",
};

static const struct {
	const struct db_statement *statement;
	uint64_t batch; /* as the statement says */
} sweeps[SWEEPS] = {
	[SWEEP_RETRIES] = { &retries, 1000 },
	[SWEEP_CHALLENGES] = { &challenges, 1000 },
	[SWEEP_TOTALS] = { &totals, 10000 },
	[SWEEP_EVENTS] = { &events, 1000 },
};

enum db_status sweep_batch(struct db *db, enum sweep what, const struct settings *settings,
	struct arena *arena, uint64_t *removed, bool *more)
{
	const char *days = arena_printf(arena, "%d", settings->event_retention_days);
	struct db_rows rows;
	enum db_status status = db_run(
		db, sweeps[what].statement, &days, what == SWEEP_EVENTS ? 1 : 0, arena, &rows);

	*removed = status == DB_OK ? (uint64_t)db_int(&rows, 0, 0) : 0;
	*more = *removed == sweeps[what].batch;
	return status;
}
