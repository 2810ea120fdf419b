/* SPDX-License-Identifier: Apache-2.0 */
/* Secrets: text that nobody can guess, from the kernel's random source. */
#ifndef AREG_RANDOM_H
#define AREG_RANDOM_H

#include <stdbool.h>
#include <stddef.h>

#include "lib/must_check.h"

/* The alphabet of random_text(), in the order of its digits as base 62. */
extern const char random_alphabet[];

/* Fills text[0..len) with letters and digits that are all equally likely, 5.95 bits each; no NUL is
 * added. False when the kernel gives no random bytes. */
MUST_CHECK bool random_text(char *text, size_t len);

#endif
