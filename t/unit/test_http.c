/* SPDX-License-Identifier: Apache-2.0 */
/* lib/http: requests as strangers may send them, and answers byte by byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "app/problem_list.h"
#include "lib/http.h"
#include "t/unit/memory_fcgi.h"

static struct arena *arena;
static struct memory_fcgi fcgi;
static struct http_request request;
static struct http_response response;

static int set_up(void **state)
{
	(void)state;
	arena = arena_new(4096, 16 << 20);
	memset(&fcgi, 0, sizeof fcgi);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	memory_fcgi_free(&fcgi);
	arena_free(arena);
	return 0;
}

static void begin(const char *method, const char *uri, const char *body)
{
	memory_fcgi_free(&fcgi);
	memory_fcgi_init(&fcgi, method, uri, body);
}

static void read_request(void)
{
	http_request_read(&request, &fcgi.request, arena);
}

/* A request for this address, read. */
static void ask(const char *uri)
{
	begin("GET", uri, NULL);
	read_request();
}

static enum http_body_status read_body(const char **bytes, size_t *len)
{
	read_request();
	return http_body_read(&request, bytes, len);
}

/* A POST of this body, of this content type, that says to have that length (NULL: does not say). */
static void begin_post(const char *body, const char *type, const char *length)
{
	begin("POST", "/", body);
	memory_fcgi_param(&fcgi, "CONTENT_TYPE", type);
	if (length != NULL)
		memory_fcgi_param(&fcgi, "CONTENT_LENGTH", length);
}

static size_t send_answer(void)
{
	const size_t sent = http_response_send(&response, &request);

	memory_fcgi_finish(&fcgi);
	return sent;
}

/* The value of a header of what was answered, up to its line's end; NULL without one. */
static const char *answered(const char *name)
{
	const char *at = strstr(fcgi.answer, arena_printf(arena, "%s: ", name));
	const char *value = at == NULL ? NULL : at + strlen(name) + 2;

	return value == NULL ? NULL : arena_strndup(arena, value, strcspn(value, "\r"));
}

static const char *answered_body(void)
{
	const char *end = strstr(fcgi.answer, "\r\n\r\n");

	assert_non_null(end);
	return end + 4;
}

/* ---- Requests ---- */

static void a_path_is_decoded_part_by_part(void **state)
{
	(void)state;
	ask("/api/v1/a%2Fb/%e5%a4%a9/x%20y?q=1");
	assert_int_equal(request.refused_status, 0);
	assert_int_equal(request.segment_count, 5);
	assert_string_equal(request.segments[0], "api");
	assert_string_equal(request.segments[2], "a/b");
	assert_string_equal(request.segments[3], "天");
	assert_string_equal(request.segments[4], "x y");
	assert_string_equal(request.path, "/api/v1/a%2Fb/%e5%a4%a9/x%20y");
}

static void of_a_long_path_the_beginning_is_for_logs(void **state)
{
	char path[HTTP_PATH_MAX + 2];

	(void)state;
	memset(path, 'a', sizeof path - 1);
	path[0] = '/';
	path[sizeof path - 1] = '\0';
	ask(path);
	assert_int_equal(request.refused_status, 414);
	assert_int_equal(strlen(request.path), HTTP_PATH_LOGGED_MAX);
	path[HTTP_PATH_LOGGED_MAX] = '\0';
	ask(path);
	assert_string_equal(request.path, path);
}

static void a_slash_at_the_end_counts_for_nothing_and_one_in_the_middle_is_a_part(void **state)
{
	(void)state;
	ask("/health/");
	assert_int_equal(request.segment_count, 1);
	ask("//health");
	assert_int_equal(request.segment_count, 2);
	assert_string_equal(request.segments[0], "");
	ask("/");
	assert_int_equal(request.segment_count, 0);
}

