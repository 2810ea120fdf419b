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
 * Should the new crew not come up after all, it is ended and the old one stays (HELD). Whom the old
 * one loses is then replaced by the new program, since the old one is no more.
 *
 * Both crews work in the same shared segment where the new program lays it out as the old one did, and
 * would answer as it did: see host_memory_identity().
 * Else the new one has a segment of its own, and what the processes of one change the other cannot
 * see: so nothing is served from the hot level until the last old worker is gone. For that the old
 * listener ends before the exec, and the new one begins only then: nobody says that what is kept in
 * memory is fresh. Limits are carried over, and where there is a memcached, the two segments share
 * them like two hosts.
 *
 * Read beside this: signalfd(2), execve(2), waitpid(2).
 */
#include "app/process/master.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "app/http/metering.h"
#include "app/layouts.h"
#include "app/process/backend_checks.h"
#include "app/process/control_socket.h"
#include "app/process/crew.h"
#include "app/process/handover.h"
#include "app/process/host_checks.h"
#include "app/process/reload_trial.h"
#include "app/process/reporter.h"
#include "lib/clock.h"
#include "lib/json_out.h"
#include "lib/log.h"
#include "lib/shm.h"

enum {
	LOOK_MS = 250, /* how often it looks for workers that are stuck */
	CHANGE_LOOK_MS = 20, /* and for those of a new generation that are ready */
	LEDGER_READY_MS = 300, /* longest that workers wait for the ledger keeper's first round */
	READY_MS = 15000, /* for a new generation to come up */
	HELPERS_END_MS = 2000, /* for the processes beside the workers to end */
	LISTENER_END_MS = 1000, /* before an exec; longer would hold up who waits for the master */
	LISTENER_LATE_MS = 5000, /* an old listener waits no longer than that for the new one */
};

enum phase { SERVING, STARTING, RETIRING, HELD };
static const char *const phase_names[] = { "serving", "starting", "retiring", "held" };

struct master {
	const struct settings *settings;
	const struct master_program *program;
	struct stage stage;
	struct host_memory host;
	struct host_memory_identity host_memory_identity;
	struct metrics *metrics;
	int signal_fd;
	struct control control;
	const char *control_path, *health_path; /* "" while there is no such socket */
	uint64_t service_since_ms;

	struct crew crew; /* of this program */
	struct crew old[HANDOVER_CREWS]; /* oldest first */
	size_t old_count;
	enum phase phase;
	uint64_t phase_until_ms; /* STARTING, RETIRING: then whoever is late is ended */
	uint64_t alone_since_ms; /* RETIRING: since no old worker is left; 0: not yet */
	bool is_draining;

	struct reload_trial trial;
	unsigned reloads_asked, reloads_begun, reloads_done; /* numbers: one after the other */
	char reload_failure[HANDOVER_REASON]; /* of the last that is done; "": it went well */
};

/* ---- Crews ---- */

/* In a child. */
static void close_own(void *arg)
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

static size_t old_workers(const struct master *master)
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
	/* Two folders would count this host as two. */
	if (at == crew_helper(crew, LEDGER_KEEPER))
		return old_helpers(master, LEDGER_KEEPER, true) == 0;
	/* Each generation has its own reports, and its own writers. */
	if (at == crew_helper(crew, REPORTER) || at >= crew_helper(crew, WRITER))
		return true;
	if (is_apart(master))
		return old_workers(master) == 0;
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

static void reload_trial_over(struct master *master, int status);

static void reap(struct master *master)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		bool is_known = crew_ended(&master->crew, pid, status, master->metrics);

		for (size_t i = 0; i < master->old_count && !is_known; i++)
			is_known = crew_ended(&master->old[i], pid, status, master->metrics);
		if (!is_known && pid == master->trial.pid)
			reload_trial_over(master, status);
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

static void forget_old(struct master *master)
{
	metrics_settle(master->metrics);
	for (size_t i = 0; i < master->old_count; i++)
		crew_free(&master->old[i]);
	master->old_count = 0;
}

