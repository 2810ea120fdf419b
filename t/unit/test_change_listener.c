/* SPDX-License-Identifier: Apache-2.0 */
/* What a host hears of changes made elsewhere, and what it does now and then, on a real PostgreSQL. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "app/process/change_listener.h"
#include "lib/clock.h"
#include "lib/db.h"
#include "lib/log.h"
#include "t/unit/servers.h"

#define USER "11111111-1111-1111-1111-111111111111"
#define OTHER "22222222-2222-2222-2222-222222222222"
#define KEY "33333333-3333-3333-3333-333333333333"
#define REVOKED "44444444-4444-4444-4444-444444444444"

static struct test_postgres server;
static struct settings settings;
static struct db_options options;
static struct arena *arena;
static struct db *db;
static struct host_memory host;
static struct reports *reports;
static pid_t listener;

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
	(void)state;
	test_postgres_start(&server, "");
	settings = (struct settings){ .database_url = server.url,
		.memcached_servers = "",
		.database_connect_timeout_ms = 2000,
		.database_statement_timeout_ms = 5000 };
	options = (struct db_options){ server.url, "areg test", 2000, 20000, NULL, true };
	arena = arena_new(4096, 1 << 20);
	db = db_new(&options);
	test_migrate(db);
	run("INSERT INTO users (id) VALUES ('" USER "'), ('" OTHER "')");
	run("INSERT INTO api_keys (id, user_id, key_hash, key_prefix) VALUES "
	    "('" KEY "', '" USER "', sha256('a'), 'areg_live_a'),"
	    "('" REVOKED "', '" USER "', sha256('b'), 'areg_live_b')");
	return 0;
}

static int tear_down_group(void **state)
{
	(void)state;
	db_free(db);
	arena_free(arena);
	test_postgres_remove(&server);
	return 0;
}

static void start_listener(void)
{
	fflush(NULL);
	listener = fork();
	assert_true(listener >= 0);
	if (listener == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		_exit(change_listener_run(&settings, &host, reports, -1));
	}
}

static int set_up(void **state)
{
	(void)state;
	listener = 0;
	reports = reports_new();
	return reports == NULL ? -1 : host_memory_new(&host, 1 << 20);
}

static int tear_down(void **state)
{
	int status = 0;

	(void)state;
	if (listener > 0) {
		kill(listener, SIGCONT);
		kill(listener, SIGTERM);
		while (waitpid(listener, &status, 0) < 0 && errno == EINTR)
			;
	}
	host_memory_free(&host);
	reports_free(reports);
	return status; /* it ends as told, with 0 */
}

static void nap(long ms)
{
	nanosleep(&(struct timespec){ ms / 1000, ms % 1000 * 1000000 }, NULL);
}

static bool comes_true(bool (*what)(void), int within_ms)
{
	const uint64_t until_ms = clock_ms() + (uint64_t)within_ms;

	while (!what()) {
		if (clock_ms() > until_ms)
			return false;
		nap(10);
	}
	return true;
}

static bool is_fresh(void)
{
	return callers_are_fresh(host.callers, clock_unix_ms());
}

static bool is_stale(void)
{
	return !is_fresh();
}

/* Keeps a key as a worker does that looked it up. */
static void keep(const char *user_id, const char *key_id, uint8_t hash)
{
	struct caller_record record = { .key_hash = { hash }, .tier = TIER_FREE };
	struct caller_record found;
	uint64_t version;

	snprintf(record.user_id, sizeof record.user_id, "%s", user_id);
	snprintf(record.key_id, sizeof record.key_id, "%s", key_id);
	assert_false(callers_find(host.callers, record.key_hash, time(NULL), &found, &version));
	callers_store(host.callers, &record, version);
	assert_true(callers_find(host.callers, record.key_hash, time(NULL), &found, &version));
}

static bool is_kept(uint8_t hash)
{
	struct caller_record found;
	uint64_t version;

	return callers_find(
		host.callers, (const uint8_t[32]){ hash }, time(NULL), &found, &version);
}

static bool first_is_dropped(void)
{
	return !is_kept(1);
}

/* ---- Tests ---- */

