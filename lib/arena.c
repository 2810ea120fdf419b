/* SPDX-License-Identifier: Apache-2.0 */
/* Bump allocation in a chain of blocks; the first block is kept over resets. */
#include "lib/arena.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Under AddressSanitizer what is not handed out is poisoned, with a gap behind each allocation: else
 * an overflow from one into the next, or a use after the reset, would go unseen. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ARENA_POISONS
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define ARENA_POISONS
#endif
#ifdef ARENA_POISONS
#include <sanitizer/asan_interface.h>
enum { GAP = 32 }; /* bytes */
#else
#define ASAN_POISON_MEMORY_REGION(memory, size) ((void)(memory), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(memory, size) ((void)(memory), (void)(size))
enum { GAP = 0 };
#endif

struct block {
	struct block *older;
	size_t size; /* usable bytes in data[] */
	size_t used;
	_Alignas(max_align_t) char data[];
};

struct deferred {
	struct deferred *earlier;
	void (*clean_up)(void *what);
	void *what;
};

struct arena {
	struct block *newest;
	struct deferred *deferred;
	size_t block_size;
	size_t limit;
	size_t used;
	void (*exhausted)(void *arg);
	void *exhausted_arg;
};

static const size_t smallest_block = 1024;

static struct block *new_block(struct block *older, size_t size)
{
	struct block *block = malloc(sizeof *block + size);

	if (block != NULL) {
		block->older = older;
		block->size = size;
		block->used = 0;
		ASAN_POISON_MEMORY_REGION(block->data, size);
	}
	return block;
}

struct arena *arena_new(size_t block_size, size_t limit)
{
	struct arena *arena = calloc(1, sizeof *arena);

	if (arena == NULL)
		abort();
	arena->block_size = block_size < smallest_block ? smallest_block : block_size;
	arena->limit = limit;
	arena->newest = new_block(NULL, arena->block_size);
	if (arena->newest == NULL)
		abort();
	return arena;
}

void arena_on_exhaustion(struct arena *arena, void (*exhausted)(void *arg), void *arg)
{
	arena->exhausted = exhausted;
	arena->exhausted_arg = arg;
}

_Noreturn void arena_exhausted(struct arena *arena)
{
	if (arena->exhausted != NULL)
		arena->exhausted(arena->exhausted_arg);
	abort();
}

void *arena_alloc(struct arena *arena, size_t size)
{
	const size_t unit = _Alignof(max_align_t);
	const size_t wanted = size;
	struct block *block = arena->newest;
	void *memory;

	if (size > SIZE_MAX / 2)
		arena_exhausted(arena);
	size = (size + unit - 1) / unit * unit;
	if (size > arena->limit - arena->used)
		arena_exhausted(arena);
	if (size + GAP > block->size - block->used) {
		block = new_block(
			block, size + GAP > arena->block_size ? size + GAP : arena->block_size);
		if (block == NULL)
			arena_exhausted(arena);
		arena->newest = block;
	}
	memory = block->data + block->used;
	block->used += size + GAP;
	arena->used += size;
	ASAN_UNPOISON_MEMORY_REGION(memory, wanted);
	return memset(memory, 0, wanted);
}

char *arena_strndup(struct arena *arena, const char *text, size_t length)
{
	char *copy = arena_alloc(arena, length + 1);

	return memcpy(copy, text, length);
}

char *arena_strdup(struct arena *arena, const char *text)
{
	return arena_strndup(arena, text, strlen(text));
}

char *arena_vprintf(struct arena *arena, const char *format, va_list args)
{
	va_list again;
	char *text;
	int length;

	va_copy(again, args);
	length = vsnprintf(NULL, 0, format, args);
	if (length < 0)
		arena_exhausted(arena);
	text = arena_alloc(arena, (size_t)length + 1);
	vsnprintf(text, (size_t)length + 1, format, again);
	va_end(again);
	return text;
}

char *arena_printf(struct arena *arena, const char *format, ...)
{
	va_list args;
	char *text;

	va_start(args, format);
	text = arena_vprintf(arena, format, args);
	va_end(args);
	return text;
}

void **arena_defer_slot(struct arena *arena, void (*clean_up)(void *what))
{
	struct deferred *deferred = arena_alloc(arena, sizeof *deferred);

	deferred->earlier = arena->deferred;
	deferred->clean_up = clean_up;
	arena->deferred = deferred;
	return &deferred->what;
}

void arena_defer(struct arena *arena, void (*clean_up)(void *what), void *what)
{
	*arena_defer_slot(arena, clean_up) = what;
}

void arena_reset(struct arena *arena)
{
	/* Unlinked before it is called, so that a clean-up that fails midway is not called again. */
	while (arena->deferred != NULL) {
		struct deferred *deferred = arena->deferred;

		arena->deferred = deferred->earlier;
		if (deferred->what != NULL)
			deferred->clean_up(deferred->what);
	}
	while (arena->newest->older != NULL) {
		struct block *block = arena->newest;

		arena->newest = block->older;
		free(block);
	}
	arena->newest->used = 0;
	arena->used = 0;
	ASAN_POISON_MEMORY_REGION(arena->newest->data, arena->newest->size);
}

size_t arena_used(const struct arena *arena)
{
	return arena->used;
}

void arena_free(struct arena *arena)
{
	if (arena == NULL)
		return;
	arena_reset(arena);
	free(arena->newest);
	free(arena);
}
