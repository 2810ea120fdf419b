/* SPDX-License-Identifier: Apache-2.0 */
#include "app/ctl/grants.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { FILE_BYTES_MAX = 1024 * 1024 };

/* The owner is that of the tables, once there are some. */
static const struct db_statement look = {
	.name = "grants_look",
	.sql = "SELECT current_user, current_database(), current_setting('server_encoding'),"
	       " owner.name, pg_has_role(owner.id, 'USAGE')"
	       "  AND coalesce(has_schema_privilege(current_schema(), 'CREATE'), true),"
	       " EXISTS (SELECT FROM pg_roles WHERE rolname = $1) "
	       "FROM (SELECT id, pg_get_userbyid(id) AS name FROM (SELECT coalesce("
	       "  (SELECT relowner FROM pg_class WHERE oid = to_regclass('schema_migrations')),"
	       "  (SELECT datdba FROM pg_database WHERE datname = current_database())) AS id) AS o)"
	       " AS owner",
	.effect = DB_READS,
};
enum { ROLE, DATABASE, ENCODING, OWNER, MAY_MIGRATE, RUNTIME_EXISTS };

enum ctl_exit grants_check(struct ctl *ctl)
{
	const char *runtime = ctl->settings.runtime_role;
	const char *encoding, *database;
	struct db_rows rows;

	if (db_run(ctl->db, &look, &runtime, 1, ctl->arena, &rows) != DB_OK)
		return ctl_db_failed(ctl, "migrate");
	database = db_text(&rows, 0, DATABASE);
	encoding = db_text(&rows, 0, ENCODING);
	if (strcmp(encoding, "UTF8") != 0) {
		ctl_error("the database %s is in %s, which cannot hold every name: make it anew by "
			  "createdb -O %s -E UTF8 -T template0 --locale=C.UTF-8 %s",
			database, encoding, db_text(&rows, 0, OWNER), database);
		return CTL_REFUSED;
	}
	if (!db_bool(&rows, 0, MAY_MIGRATE)) {
		ctl_error("the role %s may not change the schema of %s: run aregctl migrate as its "
			  "owner, as in runuser -u %s -- aregctl migrate",
			db_text(&rows, 0, ROLE), database, db_text(&rows, 0, OWNER));
		return CTL_REFUSED;
	}
	if (!db_bool(&rows, 0, RUNTIME_EXISTS)) {
		ctl_error("runtime_role: PostgreSQL has no role %s for aregd: make it by "
			  "runuser -u postgres -- createuser %s, or name another in areg.conf",
			runtime, runtime);
		return CTL_REFUSED;
	}
	return CTL_DONE;
}

static const struct db_statement name_role = {
	.name = "grants_name",
	.sql = "SELECT set_config('areg.runtime_role', $1, true), current_user = $1",
	.effect = DB_READS,
};

/* The text of a file; NULL when it is not there (errno is ENOENT) or not to be read. */
static const char *grants_text_of(struct ctl *ctl, const char *path)
{
	FILE *file = fopen(path, "re");
	char *text;
	size_t len;

	if (file == NULL)
		return NULL;
	text = arena_alloc(ctl->arena, FILE_BYTES_MAX + 1);
	len = fread(text, 1, FILE_BYTES_MAX, file);
	text[len] = '\0';
	if (ferror(file) || !feof(file)) {
		errno = ferror(file) ? EIO : EFBIG;
		text = NULL;
	}
	fclose(file);
	return text;
}

enum ctl_exit grants_load(struct ctl *ctl, const char *dir, const char **sql)
{
	const char *path = arena_printf(ctl->arena, "%s/grants.sql", dir);

	*sql = grants_text_of(ctl, path);
	if (*sql != NULL || errno == ENOENT)
		return CTL_DONE;
	ctl_error("%s: %s", path, strerror(errno));
	return CTL_FAILED;
}

enum db_status grants_give(struct ctl *ctl, const char *sql)
{
	const char *runtime = ctl->settings.runtime_role;
	struct db_rows rows;
	enum db_status status;

	if (sql == NULL)
		return DB_OK;
	status = db_run(ctl->db, &name_role, &runtime, 1, ctl->arena, &rows);
	if (status != DB_OK || db_bool(&rows, 0, 1))
		return status;
	return db_script(ctl->db, sql);
}