static void change_to_a_user_drops_that_user_within_a_second(void **state)
{
	static const char *const changes[] = {
		"UPDATE users SET tier = 'pro' WHERE id = '" USER "'",
		"UPDATE users SET is_active = false WHERE id = '" USER "'",
		"UPDATE api_keys SET is_active = false, revoked_at = now() "
		"WHERE id = '" REVOKED "'",
		"DELETE FROM api_keys WHERE id = '" REVOKED "'",
	};

	(void)state;
	start_listener();
	assert_true(comes_true(is_fresh, 8000));
	keep(OTHER, REVOKED, 2);
	for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
		keep(USER, KEY, 1);
		run(changes[i]);
		assert_true(comes_true(first_is_dropped, 4000));
		assert_true(is_kept(2));
		assert_true(comes_true(is_fresh, 4000));
	}
}

static void stopped_listener_lets_what_is_kept_go_stale_within_a_second(void **state)
{
	(void)state;
	start_listener();
	assert_true(comes_true(is_fresh, 8000));
	kill(listener, SIGSTOP);
	assert_true(comes_true(is_stale, 4000));
	kill(listener, SIGCONT);
	assert_true(comes_true(is_fresh, 4000));
}

static void lost_connection_drops_everything(void **state)
{
	(void)state;
	start_listener();
	assert_true(comes_true(is_fresh, 8000));
	keep(USER, KEY, 1);
	test_postgres_stop(&server, SIGQUIT);
	assert_true(comes_true(is_stale, 4000));
	assert_true(is_kept(1)); /* for as long as the database cannot be asked */
	test_postgres_restart(&server);
	assert_true(comes_true(is_fresh, 15000));
	assert_false(is_kept(1));

	keep(USER, KEY, 1);
	assert_int_equal(number("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
				"WHERE application_name = 'areg listener'"),
		1);
	assert_true(comes_true(first_is_dropped, 8000));
	assert_true(comes_true(is_fresh, 4000));
	/* And it listens on the new connection. */
	keep(USER, KEY, 1);
	run("UPDATE users SET tier = 'enterprise' WHERE id = '" USER "'");
	assert_true(comes_true(first_is_dropped, 4000));
}

static bool uses_are_written(void)
{
	return number("SELECT count(*) FROM api_keys WHERE id = '" KEY "' "
		      "AND last_used_at > now() - interval '1 minute'") == 1;
}

static void last_uses_of_keys_are_written(void **state)
{
	(void)state;
	run("UPDATE api_keys SET last_used_at = NULL");
	keep(USER, KEY, 1);
	assert_false(uses_are_written());
	start_listener();
	assert_true(comes_true(uses_are_written, 15000));
}

static bool only_new_rows_are_left(void)
{
	return number("SELECT count(*) FROM idempotency_keys") == 1 &&
	       number("SELECT count(*) FROM auth_nonces") == 1;
}

static void what_has_expired_is_swept_and_the_rest_stays(void **state)
{
	(void)state;
	run("INSERT INTO idempotency_keys (user_id, key, route, body_digest, created_at) "
	    "SELECT '" USER "', 'key' || n, 'POST /', sha256(''), "
	    "now() - CASE n WHEN 0 THEN interval '23 h 59 min' ELSE interval '24 h 1 s' END "
	    "FROM generate_series(0, 2500) AS n");
	run("INSERT INTO auth_nonces (nonce, address, chain_id, message, expires_at) "
	    "SELECT 'nonce' || lpad(n::text, 8, '0'), '0x' || repeat('0', 40), 1, 'm', "
	    "now() + CASE n WHEN 0 THEN interval '1 min' ELSE interval '-1 s' END "
	    "FROM generate_series(0, 2500) AS n");
	start_listener();
	assert_true(comes_true(only_new_rows_are_left, 20000));
	assert_int_equal(number("SELECT count(*) FROM idempotency_keys WHERE key = 'key0'"), 1);
}

static bool audit_is_sealed(void)
{
	return number("SELECT count(*) FROM audit_seals") > 0;
}

