/* SPDX-License-Identifier: Apache-2.0 */
/* Connections of its own, closed again: it runs before workers are forked. */
#include "app/process/backend_checks.h"

#include <string.h>

#include "app/build.h"
#include "app/http/replicas.h"
#include "app/process/feedback_writer.h"
#include "lib/buf.h"
#include "lib/cache.h"
#include "lib/db.h"
#include "lib/db_reach.h"

enum { POOLER_QUESTIONS = 10 };

static const struct db_statement server_version = {
	.name = "",
	.effect = DB_READS,
	.sql = "SELECT current_setting('server_version'), "
	       "current_setting('server_version_num')::int, "
	       "to_regclass('schema_migrations') IS NOT NULL",
};

/* How many connections this role may have in all, beside those that are kept back. */
static const struct db_statement connections = {
	.name = "",
	.effect = DB_READS,
	.sql = "SELECT least("
	       "       (SELECT sum(CASE name WHEN 'max_connections' THEN 1 ELSE -1 END * setting::int)"
	       "          FROM pg_settings WHERE name IN ('max_connections',"
	       "               'superuser_reserved_connections', 'reserved_connections')),"
	       "       (SELECT nullif(rolconnlimit, -1) FROM pg_roles WHERE rolname = current_user),"
	       "       (SELECT nullif(datconnlimit, -1) FROM pg_database"
	       "         WHERE datname = current_database()))",
};

static const struct db_statement schema_version = {
	.name = "",
	.effect = DB_READS,
	.sql = "SELECT coalesce(max(version), 0) FROM schema_migrations",
};

/* What PostgreSQL sorts by itself never changes. */
static const struct db_statement database_locale = {
	.name = "",
	.effect = DB_READS,
	.sql = "SELECT current_database(), current_setting('server_encoding'), datcollate,"
	       " datlocprovider = 'b'"
	       "  OR datlocprovider = 'c' AND datcollate ~* '^(C|POSIX|C[.]utf-?8)$' "
	       "FROM pg_database WHERE datname = current_database()",
};
enum { DATABASE, ENCODING, COLLATION, SORTS_BY_BYTES };

/* Whether the role may read and append to the log as it must, and whether it could do more to it. */
static const struct db_statement privileges = {
	.name = "",
	.effect = DB_READS,
	.sql = "SELECT current_user, pg_get_userbyid(relowner),"
	       " has_table_privilege(oid, 'SELECT') AND has_table_privilege(oid, 'INSERT')"
	       "  AND has_table_privilege('schema_migrations', 'SELECT'),"
	       " pg_has_role(relowner, 'MEMBER') OR has_table_privilege(oid, 'UPDATE')"
	       "  OR has_table_privilege(oid, 'DELETE') OR has_table_privilege(oid, 'TRUNCATE') "
	       "FROM pg_class WHERE oid = to_regclass('audit_log')",
};

static const struct db_statement backend = {
	.name = "", .effect = DB_READS, .sql = "SELECT pg_backend_pid()"
};

/* Whether a pooler lends one process of the server to one transaction after the other. Then
 * LISTEN hears nothing, and what was prepared or set in a session is not there, or somebody else's.
 *
 * Two connections are open at the same time: behind such a pooler both are served by the same process
 * or, while others use the pooler too, each by one and then by another. One question may miss such a pooler by chance, so ten are asked. */
static bool shares_sessions(struct arena *arena, struct db *db, const struct db_options *options,
	struct backend_report *report)
{
	struct db *other = db_new(options);
	struct db_rows rows;
	long long mine = 0, theirs = 0;
	uint64_t reconnects = 0,
		 connected; /* how often, both; at the last question and at this one */
	bool shares = false;

	for (int i = 0; i < POOLER_QUESTIONS && !shares; i++) {
		const long long mine_before = mine, theirs_before = theirs;

		if (db_run(db, &backend, NULL, 0, arena, &rows) != DB_OK)
			break;
		mine = db_int(&rows, 0, 0);
		if (db_run(other, &backend, NULL, 0, arena, &rows) != DB_OK) {
			report->warning = arena_printf(arena,
				"whether a pooler shares sessions was not found out, for there was no "
				"second connection: %s",
				db_last_error(other)->message);
			break;
		}
		theirs = db_int(&rows, 0, 0);
		connected = db_meter(db)->reconnects + db_meter(other)->reconnects;
		shares =
			mine == theirs || (i > 0 && connected == reconnects &&
						  (mine != mine_before || theirs != theirs_before));
		reconnects = connected;
	}
	db_free(other);
	return shares;
}

