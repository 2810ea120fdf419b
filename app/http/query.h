/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SQL composed for one request out of fixed fragments; values only ever go in as parameters:
 *
 *	query_add(&query, " AND a.owner_address = ?", owner);
 */
#ifndef AREG_HTTP_QUERY_H
#define AREG_HTTP_QUERY_H

#include "app/http/call.h"
#include "lib/buf.h"

enum { QUERY_PARAMS_MAX = 64 };

struct query {
	struct buf sql;
	const char *params[QUERY_PARAMS_MAX];
	size_t param_count;
};

void query_init(struct query *query, struct arena *arena);

/* Adds a fragment of our own. */
void query_text(struct query *query, const char *sql);

/* Takes a value in and returns the number of its parameter, for fragments that name it: $1. */
size_t query_param(struct query *query, const char *value);

/* Adds a fragment of our own in which every ? stands for the same value. */
void query_add(struct query *query, const char *sql, const char *value);

/* Runs it by call_read(): it only reads. */
MUST_CHECK enum db_status query_run(
	struct query *query, const struct call *call, struct db_rows *rows);

#endif
