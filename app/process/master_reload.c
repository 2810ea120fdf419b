/* SPDX-License-Identifier: Apache-2.0 */
/* Reloading: up to the exec, and in the new program until the old crew is gone. master.c says which
 * phases there are. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "app/http/metering.h"
#include "app/layouts.h"
#include "app/process/master_private.h"
#include "lib/clock.h"

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

unsigned master_ask_for_reload(struct master *master)
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
		    master_close_own, master))
		reload_failed(master, strerror(errno));
}

void master_keep_over_exec(int fd, bool keep)
{
	if (fd >= 0)
		(void)fcntl(fd, F_SETFD, keep ? 0 : FD_CLOEXEC);
}

static void keep_all_over_exec(const struct handover *handover, bool keep)
{
	master_keep_over_exec(handover->memory_fd, keep);
	master_keep_over_exec(handover->control_fd, keep);
	master_keep_over_exec(handover->health_fd, keep);
	master_keep_over_exec(handover->relay_fds[0], keep);
	master_keep_over_exec(handover->relay_fds[1], keep);
	for (size_t i = 0; i < handover->crew_count; i++) {
		master_keep_over_exec(handover->crews[i].scoreboard_fd, keep);
		master_keep_over_exec(handover->crews[i].metrics_fd, keep);
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
		.memory_fd = master->host.fd,
		.memory_layout = master->host_memory_identity.layout,
		.memory_edition = master->host_memory_identity.edition,
		.memory_bytes = master->host_memory_identity.bytes,
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

/* Ends the listener of this program, and marks what is in shared memory as not fresh. */
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

void master_reload_trial_over(struct master *master, int status)
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
	size_t wanted = 0, there = master_old_workers(master);

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

	if (master_old_workers(master) == 0 && master->alone_since_ms == 0)
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
	master_forget_old(master);
	master->phase = SERVING;
	log_info("the old generation has ended");
}

void master_go_on(struct master *master)
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