/* ---- Reloading: the old program ---- */

static void reload_is_done(struct master *master, const char *failure)
{
	master->reloads_done = master->reloads_begun;
	metrics_add(master->metrics, METER_RELOADS,
		failure == NULL ? METER_RELOAD_DONE : METER_RELOAD_FAILED, 0, 1);
	snprintf(master->reload_failure, sizeof master->reload_failure, "%s",
		failure == NULL ? "" : failure);
}

static void reload_failed(struct master *master, const char *reason)
{
	log_event(LOG_LEVEL_ERROR, "reload refused; the present generation goes on serving",
		LOG_TEXT("reason", reason), LOG_NUMBER("generation", master->crew.number));
	reload_is_done(master, reason);
}

/* Returns the number of the reload that will have seen what there is now. */
static unsigned ask_for_reload(struct master *master)
{
	if (master->reloads_asked == master->reloads_begun)
		master->reloads_asked++;
	return master->reloads_asked;
}

static void begin_reload(struct master *master)
{
	if (master->reloads_asked == master->reloads_begun || master->trial.pid != 0 ||
		(master->phase != SERVING && master->phase != HELD))
		return;
	master->reloads_begun = master->reloads_asked;
	log_info("reload: trying out %s", master->program->path);
	if (!reload_trial_start(&master->trial, master->program->path, master->program->argv,
		    close_own, master))
		reload_failed(master, strerror(errno));
}

static void keep_over_exec(int fd, bool keep)
{
	if (fd >= 0)
		(void)fcntl(fd, F_SETFD, keep ? 0 : FD_CLOEXEC);
}

static void keep_all_over_exec(const struct handover *handover, bool keep)
{
	keep_over_exec(handover->hot_fd, keep);
	keep_over_exec(handover->control_fd, keep);
	keep_over_exec(handover->health_fd, keep);
	keep_over_exec(handover->relay_fds[0], keep);
	keep_over_exec(handover->relay_fds[1], keep);
	for (size_t i = 0; i < handover->crew_count; i++) {
		keep_over_exec(handover->crews[i].scoreboard_fd, keep);
		keep_over_exec(handover->crews[i].metrics_fd, keep);
	}
}

static struct handover *write_handover(const struct master *master)
{
	struct handover *handover = calloc(1, sizeof *handover);

	if (handover == NULL)
		return NULL;
	*handover = (struct handover){ .layout = HANDOVER_LAYOUT,
		.bytes = sizeof *handover,
		.master_pid = getpid(),
		.service_since_ms = master->service_since_ms,
		.hot_fd = master->host.fd,
		.hot_layout = master->host_memory_identity.layout,
		.hot_edition = master->host_memory_identity.edition,
		.hot_bytes = master->host_memory_identity.bytes,
		.control_fd = master->control.listen_fd,
		.health_fd = master->stage.health_fd,
		.relay_fds = { master->stage.relay.give, master->stage.relay.take },
		.reloads_asked = master->reloads_asked,
		.reloads_begun = master->reloads_begun,
		.reloads_done = master->reloads_done };
	snprintf(handover->control_path, HANDOVER_PATH, "%s", master->control_path);
	snprintf(handover->health_path, HANDOVER_PATH, "%s", master->health_path);
	memcpy(handover->reload_failure, master->reload_failure, HANDOVER_REASON);
	for (size_t i = 0; i < master->old_count; i++)
		crew_hand_over(&master->old[i], &handover->crews[handover->crew_count++]);
	crew_hand_over(&master->crew, &handover->crews[handover->crew_count++]);
	return handover;
}

