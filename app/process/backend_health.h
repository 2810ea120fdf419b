/* SPDX-License-Identifier: Apache-2.0 */
/* How the backends are: PostgreSQL, its replicas and memcached, asked one after the other. */
#ifndef AREG_PROCESS_BACKEND_HEALTH_H
#define AREG_PROCESS_BACKEND_HEALTH_H

#include "app/http/replicas.h"
#include "lib/cache.h"
#include "lib/db.h"

enum health { HEALTHY, DEGRADED, UNHEALTHY };

/* What a look at the backends found. */
struct health_report {
	enum health database, cache;
	uint32_t cache_servers; /* of memcached, those that are in and answer, a bit each */
	struct replica_health {
		const char
			*role; /* "replica"; "primary": it is none; "unknown": it does not answer */
		int64_t lag_ms;
	} replicas[REPLICAS_MAX];
	size_t replica_count;
	/* Age of the first event that GET /events does not show yet; 0 when it shows all; -1: not known. */
	int64_t events_held_back_ms;
	const char *agents; /* lines of a gauge of active agents; NULL: not known */
};

/* Asks database and cache. Texts are the arena's. */
void health_look(
	struct db *db, struct cache *cache, struct arena *arena, struct health_report *report);

/* Asks the replicas, one after the other, each for database_read_timeout at most. */
void health_look_at_replicas(
	struct replicas *replicas, struct arena *arena, struct health_report *report);

/* How many servers of memcached are in and answer. */
size_t health_cache_servers(const struct health_report *report);

#endif
