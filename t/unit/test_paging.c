/* SPDX-License-Identifier: Apache-2.0 */
/* app/http/paging: the part of a list that a caller asks for, and the cursor that goes on behind it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "app/http/paging.h"
#include "app/problem_list.h"
#include "lib/eth.h"

static struct arena *arena;
static struct http_request request;
static struct http_response response;
static struct call call;
static struct faults faults;
static struct page page;

static int set_up(void **state)
{
	(void)state;
	arena = arena_new(4096, 16 << 20);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	arena_free(arena);
	return 0;
}

/* Reads the page that this query asks of a list in this order. Whether nothing is wrong with it. */
static bool read_page(const char *order, const char *query)
{
	request = (struct http_request){ .arena = arena, .id = "test" };
	http_query_read(&request, query);
	http_response_init(&response, arena);
	call = (struct call){ .arena = arena, .request = &request, .response = &response };
	faults_init(&faults, arena, PROBLEM_VALIDATION_FAILED);
	page_read(&call, order, &page, &faults);
	return faults.first == NULL;
}

/* What page_write() makes of the page that was read, as an object. */
static const char *written(const char *order, const char *next_key, const char *next_id)
{
	struct json_out out;
	struct buf body;

	buf_init(&body, arena, 256);
	json_out_init(&out, &body);
	json_open_object(&out);
	page_write(&call, &out, &page, 3, false, order, next_key, next_id);
	json_close_object(&out);
	return body.data;
}

static const char *cursor_of(const char *order, const char *key, const char *id)
{
	static const char member[] = "\"next_cursor\":\"";
	const char *at = strstr(written(order, key, id), member);

	assert_non_null(at);
	at += sizeof member - 1;
	return arena_strndup(arena, at, strcspn(at, "\""));
}

/* A query with a cursor of these bytes. */
static const char *with_cursor(const char *bytes)
{
	char *hex = arena_alloc(arena, 2 * strlen(bytes) + 1);

	hex_encode((const uint8_t *)bytes, strlen(bytes), hex);
	return arena_printf(arena, "cursor=%s", hex);
}

static void without_parameters_a_list_begins_at_its_beginning(void **state)
{
	(void)state;
	assert_true(read_page("id", ""));
	assert_int_equal(page.limit, PAGE_LIMIT_DEFAULT);
	assert_int_equal(page.offset, 0);
	assert_null(page.after_id);
	assert_string_equal(written("id", NULL, NULL), "{\"total\":3,\"limit\":50,\"offset\":0}");
}

static void limits_and_offsets_are_whole_numbers_within_bounds(void **state)
{
	const char *const bad[] = { "limit=0", "limit=101", "limit=", "limit=-1", "limit=1.0",
		"limit=1e1", "limit=0x10", "limit=%201", "limit=18446744073709551617",
		"limit=0000000001", "offset=-1", "offset=100001", "offset=a" };

	(void)state;
	assert_true(read_page("id", "limit=1&offset=100000"));
	assert_int_equal(page.limit, 1);
	assert_int_equal(page.offset, 100000);
	assert_true(read_page("id", "limit=100&offset=0"));
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		assert_false(read_page("id", bad[i]));
		assert_ptr_equal(faults.first->problem, PROBLEM_VALIDATION_FAILED);
	}
	assert_false(read_page("id", "limit=0&offset=-1"));
	assert_non_null(faults.first->next);
}

static void a_cursor_goes_on_where_the_page_ended(void **state)
{
	const char *const keys[] = { "", "天気", "a\nb", "2026-12-01T00:00:00.000000Z", "%" };

	(void)state;
	for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
		const char *cursor;

		read_page("name asc", "");
		cursor = cursor_of("name asc", keys[i], "42");
		assert_true(read_page("name asc", arena_printf(arena, "cursor=%s", cursor)));
		assert_string_equal(page.after_key, keys[i]);
		assert_string_equal(page.after_id, "42");
		assert_true(page_goes_on(&call, "name asc"));
	}
}

static void a_cursor_of_another_order_is_refused(void **state)
{
	const char *query;

	(void)state;
	read_page("name asc", "");
	query = arena_printf(arena, "cursor=%s", cursor_of("name asc", "x", "42"));
	assert_false(read_page("name desc", query));
	assert_false(page_goes_on(&call, "name desc"));
	assert_true(page_goes_on(&call, "name asc"));
}

static void a_cursor_cannot_go_with_an_offset(void **state)
{
	(void)state;
	assert_true(read_page("id", with_cursor("id\n1\n1")));
	assert_false(read_page("id", arena_printf(arena, "offset=0&%s", with_cursor("id\n1\n1"))));
}

static void a_forged_cursor_is_refused(void **state)
{
	const char *const bad[] = { "cursor=", "cursor=6", "cursor=zz", "cursor=69640a310a3",
		"cursor=00", "cursor=69640a31000a31" /* NUL */,
		"cursor=69640affff0a31" /* not UTF-8 */ };

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_false(read_page("id", bad[i]));
	assert_false(read_page("id", with_cursor("id")));
	assert_false(read_page("id", with_cursor("id\n1")));
	assert_false(read_page("id", with_cursor("\nid\n1\n1")));
}

/* Rows as a list asks them: total, id, and one column of the record. */
static const char *list_of(size_t count)
{
	static const struct column columns[] = { { "name", COLUMN_TEXT } };
	static const struct page_list list = { "records", "id", columns, 1, 2 };
	struct json_out out;
	struct db_rows rows;
	struct buf body;
	const char *values[] = { "3", "7", "first" };

	/* One row is all that can be made without a database. */
	assert_true(count <= 1);
	if (count == 0)
		values[1] = NULL;
	db_row_of(arena, values, 3, &rows);
	buf_init(&body, arena, 256);
	json_out_init(&out, &body);
	json_open_object(&out);
	page_write_list(&call, &out, &page, &list, &rows);
	json_close_object(&out);
	return body.data;
}

static void a_list_says_its_total_and_whether_there_is_more(void **state)
{
	(void)state;
	read_page("id", "limit=1");
	assert_string_equal(list_of(1),
		"{\"records\":[{\"name\":\"first\"}],\"total\":3,\"limit\":1,\"offset\":0}");
	assert_string_equal(list_of(0), "{\"records\":[],\"total\":3,\"limit\":1,\"offset\":0}");
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		CASE(without_parameters_a_list_begins_at_its_beginning),
		CASE(limits_and_offsets_are_whole_numbers_within_bounds),
		CASE(a_cursor_goes_on_where_the_page_ended),
		CASE(a_cursor_of_another_order_is_refused),
		CASE(a_cursor_cannot_go_with_an_offset),
		CASE(a_forged_cursor_is_refused),
		CASE(a_list_says_its_total_and_whether_there_is_more),
	};

	return cmocka_run_group_tests_name("paging", tests, NULL, NULL);
}
