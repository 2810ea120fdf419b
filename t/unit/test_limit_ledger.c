/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Limits over two hosts, which are two limiters in shared memory, each with its ledger keeper and a process
 * that asks as a worker does, and one real memcached between them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "app/process/ledger_keeper.h"
#include "lib/clock.h"
#include "lib/log.h"
#include "t/unit/servers.h"

enum {
	HOSTS = 2,
	SUBJECTS = 1000,
	MINUTES = 8, /* that a test can last, and counts are kept for */
	TRIES = 16, /* to reserve for one request, as workers do */
	TIMEOUT_MS = 1000,
	RETRY_MS = 200,
};

static const uint32_t limits[] = { 10, 120, 1000, 50000 };
enum { LIMITS = sizeof limits / sizeof limits[0] };

struct host {
	struct limiter *limiter;
	pid_t keeper;
};

/* Passed requests by all hosts, in shared memory. */
struct tally {
	uint64_t first_minute;
	uint32_t passed[LIMITS][MINUTES];
	uint32_t away; /* times the ledger could not be reached */
};

static struct test_memcached server;
static char servers[256];
static struct settings settings;
static struct cache_options options;
static struct host hosts[HOSTS];
static struct tally *tally;

static void *shared(size_t bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(memory, MAP_FAILED);
	return memory;
}

static int set_up(void **state)
{
	(void)state;
	test_memcached_start(&server, NULL);
	snprintf(servers, sizeof servers, "unix:%s", server.socket);
	settings = (struct settings){ .memcached_servers = servers,
		.cache_timeout_ms = TIMEOUT_MS,
		.cache_retry_ms = RETRY_MS };
	options = (struct cache_options){ servers, TIMEOUT_MS, RETRY_MS, NULL, settings.cache_key };
	for (size_t i = 0; i < HOSTS; i++)
		hosts[i] =
			(struct host){ limiter_init(shared(limiter_bytes(SUBJECTS)), SUBJECTS), 0 };
	tally = shared(sizeof *tally);
	tally->first_minute = clock_unix_ms() / LIMIT_WINDOW_MS;
	return 0;
}

static void end(pid_t pid, int number, int expected)
{
	int status;

	kill(pid, number);
	while (waitpid(pid, &status, 0) < 0)
		assert_int_equal(errno, EINTR);
	assert_int_equal(status, expected);
}

static int tear_down(void **state)
{
	(void)state;
	for (size_t i = 0; i < HOSTS; i++) {
		if (hosts[i].keeper > 0)
			end(hosts[i].keeper, SIGTERM, 0);
		munmap(hosts[i].limiter, limiter_bytes(SUBJECTS));
	}
	munmap(tally, sizeof *tally);
	test_memcached_remove(&server);
	return 0;
}

static pid_t start_child(void)
{
	pid_t pid;

	fflush(NULL);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	return pid;
}

/* Starts a host's ledger keeper and waits as the master does. */
static void start_ledger_keeper(struct host *host)
{
	struct pollfd ready = { .events = POLLIN };
	int ends[2];

	assert_int_equal(pipe(ends), 0);
	host->keeper = start_child();
	if (host->keeper == 0)
		_exit(ledger_keeper_run(&settings, host->limiter, NULL, ends[1]));
	close(ends[1]);
	ready.fd = ends[0];
	assert_int_equal(poll(&ready, 1, 5000), 1);
	close(ends[0]);
}

static void nap(long ms)
{
	nanosleep(&(struct timespec){ ms / 1000, ms % 1000 * 1000000 }, NULL);
}

/* Whether the host counts that many hosts before so many ms are over. */
static bool counts_hosts(const struct host *host, unsigned count, int within_ms)
{
	const uint64_t until_ms = clock_ms() + (uint64_t)within_ms;

	while (limiter_hosts(host->limiter, clock_unix_ms()) != count) {
		if (clock_ms() > until_ms)
			return false;
		nap(5);
	}
	return true;
}

/* One request on a host, as a worker decides on it. */
static bool ask(
	struct host *host, struct cache *cache, const char *name, uint32_t limit, uint64_t now_ms)
{
	const uint64_t tag = limiter_tag(host->limiter, 1, name);
	struct limit_answer answer;
	enum limit_verdict verdict = limiter_take(host->limiter, tag, limit, now_ms, &answer);

