/* SPDX-License-Identifier: Apache-2.0 */
/* Messages of the server are translated, so none of them is looked at. */
#include "lib/db_reach.h"

#include <stdio.h>
#include <unistd.h>

#include <libpq-fe.h>

static const struct db_statement takes_changes = {
	.name = "",
	.effect = DB_READS,
	.sql = "SELECT current_setting('transaction_read_only') = 'off'",
};

static enum db_reach ping(const struct db_options *options)
{
	char seconds[16];
	const char *const keys[] = { "dbname", "connect_timeout", NULL };
	const char *const values[] = { options->url, seconds, NULL };

	/* libpq takes 1 s for 2. */
	snprintf(seconds, sizeof(seconds), "%d", (options->connect_timeout_ms + 999) / 1000 + 1);
	switch (PQpingParams(keys, values, 1)) {
	case PQPING_OK:
		return DB_REACH_REFUSED;
	case PQPING_REJECT:
		return DB_REACH_STARTING;
	case PQPING_NO_ATTEMPT:
		return DB_REACH_URL;
	case PQPING_NO_RESPONSE:
		break;
	}
	return DB_REACH_SILENT;
}

enum db_reach db_reach(const struct db_options *options)
{
	struct db_options any = *options;
	struct arena *arena = arena_new(4096, 1024 * 1024);
	enum db_reach reach = DB_REACH_NOW;
	struct db_rows rows;
	struct db *db;

	any.read_write = false;
	any.session = NULL;
	db = db_new(&any);
	if (db_run(db, &takes_changes, NULL, 0, arena, &rows) != DB_OK)
		reach = ping(&any);
	else if (options->read_write && !db_bool(&rows, 0, 0))
		reach = DB_REACH_READ_ONLY;
	db_free(db);
	arena_free(arena);
	return reach;
}

const char *db_reach_advice(
	struct arena *arena, enum db_reach reach, const char *user, const char *command)
{
	switch (reach) {
	case DB_REACH_NOW:
		break;
	case DB_REACH_URL:
		return "database_url cannot be read: percent-encode what is not a letter or a digit "
		       "in its user and password";
	case DB_REACH_SILENT:
		return "check that PostgreSQL runs, and the host and port in database_url";
	case DB_REACH_STARTING:
		return "PostgreSQL runs, but starts up or shuts down: try again when it is ready";
	case DB_REACH_READ_ONLY:
		return "PostgreSQL runs, but takes no changes: name the primary in database_url, and "
		       "see whether default_transaction_read_only is set";
	case DB_REACH_REFUSED:
		if (geteuid() == 0)
			return arena_printf(arena,
				"PostgreSQL runs, but does not let root in: without a password it "
				"knows a user by the name of the process's own (peer), so do it as "
				"that user: runuser -u %s -- %s",
				user, command);
		return "PostgreSQL runs, but does not let this user in: check user, password and "
		       "name of the database in database_url, pg_hba.conf and max_connections";
	}
	return "it can be reached now: try again";
}
