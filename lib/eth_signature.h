/* SPDX-License-Identifier: Apache-2.0 */
/* Who signed a text with an Ethereum wallet: EIP-191 personal_sign, recovered by libsecp256k1. */
#ifndef AREG_ETH_SIGNATURE_H
#define AREG_ETH_SIGNATURE_H

#include <stddef.h>
#include <stdint.h>

#include "lib/eth.h"

/*
 * Reads `text` as 0x and 130 hex digits, r || s || v, with v 0, 1, 27 or 28 and s in the lower half
 * of the curve's order (EIP-2). False with *why.
 */
MUST_CHECK bool eth_signature_parse(const char *text, uint8_t signature[65], const char **why);

/* The digest that personal_sign signs: keccak-256 of "\x19Ethereum Signed Message:\n", the length
 * of the text in decimal, and the text (EIP-191, version 0x45). */
void eth_personal_digest(const char *text, size_t len, uint8_t digest[32]);

/* The canonical address of the key that made a parsed signature of the digest. False when there is
 * none. */
MUST_CHECK bool eth_recover(
	const uint8_t digest[32], const uint8_t signature[65], char address[ETH_ADDRESS_LEN + 1]);

#endif
