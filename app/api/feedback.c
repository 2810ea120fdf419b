/* SPDX-License-Identifier: Apache-2.0 */
/* Feedback: one call of areg_give_feedback() stores a record, the statistics follow in the same
 * transaction. */
#include "app/api/feedback.h"

#include <string.h>
#include <time.h>

#include "app/api/agents.h"
#include "app/http/metering.h"
#include "app/http/paging.h"
#include "app/http/query.h"
#include "app/problem_list.h"

const struct column feedback_columns[FEEDBACK_COLUMN_COUNT] = { { "id", COLUMN_JSON },
	{ "agent_uuid", COLUMN_TEXT }, { "client_address", COLUMN_TEXT },
	{ "feedback_index", COLUMN_JSON }, { "score", COLUMN_JSON }, { "value", COLUMN_JSON },
	{ "value_decimals", COLUMN_JSON }, { "tag1", COLUMN_TEXT }, { "tag2", COLUMN_TEXT },
	{ "is_revoked", COLUMN_FLAG }, { "created_at", COLUMN_TEXT }, { "endpoint", COLUMN_TEXT },
	{ "file_uri", COLUMN_TEXT }, { "file_hash", COLUMN_TEXT }, { "is_automatic", COLUMN_FLAG },
	{ "revoked_at", COLUMN_TEXT }, { "is_self", COLUMN_FLAG } };
enum { FEEDBACK_CREATED_AT = 10 }; /* of them */

static const struct db_statement give_feedback = {
	.name = "give_feedback",
	.effect = DB_CHANGES,
	.sql = "WITH given AS ("
	       "    SELECT * FROM areg_give_feedback($1, $2, $3, $4, $5, $6, $7, $8, $9, $10,"
	       "        false, $15)"
	       "), audited AS ("
	       "    INSERT INTO audit_log (actor_user, actor, request_id, client_address, action,"
	       "        subject_type, subject_id, after)"
	       "    SELECT $11::uuid, $12, $13, areg_client_address($14), 'feedback.give', 'feedback', given.id,"
	       "        jsonb_build_object('agent_uuid', $1, 'client_address', $2,"
	       "            'feedback_index', feedback_index, 'score', score, 'value', value,"
	       "            'value_decimals', value_decimals, 'tag1', $6, 'tag2', $7)"
	       "      FROM given WHERE outcome = 'created'"
	       ")"
	       "SELECT outcome, id, $1, $2, feedback_index, score, value, value_decimals, $6, $7,"
	       "       false, created_at, $8, $9, $10, false, null,"
	       "       is_self"
	       "  FROM given",
};

enum { GIVE_PARAMS = WRITER_PARAMS + 1, GIVEN_COLUMNS = 1 + FEEDBACK_COLUMN_COUNT };

/* The row of give_feedback, of what the writer says and the parameters do. */
static void compose_given(struct arena *arena, const char *const params[GIVE_PARAMS],
	const char *const stored[WRITER_VALUES], struct db_rows *rows)
{
	const char *const row[GIVEN_COLUMNS] = { "created", stored[0], stored[1], params[1],
		stored[2], stored[3], stored[4], stored[5], params[5], params[6], "f", stored[6],
		params[7], params[8], params[9], "f", NULL, stored[7] };

	db_row_of(arena, row, GIVEN_COLUMNS, rows);
}

/* Stores a feedback: together with that of others where that can be. The transaction of an idempotency
 * key, and the tag of a request, are the worker's own. */
static enum db_status feedback_store(
	const struct call *call, const char *const params[GIVE_PARAMS], struct db_rows *rows)
{
	struct context *context = call->context;
	const bool may_be_together =
		!call->in_transaction && !context->settings->database_request_ids;
	const char *stored[WRITER_VALUES];
	struct db_error error;

	if (may_be_together) {
		switch (writer_store(&context->writers, params, call->arena, stored, &error)) {
		case WRITER_STORED:
			compose_given(call->arena, params, stored, rows);
			return DB_OK;
		case WRITER_FAILED:
			db_note_failure(context->db, &error);
			return error.status;
		case WRITER_ALONE:
			break;
		}
	}
	return db_run(context->db, &give_feedback, params, GIVE_PARAMS, call->arena, rows);
}

