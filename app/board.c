/* Plain words in shared memory, read and written atomically: a reader may see a moment ago. */
#include "app/board.h"

#include "lib/clock.h"
#include "lib/shm.h"

int board_new(struct board *board, size_t count)
{
	board->count = count;
	board->places = shm_new("areg-board", count * sizeof *board->places, &board->fd);
	return board->places == NULL ? -1 : 0;
}

void board_free(struct board *board)
{
	shm_free(board->places, board->count * sizeof *board->places, board->fd);
	board->places = NULL;
}

void board_enter(struct board *board, size_t place, enum board_state state)
{
	struct board_place *mine = &board->places[place];

	if (state == BOARD_BUSY)
		__atomic_fetch_add(&mine->requests, 1, __ATOMIC_RELAXED);
	__atomic_store_n(&mine->since_ms, clock_ms(), __ATOMIC_RELAXED);
	__atomic_store_n(&mine->state, (int32_t)state, __ATOMIC_RELEASE);
}

void board_count(const struct board *board, size_t *ready, size_t *busy)
{
	*ready = *busy = 0;
	for (size_t i = 0; i < board->count; i++) {
		int32_t state = __atomic_load_n(&board->places[i].state, __ATOMIC_ACQUIRE);

		if (__atomic_load_n(&board->places[i].pid, __ATOMIC_RELAXED) == 0)
			continue;
		*ready += state == BOARD_IDLE || state == BOARD_BUSY;
		*busy += state == BOARD_BUSY;
	}
}

uint64_t board_busy_ms(const struct board *board, size_t place)
{
	const struct board_place *one = &board->places[place];
	uint64_t since_ms, now = clock_ms();

	if (__atomic_load_n(&one->state, __ATOMIC_ACQUIRE) != BOARD_BUSY)
		return 0;
	since_ms = __atomic_load_n(&one->since_ms, __ATOMIC_RELAXED);
	return since_ms < now ? now - since_ms : 0;
}
