/* The shared-memory segment of a host: one mapping, made by the master before it forks. */
#ifndef AREG_HOT_H
#define AREG_HOT_H

#include <stddef.h>

#include "app/answers.h"
#include "app/callers.h"
#include "lib/limiter.h"

/* To be raised with any change of what lies in the segment, in app/callers.c, app/answers.c and
 * lib/limiter.c, too:
 * programs that share a segment over a reload must agree about it. */
enum { HOT_LAYOUT = 1 };

struct hot {
	struct callers *callers;
	struct limiter *limiter;
	struct answers *answers;
	void *memory;
	size_t bytes;
	int fd; /* to hand over an exec */
};

/* Lays the segment out within `bytes` (at least 1 MiB): an eighth each for callers and limits, the
 * rest for answers. 0, or -1 with errno set when the system refuses the memory or random bytes. */
MUST_CHECK int hot_new(struct hot *hot, size_t bytes);
/* Maps the segment that the program before an exec made, with layout HOT_LAYOUT. As hot_new(). */
MUST_CHECK int hot_adopt(struct hot *hot, int fd, size_t bytes);

void hot_free(struct hot *hot);

#endif
