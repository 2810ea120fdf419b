/* SPDX-License-Identifier: Apache-2.0 */
/* The answers and refusals that all handlers share. */
#include "app/http/call.h"

#include <assert.h>
#include <string.h>

#include "app/http/metering.h"
#include "app/http/replicas.h"
#include "app/http/route.h"
#include "app/problem_list.h"
#include "lib/log.h"

void call_problem(struct call *call, const struct problem *problem, const char *detail)
{
	const struct http_problem answer = { .problem = problem, .detail = detail };

	http_problem(call->response, call->request, &answer);
}

void call_refuse(struct call *call, const struct faults *faults)
{
	const struct http_problem answer = { .problem = faults->first->problem, .faults = faults };

	assert(answer.problem->status == 400);
	http_problem(call->response, call->request, &answer);
}

void call_refuse_outcome(
	struct call *call, const char *outcome, const struct refusal *refusals, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		const struct refusal *refusal = &refusals[i];

		if (refusal->outcome != NULL ? strcmp(refusal->outcome, outcome) == 0
					     : problem_is(refusal->problem, outcome)) {
			call_problem(call, refusal->problem, refusal->detail);
			return;
		}
	}
	log_event(LOG_LEVEL_ERROR, "an SQL function has an outcome that this program does not know",
		LOG_TEXT("outcome", outcome));
	call_problem(call, PROBLEM_INTERNAL, "The registry gave an answer that it does not know.");
}

size_t route_body_max(const struct route_input *input)
{
	return input == NULL || input->body_max == 0 ? BODY_MAX : input->body_max;
}

bool call_body(struct call *call, void *target, struct json_doc *doc, struct faults *faults)
{
	const struct route_input *input = call->route->input;
	struct json_error error;
	const char *bytes;
	size_t len;

	faults_init(faults, call->arena, PROBLEM_VALIDATION_FAILED);
	switch (http_body_read(call->request, &bytes, &len)) {
	case HTTP_BODY_OK:
		break;
	case HTTP_BODY_TOO_LARGE:
		call_problem(call, PROBLEM_PAYLOAD_TOO_LARGE,
			arena_printf(call->arena,
				"The body is larger than %zu KiB, which this call takes at most.",
				route_body_max(input) / 1024));
		return false;
	case HTTP_BODY_TRUNCATED:
		call_problem(call, PROBLEM_VALIDATION_FAILED,
			"The body is shorter than its Content-Length.");
		return false;
	case HTTP_BODY_NOT_JSON:
		call_problem(call, PROBLEM_UNSUPPORTED_MEDIA_TYPE,
			"The body must be JSON in UTF-8: send Content-Type: application/json.");
		return false;
	}
	if (!json_parse_fields(call->arena, bytes, len, &json_rules_strict, input->fields,
		    input->field_count, doc, &error)) {
		fault_add(faults, PROBLEM_VALIDATION_FAILED, error.pointer, "%s (at byte %zu)",
			error.reason, error.offset);
		call_refuse(call, faults);
		return false;
	}
	/* Faults of single fields are for the handler to add to: it may know of more. */
	if (!json_read(doc, input->fields, input->field_count, target, faults) &&
		!json_object_is_type(doc->root.object, json_type_object)) {
		call_refuse(call, faults);
		return false;
	}
	return true;
}

static bool read_from_replica(const struct call *call, const struct db_statement *statement,
	const char *const *params, size_t count, struct db_rows *rows)
{
	const enum replica_outcome outcome = replicas_read(call->context->replicas,
		call->read_position, statement, params, count, call->arena, rows);

	if (outcome == REPLICA_ANSWERED)
		metrics_add(call->context->metrics, METER_READS, METER_READ_REPLICA, 0, 1);
	else
		metrics_add(call->context->metrics, METER_REPLICA_FALLBACKS, outcome - 1, 0, 1);
	return outcome == REPLICA_ANSWERED;
}

/* Whether the primary could not be asked, as far as one can tell from here. */
static bool is_primary_away(const struct call *call, enum db_status status)
{
	return status == DB_UNAVAILABLE ||
	       (status == DB_TIMEOUT && db_last_error(call->context->db)->sqlstate[0] == '\0');
}

enum db_status call_read(const struct call *call, const struct db_statement *statement,
	const char *const *params, size_t count, struct db_rows *rows)
{
	const bool has_replicas = call->context->replicas != NULL;
	enum db_status status;

	assert(statement->effect == DB_READS);
	if (has_replicas && call->readers == READ_REPLICA_FIRST &&
		read_from_replica(call, statement, params, count, rows))
		return DB_OK;
	status = db_run(call->context->db, statement, params, count, call->arena, rows);
	if (has_replicas && call->readers == READ_PRIMARY_FIRST && is_primary_away(call, status) &&
		read_from_replica(call, statement, params, count, rows))
		return DB_OK;
	metrics_add(call->context->metrics, METER_READS, METER_READ_PRIMARY, 0, 1);
	return status;
}

