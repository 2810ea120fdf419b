/* SPDX-License-Identifier: Apache-2.0 */
/* lib/db against a real PostgreSQL that is killed, stopped, filled and restarted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <libpq-fe.h>

#include "lib/db.h"
#include "lib/log.h"
#include "t/unit/servers.h"

#define KILL_US \
	"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'areg-test'"

static struct test_postgres server;
static struct db_options options;
static struct db *db;
static struct arena *arena;
static struct db_rows rows;

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Another client, which fails the test when it fails. */
static void elsewhere(const char *sql)
{
	PGconn *conn = PQconnectdb(server.url);
	PGresult *result = PQexec(conn, sql);
	const ExecStatusType status = PQresultStatus(result);

	if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK)
		fail_msg("%s: %s", sql, PQerrorMessage(conn));
	PQclear(result);
	PQfinish(conn);
}

/* The same in `ms` milliseconds, in a process to be waited for. */
static pid_t elsewhere_in(unsigned ms, const char *sql)
{
	const pid_t pid = fork();

	if (pid == 0) {
		PGconn *conn;

		usleep(ms * 1000);
		conn = PQconnectdb(server.url);
		PQclear(PQexec(conn, sql));
		_exit(0);
	}
	return pid;
}

static enum db_status run(const struct db_statement *statement)
{
	return db_run(db, statement, NULL, 0, arena, &rows);
}

/* Any SQL, once, unprepared. */
static enum db_status run_text(const char *sql, enum db_effect effect)
{
	const struct db_statement statement = { "", sql, effect, NULL };

	return run(&statement);
}

static int64_t number(const char *sql)
{
	assert_int_equal(run_text(sql, DB_READS), DB_OK);
	assert_int_equal(rows.count, 1);
	return db_int(&rows, 0, 0);
}

static int set_up_group(void **state)
{
	(void)state;
	test_postgres_start(&server, "-c max_connections=8 -c superuser_reserved_connections=0"
				     " -c deadlock_timeout=5s");
	elsewhere(
		"CREATE TABLE parent (id int PRIMARY KEY);"
		"CREATE TABLE child (id int CONSTRAINT child_key UNIQUE,"
		" n int NOT NULL CONSTRAINT n_small CHECK (n < 100) DEFAULT 0,"
		" parent int CONSTRAINT child_parent REFERENCES parent,"
		" late int CONSTRAINT child_late REFERENCES parent DEFERRABLE INITIALLY DEFERRED);"
		"CREATE TABLE slow (n int);"
		"CREATE FUNCTION sleep_in_commit() RETURNS trigger LANGUAGE plpgsql AS"
		" 'BEGIN PERFORM pg_sleep(1); RETURN NULL; END';"
		"CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON slow DEFERRABLE INITIALLY DEFERRED"
		" FOR EACH ROW EXECUTE FUNCTION sleep_in_commit()");
	return 0;
}

static int tear_down_group(void **state)
{
	(void)state;
	test_postgres_remove(&server);
	return 0;
}

static int set_up(void **state)
{
	(void)state;
	elsewhere("TRUNCATE parent, child, slow; INSERT INTO parent VALUES (1), (2)");
	options = (struct db_options){ .url = server.url,
		.application_name = "areg-test",
		.connect_timeout_ms = 500,
		.statement_timeout_ms = 3000 };
	db = db_new(&options);
	arena = arena_new(4096, 16 << 20);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	db_free(db);
	arena_free(arena);
	return 0;
}

static void rows_come_back_as_text_with_null_as_NULL(void **state)
{
	static const struct db_statement echo = { "echo",
		"SELECT $1::text, $2::text, $3::bigint, $3::bigint > 0, NULL::bigint", DB_READS,
		NULL };
	const char *params[] = { "h\xc3\xa9", NULL, "-9223372036854775808" };

	(void)state;
	assert_int_equal(db_run(db, &echo, params, 3, arena, &rows), DB_OK);
	assert_int_equal(rows.count, 1);
	assert_string_equal(db_text(&rows, 0, 0), "h\xc3\xa9");
	assert_null(db_text(&rows, 0, 1));
	assert_true(db_int(&rows, 0, 2) == INT64_MIN);
	assert_false(db_bool(&rows, 0, 3));
	assert_true(db_int(&rows, 0, 4) == 0);
	assert_int_equal(run_text("UPDATE parent SET id = id + 10", DB_CHANGES), DB_OK);
	assert_int_equal(rows.count, 2);
}

static void even_the_first_use_of_a_statement_is_one_trip(void **state)
{
	static const struct db_statement one = { "one", "SELECT 1", DB_READS, NULL };

	(void)state;
	assert_int_equal(run(&one), DB_OK);
	assert_int_equal(db_meter(db)->round_trips, 1);
	assert_int_equal(run(&one), DB_OK);
	assert_int_equal(db_meter(db)->round_trips, 2);
	assert_int_equal(
		number("SELECT count(*) FROM pg_prepared_statements WHERE name = 'one'"), 1);
}

static const char *application_name(void)
{
	assert_int_equal(run_text("SHOW application_name", DB_READS), DB_OK);
	return db_text(&rows, 0, 0);
}

