/* SPDX-License-Identifier: Apache-2.0 */
/* See fuzz.h. */
#include "t/fuzz/fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	BLOCK = 64 * 1024, /* bytes; both as a worker has them */
	LIMIT = 64 * 1024 * 1024,
	MEMORY_OF_ITS_OWN = 256 * 1024, /* bytes that any input may take … */
	MEMORY_A_BYTE = 600, /* … and for each byte of it; an array of numbers comes to 300 */
};

struct arena *fuzz_arena(void)
{
	static struct arena *arena;

	if (arena == NULL)
		arena = arena_new(BLOCK, LIMIT);
	arena_reset(arena);
	return arena;
}

const char *fuzz_text(struct arena *arena, const uint8_t *data, size_t size)
{
	return arena_strndup(arena, (const char *)data, size);
}

void fuzz_require_little_memory(const struct arena *arena, size_t size)
{
	REQUIRE(arena_used(arena) <= MEMORY_OF_ITS_OWN + MEMORY_A_BYTE * size);
}

void fuzz_fail(const char *rule, const char *file, int line)
{
	fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, rule);
	abort();
}

bool fuzz_same(const char *a, const char *b)
{
	return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}
