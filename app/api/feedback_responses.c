/* SPDX-License-Identifier: Apache-2.0 */
/* Responses are appended and stay, as in the reputation registry; the list is oldest first. */
#include "app/api/feedback_responses.h"

#include <string.h>

#include "app/api/feedback.h"
#include "app/http/paging.h"
#include "app/problem_list.h"
#include "lib/row_json.h"

#define RESPONSE_COLUMNS \
	"r.id, r.feedback_id, r.responder_address, r.response_uri, r.response_hash," \
	" rfc3339(r.created_at)"
static const struct column response_columns[] = { { "id", COLUMN_JSON },
	{ "feedback_id", COLUMN_JSON }, { "responder_address", COLUMN_TEXT },
	{ "response_uri", COLUMN_TEXT }, { "response_hash", COLUMN_TEXT },
	{ "created_at", COLUMN_TEXT } };
enum { RESPONSE_COLUMN_COUNT = sizeof response_columns / sizeof response_columns[0] };

enum { RESPONSE_URI_MAX = 8192 }; /* characters; imports have up to 64 KiB */

static const struct db_statement append_response = {
	.name = "append_response",
	.effect = DB_CHANGES,
	.sql = "WITH r AS ("
	       "    INSERT INTO erc8004_feedback_responses (feedback_id, responder_address,"
	       "        response_uri, response_hash)"
	       "    SELECT id, $2, $3, $4 FROM erc8004_reputation WHERE id = $1::bigint FOR KEY SHARE"
	       "    RETURNING *"
	       "), audited AS ("
	       "    INSERT INTO audit_log (actor_user, actor, request_id, client_address, action,"
	       "        subject_type, subject_id, after)"
	       "    SELECT $5::uuid, $6, $7, areg_client_address($8), 'feedback.respond', 'feedback',"
	       "        feedback_id, jsonb_build_object('response_id', id,"
	       "            'responder_address', responder_address,"
	       "            'response_uri', areg_audited_text(response_uri),"
	       "            'response_hash', response_hash)"
	       "      FROM r"
	       ")"
	       "SELECT " RESPONSE_COLUMNS " FROM r",
};

/* Rows: total (counted to one past TOTAL_EXACT_MAX), the response's columns. No row: no such
 * feedback; one row with a null id: no response. Ids begin at 1. */
static const struct db_statement list_responses = {
	.name = "list_responses",
	.effect = DB_READS,
	.sql = "SELECT (SELECT count(*) FROM (SELECT FROM erc8004_feedback_responses c"
	       "         WHERE c.feedback_id = f.id LIMIT $5::integer + 1) AS counted),"
	       "       " RESPONSE_COLUMNS "  FROM erc8004_reputation f LEFT JOIN LATERAL ("
	       "    SELECT * FROM erc8004_feedback_responses o"
	       "     WHERE o.feedback_id = f.id AND o.id > coalesce($2::bigint, 0)"
	       "     ORDER BY o.id LIMIT $3::integer + 1 OFFSET $4::integer) AS r ON true"
	       " WHERE f.id = $1::bigint ORDER BY r.id",
};

struct response {
	const char *response_uri;
	const char *response_hash;
};

static const struct json_field response_fields[] = {
	{ .name = "response_uri",
		.kind = JSON_URI,
		.required = true,
		.offset = offsetof(struct response, response_uri),
		.max = RESPONSE_URI_MAX },
	{ .name = "response_hash",
		.kind = JSON_HASH,
		.offset = offsetof(struct response, response_hash) },
};
const struct route_input feedback_responses_append_input = { .fields = response_fields,
	.field_count = sizeof response_fields / sizeof response_fields[0] };

void feedback_responses_append(struct call *call)
{
	struct response response = { 0 };
	struct feedback_named named;
	struct faults faults;
	struct json_doc doc;
	struct db_rows rows;
	struct json_out out;
	enum db_status status;

	if (!call_body(call, &response, &doc, &faults))
		return;
	if (faults.count > 0) {
		call_refuse(call, &faults);
		return;
	}
	if (call->caller->wallet[0] == '\0') {
		call_problem(call, PROBLEM_FORBIDDEN,
			"A response stands under a wallet, and this API key's user has none.");
		return;
	}
	if (!feedback_named(call, &named))
		return;
	const char *params[] = { named.id, call->caller->wallet, response.response_uri,
		response.response_hash, call->caller->user_id, call->caller->key_prefix,
		call->request->id, call->request->client_address };
	call_changed(call, named.agent_uuid);
	status = db_run(call->context->db, &append_response, params,
		sizeof params / sizeof params[0], call->arena, &rows);
	if (status != DB_OK) {
		call_db_failed(call, status);
		return;
	}
	if (rows.count == 0) { /* deleted meanwhile */
		feedback_not_found(call);
		return;
	}
	out = call_answer(call, 201);
	json_open_object(&out);
	row_json_write(&out, response_columns, RESPONSE_COLUMN_COUNT, &rows, 0, 0);
	json_close_object(&out);
}

static const char order[] = "oldest";

static const char *const list_params[] = { "limit", "offset", "cursor", NULL };
const struct route_input feedback_responses_list_input = { .params = list_params };

static void responses_write_list(
	struct call *call, const struct page *page, const struct db_rows *rows)
{
	int64_t total = db_int(rows, 0, 0);
	const size_t found = db_text(rows, 0, 1) == NULL ? 0 : rows->count;
	const size_t fits = found > page->limit ? page->limit : found;
	struct json_out out = call_answer(call, 200);
	struct page part = *page;
	const char *last;
	size_t shown;

	json_open_object(&out);
	shown = page_write_rows(
		&out, "responses", response_columns, RESPONSE_COLUMN_COUNT, rows, fits, 1);
	if (shown < fits)
		part = page_cut(page, shown);
	last = found > shown ? db_text(rows, shown - 1, 1) : NULL;
	page_write(call, &out, &part, total, total > TOTAL_EXACT_MAX, order, last, last);
	json_close_object(&out);
}

void feedback_responses_list(struct call *call)
{
	const char *id = feedback_id_named(call);
	struct faults faults;
	struct page page;
	struct db_rows rows;
	enum db_status status;

	if (id == NULL)
		return;
	call_params(call, &faults);
	page_read(call, order, &page, &faults);
	if (faults.count > 0) {
		call_refuse(call, &faults);
		return;
	}
	const char *params[] = { id, page.after_id, arena_printf(call->arena, "%zu", page.limit),
		arena_printf(call->arena, "%zu", page.offset),
		arena_printf(call->arena, "%d", TOTAL_EXACT_MAX) };
	status = call_read(call, &list_responses, params, sizeof params / sizeof params[0], &rows);
	if (status == DB_CALLER && page.after_id != NULL) {
		fault_add(&faults, PROBLEM_VALIDATION_FAILED, "cursor",
			"is not one that a list gave");
		call_refuse(call, &faults);
	} else if (status != DB_OK) {
		call_db_failed(call, status);
	} else if (rows.count == 0) {
		feedback_not_found(call);
	} else {
		responses_write_list(call, &page, &rows);
	}
}