/* If the database sorts by the system's C library, an update of that library may change the order
 * and break the indexes of text. */
static void say_collation(
	struct arena *arena, const struct db_rows *locale, struct backend_report *report)
{
	report->state = BACKEND_USABLE;
	report->detail = arena_printf(arena,
		"%s; the database %s sorts text by %s, so an update of the system's C library may "
		"break its indexes: make it anew by createdb -O OWNER -E UTF8 -T template0 "
		"--locale=C.UTF-8 %s, and restore a dump",
		report->detail, db_text(locale, 0, DATABASE), db_text(locale, 0, COLLATION),
		db_text(locale, 0, DATABASE));
}

static enum db_status check_privileges(
	struct arena *arena, struct db *db, struct backend_report *report, bool *may_use)
{
	struct db_rows rows;
	enum db_status status = db_run(db, &privileges, NULL, 0, arena, &rows);

	*may_use = true;
	if (status != DB_OK || rows.count == 0)
		return status;
	*may_use = db_bool(&rows, 0, 2);
	if (!*may_use) {
		report->detail = arena_printf(arena,
			"%s; the role %s may not use the tables: set runtime_role = %s, and run "
			"runuser -u %s -- aregctl migrate",
			report->detail, db_text(&rows, 0, 0), db_text(&rows, 0, 0),
			db_text(&rows, 0, 1));
	} else if (db_bool(&rows, 0, 3)) {
		report->warning = arena_printf(arena,
			"the role %s owns the audit log or may change it: nothing protects the log "
			"from whoever takes over aregd; areg(7) makes a role that owns the tables",
			db_text(&rows, 0, 0));
	}
	return DB_OK;
}

static void check_database(
	struct arena *arena, const struct settings *settings, struct backend_report *report)
{
	const struct db_options options = { settings->database_url, "areg check",
		settings->database_connect_timeout_ms, settings->database_statement_timeout_ms,
		NULL, true };
	struct db *db = db_new(&options);
	struct db_rows rows, found;
	long long version = 0;
	bool may_use;

	*report = (struct backend_report){ .name = "database", .state = BACKEND_AWAY };
	if (db_run(db, &server_version, NULL, 0, arena, &rows) != DB_OK)
		goto failed;
	report->detail = arena_printf(arena, "PostgreSQL %s", db_text(&rows, 0, 0));
	report->state = BACKEND_IMPAIRED;
	if (db_int(&rows, 0, 1) < 150000) {
		report->detail = arena_printf(
			arena, "%s is too old: areg needs 15 or later", report->detail);
		goto done;
	}
	if (shares_sessions(arena, db, &options, report)) {
		report->detail = arena_printf(arena,
			"%s behind a pooler that shares sessions between clients: set its pool_mode "
			"to session, or name the server itself",
			report->detail);
		goto done;
	}
	if (db_run(db, &database_locale, NULL, 0, arena, &found) != DB_OK)
		goto failed;
	if (strcmp(db_text(&found, 0, ENCODING), "UTF8") != 0) {
		report->detail = arena_printf(arena,
			"%s; the database %s is in %s, which cannot hold every name: make it anew "
			"by createdb -O OWNER -E UTF8 -T template0 --locale=C.UTF-8 %s",
			report->detail, db_text(&found, 0, DATABASE), db_text(&found, 0, ENCODING),
			db_text(&found, 0, DATABASE));
		goto done;
	}
	if (db_bool(&rows, 0, 2)) {
		if (check_privileges(arena, db, report, &may_use) != DB_OK)
			goto failed;
		if (!may_use)
			goto done;
		if (db_run(db, &schema_version, NULL, 0, arena, &rows) != DB_OK)
			goto failed;
		version = db_int(&rows, 0, 0);
	}
	/* The schema of a newer release keeps everything that the previous program uses. */
	if (version >= AREG_SCHEMA_VERSION)
		report->state = version == AREG_SCHEMA_VERSION ? BACKEND_OK : BACKEND_USABLE;
	report->detail = arena_printf(arena,
		report->state == BACKEND_OK ? "%s, schema version %lld"
		: version < AREG_SCHEMA_VERSION
			? "%s, schema version %lld where this program needs "
			  "%d: run aregctl migrate"
			: "%s, schema version %lld is newer than this "
			  "program's %d: install the release that made it",
		report->detail, version, AREG_SCHEMA_VERSION);
	if (report->state <= BACKEND_USABLE && !db_bool(&found, 0, SORTS_BY_BYTES))
		say_collation(arena, &found, report);
	if (report->state == BACKEND_OK) {
		/* Beside the workers: the listener and the health process. */
		const size_t wanted = (size_t)settings->workers + writers_for(settings) + 2;

		if (db_run(db, &connections, NULL, 0, arena, &rows) != DB_OK)
			goto failed;
		if (db_int(&rows, 0, 0) < (int64_t)wanted) {
			report->state = BACKEND_USABLE;
			report->detail = arena_printf(arena,
				"%s, but %zu connections are needed for the workers, writers, the "
				"listener and health, twice that during a reload, and %lld can be "
				"had: lower workers, or raise max_connections",
				report->detail, wanted, (long long)db_int(&rows, 0, 0));
		}
	}
	goto done;
failed:
	report->state = BACKEND_AWAY;
	report->detail = arena_printf(arena, "%s: %s", db_last_error(db)->message,
		db_reach_advice(arena, db_reach(&options), "areg", "aregd -t"));
done:
	db_free(db);
}

