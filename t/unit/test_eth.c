/* SPDX-License-Identifier: Apache-2.0 */
/* Keccak-256 against published digests, and which texts are addresses, hashes and integers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "lib/eth.h"

/* Both entry points must give `expected`, in hex without 0x. */
static void check_keccak(const void *bytes, size_t len, const char *expected)
{
	void (*const entry_points[])(
		const void *, size_t, uint8_t *) = { keccak256, keccak256_builtin };

	for (size_t i = 0; i < 2; i++) {
		uint8_t digest[32];
		char hex[65];

		entry_points[i](bytes, len, digest);
		hex_encode(digest, sizeof digest, hex);
		assert_string_equal(hex, expected);
	}
}

static void keccak256_gives_the_published_digests(void **state)
{
	static const char fox[] = "The quick brown fox jumps over the lazy dog";

	(void)state;
	check_keccak("", 0, "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470");
	check_keccak(NULL, 0, "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470");
	check_keccak("abc", 3, "4e03657aea45a94fc7d47ba826c8d667c0d1e6e33a64a036ec44f58fa12d6c45");
	check_keccak(fox, strlen(fox),
		"4d741b6f1eb29cb2a9b9911c82f56fa8d73b04959d3d9d222895df6c0b28aa15");
}

/* The digests are those of the same permutation that, with SHA-3's padding, agrees with OpenSSL's
 * SHA3-256 at every length from 0 to 1999. */
static void keccak256_is_right_around_the_block_size_of_136_bytes(void **state)
{
	static const struct {
		size_t len;
		const char *digest; /* of that many letters a */
	} cases[] = {
		{ 135, "34367dc248bbd832f4e3e69dfaac2f92638bd0bbd18f2912ba4ef454919cf446" },
		{ 136, "a6c4d403279fe3e0af03729caada8374b5ca54d8065329a3ebcaeb4b60aa386e" },
		{ 137, "d869f639c7046b4929fc92a4d988a8b22c55fbadb802c0c66ebcd484f1915f39" },
		{ 271, "132f47effd6c8b1b299efa53fe68aece77ec8ae4eb2e294f668eec94f76001e1" },
		{ 272, "cf7fcd4f705ee749930d19ca84561a9bf62516bd90a471545fa2f49fdc7e63c8" },
		{ 273, "5a7b8187d2778e614097fac3097573de1fee4d972304d3360796a857029bb176" },
	};
	char text[300];

	(void)state;
	memset(text, 'a', sizeof text);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		check_keccak(text, cases[i].len, cases[i].digest);
}

