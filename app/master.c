/*
 * All signals are blocked and taken by sigtimedwait(), one at a time: nothing here runs inside a
 * handler. A process that ends as planned is replaced at once; one that crashes soon after its
 * start is replaced with growing delay, each place by itself. The first places are those of the
 * workers, as on the board; behind them are the processes that stand beside them. Read beside this:
 * fork(2), sigtimedwait(2), waitpid(2), prctl(2).
 */
#include "app/master.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
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
#include "app/fold.h"
#include "app/hot.h"
#include "app/listener.h"
#include "app/metering.h"
#include "app/report.h"
#include "app/routes.h"
#include "app/worker.h"
#include "lib/clock.h"
#include "lib/log.h"

enum {
	DELAY_FIRST_MS = 100,
	DELAY_MOST_MS = 5000,
	SETTLED_MS = 5000, /* a worker that lived this long did not crash at its start */
	LOOK_MS = 250, /* how often it looks for workers that are stuck */
	FOLDER_READY_MS = 300, /* longest that workers wait for the folder's first round */
	BESIDE_END_MS = 2000, /* for the processes beside the workers to end */
};

/* Processes beside the workers. */
enum { FOLDER, LISTENER, REPORTER, BESIDE };
static const char *const beside_names[BESIDE] = { "folder", "listener", "reporter" };

/* What the master knows of each process, beside what stands on the board. */
struct place {
	bool is_vacant; /* nobody is wanted here */
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
	struct hot hot;
	struct reports *reports; /* of errors; NULL: none is wanted */
	struct place *places; /* `workers` of workers, then BESIDE */
	size_t workers;
	size_t count; /* of all */
	bool is_draining;
};

/* Copied: 31 bytes at most. */
static void name_of(const struct master *master, size_t at, char name[32])
{
	if (at < master->workers)
		snprintf(name, 32, "worker %zu", at + 1);
	else
		snprintf(name, 32, "%s", beside_names[at - master->workers]);
}

static int run_worker(struct master *master, size_t at)
{
	struct worker worker = { .settings = master->settings,
		.board = &master->board,
		.metrics = master->metrics,
		.router = master->router,
		.hot = &master->hot,
		.reports = master->reports,
		.place = at };

	board_enter(&master->board, at, BOARD_STARTING);
	return worker_run(&worker, master->listen_fd);
}

/* In the child. ready_fd is the folder's. */
static _Noreturn void become(struct master *master, size_t at, pid_t parent, int ready_fd)
{
	const size_t beside = at - master->workers; /* of what is none of the workers */
	char name[32], title[48];

	/* A master that was killed leaves nobody behind on its socket. */
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(0);
	name_of(master, at, name);
	log_process(name);
	free(master->places);
	if (at < master->workers)
		exit(run_worker(master, at));
	/* ps(1) and tests tell them from the workers. */
	snprintf(title, sizeof title, "aregd %s", name);
	prctl(PR_SET_NAME, title);
	close(master->listen_fd);
	metrics_use_slot(master->metrics, at);
	if (beside == FOLDER)
		exit(folder_run(master->settings, master->hot.limiter, ready_fd));
	if (beside == REPORTER)
		exit(reporter_run(master->settings, master->reports, master->metrics));
	exit(listener_run(master->settings, &master->hot));
}

/* Starts the process of that place. False when there was no more to be had. */
static bool start(struct master *master, size_t at, int ready_fd)
{
	struct place *place = &master->places[at];
	pid_t parent = getpid(), pid = fork();

	if (pid == 0)
		become(master, at, parent, ready_fd);
	if (pid < 0) {
		log_error("fork: %s; trying again in %d ms", strerror(errno), DELAY_MOST_MS);
		place->start_at_ms = clock_ms() + DELAY_MOST_MS;
		return false;
	}
	place->pid = pid;
	place->started_ms = clock_ms();
	if (at < master->workers) {
		__atomic_store_n(&master->board.places[at].pid, pid, __ATOMIC_RELAXED);
		metrics_add(master->metrics, METER_WORKER_STARTS, 0, 0, 1);
	}
	return true;
}

/* Starts the folder ahead of the workers, and waits until limits may be counted. */
static void start_folder(struct master *master)
{
	const size_t at = master->workers + FOLDER;
	struct pollfd ready = { .events = POLLIN };
	int ends[2];

	if (master->places[at].is_vacant)
		return;
	if (pipe2(ends, O_CLOEXEC) != 0) {
		log_error("pipe: %s", strerror(errno));
		return;
	}
	if (start(master, at, ends[1])) {
		close(ends[1]);
		ready.fd = ends[0];
		if (poll(&ready, 1, FOLDER_READY_MS) == 0)
			log_warn("the folder has not made its first round in time");
	} else {
		close(ends[1]);
	}
	close(ends[0]);
}

/* Starts every process that is due. Returns how long until the next is, in ms; -1 when none is. */
static int64_t start_due(struct master *master)
{
	uint64_t now = clock_ms();
	int64_t next = -1;

	for (size_t at = 0; at < master->count; at++) {
		struct place *place = &master->places[at];
		int64_t wait;

		if (place->is_vacant)
			continue;
		if (place->pid == 0 && place->start_at_ms <= now)
			(void)start(master, at, -1);
		if (place->pid != 0)
			continue;
		wait = (int64_t)(place->start_at_ms - now);
		if (next < 0 || wait < next)
			next = wait;
	}
	return next;
}