	for (int i = 0; verdict == LIMIT_UNRESERVED && i < TRIES; i++) {
		bool away;

		if (!limit_ledger_reserve(host->limiter, cache, tag, limit, now_ms, &away)) {
			if (!away)
				return false;
			__atomic_fetch_add(&tally->away, 1, __ATOMIC_RELAXED);
			verdict = limiter_take_owing(host->limiter, tag, limit, now_ms, &answer);
			break;
		}
		verdict = limiter_take(host->limiter, tag, limit, now_ms, &answer);
	}
	return verdict == LIMIT_PASSED;
}

static uint32_t passed_in_all(size_t at)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < MINUTES; i++)
		sum += tally->passed[at][i];
	return sum;
}

/* A process that sends `count` requests against each limit, `per_s` of each a second (0: as fast as
 * it can), and counts what passed by minute. */
static pid_t start_asking(struct host *host, const char *name, uint32_t count, uint32_t per_s)
{
	const uint64_t began_us = clock_us();
	struct cache *cache;
	char subject[64];
	pid_t pid = start_child();

	if (pid != 0)
		return pid;
	cache = cache_new(&options);
	for (uint32_t i = 0; i < count; i++) {
		for (size_t at = 0; at < LIMITS; at++) {
			const uint64_t now_ms = clock_unix_ms();

			snprintf(subject, sizeof subject, "%s %zu", name, at);
			if (ask(host, cache, subject, limits[at], now_ms))
				__atomic_fetch_add(&tally->passed[at][now_ms / LIMIT_WINDOW_MS -
								      tally->first_minute],
					1, __ATOMIC_RELAXED);
		}
		while (per_s > 0 && clock_us() - began_us < (uint64_t)i * 1000000 / per_s)
			nap(1);
	}
	cache_free(cache);
	_exit(0);
}

static void wait_all(const pid_t *pids, size_t count)
{
	for (size_t i = 0; i < count; i++)
		end(pids[i], 0, 0);
}

static void no_minute_passed_more_than_its_limit(void)
{
	for (size_t at = 0; at < LIMITS; at++)
		for (size_t i = 0; i < MINUTES; i++)
			assert_in_range(tally->passed[at][i], 0, limits[at]);
}

/* ---- Tests ---- */

static void numbers_counted_together_start_once_and_add_up(void **state)
{
	struct cache *cache = cache_new(&options);
	uint64_t total;
	pid_t pids[4];

	(void)state;
	assert_int_equal(cache_take_count(cache, "n", 1, &total), CACHE_MISS);
	assert_int_equal(cache_add_count(cache, "n", 5, 105, 60, &total), CACHE_HIT);
	assert_int_equal(total, 105);
	assert_int_equal(cache_add_count(cache, "n", 5, 105, 60, &total), CACHE_HIT);
	assert_int_equal(total, 110);
	assert_int_equal(cache_take_count(cache, "n", 11, &total), CACHE_HIT);
	assert_int_equal(total, 99);
	assert_int_equal(cache_take_count(cache, "n", 100, &total), CACHE_HIT);
	assert_int_equal(total, 0);
	assert_int_equal(cache_start_count(cache, "n", 7, 60), CACHE_MISS);
	assert_int_equal(cache_start_count(cache, "m", 7, 60), CACHE_HIT);
	assert_int_equal(cache_add_count(cache, "m", 1, 1, 60, &total), CACHE_HIT);
	assert_int_equal(total, 8);
	assert_int_equal(cache_add_count(cache, "a b", 1, 1, 60, &total), CACHE_TOO_LARGE);

	for (size_t i = 0; i < 4; i++) {
		pids[i] = start_child();
		if (pids[i] == 0) {
			struct cache *own = cache_new(&options);

			for (int n = 0; n < 1000; n++)
				if (cache_add_count(own, "all", 1, 1, 60, &total) != CACHE_HIT)
					_exit(1);
			cache_free(own);
			_exit(0);
		}
	}
	wait_all(pids, 4);
	assert_int_equal(cache_add_count(cache, "all", 1, 1, 60, &total), CACHE_HIT);
	assert_int_equal(total, 4001);
	test_memcached_stop(&server);
	assert_int_equal(cache_add_count(cache, "all", 1, 1, 60, &total), CACHE_AWAY);
	assert_int_equal(cache_take_count(cache, "all", 1, &total), CACHE_AWAY);
	assert_int_equal(cache_start_count(cache, "all", 1, 60), CACHE_AWAY);
	cache_free(cache);
}

