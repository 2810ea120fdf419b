/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole requests through serve(), while memory runs out: for each representative request, the first
 * allocation fails, then the second, and so on until the request succeeds. Every one is answered, the
 * worker lives, nothing is leaked (LeakSanitizer), and what the answer says of the change is true. Against
 * real servers. The linker leads the calls of all objects but the failing one's own here (--wrap).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <json-c/json.h>

#include "app/cache/host_memory.h"
#include "app/http/metering.h"
#include "app/http/scoreboard.h"
#include "app/http/serve.h"
#include "app/registry/api_key.h"
#include "app/routes.h"
#include "lib/clock.h"
#include "lib/log.h"
#include "t/unit/memory_fcgi.h"
#include "t/unit/servers.h"

#define WALLET "0x1111111111111111111111111111111111111111"
#define OTHER_WALLET "0x2222222222222222222222222222222222222222"
#define SPARE "55555555-5555-5555-5555-555555555555"

/* ---- Failures ---- */

static size_t arena_calls_left, library_calls_left, system_calls_left; /* 0: none fails */

static bool is_serving; /* what the test itself needs is not counted */

/* Whether the call that the counter has waited for is this one. */
static bool fails(size_t *calls_left)
{
	return is_serving && *calls_left > 0 && --*calls_left == 0;
}

void *__real_arena_alloc(struct arena *arena, size_t size);
void *__wrap_arena_alloc(struct arena *arena, size_t size);
void *__wrap_arena_alloc(struct arena *arena, size_t size)
{
	if (fails(&arena_calls_left))
		arena_exhausted(arena);
	return __real_arena_alloc(arena, size);
}

char *__real_arena_strndup(struct arena *arena, const char *text, size_t length);
char *__wrap_arena_strndup(struct arena *arena, const char *text, size_t length);
char *__wrap_arena_strndup(struct arena *arena, const char *text, size_t length)
{
	if (fails(&arena_calls_left))
		arena_exhausted(arena);
	return __real_arena_strndup(arena, text, length);
}

char *__real_arena_strdup(struct arena *arena, const char *text);
char *__wrap_arena_strdup(struct arena *arena, const char *text);
char *__wrap_arena_strdup(struct arena *arena, const char *text)
{
	if (fails(&arena_calls_left))
		arena_exhausted(arena);
	return __real_arena_strdup(arena, text);
}

char *__wrap_arena_printf(struct arena *arena, const char *format, ...) PRINTF_LIKE(2, 3);
char *__wrap_arena_printf(struct arena *arena, const char *format, ...)
{
	va_list args;
	char *text;

	if (fails(&arena_calls_left))
		arena_exhausted(arena);
	va_start(args, format);
	text = arena_vprintf(arena, format, args);
	va_end(args);
	return text;
}

void __real_arena_defer(struct arena *arena, void (*clean_up)(void *what), void *what);
void __wrap_arena_defer(struct arena *arena, void (*clean_up)(void *what), void *what);
void __wrap_arena_defer(struct arena *arena, void (*clean_up)(void *what), void *what)
{
	if (fails(&arena_calls_left))
		arena_exhausted(arena);
	__real_arena_defer(arena, clean_up, what);
}

void **__real_arena_defer_slot(struct arena *arena, void (*clean_up)(void *what));
void **__wrap_arena_defer_slot(struct arena *arena, void (*clean_up)(void *what));
void **__wrap_arena_defer_slot(struct arena *arena, void (*clean_up)(void *what))
{
	if (fails(&arena_calls_left))
		arena_exhausted(arena);
	return __real_arena_defer_slot(arena, clean_up);
}

/* What json-c makes for us. */
#define WRAP_JSON(name, parameters, arguments) \
	struct json_object *__real_##name parameters; \
	struct json_object *__wrap_##name parameters; \
	struct json_object *__wrap_##name parameters \
	{ \
		return fails(&library_calls_left) ? NULL : __real_##name arguments; \
	}
