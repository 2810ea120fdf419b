/*
 * The master: makes the shared memory, forks the workers, replaces those that end, and passes
 * signals on. It serves no request itself.
 */
#ifndef AREG_MASTER_H
#define AREG_MASTER_H

#include "app/settings.h"

/*
 * Runs until SIGTERM or SIGINT, then drains: workers finish what they serve, and those still at it
 * after shutdown_timeout are killed. `listen_fd` is the listening socket. Returns the exit code of
 * the program: 0 after a drain, 1 when it could not start.
 */
int master_run(struct arena *arena, const struct settings *settings, int listen_fd);

#endif
