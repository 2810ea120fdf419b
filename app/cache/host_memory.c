/* SPDX-License-Identifier: Apache-2.0 */
/* Lays out the host's shared memory: wal, view, count of times that the primary was reached, callers,
 * key ring, limits and answers. */
#include "app/cache/host_memory.h"

#include <errno.h>
#include <string.h>

#include "app/cache/memcached_answers.h"
#include "app/layouts.h"
#include "lib/shm.h"
#include "lib/siphash.h"

enum { MEMORY_LEAST = 1024 * 1024, CACHE_LINE = 64 };
enum {
	VIEW_BYTES = (sizeof(struct cache_view) + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE,
	HEAD_BYTES = WAL_POSITION_BYTES + VIEW_BYTES + CACHE_LINE
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

/* The key filter takes a quarter of the part for callers. */
static size_t key_filter_part(size_t part)
{
	return part / 4 / CACHE_LINE * CACHE_LINE;
}

/* Where everything is, in memory that is there. Returns the bytes of each part but the last. */
static size_t host_memory_lay_out(struct host_memory *host)
{
	const size_t part = (host->bytes - HEAD_BYTES) / 8 / CACHE_LINE * CACHE_LINE;
	char *at = (char *)host->memory + HEAD_BYTES;

	host->wal = host->memory;
	host->view = (struct cache_view *)((char *)host->memory + WAL_POSITION_BYTES);
	host->reached = (uint64_t *)((char *)host->view + VIEW_BYTES);
	host->callers = (struct callers *)at;
	host->key_filter = (struct key_filter *)(at + part - key_filter_part(part));
	host->limiter = (struct limiter *)(at + part);
	host->answers = (struct answers *)(at + 2 * part);
	return part;
}

struct host_memory_identity host_memory_identity(
	struct arena *arena, const struct settings *settings)
{
	static const uint8_t no_secret[16];
	/* The sources are the same and sizes are not, where the compiler or a system header is
	 * another. */
	const uint64_t layout[] = { HOST_MEMORY_LAYOUT, WAL_POSITION_BYTES, VIEW_BYTES,
		callers_bytes(1000), limiter_bytes(1000), sizeof(pthread_mutex_t) };
	char edition[MEMCACHED_ANSWERS_SPACE];

	memcached_answers_edition(arena, settings, edition);
	return (struct host_memory_identity){ siphash(no_secret, layout, sizeof layout),
		siphash(no_secret, edition, strlen(edition)), settings->hot_cache_bytes };
}

bool host_memory_same_layout(
	const struct host_memory_identity *one, const struct host_memory_identity *other)
{
	return one->layout == other->layout;
}

bool host_memory_same(
	const struct host_memory_identity *one, const struct host_memory_identity *other)
{
	return host_memory_same_layout(one, other) && one->edition == other->edition &&
	       one->bytes == other->bytes;
}

int host_memory_new(struct host_memory *host, size_t bytes)
{
	size_t part;

	if (bytes < MEMORY_LEAST) {
		errno = EINVAL;
		return -1;
	}
	host->bytes = bytes;
	host->memory = shm_new("areg-memory", bytes, &host->fd);
	if (host->memory == NULL)
		return -1;
	part = host_memory_lay_out(host);
	wal_position_init(host->memory);
	callers_init(host->callers, fitting(part - key_filter_part(part), callers_bytes));
	key_filter_init(host->key_filter, key_filter_part(part));
	limiter_init(host->limiter, fitting(part, limiter_bytes));
	if (answers_init(host->answers, bytes - HEAD_BYTES - 2 * part) != NULL)
		return 0;
	host_memory_free(host);
	return -1;
}

int host_memory_adopt(struct host_memory *host, int fd, size_t bytes)
{
	void *memory = shm_adopt(fd, bytes);

	if (memory == NULL)
		return -1;
	host->bytes = bytes;
	host->fd = fd;
	host->memory = memory;
	host_memory_lay_out(host);
	return 0;
}

void host_memory_free(struct host_memory *host)
{
	shm_free(host->memory, host->bytes, host->fd);
	*host = (struct host_memory){ .fd = -1 };
}
