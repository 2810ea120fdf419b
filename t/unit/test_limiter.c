/* SPDX-License-Identifier: Apache-2.0 */
/* Rate limits: exactly so many pass, also when eight processes count at once and are killed. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <openssl/evp.h>
#include <openssl/params.h>

#include "lib/limiter.h"
#include "lib/shm.h"
#include "lib/siphash.h"

enum { MINUTE = LIMIT_WINDOW_MS, SUBJECTS = 1000, PROCESSES = 8 };

/* Some minute's begin. */
static const uint64_t start = UINT64_C(29000000) * MINUTE;

static struct limiter *limiter;
static size_t bytes;
static int fd;
static struct limit_answer answer;

static void new_limiter(size_t subjects)
{
	bytes = limiter_bytes(subjects);
	limiter = shm_new("test-limiter", bytes, &fd);
	assert_non_null(limiter);
	assert_ptr_equal(limiter_init(limiter, subjects), limiter);
}

static int set_up(void **state)
{
	(void)state;
	srand(20250101);
	new_limiter(SUBJECTS);
	return 0;
}

static int set_up_one_bucket(void **state)
{
	(void)state;
	new_limiter(0);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	shm_free(limiter, bytes, fd);
	return 0;
}

static uint32_t random_below(uint32_t bound)
{
	return (uint32_t)rand() % bound;
}

static enum limit_verdict take(uint64_t tag, uint32_t limit, uint64_t now_ms)
{
	return limiter_take(limiter, tag, limit, now_ms, &answer);
}

/* Takes until refused, at most `most` times; how many passed. */
static uint32_t take_all(uint64_t tag, uint32_t limit, uint64_t now_ms, uint32_t most)
{
	uint32_t passed = 0;

	while (passed < most && take(tag, limit, now_ms) == LIMIT_PASSED)
		passed++;
	return passed;
}

static uint32_t used(uint64_t tag, uint64_t now_ms)
{
	struct limit_share share;

	limiter_share(limiter, tag, now_ms, &share);
	return share.used;
}

/* ---- Hashes and subjects ---- */

static uint64_t openssl_siphash(const uint8_t key[16], const uint8_t *message, size_t len)
{
	EVP_MAC *mac = EVP_MAC_fetch(NULL, "SIPHASH", NULL);
	EVP_MAC_CTX *context = EVP_MAC_CTX_new(mac);
	size_t size = 8;
	const OSSL_PARAM params[] = { OSSL_PARAM_construct_size_t("size", &size),
		OSSL_PARAM_construct_end() };
	uint8_t hash[8];
	uint64_t word = 0;

	assert_int_equal(EVP_MAC_init(context, key, 16, params), 1);
	assert_int_equal(EVP_MAC_update(context, message, len), 1);
	assert_int_equal(EVP_MAC_final(context, hash, &size, sizeof hash), 1);
	for (size_t i = 0; i < 8; i++)
		word |= (uint64_t)hash[i] << (8 * i);
	EVP_MAC_CTX_free(context);
	EVP_MAC_free(mac);
	return word;
}

static void siphash_is_that_of_its_paper_and_of_openssl(void **state)
{
	uint8_t key[16], message[100];

	(void)state;
	for (size_t i = 0; i < sizeof key; i++)
		key[i] = message[i] = (uint8_t)i;
	assert_int_equal(siphash(key, message, 15), 0xa129ca6149be45e5); /* appendix A */
	for (size_t len = 0; len <= sizeof message; len++) {
		for (size_t i = 0; i < sizeof key; i++)
			key[i] = (uint8_t)rand();
		for (size_t i = 0; i < sizeof message; i++)
			message[i] = (uint8_t)rand();
		assert_int_equal(siphash(key, message, len), openssl_siphash(key, message, len));
	}
}

static void a_subject_has_a_tag_per_class_and_the_same_on_every_host(void **state)
{
	struct limiter *here = limiter;
	size_t here_bytes = bytes;
	int here_fd = fd;

	(void)state;
	assert_int_not_equal(limiter_tag(here, 1, "192.0.2.1"), limiter_tag(here, 2, "192.0.2.1"));
	assert_int_not_equal(limiter_tag(here, 1, "192.0.2.1"), limiter_tag(here, 1, "192.0.2.2"));
	new_limiter(SUBJECTS);
	assert_int_equal(limiter_tag(here, 1, "192.0.2.1"), limiter_tag(limiter, 1, "192.0.2.1"));
	shm_free(here, here_bytes, here_fd);
}

