/* Lays out the host's shared memory: callers, limits and answers. */
#include "app/hot.h"

#include <errno.h>

#include "lib/shm.h"

enum { HOT_LEAST = 1024 * 1024, CACHE_LINE = 64 };

/* The most items whose table fits that many bytes. */
static size_t fitting(size_t bytes, size_t (*bytes_for)(size_t items))
{
	size_t fits = 0, too_many = bytes;

	while (too_many - fits > 1) {
		size_t middle = fits + (too_many - fits) / 2;

		if (bytes_for(middle) <= bytes)
			fits = middle;
		else
			too_many = middle;
	}
	return fits;
}

int hot_new(struct hot *hot, size_t bytes)
{
	size_t part = bytes / 8 / CACHE_LINE * CACHE_LINE;

	if (bytes < HOT_LEAST) {
		errno = EINVAL;
		return -1;
	}
	hot->bytes = bytes;
	hot->memory = shm_new("areg-hot", bytes, &hot->fd);
	if (hot->memory == NULL)
		return -1;
	hot->callers = callers_init(hot->memory, fitting(part, callers_bytes));
	hot->limiter = limiter_init((char *)hot->memory + part, fitting(part, limiter_bytes));
	hot->answers = answers_init((char *)hot->memory + 2 * part, bytes - 2 * part);
	if (hot->answers != NULL)
		return 0;
	hot_free(hot);
	return -1;
}

int hot_adopt(struct hot *hot, int fd, size_t bytes)
{
	size_t part = bytes / 8 / CACHE_LINE * CACHE_LINE;
	char *memory = shm_adopt(fd, bytes);

	if (memory == NULL)
		return -1;
	hot->bytes = bytes;
	hot->fd = fd;
	hot->memory = memory;
	hot->callers = (struct callers *)memory;
	hot->limiter = (struct limiter *)(memory + part);
	hot->answers = (struct answers *)(memory + 2 * part);
	return 0;
}

void hot_free(struct hot *hot)
{
	shm_free(hot->memory, hot->bytes, hot->fd);
	*hot = (struct hot){ .fd = -1 };
}
