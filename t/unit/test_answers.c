/* SPDX-License-Identifier: Apache-2.0 */
/* Answers in shared memory: a hit is whole and in date, whoever was killed and whatever was late. */
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
#include <unistd.h>

#include <cmocka.h>

#include "app/cache/answers.h"
#include "lib/clock.h"
#include "lib/shm.h"

enum { SIZE = 4 * 1024 * 1024, AGENTS = 8 };

static struct answers *answers;
static struct arena *arena;
static int fd;
static int64_t now_s = 1000;

/* What all processes of a test count. */
struct tally {
	uint64_t hits, torn, late, stop;
	uint64_t committed[AGENTS], acknowledged[AGENTS]; /* editions */
};
static struct tally *tally;
static int tally_fd;

static int set_up(void **state)
{
	(void)state;
	alarm(120); /* a lock that nobody gives back would hang */
	answers = shm_new("test-answers", SIZE, &fd);
	tally = shm_new("test-tally", sizeof *tally, &tally_fd);
	arena = arena_new(65536, 1 << 24);
	return answers == NULL || tally == NULL || answers_init(answers, SIZE) != answers;
}

static int tear_down(void **state)
{
	(void)state;
	alarm(0);
	arena_free(arena);
	shm_free(answers, SIZE, fd);
	shm_free(tally, sizeof *tally, tally_fd);
	return 0;
}

static const char *uuid_of(uint32_t agent)
{
	return arena_printf(arena, "%08x-aaaa-4bbb-8ccc-0123456789ab", agent);
}

static struct answer_key key_of(uint32_t number)
{
	return answers_key(answers, &number, sizeof number);
}

/* An answer of which every byte belongs to two numbers. */
static struct answer answer_of(uint32_t number, uint64_t edition, size_t len)
{
	struct answer answer = { .len = len };
	char *body = arena_alloc(arena, len + 1);

	snprintf(answer.etag, sizeof answer.etag, "\"%08x%024llx\"", number,
		(unsigned long long)edition);
	answer.target = arena_printf(arena, "/of/%u", number);
	for (size_t i = 0; i < len; i++)
		body[i] = answer.etag[i % ANSWER_ETAG_LEN];
	answer.body = body;
	return answer;
}

static bool is_whole(const struct answer *answer, uint32_t number)
{
	char target[32];

	snprintf(target, sizeof target, "/of/%u", number);
	for (size_t i = 0; i < answer->len; i++)
		if (answer->body[i] != answer->etag[i % ANSWER_ETAG_LEN])
			return false;
	return strtoul(arena_strndup(arena, answer->etag + 1, 8), NULL, 16) == number &&
	       strcmp(answer->target, target) == 0 && answer->body[answer->len] == '\0';
}

static uint64_t edition_of(const struct answer *answer)
{
	return strtoull(answer->etag + 9, NULL, 16);
}

static void store_under(uint32_t number, struct answer_label label, uint64_t edition, size_t len)
{
	const struct answer answer = answer_of(number, edition, len);

	answers_store(answers, key_of(number), label, now_s, &answer);
}

static bool is_there(uint32_t number)
{
	struct answer answer;

	if (!answers_find(answers, key_of(number), now_s, arena, &answer))
		return false;
	assert_true(is_whole(&answer, number));
	return true;
}

/* ---- Storing and finding ---- */

static void answers_of_every_size_come_back_byte_for_byte(void **state)
{
	static const size_t sizes[] = { 0, 1, 7, 8, 9, 100, 128, 700, 901, 3000, 4000, 16000, 40000,
		ANSWER_BYTES_MAX };
	struct answer found, stored;

	(void)state;
	for (uint32_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		assert_false(is_there(i));
		stored = answer_of(i, 7, sizes[i]);
		answers_store(answers, key_of(i), answers_label(answers, NULL), now_s, &stored);
		assert_true(answers_find(answers, key_of(i), now_s, arena, &found));
		assert_int_equal(found.len, sizes[i]);
		assert_memory_equal(found.body, stored.body, sizes[i] + 1);
		assert_string_equal(found.etag, stored.etag);
		assert_string_equal(found.target, stored.target);
	}
	store_under(99, answers_label(answers, NULL), 1, ANSWER_BYTES_MAX + 1);
	assert_false(is_there(99));
}

