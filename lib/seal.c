/* SPDX-License-Identifier: Apache-2.0 */
/* Item, then until when in 8 bytes from the highest on, then the tag over name, item and that time. */
#include "lib/seal.h"

#include <endian.h>
#include <openssl/crypto.h>
#include <string.h>

#include "lib/eth.h"
#include "lib/siphash.h"

enum { TIME_BYTES = SEAL_BYTES - SIPHASH_TAG };

static void seal_tag_of(const uint8_t key[SEAL_KEY_BYTES], const char *name, size_t name_len,
	const char *item, size_t len, uint8_t tag[SIPHASH_TAG])
{
	const struct siphash_part parts[] = { { name, name_len }, { item, len + TIME_BYTES } };

	siphash_tag(key, parts, 2, tag);
}

void seal_put(const uint8_t key[SEAL_KEY_BYTES], const char *name, size_t name_len, char *item,
	size_t len, uint64_t until_s)
{
	const uint64_t until = htobe64(until_s);
	uint8_t tag[SIPHASH_TAG];

	memcpy(item + len, &until, TIME_BYTES);
	seal_tag_of(key, name, name_len, item, len, tag);
	memcpy(item + len + TIME_BYTES, tag, SIPHASH_TAG);
}

bool seal_holds(const uint8_t key[SEAL_KEY_BYTES], const char *name, size_t name_len,
	const char *item, size_t len, uint64_t now_s, size_t *own_len)
{
	uint8_t tag[SIPHASH_TAG];
	uint64_t until;

	if (len < SEAL_BYTES)
		return false;
	*own_len = len - SEAL_BYTES;
	seal_tag_of(key, name, name_len, item, *own_len, tag);
	memcpy(&until, item + *own_len, TIME_BYTES);
	return CRYPTO_memcmp(tag, item + *own_len + TIME_BYTES, SIPHASH_TAG) == 0 &&
	       now_s <= be64toh(until);
}

void seal_key_id(const uint8_t key[SEAL_KEY_BYTES], char id[SEAL_ID])
{
	static const char name[] = "areg: which key this is";
	const struct siphash_part part = { name, sizeof name - 1 };
	uint8_t tag[SIPHASH_TAG];

	siphash_tag(key, &part, 1, tag);
	hex_encode(tag, (SEAL_ID - 1) / 2, id);
}
