/* SPDX-License-Identifier: Apache-2.0 */
/* Equal reports wait together for a minute, and for the end of a back-off. */
#include "app/process/reporter.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "app/http/metering.h"
#include "app/process/helper_process.h"
#include "lib/clock.h"
#include "lib/log.h"
#include "lib/sentry.h"
#include "lib/shm.h"

enum {
	TURN_MS = 250,
	GROUPS = 64, /* different reports that are kept apart */
	FOLD_MS = 60000, /* equal reports become one event in that time */
	MINUTE_MS = 60000,
	BACKOFF_FIRST_MS = 1000,
	BACKOFF_MOST_MS = 300000,
	BUSY_S = 60, /* to wait after 429 where no time is named */
};

/* Equal reports. */
struct group {
	struct report report; /* the last of them */
	uint64_t count; /* since they were last sent; 0: none */
	uint64_t due_ms; /* not to be sent before */
};

struct reporter {
	const struct settings *settings;
	struct reports *reports;
	struct metrics *metrics;
	struct sentry *sentry;
	struct arena *arena; /* of a turn */
	struct group groups[GROUPS];
	uint64_t *sent_ms; /* when the last sentry_per_minute events were sent */
	uint64_t sent;
	uint64_t quiet_until_ms; /* backing off */
	uint64_t backoff_ms; /* of the last failure; 0 after a success */
	char host[256];
	bool ends;
};

static void reporter_count(
	const struct reporter *reporter, enum meter_report outcome, uint64_t amount)
{
	metrics_add(reporter->metrics, METER_REPORTS, outcome, 0, amount);
}

/* The group of equal reports, or one for a new kind; NULL when all are taken by others that wait. */
static struct group *group_of(struct reporter *reporter, const struct report *report)
{
	struct group *oldest = NULL;

	for (size_t i = 0; i < GROUPS; i++) {
		struct group *group = &reporter->groups[i];

		if (strcmp(group->report.place, report->place) == 0 &&
			strcmp(group->report.code, report->code) == 0)
			return group;
		if (group->count == 0 && (oldest == NULL || group->due_ms < oldest->due_ms))
			oldest = group;
	}
	if (oldest != NULL)
		oldest->due_ms = 0;
	return oldest;
}

static void reporter_gather(struct reporter *reporter)
{
	struct report report;

	while (reports_take(reporter->reports, &report)) {
		struct group *group = group_of(reporter, &report);

		if (group == NULL) {
			reporter_count(reporter, METER_REPORT_DROPPED, 1);
			continue;
		}
		if (group->count++ > 0)
			reporter_count(reporter, METER_REPORT_FOLDED, 1);
		group->report = report;
	}
	reporter_count(reporter, METER_REPORT_DROPPED, reports_take_dropped(reporter->reports));
}

static void write_envelope(struct reporter *reporter, const struct group *group, struct buf *out)
{
	const struct report *report = &group->report;
	const struct sentry_tag tags[] = {
		{ "statement", report->statement },
		{ "request_id", report->request_id },
	};
	const struct sentry_event event = {
		.level = report->level == REPORT_FATAL ? "fatal" : "error",
		.release = "areg@" PACKAGE_VERSION,
		.environment = reporter->settings->environment,
		.server_name = reporter->host,
		.place = report->place,
		.code = report->code,
		.count = group->count,
		.at_ms = report->at_ms,
		.tags = tags,
		.tag_count = sizeof tags / sizeof tags[0],
	};

	sentry_envelope(out, &event);
}

/* While it sends, too, it hears what the master says. */
static bool may_go_on(void *arg)
{
	struct reporter *reporter = arg;

	reporter->ends = reporter->ends || !helper_wait(0);
	return !reporter->ends;
}

