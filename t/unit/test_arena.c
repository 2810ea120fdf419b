/* SPDX-License-Identifier: Apache-2.0 */
/* Arenas and the byte strings in them: growth, alignment, limits, clean-up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "lib/arena.h"
#include "lib/buf.h"

static void memory_is_zeroed_and_aligned_for_any_type(void **state)
{
	struct arena *arena = arena_new(1024, 1 << 20);

	(void)state;
	for (int pass = 0; pass < 2; pass++) {
		for (size_t size = 1; size < 300; size += 7) {
			unsigned char *memory = arena_alloc(arena, size);

			assert_int_equal((uintptr_t)memory % _Alignof(max_align_t), 0);
			for (size_t i = 0; i < size; i++)
				assert_int_equal(memory[i], 0);
			memset(memory, 0xff, size);
		}
		arena_reset(arena); /* the second pass gets used memory back */
	}
	arena_free(arena);
}

static void more_than_one_block_can_be_had_at_once(void **state)
{
	struct arena *arena = arena_new(1024, 1 << 20);
	char *large = arena_alloc(arena, 100000);

	(void)state;
	memset(large, 'x', 100000);
	assert_string_equal(arena_strndup(arena, "behind it", 6), "behind");
	assert_string_equal(arena_printf(arena, "%d of %s", 3, "four"), "3 of four");
	assert_true(arena_used(arena) >= 100000);
	arena_reset(arena);
	assert_int_equal(arena_used(arena), 0);
	arena_free(arena);
}

static jmp_buf exhausted_at;

static void jump(void *arg)
{
	++*(int *)arg;
	longjmp(exhausted_at, 1);
}

/* Asks for more than the arena may hold; returns how often that was answered with a jump. */
static int exhaust(struct arena *arena, size_t size)
{
	static int times;

	times = 0;
	arena_on_exhaustion(arena, jump, &times);
	if (setjmp(exhausted_at) == 0)
		arena_alloc(arena, size);
	return times;
}

static void the_limit_and_impossible_sizes_call_the_handler(void **state)
{
	struct arena *arena = arena_new(1024, 4096);

	(void)state;
	assert_int_equal(exhaust(arena, 4096), 0);
	assert_int_equal(exhaust(arena, 1), 1);
	arena_reset(arena);
	assert_int_equal(exhaust(arena, 4097), 1);
	assert_int_equal(exhaust(arena, SIZE_MAX), 1);
	assert_int_equal(exhaust(arena, SIZE_MAX - 8), 1);
	assert_int_equal(exhaust(arena, 4096), 0);
	arena_free(arena);
}

static char order[8];

static void note(void *what)
{
	strcat(order, what);
}

static void clean_ups_run_once_in_reverse_order(void **state)
{
	struct arena *arena = arena_new(1024, 1 << 20);
	char first[] = "1", second[] = "2", third[] = "3";

	(void)state;
	order[0] = '\0';
	arena_defer(arena, note, first);
	arena_defer(arena, note, second);
	arena_reset(arena);
	assert_string_equal(order, "21");
	arena_defer(arena, note, third);
	arena_free(arena);
	assert_string_equal(order, "213");
	arena_free(NULL);
}

static void a_buf_holds_all_that_was_put_and_ends_in_nul(void **state)
{
	struct arena *arena = arena_new(1024, 1 << 20);
	struct buf buf;

	(void)state;
	buf_init(&buf, arena, 0);
	assert_string_equal(buf.data, "");
	buf_put(&buf, NULL, 0);
	buf_puts(&buf, "one ");
	buf_putc(&buf, '2');
	buf_printf(&buf, " %s %05d", "three", 4);
	buf_put(&buf, "\0x", 2);
	assert_int_equal(buf.len, 19);
	assert_memory_equal(buf.data, "one 2 three 00004\0x", 20);
	for (int i = 0; i < 10000; i++)
		buf_puts(&buf, "0123456789");
	assert_int_equal(buf.len, 100019);
	assert_int_equal(strlen(buf.data + 19), 100000);
	assert_string_equal(buf.data + 100009, "0123456789");
	arena_free(arena);
}

static void reserved_room_can_be_written_in_place(void **state)
{
	struct arena *arena = arena_new(1024, 1 << 20);
	struct buf buf;

	(void)state;
	buf_init(&buf, arena, 4);
	buf_puts(&buf, "ab");
	buf_reserve(&buf, 5000);
	assert_true(buf.size - buf.len > 5000);
	assert_string_equal(buf.data, "ab");
	memset(buf.data + buf.len, 'c', 5000);
	arena_free(arena);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(memory_is_zeroed_and_aligned_for_any_type),
		cmocka_unit_test(more_than_one_block_can_be_had_at_once),
		cmocka_unit_test(the_limit_and_impossible_sizes_call_the_handler),
		cmocka_unit_test(clean_ups_run_once_in_reverse_order),
		cmocka_unit_test(a_buf_holds_all_that_was_put_and_ends_in_nul),
		cmocka_unit_test(reserved_room_can_be_written_in_place),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
