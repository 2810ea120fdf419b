/* SPDX-License-Identifier: Apache-2.0 */
/* A byte string that grows at its end, in an arena. Always NUL-terminated behind its length. */
#ifndef AREG_BUF_H
#define AREG_BUF_H

#include <stddef.h>

#include "lib/arena.h"

struct buf {
	struct arena *arena;
	char *data; /* NUL-terminated */
	size_t len; /* bytes, without the NUL */
	size_t size; /* bytes allocated */
};

/* Starts an empty string with room for `hint` bytes. */
void buf_init(struct buf *buf, struct arena *arena, size_t hint);

void buf_put(struct buf *buf, const void *bytes, size_t len);
void buf_puts(struct buf *buf, const char *text);
void buf_putc(struct buf *buf, char c);
void buf_printf(struct buf *buf, const char *format, ...) PRINTF_LIKE(2, 3);

/* Makes room for `more` bytes behind the end, to be written in place. */
void buf_reserve(struct buf *buf, size_t more);

#endif
