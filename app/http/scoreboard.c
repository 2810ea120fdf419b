/* SPDX-License-Identifier: Apache-2.0 */
/* Plain words in shared memory, read and written atomically: a reader may see a moment ago. */
#include "app/http/scoreboard.h"

#include <stdio.h>

#include "lib/clock.h"
#include "lib/shm.h"

struct scoreboard_head {
	_Alignas(64) uint64_t wanted;
};

/* With the place of the health process. */
static size_t bytes_of(size_t count)
{
	return sizeof(struct scoreboard_head) + (count + 1) * sizeof(struct scoreboard_place);
}

static int scoreboard_lay_out(struct scoreboard *scoreboard, void *memory, size_t count)
{
	if (memory == NULL)
		return -1;
	scoreboard->count = count;
	scoreboard->head = memory;
	scoreboard->places = (struct scoreboard_place *)(scoreboard->head + 1);
	return 0;
}

int scoreboard_new(struct scoreboard *scoreboard, size_t count)
{
	return scoreboard_lay_out(
		scoreboard, shm_new("areg-scoreboard", bytes_of(count), &scoreboard->fd), count);
}

int scoreboard_adopt(struct scoreboard *scoreboard, int fd, size_t count)
{
	scoreboard->fd = fd;
	return scoreboard_lay_out(scoreboard, shm_adopt(fd, bytes_of(count)), count);
}

void scoreboard_free(struct scoreboard *scoreboard)
{
	if (scoreboard->head != NULL)
		shm_free(scoreboard->head, bytes_of(scoreboard->count), scoreboard->fd);
	scoreboard->head = NULL;
	scoreboard->places = NULL;
}

void scoreboard_want(struct scoreboard *scoreboard, size_t workers)
{
	__atomic_store_n(&scoreboard->head->wanted, workers, __ATOMIC_RELAXED);
}

size_t scoreboard_wanted(const struct scoreboard *scoreboard)
{
	return __atomic_load_n(&scoreboard->head->wanted, __ATOMIC_RELAXED);
}

void scoreboard_enter(struct scoreboard *scoreboard, size_t place, enum scoreboard_state state)
{
	struct scoreboard_place *mine = &scoreboard->places[place];

	if (state == SCOREBOARD_BUSY)
		__atomic_fetch_add(&mine->requests, 1, __ATOMIC_RELAXED);
	if (state == SCOREBOARD_STARTING) {
		__atomic_store_n(&mine->requests, 0, __ATOMIC_RELAXED);
		__atomic_store_n(&mine->connections, 0, __ATOMIC_RELAXED);
	}
	__atomic_store_n(&mine->since_ms, clock_ms(), __ATOMIC_RELAXED);
	__atomic_store_n(&mine->state, (int32_t)state, __ATOMIC_RELEASE);
}

void scoreboard_serving(
	struct scoreboard *scoreboard, size_t place, const char *method, const char *template)
{
	snprintf(scoreboard->places[place].serving, SCOREBOARD_SERVING, "%s %s", method, template);
}

int scoreboard_is_ready(const struct scoreboard *scoreboard, size_t place)
{
	int32_t state = __atomic_load_n(&scoreboard->places[place].state, __ATOMIC_ACQUIRE);

	return __atomic_load_n(&scoreboard->places[place].pid, __ATOMIC_RELAXED) != 0 &&
	       (state == SCOREBOARD_IDLE || state == SCOREBOARD_BUSY);
}

void scoreboard_keeps(struct scoreboard *scoreboard, size_t place, size_t connections)
{
	__atomic_store_n(
		&scoreboard->places[place].connections, (uint32_t)connections, __ATOMIC_RELAXED);
}

int scoreboard_has_fewer(
	const struct scoreboard *scoreboard, size_t place, size_t fewer_than, int is_idle)
{
	for (size_t i = 0; i < scoreboard->count; i++) {
		const struct scoreboard_place *one = &scoreboard->places[i];

		if (i != place && scoreboard_is_ready(scoreboard, i) &&
			__atomic_load_n(&one->connections, __ATOMIC_RELAXED) < fewer_than &&
			(!is_idle ||
				__atomic_load_n(&one->state, __ATOMIC_ACQUIRE) == SCOREBOARD_IDLE))
			return 1;
	}
	return 0;
}

void scoreboard_count(const struct scoreboard *scoreboard, size_t *ready, size_t *busy)
{
	*ready = *busy = 0;
	for (size_t i = 0; i < scoreboard->count; i++) {
		if (!scoreboard_is_ready(scoreboard, i))
			continue;
		++*ready;
		*busy += __atomic_load_n(&scoreboard->places[i].state, __ATOMIC_ACQUIRE) ==
			 SCOREBOARD_BUSY;
	}
}

uint64_t scoreboard_busy_ms(const struct scoreboard *scoreboard, size_t place)
{
	const struct scoreboard_place *one = &scoreboard->places[place];
	uint64_t since_ms, now = clock_ms();

	if (__atomic_load_n(&one->state, __ATOMIC_ACQUIRE) != SCOREBOARD_BUSY)
		return 0;
	since_ms = __atomic_load_n(&one->since_ms, __ATOMIC_RELAXED);
	return since_ms < now ? now - since_ms : 0;
}
