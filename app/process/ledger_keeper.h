/* SPDX-License-Identifier: Apache-2.0 */
/* The ledger keeper: a process beside the workers that keeps this host's reservations in the ledger of
 * limits (app/cache/limit_ledger.h). */
#ifndef AREG_PROCESS_LEDGER_KEEPER_H
#define AREG_PROCESS_LEDGER_KEEPER_H

#include "app/cache/limit_ledger.h"
#include "app/registry/settings.h"

/*
 * The process: says this host is there, counts the hosts, tops reservations up, by the host's
 * view of memcached servers (NULL: its own). Until SIGTERM
 * (which the master's end sends, too). Closes ready_fd once the other hosts, if any, have had the
 * time to learn of this one: from then on workers may serve without passing a limit together.
 * Returns the process's exit code.
 */
int ledger_keeper_run(const struct settings *settings, struct limiter *limiter,
	struct cache_view *view, int ready_fd);

#endif
