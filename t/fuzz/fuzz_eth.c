/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Values of Ethereum. The input as a text goes through every parser, and what one accepts must come
 * back from its canonical form; the input as bytes makes a key and a digest, whose signature must
 * lead back to the key's address, and to nobody's when it is bent.
 */
#include "t/fuzz/fuzz.h"

#include <ctype.h>
#include <openssl/sha.h>
#include <secp256k1.h>
#include <secp256k1_recovery.h>
#include <string.h>

#include "lib/eth.h"
#include "lib/eth_signature.h"

enum { SIGNATURE_TEXT = 2 + 2 * 65 };

/* Letter case of a checksum is part of it: a letter bent is refused, unless none is left of the
 * other case. */
static void check_bent_checksum(const char mixed[ETH_ADDRESS_LEN + 1])
{
	char bent[ETH_ADDRESS_LEN + 1], canonical[ETH_ADDRESS_LEN + 1];
	const char *why;

	for (size_t i = 2; i < ETH_ADDRESS_LEN; i++) {
		if (!isalpha((unsigned char)mixed[i]))
			continue;
		memcpy(bent, mixed, sizeof bent);
		bent[i] = (char)(bent[i] ^ 0x20);
		REQUIRE(eth_address_parse(bent, canonical, &why) ==
			(strpbrk(bent + 2, "abcdef") == NULL ||
				strpbrk(bent + 2, "ABCDEF") == NULL));
	}
}

static void check_address(const char *text)
{
	char canonical[ETH_ADDRESS_LEN + 1], again[ETH_ADDRESS_LEN + 1];
	char mixed[ETH_ADDRESS_LEN + 1];
	const char *why = NULL;

	if (!eth_address_parse(text, canonical, &why)) {
		REQUIRE(why != NULL && canonical[0] == '\0');
		return;
	}
	REQUIRE(strlen(text) == ETH_ADDRESS_LEN && strcasecmp(text, canonical) == 0);
	REQUIRE(strspn(canonical + 2, "0123456789abcdef") == ETH_ADDRESS_LEN - 2);
	REQUIRE(eth_address_parse(canonical, again, &why) && strcmp(canonical, again) == 0);
	eth_address_checksum(canonical, mixed);
	REQUIRE(eth_address_parse(mixed, again, &why) && strcmp(canonical, again) == 0);
	check_bent_checksum(mixed);
}

static void check_hash(const char *text)
{
	char canonical[ETH_HASH_LEN + 1], again[ETH_HASH_LEN + 1];
	const char *why = NULL;

	if (!eth_hash_parse(text, canonical, &why)) {
		REQUIRE(why != NULL && canonical[0] == '\0');
		return;
	}
	REQUIRE(strlen(text) == ETH_HASH_LEN && strcasecmp(text, canonical) == 0);
	REQUIRE(eth_hash_parse(canonical, again, &why) && strcmp(canonical, again) == 0);
}

static void check_integers(const char *text)
{
	char canonical[UINT256_DIGITS + 1], again[UINT256_DIGITS + 1];
	const char *why = NULL;
	size_t digits = strspn(text, "0123456789");

	if (uint256_parse(text, canonical, &why)) {
		size_t zeros = strspn(text, "0");

		REQUIRE(digits == strlen(text));
		REQUIRE(strcmp(canonical, text[zeros] == '\0' ? "0" : text + zeros) == 0);
		REQUIRE(uint256_parse(canonical, again, &why) && strcmp(canonical, again) == 0);
	} else {
		REQUIRE(why != NULL && canonical[0] == '\0');
		REQUIRE(digits == 0 || digits != strlen(text) || digits >= UINT256_DIGITS);
	}
	if (feedback_value_parse(text, &why)) {
		const char *number = text + (text[0] == '-');

		digits = strspn(number, "0123456789");
		REQUIRE(digits >= 1 && digits <= 39 && number[digits] == '\0');
		REQUIRE(number[0] != '0' || strcmp(text, "0") == 0);
		/* an integer without a sign is one of ours, too */
		REQUIRE(uint256_parse(number, canonical, &why) && strcmp(number, canonical) == 0);
	}
}

static void check_bytes(struct arena *arena, const uint8_t *data, size_t size)
{
	uint8_t ours[32], theirs[32], *bytes = arena_alloc(arena, size);
	char *hex = arena_alloc(arena, 2 * size + 1);

	hex_encode(data, size, hex);
	REQUIRE(strlen(hex) == 2 * size);
	REQUIRE(hex_decode(hex, size, bytes) && memcmp(bytes, data, size) == 0);
	REQUIRE(size == 0 || !hex_decode(hex, size - 1, bytes));
	keccak256(data, size, ours);
	keccak256_builtin(data, size, theirs);
	REQUIRE(memcmp(ours, theirs, sizeof ours) == 0);
}

