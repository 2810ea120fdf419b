/* SPDX-License-Identifier: Apache-2.0 */
/* Percentiles of the benchmark, by numbers that can be counted on paper. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "t/bench/samples.h"

static void a_percentile_is_the_nearest_rank(void **state)
{
	struct samples samples = { 0 };

	(void)state;
	for (uint64_t us = 1000; us >= 1; us--)
		samples_add(&samples, us);
	samples_sort(&samples);
	assert_int_equal(samples_at(&samples, 500), 500);
	assert_int_equal(samples_at(&samples, 990), 990);
	assert_int_equal(samples_at(&samples, 999), 999);
	assert_int_equal(samples_at(&samples, 1000), 1000);
	samples_free(&samples);
}

static void one_slow_request_in_ten_shows_in_the_tail_only(void **state)
{
	struct samples samples = { 0 };

	(void)state;
	for (int i = 0; i < 9; i++)
		samples_add(&samples, 7);
	samples_add(&samples, 90000);
	samples_sort(&samples);
	assert_int_equal(samples_at(&samples, 500), 7);
	assert_int_equal(samples_at(&samples, 900), 7);
	assert_int_equal(samples_at(&samples, 901), 90000);
	assert_int_equal(samples_at(&samples, 999), 90000);
	samples_free(&samples);
}

static void few_samples_and_none_have_percentiles_too(void **state)
{
	struct samples samples = { 0 };

	(void)state;
	samples_sort(&samples);
	assert_int_equal(samples_at(&samples, 500), 0);
	samples_add(&samples, UINT64_C(1) << 40);
	samples_sort(&samples);
	assert_int_equal(samples_at(&samples, 1), UINT32_MAX);
	assert_int_equal(samples_at(&samples, 1000), UINT32_MAX);
	samples_free(&samples);
}

static void more_samples_than_fit_at_first_are_all_kept(void **state)
{
	struct samples samples = { 0 };

	(void)state;
	for (uint64_t us = 1; us <= 200000; us++)
		samples_add(&samples, us);
	samples_sort(&samples);
	assert_int_equal(samples.count, 200000);
	assert_int_equal(samples_at(&samples, 999), 199800);
	samples_free(&samples);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_percentile_is_the_nearest_rank),
		cmocka_unit_test(one_slow_request_in_ten_shows_in_the_tail_only),
		cmocka_unit_test(few_samples_and_none_have_percentiles_too),
		cmocka_unit_test(more_samples_than_fit_at_first_are_all_kept),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
