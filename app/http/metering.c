/* SPDX-License-Identifier: Apache-2.0 */
/* Labels that depend on the route table and the configured chains are made once, at start. */
#include "app/http/metering.h"

#include "lib/db.h"
#include "lib/router.h"

static const int statuses[] = { 200, 201, 204, 304, 400, 401, 403, 404, 405, 409, 413, 414, 415,
	429, 500, 503 };
enum { STATUSES = sizeof statuses / sizeof statuses[0] };

enum meter_outcome meter_outcome(int status)
{
	return status < 400 ? METER_SUCCESS : status < 500 ? METER_REFUSED : METER_FAILED;
}

size_t meter_status(int status)
{
	size_t i = 0;

	while (i < STATUSES - 1 && statuses[i] != status)
		i++;
	return i;
}

size_t meter_chain(const struct settings *settings, const struct chain *chain)
{
	return chain == NULL ? settings->chain_count : (size_t)(chain - settings->chains);
}

static struct metric_labels route_labels(struct arena *arena, const struct router *router)
{
	const size_t route_count = router_count(router);
	const char **texts = arena_alloc(arena, (route_count + 1) * sizeof *texts);

	for (size_t i = 0; i < route_count; i++) {
		const struct route_path *path = router_path(router, i);

		texts[i] = arena_printf(arena, "method=\"%s\",endpoint=\"%s\"",
			http_method_name(path->method), path->template);
	}
	texts[route_count] = "method=\"\",endpoint=\"\"";
	return (struct metric_labels){ texts, route_count + 1 };
}

static struct metric_labels status_labels(struct arena *arena)
{
	const char **texts = arena_alloc(arena, STATUSES * sizeof *texts);

	for (size_t i = 0; i < STATUSES; i++)
		texts[i] = arena_printf(arena, "status_code=\"%d\"", statuses[i]);
	return (struct metric_labels){ texts, STATUSES };
}

static struct metric_labels chain_labels(struct arena *arena, const struct settings *settings)
{
	const char **texts = arena_alloc(arena, (settings->chain_count + 1) * sizeof *texts);

	for (size_t i = 0; i < settings->chain_count; i++)
		texts[i] = arena_printf(arena, "chain=\"%s\"", settings->chains[i].name);
	texts[settings->chain_count] = "chain=\"unknown\"";
	return (struct metric_labels){ texts, settings->chain_count + 1 };
}

static struct metric_labels class_labels(struct arena *arena)
{
	const char **texts = arena_alloc(arena, RATE_CLASSES * sizeof *texts);

	for (enum rate_class class = RATE_NONE; class < RATE_CLASSES; class ++)
		texts[class] = arena_printf(arena, "class=\"%s\"", rate_class_name(class));
	return (struct metric_labels){ texts, RATE_CLASSES };
}

static struct metric_labels failure_labels(struct arena *arena)
{
	const char **texts = arena_alloc(arena, (DB_STATUSES - 1) * sizeof *texts);

	for (size_t i = 0; i < DB_STATUSES - 1; i++)
		texts[i] = arena_printf(
			arena, "kind=\"%s\"", db_status_name(DB_CALLER + (enum db_status)i));
	return (struct metric_labels){ texts, DB_STATUSES - 1 };
}

