/* SPDX-License-Identifier: Apache-2.0 */
/* The metrics that areg counts; docs/metrics.md has their names. */
#ifndef AREG_HTTP_METERING_H
#define AREG_HTTP_METERING_H

#include "app/registry/settings.h"
#include "lib/arena.h"
#include "lib/metrics.h"
#include "lib/router.h"

enum meter {
	METER_REQUESTS, /* by route, by status: the last route is "no route" */
	METER_REQUEST_DURATION, /* by route */
	METER_REGISTRATIONS, /* by chain (the last is "unknown"), by enum meter_outcome */
	METER_REGISTRATION_DURATION,
	METER_FEEDBACK, /* by enum meter_outcome */
	METER_PAYMENT_LINKS, /* by chain (the last is "unknown"), by enum meter_outcome */
	METER_SEARCH_DURATION,
	METER_DB_DURATION,
	METER_DB_FAILURES, /* by enum db_status without DB_OK: DB_CALLER is the first */
	METER_DB_ROUND_TRIPS,
	METER_DB_RETRIES,
	METER_DB_RECONNECTS,
	METER_READS, /* by enum meter_reader */
	METER_REPLICA_FALLBACKS, /* by enum replica_outcome without REPLICA_ANSWERED */
	METER_LIMIT_REFUSALS, /* by enum rate_class */
	METER_LIMIT_RESERVATIONS,
	METER_LIMIT_FALLBACKS,
	METER_CACHE_DURATION,
	METER_CALLER_HITS,
	METER_CALLER_MISSES,
	METER_CACHE_HITS, /* by enum meter_cache */
	METER_CACHE_MISSES,
	METER_CACHE_BYPASSES,
	METER_CACHE_WAITS,
	METER_WORKER_STARTS,
	METER_WORKER_CRASHES,
	METER_WORKERS_STUCK,
	METER_RELOADS, /* by enum meter_reload */
	METER_REPORTS, /* by enum meter_report */
	METER_LOG_DROPPED,
	METERS,
};

enum meter_reader { METER_READ_PRIMARY, METER_READ_REPLICA };

enum meter_outcome { METER_SUCCESS, METER_REFUSED, METER_FAILED };

enum meter_cache {
	METER_CACHE_MEMORY,
	METER_CACHE_MEMCACHED,
	METER_CACHE_OUTAGE, /* from either, since the database could not be asked */
};

enum meter_reload { METER_RELOAD_DONE, METER_RELOAD_FAILED };

enum meter_report {
	METER_REPORT_SENT,
	METER_REPORT_FOLDED, /* into an equal one, whose count says so */
	METER_REPORT_DROPPED,
	METER_REPORT_RETRIED,
};

/* Which outcome an HTTP status is: 2xx, 4xx, 5xx. */
enum meter_outcome meter_outcome(int status);

/* The place of an HTTP status in METER_REQUESTS. */
size_t meter_status(int status);

/* The place of a chain in METER_REGISTRATIONS and METER_PAYMENT_LINKS; NULL is unknown. */
size_t meter_chain(const struct settings *settings, const struct chain *chain);

/* Lays all of them out for `slots` processes, with a label for each route of the router; the labels
 * live in `arena`. NULL with errno set when the system refuses the memory. */
MUST_CHECK struct metrics *metering_new(struct arena *arena, const struct settings *settings,
	const struct router *router, size_t slots);

#endif
