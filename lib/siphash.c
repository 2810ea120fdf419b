/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SipHash-2-4, by "SipHash: a fast short-input PRF" (Aumasson, Bernstein, 2012), section 2. The variant
 * with 128 bits is that of the authors' reference program.
 */
#include "lib/siphash.h"

#include <endian.h>
#include <string.h>

static uint64_t rotate(uint64_t word, int bits)
{
	return word << bits | word >> (64 - bits);
}

/* Words are little-endian, whatever the machine is; a short one is filled up with zero bytes. */
static uint64_t word_at(const uint8_t *bytes, size_t len)
{
	uint64_t word = 0;

	memcpy(&word, bytes, len);
	return le64toh(word);
}

static void word_to(uint8_t *bytes, uint64_t word)
{
	word = htole64(word);
	memcpy(bytes, &word, sizeof word);
}

static void rounds(uint64_t v[4], int count)
{
	while (count-- > 0) {
		v[0] += v[1];
		v[2] += v[3];
		v[1] = rotate(v[1], 13) ^ v[0];
		v[3] = rotate(v[3], 16) ^ v[2];
		v[0] = rotate(v[0], 32);
		v[2] += v[1];
		v[0] += v[3];
		v[1] = rotate(v[1], 17) ^ v[2];
		v[3] = rotate(v[3], 21) ^ v[0];
		v[2] = rotate(v[2], 32);
	}
}

static void compress(uint64_t v[4], uint64_t word)
{
	v[3] ^= word;
	rounds(v, 2);
	v[0] ^= word;
}

static void siphash_begin(uint64_t v[4], const uint8_t key[16])
{
	const uint64_t k0 = word_at(key, 8), k1 = word_at(key + 8, 8);

	v[0] = k0 ^ 0x736f6d6570736575;
	v[1] = k1 ^ 0x646f72616e646f6d;
	v[2] = k0 ^ 0x6c7967656e657261;
	v[3] = k1 ^ 0x7465646279746573;
}

/* All whole words; returns where the rest is, of len % 8 bytes. */
static const uint8_t *compress_words(uint64_t v[4], const uint8_t *bytes, size_t len)
{
	for (; len >= 8; len -= 8, bytes += 8)
		compress(v, word_at(bytes, 8));
	return bytes;
}

uint64_t siphash(const uint8_t key[16], const void *bytes, size_t len)
{
	const uint8_t *rest;
	uint64_t v[4];

	siphash_begin(v, key);
	rest = compress_words(v, bytes, len);
	compress(v, (len % 8 == 0 ? 0 : word_at(rest, len % 8)) | (uint64_t)len << 56);
	v[2] ^= 0xff;
	rounds(v, 4);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

void siphash_tag(const uint8_t key[16], const struct siphash_part *parts, size_t count,
	uint8_t tag[SIPHASH_TAG])
{
	uint64_t words = 0, v[4];

	siphash_begin(v, key);
	v[1] ^= 0xee;
	for (size_t i = 0; i < count; i++) {
		const size_t len = parts[i].len;
		const uint8_t *rest;

		compress(v, len);
		rest = compress_words(v, parts[i].bytes, len);
		if (len % 8 != 0)
			compress(v, word_at(rest, len % 8));
		words += 1 + (len + 7) / 8;
	}
	compress(v, words * 8 << 56);
	v[2] ^= 0xee;
	rounds(v, 4);
	word_to(tag, v[0] ^ v[1] ^ v[2] ^ v[3]);
	v[1] ^= 0xdd;
	rounds(v, 4);
	word_to(tag + 8, v[0] ^ v[1] ^ v[2] ^ v[3]);
}
