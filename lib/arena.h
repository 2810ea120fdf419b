/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that lives as long as one piece of work: a request, an import batch, a start-up.
 * Allocate freely, free nothing singly, reset once at the end.
 */
#ifndef AREG_ARENA_H
#define AREG_ARENA_H

#include <stdarg.h>
#include <stddef.h>

#include "lib/must_check.h"

struct arena;

/*
 * A new, empty arena that grows in blocks of block_size bytes (at least 1 KiB) and may hold at
 * most `limit` bytes in all. Aborts when not even the first block can be had: nothing runs then.
 */
struct arena *arena_new(size_t block_size, size_t limit);

/*
 * What to do when the limit is reached or the system has no memory: `exhausted` is called with
 * `arg` and must not return (it answers, exits or jumps). Without one, the process aborts.
 */
void arena_on_exhaustion(struct arena *arena, void (*exhausted)(void *arg), void *arg);

/* `size` zeroed bytes aligned for any type. Never NULL, see arena_on_exhaustion(). */
void *arena_alloc(struct arena *arena, size_t size) __attribute__((malloc, returns_nonnull));

/* A NUL-terminated copy of the string, or of its first `length` bytes. */
char *arena_strdup(struct arena *arena, const char *text) __attribute__((returns_nonnull));
char *arena_strndup(struct arena *arena, const char *text, size_t length)
	__attribute__((returns_nonnull));

/* A string made as by printf(3). */
char *arena_printf(struct arena *arena, const char *format, ...) PRINTF_LIKE(2, 3)
	__attribute__((returns_nonnull));
char *arena_vprintf(struct arena *arena, const char *format, va_list args)
	__attribute__((returns_nonnull, format(printf, 2, 0)));

/* Does what is to be done when the memory is exhausted: for a library that could not allocate on behalf
 * of the arena's owner. */
_Noreturn void arena_exhausted(struct arena *arena);

/*
 * Ties something that is not arena memory (a PGresult, a json_object) to the arena: clean_up(what)
 * is called by the next reset, in the reverse order of the calls.
 */
void arena_defer(struct arena *arena, void (*clean_up)(void *what), void *what);

/* The same for something that is made only afterwards: the caller stores it at the address returned. So
 * the thing has an owner from the moment it exists. NULL there means that nothing was made. */
void **arena_defer_slot(struct arena *arena, void (*clean_up)(void *what))
	__attribute__((returns_nonnull));

/* Ends everything allocated or deferred since the last reset. Keeps the first block for reuse. */
void arena_reset(struct arena *arena);

/* Bytes handed out since the last reset. */
size_t arena_used(const struct arena *arena);

/* Resets and gives all memory back. NULL is allowed. */
void arena_free(struct arena *arena);

#endif
