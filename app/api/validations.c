/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Validations, as in ERC-8004's validation registry. The agent's owner makes one request for each
 * request_hash. The validator that it names may respond any number of times; the last response
 * counts.
 */
#include "app/api/validations.h"

#include <string.h>

#include "app/api/agents.h"
#include "app/http/paging.h"
#include "app/problem_list.h"
#include "lib/row_json.h"

/* Of erc8004_validations as `v`. */
#define VALIDATION_COLUMNS \
	"v.request_hash, v.agent_uuid, v.validator_address, v.request_uri, v.status, v.response," \
	" v.response_uri, v.response_hash, v.tag, rfc3339(v.requested_at), rfc3339(v.responded_at)," \
	" EXISTS (SELECT FROM erc8004_agent_addresses x" \
	"   WHERE x.agent_uuid = v.agent_uuid AND x.address = v.validator_address)"

static const struct column validation_columns[] = { { "request_hash", COLUMN_TEXT },
	{ "agent_uuid", COLUMN_TEXT }, { "validator_address", COLUMN_TEXT },
	{ "request_uri", COLUMN_TEXT }, { "status", COLUMN_TEXT }, { "response", COLUMN_JSON },
	{ "response_uri", COLUMN_TEXT }, { "response_hash", COLUMN_TEXT }, { "tag", COLUMN_TEXT },
	{ "requested_at", COLUMN_TEXT }, { "responded_at", COLUMN_TEXT },
	{ "is_self", COLUMN_FLAG } };
enum { VALIDATION_COLUMN_COUNT = sizeof validation_columns / sizeof validation_columns[0] };

enum { URI_MAX = 2048 }; /* characters */

#define AT(type, member) .offset = offsetof(struct type, member)
#define COUNT(table) (sizeof(table) / sizeof(table)[0])

static void answer_validation(struct call *call, int status, const struct db_rows *rows, int first)
{
	struct json_out out = call_answer(call, status);

	json_open_object(&out);
	row_json_write(&out, validation_columns, VALIDATION_COLUMN_COUNT, rows, 0, first);
	json_close_object(&out);
}

static void validation_not_found(struct call *call)
{
	call_problem(call, PROBLEM_VALIDATION_NOT_FOUND,
		"No validation of this request_hash was asked for.");
}

/* The path's {request_hash}, canonical. NULL when it cannot be one: then the call is answered
 * already (404). */
static const char *hash_named(struct call *call)
{
	char *hash = arena_alloc(call->arena, ETH_HASH_LEN + 1);
	const char *why;

	if (eth_hash_parse(call->path_values[0], hash, &why))
		return hash;
	validation_not_found(call);
	return NULL;
}

/* ---- Asking for one ---- */

/* Rows: the agent, whether the caller may ask, the validation unless there was one of that hash. No
 * row: no such agent. */
static const struct db_statement request_validation = {
	.name = "request_validation",
	.effect = DB_CHANGES,
	.sql = "WITH agent AS ("
	       "    SELECT agent_uuid, status, owner_address = $5::text AS is_own"
	       "      FROM erc8004_agents WHERE agent_uuid = " AGENT_NAMED " FOR KEY SHARE"
	       "), v AS ("
	       "    INSERT INTO erc8004_validations"
	       "        (agent_uuid, validator_address, request_uri, request_hash)"
	       "    SELECT agent_uuid, $6, $7, $8 FROM agent WHERE is_own AND status = 'active'"
	       "    ON CONFLICT (request_hash) DO NOTHING"
	       "    RETURNING *"
	       "), audited AS ("
	       "    INSERT INTO audit_log (actor_user, actor, request_id, client_address, action,"
	       "        subject_type, subject_id, after)"
	       "    SELECT $9::uuid, $10, $11, areg_client_address($12), 'validation.request',"
	       "        'validation', request_hash, to_jsonb(v) - 'tag_key'"
	       "            || jsonb_build_object('request_uri', areg_audited_text(request_uri))"
	       "      FROM v"
	       ")"
	       "SELECT agent.agent_uuid, agent.status, agent.is_own, " VALIDATION_COLUMNS
	       "  FROM agent LEFT JOIN v ON true",
};
enum { ROW_AGENT, ROW_AGENT_STATUS, ROW_IS_OWN, ROW_VALIDATION };