static void check_memcached(
	struct arena *arena, const struct settings *settings, struct backend_report *report)
{
	const struct cache_options options = { settings->memcached_servers,
		settings->cache_timeout_ms, settings->cache_retry_ms, NULL, settings->cache_key };
	struct cache *cache = cache_new(&options);
	const size_t count = cache_server_count(cache);
	struct buf detail;

	*report = (struct backend_report){ .name = "memcached" };
	buf_init(&detail, arena, 256);
	if (count == 0)
		buf_puts(&detail, "none configured");
	for (size_t i = 0; i < count; i++) {
		const char *name = cache_server_name(cache, i);
		char version[32];

		buf_puts(&detail, i == 0 ? "" : "; ");
		if (cache_check_server(cache, i, version) == CACHE_HIT) {
			buf_printf(&detail, "memcached %s at %s", version, name);
		} else {
			buf_printf(&detail, "%s does not answer", name);
			report->state = BACKEND_USABLE;
		}
	}
	if (report->state == BACKEND_USABLE)
		buf_puts(&detail, ": everything works without, only slower; check "
				  "memcached_servers, and that memcached runs");
	report->detail = arena_strdup(arena, detail.data);
	cache_free(cache);
}

static void check_replica(
	struct arena *arena, struct replicas *replicas, size_t at, struct backend_report *report)
{
	struct replica_report found;

	replicas_look(replicas, at, arena, &found);
	*report = (struct backend_report){ .name = arena_printf(arena, "replica %zu", at + 1),
		.state = BACKEND_USABLE };
	if (!found.is_reachable)
		report->detail = arena_printf(arena,
			"%s: reads go elsewhere; check database_read, and that it runs",
			found.version);
	else if (!found.is_replica)
		report->detail = "this is no replica, and is not asked: check database_read";
	else if (found.schema_version != AREG_SCHEMA_VERSION)
		report->detail = arena_printf(arena,
			"PostgreSQL %s, schema version %lld where this program needs %d: does it "
			"replay the log of database_url?",
			found.version, (long long)found.schema_version, AREG_SCHEMA_VERSION);
	else
		*report = (struct backend_report){ report->name, BACKEND_OK,
			arena_printf(arena, "PostgreSQL %s, %lld ms behind", found.version,
				(long long)found.lag_ms),
			NULL };
}

size_t backends_check(struct arena *arena, const struct settings *settings,
	struct backend_report reports[BACKENDS_MAX])
{
	struct replicas *replicas = replicas_new(settings, NULL, 0, "areg check", NULL);
	const size_t count = replicas_count(replicas);

	check_database(arena, settings, &reports[0]);
	check_memcached(arena, settings, &reports[1]);
	for (size_t i = 0; i < count; i++)
		check_replica(arena, replicas, i, &reports[2 + i]);
	replicas_free(replicas);
	return 2 + count;
}
