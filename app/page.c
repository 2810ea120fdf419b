/* A cursor is the hex of three lines: order, sort key, id. Opaque to callers, readable to us. */
#include "app/page.h"

#include <stdlib.h>
#include <string.h>

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
		fault_add(faults, "validation_failed", name,
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

void page_read(const struct call *call, const char *order, struct page *page, struct faults *faults)
{
	const char *cursor = call_param(call, "cursor");

	*page = (struct page){ 0 };
	page->limit = page_number(call, "limit", 1, PAGE_LIMIT_MAX, PAGE_LIMIT_DEFAULT, faults);
	page->offset = page_number(call, "offset", 0, PAGE_OFFSET_MAX, 0, faults);
	if (cursor == NULL)
		return;
	if (call_param(call, "offset") != NULL)
		fault_add(faults, "validation_failed", "cursor", "cannot go with offset");
	if (!read_cursor(call, cursor, order, page))
		fault_add(faults, "validation_failed", "cursor",
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
