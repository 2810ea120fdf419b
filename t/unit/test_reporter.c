/* SPDX-License-Identifier: Apache-2.0 */
/* The ring of reports: nothing waits, nothing is lost unseen, and who is killed leaves it usable. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "app/process/reporter.h"
#include "lib/sentry.h"

static int set_up(void **state)
{
	*state = reports_new();
	return *state == NULL ? -1 : 0;
}

static int tear_down(void **state)
{
	reports_free(*state);
	return 0;
}

static struct report numbered(int number)
{
	struct report report = { .level = REPORT_ERROR };

	/* The same number at both ends tells a whole one from a torn one. */
	snprintf(report.place, sizeof report.place, "%d", number);
	snprintf(report.request_id, sizeof report.request_id, "%d", number);
	return report;
}

static void what_is_put_is_taken(void **state)
{
	struct report report = { .level = REPORT_FATAL,
		.place = "worker",
		.code = "SIGSEGV",
		.statement = "s",
		.request_id = "r" };
	struct report taken;

	assert_false(reports_take(*state, &taken));
	reports_put(*state, &report);
	assert_true(reports_take(*state, &taken));
	assert_true(taken.at_ms > 0);
	report.at_ms = taken.at_ms;
	assert_memory_equal(&taken, &report, sizeof report);
	assert_false(reports_take(*state, &taken));
}

static void without_a_ring_a_report_goes_nowhere(void **state)
{
	const struct report report = numbered(1);

	(void)state;
	reports_put(NULL, &report);
}

static void a_full_ring_counts_what_it_drops(void **state)
{
	struct report report;
	int taken = 0;

	for (int i = 0; i < REPORTS_MAX + 7; i++) {
		report = numbered(i);
		reports_put(*state, &report);
	}
	assert_int_equal(reports_take_dropped(*state), 7);
	assert_int_equal(reports_take_dropped(*state), 0);
	while (reports_take(*state, &report))
		assert_int_equal(report.place[0] != '\0', ++taken > 0);
	assert_int_equal(taken, REPORTS_MAX);
	report = numbered(1);
	reports_put(*state, &report);
	assert_true(reports_take(*state, &report));
}

static void writers_that_are_killed_leave_it_usable(void **state)
{
	struct report report;
	int whole = 0, status;

	for (int round = 0; round < 200; round++) {
		const pid_t pid = fork();

		assert_true(pid >= 0);
		if (pid == 0)
			for (int i = 0;; i++) {
				report = numbered(i);
				reports_put(*state, &report);
			}
		usleep((useconds_t)(round % 20) * 50);
		for (int i = 0; i < 100 && reports_take(*state, &report); i++, whole++)
			assert_string_equal(report.place, report.request_id);
		kill(pid, SIGKILL);
		assert_int_equal(waitpid(pid, &status, 0), pid);
	}
	assert_true(whole > 0);
	while (reports_take(*state, &report))
		assert_string_equal(report.place, report.request_id);
	(void)reports_take_dropped(*state);
	for (int i = 0; i < REPORTS_MAX; i++) {
		report = numbered(i);
		reports_put(*state, &report);
	}
	assert_int_equal(reports_take_dropped(*state), 0);
}

static void an_envelope_is_three_lines_and_says_its_length(void **state)
{
	const struct sentry_tag tags[] = { { "request_id", "r-1" }, { "statement", "" } };
	const struct sentry_event event = { "error", "areg@1", "test \"x\"", "host", "GET /a/{id}",
		"XX000", 3, 1700000000123, tags, 2 };
	struct arena *arena = arena_new(4096, 1 << 20);
	struct json_object *json, *member;
	struct buf out;
	char *head, *item, *payload, *end;
	char expected[64];

	(void)state;
	buf_init(&out, arena, 16);
	sentry_envelope(&out, &event);
	head = strtok_r(out.data, "\n", &end);
	item = strtok_r(NULL, "\n", &end);
	payload = strtok_r(NULL, "\n", &end);
	assert_null(strtok_r(NULL, "\n", &end));
	snprintf(expected, sizeof expected, "{\"type\":\"event\",\"length\":%zu}", strlen(payload));
	assert_string_equal(item, expected);
	json = json_tokener_parse(payload);
	assert_non_null(json);
	assert_true(json_object_object_get_ex(json, "event_id", &member));
	assert_int_equal(json_object_get_string_len(member), 32);
	assert_non_null(strstr(head, json_object_get_string(member)));
	assert_true(json_object_object_get_ex(json, "fingerprint", &member));
	assert_string_equal(json_object_to_json_string_ext(member, JSON_C_TO_STRING_NOSLASHESCAPE),
		"[\"GET /a/{id}\",\"XX000\"]");
	assert_true(json_object_object_get_ex(json, "tags", &member));
	assert_string_equal(json_object_to_json_string_ext(member, JSON_C_TO_STRING_PLAIN),
		"{\"code\":\"XX000\",\"request_id\":\"r-1\"}");
	assert_non_null(strstr(payload, "\"timestamp\":1700000000.123,"));
	assert_non_null(strstr(payload, "\"extra\":{\"count\":3}"));
	assert_non_null(strstr(payload, "\"environment\":\"test \\\"x\\\"\""));
	json_object_put(json);
	arena_free(arena);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_is_put_is_taken, set_up, tear_down),
		cmocka_unit_test(without_a_ring_a_report_goes_nowhere),
		cmocka_unit_test_setup_teardown(
			a_full_ring_counts_what_it_drops, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			writers_that_are_killed_leave_it_usable, set_up, tear_down),
		cmocka_unit_test(an_envelope_is_three_lines_and_says_its_length),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
