/* A worker: one process that serves one request at a time until it is told to drain. */
#ifndef AREG_PROCESS_WORKER_H
#define AREG_PROCESS_WORKER_H

#include <stddef.h>

#include "app/http/scoreboard.h"
#include "app/cache/host_memory.h"
#include "app/http/connections.h"
#include "app/cache/memcached_answers.h"
#include "app/http/replicas.h"
#include "app/registry/settings.h"
#include "app/process/feedback_writer.h"
#include "lib/cache.h"
#include "lib/db.h"
#include "lib/metrics.h"
#include "lib/router.h"

/* Everything a worker has. Handlers get it through their call. */
struct worker {
	const struct settings *settings;
	struct board *board;
	struct metrics *metrics;
	struct router *router;
	struct hot *hot; /* shared with the other processes of this host */
	struct reports *reports; /* of errors, for the reporter; NULL: none is wanted */
	size_t place; /* on the board and in the metrics */
	struct db_options db_options;
	struct cache_options cache_options;
	struct watch
		*watch; /* of the process that answers health checks and nothing else; or NULL */
	struct kept *kept; /* connections that wait while a request is served; or NULL */
	struct answer_claim *claim; /* that the request being served holds, or NULL */
	struct arena *arena; /* of the request being served */
	struct db *db; /* the primary */
	struct replicas *replicas; /* NULL: there are none */
	struct cache *cache;
	struct level2 level2; /* by that cache */
	struct writer_links writers; /* store feedback together with that of others */
};

/* Makes arena, db, replicas, cache and level2 as the settings say, in whatever program; worker_close() ends
 * them. Connects to nothing yet. */
void worker_open(struct worker *worker);
void worker_close(struct worker *worker);

/* What the worker has asked of databases, whichever. */
struct db_meter worker_db_meter(const struct worker *worker);

/*
 * Serves the listening socket `listen_fd`, together with those that share `relay`, until SIGTERM, until
 * max_requests are served, or until the master is gone; a request that is being served is finished
 * first. `doors` lead to the writers. Expects a process that was just forked.
 * Returns the process's exit code: 0 for a planned end.
 */
int worker_run(
	struct worker *worker, int listen_fd, struct relay relay, const struct writer_doors *doors);

#endif
