/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sign-in texts (EIP-4361): what is read from any text is within the grammar, and written and read
 * again it is the same.
 */
#include "t/fuzz/fuzz.h"

#include <string.h>

#include "lib/rfc3339.h"
#include "lib/siwe.h"

static void require_one_line(const char *text)
{
	for (; *text != '\0'; text++)
		REQUIRE((unsigned char)*text >= ' ' && *text != 0x7f);
}

static void check_fields(const struct siwe *siwe)
{
	char canonical[ETH_ADDRESS_LEN + 1];
	const char *why;

	REQUIRE(siwe->domain[0] != '\0' && strpbrk(siwe->domain, " /?#") == NULL);
	REQUIRE(eth_address_parse(siwe->address, canonical, &why));
	REQUIRE(strcmp(siwe->address, canonical) == 0);
	REQUIRE(siwe->uri[0] != '\0' && strchr(siwe->uri, ' ') == NULL);
	REQUIRE(strlen(siwe->nonce) >= 8);
	REQUIRE(strspn(siwe->nonce, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				    "0123456789") == strlen(siwe->nonce));
	REQUIRE(rfc3339_check(siwe->issued_at, &why));
	REQUIRE(siwe->expires_at == NULL || rfc3339_check(siwe->expires_at, &why));
	require_one_line(siwe->domain);
	require_one_line(siwe->uri);
	if (siwe->statement != NULL)
		require_one_line(siwe->statement);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct arena *arena = fuzz_arena();
	const char *text = fuzz_text(arena, data, size), *why = NULL;
	struct siwe siwe, again;

	memset(&siwe, 0xa5, sizeof siwe); /* siwe_read() sets every member, or it shows */
	memset(&again, 0x5a, sizeof again);
	if (!siwe_read(arena, text, &siwe, &why)) {
		REQUIRE(why != NULL && why[0] != '\0');
		return 0;
	}
	REQUIRE(strlen(text) <= 4096);
	check_fields(&siwe);
	REQUIRE(siwe_read(arena, siwe_write(arena, &siwe), &again, &why));
	REQUIRE(fuzz_same(siwe.domain, again.domain));
	REQUIRE(fuzz_same(siwe.address, again.address));
	REQUIRE(fuzz_same(siwe.statement, again.statement));
	REQUIRE(fuzz_same(siwe.uri, again.uri));
	REQUIRE(siwe.chain_id == again.chain_id);
	REQUIRE(fuzz_same(siwe.nonce, again.nonce));
	REQUIRE(fuzz_same(siwe.issued_at, again.issued_at));
	REQUIRE(fuzz_same(siwe.expires_at, again.expires_at));
	fuzz_require_little_memory(arena, size);
	return 0;
}