struct feedback {
	const char *agent_uuid;
	const char *client_address;
	const char *score;
	const char *value, *value_decimals;
	const char *tag1, *tag2;
	const char *endpoint;
	const char *file_uri, *file_hash;
};

#define AT(member) .offset = offsetof(struct feedback, member)

static const struct json_field feedback_fields[] = {
	{ .name = "agent_uuid", .kind = JSON_UUID, .required = true, AT(agent_uuid) },
	{ .name = "client_address",
		.kind = JSON_ADDRESS,
		.required = true,
		AT(client_address),
		.problem = PROBLEM_INVALID_ADDRESS },
	{ .name = "score",
		.kind = JSON_DECIMAL,
		AT(score),
		.min = 0,
		.max = 100,
		.problem = PROBLEM_INVALID_SCORE },
	{ .name = "value", .kind = JSON_VALUE, AT(value), .problem = PROBLEM_INVALID_SCORE },
	{ .name = "value_decimals",
		.kind = JSON_INTEGER,
		AT(value_decimals),
		.min = 0,
		.max = 18,
		.problem = PROBLEM_INVALID_SCORE },
	{ .name = "tag1", .kind = JSON_STRING, AT(tag1), .max = 256 },
	{ .name = "tag2", .kind = JSON_STRING, AT(tag2), .max = 256 },
	{ .name = "endpoint", .kind = JSON_ENDPOINT, AT(endpoint), .max = 2048 },
	{ .name = "file_uri", .kind = JSON_URI, AT(file_uri), .max = 2048 },
	{ .name = "file_hash", .kind = JSON_HASH, AT(file_hash) },
};
const struct route_input feedback_give_input = { .fields = feedback_fields,
	.field_count = sizeof feedback_fields / sizeof feedback_fields[0] };

#undef AT

/* Whether a member is there and not null. */
static bool feedback_is_given(const struct json_doc *doc, const char *key)
{
	const struct json_member *member = json_member(doc, key);

	return member != NULL && member->value.object != NULL;
}

/* Either a score, or a value with its decimals: what no single field can say. */
static void check_score(
	const struct json_doc *doc, const struct feedback *feedback, struct faults *faults)
{
	bool has_score = feedback_is_given(doc, "score");
	bool has_value = feedback_is_given(doc, "value");

	if (has_score && has_value)
		fault_add(
			faults, PROBLEM_INVALID_SCORE, "/value", "cannot go with score: give one");
	else if (!has_score && !has_value)
		fault_add(faults, PROBLEM_INVALID_SCORE, "/score", "is missing, and so is value");
	if (feedback->value_decimals != NULL && !has_value)
		fault_add(faults, PROBLEM_INVALID_SCORE, "/value_decimals", "goes with value only");
}

/* The answer to each outcome of areg_give_feedback() but `created` and `enough_today`. */
static const struct refusal give_refusals[] = {
	{ PROBLEM_AGENT_NOT_FOUND, "There is no agent of this agent_uuid.", NULL },
	{ PROBLEM_AGENT_NOT_ACTIVE_403, "The agent is not active, so it takes no feedback.", NULL },
	{ PROBLEM_AGENT_SUSPENDED, "The agent is suspended, so it takes no feedback.", NULL },
	{ PROBLEM_FORBIDDEN, "An agent's owner cannot give it feedback (ERC-8004).", "own_agent" },
};

/* The day is that of UTC. */
static void refuse_until_tomorrow(struct call *call)
{
	enum { DAY_S = 24 * 60 * 60 };
	const int wait_s = (int)(DAY_S - time(NULL) % DAY_S);

	http_header_add(call->response, "Retry-After", arena_printf(call->arena, "%d", wait_s));
	call_problem(call, PROBLEM_FEEDBACK_LIMIT_EXCEEDED,
		arena_printf(call->arena,
			"This client has given this agent %d feedbacks today, which is the limit; one "
			"more fits in %d s.",
			call->context->settings->feedback_per_client_per_day, wait_s));
}

