/* UTF-8 as RFC 3629 has it: no surrogates, nothing overlong, nothing above U+10FFFF. */
#ifndef AREG_UTF8_H
#define AREG_UTF8_H

#include <stddef.h>

/* Bytes (1..4) of the valid sequence at the start of bytes[0..len); 0 when there is none. */
size_t utf8_sequence(const char *bytes, size_t len);

/* The longest prefix of bytes[0..len) that is at most `most` bytes and cuts no sequence in two.
 * The bytes must be valid UTF-8. */
size_t utf8_cut(const char *bytes, size_t len, size_t most);

#endif
