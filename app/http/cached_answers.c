/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The label and the tokens that an answer is stored under are taken before it is asked for. A
 * change sets new tokens in memcached first and moves the versions in shared memory afterwards. So
 * a process whose label is valid after the change also sees the new tokens, and cannot copy an
 * outdated answer from memcached into shared memory under that label.
 */
#include "app/http/cached_answers.h"

#include <string.h>

#include "app/http/metering.h"
#include "app/http/route.h"
#include "app/registry/agent_id.h"
#include "lib/clock.h"

enum {
	WAIT_SLACK_MS =
		/* Added to the statement's timeout when a request waits for the query of
		 * another. */
	1000,
	QUERY_HINT = 512,
};

/* Only ever run for a token that this host has not met since it started. */
static const struct db_statement find_agent = {
	.name = "find_agent_of_token",
	.effect = DB_READS,
	.sql = "SELECT agent_uuid FROM erc8004_agents"
	       " WHERE chain = $1 AND registry_address = $2 AND agent_id = $3::numeric",
};

/* What is asked, and what is known of it on the way to its answer. */
struct question {
	struct call *call;
	const char *agent_uuid; /* NULL: depends on the registry */
	const char *const *asked_values; /* the path's, where they named the agent by its token */
	struct buf text; /* route, values and parameters: equal for equal questions */
	struct answer_key key; /* of the text, in shared memory */
	struct answer_label label;
	struct memcached_answers_ticket ticket;
	bool keeps; /* whether the answer may be stored */
};

static struct answers *answers_of(const struct call *call)
{
	return call->context->host == NULL ? NULL : call->context->host->answers;
}

static int64_t cached_now_s(void)
{
	return (int64_t)(clock_unix_ms() / 1000);
}

static void cached_count(const struct call *call, enum meter meter, size_t level)
{
	metrics_add(call->context->metrics, meter, level, 0, 1);
}

/* ---- The question ---- */

static void cached_put_text(struct buf *to, const char *text)
{
	buf_put(to, text, strlen(text) + 1);
}

static size_t value_count(const char *template)
{
	size_t values = 0;

	for (; *template != '\0'; template ++)
		values += *template == '{';
	return values;
}

/* The agent_uuid of a token, from shared memory or else from the database, which shared memory then
 * remembers: it holds while the agent exists. NULL when there is none, or it cannot be asked. */
static const char *agent_of_token(const struct call *call, const struct agent_id *id)
{
	struct answers *answers = answers_of(call);
	const char *params[] = { id->chain->name, id->registry_address, id->agent_id };
	struct answer known = { .etag = "", .target = "" };
	struct answer_label label;
	struct answer_key key;
	struct db_rows rows;
	struct buf text;

	buf_init(&text, call->arena, QUERY_HINT);
	cached_put_text(&text, "token");
	for (size_t i = 0; i < 3; i++)
		cached_put_text(&text, params[i]);
	key = answers_key(answers, text.data, text.len);
	if (answers_find(answers, key, cached_now_s(), call->arena, &known))
		return known.body;
	label = answers_lasting_label(answers);
	if (call_read(call, &find_agent, params, 3, &rows) != DB_OK || rows.count == 0)
		return NULL;
	known.target = "";
	known.body = db_text(&rows, 0, 0);
	known.len = strlen(known.body);
	answers_store(answers, key, label, cached_now_s(), &known);
	return known.body;
}

/* Finds out which agent the path means, and names it to the handler by its agent_uuid. False for
 * what is no agent, which the handler says best. */
static bool cached_name_agent(struct question *question)
{
	struct call *call = question->call;
	struct agent_id *id = arena_alloc(call->arena, sizeof *id);
	const char **values = arena_alloc(call->arena, ROUTE_PARAMS_MAX * sizeof *values);
	const char *why;

	if (agent_id_parse(call->context->settings, call->path_values[0], id, &why) != AGENT_ID_OK)
		return false;
	question->agent_uuid = id->uuid;
	if (id->kind == AGENT_ID_TOKEN) {
		if (answers_of(call) == NULL)
			return false;
		question->asked_values = call->path_values;
		question->agent_uuid = agent_of_token(call, id);
		if (question->agent_uuid == NULL)
			return false;
	}
	for (size_t i = 1; i < value_count(call->route->path.template); i++)
		values[i] = call->path_values[i];
	values[0] = question->agent_uuid;
	call->path_values = values;
	return true;
}

