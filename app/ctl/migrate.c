/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aregctl migrate: moves the schema up and down by the numbered files of sql/. One run at a time:
 * an advisory lock makes a second one wait, and find nothing left to do.
 */
#include "app/ctl/ctl.h"

#include <dirent.h>
#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/build.h"
#include "app/ctl/grants.h"
#include "app/ctl/text_table.h"
#include "lib/eth.h"

enum {
	/* A migration may build an index over ten million rows. */
	TIMEOUT_MS = 6 * 60 * 60 * 1000,
	FILE_BYTES_MAX = 16 * 1024 * 1024,
};

struct values {
	const char *dir;
	const char *to;
};

/* A version as the folder and the database know it. */
struct migration {
	int version; /* 1.. */
	const char *name; /* of the file, else of the database */
	const char *up_file, *down_file; /* paths; NULL when there is none */
	const char *up_sql; /* whole text of up_file */
	char checksum[65]; /* SHA-256 of up_sql, hex */
	const char *applied_checksum; /* NULL: not applied */
	const char *applied_at;
};

struct history {
	struct ctl *ctl;
	const char *dir;
	const char *grants; /* see grants_load() */
	struct migration *list; /* in order of version */
	size_t count, size;
};

static const struct db_statement lock_run = {
	.name = "migrate_lock",
	/* Any number will do that nothing else in this database locks: "areg" in ASCII. */
	.sql = "SELECT pg_advisory_lock(1634887015)",
	.effect = DB_READS,
};

static const char make_table[] = "CREATE TABLE IF NOT EXISTS schema_migrations ("
				 " version integer PRIMARY KEY,"
				 " name text NOT NULL,"
				 " checksum text NOT NULL CHECK (checksum ~ '^[0-9a-f]{64}$'),"
				 " applied_at timestamptz NOT NULL DEFAULT now())";

static const struct db_statement has_table = {
	.name = "migrate_has_table",
	.sql = "SELECT to_regclass('schema_migrations') IS NOT NULL",
	.effect = DB_READS,
};

static const struct db_statement read_applied = {
	.name = "migrate_read",
	.sql = "SELECT version, name, checksum,"
	       " to_char(applied_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"
	       " FROM schema_migrations ORDER BY version",
	.effect = DB_READS,
};

/* The primary key refuses a version that somebody else applied meanwhile, and the transaction
 * with it. */
static const struct db_statement record_up = {
	.name = "migrate_record_up",
	.sql = "INSERT INTO schema_migrations (version, name, checksum) VALUES ($1, $2, $3)",
	.effect = DB_CHANGES,
};

static const struct db_statement record_down = {
	.name = "migrate_record_down",
	.sql = "DELETE FROM schema_migrations WHERE version = $1",
	.effect = DB_CHANGES,
};

/* For a database that was restored from another cluster; older schemas have no events. */
static const char resume_events[] = "DO $$ BEGIN"
				    " IF to_regprocedure('areg_resume_events()') IS NOT NULL THEN"
				    " PERFORM areg_resume_events(); END IF; END $$";

/* ---- The folder ---- */

static const char *read_file(struct ctl *ctl, const char *path, size_t *len)
{
	FILE *file = fopen(path, "re");
	struct buf text;
	size_t got;

	if (file == NULL) {
		ctl_error("%s: %s", path, strerror(errno));
		return NULL;
	}
	buf_init(&text, ctl->arena, 16 * 1024);
	do {
		buf_reserve(&text, 16 * 1024);
		got = fread(text.data + text.len, 1, 16 * 1024, file);
		text.len += got;
	} while (got > 0 && text.len <= FILE_BYTES_MAX);
	text.data[text.len] = '\0';
	*len = text.len;
	if (ferror(file) || text.len > FILE_BYTES_MAX || strlen(text.data) != text.len) {
		ctl_error("%s: %s", path,
			ferror(file) ? strerror(errno) : "not a text of at most 16 MiB");
		text.data = NULL;
	}
	fclose(file);
	return text.data;
}

/* The version of that number, made in its place when it is new. */
static struct migration *at_version(struct history *history, int version)
{
	size_t at = history->count;

	while (at > 0 && history->list[at - 1].version >= version)
		at--;
	if (at < history->count && history->list[at].version == version)
		return &history->list[at];
	if (history->count == history->size) {
		size_t size = history->size * 2 + 16;
		struct migration *list =
			arena_alloc(history->ctl->arena, size * sizeof(struct migration));

		for (size_t i = 0; i < history->count; i++)
			list[i] = history->list[i];
		history->list = list;
		history->size = size;
	}
	memmove(&history->list[at + 1], &history->list[at],
		(history->count - at) * sizeof(struct migration));
	history->count++;
	history->list[at] = (struct migration){ .version = version };
	return &history->list[at];
}

