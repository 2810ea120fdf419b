/* SPDX-License-Identifier: Apache-2.0 */
/* From rows of the database to JSON: a table says how each column is written. */
#ifndef AREG_ROW_JSON_H
#define AREG_ROW_JSON_H

#include "lib/db.h"
#include "lib/json_out.h"

struct column {
	const char *key;
	enum { COLUMN_TEXT, COLUMN_JSON, COLUMN_FLAG } kind; /* JSON: numbers, too */
};

/* Writes columns `first`, `first` + 1, … of one row, by the table, into an open object. */
void row_json_write(struct json_out *out, const struct column *columns, size_t count,
	const struct db_rows *rows, size_t row, int first);

#endif