struct validation_request {
	const char *validator_address;
	const char *request_uri;
	const char *request_hash;
};

static const struct json_field request_fields[] = {
	{ .name = "validator_address",
		.kind = JSON_ADDRESS,
		.required = true,
		AT(validation_request, validator_address),
		.problem = PROBLEM_INVALID_ADDRESS },
	{ .name = "request_uri",
		.kind = JSON_URI,
		.required = true,
		AT(validation_request, request_uri),
		.max = URI_MAX },
	{ .name = "request_hash",
		.kind = JSON_HASH,
		.required = true,
		AT(validation_request, request_hash) },
};
const struct route_input validations_request_input = { .fields = request_fields,
	.field_count = COUNT(request_fields) };

static void answer_requested(struct call *call, const struct db_rows *rows)
{
	const char *agent_status = db_text(rows, 0, ROW_AGENT_STATUS);

	if (!db_bool(rows, 0, ROW_IS_OWN))
		call_problem(call, PROBLEM_FORBIDDEN,
			"Only the agent's owner can ask for its validation.");
	else if (strcmp(agent_status, "suspended") == 0)
		call_problem(call, PROBLEM_AGENT_SUSPENDED,
			"The agent is suspended, so no validation of it can be asked for.");
	else if (strcmp(agent_status, "active") != 0)
		call_problem(call, PROBLEM_AGENT_NOT_ACTIVE_409,
			"The agent is not active, so no validation of it can be asked for.");
	else if (db_text(rows, 0, ROW_VALIDATION) == NULL)
		call_problem(call, PROBLEM_VALIDATION_ALREADY_EXISTS,
			"A validation of this request_hash was asked for already.");
	else
		answer_validation(call, 201, rows, ROW_VALIDATION);
}

void validations_request(struct call *call)
{
	struct validation_request wanted = { 0 };
	const char *agent[AGENT_NAMED_PARAMS];
	struct faults faults;
	struct json_doc doc;
	struct db_rows rows;
	enum db_status status;

	if (!agent_named(call, agent) || !call_body(call, &wanted, &doc, &faults))
		return;
	if (faults.count > 0) {
		call_refuse(call, &faults);
		return;
	}
	const char *params[] = { agent[0], agent[1], agent[2], agent[3], call->caller->wallet,
		wanted.validator_address, wanted.request_uri, wanted.request_hash,
		call->caller->user_id, call->caller->key_prefix, call->request->id,
		call->request->client_address };
	call_changed(call, NULL);
	status = db_run(
		call->context->db, &request_validation, params, COUNT(params), call->arena, &rows);
	if (status != DB_OK) {
		call_db_failed(call, status);
	} else if (rows.count == 0) {
		agent_not_found(call);
	} else {
		call_changed(call, db_text(&rows, 0, ROW_AGENT));
		answer_requested(call, &rows);
	}
}

/* ---- Answering it ---- */

/* Rows: the validation as it is now. The lock makes `before` what this response replaces, also when
 * another was being stored. */
static const struct db_statement respond_validation = {
	.name = "respond_validation",
	.effect = DB_CHANGES,
	.sql = "WITH old AS ("
	       "    SELECT id, areg_audited_response(erc8004_validations) AS audited"
	       "      FROM erc8004_validations"
	       "     WHERE request_hash = $1 AND validator_address = $2 FOR NO KEY UPDATE"
	       "), v AS ("
	       "    UPDATE erc8004_validations SET status = 'completed', response = $3::smallint,"
	       "        response_uri = $4, response_hash = $5, tag = nullif($6, ''),"
	       "        responded_at = clock_timestamp()"
	       "      FROM old WHERE erc8004_validations.id = old.id"
	       "    RETURNING erc8004_validations.*, old.audited AS before,"
	       "        areg_audited_response(erc8004_validations) AS after"
	       "), audited AS ("
	       "    INSERT INTO audit_log (actor_user, actor, request_id, client_address, action,"
	       "        subject_type, subject_id, before, after)"
	       "    SELECT $7::uuid, $8, $9, areg_client_address($10), 'validation.respond',"
	       "        'validation', request_hash, before, after"
	       "      FROM v"
	       ")"
	       "SELECT named.agent_uuid, v.agent_uuid IS NOT NULL, " VALIDATION_COLUMNS
	       "  FROM erc8004_validations named LEFT JOIN v ON true WHERE named.request_hash = $1",
};

