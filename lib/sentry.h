/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events for Sentry: put into envelopes and sent over libcurl. Read beside this: Sentry's developer
 * documentation, "Envelopes", "Event Payloads", "Authentication" and "Rate Limiting"; libcurl-easy(3).
 */
#ifndef AREG_SENTRY_H
#define AREG_SENTRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/buf.h"
#include "lib/must_check.h"

struct sentry_tag {
	const char *name;
	const char *value; /* NULL or "": left out */
};

/* Texts are valid UTF-8. */
struct sentry_event {
	const char *level; /* "error", "fatal" */
	const char *release; /* "areg@0.1.0" */
	const char *environment;
	const char *server_name;
	const char *place; /* where it happened: the event's transaction */
	const char *code; /* what it was; events of equal place and code are one issue */
	uint64_t count; /* how often, since it was last told */
	uint64_t at_ms; /* Unix time of the last of them */
	const struct sentry_tag *tags;
	size_t tag_count;
};

/* Appends the envelope of one event, under an id of its own. */
void sentry_envelope(struct buf *out, const struct sentry_event *event);

enum sentry_status {
	SENTRY_TAKEN,
	SENTRY_LATER, /* not reached in time, or it wants no more for now (429, 5xx) */
	SENTRY_REFUSED, /* sent again it would be refused again */
};

struct sentry_reply {
	char reason[256]; /* of what was not taken, one line */
	unsigned
		wait_s; /* with SENTRY_LATER: what Retry-After asks for, at most an hour; 0: nothing */
};

struct sentry;

/* A sender to a DSN that was checked, http[s]://KEY@HOST/PROJECT. One per process. Never NULL. */
struct sentry *sentry_new(const char *dsn, const char *user_agent);
void sentry_free(struct sentry *sentry);

/* Sends an envelope and waits for what is said of it, TIMEOUT_S (10) at most; about once a second
 * may_go_on(arg) is asked, and false gives up. */
MUST_CHECK enum sentry_status sentry_send(struct sentry *sentry, const struct buf *envelope,
	bool (*may_go_on)(void *arg), void *arg, struct sentry_reply *reply);

#endif