WRAP_JSON(json_object_new_object, (void), ())
WRAP_JSON(json_object_new_array, (void), ())
WRAP_JSON(json_object_new_string_len, (const char *text, int len), (text, len))
WRAP_JSON(json_object_new_int64, (int64_t value), (value))
WRAP_JSON(json_object_new_uint64, (uint64_t value), (value))
WRAP_JSON(json_object_new_boolean, (json_bool value), (value))
WRAP_JSON(json_object_new_double_s, (double value, const char *text), (value, text))

int __real_json_object_object_add_ex(
	struct json_object *object, const char *key, struct json_object *value, unsigned options);
int __wrap_json_object_object_add_ex(
	struct json_object *object, const char *key, struct json_object *value, unsigned options);
int __wrap_json_object_object_add_ex(
	struct json_object *object, const char *key, struct json_object *value, unsigned options)
{
	return fails(&library_calls_left)
		       ? -1
		       : __real_json_object_object_add_ex(object, key, value, options);
}

int __real_json_object_object_add(
	struct json_object *object, const char *key, struct json_object *value);
int __wrap_json_object_object_add(
	struct json_object *object, const char *key, struct json_object *value);
int __wrap_json_object_object_add(
	struct json_object *object, const char *key, struct json_object *value)
{
	return fails(&library_calls_left) ? -1 : __real_json_object_object_add(object, key, value);
}

int __real_json_object_array_add(struct json_object *array, struct json_object *value);
int __wrap_json_object_array_add(struct json_object *array, struct json_object *value);
int __wrap_json_object_array_add(struct json_object *array, struct json_object *value)
{
	return fails(&library_calls_left) ? -1 : __real_json_object_array_add(array, value);
}

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_malloc(size_t size)
{
	return fails(&system_calls_left) ? NULL : __real_malloc(size);
}

int __real_vasprintf(char **text, const char *format, va_list args);
int __wrap_asprintf(char **text, const char *format, ...) PRINTF_LIKE(2, 3);
int __wrap_asprintf(char **text, const char *format, ...)
{
	va_list args;
	int len;

	if (fails(&system_calls_left))
		return -1;
	va_start(args, format);
	len = vasprintf(text, format, args);
	va_end(args);
	return len;
}

/* ---- A worker ---- */

static struct test_postgres postgres;
static struct test_memcached memcached;
static struct arena *arena; /* of the test */
static struct settings settings;
static struct host_memory host;
static struct scoreboard scoreboard;
static struct context context;
static struct db *db; /* of the test: it looks at what the worker has stored */
static struct db_options db_options;
static char key[API_KEY_LEN + 1];
static struct memory_fcgi fcgi;

static void run(const char *sql)
{
	if (db_script(db, sql) != DB_OK)
		fail_msg("%s: %.200s", db_last_error(db)->message, sql);
}

static const char *value(const char *sql)
{
	const struct db_statement statement = { .name = "", .sql = sql, .effect = DB_READS };
	struct db_rows rows;

	if (db_run(db, &statement, NULL, 0, arena, &rows) != DB_OK || rows.count == 0)
		fail_msg("%s: %.200s", db_last_error(db)->message, sql);
	return db_text(&rows, 0, 0);
}

static void load_settings(void)
{
	char path[] = "/tmp/areg-test-memory-XXXXXX";
	struct settings_faults faults;
	FILE *file = fdopen(mkstemp(path), "w");

	assert_non_null(file);
	fprintf(file,
		"database_url = %s\nmemcached_servers = unix:%s\npublic_url = http://localhost\n"
		"limit_register = 250000 250000 250000 250000\n"
		"limit_feedback = 250000 250000 250000 250000\n"
		"limit_search = 250000 250000 250000 250000\n"
		"limit_read = 250000 250000 250000 250000\n"
		"limit_sign_in = 250000 250000 250000 250000\n"
		"[chain base]\nchain_id = 8453\n"
		"identity_registry = 0x8004A169FB4a3325136EB29fA0ceB6D2e539a432\n",
		postgres.url, memcached.socket);
	fclose(file);
	if (!settings_load(arena, path, &settings, &faults))
		fail_msg("%s: %s", faults.list[0].where, faults.list[0].why);
	unlink(path);
}

