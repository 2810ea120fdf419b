/* SPDX-License-Identifier: Apache-2.0 */
/* Which texts are signatures, what is signed, and whose signature it is. Signatures are made here by
 * libsecp256k1 itself; the key and the digests in the first tests are published ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <secp256k1.h>
#include <secp256k1_recovery.h>

#include "lib/eth_signature.h"

/* n - 1 halves to this: the largest s that EIP-2 allows. */
#define HALF_ORDER "7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0"
#define ABOVE_HALF "7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a1"
#define ORDER "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141"
#define ZERO "0000000000000000000000000000000000000000000000000000000000000000"
#define ONE "0000000000000000000000000000000000000000000000000000000000000001"

static secp256k1_context *signer;

static int set_up(void **state)
{
	(void)state;
	signer = secp256k1_context_create(SECP256K1_CONTEXT_NONE);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	secp256k1_context_destroy(signer);
	return 0;
}

/* The personal signature of the text by a secret key, as 0x and 130 digits. */
static void sign(const char *secret_hex, const char *text, char signature[133])
{
	secp256k1_ecdsa_recoverable_signature made;
	uint8_t secret[32], digest[32], bytes[65];
	int id;

	assert_true(hex_decode(secret_hex, 32, secret));
	eth_personal_digest(text, strlen(text), digest);
	assert_true(secp256k1_ecdsa_sign_recoverable(signer, &made, digest, secret, NULL, NULL));
	secp256k1_ecdsa_recoverable_signature_serialize_compact(signer, bytes, &id, &made);
	bytes[64] = (uint8_t)(27 + id);
	memcpy(signature, "0x", 2);
	hex_encode(bytes, 65, signature + 2);
}

/* The address that a signature of the text gives, "" for none. */
static const char *signer_of(const char *text, const char *signature)
{
	static char address[ETH_ADDRESS_LEN + 1];
	uint8_t bytes[65], digest[32];
	const char *why;

	if (!eth_signature_parse(signature, bytes, &why))
		fail_msg("%s: %s", signature, why);
	eth_personal_digest(text, strlen(text), digest);
	return eth_recover(digest, bytes, address) ? address : "";
}

