/* SPDX-License-Identifier: Apache-2.0 */
/* The order of things: the request line, the route, the key, the handler, the answer, the log. */
#include "app/http/serve.h"

#include <setjmp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "app/http/authenticate.h"
#include "app/http/cached_answers.h"
#include "app/http/call.h"
#include "app/http/idempotency.h"
#include "app/http/metering.h"
#include "app/http/route.h"
#include "app/problem_list.h"
#include "lib/clock.h"
#include "lib/error_reports.h"
#include "lib/log.h"

/* Headers of every answer. Keys are sent in a header of their own, never by the browser alone, so
 * any origin may read (Fetch standard, section 3.2). */
static void add_common_headers(const struct call *call)
{
	bool may_be_kept = call->route != NULL && call->route->caching >= REVALIDATE;

	if (!call->is_shared)
		http_header_add(call->response, "X-Request-ID", call->request->id);
	else if (may_be_kept &&
		 call->response->status == 200) /* before Cache-Control, to outdo it */
		http_header_add(call->response, "X-Accel-Expires", "1");
	http_header_add(call->response, "Access-Control-Allow-Origin", "*");
	http_header_add(call->response, "Access-Control-Expose-Headers",
		"ETag, Idempotency-Replayed, Location, Retry-After, X-RateLimit-Limit, "
		"X-RateLimit-Remaining, X-RateLimit-Reset, X-Request-ID");
	http_header_add(call->response, "Cache-Control", may_be_kept ? "no-cache" : "no-store");
}

static void answer_options(struct call *call, const char *allow)
{
	call->response->status = 204;
	http_header_add(call->response, "Allow", allow);
	http_header_add(call->response, "Access-Control-Allow-Methods", allow);
	http_header_add(call->response, "Access-Control-Allow-Headers",
		"Authorization, baggage, Cache-Control, Content-Type, Idempotency-Key, "
		"If-None-Match, Pragma, sentry-trace, traceparent, tracestate, X-API-Key, "
		"X-Request-ID");
	http_header_add(call->response, "Access-Control-Max-Age", "86400");
}

/* Whether the route is open to this caller; if not, the call is answered. A limit of 0 closes its
 * class to a tier. */
static bool is_allowed(struct call *call)
{
	const struct route *route = call->route;
	const struct caller_record *caller = call->caller;

	switch (route_check(route, call->context->settings->rates[route->rate], caller)) {
	case ROUTE_OPEN:
		return true;
	case ROUTE_NEEDS_KEY:
		http_header_add(call->response, "WWW-Authenticate", "Bearer");
		call_problem(call, PROBLEM_UNAUTHORIZED,
			"This call needs an API key: send Authorization: Bearer areg_live_…");
		break;
	case ROUTE_NEEDS_TIER:
		call_problem(call, PROBLEM_TIER_REQUIRED,
			arena_printf(
				call->arena, "This call needs tier %s.", tier_name(route->tier)));
		break;
	case ROUTE_CLOSED_TO_TIER:
		call_problem(call, PROBLEM_TIER_REQUIRED,
			arena_printf(call->arena, "Tier %s has no calls of class %s.",
				tier_name((enum tier)caller->tier), rate_class_name(route->rate)));
		break;
	case ROUTE_NEEDS_SCOPE:
		call_problem(call, PROBLEM_SCOPE_REQUIRED,
			arena_printf(call->arena, "This call needs an API key with scope %s.",
				route->scope));
		break;
	}
	return false;
}

/* Whether the query has no parameter, on a route that takes none; if it has, the call is answered.
 * Handlers of routes that take some read them with call_params(). */
static bool has_no_stray_param(struct call *call)
{
	const struct route_input *input = call->route->input;
	struct faults faults;

	if (input != NULL && (input->params != NULL || input->repeatable != NULL))
		return true;
	call_params(call, &faults);
	if (faults.count == 0)
		return true;
	call_refuse(call, &faults);
	return false;
}

