/* SPDX-License-Identifier: Apache-2.0 */
/* Lays out rows of text in columns for a terminal. */
#include "app/ctl/text_table.h"

#include <stdlib.h>
#include <string.h>

#include "lib/json_in.h"

struct row {
	struct row *next;
	const char *cells[TABLE_COLUMNS_MAX];
};

struct text_table {
	struct arena *arena;
	size_t columns;
	size_t widths[TABLE_COLUMNS_MAX]; /* code points */
	struct row *first, **last;
};

const char *table_cell(struct arena *arena, const char *text)
{
	char *safe;

	if (text == NULL)
		return "-";
	safe = arena_strdup(arena, text);
	for (unsigned char *at = (unsigned char *)safe; *at != '\0'; at++) {
		if (*at < 0x20 || *at == 0x7f)
			*at = '?';
		/* U+0080..U+009F, two bytes in UTF-8, hold terminal commands too */
		else if (*at == 0xc2 && at[1] >= 0x80 && at[1] <= 0x9f)
			at[0] = at[1] = '?';
	}
	return safe;
}

struct text_table *text_table_new(struct arena *arena, const char *const *headings)
{
	struct text_table *table = arena_alloc(arena, sizeof(*table));

	table->arena = arena;
	table->last = &table->first;
	while (headings[table->columns] != NULL) {
		if (table->columns == TABLE_COLUMNS_MAX)
			abort();
		table->columns++;
	}
	text_table_row(table, headings);
	return table;
}

void text_table_row(struct text_table *table, const char *const *cells)
{
	struct row *row = arena_alloc(table->arena, sizeof(*row));

	for (size_t i = 0; i < table->columns; i++) {
		size_t width;

		row->cells[i] = table_cell(table->arena, cells[i]);
		width = utf8_length(row->cells[i]);
		if (width > table->widths[i])
			table->widths[i] = width;
	}
	*table->last = row;
	table->last = &row->next;
}

void text_table_print(const struct text_table *table, FILE *to)
{
	for (const struct row *row = table->first; row != NULL; row = row->next) {
		for (size_t i = 0; i + 1 < table->columns; i++) {
			size_t width = utf8_length(row->cells[i]);

			fprintf(to, "%s%*s", row->cells[i], (int)(table->widths[i] - width) + 2,
				"");
		}
		fprintf(to, "%s\n", row->cells[table->columns - 1]);
	}
}