static void signatures_of_the_registries_hash_to_their_topics(void **state)
{
	static const char *const topics[][2] = {
		{ "Transfer(address,address,uint256)",
			"ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef" },
		{ "Registered(uint256,string,address)",
			"ca52e62c367d81bb2e328eb795f7c7ba24afb478408a26c0e201d155c449bc4a" },
		{ "MetadataSet(uint256,string,string,bytes)",
			"2c149ed548c6d2993cd73efe187df6eccabe4538091b33adbd25fafdb8a1468b" },
		{ "URIUpdated(uint256,string,address)",
			"3a2c7fffc2cba7582c690e3b82c453ea02a308326a98a3ad7576c606336409fb" },
		{ "NewFeedback(uint256,address,uint64,int128,uint8,string,string,string,string,"
		  "string,bytes32)",
			"6a4a61743519c9d648a14e6493f47dbe3ff1aa29e7785c96c8326a205e58febc" },
		{ "FeedbackRevoked(uint256,address,uint64)",
			"25156fd3288212246d8b008d5921fde376c71ed14ac2e072a506eb06fde6d09d" },
		{ "ResponseAppended(uint256,address,uint64,address,string,bytes32)",
			"b1c6be0b5b8aef6539e2fac0fd131a2faa7b49edf8e505b5eb0ad487d56051d4" },
		{ "ValidationRequest(address,uint256,string,bytes32)",
			"530436c3634a98e1e626b0898be2f1e9980cc1bd2a78c07a0aba52d0a48a5059" },
		{ "ValidationResponse(address,uint256,bytes32,uint8,string,bytes32,string)",
			"afddf629e874ccc3963b6a888c477bd464a6c8525024fc88759ea3b2326349ae" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof topics / sizeof *topics; i++)
		check_keccak(topics[i][0], strlen(topics[i][0]), topics[i][1]);
}

static void signatures_of_functions_hash_to_their_selectors(void **state)
{
	static const char *const selectors[][2] = {
		{ "register()", "1aa3a008" },
		{ "register(string)", "f2c298be" },
		{ "register(string,(string,bytes)[])", "8ea42286" },
		{ "setAgentURI(uint256,string)", "0af28bd3" },
		{ "setMetadata(uint256,string,bytes)", "466648da" },
		{ "setAgentWallet(uint256,address,uint256,bytes)", "2d1ef5ae" },
		{ "tokenURI(uint256)", "c87b56dd" },
		{ "ownerOf(uint256)", "6352211e" },
		{ "getAgentWallet(uint256)", "00339509" },
		{ "giveFeedback(uint256,int128,uint8,string,string,string,string,bytes32)",
			"3c036a7e" },
		{ "revokeFeedback(uint256,uint64)", "4ab3ca99" },
		{ "appendResponse(uint256,address,uint64,string,bytes32)", "c2349ab2" },
		{ "getSummary(uint256,address[],string,string)", "81bbba58" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof selectors / sizeof *selectors; i++) {
		uint8_t digest[32];
		char hex[9];

		keccak256(selectors[i][0], strlen(selectors[i][0]), digest);
		hex_encode(digest, 4, hex);
		assert_string_equal(hex, selectors[i][1]);
	}
}

/* The test addresses of EIP-55. */
static const char *const eip55[] = {
	"0x52908400098527886E0F7030069857D2E4169EE7", /* all upper case */
	"0x8617E340B3D01FA5F11F306F4090FD50E238070D",
	"0xde709f2102306220921060314715629080e2fb77", /* all lower case */
	"0x27b1fdb04752bbc536007a920d24acb045561c26",
	"0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
	"0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
	"0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
	"0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
};

static void addresses_of_eip55_are_read_and_written_back(void **state)
{
	char canonical[ETH_ADDRESS_LEN + 1], mixed[ETH_ADDRESS_LEN + 1];
	const char *why;

	(void)state;
	for (size_t i = 0; i < sizeof eip55 / sizeof *eip55; i++) {
		assert_true(eth_address_parse(eip55[i], canonical, &why));
		assert_int_equal(strlen(canonical), ETH_ADDRESS_LEN);
		assert_null(strpbrk(canonical, "ABCDEF"));
		eth_address_checksum(canonical, mixed);
		assert_string_equal(mixed, eip55[i]);
	}
}

static void a_mixed_case_address_with_a_wrong_letter_is_refused(void **state)
{
	char canonical[ETH_ADDRESS_LEN + 1], text[ETH_ADDRESS_LEN + 1];
	const char *why;

	(void)state;
	for (size_t i = 2; i < ETH_ADDRESS_LEN; i++) {
		strcpy(text, eip55[4]);
		if (text[i] <= '9')
			continue;
		text[i] = (char)(text[i] ^ 0x20);
		assert_false(eth_address_parse(text, canonical, &why));
		assert_string_equal(why, "the EIP-55 checksum is wrong");
		assert_string_equal(canonical, "");
	}
}

static void what_is_no_address_is_refused(void **state)
{
	static const char *const texts[] = { "", "0", "0x",
		"0X52908400098527886e0f7030069857d2e4169ee7",
		"52908400098527886e0f7030069857d2e4169ee7",
		"0x52908400098527886e0f7030069857d2e4169ee",
		"0x52908400098527886e0f7030069857d2e4169ee77",
		"0x52908400098527886e0f7030069857d2e4169eeg",
		" 0x52908400098527886e0f7030069857d2e4169ee7",
		"0x52908400098527886e0f7030069857d2e4169ee7 " };
	char canonical[ETH_ADDRESS_LEN + 1];
	const char *why;

	(void)state;
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		assert_false(eth_address_parse(texts[i], canonical, &why));
		assert_string_equal(why, "not 0x and 40 hex digits");
		assert_string_equal(canonical, "");
	}
}

static void hashes_are_read_in_any_case(void **state)
{
	char canonical[ETH_HASH_LEN + 1];
	const char *why;

	(void)state;
	assert_true(
		eth_hash_parse("0xDDf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3EF",
			canonical, &why));
	assert_string_equal(
		canonical, "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef");
	assert_false(
		eth_hash_parse("0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3",
			canonical, &why));
	assert_string_equal(why, "not 0x and 64 hex digits");
	assert_string_equal(canonical, "");
	assert_false(eth_hash_parse(eip55[0], canonical, &why));
}

#define MOST_UINT256 \
	"115792089237316195423570985008687907853269984665640564039457584007913129639935"

static void agent_ids_reach_from_0_to_the_largest_uint256(void **state)
{
	char canonical[UINT256_DIGITS + 1];
	const char *why;

	(void)state;
	assert_true(uint256_parse("0", canonical, &why));
	assert_string_equal(canonical, "0");
	assert_true(uint256_parse("0000", canonical, &why));
	assert_string_equal(canonical, "0");
	assert_true(uint256_parse("00042", canonical, &why));
	assert_string_equal(canonical, "42");
	assert_true(uint256_parse("000" MOST_UINT256, canonical, &why));
	assert_string_equal(canonical, MOST_UINT256);
	assert_false(
		uint256_parse("1157920892373161954235709850086879078532699846656405640394575840"
			      "07913129639936",
			canonical, &why));
	assert_string_equal(why, "larger than 2^256 - 1");
	assert_string_equal(canonical, "");
	assert_false(uint256_parse(MOST_UINT256 "0", canonical, &why));
}

static void what_is_no_whole_number_is_no_agent_id(void **state)
{
	static const char *const texts[] = { "", "-1", "+1", " 1", "1 ", "1.0", "1e3", "0x10",
		"a" };
	char canonical[UINT256_DIGITS + 1];
	const char *why;

	(void)state;
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		assert_false(uint256_parse(texts[i], canonical, &why));
		assert_string_equal(why, "not a whole number in decimal digits");
	}
}