static void an_answer_that_grew_or_shrank_replaces_the_one_before(void **state)
{
	static const size_t sizes[] = { 100, 5000, 900, 60000, 10 };
	struct answer answer;

	(void)state;
	for (uint64_t i = 0; i < 5; i++) {
		store_under(1, answers_label(answers, NULL), i, sizes[i]);
		assert_true(answers_find(answers, key_of(1), now_s, arena, &answer));
		assert_int_equal(edition_of(&answer), i);
	}
	/* Also where the new one is too large to be kept. */
	store_under(1, answers_label(answers, NULL), 9, ANSWER_BYTES_MAX + 1);
	assert_false(is_there(1));
}

static void what_was_not_used_for_longest_makes_room_and_outdated_answers_before_it(void **state)
{
	enum { MANY = 20000 };
	uint32_t there = 0;

	(void)state;
	for (uint32_t i = 0; i < MANY; i++) {
		store_under(i, answers_label(answers, NULL), 1, 500);
		now_s++;
		assert_true(is_there(0)); /* used all the time */
		arena_reset(arena);
	}
	for (uint32_t i = MANY - 500; i < MANY; i++)
		there += is_there(i);
	assert_in_range(there, 480, 500);
	assert_false(is_there(1));
	/* All are out of date now: the new ones take their places and not each other's. */
	answers_changed(answers, NULL);
	for (uint32_t i = 0; i < 500; i++)
		store_under(i, answers_label(answers, NULL), 2, 500);
	there = 0;
	for (uint32_t i = 0; i < 500; i++)
		there += is_there(i);
	assert_in_range(there, 490, 500);
}

/* ---- Versions ---- */

static void a_change_of_an_agent_drops_its_answers_and_those_of_the_registry(void **state)
{
	char upper[37];

	(void)state;
	for (uint32_t agent = 0; agent < AGENTS; agent++)
		store_under(agent, answers_label(answers, uuid_of(agent)), 1, 300);
	store_under(100, answers_label(answers, NULL), 1, 300);
	store_under(101, answers_lasting_label(answers), 1, 36);
	strcpy(upper, uuid_of(3));
	for (char *c = upper; *c != '\0'; c++)
		if (*c >= 'a' && *c <= 'f')
			*c = (char)(*c - 'a' + 'A');
	answers_changed(answers, upper);
	for (uint32_t agent = 0; agent < AGENTS; agent++)
		assert_int_equal(is_there(agent), agent != 3);
	assert_false(is_there(100));
	assert_true(is_there(101));
	store_under(100, answers_label(answers, NULL), 1, 300);
	answers_changed(answers, NULL);
	assert_false(is_there(100));
	assert_true(is_there(4));
	answers_drop_all(answers);
	for (uint32_t agent = 0; agent < AGENTS; agent++)
		assert_false(is_there(agent));
	assert_false(is_there(101));
}

static void what_a_slow_reader_stores_is_served_to_nobody(void **state)
{
	struct answer_label agent = answers_label(answers, uuid_of(1));
	struct answer_label registry = answers_label(answers, NULL);
	struct answer_label lasting = answers_lasting_label(answers);

	(void)state;
	answers_changed(answers, uuid_of(1));
	store_under(1, agent, 1, 300);
	store_under(2, registry, 1, 300);
	assert_false(is_there(1));
	assert_false(is_there(2));
	answers_drop_all(answers);
	store_under(3, lasting, 1, 300);
	assert_false(is_there(3));
	store_under(1, answers_label(answers, uuid_of(1)), 2, 300);
	assert_true(is_there(1));
}

/* ---- Uses ---- */

struct told {
	uint64_t first, second;
	size_t count;
};

static void note(const char *target, uint64_t uses, void *arg)
{
	struct told *told = arg;

	told->count++;
	if (strcmp(target, "/of/1") == 0)
		told->first = uses;
	if (strcmp(target, "/of/2") == 0)
		told->second = uses;
}

static void what_is_used_is_told_and_fades(void **state)
{
	struct told told = { 0 };

	(void)state;
	store_under(1, answers_lasting_label(answers), 1, 100);
	store_under(2, answers_lasting_label(answers), 1, 5000);
	for (int i = 0; i < 99; i++)
		assert_true(is_there(1));
	answers_tell_used(answers, 1000000, note, &told);
	assert_int_equal(told.count, 2);
	assert_int_equal(told.first, 100);
	assert_int_equal(told.second, 1);
	for (int i = 0; i < 60; i++) {
		told = (struct told){ 0 };
		answers_tell_used(answers, 1000000, note, &told);
		assert_int_equal(told.second, 0);
	}
	assert_int_equal(told.count, 0);
}

/* ---- Claims ---- */

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