static void addresses_count_by_subscriber(void **state)
{
	static const char *const cases[][2] = {
		{ "192.0.2.1", "192.0.2.1" },
		{ "::ffff:192.0.2.1", "192.0.2.1" },
		{ "::FFFF:c000:0201", "192.0.2.1" },
		{ "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64" },
		{ "2001:DB8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::/64" },
		{ "2001:db8:1:3::1", "2001:db8:1:3::/64" },
		{ "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff:ffff:ffff:ffff::/64" },
		{ "::1", "::/64" },
		{ "", "unknown" },
		{ "unix:", "unknown" },
		{ "192.0.2.1:80", "unknown" },
		{ "192.0.2.256", "unknown" },
		{ "fe80::1%eth0", "unknown" },
	};
	char subject[64];

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		limiter_address_subject(cases[i][0], subject);
		assert_string_equal(subject, cases[i][1]);
	}
}

/* ---- The clock ---- */

static void the_clock_is_right_until_it_is_turned(void **state)
{
	(void)state;
	assert_int_equal(limiter_clock_ms(limiter, start), start);
	limiter_turn_clock(limiter, MINUTE);
	assert_int_equal(limiter_clock_ms(limiter, start), start + MINUTE);
	limiter_turn_clock(limiter, UINT64_MAX);
	assert_int_equal(limiter_clock_ms(limiter, start), start + LIMIT_TURN_MOST_MS);
	limiter_turn_clock(limiter, 0);
	assert_int_equal(limiter_clock_ms(limiter, start), start);
}

/* ---- The window ---- */

static void exactly_the_limit_passes_and_the_answer_counts_down(void **state)
{
	const uint64_t now = start + 12345;

	(void)state;
	for (uint32_t left = 10; left-- > 0;) {
		assert_int_equal(take(7, 10, now), LIMIT_PASSED);
		assert_int_equal(answer.limit, 10);
		assert_int_equal(answer.remaining, left);
		assert_int_equal(answer.reset_s, (start + MINUTE) / 1000);
		assert_int_equal(answer.retry_after_s, 0);
	}
	assert_int_equal(take(7, 10, now), LIMIT_REFUSED);
	assert_int_equal(answer.remaining, 0);
	assert_true(answer.retry_after_s > 0);
	assert_int_equal(used(7, now), 10);
	assert_int_equal(take(8, 10, now), LIMIT_PASSED);
}

static void the_end_of_a_minute_does_not_give_the_limit_twice(void **state)
{
	(void)state;
	assert_int_equal(take_all(7, 600, start + MINUTE - 1, 1000), 600);
	assert_int_equal(take_all(7, 600, start + MINUTE, 1000), 0);
	assert_int_equal(take_all(7, 600, start + MINUTE + 99, 1000), 0);
	assert_int_equal(take_all(7, 600, start + MINUTE + 100, 1000), 1);
	assert_int_equal(take_all(7, 600, start + MINUTE + 30000, 1000), 299);
	assert_int_equal(take_all(7, 600, start + MINUTE + 59999, 1000), 299);
	assert_int_equal(take_all(7, 600, start + 2 * MINUTE, 1000), 1);
}

/* Counted here in plain whole numbers: 60000 times what the window holds. */
static void what_passes_is_what_the_rule_says_at_any_time(void **state)
{
	(void)state;
	for (uint64_t tag = 1; tag <= 100; tag++) {
		uint32_t limit = 1 + random_below(40), now_used = 0, before = 0;
		uint64_t now = start, minute = start / MINUTE;

		for (int i = 0; i < 300; i++) {
			uint64_t covered;

			now += random_below(i % 10 == 0 ? 90000 : 3000);
			if (now / MINUTE != minute) {
				before = now / MINUTE == minute + 1 ? now_used : 0;
				now_used = 0;
				minute = now / MINUTE;
			}
			covered = MINUTE - now % MINUTE;
			if ((uint64_t)(now_used + 1) * MINUTE + before * covered <=
				(uint64_t)limit * MINUTE) {
				assert_int_equal(take(tag, limit, now), LIMIT_PASSED);
				now_used++;
			} else {
				assert_int_equal(take(tag, limit, now), LIMIT_REFUSED);
			}
			assert_int_equal(
				answer.remaining, limiter_left(limit, now_used, before, now));
		}
	}
}

