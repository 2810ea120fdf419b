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
	APIKEY_LEN = 10 + 43 + 6,
	APIKEY_PREFIX_LEN = 10 + 8, /* what is stored readable, to recognise a key by */
	APIKEY_HASH_LEN = 64, /* lower-case hex of the SHA-256 of the whole key */
};

/* Makes a new key from the kernel's random source. False when that fails. */
MUST_CHECK bool apikey_make(char key[APIKEY_LEN + 1]);

/* Whether `text` has the form and the checksum of a key. */
MUST_CHECK bool apikey_well_formed(const char *text);

/* The hash under which a well-formed key is stored, and its readable prefix. */
void apikey_hash(const char *key, char hash[APIKEY_HASH_LEN + 1]);
void apikey_prefix(const char *key, char prefix[APIKEY_PREFIX_LEN + 1]);

#endif
