/* SPDX-License-Identifier: Apache-2.0 */
/* lib/cache against real memcached servers that are killed, stopped and restarted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/cache.h"
#include "lib/log.h"
#include "t/unit/servers.h"

static const uint8_t test_key[SEAL_KEY_BYTES] = "the key of tests";

/* A busy machine answers late: only tests of servers that do not answer at all are impatient. */
enum { MIB = 1024 * 1024, PATIENCE_MS = 20000, TIMEOUT_MS = 300, RETRY_MS = 300 };

/* For tests that both wait for a stopped server and need every answer of the others. */
enum { LONG_TIMEOUT_MS = 3000 };

static struct test_memcached server, six, four;
static char local_list[128], six_list[128], four_list[128];
static struct arena *arena;
static struct cache *cache;
static struct cache_options options;
static struct cache_value value;

static int64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static int set_up_group(void **state)
{
	(void)state;
	test_memcached_start(&server, NULL);
	test_memcached_start(&six, "::1");
	test_memcached_start(&four, "127.0.0.1");
	snprintf(local_list, sizeof(local_list), "unix:%s", server.socket);
	snprintf(six_list, sizeof(six_list), "[::1]:%d", six.port);
	snprintf(four_list, sizeof(four_list), "127.0.0.1:%d", four.port);
	return 0;
}

static int tear_down_group(void **state)
{
	(void)state;
	test_memcached_remove(&server);
	test_memcached_remove(&six);
	test_memcached_remove(&four);
	return 0;
}

static void use(const char *servers)
{
	cache_free(cache);
	options = (struct cache_options){ servers, PATIENCE_MS, RETRY_MS, NULL, test_key };
	cache = cache_new(&options);
}

/* The same, with the time-out that is tested. */
static void use_impatiently(const char *servers)
{
	cache_free(cache);
	options = (struct cache_options){ servers, TIMEOUT_MS, RETRY_MS, NULL, test_key };
	cache = cache_new(&options);
}

static void go_on(pid_t pid)
{
	if (pid != 0)
		kill(pid, SIGCONT);
}

static int set_up(void **state)
{
	(void)state;
	arena = arena_new(4096, 64 << 20);
	cache = NULL;
	use(local_list);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	/* A test that failed while a server was stopped leaves it to the next one as it found it. */
	go_on(server.pid);
	go_on(four.pid);
	cache_free(cache);
	arena_free(arena);
	return 0;
}

static void store(const char *key, const char *text)
{
	assert_int_equal(cache_set(cache, key, text, strlen(text), 60), CACHE_HIT);
}

static enum cache_status get(const char *key)
{
	return cache_get(cache, key, arena, &value);
}

static void holds(const char *key, const char *text)
{
	assert_int_equal(get(key), CACHE_HIT);
	assert_int_equal(value.len, strlen(text));
	assert_memory_equal(value.bytes, text, value.len);
}

static void what_is_stored_is_found_until_it_is_deleted(void **state)
{
	const char *const lists[] = { local_list, six_list, four_list };

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		use(lists[i]);
		assert_int_equal(get("here"), CACHE_MISS);
		assert_null(value.bytes);
		store("here", "a value");
		holds("here", "a value");
		assert_int_equal(cache_delete(cache, "here"), CACHE_HIT);
		assert_int_equal(cache_delete(cache, "here"), CACHE_MISS);
		assert_int_equal(get("here"), CACHE_MISS);
	}
}

static void many_keys_are_answered_each_in_its_place(void **state)
{
	const char *keys[] = { "b", "nowhere", "a", "bad key", "b", "empty" };
	struct cache_value values[6];

	(void)state;
	store("a", "1");
	store("b", "two");
	store("empty", "");
	assert_int_equal(cache_get_many(cache, keys, 6, arena, values), CACHE_HIT);
	assert_memory_equal(values[0].bytes, "two", 3);
	assert_null(values[1].bytes);
	assert_memory_equal(values[2].bytes, "1", 1);
	assert_null(values[3].bytes);
	assert_int_equal(values[4].len, 3);
	assert_non_null(values[5].bytes);
	assert_int_equal(values[5].len, 0);
	assert_int_equal(cache_get_many(cache, keys + 1, 1, arena, values), CACHE_MISS);
	assert_int_equal(cache_get_many(cache, keys, 0, arena, values), CACHE_MISS);
}

