/* SPDX-License-Identifier: Apache-2.0 */
/* Counters over processes: slots add up, survive those who wrote them, and print as Prometheus
 * reads them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/metrics.h"

static const char *const chains[] = { "chain=\"base\"", "chain=\"sepolia\"" };
static const char *const outcomes[] = { "status=\"ok\"", "status=\"bad\"", "status=\"ugly\"" };
static const struct metric table[] = {
	{ "plain_total", "No labels.", METRIC_COUNTER, { { NULL, 0 } }, false },
	{ "both_total", "Two labels.", METRIC_COUNTER, { { chains, 2 }, { outcomes, 3 } }, false },
	{ "took_seconds", "A histogram.", METRIC_HISTOGRAM, { { chains, 2 } }, false },
	{ "watched_total", "For alerts.", METRIC_COUNTER, { { chains, 2 } }, true },
};
enum { PLAIN, BOTH, TOOK, WATCHED, ALL };
enum { SLOTS = 3 };

static struct metrics *metrics;

static int set_up(void **state)
{
	(void)state;
	metrics = metrics_new(table, ALL, SLOTS);
	return metrics == NULL ? -1 : 0;
}

static int tear_down(void **state)
{
	(void)state;
	metrics_free(metrics);
	return 0;
}

static char *printed(struct arena **arena)
{
	struct buf out;

	*arena = arena_new(4096, 1024 * 1024);
	buf_init(&out, *arena, 64);
	metrics_print(metrics, &out);
	return out.data;
}

static void every_series_counts_by_itself(void **state)
{
	(void)state;
	for (size_t a = 0; a < 2; a++)
		for (size_t b = 0; b < 3; b++)
			metrics_add(metrics, BOTH, a, b, 10 * a + b + 1);
	metrics_add(metrics, PLAIN, 0, 0, 7);
	for (size_t a = 0; a < 2; a++)
		for (size_t b = 0; b < 3; b++)
			assert_int_equal(metrics_sum(metrics, BOTH, a, b), 10 * a + b + 1);
	assert_int_equal(metrics_sum(metrics, PLAIN, 0, 0), 7);
	assert_int_equal(metrics_sum(metrics, TOOK, 0, 0), 0);
}

static void processes_add_up_and_what_the_dead_counted_stays(void **state)
{
	(void)state;
	for (size_t slot = 0; slot < SLOTS; slot++) {
		pid_t pid = fork();

		assert_true(pid >= 0);
		if (pid == 0) {
			metrics_use_slot(metrics, slot);
			for (int i = 0; i < 1000; i++)
				metrics_add(metrics, PLAIN, 0, 0, 1);
			metrics_observe(metrics, TOOK, 1, 0, 300);
			_exit(0);
		}
	}
	while (wait(NULL) > 0)
		;
	assert_int_equal(metrics_sum(metrics, PLAIN, 0, 0), 3000);
	assert_int_equal(metrics_sum(metrics, TOOK, 1, 0), 3);
}

static void a_histogram_prints_cumulative_buckets_sum_and_count(void **state)
{
	struct arena *arena;
	const char *text;

	(void)state;
	metrics_observe(metrics, TOOK, 0, 0, 250); /* a bound belongs to its own bucket */
	metrics_observe(metrics, TOOK, 0, 0, 251);
	metrics_observe(metrics, TOOK, 0, 0, 99 * 1000 * 1000);
	text = printed(&arena);
	assert_non_null(strstr(text, "took_seconds_bucket{chain=\"base\",le=\"0.00025\"} 1\n"));
	assert_non_null(strstr(text, "took_seconds_bucket{chain=\"base\",le=\"0.0005\"} 2\n"));
	assert_non_null(strstr(text, "took_seconds_bucket{chain=\"base\",le=\"10\"} 2\n"));
	assert_non_null(strstr(text, "took_seconds_bucket{chain=\"base\",le=\"+Inf\"} 3\n"));
	assert_non_null(strstr(text, "took_seconds_sum{chain=\"base\"} 99.000501\n"));
	assert_non_null(strstr(text, "took_seconds_count{chain=\"base\"} 3\n"));
	assert_null(strstr(text, "took_seconds_sum{chain=\"sepolia\""));
	arena_free(arena);
}

