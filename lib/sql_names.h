/* SPDX-License-Identifier: Apache-2.0 */
/* Names for the parameters of SQL text, so that nobody counts $1, $2, $3 by eye. */
#ifndef AREG_SQL_NAMES_H
#define AREG_SQL_NAMES_H

#include <stddef.h>

/*
 * The text `sql` with $n for each :name, where n is the place of that name in `names` (ended by NULL,
 * first is 1). The result is from malloc(), NULL when there is no memory.
 *
 * A name is a letter or _ behind a colon, and the letters, digits and _ that follow. Casts (::text),
 * quoted text, quoted identifiers and comments, which must not nest, are left alone. The bounds of a slice of an array need a
 * blank behind the colon: [1 : n].
 *
 * Logs what is wrong and calls abort() when the text has a name that is not in the list, a number ($1),
 * or does not use a name of the list, or when the list has not `count` names. `statement` names the
 * statement in that message.
 */
char *sql_with_numbers(
	const char *statement, const char *sql, const char *const *names, size_t count);

#endif