static void a_bad_path_is_refused(void **state)
{
	const char *const bad[] = { "/%", "/%4", "/%zz", "/%00", "/a%c3", "/%ed%a0%80", "/%ff" };

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		ask(bad[i]);
		assert_int_equal(request.refused_status, 400);
		assert_non_null(request.refused_detail);
	}
	ask("health");
	assert_int_equal(request.refused_status, 400);
	ask(arena_printf(arena, "/%0*d", HTTP_PATH_MAX - 1, 0));
	assert_int_equal(request.refused_status, 0);
	ask(arena_printf(arena, "/%0*d", HTTP_PATH_MAX, 0));
	assert_int_equal(request.refused_status, 414);
}

static void a_path_of_more_parts_than_any_route_is_none_of_ours(void **state)
{
	(void)state;
	ask("/1/2/3/4/5/6/7/8/9/10/11/12");
	assert_int_equal(request.segment_count, HTTP_SEGMENTS_MAX);
	ask("/1/2/3/4/5/6/7/8/9/10/11/12/13");
	assert_int_equal(request.segment_count, 0);
	assert_int_equal(request.refused_status, 0);
}

static void a_query_is_decoded_as_a_form(void **state)
{
	(void)state;
	ask("/?q=a+b%26c&&flag&empty=&q=%E5%A4%A9");
	assert_int_equal(request.param_count, 4);
	assert_string_equal(request.params[0].value, "a b&c");
	assert_string_equal(request.params[1].name, "flag");
	assert_string_equal(request.params[1].value, "");
	assert_string_equal(request.params[2].value, "");
	assert_string_equal(request.params[3].value, "天");
}

static void a_query_beyond_its_bounds_is_refused(void **state)
{
	char many[4 * (HTTP_PARAMS_MAX + 1) + 3] = "/?";

	(void)state;
	for (size_t i = 0; i < HTTP_PARAMS_MAX; i++)
		strcat(many, "a=1&");
	ask(many);
	assert_int_equal(request.refused_status, 0);
	assert_int_equal(request.param_count, HTTP_PARAMS_MAX);
	strcat(many, "b=1");
	ask(many);
	assert_int_equal(request.refused_status, 400);
	ask(arena_printf(arena, "/?q=%0*d", HTTP_QUERY_MAX - 2, 0));
	assert_int_equal(request.refused_status, 0);
	ask(arena_printf(arena, "/?q=%0*d", HTTP_QUERY_MAX - 1, 0));
	assert_int_equal(request.refused_status, 414);
	ask("/?q=%c3");
	assert_int_equal(request.refused_status, 400);
}

static void an_insane_request_id_is_not_believed(void **state)
{
	const char *const insane[] = { "", "a b", "a\"b", "ü", "a;b", "$(id)" };

	(void)state;
	for (size_t i = 0; i < sizeof insane / sizeof *insane; i++) {
		begin("GET", "/", NULL);
		memory_fcgi_param(&fcgi, "HTTP_X_REQUEST_ID", insane[i]);
		memory_fcgi_param(&fcgi, "REQUEST_ID", "from-nginx");
		read_request();
		assert_string_equal(request.id, "from-nginx");
	}
	begin("GET", "/", NULL);
	memory_fcgi_param(&fcgi, "HTTP_X_REQUEST_ID", "mine-1:2.3_4");
	read_request();
	assert_string_equal(request.id, "mine-1:2.3_4");
	ask("/");
	assert_int_equal(strlen(request.id), 32);
}

static void an_unknown_method_is_other(void **state)
{
	(void)state;
	begin("get", "/", NULL);
	read_request();
	assert_int_equal(request.method, HTTP_OTHER);
	begin("PATCH", "/", NULL);
	read_request();
	assert_int_equal(request.method, HTTP_PATCH);
	assert_string_equal(http_method_name(HTTP_PATCH), "PATCH");
}

/* ---- Bodies ---- */

