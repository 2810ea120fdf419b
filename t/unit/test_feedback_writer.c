/* SPDX-License-Identifier: Apache-2.0 */
/* app/process/feedback_writer with a real PostgreSQL that has areg's schema: a writer process of its own, and workers' links
 * to it from here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "app/http/metering.h"
#include "app/process/feedback_writer.h"
#include "app/routes.h"
#include "lib/clock.h"
#include "t/unit/servers.h"

#define AGENT "676ea165-8159-47b7-abf4-7da759258e98"
#define CLIENT "0xbe00000000000000000000000000000000000001"
#define OWNER "0xaa00000000000000000000000000000000000001"

static const char made[] =
	"INSERT INTO erc8004_agents (agent_uuid, chain, chain_id, registry_address, agent_id,"
	" owner_address, status, source) VALUES ('" AGENT "', 'base', 8453,"
	" '0x8800000000000000000000000000000000000001', 1, '" OWNER "', 'active', 'api')";

static struct test_postgres server;
static struct settings settings;
static struct arena *arena;
static struct db *db;
static struct writer_doors doors;
static struct writer_links links;
static struct router *router;
static struct metrics *metrics;
static pid_t writer;
static const char *values[WRITER_VALUES];
static struct db_error error;

static int wait_by_poll(void *arg, struct pollfd *fd, int timeout_ms)
{
	(void)arg;
	return poll(fd, 1, timeout_ms);
}

static void run(const char *sql)
{
	if (db_script(db, sql) != DB_OK)
		fail_msg("%s: %.200s", db_last_error(db)->message, sql);
}

static int64_t number(const char *sql)
{
	const struct db_statement statement = { .name = "", .sql = sql, .effect = DB_READS };
	struct db_rows rows;

	if (db_run(db, &statement, NULL, 0, arena, &rows) != DB_OK)
		fail_msg("%s: %.200s", db_last_error(db)->message, sql);
	return db_int(&rows, 0, 0);
}

static int set_up_group(void **state)
{
	static struct db_options options;

	(void)state;
	test_postgres_start(&server, "");
	settings = (struct settings){ .database_url = server.url,
		.workers = WRITER_WORKERS,
		.feedback_writers = 1,
		.request_timeout_ms = 60000,
		.database_connect_timeout_ms = 5000,
		.database_statement_timeout_ms = 10000 };
	options = (struct db_options){ server.url, "areg test", 5000, 20000, NULL, true };
	arena = arena_new(4096, 16 << 20);
	db = db_new(&options);
	test_migrate(db);
	run(made);
	router = routes_router();
	metrics = metering_new(arena, &settings, router, 1);
	assert_non_null(metrics);
	return 0;
}

static int tear_down_group(void **state)
{
	(void)state;
	db_free(db);
	metrics_free(metrics);
	router_free(router);
	arena_free(arena);
	test_postgres_remove(&server);
	return 0;
}

/* Forks a writer and waits until it takes links. */
static void start_writer(void)
{
	int ready[2];
	char byte;

	assert_int_equal(pipe(ready), 0);
	writer = fork();
	if (writer == 0) {
		close(ready[0]);
		writer_links_close(&links);
		_exit(feedback_writer_run(&settings, metrics, NULL, doors.doors[0], ready[1]));
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 0);
	close(ready[0]);
}

static int set_up(void **state)
{
	(void)state;
	doors = (struct writer_doors){ .count = 1 };
	assert_int_equal(relay_new(&doors.doors[0]), 0);
	start_writer();
	writer_links_open(&links, &doors, &settings, wait_by_poll, NULL);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	writer_links_close(&links);
	kill(writer, SIGCONT);
	kill(writer, SIGKILL);
	waitpid(writer, NULL, 0);
	relay_close(&doors.doors[0]);
	run("DELETE FROM erc8004_reputation");
	return 0;
}

/* Gives a feedback of that score as that client. */
static enum writer_outcome give(const char *agent, const char *client, const char *score)
{
	const char *const params[WRITER_PARAMS] = { agent, client, score, NULL, NULL, "quality", "",
		NULL, NULL, NULL, NULL, "areg_live_test", "request-1", "192.0.2.1" };

	return writer_store(&links, params, arena, values, &error);
}

/* The same, again and again until the writer has greeted this link: before, workers store alone. */
static enum writer_outcome give_when_open(const char *agent, const char *client, const char *score)
{
	const uint64_t until_ms = clock_ms() + 30000;
	enum writer_outcome outcome;

	do {
		outcome = give(agent, client, score);
		if (links.links[0].is_open)
			return outcome;
		usleep(1000);
	} while (clock_ms() < until_ms);
	fail_msg("the writer takes no link");
	return WRITER_FAILED;
}

