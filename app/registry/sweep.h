/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What has expired in the database, or piles up there, and is taken away in small batches: by the
 * listener once a minute while it runs, and by `aregctl sweep` whether it runs or not. All of them
 * may be at it at once, on any number of hosts: none waits for another.
 */
#ifndef AREG_REGISTRY_SWEEP_H
#define AREG_REGISTRY_SWEEP_H

#include "app/registry/settings.h"
#include "lib/db.h"

enum sweep {
	SWEEP_RETRIES, /* answers kept for requests that are sent again, after a day */
	SWEEP_CHALLENGES, /* to sign in, once they have expired */
	SWEEP_TOTALS, /* what was added to totals: many rows become one */
	SWEEP_EVENTS, /* once they are older than event_retention_days */
};
enum { SWEEPS = SWEEP_EVENTS + 1 };

/* Takes one batch away, but for rows that somebody else holds. *removed is how many rows went, and
 * *more whether there may be more of them. */
MUST_CHECK enum db_status sweep_batch(struct db *db, enum sweep what,
	const struct settings *settings, struct arena *arena, uint64_t *removed, bool *more);

#endif