/* 10,000 requests/s on two hosts, for each of four limits at the same time. */
static void two_busy_hosts_let_through_the_limit_and_no_more(void **state)
{
	pid_t pids[HOSTS];

	(void)state;
	for (size_t i = 0; i < HOSTS; i++)
		start_ledger_keeper(&hosts[i]);
	for (size_t i = 0; i < HOSTS; i++)
		assert_true(counts_hosts(&hosts[i], HOSTS, 300));
	for (size_t i = 0; i < HOSTS; i++)
		pids[i] = start_asking(&hosts[i], "busy", 35000, 5000);
	wait_all(pids, HOSTS);
	assert_int_equal(tally->away, 0);
	no_minute_passed_more_than_its_limit();
	for (size_t at = 0; at < LIMITS; at++) {
		print_message(
			"# limit %" PRIu32 ": %" PRIu32 " passed\n", limits[at], passed_in_all(at));
		assert_true(passed_in_all(at) >= limits[at] * 9 / 10);
	}
}

/* The other has served each caller once, and keeps what it reserved for that. */
static void one_busy_host_of_two_gets_nine_tenths(void **state)
{
	pid_t pid;

	(void)state;
	for (size_t i = 0; i < HOSTS; i++)
		start_ledger_keeper(&hosts[i]);
	pid = start_asking(&hosts[1], "skewed", 1, 0);
	wait_all(&pid, 1);
	nap(250); /* for the keeper to reserve ahead, if it would */
	for (size_t at = 0; at < LIMITS; at++)
		assert_int_equal(passed_in_all(at), 1);
	pid = start_asking(&hosts[0], "skewed", 60000, 0);
	wait_all(&pid, 1);
	no_minute_passed_more_than_its_limit();
	for (size_t at = 1; at < LIMITS; at++) {
		print_message("# limit %" PRIu32 ": %" PRIu32 " passed on one host of two\n",
			limits[at], passed_in_all(at) - 1);
		assert_true(passed_in_all(at) - 1 >= limits[at] * 9 / 10);
	}
}

/* Time is made up here: no keeper takes part. */
static void no_window_across_two_minutes_gets_more_than_the_limit(void **state)
{
	const uint64_t minute_ms = (clock_unix_ms() / LIMIT_WINDOW_MS + 10) * LIMIT_WINDOW_MS;
	struct cache *cache = cache_new(&options);
	uint32_t passed[4] = { 0 }; /* in the last second, at the first, at 30 s, at 60 s */
	const uint64_t at_ms[4] = { minute_ms - 1, minute_ms, minute_ms + LIMIT_WINDOW_MS / 2,
		minute_ms + LIMIT_WINDOW_MS - 1 };

	(void)state;
	for (size_t i = 0; i < HOSTS; i++)
		limiter_set_hosts(hosts[i].limiter, HOSTS, minute_ms + 2 * LIMIT_WINDOW_MS);
	for (size_t at = 0; at < 4; at++)
		for (int n = 0; n < 3000; n++)
			passed[at] += ask(&hosts[n % HOSTS], cache, "window", 1000, at_ms[at]);
	assert_int_equal(passed[0], 1000);
	assert_int_equal(passed[1], 0);
	assert_int_equal(passed[2], 500);
	assert_in_range(passed[3], 498, 500);
	cache_free(cache);
}

/* Somebody who reaches memcached takes back what was entered there, again and again. */
static void no_host_passes_the_limit_by_itself_whatever_the_ledger_says(void **state)
{
	const uint64_t minute_ms = (clock_unix_ms() / LIMIT_WINDOW_MS + 10) * LIMIT_WINDOW_MS;
	struct cache *cache = cache_new(&options);
	const uint64_t tag = limiter_tag(hosts[0].limiter, 1, "lied to");
	uint32_t passed = 0, lies = 0;
	uint64_t total;
	char key[96];

	(void)state;
	snprintf(key, sizeof key, "{%016" PRIx64 "}areg:rl:%s:%016" PRIx64 ":%" PRIu64, tag,
		cache_key_id(cache), tag, minute_ms / LIMIT_WINDOW_MS);
	limiter_set_hosts(hosts[0].limiter, HOSTS, minute_ms + 2 * LIMIT_WINDOW_MS);
	for (int n = 0; n < 3000; n++) {
		passed += ask(&hosts[0], cache, "lied to", 1000, minute_ms);
		lies += cache_take_count(cache, key, UINT32_MAX, &total) == CACHE_HIT;
	}
	assert_true(lies > 0);
	assert_int_equal(passed, 1000);
	cache_free(cache);
}

