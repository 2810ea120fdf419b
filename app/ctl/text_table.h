/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Columns for people: cells padded to the widest of their column. Text from strangers is made safe
 * for a terminal: control characters are printed as "?".
 */
#ifndef AREG_CTL_TEXT_TABLE_H
#define AREG_CTL_TEXT_TABLE_H

#include <stdio.h>

#include "lib/arena.h"

enum { TABLE_COLUMNS_MAX = 12 };

struct text_table;

/* A table with these headings; as many columns as there are, ended by NULL. */
struct text_table *text_table_new(struct arena *arena, const char *const *headings);

/* Adds a row of as many cells as there are headings. Texts are copied; NULL is printed as "-". */
void text_table_row(struct text_table *table, const char *const *cells);

/* Prints headings and rows, two blanks between columns, none at the end of a line. */
void text_table_print(const struct text_table *table, FILE *to);

/* A copy of UTF-8 `text` that a terminal prints and does not obey; "-" for NULL. */
const char *table_cell(struct arena *arena, const char *text);

#endif