static void waiting_as_told_is_enough_and_one_second_less_is_not(void **state)
{
	unsigned refused = 0;

	(void)state;
	for (uint64_t tag = 1; tag <= 5000; tag++) {
		uint32_t limit = 1 + random_below(60), wait;
		uint64_t now = start + MINUTE + random_below(MINUTE);

		take_all(tag, limit, start + random_below(MINUTE), random_below(61));
		take_all(tag, limit, now, random_below(61));
		limit = 1 + random_below(limit); /* a tier may have been taken away meanwhile */
		if (take(tag, limit, now) == LIMIT_PASSED)
			continue;
		refused++;
		wait = answer.retry_after_s;
		assert_in_range(wait, 1, 120);
		assert_int_equal(take(tag, limit, now + 1000 * (wait - 1)), LIMIT_REFUSED);
		assert_int_equal(take(tag, limit, now + 1000 * wait), LIMIT_PASSED);
	}
	assert_true(refused > 1000);
}

static void old_minutes_are_forgotten(void **state)
{
	(void)state;
	assert_int_equal(take_all(7, 50, start, 100), 50);
	assert_int_equal(take_all(7, 50, start + 2 * MINUTE, 100), 50);
	assert_int_equal(take_all(7, 50, start + 1000 * (uint64_t)MINUTE, 100), 50);
}

static void a_clock_that_is_behind_or_was_set_back_does_no_harm(void **state)
{
	(void)state;
	assert_int_equal(take_all(7, 50, start + MINUTE, 20), 20);
	assert_int_equal(take_all(7, 50, start + MINUTE - 1, 100), 30);
	assert_in_range(answer.retry_after_s, 1, 180);
	assert_int_equal(used(7, start + MINUTE), 50);
	assert_int_equal(take_all(7, 50, start - 60 * (uint64_t)MINUTE, 100), 50);
}

static void the_highest_limit_is_counted_out(void **state)
{
	(void)state;
	assert_int_equal(take_all(7, LIMIT_MOST, start, UINT32_MAX), LIMIT_MOST);
	assert_int_equal(take_all(7, LIMIT_MOST, start + MINUTE, 10), 0);
	assert_int_equal(take_all(8, UINT32_MAX, start, UINT32_MAX), LIMIT_MOST);
}

/* ---- Room ---- */

static void the_least_used_makes_room(void **state)
{
	(void)state;
	for (uint64_t tag = 1; tag <= 8; tag++)
		take_all(tag, 100, start, tag == 5 ? 1 : 10);
	assert_int_equal(take(9, 100, start), LIMIT_PASSED);
	for (uint64_t tag = 1; tag <= 9; tag++)
		assert_int_equal(used(tag, start), tag == 5 ? 0 : tag == 9 ? 1 : 10);
	/* Who passes through takes the place of who passed through. */
	for (uint64_t tag = 100; tag < 200; tag++)
		assert_int_equal(take(tag, 100, start), LIMIT_PASSED);
	assert_int_equal(used(1, start), 10);
	assert_int_equal(used(8, start), 10);
}

struct visits {
	unsigned count[SUBJECTS];
	uint32_t used[SUBJECTS];
	uint32_t limit[SUBJECTS];
};

static void note_visit(const struct limit_share *share, void *arg)
{
	struct visits *visits = arg;

	assert_true(share->tag < SUBJECTS);
	visits->count[share->tag]++;
	visits->used[share->tag] = share->used;
	visits->limit[share->tag] = share->limit;
}

static void each_subject_of_the_minute_is_visited_once(void **state)
{
	struct visits visits = { 0 };

	(void)state;
	take_all(99, 100, start - MINUTE, 5);
	for (uint64_t tag = 1; tag <= 50; tag++)
		take_all(tag, 100 + (uint32_t)tag, start, (uint32_t)tag);
	limiter_each(limiter, start + 5, note_visit, &visits);
	for (uint32_t tag = 0; tag < SUBJECTS; tag++) {
		bool counted = tag >= 1 && tag <= 50;

		assert_int_equal(visits.count[tag], counted);
		assert_int_equal(visits.used[tag], counted ? tag : 0);
		assert_int_equal(visits.limit[tag], counted ? 100 + tag : 0);
	}
}