static void host_that_joins_gets_only_what_the_first_has_left(void **state)
{
	struct cache *cache = cache_new(&options);
	uint32_t alone = 0, joined = 0, after = 0;
	uint64_t now_ms;

	(void)state;
	if (clock_unix_ms() % LIMIT_WINDOW_MS > LIMIT_WINDOW_MS - 3000)
		nap(3500); /* all of it within one minute */
	start_ledger_keeper(&hosts[0]);
	now_ms = clock_unix_ms();
	for (int n = 0; n < 600; n++)
		alone += ask(&hosts[0], cache, "joined", 1000, now_ms);
	assert_int_equal(alone, 600);
	assert_int_equal(limiter_hosts(hosts[0].limiter, now_ms), 1);
	start_ledger_keeper(&hosts[1]);
	now_ms = clock_unix_ms();
	assert_int_equal(limiter_hosts(hosts[0].limiter, now_ms), 2);
	assert_int_equal(limiter_hosts(hosts[1].limiter, now_ms), 2);
	for (int n = 0; n < 1000; n++)
		joined += ask(&hosts[1], cache, "joined", 1000, now_ms);
	for (int n = 0; n < 1000; n++)
		after += ask(&hosts[0], cache, "joined", 1000, now_ms);
	print_message("# 600 alone, %" PRIu32 " by the other, then %" PRIu32 "\n", joined, after);
	assert_in_range(joined, 340, 400);
	assert_in_range(joined + after, 390, 400);
	cache_free(cache);
}

static void host_goes_on_alone_when_its_folder_is_killed(void **state)
{
	(void)state;
	for (size_t i = 0; i < HOSTS; i++)
		start_ledger_keeper(&hosts[i]);
	assert_true(counts_hosts(&hosts[0], HOSTS, 300));
	end(hosts[0].keeper, SIGKILL, SIGKILL);
	hosts[0].keeper = 0;
	assert_true(counts_hosts(&hosts[0], 1, 1200));
	/* And the other learns of it. */
	assert_true(counts_hosts(&hosts[1], 1, 4000));
}

static void host_that_ends_is_forgotten_at_once(void **state)
{
	(void)state;
	for (size_t i = 0; i < HOSTS; i++)
		start_ledger_keeper(&hosts[i]);
	assert_true(counts_hosts(&hosts[1], HOSTS, 300));
	end(hosts[0].keeper, SIGTERM, 0);
	hosts[0].keeper = 0;
	assert_true(counts_hosts(&hosts[1], 1, 400));
}

static void each_host_counts_alone_while_memcached_is_away_and_shares_again(void **state)
{
	struct cache *cache = cache_new(&options);
	uint32_t passed = 0;
	uint64_t now_ms;

	(void)state;
	if (clock_unix_ms() % LIMIT_WINDOW_MS > LIMIT_WINDOW_MS - 10000)
		nap(10500);
	for (size_t i = 0; i < HOSTS; i++)
		start_ledger_keeper(&hosts[i]);
	assert_true(counts_hosts(&hosts[0], HOSTS, 300));
	now_ms = clock_unix_ms();
	for (int n = 0; n < 400; n++)
		passed += ask(&hosts[n % HOSTS], cache, "away", 1000, now_ms);
	assert_int_equal(passed, 400);

	test_memcached_stop(&server);
	now_ms = clock_unix_ms();
	for (int n = 0; n < 500; n++)
		passed += ask(&hosts[0], cache, "away", 1000, now_ms);
	assert_int_equal(passed, 900);
	for (size_t i = 0; i < HOSTS; i++)
		assert_true(counts_hosts(&hosts[i], 1, 1500));
	for (int n = 0; n < 1000; n++)
		passed += ask(&hosts[0], cache, "away", 1000, now_ms);
	assert_int_equal(passed, 1200); /* 200 + 500 + 300: the limit of this host */

	test_memcached_restart(&server, NULL);
	for (size_t i = 0; i < HOSTS; i++)
		assert_true(counts_hosts(&hosts[i], HOSTS, 2000));
	nap(250); /* for both to enter again what they let through */
	cache_free(cache);
	cache = cache_new(&options);
	passed = 0;
	now_ms = clock_unix_ms();
	for (int n = 0; n < 1000; n++)
		passed += ask(&hosts[n % HOSTS], cache, "away", 1000, now_ms);
	/* What the other had reserved and not used, at most. */
	print_message("# %" PRIu32 " passed after the return\n", passed);
	assert_in_range(passed, 0, 150);
	cache_free(cache);
}

