/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A writer: a process beside the workers that stores together what they have to store at the same time
 * (app/http/feedback_link.h). It takes what they have by then, stores it by one statement in one
 * transaction, and tells each what became of its own: so all of it shares one commit, and what a
 * statement costs by itself. While that is under way the next lot gathers; nobody waits for company.
 */
#ifndef AREG_PROCESS_FEEDBACK_WRITER_H
#define AREG_PROCESS_FEEDBACK_WRITER_H

#include "app/http/feedback_link.h"
#include "lib/metrics.h"

enum {
	WRITER_WORKERS = 8
}; /* for each; with fewer, lots are so small that workers are faster alone */

/* How many there are to be. */
size_t writers_for(const struct settings *settings);

/*
 * The writer process. After SIGTERM it ends when the last worker has closed its link. Counts its trips
 * to PostgreSQL. `reached` is for db_share_reached(). Closes ready_fd once it takes links. Returns the
 * process's exit code.
 */
int feedback_writer_run(const struct settings *settings, struct metrics *metrics, uint64_t *reached,
	struct relay door, int ready_fd);

#endif
