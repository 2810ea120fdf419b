/* SPDX-License-Identifier: Apache-2.0 */
/* lib/seal: what is not as it was sealed has no seal. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <endian.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "lib/seal.h"
#include "lib/siphash.h"

enum { NOW_S = 1700000000, UNTIL_S = NOW_S + 60, ROOM = 128 };

static const uint8_t key[SEAL_KEY_BYTES] = "the key of tests";

static bool holds(const char *name, const char *item, size_t len, uint64_t now_s)
{
	size_t own_len;

	return seal_holds(key, name, strlen(name), item, len, now_s, &own_len);
}

static void what_is_sealed_holds_until_its_time_is_over(void **state)
{
	char item[ROOM] = "a value";
	size_t own_len = 0;

	(void)state;
	for (size_t len = 0; len <= 40; len++) {
		seal_put(key, "name", 4, item, len, UNTIL_S);
		assert_true(seal_holds(key, "name", 4, item, len + SEAL_BYTES, NOW_S, &own_len));
		assert_int_equal(own_len, len);
		assert_true(holds("name", item, len + SEAL_BYTES, UNTIL_S));
		assert_false(holds("name", item, len + SEAL_BYTES, UNTIL_S + 1));
	}
}

static void no_bit_can_be_changed_and_no_length(void **state)
{
	char item[ROOM] = "a value";

	(void)state;
	for (size_t len = 0; len <= 20; len++) {
		seal_put(key, "name", 4, item, len, UNTIL_S);
		for (size_t bit = 0; bit < 8 * (len + SEAL_BYTES); bit++) {
			item[bit / 8] ^= (char)(1 << bit % 8);
			assert_false(holds("name", item, len + SEAL_BYTES, NOW_S));
			item[bit / 8] ^= (char)(1 << bit % 8);
		}
		for (size_t other = 0; other < ROOM; other++)
			if (other != len + SEAL_BYTES)
				assert_false(holds("name", item, other, NOW_S));
	}
}

static void an_item_belongs_to_its_name_and_to_its_key(void **state)
{
	const uint8_t other[SEAL_KEY_BYTES] = "another key";
	char item[ROOM] = "a value";
	size_t own_len;

	(void)state;
	seal_put(key, "name", 4, item, 7, UNTIL_S);
	assert_false(holds("names", item, 7 + SEAL_BYTES, NOW_S));
	assert_false(holds("nama", item, 7 + SEAL_BYTES, NOW_S));
	assert_false(holds("", item, 7 + SEAL_BYTES, NOW_S));
	assert_false(seal_holds(other, "name", 4, item, 7 + SEAL_BYTES, NOW_S, &own_len));
	/* Nothing moves between the end of the name and the beginning of the item. */
	assert_false(holds("namea", item + 1, 6 + SEAL_BYTES, NOW_S));
}

static void a_key_has_digits_that_stand_for_it(void **state)
{
	const uint8_t other[SEAL_KEY_BYTES] = "another key";
	char id[SEAL_ID], again[SEAL_ID], of_other[SEAL_ID];

	(void)state;
	seal_key_id(key, id);
	seal_key_id(key, again);
	seal_key_id(other, of_other);
	assert_string_equal(id, again);
	assert_string_not_equal(id, of_other);
	assert_int_equal(strspn(id, "0123456789abcdef"), SEAL_ID - 1);
}

static void openssl_tag(const uint8_t *message, size_t len, uint8_t tag[SIPHASH_TAG])
{
	EVP_MAC *mac = EVP_MAC_fetch(NULL, "SIPHASH", NULL);
	EVP_MAC_CTX *context = EVP_MAC_CTX_new(mac);
	size_t size = SIPHASH_TAG;

	assert_int_equal(EVP_MAC_init(context, key, sizeof key, NULL), 1); /* 16 bytes by default */
	assert_int_equal(EVP_MAC_update(context, message, len), 1);
	assert_int_equal(EVP_MAC_final(context, tag, &size, SIPHASH_TAG), 1);
	assert_int_equal(size, SIPHASH_TAG);
	EVP_MAC_CTX_free(context);
	EVP_MAC_free(mac);
}

/* Of the message that the header describes: of each part its length, its bytes, zero bytes. */
static void the_tag_is_that_of_openssl(void **state)
{
	(void)state;
	for (size_t first = 0; first <= 20; first++) {
		for (size_t second = 0; second <= 300; second += 1 + second / 20) {
			uint8_t a[20], b[300], message[400] = { 0 };
			uint8_t ours[SIPHASH_TAG], theirs[SIPHASH_TAG];
			const struct siphash_part parts[] = { { a, first }, { b, second } };
			size_t at = 0;

			for (size_t i = 0; i < 2; i++) {
				const uint64_t len = htole64(parts[i].len);
				uint8_t *bytes = i == 0 ? a : b;

				for (size_t j = 0; j < parts[i].len; j++)
					bytes[j] = (uint8_t)rand();
				memcpy(message + at, &len, 8);
				memcpy(message + at + 8, bytes, parts[i].len);
				at += 8 + (parts[i].len + 7) / 8 * 8;
			}
			siphash_tag(key, parts, 2, ours);
			openssl_tag(message, at, theirs);
			assert_memory_equal(ours, theirs, SIPHASH_TAG);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_sealed_holds_until_its_time_is_over),
		cmocka_unit_test(no_bit_can_be_changed_and_no_length),
		cmocka_unit_test(an_item_belongs_to_its_name_and_to_its_key),
		cmocka_unit_test(a_key_has_digits_that_stand_for_it),
		cmocka_unit_test(the_tag_is_that_of_openssl),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("lib/seal", tests, NULL, NULL);
}
