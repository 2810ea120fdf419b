/* SPDX-License-Identifier: Apache-2.0 */
/* The first of each chain from the end of an index (sql/0014_registry.up.sql), and of those the
 * first. Only active agents that have something of what is asked for. */
#include "app/api/leaderboard.h"

#include <string.h>

#include "app/api/agents_stats.h"
#include "app/http/paging.h"
#include "app/http/query.h"
#include "app/problem_list.h"

enum { MIN_FEEDBACK_DEFAULT = 3, MIN_FEEDBACK_MAX = 999999999 };

/* What agents can be ranked by. */
struct ranking {
	const char *name;
	const char *column; /* of erc8004_agent_stats */
	const char *condition; /* of its index */
	const char *counted; /* what min_feedback is the least of */
};

static const struct ranking rankings[] = {
	/* The clients that the score rests on: many records of one client are one opinion. */
	{ "reputation_score", "s.reputation_sort", "s.reputation_sort >= 0", "s.opinions" },
	{ "total_feedback", "s.total_feedback", "s.total_feedback > 0", "s.total_feedback" },
	{ "total_amount_usdc", "s.total_amount_usdc", "s.total_amount_usdc > 0",
		"s.total_feedback" },
};

struct leaderboard {
	const struct ranking *by;
	const struct chain *chain; /* NULL: all */
	size_t min_feedback;
	size_t limit;
};

static const char *const params[] = { "by", "chain", "min_feedback", "limit", NULL };
const struct route_input leaderboard_input = { .params = params };

static const struct ranking *read_ranking(const struct call *call, struct faults *faults)
{
	const char *by = call_param(call, "by");

	if (by == NULL)
		return &rankings[0];
	for (size_t i = 0; i < sizeof rankings / sizeof rankings[0]; i++)
		if (strcmp(by, rankings[i].name) == 0)
			return &rankings[i];
	fault_add(faults, PROBLEM_VALIDATION_FAILED, "by",
		"is not one of reputation_score, total_feedback, total_amount_usdc");
	return NULL;
}

static void read_leaderboard(
	const struct call *call, struct leaderboard *leaderboard, struct faults *faults)
{
	const char *chain = call_param(call, "chain");

	*leaderboard = (struct leaderboard){ 0 };
	call_params(call, faults);
	leaderboard->by = read_ranking(call, faults);
	if (chain != NULL) {
		leaderboard->chain = settings_chain(call->context->settings, chain);
		if (leaderboard->chain == NULL)
			fault_add(faults, PROBLEM_CHAIN_NOT_SUPPORTED, "chain",
				"this registry serves no chain of that name");
	}
	leaderboard->min_feedback = page_number(
		call, "min_feedback", 0, MIN_FEEDBACK_MAX, MIN_FEEDBACK_DEFAULT, faults);
	leaderboard->limit =
		page_number(call, "limit", 1, PAGE_LIMIT_MAX, PAGE_LIMIT_DEFAULT, faults);
}

static void leaderboard_compose(
	struct query *query, const struct leaderboard *leaderboard, struct arena *arena)
{
	const char *key = leaderboard->by->column;

	query_init(query, arena);
	query_text(query, "SELECT " STATS_COLUMNS " FROM (SELECT leader.* FROM"
			  " (SELECT DISTINCT chain FROM erc8004_agent_counts");
	if (leaderboard->chain != NULL)
		query_add(query, " WHERE chain = ?", leaderboard->chain->name);
	query_text(query, arena_printf(arena,
				  ") AS c, LATERAL (SELECT s.agent_uuid, %s AS key"
				  " FROM erc8004_agent_stats s"
				  " WHERE s.chain = c.chain AND s.status = 'active' AND %s",
				  key, leaderboard->by->condition));
	query_add(query, arena_printf(arena, " AND %s >= ?::bigint", leaderboard->by->counted),
		arena_printf(arena, "%zu", leaderboard->min_feedback));
	query_text(query,
		arena_printf(arena,
			" ORDER BY %s DESC, s.agent_uuid DESC LIMIT %zu) AS leader"
			" ORDER BY leader.key DESC, leader.agent_uuid DESC LIMIT %zu) AS leader"
			" JOIN v_erc8004_agent_stats v USING (agent_uuid)"
			" ORDER BY leader.key DESC, leader.agent_uuid DESC",
			key, leaderboard->limit, leaderboard->limit));
}

void leaderboard_get(struct call *call)
{
	struct leaderboard leaderboard;
	struct faults faults;
	struct query query;
	struct db_rows rows;
	struct json_out out;
	enum db_status status;

	faults_init(&faults, call->arena, PROBLEM_VALIDATION_FAILED);
	read_leaderboard(call, &leaderboard, &faults);
	if (faults.count > 0) {
		call_refuse(call, &faults);
		return;
	}
	leaderboard_compose(&query, &leaderboard, call->arena);
	status = query_run(&query, call, &rows);
	if (status != DB_OK) {
		call_db_failed(call, status);
		return;
	}
	out = call_answer(call, 200);
	json_open_object(&out);
	json_string(&out, "by", leaderboard.by->name);
	json_string(&out, "chain", leaderboard.chain == NULL ? NULL : leaderboard.chain->name);
	json_integer(&out, "min_feedback", (int64_t)leaderboard.min_feedback);
	json_key(&out, "leaders");
	json_open_array(&out);
	for (size_t row = 0; row < rows.count; row++) {
		json_open_object(&out);
		json_integer(&out, "rank", (int64_t)row + 1);
		row_json_write(&out, stats_columns, STATS_COLUMN_COUNT, &rows, row, 0);
		json_close_object(&out);
	}
	json_close_array(&out);
	json_close_object(&out);
}
