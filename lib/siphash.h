/* SPDX-License-Identifier: Apache-2.0 */
/* SipHash-2-4 (Aumasson and Bernstein, 2012): a hash that nobody can steer without its key. */
#ifndef AREG_SIPHASH_H
#define AREG_SIPHASH_H

#include <stddef.h>
#include <stdint.h>

uint64_t siphash(const uint8_t key[16], const void *bytes, size_t len);

/*
 * The variant with a tag of 128 bits, which is long enough to authenticate by. Its message is made of
 * `count` parts: before each stands its length, in 8 bytes from the lowest on, and behind it as many
 * zero bytes as fill the last word of 8. So no two lists of parts make the same message.
 */
enum { SIPHASH_TAG = 16 };
struct siphash_part {
	const void *bytes;
	size_t len;
};
void siphash_tag(const uint8_t key[16], const struct siphash_part *parts, size_t count,
	uint8_t tag[SIPHASH_TAG]);

#endif