static void write_signature(const uint8_t signature[65], char text[SIGNATURE_TEXT + 1])
{
	memcpy(text, "0x", 2);
	hex_encode(signature, 65, text + 2);
}

/* Any text: what is accepted is written as it was read, and recovers the same address each time, or
 * none each time. */
static void check_signature_text(const char *text, const uint8_t digest[32])
{
	char address[ETH_ADDRESS_LEN + 1], again[ETH_ADDRESS_LEN + 1],
		canonical[ETH_ADDRESS_LEN + 1];
	char written[SIGNATURE_TEXT + 1];
	uint8_t signature[65];
	const char *why = NULL;

	if (!eth_signature_parse(text, signature, &why)) {
		REQUIRE(why != NULL);
		return;
	}
	write_signature(signature, written);
	REQUIRE(strcasecmp(text, written) == 0);
	if (!eth_recover(digest, signature, address)) {
		REQUIRE(!eth_recover(digest, signature, again));
		return;
	}
	REQUIRE(eth_recover(digest, signature, again) && strcmp(address, again) == 0);
	REQUIRE(eth_address_parse(address, canonical, &why) && strcmp(address, canonical) == 0);
}

/* s and its negative sign the same; only the lower one is a signature of Ethereum (EIP-2). */
static void check_high_s(const uint8_t signature[65])
{
	static const uint8_t order[32] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
		0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 0xba, 0xae, 0xdc, 0xe6, 0xaf, 0x48, 0xa0,
		0x3b, 0xbf, 0xd2, 0x5e, 0x8c, 0xd0, 0x36, 0x41, 0x41 };
	char text[SIGNATURE_TEXT + 1];
	uint8_t twin[65], parsed[65];
	const char *why;
	int borrow = 0;

	memcpy(twin, signature, sizeof twin);
	for (size_t i = 32; i-- > 0;) {
		int digit = order[i] - signature[32 + i] - borrow;

		borrow = digit < 0;
		twin[32 + i] = (uint8_t)(digit + 256 * borrow);
	}
	twin[64] = (uint8_t)(55 - signature[64]); /* 27 and 28 change places */
	write_signature(twin, text);
	REQUIRE(!eth_signature_parse(text, parsed, &why));
}

static void address_of(
	const secp256k1_context *context, const uint8_t key[32], char address[ETH_ADDRESS_LEN + 1])
{
	secp256k1_pubkey public_key;
	uint8_t point[65], digest[32];
	size_t len = sizeof point;

	REQUIRE(secp256k1_ec_pubkey_create(context, &public_key, key));
	secp256k1_ec_pubkey_serialize(context, point, &len, &public_key, SECP256K1_EC_UNCOMPRESSED);
	keccak256(point + 1, 64, digest);
	memcpy(address, "0x", 2);
	hex_encode(digest + 12, 20, address + 2);
}

static void check_signing(const uint8_t *data, size_t size)
{
	static secp256k1_context *context;
	secp256k1_ecdsa_recoverable_signature made;
	char address[ETH_ADDRESS_LEN + 1], recovered[ETH_ADDRESS_LEN + 1];
	char text[SIGNATURE_TEXT + 1];
	uint8_t key[32], digest[32], signature[65], parsed[65];
	const char *why;
	int id;

	if (context == NULL)
		context = secp256k1_context_create(SECP256K1_CONTEXT_NONE);
	SHA256(data, size, key);
	eth_personal_digest((const char *)data, size, digest);
	if (!secp256k1_ec_seckey_verify(context, key))
		return;
	REQUIRE(secp256k1_ecdsa_sign_recoverable(context, &made, digest, key, NULL, NULL));
	secp256k1_ecdsa_recoverable_signature_serialize_compact(context, signature, &id, &made);
	if (id > 1) /* r past the order: once in 2^127 */
		return;
	signature[64] = (uint8_t)(27 + id);
	write_signature(signature, text);
	REQUIRE(eth_signature_parse(text, parsed, &why));
	address_of(context, key, address);
	REQUIRE(eth_recover(digest, parsed, recovered) && strcmp(recovered, address) == 0);
	check_high_s(signature);
	parsed[64] = (uint8_t)(55 - parsed[64]);
	REQUIRE(!eth_recover(digest, parsed, recovered) || strcmp(recovered, address) != 0);
	digest[size % 32] ^= 1;
	parsed[64] = (uint8_t)(55 - parsed[64]);
	REQUIRE(!eth_recover(digest, parsed, recovered) || strcmp(recovered, address) != 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct arena *arena = fuzz_arena();
	const char *text = fuzz_text(arena, data, size);
	uint8_t digest[32];

	check_address(text);
	check_hash(text);
	check_integers(text);
	check_bytes(arena, data, size);
	eth_personal_digest(text, strlen(text), digest);
	check_signature_text(text, digest);
	/* These are the dear ones, a thousand times what the rest costs: on some inputs only. */
	if (size > 0 && size < 64 && data[0] == 's')
		check_signing(data, size);
	return 0;
}
