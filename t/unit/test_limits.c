/* SPDX-License-Identifier: Apache-2.0 */
/* The limits of API.md are the defaults, and areg.conf can say others. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "app/registry/limits.h"
#include "lib/limiter.h"

/* API.md, "Rate limits": anonymous, free, pro, enterprise. */
static const struct {
	enum rate_class class;
	const char *name;
	uint32_t row[TIERS];
} documented[] = {
	{ RATE_REGISTER, "register", { 0, 10, 60, 600 } },
	{ RATE_FEEDBACK, "feedback", { 0, 100, 600, 6000 } },
	{ RATE_PAYMENTS, "payments", { 0, 50, 500, 5000 } },
	{ RATE_SEARCH, "search", { 60, 300, 1500, 15000 } },
	{ RATE_READ, "read", { 120, 1000, 5000, 50000 } },
	{ RATE_SIGN_IN, "sign_in", { 10, 10, 10, 10 } },
};
enum { DOCUMENTED = sizeof documented / sizeof *documented };

static void defaults_and_names_are_those_documented(void **state)
{
	(void)state;
	assert_int_equal(DOCUMENTED, RATE_CLASSES - 1);
	for (size_t i = 0; i < DOCUMENTED; i++) {
		assert_string_equal(rate_class_name(documented[i].class), documented[i].name);
		assert_memory_equal(rate_defaults[documented[i].class], documented[i].row,
			sizeof documented[i].row);
	}
	assert_string_equal(rate_class_name(RATE_NONE), "none");
}

static void four_numbers_are_read(void **state)
{
	static const struct {
		const char *text;
		uint32_t row[TIERS];
	} cases[] = {
		{ "1 2 3 4", { 1, 2, 3, 4 } },
		{ "- 10 60 600", { 0, 10, 60, 600 } },
		{ "0 - 0 -", { 0, 0, 0, 0 } },
		{ "  250000\t249999  007 1\t", { 250000, 249999, 7, 1 } },
	};
	const char *why = NULL;
	uint32_t row[TIERS];

	(void)state;
	assert_int_equal(LIMIT_MOST, 250000);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		assert_true(rate_row_parse(cases[i].text, row, &why));
		assert_memory_equal(row, cases[i].row, sizeof row);
	}
}

static void anything_else_is_refused_with_the_reason(void **state)
{
	static const char count[] = "is not four numbers, for anonymous, free, pro and enterprise";
	static const char range[] = "has a number that is neither within 0..250000 nor -";
	static const struct {
		const char *text, *why;
	} cases[] = {
		{ "", count },
		{ "   ", count },
		{ "1 2 3", count },
		{ "1 2 3 4 5", count },
		{ "1 2 3 4 x", count },
		{ "1,2,3,4", range },
		{ "1 2 3 250001", range },
		{ "1 2 3 99999999999999999999", range },
		{ "1 2 3 4294967297", range },
		{ "1 2 3 -4", range },
		{ "1 2 3 +4", range },
		{ "1 2 3 0x4", range },
		{ "1 2 3 4.0", range },
		{ "1 2 3 --", range },
		{ "1 2 3 4\n", range },
	};
	uint32_t row[TIERS];

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		const char *why = "";

		assert_false(rate_row_parse(cases[i].text, row, &why));
		assert_string_equal(why, cases[i].why);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults_and_names_are_those_documented),
		cmocka_unit_test(four_numbers_are_read),
		cmocka_unit_test(anything_else_is_refused_with_the_reason),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