/* False when the call's answer cannot be kept at all. */
static bool put_question(struct call *call, struct question *question)
{
	const struct http_request *request = call->request;
	const char *template = call->route->path.template;

	*question = (struct question){ .call = call };
	if (call->route->caching != BY_AGENT && call->route->caching != BY_REGISTRY)
		return false;
	if (call->route->caching == BY_AGENT && !cached_name_agent(question))
		return false;
	buf_init(&question->text, call->arena, QUERY_HINT);
	cached_put_text(&question->text, template);
	for (size_t i = 0; i < value_count(template); i++)
		cached_put_text(&question->text, call->path_values[i]);
	for (size_t i = 0; i < request->param_count; i++) {
		cached_put_text(&question->text, request->params[i].name);
		cached_put_text(&question->text, request->params[i].value);
	}
	if (answers_of(call) != NULL)
		question->key =
			answers_key(answers_of(call), question->text.data, question->text.len);
	return true;
}

/* ---- Answers ---- */

static void send(const struct question *question, const struct answer *answer)
{
	struct http_response *response = question->call->response;

	response->status = 200;
	response->etag = arena_strdup(question->call->arena, answer->etag);
	response->body = (struct buf){ .arena = question->call->arena,
		.data = (char *)answer->body,
		.len = answer->len,
		.size = answer->len + 1 };
}

/* The path and query that were asked, as far as shared memory can remember them. */
static const char *target_of(const struct call *call)
{
	const char *uri = http_header(call->request, "REQUEST_URI");
	size_t visible = 0;

	while (uri[visible] > ' ' && uri[visible] < 0x7f)
		visible++;
	return uri[visible] == '\0' && visible <= ANSWER_TARGET_MAX ? uri : "";
}

static bool answer_from_memory(const struct question *question, size_t level)
{
	struct call *call = question->call;
	struct answer answer;

	if (!answers_find(answers_of(call), question->key, cached_now_s(), call->arena, &answer))
		return false;
	send(question, &answer);
	cached_count(call, METER_CACHE_HITS, level);
	return true;
}

/* Looks into memcached, where that is believed; from now on the question has its label and ticket. */
static bool find_in_memcached(struct question *question, struct answer *answer)
{
	struct call *call = question->call;
	struct memcached_answers *memcached = &call->context->memcached;

	question->label = answers_label(answers_of(call), question->agent_uuid);
	return memcached_answers_find(memcached, question->agent_uuid, question->text.data,
		question->text.len, call->arena, answer, &question->ticket);
}

static void keep_in_memory(const struct question *question, struct answer *answer)
{
	answer->target = target_of(question->call);
	answers_store(
		answers_of(question->call), question->key, question->label, cached_now_s(), answer);
}

static bool answer_from_memcached(struct question *question)
{
	struct answer answer;

	if (!find_in_memcached(question, &answer))
		return false;
	keep_in_memory(question, &answer);
	send(question, &answer);
	cached_count(question->call, METER_CACHE_HITS, METER_CACHE_MEMCACHED);
	return true;
}

/* Whether what the handler answered can be told again from its body alone. */
static bool cached_is_plain(const struct http_response *response, size_t headers_before)
{
	return response->status == 200 && response->header_count == headers_before &&
	       strcmp(response->content_type, "application/json") == 0;
}

static struct answer kept_form(struct http_response *response)
{
	struct answer answer = {
		.target = "", .body = response->body.data, .len = response->body.len
	};

	memcpy(answer.etag, http_etag(response), ANSWER_ETAG_LEN);
	return answer;
}

/* Lets the handler answer. If the path named a token, and the agent found for it is gone by now,
 * runs the handler again with the path as it was asked. */
static void ask_handler(struct question *question)
{
	struct call *call = question->call;
	const struct http_response before = *call->response;

	call->route->serve(call);
	if (call->response->status != 404 || question->asked_values == NULL)
		return;
	*call->response = before;
	call->path_values = question->asked_values;
	question->keeps = false;
	call->route->serve(call);
}

