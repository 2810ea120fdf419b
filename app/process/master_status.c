/* SPDX-License-Identifier: Apache-2.0 */
/* What the master answers to aregctl: status, workers, reload. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/process/master_private.h"
#include "lib/clock.h"
#include "lib/json_out.h"

static const char *const phase_names[] = { "serving", "starting", "retiring", "held" };

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

static void status_print_workers(struct json_out *out, const struct crew *crew)
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

static void status_print_status(const struct master *master, struct json_out *out)
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
		status_print_workers(out, &master->old[i]);
	status_print_workers(out, &master->crew);
	json_close_array(out);
	json_close_object(out);
}

bool master_is_test(const struct master *master)
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

void master_answer_control(void *arg, const char *request, struct buf *text)
{
	static const char turn[] = "turn-limit-clock ";
	struct master *master = arg;
	struct json_out out;

	json_out_init(&out, text);
	if (strcmp(request, "status") == 0) {
		status_print_status(master, &out);
		return;
	}
	json_open_object(&out);
	if (strcmp(request, "reload") == 0 && !master->is_draining)
		json_integer(&out, "reload", master_ask_for_reload(master));
	else if (master_is_test(master) && strncmp(request, turn, sizeof turn - 1) == 0)
		json_integer(&out, "limit_clock_ahead_s",
			master_turn_clock(master, request + sizeof turn - 1));
	else
		json_string(&out, "error",
			master->is_draining ? "areg is being stopped" : "there is no such request");
	json_close_object(&out);
}
