/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Values of Ethereum as text: addresses, hashes, 256-bit integers, signed decimals of ERC-8004.
 * Canonical form throughout the program and the database: lower-case hex with 0x, decimal digits
 * without leading zeros.
 */
#ifndef AREG_ETH_H
#define AREG_ETH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/must_check.h"

enum {
	ETH_ADDRESS_LEN = 42, /* 0x and 40 hex digits */
	ETH_HASH_LEN = 66, /* 0x and 64 hex digits */
	UINT256_DIGITS = 78, /* of 2^256 - 1 in decimal */
};

/*
 * Keccak-256 as Ethereum uses it (the original padding 0x01, not SHA3-256's 0x06): from OpenSSL
 * where that has KECCAK-256 (3.2 and later), else from keccak256_builtin().
 */
void keccak256(const void *bytes, size_t len, uint8_t digest[32]);

/* The same, always by our own implementation: for tests, and where OpenSSL has none. */
void keccak256_builtin(const void *bytes, size_t len, uint8_t digest[32]);

/*
 * Reads `text` as an address into canonical[] (lower case, NUL-terminated). Mixed-case hex must
 * carry a valid checksum (EIP-55); all lower or all upper case carries none. On refusal returns
 * false, sets *why to a static phrase ("not 0x and 40 hex digits", "the EIP-55 checksum is
 * wrong") and leaves canonical[] empty.
 */
MUST_CHECK bool eth_address_parse(
	const char *text, char canonical[ETH_ADDRESS_LEN + 1], const char **why);

/* The EIP-55 mixed-case form of a canonical address. */
void eth_address_checksum(const char *canonical, char mixed[ETH_ADDRESS_LEN + 1]);

/* As eth_address_parse(), for 0x and 64 hex digits in any case; a hash carries no checksum. */
MUST_CHECK bool eth_hash_parse(
	const char *text, char canonical[ETH_HASH_LEN + 1], const char **why);

/*
 * Reads decimal digits (no sign, no exponent) of value 0 .. 2^256 - 1 into canonical[] without
 * leading zeros. *why as above.
 */
MUST_CHECK bool uint256_parse(
	const char *text, char canonical[UINT256_DIGITS + 1], const char **why);

/*
 * Whether `text` is an integer of ERC-8004's feedback value: optional minus, decimal digits, no
 * leading zero, |value| <= 1e38 (the registry contract's bound within int128).
 */
MUST_CHECK bool feedback_value_parse(const char *text, const char **why);

/* Hex digits (without 0x, any case) of exactly `count` bytes. False on any other character. */
MUST_CHECK bool hex_decode(const char *hex, size_t count, uint8_t *bytes);

/* 2 * count lower-case digits and a NUL. */
void hex_encode(const uint8_t *bytes, size_t count, char *hex);

#endif
