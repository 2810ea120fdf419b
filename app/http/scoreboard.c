/* Plain words in shared memory, read and written atomically: a reader may see a moment ago. */
#include "app/http/scoreboard.h"

#include <stdio.h>

#include "lib/clock.h"
#include "lib/shm.h"

struct board_head {
	_Alignas(64) uint64_t wanted;
};

/* With the place of the health process. */
static size_t bytes_of(size_t count)
{
	return sizeof(struct board_head) + (count + 1) * sizeof(struct board_place);
}

static int lay_out(struct board *board, void *memory, size_t count)
{
	if (memory == NULL)
		return -1;
	board->count = count;
	board->head = memory;
	board->places = (struct board_place *)(board->head + 1);
	return 0;
}

int board_new(struct board *board, size_t count)
{
	return lay_out(board, shm_new("areg-board", bytes_of(count), &board->fd), count);
}

int board_adopt(struct board *board, int fd, size_t count)
{
	board->fd = fd;
	return lay_out(board, shm_adopt(fd, bytes_of(count)), count);
}

void board_free(struct board *board)
{
	if (board->head != NULL)
		shm_free(board->head, bytes_of(board->count), board->fd);
	board->head = NULL;
	board->places = NULL;
}

void board_want(struct board *board, size_t workers)
{
	__atomic_store_n(&board->head->wanted, workers, __ATOMIC_RELAXED);
}

size_t board_wanted(const struct board *board)
{
	return __atomic_load_n(&board->head->wanted, __ATOMIC_RELAXED);
}

void board_enter(struct board *board, size_t place, enum board_state state)
{
	struct board_place *mine = &board->places[place];

	if (state == BOARD_BUSY)
		__atomic_fetch_add(&mine->requests, 1, __ATOMIC_RELAXED);
	if (state == BOARD_STARTING) {
		__atomic_store_n(&mine->requests, 0, __ATOMIC_RELAXED);
		__atomic_store_n(&mine->kept, 0, __ATOMIC_RELAXED);
	}
	__atomic_store_n(&mine->since_ms, clock_ms(), __ATOMIC_RELAXED);
	__atomic_store_n(&mine->state, (int32_t)state, __ATOMIC_RELEASE);
}

void board_serving(struct board *board, size_t place, const char *method, const char *template)
{
	snprintf(board->places[place].serving, BOARD_SERVING, "%s %s", method, template);
}

int board_is_ready(const struct board *board, size_t place)
{
	int32_t state = __atomic_load_n(&board->places[place].state, __ATOMIC_ACQUIRE);

	return __atomic_load_n(&board->places[place].pid, __ATOMIC_RELAXED) != 0 &&
	       (state == BOARD_IDLE || state == BOARD_BUSY);
}

void board_keeps(struct board *board, size_t place, size_t connections)
{
	__atomic_store_n(&board->places[place].kept, (uint32_t)connections, __ATOMIC_RELAXED);
}

int board_has_fewer(const struct board *board, size_t place, size_t fewer_than, int is_idle)
{
	for (size_t i = 0; i < board->count; i++) {
		const struct board_place *one = &board->places[i];

		if (i != place && board_is_ready(board, i) &&
			__atomic_load_n(&one->kept, __ATOMIC_RELAXED) < fewer_than &&
			(!is_idle || __atomic_load_n(&one->state, __ATOMIC_ACQUIRE) == BOARD_IDLE))
			return 1;
	}
	return 0;
}

void board_count(const struct board *board, size_t *ready, size_t *busy)
{
	*ready = *busy = 0;
	for (size_t i = 0; i < board->count; i++) {
		if (!board_is_ready(board, i))
			continue;
		++*ready;
		*busy += __atomic_load_n(&board->places[i].state, __ATOMIC_ACQUIRE) == BOARD_BUSY;
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
