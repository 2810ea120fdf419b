/* SPDX-License-Identifier: Apache-2.0 */
/* A ? becomes the number of its parameter; nothing else in a fragment is looked at. */
#include "app/http/query.h"

#include <stdlib.h>
#include <string.h>

void query_init(struct query *query, struct arena *arena)
{
	buf_init(&query->sql, arena, 2048);
	query->param_count = 0;
}

void query_text(struct query *query, const char *sql)
{
	buf_puts(&query->sql, sql);
}

size_t query_param(struct query *query, const char *value)
{
	if (query->param_count == QUERY_PARAMS_MAX)
		abort(); /* more filters than any request can name */
	query->params[query->param_count] = value;
	return ++query->param_count;
}

void query_add(struct query *query, const char *sql, const char *value)
{
	size_t number = query_param(query, value);

	while (*sql != '\0') {
		size_t len = strcspn(sql, "?");

		buf_put(&query->sql, sql, len);
		sql += len;
		if (*sql == '?') {
			buf_printf(&query->sql, "$%zu", number);
			sql++;
		}
	}
}

enum db_status query_run(struct query *query, const struct call *call, struct db_rows *rows)
{
	const struct db_statement statement = {
		.name = "", .sql = query->sql.data, .effect = DB_READS
	};

	return call_read(call, &statement, query->params, query->param_count, rows);
}
