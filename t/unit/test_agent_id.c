/* SPDX-License-Identifier: Apache-2.0 */
/* The three forms in which an agent is named. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "app/registry/agent_id.h"

#define REGISTRY "0x8004a169fb4a3325136eb29fa0ceb6d2e539a432"
#define OTHER_REGISTRY "0x8004a818bfb912233c491871b3d84c89a494bd9e"
#define UINT256_LARGEST \
	"115792089237316195423570985008687907853269984665640564039457584007913129639935"

static const char *const aliases[] = { "baseSepolia", NULL };
static const char *const none[] = { NULL };
static const struct chain chains[] = {
	{ .name = "base", .aliases = none, .chain_id = 8453, .identity_registry = REGISTRY },
	{ .name = "base-sepolia",
		.aliases = aliases,
		.chain_id = 84532,
		.identity_registry = OTHER_REGISTRY },
};
static const struct settings settings = { .chains = chains, .chain_count = 2 };

static void a_uuid_names_an_agent_in_any_case(void **state)
{
	struct agent_id id;
	const char *why;

	(void)state;
	assert_int_equal(
		agent_id_parse(&settings, "B3287617-9d9d-4105-9969-EB7E67D0F210", &id, &why),
		AGENT_ID_OK);
	assert_int_equal(id.kind, AGENT_ID_UUID);
	assert_string_equal(id.uuid, "b3287617-9d9d-4105-9969-eb7e67d0f210");
}

static void chain_and_number_name_an_agent_of_the_configured_registry(void **state)
{
	struct agent_id id;
	const char *why;

	(void)state;
	assert_int_equal(agent_id_parse(&settings, "base:0", &id, &why), AGENT_ID_OK);
	assert_int_equal(id.kind, AGENT_ID_TOKEN);
	assert_ptr_equal(id.chain, &chains[0]);
	assert_string_equal(id.registry_address, REGISTRY);
	assert_string_equal(id.agent_id, "0");

	assert_int_equal(
		agent_id_parse(&settings, "baseSepolia:" UINT256_LARGEST, &id, &why), AGENT_ID_OK);
	assert_ptr_equal(id.chain, &chains[1]);
	assert_string_equal(id.agent_id, UINT256_LARGEST);
}

static void the_number_of_a_chain_names_it_too(void **state)
{
	struct agent_id id;
	const char *why;

	(void)state;
	assert_int_equal(agent_id_parse(&settings, "8453:42", &id, &why), AGENT_ID_OK);
	assert_int_equal(id.kind, AGENT_ID_TOKEN);
	assert_ptr_equal(id.chain, &chains[0]);
	assert_string_equal(id.registry_address, REGISTRY);
	assert_string_equal(id.agent_id, "42");
	assert_int_equal(agent_id_parse(&settings, "08453:42", &id, &why), AGENT_ID_NO_CHAIN);
	assert_int_equal(agent_id_parse(&settings, "8453x:42", &id, &why), AGENT_ID_NO_CHAIN);
	assert_int_equal(
		agent_id_parse(&settings, "18446744073709560069:42", &id, &why), AGENT_ID_NO_CHAIN);
	assert_int_equal(agent_id_parse(&settings, "8453:", &id, &why), AGENT_ID_MALFORMED);
}

static void the_global_form_names_the_registry_itself(void **state)
{
	struct agent_id id;
	const char *why;

	(void)state;
	assert_int_equal(
		agent_id_parse(&settings,
			"eip155:8453:0x8004A169FB4a3325136EB29fA0ceB6D2e539a432:42", &id, &why),
		AGENT_ID_OK);
	assert_ptr_equal(id.chain, &chains[0]);
	assert_string_equal(id.registry_address, REGISTRY);
	assert_string_equal(id.agent_id, "42");

	assert_int_equal(agent_id_parse(&settings, "eip155:8453:" OTHER_REGISTRY ":42", &id, &why),
		AGENT_ID_OK);
	assert_string_equal(id.registry_address, OTHER_REGISTRY);
}

static void a_chain_that_is_not_configured_is_told_apart(void **state)
{
	static const char *const unknown[] = { "polygon:1", "Base:1", "eip155:1:" REGISTRY ":1" };
	struct agent_id id;

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		const char *why = NULL;

		assert_int_equal(
			agent_id_parse(&settings, unknown[i], &id, &why), AGENT_ID_NO_CHAIN);
		assert_non_null(why);
	}
}

static void anything_else_is_malformed(void **state)
{
	static const char *const bad[] = { "", ":", "base", "base:", ":1", "base:-1", "base:1.0",
		"base:0x1", "base:1:2", "base: 1", "base:1 ", "base:" UINT256_LARGEST "0", "42",
		"b3287617-9d9d-4105-9969-eb7e67d0f21", "b3287617-9d9d-4105-9969-eb7e67d0f2100",
		"eip155:", "eip155:8453", "eip155:8453:" REGISTRY, "eip155:8453:" REGISTRY ":",
		"eip155::" REGISTRY ":1", "eip155:-8453:" REGISTRY ":1",
		"eip155:99999999999999999:" REGISTRY ":1", "eip155:8453:0x8004:1",
		"eip155:8453:0x8004a169FB4a3325136EB29fA0ceB6D2e539a432:1",
		"eip155:8453:" REGISTRY "0:1", "eip155:8453:" REGISTRY ":1:1" };
	struct agent_id id;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		const char *why = NULL;

		if (agent_id_parse(&settings, bad[i], &id, &why) != AGENT_ID_MALFORMED)
			fail_msg("\"%s\" is not malformed", bad[i]);
		assert_non_null(why);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_uuid_names_an_agent_in_any_case),
		cmocka_unit_test(chain_and_number_name_an_agent_of_the_configured_registry),
		cmocka_unit_test(the_number_of_a_chain_names_it_too),
		cmocka_unit_test(the_global_form_names_the_registry_itself),
		cmocka_unit_test(a_chain_that_is_not_configured_is_told_apart),
		cmocka_unit_test(anything_else_is_malformed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
