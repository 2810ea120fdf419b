/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What lies in memcached, where anybody may have written it. No bytes have a seal but those that were
 * sealed, under the name that they were sealed under; and of numbers, which have no seal, only digits are
 * read. An input is a name, a NUL and an item.
 */
#include "t/fuzz/fuzz.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cache.h"

enum { NOW_S = 1700000000 };

static void check_count(const char *bytes, size_t len)
{
	char digits[24];
	uint64_t number;

	if (!cache_count_parse(bytes, len, &number))
		return;
	REQUIRE(len > 0 && len <= 20 && bytes[0] >= '0' && bytes[0] <= '9');
	snprintf(digits, sizeof digits, "%" PRIu64, number);
	REQUIRE(cache_count_parse(digits, strlen(digits), &number));
	REQUIRE(strtoull(digits, NULL, 10) == number);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t key[SEAL_KEY_BYTES] = "the key of tests";
	struct arena *arena = fuzz_arena();
	const char *name = fuzz_text(arena, data, size);
	const size_t name_len = strlen(name), skip = name_len < size ? name_len + 1 : size;
	const size_t len = size - skip;
	char *item = arena_alloc(arena, len + SEAL_BYTES + 1);
	size_t own_len;

	memcpy(item, data + skip, len);
	check_count(item, len);
	/* Nobody finds a tag of 128 bits by trying. */
	REQUIRE(!seal_holds(key, name, name_len, item, len, NOW_S, &own_len));
	seal_put(key, name, name_len, item, len, NOW_S);
	REQUIRE(seal_holds(key, name, name_len, item, len + SEAL_BYTES, NOW_S, &own_len));
	REQUIRE(own_len == len && memcmp(item, data + skip, len) == 0);
	REQUIRE(!seal_holds(key, name, name_len, item, len + SEAL_BYTES, NOW_S + 1, &own_len));
	if (name_len > 0)
		REQUIRE(!seal_holds(
			key, name, name_len - 1, item, len + SEAL_BYTES, NOW_S, &own_len));
	return 0;
}