static void claim_and_nap(unsigned ms)
{
	bool waited;
	struct answer_claim *claim = answers_claim(answers, key_of(1), 0, NULL, NULL, &waited);

	__atomic_store_n(&tally->hits, claim != NULL, __ATOMIC_SEQ_CST);
	usleep(ms * 1000);
	answers_let_go(claim);
}

static void wait_in_vain(unsigned ms)
{
	bool waited;

	tally->hits = answers_claim(answers, key_of(1), ms, NULL, NULL, &waited) == NULL && waited;
}

static pid_t fork_claimant(unsigned ms)
{
	pid_t pid;

	tally->hits = 0;
	pid = fork_to(claim_and_nap, ms);
	while (__atomic_load_n(&tally->hits, __ATOMIC_SEQ_CST) == 0)
		usleep(1000);
	return pid;
}

static void who_misses_what_another_asks_for_waits_until_that_lets_go(void **state)
{
	struct answer_claim *claim;
	bool waited;
	pid_t pid = fork_claimant(300);

	(void)state;
	assert_null(answers_claim(answers, key_of(1), 60000, NULL, NULL, &waited));
	assert_true(waited);
	waitpid(pid, NULL, 0);
	claim = answers_claim(answers, key_of(1), 60000, NULL, NULL, &waited);
	assert_non_null(claim);
	assert_false(waited);
	answers_let_go(claim);
}

static void nobody_waits_for_the_dead_nor_longer_than_they_wish(void **state)
{
	struct answer_claim *claim;
	bool waited;
	pid_t pid = fork_claimant(100000);
	uint64_t began = clock_ms();

	(void)state;
	assert_null(answers_claim(answers, key_of(1), 50, NULL, NULL, &waited));
	assert_true(waited);
	assert_true(clock_ms() - began >= 50);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	claim = answers_claim(answers, key_of(1), 60000, NULL, NULL, &waited);
	assert_non_null(claim);
	answers_let_go(claim);
}

static void kill_after_a_nap(unsigned pid)
{
	usleep(100000);
	kill((pid_t)pid, SIGKILL);
}

static void who_waits_for_one_who_dies_asks_instead_and_the_others_wait(void **state)
{
	struct answer_claim *claim;
	bool waited;
	pid_t pid = fork_claimant(100000);
	pid_t killer = fork_to(kill_after_a_nap, (unsigned)pid);

	(void)state;
	claim = answers_claim(answers, key_of(1), 60000, NULL, NULL, &waited);
	assert_non_null(claim);
	assert_true(waited);
	waitpid(pid, NULL, 0);
	waitpid(killer, NULL, 0);
	pid = fork_to(wait_in_vain, 50);
	waitpid(pid, NULL, 0);
	assert_int_equal(tally->hits, 1);
	answers_let_go(claim);
}

/* ---- Trust ---- */

static void trust_comes_back_only_when_no_failure_came_since(void **state)
{
	uint64_t seen;

	(void)state;
	assert_true(answers_is_trusted(answers));
	answers_distrust(answers);
	assert_false(answers_is_trusted(answers));
	seen = answers_distrusts(answers);
	answers_distrust(answers);
	answers_trust(answers, seen);
	assert_false(answers_is_trusted(answers));
	answers_trust(answers, answers_distrusts(answers));
	assert_true(answers_is_trusted(answers));
}

/* ---- Many at once ---- */

static void store_for_ever(unsigned seed)
{
	struct answer answer;

	arena = arena_new(65536, 1 << 24);
	while (__atomic_load_n(&tally->stop, __ATOMIC_ACQUIRE) == 0) {
		uint32_t agent = (uint32_t)rand_r(&seed) % AGENTS;
		size_t len = (size_t)rand_r(&seed) % 100 * (size_t)(1 + rand_r(&seed) % 100);

		arena_reset(arena);
		if (answers_find(answers, key_of(agent), now_s, arena, &answer)) {
			__atomic_fetch_add(&tally->hits, 1, __ATOMIC_RELAXED);
			if (!is_whole(&answer, agent))
				__atomic_fetch_add(&tally->torn, 1, __ATOMIC_RELAXED);
		}
		if (rand_r(&seed) % 4 == 0)
			store_under(agent, answers_label(answers, uuid_of(agent)),
				(uint64_t)rand_r(&seed), len);
	}
}

