/* SPDX-License-Identifier: Apache-2.0 */
/* One lock for everything, never held while a backend is asked. */
#include "app/process/backend_watch.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/cache.h"
#include "lib/clock.h"
#include "lib/db.h"
#include "lib/log.h"

enum {
	CONNECT_MS = 1000,
	STATEMENT_MS = 1000,
	SLACK_MS = 1000, /* past its timeout until lib/db.c gives a server up */
};

struct backend_watch {
	const struct settings *settings;
	struct host_memory *host;
	pthread_mutex_t lock;
	pthread_cond_t asked, found;
	uint64_t wanted, done; /* looks asked for; of which were begun after being asked for */
	uint64_t found_ms; /* when the last look ended; 0: never */
	struct health_report report; /* its text is malloc()ed; but for the replicas */
	struct health_report replicas; /* what it says of those */
	uint64_t replicas_ms; /* when they were last looked at */
};

static struct timespec in_ms(int ms)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	at.tv_sec += ms / 1000;
	at.tv_nsec += ms % 1000 * 1000000L;
	at.tv_sec += at.tv_nsec / 1000000000;
	at.tv_nsec %= 1000000000;
	return at;
}

static void watch_keep(
	struct backend_watch *watch, const struct health_report *report, uint64_t asked)
{
	free((char *)watch->report.agents);
	watch->report = *report;
	watch->report.agents = report->agents == NULL ? NULL : strdup(report->agents);
	watch->found_ms = clock_ms();
	watch->done = asked;
	pthread_cond_broadcast(&watch->found);
}

static void *look_on(void *arg)
{
	struct backend_watch *watch = arg;
	const struct settings *settings = watch->settings;
	const struct db_options db_options = { settings->database_url, "areg health", CONNECT_MS,
		STATEMENT_MS, NULL, true };
	const struct cache_options cache_options = { settings->memcached_servers,
		settings->cache_timeout_ms, settings->cache_retry_ms, watch->host->view,
		settings->cache_key };
	struct arena *arena = arena_new(16 * 1024, 16 * 1024 * 1024);
	struct db *db = db_new(&db_options);
	struct cache *cache = cache_new(&cache_options);

	db_share_reached(db, watch->host->reached, 0);
	pthread_mutex_lock(&watch->lock);
	for (;;) {
		struct health_report report;
		uint64_t asked = watch->wanted;
		struct timespec until;

		pthread_mutex_unlock(&watch->lock);
		health_look(db, cache, arena, &report);
		pthread_mutex_lock(&watch->lock);
		watch_keep(watch, &report, asked);
		arena_reset(arena);
		until = in_ms(BACKEND_WATCH_EVERY_MS);
		while (watch->wanted == watch->done &&
			pthread_cond_timedwait(&watch->asked, &watch->lock, &until) != ETIMEDOUT)
			;
	}
	return NULL;
}

/* Apart, since several that hang must not keep the other thread from the primary. */
static void *look_at_replicas(void *arg)
{
	struct backend_watch *watch = arg;
	struct replicas *replicas = replicas_new(watch->settings, NULL, 0, "areg health", NULL);
	struct arena *arena = arena_new(16 * 1024, 16 * 1024 * 1024);

	for (;;) {
		struct health_report report;

		health_look_at_replicas(replicas, arena, &report);
		pthread_mutex_lock(&watch->lock);
		watch->replicas = report;
		watch->replicas_ms = clock_ms();
		pthread_mutex_unlock(&watch->lock);
		arena_reset(arena);
		nanosleep(&(struct timespec){ BACKEND_WATCH_EVERY_MS / 1000,
				  BACKEND_WATCH_EVERY_MS % 1000 * 1000000L },
			NULL);
	}
	return NULL;
}

/* What was found out about the replicas; of each that it is unknown, when that took too long. */
static void tell_replicas(const struct backend_watch *watch, struct health_report *report)
{
	const size_t count = settings_replicas(watch->settings);
	const uint64_t valid_ms =
		BACKEND_WATCH_VALID_MS +
		count * (2 * (uint64_t)watch->settings->database_read_timeout_ms + SLACK_MS);

	report->replica_count = count;
	for (size_t i = 0; i < report->replica_count; i++)
		report->replicas[i] = (struct replica_health){ .role = "unknown" };
	if (watch->replicas_ms != 0 && clock_ms() - watch->replicas_ms < valid_ms)
		memcpy(report->replicas, watch->replicas.replicas, sizeof report->replicas);
}

struct backend_watch *backend_watch_start(const struct settings *settings, struct host_memory *host)
{
	struct backend_watch *watch = calloc(1, sizeof *watch);
	pthread_condattr_t attributes;
	pthread_t thread;
	sigset_t all, before;
	int error;

	if (watch == NULL)
		return NULL;
	watch->settings = settings;
	watch->host = host;
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_mutex_init(&watch->lock, NULL);
	pthread_cond_init(&watch->asked, &attributes);
	pthread_cond_init(&watch->found, &attributes);
	pthread_condattr_destroy(&attributes);
	/* Signals are for the thread that answers. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	error = pthread_create(&thread, NULL, look_on, watch);
	if (error == 0 && settings_replicas(settings) > 0)
		error = pthread_create(&thread, NULL, look_at_replicas, watch);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (error == 0)
		return watch;
	log_error("the health process cannot start its threads: %s", strerror(error));
	return NULL; /* and ends, with whichever was started */
}

/* Whether the last look is recent enough for everybody: so however often anybody asks for health, the
 * backends are asked once or twice a second. */
static bool is_fresh(const struct backend_watch *watch)
{
	return watch->found_ms != 0 && clock_ms() - watch->found_ms < BACKEND_WATCH_FRESH_MS;
}

void backend_watch_ask(
	struct backend_watch *watch, struct arena *arena, struct health_report *report)
{
	struct timespec until = in_ms(BACKEND_WATCH_WAIT_MS);

	pthread_mutex_lock(&watch->lock);
	if (!is_fresh(watch)) {
		const uint64_t mine = ++watch->wanted;

		pthread_cond_signal(&watch->asked);
		while (watch->done < mine &&
			pthread_cond_timedwait(&watch->found, &watch->lock, &until) != ETIMEDOUT)
			;
	}
	if (watch->found_ms != 0 && clock_ms() - watch->found_ms < BACKEND_WATCH_VALID_MS) {
		*report = watch->report;
		report->agents =
			report->agents == NULL ? NULL : arena_strdup(arena, report->agents);
	} else {
		*report = (struct health_report){ .database = UNHEALTHY,
			.events_held_back_ms = -1,
			.cache = watch->found_ms == 0 ? UNHEALTHY : watch->report.cache,
			.cache_servers = watch->report.cache_servers };
	}
	tell_replicas(watch, report);
	pthread_mutex_unlock(&watch->lock);
}