static void process_ended(struct master *master, size_t at, int status)
{
	struct place *place = &master->places[at];
	bool is_planned = WIFEXITED(status) && WEXITSTATUS(status) == 0;
	uint64_t now = clock_ms();
	char name[32];

	if (at < master->workers) {
		__atomic_store_n(&master->board.places[at].pid, 0, __ATOMIC_RELAXED);
		board_enter(&master->board, at, BOARD_VACANT);
	}
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
		name_of(master, at, name);
		if (at < master->workers)
			metrics_add(master->metrics, METER_WORKER_CRASHES, 0, 0, 1);
		log_event(LOG_LEVEL_ERROR,
			at < master->workers ? "worker crashed" : "process crashed",
			LOG_TEXT("name", name), LOG_NUMBER("worker_pid", place->pid),
			LOG_TEXT(
				"signal", WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : NULL),
			LOG_NUMBER("exit_code", WIFEXITED(status) ? WEXITSTATUS(status) : -1),
			LOG_NUMBER("restart_in_ms", (int64_t)(place->start_at_ms - now)));
		reports_put_crash(master->reports, name, status);
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
				process_ended(master, at, status);
}

/* How many of the places from..to - 1 are taken. */
static size_t running(const struct master *master, size_t from, size_t to)
{
	size_t count = 0;

	for (size_t at = from; at < to; at++)
		count += master->places[at].pid != 0;
	return count;
}

static void signal_all(const struct master *master, size_t from, size_t to, int number)
{
	for (size_t at = from; at < to; at++)
		if (master->places[at].pid != 0)
			kill(master->places[at].pid, number);
}

/* Kills what has been at one request for longer than request_timeout. Its end is then a crash like
 * any other: logged, counted, the worker replaced. */
static void end_stuck_workers(const struct master *master)
{
	for (size_t at = 0; at < master->workers; at++) {
		uint64_t busy_ms = board_busy_ms(&master->board, at);

		if (master->places[at].pid == 0 ||
			busy_ms <= (uint64_t)master->settings->request_timeout_ms)
			continue;
		log_event(LOG_LEVEL_ERROR, "request_timeout is over: killing a stuck worker",
			LOG_NUMBER("worker", (int64_t)at + 1),
			LOG_NUMBER("worker_pid", master->places[at].pid),
			LOG_NUMBER("busy_ms", (int64_t)busy_ms));
		metrics_add(master->metrics, METER_WORKERS_STUCK, 0, 0, 1);
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
	signal_all(master, 0, master->count, SIGUSR1);
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
		int64_t wait_ms = start_due(master);

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

/* Ends the processes at from..to - 1: kills those that take longer than that. */
static void end_all(
	struct master *master, size_t from, size_t to, int64_t within_ms, const sigset_t *signals)
{
	uint64_t deadline = clock_ms() + (uint64_t)within_ms;
	bool is_killed = false;

	signal_all(master, from, to, SIGTERM);
	while (running(master, from, to) > 0) {
		uint64_t now = clock_ms();

		if (now >= deadline && !is_killed) {
			log_warn("%lld ms are over: killing %zu processes", (long long)within_ms,
				running(master, from, to));
			signal_all(master, from, to, SIGKILL);
			is_killed = true;
		}
		next_signal(signals, is_killed ? -1 : (int64_t)(deadline - now));
		reap(master);
	}
}

/* Lets the workers finish, and ends those that do not within shutdown_timeout. Until then they need
 * what the processes beside them do. */
static void drain(struct master *master, const sigset_t *signals)
{
	log_info("draining %zu workers", running(master, 0, master->workers));
	end_all(master, 0, master->workers, master->settings->shutdown_timeout_ms, signals);
	end_all(master, master->workers, master->count, BESIDE_END_MS, signals);
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
	struct master master = { .settings = settings,
		.listen_fd = listen_fd,
		.hot = { .fd = -1 },
		.workers = (size_t)settings->workers };
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

	master.count = master.workers + BESIDE;
	master.places = calloc(master.count, sizeof *master.places);
	master.router = router_new(routes, route_count, sizeof routes[0]);
	/* One slot more than processes: the master counts, too. */
	master.metrics = metering_new(arena, settings, master.count + 1);
	if (settings->sentry_dsn != NULL)
		master.reports = reports_new();
	if (master.places == NULL || master.metrics == NULL ||
		(settings->sentry_dsn != NULL && master.reports == NULL) ||
		hot_new(&master.hot, settings->hot_cache_bytes) != 0 ||
		board_new(&master.board, master.workers) != 0) {
		log_error("shared memory: %s", strerror(errno));
		goto done;
	}
	metrics_use_slot(master.metrics, master.count);
	/* With no memcached there is nothing to share limits by. */
	master.places[master.workers + FOLDER].is_vacant = settings->memcached_servers[0] == '\0';
	master.places[master.workers + REPORTER].is_vacant = settings->sentry_dsn == NULL;
	log_backends(settings);
	log_info("areg %s serves with %zu workers, configuration %s", PACKAGE_VERSION,
		master.workers, settings->source);
	start_folder(&master);
	watch(&master, &signals);
	drain(&master, &signals);
	log_info("stopped");
	exit_code = 0;
	board_free(&master.board);
done:
	reports_free(master.reports);
	hot_free(&master.hot);
	metrics_free(master.metrics);
	router_free(master.router);
	free(master.places);
	return exit_code;
}
