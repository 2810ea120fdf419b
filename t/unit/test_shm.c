/* SPDX-License-Identifier: Apache-2.0 */
/* lib/shm: memory that outlives an exec, and mutexes whose holder is really killed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/clock.h"
#include "lib/shm.h"

struct shared {
	pthread_mutex_t mutex;
	int counter;
};

static struct shared *shared;
static int shared_fd;

static int set_up(void **state)
{
	(void)state;
	shared = shm_new("areg-test", sizeof *shared, &shared_fd);
	assert_non_null(shared);
	shm_mutex_init(&shared->mutex);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	shm_free(shared, sizeof *shared, shared_fd);
	return 0;
}

/* A child that takes the mutex, tells so, and waits to be killed. */
static pid_t start_holder(void)
{
	int ready[2];
	char byte;
	pid_t pid;

	assert_int_equal(pipe(ready), 0);
	pid = fork();
	if (pid == 0) {
		shm_mutex_lock(&shared->mutex);
		(void)!write(ready[1], "", 1);
		for (;;)
			pause();
	}
	assert_true(pid > 0);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	close(ready[1]);
	return pid;
}

static void kill_holder(pid_t pid)
{
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void new_memory_is_zeroed_and_does_not_pass_an_exec_by_itself(void **state)
{
	static const char zeroes[4096];
	int fd;
	char *memory = shm_new("areg-test", sizeof zeroes, &fd);

	(void)state;
	assert_non_null(memory);
	assert_memory_equal(memory, zeroes, sizeof zeroes);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	shm_free(memory, sizeof zeroes, fd);
	assert_int_equal(fcntl(fd, F_GETFD), -1);
}

static void adopted_memory_is_the_same_memory(void **state)
{
	const int handed = dup(shared_fd); /* as over an exec: without close-on-exec */
	struct shared *adopted = shm_adopt(handed, sizeof *adopted);

	(void)state;
	assert_non_null(adopted);
	assert_true(fcntl(handed, F_GETFD) & FD_CLOEXEC);
	adopted->counter = 7;
	assert_int_equal(shared->counter, 7);
	shm_free(adopted, sizeof *adopted, handed);
}

static void memory_that_is_too_small_is_not_adopted(void **state)
{
	(void)state;
	errno = 0;
	assert_null(shm_adopt(shared_fd, sizeof *shared + 1));
	assert_int_equal(errno, EINVAL);
	assert_null(shm_adopt(-1, 1));
}

static void memory_that_the_system_does_not_give_is_said(void **state)
{
	int fd = 0;

	(void)state;
	errno = 0;
	assert_null(shm_new("areg-test", SIZE_MAX / 4, &fd));
	assert_int_not_equal(errno, 0);
	assert_int_equal(fd, -1);
}

static void one_at_a_time_counts_right(void **state)
{
	enum { CHILDREN = 4, ROUNDS = 5000 };

	(void)state;
	for (int i = 0; i < CHILDREN; i++)
		if (fork() == 0) {
			for (int round = 0; round < ROUNDS; round++) {
				shm_mutex_lock(&shared->mutex);
				shared->counter++;
				shm_mutex_unlock(&shared->mutex);
			}
			_exit(0);
		}
	for (int i = 0; i < CHILDREN; i++)
		assert_true(wait(NULL) > 0);
	assert_int_equal(shared->counter, CHILDREN * ROUNDS);
}

static void a_held_mutex_is_not_had_by_others(void **state)
{
	const pid_t holder = start_holder();
	const uint64_t before_ms = clock_ms();

	(void)state;
	assert_false(shm_mutex_try(&shared->mutex));
	assert_false(shm_mutex_wait(&shared->mutex, 50));
	assert_true(clock_ms() - before_ms >= 49);
	kill_holder(holder);
}

static void the_mutex_of_a_killed_holder_is_had_each_way(void **state)
{
	(void)state;
	kill_holder(start_holder());
	assert_true(shm_mutex_try(&shared->mutex));
	shm_mutex_unlock(&shared->mutex);

	kill_holder(start_holder());
	assert_true(shm_mutex_wait(&shared->mutex, 10000));
	shm_mutex_unlock(&shared->mutex);

	kill_holder(start_holder());
	shm_mutex_lock(&shared->mutex);
	shm_mutex_unlock(&shared->mutex);
	assert_true(shm_mutex_try(&shared->mutex));
	shm_mutex_unlock(&shared->mutex);
}

static void who_waits_gets_it_when_the_holder_is_killed(void **state)
{
	const pid_t holder = start_holder();
	const pid_t waiting = fork();
	int status;

	(void)state;
	if (waiting == 0)
		_exit(shm_mutex_wait(&shared->mutex, 60000) ? 0 : 1);
	kill_holder(holder);
	assert_int_equal(waitpid(waiting, &status, 0), waiting);
	assert_int_equal(status, 0);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		CASE(new_memory_is_zeroed_and_does_not_pass_an_exec_by_itself),
		CASE(adopted_memory_is_the_same_memory),
		CASE(memory_that_is_too_small_is_not_adopted),
		CASE(memory_that_the_system_does_not_give_is_said),
		CASE(one_at_a_time_counts_right),
		CASE(a_held_mutex_is_not_had_by_others),
		CASE(the_mutex_of_a_killed_holder_is_had_each_way),
		CASE(who_waits_gets_it_when_the_holder_is_killed),
	};

	return cmocka_run_group_tests_name("shm", tests, NULL, NULL);
}
