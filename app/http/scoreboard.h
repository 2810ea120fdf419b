/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the processes of a generation know of each other, in shared memory: one place per worker, and
 * one behind them for the process that answers health checks. Only its process writes a place, but
 * for `pid`, which the master sets and clears.
 */
#ifndef AREG_HTTP_SCOREBOARD_H
#define AREG_HTTP_SCOREBOARD_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "lib/must_check.h"

enum scoreboard_state { SCOREBOARD_VACANT, SCOREBOARD_STARTING, SCOREBOARD_IDLE, SCOREBOARD_BUSY };

enum {
	SCOREBOARD_SERVING = 96, /* bytes of a method and a route template, cut off, with the NUL */
};

struct scoreboard_place {
	_Alignas(64) int32_t pid;
	int32_t state; /* enum scoreboard_state */
	uint32_t connections; /* connections that it holds open */
	uint64_t since_ms; /* when the state was entered, by clock_ms() */
	uint64_t requests; /* served by this process */
	char serving
		[SCOREBOARD_SERVING]; /* "GET /api/v1/agents/{id}", of the present or last request */
};

struct scoreboard {
	size_t count; /* places for workers */
	struct scoreboard_head *head;
	struct scoreboard_place *places;
	int fd;
};

/* 0, or -1 with errno set when the system refuses the memory. */
MUST_CHECK int scoreboard_new(struct scoreboard *scoreboard, size_t count);

/* Maps the scoreboard of an earlier generation of the same layout, whose descriptor it takes. As
 * scoreboard_new(). */
MUST_CHECK int scoreboard_adopt(struct scoreboard *scoreboard, int fd, size_t count);

void scoreboard_free(struct scoreboard *scoreboard);

/* How many workers there shall be. */
void scoreboard_want(struct scoreboard *scoreboard, size_t workers);
size_t scoreboard_wanted(const struct scoreboard *scoreboard);

/* The calling process enters a state. Its first state as a new process is SCOREBOARD_STARTING. */
void scoreboard_enter(struct scoreboard *scoreboard, size_t place, enum scoreboard_state state);

/* The calling process says what it serves. */
void scoreboard_serving(
	struct scoreboard *scoreboard, size_t place, const char *method, const char *template);

/* The calling process says how many connections it holds open. */
void scoreboard_keeps(struct scoreboard *scoreboard, size_t place, size_t connections);

/* Whether a worker that is ready, not that of this place, holds fewer than so many connections;
 * `is_idle`: and serves nothing just now. */
int scoreboard_has_fewer(
	const struct scoreboard *scoreboard, size_t place, size_t fewer_than, int is_idle);

/* How many workers are there and past their start, and how many of those serve a request. */
void scoreboard_count(const struct scoreboard *scoreboard, size_t *ready, size_t *busy);

/* Whether the process of that place is past its start. */
int scoreboard_is_ready(const struct scoreboard *scoreboard, size_t place);

/* For how long the worker has been at its present request; 0 when it serves none. */
uint64_t scoreboard_busy_ms(const struct scoreboard *scoreboard, size_t place);

#endif