/* Asks the database. The caller took label and ticket before. If the database is unavailable,
 * serves the cached answer unless it is known to be outdated. */
static void answer_anew(struct question *question, bool may_be_kept)
{
	struct call *call = question->call;
	const struct http_response before = *call->response;
	struct answer answer;

	call->read_position = question->ticket.is_valid ? question->ticket.position : 0;
	ask_handler(question);
	if (question->keeps && cached_is_plain(call->response, before.header_count)) {
		answer = kept_form(call->response);
		keep_in_memory(question, &answer);
		(void)memcached_answers_store(&call->context->memcached, &question->ticket,
			question->agent_uuid, question->text.data, question->text.len, call->arena,
			&answer);
	}
	if (call->response->status != 503 || call->db_status == DB_OK || !may_be_kept)
		return;
	const struct http_response refused = *call->response;

	*call->response = before;
	if (answer_from_memory(question, METER_CACHE_OUTAGE))
		return;
	if (find_in_memcached(question, &answer)) {
		send(question, &answer);
		cached_count(call, METER_CACHE_HITS, METER_CACHE_OUTAGE);
		return;
	}
	*call->response = refused;
}

static void answer_from_below(struct question *question)
{
	if (answer_from_memcached(question))
		return;
	cached_count(question->call, METER_CACHE_MISSES, 0);
	answer_anew(question, true);
}

static void let_connections_go(void *kept)
{
	connections_let_go(kept);
}

/* When several requests miss the same answer, one asks the database and the others wait for its
 * answer. A request that waited in vain asks by itself. */
static void answer_once(struct question *question)
{
	struct call *call = question->call;
	const unsigned wait_ms =
		(unsigned)call->context->settings->database_statement_timeout_ms + WAIT_SLACK_MS;
	struct answer_claim *claim;
	bool waited;

	claim = answers_claim(answers_of(call), question->key, wait_ms,
		call->context->connections == NULL ? NULL : let_connections_go,
		call->context->connections, &waited);
	call->context->claim = claim;
	if (waited)
		cached_count(call, METER_CACHE_WAITS, 0);
	/* The holder before may have stored the answer meanwhile. */
	if (!answer_from_memory(question, METER_CACHE_MEMORY))
		answer_from_below(question);
	call->context->claim = NULL;
	if (claim != NULL)
		answers_let_go(claim);
}

void cached_answers_let_go(struct context *context)
{
	if (context->claim != NULL)
		answers_let_go(context->claim);
	context->claim = NULL;
}

/* Whether a caller with a key wants to hear the database (RFC 9111, section 5.2.1.4). */
static bool wants_truth(const struct call *call)
{
	const char *control = http_header(call->request, "HTTP_CACHE_CONTROL");

	return call->caller != NULL && control != NULL && strstr(control, "no-cache") != NULL;
}

/* The primary answers requests that ask for the newest state (Cache-Control: no-cache), and all
 * requests while this host may have missed changes. What is a caller's own is never asked of a
 * replica. */
static enum call_readers readers(const struct call *call, bool is_fresh)
{
	if (call->route->caching < REVALIDATE || wants_truth(call))
		return READ_PRIMARY;
	return is_fresh && wal_position_is_settled(call->context->host->wal) ? READ_REPLICA_FIRST
									     : READ_PRIMARY_FIRST;
}

void cached_answers_serve(struct call *call)
{
	struct question question;
	const bool is_fresh = callers_are_fresh(call->context->host->callers, clock_unix_ms());

	call->readers = readers(call, is_fresh);
	if (!put_question(call, &question)) {
		call->route->serve(call);
		return;
	}
	/* While the listener may miss changes, an answer stored now could not be dropped later. */
	question.keeps = is_fresh;
	if (is_fresh && !wants_truth(call)) {
		if (!answer_from_memory(&question, METER_CACHE_MEMORY))
			answer_once(&question);
		return;
	}
	cached_count(call, METER_CACHE_BYPASSES, 0);
	/* memcached is not asked here, so there is no ticket, and the answer is not stored there. */
	question.label = answers_label(answers_of(call), question.agent_uuid);
	answer_anew(&question, !wants_truth(call));
}

