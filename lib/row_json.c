/* SPDX-License-Identifier: Apache-2.0 */
/* NULL is null in both worlds; everything else is what the table says. */
#include "lib/row_json.h"

void row_json_write(struct json_out *out, const struct column *columns, size_t count,
	const struct db_rows *rows, size_t row, int first)
{
	for (size_t i = 0; i < count; i++) {
		int at = first + (int)i;
		const char *text = db_text(rows, row, at);

		json_key(out, columns[i].key);
		if (text == NULL)
			json_put_null(out);
		else if (columns[i].kind == COLUMN_FLAG)
			json_put_bool(out, db_bool(rows, row, at));
		else if (columns[i].kind == COLUMN_JSON)
			json_put_raw(out, text);
		else
			json_put_string(out, text);
	}
}
