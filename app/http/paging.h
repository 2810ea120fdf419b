/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The part of a list that a caller asks for: limit, and either offset or cursor. A cursor names the
 * last row seen by its place in the order, so that a walk meets each row that existed throughout
 * exactly once, whatever is inserted meanwhile.
 */
#ifndef AREG_HTTP_PAGING_H
#define AREG_HTTP_PAGING_H

#include "app/http/call.h"
#include "app/http/query.h"
#include "lib/row_json.h"

enum {
	PAGE_LIMIT_DEFAULT = 50,
	PAGE_LIMIT_MAX = 100,
	PAGE_OFFSET_MAX = 100000, /* beyond, counting rows off gets slow: a cursor does not */
	TOTAL_EXACT_MAX = 10000, /* totals are counted to here; above they may be estimated */
	PAGE_BYTES_MAX = 4 * 1024 * 1024, /* of JSON: a page that is longer ends behind its row */
};

struct page {
	size_t limit;
	size_t offset;
	const char *after_key; /* from the cursor: the last row's sort key as text; NULL: none */
	const char *after_id; /* and its id */
};

/* Whether the request has a cursor of this order; for lists that can go on in one of several. */
bool page_goes_on(const struct call *call, const char *order);

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

/*
 * Whether the list so far is so long that it must end here, whatever the limit. Records that came
 * through the API are too small for that; imported ones can have URIs of 64 KiB. page_cut() gives
 * the page that was written then: its limit is the rows shown, so that offset + limit is where the
 * next page begins.
 */
bool page_is_full(const struct json_out *out);
struct page page_cut(const struct page *page, size_t shown);

/* Writes up to `count` rows as the array `key`, columns from `first` on; returns how many it wrote,
 * which is fewer when the page is full. */
size_t page_write_rows(struct json_out *out, const char *key, const struct column *columns,
	size_t column_count, const struct db_rows *rows, size_t count, int first);

/* Writes total, limit, offset and, where `next_key` is not NULL, next_cursor, into an open object. */
void page_write(const struct call *call, struct json_out *out, const struct page *page,
	int64_t total, bool total_is_estimate, const char *order, const char *next_key,
	const char *next_id);

/* Adds the page to a list that is newest first: " AND ID < … ORDER BY ID DESC LIMIT … OFFSET …",
 * one row more than the limit. The numbers are literals in the SQL text, because the query plan
 * depends on them. */
void page_add(struct query *query, const struct page *page, const char *id);

/* Refuses with 400 a cursor whose id the database could not read. */
void page_refuse_cursor(struct call *call);

/* How a page of records is written. The columns of its rows are the total, the record's id, …, and
 * from column `first` on the record. A row beyond the limit means that the list goes on; a row
 * without an id means that the list is empty. */
struct page_list {
	const char *key; /* of the array */
	const char *order;
	const struct column *columns;
	size_t column_count;
	int first;
};

/* Writes the records of at least one row, newest id first, and what page_write() writes. */
void page_write_list(const struct call *call, struct json_out *out, const struct page *page,
	const struct page_list *list, const struct db_rows *rows);

#endif
