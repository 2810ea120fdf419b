/* SPDX-License-Identifier: Apache-2.0 */
/*
 * API keys: "areg_live_", 43 characters of 0-9A-Za-z drawn at random (256 bits), and 6 characters
 * of checksum (CRC-32 of all before it, in base 62), so that a mistyped key is known without
 * asking anybody. Shown once when made; only the SHA-256 is stored.
 */
#ifndef AREG_REGISTRY_API_KEY_H
#define AREG_REGISTRY_API_KEY_H

#include <stdbool.h>
#include <stddef.h>

#include "lib/must_check.h"

enum {
	API_KEY_LEN = 10 + 43 + 6,
	API_KEY_PREFIX_LEN = 10 + 8, /* what is stored readable, to recognise a key by */
	API_KEY_HASH_LEN = 64, /* lower-case hex of the SHA-256 of the whole key */
};

/* Makes a new key from the kernel's random source. False when that fails. */
MUST_CHECK bool api_key_make(char key[API_KEY_LEN + 1]);

/* Whether `text` has the form and the checksum of a key. */
MUST_CHECK bool api_key_well_formed(const char *text);

/* The hash under which a well-formed key is stored, and its readable prefix. */
void api_key_hash(const char *key, char hash[API_KEY_HASH_LEN + 1]);
void api_key_prefix(const char *key, char prefix[API_KEY_PREFIX_LEN + 1]);

#endif
