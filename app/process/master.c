/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All signals are blocked and taken from a signalfd, one at a time: nothing here runs inside a
 * handler. A reload goes like this:
 *
 *	trial       a child becomes the new program and tries out all that a start does
 *	exec        this process becomes the new program; its children stay its children
 *	STARTING    the new crew comes up, the old one serves
 *	RETIRING    the new crew serves, too; the old one finishes and ends
 *	SERVING     one crew, as before
 *
 * Should the new crew not come up after all, it is ended and the old one stays (HELD). If the old
 * crew loses a worker then, the master starts a worker of the new program instead, because the old
 * program is gone.
 *
 * Both crews work in the same shared segment where the new program lays it out as the old one did,
 * and would answer as it did: see host_memory_identity(). Otherwise the new program makes a segment
 * of its own. Then neither crew sees the changes that the other makes, so no cached answer is
 * served from shared memory until the last old worker is gone. Therefore the old listener ends
 * before the exec, and the new listener starts only after the last old worker is gone. Without a
 * listener nothing in shared memory counts as fresh. Limits are carried over, and where there is a
 * memcached, the two segments share them like two hosts.
 *
 * Read beside this: signalfd(2), execve(2), waitpid(2).
 */
#include "app/process/master_private.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "app/http/metering.h"
#include "app/process/backend_checks.h"
#include "app/process/host_checks.h"
#include "lib/clock.h"

/* ---- Crews ---- */

void master_close_own(void *arg)
{
	struct master *master = arg;

	control_close(&master->control);
	close(master->signal_fd);
	if (master->trial.pid != 0)
		close(master->trial.fd);
}

/* How many old processes of that kind there are; with `sharing` only those that use our segment. */
static size_t old_helpers(const struct master *master, enum helper which, bool sharing)
{
	size_t count = 0;

	for (size_t i = 0; i < master->old_count; i++) {
		const struct crew *crew = &master->old[i];
		size_t at = crew_helper(crew, which);

		if (!sharing || !crew->has_other_segment)
			count += crew_running(crew, at, at + 1);
	}
	return count;
}

size_t master_old_workers(const struct master *master)
{
	size_t count = 0;

	for (size_t i = 0; i < master->old_count; i++)
		count += crew_running(&master->old[i], 0, master->old[i].capacity);
	return count;
}

static bool is_apart(const struct master *master)
{
	for (size_t i = 0; i < master->old_count; i++)
		if (master->old[i].has_other_segment)
			return true;
	return false;
}

/* Whether the process of that place may be there now. */
static bool may_start(const struct master *master, size_t at)
{
	const struct crew *crew = &master->crew;
	bool is_held = master->phase == HELD;

	if (crew->places[at].is_vacant)
		return false;
	if (at < crew->capacity)
		return at < scoreboard_wanted(&crew->scoreboard);
	if (at == crew_helper(crew, HEALTH))
		return !is_held || old_helpers(master, HEALTH, false) == 0;
	/* Two ledger keepers would count this host twice. */
	if (at == crew_helper(crew, LEDGER_KEEPER))
		return old_helpers(master, LEDGER_KEEPER, true) == 0;
	/* Each generation has its own reports, and its own writers. */
	if (at == crew_helper(crew, REPORTER) || at >= crew_helper(crew, WRITER))
		return true;
	if (is_apart(master))
		return master_old_workers(master) == 0;
	return !is_held || old_helpers(master, LISTENER, false) == 0;
}

/* Starts every process that is due. Returns how long until the next is, in ms; -1 when none is. */
static int64_t start_due(struct master *master)
{
	struct crew *crew = &master->crew;
	uint64_t now = clock_ms();
	int64_t next = -1;

	for (size_t at = 0; at < crew->count; at++) {
		struct crew_place *place = &crew->places[at];
		int64_t wait;

		if (place->pid != 0 || !may_start(master, at))
			continue;
		if (place->start_at_ms <= now && crew_start(crew, at))
			continue;
		wait = (int64_t)(place->start_at_ms - now);
		if (next < 0 || wait < next)
			next = wait;
	}
	return next;
}

/* Starts the ledger keeper ahead of the workers, and waits until limits may be counted. */
static void start_ledger_keeper(struct master *master)
{
	struct crew *crew = &master->crew;
	size_t at = crew_helper(crew, LEDGER_KEEPER);

	if (!may_start(master, at) || !crew_start(crew, at))
		return;
	crew_await(crew, at, LEDGER_READY_MS);
	if (!crew->places[at].is_ready)
		log_warn("the ledger keeper has not made its first round in time");
}