static int set_up_group(void **state)
{
	char hash[API_KEY_HASH_LEN + 1], prefix[API_KEY_PREFIX_LEN + 1];

	(void)state;
	test_postgres_start(&postgres, "");
	test_memcached_start(&memcached, NULL);
	arena = arena_new(64 * 1024, 64 << 20);
	load_settings();
	db_options = (struct db_options){ .url = postgres.url,
		.application_name = "areg test",
		.connect_timeout_ms = 5000,
		.statement_timeout_ms = 20000 };
	db = db_new(&db_options);
	test_migrate(db);
	assert_true(api_key_make(key));
	api_key_hash(key, hash);
	api_key_prefix(key, prefix);
	run(arena_printf(arena,
		"INSERT INTO users (id, wallet_address, tier, scopes) VALUES ('" SPARE "', '" WALLET
		"', 'enterprise', '{keys:write}');"
		"INSERT INTO api_keys (user_id, key_hash, key_prefix, scopes)"
		" VALUES ('" SPARE "', decode('%s', 'hex'), '%s', '{keys:write}');"
		"INSERT INTO erc8004_agents (chain, chain_id, registry_address, agent_id,"
		" owner_address, status, source, name, token_uri)"
		" SELECT 'base', 8453, '%s', n, '" OTHER_WALLET "', 'active', 'import',"
		" 'Listed ' || n, repeat('u', 100000) FROM generate_series(0, 30) AS n;"
		"INSERT INTO erc8004_reputation (agent_uuid, client_address, feedback_index, value)"
		" SELECT agent_uuid, '" WALLET "', 1, 90 FROM erc8004_agents;",
		hash, prefix, settings.chains[0].identity_registry));
	assert_int_equal(host_memory_new(&host, 4 << 20), 0);
	assert_int_equal(scoreboard_new(&scoreboard, 1), 0);
	callers_set_fresh_until(host.callers, UINT64_MAX);
	context =
		(struct context){ .settings = &settings, .scoreboard = &scoreboard, .host = &host };
	context.router = routes_router();
	context.metrics = metering_new(arena, &settings, context.router, 1);
	context_open(&context);
	return 0;
}

static int tear_down_group(void **state)
{
	(void)state;
	context_close(&context);
	router_free(context.router);
	metrics_free(context.metrics);
	scoreboard_free(&scoreboard);
	host_memory_free(&host);
	db_free(db);
	arena_free(arena);
	test_memcached_remove(&memcached);
	test_postgres_remove(&postgres);
	return 0;
}

/* ---- Requests ---- */

struct request {
	const char *method, *uri;
	const char *body; /* %d is the number of the try; NULL: none */
	const char *idempotency_key; /* likewise */
	const char
		*stored; /* SQL: how much a try has stored, %d as above; NULL: it changes nothing */
	int status; /* of success */
};