static void feedback_answer_outcome(struct call *call, const struct db_rows *rows)
{
	const char *outcome = db_text(rows, 0, 0);
	struct json_out out;

	if (strcmp(outcome, "enough_today") == 0) {
		refuse_until_tomorrow(call);
		return;
	}
	if (strcmp(outcome, "created") != 0) {
		call_refuse_outcome(call, outcome, give_refusals,
			sizeof give_refusals / sizeof give_refusals[0]);
		return;
	}
	out = call_answer(call, 201);
	json_open_object(&out);
	row_json_write(&out, feedback_columns, FEEDBACK_COLUMN_COUNT, rows, 0, 1);
	json_close_object(&out);
}

static void give(struct call *call)
{
	struct feedback feedback = { 0 };
	struct faults faults;
	struct json_doc doc;
	struct db_rows rows;
	enum db_status status;

	if (!call_body(call, &feedback, &doc, &faults))
		return;
	check_score(&doc, &feedback, &faults);
	if (faults.count > 0) {
		call_refuse(call, &faults);
		return;
	}
	if (!call_is_wallet(call, feedback.client_address)) {
		call_problem(call, PROBLEM_FORBIDDEN,
			"client_address is not the wallet of this API key's user.");
		return;
	}
	const char *params[GIVE_PARAMS] = { feedback.agent_uuid, feedback.client_address,
		feedback.score, feedback.value, feedback.value_decimals,
		feedback.tag1 ? feedback.tag1 : "", feedback.tag2 ? feedback.tag2 : "",
		feedback.endpoint, feedback.file_uri, feedback.file_hash, call->caller->user_id,
		call->caller->key_prefix, call->request->id, call->request->client_address,
		arena_printf(
			call->arena, "%d", call->context->settings->feedback_per_client_per_day) };
	call_changed(call, feedback.agent_uuid);
	status = feedback_store(call, params, &rows);
	if (status != DB_OK)
		call_db_failed(call, status);
	else
		feedback_answer_outcome(call, &rows);
}

void feedback_give(struct call *call)
{
	give(call);
	metrics_add(call->context->metrics, METER_FEEDBACK, meter_outcome(call->response->status),
		0, 1);
}

/* ---- One record ---- */

static const struct db_statement find_feedback = {
	.name = "find_feedback",
	.effect = DB_READS,
	.sql = "SELECT agent_uuid, client_address FROM erc8004_reputation WHERE id = $1::bigint",
};

/* A second revocation at the same instant waits for the row, and then finds it revoked. */
static const struct db_statement revoke_feedback = {
	.name = "revoke_feedback",
	.effect = DB_CHANGES,
	.sql = "WITH f AS ("
	       "    UPDATE erc8004_reputation SET is_revoked = true, revoked_at = now()"
	       "     WHERE id = $1::bigint AND NOT is_revoked"
	       "    RETURNING *"
	       "), audited AS ("
	       "    INSERT INTO audit_log (actor_user, actor, request_id, client_address, action,"
	       "        subject_type, subject_id, before, after)"
	       "    SELECT $2::uuid, $3, $4, areg_client_address($5), 'feedback.revoke', 'feedback', id,"
	       "        jsonb_build_object('is_revoked', false),"
	       "        jsonb_build_object('is_revoked', true, 'revoked_at', rfc3339(revoked_at))"
	       "      FROM f"
	       ")"
	       "SELECT " FEEDBACK_COLUMNS " FROM f",
};

void feedback_not_found(struct call *call)
{
	call_problem(call, PROBLEM_FEEDBACK_NOT_FOUND,
		arena_printf(call->arena, "There is no feedback %s.", call->path_values[0]));
}

const char *feedback_id_named(struct call *call)
{
	static const char most[] = "9223372036854775807"; /* of a bigint */
	const char *text = call->path_values[0];
	size_t len = strspn(text, "0123456789");

	if (text[len] == '\0' && len > 0 && text[0] != '0' &&
		(len < sizeof most - 1 || (len == sizeof most - 1 && strcmp(text, most) <= 0)))
		return text;
	feedback_not_found(call);
	return NULL;
}