struct validation_response {
	const char *response;
	const char *response_uri, *response_hash;
	const char *tag;
};

static const struct json_field response_fields[] = {
	{ .name = "response",
		.kind = JSON_INTEGER,
		.required = true,
		AT(validation_response, response),
		.min = 0,
		.max = 100 },
	{ .name = "response_uri",
		.kind = JSON_URI,
		AT(validation_response, response_uri),
		.max = URI_MAX },
	{ .name = "response_hash", .kind = JSON_HASH, AT(validation_response, response_hash) },
	{ .name = "tag", .kind = JSON_STRING, AT(validation_response, tag), .max = 256 },
};
const struct route_input validations_respond_input = { .fields = response_fields,
	.field_count = COUNT(response_fields) };

void validations_respond(struct call *call)
{
	struct validation_response given = { 0 };
	const char *hash = hash_named(call);
	struct faults faults;
	struct json_doc doc;
	struct db_rows rows;
	enum db_status status;

	if (hash == NULL || !call_body(call, &given, &doc, &faults))
		return;
	if (faults.count > 0) {
		call_refuse(call, &faults);
		return;
	}
	const char *params[] = { hash, call->caller->wallet, given.response, given.response_uri,
		given.response_hash, given.tag, call->caller->user_id, call->caller->key_prefix,
		call->request->id, call->request->client_address };
	call_changed(call, NULL);
	status = db_run(
		call->context->db, &respond_validation, params, COUNT(params), call->arena, &rows);
	if (status != DB_OK) {
		call_db_failed(call, status);
	} else if (rows.count == 0) {
		validation_not_found(call);
	} else {
		call_changed(call, db_text(&rows, 0, 0));
		if (db_bool(&rows, 0, 1))
			answer_validation(call, 200, &rows, 2);
		else
			call_problem(call, PROBLEM_FORBIDDEN,
				"Only the validator that the request names can respond to it.");
	}
}

/* ---- Reading ---- */

static const struct db_statement get_validation = {
	.name = "get_validation",
	.effect = DB_READS,
	.sql = "SELECT " VALIDATION_COLUMNS " FROM erc8004_validations v WHERE v.request_hash = $1",
};

void validations_get(struct call *call)
{
	const char *hash = hash_named(call);
	struct db_rows rows;
	enum db_status status;

	if (hash == NULL)
		return;
	status = call_read(call, &get_validation, &hash, 1, &rows);
	if (status != DB_OK)
		call_db_failed(call, status);
	else if (rows.count == 0)
		validation_not_found(call);
	else
		answer_validation(call, 200, &rows, 0);
}

struct filter {
	const char *validators; /* literal of an array, or NULL */
	const char *tag; /* or NULL */
	struct page page;
};

static void validation_add_filter(struct query *query, const struct filter *filter)
{
	query_text(query, " FROM erc8004_validations v WHERE v.agent_uuid = a.agent_uuid");
	if (filter->validators != NULL)
		query_add(query, " AND v.validator_address = ANY (?::text[])", filter->validators);
	if (filter->tag != NULL)
		query_add(query, " AND v.tag_key = areg_tag_key(?)", filter->tag);
}

/*
 * Rows as page_write_list() wants them, with counts and averages behind the id. Division cuts, as
 * that of the contract's integers does. No row: no such agent.
 *
 * Of the responses from the agent's own addresses, the average counts only those that lower it: see
 * areg_take_own().
 */
