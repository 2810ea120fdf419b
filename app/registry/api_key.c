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

bool apikey_make(char key[APIKEY_LEN + 1])
{
	memcpy(key, lead, LEAD_LEN);
	if (!random_text(key + LEAD_LEN, RANDOM_LEN))
		return false;
	checksum_of(key, key + LEAD_LEN + RANDOM_LEN);
	key[APIKEY_LEN] = '\0';
	return true;
}

bool apikey_well_formed(const char *text)
{
	char checksum[CHECKSUM_LEN];

	if (strnlen(text, APIKEY_LEN + 1) != APIKEY_LEN || memcmp(text, lead, LEAD_LEN) != 0)
		return false;
	if (strspn(text + LEAD_LEN, random_alphabet) != RANDOM_LEN + CHECKSUM_LEN)
		return false;
	checksum_of(text, checksum);
	return CRYPTO_memcmp(checksum, text + LEAD_LEN + RANDOM_LEN, CHECKSUM_LEN) == 0;
}

void apikey_hash(const char *key, char hash[APIKEY_HASH_LEN + 1])
{
	uint8_t digest[SHA256_BYTES];

	sha256(key, strlen(key), digest);
	hex_encode(digest, sizeof digest, hash);
}

void apikey_prefix(const char *key, char prefix[APIKEY_PREFIX_LEN + 1])
{
	memcpy(prefix, key, APIKEY_PREFIX_LEN);
	prefix[APIKEY_PREFIX_LEN] = '\0';
}
