/*
 * All signals are blocked and taken by sigtimedwait(), one at a time: nothing here runs inside a
 * handler. A worker that ends as planned is replaced at once; one that crashes soon after its
 * start is replaced with growing delay, each place on the board by itself. Read beside this:
 * fork(2), sigtimedwait(2), waitpid(2), prctl(2).
 */
#include "app/master.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "app/backends.h"
#include "app/board.h"
#include "app/metering.h"
#include "app/routes.h"
#include "app/worker.h"
#include "lib/clock.h"
#include "lib/log.h"

enum {
	DELAY_FIRST_MS = 100,
	DELAY_MOST_MS = 5000,
	SETTLED_MS = 5000, /* a worker that lived this long did not crash at its start */
	LOOK_MS = 250, /* how often it looks for workers that are stuck */
};

/* What the master knows of each place, beside what stands on the board. */
struct place {
	pid_t pid;
	uint64_t started_ms;
	uint64_t start_at_ms; /* when `pid` is 0: not before */
	int delay_ms; /* for the next crash */
};

struct master {
	const struct settings *settings;
	int listen_fd;
	struct board board;
	struct metrics *metrics;
	struct router *router;
	struct place *places;
	size_t count;
	bool is_draining;
};

static _Noreturn void become_worker(struct master *master, size_t at, pid_t parent)
{
	struct worker worker = { .settings = master->settings,
		.board = &master->board,
		.metrics = master->metrics,
		.router = master->router,
		.place = at };
	char name[32];

	/* A master that was killed leaves nobody behind on its socket. */
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(0);
	snprintf(name, sizeof name, "worker %zu", at + 1);
	log_process(name);
	board_enter(&master->board, at, BOARD_STARTING);
	free(master->places);
	exit(worker_run(&worker, master->listen_fd));
}

static void start_worker(struct master *master, size_t at)
{
	struct place *place = &master->places[at];
	pid_t parent = getpid(), pid = fork();

	if (pid == 0)
		become_worker(master, at, parent);
	if (pid < 0) {
		log_error("fork: %s; trying again in %d ms", strerror(errno), DELAY_MOST_MS);
		place->start_at_ms = clock_ms() + DELAY_MOST_MS;
		return;
	}
	place->pid = pid;
	place->started_ms = clock_ms();
	__atomic_store_n(&master->board.places[at].pid, pid, __ATOMIC_RELAXED);
	metrics_add(master->metrics, METER_WORKER_STARTS, 0, 0, 1);
}

/* Starts every worker that is due. Returns how long until the next is, in ms; -1 when none is. */
static int64_t start_workers(struct master *master)
{
	uint64_t now = clock_ms();
	int64_t next = -1;

	for (size_t at = 0; at < master->count; at++) {
		struct place *place = &master->places[at];
		int64_t wait;

		if (place->pid == 0 && place->start_at_ms <= now)
			start_worker(master, at);
		if (place->pid != 0)
			continue;
		wait = (int64_t)(place->start_at_ms - now);
		if (next < 0 || wait < next)
			next = wait;
	}
	return next;
}

static void worker_ended(struct master *master, size_t at, int status)
{
	struct place *place = &master->places[at];
	bool is_planned = WIFEXITED(status) && WEXITSTATUS(status) == 0;
	uint64_t now = clock_ms();

	__atomic_store_n(&master->board.places[at].pid, 0, __ATOMIC_RELAXED);
	board_enter(&master->board, at, BOARD_VACANT);
	place->start_at_ms = now;
	if (is_planned || now - place->started_ms >= SETTLED_MS) {
		place->delay_ms = 0;
	} else {
		/* The first crash is replaced at once: most are single. */
		place->start_at_ms += (uint64_t)place->delay_ms;
		place->delay_ms = place->delay_ms == 0 ? DELAY_FIRST_MS : place->delay_ms * 2;
		if (place->delay_ms > DELAY_MOST_MS)
			place->delay_ms = DELAY_MOST_MS;
	}
	if (!is_planned) {
		metrics_add(master->metrics, METER_WORKER_CRASHES, 0, 0, 1);
		log_event(LOG_LEVEL_ERROR, "worker crashed", LOG_NUMBER("worker", (int64_t)at + 1),
			LOG_NUMBER("worker_pid", place->pid),
			LOG_TEXT(
				"signal", WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : NULL),
			LOG_NUMBER("exit_code", WIFEXITED(status) ? WEXITSTATUS(status) : -1),
			LOG_NUMBER("restart_in_ms", (int64_t)(place->start_at_ms - now)));
	}
	place->pid = 0;
}

static void reap(struct master *master)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		for (size_t at = 0; at < master->count; at++)
			if (master->places[at].pid == pid)
				worker_ended(master, at, status);
}

static size_t running(const struct master *master)
{
	size_t count = 0;

	for (size_t at = 0; at < master->count; at++)
		count += master->places[at].pid != 0;
	return count;
}