/* Digests that wallets and libraries show for these texts. */
static void the_digest_is_that_of_personal_sign(void **state)
{
	static const char *const digests[][2] = {
		{ "", "5f35dce98ba4fba25530a026ed80b2cecdaa31091ba4958b99b52ea1d068adad" },
		{ "Hello World",
			"a1de988600a42c4b4ab089b619297c17d53cffae5d5120d82d8a92d0bb3b78f2" },
		{ "hello world",
			"d9eba16ed0ecae432b71fe008c98cc872bb4cc214d3220a36f365326cf807d68" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof digests / sizeof *digests; i++) {
		uint8_t digest[32];
		char hex[65];

		eth_personal_digest(digests[i][0], strlen(digests[i][0]), digest);
		hex_encode(digest, sizeof digest, hex);
		assert_string_equal(hex, digests[i][1]);
	}
}

static void the_length_is_counted_in_bytes_and_written_in_decimal(void **state)
{
	char text[1001], whole[1100];
	uint8_t digest[32], expected[32];

	(void)state;
	memset(text, 'a', 1000);
	text[1000] = '\0';
	memcpy(text, "\xc3\xa9", 2); /* one character, two bytes */
	snprintf(whole, sizeof whole, "\x19%s%s", "Ethereum Signed Message:\n1000", text);
	eth_personal_digest(text, 1000, digest);
	keccak256(whole, strlen(whole), expected);
	assert_memory_equal(digest, expected, 32);
}

/* The secret keys 1, and the keccak-256 of "cow", and their well-known addresses. */
static void a_signature_names_the_wallet_that_made_it(void **state)
{
	static const char *const wallets[][2] = {
		{ ONE, "0x7e5f4552091a69125d5dfcb7b8c2659029395bdf" },
		{ "c85ef7d79691fe79573b1a7064c19c1a9819ebdbd1faaab1a8ec92344438aaf4",
			"0xcd2a3d9f938e13cd947ec05abc7fe734df8dd826" },
	};
	static const char *const texts[] = { "", "a", "Hello World", "two\nlines\n" };
	char signature[133];

	(void)state;
	for (size_t w = 0; w < sizeof wallets / sizeof *wallets; w++)
		for (size_t t = 0; t < sizeof texts / sizeof *texts; t++) {
			sign(wallets[w][0], texts[t], signature);
			assert_string_equal(signer_of(texts[t], signature), wallets[w][1]);
		}
}

static void v_may_be_0_or_1_as_well_as_27_or_28(void **state)
{
	static const char *const owner = "0x7e5f4552091a69125d5dfcb7b8c2659029395bdf";
	bool seen[2] = { false, false };
	char text[16], signature[133];

	(void)state;
	for (int i = 0; i < 20; i++) {
		bool odd;

		snprintf(text, sizeof text, "text %d", i);
		sign(ONE, text, signature);
		odd = signature[131] == 'c';
		seen[odd] = true;
		assert_string_equal(signer_of(text, signature), owner);
		strcpy(signature + 130, odd ? "01" : "00");
		assert_string_equal(signer_of(text, signature), owner);
		strcpy(signature + 130, odd ? "00" : "01"); /* the other point: another key */
		assert_string_not_equal(signer_of(text, signature), owner);
	}
	assert_true(seen[0] && seen[1]);
}

static void a_signature_of_another_text_names_another_wallet(void **state)
{
	char signature[133];

	(void)state;
	sign(ONE, "Pay 1", signature);
	assert_string_not_equal(
		signer_of("Pay 2", signature), "0x7e5f4552091a69125d5dfcb7b8c2659029395bdf");
	assert_string_not_equal(
		signer_of("Pay 1\n", signature), "0x7e5f4552091a69125d5dfcb7b8c2659029395bdf");
}

/* Changing any byte of r or s gives another wallet or none. */
static void an_altered_signature_does_not_name_the_wallet(void **state)
{
	static const char *const text = "Hello World";
	char good[133], altered[133];

	(void)state;
	sign(ONE, text, good);
	for (size_t i = 2; i < 130; i++) {
		uint8_t bytes[65], digest[32];
		char address[ETH_ADDRESS_LEN + 1];
		const char *why;

		strcpy(altered, good);
		altered[i] = altered[i] == '5' ? '6' : '5';
		if (!eth_signature_parse(altered, bytes, &why))
			continue; /* s has become too large */
		eth_personal_digest(text, strlen(text), digest);
		if (eth_recover(digest, bytes, address))
			assert_string_not_equal(
				address, "0x7e5f4552091a69125d5dfcb7b8c2659029395bdf");
		else
			assert_string_equal(address, "");
	}
}

/* r = 5 is the abscissa of no point on the curve: y² = x³ + 7 has no root there. */
static void a_signature_that_no_key_can_have_made_names_nobody(void **state)
{
	static const char hopeless[] =
		"0x0000000000000000000000000000000000000000000000000000000000000005" ONE "1b";

	(void)state;
	assert_string_equal(signer_of("Hello World", hopeless), "");
}

static void refused(const char *text, const char *expected)
{
	uint8_t bytes[65];
	const char *why = NULL;

	if (eth_signature_parse(text, bytes, &why))
		fail_msg("%s: accepted", text);
	assert_string_equal(why, expected);
}

static void what_is_not_65_bytes_of_hex_is_no_signature(void **state)
{
	static const char why[] = "not 0x and 130 hex digits";

	(void)state;
	refused("", why);
	refused("0", why);
	refused("0x", why);
	refused("0x" ONE ONE, why);
	refused("0x" ONE ONE "1", why);
	refused("0x" ONE ONE "1b0", why);
	refused("0x" ONE ONE "1b00", why);
	refused("0x" ONE ONE "1g", why);
	refused("0X" ONE ONE "1b", why);
	refused(ONE ONE "1b", why);
	refused("0x" ONE ONE "1b ", why);
	refused(" 0x" ONE ONE "1b", why);
}

static void v_of_any_other_value_is_refused(void **state)
{
	(void)state;
	for (unsigned v = 0; v < 256; v++) {
		char text[133];
		uint8_t bytes[65];
		const char *why;

		snprintf(text, sizeof text, "0x" ONE ONE "%02x", v);
		if (v == 0 || v == 1 || v == 27 || v == 28)
			assert_true(eth_signature_parse(text, bytes, &why));
		else
			refused(text, "a signature whose v is none of 0, 1, 27 and 28");
	}
}

static void r_and_s_stay_within_the_order_of_the_curve(void **state)
{
	static const char why[] = "a signature whose r or s is not within the order of the curve";

	(void)state;
	refused("0x" ZERO ONE "1b", why);
	refused("0x" ONE ZERO "1b", why);
	refused("0x" ORDER ONE "1b", why);
	refused("0x" ONE ORDER "1b", why);
}

static void s_stays_in_the_lower_half_of_the_order(void **state)
{
	static const char why[] = "a signature whose s is in the upper half of the order (EIP-2)";
	uint8_t bytes[65];
	const char *unused;

	(void)state;
	assert_true(eth_signature_parse("0x" ONE HALF_ORDER "1b", bytes, &unused));
	refused("0x" ONE ABOVE_HALF "1b", why);
}

/* n - s with the other v is a signature of the same text by the same key: there must be one only. */
static void the_mirror_image_of_a_good_signature_is_refused(void **state)
{
	char text[133];
	uint8_t s[32], mirrored[32];

	(void)state;
	sign(ONE, "Hello World", text);
	for (size_t i = 0; i < 32; i++)
		s[i] = (uint8_t)strtoul(
			(char[]){ text[66 + 2 * i], text[67 + 2 * i], '\0' }, NULL, 16);
	memcpy(mirrored, s, 32);
	assert_true(secp256k1_ec_seckey_negate(signer, mirrored)); /* n - s */
	hex_encode(mirrored, 32, text + 66);
	strcpy(text + 130, "1b");
	refused(text, "a signature whose s is in the upper half of the order (EIP-2)");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_digest_is_that_of_personal_sign),
		TEST(the_length_is_counted_in_bytes_and_written_in_decimal),
		TEST(a_signature_names_the_wallet_that_made_it),
		TEST(v_may_be_0_or_1_as_well_as_27_or_28),
		TEST(a_signature_of_another_text_names_another_wallet),
		TEST(an_altered_signature_does_not_name_the_wallet),
		TEST(a_signature_that_no_key_can_have_made_names_nobody),
		TEST(what_is_not_65_bytes_of_hex_is_no_signature),
		TEST(v_of_any_other_value_is_refused),
		TEST(r_and_s_stay_within_the_order_of_the_curve),
		TEST(s_stays_in_the_lower_half_of_the_order),
		TEST(the_mirror_image_of_a_good_signature_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