static void any_bytes_up_to_the_servers_limit_come_back_and_more_is_too_large(void **state)
{
	char *big = malloc(MIB + 1);

	(void)state;
	for (size_t i = 0; i <= MIB; i++)
		big[i] = (char)(i * 7);
	assert_int_equal(cache_set(cache, "big", big, MIB - 1024, 60), CACHE_HIT);
	assert_int_equal(get("big"), CACHE_HIT);
	assert_int_equal(value.len, MIB - 1024);
	assert_memory_equal(value.bytes, big, value.len);
	/* The server's own item header counts, so it refuses the full MiB itself. */
	assert_int_equal(cache_set(cache, "big", big, MIB, 60), CACHE_TOO_LARGE);
	assert_int_equal(cache_set(cache, "big", big, MIB + 1, 60), CACHE_TOO_LARGE);
	store("after", "works");
	holds("after", "works");
	free(big);
}

static void keys_that_the_protocol_cannot_carry_are_never_sent(void **state)
{
	char longest[CACHE_KEY_MAX + 2];
	const char *const bad[] = { "", "a b", "a\r\nflush_all", "tab\t", "\x7f", longest };

	(void)state;
	memset(longest, 'k', sizeof(longest) - 1);
	longest[CACHE_KEY_MAX + 1] = '\0';
	store("witness", "still here");
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(cache_set(cache, bad[i], "x", 1, 60), CACHE_TOO_LARGE);
		assert_int_equal(get(bad[i]), CACHE_MISS);
		assert_int_equal(cache_delete(cache, bad[i]), CACHE_MISS);
	}
	holds("witness", "still here");
	longest[CACHE_KEY_MAX] = '\0';
	store(longest, "fits");
	holds(longest, "fits");
}

static void a_value_is_gone_after_its_time_and_a_long_time_is_no_date(void **state)
{
	(void)state;
	assert_int_equal(cache_set(cache, "short", "x", 1, 1), CACHE_HIT);
	assert_int_equal(cache_set(cache, "long", "x", 1, 3600 * 24 * 365), CACHE_HIT);
	assert_int_equal(get("long"), CACHE_HIT);
	usleep(2100000);
	assert_int_equal(get("short"), CACHE_MISS);
}

static void without_servers_the_cache_is_away(void **state)
{
	(void)state;
	use("");
	assert_int_equal(get("a"), CACHE_AWAY);
	assert_int_equal(cache_set(cache, "a", "x", 1, 1), CACHE_AWAY);
	assert_int_equal(cache_delete(cache, "a"), CACHE_AWAY);
	assert_int_equal(cache_server_count(cache), 0);
	assert_int_equal(cache_check(cache), 0);
}

static void a_check_tells_the_version(void **state)
{
	char version[32] = "";
	unsigned major, minor, micro;

	(void)state;
	assert_int_equal(cache_check_server(cache, 0, version), CACHE_HIT);
	assert_int_equal(sscanf(version, "%u.%u.%u", &major, &minor, &micro), 3);
	assert_true(major >= 1);
	assert_int_equal(cache_check(cache), 1);
	assert_string_equal(cache_server_name(cache, 0), local_list);
}

/* Nobody is asked, so nobody is waited for. */
static void calls_cost_nothing(void)
{
	const uint64_t waited_us = cache_waited_us(cache);

	for (int i = 0; i < 10; i++)
		assert_int_equal(get("a"), CACHE_AWAY);
	assert_int_equal(cache_waited_us(cache), waited_us);
}

/* What a server that went on says, once it is asked again. */
static void holds_in_the_end(const char *key, const char *text)
{
	enum cache_status status;

	for (int64_t until = now_us() + PATIENCE_MS * 1000;
		(status = get(key)) == CACHE_AWAY && now_us() < until; usleep(10000))
		;
	assert_int_equal(status, CACHE_HIT);
	assert_int_equal(value.len, strlen(text));
	assert_memory_equal(value.bytes, text, value.len);
}

/*
 * Stops all threads of a server. Linux does not always report the stop of a process that is just
 * making a thread: such a process is stopped once more.
 */
static void stop(pid_t pid)
{
	int64_t again = 0;

	for (int64_t until = now_us() + PATIENCE_MS * 1000; now_us() < until; usleep(1000)) {
		if (now_us() >= again) {
			kill(pid, SIGCONT);
			kill(pid, SIGSTOP);
			again = now_us() + 1000 * 1000;
		}
		if (waitpid(pid, NULL, WUNTRACED | WNOHANG) == pid)
			return;
	}
	fail_msg("process %d does not stop", (int)pid);
}

