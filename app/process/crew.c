/* SPDX-License-Identifier: Apache-2.0 */
/* A process that ends as planned is replaced at once; one that crashes soon after its start is
 * replaced with growing delay, each place by itself. Read beside this: fork(2), prctl(2). */
#include "app/process/crew.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "app/http/metering.h"
#include "app/layouts.h"
#include "app/process/backend_watch.h"
#include "app/process/change_listener.h"
#include "app/process/ledger_keeper.h"
#include "app/process/reporter.h"
#include "app/process/worker.h"
#include "lib/clock.h"
#include "lib/log.h"

enum {
	DELAY_FIRST_MS = 100,
	DELAY_MOST_MS = 5000,
	SETTLED_MS = 5000, /* a worker that lived this long did not crash at its start */
};

static const char *const helper_names[WRITER] = { "health", "ledger", "listener", "reporter" };

/* For people. Copied: 31 bytes at most. */
static void name_of(const struct crew *crew, size_t at, char name[32])
{
	if (at < crew->capacity)
		snprintf(name, 32, "worker %zu", at + 1);
	else if (at < crew_helper(crew, WRITER))
		snprintf(name, 32, "%s", helper_names[at - crew->capacity]);
	else
		snprintf(name, 32, "writer %zu", at - crew_helper(crew, WRITER) + 1);
}

size_t crew_helper(const struct crew *crew, enum helper which)
{
	return crew->capacity + which;
}

static size_t capacity_for(const struct settings *settings)
{
	return (size_t)settings->workers + CREW_SPARE;
}

size_t crew_slots(const struct settings *settings)
{
	return capacity_for(settings) + HELPERS + 1;
}

static int make_places(struct crew *crew, size_t capacity)
{
	crew->capacity = capacity;
	crew->count = capacity + HELPERS;
	crew->places = calloc(crew->count, sizeof *crew->places);
	if (crew->places == NULL)
		return -1;
	for (size_t at = 0; at < crew->count; at++)
		crew->places[at].ready_fd = -1;
	return 0;
}

static int make_doors(struct writer_doors *doors, size_t count)
{
	while (doors->count < count)
		if (relay_new(&doors->doors[doors->count++]) != 0)
			return -1;
	return 0;
}

int crew_new(struct crew *crew, unsigned number, const struct stage *stage)
{
	const struct settings *settings = stage->settings;

	*crew = (struct crew){ .number = number,
		.version = PACKAGE_VERSION,
		.stage = stage,
		.request_timeout_ms = settings->request_timeout_ms,
		.shutdown_timeout_ms = settings->shutdown_timeout_ms,
		.metrics_fd = metrics_fd(stage->metrics) };
	if (make_places(crew, capacity_for(settings)) != 0 ||
		make_doors(&crew->doors, writers_for(settings)) != 0 ||
		scoreboard_new(&crew->scoreboard, crew->capacity) != 0)
		return -1;
	scoreboard_want(&crew->scoreboard, (size_t)settings->workers);
	/* With no memcached there is nothing to share limits by. */
	crew->places[crew_helper(crew, LEDGER_KEEPER)].is_vacant =
		settings->memcached_servers[0] == '\0';
	crew->places[crew_helper(crew, HEALTH)].is_vacant = stage->health_fd < 0;
	crew->places[crew_helper(crew, REPORTER)].is_vacant = stage->reports == NULL;
	for (size_t i = crew->doors.count; i < WRITERS_MOST; i++)
		crew->places[crew_helper(crew, WRITER) + i].is_vacant = true;
	return 0;
}

int crew_adopt(struct crew *crew, const struct handover_crew *from, bool other_segment)
{
	*crew = (struct crew){ .number = from->number,
		.request_timeout_ms = from->request_timeout_ms,
		.shutdown_timeout_ms = from->shutdown_timeout_ms,
		.metrics_fd = from->metrics_fd,
		.wanted = from->wanted,
		.has_other_segment = other_segment || from->has_other_segment != 0 };
	memcpy(crew->version, from->version, sizeof crew->version);
	if (make_places(crew, from->capacity) != 0)
		return -1;
	for (size_t at = 0; at < crew->count; at++) {
		crew->places[at].pid = from->places[at].pid;
		crew->places[at].started_ms = from->places[at].started_ms;
	}
	if (from->scoreboard_layout == SCOREBOARD_LAYOUT)
		return scoreboard_adopt(&crew->scoreboard, from->scoreboard_fd, crew->capacity);
	if (from->scoreboard_fd >= 0)
		close(from->scoreboard_fd);
	crew->scoreboard.fd = -1;
	return 0;
}

void crew_hand_over(const struct crew *crew, struct handover_crew *to)
{
	*to = (struct handover_crew){ .number = crew->number,
		.scoreboard_fd = crew->scoreboard.fd,
		.scoreboard_layout = crew->scoreboard.head == NULL ? 0 : SCOREBOARD_LAYOUT,
		.metrics_fd = crew->metrics_fd,
		.request_timeout_ms = crew->request_timeout_ms,
		.shutdown_timeout_ms = crew->shutdown_timeout_ms,
		.capacity = (uint32_t)crew->capacity,
		.wanted = (uint32_t)(crew->stage == NULL ? crew->wanted
							 : scoreboard_wanted(&crew->scoreboard)),
		.has_other_segment = crew->has_other_segment };
	memcpy(to->version, crew->version, sizeof to->version);
	for (size_t at = 0; at < crew->count; at++) {
		to->places[at].pid = crew->places[at].pid;
		to->places[at].started_ms = crew->places[at].started_ms;
	}
}