static const struct request requests[] = {
	{ "GET", "/api/v1/agents?q=listed&limit=20", NULL, NULL, NULL, 200 },
	{ "GET", "/api/v1/agents?sort=name&service=mcp&chain=base", NULL, NULL, NULL, 200 },
	{ "GET", "/api/v1/agents/base:3", NULL, NULL, NULL, 200 },
	{ "GET", "/api/v1/agents/base:4/stats", NULL, NULL, NULL, 200 },
	{ "GET", "/api/v1/agents/base:5/feedback?limit=1", NULL, NULL, NULL, 200 },
	{ "GET", "/api/v1/me", NULL, NULL, NULL, 200 },
	{ "GET", "/api/v1/keys?limit=1", NULL, NULL, NULL, 200 },
	{ "GET", "/api/v1/chains", NULL, NULL, NULL, 200 },
	{ "GET", "/api/v1/nothing?a=%41", NULL, NULL, NULL, 404 },
	{ "GET", "/api/v1/agents?nothing=1&limit=0", NULL, NULL, NULL, 400 },
	{ "POST", "/api/v1/auth/challenge", "{\"address\":\"" WALLET "\"}", NULL, NULL, 200 },
	{ "POST", "/api/v1/agents/register",
		"{\"owner_address\":\"" WALLET "\",\"chain\":\"base\",\"metadata\":{\"k\":\"v\"},"
		"\"registration_file\":{\"name\":\"A%d\",\"description\":\"d\\u0041\","
		"\"numbers\":[1,-2.5e3,18446744073709551615,true,null],"
		"\"services\":[{\"name\":\"MCP\",\"endpoint\":\"https://a.example/\"}]}}",
		NULL, "SELECT count(*) FROM erc8004_agents WHERE name = 'A%d'", 201 },
	{ "POST", "/api/v1/agents/register",
		"{\"owner_address\":\"" WALLET "\",\"chain\":\"base\","
		"\"registration_file\":{\"name\":\"B%d\",\"description\":\"d\"}}",
		"b%d", "SELECT count(*) FROM erc8004_agents WHERE name = 'B%d'", 201 },
	{ "POST", "/api/v1/agents/register", "{\"owner_address\":17,\"nothing\":[{}]}", NULL, NULL,
		400 },
	{ "POST", "/api/v1/keys", "{\"name\":\"K%d\"}", "k%d",
		"SELECT count(*) FROM api_keys WHERE name = 'K%d'", 201 },
};

static const char *numbered(const char *text, int number)
{
	return text == NULL ? NULL : arena_printf(arena, text, number);
}

/* Serves the request, as a worker does, and gives its status; 0 when nothing was answered. */
static int serve_one(const struct request *request, int number)
{
	const char *body = numbered(request->body, number);
	int status = 0;

	memory_fcgi_free(&fcgi);
	memory_fcgi_init(&fcgi, request->method, request->uri, body);
	memory_fcgi_param(&fcgi, "HTTP_X_REQUEST_ID", "the-id");
	memory_fcgi_param(&fcgi, "HTTP_AUTHORIZATION", arena_printf(arena, "Bearer %s", key));
	memory_fcgi_param(&fcgi, "CONTENT_TYPE", "application/json");
	if (body != NULL)
		memory_fcgi_param(
			&fcgi, "CONTENT_LENGTH", arena_printf(arena, "%zu", strlen(body)));
	if (request->idempotency_key != NULL)
		memory_fcgi_param(
			&fcgi, "HTTP_IDEMPOTENCY_KEY", numbered(request->idempotency_key, number));
	is_serving = true;
	serve(&context, &fcgi.request);
	is_serving = false;
	arena_reset(context.arena);
	memory_fcgi_finish(&fcgi);
	sscanf(fcgi.answer, "Status: %d", &status);
	return status;
}

/* What a failure says must be true: only `outcome_unknown` may have stored something. */
static void check_failure(const struct request *request, int status, int number, size_t nth)
{
	const char *stored =
		request->stored == NULL ? "0" : value(numbered(request->stored, number));

	if (status != 413 && status != 500 && status != 503)
		fail_msg("%s %s, failure %zu: %.300s", request->method, request->uri, nth,
			fcgi.answer);
	assert_non_null(strstr(fcgi.answer, "X-Request-ID: the-id\r\n"));
	assert_non_null(strstr(fcgi.answer, "\"request_id\":\"the-id\""));
	assert_non_null(strstr(fcgi.answer, "Content-Type: application/problem+json\r\n"));
	if (strcmp(stored, "0") != 0 && strstr(fcgi.answer, "\"outcome_unknown\"") == NULL)
		fail_msg("%s %s, failure %zu has stored something: %.300s", request->method,
			request->uri, nth, fcgi.answer);
}

