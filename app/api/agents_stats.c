/* SPDX-License-Identifier: Apache-2.0 */
/* One row of maintained statistics each: a read costs the same however long the record is. */
#include "app/api/agents_stats.h"

#include "app/api/agents.h"

const struct column stats_columns[STATS_COLUMN_COUNT] = { { "agent_uuid", COLUMN_TEXT },
	{ "agent_id", COLUMN_JSON }, { "chain", COLUMN_TEXT }, { "registry_address", COLUMN_TEXT },
	{ "owner_address", COLUMN_TEXT }, { "name", COLUMN_TEXT }, { "status", COLUMN_TEXT },
	{ "registered_at", COLUMN_TEXT }, { "last_activity_at", COLUMN_TEXT },
	{ "total_feedback", COLUMN_JSON }, { "reputation_score", COLUMN_JSON },
	{ "positive_feedback", COLUMN_JSON }, { "negative_feedback", COLUMN_JSON },
	{ "revoked_feedback", COLUMN_JSON }, { "unique_clients", COLUMN_JSON },
	{ "last_feedback_at", COLUMN_TEXT }, { "total_payments", COLUMN_JSON },
	{ "successful_payments", COLUMN_JSON }, { "failed_payments", COLUMN_JSON },
	{ "total_amount_usdc", COLUMN_TEXT }, { "payment_success_rate", COLUMN_JSON },
	{ "last_payment_at", COLUMN_TEXT }, { "counted_payers", COLUMN_JSON },
	{ "trust_level", COLUMN_TEXT }, { "trust_score", COLUMN_JSON } };

static const struct db_statement get_stats = {
	.name = "get_stats",
	.effect = DB_READS,
	.sql = "SELECT " STATS_COLUMNS " FROM v_erc8004_agent_stats v"
	       " WHERE v.agent_uuid = " AGENT_NAMED,
};

static const struct column reputation_columns[] = { { "agent_uuid", COLUMN_TEXT },
	{ "agent_id", COLUMN_JSON }, { "total_feedback", COLUMN_JSON },
	{ "average_score", COLUMN_JSON }, { "raw_average_score", COLUMN_JSON },
	{ "positive_feedback", COLUMN_JSON }, { "negative_feedback", COLUMN_JSON },
	{ "revoked_feedback", COLUMN_JSON }, { "unique_clients", COLUMN_JSON },
	{ "self_clients", COLUMN_JSON }, { "last_feedback_at", COLUMN_TEXT },
	{ "by_tag", COLUMN_JSON } };
enum { REPUTATION_COLUMN_COUNT = sizeof reputation_columns / sizeof reputation_columns[0] };

/*
 * by_tag lists the hundred tags used most, and a long tag by its areg_tag_key(): anybody can invent
 * tags, and the size of an answer must stay bounded. Least and greatest come from the ends of an
 * index.
 */
static const struct db_statement get_reputation = {
	.name = "get_reputation",
	.effect = DB_READS,
	.sql = "SELECT v.agent_uuid, v.agent_id, v.total_feedback, v.average_score,"
	       "       v.raw_average_score, v.positive_feedback, v.negative_feedback, v.revoked_feedback,"
	       "       v.unique_clients, v.self_clients, rfc3339(v.last_feedback_at),"
	       "       coalesce((SELECT json_agg(json_build_object("
	       "               'tag1', t.tag1,"
	       "               'count', t.feedback_count,"
	       "               'clients', t.opinions,"
	       "               'average', trim_scale(areg_average(t.opinion_sum, t.opinions)),"
	       "               'raw_average', trim_scale(areg_average(t.value_sum, t.feedback_count)),"
	       "               'min', (SELECT trim_scale(round(min(f.normalized), 2))"
	       "                         FROM erc8004_reputation f"
	       "                        WHERE f.agent_uuid = v.agent_uuid AND f.tag_key = t.tag1"
	       "                          AND NOT f.is_revoked),"
	       "               'max', (SELECT trim_scale(round(max(f.normalized), 2))"
	       "                         FROM erc8004_reputation f"
	       "                        WHERE f.agent_uuid = v.agent_uuid AND f.tag_key = t.tag1"
	       "                          AND NOT f.is_revoked))"
	       "           ORDER BY t.feedback_count DESC, t.tag1)"
	       "         FROM (SELECT tag1, feedback_count, value_sum, opinions, opinion_sum"
	       "                 FROM erc8004_agent_tags"
	       "                WHERE agent_uuid = v.agent_uuid AND feedback_count > 0"
	       "                ORDER BY feedback_count DESC, tag1 LIMIT 100) AS t), '[]')"
	       "  FROM v_erc8004_agent_reputation v"
	       " WHERE v.agent_uuid = " AGENT_NAMED,
};

/* Answers with the one row that a statement gives for the agent of the path. */
static void answer_row(struct call *call, const struct db_statement *statement,
	const struct column *columns, size_t column_count)
{
	const char *params[AGENT_NAMED_PARAMS];
	struct db_rows rows;
	struct json_out out;
	enum db_status status;

	if (!agent_named(call, params))
		return;
	status = call_read(call, statement, params, AGENT_NAMED_PARAMS, &rows);
	if (status != DB_OK) {
		call_db_failed(call, status);
		return;
	}
	if (rows.count == 0) {
		agent_not_found(call);
		return;
	}
	out = call_answer(call, 200);
	json_open_object(&out);
	row_json_write(&out, columns, column_count, &rows, 0, 0);
	json_close_object(&out);
}

void agents_stats(struct call *call)
{
	answer_row(call, &get_stats, stats_columns, STATS_COLUMN_COUNT);
}

void agents_reputation(struct call *call)
{
	answer_row(call, &get_reputation, reputation_columns, REPUTATION_COLUMN_COUNT);
}
