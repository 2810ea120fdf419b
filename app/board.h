/*
 * What the master and its workers know of each other, in shared memory: one place per worker. Only
 * the worker writes its own place, but for `pid`, which the master sets and clears.
 */
#ifndef AREG_BOARD_H
#define AREG_BOARD_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "lib/must_check.h"

enum board_state { BOARD_VACANT, BOARD_STARTING, BOARD_IDLE, BOARD_BUSY };

struct board_place {
	_Alignas(64) int32_t pid;
	int32_t state; /* enum board_state */
	uint64_t since_ms; /* when the state was entered, by clock_ms() */
	uint64_t requests; /* served by this process */
};

struct board {
	size_t count;
	struct board_place *places;
	int fd;
};

/* 0, or -1 with errno set when the system refuses the memory. */
MUST_CHECK int board_new(struct board *board, size_t count);
void board_free(struct board *board);

/* The calling worker enters a state. */
void board_enter(struct board *board, size_t place, enum board_state state);

/* How many workers are there and past their start, and how many of those serve a request. */
void board_count(const struct board *board, size_t *ready, size_t *busy);

/* For how long the worker has been at its present request; 0 when it serves none. */
uint64_t board_busy_ms(const struct board *board, size_t place);

#endif
