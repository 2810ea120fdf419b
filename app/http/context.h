/* SPDX-License-Identifier: Apache-2.0 */
/* The state of a process that serves requests. Handlers get it through their call. */
#ifndef AREG_HTTP_CONTEXT_H
#define AREG_HTTP_CONTEXT_H

#include <stddef.h>

#include "app/cache/host_memory.h"
#include "app/cache/memcached_answers.h"
#include "app/http/connections.h"
#include "app/http/feedback_link.h"
#include "app/http/replicas.h"
#include "app/http/scoreboard.h"
#include "app/registry/settings.h"
#include "lib/cache.h"
#include "lib/db.h"
#include "lib/error_reports.h"
#include "lib/metrics.h"
#include "lib/router.h"

struct context {
	const struct settings *settings;
	struct scoreboard *scoreboard;
	struct metrics *metrics;
	struct router *router;
	struct host_memory *host; /* shared with the other processes of this host */
	struct reports *reports; /* of errors, for the reporter; NULL: none is wanted */
	size_t place; /* on the scoreboard and in the metrics */
	struct db_options db_options;
	struct cache_options cache_options;
	struct backend_watch
		*watch; /* of the process that answers health checks and nothing else; or NULL */
	struct connections
		*connections; /* connections that wait while a request is served; or NULL */
	struct answer_claim *claim; /* that the request being served holds, or NULL */
	struct arena *arena; /* of the request being served */
	struct db *db; /* the primary */
	struct replicas *replicas; /* NULL: there are none */
	struct cache *cache;
	struct memcached_answers memcached; /* by that cache */
	struct writer_links writers; /* store feedback together with that of others */
};

/* Makes arena, db, replicas, cache and memcached as the settings say, in whatever program; context_close() ends
 * them. Connects to nothing yet. */
void context_open(struct context *context);
void context_close(struct context *context);

/* Sums of the process's round trips to all its databases, and of the time that it waited. */
struct db_meter context_db_meter(const struct context *context);

#endif