static void a_dead_server_is_left_alone_and_found_again_by_itself(void **state)
{
	(void)state;
	store("a", "before");
	test_memcached_stop(&server);
	assert_int_equal(get("a"), CACHE_AWAY);
	calls_cost_nothing();
	assert_int_equal(cache_check(cache), 0);

	test_memcached_restart(&server, NULL);
	usleep((RETRY_MS + 50) * 1000);
	assert_int_equal(get("a"), CACHE_MISS);
	store("a", "after");
	holds("a", "after");
}

static enum cache_status set_one_of_many(const char *key, const char *text)
{
	const struct cache_item item = { key, text, strlen(text) };
	bool known;

	return cache_set_many(cache, &item, 1, 60, arena, &known);
}

static void a_restarted_server_is_away_for_one_call_and_a_pause_at_most(void **state)
{
	(void)state;
	store("a", "before");
	assert_int_equal(set_one_of_many("b", "before"), CACHE_HIT);
	test_memcached_stop(&server);
	test_memcached_restart(&server, NULL);
	if (cache_set(cache, "a", "x", 1, 60) != CACHE_HIT) {
		usleep((RETRY_MS + 50) * 1000);
		store("a", "x");
	}
	holds("a", "x");
	assert_int_equal(set_one_of_many("b", "x"), CACHE_HIT);
}

/* Over one server and over two, to which the keys are spread. */
static void several_values_are_stored_in_one_call_or_known_not_to_be(void **state)
{
	char both[300], keys[40][16], values[40][16];
	struct cache_item items[40];
	bool known[40];
	const char *const lists[] = { local_list, four_list, both };

	(void)state;
	snprintf(both, sizeof(both), "%s, %s", six_list, four_list);
	for (size_t list = 0; list < 3; list++) {
		use(lists[list]);
		for (size_t i = 0; i < 40; i++) {
			snprintf(keys[i], sizeof(keys[i]), "many:%zu", i);
			snprintf(values[i], sizeof(values[i]), "%zu of %zu", i, list);
			items[i] = (struct cache_item){ keys[i], values[i], strlen(values[i]) };
		}
		assert_int_equal(cache_set_many(cache, items, 40, 60, arena, known), CACHE_HIT);
		for (size_t i = 0; i < 40; i++) {
			assert_true(known[i]);
			holds(keys[i], values[i]);
		}
	}
	/* Of two values for one key the first may have been there, or not. */
	items[7].key = items[8].key;
	assert_int_equal(cache_set_many(cache, items, 40, 60, arena, known), CACHE_MISS);
	for (size_t i = 0; i < 40; i++)
		assert_int_equal(known[i], i != 7);
	use_impatiently(both);
	stop(four.pid);
	assert_int_not_equal(cache_set_many(cache, items, 40, 60, arena, known), CACHE_HIT);
	kill(four.pid, SIGCONT);
	use("");
	assert_int_equal(cache_set_many(cache, items, 1, 60, arena, known), CACHE_AWAY);
}

static void what_is_posted_is_there_for_the_next_question(void **state)
{
	char *large = arena_alloc(arena, 2 * MIB);

	(void)state;
	assert_true(cache_post(cache, "posted", "one", 3, 60));
	holds("posted", "one");
	assert_true(cache_post_new(cache, "posted", "two", 3, 60));
	holds("posted", "one");
	assert_true(cache_post(cache, "posted", "three", 5, 60));
	holds("posted", "three");
	memset(large, 'x', 2 * MIB);
	assert_true(cache_post(cache, "large", large, 1000000, 60));
	assert_int_equal(get("large"), CACHE_HIT);
	assert_int_equal(value.len, 1000000);
	assert_false(cache_post(cache, "large", large, MIB, 60));
	/* No reply to what was posted is taken for that to something else. */
	for (int i = 0; i < 1000; i++)
		assert_true(cache_post(cache, i % 2 == 0 ? "posted" : "other", "x", 1, 60));
	holds("posted", "x");
	assert_int_equal(get("not there"), CACHE_MISS);
}

/* ---- Somebody else who reaches memcached ---- */

/* Sends a command to a server as anybody can; what it says goes to `reply`. */
static void say(const char *command, size_t len, char *reply, size_t room)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	size_t got = 0;
	ssize_t more;

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", server.socket);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(write(fd, command, len), (ssize_t)len);
	assert_int_equal(write(fd, "quit\r\n", 6), 6);
	while ((more = read(fd, reply + got, room - 1 - got)) > 0)
		got += (size_t)more;
	reply[got] = '\0';
	close(fd);
}