/* ---- Several hosts ---- */

static void with_other_hosts_only_what_is_reserved_passes(void **state)
{
	struct limit_share share;

	(void)state;
	limiter_set_hosts(limiter, 3, start + 2 * MINUTE);
	assert_int_equal(limiter_hosts(limiter, start), 3);
	assert_int_equal(take(7, 100, start), LIMIT_UNRESERVED);
	limiter_reserved(limiter, 7, start / MINUTE, 4, 30, 0);
	assert_int_equal(take(7, 100, start), LIMIT_PASSED);
	assert_int_equal(answer.remaining, 70 + 3);
	assert_int_equal(take_all(7, 100, start, 100), 3);
	assert_int_equal(take(7, 100, start), LIMIT_UNRESERVED);
	limiter_reserved(limiter, 7, start / MINUTE, 2, 100, 0);
	assert_int_equal(take_all(7, 100, start, 100), 2);
	assert_int_equal(take(7, 100, start), LIMIT_REFUSED);
	limiter_share(limiter, 7, start, &share);
	assert_int_equal(share.minute, start / MINUTE);
	assert_int_equal(share.limit, 100);
	assert_int_equal(share.used, 6);
	assert_int_equal(share.used_before, 0);
	assert_int_equal(share.reserved, 6);
	/* The next minute needs reserving anew, and a reservation for the last one comes too late. */
	assert_int_equal(take(7, 100, start + MINUTE), LIMIT_UNRESERVED);
	limiter_reserved(limiter, 7, start / MINUTE + 1, 1, 1, 100);
	limiter_reserved(limiter, 7, start / MINUTE, 50, 100, 0);
	assert_int_equal(take_all(7, 100, start + MINUTE + 30000, 100), 1);
	limiter_share(limiter, 7, start + MINUTE, &share);
	assert_int_equal(share.reserved, 1);
	assert_int_equal(share.used_before, 6);
}

static void what_all_hosts_reserved_refuses_and_says_how_long_to_wait(void **state)
{
	(void)state;
	limiter_set_hosts(limiter, 2, UINT64_MAX);
	assert_int_equal(take(7, 60, start), LIMIT_UNRESERVED);
	limiter_reserved(limiter, 7, start / MINUTE, 0, 10, 60);
	assert_int_equal(take(7, 60, start), LIMIT_REFUSED);
	assert_int_equal(answer.remaining, 0);
	assert_int_equal(answer.retry_after_s, 11); /* 10 and 49 of 60 left, and one */
	assert_int_equal(take(7, 60, start + 10999), LIMIT_REFUSED);
	assert_int_equal(take(7, 60, start + 11000), LIMIT_UNRESERVED);
}

static void out_of_reach_of_the_ledger_a_host_owes_what_passes(void **state)
{
	struct limit_share share;

	(void)state;
	limiter_set_hosts(limiter, 2, UINT64_MAX);
	for (int n = 0; n < 20; n++)
		assert_int_equal(limiter_take_owing(limiter, 7, 20, start, &answer), LIMIT_PASSED);
	assert_int_equal(limiter_take_owing(limiter, 7, 20, start, &answer), LIMIT_REFUSED);
	limiter_share(limiter, 7, start, &share);
	assert_int_equal(share.used, 20);
	assert_int_equal(share.reserved, 0);
	/* Nor does it let through what it knows that others have. */
	assert_int_equal(limiter_take_owing(limiter, 8, 20, start, &answer), LIMIT_PASSED);
	limiter_reserved(limiter, 8, start / MINUTE, 1, 20, 0);
	assert_int_equal(limiter_take_owing(limiter, 8, 20, start, &answer), LIMIT_REFUSED);
}

static void what_was_counted_alone_still_counts_among_hosts(void **state)
{
	(void)state;
	assert_int_equal(take_all(7, 20, start, 15), 15);
	limiter_set_hosts(limiter, 2, start + 1000);
	limiter_reserved(limiter, 7, start / MINUTE, 20, 20, 0);
	assert_int_equal(take_all(7, 20, start, 100), 5);
	assert_int_equal(take(7, 20, start), LIMIT_REFUSED);
}

