/* SPDX-License-Identifier: Apache-2.0 */
/* areg_feedback_summary() does the sum: the numbers are larger than any integer of C. */
#include "app/api/agents_summary.h"

#include <string.h>

#include "app/api/agents.h"
#include "app/problem_list.h"
#include "lib/eth.h"
#include "lib/row_json.h"

enum { CLIENTS_MAX = 100 };

static const struct db_statement get_summary = {
	.name = "get_summary",
	.effect = DB_READS,
	.sql = "SELECT s.count, s.summary_value, s.summary_value_decimals"
	       "  FROM erc8004_agents a"
	       " CROSS JOIN LATERAL areg_feedback_summary(a.agent_uuid, $5, $6, $7) s"
	       " WHERE a.agent_uuid = " AGENT_NAMED,
};

static const struct column summary_columns[] = { { "count", COLUMN_JSON },
	{ "summary_value", COLUMN_JSON }, { "summary_value_decimals", COLUMN_JSON } };
enum { SUMMARY_COLUMN_COUNT = sizeof summary_columns / sizeof summary_columns[0] };

static const char *const params[] = { "tag1", "tag2", NULL };
static const char *const repeatable[] = { "clients", NULL };
const struct route_input agents_summary_input = { .params = params, .repeatable = repeatable };

/* The clients as an array of the database, in the order and as often as they are named. */
static const char *read_clients(const struct call *call, struct faults *faults)
{
	const struct http_request *request = call->request;
	const char *clients[CLIENTS_MAX], *why;
	size_t count = 0;

	for (size_t i = 0; i < request->param_count; i++) {
		char *address = arena_alloc(call->arena, ETH_ADDRESS_LEN + 1);

		if (strcmp(request->params[i].name, "clients") != 0)
			continue;
		if (!eth_address_parse(request->params[i].value, address, &why))
			fault_add(faults, PROBLEM_INVALID_ADDRESS, "clients", "%s", why);
		if (count < CLIENTS_MAX)
			clients[count] = address;
		count++;
	}
	if (count == 0)
		fault_add(faults, PROBLEM_VALIDATION_FAILED, "clients",
			"is missing: the feedback of at least one client is summed up");
	if (count > CLIENTS_MAX) {
		fault_add(faults, PROBLEM_VALIDATION_FAILED, "clients", "stands more than %d times",
			CLIENTS_MAX);
		count = CLIENTS_MAX;
	}
	return db_array(call->arena, clients, count);
}

void agents_summary(struct call *call)
{
	const char *values[AGENT_NAMED_PARAMS + 3];
	struct faults faults;
	struct db_rows rows;
	struct json_out out;
	enum db_status status;

	if (!agent_named(call, values))
		return;
	call_params(call, &faults);
	values[AGENT_NAMED_PARAMS] = read_clients(call, &faults);
	values[AGENT_NAMED_PARAMS + 1] = call_param(call, "tag1");
	values[AGENT_NAMED_PARAMS + 2] = call_param(call, "tag2");
	if (faults.count > 0) {
		call_refuse(call, &faults);
		return;
	}
	status = call_read(call, &get_summary, values, sizeof values / sizeof values[0], &rows);
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
	row_json_write(&out, summary_columns, SUMMARY_COLUMN_COUNT, &rows, 0, 0);
	json_close_object(&out);
}
