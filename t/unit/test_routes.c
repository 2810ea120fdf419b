/* SPDX-License-Identifier: Apache-2.0 */
/* Who may call what: access, tier, scope and limits of a route against a caller; and that the table
 * itself makes sense. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "app/routes.h"

static const uint32_t some[TIERS] = { 10, 10, 10, 10 };
static const uint32_t none_for_free[TIERS] = { 10, 0, 10, 10 };
static const uint32_t none_for_anonymous[TIERS] = { 0, 10, 10, 10 };

static const struct caller_record free_caller = { .tier = TIER_FREE, .scopes = "other:write" };
static const struct caller_record pro_caller = { .tier = TIER_PRO, .scopes = "" };
static const struct caller_record facilitator = { .tier = TIER_FREE,
	.scopes = "other:write payments:write" };

static void open_route_takes_anyone(void **state)
{
	const struct route route = { .access = FOR_ANYONE };

	(void)state;
	assert_int_equal(route_check(&route, some, NULL), ROUTE_OPEN);
	assert_int_equal(route_check(&route, some, &free_caller), ROUTE_OPEN);
}

static void route_for_keys_refuses_who_has_none(void **state)
{
	const struct route route = { .access = FOR_KEY };

	(void)state;
	assert_int_equal(route_check(&route, some, NULL), ROUTE_NEEDS_KEY);
	assert_int_equal(route_check(&route, some, &free_caller), ROUTE_OPEN);
}

static void route_of_a_tier_takes_that_tier_and_higher(void **state)
{
	struct route route = { .access = FOR_KEY, .tier = TIER_PRO };

	(void)state;
	assert_int_equal(route_check(&route, some, NULL), ROUTE_NEEDS_KEY);
	assert_int_equal(route_check(&route, some, &free_caller), ROUTE_NEEDS_TIER);
	assert_int_equal(route_check(&route, some, &pro_caller), ROUTE_OPEN);
	route.tier = TIER_ENTERPRISE;
	assert_int_equal(route_check(&route, some, &pro_caller), ROUTE_NEEDS_TIER);
	route.access = FOR_ANYONE; /* a tier can only be a caller's who has a key */
	assert_int_equal(route_check(&route, some, NULL), ROUTE_NEEDS_KEY);
}

static void route_with_a_scope_needs_that_very_word(void **state)
{
	const struct route route = { .access = FOR_KEY, .scope = "payments:write" };
	const struct route part = { .access = FOR_KEY, .scope = "payments:writ" };

	(void)state;
	assert_int_equal(route_check(&route, some, NULL), ROUTE_NEEDS_KEY);
	assert_int_equal(route_check(&route, some, &free_caller), ROUTE_NEEDS_SCOPE);
	assert_int_equal(route_check(&route, some, &pro_caller), ROUTE_NEEDS_SCOPE);
	assert_int_equal(route_check(&route, some, &facilitator), ROUTE_OPEN);
	assert_int_equal(route_check(&part, some, &facilitator), ROUTE_NEEDS_SCOPE);
}

static void class_without_calls_for_a_tier_is_closed_to_it(void **state)
{
	const struct route route = { .access = FOR_ANYONE };

	(void)state;
	assert_int_equal(route_check(&route, none_for_free, &free_caller), ROUTE_CLOSED_TO_TIER);
	assert_int_equal(route_check(&route, none_for_free, &pro_caller), ROUTE_OPEN);
	assert_int_equal(route_check(&route, none_for_free, NULL), ROUTE_OPEN);
	assert_int_equal(route_check(&route, none_for_anonymous, NULL), ROUTE_NEEDS_KEY);
}

/* What changes something must be traceable, limited, and never stored by a proxy. */
static void every_route_of_the_table_is_complete(void **state)
{
	(void)state;
	for (size_t i = 0; i < route_count; i++) {
		const struct route *route = &routes[i];
		bool is_read = route->path.method == HTTP_GET;

		assert_non_null(route->serve);
		assert_int_equal(route->access == FOR_OPERATOR, route->rate == RATE_NONE);
		if (is_read)
			assert_null(route->audits);
		else
			assert_int_not_equal(route->caching, REVALIDATE);
		/* Asking for a text to sign is the one call that posts and changes nothing. */
		if (!is_read && strstr(route->path.template, "/auth/challenge") == NULL)
			assert_non_null(route->audits);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(open_route_takes_anyone),
		cmocka_unit_test(route_for_keys_refuses_who_has_none),
		cmocka_unit_test(route_of_a_tier_takes_that_tier_and_higher),
		cmocka_unit_test(route_with_a_scope_needs_that_very_word),
		cmocka_unit_test(class_without_calls_for_a_tier_is_closed_to_it),
		cmocka_unit_test(every_route_of_the_table_is_complete),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