/* Takes one entry of the folder: 0001_name.up.sql, 0001_name.down.sql; others are passed over. */
static bool take_entry(struct history *history, const char *entry)
{
	struct arena *arena = history->ctl->arena;
	size_t number = strspn(entry, "0123456789");
	size_t len = strlen(entry);
	bool up = len > 7 && strcmp(entry + len - 7, ".up.sql") == 0;
	bool down = len > 9 && strcmp(entry + len - 9, ".down.sql") == 0;
	struct migration *migration;
	const char *path, *name;

	if (number == 0 || number > 9 || entry[number] != '_' || (!up && !down))
		return true;
	migration = at_version(history, atoi(entry));
	name = arena_strndup(arena, entry + number + 1, len - number - 1 - (up ? 7 : 9));
	path = arena_printf(arena, "%s/%s", history->dir, entry);
	if (migration->version == 0 || (up ? migration->up_file : migration->down_file) != NULL ||
		(migration->name != NULL && strcmp(migration->name, name) != 0)) {
		ctl_error("%s: another file has the same number: each version has one name, and "
			  "they count from 1",
			path);
		return false;
	}
	migration->name = name;
	if (up)
		migration->up_file = path;
	else
		migration->down_file = path;
	return true;
}

static bool read_folder(struct history *history)
{
	DIR *dir = opendir(history->dir);
	const struct dirent *entry;
	bool good = true;

	if (dir == NULL) {
		ctl_error("%s: %s: name the folder of the migrations with --dir", history->dir,
			strerror(errno));
		return false;
	}
	while (good && (entry = readdir(dir)) != NULL)
		good = take_entry(history, entry->d_name);
	closedir(dir);
	for (size_t i = 0; good && i < history->count; i++) {
		struct migration *migration = &history->list[i];
		uint8_t digest[32];
		size_t len;

		if (migration->up_file == NULL)
			continue;
		migration->up_sql = read_file(history->ctl, migration->up_file, &len);
		good = migration->up_sql != NULL;
		if (good &&
			EVP_Digest(migration->up_sql, len, digest, NULL, EVP_sha256(), NULL) != 1) {
			ctl_error("%s: SHA-256 is not to be had", migration->up_file);
			good = false;
		}
		if (good)
			hex_encode(digest, sizeof(digest), migration->checksum);
	}
	return good;
}

/* ---- The database ---- */

static enum db_status read_database(struct history *history)
{
	struct ctl *ctl = history->ctl;
	struct db_rows rows;
	enum db_status status = db_run(ctl->db, &has_table, NULL, 0, ctl->arena, &rows);

	if (status != DB_OK || !db_bool(&rows, 0, 0))
		return status;
	status = db_run(ctl->db, &read_applied, NULL, 0, ctl->arena, &rows);
	for (size_t row = 0; status == DB_OK && row < rows.count; row++) {
		struct migration *migration = at_version(history, (int)db_int(&rows, row, 0));

		if (migration->name == NULL)
			migration->name = db_text(&rows, row, 1);
		migration->applied_checksum = db_text(&rows, row, 2);
		migration->applied_at = db_text(&rows, row, 3);
	}
	return status;
}

static const char *state(const struct migration *migration)
{
	if (migration->applied_checksum == NULL)
		return migration->up_file != NULL ? "pending" : "missing";
	if (migration->up_file == NULL)
		return "missing";
	return strcmp(migration->checksum, migration->applied_checksum) == 0 ? "applied"
									     : "changed";
}

/* Whether folder and database tell one story: no gap, nothing missing or changed, no pending
 * version below an applied one. Says every fault. */
static bool check_history(const struct history *history)
{
	bool good = true, pending = false;
	int expected = 1;

	for (size_t i = 0; i < history->count; i++) {
		const struct migration *migration = &history->list[i];
		bool applied = migration->applied_checksum != NULL;

		for (; expected < migration->version && expected <= 9999; expected++) {
			ctl_error(
				"%s has no file of version %d: restore it", history->dir, expected);
			good = false;
		}
		expected = migration->version + 1;
		if (migration->up_file == NULL) {
			ctl_error("version %d (%s) has no .up.sql file in %s: restore it",
				migration->version, migration->name, history->dir);
			good = false;
		} else if (applied &&
			   strcmp(migration->checksum, migration->applied_checksum) != 0) {
			ctl_error("%s was changed after it was applied: restore it, and put the "
				  "change in a new migration",
				migration->up_file);
			good = false;
		} else if (applied && pending) {
			ctl_error("version %d is applied, but one before it is not: see aregctl "
				  "migrate status",
				migration->version);
			good = false;
		}
		pending = pending || !applied;
	}
	return good;
}

static int version_applied(const struct history *history)
{
	int version = 0;

	for (size_t i = 0; i < history->count; i++) {
		if (history->list[i].applied_checksum != NULL)
			version = history->list[i].version;
	}
	return version;
}

