/* SPDX-License-Identifier: Apache-2.0 */
/* Chains are what the configuration says, with the number of their agents; totals are kept by
 * triggers (sql/0014_registry.up.sql), so that they cost the same however much there is. */
#include "app/api/chains.h"

#include <string.h>

#include "lib/row_json.h"

/* ---- Chains ---- */

static const struct db_statement count_agents = {
	.name = "registry_count_agents",
	.effect = DB_READS,
	.sql = "SELECT chain, sum(agents) FROM erc8004_agent_counts GROUP BY chain",
};

/* Agents of a chain, in any status. */
static int64_t agents_of(const struct chain *chain, const struct db_rows *counts)
{
	for (size_t row = 0; row < counts->count; row++)
		if (strcmp(db_text(counts, row, 0), chain->name) == 0)
			return db_int(counts, row, 1);
	return 0;
}

static void write_chain(
	struct json_out *out, const struct chain *chain, const struct db_rows *counts)
{
	json_open_object(out);
	json_string(out, "name", chain->name);
	json_key(out, "aliases");
	json_open_array(out);
	for (const char *const *alias = chain->aliases; *alias != NULL; alias++)
		json_put_string(out, *alias);
	json_close_array(out);
	json_integer(out, "chain_id", (int64_t)chain->chain_id);
	json_string(out, "identity_registry", chain->identity_registry);
	json_string(out, "reputation_registry", chain->reputation_registry);
	json_string(out, "validation_registry", chain->validation_registry);
	json_string(out, "authority", "registry"); /* until chains are read */
	json_integer(out, "agents", agents_of(chain, counts));
	json_raw(out, "indexed_block", NULL);
	json_close_object(out);
}

void chains_get(struct call *call)
{
	const struct settings *settings = call->context->settings;
	struct db_rows counts;
	struct json_out out;
	enum db_status status;

	status = call_read(call, &count_agents, NULL, 0, &counts);
	if (status != DB_OK) {
		call_db_failed(call, status);
		return;
	}
	out = call_answer(call, 200);
	json_open_object(&out);
	json_key(&out, "chains");
	json_open_array(&out);
	for (size_t i = 0; i < settings->chain_count; i++)
		write_chain(&out, &settings->chains[i], &counts);
	json_close_array(&out);
	json_close_object(&out);
}

/* ---- Totals ---- */

static const struct db_statement get_totals = {
	.name = "registry_get_totals",
	.effect = DB_READS,
	.sql = "SELECT c.total, c.active, c.pending, c.suspended, c.revoked,"
	       "       t.feedback, t.revoked_feedback,"
	       "       t.payments, t.verified_payments, t.failed_payments, t.amount_usdc,"
	       "       t.validations, t.completed_validations"
	       "  FROM v_erc8004_totals t,"
	       "       (SELECT coalesce(sum(agents), 0) AS total,"
	       "               coalesce(sum(agents) FILTER (WHERE status = 'active'), 0) AS active,"
	       "               coalesce(sum(agents) FILTER (WHERE status = 'pending'), 0) AS pending,"
	       "               coalesce(sum(agents) FILTER (WHERE status = 'suspended'), 0)"
	       "                   AS suspended,"
	       "               coalesce(sum(agents) FILTER (WHERE status = 'revoked'), 0) AS revoked"
	       "          FROM erc8004_agent_counts) AS c",
};

static const struct column total_columns[] = {
	{ "total", COLUMN_JSON }, { "active", COLUMN_JSON }, { "pending", COLUMN_JSON },
	{ "suspended", COLUMN_JSON }, { "revoked", COLUMN_JSON }, /* agents */
	{ "total", COLUMN_JSON }, { "revoked", COLUMN_JSON }, /* feedback */
	{ "total", COLUMN_JSON }, { "verified", COLUMN_JSON }, { "failed", COLUMN_JSON },
	{ "amount_usdc", COLUMN_TEXT }, /* payments */
	{ "total", COLUMN_JSON }, { "completed", COLUMN_JSON }, /* validations */
};
enum { AGENTS = 0, FEEDBACK = 5, PAYMENTS = 7, VALIDATIONS = 11, TOTALS_END = 13 };

/* Columns from..to as an object of that name. */
static void write_totals(
	struct json_out *out, const char *name, const struct db_rows *rows, int from, int to)
{
	json_key(out, name);
	json_open_object(out);
	row_json_write(out, total_columns + from, (size_t)(to - from), rows, 0, from);
	json_close_object(out);
}

void stats_get(struct call *call)
{
	struct db_rows rows;
	struct json_out out;
	enum db_status status;

	status = call_read(call, &get_totals, NULL, 0, &rows);
	if (status != DB_OK) {
		call_db_failed(call, status);
		return;
	}
	out = call_answer(call, 200);
	json_open_object(&out);
	write_totals(&out, "agents", &rows, AGENTS, FEEDBACK);
	write_totals(&out, "feedback", &rows, FEEDBACK, PAYMENTS);
	write_totals(&out, "payments", &rows, PAYMENTS, VALIDATIONS);
	write_totals(&out, "validations", &rows, VALIDATIONS, TOTALS_END);
	json_integer(&out, "chains", (int64_t)call->context->settings->chain_count);
	json_close_object(&out);
}
