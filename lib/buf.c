/* SPDX-License-Identifier: Apache-2.0 */
/* Growth by doubling inside the arena: what is outgrown ends with the arena's reset. */
#include "lib/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void buf_init(struct buf *buf, struct arena *arena, size_t hint)
{
	buf->arena = arena;
	buf->len = 0;
	buf->size = hint + 1;
	buf->data = arena_alloc(arena, buf->size);
}

void buf_reserve(struct buf *buf, size_t more)
{
	size_t needed = buf->len + more + 1;
	size_t size = buf->size * 2;
	char *grown;

	if (needed <= buf->size)
		return;
	if (size < needed)
		size = needed;
	grown = arena_alloc(buf->arena, size);
	memcpy(grown, buf->data, buf->len + 1);
	buf->data = grown;
	buf->size = size;
}

void buf_put(struct buf *buf, const void *bytes, size_t len)
{
	buf_reserve(buf, len);
	if (len > 0)
		memcpy(buf->data + buf->len, bytes, len);
	buf->len += len;
	buf->data[buf->len] = '\0';
}

void buf_puts(struct buf *buf, const char *text)
{
	buf_put(buf, text, strlen(text));
}

void buf_putc(struct buf *buf, char c)
{
	buf_put(buf, &c, 1);
}

void buf_printf(struct buf *buf, const char *format, ...)
{
	va_list args;
	int length;

	va_start(args, format);
	length = vsnprintf(NULL, 0, format, args);
	va_end(args);
	if (length < 0)
		abort(); /* only a format that is wrong in the source does this */
	buf_reserve(buf, (size_t)length);
	va_start(args, format);
	vsnprintf(buf->data + buf->len, (size_t)length + 1, format, args);
	va_end(args);
	buf->len += (size_t)length;
}