/* ---- The commands ---- */

/* Opens folder and database, under the lock unless only looking. */
static enum ctl_exit migrate_begin(
	struct ctl *ctl, const struct values *values, bool lock, struct history *history)
{
	struct db_rows rows;
	enum ctl_exit code;

	*history = (struct history){ .ctl = ctl, .dir = values->dir };
	if (history->dir == NULL)
		history->dir = AREG_SQL_DIR;
	if (!read_folder(history))
		return CTL_FAILED;
	if (history->count == 0) {
		ctl_error("%s holds no migration: name their folder with --dir", history->dir);
		return CTL_FAILED;
	}
	ctl_open_db(ctl, TIMEOUT_MS);
	if (lock && ((code = grants_load(ctl, history->dir, &history->grants)) != CTL_DONE ||
			    (code = grants_check(ctl)) != CTL_DONE))
		return code;
	/* Held until the connection is closed, at the end of the program. */
	if (lock && (db_run(ctl->db, &lock_run, NULL, 0, ctl->arena, &rows) != DB_OK ||
			    db_script(ctl->db, make_table) != DB_OK))
		return ctl_db_failed(ctl, "migrate");
	if (read_database(history) != DB_OK)
		return ctl_db_failed(ctl, "migrate");
	return CTL_DONE;
}

struct step {
	const struct history *history;
	const struct migration *migration;
	const char *sql;
	bool up;
};

static enum db_status apply(struct db *db, void *arg)
{
	const struct step *step = arg;
	struct arena *arena = step->history->ctl->arena;
	const char *params[] = { arena_printf(arena, "%d", step->migration->version),
		step->migration->name, step->migration->checksum };
	struct db_rows rows;
	/* Recorded first: a version that is applied already then fails before its SQL runs. */
	enum db_status status = step->up ? db_run(db, &record_up, params, 3, arena, &rows)
					 : db_run(db, &record_down, params, 1, arena, &rows);

	if (status == DB_OK)
		status = db_script(db, step->sql);
	/* With it: aregd, which goes on, may meet a new trigger that writes to a new table. */
	return status == DB_OK ? grants_give(step->history->ctl, step->history->grants) : status;
}

/* Also where nothing was applied: the role may be another than before. */
static enum db_status grant(struct db *db, void *arg)
{
	const struct history *history = arg;

	(void)db;
	return grants_give(history->ctl, history->grants);
}

/* Applies one step and says so to people. */
static enum ctl_exit take_step(struct step *step)
{
	struct ctl *ctl = step->history->ctl;
	const struct migration *migration = step->migration;

	if (db_transact(ctl->db, apply, step) != DB_OK) {
		(void)ctl_db_failed(ctl,
			arena_printf(ctl->arena, "%s %04d_%s", step->up ? "applying" : "undoing",
				migration->version, migration->name));
		return CTL_FAILED;
	}
	if (!ctl->json) {
		printf("%s %04d_%s\n", step->up ? "applied" : "undid", migration->version,
			migration->name);
		fflush(stdout);
	}
	return CTL_DONE;
}

/* {"from": version before, "to": version after}, or a line for people when nothing was done. */
static void migrate_report(struct ctl *ctl, int from, int to)
{
	if (ctl->json)
		printf("{\"from\":%d,\"to\":%d}\n", from, to);
	else if (from == to)
		printf("nothing to do: the schema is at version %d\n", to);
	else
		printf("the schema is at version %d\n", to);
}

/* Reads --to into *to, which holds what to take without it. */
static bool parse_to(const struct values *values, int *to)
{
	char *end;
	long number;

	if (values->to == NULL)
		return true;
	errno = 0;
	number = strtol(values->to, &end, 10);
	if (values->to[0] < '0' || values->to[0] > '9' || *end != '\0' || errno != 0 ||
		number > 999999999) {
		ctl_error("--to %s: not the number of a version", values->to);
		return false;
	}
	*to = (int)number;
	return true;
}

static enum ctl_exit migrate_up(struct ctl *ctl, const void *arg)
{
	const struct values *values = arg;
	struct history history;
	int to = 999999999, from, at;
	enum ctl_exit code;