void crew_free(struct crew *crew)
{
	scoreboard_free(&crew->scoreboard);
	for (size_t i = 0; i < crew->doors.count; i++)
		relay_close(&crew->doors.doors[i]);
	crew->doors.count = 0;
	free(crew->places);
	crew->places = NULL;
	crew->count = crew->capacity = 0;
}

/* ---- Starting ---- */

/* ps(1), logs and tests tell processes apart by these. */
static void take_name(const struct crew *crew, size_t at)
{
	char name[32], title[32 + sizeof "aregd "];

	name_of(crew, at, name);
	log_process(name);
	snprintf(title, sizeof title, "aregd %s", name);
	prctl(PR_SET_NAME, at < crew->capacity ? "aregd" : title);
}

static int run_worker(struct crew *crew, size_t at)
{
	const struct stage *stage = crew->stage;
	bool is_health = at == crew_helper(crew, HEALTH);
	struct context context = { .settings = stage->settings,
		.scoreboard = &crew->scoreboard,
		.metrics = stage->metrics,
		.router = stage->router,
		.host = stage->host,
		.reports = stage->reports,
		.place = at };

	scoreboard_enter(&crew->scoreboard, at, SCOREBOARD_STARTING);
	if (!is_health)
		return worker_run(&context, stage->listen_fd, stage->relay, &crew->doors);
	close(stage->listen_fd);
	context.watch = backend_watch_start(stage->settings, stage->host);
	return context.watch == NULL ? 1
				     : worker_run(&context, stage->health_fd,
					       (struct relay){ -1, -1 }, &crew->doors);
}

static void close_end(int *end)
{
	close(*end);
	*end = -1;
}

/* In the child: a worker keeps its ends of all doors, a writer that of its own, others none. */
static void close_doors(struct crew *crew, size_t at)
{
	for (size_t i = 0; i < crew->doors.count; i++) {
		if (at >= crew->capacity)
			close_end(&crew->doors.doors[i].give);
		if (at != crew_helper(crew, WRITER) + i)
			close_end(&crew->doors.doors[i].take);
	}
	if (at == crew_helper(crew, HEALTH))
		crew->doors.count = 0;
}

/* In the child. */
static _Noreturn void crew_become(struct crew *crew, size_t at, pid_t parent, int ready_fd)
{
	const struct stage *stage = crew->stage;
	struct relay relay = stage->relay;

	/* A master that was killed leaves nobody behind on its socket. */
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(0);
	stage->in_child(stage->arg);
	take_name(crew, at);
	if (at >= crew->capacity)
		relay_close(&relay);
	close_doors(crew, at);
	if (at <= crew_helper(crew, HEALTH))
		exit(run_worker(crew, at));
	close(stage->listen_fd);
	metrics_use_slot(stage->metrics, at);
	if (at == crew_helper(crew, LEDGER_KEEPER))
		exit(ledger_keeper_run(
			stage->settings, stage->host->limiter, stage->host->view, ready_fd));
	if (at == crew_helper(crew, REPORTER))
		exit(reporter_run(stage->settings, stage->reports, stage->metrics));
	if (at >= crew_helper(crew, WRITER))
		exit(feedback_writer_run(stage->settings, stage->metrics, stage->host->reached,
			crew->doors.doors[at - crew_helper(crew, WRITER)], ready_fd));
	exit(change_listener_run(stage->settings, stage->host, stage->reports, ready_fd));
}

bool crew_start(struct crew *crew, size_t at)
{
	struct crew_place *place = &crew->places[at];
	int ends[2] = { -1, -1 };
	pid_t parent = getpid(), pid;

	if (at > crew_helper(crew, HEALTH) && pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) {
		log_error("pipe: %s; trying again in %d ms", strerror(errno), DELAY_MOST_MS);
		place->start_at_ms = clock_ms() + DELAY_MOST_MS;
		return false;
	}
	pid = fork();
	if (pid == 0) {
		if (ends[0] >= 0)
			close(ends[0]);
		crew_become(crew, at, parent, ends[1]);
	}
	if (ends[1] >= 0)
		close(ends[1]);
	if (pid < 0) {
		log_error("fork: %s; trying again in %d ms", strerror(errno), DELAY_MOST_MS);
		if (ends[0] >= 0)
			close(ends[0]);
		place->start_at_ms = clock_ms() + DELAY_MOST_MS;
		return false;
	}
	place->pid = pid;
	place->ready_fd = ends[0];
	place->is_ready = place->is_ending = false;
	place->started_ms = clock_ms();
	if (at <= crew_helper(crew, HEALTH))
		__atomic_store_n(&crew->scoreboard.places[at].pid, pid, __ATOMIC_RELAXED);
	if (at < crew->capacity)
		metrics_add(crew->stage->metrics, METER_WORKER_STARTS, 0, 0, 1);
	return true;
}

