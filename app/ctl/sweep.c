/* SPDX-License-Identifier: Apache-2.0 */
/* aregctl sweep: what the listener of a running aregd does once a minute, for where none does. */
#include "app/ctl/ctl.h"

#include <inttypes.h>
#include <stdio.h>

#include "app/registry/sweep.h"

enum { TIMEOUT_MS = 30 * 1000 };

static const struct {
	const char *key, *what;
} said[SWEEPS] = {
	[SWEEP_RETRIES] = { "retries", "answers kept for retries" },
	[SWEEP_CHALLENGES] = { "challenges", "sign-in challenges" },
	[SWEEP_TOTALS] = { "totals", "rows that totals are the sum of, for a few" },
	[SWEEP_EVENTS] = { "events", "events older than event_retention_days" },
};

static enum db_status sweep_all(struct ctl *ctl, enum sweep what, uint64_t *removed)
{
	enum db_status status;
	uint64_t batch;
	bool more;

	*removed = 0;
	do {
		status = sweep_batch(ctl->db, what, &ctl->settings, ctl->arena, &batch, &more);
		*removed += batch;
	} while (status == DB_OK && more);
	return status;
}

static enum ctl_exit sweep_sweep(struct ctl *ctl, const void *values)
{
	uint64_t removed[SWEEPS];

	(void)values;
	ctl_open_db(ctl, TIMEOUT_MS);
	for (int what = 0; what < SWEEPS; what++)
		if (sweep_all(ctl, (enum sweep)what, &removed[what]) != DB_OK)
			return ctl_db_failed(ctl, "sweep");
	for (int what = 0; what < SWEEPS; what++) {
		if (ctl->json)
			printf("%s\"%s\":%" PRIu64 "%s", what == 0 ? "{" : ",", said[what].key,
				removed[what], what == SWEEPS - 1 ? "}\n" : "");
		else
			printf("removed %s %s\n", ctl_grouped(ctl->arena, removed[what]),
				said[what].what);
	}
	return CTL_DONE;
}

const struct ctl_command ctl_sweep_commands[] = {
	{ "sweep", "", 0, "remove what has expired from the database",
		"A running aregd does that by itself, once a minute. Several at once are safe.\n",
		NULL, 0, 0, sweep_sweep },
	{ .name = NULL },
};