	if (!parse_to(values, &to))
		return CTL_USAGE;
	code = migrate_begin(ctl, values, true, &history);
	if (code != CTL_DONE)
		return code;
	if (!check_history(&history))
		return CTL_REFUSED;
	from = at = version_applied(&history);
	if (to < from) {
		ctl_error("the schema is at version %d already: to go back, aregctl migrate down "
			  "--to %d",
			from, to);
		return CTL_REFUSED;
	}
	if (values->to != NULL && to > history.list[history.count - 1].version) {
		ctl_error("there is no version %d in %s", to, history.dir);
		return CTL_REFUSED;
	}
	for (size_t i = 0; i < history.count && history.list[i].version <= to; i++) {
		struct step step = { &history, &history.list[i], history.list[i].up_sql, true };

		if (history.list[i].applied_checksum != NULL)
			continue;
		code = take_step(&step);
		if (code != CTL_DONE)
			return code;
		at = history.list[i].version;
	}
	if (db_script(ctl->db, resume_events) != DB_OK ||
		db_transact(ctl->db, grant, &history) != DB_OK)
		return ctl_db_failed(ctl, "migrate");
	migrate_report(ctl, from, at);
	return CTL_DONE;
}

static enum ctl_exit migrate_down(struct ctl *ctl, const void *arg)
{
	const struct values *values = arg;
	struct history history;
	int to = 0, from;
	size_t len;
	enum ctl_exit code;

	if (values->to == NULL) {
		ctl_error("migrate down needs --to N, the version to go back to; tables made "
			  "after it are dropped with what is in them");
		return CTL_USAGE;
	}
	if (!parse_to(values, &to))
		return CTL_USAGE;
	code = migrate_begin(ctl, values, true, &history);
	if (code != CTL_DONE)
		return code;
	if (!check_history(&history))
		return CTL_REFUSED;
	from = version_applied(&history);
	if (to > from) {
		ctl_error("the schema is at version %d: version %d is not below it", from, to);
		return CTL_REFUSED;
	}
	for (int version = from; version > to; version--) {
		const struct migration *migration = at_version(&history, version);
		struct step step = { &history, migration, NULL, false };

		if (migration->down_file == NULL) {
			ctl_error("version %d (%s) has no .down.sql file in %s: it cannot be "
				  "undone",
				version, migration->name, history.dir);
			return CTL_REFUSED;
		}
		step.sql = read_file(ctl, migration->down_file, &len);
		if (step.sql == NULL)
			return CTL_FAILED;
		code = take_step(&step);
		if (code != CTL_DONE)
			return code;
	}
	migrate_report(ctl, from, to);
	return CTL_DONE;
}

static void print_status_json(struct ctl *ctl, const struct history *history)
{
	struct json_out out;
	struct buf buf;

	buf_init(&buf, ctl->arena, 1024);
	json_out_init(&out, &buf);
	json_open_object(&out);
	json_integer(&out, "version", version_applied(history));
	json_key(&out, "migrations");
	json_open_array(&out);
	for (size_t i = 0; i < history->count; i++) {
		json_open_object(&out);
		json_integer(&out, "version", history->list[i].version);
		json_string(&out, "name", history->list[i].name);
		json_string(&out, "state", state(&history->list[i]));
		json_string(&out, "applied_at", history->list[i].applied_at);
		json_close_object(&out);
	}
	json_close_array(&out);
	json_close_object(&out);
	ctl_print_buf(&buf);
}

static enum ctl_exit migrate_status(struct ctl *ctl, const void *arg)
{
	static const char *const headings[] = { "VERSION", "NAME", "STATE", "APPLIED AT", NULL };
	struct history history;
	enum ctl_exit code = migrate_begin(ctl, arg, false, &history);

	if (code != CTL_DONE)
		return code;
	if (ctl->json) {
		print_status_json(ctl, &history);
	} else {
		struct text_table *table = text_table_new(ctl->arena, headings);

		for (size_t i = 0; i < history.count; i++) {
			const struct migration *migration = &history.list[i];
			const char *cells[] = { arena_printf(ctl->arena, "%d", migration->version),
				migration->name, state(migration), migration->applied_at };

			text_table_row(table, cells);
		}
		text_table_print(table, stdout);
	}
	return check_history(&history) ? CTL_DONE : CTL_REFUSED;
}

static const struct ctl_option options[] = {
	{ "dir", CTL_TEXT, offsetof(struct values, dir), "DIR",
		"folder of the .sql files; default " AREG_SQL_DIR },
	{ "to", CTL_TEXT, offsetof(struct values, to), "N", "version to stop at" },
};

#define UP(name_) \
	{ \
		name_, "", 0, "apply all migrations that the database has not seen yet", \
			"Each is applied whole or not at all. Several runs at once are safe. Runs as the\n" \
			"owner of the schema, and grants the role runtime_role what aregd needs.\n", \
			options, 2, sizeof(struct values), migrate_up \
	}

const struct ctl_command ctl_migrate_commands[] = {
	UP("migrate"),
	UP("migrate up"),
	{ "migrate down", "", 0, "undo migrations, the newest first, until version --to",
		"Drops tables and what is in them: make a backup first.\n", options, 2,
		sizeof(struct values), migrate_down },
	{ "migrate status", "", 0, "list the migrations and which of them are applied", NULL,
		options, 1, sizeof(struct values), migrate_status },
	{ .name = NULL },
};
