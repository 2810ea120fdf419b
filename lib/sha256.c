/* SPDX-License-Identifier: Apache-2.0 */
/* One context for each thread, made at its first use. Read beside this: EVP_DigestInit(3ossl). */
#include "lib/sha256.h"

#include <openssl/evp.h>
#include <stdlib.h>

void sha256(const void *bytes, size_t len, uint8_t digest[SHA256_BYTES])
{
	static _Thread_local EVP_MD_CTX *context;
	const EVP_MD *algorithm = NULL; /* what the context has already */

	if (context == NULL) {
		context = EVP_MD_CTX_new();
		algorithm = EVP_sha256();
	}
	if (context == NULL || EVP_DigestInit_ex2(context, algorithm, NULL) != 1 ||
		EVP_DigestUpdate(context, bytes, len) != 1 ||
		EVP_DigestFinal_ex(context, digest, NULL) != 1)
		abort();
}