static enum db_status look_and_fail(struct db *tagged, void *arg)
{
	(void)arg;
	assert_ptr_equal(tagged, db);
	assert_string_equal(application_name(), "areg work-2");
	return DB_CALLER;
}

static void a_tag_travels_with_the_next_statement_and_costs_no_trip(void **state)
{
	static const struct db_statement one = { "one", "SELECT 1", DB_READS, NULL };

	(void)state;
	db_tag(db, "areg work-1");
	assert_int_equal(run(&one), DB_OK);
	assert_string_equal(application_name(), "areg work-1");
	assert_int_equal(db_meter(db)->round_trips, 2);
	db_tag(db, "areg work-2");
	assert_int_equal(db_transact(db, look_and_fail, NULL), DB_CALLER);
	assert_string_equal(
		application_name(), "areg work-2"); /* what was rolled back is said anew */
	db_tag(db, "areg work-3");
	assert_int_equal(run_text("SELECT 1/0", DB_READS), DB_CALLER);
	assert_string_equal(application_name(), "areg work-3");
	elsewhere("SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
		  " WHERE application_name = 'areg work-3'");
	assert_string_equal(application_name(), "areg work-3"); /* so is it to a new connection */
	assert_int_equal(db_script(db, "DEALLOCATE ALL"), DB_OK);
	db_tag(db, "areg work-4");
	assert_int_equal(run(&one), DB_OK);
	assert_string_equal(application_name(), "areg work-4");
}

static void the_session_speaks_utf8_utc_and_iso_and_keeps_the_operators_options(void **state)
{
	char url[256];

	(void)state;
	snprintf(url, sizeof(url), "%s&options=-c%%20work_mem%%3D5MB", server.url);
	options.url = url;
	assert_int_equal(
		run_text("SELECT current_setting('client_encoding'),"
			 " current_setting('TimeZone'), current_setting('DateStyle'),"
			 " current_setting('statement_timeout'), current_setting('work_mem'),"
			 " current_setting('idle_in_transaction_session_timeout')",
			DB_READS),
		DB_OK);
	assert_string_equal(db_text(&rows, 0, 0), "UTF8");
	assert_string_equal(db_text(&rows, 0, 1), "UTC");
	assert_string_equal(db_text(&rows, 0, 2), "ISO, MDY");
	assert_string_equal(db_text(&rows, 0, 3), "3s");
	assert_string_equal(db_text(&rows, 0, 4), "5MB");
	assert_string_equal(db_text(&rows, 0, 5), "1min");
}

