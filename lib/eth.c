/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Values of Ethereum: Keccak-256, and the parsers of addresses, hashes and integers. Read beside
 * this: the Keccak reference (keccak.team), EIP-55, IReputationRegistry.sol.
 */
#include "lib/eth.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <string.h>

/* ---- Keccak-256 ---- */

enum {
	KECCAK_ROUNDS = 24,
	KECCAK_RATE = 136, /* bytes absorbed between two permutations, for a 256-bit digest */
};

static uint64_t rotate_left(uint64_t word, unsigned bits)
{
	return bits == 0 ? word : word << bits | word >> (64 - bits);
}

/* The permutation Keccak-f[1600] over 5 * 5 lanes, lane (x, y) at x + 5 * y. */
static void keccak_f(uint64_t lanes[25])
{
	static const uint64_t round_constants[KECCAK_ROUNDS] = { 0x0000000000000001,
		0x0000000000008082, 0x800000000000808a, 0x8000000080008000, 0x000000000000808b,
		0x0000000080000001, 0x8000000080008081, 0x8000000000008009, 0x000000000000008a,
		0x0000000000000088, 0x0000000080008009, 0x000000008000000a, 0x000000008000808b,
		0x800000000000008b, 0x8000000000008089, 0x8000000000008003, 0x8000000000008002,
		0x8000000000000080, 0x000000000000800a, 0x800000008000000a, 0x8000000080008081,
		0x8000000000008080, 0x0000000080000001, 0x8000000080008008 };

	for (size_t round = 0; round < KECCAK_ROUNDS; round++) {
		uint64_t parity[5], carried;
		size_t x, y;

		/* theta: every lane takes up the parity of two neighbouring columns */
		for (x = 0; x < 5; x++)
			parity[x] = lanes[x] ^ lanes[x + 5] ^ lanes[x + 10] ^ lanes[x + 15] ^
				    lanes[x + 20];
		for (x = 0; x < 5; x++) {
			uint64_t mix = parity[(x + 4) % 5] ^ rotate_left(parity[(x + 1) % 5], 1);

			for (y = 0; y < 25; y += 5)
				lanes[x + y] ^= mix;
		}

		/* rho and pi: lanes move along one cycle, the n-th turned by the n-th triangular
		 * number of bits */
		x = 1;
		y = 0;
		carried = lanes[1];
		for (unsigned step = 1; step <= 24; step++) {
			size_t next_x = y, next_y = (2 * x + 3 * y) % 5;
			uint64_t displaced = lanes[next_x + 5 * next_y];

			lanes[next_x + 5 * next_y] =
				rotate_left(carried, step * (step + 1) / 2 % 64);
			carried = displaced;
			x = next_x;
			y = next_y;
		}

		/* chi: the only non-linear step, along rows */
		for (y = 0; y < 25; y += 5) {
			uint64_t row[5];

			memcpy(row, lanes + y, sizeof row);
			for (x = 0; x < 5; x++)
				lanes[x + y] = row[x] ^ (~row[(x + 1) % 5] & row[(x + 2) % 5]);
		}

		lanes[0] ^= round_constants[round]; /* iota */
	}
}

/* Bytes enter lanes in little-endian order, whatever the machine's own is. */
static void absorb(uint64_t lanes[25], const uint8_t block[KECCAK_RATE])
{
	for (size_t i = 0; i < KECCAK_RATE; i++)
		lanes[i / 8] ^= (uint64_t)block[i] << (8 * (i % 8));
	keccak_f(lanes);
}

void keccak256_builtin(const void *bytes, size_t len, uint8_t digest[32])
{
	const uint8_t *at = bytes;
	uint64_t lanes[25] = { 0 };
	uint8_t last[KECCAK_RATE] = { 0 };

	for (; len >= KECCAK_RATE; len -= KECCAK_RATE, at += KECCAK_RATE)
		absorb(lanes, at);
	if (len > 0)
		memcpy(last, at, len);
	last[len] ^= 0x01; /* the padding of the original Keccak */
	last[KECCAK_RATE - 1] ^= 0x80;
	absorb(lanes, last);
	for (size_t i = 0; i < 32; i++)
		digest[i] = (uint8_t)(lanes[i / 8] >> (8 * (i % 8)));
}

/* OpenSSL's KECCAK-256, or NULL. Looked up once and kept for the life of the process. */
static EVP_MD *openssl_keccak(void)
{
	static EVP_MD *found;
	static bool looked_up;

	if (!looked_up) {
		ERR_set_mark();
		found = EVP_MD_fetch(NULL, "KECCAK-256", NULL);
		ERR_pop_to_mark(); /* that it has none is no error */
		looked_up = true;
	}
	return found;
}