static void reap(struct master *master)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		bool is_known = crew_ended(&master->crew, pid, status, master->metrics);

		for (size_t i = 0; i < master->old_count && !is_known; i++)
			is_known = crew_ended(&master->old[i], pid, status, master->metrics);
		if (!is_known && pid == master->trial.pid)
			master_reload_trial_over(master, status);
	}
}

/* To all processes, or all workers only. */
static void signal_all(struct master *master, bool workers_only, int number)
{
	for (size_t i = 0; i < master->old_count; i++)
		crew_signal(&master->old[i], 0,
			workers_only ? master->old[i].capacity : master->old[i].count, number);
	crew_signal(&master->crew, 0, workers_only ? master->crew.capacity : master->crew.count,
		number);
}

static size_t running(const struct master *master, bool workers_only)
{
	const struct crew *crew = &master->crew;
	size_t count = crew_running(crew, 0, workers_only ? crew->capacity : crew->count);

	for (size_t i = 0; i < master->old_count; i++) {
		crew = &master->old[i];
		count += crew_running(crew, 0, workers_only ? crew->capacity : crew->count);
	}
	return count;
}

void master_forget_old(struct master *master)
{
	metrics_settle(master->metrics);
	for (size_t i = 0; i < master->old_count; i++)
		crew_free(&master->old[i]);
	master->old_count = 0;
}

/* ---- Signals ---- */

static void master_reopen_log(struct master *master)
{
	const char *why;

	if (log_reopen(&why))
		log_info("log reopened");
	else
		log_error("cannot reopen the log: %s", why);
	signal_all(master, false, SIGUSR1);
}

/* Until the next reload, which goes back to the configuration. */
static void change_workers(struct master *master, int by)
{
	struct crew *crew = &master->crew;
	size_t wanted = scoreboard_wanted(&crew->scoreboard);

	if (master->phase != SERVING || (by < 0 && wanted <= 1) ||
		(by > 0 && wanted == crew->capacity)) {
		log_warn("the number of workers stays at %zu", wanted);
		return;
	}
	wanted = by > 0 ? wanted + 1 : wanted - 1;
	scoreboard_want(&crew->scoreboard, wanted);
	crew_signal(crew, wanted, crew->capacity, SIGTERM);
	log_info("%zu workers from now on", wanted);
}

static void take_signals(struct master *master)
{
	struct signalfd_siginfo signal;

	while (read(master->signal_fd, &signal, sizeof signal) == (ssize_t)sizeof signal) {
		switch (signal.ssi_signo) {
		case SIGCHLD:
			reap(master);
			break;
		case SIGTERM:
		case SIGINT:
			master->is_draining = true;
			break;
		case SIGUSR1:
			master_reopen_log(master);
			break;
		case SIGHUP:
			if (!master->is_draining)
				master_ask_for_reload(master);
			break;
		case SIGTTIN:
			change_workers(master, 1);
			break;
		case SIGTTOU:
			change_workers(master, -1);
			break;
		}
	}
}

/* Waits for a signal, a client, or for at most wait_ms, and sees to it. */
static void attend(struct master *master, int64_t wait_ms)
{
	struct pollfd set[CONTROL_CLIENTS + 3];
	size_t count = 0;

	set[count++] = (struct pollfd){ .fd = master->signal_fd, .events = POLLIN };
	count += control_poll(&master->control, set + count);
	(void)poll(set, count, (int)wait_ms);
	reload_trial_look(&master->trial);
	take_signals(master);
	control_serve(&master->control);
}

/* Serves until told to stop. */
static void master_watch(struct master *master)
{
	while (!master->is_draining) {
		int64_t wait_ms;
		int64_t look_ms;

		master_go_on(master);
		wait_ms = start_due(master);
		crew_end_stuck(&master->crew, master->metrics);
		for (size_t i = 0; i < master->old_count; i++)
			crew_end_stuck(&master->old[i], master->metrics);
		look_ms = master->phase == STARTING || master->phase == RETIRING ? CHANGE_LOOK_MS
										 : LOOK_MS;
		attend(master, wait_ms < 0 || wait_ms > look_ms ? look_ms : wait_ms);
	}
}

/* Ends all workers, or all processes: kills those that take longer than that. */
static void end_all(struct master *master, bool workers_only, int64_t within_ms)
{
	uint64_t deadline = clock_ms() + (uint64_t)within_ms;
	bool is_killed = false;

	signal_all(master, workers_only, SIGTERM);
	while (running(master, workers_only) > 0) {
		if (clock_ms() >= deadline && !is_killed) {
			log_warn("%lld ms are over: killing %zu processes", (long long)within_ms,
				running(master, workers_only));
			signal_all(master, workers_only, SIGKILL);
			is_killed = true;
		}
		attend(master, CHANGE_LOOK_MS);
	}
}

