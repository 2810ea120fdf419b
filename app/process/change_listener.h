/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one process of a host that hears what was changed, by whomever: it asks erc8004_events four
 * times a second what was committed, and listens on areg_callers ("user:UUID") and areg_agents
 * ("all": `aregctl cache flush`). It says so to the workers through shared memory and to memcached,
 * and does what has to be done now and then: writes last_used_at of keys, sweeps what has expired,
 * folds what totals are made of, notes what is asked for most, lets events go on after a restore.
 */
#ifndef AREG_PROCESS_CHANGE_LISTENER_H
#define AREG_PROCESS_CHANGE_LISTENER_H

#include "app/cache/host_memory.h"
#include "app/process/reporter.h"
#include "app/registry/settings.h"

/* Until SIGTERM or until the master is gone. It puts failures that are our own fault into `reports`
 * (NULL: none are wanted). Writes a byte to ready_fd and closes it once it listens for the first
 * time; -1: nobody wants to know. Returns the process's exit code. */
int change_listener_run(const struct settings *settings, struct host_memory *host,
	struct reports *reports, int ready_fd);

#endif