void keccak256(const void *bytes, size_t len, uint8_t digest[32])
{
	const EVP_MD *keccak = openssl_keccak();

	if (keccak == NULL || EVP_Digest(bytes, len, digest, NULL, keccak, NULL) != 1)
		keccak256_builtin(bytes, len, digest);
}

/* ---- Hex ---- */

/* 0..15, or -1. */
static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

bool hex_decode(const char *hex, size_t count, uint8_t *bytes)
{
	for (size_t i = 0; i < count; i++) {
		int high = hex_value(hex[2 * i]);
		int low = high < 0 ? -1 : hex_value(hex[2 * i + 1]);

		if (low < 0)
			return false;
		bytes[i] = (uint8_t)(high << 4 | low);
	}
	return hex[2 * count] == '\0';
}

void hex_encode(const uint8_t *bytes, size_t count, char *hex)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < count; i++) {
		*hex++ = digits[bytes[i] >> 4];
		*hex++ = digits[bytes[i] & 15];
	}
	*hex = '\0';
}

/* Reads 0x and `count` bytes of hex into canonical[]; false, and canonical[] empty, on anything
 * else. */
static bool prefixed_hex(const char *text, size_t count, char *canonical)
{
	uint8_t bytes[32];

	canonical[0] = '\0';
	if (text[0] != '0' || text[1] != 'x' || !hex_decode(text + 2, count, bytes))
		return false;
	memcpy(canonical, "0x", 2);
	hex_encode(bytes, count, canonical + 2);
	return true;
}

/* ---- Addresses and hashes ---- */

/* EIP-55: a letter is upper case where the hash of the lower-case digits has a nibble of 8 or
 * more. */
void eth_address_checksum(const char *canonical, char mixed[ETH_ADDRESS_LEN + 1])
{
	uint8_t digest[32];

	keccak256(canonical + 2, 40, digest);
	memcpy(mixed, canonical, ETH_ADDRESS_LEN + 1);
	for (size_t i = 0; i < 40; i++) {
		unsigned nibble = i % 2 == 0 ? digest[i / 2] >> 4 : digest[i / 2] & 15u;
		char *c = &mixed[2 + i];

		if (nibble >= 8 && *c >= 'a' && *c <= 'f')
			*c = (char)(*c - 'a' + 'A');
	}
}

bool eth_address_parse(const char *text, char canonical[ETH_ADDRESS_LEN + 1], const char **why)
{
	char mixed[ETH_ADDRESS_LEN + 1];

	if (!prefixed_hex(text, 20, canonical)) {
		*why = "not 0x and 40 hex digits";
		return false;
	}
	if (strpbrk(text + 2, "abcdef") == NULL || strpbrk(text + 2, "ABCDEF") == NULL)
		return true;
	eth_address_checksum(canonical, mixed);
	if (strcmp(text, mixed) != 0) {
		canonical[0] = '\0';
		*why = "the EIP-55 checksum is wrong";
		return false;
	}
	return true;
}

bool eth_hash_parse(const char *text, char canonical[ETH_HASH_LEN + 1], const char **why)
{
	if (prefixed_hex(text, 32, canonical))
		return true;
	*why = "not 0x and 64 hex digits";
	return false;
}

/* ---- Integers ---- */

bool uint256_parse(const char *text, char canonical[UINT256_DIGITS + 1], const char **why)
{
	static const char most[] = "115792089237316195423570985008687907853269984665640564039457"
				   "584007913129639935"; /* 2^256 - 1 */
	size_t len = strspn(text, "0123456789");

	canonical[0] = '\0';
	if (len == 0 || text[len] != '\0') {
		*why = "not a whole number in decimal digits";
		return false;
	}
	while (len > 1 && *text == '0') {
		text++;
		len--;
	}
	if (len > UINT256_DIGITS || (len == UINT256_DIGITS && strcmp(text, most) > 0)) {
		*why = "larger than 2^256 - 1";
		return false;
	}
	memcpy(canonical, text, len + 1);
	return true;
}

bool feedback_value_parse(const char *text, const char **why)
{
	static const char most[] = "100000000000000000000000000000000000000"; /* 1e38 */
	const char *digits = text + (text[0] == '-');
	size_t len = strspn(digits, "0123456789");

	if (len == 0 || digits[len] != '\0' || (digits[0] == '0' && (len > 1 || digits != text))) {
		*why = "not an integer without leading zeros";
		return false;
	}
	if (len > strlen(most) || (len == strlen(most) && strcmp(digits, most) > 0)) {
		*why = "not within -1e38..1e38";
		return false;
	}
	return true;
}