static void write_there(const char *key, const char *bytes, size_t len)
{
	char command[1024], reply[64];
	const int head = snprintf(command, sizeof(command), "set %s 0 60 %zu\r\n", key, len);

	memcpy(command + head, bytes, len);
	memcpy(command + head + len, "\r\n", 2);
	say(command, (size_t)head + len + 2, reply, sizeof(reply));
	assert_string_equal(reply, "STORED\r\n");
}

/* Returns how many bytes lie under a key, after copying them. */
static size_t read_there(const char *key, char bytes[256])
{
	char command[64], reply[512];
	const int len = snprintf(command, sizeof(command), "get %s\r\n", key);
	const char *end;
	size_t size = 0;

	say(command, (size_t)len, reply, sizeof(reply));
	if (sscanf(reply, "VALUE %*s %*d %zu", &size) != 1)
		return 0;
	end = strchr(reply, '\n') + 1;
	memcpy(bytes, end, size);
	return size;
}

static void is_refused(const char *key)
{
	const uint64_t before = cache_refused(options.view);

	assert_int_equal(get(key), CACHE_MISS);
	assert_null(value.bytes);
	assert_int_equal(cache_refused(options.view), before + 1);
	/* It is gone, so that a right one finds room. */
	assert_int_equal(get(key), CACHE_MISS);
	assert_int_equal(cache_refused(options.view), before + 1);
	assert_int_equal(cache_add(cache, key, "right", 5, 60), CACHE_HIT);
	holds(key, "right");
}

static void what_others_wrote_there_is_not_believed(void **state)
{
	static const uint8_t another_key[SEAL_KEY_BYTES] = "another key";
	struct cache_view own = { 0 };
	const char *keys[] = { "moved", "here", "forged" };
	struct cache_value values[3];
	struct cache_options theirs;
	struct cache *other_host;
	char bytes[256];
	size_t len;

	(void)state;
	options.view = &own;
	cache_free(cache);
	cache = cache_new(&options);
	write_there("forged", "an answer", 9);
	is_refused("forged");
	write_there("short", "", 0);
	is_refused("short");

	/* A right value, under another key, and with a byte changed. */
	store("here", "a value");
	len = read_there("here", bytes);
	assert_int_equal(len, 7 + SEAL_BYTES);
	write_there("moved", bytes, len);
	is_refused("moved");
	bytes[0] = 'b';
	write_there("here", bytes, len);
	is_refused("here");
	bytes[0] = 'a';
	write_there("here", bytes, len); /* one of before, back again: nobody can tell */
	holds("here", "a value");

	theirs = options;
	theirs.key = another_key;
	other_host = cache_new(&theirs);
	assert_string_not_equal(cache_key_id(cache), cache_key_id(other_host));
	assert_int_equal(cache_set(other_host, "a key with blanks", "x", 1, 60), CACHE_TOO_LARGE);
	assert_int_equal(cache_set(other_host, "theirs", "x", 1, 60), CACHE_HIT);
	is_refused("theirs");
	cache_free(other_host);

	/* Beside right values a wrong one is merely not there. */
	write_there("forged", "an answer", 9);
	assert_int_equal(cache_get_many(cache, keys, 3, arena, values), CACHE_HIT);
	assert_non_null(values[0].bytes);
	assert_non_null(values[1].bytes);
	assert_null(values[2].bytes);
}

static void a_number_that_is_none_is_not_there(void **state)
{
	static const char *const none[] = { "", "x", "-1", " 1", "1x", "1 1", "0x10",
		"18446744073709551616", "99999999999999999999", "000000000000000000001" };
	const char *const keys[] = { "number", "nowhere" };
	struct cache_count counts[2];
	uint64_t total;

	(void)state;
	for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
		write_there("number", none[i], strlen(none[i]));
		assert_int_equal(cache_get_counts(cache, keys, 2, arena, counts), CACHE_HIT);
		assert_false(counts[0].is_there);
		assert_false(counts[1].is_there);
	}
	/* And nothing is added to it; the server stays in. */
	write_there("number", "x", 1);
	assert_int_equal(cache_take_count(cache, "number", 1, &total), CACHE_MISS);
	assert_int_equal(cache_add_count(cache, "number", 1, 1, 60, &total), CACHE_AWAY);
	assert_int_equal(cache_check(cache), 1);
	write_there("number", "18446744073709551615", 20);
	assert_int_equal(cache_get_counts(cache, keys, 2, arena, counts), CACHE_HIT);
	assert_true(counts[0].is_there && counts[0].number == UINT64_MAX);
	write_there("number", "10", 2);
	assert_int_equal(cache_take_count(cache, "number", 3, &total), CACHE_HIT);
	assert_int_equal(cache_get_counts(cache, keys, 2, arena, counts), CACHE_HIT);
	assert_true(counts[0].is_there && counts[0].number == 7);
}