static void a_body_is_read_whole_however_it_comes(void **state)
{
	const char *bytes;
	size_t len;

	(void)state;
	for (size_t piece = 0; piece < 4; piece++) {
		for (size_t chunked = 0; chunked < 2; chunked++) {
			begin_post("{\"a\": 1}", "application/json", chunked ? NULL : "8");
			fcgi.body_piece = piece;
			assert_int_equal(read_body(&bytes, &len), HTTP_BODY_OK);
			assert_int_equal(len, 8);
			assert_string_equal(bytes, "{\"a\": 1}");
			assert_int_equal(http_body_read(&request, &bytes, &len), HTTP_BODY_OK);
			assert_int_equal(len, 8);
		}
	}
}

static void a_body_shorter_than_it_says_is_truncated(void **state)
{
	const char *bytes;
	size_t len;

	(void)state;
	begin_post("{}", "application/json", "3");
	assert_int_equal(read_body(&bytes, &len), HTTP_BODY_TRUNCATED);
}

static void a_body_that_says_to_be_too_large_is_not_read(void **state)
{
	const char *const lengths[] = { "1048577", "99999999999999999999999", "-1", "1e3", "8x" };
	const char *bytes;
	size_t len;

	(void)state;
	for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
		begin_post("{\"a\": 1}", "application/json", lengths[i]);
		assert_int_equal(read_body(&bytes, &len), HTTP_BODY_TOO_LARGE);
		assert_int_equal(fcgi.body_at, 0);
	}
}

static void only_json_in_utf_8_is_taken(void **state)
{
	const char *const good[] = { "application/json", "Application/JSON; charset=UTF-8",
		"application/json;charset=\"utf-8\"", "application/json ;" };
	const char *const bad[] = { "", "text/plain", "application/jsonp",
		"application/json; charset=latin1", "application/x-www-form-urlencoded" };
	const char *bytes;
	size_t len;

	(void)state;
	for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
		begin_post("{}", good[i], "2");
		assert_int_equal(read_body(&bytes, &len), HTTP_BODY_OK);
	}
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		begin_post("{}", bad[i], "2");
		assert_int_equal(read_body(&bytes, &len), HTTP_BODY_NOT_JSON);
	}
	begin_post("{}", "application/json", "2");
	memory_fcgi_param(&fcgi, "HTTP_CONTENT_ENCODING", "gzip");
	assert_int_equal(read_body(&bytes, &len), HTTP_BODY_NOT_JSON);
}

/* ---- Answers ---- */

static void answer_with(const char *method, const char *known_tag)
{
	begin(method, "/", NULL);
	if (known_tag != NULL)
		memory_fcgi_param(&fcgi, "HTTP_IF_NONE_MATCH", known_tag);
	read_request();
	http_response_init(&response, arena);
	buf_puts(&response.body, "{\"a\": 1}");
}

static void an_answer_says_its_length_and_tag(void **state)
{
	(void)state;
	answer_with("GET", NULL);
	http_header_add(&response, "X-Request-ID", "one");
	assert_int_equal(send_answer(), 8);
	assert_int_equal(strncmp(fcgi.answer, "Status: 200 OK\r\n", 16), 0);
	assert_string_equal(answered("X-Request-ID"), "one");
	assert_string_equal(answered("Content-Length"), "8");
	assert_string_equal(answered("Content-Type"), "application/json");
	assert_int_equal(strlen(answered("ETag")), 34);
	assert_string_equal(answered_body(), "{\"a\": 1}");
}

static void head_has_the_headers_of_get_and_no_body(void **state)
{
	(void)state;
	answer_with("HEAD", NULL);
	assert_int_equal(send_answer(), 0);
	assert_string_equal(answered("Content-Length"), "8");
	assert_string_equal(answered_body(), "");
}

