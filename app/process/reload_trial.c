/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The child says "segment LAYOUT EDITION BYTES" as its last line when all is well; whatever else it says is
 * a reason. Read beside this: execve(2), unix(7) on autobind.
 */
#include "app/process/reload_trial.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "app/cache/host_memory.h"
#include "app/http/metering.h"
#include "app/http/scoreboard.h"
#include "app/layouts.h"
#include "app/process/backend_checks.h"
#include "app/process/handover.h"
#include "app/process/worker.h"
#include "lib/clock.h"
#include "lib/log.h"

enum {
	RELOAD_TRIAL_MS = 20000, /* backends may take their time-outs to answer */
	WORKER_READY_MS = 10000,
	LOOK_MS = 10,
};

static const char variable[] = "AREGD_RELOAD_TRIAL"; /* the layout of the handover to come */

/* ---- In the master ---- */

static _Noreturn void trial_become(const char *path, char *const *argv, int fd, pid_t parent)
{
	char layout[32];
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	sigset_t none;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	snprintf(layout, sizeof layout, "%" PRIx64, HANDOVER_LAYOUT);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(fd, STDOUT_FILENO) < 0 ||
		dup2(fd, STDERR_FILENO) < 0 || setenv(variable, layout, 1) != 0)
		_exit(1);
	execv(path, argv);
	dprintf(STDERR_FILENO, "%s: %s\n", path, strerror(errno));
	_exit(1);
}

bool reload_trial_start(struct reload_trial *trial, const char *path, char *const *argv,
	void (*in_child)(void *arg), void *arg)
{
	pid_t parent = getpid(), pid;
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) != 0)
		return false;
	pid = fork();
	if (pid == 0) {
		in_child(arg);
		trial_become(path, argv, ends[1], parent);
	}
	close(ends[1]);
	if (pid < 0 || fcntl(ends[0], F_SETFL, O_NONBLOCK) != 0) {
		close(ends[0]);
		return false;
	}
	*trial = (struct reload_trial){
		.pid = pid, .fd = ends[0], .until_ms = clock_ms() + RELOAD_TRIAL_MS
	};
	return true;
}

static void reload_trial_read(struct reload_trial *trial)
{
	char text[256];
	ssize_t got;

	while ((got = read(trial->fd, text, sizeof text)) > 0) {
		size_t room = sizeof trial->said - 1 - trial->len;
		size_t more = (size_t)got < room ? (size_t)got : room;

		memcpy(trial->said + trial->len, text, more);
		trial->len += more;
	}
}

void reload_trial_look(struct reload_trial *trial)
{
	if (trial->pid == 0)
		return;
	reload_trial_read(trial);
	if (clock_ms() >= trial->until_ms)
		kill(trial->pid, SIGKILL);
}

void reload_trial_kill(struct reload_trial *trial)
{
	if (trial->pid == 0)
		return;
	kill(trial->pid, SIGKILL);
	close(trial->fd);
	trial->pid = 0;
}

/* What it said as one line. */
static void one_line(const char *said, char reason[RELOAD_TRIAL_REASON])
{
	size_t len = 0;

	for (; *said != '\0' && len + 3 < RELOAD_TRIAL_REASON; said++) {
		if (*said != '\n')
			reason[len++] = *said;
		else if (said[1] != '\0')
			len += (size_t)snprintf(reason + len, RELOAD_TRIAL_REASON - len, "; ");
	}
	reason[len] = '\0';
}

bool reload_trial_ended(struct reload_trial *trial, int status, bool *same_segment,
	const struct host_memory_identity *ours, char reason[RELOAD_TRIAL_REASON])
{
	bool is_late = clock_ms() >= trial->until_ms;
	const char *report;
	struct host_memory_identity theirs;

	/* It has been collected, so its pid may be another process's by now: nothing is sent to it. */
	reload_trial_read(trial);
	close(trial->fd);
	trial->pid = 0;
	trial->said[trial->len] = '\0';
	one_line(trial->said, reason);
	report = strstr(trial->said, "segment ");
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0 && report != NULL &&
		sscanf(report, "segment %" SCNx64 " %" SCNx64 " %" SCNu64, &theirs.layout,
			&theirs.edition, &theirs.bytes) == 3) {
		*same_segment = host_memory_same(&theirs, ours);
		return true;
	}
	if (WIFSIGNALED(status) && is_late)
		snprintf(reason, RELOAD_TRIAL_REASON, "it was not ready within %d s",
			RELOAD_TRIAL_MS / 1000);
	else if (WIFSIGNALED(status))
		snprintf(reason, RELOAD_TRIAL_REASON, "it was killed by signal %d (%s)",
			WTERMSIG(status), strsignal(WTERMSIG(status)));
	else if (reason[0] == '\0' || WEXITSTATUS(status) == 0)
		snprintf(reason, RELOAD_TRIAL_REASON,
			"it ended with exit code %d and did not say that it could serve",
			WEXITSTATUS(status));
	return false;
}

