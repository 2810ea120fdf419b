/* SPDX-License-Identifier: Apache-2.0 */
/* The shared-memory segment of a host: one mapping, made by the master before it forks. */
#ifndef AREG_CACHE_HOST_MEMORY_H
#define AREG_CACHE_HOST_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "app/cache/answers.h"
#include "app/cache/callers.h"
#include "app/cache/key_filter.h"
#include "app/cache/wal_position.h"
#include "app/registry/settings.h"
#include "lib/cache.h"
#include "lib/limiter.h"

/* Two programs that share a segment over a reload must agree about this. */
struct host_memory_identity {
	uint64_t layout; /* of the memory: scripts/gen-layouts, and sizes as they were compiled */
	uint64_t edition; /* of the answers in it: memcached_answers_edition() */
	uint64_t bytes;
};

/* The identity of the segment that this program makes with those settings. `arena` is for this call
 * only. */
struct host_memory_identity host_memory_identity(
	struct arena *arena, const struct settings *settings);
/* host_memory_same_layout(): whether a program that wants the one segment can map the other.
 * host_memory_same(): whether its answers are right there, too. */
bool host_memory_same_layout(
	const struct host_memory_identity *one, const struct host_memory_identity *other);
bool host_memory_same(
	const struct host_memory_identity *one, const struct host_memory_identity *other);

struct host_memory {
	struct wal_position *wal;
	struct cache_view *view; /* of memcached servers */
	uint64_t *reached; /* how often the primary was reached again: db_share_reached() */
	struct callers *callers;
	struct key_filter *key_filter;
	struct limiter *limiter;
	struct answers *answers;
	void *memory;
	size_t bytes;
	int fd; /* to hand over an exec */
};

/*
 * Lays the segment out within `bytes` (at least 1 MiB): a head with the WAL position, the view and
 * the count of reconnections; one eighth of the rest for callers and the key filter, one eighth for
 * limits, the remainder for answers. 0, or -1 with errno set when the system refuses the memory or
 * random bytes.
 */
MUST_CHECK int host_memory_new(struct host_memory *host, size_t bytes);
/* Maps the segment that the program before an exec made, with the same layout. As host_memory_new(). */
MUST_CHECK int host_memory_adopt(struct host_memory *host, int fd, size_t bytes);

void host_memory_free(struct host_memory *host);

#endif
