/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers in decimal digits, at a tenth of the price of printf(3): for what every request writes. */
#ifndef AREG_DECIMAL_H
#define AREG_DECIMAL_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { DECIMAL_BYTES = 21 }; /* "-9223372036854775808" and a NUL */

/* Writes the number, NUL-terminated, and returns its length. */
static inline size_t decimal(char text[DECIMAL_BYTES], int64_t number)
{
	char *const end = text + DECIMAL_BYTES - 1;
	uint64_t rest = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
	char *first = end;
	size_t len;

	do {
		*--first = (char)('0' + rest % 10);
		rest /= 10;
	} while (rest > 0);
	if (number < 0)
		*--first = '-';
	len = (size_t)(end - first);
	memmove(text, first, len);
	text[len] = '\0';
	return len;
}

#endif