static void audit_log_is_sealed(void **state)
{
	(void)state;
	run("INSERT INTO audit_log (actor, action, subject_type, subject_id) "
	    "VALUES ('test', 'test', 'test', 'test')");
	start_listener();
	assert_true(comes_true(audit_is_sealed, 15000));
	assert_true(comes_true(is_fresh, 4000));
}

static bool totals_are_folded(void)
{
	return number("SELECT count(*) FROM erc8004_total_changes") == 1;
}

static void totals_are_folded_and_stay_what_they_are(void **state)
{
	(void)state;
	run("TRUNCATE erc8004_total_changes");
	run("INSERT INTO erc8004_total_changes (feedback, payments, amount_usdc) "
	    "SELECT n, -n, n FROM generate_series(1, 15000) AS n");
	start_listener();
	assert_true(comes_true(totals_are_folded, 15000));
	assert_int_equal(number("SELECT feedback FROM v_erc8004_totals"), 112507500);
	assert_int_equal(number("SELECT payments FROM v_erc8004_totals"), -112507500);
	assert_int_equal(number("SELECT amount_usdc FROM v_erc8004_totals"), 112507500);
	run("TRUNCATE erc8004_total_changes");
}

static bool last_event_is_shown(void)
{
	return number("SELECT (max(place) < areg_event_horizon())::integer FROM erc8004_events") ==
	       1;
}

static void new_events_are_shown_after_restored_ones(void **state)
{
	(void)state;
	run("INSERT INTO erc8004_events (place, type) VALUES (1000000000000, 'agent.updated')");
	run("INSERT INTO erc8004_events (place, type)"
	    " SELECT place, 'agent.updated' FROM areg_event_place()");
	assert_false(last_event_is_shown());
	start_listener();
	assert_true(comes_true(last_event_is_shown, 15000));
	run("INSERT INTO erc8004_events (place, type)"
	    " SELECT place, 'agent.updated' FROM areg_event_place()");
	assert_true(comes_true(last_event_is_shown, 15000));
	assert_int_equal(
		number("SELECT count(*) FROM erc8004_events WHERE place > 1000000000000"), 1);
}

#define AGENT "55555555-5555-5555-5555-555555555555"
#define EVENT_OF_AGENT \
	"INSERT INTO erc8004_events (place, type, agent_uuid)" \
	" SELECT place, 'agent.updated', '" AGENT "' FROM areg_event_place()"

enum { CROWD = 15000, ROUNDS = 8 };

static uint64_t version_seen;

static bool agent_is_dropped(void)
{
	return answers_label(host.answers, AGENT).version != version_seen;
}

/* At least one look of the listener's, seen to be over. */
static void let_it_look(void)
{
	keep(USER, KEY, 1);
	run("UPDATE users SET tier = CASE tier WHEN 'pro' THEN 'free' ELSE 'pro' END WHERE id = '" USER
	    "'");
	assert_true(comes_true(first_is_dropped, 15000));
}

static int64_t events_read(void)
{
	return number("SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_user_tables"
		      " WHERE relname = 'erc8004_events'");
}

static bool listener_has_left(void)
{
	return number("SELECT count(*) FROM pg_stat_activity"
		      " WHERE application_name = 'areg listener'") == 0;
}

/* Starts to listen while another transaction, with an event in it, stays open; and lets so many events
 * come. */
static void listen_beside_open_transaction(struct db *other, int events)
{
	char sql[160];

	assert_int_equal(db_script(other, "BEGIN; " EVENT_OF_AGENT), DB_OK);
	start_listener();
	assert_true(comes_true(is_fresh, 15000));
	snprintf(sql, sizeof sql,
		"INSERT INTO erc8004_events (place, type) SELECT (SELECT place FROM areg_event_place()),"
		" 'agent.updated' FROM generate_series(1, %d)",
		events);
	run(sql);
}