static void serve_run(struct call *call)
{
	const char *idempotency_key = http_header(call->request, "HTTP_IDEMPOTENCY_KEY");
	struct http_response before;

	call->request->body_most = route_body_max(call->route->input);
	if (!authenticate(call, call->route->rate) || !is_allowed(call) ||
		!has_no_stray_param(call))
		return;
	if (call->route->path.method == HTTP_GET) {
		cached_answers_serve(call);
		return;
	}
	before = *call->response;
	if (call->route->path.method == HTTP_POST && call->caller != NULL &&
		idempotency_key != NULL)
		idempotent_serve(call, idempotency_key);
	else
		call->route->serve(call);
	if (!cached_answers_drop(call)) {
		*call->response = before;
		call_db_failed(call, DB_OUTCOME_UNKNOWN);
	}
}

/* On the private socket, which knows operators' routes only and must not look up keys. They take no
 * parameter: a query that cannot be read is none. */
static void answer_operator(struct call *call)
{
	const struct router *router = call->context->router;
	struct routed routed;

	if (router_match(router, call->request, &routed) == ROUTE_FOUND &&
		route_at(router, routed.index)->access == FOR_OPERATOR) {
		call->route = route_at(router, routed.index);
		call->route_index = routed.index;
		call->route->serve(call);
		return;
	}
	call_problem(call, PROBLEM_NOT_FOUND, "There is nothing at this address.");
}

/* A browser asks OPTIONS, without credentials, before each request of a page (Fetch standard, section
 * 4.8). That costs the caller nothing: the request that follows is what counts. */
static bool is_preflight(const struct call *call)
{
	return call->request->method == HTTP_OPTIONS && authenticate_key(call) == NULL;
}

/* Answers 404 and counts the request as a read, so that requests for unknown addresses are limited,
 * too. Operators' routes also get this 404 here; only the private socket serves them. */
static void answer_nothing_here(struct call *call)
{
	if (is_preflight(call) || authenticate(call, RATE_READ))
		call_problem(call, PROBLEM_NOT_FOUND, "There is nothing at this address.");
}

static void answer(struct call *call)
{
	const struct http_request *request = call->request;
	const struct router *router = call->context->router;
	const struct route *route;
	struct routed routed;

	if (call->context->watch != NULL) {
		answer_operator(call);
		return;
	}
	if (request->refused_status != 0) {
		if (!authenticate(call, RATE_READ))
			return;
		call_problem(call,
			request->refused_status == 414 ? PROBLEM_URI_TOO_LONG
						       : PROBLEM_VALIDATION_FAILED,
			arena_printf(call->arena, "Bad request: %s.", request->refused_detail));
		return;
	}
	switch (router_match(router, request, &routed)) {
	case ROUTE_FOUND:
		route = route_at(router, routed.index);
		if (route->access == FOR_OPERATOR) {
			answer_nothing_here(call);
			break;
		}
		call->route = route;
		call->route_index = routed.index;
		call->path_values = routed.values;
		scoreboard_serving(call->context->scoreboard, call->context->place,
			http_method_name(call->route->path.method), call->route->path.template);
		serve_run(call);
		break;
	case ROUTE_NO_PATH:
		answer_nothing_here(call);
		break;
	case ROUTE_NO_METHOD:
		if (!authenticate(call, RATE_READ))
			break;
		http_header_add(call->response, "Allow", routed.allow);
		call_problem(call, PROBLEM_METHOD_NOT_ALLOWED,
			arena_printf(call->arena, "This address takes %s only.", routed.allow));
		break;
	case ROUTE_OPTIONS:
		if (is_preflight(call) || authenticate(call, RATE_READ))
			answer_options(call, routed.allow);
		break;
	}
}

/* Where time went, in microseconds: in all, and how much of it was waiting. */
struct spent {
	uint64_t all, database, cache;
};

/* All that a process has spent so far; of a request, the difference of two. The process that
 * answers health checks may have neither. */
static struct spent spent_by(const struct context *context)
{
	return (struct spent){ clock_us(), context_db_meter(context).waited_us,
		context->cache == NULL ? 0 : cache_waited_us(context->cache) };
}

static struct spent spent_since(const struct context *context, const struct spent *before)
{
	const struct spent now = spent_by(context);

	return (struct spent){ now.all - before->all, now.database - before->database,
		now.cache - before->cache };
}

