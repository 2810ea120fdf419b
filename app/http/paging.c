/* SPDX-License-Identifier: Apache-2.0 */
/* A cursor is the hex of three lines: order, sort key, id. Opaque to callers, readable to us. */
#include "app/http/paging.h"

#include <stdlib.h>
#include <string.h>

#include "app/problem_list.h"
#include "lib/eth.h"

size_t page_number(const struct call *call, const char *name, size_t least, size_t most,
	size_t fallback, struct faults *faults)
{
	const char *text = call_param(call, name);
	size_t digits, value;

	if (text == NULL)
		return fallback;
	digits = strspn(text, "0123456789");
	value = strtoul(text, NULL, 10);
	if (digits == 0 || digits > 9 || text[digits] != '\0' || value < least || value > most)
		fault_add(faults, PROBLEM_VALIDATION_FAILED, name,
			"is not a whole number within %zu..%zu", least, most);
	return value;
}

static bool read_cursor(
	const struct call *call, const char *cursor, const char *order, struct page *page)
{
	size_t len = strlen(cursor) / 2;
	char *text = arena_alloc(call->arena, len + 1), *key, *id;

	if (strlen(cursor) % 2 != 0 || !hex_decode(cursor, len, (uint8_t *)text) ||
		strlen(text) != len || !utf8_valid(text, len))
		return false;
	key = strchr(text, '\n');
	id = strrchr(text, '\n');
	if (key == NULL || id == key)
		return false;
	*key++ = *id++ = '\0';
	page->after_key = key;
	page->after_id = id;
	return strcmp(text, order) == 0;
}

bool page_goes_on(const struct call *call, const char *order)
{
	const char *cursor = call_param(call, "cursor");
	struct page page;

	return cursor != NULL && read_cursor(call, cursor, order, &page);
}

void page_read(const struct call *call, const char *order, struct page *page, struct faults *faults)
{
	const char *cursor = call_param(call, "cursor");

	*page = (struct page){ 0 };
	page->limit = page_number(call, "limit", 1, PAGE_LIMIT_MAX, PAGE_LIMIT_DEFAULT, faults);
	page->offset = page_number(call, "offset", 0, PAGE_OFFSET_MAX, 0, faults);
	if (cursor == NULL)
		return;
	if (call_param(call, "offset") != NULL)
		fault_add(faults, PROBLEM_VALIDATION_FAILED, "cursor", "cannot go with offset");
	if (!read_cursor(call, cursor, order, page))
		fault_add(faults, PROBLEM_VALIDATION_FAILED, "cursor",
			"is not the next_cursor of a list in this order");
}

static const char *make_cursor(
	struct arena *arena, const char *order, const char *key, const char *id)
{
	const char *text = arena_printf(arena, "%s\n%s\n%s", order, key, id);
	char *cursor = arena_alloc(arena, 2 * strlen(text) + 1);

	hex_encode((const uint8_t *)text, strlen(text), cursor);
	return cursor;
}

void page_write(const struct call *call, struct json_out *out, const struct page *page,
	int64_t total, bool total_is_estimate, const char *order, const char *next_key,
	const char *next_id)
{
	json_integer(out, "total", total);
	if (total_is_estimate)
		json_flag(out, "total_is_estimate", true);
	json_integer(out, "limit", (int64_t)page->limit);
	json_integer(out, "offset", (int64_t)page->offset);
	if (next_key != NULL)
		json_string(out, "next_cursor", make_cursor(call->arena, order, next_key, next_id));
}

void page_add(struct query *query, const struct page *page, const char *id)
{
	if (page->after_id != NULL) {
		buf_printf(&query->sql, " AND %s < ", id);
		query_add(query, "?::bigint", page->after_id);
	}
	buf_printf(&query->sql, " ORDER BY %s DESC LIMIT %zu OFFSET %zu", id, page->limit + 1,
		page->offset);
}

void page_refuse_cursor(struct call *call)
{
	struct faults faults;

	faults_init(&faults, call->arena, PROBLEM_VALIDATION_FAILED);
	fault_add(&faults, PROBLEM_VALIDATION_FAILED, "cursor", "is not one that a list gave");
	call_refuse(call, &faults);
}

bool page_is_full(const struct json_out *out)
{
	return out->buf->len >= PAGE_BYTES_MAX;
}

struct page page_cut(const struct page *page, size_t shown)
{
	struct page cut = *page;

	cut.limit = shown;
	return cut;
}

size_t page_write_rows(struct json_out *out, const char *key, const struct column *columns,
	size_t column_count, const struct db_rows *rows, size_t count, int first)
{
	size_t row = 0;

	json_key(out, key);
	json_open_array(out);
	while (row < count && (row == 0 || !page_is_full(out))) {
		json_open_object(out);
		row_json_write(out, columns, column_count, rows, row++, first);
		json_close_object(out);
	}
	json_close_array(out);
	return row;
}

void page_write_list(const struct call *call, struct json_out *out, const struct page *page,
	const struct page_list *list, const struct db_rows *rows)
{
	const size_t found = db_text(rows, 0, 1) == NULL ? 0 : rows->count;
	const size_t fits = found > page->limit ? page->limit : found;
	const size_t shown = page_write_rows(
		out, list->key, list->columns, list->column_count, rows, fits, list->first);
	const struct page part = shown < fits ? page_cut(page, shown) : *page;
	const char *last = found > shown ? db_text(rows, shown - 1, 1) : NULL;

	page_write(call, out, &part, db_int(rows, 0, 0), false, list->order, last, last);
}
