/* SPDX-License-Identifier: Apache-2.0 */
/* JSON as clients receive it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/json_out.h"

struct written {
	struct arena *arena;
	struct buf buf;
	struct json_out out;
};

static int set_up(void **state)
{
	static struct written written;

	written.arena = arena_new(1024, 1 << 20);
	buf_init(&written.buf, written.arena, 0);
	json_out_init(&written.out, &written.buf);
	*state = &written;
	return 0;
}

static int tear_down(void **state)
{
	arena_free(((struct written *)*state)->arena);
	return 0;
}

static void commas_stand_between_values_and_nowhere_else(void **state)
{
	struct written *w = *state;

	json_open_object(&w->out);
	json_key(&w->out, "empty");
	json_open_object(&w->out);
	json_close_object(&w->out);
	json_key(&w->out, "list");
	json_open_array(&w->out);
	json_open_array(&w->out);
	json_close_array(&w->out);
	json_put_integer(&w->out, 1);
	json_put_null(&w->out);
	json_open_object(&w->out);
	json_flag(&w->out, "yes", true);
	json_flag(&w->out, "no", false);
	json_close_object(&w->out);
	json_close_array(&w->out);
	json_string(&w->out, "last", "x");
	json_close_object(&w->out);
	assert_string_equal(w->buf.data,
		"{\"empty\":{},\"list\":[[],1,null,{\"yes\":true,\"no\":false}],\"last\":\"x\"}");
}

static void strings_are_escaped_and_other_characters_stay(void **state)
{
	struct written *w = *state;

	json_open_array(&w->out);
	json_put_string(&w->out, "");
	json_put_string(&w->out, "a\"b\\c/d");
	json_put_string(&w->out, "\b\t\n\f\r\v\x01\x1f\x7f");
	json_put_string(&w->out, "\"");
	json_put_string(&w->out, "naïve 日本 \xf0\x9f\x98\x80");
	json_put_bytes(&w->out, "a\0b", 3);
	json_close_array(&w->out);
	assert_string_equal(w->buf.data,
		"[\"\",\"a\\\"b\\\\c/d\",\"\\b\\t\\n\\f\\r\\u000b\\u0001\\u001f\x7f\",\"\\\"\","
		"\"naïve 日本 \xf0\x9f\x98\x80\",\"a\\u0000b\"]");
}

static void keys_are_escaped(void **state)
{
	struct written *w = *state;

	json_open_object(&w->out);
	json_integer(&w->out, "a\"\n", 1);
	json_close_object(&w->out);
	assert_string_equal(w->buf.data, "{\"a\\\"\\n\":1}");
}

static void integers_are_exact_to_their_ends(void **state)
{
	struct written *w = *state;

	json_open_array(&w->out);
	json_put_integer(&w->out, 0);
	json_put_integer(&w->out, -1);
	json_put_integer(&w->out, 1234567890);
	json_put_integer(&w->out, INT64_MAX);
	json_put_integer(&w->out, INT64_MIN);
	json_close_array(&w->out);
	assert_string_equal(
		w->buf.data, "[0,-1,1234567890,9223372036854775807,-9223372036854775808]");
}

static void absent_texts_are_null_and_raw_text_stays_as_it_is(void **state)
{
	struct written *w = *state;

	json_open_object(&w->out);
	json_string(&w->out, "name", NULL);
	json_raw(&w->out, "file", NULL);
	json_raw(&w->out, "agent_id", "340282366920938463463374607431768211456");
	json_raw(&w->out, "stored", "{ \"a\" : [ ] }");
	json_close_object(&w->out);
	assert_string_equal(w->buf.data,
		"{\"name\":null,\"file\":null,\"agent_id\":340282366920938463463374607431768211456,"
		"\"stored\":{ \"a\" : [ ] }}");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(commas_stand_between_values_and_nowhere_else),
		TEST(strings_are_escaped_and_other_characters_stay),
		TEST(keys_are_escaped),
		TEST(integers_are_exact_to_their_ends),
		TEST(absent_texts_are_null_and_raw_text_stays_as_it_is),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
