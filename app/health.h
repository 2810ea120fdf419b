/* For those who run it: GET /health and GET /metrics. */
#ifndef AREG_HEALTH_H
#define AREG_HEALTH_H

#include "app/call.h"

enum health { HEALTHY, DEGRADED, UNHEALTHY };

/* What a look at the backends found. */
struct health_report {
	enum health database, cache;
	uint32_t cache_servers; /* of memcached, those that are in and answer, a bit each */
	const char *agents; /* lines of a gauge of active agents; NULL: not known */
};

/* Asks both. Texts are the arena's. */
void health_look(
	struct db *db, struct cache *cache, struct arena *arena, struct health_report *report);

void health_get(struct call *call);
void metrics_get(struct call *call);

#endif
