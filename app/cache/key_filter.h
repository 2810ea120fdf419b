/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which API keys exist, as far as one can tell without asking the database: a Bloom filter in shared
 * memory. An address that has sent too many wrong keys must not cost the database a look-up for each
 * further one, and yet the right keys of others behind that address must go on working. So past its
 * limit only keys are looked up that this filter holds.
 *
 * The listener fills it: whole when it begins to listen and every hour, and key by key as they are
 * made. A process that makes a key adds it at once. Revoked keys stay in it until it is filled anew,
 * so a key that was looked up in vain is remembered for some seconds, too.
 *
 * Bits are only ever set, by atomic operations; a process killed at any instruction leaves the filter
 * usable.
 */
#ifndef AREG_CACHE_KEY_FILTER_H
#define AREG_CACHE_KEY_FILTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/must_check.h"

enum {
	KEY_FILTER_START = 8, /* so many bytes of a key's SHA-256 stand for the key */
	KEY_FILTER_WRONG_S = 10, /* a key found wrong is remembered that long */
};

struct key_filter; /* lies in shared memory */

/* Makes an empty one in `bytes` (at least 16 KiB) of zeroed memory, before forking. */
struct key_filter *key_filter_init(void *memory, size_t bytes);

/* Adds a key, by the start of its SHA-256. By any process. */
void key_filter_add(struct key_filter *key_filter, const uint8_t start[KEY_FILTER_START]);

/* Whether a key may exist. False for a key that was never added, except for about one in a hundred
 * when the filter holds as many keys as it has bytes. False for every key until the filter is
 * filled for the first time. */
MUST_CHECK bool key_filter_may_hold(
	const struct key_filter *key_filter, const uint8_t start[KEY_FILTER_START]);

/* Begins to fill the filter anew: the number to go on with. Until key_filter_fill_end() the filter of
 * before is in force, and what others add goes to both. */
MUST_CHECK uint64_t key_filter_fill_begin(struct key_filter *key_filter);
void key_filter_fill(struct key_filter *key_filter, const uint8_t start[KEY_FILTER_START]);
/* Puts the new filter in force, unless somebody else has begun to fill it meanwhile. */
void key_filter_fill_end(struct key_filter *key_filter, uint64_t number);

/* Remembers that a key was looked up in vain, and whether that was within KEY_FILTER_WRONG_S. Unix
 * time. Few are remembered, the latest ones. */
void key_filter_note_wrong(
	struct key_filter *key_filter, const uint8_t start[KEY_FILTER_START], uint64_t now_s);
MUST_CHECK bool key_filter_was_wrong(
	const struct key_filter *key_filter, const uint8_t start[KEY_FILTER_START], uint64_t now_s);

#endif