/* ---- Changes ---- */

/* Whether a route's changes can show in cached answers: those of keys and users cannot. */
static bool changes_answers(const struct route *route)
{
	return route->audits != NULL && strncmp(route->audits, "key.", 4) != 0 &&
	       strncmp(route->audits, "user.", 5) != 0;
}

/* True if the call is known to have changed nothing, as call_db_failed() tells the client. The
 * cached answers stay, since nothing else can be served while the database is unavailable. */
static bool changed_nothing(const struct call *call)
{
	return call->db_status == DB_UNAVAILABLE || call->db_status == DB_TIMEOUT ||
	       call->db_status == DB_CONFLICT;
}

static void drop_all(struct call *call)
{
	memcached_answers_drop_all(&call->context->memcached);
	answers_drop_all(answers_of(call));
}

/* Raises the WAL position that replicas must have replayed, before the caches are emptied that
 * replicas could fill again. */
static bool require_of_replicas(struct call *call)
{
	struct wal_position *wal = call->context->host->wal;
	enum db_status status = call->db_status;

	if (!wal_position_is_wanted(wal))
		return true;
	if (status != DB_OUTCOME_UNKNOWN)
		status = wal_position_tell(wal, call->context->db, call->arena);
	if (status == DB_OK)
		return true;
	wal_position_doubt(wal);
	/* A primary that works, but does not tell, is asked first from now on. */
	return status == DB_OURS || call->response->status >= 400;
}

bool cached_answers_drop(struct call *call)
{
	const int status = call->response->status;
	/* The call did not name what it changed, so it may have changed anything. */
	const bool may_be_any = call->change_count == 0 && changes_answers(call->route) &&
				(status < 400 || status >= 500);
	bool is_told;

	if (changed_nothing(call) || (!call->changed_all && !may_be_any && call->change_count == 0))
		return true;
	is_told = require_of_replicas(call);
	if (call->changed_all || may_be_any) {
		drop_all(call);
		return is_told;
	}
	memcached_answers_changed(
		&call->context->memcached, call->changed_agents, call->change_count, call->arena);
	for (size_t i = 0; i < call->change_count; i++)
		answers_changed(answers_of(call), call->changed_agents[i]);
	return is_told;
}

/* ---- Warming ---- */

/* False when there is no such route, or one whose answers are not kept. */
static bool put_target(struct call *call, struct routed *routed, struct question *question)
{
	if (call->request->refused_status != 0 ||
		router_match(call->context->router, call->request, routed) != ROUTE_FOUND)
		return false;
	call->route = route_at(call->context->router, routed->index);
	call->path_values = routed->values;
	return call->route->access == FOR_ANYONE && put_question(call, question);
}

enum warmth cached_answers_warm(struct context *context, const char *target)
{
	struct arena *arena = context->arena;
	char *environment[] = { arena_strdup(arena, "REQUEST_METHOD=GET"),
		arena_printf(arena, "REQUEST_URI=%s", target), NULL };
	FCGX_Request fcgi = { .envp = environment };
	struct http_request request;
	struct http_response response;
	struct call call = {
		.context = context, .arena = arena, .request = &request, .response = &response
	};
	struct question question;
	struct routed routed;
	struct answer answer;

	http_request_read(&request, &fcgi, arena);
	http_response_init(&response, arena);
	if (!put_target(&call, &routed, &question))
		return WARM_NOTHING;
	/* Where a server fails, the first look finds out; where a token is missing, the next makes
	 * it. */
	for (int looks = 0; looks < 3 && !question.ticket.is_valid; looks++)
		if (memcached_answers_find(&context->memcached, question.agent_uuid,
			    question.text.data, question.text.len, arena, &answer,
			    &question.ticket))
			return WARM_ALREADY;
	call.route->serve(&call);
	if (call.db_status != DB_OK)
		return WARM_FAILED;
	if (!cached_is_plain(&response, 0))
		return WARM_NOTHING;
	answer = kept_form(&response);
	return memcached_answers_store(&context->memcached, &question.ticket, question.agent_uuid,
		       question.text.data, question.text.len, arena, &answer)
		       ? WARM_STORED
		       : WARM_FAILED;
}
