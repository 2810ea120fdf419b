/* SPDX-License-Identifier: Apache-2.0 */
/* From paths to routes: templates, literals before parameters, HEAD, OPTIONS, 404 and 405. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "lib/router.h"

static const struct entry {
	struct route_path path;
	const char *what;
} entries[] = {
	{ { HTTP_GET, "/agents" }, "search" },
	{ { HTTP_GET, "/agents/{id}" }, "agent" },
	{ { HTTP_PATCH, "/agents/{id}" }, "edit" },
	{ { HTTP_POST, "/agents/register" }, "register" },
	{ { HTTP_GET, "/agents/{id}/stats" }, "stats" },
	{ { HTTP_GET, "/agents/{id}/{part}" }, "part" },
};

static struct arena *arena;
static struct router *router;

static int set_up(void **state)
{
	(void)state;
	arena = arena_new(4096, 1024 * 1024);
	router = router_new(entries, sizeof entries / sizeof entries[0], sizeof entries[0]);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	router_free(router);
	arena_free(arena);
	return 0;
}

static enum route_match match(
	enum http_method method, struct routed *routed, const char *a, const char *b, const char *c)
{
	struct http_request request = { .arena = arena, .method = method, .segments = { a, b, c } };

	while (request.segment_count < 3 && request.segments[request.segment_count] != NULL)
		request.segment_count++;
	return router_match(router, &request, routed);
}

static void a_parameter_takes_the_segment_that_stands_there(void **state)
{
	struct routed routed;

	(void)state;
	assert_int_equal(match(HTTP_GET, &routed, "agents", "base:42", "stats"), ROUTE_FOUND);
	assert_string_equal(entries[routed.index].what, "stats");
	assert_string_equal(routed.values[0], "base:42");
}

static void several_parameters_come_in_the_order_of_the_template(void **state)
{
	struct routed routed;

	(void)state;
	assert_int_equal(match(HTTP_GET, &routed, "agents", "7", "other"), ROUTE_FOUND);
	assert_string_equal(entries[routed.index].what, "part");
	assert_string_equal(routed.values[0], "7");
	assert_string_equal(routed.values[1], "other");
}

static void a_literal_goes_before_a_parameter(void **state)
{
	struct routed routed;

	(void)state;
	assert_int_equal(match(HTTP_POST, &routed, "agents", "register", NULL), ROUTE_FOUND);
	assert_string_equal(entries[routed.index].what, "register");
}

static void a_literal_path_is_one_resource_for_every_method(void **state)
{
	struct routed routed;

	(void)state;
	/* Not GET /agents/{id} with an id of "register". */
	assert_int_equal(match(HTTP_GET, &routed, "agents", "register", NULL), ROUTE_NO_METHOD);
	assert_string_equal(routed.allow, "POST, OPTIONS");
}

static void head_is_served_by_get(void **state)
{
	struct routed routed;

	(void)state;
	assert_int_equal(match(HTTP_HEAD, &routed, "agents", "7", NULL), ROUTE_FOUND);
	assert_string_equal(entries[routed.index].what, "agent");
}

static void a_wrong_method_is_told_the_right_ones(void **state)
{
	struct routed routed;

	(void)state;
	assert_int_equal(match(HTTP_DELETE, &routed, "agents", "7", NULL), ROUTE_NO_METHOD);
	assert_string_equal(routed.allow, "GET, HEAD, PATCH, OPTIONS");
	assert_int_equal(match(HTTP_OTHER, &routed, "agents", NULL, NULL), ROUTE_NO_METHOD);
	assert_string_equal(routed.allow, "GET, HEAD, OPTIONS");
}

static void options_is_answered_for_every_path_there_is(void **state)
{
	struct routed routed;

	(void)state;
	assert_int_equal(match(HTTP_OPTIONS, &routed, "agents", NULL, NULL), ROUTE_OPTIONS);
	assert_int_equal(match(HTTP_OPTIONS, &routed, "nothing", NULL, NULL), ROUTE_NO_PATH);
}

static void a_path_that_no_template_has_is_not_found(void **state)
{
	struct routed routed;

	(void)state;
	assert_int_equal(match(HTTP_GET, &routed, NULL, NULL, NULL), ROUTE_NO_PATH);
	assert_int_equal(match(HTTP_GET, &routed, "Agents", NULL, NULL), ROUTE_NO_PATH);
	assert_int_equal(match(HTTP_GET, &routed, "agents", "", NULL), ROUTE_FOUND);
	assert_string_equal(routed.values[0], "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_parameter_takes_the_segment_that_stands_there),
		cmocka_unit_test(several_parameters_come_in_the_order_of_the_template),
		cmocka_unit_test(a_literal_goes_before_a_parameter),
		cmocka_unit_test(a_literal_path_is_one_resource_for_every_method),
		cmocka_unit_test(head_is_served_by_get),
		cmocka_unit_test(a_wrong_method_is_told_the_right_ones),
		cmocka_unit_test(options_is_answered_for_every_path_there_is),
		cmocka_unit_test(a_path_that_no_template_has_is_not_found),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
