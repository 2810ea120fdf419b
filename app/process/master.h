/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The master: makes the shared memory, forks the workers, replaces those that end, passes signals on,
 * and reloads. It serves no request itself.
 */
#ifndef AREG_PROCESS_MASTER_H
#define AREG_PROCESS_MASTER_H

#include "app/registry/settings.h"
#include "lib/router.h"

/* How this program was started, to start it again. */
struct master_program {
	const char *
		path; /* absolute, as it was called: what is there by then is what a reload starts */
	char *const *argv;
};

/*
 * Runs until SIGTERM or SIGINT, then drains: workers finish what they serve, and those still at it
 * after shutdown_timeout are killed. `router` knows all routes, `listen_fd` is the
 * listening socket. On a reload the process
 * becomes the new program, which goes on here with what it is handed over. Returns the exit code of
 * the program: 0 after a drain, 1 when it could not start.
 */
int master_run(struct arena *arena, const struct settings *settings, struct router *router,
	int listen_fd, const struct master_program *program);

#endif