/* Asks a stopped server until it is given up. */
static void is_given_up_in_the_end(const char *key)
{
	for (int times = 0; times < CACHE_LATE_MOST; times++) {
		const uint64_t waited_us = cache_waited_us(cache);

		assert_int_equal(get(key), CACHE_AWAY);
		assert_true(cache_waited_us(cache) > waited_us);
	}
}

static void a_server_that_is_late_costs_only_who_asked(void **state)
{
	const char *const lists[] = { local_list, four_list };
	const pid_t pids[] = { server.pid, four.pid };
	uint64_t waited_us;

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		use(lists[i]);
		store("b", "value of b");
		use_impatiently(lists[i]);
		holds_in_the_end("b", "value of b"); /* so that it is connected */
		/* Not in a row: each time it answers in between. */
		for (int times = 0; times < CACHE_LATE_MOST + 1; times++) {
			stop(pids[i]);
			assert_int_equal(get("b"), CACHE_AWAY);
			kill(pids[i], SIGCONT);
			waited_us = cache_waited_us(cache);
			(void)!get("b");
			assert_true(cache_waited_us(cache) > waited_us); /* it was asked */
			holds_in_the_end("b", "value of b");
		}
		stop(pids[i]);
		is_given_up_in_the_end("b");
		calls_cost_nothing();
		kill(pids[i], SIGCONT);
	}
}

static void a_stopped_server_costs_no_more_than_the_timeout(void **state)
{
	const char *const lists[] = { local_list, four_list };
	const pid_t pids[] = { server.pid, four.pid };

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		use(lists[i]);
		store("a", "value of a");
		store("b", "value of b");
		use_impatiently(lists[i]);
		holds_in_the_end("a", "value of a"); /* so that it is connected */
		stop(pids[i]);
		is_given_up_in_the_end("a");
		for (int round = 0; round < 2; round++) {
			/* From then on, one time-out is enough each time. */
			calls_cost_nothing();
			usleep((RETRY_MS + 20) * 1000);
			assert_int_equal(cache_set(cache, "c", "x", 1, 60), CACHE_AWAY);
			calls_cost_nothing();
			usleep((RETRY_MS + 20) * 1000);
			assert_int_equal(cache_check(cache), 0);
		}
		kill(pids[i], SIGCONT);
		/* No late answer to an earlier question may be taken for the answer to this one. */
		holds_in_the_end("b", "value of b");
		holds_in_the_end("a", "value of a");
	}
}

enum { KEYS = 12000 };
static const char *const five[] = { "10.0.0.1:11211", "10.0.0.2:11211", "10.0.0.3:11211",
	"unix:/run/four", "[fd00::5]:11211" };

/* As a view has it in which those servers are out. */
static void count_keys(uint64_t out, size_t counts[5], uint8_t owners[KEYS])
{
	char key[32];

	memset(counts, 0, 5 * sizeof *counts);
	for (size_t i = 0; i < KEYS; i++) {
		snprintf(key, sizeof(key), "areg:%zu", i);
		owners[i] = (uint8_t)cache_server_of(cache, out, key);
		assert_in_range(owners[i], 0, 4);
		counts[owners[i]]++;
	}
}

static void keys_are_spread_evenly_and_only_those_of_a_lost_server_move(void **state)
{
	static uint8_t all[KEYS], left[KEYS];
	size_t counts[5];

	(void)state;
	use("10.0.0.1:11211, 10.0.0.2:11211, 10.0.0.3:11211, unix:/run/four, [fd00::5]:11211");
	count_keys(0, counts, all);
	for (size_t i = 0; i < 5; i++)
		assert_in_range(counts[i], KEYS / 5 * 9 / 10, KEYS / 5 * 11 / 10);
	for (size_t lost = 0; lost < 5; lost++) {
		count_keys(UINT64_C(1) << lost, counts, left);
		for (size_t i = 0; i < KEYS; i++)
			assert_true(all[i] == lost ? left[i] != lost : left[i] == all[i]);
		for (size_t i = 0; i < 5; i++)
			if (i != lost)
				assert_in_range(counts[i], KEYS / 4 * 9 / 10, KEYS / 4 * 11 / 10);
	}
	assert_int_equal(cache_server_of(cache, 0x1f, "a"), 5);
}

