/* SPDX-License-Identifier: Apache-2.0 */
/* Whether what areg depends on is there: asked by `aregd -t`, and at start. */
#ifndef AREG_PROCESS_BACKEND_CHECKS_H
#define AREG_PROCESS_BACKEND_CHECKS_H

#include <stdbool.h>

#include "app/cache/wal_position.h"
#include "app/registry/settings.h"

enum backend_state {
	BACKEND_OK,
	BACKEND_USABLE, /* everything works: slower, or the schema is of a newer release */
	BACKEND_IMPAIRED, /* areg runs, but not everything works */
	BACKEND_AWAY,
};

struct backend_report {
	const char *name; /* "database", "memcached", "replica 1" */
	enum backend_state state;
	const char
		*detail; /* "PostgreSQL 15.4, schema version 5" or what is wrong and what to do */
	const char *warning; /* what works, and should not be left so; NULL for none */
};

enum { BACKENDS_MAX = 2 + REPLICAS_MAX };

/* Connects to each backend, looks, and disconnects. Returns how many there are: at least database and
 * memcached, in that order. Texts are the arena's. */
size_t backends_check(struct arena *arena, const struct settings *settings,
	struct backend_report reports[BACKENDS_MAX]);

#endif