static void who_has_it_already_gets_304_without_a_body(void **state)
{
	const char *etag;

	(void)state;
	answer_with("GET", NULL);
	send_answer();
	etag = answered("ETag");
	const char *const lists[] = { etag, "*", arena_printf(arena, "W/%s", etag),
		arena_printf(arena, "\"other\", %s", etag),
		arena_printf(arena, "W/\"x\",W/%s", etag) };

	for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
		answer_with("GET", lists[i]);
		assert_int_equal(send_answer(), 0);
		assert_int_equal(strncmp(fcgi.answer, "Status: 304 Not Modified\r\n", 26), 0);
		assert_string_equal(answered("ETag"), etag);
		assert_string_equal(answered_body(), "");
	}
	answer_with("GET", "\"other\"");
	assert_int_equal(send_answer(), 8);
	answer_with("POST", etag);
	assert_int_equal(send_answer(), 8);
	assert_null(answered("ETag"));
}

static void a_problem_names_every_fault(void **state)
{
	struct faults faults;

	(void)state;
	answer_with("POST", NULL);
	faults_init(&faults, arena, PROBLEM_VALIDATION_FAILED);
	fault_add(&faults, PROBLEM_INVALID_SCORE, "/score", "is not within 0..100");
	fault_add(&faults, PROBLEM_VALIDATION_FAILED, "/tag1", "is longer than 256 characters");
	http_problem(&response, &request,
		&(struct http_problem){ .problem = PROBLEM_INVALID_SCORE, .faults = &faults });
	send_answer();
	assert_string_equal(answered("Content-Type"), "application/problem+json");
	assert_non_null(strstr(answered_body(),
		"\"detail\":\"Invalid score: is not within 0..100\",\"code\":\"invalid_score\""));
	assert_non_null(strstr(answered_body(), "{\"pointer\":\"/tag1\","));
	assert_null(strstr(answered_body(), "{\"a\": 1}"));
}

static void what_was_not_read_of_the_body_is_read_before_the_answer(void **state)
{
	char *body = calloc(1, 100001);

	(void)state;
	memset(body, 'x', 100000);
	begin_post(body, "text/plain", "100000");
	fcgi.body_piece = 1000;
	read_request();
	http_response_init(&response, arena);
	send_answer();
	assert_int_equal(fcgi.body_at, 100000);
	free(body);
}

static void a_web_server_that_goes_away_harms_nobody(void **state)
{
	(void)state;
	for (size_t most = 0; most < 400; most += 7) {
		answer_with("GET", NULL);
		for (size_t i = 0; i < 10000; i++)
			buf_puts(&response.body, "{\"a\": 1}");
		fcgi.answer_most = most;
		send_answer();
		assert_int_equal(fcgi.answer_len, most);
	}
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		CASE(a_path_is_decoded_part_by_part),
		CASE(of_a_long_path_the_beginning_is_for_logs),
		CASE(a_slash_at_the_end_counts_for_nothing_and_one_in_the_middle_is_a_part),
		CASE(a_bad_path_is_refused),
		CASE(a_path_of_more_parts_than_any_route_is_none_of_ours),
		CASE(a_query_is_decoded_as_a_form),
		CASE(a_query_beyond_its_bounds_is_refused),
		CASE(an_insane_request_id_is_not_believed),
		CASE(an_unknown_method_is_other),
		CASE(a_body_is_read_whole_however_it_comes),
		CASE(a_body_shorter_than_it_says_is_truncated),
		CASE(a_body_that_says_to_be_too_large_is_not_read),
		CASE(only_json_in_utf_8_is_taken),
		CASE(an_answer_says_its_length_and_tag),
		CASE(head_has_the_headers_of_get_and_no_body),
		CASE(who_has_it_already_gets_304_without_a_body),
		CASE(a_problem_names_every_fault),
		CASE(what_was_not_read_of_the_body_is_read_before_the_answer),
		CASE(a_web_server_that_goes_away_harms_nobody),
	};

	return cmocka_run_group_tests_name("http", tests, NULL, NULL);
}
