/* SPDX-License-Identifier: Apache-2.0 */
/* Hot keys: a hit is a whole record whoever was killed writing it, and what was dropped stays so. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "app/cache/host_memory.h"
#include "lib/shm.h"
#include "lib/siphash.h"

static struct callers *callers;
static size_t bytes;
static int fd;
static int64_t now_s;

static void new_callers(size_t keys)
{
	bytes = callers_bytes(keys);
	callers = shm_new("test-callers", bytes, &fd);
	assert_non_null(callers);
	assert_ptr_equal(callers_init(callers, keys), callers);
	now_s = time(NULL);
}

static int set_up(void **state)
{
	(void)state;
	new_callers(200);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	alarm(0);
	shm_free(callers, bytes, fd);
	return 0;
}

static void hash_of(uint32_t key, uint8_t key_hash[32])
{
	static const uint8_t secret[16] = "test-callers";

	for (uint32_t i = 0; i < 4; i++) {
		uint64_t word = siphash(secret, (uint32_t[]){ key, i }, 8);

		memcpy(key_hash + 8 * i, &word, 8);
	}
}

/* The record of a key, all of it filled from two numbers. Ten keys belong to one user. */
static struct caller_record record_of(uint32_t key, uint32_t edition)
{
	struct caller_record record;

	memset(&record, 0, sizeof record); /* gaps between fields too: records are compared whole */
	hash_of(key, record.key_hash);
	snprintf(record.user_id, sizeof record.user_id, "%036u", key / 10);
	snprintf(record.key_id, sizeof record.key_id, "%018u%018u", key, edition);
	snprintf(record.wallet, sizeof record.wallet, "0x%020u%020u", edition, key);
	snprintf(record.key_prefix, sizeof record.key_prefix, "%018u", edition);
	memset(record.scopes, 'a' + (int)(edition % 26), sizeof record.scopes - 1);
	record.tier = (uint8_t)edition;
	record.expires_at_s = (int64_t)edition << 32 | key;
	return record;
}

static bool is_whole(const struct caller_record *record)
{
	uint32_t key = (uint32_t)record->expires_at_s;
	struct caller_record expected = record_of(key, (uint32_t)(record->expires_at_s >> 32));

	return memcmp(record, &expected, sizeof expected) == 0;
}

static bool find(uint32_t key, struct caller_record *record, uint64_t *version)
{
	uint8_t key_hash[32];

	hash_of(key, key_hash);
	return callers_find(callers, key_hash, now_s, record, version);
}

static bool is_there(uint32_t key)
{
	struct caller_record record;
	uint64_t version;

	return find(key, &record, &version);
}

static void store(uint32_t key, uint32_t edition)
{
	struct caller_record record = record_of(key, edition), found;
	uint64_t version;

	if (find(key, &found, &version) && found.expires_at_s == record.expires_at_s)
		return;
	callers_store(callers, &record, version);
}

/* ---- Words ---- */

static void tiers_have_names(void **state)
{
	static const char *const names[TIERS] = { "anonymous", "free", "pro", "enterprise" };

	(void)state;
	for (enum tier tier = 0; tier < TIERS; tier++) {
		assert_string_equal(tier_name(tier), names[tier]);
		assert_int_equal(tier_of(names[tier]), tier);
	}
	assert_int_equal(tier_of(""), TIER_ANONYMOUS);
	assert_int_equal(tier_of("Pro"), TIER_ANONYMOUS);
	assert_int_equal(tier_of("enterprises"), TIER_ANONYMOUS);
}

static void a_scope_is_a_whole_word(void **state)
{
	struct caller_record caller = { .scopes = "payments:write agents:read x" };

	(void)state;
	assert_true(caller_has_scope(&caller, "payments:write"));
	assert_true(caller_has_scope(&caller, "agents:read"));
	assert_true(caller_has_scope(&caller, "x"));
	assert_false(caller_has_scope(&caller, "payments"));
	assert_false(caller_has_scope(&caller, "payments:writes"));
	assert_false(caller_has_scope(&caller, "write"));
	assert_false(caller_has_scope(&caller, "payments:write agents:read"));
	assert_false(caller_has_scope(&caller, ""));
	caller.scopes[0] = '\0';
	assert_false(caller_has_scope(&caller, "x"));
	assert_false(caller_has_scope(&caller, ""));
}

/* ---- Looking up, storing, dropping ---- */