static void serve_count(const struct call *call, size_t route, const struct spent *spent)
{
	struct metrics *metrics = call->context->metrics;

	metrics_add(metrics, METER_REQUESTS, route, meter_status(call->response->status), 1);
	metrics_observe(metrics, METER_REQUEST_DURATION, route, 0, spent->all);
	if (spent->database > 0)
		metrics_observe(metrics, METER_DB_DURATION, 0, 0, spent->database);
	if (spent->cache > 0)
		metrics_observe(metrics, METER_CACHE_DURATION, 0, 0, spent->cache);
}

/* A fault of ours: what its operators must hear of, without anything that the caller sent. */
static void serve_report(const struct call *call)
{
	const struct http_response *response = call->response;
	const char *template = call->route == NULL ? "" : call->route->path.template;
	struct report report = { .level = REPORT_ERROR };
	const struct db_error *error;

	if (response->status != 500)
		return;
	error = db_last_error(call->context->db);
	snprintf(report.place, sizeof report.place, "%s %s",
		http_method_name(call->request->method), template);
	snprintf(report.code, sizeof report.code, "%s",
		call->db_status != DB_OK && error->sqlstate[0] != '\0' ? error->sqlstate
								       : response->code);
	if (call->db_status != DB_OK)
		snprintf(report.statement, sizeof report.statement, "%s", error->statement);
	snprintf(report.request_id, sizeof report.request_id, "%s", call->request->id);
	reports_put(call->context->reports, &report);
}

static void record(const struct call *call, size_t sent, const struct spent *spent)
{
	const struct http_response *response = call->response;
	const struct caller_record *caller = call->caller;
	const int64_t slow_us = (int64_t)call->context->settings->slow_request_ms * 1000;
	const bool is_slow = slow_us > 0 && (int64_t)spent->all >= slow_us;

	serve_count(call,
		call->route == NULL ? router_count(call->context->router) : call->route_index,
		spent);
	serve_report(call);
	if (call->route != NULL && call->route->access == FOR_OPERATOR)
		return;
	log_event(is_slow ? LOG_LEVEL_WARN : LOG_LEVEL_INFO, is_slow ? "slow request" : "request",
		LOG_TEXT("method", http_method_name(call->request->method)),
		LOG_TEXT("path", call->request->path),
		LOG_TEXT("route", call->route == NULL ? NULL : call->route->path.template),
		LOG_NUMBER("status", response->status), LOG_TEXT("code", response->code),
		LOG_MICROS("ms", (int64_t)spent->all),
		LOG_MICROS("database_ms", (int64_t)spent->database),
		LOG_MICROS("cache_ms", (int64_t)spent->cache),
		LOG_MICROS("own_ms", (int64_t)(spent->all - spent->database - spent->cache)),
		LOG_NUMBER("bytes", (int64_t)sent),
		LOG_TEXT("user", caller == NULL ? NULL : caller->user_id),
		LOG_TEXT("key", caller == NULL ? NULL : caller->key_prefix),
		LOG_TEXT("client", call->request->client_address));
}

static void tag(struct context *context, const char *text)
{
	db_tag(context->db, text);
	replicas_tag(context->replicas, text);
}

/* ---- The whole of a request ---- */

enum { EXIT_EXHAUSTED = 70 }; /* EX_SOFTWARE */

/* A request and all that is said of it afterwards. Nothing that has to survive memory_recover() is
 * in the arena. */
struct served {
	struct context *context;
	FCGX_Request *fcgi;
	struct spent before;
	uint64_t changes_before; /* sent to the database, by this worker */
	struct http_request request;
	struct http_response response;
	struct call call;
	struct caller_record caller; /* copy of the call's */
	char request_id[HTTP_REQUEST_ID_MAX + 1];
	size_t sent;
};

static void request_read(struct served *served)
{
	struct context *context = served->context;
	struct http_request *request = &served->request;

	http_request_read(request, served->fcgi, context->arena);
	snprintf(served->request_id, sizeof served->request_id, "%s", request->id);
	request->id = served->request_id;
	log_request_id(request->id);
	if (context->settings->database_request_ids && context->db != NULL)
		tag(context, arena_printf(context->arena, "areg %s", request->id));
	http_response_init(&served->response, context->arena);
}

