/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looks after the backends for the process that answers health checks: a thread of its own asks
 * them, so that an answer never waits longer than BACKEND_WATCH_WAIT_MS for one that hangs.
 */
#ifndef AREG_PROCESS_BACKEND_WATCH_H
#define AREG_PROCESS_BACKEND_WATCH_H

#include "app/cache/host_memory.h"
#include "app/process/backend_health.h"
#include "app/registry/settings.h"

enum {
	BACKEND_WATCH_WAIT_MS = 60, /* longest that an answer waits for a fresh look */
	BACKEND_WATCH_EVERY_MS = 1000, /* the thread looks by itself */
	BACKEND_WATCH_FRESH_MS = 1000, /* a look that is younger is told as it is */
	BACKEND_WATCH_VALID_MS = 3000, /* a look that is older says nothing */
};

struct backend_watch;

/* Starts the thread, which shares with the host what is known of its backends. NULL with the reason
 * logged when there is none to be had. */
MUST_CHECK struct backend_watch *backend_watch_start(
	const struct settings *settings, struct host_memory *host);

/* Fills *report with the last look at the backends if it ended within BACKEND_WATCH_FRESH_MS. Otherwise a new
 * look begins. If that takes too long, the last look is told again; if that one is too old, the report
 * says that the database is away. Texts belong to the arena. */
void backend_watch_ask(
	struct backend_watch *watch, struct arena *arena, struct health_report *report);

#endif