static void a_key_lies_on_the_same_server_however_the_list_is_ordered(void **state)
{
	static uint8_t owners[KEYS];
	size_t counts[5];
	char key[32];

	(void)state;
	use("[fd00::5]:11211,unix:/run/four,10.0.0.3:11211,10.0.0.1:11211,10.0.0.2:11211");
	count_keys(0, counts, owners);
	const uint64_t members = cache_members(cache, 0), fewer = cache_members(cache, 0x2);

	use("10.0.0.1:11211, 10.0.0.2:11211, 10.0.0.3:11211, unix:/run/four, [fd00::5]:11211");
	for (size_t i = 0; i < KEYS; i++) {
		static const uint8_t places[] = { 4, 3, 2, 0, 1 };

		snprintf(key, sizeof(key), "areg:%zu", i);
		assert_string_equal(five[places[owners[i]]], five[cache_server_of(cache, 0, key)]);
	}
	assert_int_equal(cache_members(cache, 0), members);
	assert_int_equal(cache_members(cache, 0x8), fewer);
	assert_int_not_equal(fewer, members);
}

static void keys_of_one_place_lie_on_one_server_under_their_own_names(void **state)
{
	char both[300], key[64];

	(void)state;
	use("a:1, b:2, c:3");
	for (int i = 0; i < 100; i++) {
		size_t together;

		snprintf(key, sizeof(key), "{%d}one", i);
		together = cache_server_of(cache, 0, key);
		snprintf(key, sizeof(key), "{%d}another:%d", i, 7 * i);
		assert_int_equal(cache_server_of(cache, 0, key), together);
	}
	snprintf(both, sizeof(both), "%s, %s", six_list, four_list);
	use(both);
	store("{here}name", "a value");
	holds("{here}name", "a value");
	use(cache_server_of(cache, 0, "{here}name") == 0 ? six_list : four_list);
	holds("name", "a value");
}

/* Two processes of a host: `cache` and the other have its view in common. */
static struct cache_view view;
static char three_list[400];
static struct cache *other;

static void use_three(int timeout_ms)
{
	view = (struct cache_view){ 0 };
	snprintf(three_list, sizeof(three_list), "%s, %s, %s", local_list, six_list, four_list);
	cache_free(cache);
	options = (struct cache_options){ three_list, timeout_ms, RETRY_MS, &view, test_key };
	cache = cache_new(&options);
	other = cache_new(&options);
	cache_claim(cache);
}

/* A key of the first server, as long as that is in. */
static const char *key_of_first(void)
{
	static char key[32];
	int number = 0;

	do
		snprintf(key, sizeof(key), "first:%d", number++);
	while (cache_server_of(cache, 0, key) != 0);
	return key;
}

static bool is_back(void)
{
	for (int i = 0; i < 500; i++) {
		cache_probe(cache);
		if (cache_check(other) == 7)
			return true;
		usleep(10000);
	}
	return false;
}

static void a_server_that_hangs_or_dies_is_taken_out_for_all_processes_and_put_in_again(
	void **state)
{
	const char *key;

	(void)state;
	use_three(LONG_TIMEOUT_MS);
	key = key_of_first();
	for (int dies = 0; dies < 2; dies++) {
		uint64_t seen;

		store(key, "old");
		assert_int_equal(cache_get(other, key, arena, &value), CACHE_HIT);
		cache_settle(cache, cache_view(cache));
		assert_true(cache_is_settled(other));
		seen = cache_view(other);
		if (dies) {
			test_memcached_stop(&server);
		} else {
			stop(server.pid);
			for (int late = 1; late < CACHE_LATE_MOST; late++) {
				assert_int_equal(
					cache_get(late % 2 ? cache : other, key, arena, &value),
					CACHE_AWAY);
				assert_true(cache_view(other) == seen);
			}
		}
		assert_int_equal(get(key), CACHE_AWAY);
		/* The key is another server's now, also to who never asked. */
		assert_int_not_equal(cache_view(other), seen);
		assert_false(cache_is_settled(other));
		assert_int_equal(cache_set(other, key, "new", 3, 60), CACHE_HIT);
		holds(key, "new");
		assert_int_equal(cache_check(cache), 6);
		cache_settle(cache, cache_view(cache));
		assert_true(cache_is_settled(other));

		if (dies)
			test_memcached_restart(&server, NULL);
		else
			kill(server.pid, SIGCONT);
		assert_true(is_back());
		assert_false(cache_is_settled(other));
		/* Nobody stumbles over a connection of before. */
		if (dies)
			assert_int_equal(cache_get(other, key, arena, &value), CACHE_MISS);
		else
			holds(key, "old");
	}
	cache_free(other);
}