static void what_was_stored_is_found_whole_and_nothing_else(void **state)
{
	struct caller_record record, expected;
	uint64_t version;

	(void)state;
	for (uint32_t key = 0; key < 20; key++) {
		assert_false(is_there(key));
		store(key, key + 1);
	}
	for (uint32_t key = 0; key < 20; key++) {
		expected = record_of(key, key + 1);
		assert_true(find(key, &record, &version));
		assert_memory_equal(&record, &expected, sizeof record);
	}
	store(3, 77);
	expected = record_of(3, 77);
	assert_true(find(3, &record, &version));
	assert_memory_equal(&record, &expected, sizeof record);
	assert_false(is_there(20));
}

static void a_hash_that_differs_in_one_bit_is_another_key(void **state)
{
	struct caller_record record = record_of(1, 1);
	uint8_t key_hash[32];
	uint64_t version;

	(void)state;
	store(1, 1);
	for (size_t bit = 0; bit < 256; bit++) {
		hash_of(1, key_hash);
		key_hash[bit / 8] ^= (uint8_t)(1 << bit % 8);
		assert_false(callers_find(callers, key_hash, now_s, &record, &version));
	}
}

static void dropping_a_user_drops_all_their_keys_and_no_others(void **state)
{
	(void)state;
	for (uint32_t key = 0; key < 40; key++)
		store(key, 1);
	callers_drop_user(callers, record_of(15, 1).user_id);
	for (uint32_t key = 0; key < 40; key++)
		assert_int_equal(is_there(key), key / 10 != 1);
	callers_drop_all(callers);
	for (uint32_t key = 0; key < 40; key++)
		assert_false(is_there(key));
	store(15, 2);
	assert_true(is_there(15));
}

static void a_slow_reader_does_not_put_back_what_was_dropped(void **state)
{
	struct caller_record old = record_of(15, 1), found;
	uint64_t version, later;

	(void)state;
	assert_false(find(15, &found, &version));
	callers_drop_user(callers, old.user_id);
	callers_store(callers, &old, version);
	assert_false(find(15, &found, &later));
	callers_drop_all(callers);
	callers_store(callers, &old, later);
	assert_false(find(15, &found, &later));
	callers_store(callers, &old, later);
	assert_true(is_there(15));
}

static void the_key_unused_for_longest_makes_room(void **state)
{
	uint32_t there = 0;

	(void)state;
	shm_free(callers, bytes, fd);
	new_callers(0); /* one set of eight */
	for (uint32_t key = 0; key < 8; key++)
		store(key, 1);
	now_s += 10;
	for (uint32_t key = 0; key < 8; key++)
		assert_int_equal(key == 5 || is_there(key), true);
	store(8, 1);
	for (uint32_t key = 0; key < 9; key++)
		assert_int_equal(is_there(key), key != 5);
	callers_drop_user(callers, record_of(0, 1).user_id);
	for (uint32_t key = 100; key < 108; key++)
		store(key, 1);
	for (uint32_t key = 100; key < 108; key++)
		there += is_there(key);
	assert_int_equal(there, 8);
}

static void nearly_all_of_ten_thousand_keys_have_room(void **state)
{
	uint32_t there = 0;

	(void)state;
	shm_free(callers, bytes, fd);
	new_callers(40000);
	for (uint32_t key = 0; key < 10000; key++)
		store(key, key);
	for (uint32_t key = 0; key < 10000; key++)
		there += is_there(key);
	assert_in_range(there, 9980, 10000);
}

static void freshness_ends_when_it_was_said_to(void **state)
{
	(void)state;
	assert_false(callers_are_fresh(callers, 0));
	callers_set_fresh_until(callers, 5000);
	assert_true(callers_are_fresh(callers, 4999));
	assert_false(callers_are_fresh(callers, 5000));
	callers_set_fresh_until(callers, 0);
	assert_false(callers_are_fresh(callers, 4999));
}

struct uses {
	unsigned count;
	int64_t of_key_1; /* 0: not told */
};

static void note_use(const char *key_id, int64_t used_at_s, void *arg)
{
	struct uses *uses = arg;

	uses->count++;
	if (strcmp(key_id, record_of(1, 1).key_id) == 0)
		uses->of_key_1 = used_at_s;
}

static struct uses uses_now(void)
{
	struct uses uses = { 0 };

	callers_take_used(callers, note_use, &uses);
	return uses;
}