/* Lets the workers finish, and ends those that do not within shutdown_timeout. Until then they need
 * what the processes beside them do. */
static void master_drain(struct master *master)
{
	reload_trial_kill(&master->trial);
	log_info("draining %zu workers", running(master, true));
	/* No worker is left to give a connection to. */
	scoreboard_want(&master->crew.scoreboard, 0);
	for (size_t i = 0; i < master->old_count; i++)
		if (master->old[i].scoreboard.head != NULL)
			scoreboard_want(&master->old[i].scoreboard, 0);
	end_all(master, true, master->settings->shutdown_timeout_ms);
	end_all(master, false, HELPERS_END_MS);
}

/* ---- Beginning ---- */

static void log_backends(const struct settings *settings)
{
	struct arena *arena = arena_new(4096, 1024 * 1024);
	struct backend_report reports[BACKENDS_MAX];
	const size_t count = backends_check(arena, settings, reports);
	const struct host_finding *findings;
	const size_t found = host_checks(arena, settings, &findings);

	for (size_t i = 0; i < found; i++)
		log_warn("%s", findings[i].what);
	for (size_t i = 0; i < count; i++) {
		if (reports[i].state == BACKEND_OK)
			log_info("%s: %s", reports[i].name, reports[i].detail);
		else
			log_warn("%s: %s", reports[i].name, reports[i].detail);
		if (reports[i].warning != NULL)
			log_warn("%s: %s", reports[i].name, reports[i].warning);
	}
	arena_free(arena);
}

/* The socket that was handed over, if it is the one that is wanted; else a new one. */
static int private_socket(
	const char *path, const char **kept, int from_fd, const char *from_path, int like_fd)
{
	int fd = -1;

	if (from_fd >= 0 && strcmp(path, from_path) == 0) {
		master_keep_over_exec(from_fd, false);
		fd = from_fd;
	} else {
		if (from_fd >= 0) {
			close(from_fd);
			unlink(from_path);
		}
		if (*path != '\0')
			fd = control_listen(path, like_fd);
	}
	*kept = fd < 0 ? "" : path;
	return fd;
}

static void open_sockets(struct master *master, const struct handover *from)
{
	const struct settings *settings = master->settings;
	int control_fd;

	control_fd = private_socket(settings->control_socket, &master->control_path,
		from == NULL ? -1 : from->control_fd, from == NULL ? "" : from->control_path, -1);
	master->stage.health_fd = private_socket(settings->health_socket, &master->health_path,
		from == NULL ? -1 : from->health_fd, from == NULL ? "" : from->health_path,
		master->stage.listen_fd);
	control_init(&master->control, control_fd, master_answer_control, master);
}

/* Workers of all generations share it: a reload closes no connection. */
static bool make_relay(struct master *master, const struct handover *from)
{
	struct relay *relay = &master->stage.relay;

	if (from == NULL)
		return relay_new(relay) == 0;
	*relay = (struct relay){ from->relay_fds[0], from->relay_fds[1] };
	master_keep_over_exec(relay->give, false);
	master_keep_over_exec(relay->take, false);
	return true;
}

static struct host_memory_identity identity_of(const struct handover *from)
{
	return (struct host_memory_identity){ from->memory_layout, from->memory_edition,
		from->memory_bytes };
}

static bool shares_segment(const struct master *master, const struct handover *from)
{
	const struct host_memory_identity theirs = identity_of(from);

	return host_memory_same(&theirs, &master->host_memory_identity);
}

/* The segment of before, or a new one with what was counted of limits. */
static bool make_host_memory(struct master *master, const struct handover *from)
{
	size_t bytes = master->settings->hot_cache_bytes;
	struct host_memory before = { .fd = -1 };
	struct host_memory_identity theirs;

	if (from != NULL && shares_segment(master, from)) {
		if (host_memory_adopt(&master->host, from->memory_fd, bytes) != 0)
			return false;
		if (!master_is_test(master))
			limiter_turn_clock(master->host.limiter, 0);
		return true;
	}
	if (host_memory_new(&master->host, bytes) != 0)
		return false;
	if (from == NULL)
		return true;
	theirs = identity_of(from);
	log_info("reload: the shared memory is made anew, since %s",
		!host_memory_same_layout(&theirs, &master->host_memory_identity)
			? "this program lays it out otherwise"
		: theirs.edition != master->host_memory_identity.edition
			? "this configuration or version answers otherwise"
			: "its size is another one");
	if (host_memory_same_layout(&theirs, &master->host_memory_identity) &&
		host_memory_adopt(&before, from->memory_fd, from->memory_bytes) == 0)
		limiter_carry(master->host.limiter, before.limiter,
			limiter_clock_ms(before.limiter, clock_unix_ms()));
	else
		close(from->memory_fd);
	host_memory_free(&before);
	return true;
}