static void counters_print_with_help_and_labels(void **state)
{
	struct arena *arena;
	const char *text;

	(void)state;
	metrics_add(metrics, BOTH, 1, 2, 5);
	text = printed(&arena);
	assert_non_null(strstr(text, "# HELP both_total Two labels.\n# TYPE both_total counter\n"));
	assert_non_null(strstr(text, "both_total{chain=\"sepolia\",status=\"ugly\"} 5\n"));
	assert_non_null(strstr(text, "\nplain_total 0\n"));
	arena_free(arena);
}

static void what_alerts_watch_prints_from_zero(void **state)
{
	struct arena *arena;
	const char *text;

	(void)state;
	text = printed(&arena);
	assert_non_null(strstr(text, "watched_total{chain=\"base\"} 0\n"));
	assert_non_null(strstr(text, "watched_total{chain=\"sepolia\"} 0\n"));
	assert_null(strstr(text, "both_total{"));
	arena_free(arena);
}

static const char *const other_chains[] = { "chain=\"sepolia\"", "chain=\"new\"",
	"chain=\"base\"" };
static const struct metric other_table[] = {
	{ "fresh_total", "Not there before.", METRIC_COUNTER, { { NULL, 0 } }, false },
	{ "both_total", "Two labels.", METRIC_COUNTER, { { other_chains, 3 }, { outcomes, 3 } },
		false },
	{ "took_seconds", "A histogram.", METRIC_HISTOGRAM, { { other_chains, 3 } }, false },
};

static void a_program_goes_on_with_what_another_counted(void **state)
{
	struct metrics *next = metrics_new(other_table, 3, 2);

	(void)state;
	assert_non_null(next);
	metrics_add(metrics, PLAIN, 0, 0, 5);
	metrics_add(metrics, BOTH, 0, 1, 10);
	assert_true(metrics_inherit(next, dup(metrics_fd(metrics))));
	metrics_add(next, 1, 2, 1, 1);
	assert_int_equal(metrics_sum(next, 1, 2, 1), 11);
	/* The processes of before are still counting. */
	metrics_use_slot(metrics, 1);
	metrics_add(metrics, BOTH, 0, 1, 100);
	metrics_observe(metrics, TOOK, 1, 0, 300);
	assert_int_equal(metrics_sum(next, 1, 2, 1), 111);
	metrics_settle(next);
	metrics_add(metrics, BOTH, 0, 1, 1000);
	metrics_add(next, 1, 2, 1, 1);
	assert_int_equal(metrics_sum(next, 1, 2, 1), 112);
	assert_int_equal(metrics_sum(next, 2, 0, 0), 1);
	assert_int_equal(metrics_sum(next, 0, 0, 0), 0);
	assert_int_equal(metrics_sum(next, 1, 1, 1), 0);
	metrics_free(next);
}

static void what_settled_is_inherited_with_the_rest(void **state)
{
	struct metrics *second = metrics_new(table, ALL, 1), *third = metrics_new(table, ALL, 1);

	(void)state;
	metrics_add(metrics, PLAIN, 0, 0, 7);
	assert_true(metrics_inherit(second, dup(metrics_fd(metrics))));
	metrics_settle(second);
	metrics_add(second, PLAIN, 0, 0, 3);
	assert_true(metrics_inherit(third, dup(metrics_fd(second))));
	assert_int_equal(metrics_sum(third, PLAIN, 0, 0), 10);
	metrics_settle(third);
	assert_int_equal(metrics_sum(third, PLAIN, 0, 0), 10);
	metrics_free(second);
	metrics_free(third);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(every_series_counts_by_itself, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			processes_add_up_and_what_the_dead_counted_stays, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			a_histogram_prints_cumulative_buckets_sum_and_count, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			counters_print_with_help_and_labels, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			what_alerts_watch_prints_from_zero, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			a_program_goes_on_with_what_another_counted, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			what_settled_is_inherited_with_the_rest, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