/* Nobody says any more that what is kept in memory is fresh. */
static void distrust_segment(struct master *master)
{
	struct crew *crew = &master->crew;
	size_t at = crew_helper(crew, LISTENER);
	uint64_t until_ms = clock_ms() + LISTENER_END_MS;

	crew_signal(crew, at, at + 1, SIGTERM);
	while (crew_running(crew, at, at + 1) > 0) {
		int status;

		if (waitpid(crew->places[at].pid, &status, WNOHANG) != 0) {
			crew_ended(crew, crew->places[at].pid, status, master->metrics);
		} else if (clock_ms() >= until_ms) {
			log_warn("the listener did not end within %d ms: killing it",
				LISTENER_END_MS);
			crew_signal(crew, at, at + 1, SIGKILL);
			until_ms = UINT64_MAX;
		} else {
			(void)poll(NULL, 0, 10);
		}
	}
	callers_set_fresh_until(master->host.callers, 0);
}

/* This process becomes the new program. Returns only when it could not. */
static void become_new_program(struct master *master)
{
	struct handover *handover = write_handover(master);
	int fd = handover == NULL ? -1 : handover_offer(handover);
	char reason[RELOAD_TRIAL_REASON];

	if (fd >= 0) {
		keep_all_over_exec(handover, true);
		execv(master->program->path, master->program->argv);
		snprintf(reason, sizeof reason, "%s: %s", master->program->path, strerror(errno));
		keep_all_over_exec(handover, false);
		handover_withdraw(fd);
	} else {
		snprintf(reason, sizeof reason, "the handover: %s", strerror(errno));
	}
	free(handover);
	reload_failed(master, reason);
}

static void reload_trial_over(struct master *master, int status)
{
	char reason[RELOAD_TRIAL_REASON];
	bool same_segment;

	if (!reload_trial_ended(
		    &master->trial, status, &same_segment, &master->host_memory_identity, reason)) {
		reload_failed(master, reason);
		return;
	}
	if (master->old_count == HANDOVER_CREWS - 1) {
		reload_failed(master, "too many generations are still there: restart areg");
		return;
	}
	if (!same_segment)
		distrust_segment(master);
	become_new_program(master);
}

/* ---- Reloading: the new program ---- */

/* The old crews finish; nobody new comes to them, since the new one takes what arrives, too. */
static void retire_old(struct master *master)
{
	int longest_ms = 0;

	for (size_t i = 0; i < master->old_count; i++) {
		struct crew *crew = &master->old[i];
		size_t keeper = crew_helper(crew, LEDGER_KEEPER),
		       health = crew_helper(crew, HEALTH);

		crew_signal(crew, health, health + 1, SIGTERM);
		if (!crew->has_other_segment)
			crew_signal(crew, keeper, keeper + 1, SIGTERM);
		crew_signal(crew, 0, crew->capacity, SIGTERM);
		if (crew->shutdown_timeout_ms > longest_ms)
			longest_ms = crew->shutdown_timeout_ms;
	}
	master->phase = RETIRING;
	master->phase_until_ms = clock_ms() + (uint64_t)longest_ms;
	master->alone_since_ms = 0;
	log_event(LOG_LEVEL_INFO, "reloaded: the new generation serves, the old one drains",
		LOG_NUMBER("generation", master->crew.number), LOG_TEXT("version", PACKAGE_VERSION),
		LOG_TEXT("configuration", master->settings->source));
	reload_is_done(master, NULL);
}

/* Ends processes and waits for it; kills those that take longer than that. */
static void end_crew(struct crew *crew, int64_t within_ms, struct metrics *metrics)
{
	uint64_t deadline = clock_ms() + (uint64_t)within_ms;

	crew_signal(crew, 0, crew->count, SIGTERM);
	while (crew_running(crew, 0, crew->count) > 0) {
		if (clock_ms() >= deadline)
			crew_signal(crew, 0, crew->count, SIGKILL);
		for (size_t at = 0; at < crew->count; at++) {
			pid_t pid = crew->places[at].pid;
			int status;

			if (pid != 0 && waitpid(pid, &status, WNOHANG) == pid)
				crew_ended(crew, pid, status, metrics);
		}
		(void)poll(NULL, 0, 10);
	}
}