static void feedback_values_reach_from_minus_1e38_to_1e38(void **state)
{
	static const char *const good[] = { "0", "1", "-1", "100",
		"99999999999999999999999999999999999999", "100000000000000000000000000000000000000",
		"-100000000000000000000000000000000000000" };
	static const char *const bad[] = { "", "-", "+1", "01", "-0", "-01", "1.0", "1e2", " 1",
		"100000000000000000000000000000000000001",
		"-100000000000000000000000000000000000001",
		"1000000000000000000000000000000000000000" };
	const char *why;

	(void)state;
	for (size_t i = 0; i < sizeof good / sizeof *good; i++)
		assert_true(feedback_value_parse(good[i], &why));
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		why = NULL;
		assert_false(feedback_value_parse(bad[i], &why));
		assert_non_null(why);
	}
}

static void hex_is_decoded_only_at_its_exact_length(void **state)
{
	uint8_t bytes[3];
	char hex[7];

	(void)state;
	assert_true(hex_decode("00fFa5", 3, bytes));
	assert_memory_equal(bytes, "\x00\xff\xa5", 3);
	hex_encode(bytes, 3, hex);
	assert_string_equal(hex, "00ffa5");
	assert_true(hex_decode("", 0, bytes));
	assert_false(hex_decode("00ffa", 3, bytes));
	assert_false(hex_decode("00ffa50", 3, bytes));
	assert_false(hex_decode("00ffg5", 3, bytes));
	assert_false(hex_decode("", 3, bytes));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keccak256_gives_the_published_digests),
		cmocka_unit_test(keccak256_is_right_around_the_block_size_of_136_bytes),
		cmocka_unit_test(signatures_of_the_registries_hash_to_their_topics),
		cmocka_unit_test(signatures_of_functions_hash_to_their_selectors),
		cmocka_unit_test(addresses_of_eip55_are_read_and_written_back),
		cmocka_unit_test(a_mixed_case_address_with_a_wrong_letter_is_refused),
		cmocka_unit_test(what_is_no_address_is_refused),
		cmocka_unit_test(hashes_are_read_in_any_case),
		cmocka_unit_test(agent_ids_reach_from_0_to_the_largest_uint256),
		cmocka_unit_test(what_is_no_whole_number_is_no_agent_id),
		cmocka_unit_test(feedback_values_reach_from_minus_1e38_to_1e38),
		cmocka_unit_test(hex_is_decoded_only_at_its_exact_length),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