static void a_feedback_is_stored_with_its_audit_entry(void **state)
{
	(void)state;
	assert_int_equal(give_when_open(AGENT, CLIENT, "87.5"), WRITER_STORED);
	assert_string_equal(values[1], AGENT);
	assert_string_equal(values[2], "1");
	assert_string_equal(values[3], "87.5");
	assert_int_equal(number("SELECT id FROM erc8004_reputation WHERE value = 875"
				" AND client_address = '" CLIENT "'"),
		atoll(values[0]));
	assert_int_equal(number(arena_printf(arena,
				 "SELECT count(*) FROM audit_log WHERE subject_id = '%s'"
				 " AND actor = 'areg_live_test'",
				 values[0])),
		1);
	assert_int_equal(give(AGENT, CLIENT, "12"), WRITER_STORED);
	assert_string_equal(values[2], "2");
}

static void what_cannot_be_stored_together_is_the_workers_own(void **state)
{
	(void)state;
	assert_int_equal(
		give_when_open("00000000-0000-0000-0000-000000000000", CLIENT, "50"), WRITER_ALONE);
	assert_int_equal(give(AGENT, OWNER, "50"), WRITER_ALONE);
	assert_int_equal(give(AGENT, CLIENT, "101"), WRITER_ALONE);
	assert_int_equal(give("no agent at all", CLIENT, "50"), WRITER_ALONE);
	assert_int_equal(give(AGENT, CLIENT, "not a number"), WRITER_ALONE);
	assert_int_equal(number("SELECT count(*) FROM erc8004_reputation"), 0);
}

static void a_killed_writer_leaves_the_work_to_the_worker_and_another_takes_over(void **state)
{
	(void)state;
	assert_int_equal(give_when_open(AGENT, CLIENT, "50"), WRITER_STORED);
	kill(writer, SIGKILL);
	waitpid(writer, NULL, 0);
	/* It may have gone with what it was sent: then nobody knows. */
	if (give(AGENT, CLIENT, "50") == WRITER_FAILED)
		assert_int_equal(error.status, DB_OUTCOME_UNKNOWN);
	assert_int_equal(give(AGENT, CLIENT, "50"), WRITER_ALONE);
	start_writer();
	assert_int_equal(give_when_open(AGENT, CLIENT, "50"), WRITER_STORED);
}

static void what_a_worker_gave_up_is_not_stored_later(void **state)
{
	const uint64_t until_ms = clock_ms() + 30000;

	(void)state;
	assert_int_equal(give_when_open(AGENT, CLIENT, "50"), WRITER_STORED);
	kill(writer, SIGSTOP);
	/* Else it may go on for a moment, and store what comes next. */
	assert_int_equal(waitpid(writer, NULL, WUNTRACED), writer);
	links.timeout_ms = 50;
	assert_int_equal(give(AGENT, CLIENT, "1"), WRITER_FAILED);
	assert_int_equal(error.status, DB_OUTCOME_UNKNOWN);
	kill(writer, SIGCONT);
	links.timeout_ms = 30000;
	/* Its next link is greeted after the old one was looked at. */
	while (give_when_open(AGENT, CLIENT, "2") != WRITER_STORED && clock_ms() < until_ms)
		;
	assert_int_equal(number("SELECT count(*) FROM erc8004_reputation WHERE value = 1"), 0);
	assert_int_equal(number("SELECT count(*) FROM erc8004_reputation WHERE value = 2"), 1);
}

static void a_writer_ends_when_it_is_told_to_and_the_last_worker_has_gone(void **state)
{
	int status;

	(void)state;
	assert_int_equal(give_when_open(AGENT, CLIENT, "50"), WRITER_STORED);
	kill(writer, SIGTERM);
	/* It serves those that it has. */
	assert_int_equal(give(AGENT, CLIENT, "51"), WRITER_STORED);
	assert_int_equal(waitpid(writer, &status, WNOHANG), 0);
	writer_links_close(&links);
	assert_int_equal(waitpid(writer, &status, 0), writer);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	start_writer(); /* for tear_down() */
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		CASE(a_feedback_is_stored_with_its_audit_entry),
		CASE(what_cannot_be_stored_together_is_the_workers_own),
		CASE(a_killed_writer_leaves_the_work_to_the_worker_and_another_takes_over),
		CASE(what_a_worker_gave_up_is_not_stored_later),
		CASE(a_writer_ends_when_it_is_told_to_and_the_last_worker_has_gone),
	};

	return cmocka_run_group_tests_name("feedback_writer", tests, set_up_group, tear_down_group);
}
