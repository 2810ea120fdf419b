/* SPDX-License-Identifier: Apache-2.0 */
/* app/cache/memcached_answers against a real memcached: answers count under the present tokens only. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "app/cache/memcached_answers.h"
#include "lib/clock.h"
#include "t/unit/servers.h"

#define AGENT "676ea165-8159-47b7-abf4-7da759258e98"
#define OTHER "676ea165-8159-47b7-abf4-7da759258e99"

enum { TIMEOUT_MS = 2000, RETRY_MS = 50, ANSWERS_BYTES = 1024 * 1024, LOOKS = 3 };

static struct test_memcached server;
static char servers[128];
static struct settings settings = { .database_url = "postgresql:///areg",
	.public_url = "https://areg.example" };
static struct arena *arena;
static struct memcached_answers_ticket ticket;

/* A host of its own: a view of memcached, and memory that says whether that is believed. */
struct host {
	struct cache *cache;
	struct cache_options options;
	struct answers *answers;
	struct memcached_answers memcached;
};
static struct host here, there;

static void host_open(struct host *host)
{
	void *memory = calloc(1, ANSWERS_BYTES);

	assert_non_null(memory);
	host->options =
		(struct cache_options){ servers, TIMEOUT_MS, RETRY_MS, NULL, settings.cache_key };
	host->cache = cache_new(&host->options);
	host->answers = answers_init(memory, ANSWERS_BYTES);
	assert_ptr_equal(host->answers, memory);
	memcached_answers_init(
		&host->memcached, arena, &settings, host->cache, host->answers, NULL);
	memcached_answers_recover(&host->memcached);
}

static void host_close(struct host *host)
{
	cache_free(host->cache);
	free(host->answers);
}

static int set_up_group(void **state)
{
	(void)state;
	test_memcached_start(&server, NULL);
	snprintf(servers, sizeof servers, "unix:%s", server.socket);
	return 0;
}

static int tear_down_group(void **state)
{
	(void)state;
	test_memcached_remove(&server);
	return 0;
}

static int set_up(void **state)
{
	(void)state;
	arena = arena_new(4096, 64 << 20);
	test_memcached_stop(&server);
	test_memcached_restart(&server, NULL);
	host_open(&here);
	host_open(&there);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	host_close(&here);
	host_close(&there);
	arena_free(arena);
	return 0;
}

static struct answer answer_of(const char *body)
{
	struct answer answer = { .target = "", .body = body, .len = strlen(body) };

	memcpy(answer.etag, "\"0123456789abcdef0123456789abcdef\"", ANSWER_ETAG_LEN + 1);
	return answer;
}

/* What is asked about an agent; NULL: a list. */
static const char *question(const char *agent_uuid)
{
	return agent_uuid == NULL ? "list" : arena_printf(arena, "stats %s", agent_uuid);
}

/* What the host finds to be answered about the agent; NULL when nothing. Leaves a ticket. */
static const char *found(struct host *host, const char *agent_uuid)
{
	const char *text = question(agent_uuid);
	struct answer answer;

	if (!memcached_answers_find(
		    &host->memcached, agent_uuid, text, strlen(text), arena, &answer, &ticket))
		return NULL;
	assert_string_equal(answer.etag, "\"0123456789abcdef0123456789abcdef\"");
	return arena_strndup(arena, answer.body, answer.len);
}

/* Looks until the tokens are there, which the first looks make. */
static void take_ticket(struct host *host, const char *agent_uuid)
{
	ticket.is_valid = false;
	for (int looks = 0; looks < LOOKS && !ticket.is_valid; looks++)
		(void)found(host, agent_uuid);
	assert_true(ticket.is_valid);
}

static bool store(struct host *host, const char *agent_uuid, const char *body)
{
	const struct answer answer = answer_of(body);
	const char *text = question(agent_uuid);

	return memcached_answers_store(
		&host->memcached, &ticket, agent_uuid, text, strlen(text), arena, &answer);
}

/* Waits until an answer that was sent is there: storing one does not. */
static void await_answer(struct host *host, const char *agent_uuid, const char *body)
{
	const uint64_t until = clock_ms() + 20000;
	const char *there_is = NULL;

	while (there_is == NULL && clock_ms() < until) {
		there_is = found(host, agent_uuid);
		if (there_is == NULL)
			usleep(1000);
	}
	assert_non_null(there_is);
	assert_string_equal(there_is, body);
}

static void fill(struct host *host, const char *agent_uuid, const char *body)
{
	take_ticket(host, agent_uuid);
	assert_true(store(host, agent_uuid, body));
	await_answer(host, agent_uuid, body);
}

static void change(struct host *host, const char *agent_uuid)
{
	const char *const changed[] = { agent_uuid };

	assert_true(memcached_answers_changed(&host->memcached, changed, 1, arena));
}

static void an_answer_is_found_by_every_host(void **state)
{
	(void)state;
	fill(&here, AGENT, "{\"a\":1}");
	await_answer(&there, AGENT, "{\"a\":1}");
	assert_null(found(&here, OTHER));
}