static void reporter_back_off(struct reporter *reporter, const struct sentry_reply *reply)
{
	if (reporter->backoff_ms == 0)
		log_event(LOG_LEVEL_WARN, "Sentry takes no reports; they are kept and folded",
			LOG_TEXT("reason", reply->reason), LOG_NUMBER("wait_s", reply->wait_s));
	reporter->backoff_ms =
		reporter->backoff_ms == 0 ? BACKOFF_FIRST_MS : reporter->backoff_ms * 2;
	if (reporter->backoff_ms > BACKOFF_MOST_MS)
		reporter->backoff_ms = BACKOFF_MOST_MS;
	reporter->quiet_until_ms = clock_ms() + (reply->wait_s > 0 ? reply->wait_s * UINT64_C(1000)
								   : reporter->backoff_ms);
}

/* Whether Sentry took it, or never will. */
static bool send_group(struct reporter *reporter, struct group *group)
{
	const uint64_t cap = (uint64_t)reporter->settings->sentry_per_minute;
	struct sentry_reply reply;
	struct buf envelope;
	enum sentry_status status;

	buf_init(&envelope, reporter->arena, 2048);
	write_envelope(reporter, group, &envelope);
	status = sentry_send(reporter->sentry, &envelope, may_go_on, reporter, &reply);
	if (status == SENTRY_LATER) {
		reporter_count(reporter, METER_REPORT_RETRIED, 1);
		reporter_back_off(reporter, &reply);
		return false;
	}
	if (status == SENTRY_REFUSED)
		log_event(LOG_LEVEL_WARN, "Sentry refuses a report; it is dropped",
			LOG_TEXT("reason", reply.reason));
	if (reporter->backoff_ms > 0)
		log_info("Sentry takes reports again");
	reporter->backoff_ms = 0;
	reporter->sent_ms[reporter->sent++ % cap] = clock_ms();
	reporter_count(
		reporter, status == SENTRY_TAKEN ? METER_REPORT_SENT : METER_REPORT_DROPPED, 1);
	group->count = 0;
	group->due_ms = clock_ms() + FOLD_MS;
	return true;
}

/* Whether one more may be sent in this minute, and Sentry is not to be left alone. */
static bool may_send(const struct reporter *reporter)
{
	const uint64_t cap = (uint64_t)reporter->settings->sentry_per_minute, now = clock_ms();

	return !reporter->ends && now >= reporter->quiet_until_ms &&
	       (reporter->sent < cap || now - reporter->sent_ms[reporter->sent % cap] >= MINUTE_MS);
}

static size_t waiting(const struct reporter *reporter)
{
	size_t groups = 0;

	for (size_t i = 0; i < GROUPS; i++)
		groups += reporter->groups[i].count > 0;
	return groups;
}

static void reporter_take_turn(struct reporter *reporter)
{
	reporter_gather(reporter);
	for (size_t i = 0; i < GROUPS; i++) {
		struct group *group = &reporter->groups[i];

		if (group->count == 0 || clock_ms() < group->due_ms)
			continue;
		if (!may_send(reporter) || !send_group(reporter, group))
			return;
	}
}

int reporter_run(const struct settings *settings, struct reports *reports, struct metrics *metrics)
{
	struct reporter reporter = { .settings = settings, .reports = reports, .metrics = metrics };

	reporter.sent_ms = calloc((size_t)settings->sentry_per_minute, sizeof *reporter.sent_ms);
	if (reporter.sent_ms == NULL)
		abort();
	if (gethostname(reporter.host, sizeof reporter.host - 1) != 0)
		strcpy(reporter.host, "unknown");
	reporter.sentry = sentry_new(settings->sentry_dsn, "areg/" PACKAGE_VERSION);
	reporter.arena = arena_new(16 * 1024, 16 * 1024 * 1024);
	while (!reporter.ends && helper_wait(TURN_MS)) {
		reporter_take_turn(&reporter);
		arena_reset(reporter.arena);
	}
	if (waiting(&reporter) > 0)
		log_warn("ends with %zu reports that were not sent", waiting(&reporter));
	sentry_free(reporter.sentry);
	arena_free(reporter.arena);
	free(reporter.sent_ms);
	return 0;
}