/* Lets the first, the second, … of the counted calls fail, until the request needs no more of them. */
static void walk(const struct request *request, size_t *calls_left)
{
	static int number;
	size_t nth = 0;
	bool has_failed = true;

	while (has_failed) {
		int status;

		answers_drop_all(host.answers);
		*calls_left = ++nth;
		status = serve_one(request, ++number);
		has_failed = *calls_left == 0;
		*calls_left = 0;
		/* A library's failure may be what the request is answered without. */
		if (status == request->status)
			continue;
		if (!has_failed)
			fail_msg("%s %s: %.500s", request->method, request->uri, fcgi.answer);
		check_failure(request, status, number, nth);
	}
	assert_true(nth > 1 || calls_left != &arena_calls_left);
}

static void each_allocation_fails(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof requests / sizeof requests[0]; i++)
		walk(&requests[i], &arena_calls_left);
}

static void each_value_of_json_fails(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof requests / sizeof requests[0]; i++)
		if (requests[i].body != NULL)
			walk(&requests[i], &library_calls_left);
}

static void each_block_of_the_system_fails(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof requests / sizeof requests[0]; i++)
		walk(&requests[i], &system_calls_left);
}

/* The answer of a replay is made in other ways than the first. */
static void replays_fail(void **state)
{
	static const int register_kept = 12, key_sealed = 14;
	const int kept[] = { register_kept, key_sealed };

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		const struct request *request = &requests[kept[i]];
		const int number = 1000000 + (int)i;
		bool has_failed = true;
		char *first;

		assert_int_equal(serve_one(request, number), 201);
		first = arena_strdup(arena, strstr(fcgi.answer, "\r\n\r\n"));
		for (size_t nth = 1; has_failed; nth++) {
			int status;

			arena_calls_left = nth;
			status = serve_one(request, number);
			has_failed = arena_calls_left == 0;
			arena_calls_left = 0;
			assert_true(
				status == 413 || status == 500 || status == 503 || status == 201);
			if (status == 201)
				assert_string_equal(strstr(fcgi.answer, "\r\n\r\n"), first);
		}
		assert_non_null(strstr(fcgi.answer, "Idempotency-Replayed: true"));
	}
}

/* The other side goes away after some bytes of the answer: the next request is served as ever. */
static void answers_that_cannot_be_sent(void **state)
{
	static const size_t limits[] = { 0, 1, 17, 200, 70000, 150000 };

	(void)state;
	for (size_t i = 0; i < sizeof requests / sizeof requests[0]; i++) {
		for (size_t limit = 0; limit < sizeof limits / sizeof limits[0]; limit++) {
			memory_fcgi_free(&fcgi);
			memory_fcgi_init(&fcgi, requests[i].method, requests[i].uri,
				numbered(requests[i].body, 2000000 + (int)limit));
			memory_fcgi_param(
				&fcgi, "HTTP_AUTHORIZATION", arena_printf(arena, "Bearer %s", key));
			memory_fcgi_param(&fcgi, "CONTENT_TYPE", "application/json");
			fcgi.answer_most = limits[limit];
			serve(&context, &fcgi.request);
			arena_reset(context.arena);
			memory_fcgi_finish(&fcgi);
			assert_true(fcgi.answer_len <= limits[limit]);
		}
		if (requests[i].body == NULL)
			assert_int_equal(serve_one(&requests[i], 0), requests[i].status);
	}
}

/* What is claimed while others wait is let go: the next one does not wait, and the key works again. */
static void worker_is_as_before(void **state)
{
	const uint64_t began_us = clock_us();

	(void)state;
	assert_null(context.claim);
	answers_drop_all(host.answers);
	assert_int_equal(serve_one(&requests[2], 0), 200);
	assert_true(clock_us() - began_us < 4000000);
	assert_int_equal(serve_one(&requests[11], 3000000), 201);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_allocation_fails),
		cmocka_unit_test(each_value_of_json_fails),
		cmocka_unit_test(each_block_of_the_system_fails),
		cmocka_unit_test(replays_fail),
		cmocka_unit_test(answers_that_cannot_be_sent),
		cmocka_unit_test(worker_is_as_before),
	};

	setenv("TZ", "UTC", 1);
	return cmocka_run_group_tests(tests, set_up_group, tear_down_group);
}
