/* SPDX-License-Identifier: Apache-2.0 */
/* The key filter: no key that exists is ever missing in it, and hardly one that does not is in it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "app/cache/key_filter.h"
#include "lib/shm.h"
#include "lib/siphash.h"

enum { BYTES = 64 * 1024, KEYS = 5000 };

static struct key_filter *key_filter;
static int fd;

static int set_up(void **state)
{
	void *memory = shm_new("test-keyring", BYTES, &fd);

	(void)state;
	assert_non_null(memory);
	key_filter = key_filter_init(memory, BYTES);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	shm_free(key_filter, BYTES, fd);
	return 0;
}

static const uint8_t *start_of(uint32_t key)
{
	static uint8_t start[KEY_FILTER_START];
	static const uint8_t secret[16] = "test-keyring";
	uint64_t word = siphash(secret, &key, sizeof key);

	memcpy(start, &word, sizeof start);
	return start;
}

static void fill(uint32_t from, uint32_t count)
{
	uint64_t number = key_filter_fill_begin(key_filter);

	for (uint32_t key = from; key < from + count; key++)
		key_filter_fill(key_filter, start_of(key));
	key_filter_fill_end(key_filter, number);
}

static uint32_t held(uint32_t from, uint32_t count)
{
	uint32_t found = 0;

	for (uint32_t key = from; key < from + count; key++)
		found += key_filter_may_hold(key_filter, start_of(key));
	return found;
}

static void nothing_is_held_before_it_was_filled(void **state)
{
	(void)state;
	key_filter_add(key_filter, start_of(1));
	assert_false(key_filter_may_hold(key_filter, start_of(1)));
	fill(0, 0);
	assert_int_equal(held(0, KEYS), 0);
}

static void every_key_is_held_and_hardly_another(void **state)
{
	(void)state;
	fill(0, KEYS);
	assert_int_equal(held(0, KEYS), KEYS);
	assert_true(held(KEYS, 100000) < 1000);
}

static void what_is_added_meanwhile_is_in_both(void **state)
{
	uint64_t number;

	(void)state;
	fill(0, 10);
	number = key_filter_fill_begin(key_filter);
	key_filter_add(key_filter, start_of(77));
	assert_true(key_filter_may_hold(key_filter, start_of(77)));
	assert_int_equal(held(0, 10), 10);
	key_filter_fill_end(key_filter, number);
	assert_true(key_filter_may_hold(key_filter, start_of(77)));
	key_filter_add(key_filter, start_of(78));
	assert_true(key_filter_may_hold(key_filter, start_of(78)));
}

static void what_was_revoked_goes_with_the_next_filling(void **state)
{
	(void)state;
	fill(0, 100);
	fill(50, 100);
	assert_int_equal(held(50, 100), 100);
	assert_true(held(0, 50) < 3);
}

/* Of two processes that fill it at once, as during a reload, the one that began last finishes. */
static void a_filling_that_was_overtaken_does_not_count(void **state)
{
	uint64_t first, second;

	(void)state;
	fill(0, 10);
	first = key_filter_fill_begin(key_filter);
	key_filter_fill(key_filter, start_of(20));
	second = key_filter_fill_begin(key_filter);
	key_filter_fill_end(key_filter, first);
	assert_int_equal(held(0, 10), 10);
	key_filter_fill(key_filter, start_of(20));
	key_filter_fill(key_filter, start_of(21));
	key_filter_fill_end(key_filter, second);
	assert_int_equal(held(20, 2), 2);
	assert_true(held(0, 10) < 2);
}

static void what_was_wrong_is_remembered_for_a_while(void **state)
{
	const uint64_t now_s = 1700000000;

	(void)state;
	assert_false(key_filter_was_wrong(key_filter, start_of(1), now_s));
	key_filter_note_wrong(key_filter, start_of(1), now_s);
	assert_true(key_filter_was_wrong(key_filter, start_of(1), now_s));
	assert_true(key_filter_was_wrong(key_filter, start_of(1), now_s + KEY_FILTER_WRONG_S - 1));
	assert_false(key_filter_was_wrong(key_filter, start_of(1), now_s + KEY_FILTER_WRONG_S));
	assert_false(key_filter_was_wrong(key_filter, start_of(2), now_s));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			nothing_is_held_before_it_was_filled, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			every_key_is_held_and_hardly_another, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			what_is_added_meanwhile_is_in_both, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			what_was_revoked_goes_with_the_next_filling, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			a_filling_that_was_overtaken_does_not_count, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			what_was_wrong_is_remembered_for_a_while, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