static void hold_old(struct master *master)
{
	static const char reason[] = "the new generation was not ready in time";

	log_event(LOG_LEVEL_ERROR, "reload failed; the old generation goes on serving",
		LOG_TEXT("reason", reason), LOG_NUMBER("generation", master->crew.number));
	master->phase = HELD;
	scoreboard_want(&master->crew.scoreboard, 0);
	end_crew(&master->crew, HELPERS_END_MS, master->metrics);
	reload_is_done(master, reason);
}

/* As many as the old crews have lost. */
static void replace_lost(struct master *master)
{
	size_t wanted = 0, there = old_workers(master);

	for (size_t i = 0; i < master->old_count; i++)
		wanted += master->old[i].wanted;
	if (wanted > master->crew.capacity + there)
		wanted = master->crew.capacity + there;
	scoreboard_want(&master->crew.scoreboard, wanted > there ? wanted - there : 0);
}

/* Old processes beside the workers stay for as long as somebody needs what they do. */
static void retire_helpers(struct master *master)
{
	struct crew_place *listener = &master->crew.places[crew_helper(&master->crew, LISTENER)];
	bool is_late = master->alone_since_ms != 0 &&
		       clock_ms() - master->alone_since_ms >= LISTENER_LATE_MS;

	for (size_t i = 0; i < master->old_count; i++) {
		struct crew *crew = &master->old[i];
		size_t at = crew_helper(crew, LISTENER), keeper = crew_helper(crew, LEDGER_KEEPER);
		size_t reporter = crew_helper(crew, REPORTER);

		/* Writers, too, which come behind it. */
		if (master->alone_since_ms != 0)
			crew_signal(crew, reporter, crew->count, SIGTERM);
		if (crew->has_other_segment && master->alone_since_ms != 0)
			crew_signal(crew, keeper, crew->count, SIGTERM);
		else if (!crew->has_other_segment && (listener->is_ready || is_late))
			crew_signal(crew, at, at + 1, SIGTERM);
	}
}

static void go_on_retiring(struct master *master)
{
	uint64_t now = clock_ms();

	if (old_workers(master) == 0 && master->alone_since_ms == 0)
		master->alone_since_ms = now;
	retire_helpers(master);
	for (size_t i = 0; i < master->old_count && now >= master->phase_until_ms; i++) {
		struct crew *crew = &master->old[i];
		size_t late = crew_running(crew, 0, crew->capacity);

		if (late > 0)
			log_warn("shutdown_timeout is over: killing %zu workers of generation %u",
				late, crew->number);
		crew_signal(crew, 0, crew->capacity, SIGKILL);
		if (late == 0 && now >= master->phase_until_ms + LISTENER_LATE_MS)
			crew_signal(crew, 0, crew->count, SIGKILL);
	}
	for (size_t i = 0; i < master->old_count; i++)
		if (crew_running(&master->old[i], 0, master->old[i].count) > 0)
			return;
	forget_old(master);
	master->phase = SERVING;
	log_info("the old generation has ended");
}

/* What the phase asks for now. */
static void go_on(struct master *master)
{
	crew_look(&master->crew);
	switch (master->phase) {
	case STARTING:
		if (crew_is_ready(&master->crew))
			retire_old(master);
		else if (clock_ms() >= master->phase_until_ms)
			hold_old(master);
		break;
	case RETIRING:
		go_on_retiring(master);
		break;
	case HELD:
		replace_lost(master);
		break;
	case SERVING:
		break;
	}
	begin_reload(master);
}

/* ---- Signals ---- */

