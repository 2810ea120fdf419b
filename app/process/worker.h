/* SPDX-License-Identifier: Apache-2.0 */
/* A worker: one process that serves one request at a time until it is told to drain. */
#ifndef AREG_PROCESS_WORKER_H
#define AREG_PROCESS_WORKER_H

#include "app/http/context.h"

/*
 * Serves the listening socket `listen_fd`, together with those that share `relay`, until SIGTERM, until
 * max_requests are served, or until the master is gone; a request that is being served is finished
 * first. `doors` lead to the writers. Expects a process that was just forked.
 * Returns the process's exit code: 0 for a planned end.
 */
int worker_run(struct context *context, int listen_fd, struct relay relay,
	const struct writer_doors *doors);

#endif
