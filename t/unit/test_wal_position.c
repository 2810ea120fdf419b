/* SPDX-License-Identifier: Apache-2.0 */
/* app/cache/wal_position: what replicas must have replayed, on which cluster and timeline, and which of them are
 * left alone; against a real PostgreSQL. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "app/cache/wal_position.h"
#include "lib/clock.h"
#include "t/unit/servers.h"

static struct test_postgres server;
static struct db_options options;
static struct db *db;
static struct arena *arena;
static struct wal_position *wal;

static int start(void **state)
{
	(void)state;
	test_postgres_start(&server, "");
	options = (struct db_options){ server.url, "areg test", 2000, 20000, NULL, true };
	db = db_new(&options);
	arena = arena_new(4096, 1 << 20);
	return 0;
}

static int end(void **state)
{
	(void)state;
	db_free(db);
	arena_free(arena);
	test_postgres_remove(&server);
	return 0;
}

static int set_up(void **state)
{
	(void)state;
	wal = wal_position_init(calloc(1, WAL_POSITION_BYTES));
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	free(wal);
	return 0;
}

static int64_t number(const char *sql)
{
	const struct db_statement statement = { "", sql, DB_READS, NULL };
	struct db_rows rows;

	assert_int_equal(db_run(db, &statement, NULL, 0, arena, &rows), DB_OK);
	return db_int(&rows, 0, 0);
}

static void change_something(void)
{
	assert_int_equal(
		db_script(db, "CREATE TABLE IF NOT EXISTS t (i int); INSERT INTO t VALUES (1)"),
		DB_OK);
}

/* Where a replica stands that has all. */
static struct wal_place place_now(void)
{
	return (struct wal_place){ (uint64_t)number(
					   "SELECT system_identifier FROM pg_control_system()"),
		wal_position_number(
			1, number("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint")) };
}

static void nothing_is_allowed_before_the_primary_was_asked(void **state)
{
	const struct wal_place place = place_now();

	(void)state;
	assert_false(wal_position_allows(wal, place, 0));
	assert_false(wal_position_allows(wal, (struct wal_place){ 0 }, 0));
	assert_int_equal(wal_position_settle(wal, db, arena), DB_OK);
	assert_true(wal_position_allows(wal, place_now(), 0));
}

static void a_change_that_was_told_must_have_been_replayed(void **state)
{
	struct wal_place before;

	(void)state;
	assert_int_equal(wal_position_settle(wal, db, arena), DB_OK);
	before = place_now();
	assert_true(wal_position_allows(wal, before, 0));
	change_something();
	assert_int_equal(wal_position_tell(wal, db, arena), DB_OK);
	assert_false(wal_position_allows(wal, before, 0));
	assert_true(wal_position_allows(wal, place_now(), 0));
}

static void a_change_that_is_not_flushed_counts_where_commits_do_not_wait(void **state)
{
	struct wal_place before;

	(void)state;
	assert_int_equal(wal_position_settle(wal, db, arena), DB_OK);
	assert_int_equal(db_script(db, "SET synchronous_commit = off"), DB_OK);
	for (int i = 0; i < 20; i++) {
		before = place_now();
		change_something();
		assert_int_equal(wal_position_tell(wal, db, arena), DB_OK);
		assert_false(wal_position_allows(wal, before, 0));
	}
	assert_int_equal(db_script(db, "RESET synchronous_commit"), DB_OK);
}

static void more_than_is_required_can_be_asked_for(void **state)
{
	struct wal_place place;

	(void)state;
	assert_int_equal(wal_position_settle(wal, db, arena), DB_OK);
	place = place_now();
	assert_true(wal_position_allows(wal, place, place.position));
	assert_false(wal_position_allows(wal, place, place.position + 1));
}

static void another_timeline_or_cluster_is_not_allowed_however_far_it_is(void **state)
{
	struct wal_place place;

	(void)state;
	assert_int_equal(wal_position_settle(wal, db, arena), DB_OK);
	place = place_now();
	place.position = wal_position_number(2, INT64_C(1) << 40);
	assert_false(wal_position_allows(wal, place, 0));
	place.position = wal_position_number(1, INT64_C(1) << 40);
	assert_true(wal_position_allows(wal, place, 0));
	place.system++;
	assert_false(wal_position_allows(wal, place, 0));
}

static void a_doubt_lasts_until_all_that_was_committed_is_required(void **state)
{
	struct wal_place before;

	(void)state;
	assert_int_equal(wal_position_settle(wal, db, arena), DB_OK);
	assert_true(wal_position_is_settled(wal));
	before = place_now();
	change_something();
	wal_position_doubt(wal);
	assert_false(wal_position_is_settled(wal));
	assert_int_equal(wal_position_settle(wal, db, arena), DB_OK);
	assert_true(wal_position_is_settled(wal));
	assert_false(wal_position_allows(wal, before, 0));
}

static void a_primary_that_cannot_be_asked_leaves_a_doubt(void **state)
{
	const struct db_options nowhere = { "host=/nowhere", "areg test", 100, 100, NULL, true };
	struct db *away = db_new(&nowhere);

	(void)state;
	assert_int_equal(wal_position_settle(wal, away, arena), DB_UNAVAILABLE);
	assert_false(wal_position_is_settled(wal));
	assert_int_equal(wal_position_tell(wal, away, arena), DB_UNAVAILABLE);
	db_free(away);
}

static void a_writer_on_a_cluster_that_nobody_settled_doubts(void **state)
{
	(void)state;
	assert_int_equal(wal_position_tell(wal, db, arena), DB_OK);
	assert_false(wal_position_is_settled(wal));
	assert_int_equal(wal_position_settle(wal, db, arena), DB_OK);
	assert_int_equal(wal_position_tell(wal, db, arena), DB_OK);
	assert_true(wal_position_is_settled(wal));
}

static void a_replica_that_fails_is_tried_by_one_at_a_time_and_later(void **state)
{
	uint64_t began = clock_ms();

	(void)state;
	assert_true(wal_position_may_try(wal, 3, 60000));
	assert_true(wal_position_may_try(wal, 3, 60000));
	assert_true(wal_position_failed(wal, 3, began));
	assert_false(
		wal_position_failed(wal, 3, began)); /* by the same cause: no news, no doubling */
	assert_false(wal_position_may_try(wal, 3, 60000));
	assert_true(wal_position_may_try(wal, 4, 60000));
	while (!wal_position_may_try(wal, 3, 60000) && clock_ms() < began + 30000)
		usleep(20000);
	assert_true(clock_ms() >= began + 1000);
	assert_false(wal_position_may_try(wal, 3, 60000)); /* one tries it */
	assert_true(wal_position_worked(wal, 3));
	assert_false(wal_position_worked(wal, 3));
	assert_true(wal_position_may_try(wal, 3, 60000));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(nothing_is_allowed_before_the_primary_was_asked),
		TEST(a_change_that_was_told_must_have_been_replayed),
		TEST(a_change_that_is_not_flushed_counts_where_commits_do_not_wait),
		TEST(more_than_is_required_can_be_asked_for),
		TEST(another_timeline_or_cluster_is_not_allowed_however_far_it_is),
		TEST(a_doubt_lasts_until_all_that_was_committed_is_required),
		TEST(a_primary_that_cannot_be_asked_leaves_a_doubt),
		TEST(a_writer_on_a_cluster_that_nobody_settled_doubts),
		TEST(a_replica_that_fails_is_tried_by_one_at_a_time_and_later),
	};

	return cmocka_run_group_tests_name("wal_position", tests, start, end);
}