bool feedback_named(struct call *call, struct feedback_named *named)
{
	struct db_rows rows;
	enum db_status status;

	named->id = feedback_id_named(call);
	if (named->id == NULL)
		return false;
	status = call_read(call, &find_feedback, &named->id, 1, &rows);
	if (status != DB_OK) {
		call_db_failed(call, status);
		return false;
	}
	if (rows.count == 0) {
		feedback_not_found(call);
		return false;
	}
	named->agent_uuid = db_text(&rows, 0, 0);
	named->client_address = db_text(&rows, 0, 1);
	return true;
}

void feedback_revoke(struct call *call)
{
	struct feedback_named named;
	struct db_rows rows;
	struct json_out out;
	enum db_status status;

	if (!feedback_named(call, &named))
		return;
	if (!call_is_wallet(call, named.client_address)) {
		call_problem(call, PROBLEM_FORBIDDEN,
			"Only who gave the feedback can revoke it: another wallet than that of "
			"this API key's user.");
		return;
	}
	const char *params[] = { named.id, call->caller->user_id, call->caller->key_prefix,
		call->request->id, call->request->client_address };
	call_changed(call, named.agent_uuid);
	status = db_run(call->context->db, &revoke_feedback, params,
		sizeof params / sizeof params[0], call->arena, &rows);
	if (status != DB_OK) {
		call_db_failed(call, status);
		return;
	}
	if (rows.count == 0) {
		call_problem(call, PROBLEM_FEEDBACK_ALREADY_REVOKED,
			"The feedback was revoked already.");
		return;
	}
	out = call_answer(call, 200);
	json_open_object(&out);
	row_json_write(&out, feedback_columns, FEEDBACK_COLUMN_COUNT, &rows, 0, 0);
	json_close_object(&out);
}

/* ---- The list ---- */

static const char order[] = "newest";

struct filter {
	const char *client; /* canonical address */
	const char *tag1, *tag2;
	bool include_revoked;
	struct page page;
};

static const char *const list_params[] = { "client", "tag1", "tag2", "include_revoked", "limit",
	"offset", "cursor", NULL };
const struct route_input feedback_list_input = { .params = list_params };

static void feedback_read_filter(
	const struct call *call, struct filter *filter, struct faults *faults)
{
	const char *client = call_param(call, "client"), *why;
	const char *revoked = call_param(call, "include_revoked");
	char *canonical = arena_alloc(call->arena, ETH_ADDRESS_LEN + 1);

	*filter = (struct filter){ 0 };
	call_params(call, faults);
	if (client != NULL && !eth_address_parse(client, canonical, &why))
		fault_add(faults, PROBLEM_INVALID_ADDRESS, "client", "%s", why);
	filter->client = client == NULL ? NULL : canonical;
	filter->tag1 = call_param(call, "tag1");
	filter->tag2 = call_param(call, "tag2");
	if (revoked != NULL && strcmp(revoked, "true") != 0 && strcmp(revoked, "false") != 0)
		fault_add(faults, PROBLEM_VALIDATION_FAILED, "include_revoked",
			"is not true or false");
	filter->include_revoked = revoked != NULL && strcmp(revoked, "true") == 0;
	page_read(call, order, &filter->page, faults);
}

/* The records that fit, but for what include_revoked says. */
static void feedback_add_filter(struct query *query, const struct filter *filter)
{
	query_text(query, " FROM erc8004_reputation f WHERE f.agent_uuid = agent.agent_uuid");
	if (filter->client != NULL)
		query_add(query, " AND f.client_address = ?", filter->client);
	if (filter->tag1 != NULL)
		query_add(query, " AND f.tag_key = areg_tag_key(?)", filter->tag1);
	if (filter->tag2 != NULL)
		query_add(query, " AND f.tag2 = ?", filter->tag2);
}

/* As many of them as can be on the page, from the end of one part of erc8004_reputation_newest. */
static void add_newest(struct query *query, const struct filter *filter, const char *part)
{
	const struct page *page = &filter->page;

	query_text(query, "(SELECT *");
	feedback_add_filter(query, filter);
	query_text(query, part);
	if (page->after_id != NULL) {
		query_add(query, " AND (f.created_at, f.id) < (?::timestamptz,", page->after_key);
		query_add(query, " ?::bigint)", page->after_id);
	}
	buf_printf(&query->sql, " ORDER BY f.created_at DESC, f.id DESC LIMIT %zu)",
		page->offset + page->limit + 1);
}

