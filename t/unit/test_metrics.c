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
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
