/* Making and recognising API keys. Read beside this: getrandom(2). */
#include "app/apikey.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <stdint.h>
#include <string.h>
#include <sys/random.h>
#include <zlib.h>

#include "lib/eth.h"

enum {
	LEAD_LEN = 10,
	RANDOM_LEN = 43, /* log2(62^43) is 256.03 */
	CHECKSUM_LEN = 6, /* 62^6 is above 2^32 */
};

static const char lead[] = "areg_live_";
static const char base62[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

static bool random_bytes(uint8_t *bytes, size_t count)
{
	while (count > 0) {
		ssize_t got = getrandom(bytes, count, 0);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return false;
		bytes += got;
		count -= (size_t)got;
	}
	return true;
}

/* Fills text[0..len) with characters that are all equally likely: of the 64 values of 6 random
 * bits, the two past the alphabet are thrown away. */
static bool random_characters(char *text, size_t len)
{
	uint8_t pool[64];
	size_t filled = 0;

	while (filled < len) {
		if (!random_bytes(pool, sizeof pool))
			return false;
		for (size_t i = 0; i < sizeof pool && filled < len; i++) {
			unsigned value = pool[i] & 63u;

			if (value < 62)
				text[filled++] = base62[value];
		}
	}
	OPENSSL_cleanse(pool, sizeof pool);
	return true;
}

/* The checksum of the characters before it, most significant digit first. */
static void checksum_of(const char *key, char checksum[CHECKSUM_LEN])
{
	uLong crc = crc32(0, (const Bytef *)key, LEAD_LEN + RANDOM_LEN);

	for (size_t i = CHECKSUM_LEN; i-- > 0; crc /= 62)
		checksum[i] = base62[crc % 62];
}

bool apikey_make(char key[APIKEY_LEN + 1])
{
	memcpy(key, lead, LEAD_LEN);
	if (!random_characters(key + LEAD_LEN, RANDOM_LEN))
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
	if (strspn(text + LEAD_LEN, base62) != RANDOM_LEN + CHECKSUM_LEN)
		return false;
	checksum_of(text, checksum);
	return CRYPTO_memcmp(checksum, text + LEAD_LEN + RANDOM_LEN, CHECKSUM_LEN) == 0;
}

void apikey_hash(const char *key, char hash[APIKEY_HASH_LEN + 1])
{
	uint8_t digest[SHA256_DIGEST_LENGTH];

	SHA256((const unsigned char *)key, strlen(key), digest);
	hex_encode(digest, sizeof digest, hash);
}

void apikey_prefix(const char *key, char prefix[APIKEY_PREFIX_LEN + 1])
{
	memcpy(prefix, key, APIKEY_PREFIX_LEN);
	prefix[APIKEY_PREFIX_LEN] = '\0';
}
