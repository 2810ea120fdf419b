/* SPDX-License-Identifier: Apache-2.0 */
/* Times as text: RFC 3339, section 5.6. */
#ifndef AREG_RFC3339_H
#define AREG_RFC3339_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "lib/must_check.h"

enum { RFC3339_LEN = 20 }; /* of what rfc3339_format() writes */

/*
 * Whether `text` is a time of the years 1970..9999 with a date that exists, such as
 * "2026-03-01T12:00:00Z" or "2026-03-01t13:00:00.25+01:00", with at most 9 fraction digits.
 * PostgreSQL reads every such text as timestamptz. On refusal sets *why to a static phrase.
 */
MUST_CHECK bool rfc3339_check(const char *text, const char **why);

/* Microseconds since 1970 of a text that rfc3339_check() takes; digits behind them are cut off. */
int64_t rfc3339_microseconds(const char *text);

/* "2026-03-01T12:00:00Z" for seconds since 1970, of years up to 9999. */
void rfc3339_format(time_t when, char text[RFC3339_LEN + 1]);

#endif