static void a_server_that_was_restarted_unnoticed_stays_in(void **state)
{
	const char *key;
	uint64_t seen;

	(void)state;
	use_three(PATIENCE_MS);
	key = key_of_first();
	seen = cache_view(cache);
	for (int many = 0; many < 2; many++) {
		store(key, "old");
		assert_int_equal(set_one_of_many(key, "old"), CACHE_HIT);
		test_memcached_stop(&server);
		test_memcached_restart(&server, NULL);
		if (many && set_one_of_many(key, "new") == CACHE_AWAY)
			assert_int_equal(set_one_of_many(key, "new"), CACHE_HIT);
		if (!many && get(key) == CACHE_AWAY)
			assert_int_equal(get(key), CACHE_MISS);
		assert_int_equal(cache_view(cache), seen);
	}
	cache_free(other);
}

static void what_fails_again_and_again_is_left_alone_for_longer(void **state)
{
	int64_t pauses[3];

	(void)state;
	use_three(TIMEOUT_MS);
	stop(server.pid);
	for (int i = 0; i < 3; i++) {
		int64_t start = now_us();

		for (int late = 0; late < CACHE_LATE_MOST; late++)
			assert_int_equal(get(key_of_first()), CACHE_AWAY);
		kill(server.pid, SIGCONT);
		assert_true(is_back());
		pauses[i] = now_us() - start;
		stop(server.pid);
	}
	kill(server.pid, SIGCONT);
	assert_true(pauses[0] >= RETRY_MS * 1000);
	assert_true(pauses[1] >= 2 * RETRY_MS * 1000);
	assert_true(pauses[2] >= 4 * RETRY_MS * 1000);
	cache_free(other);
}

static bool draw_next(const void *arg, char *bytes, size_t len)
{
	static char next = 'a';

	(void)arg;
	memset(bytes, next++, len);
	return true;
}

static void each_server_gets_a_value_of_its_own_in_the_view_that_is_told(void **state)
{
	char values[3];
	uint64_t told;

	(void)state;
	use_three(PATIENCE_MS);
	assert_int_equal(
		cache_set_everywhere(cache, "all", draw_next, NULL, 5, 60, &told), CACHE_HIT);
	assert_int_equal(told, cache_view(cache));
	for (size_t i = 0; i < 3; i++) {
		char key[32];
		int number = 0;

		do
			snprintf(key, sizeof(key), "{%d}all", number++);
		while (cache_server_of(cache, 0, key) != i);
		assert_int_equal(get(key), CACHE_HIT);
		assert_int_equal(value.len, 5);
		values[i] = value.bytes[0];
	}
	assert_true(values[0] != values[1] && values[1] != values[2] && values[0] != values[2]);

	test_memcached_stop(&server);
	assert_int_equal(
		cache_set_everywhere(cache, "all", draw_next, NULL, 5, 60, &told), CACHE_HIT);
	assert_int_equal(told, cache_view(cache));
	assert_int_equal(cache_check(cache), 6);
	test_memcached_restart(&server, NULL);
	cache_free(other);
}

static void a_reload_to_other_servers_ends_the_view_of_the_ones_before(void **state)
{
	struct cache_options after = { four_list, PATIENCE_MS, RETRY_MS, &view, test_key };

	(void)state;
	use_three(PATIENCE_MS);
	cache_free(other);
	store("a", "x");
	other = cache_new(&after);
	assert_int_equal(cache_set(other, "a", "y", 1, 60), CACHE_AWAY);
	assert_true(cache_is_settled(cache));
	assert_false(cache_is_settled(other));
	cache_claim(other);
	assert_int_equal(cache_set(cache, "a", "x", 1, 60), CACHE_AWAY);
	assert_int_equal(get("a"), CACHE_AWAY);
	assert_int_equal(cache_set(other, "a", "y", 1, 60), CACHE_HIT);
	assert_false(cache_is_settled(other));
	cache_settle(other, cache_view(other));
	assert_true(cache_is_settled(other));
	assert_false(cache_is_settled(cache));
	cache_free(other);
}