void call_db_failed(struct call *call, enum db_status status)
{
	const struct db_error *error = db_last_error(call->context->db);

	call->db_status = status;
	if (call->in_transaction) {
		call->response->status = 503; /* for what counts outcomes; answered later */
		return;
	}
	metrics_add(call->context->metrics, METER_DB_FAILURES, status - 1, 0, 1);
	log_event(LOG_LEVEL_ERROR, "database call failed", LOG_TEXT("kind", db_status_name(status)),
		LOG_TEXT("statement", error->statement), LOG_TEXT("sqlstate", error->sqlstate),
		LOG_TEXT("constraint", error->constraint), LOG_TEXT("error", error->message));
	if (status == DB_OUTCOME_UNKNOWN) {
		http_header_add(call->response, "Retry-After", "1");
		call_problem(call, PROBLEM_OUTCOME_UNKNOWN,
			"The connection to the database was lost while the change was being "
			"stored. It may or may not have been: look before you send it again.");
	} else if (status == DB_UNAVAILABLE || status == DB_TIMEOUT || status == DB_CONFLICT) {
		http_header_add(call->response, "Retry-After", "1");
		call_problem(call, PROBLEM_UNAVAILABLE,
			"The registry cannot answer this now. Nothing was changed; try again.");
	} else {
		call_problem(call, PROBLEM_INTERNAL,
			"This is a fault of the registry. Its operators find it in their log by "
			"the request_id.");
	}
}

void call_key_gone(struct call *call)
{
	http_header_add(call->response, "WWW-Authenticate", "Bearer error=\"invalid_token\"");
	call_problem(call, PROBLEM_UNAUTHORIZED, "The API key is not valid any more.");
}

struct json_out call_answer(struct call *call, int status)
{
	struct json_out out;

	call->response->status = status;
	call->echo_count = 0;
	json_out_init(&out, &call->response->body);
	return out;
}

void call_echo(struct call *call, struct json_out *out, const char *key, const char *json)
{
	struct call_part *part = &call->echoes[call->echo_count++];

	assert(call->echo_count <= CALL_ECHOES_MAX);
	json_key(out, key);
	part->at = out->buf->len;
	json_put_raw(out, json);
	part->len = out->buf->len - part->at;
}

bool call_is_wallet(const struct call *call, const char *address)
{
	return call->caller != NULL && strcmp(call->caller->wallet, address) == 0;
}

const struct chain *call_chain(const struct call *call, const char *name, struct faults *faults)
{
	const struct chain *chain = NULL;

	if (name != NULL) {
		chain = settings_chain(call->context->settings, name);
		if (chain == NULL)
			fault_add(faults, PROBLEM_CHAIN_NOT_SUPPORTED, "/chain",
				"this registry serves no chain of that name");
	}
	return chain;
}

const char *call_param(const struct call *call, const char *name)
{
	for (size_t i = 0; i < call->request->param_count; i++)
		if (strcmp(call->request->params[i].name, name) == 0)
			return call->request->params[i].value;
	return NULL;
}

static bool call_is_listed(const char *const *list, const char *name)
{
	while (list != NULL && *list != NULL)
		if (strcmp(*list++, name) == 0)
			return true;
	return false;
}

void call_params(const struct call *call, struct faults *faults)
{
	static const struct route_input nothing = { .fields = NULL };
	const struct route_input *input =
		call->route->input == NULL ? &nothing : call->route->input;
	const struct http_param *params = call->request->params;

	faults_init(faults, call->arena, PROBLEM_VALIDATION_FAILED);
	for (size_t i = 0; i < call->request->param_count; i++) {
		const char *name = params[i].name;
		size_t earlier = 0;

		if (call_is_listed(input->repeatable, name))
			continue;
		if (!call_is_listed(input->params, name)) {
			fault_add(faults, PROBLEM_VALIDATION_FAILED, name,
				"is not a parameter of this request");
			continue;
		}
		while (strcmp(params[earlier].name, name) != 0)
			earlier++;
		if (earlier < i)
			fault_add(faults, PROBLEM_VALIDATION_FAILED, name, "stands more than once");
	}
}

void call_changed(struct call *call, const char *agent_uuid)
{
	char named_now[37], *canonical = agent_uuid == NULL ? NULL : named_now;
	const char *why;

	if (agent_uuid != NULL) {
		if (!uuid_parse(agent_uuid, canonical, &why)) {
			call->changed_all = true;
			return;
		}
	}
	for (size_t i = 0; i < call->change_count; i++) {
		const char *named = call->changed_agents[i];

		/* Said again: a transaction that is tried anew runs the handler anew. */
		if (named == canonical ||
			(named != NULL && canonical != NULL && strcmp(named, canonical) == 0))
			return;
	}
	if (call->change_count == CALL_CHANGES_MAX) {
		call->changed_all = true;
		return;
	}
	if (canonical != NULL)
		canonical = memcpy(
			call->changed_names[call->change_count], named_now, sizeof named_now);
	call->changed_agents[call->change_count++] = canonical;
}