/* Slower than a worker waits for, as on a host that is short of processors. */
static void memcached_that_hangs_for_a_moment_does_not_give_each_host_the_limit(void **state)
{
	const struct cache_options impatient = { servers, 50, 2000, NULL, settings.cache_key };
	struct cache *caches[HOSTS];
	uint32_t passed = 0;
	uint64_t now_ms;

	(void)state;
	settings.cache_timeout_ms = impatient.timeout_ms;
	settings.cache_retry_ms = impatient.retry_ms;
	if (clock_unix_ms() % LIMIT_WINDOW_MS > LIMIT_WINDOW_MS - 10000)
		nap(10500);
	for (size_t i = 0; i < HOSTS; i++) {
		caches[i] = cache_new(&impatient);
		start_ledger_keeper(&hosts[i]);
	}
	for (size_t i = 0; i < HOSTS; i++)
		assert_true(counts_hosts(&hosts[i], HOSTS, 300));
	now_ms = clock_unix_ms();
	assert_true(ask(&hosts[0], caches[0], "hiccup", 1000, now_ms));
	kill(server.pid, SIGSTOP);
	for (size_t i = 0; i < HOSTS; i++)
		passed += ask(&hosts[i], caches[i], "hiccup", 1000, now_ms);
	nap(200);
	kill(server.pid, SIGCONT);
	for (int n = 0; n < 2000; n++) {
		passed +=
			ask(&hosts[n % HOSTS], caches[n % HOSTS], "hiccup", 1000, clock_unix_ms());
		nap(1);
	}
	print_message("# %" PRIu32 " of 1000 passed\n", passed + 1);
	assert_true(tally->away > 0);
	/* Over it by what comes within a round or two of the ledger keepers, at some 90 requests each. */
	assert_in_range(passed + 1, 950, 1150);
	for (size_t i = 0; i < HOSTS; i++)
		cache_free(caches[i]);
}

static void what_a_lost_server_of_two_counted_is_entered_again_on_the_other(void **state)
{
	enum { CALLERS = 16 };
	struct test_memcached spare;
	struct cache *cache;
	char names[CALLERS][16];
	uint32_t passed[CALLERS] = { 0 };
	uint64_t now_ms;

	(void)state;
	test_memcached_start(&spare, NULL);
	snprintf(servers, sizeof servers, "unix:%s,unix:%s", server.socket, spare.socket);
	cache = cache_new(&options);
	if (clock_unix_ms() % LIMIT_WINDOW_MS > LIMIT_WINDOW_MS - 10000)
		nap(10500);
	for (size_t i = 0; i < HOSTS; i++)
		start_ledger_keeper(&hosts[i]);
	for (size_t i = 0; i < HOSTS; i++)
		assert_true(counts_hosts(&hosts[i], HOSTS, 300));
	now_ms = clock_unix_ms();
	for (size_t i = 0; i < CALLERS; i++) {
		snprintf(names[i], sizeof names[i], "lost %zu", i);
		for (int n = 0; n < 500; n++)
			passed[i] += ask(&hosts[n % HOSTS], cache, names[i], 1000, now_ms);
		assert_int_equal(passed[i], 500);
	}

	test_memcached_stop(&spare);
	nap(400); /* for the ledger keepers to find out, and to find each other again */
	for (size_t i = 0; i < HOSTS; i++)
		assert_true(counts_hosts(&hosts[i], HOSTS, 2000));
	now_ms = clock_unix_ms();
	for (size_t i = 0; i < CALLERS; i++) {
		for (int n = 0; n < 1500; n++)
			passed[i] += ask(&hosts[n % HOSTS], cache, names[i], 1000, now_ms);
		assert_in_range(passed[i], 850, 1060);
	}
	cache_free(cache);
	test_memcached_remove(&spare);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(numbers_counted_together_start_once_and_add_up),
		TEST(two_busy_hosts_let_through_the_limit_and_no_more),
		TEST(one_busy_host_of_two_gets_nine_tenths),
		TEST(no_window_across_two_minutes_gets_more_than_the_limit),
		TEST(no_host_passes_the_limit_by_itself_whatever_the_ledger_says),
		TEST(host_that_joins_gets_only_what_the_first_has_left),
		TEST(host_goes_on_alone_when_its_folder_is_killed),
		TEST(host_that_ends_is_forgotten_at_once),
		TEST(memcached_that_hangs_for_a_moment_does_not_give_each_host_the_limit),
		TEST(each_host_counts_alone_while_memcached_is_away_and_shares_again),
		TEST(what_a_lost_server_of_two_counted_is_entered_again_on_the_other),
	};
	const char *why;

	if (!log_open("/dev/null", LOG_FORMAT_TEXT, LOG_LEVEL_ERROR, &why))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