static bool adopt_crews(struct master *master, const struct handover *from)
{
	bool other = !shares_segment(master, from);

	for (size_t i = 0; i < from->crew_count; i++) {
		if (crew_adopt(&master->old[i], &from->crews[i], other) != 0)
			return false;
		master->old_count++;
		if (!metrics_inherit(master->metrics, from->crews[i].metrics_fd))
			log_warn("what generation %u counted is lost: %s", from->crews[i].number,
				strerror(errno));
	}
	master->phase = STARTING;
	master->phase_until_ms = clock_ms() + READY_MS;
	master->service_since_ms = from->service_since_ms;
	master->reloads_asked = from->reloads_asked;
	master->reloads_begun = from->reloads_begun;
	master->reloads_done = from->reloads_done;
	memcpy(master->reload_failure, from->reload_failure, HANDOVER_REASON);
	return true;
}

static void master_block_signals(struct master *master)
{
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGCHLD);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGHUP);
	sigaddset(&signals, SIGUSR1);
	sigaddset(&signals, SIGTTIN);
	sigaddset(&signals, SIGTTOU);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	signal(SIGPIPE, SIG_IGN);
	master->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
}

static bool set_up(struct master *master, struct arena *arena, const struct handover *from)
{
	const struct settings *settings = master->settings;
	unsigned number = from == NULL ? 1 : from->crews[from->crew_count - 1].number + 1;

	master_block_signals(master);
	master->service_since_ms = clock_ms();
	master->host_memory_identity = host_memory_identity(arena, settings);
	master->metrics = master->stage.metrics =
		metering_new(arena, settings, master->stage.router, crew_slots(settings));
	if (master->signal_fd < 0 || master->metrics == NULL || !make_host_memory(master, from) ||
		!make_relay(master, from))
		return false;
	if (settings->sentry_dsn != NULL) {
		master->stage.reports = reports_new();
		if (master->stage.reports == NULL)
			return false;
	}
	open_sockets(master, from);
	if (crew_new(&master->crew, number, &master->stage) != 0 ||
		(from != NULL && !adopt_crews(master, from)))
		return false;
	metrics_use_slot(master->metrics, crew_slots(settings) - 1);
	return true;
}

static void tear_down(struct master *master)
{
	if (*master->control_path != '\0')
		unlink(master->control_path);
	if (*master->health_path != '\0')
		unlink(master->health_path);
	control_close(&master->control);
	if (master->stage.health_fd >= 0)
		close(master->stage.health_fd);
	relay_close(&master->stage.relay);
	for (size_t i = 0; i < master->old_count; i++)
		crew_free(&master->old[i]);
	crew_free(&master->crew);
	host_memory_free(&master->host);
	metrics_free(master->metrics);
	reports_free(master->stage.reports);
	if (master->signal_fd >= 0)
		close(master->signal_fd);
}

int master_run(struct arena *arena, const struct settings *settings, struct router *router,
	int listen_fd, const struct master_program *program)
{
	struct master master = { .settings = settings,
		.program = program,
		.control_path = "",
		.health_path = "",
		.host = { .fd = -1 },
		.crew = { .scoreboard = { .fd = -1 } } };
	struct handover *from = NULL;
	const char *why;
	int exit_code = 1;

	master.stage = (struct stage){ .settings = settings,
		.router = router,
		.host = &master.host,
		.listen_fd = listen_fd,
		.relay = { -1, -1 },
		.health_fd = -1,
		.in_child = master_close_own,
		.arg = &master };
	control_init(&master.control, -1, master_answer_control, &master);
	if (!handover_accept(&from, &why) && why != NULL)
		log_error("what was handed over cannot be used: %s", why);
	if (!set_up(&master, arena, from)) {
		log_error("cannot start: %s", strerror(errno));
		goto done;
	}
	if (from == NULL)
		log_backends(settings);
	log_info("areg %s serves with %d workers, generation %u, configuration %s", PACKAGE_VERSION,
		settings->workers, master.crew.number, settings->source);
	start_ledger_keeper(&master);
	reap(&master);
	master_watch(&master);
	master_drain(&master);
	log_info("stopped");
	exit_code = 0;
done:
	free(from);
	tear_down(&master);
	return exit_code;
}