/* After the arena's reset; the id stays what it was, if there was one already. */
static void request_read_again(struct served *served)
{
	const bool has_id = served->request_id[0] != '\0';
	char id[sizeof served->request_id];

	memcpy(id, served->request_id, sizeof id);
	http_request_read(&served->request, served->fcgi, served->context->arena);
	snprintf(served->request_id, sizeof served->request_id, "%s",
		has_id ? id : served->request.id);
	served->request.id = served->request_id;
	log_request_id(served->request.id);
	http_response_init(&served->response, served->context->arena);
}

static void request_serve(struct served *served)
{
	request_read(served);
	served->call.is_shared = http_header(&served->request, "AREG_SHARED") != NULL;
	answer(&served->call);
	add_common_headers(&served->call);
	served->sent = http_response_send(&served->response, &served->request);
}

static void jump_out(void *to)
{
	longjmp(*(jmp_buf *)to, 1);
}

/* Serves the request. False when it needs more memory than there is: then no byte was answered yet,
 * because http_response_send() allocates everything before it sends. */
static bool request_serve_within_memory(struct served *served)
{
	jmp_buf here;

	if (setjmp(here) != 0)
		return false;
	arena_on_exhaustion(served->context->arena, jump_out, &here);
	request_serve(served);
	return true;
}

/* Not even the short answer of memory_recover() can be had. The request is ended without an answer:
 * were the connection just closed, nginx could try it on the next worker. */
static void memory_give_up(void *fcgi)
{
	log_request_id(NULL);
	log_error("out of memory for a request; this worker ends");
	FCGX_Finish_r(fcgi);
	_exit(EXIT_EXHAUSTED);
}

static void memory_refuse(struct call *call, bool may_have_changed)
{
	if (may_have_changed)
		call_db_failed(call, DB_OUTCOME_UNKNOWN);
	else if (call->route != NULL && call->route->input != NULL &&
		 call->route->input->fields != NULL)
		call_problem(call, PROBLEM_PAYLOAD_TOO_LARGE,
			"Reading this body takes more memory than one request may use.");
	else
		call_problem(call, PROBLEM_INTERNAL,
			"The answer takes more memory than one request may use. The registry's "
			"operators find it in their log by the request_id.");
}

/*
 * Answers a request that ran out of memory, and makes the worker fit for the next one: claims are let
 * go, connections that were left in the middle of something are closed, and all of the request's memory
 * is given back. The answer is made within the arena's first block, which is always there.
 */
static void memory_recover(struct served *served)
{
	struct context *context = served->context;
	struct call *call = &served->call;
	bool was_in_transaction, may_have_changed;

	arena_on_exhaustion(context->arena, memory_give_up, served->fcgi);
	if (call->caller != NULL) {
		served->caller = *call->caller;
		call->caller = &served->caller;
	}
	cached_answers_let_go(context);
	cache_abandon(context->cache);
	was_in_transaction = db_abandon(context->db);
	may_have_changed =
		!was_in_transaction && context_db_meter(context).changes > served->changes_before;
	arena_reset(context->arena);

	request_read_again(served);
	log_event(LOG_LEVEL_WARN, "out of memory for a request",
		LOG_TEXT("path", served->request.path),
		LOG_TEXT("route", call->route == NULL ? NULL : call->route->path.template));
	call->path_values = NULL;
	call->in_transaction = false;
	call->db_status = DB_OK;
	memory_refuse(call, may_have_changed);
	/* The answer is a failure already: it stays as it is whether or not replicas could be told. */
	if (may_have_changed && call->route != NULL && !cached_answers_drop(call))
		log_warn("a change that may have been made could not be told to replicas");
	add_common_headers(call);
	served->sent = http_response_send(&served->response, &served->request);
}

void serve(struct context *context, FCGX_Request *fcgi)
{
	struct served served = { .context = context,
		.fcgi = fcgi,
		.before = spent_by(context),
		.changes_before = context_db_meter(context).changes };
	struct spent spent;

	served.call = (struct call){ .context = context,
		.arena = context->arena,
		.request = &served.request,
		.response = &served.response };
	if (!request_serve_within_memory(&served))
		memory_recover(&served);
	arena_on_exhaustion(context->arena, memory_give_up, fcgi);
	spent = spent_since(context, &served.before);
	record(&served.call, served.sent, &spent);
	log_request_id(NULL);
	arena_on_exhaustion(context->arena, NULL, NULL);
}