/* Whether the agent's statistics hold the total already. */
static bool feedback_is_counted(const struct filter *filter)
{
	return filter->client == NULL && filter->tag1 == NULL && filter->tag2 == NULL;
}

/* Rows: total, the record's columns. No row: no such agent; one row with a null id: no feedback. */
static void feedback_compose(struct query *query, const struct filter *filter,
	const char *const params[AGENT_NAMED_PARAMS], struct arena *arena)
{
	query_init(query, arena);
	for (size_t i = 0; i < AGENT_NAMED_PARAMS; i++)
		query->params[query->param_count++] = params[i];
	query_text(query, "SELECT ");
	if (!feedback_is_counted(filter)) {
		query_text(query, "(SELECT count(*) FROM (SELECT");
		feedback_add_filter(query, filter);
		if (!filter->include_revoked)
			query_text(query, " AND NOT f.is_revoked");
		buf_printf(&query->sql, " LIMIT %d) AS counted)", TOTAL_EXACT_MAX + 1);
	} else {
		query_text(query, filter->include_revoked
					  ? "agent.total_feedback + agent.revoked_feedback"
					  : "agent.total_feedback");
	}
	query_text(query, ", " FEEDBACK_COLUMNS
			  " FROM erc8004_agent_stats agent LEFT JOIN LATERAL (SELECT * FROM (");
	add_newest(query, filter, " AND NOT f.is_revoked");
	if (filter->include_revoked) {
		query_text(query, " UNION ALL ");
		add_newest(query, filter, " AND f.is_revoked");
	}
	buf_printf(&query->sql,
		") AS f ORDER BY f.created_at DESC, f.id DESC LIMIT %zu OFFSET %zu) AS f ON true"
		" WHERE agent.agent_uuid = " AGENT_NAMED " ORDER BY f.created_at DESC, f.id DESC",
		filter->page.limit + 1, filter->page.offset);
}

static void feedback_write_list(
	struct call *call, const struct filter *filter, const struct db_rows *rows)
{
	int64_t total = db_int(rows, 0, 0);
	const size_t found = db_text(rows, 0, 1) == NULL ? 0 : rows->count;
	const size_t fits = found > filter->page.limit ? filter->page.limit : found;
	const char *last_at = NULL, *last_id = NULL;
	struct json_out out = call_answer(call, 200);
	struct page part = filter->page;
	size_t shown;

	json_open_object(&out);
	shown = page_write_rows(
		&out, "feedback", feedback_columns, FEEDBACK_COLUMN_COUNT, rows, fits, 1);
	if (shown < fits)
		part = page_cut(&part, shown);
	if (found > shown) {
		last_at = db_text(rows, shown - 1, 1 + FEEDBACK_CREATED_AT);
		last_id = db_text(rows, shown - 1, 1);
	}
	page_write(call, &out, &part, total,
		!feedback_is_counted(filter) && total > TOTAL_EXACT_MAX, order, last_at, last_id);
	json_close_object(&out);
}

void feedback_list(struct call *call)
{
	const char *params[AGENT_NAMED_PARAMS];
	struct filter filter;
	struct faults faults;
	struct query query;
	struct db_rows rows;
	enum db_status status;

	if (!agent_named(call, params))
		return;
	feedback_read_filter(call, &filter, &faults);
	if (faults.count > 0) {
		call_refuse(call, &faults);
		return;
	}
	feedback_compose(&query, &filter, params, call->arena);
	status = query_run(&query, call, &rows);
	if (status == DB_CALLER && filter.page.after_id != NULL) {
		fault_add(&faults, PROBLEM_VALIDATION_FAILED, "cursor",
			"is not one that a list gave");
		call_refuse(call, &faults);
	} else if (status != DB_OK) {
		call_db_failed(call, status);
	} else if (rows.count == 0) {
		agent_not_found(call);
	} else {
		feedback_write_list(call, &filter, &rows);
	}
}
