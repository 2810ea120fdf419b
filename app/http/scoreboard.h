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

enum board_state { BOARD_VACANT, BOARD_STARTING, BOARD_IDLE, BOARD_BUSY };

enum {
	BOARD_SERVING = 96, /* bytes of a method and a route template, cut off, with the NUL */
};

struct board_place {
	_Alignas(64) int32_t pid;
	int32_t state; /* enum board_state */
	uint32_t kept; /* connections that it holds open */
	uint64_t since_ms; /* when the state was entered, by clock_ms() */
	uint64_t requests; /* served by this process */
	char serving[BOARD_SERVING]; /* "GET /api/v1/agents/{id}", of the present or last request */
};

struct board {
	size_t count; /* places for workers */
	struct board_head *head;
	struct board_place *places;
	int fd;
};

/* 0, or -1 with errno set when the system refuses the memory. */
MUST_CHECK int board_new(struct board *board, size_t count);

/* Maps the board of an earlier generation of the same layout, whose descriptor it takes. As
 * board_new(). */
MUST_CHECK int board_adopt(struct board *board, int fd, size_t count);

void board_free(struct board *board);

/* How many workers there shall be. */
void board_want(struct board *board, size_t workers);
size_t board_wanted(const struct board *board);

/* The calling process enters a state. Its first state as a new process is BOARD_STARTING. */
void board_enter(struct board *board, size_t place, enum board_state state);

/* The calling process says what it serves. */
void board_serving(struct board *board, size_t place, const char *method, const char *template);

/* The calling process says how many connections it holds open. */
void board_keeps(struct board *board, size_t place, size_t connections);

/* Whether a worker that is ready, not that of this place, holds fewer than so many connections;
 * `is_idle`: and serves nothing just now. */
int board_has_fewer(const struct board *board, size_t place, size_t fewer_than, int is_idle);

/* How many workers are there and past their start, and how many of those serve a request. */
void board_count(const struct board *board, size_t *ready, size_t *busy);

/* Whether the process of that place is past its start. */
int board_is_ready(const struct board *board, size_t place);

/* For how long the worker has been at its present request; 0 when it serves none. */
uint64_t board_busy_ms(const struct board *board, size_t place);

#endif