static void each_use_is_told_once(void **state)
{
	struct uses uses;

	(void)state;
	assert_int_equal(uses_now().count, 0);
	store(1, 1);
	store(2, 1);
	uses = uses_now();
	assert_int_equal(uses.count, 2);
	assert_in_range(uses.of_key_1, now_s, time(NULL));
	assert_int_equal(uses_now().count, 0);
	now_s += 100;
	assert_true(is_there(1));
	assert_true(is_there(1));
	uses = uses_now();
	assert_int_equal(uses.count, 1);
	assert_int_equal(uses.of_key_1, now_s);
	now_s += 100;
	assert_true(is_there(1));
	callers_drop_all(callers);
	uses = uses_now();
	assert_int_equal(uses.count, 1);
	assert_int_equal(uses.of_key_1, now_s);
	assert_int_equal(uses_now().count, 0);
}

/* ---- Many at once ---- */

enum { KEYS = 64 };

struct tally {
	uint64_t hits, torn, back;
	uint32_t stop;
};

static struct tally *tally;

static void write_for_ever(unsigned seed)
{
	while (__atomic_load_n(&tally->stop, __ATOMIC_ACQUIRE) == 0) {
		uint32_t key = (uint32_t)rand_r(&seed) % KEYS;

		if (rand_r(&seed) % 16 == 0)
			callers_drop_user(callers, record_of(key, 0).user_id);
		else
			store(key, (uint32_t)rand_r(&seed) % 1000);
	}
}

static void read_for_ever(unsigned seed)
{
	struct caller_record record;
	uint64_t version;

	while (__atomic_load_n(&tally->stop, __ATOMIC_ACQUIRE) == 0) {
		uint32_t key = (uint32_t)rand_r(&seed) % KEYS;

		if (!find(key, &record, &version))
			continue;
		__atomic_fetch_add(&tally->hits, 1, __ATOMIC_RELAXED);
		if (!is_whole(&record) || (uint32_t)record.expires_at_s != key)
			__atomic_fetch_add(&tally->torn, 1, __ATOMIC_RELAXED);
	}
}

static int set_up_contended(void **state)
{
	int tally_fd;

	(void)state;
	alarm(120); /* a lock that nobody gives back would hang */
	new_callers(16); /* fewer than there are keys */
	tally = shm_new("test-tally", sizeof *tally, &tally_fd);
	return tally == NULL ? -1 : 0;
}

static int tear_down_contended(void **state)
{
	shm_free(tally, sizeof *tally, -1);
	return tear_down(state);
}

static pid_t fork_to(void (*work)(unsigned seed), unsigned seed)
{
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		work(seed);
		_exit(0);
	}
	return pid;
}

static void a_hit_is_whole_though_writers_are_killed_at_any_instant(void **state)
{
	enum { WRITERS = 4, READERS = 2, KILLS = 400 };
	pid_t writers[WRITERS], readers[READERS];

	(void)state;
	for (unsigned i = 0; i < READERS; i++)
		readers[i] = fork_to(read_for_ever, i);
	for (unsigned i = 0; i < WRITERS; i++)
		writers[i] = fork_to(write_for_ever, 100 + i);
	for (unsigned i = 0; i < KILLS; i++) {
		usleep((useconds_t)(rand() % 1500));
		kill(writers[i % WRITERS], SIGKILL);
		waitpid(writers[i % WRITERS], NULL, 0);
		writers[i % WRITERS] = fork_to(write_for_ever, 1000 + i);
	}
	__atomic_store_n(&tally->stop, 1, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < READERS; i++)
		waitpid(readers[i], NULL, 0);
	for (unsigned i = 0; i < WRITERS; i++)
		waitpid(writers[i], NULL, 0);
	assert_int_equal(tally->torn, 0);
	assert_true(tally->hits > 1000);
	/* Nothing is stuck and no room was lost. */
	callers_drop_all(callers);
	for (uint32_t key = 0; key < KEYS; key++) {
		assert_false(is_there(key));
		store(key, 5);
		assert_true(is_there(key));
	}
}

static void *write_thread(void *seed)
{
	write_for_ever(*(unsigned *)seed);
	return NULL;
}

static void *read_thread(void *seed)
{
	read_for_ever(*(unsigned *)seed);
	return NULL;
}

/* The same within one process, where ThreadSanitizer can watch. */
static void threads_do_not_race(void **state)
{
	enum { THREADS = 4 };
	unsigned seeds[THREADS] = { 1, 2, 3, 4 };
	pthread_t threads[THREADS];

	(void)state;
	for (size_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL,
					 i < THREADS / 2 ? read_thread : write_thread, &seeds[i]),
			0);
	usleep(300 * 1000);
	(void)uses_now();
	__atomic_store_n(&tally->stop, 1, __ATOMIC_RELEASE);
	for (size_t i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(tally->torn, 0);
	assert_true(tally->hits > 0);
}