static void events_are_read_once_while_a_transaction_elsewhere_stays_open(void **state)
{
	struct db *other = db_new(&options);
	uint64_t epoch;
	int64_t before;

	(void)state;
	listen_beside_open_transaction(other, 15000);
	before = events_read();
	for (int round = 0; round < ROUNDS; round++)
		let_it_look();

	/* What it does hear of: others at once, the open one when it ends; nothing else is dropped. */
	epoch = answers_label(host.answers, AGENT).epoch;
	version_seen = answers_label(host.answers, AGENT).version;
	run(EVENT_OF_AGENT);
	assert_true(comes_true(agent_is_dropped, 15000));
	version_seen = answers_label(host.answers, AGENT).version;
	let_it_look();
	assert_false(agent_is_dropped());
	assert_int_equal(db_script(other, "COMMIT"), DB_OK);
	assert_true(comes_true(agent_is_dropped, 15000));
	version_seen = answers_label(host.answers, AGENT).version;
	let_it_look();
	assert_false(agent_is_dropped());
	assert_int_equal(answers_label(host.answers, AGENT).epoch, epoch);

	/* A server process tells what it read when it ends. Once in a crowd, once again when the open
	 * transaction ended; and half as much for all the rest. */
	kill(listener, SIGTERM);
	assert_true(comes_true(listener_has_left, 15000));
	assert_in_range(events_read() - before, 0, 5 * CROWD / 2);
	db_free(other);
}

static void more_than_can_be_read_at_once_drops_everything(void **state)
{
	struct db *other = db_new(&options);
	uint64_t epoch;

	(void)state;
	listen_beside_open_transaction(other, 30000);
	let_it_look();
	let_it_look();
	epoch = answers_label(host.answers, AGENT).epoch;
	version_seen = answers_label(host.answers, AGENT).version;
	assert_int_equal(db_script(other, "COMMIT"), DB_OK);
	while (answers_label(host.answers, AGENT).epoch == epoch)
		let_it_look();
	assert_true(is_fresh());
	db_free(other);
}

/* Takes out what was reported until it is a fault of that statement. */
static bool is_reported(const char *statement)
{
	struct report report;

	while (reports_take(reports, &report)) {
		assert_string_equal(report.place, "listener");
		assert_string_equal(report.code, "42P01");
		assert_int_equal(report.level, REPORT_ERROR);
		if (strcmp(report.statement, statement) == 0)
			return true;
	}
	return false;
}

static bool broken_chore_is_reported(void)
{
	return is_reported("sweep_challenges");
}

static bool deafness_is_reported(void)
{
	return is_reported("listener_changes");
}

static void what_it_cannot_do_by_our_own_fault_is_reported(void **state)
{
	struct report report;

	(void)state;
	run("ALTER TABLE auth_nonces RENAME TO gone");
	start_listener();
	assert_true(comes_true(broken_chore_is_reported, 15000));
	run("ALTER TABLE gone RENAME TO auth_nonces");
	run("ALTER TABLE erc8004_events RENAME TO gone");
	assert_true(comes_true(deafness_is_reported, 15000));
	assert_true(comes_true(is_stale, 4000));
	run("ALTER TABLE gone RENAME TO erc8004_events");
	assert_true(comes_true(is_fresh, 15000));

	while (reports_take(reports, &report))
		;
	test_postgres_stop(&server, SIGQUIT);
	assert_true(comes_true(is_stale, 4000));
	test_postgres_restart(&server);
	assert_true(comes_true(is_fresh, 15000));
	assert_false(reports_take(reports, &report)); /* a database that is away is nobody's bug */
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(change_to_a_user_drops_that_user_within_a_second),
		TEST(stopped_listener_lets_what_is_kept_go_stale_within_a_second),
		TEST(lost_connection_drops_everything),
		TEST(last_uses_of_keys_are_written),
		TEST(what_has_expired_is_swept_and_the_rest_stays),
		TEST(audit_log_is_sealed),
		TEST(totals_are_folded_and_stay_what_they_are),
		TEST(new_events_are_shown_after_restored_ones),
		TEST(events_are_read_once_while_a_transaction_elsewhere_stays_open),
		TEST(more_than_can_be_read_at_once_drops_everything),
		TEST(what_it_cannot_do_by_our_own_fault_is_reported),
	};
	const char *why;

	if (!log_open(getenv("AREG_TEST_LOG") != NULL ? getenv("AREG_TEST_LOG") : "/dev/null",
		    LOG_FORMAT_TEXT, LOG_LEVEL_DEBUG, &why))
		return 1;
	return cmocka_run_group_tests(tests, set_up_group, tear_down_group);
}
