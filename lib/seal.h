/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The seal of an item that lies where others can write, such as memcached. It proves that the item was
 * stored by somebody who knows the key, under this name, and not too long ago. It does not prove that
 * nothing else was stored under that name since: an item of before can be put back until its time is
 * over. Read beside this: lib/siphash.h.
 */
#ifndef AREG_SEAL_H
#define AREG_SEAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/must_check.h"

enum {
	SEAL_KEY_BYTES = 16, /* bytes of a key */
	SEAL_BYTES = 24, /* of a seal: until when, and the tag */
	SEAL_ID = 17, /* characters that stand for a key, with their NUL */
};

/* Writes the seal behind the `len` bytes of `item`, which has room for SEAL_BYTES more. It holds until
 * that Unix time. */
void seal_put(const uint8_t key[SEAL_KEY_BYTES], const char *name, size_t name_len, char *item,
	size_t len, uint64_t until_s);

/* Whether an item of `len` bytes, its seal among them, was sealed with that key under that name, and
 * its time is not over. Then its own length goes to *own_len. The bytes may be anything. */
MUST_CHECK bool seal_holds(const uint8_t key[SEAL_KEY_BYTES], const char *name, size_t name_len,
	const char *item, size_t len, uint64_t now_s, size_t *own_len);

/* Hex digits that stand for the key and do not tell it: part of the names of items, so that programs
 * with different keys do not meet. */
void seal_key_id(const uint8_t key[SEAL_KEY_BYTES], char id[SEAL_ID]);

#endif
