/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A place of the ring is free, being written by a process (whose pid it holds), or ready. Taking it
 * is one compare-and-swap, so nobody waits; what a process that was killed had begun to write was
 * never ready, and its place is free again as soon as the reader finds that process gone.
 */
#include "lib/error_reports.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/shm.h"

/* States of a place; any other is the pid of who writes it, times two. */
enum { FREE = 0, READY = 1 };

struct place {
	_Alignas(64) int64_t state;
	struct report report;
};

struct reports {
	struct place places[REPORTS_MAX];
	uint64_t next; /* place to try first */
	uint64_t dropped;
};

struct reports *reports_new(void)
{
	struct reports *reports;
	int fd;

	reports = shm_new("areg-reports", sizeof *reports, &fd);
	if (reports != NULL)
		close(fd); /* it outlives no exec */
	return reports;
}

void reports_free(struct reports *reports)
{
	if (reports != NULL)
		shm_free(reports, sizeof *reports, -1);
}

static bool claim(struct place *place, int64_t from, int64_t to)
{
	return __atomic_compare_exchange_n(
		&place->state, &from, to, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

void reports_put(struct reports *reports, const struct report *report)
{
	const int64_t writing = (int64_t)getpid() * 2;
	uint64_t at;

	if (reports == NULL)
		return;
	at = __atomic_fetch_add(&reports->next, 1, __ATOMIC_RELAXED);
	for (size_t tries = 0; tries < REPORTS_MAX; tries++, at++) {
		struct place *place = &reports->places[at % REPORTS_MAX];

		if (!claim(place, FREE, writing))
			continue;
		place->report = *report;
		place->report.at_ms = clock_unix_ms();
		__atomic_store_n(&place->state, READY, __ATOMIC_RELEASE);
		return;
	}
	__atomic_fetch_add(&reports->dropped, 1, __ATOMIC_RELAXED);
}

void reports_put_crash(struct reports *reports, const char *name, int wait_status)
{
	const char *signal_name =
		WIFSIGNALED(wait_status) ? sigabbrev_np(WTERMSIG(wait_status)) : NULL;
	struct report report = { .level = REPORT_FATAL };

	snprintf(report.place, sizeof report.place, "%.*s", (int)strcspn(name, " "), name);
	if (WIFEXITED(wait_status))
		snprintf(report.code, sizeof report.code, "exit %d", WEXITSTATUS(wait_status));
	else
		snprintf(report.code, sizeof report.code, "SIG%s",
			signal_name == NULL ? "RT" : signal_name);
	reports_put(reports, &report);
}

bool reports_take(struct reports *reports, struct report *report)
{
	for (size_t at = 0; at < REPORTS_MAX; at++) {
		struct place *place = &reports->places[at];
		const int64_t state = __atomic_load_n(&place->state, __ATOMIC_ACQUIRE);

		if (state == READY) {
			*report = place->report;
			__atomic_store_n(&place->state, FREE, __ATOMIC_RELEASE);
			return true;
		}
		if (state != FREE && kill((pid_t)(state / 2), 0) != 0 && errno == ESRCH)
			(void)claim(place, state, FREE);
	}
	return false;
}

uint64_t reports_take_dropped(struct reports *reports)
{
	return __atomic_exchange_n(&reports->dropped, 0, __ATOMIC_RELAXED);
}
