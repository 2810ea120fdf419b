/* The shared-memory segment of a host: one mapping, made by the master before it forks. */
#ifndef AREG_HOT_H
#define AREG_HOT_H

#include <stddef.h>

#include "app/answers.h"
#include "app/callers.h"
#include "app/keyring.h"
#include "app/progress.h"
#include "lib/cache.h"
#include "lib/limiter.h"

/* To be raised with any change of what lies in the segment, in app/callers.c, app/answers.c,
 * app/keyring.c,
 * app/progress.c, lib/limiter.c and lib/cache.h, too: programs that share a segment over a reload must
 * agree about it. */
enum { HOT_LAYOUT = 3 };

struct hot {
	struct progress *progress;
	struct cache_view *view; /* of memcached servers */
	struct callers *callers;
	struct keyring *keyring;
	struct limiter *limiter;
	struct answers *answers;
	void *memory;
	size_t bytes;
	int fd; /* to hand over an exec */
};

/* Lays the segment out within `bytes` (at least 1 MiB): a page for progress, a view, an eighth of the
 * rest each for callers (with the key ring) and limits, the remainder for answers. 0, or -1 with errno set when the system
 * refuses the memory or random bytes. */
MUST_CHECK int hot_new(struct hot *hot, size_t bytes);
/* Maps the segment that the program before an exec made, with layout HOT_LAYOUT. As hot_new(). */
MUST_CHECK int hot_adopt(struct hot *hot, int fd, size_t bytes);

void hot_free(struct hot *hot);

#endif
