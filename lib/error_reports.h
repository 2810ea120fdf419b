/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reports of errors. A process that meets an error puts a report into a ring in shared memory,
 * without ever waiting and without anything that a caller sent; one process takes them out.
 */
#ifndef AREG_ERROR_REPORTS_H
#define AREG_ERROR_REPORTS_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/must_check.h"

enum report_level { REPORT_ERROR, REPORT_FATAL };

/* Reports of equal place and code are equal. */
struct report {
	enum report_level level;
	char place[96]; /* method and route template, or the kind of process: "worker" */
	char code[32]; /* the problem's code, an SQLSTATE, or how a process ended: "SIGSEGV" */
	char statement[64]; /* name of the SQL statement, or "" */
	char request_id[129]; /* or "" */
	uint64_t at_ms; /* Unix time, set by reports_put() */
};

struct reports; /* lies in shared memory */

enum { REPORTS_MAX = 256 }; /* that wait in the ring */

/* An empty ring, made before forking. NULL with errno set when the system refuses the memory. */
MUST_CHECK struct reports *reports_new(void);
void reports_free(struct reports *reports);

/* Puts a report into the ring; where that is full, only counts it. NULL: nobody wants any. */
void reports_put(struct reports *reports, const struct report *report);

/* The same for a process that crashed: its name as in the log, of which the first word counts
 * ("worker 3" is one of the workers), and what waitpid(2) said of it. */
void reports_put_crash(struct reports *reports, const char *name, int wait_status);

/* The rest is for the one process that takes them. Takes one out, false when there is none; and how
 * many found the ring full since the last call. */
MUST_CHECK bool reports_take(struct reports *reports, struct report *report);
uint64_t reports_take_dropped(struct reports *reports);

#endif
