/* SPDX-License-Identifier: Apache-2.0 */
/* Times as text: what PostgreSQL would refuse is refused before it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "lib/rfc3339.h"

static void times_of_rfc3339_are_taken(void **state)
{
	static const char *const good[] = { "2026-03-01T12:00:00Z", "1970-01-01t00:00:00z",
		"2024-02-29T23:59:60Z", "2000-02-29T00:00:00Z", "9999-12-31T23:59:59.999999999Z",
		"2026-03-01T12:00:00.5+01:00", "2026-03-01T12:00:00-15:59" };
	const char *why;

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		if (!rfc3339_check(good[i], &why))
			fail_msg("%s was refused", good[i]);
	}
}

static void anything_else_is_refused_with_a_reason(void **state)
{
	static const char *const bad[] = { "", "2026", "2026-03-01", "2026-03-01 12:00:00Z",
		"2026-03-01T12:00:00", "2026-03-01T12:00Z", "2026-13-01T12:00:00Z",
		"2026-00-01T12:00:00Z", "2026-02-29T12:00:00Z", "1900-01-01T00:00:00Z",
		"2100-02-29T12:00:00Z", "2026-04-31T12:00:00Z", "2026-04-00T12:00:00Z",
		"2026-03-01T24:00:00Z", "2026-03-01T12:60:00Z", "2026-03-01T12:00:61Z",
		"2026-03-01T12:00:00.Z", "2026-03-01T12:00:00.1234567890Z",
		"2026-03-01T12:00:00+1:00", "2026-03-01T12:00:00+16:00",
		"2026-03-01T12:00:00+01:60", "2026-03-01T12:00:00Zx", "12026-03-01T12:00:00Z",
		"-026-03-01T12:00:00Z", "now", "infinity" };
	const char *why;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		why = NULL;
		if (rfc3339_check(bad[i], &why))
			fail_msg("%s was taken", bad[i]);
		assert_non_null(why);
	}
}

static void times_are_counted_in_microseconds(void **state)
{
	(void)state;
	assert_int_equal(rfc3339_microseconds("1970-01-01T00:00:00Z"), 0);
	assert_int_equal(rfc3339_microseconds("1970-01-01t00:00:01.5z"), 1500000);
	assert_int_equal(rfc3339_microseconds("1970-01-01T00:00:00.123456789Z"), 123456);
	assert_int_equal(rfc3339_microseconds("1970-01-01T01:30:00+01:30"), 0);
	assert_int_equal(rfc3339_microseconds("1969-12-31T22:00:00-02:00"), 0);
	assert_int_equal(rfc3339_microseconds("2024-02-29T23:59:59Z"), 1709251199000000);
	assert_int_equal(rfc3339_microseconds("2016-12-31T23:59:60Z"), 1483228800000000);
}

static void what_is_written_can_be_read(void **state)
{
	char text[RFC3339_LEN + 1];
	const char *why;

	(void)state;
	rfc3339_format(1709251199, text);
	assert_string_equal(text, "2024-02-29T23:59:59Z");
	rfc3339_format(0, text);
	assert_string_equal(text, "1970-01-01T00:00:00Z");
	assert_true(rfc3339_check(text, &why));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(times_of_rfc3339_are_taken),
		cmocka_unit_test(anything_else_is_refused_with_a_reason),
		cmocka_unit_test(times_are_counted_in_microseconds),
		cmocka_unit_test(what_is_written_can_be_read),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