static void reopen_log(struct master *master)
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
			reopen_log(master);
			break;
		case SIGHUP:
			if (!master->is_draining)
				ask_for_reload(master);
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
static void watch(struct master *master)
{
	while (!master->is_draining) {
		int64_t wait_ms;
		int64_t look_ms;

		go_on(master);
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
static void drain(struct master *master)
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

/* ---- What aregctl is told ---- */

/* Memory that is a process's own, in bytes; 0 when it is gone. See proc(5), statm. */
static uint64_t private_bytes(pid_t pid)
{
	unsigned long long resident = 0, shared = 0;
	char path[64];
	FILE *file;

	snprintf(path, sizeof path, "/proc/%d/statm", (int)pid);
	file = fopen(path, "re");
	if (file == NULL)
		return 0;
	if (fscanf(file, "%*u %llu %llu", &resident, &shared) != 2)
		resident = shared = 0;
	fclose(file);
	return (resident - shared) * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void print_worker(struct json_out *out, const struct crew *crew, size_t at)
{
	static const char *const states[] = { "starting", "starting", "idle", "busy" };
	const struct crew_place *place = &crew->places[at];
	const struct scoreboard_place *scoreboard =
		crew->scoreboard.head == NULL ? NULL : &crew->scoreboard.places[at];
	int state = scoreboard == NULL ? SCOREBOARD_IDLE
				       : __atomic_load_n(&scoreboard->state, __ATOMIC_ACQUIRE);
	uint64_t now = clock_ms(), since_ms = place->started_ms;
	char serving[SCOREBOARD_SERVING] = "";

	if (scoreboard != NULL) {
		since_ms = __atomic_load_n(&scoreboard->since_ms, __ATOMIC_RELAXED);
		memcpy(serving, scoreboard->serving, sizeof serving - 1);
	}
	json_open_object(out);
	json_integer(out, "worker", (int64_t)at + 1);
	json_integer(out, "generation", crew->number);
	json_integer(out, "pid", place->pid);
	json_string(out, "state",
		place->is_ending && state == SCOREBOARD_IDLE ? "ending" : states[state]);
	json_string(out, "serving", state == SCOREBOARD_BUSY ? serving : NULL);
	json_integer(out, "for_ms", since_ms < now ? (int64_t)(now - since_ms) : 0);
	json_integer(out, "requests", scoreboard == NULL ? 0 : (int64_t)scoreboard->requests);
	json_integer(out, "private_bytes", (int64_t)private_bytes(place->pid));
	json_close_object(out);
}

static void print_workers(struct json_out *out, const struct crew *crew)
{
	for (size_t at = 0; at < crew->capacity; at++)
		if (crew->places[at].pid != 0)
			print_worker(out, crew, at);
}

static void print_crew(struct json_out *out, const struct crew *crew, const char *state)
{
	json_open_object(out);
	json_integer(out, "generation", crew->number);
	json_string(out, "version", crew->version);
	json_string(out, "state", state);
	json_integer(out, "workers", (int64_t)crew_running(crew, 0, crew->capacity));
	json_close_object(out);
}

static void print_status(const struct master *master, struct json_out *out)
{
	static const char *const old_states[] = { "ended", "serving", "retiring", "serving" };
	static const char *const new_states[] = { "serving", "starting", "serving", "replacing" };

	json_open_object(out);
	json_string(out, "version", PACKAGE_VERSION);
	json_integer(out, "pid", getpid());
	json_integer(out, "generation", master->crew.number);
	json_string(out, "state", master->is_draining ? "draining" : phase_names[master->phase]);
	json_integer(out, "uptime_ms", (int64_t)(clock_ms() - master->service_since_ms));
	json_string(out, "configuration", master->settings->source);
	json_key(out, "reloads");
	json_open_object(out);
	json_integer(out, "asked", master->reloads_asked);
	json_integer(out, "done", master->reloads_done);
	json_string(out, "last_failure",
		master->reload_failure[0] == '\0' ? NULL : master->reload_failure);
	json_close_object(out);
	json_key(out, "generations");
	json_open_array(out);
	for (size_t i = 0; i < master->old_count; i++)
		print_crew(out, &master->old[i], old_states[master->phase]);
	print_crew(out, &master->crew, new_states[master->phase]);
	json_close_array(out);
	json_key(out, "workers");
	json_open_array(out);
	for (size_t i = 0; i < master->old_count; i++)
		print_workers(out, &master->old[i]);
	print_workers(out, &master->crew);
	json_close_array(out);
	json_close_object(out);
}

/* Whether this installation is one that tests have made for themselves. */
static bool is_test(const struct master *master)
{
	return strcmp(master->settings->environment, "test") == 0;
}

/* Sets how many seconds the clock of limits is ahead, so that tests need not wait for minutes. */
static int master_turn_clock(struct master *master, const char *seconds)
{
	const unsigned long ahead_s = strtoul(seconds, NULL, 10);
	const unsigned long most_s = LIMIT_TURN_MOST_MS / 1000;
	const uint64_t set_s = ahead_s < most_s ? ahead_s : most_s;

	limiter_turn_clock(master->host.limiter, 1000 * set_s);
	log_warn("the clock of limits is %d s ahead, as a test wants it", (int)set_s);
	return (int)set_s;
}

static void answer_control(void *arg, const char *request, struct buf *text)
{
	static const char turn[] = "turn-limit-clock ";
	struct master *master = arg;
	struct json_out out;

	json_out_init(&out, text);
	if (strcmp(request, "status") == 0) {
		print_status(master, &out);
		return;
	}
	json_open_object(&out);
	if (strcmp(request, "reload") == 0 && !master->is_draining)
		json_integer(&out, "reload", ask_for_reload(master));
	else if (is_test(master) && strncmp(request, turn, sizeof turn - 1) == 0)
		json_integer(&out, "limit_clock_ahead_s",
			master_turn_clock(master, request + sizeof turn - 1));
	else
		json_string(&out, "error",
			master->is_draining ? "areg is being stopped" : "there is no such request");
	json_close_object(&out);
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
		keep_over_exec(from_fd, false);
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
	control_init(&master->control, control_fd, answer_control, master);
}

/* Workers of all generations share it: a reload closes no connection. */
static bool make_relay(struct master *master, const struct handover *from)
{
	struct relay *relay = &master->stage.relay;

	if (from == NULL)
		return relay_new(relay) == 0;
	*relay = (struct relay){ from->relay_fds[0], from->relay_fds[1] };
	keep_over_exec(relay->give, false);
	keep_over_exec(relay->take, false);
	return true;
}

static struct host_memory_identity identity_of(const struct handover *from)
{
	return (struct host_memory_identity){ from->hot_layout, from->hot_edition,
		from->hot_bytes };
}

static bool shares_segment(const struct master *master, const struct handover *from)
{
	const struct host_memory_identity theirs = identity_of(from);

	return host_memory_same(&theirs, &master->host_memory_identity);
}

/* The segment of before, or a new one with what was counted of limits. */
static bool make_hot(struct master *master, const struct handover *from)
{
	size_t bytes = master->settings->hot_cache_bytes;
	struct host_memory before = { .fd = -1 };
	struct host_memory_identity theirs;

	if (from != NULL && shares_segment(master, from)) {
		if (host_memory_adopt(&master->host, from->hot_fd, bytes) != 0)
			return false;
		if (!is_test(master))
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
		host_memory_adopt(&before, from->hot_fd, from->hot_bytes) == 0)
		limiter_carry(master->host.limiter, before.limiter,
			limiter_clock_ms(before.limiter, clock_unix_ms()));
	else
		close(from->hot_fd);
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

static void block_signals(struct master *master)
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

	block_signals(master);
	master->service_since_ms = clock_ms();
	master->host_memory_identity = host_memory_identity(arena, settings);
	master->metrics = master->stage.metrics =
		metering_new(arena, settings, master->stage.router, crew_slots(settings));
	if (master->signal_fd < 0 || master->metrics == NULL || !make_hot(master, from) ||
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
		.in_child = close_own,
		.arg = &master };
	control_init(&master.control, -1, answer_control, &master);
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
	watch(&master);
	drain(&master);
	log_info("stopped");
	exit_code = 0;
done:
	free(from);
	tear_down(&master);
	return exit_code;
}
