/* SPDX-License-Identifier: Apache-2.0 */
/* The trial before a reload: one that takes too long is killed, and one that has ended is left alone. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "app/process/reload_trial.h"

/* What kill() was asked for; nothing is killed. */
static struct {
	int calls;
	pid_t pid;
	int signal;
} killed;

int __wrap_kill(pid_t pid, int signal);
int __wrap_kill(pid_t pid, int signal)
{
	killed.calls++;
	killed.pid = pid;
	killed.signal = signal;
	return 0;
}

/* A trial whose time is over, by a process that has said `said` and ended. Its status is in *status. */
static struct reload_trial ended_trial(const char *said, int exit_code, int *status)
{
	int ends[2];
	pid_t pid;

	memset(&killed, 0, sizeof killed);
	assert_int_equal(pipe(ends), 0);
	pid = fork();
	if (pid == 0)
		_exit(write(ends[1], said, strlen(said)) == (ssize_t)strlen(said) ? exit_code : 99);
	assert_true(pid > 0);
	close(ends[1]);
	assert_int_equal(waitpid(pid, status, 0), pid);
	return (struct reload_trial){ .pid = pid, .fd = ends[0], .until_ms = 1 };
}

static void one_whose_time_is_over_is_killed(void **state)
{
	int status;
	struct reload_trial trial = ended_trial("", 0, &status);
	const pid_t pid = trial.pid;

	(void)state;
	reload_trial_look(&trial);
	assert_int_equal(killed.calls, 1);
	assert_int_equal(killed.pid, pid);
	assert_int_equal(killed.signal, SIGKILL);
	reload_trial_kill(&trial);
	assert_int_equal(killed.calls, 2);
	assert_int_equal(killed.pid, pid);
}

/* Its pid may be another process's by then. */
static void one_that_was_collected_is_sent_no_signal(void **state)
{
	static const struct host_memory_identity ours;
	char reason[RELOAD_TRIAL_REASON];
	bool same_segment;
	int status;
	struct reload_trial trial = ended_trial("no database\n", 3, &status);

	(void)state;
	assert_false(reload_trial_ended(&trial, status, &same_segment, &ours, reason));
	assert_string_equal(reason, "no database");
	reload_trial_look(&trial);
	reload_trial_kill(&trial);
	assert_int_equal(killed.calls, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_whose_time_is_over_is_killed),
		cmocka_unit_test(one_that_was_collected_is_sent_no_signal),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
