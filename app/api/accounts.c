/* SPDX-License-Identifier: Apache-2.0 */
/* One statement gives, for each kind of record, the ten newest and the total, counted to just past
 * TOTAL_EXACT_MAX. Records in any state count. */
#include "app/api/accounts.h"

#include "app/http/paging.h"
#include "app/problem_list.h"

/* Columns are named as the answer's members are. is_self is computed outside of the LIMIT, for ten
 * records only. Inside, PostgreSQL would plan to compute it for every record of the address, and
 * might read the addresses of all agents. */
static const struct db_statement get_account = {
	.name = "accounts_get",
	.effect = DB_READS,
	.sql = "SELECT (SELECT count(*) FROM (SELECT FROM erc8004_agents a"
	       "         WHERE a.owner_address = $1 LIMIT $2::bigint) AS counted),"
	       "       (SELECT coalesce(json_agg(newest), '[]') FROM ("
	       "        SELECT a.agent_uuid, a.agent_id, a.chain, a.name, a.status,"
	       "               rfc3339(a.created_at) AS registered_at"
	       "          FROM erc8004_agents a WHERE a.owner_address = $1"
	       "         ORDER BY a.created_at DESC, a.agent_uuid DESC LIMIT 10) AS newest),"
	       "       (SELECT count(*) FROM (SELECT FROM erc8004_reputation f"
	       "         WHERE f.client_address = $1 LIMIT $2::bigint) AS counted),"
	       "       (SELECT coalesce(json_agg(newest), '[]') FROM ("
	       "        SELECT f.*, NOT f.is_automatic AND EXISTS ("
	       "               SELECT FROM erc8004_agent_addresses x WHERE x.agent_uuid = f.agent_uuid"
	       "                  AND x.address = f.client_address) AS is_self FROM ("
	       "        SELECT f.id, f.agent_uuid, f.client_address, f.feedback_index,"
	       "               areg_shown_score(f.score) AS score, f.value, f.value_decimals,"
	       "               f.tag1, f.tag2, f.endpoint, f.file_uri, f.file_hash,"
	       "               f.is_automatic, f.is_revoked, rfc3339(f.revoked_at) AS revoked_at,"
	       "               rfc3339(f.created_at) AS created_at"
	       "          FROM erc8004_reputation f WHERE f.client_address = $1"
	       "         ORDER BY f.id DESC LIMIT 10) AS f) AS newest),"
	       "       (SELECT count(*) FROM (SELECT FROM erc8004_validations v"
	       "         WHERE v.validator_address = $1 AND v.status = 'completed'"
	       "         LIMIT $2::bigint) AS counted),"
	       "       (SELECT coalesce(json_agg(newest), '[]') FROM ("
	       "        SELECT v.*, EXISTS ("
	       "               SELECT FROM erc8004_agent_addresses x WHERE x.agent_uuid = v.agent_uuid"
	       "                  AND x.address = v.validator_address) AS is_self FROM ("
	       "        SELECT v.request_hash, v.agent_uuid, v.validator_address, v.request_uri,"
	       "               v.status, v.response, v.response_uri, v.response_hash, v.tag,"
	       "               rfc3339(v.requested_at) AS requested_at,"
	       "               rfc3339(v.responded_at) AS responded_at"
	       "          FROM erc8004_validations v"
	       "         WHERE v.validator_address = $1 AND v.status = 'completed'"
	       "         ORDER BY v.responded_at DESC, v.id DESC LIMIT 10) AS v) AS newest)",
};

static void write_records(
	struct json_out *out, const char *name, const struct db_rows *rows, int column)
{
	int64_t total = db_int(rows, 0, column);

	json_key(out, name);
	json_open_object(out);
	json_integer(out, "total", total);
	if (total > TOTAL_EXACT_MAX)
		json_flag(out, "total_is_estimate", true);
	json_raw(out, "newest", db_text(rows, 0, column + 1));
	json_close_object(out);
}

void accounts_get(struct call *call)
{
	char address[ETH_ADDRESS_LEN + 1];
	const char *why;
	struct db_rows rows;
	struct json_out out;
	enum db_status status;

	if (!eth_address_parse(call->path_values[0], address, &why)) {
		call_problem(call, PROBLEM_INVALID_ADDRESS,
			arena_printf(call->arena, "The address of the path is %s.", why));
		return;
	}
	const char *params[] = { address, arena_printf(call->arena, "%d", TOTAL_EXACT_MAX + 1) };
	status = call_read(call, &get_account, params, 2, &rows);
	if (status != DB_OK) {
		call_db_failed(call, status);
		return;
	}
	out = call_answer(call, 200);
	json_open_object(&out);
	json_string(&out, "address", address);
	write_records(&out, "agents", &rows, 0);
	write_records(&out, "feedback", &rows, 2);
	write_records(&out, "validations", &rows, 4);
	json_close_object(&out);
}