static void hits_are_whole_though_those_who_store_are_killed_at_any_instant(void **state)
{
	enum { STORING = 5, KILLS = 300 };
	pid_t pids[STORING];

	(void)state;
	for (unsigned i = 0; i < STORING; i++)
		pids[i] = fork_to(store_for_ever, i);
	for (unsigned i = 0; i < KILLS; i++) {
		usleep((useconds_t)(rand() % 2000));
		kill(pids[i % STORING], SIGKILL);
		waitpid(pids[i % STORING], NULL, 0);
		pids[i % STORING] = fork_to(store_for_ever, 100 + i);
	}
	__atomic_store_n(&tally->stop, 1, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < STORING; i++)
		waitpid(pids[i], NULL, 0);
	assert_int_equal(tally->torn, 0);
	assert_true(tally->hits > 1000);
	/* Nothing is stuck and no room was lost. */
	answers_drop_all(answers);
	for (uint32_t agent = 0; agent < AGENTS; agent++) {
		assert_false(is_there(agent));
		store_under(agent, answers_label(answers, uuid_of(agent)), 1, 5000);
		assert_true(is_there(agent));
	}
}

/* Commits, moves the version, and only then acknowledges. */
static void change_for_ever(unsigned seed)
{
	uint32_t agent = seed % AGENTS;

	arena = arena_new(65536, 1 << 20);
	while (__atomic_load_n(&tally->stop, __ATOMIC_ACQUIRE) == 0) {
		uint64_t edition =
			__atomic_add_fetch(&tally->committed[agent], 1, __ATOMIC_SEQ_CST);

		answers_changed(answers, uuid_of(agent));
		__atomic_store_n(&tally->acknowledged[agent], edition, __ATOMIC_SEQ_CST);
		if (rand_r(&seed) % 4 == 0)
			usleep((useconds_t)(rand_r(&seed) % 200));
		arena_reset(arena);
	}
}

static void ask_for_ever(unsigned seed)
{
	struct answer answer;

	arena = arena_new(65536, 1 << 24);
	while (__atomic_load_n(&tally->stop, __ATOMIC_ACQUIRE) == 0) {
		uint32_t agent = (uint32_t)rand_r(&seed) % AGENTS;
		uint64_t acknowledged =
			__atomic_load_n(&tally->acknowledged[agent], __ATOMIC_SEQ_CST);
		struct answer_label label;
		uint64_t edition;

		arena_reset(arena);
		if (answers_find(answers, key_of(agent), now_s, arena, &answer)) {
			__atomic_fetch_add(&tally->hits, 1, __ATOMIC_RELAXED);
			if (edition_of(&answer) < acknowledged)
				__atomic_fetch_add(&tally->late, 1, __ATOMIC_RELAXED);
			continue;
		}
		label = answers_label(answers, uuid_of(agent));
		edition = __atomic_load_n(&tally->committed[agent], __ATOMIC_SEQ_CST);
		if (rand_r(&seed) % 8 == 0)
			usleep((useconds_t)(rand_r(&seed) % 300));
		store_under(agent, label, edition, 400);
	}
}

static void no_reader_meets_less_than_was_acknowledged_before_it_began(void **state)
{
	enum { READERS = 4 };
	pid_t pids[AGENTS + READERS];

	(void)state;
	for (unsigned i = 0; i < AGENTS + READERS; i++)
		pids[i] = fork_to(i < AGENTS ? change_for_ever : ask_for_ever, i);
	usleep(1500000);
	__atomic_store_n(&tally->stop, 1, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < AGENTS + READERS; i++)
		waitpid(pids[i], NULL, 0);
	assert_int_equal(tally->late, 0);
	assert_true(tally->hits > 1000);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(answers_of_every_size_come_back_byte_for_byte),
		TEST(an_answer_that_grew_or_shrank_replaces_the_one_before),
		TEST(what_was_not_used_for_longest_makes_room_and_outdated_answers_before_it),
		TEST(a_change_of_an_agent_drops_its_answers_and_those_of_the_registry),
		TEST(what_a_slow_reader_stores_is_served_to_nobody),
		TEST(what_is_used_is_told_and_fades),
		TEST(who_misses_what_another_asks_for_waits_until_that_lets_go),
		TEST(nobody_waits_for_the_dead_nor_longer_than_they_wish),
		TEST(who_waits_for_one_who_dies_asks_instead_and_the_others_wait),
		TEST(trust_comes_back_only_when_no_failure_came_since),
		TEST(hits_are_whole_though_those_who_store_are_killed_at_any_instant),
		TEST(no_reader_meets_less_than_was_acknowledged_before_it_began),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
