/* Lays out the host's shared memory: progress, view, count of times that the primary was reached, callers,
 * key ring, limits and answers. */
#include "app/cache/host_memory.h"

#include <errno.h>
#include <string.h>

#include "app/cache/memcached_answers.h"
#include "app/layouts.h"
#include "lib/shm.h"
#include "lib/siphash.h"

enum { HOT_LEAST = 1024 * 1024, CACHE_LINE = 64 };
enum {
	VIEW_BYTES = (sizeof(struct cache_view) + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE,
	HEAD_BYTES = PROGRESS_BYTES + VIEW_BYTES + CACHE_LINE
};

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

/* Of what callers have, a quarter says which keys exist. */
static size_t keyring_part(size_t part)
{
	return part / 4 / CACHE_LINE * CACHE_LINE;
}

/* Where everything is, in memory that is there. Returns the bytes of each part but the last. */
static size_t lay_out(struct hot *hot)
{
	const size_t part = (hot->bytes - HEAD_BYTES) / 8 / CACHE_LINE * CACHE_LINE;
	char *at = (char *)hot->memory + HEAD_BYTES;

	hot->progress = hot->memory;
	hot->view = (struct cache_view *)((char *)hot->memory + PROGRESS_BYTES);
	hot->reached = (uint64_t *)((char *)hot->view + VIEW_BYTES);
	hot->callers = (struct callers *)at;
	hot->keyring = (struct keyring *)(at + part - keyring_part(part));
	hot->limiter = (struct limiter *)(at + part);
	hot->answers = (struct answers *)(at + 2 * part);
	return part;
}

struct hot_identity hot_identity(struct arena *arena, const struct settings *settings)
{
	static const uint8_t no_secret[16];
	/* The sources are the same and sizes are not, where the compiler or a system header is another. */
	const uint64_t layout[] = { HOT_SOURCES, PROGRESS_BYTES, VIEW_BYTES, callers_bytes(1000),
		limiter_bytes(1000), sizeof(pthread_mutex_t) };
	char edition[LEVEL2_SPACE];

	level2_edition(arena, settings, edition);
	return (struct hot_identity){ siphash(no_secret, layout, sizeof layout),
		siphash(no_secret, edition, strlen(edition)), settings->hot_cache_bytes };
}

bool hot_same_layout(const struct hot_identity *one, const struct hot_identity *other)
{
	return one->layout == other->layout;
}

bool hot_same(const struct hot_identity *one, const struct hot_identity *other)
{
	return hot_same_layout(one, other) && one->edition == other->edition &&
	       one->bytes == other->bytes;
}

int hot_new(struct hot *hot, size_t bytes)
{
	size_t part;

	if (bytes < HOT_LEAST) {
		errno = EINVAL;
		return -1;
	}
	hot->bytes = bytes;
	hot->memory = shm_new("areg-hot", bytes, &hot->fd);
	if (hot->memory == NULL)
		return -1;
	part = lay_out(hot);
	progress_init(hot->memory);
	callers_init(hot->callers, fitting(part - keyring_part(part), callers_bytes));
	keyring_init(hot->keyring, keyring_part(part));
	limiter_init(hot->limiter, fitting(part, limiter_bytes));
	if (answers_init(hot->answers, bytes - HEAD_BYTES - 2 * part) != NULL)
		return 0;
	hot_free(hot);
	return -1;
}

int hot_adopt(struct hot *hot, int fd, size_t bytes)
{
	void *memory = shm_adopt(fd, bytes);

	if (memory == NULL)
		return -1;
	hot->bytes = bytes;
	hot->fd = fd;
	hot->memory = memory;
	lay_out(hot);
	return 0;
}

void hot_free(struct hot *hot)
{
	shm_free(hot->memory, hot->bytes, hot->fd);
	*hot = (struct hot){ .fd = -1 };
}