static void one_of_two_servers_down_costs_only_its_own_keys(void **state)
{
	char both[300], keys[40][16];
	const char *list[40];
	struct cache_value values[40];
	size_t found = 0;

	(void)state;
	snprintf(both, sizeof(both), "%s, %s", six_list, local_list);
	use(both);
	for (size_t i = 0; i < 40; i++) {
		snprintf(keys[i], sizeof(keys[i]), "key-%zu", i);
		list[i] = keys[i];
		store(keys[i], keys[i]);
	}
	test_memcached_stop(&server);
	for (int round = 0; round < 2; round++) {
		assert_int_equal(cache_get_many(cache, list, 40, arena, values), CACHE_HIT);
		found = 0;
		for (size_t i = 0; i < 40; i++)
			found += values[i].bytes &&
				 memcmp(values[i].bytes, keys[i], values[i].len) == 0;
		/* In the second round, its keys are the other server's, which has not got them. */
		assert_in_range(found, 5, 35);
	}
	test_memcached_restart(&server, NULL);
	usleep((RETRY_MS + 50) * 1000);
	for (size_t i = 0; i < 40; i++)
		store(keys[i], keys[i]);
	assert_int_equal(cache_get_many(cache, list, 40, arena, values), CACHE_HIT);
	for (size_t i = 0; i < 40; i++)
		assert_non_null(values[i].bytes);
}

static void server_lists_are_checked(void **state)
{
	static const char *const good[] = { "", "  ", "localhost:11211", "127.0.0.1:1, [::1]:65535",
		"unix:/run/memcached.sock", "a:1,b:2 , unix:/x" };
	static const char *const bad[] = { "localhost", "localhost:", ":11211", "localhost:0",
		"localhost:65536", "localhost:1x", "::1:11211", "[::1]", "[]:1",
		"unix:", "unix:relative", "a:1,,b:2", "a b:1", "a:1 b:2", "[::1:1", "a:123456" };
	char path[160] = "unix:/";
	const char *why = NULL;

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		assert_true(cache_servers_check(arena, good[i], &why));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		why = NULL;
		if (cache_servers_check(arena, bad[i], &why))
			fail_msg("\"%s\" was taken", bad[i]);
		assert_non_null(why);
	}
	memset(path + 6, 'p', 150);
	assert_false(cache_servers_check(arena, path, &why));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(what_is_stored_is_found_until_it_is_deleted),
		TEST(many_keys_are_answered_each_in_its_place),
		TEST(any_bytes_up_to_the_servers_limit_come_back_and_more_is_too_large),
		TEST(keys_that_the_protocol_cannot_carry_are_never_sent),
		TEST(a_value_is_gone_after_its_time_and_a_long_time_is_no_date),
		TEST(without_servers_the_cache_is_away),
		TEST(a_check_tells_the_version),
		TEST(a_dead_server_is_left_alone_and_found_again_by_itself),
		TEST(a_restarted_server_is_away_for_one_call_and_a_pause_at_most),
		TEST(several_values_are_stored_in_one_call_or_known_not_to_be),
		TEST(what_is_posted_is_there_for_the_next_question),
		TEST(what_others_wrote_there_is_not_believed),
		TEST(a_number_that_is_none_is_not_there),
		TEST(a_server_that_is_late_costs_only_who_asked),
		TEST(a_stopped_server_costs_no_more_than_the_timeout),
		TEST(one_of_two_servers_down_costs_only_its_own_keys),
		TEST(keys_are_spread_evenly_and_only_those_of_a_lost_server_move),
		TEST(a_key_lies_on_the_same_server_however_the_list_is_ordered),
		TEST(keys_of_one_place_lie_on_one_server_under_their_own_names),
		TEST(a_server_that_hangs_or_dies_is_taken_out_for_all_processes_and_put_in_again),
		TEST(a_server_that_was_restarted_unnoticed_stays_in),
		TEST(what_fails_again_and_again_is_left_alone_for_longer),
		TEST(each_server_gets_a_value_of_its_own_in_the_view_that_is_told),
		TEST(a_reload_to_other_servers_ends_the_view_of_the_ones_before),
		TEST(server_lists_are_checked),
	};
	const char *why;

	if (!log_open("/dev/null", LOG_FORMAT_TEXT, LOG_LEVEL_ERROR, &why))
		return 1;
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, set_up_group, tear_down_group);
}