static void a_host_that_hears_no_more_of_others_counts_alone(void **state)
{
	(void)state;
	limiter_set_hosts(limiter, 2, start + 1000);
	assert_int_equal(take(7, 20, start + 999), LIMIT_UNRESERVED);
	assert_int_equal(limiter_hosts(limiter, start + 1000), 1);
	assert_int_equal(take_all(7, 20, start + 1000, 100), 20);
	limiter_set_hosts(limiter, 1, UINT64_MAX);
	assert_int_equal(limiter_hosts(limiter, start), 1);
	limiter_set_hosts(limiter, 1000000, UINT64_MAX);
	assert_int_equal(limiter_hosts(limiter, start), 65535);
}

static void counts_too_large_for_their_bits_stop_at_the_most(void **state)
{
	struct limit_share share;

	(void)state;
	limiter_set_hosts(limiter, 2, UINT64_MAX);
	limiter_reserved(limiter, 7, start / MINUTE, UINT32_MAX, 0, 0);
	limiter_reserved(limiter, 7, start / MINUTE, UINT32_MAX, 0, 0);
	limiter_share(limiter, 7, start, &share);
	assert_int_equal(share.minute, start / MINUTE);
	assert_int_equal(share.reserved, (1 << 18) - 1);
	assert_int_equal(take_all(7, LIMIT_MOST, start, UINT32_MAX), LIMIT_MOST);
	limiter_reserved(limiter, 8, start / MINUTE, 0, UINT32_MAX, 0);
	assert_int_equal(take(8, LIMIT_MOST, start), LIMIT_REFUSED);
	limiter_reserved(limiter, 9, start / MINUTE, 0, 0, UINT32_MAX);
	assert_int_equal(take(9, LIMIT_MOST, start), LIMIT_REFUSED);
	assert_int_equal(limiter_left(LIMIT_MOST, UINT32_MAX, UINT32_MAX, start), 0);
}

/* ---- Many processes ---- */

struct tally {
	uint32_t passed;
	uint32_t go;
};

static struct tally *tally;

static int set_up_tally(void **state)
{
	int tally_fd;

	alarm(120); /* a lock that nobody gives back would hang */
	tally = shm_new("test-tally", sizeof *tally, &tally_fd);
	return tally == NULL ? -1 : set_up(state);
}

static int set_up_tally_one_bucket(void **state)
{
	return set_up_tally(state) != 0 || tear_down(state) != 0 || set_up_one_bucket(state) != 0;
}

static int tear_down_tally(void **state)
{
	alarm(0);
	shm_free(tally, sizeof *tally, -1);
	return tear_down(state);
}

/* A child that ends with the test, however that ends. */
static pid_t fork_child(void)
{
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	return pid;
}

static void take_until_refused(uint64_t tag, uint32_t limit)
{
	while (__atomic_load_n(&tally->go, __ATOMIC_ACQUIRE) == 0)
		;
	while (take(tag, limit, start) == LIMIT_PASSED)
		__atomic_fetch_add(&tally->passed, 1, __ATOMIC_RELAXED);
}

/* Lets eight processes take at once, and kills the first `kills` of them somewhere on the way. A
 * process that was killed may have been counted without having said so. */
static void hammer(uint64_t tag, uint32_t limit, uint32_t kills)
{
	pid_t pids[PROCESSES];

	*tally = (struct tally){ 0 };
	for (size_t i = 0; i < PROCESSES; i++) {
		pids[i] = fork_child();
		if (pids[i] == 0) {
			take_until_refused(tag, limit);
			_exit(0);
		}
	}
	__atomic_store_n(&tally->go, 1, __ATOMIC_RELEASE);
	for (size_t i = 0; i < kills; i++) {
		usleep(random_below(2000));
		kill(pids[i], SIGKILL);
	}
	for (size_t i = 0; i < PROCESSES; i++)
		waitpid(pids[i], NULL, 0);
	assert_in_range(tally->passed, limit - kills, limit);
	assert_int_equal(used(tag, start), limit);
}

static void eight_processes_at_once_let_exactly_the_limit_through(void **state)
{
	(void)state;
	for (uint64_t tag = 1; tag <= 20; tag++)
		hammer(tag, 5000, 0);
}

static void being_killed_loses_and_gains_no_request(void **state)
{
	(void)state;
	for (uint64_t tag = 1; tag <= 40; tag++)
		hammer(tag, 50000, 3);
}