static void violations_are_the_callers_fault_and_name_the_constraint(void **state)
{
	static const struct {
		const char *sql, *sqlstate, *constraint, *column;
	} cases[] = {
		{ "INSERT INTO child (id) VALUES (1), (1)", "23505", "child_key", "" },
		{ "INSERT INTO child (id, n) VALUES (1, 100)", "23514", "n_small", "" },
		{ "INSERT INTO child (id, parent) VALUES (1, 3)", "23503", "child_parent", "" },
		{ "INSERT INTO child (id, n) VALUES (1, NULL)", "23502", "", "n" },
		{ "INSERT INTO child (id, late) VALUES (1, 3)", "23503", "child_late", "" },
		{ "INSERT INTO child (id) VALUES (3000000000)", "22003", "", "" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(run_text(cases[i].sql, DB_CHANGES), DB_CALLER);
		assert_int_equal(db_last_error(db)->status, DB_CALLER);
		assert_string_equal(db_last_error(db)->sqlstate, cases[i].sqlstate);
		assert_string_equal(db_last_error(db)->constraint, cases[i].constraint);
		assert_string_equal(db_last_error(db)->column, cases[i].column);
	}
	assert_int_equal(number("SELECT count(*) FROM child"), 0);
}

static void a_fault_in_the_sql_is_ours(void **state)
{
	(void)state;
	assert_int_equal(run_text("SELECT nothing FROM nowhere", DB_READS), DB_OURS);
	assert_string_equal(db_last_error(db)->sqlstate, "42P01");
	assert_string_equal(db_status_name(DB_OURS), "ours");
}

static void killed_between_statements_a_change_goes_through_on_a_new_connection(void **state)
{
	(void)state;
	assert_int_equal(run_text("SELECT 1", DB_READS), DB_OK);
	elsewhere(KILL_US);
	usleep(50000);
	assert_int_equal(run_text("INSERT INTO child (id) VALUES (1)", DB_CHANGES), DB_OK);
	assert_int_equal(number("SELECT count(*) FROM child"), 1);
	assert_int_equal(db_meter(db)->reconnects, 1);
}

static void killed_in_the_middle_a_read_is_asked_again(void **state)
{
	pid_t killer;

	(void)state;
	assert_int_equal(db_connect(db), DB_OK);
	killer = elsewhere_in(200, KILL_US);
	assert_int_equal(run_text("SELECT 7 FROM pg_sleep(0.6)", DB_READS), DB_OK);
	assert_true(db_int(&rows, 0, 0) == 7);
	assert_int_equal(db_meter(db)->retries, 1);
	waitpid(killer, NULL, 0);
}

static void killed_in_the_middle_a_change_has_an_unknown_outcome(void **state)
{
	pid_t killer;

	(void)state;
	assert_int_equal(db_connect(db), DB_OK);
	killer = elsewhere_in(200, KILL_US);
	assert_int_equal(run_text("INSERT INTO child (id) SELECT 1 FROM pg_sleep(1)", DB_CHANGES),
		DB_OUTCOME_UNKNOWN);
	assert_int_equal(db_last_error(db)->status, DB_OUTCOME_UNKNOWN);
	waitpid(killer, NULL, 0);
	assert_int_equal(number("SELECT count(*) FROM child"), 0);
}

struct calls {
	int count;
	const char *sql;
	pid_t killer;
	const char *first_time_elsewhere;
};

static enum db_status insert_body(struct db *in, void *arg)
{
	struct calls *calls = arg;
	const struct db_statement statement = { "", calls->sql, DB_CHANGES, NULL };
	enum db_status status = db_run(in, &statement, NULL, 0, arena, &rows);

	if (calls->count++ == 0 && calls->first_time_elsewhere) {
		elsewhere(calls->first_time_elsewhere);
		usleep(50000);
	}
	return status;
}

static void killed_while_committing_the_outcome_is_unknown_and_not_tried_again(void **state)
{
	struct calls calls = { .sql = "INSERT INTO slow VALUES (1)" };
	pid_t killer;

	(void)state;
	assert_int_equal(db_connect(db), DB_OK);
	killer = elsewhere_in(300, KILL_US);
	assert_int_equal(db_transact(db, insert_body, &calls), DB_OUTCOME_UNKNOWN);
	assert_int_equal(calls.count, 1);
	waitpid(killer, NULL, 0);
	assert_int_equal(number("SELECT count(*) FROM slow"), 0);
}

static void killed_while_a_lone_change_commits_the_outcome_is_unknown(void **state)
{
	static const struct db_statement slow = { "slow", "INSERT INTO slow VALUES (1)", DB_CHANGES,
		NULL };
	pid_t killer;

	(void)state;
	assert_int_equal(db_connect(db), DB_OK);
	killer = elsewhere_in(300, KILL_US);
	assert_int_equal(run(&slow), DB_OUTCOME_UNKNOWN);
	waitpid(killer, NULL, 0);
}

static enum db_status two_inserts(struct db *in, void *arg)
{
	struct calls *calls = arg;
	enum db_status status = insert_body(in, arg);

	return status == DB_OK
		       ? db_run(in,
				 &(struct db_statement){ "", "INSERT INTO child (id) VALUES (2)",
					 DB_CHANGES, NULL },
				 NULL, 0, arena, &rows)
		       : (calls->count += 100, status);
}

static void killed_inside_a_transaction_it_is_done_again_from_its_beginning(void **state)
{
	struct calls calls = { .sql = "INSERT INTO child (id) VALUES (1)",
		.first_time_elsewhere = KILL_US };

	(void)state;
	assert_int_equal(db_transact(db, two_inserts, &calls), DB_OK);
	assert_int_equal(calls.count, 2);
	assert_int_equal(number("SELECT count(*) FROM child"), 2);
}

static void killed_just_before_commit_it_is_done_again(void **state)
{
	struct calls calls = { .sql = "INSERT INTO child (id) VALUES (1)",
		.first_time_elsewhere = KILL_US };

	(void)state;
	assert_int_equal(db_transact(db, insert_body, &calls), DB_OK);
	assert_int_equal(calls.count, 2);
	assert_int_equal(number("SELECT count(*) FROM child"), 1);
}

static enum db_status read_then_update(struct db *in, void *arg)
{
	struct calls *calls = arg;
	enum db_status status = db_script(
		in, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT id FROM child");

	if (status == DB_OK && calls->count++ == 0)
		elsewhere("UPDATE child SET n = n + 1");
	return status == DB_OK ? db_script(in, "UPDATE child SET n = n + 10") : status;
}

static void a_serialization_failure_is_tried_again_and_succeeds(void **state)
{
	struct calls calls = { 0 };

	(void)state;
	elsewhere("INSERT INTO child (id) VALUES (1)");
	assert_int_equal(db_transact(db, read_then_update, &calls), DB_OK);
	assert_int_equal(calls.count, 2);
	assert_int_equal(number("SELECT n FROM child"), 11);
}

static void a_conflict_that_stays_is_given_up_after_three_tries(void **state)
{
	struct calls calls = { .sql = "DO $$BEGIN RAISE 'x' USING ERRCODE = '40001'; END$$" };

	(void)state;
	assert_int_equal(db_transact(db, insert_body, &calls), DB_CONFLICT);
	assert_int_equal(calls.count, 3);
	assert_int_equal(run_text(calls.sql, DB_CHANGES), DB_CONFLICT);
	assert_int_equal(db_meter(db)->retries, 4);
}

struct rival {
	PGconn *conn;
	int calls;
};

static enum db_status lock_one_then_two(struct db *in, void *arg)
{
	struct rival *rival = arg;
	enum db_status status = db_script(in, "SET LOCAL deadlock_timeout = '50ms';"
					      " SELECT 1 FROM parent WHERE id = 1 FOR UPDATE");

	if (status == DB_OK && rival->calls++ == 0)
		assert_true(PQsendQuery(
			rival->conn, "SELECT 1 FROM parent WHERE id = 1 FOR UPDATE; COMMIT"));
	return status == DB_OK ? db_script(in, "SELECT 1 FROM parent WHERE id = 2 FOR UPDATE")
			       : status;
}

static void the_victim_of_a_deadlock_tries_again_and_succeeds(void **state)
{
	struct rival rival = { .conn = PQconnectdb(server.url) };

	(void)state;
	PQclear(PQexec(rival.conn, "BEGIN; SELECT 1 FROM parent WHERE id = 2 FOR UPDATE"));
	assert_int_equal(db_transact(db, lock_one_then_two, &rival), DB_OK);
	assert_int_equal(rival.calls, 2);
	PQfinish(rival.conn);
}

static void a_statement_past_its_time_is_a_timeout(void **state)
{
	const int64_t start = now_ms();

	(void)state;
	options.statement_timeout_ms = 200;
	assert_int_equal(run_text("SELECT pg_sleep(5)", DB_READS), DB_TIMEOUT);
	assert_string_equal(db_last_error(db)->sqlstate, "57014");
	assert_in_range(now_ms() - start, 150, 1000);
	assert_int_equal(number("SELECT 1"), 1);
	assert_int_equal(db_meter(db)->reconnects, 0);
}

static enum db_status wait_for_a_lock(struct db *in, void *arg)
{
	(void)arg;
	return db_script(in, "SET LOCAL lock_timeout = 100; SELECT 1 FROM parent FOR UPDATE");
}

static void a_lock_not_had_in_time_is_a_timeout(void **state)
{
	PGconn *holder = PQconnectdb(server.url);

	(void)state;
	PQclear(PQexec(holder, "BEGIN; SELECT 1 FROM parent FOR UPDATE"));
	assert_int_equal(db_transact(db, wait_for_a_lock, NULL), DB_TIMEOUT);
	assert_string_equal(db_last_error(db)->sqlstate, "55P03");
	PQfinish(holder);
}

static void a_stopped_server_costs_no_more_than_the_timeouts(void **state)
{
	int64_t start;
	pid_t backend;

	(void)state;
	options.statement_timeout_ms = 300;
	backend = (pid_t)number("SELECT pg_backend_pid()");
	kill(server.pid, SIGSTOP);
	kill(backend, SIGSTOP);
	usleep(50000); /* signals take their time */

	start = now_ms();
	assert_int_equal(run_text("SELECT 1", DB_READS), DB_TIMEOUT);
	assert_in_range(now_ms() - start, 1200, 1900);
	start = now_ms();
	assert_int_equal(run_text("SELECT 1", DB_READS), DB_UNAVAILABLE);
	assert_in_range(now_ms() - start, 450, 1000);

	kill(backend, SIGCONT);
	kill(server.pid, SIGCONT);
	usleep(150000);
	assert_int_equal(number("SELECT 1"), 1);
}

static void a_change_that_a_stopped_server_does_not_answer_has_an_unknown_outcome(void **state)
{
	pid_t backend;

	(void)state;
	options.statement_timeout_ms = 100;
	backend = (pid_t)number("SELECT pg_backend_pid()");
	kill(backend, SIGSTOP);
	usleep(50000);
	assert_int_equal(
		run_text("INSERT INTO child (id) VALUES (1)", DB_CHANGES), DB_OUTCOME_UNKNOWN);
	kill(backend, SIGCONT);
}

static void a_server_that_is_down_is_unavailable_at_once_and_found_again_by_itself(void **state)
{
	int64_t start;
	int calls = 0;

	(void)state;
	assert_int_equal(number("SELECT 1"), 1);
	test_postgres_stop(&server, SIGQUIT);
	assert_int_equal(run_text("INSERT INTO child (id) VALUES (1)", DB_CHANGES), DB_UNAVAILABLE);
	start = now_ms();
	for (int i = 0; i < 100; i++)
		assert_int_equal(run_text("SELECT 1", DB_READS), DB_UNAVAILABLE);
	assert_true(now_ms() - start < 100);

	test_postgres_restart(&server);
	for (start = now_ms(); run_text("SELECT 1", DB_READS) != DB_OK; calls++) {
		assert_true(now_ms() - start < 2500);
		usleep(20000);
	}
	assert_int_equal(db_meter(db)->reconnects, 1);
	assert_int_equal(number("SELECT count(*) FROM child"), 0);
}

/* The other one has failed until it backs off for some 3 s by itself, which is longer than a start takes. */
static void who_reaches_the_server_again_ends_the_back_off_of_others(void **state)
{
	uint64_t reached = 0;
	struct db *other = db_new(&options);

	(void)state;
	db_share_reached(db, &reached, 100);
	db_share_reached(other, &reached, 10000);
	assert_int_equal(number("SELECT 1"), 1);
	assert_int_equal(reached, 0); /* a first connection is no news */
	test_postgres_stop(&server, SIGQUIT);
	for (int attempts = 0; attempts < 6; usleep(5000)) {
		const uint64_t waited_us = db_meter(other)->waited_us;

		assert_int_equal(db_connect(other), DB_UNAVAILABLE);
		attempts += db_meter(other)->waited_us > waited_us;
		assert_int_equal(run_text("SELECT 1", DB_READS), DB_UNAVAILABLE);
	}
	test_postgres_restart(&server);
	while (run_text("SELECT 1", DB_READS) != DB_OK)
		usleep(5000);
	assert_int_equal(reached, 1);
	assert_int_equal(db_connect(other), DB_OK);
	db_free(other);
}

static void a_server_out_of_connections_is_unavailable_until_one_is_free(void **state)
{
	PGconn *others[8];

	(void)state;
	for (size_t i = 0; i < 8; i++)
		others[i] = PQconnectdb(server.url);
	assert_int_equal(run_text("SELECT 1", DB_READS), DB_UNAVAILABLE);
	for (size_t i = 0; i < 8; i++)
		PQfinish(others[i]);
	usleep(250000);
	assert_int_equal(number("SELECT 1"), 1);
}

static enum db_status insert_duplicate(struct db *in, void *arg)
{
	(void)arg;
	return db_script(in, "INSERT INTO child (id) VALUES (1)");
}

static enum db_status overlook(struct db *in, void *arg)
{
	enum db_status ignored = insert_duplicate(in, arg);

	(void)ignored;
	return DB_OK;
}

static enum db_status with_savepoints(struct db *in, void *arg)
{
	assert_int_equal(insert_duplicate(in, arg), DB_OK);
	assert_int_equal(db_savepoint(in, insert_duplicate, arg), DB_CALLER);
	assert_string_equal(db_last_error(in)->constraint, "child_key");
	assert_int_equal(db_savepoint(in, overlook, arg), DB_CALLER);
	return db_script(in, "INSERT INTO child (id) VALUES (2)");
}

static void what_fails_inside_a_savepoint_leaves_the_transaction_usable(void **state)
{
	(void)state;
	assert_int_equal(db_transact(db, with_savepoints, NULL), DB_OK);
	assert_int_equal(number("SELECT count(*) FROM child"), 2);
}

static void a_transaction_whose_body_overlooked_a_failure_is_not_taken_for_committed(void **state)
{
	(void)state;
	elsewhere("INSERT INTO child (id) VALUES (1)");
	assert_int_equal(db_transact(db, overlook, NULL), DB_CALLER);
}

static enum db_status refuse(struct db *in, void *arg)
{
	assert_int_equal(insert_duplicate(in, arg), DB_OK);
	return DB_OURS;
}

static void a_body_that_refuses_changes_nothing(void **state)
{
	(void)state;
	assert_int_equal(db_transact(db, refuse, NULL), DB_OURS);
	assert_int_equal(number("SELECT count(*) FROM child"), 0);
}

static void a_transaction_of_one_statement_is_two_trips(void **state)
{
	struct calls calls = { .sql = "INSERT INTO child (id) VALUES (1)" };

	(void)state;
	assert_int_equal(db_transact(db, insert_body, &calls), DB_OK);
	assert_int_equal(db_meter(db)->round_trips, 2);
}

static void copy_stores_many_rows_and_says_how_many(void **state)
{
	char line[300];
	size_t copied;

	(void)state;
	assert_int_equal(run_text("CREATE TEMP TABLE wide (n int, t text)", DB_CHANGES), DB_OK);
	assert_int_equal(db_copy_begin(db, "COPY wide FROM STDIN"), DB_OK);
	for (int i = 0; i < 40000; i++) {
		const int len = snprintf(line, sizeof(line), "%d\t%0250d\n", i, i);

		assert_int_equal(db_copy_put(db, line, (size_t)len), DB_OK);
	}
	assert_int_equal(db_copy_end(db, NULL, &copied), DB_OK);
	assert_int_equal(copied, 40000);
	assert_int_equal(number("SELECT count(DISTINCT n) FROM wide"), 40000);
}

static void a_copy_that_is_abandoned_or_refused_stores_nothing(void **state)
{
	size_t copied;

	(void)state;
	assert_int_equal(db_copy_begin(db, "COPY child (id) FROM STDIN"), DB_OK);
	assert_int_equal(db_copy_put(db, "1\n", 2), DB_OK);
	assert_int_equal(db_copy_end(db, "changed my mind", &copied), DB_OK);
	assert_int_equal(db_copy_begin(db, "COPY child (id) FROM STDIN"), DB_OK);
	assert_int_equal(db_copy_put(db, "1\nx\n", 4), DB_OK);
	assert_int_equal(db_copy_end(db, NULL, &copied), DB_CALLER);
	assert_string_equal(db_last_error(db)->sqlstate, "22P02");
	assert_int_equal(copied, 0);
	assert_int_equal(number("SELECT count(*) FROM child"), 0);
	assert_int_equal(db_meter(db)->reconnects, 0);
}

static void a_copy_whose_server_is_killed_says_so(void **state)
{
	enum db_status status = DB_OK;
	size_t copied;

	(void)state;
	assert_int_equal(db_copy_begin(db, "COPY child (id) FROM STDIN"), DB_OK);
	elsewhere(KILL_US);
	usleep(50000);
	for (int i = 0; i < 100000 && status == DB_OK; i++)
		status = db_copy_put(db, "1\n", 2);
	if (status == DB_OK)
		status = db_copy_end(db, NULL, &copied);
	assert_true(status == DB_UNAVAILABLE || status == DB_OUTCOME_UNKNOWN);
	assert_int_equal(number("SELECT count(*) FROM child"), 0);
}

static void text_arrays_arrive_as_they_were(void **state)
{
	static const struct db_statement parts = { "parts", "SELECT unnest($1::text[])", DB_READS,
		NULL };
	static const char *const elements[] = { "plain", "", "NULL", "a\"b", "back\\slash\\",
		"{x, y}", "h\xc3\xa9 \xf0\x9f\xa4\x96", "line\nbreak\t", " blanks ", NULL };
	const size_t count = sizeof(elements) / sizeof(elements[0]);
	const char *param = db_array(arena, elements, count);

	(void)state;
	assert_int_equal(db_run(db, &parts, &param, 1, arena, &rows), DB_OK);
	assert_int_equal(rows.count, count);
	for (size_t i = 0; i + 1 < count; i++)
		assert_string_equal(db_text(&rows, i, 0), elements[i]);
	assert_null(db_text(&rows, count - 1, 0));
	param = db_array(arena, NULL, 0);
	assert_int_equal(db_run(db, &parts, &param, 1, arena, &rows), DB_OK);
	assert_int_equal(rows.count, 0);
}

static void parameters_have_names_and_stand_as_often_as_the_text_says(void **state)
{
	static const char *const names[] = { "number", "a", "a_1", NULL };
	static const char *const values[] = { "7", "x", NULL };
	const struct db_statement statements[] = {
		{ "named",
			"SELECT :a::text || ':number ' || E'it\\'s :a', :number::int + :number::int,"
			" (ARRAY[1, 2, 3])[2 : 3], :a_1::text -- :nobody\n AS \"it's :a\" /* :x */",
			DB_READS, names },
		{ "",
			"SELECT :a::text || ':number ' || E'it\\'s :a', 2 * :number::int,"
			" '{2,3}', :a_1::text",
			DB_READS, names },
	};

	(void)state;
	for (size_t i = 0; i < 4; i++) { /* each prepared and not, and once more */
		assert_int_equal(db_run(db, &statements[i % 2], values, 3, arena, &rows), DB_OK);
		assert_string_equal(db_text(&rows, 0, 0), "x:number it's :a");
		assert_int_equal(db_int(&rows, 0, 1), 14);
		assert_string_equal(db_text(&rows, 0, 2), "{2,3}");
		assert_null(db_text(&rows, 0, 3));
	}
}

/* What a run of this SQL with two values logs before it aborts. */
static const char *last_words(const char *sql, const char *const *names)
{
	static char said[1000];
	static const char *const values[] = { "1", "2" };
	const struct db_statement statement = { "named_wrong", sql, DB_READS, names };
	int ends[2], how;
	ssize_t len;
	pid_t pid;

	assert_int_equal(pipe(ends), 0);
	pid = fork();
	if (pid == 0) {
		struct db *own = db_new(&options);
		const char *why;

		dup2(ends[1], 2);
		signal(SIGABRT, SIG_DFL);
		if (log_open("stderr", LOG_FORMAT_TEXT, LOG_LEVEL_ERROR, &why))
			(void)!db_run(own, &statement, values, 2, arena, &rows);
		_exit(0);
	}
	close(ends[1]);
	len = read(ends[0], said, sizeof(said) - 1);
	close(ends[0]);
	said[len > 0 ? len : 0] = '\0';
	waitpid(pid, &how, 0);
	assert_true(WIFSIGNALED(how) && WTERMSIG(how) == SIGABRT);
	return said;
}

static void names_that_do_not_fit_the_text_abort_and_say_why(void **state)
{
	static const char *const two[] = { "a", "b", NULL }, *const three[] = { "a", "b", "c",
		NULL };
	const struct {
		const char *sql;
		const char *const *names;
		const char *why;
	} faults[] = {
		{ "SELECT :a::int, :b::int, :bb", two, ":bb is not in the list of names" },
		{ "SELECT :a::int, ':b'", two, ":b of the list is not in the text" },
		{ "SELECT :a::int, :b::int, $2", two, "has $ beside names: $2" },
		{ "SELECT :a, :b, :c", three, "the list has 3 names, but there are 2 values" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
		const char *said = last_words(faults[i].sql, faults[i].names);

		if (!strstr(said, faults[i].why) || !strstr(said, "named_wrong"))
			fail_msg("\"%s\" is not in: %s", faults[i].why, said);
	}
}

static const struct db_statement all_of_parent = { "all_of_parent", "SELECT * FROM parent",
	DB_READS, NULL };

static enum db_status read_all(struct db *in, void *arg)
{
	++*(int *)arg;
	return db_run(in, &all_of_parent, NULL, 0, arena, &rows);
}

static void a_prepared_statement_that_the_server_lost_or_outgrew_is_prepared_again(void **state)
{
	int calls = 0;

	(void)state;
	assert_int_equal(run(&all_of_parent), DB_OK);
	assert_int_equal(db_script(db, "DEALLOCATE ALL"), DB_OK);
	assert_int_equal(run(&all_of_parent), DB_OK);
	elsewhere("ALTER TABLE parent ADD extra int");
	assert_int_equal(run(&all_of_parent), DB_OK);
	elsewhere("ALTER TABLE parent DROP extra");
	assert_int_equal(db_transact(db, read_all, &calls), DB_OK);
	assert_int_equal(calls, 2);
	assert_int_equal(rows.count, 2);
}

static void nothing_of_postgresql_goes_to_stderr(void **state)
{
	const int saved = dup(2);
	FILE *file = tmpfile();
	long size;

	(void)state;
	dup2(fileno(file), 2);
	assert_int_equal(db_script(db, "DO $$BEGIN RAISE WARNING 'hear me'; END$$"), DB_OK);
	fflush(stderr);
	dup2(saved, 2);
	close(saved);
	size = lseek(fileno(file), 0, SEEK_END);
	fclose(file);
	assert_int_equal(size, 0);
}

static void a_url_that_cannot_be_read_is_unavailable_and_says_why(void **state)
{
	(void)state;
	options.url = "postgresql://[";
	assert_int_equal(db_connect(db), DB_UNAVAILABLE);
	assert_true(strlen(db_last_error(db)->message) > 10);
}

/* ---- Errors that live as long as the connection ---- */

static void turn_read_only(struct test_postgres *which, bool on)
{
	char sql[200];
	PGconn *conn = PQconnectdb(which->url);

	snprintf(sql, sizeof(sql), "ALTER SYSTEM %s default_transaction_read_only%s",
		on ? "SET" : "RESET", on ? " = on" : "");
	PQclear(PQexec(conn, sql));
	PQclear(PQexec(conn, "SELECT pg_reload_conf()"));
	for (int tries = 0;; tries++) {
		PGconn *fresh = PQconnectdb(which->url);
		PGresult *result = PQexec(fresh, "SHOW default_transaction_read_only");
		const bool is_on = strcmp(PQgetvalue(result, 0, 0), "on") == 0;

		PQclear(result);
		PQfinish(fresh);
		if (is_on == on)
			break;
		assert_true(tries < 500);
		usleep(10000);
	}
	PQfinish(conn);
}

static void is_well_within_3_s(enum db_effect effect, const char *sql)
{
	const int64_t start = now_ms();

	while (run_text(sql, effect) != DB_OK) {
		assert_true(now_ms() - start < 3000);
		usleep(20000);
	}
}

static enum db_status insert_one(struct db *of, void *arg)
{
	static const struct db_statement insert = { "insert_one",
		"INSERT INTO child (id) VALUES (1)", DB_CHANGES, NULL };

	(void)arg;
	return db_run(of, &insert, NULL, 0, arena, &rows);
}

static void a_primary_that_turns_read_only_is_unavailable_until_it_is_over(void **state)
{
	(void)state;
	options.read_write = true;
	assert_int_equal(number("SELECT 1"), 1);
	turn_read_only(&server, true);
	assert_int_equal(run_text("INSERT INTO child (id) VALUES (1)", DB_CHANGES), DB_UNAVAILABLE);
	assert_int_equal(db_transact(db, insert_one, NULL), DB_UNAVAILABLE);
	assert_int_equal(run_text("SELECT 1", DB_READS), DB_UNAVAILABLE);
	turn_read_only(&server, false);
	is_well_within_3_s(DB_CHANGES, "INSERT INTO child (id) VALUES (1)");
	assert_int_equal(number("SELECT count(*) FROM child"), 1);
}

static void who_only_reads_hears_that_the_primary_has_turned_read_only(void **state)
{
	(void)state;
	options.read_write = true;
	assert_int_equal(number("SELECT 1"), 1);
	turn_read_only(&server, true);
	(void)run_text("SELECT 1", DB_READS); /* its answer tells */
	assert_int_equal(run_text("SELECT 1", DB_READS), DB_UNAVAILABLE);
	assert_non_null(strstr(db_last_error(db)->message, "read-only"));
	turn_read_only(&server, false);
	is_well_within_3_s(DB_READS, "SELECT 1");
}

static void a_reader_goes_on_with_a_read_only_server(void **state)
{
	(void)state;
	turn_read_only(&server, true);
	assert_int_equal(number("SELECT 1"), 1);
	assert_int_equal(run_text("INSERT INTO child (id) VALUES (1)", DB_CHANGES), DB_OURS);
	assert_int_equal(number("SELECT 1"), 1);
	assert_int_equal(db_meter(db)->reconnects, 0);
	turn_read_only(&server, false);
}

static void of_several_servers_the_one_that_takes_changes_is_used(void **state)
{
	struct test_postgres other;
	char url[400];

	(void)state;
	test_postgres_start(&other, "-c max_connections=8 -c superuser_reserved_connections=0");
	snprintf(url, sizeof(url), "host=%s,%s user=areg dbname=postgres target_session_attrs=any",
		other.dir, server.dir);
	turn_read_only(&other, true);
	options.url = url;
	options.read_write = true;
	assert_int_equal(run_text("INSERT INTO child (id) VALUES (1)", DB_CHANGES), DB_OK);

	/* And the other way round, in the middle of it: the very change goes through. */
	turn_read_only(&other, false);
	{
		PGconn *conn = PQconnectdb(other.url);

		PQclear(PQexec(conn, "CREATE TABLE child (id int)"));
		PQfinish(conn);
	}
	turn_read_only(&server, true);
	assert_int_equal(run_text("INSERT INTO child (id) VALUES (2)", DB_CHANGES), DB_OK);
	turn_read_only(&server, false);
	test_postgres_remove(&other);
}

static void what_an_operator_puts_right_counts_without_a_restart(void **state)
{
	const struct db_statement count = { "count_child", "SELECT count(*) FROM child", DB_READS,
		NULL };

	(void)state;
	elsewhere("ALTER DATABASE postgres SET search_path = nowhere");
	assert_int_equal(run(&count), DB_OURS);
	assert_int_equal(run(&count), DB_OURS);
	elsewhere("ALTER DATABASE postgres RESET search_path");
	usleep(1100000); /* one connection a second is given up for it */
	assert_int_equal(run(&count), DB_OURS);
	assert_int_equal(run(&count), DB_OK);

	for (int i = 0; i < 20; i++)
		assert_int_equal(run_text("SELECT nothing FROM nowhere", DB_READS), DB_OURS);
	assert_true(db_meter(db)->reconnects <= 3);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(rows_come_back_as_text_with_null_as_NULL),
		TEST(even_the_first_use_of_a_statement_is_one_trip),
		TEST(a_tag_travels_with_the_next_statement_and_costs_no_trip),
		TEST(the_session_speaks_utf8_utc_and_iso_and_keeps_the_operators_options),
		TEST(violations_are_the_callers_fault_and_name_the_constraint),
		TEST(a_fault_in_the_sql_is_ours),
		TEST(killed_between_statements_a_change_goes_through_on_a_new_connection),
		TEST(killed_in_the_middle_a_read_is_asked_again),
		TEST(killed_in_the_middle_a_change_has_an_unknown_outcome),
		TEST(killed_while_committing_the_outcome_is_unknown_and_not_tried_again),
		TEST(killed_while_a_lone_change_commits_the_outcome_is_unknown),
		TEST(killed_inside_a_transaction_it_is_done_again_from_its_beginning),
		TEST(killed_just_before_commit_it_is_done_again),
		TEST(a_serialization_failure_is_tried_again_and_succeeds),
		TEST(a_conflict_that_stays_is_given_up_after_three_tries),
		TEST(the_victim_of_a_deadlock_tries_again_and_succeeds),
		TEST(a_statement_past_its_time_is_a_timeout),
		TEST(a_lock_not_had_in_time_is_a_timeout),
		TEST(a_stopped_server_costs_no_more_than_the_timeouts),
		TEST(a_change_that_a_stopped_server_does_not_answer_has_an_unknown_outcome),
		TEST(a_server_that_is_down_is_unavailable_at_once_and_found_again_by_itself),
		TEST(who_reaches_the_server_again_ends_the_back_off_of_others),
		TEST(a_server_out_of_connections_is_unavailable_until_one_is_free),
		TEST(what_fails_inside_a_savepoint_leaves_the_transaction_usable),
		TEST(a_transaction_whose_body_overlooked_a_failure_is_not_taken_for_committed),
		TEST(a_body_that_refuses_changes_nothing),
		TEST(a_transaction_of_one_statement_is_two_trips),
		TEST(copy_stores_many_rows_and_says_how_many),
		TEST(a_copy_that_is_abandoned_or_refused_stores_nothing),
		TEST(a_copy_whose_server_is_killed_says_so),
		TEST(text_arrays_arrive_as_they_were),
		TEST(parameters_have_names_and_stand_as_often_as_the_text_says),
		TEST(names_that_do_not_fit_the_text_abort_and_say_why),
		TEST(a_prepared_statement_that_the_server_lost_or_outgrew_is_prepared_again),
		TEST(nothing_of_postgresql_goes_to_stderr),
		TEST(a_url_that_cannot_be_read_is_unavailable_and_says_why),
		TEST(a_primary_that_turns_read_only_is_unavailable_until_it_is_over),
		TEST(who_only_reads_hears_that_the_primary_has_turned_read_only),
		TEST(a_reader_goes_on_with_a_read_only_server),
		TEST(of_several_servers_the_one_that_takes_changes_is_used),
		TEST(what_an_operator_puts_right_counts_without_a_restart),
	};
	const char *why;

	if (!log_open("/dev/null", LOG_FORMAT_TEXT, LOG_LEVEL_ERROR, &why))
		return 1;
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, set_up_group, tear_down_group);
}