static void signal_workers(const struct master *master, int number)
{
	for (size_t at = 0; at < master->count; at++)
		if (master->places[at].pid != 0)
			kill(master->places[at].pid, number);
}

/* Kills what has been at one request for longer than request_timeout. Its end is then a crash like
 * any other: logged, counted, the worker replaced. */
static void end_stuck_workers(const struct master *master)
{
	for (size_t at = 0; at < master->count; at++) {
		uint64_t busy_ms = board_busy_ms(&master->board, at);

		if (master->places[at].pid == 0 ||
			busy_ms <= (uint64_t)master->settings->request_timeout_ms)
			continue;
		log_event(LOG_LEVEL_ERROR, "request_timeout is over: killing a stuck worker",
			LOG_NUMBER("worker", (int64_t)at + 1),
			LOG_NUMBER("worker_pid", master->places[at].pid),
			LOG_NUMBER("busy_ms", (int64_t)busy_ms));
		kill(master->places[at].pid, SIGKILL);
	}
}

static void reopen_log(const struct master *master)
{
	const char *why;

	if (log_reopen(&why))
		log_info("log reopened");
	else
		log_error("cannot reopen the log: %s", why);
	signal_workers(master, SIGUSR1);
}

/* The next of `signals`, or 0 when none came within `wait_ms` (-1: wait as long as it takes). */
static int next_signal(const sigset_t *signals, int64_t wait_ms)
{
	const struct timespec wait = { wait_ms / 1000, wait_ms % 1000 * 1000000 };
	int number = sigtimedwait(signals, NULL, wait_ms < 0 ? NULL : &wait);

	return number < 0 ? 0 : number;
}

/* Serves until told to stop. */
static void watch(struct master *master, const sigset_t *signals)
{
	while (!master->is_draining) {
		int64_t wait_ms = start_workers(master);

		end_stuck_workers(master);
		if (wait_ms < 0 || wait_ms > LOOK_MS)
			wait_ms = LOOK_MS;
		switch (next_signal(signals, wait_ms)) {
		case SIGCHLD:
			reap(master);
			break;
		case SIGTERM:
		case SIGINT:
			master->is_draining = true;
			break;
		case SIGUSR1:
			reopen_log(master);
			break;
		case SIGHUP:
			log_warn("SIGHUP: this version does not reload; restart it to apply a "
				 "changed configuration");
			break;
		}
	}
}

/* Lets the workers finish, and ends those that do not within shutdown_timeout. */
static void drain(struct master *master, const sigset_t *signals)
{
	uint64_t deadline = clock_ms() + (uint64_t)master->settings->shutdown_timeout_ms;
	bool is_killed = false;

	log_info("draining %zu workers", running(master));
	signal_workers(master, SIGTERM);
	while (running(master) > 0) {
		uint64_t now = clock_ms();

		if (now >= deadline && !is_killed) {
			log_warn("shutdown_timeout is over: killing %zu workers", running(master));
			signal_workers(master, SIGKILL);
			is_killed = true;
		}
		next_signal(signals, is_killed ? -1 : (int64_t)(deadline - now));
		reap(master);
	}
}

static void log_backends(const struct settings *settings)
{
	struct arena *arena = arena_new(4096, 1024 * 1024);
	struct backend_report reports[BACKENDS];

	backends_check(arena, settings, reports);
	for (size_t i = 0; i < BACKENDS; i++) {
		if (reports[i].state == BACKEND_OK)
			log_info("%s: %s", reports[i].name, reports[i].detail);
		else
			log_warn("%s: %s", reports[i].name, reports[i].detail);
	}
	arena_free(arena);
}

int master_run(struct arena *arena, const struct settings *settings, int listen_fd)
{
	struct master master = {
		.settings = settings, .listen_fd = listen_fd, .count = (size_t)settings->workers
	};
	sigset_t signals;
	int exit_code = 1;

	sigemptyset(&signals);
	sigaddset(&signals, SIGCHLD);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGHUP);
	sigaddset(&signals, SIGUSR1);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	signal(SIGPIPE, SIG_IGN);

	master.places = calloc(master.count, sizeof *master.places);
	master.router = router_new(routes, route_count, sizeof routes[0]);
	/* One slot more than workers: the master counts, too. */
	master.metrics = metering_new(arena, settings, master.count + 1);
	if (master.places == NULL || master.metrics == NULL ||
		board_new(&master.board, master.count) != 0) {
		log_error("shared memory: %s", strerror(errno));
		goto done;
	}
	metrics_use_slot(master.metrics, master.count);
	log_backends(settings);
	log_info("areg %s serves with %zu workers, configuration %s", PACKAGE_VERSION, master.count,
		settings->source);
	watch(&master, &signals);
	drain(&master, &signals);
	log_info("stopped");
	exit_code = 0;
	board_free(&master.board);
done:
	metrics_free(master.metrics);
	router_free(master.router);
	free(master.places);
	return exit_code;
}
