/* SPDX-License-Identifier: Apache-2.0 */
/* SHA-256 (FIPS 180-4). OpenSSL's own one-shot function looks the algorithm up each time, which
 * costs more than hashing a key does. */
#ifndef AREG_SHA256_H
#define AREG_SHA256_H

#include <stddef.h>
#include <stdint.h>

enum { SHA256_BYTES = 32 };

/* Aborts when OpenSSL has no SHA-256 or no memory is left. */
void sha256(const void *bytes, size_t len, uint8_t digest[SHA256_BYTES]);

#endif
