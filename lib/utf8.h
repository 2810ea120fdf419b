/* SPDX-License-Identifier: Apache-2.0 */
/* UTF-8 as RFC 3629 has it: no surrogates, nothing overlong, nothing above U+10FFFF. */
#ifndef AREG_UTF8_H
#define AREG_UTF8_H

#include <stddef.h>

#include "lib/arena.h"

/* Bytes (1..4) of the valid sequence at the start of bytes[0..len); 0 when there is none. */
size_t utf8_sequence(const char *bytes, size_t len);

/* The longest prefix of bytes[0..len) that is at most `most` bytes and cuts no sequence in two.
 * The bytes must be valid UTF-8. */
size_t utf8_cut(const char *bytes, size_t len, size_t most);

/* A copy of the text that is valid UTF-8: each byte that is not part of a valid sequence is written
 * as \xff, by its two hex digits. For names of files and users, which may be any bytes. */
char *utf8_shown(struct arena *arena, const char *text) __attribute__((returns_nonnull));

#endif