/* ---- In the child ---- */

bool reload_trial_is_on(void)
{
	return getenv(variable) != NULL;
}

/* A socket that nobody knows, in the abstract name space. */
static int scratch_socket(void)
{
	struct sockaddr_un any = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd >= 0 && bind(fd, (struct sockaddr *)&any, sizeof any.sun_family) == 0 &&
		listen(fd, 1) == 0)
		return fd;
	if (fd >= 0)
		close(fd);
	return -1;
}

static _Noreturn void be_worker(struct context *context, int fd, pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	scoreboard_enter(context->scoreboard, 0, SCOREBOARD_STARTING);
	exit(worker_run(context, fd, (struct relay){ -1, -1 }, &(struct writer_doors){ 0 }));
}

/* Whether a worker comes up, and ends when it is told to. */
static bool try_worker(struct context *context)
{
	uint64_t until_ms = clock_ms() + WORKER_READY_MS;
	pid_t parent = getpid(), pid;
	int fd = scratch_socket(), status = 0;
	bool is_ready = false, is_gone = false;

	if (fd < 0 || (pid = fork()) < 0) {
		fprintf(stderr, "a worker cannot be started: %s\n", strerror(errno));
		if (fd >= 0)
			close(fd);
		return false;
	}
	if (pid == 0)
		be_worker(context, fd, parent);
	__atomic_store_n(&context->scoreboard->places[0].pid, pid, __ATOMIC_RELAXED);
	while (!is_ready && !is_gone && clock_ms() < until_ms) {
		nanosleep(&(struct timespec){ 0, LOOK_MS * 1000000 }, NULL);
		is_ready = scoreboard_is_ready(context->scoreboard, 0);
		is_gone = waitpid(pid, &status, WNOHANG) == pid;
	}
	if (!is_gone) {
		kill(pid, is_ready ? SIGTERM : SIGKILL);
		waitpid(pid, &status, 0);
	}
	close(fd);
	if (is_ready && WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return true;
	fprintf(stderr, "a worker did not come up: %s\n",
		!is_ready && !is_gone ? "it was not ready in time" : "it ended by itself");
	return false;
}

static bool try_memory_and_worker(
	struct arena *arena, const struct settings *settings, struct router *router)
{
	struct host_memory host = { .fd = -1 };
	struct scoreboard scoreboard = { .fd = -1 };
	struct context context = {
		.settings = settings, .scoreboard = &scoreboard, .host = &host, .router = router
	};
	bool is_right = false;

	context.metrics = metering_new(arena, settings, router, 1);
	if (context.metrics == NULL || host_memory_new(&host, settings->hot_cache_bytes) != 0 ||
		scoreboard_new(&scoreboard, 1) != 0) {
		fprintf(stderr, "shared memory: %s\n", strerror(errno));
	} else {
		is_right = try_worker(&context);
	}
	scoreboard_free(&scoreboard);
	host_memory_free(&host);
	metrics_free(context.metrics);
	return is_right;
}

int reload_trial_perform(
	struct arena *arena, const struct settings *settings, struct router *router)
{
	struct backend_report reports[BACKENDS_MAX];
	struct host_memory_identity ours;
	size_t count;
	const char *why;

	if (strtoull(getenv(variable), NULL, 16) != HANDOVER_LAYOUT) {
		fprintf(stderr, "areg %s cannot take over from the program that runs: restart it\n",
			PACKAGE_VERSION);
		return 1;
	}
	if (!log_open(settings->log_file, settings->log_format, settings->log_level, &why) ||
		!log_open("stderr", LOG_FORMAT_TEXT, LOG_LEVEL_ERROR, &why)) {
		fprintf(stderr, "log_file %s: %s\n", settings->log_file, why);
		return 1;
	}
	count = backends_check(arena, settings, reports);
	for (size_t i = 0; i < count; i++) {
		if (reports[i].state == BACKEND_OK || reports[i].state == BACKEND_USABLE)
			continue;
		fprintf(stderr, "%s: %s\n", reports[i].name, reports[i].detail);
		return 1;
	}
	if (!try_memory_and_worker(arena, settings, router))
		return 1;
	ours = host_memory_identity(arena, settings);
	printf("segment %" PRIx64 " %" PRIx64 " %" PRIu64 "\n", ours.layout, ours.edition,
		ours.bytes);
	return fflush(stdout) == 0 ? 0 : 1;
}
