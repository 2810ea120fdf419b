/*
 * Cursors of lists, and limit and offset beside them. An input is three lines: cursor, limit,
 * offset. Any cursor is read without harm; one made of the input leads back to what it was made of.
 */
#include "t/fuzz/fuzz.h"

#include <string.h>

#include "app/page.h"
#include "lib/eth.h"

static const char order[] = "name asc";

struct query {
	struct http_param params[3];
	struct http_request request;
	struct call call;
};

static void ask(struct query *query, struct arena *arena)
{
	query->request = (struct http_request){ .arena = arena, .params = query->params };
	query->call = (struct call){ .arena = arena, .request = &query->request };
}

static void add(struct query *query, const char *name, const char *value)
{
	if (value != NULL)
		query->params[query->request.param_count++] = (struct http_param){ name, value };
}

static bool read_page(const struct query *query, struct page *page, struct faults *faults)
{
	faults_init(faults, query->call.arena);
	page_read(&query->call, order, page, faults);
	return faults->count == 0;
}

/* The next_cursor of an answer that ends at this key and id. */
static const char *next_cursor(
	const struct query *query, const struct page *page, const char *key, const char *id)
{
	struct json_error error;
	struct json_doc doc;
	struct json_out out;
	struct buf text;

	buf_init(&text, query->call.arena, 256);
	json_out_init(&out, &text);
	json_open_object(&out);
	page_write(&query->call, &out, page, 1, false, order, key, id);
	json_close_object(&out);
	REQUIRE(json_parse(
		query->call.arena, text.data, text.len, &json_rules_strict, &doc, &error));
	return json_object_get_string(json_member(&doc, "next_cursor")->value.object);
}

static void check_way_back(struct arena *arena, const struct page *page, const char *key)
{
	static const char id[] = "00000000-0000-4000-8000-00000000002a";
	struct query query;
	struct faults faults;
	struct page again;

	ask(&query, arena);
	add(&query, "cursor", next_cursor(&query, page, key, id));
	REQUIRE(read_page(&query, &again, &faults));
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
	struct query query;
	struct faults faults;
	struct page page;

	if (!utf8_valid(whole, strlen(whole))) /* no parameter is anything else */
		return 0;
	ask(&query, arena);
	cursor = take_line(&text);
	add(&query, "cursor", cursor);
	add(&query, "limit", take_line(&text));
	add(&query, "offset", take_line(&text));
	if (read_page(&query, &page, &faults)) {
		REQUIRE(page.limit >= 1 && page.limit <= PAGE_LIMIT_MAX);
		REQUIRE(page.offset <= PAGE_OFFSET_MAX);
		REQUIRE(page.after_key != NULL && page.after_id != NULL);
		REQUIRE(strcmp(cursor, next_cursor(&query, &page, page.after_key, page.after_id)) ==
				0 ||
			strpbrk(cursor, "ABCDEF") != NULL);
	}
	/* the same text behind the hex digits, where it gets further */
	made = arena_alloc(arena, 2 * strlen(whole) + 1);
	hex_encode((const uint8_t *)whole, strlen(whole), made);
	ask(&query, arena);
	add(&query, "cursor", made);
	if (read_page(&query, &page, &faults))
		REQUIRE(strcmp(made, next_cursor(&query, &page, page.after_key, page.after_id)) ==
			0);
	check_way_back(arena, &page, whole);
	fuzz_require_little_memory(arena, 4 * size);
	return 0;
}