static pid_t fork_newcomers(unsigned seed)
{
	pid_t pid = fork_child();

	if (pid == 0) {
		srand(seed);
		for (;;)
			(void)take(1 + random_below(50), LIMIT_MOST, start);
	}
	return pid;
}

/* One bucket and fifty subjects: nearly every request is a move, under the lock. */
static void being_killed_while_moving_a_subject_in_leaves_the_bucket_whole(void **state)
{
	struct visits visits = { 0 };
	pid_t pids[4];

	(void)state;
	for (unsigned i = 0; i < 4; i++)
		pids[i] = fork_newcomers(i);
	for (unsigned i = 0; i < 300; i++) {
		usleep(random_below(1500));
		kill(pids[i % 4], SIGKILL);
		waitpid(pids[i % 4], NULL, 0);
		if (i < 296)
			pids[i % 4] = fork_newcomers(4 + i);
	}
	limiter_each(limiter, start, note_visit, &visits);
	for (size_t tag = 0; tag < SUBJECTS; tag++)
		assert_true(visits.count[tag] <= 1);
	assert_int_equal(take_all(60, 10, start + 2 * MINUTE, 100), 10);
}

static void a_limiter_of_another_size_goes_on_where_one_was(void **state)
{
	enum { SMALLER = 64 };
	struct limiter *next = limiter_init(calloc(1, limiter_bytes(SMALLER)), SMALLER);
	struct limit_answer said;
	struct limit_share share;

	(void)state;
	assert_int_equal(take_all(60, 10, start, 7), 7);
	limiter_carry(next, limiter, start + 1);
	for (int i = 0; i < 3; i++)
		assert_int_equal(limiter_take(next, 60, 10, start + 2, &said), LIMIT_PASSED);
	assert_int_equal(limiter_take(next, 60, 10, start + 2, &said), LIMIT_REFUSED);
	/* The ledger hears of what passed here only. */
	limiter_share(next, 60, start + 2, &share);
	assert_int_equal(share.used, 10);
	assert_int_equal(share.reserved, 7);
	free(next);
}

#define TEST(name, up, down) cmocka_unit_test_setup_teardown(name, up, down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(siphash_is_that_of_its_paper_and_of_openssl, NULL, NULL),
		TEST(a_subject_has_a_tag_per_class_and_the_same_on_every_host, set_up, tear_down),
		TEST(addresses_count_by_subscriber, NULL, NULL),
		TEST(the_clock_is_right_until_it_is_turned, set_up, tear_down),
		TEST(exactly_the_limit_passes_and_the_answer_counts_down, set_up, tear_down),
		TEST(the_end_of_a_minute_does_not_give_the_limit_twice, set_up, tear_down),
		TEST(what_passes_is_what_the_rule_says_at_any_time, set_up, tear_down),
		TEST(waiting_as_told_is_enough_and_one_second_less_is_not, set_up, tear_down),
		TEST(old_minutes_are_forgotten, set_up, tear_down),
		TEST(a_clock_that_is_behind_or_was_set_back_does_no_harm, set_up, tear_down),
		TEST(the_highest_limit_is_counted_out, set_up, tear_down),
		TEST(the_least_used_makes_room, set_up_one_bucket, tear_down),
		TEST(a_limiter_of_another_size_goes_on_where_one_was, set_up, tear_down),
		TEST(each_subject_of_the_minute_is_visited_once, set_up, tear_down),
		TEST(with_other_hosts_only_what_is_reserved_passes, set_up, tear_down),
		TEST(what_all_hosts_reserved_refuses_and_says_how_long_to_wait, set_up, tear_down),
		TEST(out_of_reach_of_the_ledger_a_host_owes_what_passes, set_up, tear_down),
		TEST(what_was_counted_alone_still_counts_among_hosts, set_up, tear_down),
		TEST(a_host_that_hears_no_more_of_others_counts_alone, set_up, tear_down),
		TEST(counts_too_large_for_their_bits_stop_at_the_most, set_up, tear_down),
		TEST(eight_processes_at_once_let_exactly_the_limit_through, set_up_tally,
			tear_down_tally),
		TEST(being_killed_loses_and_gains_no_request, set_up_tally, tear_down_tally),
		TEST(being_killed_while_moving_a_subject_in_leaves_the_bucket_whole,
			set_up_tally_one_bucket, tear_down_tally),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
