/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A crew: the processes of one generation, workers first, then those beside them. The master
 * replaces each process of the running program's crew that ends. Crews of earlier programs are only
 * watched and ended.
 */
#ifndef AREG_PROCESS_CREW_H
#define AREG_PROCESS_CREW_H

#include <stdbool.h>

#include "app/cache/host_memory.h"
#include "app/http/connections.h"
#include "app/http/scoreboard.h"
#include "app/process/feedback_writer.h"
#include "app/process/handover.h"
#include "app/process/reporter.h"
#include "app/registry/settings.h"
#include "lib/metrics.h"
#include "lib/router.h"

/* Processes beside the workers, in their order of places. HEALTH has the scoreboard's last place;
 * writers come last, as many as there can be. */
enum helper { HEALTH, LEDGER_KEEPER, LISTENER, REPORTER, WRITER, HELPERS = WRITER + WRITERS_MOST };

enum { CREW_SPARE = 16 }; /* workers that signals may add to those of the configuration */

/* What the processes of this program are given. */
struct stage {
	const struct settings *settings;
	struct metrics *metrics;
	struct router *router;
	struct host_memory *host;
	struct reports *reports; /* of errors; NULL: none is wanted */
	int listen_fd;
	struct relay relay; /* between the workers on listen_fd */
	int health_fd; /* -1: none */
	void (*in_child)(void *arg); /* closes what is the master's own */
	void *arg;
};

struct crew_place {
	bool is_vacant; /* nobody is wanted here */
	bool is_ready; /* a listener that listens, a ledger keeper that has made its first round */
	bool is_ending; /* was sent SIGTERM */
	pid_t pid;
	uint64_t started_ms;
	uint64_t start_at_ms; /* when `pid` is 0: not before */
	int delay_ms; /* for the next crash */
	int ready_fd; /* says when it is ready; -1: no more */
};

struct crew {
	unsigned number;
	char version[32];
	const struct stage *stage; /* NULL: of an earlier program */
	int request_timeout_ms, shutdown_timeout_ms;
	struct scoreboard
		scoreboard; /* its head is NULL when an earlier program's cannot be read */
	int metrics_fd;
	struct writer_doors doors; /* none in a crew of an earlier program */
	struct crew_place *places;
	size_t capacity; /* places for workers */
	size_t count; /* of all */
	size_t wanted; /* workers, when it was handed over */
	bool has_other_segment; /* than this program */
};

/* The crew of this program, nobody started yet. 0, or -1 with errno set. */
MUST_CHECK int crew_new(struct crew *crew, unsigned number, const struct stage *stage);

/* The metric slots that it needs: a process each, and one for the master, which is the last. */
size_t crew_slots(const struct settings *settings);

/* A crew of an earlier program. 0, or -1 with errno set. */
MUST_CHECK int crew_adopt(struct crew *crew, const struct handover_crew *from, bool other_segment);
void crew_hand_over(const struct crew *crew, struct handover_crew *to);
void crew_free(struct crew *crew);

/* The place of a process beside the workers. */
size_t crew_helper(const struct crew *crew, enum helper which);

/* Starts the process of that place. False when there was no more to be had. */
bool crew_start(struct crew *crew, size_t at);

/* Waits for at most wait_ms until the process has said that it is ready. */
void crew_await(struct crew *crew, size_t at, int wait_ms);

/* If the process is one of this crew, takes note of its end and returns true. */
bool crew_ended(struct crew *crew, pid_t pid, int status, struct metrics *metrics);

/* Notes who has become ready meanwhile. */
void crew_look(struct crew *crew);

/* Whether all workers that are wanted, and the health process, are past their start. */
bool crew_is_ready(const struct crew *crew);

/* How many of the places from..to - 1 are taken. */
size_t crew_running(const struct crew *crew, size_t from, size_t to);

/* Sends a signal to those of the places from..to - 1; SIGTERM once only. */
void crew_signal(struct crew *crew, size_t from, size_t to, int number);

/* Kills workers that have been at one request for longer than request_timeout. Their end is then a
 * crash like any other: logged, counted, the worker replaced. */
void crew_end_stuck(const struct crew *crew, struct metrics *metrics);

#endif