/* A database that says who a user is: its truth is one number, of key 0. Each writer, like a
 * worker, commits the next edition and then drops the user; from there on no older edition may be
 * found, whatever readers with an older answer store meanwhile. */
static uint32_t truth;

static void *change_thread(void *unused)
{
	struct caller_record record;
	uint64_t version;

	(void)unused;
	while (__atomic_load_n(&tally->stop, __ATOMIC_ACQUIRE) == 0) {
		uint32_t edition = __atomic_add_fetch(&truth, 1, __ATOMIC_SEQ_CST);

		callers_drop_user(callers, record_of(0, 0).user_id);
		for (int i = 0; i < 20; i++)
			if (find(0, &record, &version) && record.expires_at_s >> 32 < edition)
				__atomic_fetch_add(&tally->back, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

static void *ask_thread(void *unused)
{
	struct caller_record record;
	uint64_t version;

	(void)unused;
	while (__atomic_load_n(&tally->stop, __ATOMIC_ACQUIRE) == 0) {
		if (find(0, &record, &version)) {
			__atomic_fetch_add(&tally->hits, 1, __ATOMIC_RELAXED);
			continue;
		}
		record = record_of(0, __atomic_load_n(&truth, __ATOMIC_SEQ_CST));
		callers_store(callers, &record, version);
	}
	return NULL;
}

static void after_a_drop_nobody_finds_the_old_record(void **state)
{
	enum { THREADS = 4 };
	pthread_t threads[THREADS];

	(void)state;
	for (size_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL,
					 i < THREADS / 2 ? change_thread : ask_thread, NULL),
			0);
	usleep(500 * 1000);
	__atomic_store_n(&tally->stop, 1, __ATOMIC_RELEASE);
	for (size_t i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(tally->back, 0);
	assert_true(tally->hits > 0);
	assert_true(truth > 100);
}

/* ---- The segment ---- */

static void callers_and_limits_leave_the_rest_of_the_segment_alone(void **state)
{
	enum { SIZE = 1024 * 1024 };
	struct limit_answer answer;
	struct host_memory host;
	char *rest;
	size_t rest_bytes;
	uint32_t there = 0;

	(void)state;
	assert_int_equal(host_memory_new(&host, SIZE - 1), -1);
	assert_int_equal(host_memory_new(&host, SIZE), 0);
	assert_int_equal(host.bytes, SIZE);
	callers = host.callers;
	rest_bytes = (size_t)((char *)host.memory + SIZE - (char *)host.answers);
	assert_in_range(rest_bytes, SIZE / 2, SIZE);
	rest = malloc(rest_bytes);
	assert_non_null(rest);
	memcpy(rest, host.answers, rest_bytes);
	now_s = time(NULL);
	for (uint32_t i = 0; i < 20000; i++) {
		store(i, 1);
		assert_int_equal(
			limiter_take(host.limiter, i + 1, 1, 60000, &answer), LIMIT_PASSED);
	}
	for (uint32_t i = 0; i < 20000; i++)
		there += is_there(i);
	assert_in_range(there, 150, 300); /* an eighth of it, half a KiB each */
	assert_memory_equal(rest, host.answers, rest_bytes);
	free(rest);
	assert_int_equal(limiter_take(host.limiter, 20000, 1, 60000, &answer), LIMIT_REFUSED);
	host_memory_free(&host);
	assert_int_equal(host.fd, -1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
#define CONTENDED(name) cmocka_unit_test_setup_teardown(name, set_up_contended, tear_down_contended)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tiers_have_names),
		cmocka_unit_test(a_scope_is_a_whole_word),
		TEST(what_was_stored_is_found_whole_and_nothing_else),
		TEST(a_hash_that_differs_in_one_bit_is_another_key),
		TEST(dropping_a_user_drops_all_their_keys_and_no_others),
		TEST(a_slow_reader_does_not_put_back_what_was_dropped),
		TEST(the_key_unused_for_longest_makes_room),
		TEST(nearly_all_of_ten_thousand_keys_have_room),
		TEST(freshness_ends_when_it_was_said_to),
		TEST(each_use_is_told_once),
		CONTENDED(a_hit_is_whole_though_writers_are_killed_at_any_instant),
		CONTENDED(threads_do_not_race),
		CONTENDED(after_a_drop_nobody_finds_the_old_record),
		cmocka_unit_test(callers_and_limits_leave_the_rest_of_the_segment_alone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