static void a_change_voids_the_answers_of_its_agent_and_of_lists_on_every_host(void **state)
{
	(void)state;
	fill(&here, AGENT, "before");
	fill(&here, OTHER, "other");
	fill(&here, NULL, "list");
	change(&there, AGENT);
	assert_null(found(&here, AGENT));
	assert_null(found(&here, NULL));
	await_answer(&here, OTHER, "other");
}

static void a_slow_read_stores_what_nobody_is_served(void **state)
{
	(void)state;
	take_ticket(&here, AGENT);
	const struct memcached_answers_ticket taken = ticket;

	change(&there, AGENT);
	ticket = taken;
	assert_true(store(&here, AGENT, "from before the change"));
	/* What is sent later over the same connection comes later. */
	fill(&here, OTHER, "other");
	assert_null(found(&here, AGENT));
	assert_null(found(&there, AGENT));
}

static void without_a_ticket_nothing_is_stored(void **state)
{
	(void)state;
	ticket.is_valid = false;
	assert_false(store(&here, AGENT, "x"));
}

static void dropping_all_voids_all(void **state)
{
	(void)state;
	fill(&here, AGENT, "agent");
	fill(&here, NULL, "list");
	assert_true(memcached_answers_drop_all(&there.memcached));
	assert_null(found(&here, AGENT));
	assert_null(found(&here, NULL));
}

static void hosts_of_other_settings_do_not_read_each_others_answers(void **state)
{
	struct settings other = settings;

	(void)state;
	fill(&here, AGENT, "ours");
	other.public_url = "https://other.example";
	memcached_answers_init(&there.memcached, arena, &other, there.cache, there.answers, NULL);
	assert_null(found(&there, AGENT));
	other = settings;
	other.database_url = "postgresql:///another";
	memcached_answers_init(&there.memcached, arena, &other, there.cache, there.answers, NULL);
	assert_null(found(&there, AGENT));
}

static void a_memcached_that_missed_a_change_is_not_believed_until_it_is_void(void **state)
{
	const char *const changed[] = { AGENT };

	(void)state;
	fill(&here, AGENT, "before");
	kill(server.pid, SIGSTOP);
	assert_false(memcached_answers_changed(&here.memcached, changed, 1, arena));
	kill(server.pid, SIGCONT);
	assert_false(memcached_answers_is_trusted(&here.memcached));
	assert_null(found(&here, AGENT));
	assert_false(ticket.is_valid);
	for (const uint64_t until = clock_ms() + 20000; clock_ms() < until;) {
		memcached_answers_recover(&here.memcached);
		if (memcached_answers_is_trusted(&here.memcached))
			break;
		usleep(20000);
	}
	assert_true(memcached_answers_is_trusted(&here.memcached));
	assert_null(found(&here, AGENT));
}

static void what_was_heard_and_asked_for_most_is_noted(void **state)
{
	(void)state;
	assert_string_equal(memcached_answers_heard(&here.memcached, arena), "");
	memcached_answers_set_heard(&here.memcached, "17.4", arena);
	assert_string_equal(memcached_answers_heard(&here.memcached, arena), "17.4");
	assert_string_equal(memcached_answers_heard(&there.memcached, arena), "17.4");
	memcached_answers_set_hottest(&here.memcached, "/a\n/b", 5);
	assert_string_equal(memcached_answers_hottest(&there.memcached, arena), "/a\n/b");
}

static void without_memcached_changes_are_told_to_nobody_and_nothing_is_found(void **state)
{
	const char *const changed[] = { AGENT };

	(void)state;
	host_close(&there);
	there.options =
		(struct cache_options){ "", TIMEOUT_MS, RETRY_MS, NULL, settings.cache_key };
	there.cache = cache_new(&there.options);
	there.answers = answers_init(calloc(1, ANSWERS_BYTES), ANSWERS_BYTES);
	memcached_answers_init(
		&there.memcached, arena, &settings, there.cache, there.answers, NULL);
	assert_false(memcached_answers_is_trusted(&there.memcached));
	assert_null(found(&there, AGENT));
	assert_true(memcached_answers_changed(&there.memcached, changed, 1, arena));
	assert_true(memcached_answers_drop_all(&there.memcached));
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		CASE(an_answer_is_found_by_every_host),
		CASE(a_change_voids_the_answers_of_its_agent_and_of_lists_on_every_host),
		CASE(a_slow_read_stores_what_nobody_is_served),
		CASE(without_a_ticket_nothing_is_stored),
		CASE(dropping_all_voids_all),
		CASE(hosts_of_other_settings_do_not_read_each_others_answers),
		CASE(a_memcached_that_missed_a_change_is_not_believed_until_it_is_void),
		CASE(what_was_heard_and_asked_for_most_is_noted),
		CASE(without_memcached_changes_are_told_to_nobody_and_nothing_is_found),
	};

	return cmocka_run_group_tests_name(
		"memcached_answers", tests, set_up_group, tear_down_group);
}
