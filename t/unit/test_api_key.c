/* SPDX-License-Identifier: Apache-2.0 */
/* API keys: what is made is recognised, and what is mistyped is not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "app/registry/api_key.h"

/* The checksum of this key was worked out apart from this program: the CRC-32 of the first 53
 * characters in base 62. */
static const char known[] = "areg_live_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg1ARbbf";

static void a_new_key_is_well_formed_and_unlike_the_last(void **state)
{
	char key[API_KEY_LEN + 1], last[API_KEY_LEN + 1] = "";

	(void)state;
	for (int i = 0; i < 200; i++) {
		assert_true(api_key_make(key));
		assert_int_equal(strlen(key), API_KEY_LEN);
		assert_memory_equal(key, "areg_live_", 10);
		assert_true(api_key_well_formed(key));
		assert_string_not_equal(key, last);
		strcpy(last, key);
	}
}

/* 62 characters, 43,000 draws: each is expected 693 times, with a deviation of 26. */
static void all_characters_are_about_equally_likely(void **state)
{
	unsigned times[256] = { 0 }, seen = 0;
	char key[API_KEY_LEN + 1];

	(void)state;
	for (int i = 0; i < 1000; i++) {
		assert_true(api_key_make(key));
		for (size_t at = 10; at < 53; at++)
			times[(unsigned char)key[at]]++;
	}
	for (size_t c = 0; c < 256; c++) {
		if (times[c] == 0)
			continue;
		seen++;
		assert_in_range(times[c], 693 - 8 * 26, 693 + 8 * 26);
	}
	assert_int_equal(seen, 62);
}

static void a_known_key_is_recognised_hashed_and_abbreviated(void **state)
{
	char hash[API_KEY_HASH_LEN + 1], prefix[API_KEY_PREFIX_LEN + 1];

	(void)state;
	assert_true(api_key_well_formed(known));
	api_key_hash(known, hash);
	assert_string_equal(
		hash, "8ffd088954a78f585ca642b9ec6823144dbca36eb4677803a91b303f9cbef4af");
	api_key_prefix(known, prefix);
	assert_string_equal(prefix, "areg_live_01234567");
}

static void any_single_mistyped_character_is_noticed(void **state)
{
	char key[API_KEY_LEN + 1];

	(void)state;
	for (size_t i = 0; i < API_KEY_LEN; i++) {
		for (int c = 1; c < 256; c++) {
			strcpy(key, known);
			if (key[i] == (char)c)
				continue;
			key[i] = (char)c;
			assert_false(api_key_well_formed(key));
		}
	}
}

static void swapped_neighbours_are_noticed(void **state)
{
	char key[API_KEY_LEN + 1];

	(void)state;
	for (size_t i = 10; i + 1 < API_KEY_LEN; i++) {
		strcpy(key, known);
		if (key[i] == key[i + 1])
			continue;
		key[i] = known[i + 1];
		key[i + 1] = known[i];
		assert_false(api_key_well_formed(key));
	}
}

static void a_key_of_the_wrong_length_is_refused(void **state)
{
	char key[API_KEY_LEN + 2];

	(void)state;
	for (size_t len = 0; len < API_KEY_LEN; len++) {
		snprintf(key, sizeof key, "%.*s", (int)len, known);
		assert_false(api_key_well_formed(key));
	}
	snprintf(key, sizeof key, "%s0", known);
	assert_false(api_key_well_formed(key));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_new_key_is_well_formed_and_unlike_the_last),
		cmocka_unit_test(all_characters_are_about_equally_likely),
		cmocka_unit_test(a_known_key_is_recognised_hashed_and_abbreviated),
		cmocka_unit_test(any_single_mistyped_character_is_noticed),
		cmocka_unit_test(swapped_neighbours_are_noticed),
		cmocka_unit_test(a_key_of_the_wrong_length_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