static void stop_waiting_for(struct crew_place *place)
{
	if (place->ready_fd >= 0)
		close(place->ready_fd);
	place->ready_fd = -1;
}

void crew_await(struct crew *crew, size_t at, int wait_ms)
{
	struct crew_place *place = &crew->places[at];
	struct pollfd ready = { .fd = place->ready_fd, .events = POLLIN };

	if (place->ready_fd < 0 || poll(&ready, 1, wait_ms) <= 0)
		return;
	/* A process that is killed closes its end of the pipe, too. crew_ended() handles its death. */
	place->is_ready = true;
	stop_waiting_for(place);
}

void crew_look(struct crew *crew)
{
	for (size_t at = crew->capacity; at < crew->count; at++)
		crew_await(crew, at, 0);
}

bool crew_is_ready(const struct crew *crew)
{
	size_t health = crew_helper(crew, HEALTH);

	for (size_t at = 0; at < scoreboard_wanted(&crew->scoreboard); at++)
		if (!scoreboard_is_ready(&crew->scoreboard, at))
			return false;
	return crew->places[health].is_vacant || scoreboard_is_ready(&crew->scoreboard, health);
}

/* ---- Ending ---- */

static void log_crash(const struct crew *crew, size_t at, int status, uint64_t now)
{
	const struct crew_place *place = &crew->places[at];
	char name[32];

	name_of(crew, at, name);
	log_event(LOG_LEVEL_ERROR, at < crew->capacity ? "worker crashed" : "process crashed",
		LOG_TEXT("name", name), LOG_NUMBER("generation", crew->number),
		LOG_NUMBER("worker_pid", place->pid),
		LOG_TEXT("signal", WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : NULL),
		LOG_NUMBER("exit_code", WIFEXITED(status) ? WEXITSTATUS(status) : -1),
		LOG_NUMBER("restart_in_ms", (int64_t)(place->start_at_ms - now)));
	if (crew->stage != NULL)
		reports_put_crash(crew->stage->reports, name, status);
}

static void note_end(struct crew *crew, size_t at, int status, struct metrics *metrics)
{
	struct crew_place *place = &crew->places[at];
	/* A process beside the workers that was told to end, and was killed for its slowness, did not
	 * crash. */
	bool is_planned = (WIFEXITED(status) && WEXITSTATUS(status) == 0) ||
			  (at >= crew->capacity && place->is_ending && WIFSIGNALED(status) &&
				  WTERMSIG(status) == SIGKILL);
	uint64_t now = clock_ms();

	if (at <= crew_helper(crew, HEALTH) && crew->scoreboard.head != NULL) {
		__atomic_store_n(&crew->scoreboard.places[at].pid, 0, __ATOMIC_RELAXED);
		scoreboard_enter(&crew->scoreboard, at, SCOREBOARD_VACANT);
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
		if (at < crew->capacity)
			metrics_add(metrics, METER_WORKER_CRASHES, 0, 0, 1);
		log_crash(crew, at, status, now);
	}
	place->pid = 0;
	place->is_ready = place->is_ending = false;
	stop_waiting_for(place);
}

bool crew_ended(struct crew *crew, pid_t pid, int status, struct metrics *metrics)
{
	for (size_t at = 0; at < crew->count; at++) {
		if (crew->places[at].pid == pid) {
			note_end(crew, at, status, metrics);
			return true;
		}
	}
	return false;
}

size_t crew_running(const struct crew *crew, size_t from, size_t to)
{
	size_t count = 0;

	for (size_t at = from; at < to; at++)
		count += crew->places[at].pid != 0;
	return count;
}

void crew_signal(struct crew *crew, size_t from, size_t to, int number)
{
	for (size_t at = from; at < to; at++) {
		struct crew_place *place = &crew->places[at];

		if (place->pid == 0 || (number == SIGTERM && place->is_ending))
			continue;
		kill(place->pid, number);
		place->is_ending |= number == SIGTERM;
	}
}

void crew_end_stuck(const struct crew *crew, struct metrics *metrics)
{
	if (crew->scoreboard.head == NULL)
		return;
	for (size_t at = 0; at < crew->capacity; at++) {
		uint64_t busy_ms = scoreboard_busy_ms(&crew->scoreboard, at);

		if (crew->places[at].pid == 0 || busy_ms <= (uint64_t)crew->request_timeout_ms)
			continue;
		log_event(LOG_LEVEL_ERROR, "request_timeout is over: killing a stuck worker",
			LOG_NUMBER("worker", (int64_t)at + 1),
			LOG_NUMBER("generation", crew->number),
			LOG_NUMBER("worker_pid", crew->places[at].pid),
			LOG_TEXT("serving", crew->scoreboard.places[at].serving),
			LOG_NUMBER("busy_ms", (int64_t)busy_ms));
		metrics_add(metrics, METER_WORKERS_STUCK, 0, 0, 1);
		kill(crew->places[at].pid, SIGKILL);
	}
}
