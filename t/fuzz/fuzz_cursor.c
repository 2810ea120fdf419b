/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cursors of lists, and limit and offset beside them. An input is three lines: cursor, limit,
 * offset. Any cursor is read without harm; one made of the input leads back to what it was made of.
 */
#include "t/fuzz/fuzz.h"

#include <string.h>

#include "app/http/paging.h"
#include "app/problem_list.h"
#include "lib/eth.h"

static const char order[] = "name asc";

struct asked {
	struct http_param params[3];
	struct http_request request;
	struct call call;
};

static void ask(struct asked *asked, struct arena *arena)
{
	asked->request = (struct http_request){ .arena = arena, .params = asked->params };
	asked->call = (struct call){ .arena = arena, .request = &asked->request };
}

static void add(struct asked *asked, const char *name, const char *value)
{
	if (value != NULL)
		asked->params[asked->request.param_count++] = (struct http_param){ name, value };
}

static bool read_page(const struct asked *asked, struct page *page, struct faults *faults)
{
	faults_init(faults, asked->call.arena, PROBLEM_VALIDATION_FAILED);
	page_read(&asked->call, order, page, faults);
	return faults->count == 0;
}

/* The next_cursor of an answer that ends at this key and id. */
static const char *next_cursor(
	const struct asked *asked, const struct page *page, const char *key, const char *id)
{
	struct json_error error;
	struct json_doc doc;
	struct json_out out;
	struct buf text;

	buf_init(&text, asked->call.arena, 256);
	json_out_init(&out, &text);
	json_open_object(&out);
	page_write(&asked->call, &out, page, 1, false, order, key, id);
	json_close_object(&out);
	REQUIRE(json_parse(
		asked->call.arena, text.data, text.len, &json_rules_strict, &doc, &error));
	return json_object_get_string(json_member(&doc, "next_cursor")->value.object);
}

static void check_way_back(struct arena *arena, const struct page *page, const char *key)
{
	static const char id[] = "00000000-0000-4000-8000-00000000002a";
	struct asked asked;
	struct faults faults;
	struct page again;

	ask(&asked, arena);
	add(&asked, "cursor", next_cursor(&asked, page, key, id));
	REQUIRE(read_page(&asked, &again, &faults));
	REQUIRE(strcmp(again.after_key, key) == 0 && strcmp(again.after_id, id) == 0);
}

/* Takes the next line of the text; NULL behind the last. */
static const char *take_line(char **text)
{
	char *line = *text, *end = line == NULL ? NULL : strchr(line, '\n');

	if (end != NULL)
		*end++ = '\0';
	*text = end;
	return line;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct arena *arena = fuzz_arena();
	const char *whole = fuzz_text(arena, data, size), *cursor;
	char *text = arena_strdup(arena, whole), *made;
	struct asked asked;
	struct faults faults;
	struct page page;

	if (!utf8_valid(whole, strlen(whole))) /* no parameter is anything else */
		return 0;
	ask(&asked, arena);
	cursor = take_line(&text);
	add(&asked, "cursor", cursor);
	add(&asked, "limit", take_line(&text));
	add(&asked, "offset", take_line(&text));
	if (read_page(&asked, &page, &faults)) {
		REQUIRE(page.limit >= 1 && page.limit <= PAGE_LIMIT_MAX);
		REQUIRE(page.offset <= PAGE_OFFSET_MAX);
		REQUIRE(page.after_key != NULL && page.after_id != NULL);
		REQUIRE(strcmp(cursor, next_cursor(&asked, &page, page.after_key, page.after_id)) ==
				0 ||
			strpbrk(cursor, "ABCDEF") != NULL);
	}
	/* the same text behind the hex digits, where it gets further */
	made = arena_alloc(arena, 2 * strlen(whole) + 1);
	hex_encode((const uint8_t *)whole, strlen(whole), made);
	ask(&asked, arena);
	add(&asked, "cursor", made);
	if (read_page(&asked, &page, &faults))
		REQUIRE(strcmp(made, next_cursor(&asked, &page, page.after_key, page.after_id)) ==
			0);
	check_way_back(arena, &page, whole);
	fuzz_require_little_memory(arena, 4 * size);
	return 0;
}