struct metrics *metering_new(struct arena *arena, const struct settings *settings,
	const struct router *router, size_t slots)
{
	static const char *const outcome_texts[] = { "status=\"success\"", "status=\"refused\"",
		"status=\"failed\"" };
	static const char *const reload_texts[] = { "outcome=\"done\"", "outcome=\"failed\"" };
	static const char *const report_texts[] = { "outcome=\"sent\"", "outcome=\"folded\"",
		"outcome=\"dropped\"", "outcome=\"retried\"" };
	const struct metric_labels outcomes = { outcome_texts, 3 };
	static const char *const level_texts[] = { "level=\"memory\"", "level=\"memcached\"",
		"level=\"outage\"" };
	const struct metric_labels levels = { level_texts, 3 };
	const struct metric_labels by_failure = failure_labels(arena);
	const struct metric_labels by_route = route_labels(arena, router);
	const struct metric_labels by_status = status_labels(arena);
	const struct metric_labels by_chain = chain_labels(arena, settings);
	const struct metric_labels by_class = class_labels(arena);
	static const char *const reader_texts[] = { "server=\"primary\"", "server=\"replica\"" };
	static const char *const fallback_texts[] = { "reason=\"behind\"", "reason=\"away\"",
		"reason=\"refused\"" };
	const struct metric all[METERS] = {
		[METER_REQUESTS] = { "erc8004_api_requests_total",
			"Requests answered, by route template and status.", METRIC_COUNTER,
			{ by_route, by_status } },
		[METER_REQUEST_DURATION] = { "erc8004_api_request_duration_seconds",
			"From reading a request to its answer sent.", METRIC_HISTOGRAM,
			{ by_route } },
		[METER_REGISTRATIONS] = { "erc8004_agent_registrations_total",
			"Registrations asked for, by chain and outcome.", METRIC_COUNTER,
			{ by_chain, outcomes } },
		[METER_REGISTRATION_DURATION] = { "erc8004_agent_registration_duration_seconds",
			"Time taken by registrations.", METRIC_HISTOGRAM, { { NULL, 0 } } },
		[METER_FEEDBACK] = { "erc8004_feedback_submissions_total",
			"Feedback submitted, by outcome.", METRIC_COUNTER, { outcomes } },
		[METER_PAYMENT_LINKS] = { "erc8004_payment_links_total",
			"Payments linked to agents, by chain and outcome.", METRIC_COUNTER,
			{ by_chain, outcomes } },
		[METER_SEARCH_DURATION] = { "erc8004_agent_search_duration_seconds",
			"Time taken by searches for agents.", METRIC_HISTOGRAM, { { NULL, 0 } } },
		[METER_DB_DURATION] = { "areg_database_duration_seconds",
			"Time that PostgreSQL took of requests that asked it.", METRIC_HISTOGRAM,
			{ { NULL, 0 } } },
		[METER_DB_FAILURES] = { "areg_database_failures_total",
			"Requests that failed by the database, by kind of failure.", METRIC_COUNTER,
			{ by_failure }, .from_zero = true },
		[METER_DB_ROUND_TRIPS] = { "areg_database_round_trips_total",
			"Round trips from workers to PostgreSQL.", METRIC_COUNTER,
			{ { NULL, 0 } } },
		[METER_DB_RETRIES] = { "areg_database_retries_total",
			"Statements and transactions tried again.", METRIC_COUNTER,
			{ { NULL, 0 } } },
		[METER_DB_RECONNECTS] = { "areg_database_reconnects_total",
			"Connections to PostgreSQL made after a worker's first.", METRIC_COUNTER,
			{ { NULL, 0 } } },
		[METER_READS] = { "areg_database_reads_total",
			"Reads of public data, by the server that was asked last.", METRIC_COUNTER,
			{ { reader_texts, 2 } }, .from_zero = true },
		[METER_REPLICA_FALLBACKS] = { "areg_replica_fallbacks_total",
			"Reads that no replica answered, so that the primary was asked: all behind "
			"a change, all away, or one refused.",
			METRIC_COUNTER, { { fallback_texts, 3 } }, .from_zero = true },
		[METER_LIMIT_REFUSALS] = { "areg_limiter_refusals_total",
			"Requests refused with 429, by rate class.", METRIC_COUNTER, { by_class },
			.from_zero = true },
		[METER_LIMIT_RESERVATIONS] = { "areg_limiter_unreserved_total",
			"Requests that had to reserve from the hosts' ledger themselves.",
			METRIC_COUNTER, { { NULL, 0 } } },
		[METER_LIMIT_FALLBACKS] = { "areg_limiter_fallbacks_total",
			"Requests let through or refused by what this host knows alone, since the "
			"hosts' ledger was away.",
			METRIC_COUNTER, { { NULL, 0 } } },
		[METER_CACHE_DURATION] = { "areg_cache_duration_seconds",
			"Time that memcached took of requests that asked it.", METRIC_HISTOGRAM,
			{ { NULL, 0 } } },
		[METER_CALLER_HITS] = { "areg_caller_cache_hits_total",
			"API keys found in shared memory.", METRIC_COUNTER, { { NULL, 0 } } },
		[METER_CALLER_MISSES] = { "areg_caller_cache_misses_total",
			"API keys that were looked up in the database.", METRIC_COUNTER,
			{ { NULL, 0 } } },
		[METER_CACHE_HITS] = { "areg_cache_hits_total",
			"Answers found: in shared memory, in memcached, or in either of them while "
			"the database could not be asked.",
			METRIC_COUNTER, { levels }, .from_zero = true },
		[METER_CACHE_MISSES] = { "areg_cache_misses_total",
			"Answers that the database was asked for, since they were not kept.",
			METRIC_COUNTER, { { NULL, 0 } } },
		[METER_CACHE_BYPASSES] = { "areg_cache_bypasses_total",
			"Answers that the database was asked for, since the caller wished it or "
			"changes might not have been heard of.",
			METRIC_COUNTER, { { NULL, 0 } } },
		[METER_CACHE_WAITS] = { "areg_cache_waits_total",
			"Requests that waited for another that asked the same.", METRIC_COUNTER,
			{ { NULL, 0 } } },
		[METER_WORKER_STARTS] = { "areg_worker_starts_total",
			"Workers started, recycled and replaced ones included.", METRIC_COUNTER,
			{ { NULL, 0 } } },
		[METER_WORKER_CRASHES] = { "areg_worker_crashes_total",
			"Workers that ended otherwise than planned.", METRIC_COUNTER,
			{ { NULL, 0 } } },
		[METER_WORKERS_STUCK] = { "areg_workers_stuck_total",
			"Workers killed after request_timeout; counted as crashes, too.",
			METRIC_COUNTER, { { NULL, 0 } } },
		[METER_RELOADS] = { "areg_reloads_total", "Reloads asked for, by outcome.",
			METRIC_COUNTER, { { reload_texts, 2 } }, .from_zero = true },
		[METER_REPORTS] = { "areg_error_reports_total",
			"Reports of errors: sent to Sentry, folded into an equal one, dropped, and "
			"attempts that are made again.",
			METRIC_COUNTER, { { report_texts, 4 } }, .from_zero = true },
		[METER_LOG_DROPPED] = { "areg_log_lines_dropped_total",
			"Lines that workers could not write to the log.", METRIC_COUNTER,
			{ { NULL, 0 } } },
	};
	struct metric *table = arena_alloc(arena, sizeof all);

	for (size_t i = 0; i < METERS; i++)
		table[i] = all[i];
	return metrics_new(table, METERS, slots);
}
