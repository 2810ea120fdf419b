/* SPDX-License-Identifier: Apache-2.0 */
/* Random text. Read beside this: getrandom(2). */
#include "lib/random.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <stdint.h>
#include <sys/random.h>

const char random_alphabet[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

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

/* Of the 64 values of 6 random bits, the two past the alphabet are thrown away. */
bool random_text(char *text, size_t len)
{
	uint8_t pool[64];
	size_t filled = 0;

	while (filled < len) {
		if (!random_bytes(pool, sizeof pool))
			return false;
		for (size_t i = 0; i < sizeof pool && filled < len; i++) {
			unsigned value = pool[i] & 63u;

			if (value < 62)
				text[filled++] = random_alphabet[value];
		}
	}
	OPENSSL_cleanse(pool, sizeof pool);
	return true;
}
