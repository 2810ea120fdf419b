/* Whether what areg depends on is there: asked by `aregd -t`, and at start. */
#ifndef AREG_BACKENDS_H
#define AREG_BACKENDS_H

#include <stdbool.h>

#include "app/settings.h"

enum backend_state {
	BACKEND_OK,
	BACKEND_USABLE, /* everything works: slower, or the schema is of a newer release */
	BACKEND_IMPAIRED, /* areg runs, but not everything works */
	BACKEND_AWAY,
};

struct backend_report {
	const char *name; /* "database", "memcached" */
	enum backend_state state;
	const char
		*detail; /* "PostgreSQL 15.4, schema version 5" or what is wrong and what to do */
};

enum { BACKENDS = 2 };

/* Connects to each backend, looks, and disconnects. Texts are the arena's. */
void backends_check(struct arena *arena, const struct settings *settings,
	struct backend_report reports[BACKENDS]);

#endif