static void validation_compose(struct query *query, const struct filter *filter)
{
	query_text(query,
		"SELECT summary.total, v.id, summary.count, summary.own_count,"
		"       div(summary.sum, nullif(summary.count, 0)), summary.average, " VALIDATION_COLUMNS
		"  FROM erc8004_agents a"
		" CROSS JOIN LATERAL (SELECT coalesce(array_agg(x.address::text), '{}') AS addresses"
		"      FROM erc8004_agent_addresses x WHERE x.agent_uuid = a.agent_uuid) AS own"
		" CROSS JOIN LATERAL ("
		"    SELECT counted.*, (SELECT div(taken.sum, nullif(taken.count, 0))"
		"             FROM areg_take_own(others_sum, others, own_responses) AS taken) AS average"
		"      FROM (SELECT count(*) AS total, count(response) AS count,"
		"                   coalesce(sum(response), 0)::numeric AS sum,"
		"                   count(response) FILTER (WHERE NOT is_own) AS others,"
		"                   coalesce(sum(response) FILTER (WHERE NOT is_own), 0)::numeric AS others_sum,"
		"                   count(response) FILTER (WHERE is_own) AS own_count,"
		"                   coalesce(array_agg(response::numeric ORDER BY response)"
		"                       FILTER (WHERE is_own AND response IS NOT NULL), '{}') AS own_responses"
		"              FROM (SELECT v.response,"
		"                           v.validator_address::text = ANY (own.addresses) AS is_own");
	validation_add_filter(query, filter);
	query_text(query, ") AS v) AS counted) AS summary LEFT JOIN LATERAL (SELECT *");
	validation_add_filter(query, filter);
	page_add(query, &filter->page, "v.id");
	query_text(query, ") AS v ON true WHERE a.agent_uuid = " AGENT_NAMED " ORDER BY v.id DESC");
}

enum { ROW_COUNT = 2, ROW_OWN_COUNT, ROW_RAW_AVERAGE, ROW_AVERAGE };

static const struct page_list validation_list = { .key = "validations",
	.order = "newest",
	.columns = validation_columns,
	.column_count = VALIDATION_COLUMN_COUNT,
	.first = ROW_AVERAGE + 1 };

static const char *const list_params[] = { "tag", "limit", "offset", "cursor", NULL };
static const char *const list_repeatable[] = { "validator", NULL };
const struct route_input validations_list_input = { .params = list_params,
	.repeatable = list_repeatable };

/* The addresses of every `validator`, as the literal of an array; NULL when there is none. */
static const char *read_validators(const struct call *call, struct faults *faults)
{
	const struct http_param *params = call->request->params;
	const char *validators[HTTP_PARAMS_MAX];
	size_t count = 0;

	for (size_t i = 0; i < call->request->param_count; i++) {
		char *address;
		const char *why;

		if (strcmp(params[i].name, "validator") != 0)
			continue;
		address = arena_alloc(call->arena, ETH_ADDRESS_LEN + 1);
		if (!eth_address_parse(params[i].value, address, &why))
			fault_add(faults, PROBLEM_INVALID_ADDRESS, "validator", "%s", why);
		validators[count++] = address;
	}
	return count == 0 ? NULL : db_array(call->arena, validators, count);
}

static void validation_read_filter(
	const struct call *call, struct filter *filter, struct faults *faults)
{
	const char *tag = call_param(call, "tag");

	call_params(call, faults);
	page_read(call, validation_list.order, &filter->page, faults);
	filter->validators = read_validators(call, faults);
	/* An empty tag is any, as in the contract. */
	filter->tag = tag != NULL && *tag != '\0' ? tag : NULL;
}

void validations_list(struct call *call)
{
	struct filter filter;
	struct faults faults;
	struct query query;
	struct db_rows rows;
	struct json_out out;
	enum db_status status;

	if (!agent_query(call, &query))
		return;
	validation_read_filter(call, &filter, &faults);
	if (faults.count > 0) {
		call_refuse(call, &faults);
		return;
	}
	validation_compose(&query, &filter);
	status = query_run(&query, call, &rows);
	if (status == DB_CALLER && filter.page.after_id != NULL) {
		page_refuse_cursor(call);
	} else if (status != DB_OK) {
		call_db_failed(call, status);
	} else if (rows.count == 0) {
		agent_not_found(call);
	} else {
		out = call_answer(call, 200);
		json_open_object(&out);
		page_write_list(call, &out, &filter.page, &validation_list, &rows);
		json_integer(&out, "count", db_int(&rows, 0, ROW_COUNT));
		json_integer(&out, "self_count", db_int(&rows, 0, ROW_OWN_COUNT));
		json_raw(&out, "average_response", db_text(&rows, 0, ROW_AVERAGE));
		json_raw(&out, "raw_average_response", db_text(&rows, 0, ROW_RAW_AVERAGE));
		json_close_object(&out);
	}
}
