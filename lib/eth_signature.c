/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Personal signatures. libsecp256k1 checks and recovers; what it would let pass, and Ethereum would
 * not, is refused here. Read beside this: EIP-191, EIP-2, secp256k1_recovery.h.
 */
#include "lib/eth_signature.h"

#include <secp256k1.h>
#include <secp256k1_recovery.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SIGNATURE_LEN = 65, PUBLIC_KEY_LEN = 65 };

static bool signature_is_zero(const uint8_t number[32])
{
	static const uint8_t zero[32];

	return memcmp(number, zero, sizeof zero) == 0;
}

/* The recovery id that v stands for, or -1. */
static int recovery_id(uint8_t v)
{
	if (v == 27 || v == 28)
		v = (uint8_t)(v - 27);
	return v <= 1 ? v : -1;
}

bool eth_signature_parse(const char *text, uint8_t signature[SIGNATURE_LEN], const char **why)
{
	secp256k1_ecdsa_signature parsed;

	if (text[0] != '0' || text[1] != 'x' || !hex_decode(text + 2, SIGNATURE_LEN, signature)) {
		*why = "not 0x and 130 hex digits";
		return false;
	}
	if (recovery_id(signature[64]) < 0) {
		*why = "a signature whose v is none of 0, 1, 27 and 28";
		return false;
	}
	if (signature_is_zero(signature) || signature_is_zero(signature + 32) ||
		!secp256k1_ecdsa_signature_parse_compact(
			secp256k1_context_static, &parsed, signature)) {
		*why = "a signature whose r or s is not within the order of the curve";
		return false;
	}
	if (secp256k1_ecdsa_signature_normalize(secp256k1_context_static, NULL, &parsed)) {
		*why = "a signature whose s is in the upper half of the order (EIP-2)";
		return false;
	}
	return true;
}

void eth_personal_digest(const char *text, size_t len, uint8_t digest[32])
{
	char head[64];
	size_t head_len = (size_t)snprintf(head, sizeof head,
		"\x19"
		"Ethereum Signed Message:\n%zu",
		len);
	char *whole = malloc(head_len + len);

	if (whole == NULL)
		abort();
	memcpy(whole, head, head_len);
	memcpy(whole + head_len, text, len);
	keccak256(whole, head_len + len, digest);
	free(whole);
}

bool eth_recover(const uint8_t digest[32], const uint8_t signature[SIGNATURE_LEN],
	char address[ETH_ADDRESS_LEN + 1])
{
	secp256k1_ecdsa_recoverable_signature parsed;
	secp256k1_pubkey key;
	uint8_t point[PUBLIC_KEY_LEN], hash[32];
	size_t len = sizeof point;
	int id = recovery_id(signature[64]);

	address[0] = '\0';
	if (id < 0 ||
		!secp256k1_ecdsa_recoverable_signature_parse_compact(
			secp256k1_context_static, &parsed, signature, id) ||
		!secp256k1_ecdsa_recover(secp256k1_context_static, &key, &parsed, digest))
		return false;
	secp256k1_ec_pubkey_serialize(
		secp256k1_context_static, point, &len, &key, SECP256K1_EC_UNCOMPRESSED);
	/* An address is the last 20 bytes of the hash of the point, without its leading 0x04. */
	keccak256(point + 1, sizeof point - 1, hash);
	memcpy(address, "0x", 2);
	hex_encode(hash + 12, 20, address + 2);
	return true;
}
