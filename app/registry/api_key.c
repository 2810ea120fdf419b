/* SPDX-License-Identifier: Apache-2.0 */
/* Making and recognising API keys. */
#include "app/registry/api_key.h"

#include <openssl/crypto.h>
#include <stdint.h>
#include <string.h>
#include <zlib.h>

#include "lib/eth.h"
#include "lib/random.h"
#include "lib/sha256.h"

enum {
	LEAD_LEN = 10,
	RANDOM_LEN = 43, /* log2(62^43) is 256.03 */
	CHECKSUM_LEN = 6, /* 62^6 is above 2^32 */
};

static const char lead[] = "areg_live_";

/* The checksum of the characters before it, most significant digit first. */
static void checksum_of(const char *key, char checksum[CHECKSUM_LEN])
{
	uLong crc = crc32(0, (const Bytef *)key, LEAD_LEN + RANDOM_LEN);

	for (size_t i = CHECKSUM_LEN; i-- > 0; crc /= 62)
		checksum[i] = random_alphabet[crc % 62];
}

bool api_key_make(char key[API_KEY_LEN + 1])
{
	memcpy(key, lead, LEAD_LEN);
	if (!random_text(key + LEAD_LEN, RANDOM_LEN))
		return false;
	checksum_of(key, key + LEAD_LEN + RANDOM_LEN);
	key[API_KEY_LEN] = '\0';
	return true;
}

bool api_key_well_formed(const char *text)
{
	char checksum[CHECKSUM_LEN];

	if (strnlen(text, API_KEY_LEN + 1) != API_KEY_LEN || memcmp(text, lead, LEAD_LEN) != 0)
		return false;
	if (strspn(text + LEAD_LEN, random_alphabet) != RANDOM_LEN + CHECKSUM_LEN)
		return false;
	checksum_of(text, checksum);
	return CRYPTO_memcmp(checksum, text + LEAD_LEN + RANDOM_LEN, CHECKSUM_LEN) == 0;
}

void api_key_hash(const char *key, char hash[API_KEY_HASH_LEN + 1])
{
	uint8_t digest[SHA256_BYTES];

	sha256(key, strlen(key), digest);
	hex_encode(digest, sizeof digest, hash);
}

void api_key_prefix(const char *key, char prefix[API_KEY_PREFIX_LEN + 1])
{
	memcpy(prefix, key, API_KEY_PREFIX_LEN);
	prefix[API_KEY_PREFIX_LEN] = '\0';
}
