/* SPDX-License-Identifier: Apache-2.0 */
/* Why a database cannot be used, found out after the fact: so that an operator gets the advice that
 * helps. Read beside this: the libpq chapter of the PostgreSQL manual, PQpingParams(). */
#ifndef AREG_DB_REACH_H
#define AREG_DB_REACH_H

#include "lib/db.h"

enum db_reach {
	DB_REACH_NOW, /* it can be used now: what failed has passed, or is no matter of reaching it */
	DB_REACH_URL, /* the URL cannot be read */
	DB_REACH_SILENT, /* nothing answers there as PostgreSQL does */
	DB_REACH_STARTING, /* it starts up, shuts down or recovers */
	DB_REACH_REFUSED, /* it runs, and does not let this user into this database */
	DB_REACH_READ_ONLY, /* it lets us in, but takes no changes, and they were asked for */
};

/* Asks the server of these options, with connections of its own: twice connect_timeout_ms at most,
 * rounded up to seconds. */
enum db_reach db_reach(const struct db_options *options);

/* Advice for the operator, as half a sentence. `command` is the program and its arguments as an operator
 * would type them again, and `user` the one to run it as where root is not let in. Owned by the arena. */
const char *db_reach_advice(
	struct arena *arena, enum db_reach reach, const char *user, const char *command);

#endif
