/*
 * The part of a list that a caller asks for: limit, and either offset or cursor. A cursor names the
 * last row seen by its place in the order, so that a walk meets each row that existed throughout
 * exactly once, whatever is inserted meanwhile.
 */
#ifndef AREG_PAGE_H
#define AREG_PAGE_H

#include "app/call.h"

enum {
	PAGE_LIMIT_DEFAULT = 50,
	PAGE_LIMIT_MAX = 100,
	PAGE_OFFSET_MAX = 100000, /* beyond, counting rows off gets slow: a cursor does not */
	TOTAL_EXACT_MAX = 10000, /* totals are counted to here; above they may be estimated */
};

struct page {
	size_t limit;
	size_t offset;
	const char *after_key; /* from the cursor: the last row's sort key as text; NULL: none */
	const char *after_id; /* and its id */
};

/*
 * Reads limit, offset and cursor. `order` names the sort order ("name asc"): a cursor of another is
 * refused. What is wrong goes to *faults.
 */
void page_read(
	const struct call *call, const char *order, struct page *page, struct faults *faults);

/* A parameter that is a whole number within least..most (which has at most 9 digits); `fallback` when
 * it is absent. What is wrong goes to *faults. */
size_t page_number(const struct call *call, const char *name, size_t least, size_t most,
	size_t fallback, struct faults *faults);

/* Writes total, limit, offset and, where `next_key` is not NULL, next_cursor, into an open object. */
void page_write(const struct call *call, struct json_out *out, const struct page *page,
	int64_t total, bool total_is_estimate, const char *order, const char *next_key,
	const char *next_id);

#endif
