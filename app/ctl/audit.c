/* SPDX-License-Identifier: Apache-2.0 */
/* aregctl audit: shows the log of changes, hands it out; audit_verify.c finds out whether it was changed. */
#include "app/ctl/audit.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/rfc3339.h"

enum {
	LIST_DEFAULT = 50,
	LIST_MOST = 10000,
};

struct values {
	const char *since, *until, *actor, *user, *action, *subject, *limit, *expect;
};

static const struct ctl_column columns[] = {
	{ "id", "ID", CTL_RAW },
	{ "at", "AT", CTL_STRING },
	{ "actor_user", NULL, CTL_STRING },
	{ "actor", "ACTOR", CTL_STRING },
	{ "action", "ACTION", CTL_STRING },
	{ "subject_type", "SUBJECT", CTL_STRING },
	{ "subject_id", "SUBJECT ID", CTL_STRING },
	{ "before", NULL, CTL_RAW },
	{ "after", NULL, CTL_RAW },
	{ "request_id", "REQUEST", CTL_STRING },
	{ "client_address", "CLIENT", CTL_STRING },
	{ "lane", NULL, CTL_STRING },
	{ "lane_seq", NULL, CTL_RAW },
	{ "hash", NULL, CTL_STRING },
};
static const size_t column_count = sizeof(columns) / sizeof(columns[0]);

#define FILTER \
	"($1::timestamptz IS NULL OR at >= $1) AND ($2::timestamptz IS NULL OR at < $2)" \
	" AND ($3::text IS NULL OR actor = $3)" \
	" AND (($4::uuid IS NULL AND $5::text IS NULL) OR actor_user = $4" \
	"  OR actor_user = (SELECT u.id FROM users u WHERE u.wallet_address = $5))" \
	" AND ($6::text IS NULL OR action = $6)" \
	" AND ($7::text IS NULL OR (subject_type = $7 AND subject_id = $8))"
enum { FILTER_PARAMS = 8 };

static const struct db_statement list_entries = {
	.name = "ctl_audit_list",
	.sql = "SELECT " ENTRY_COLUMNS " FROM audit_log WHERE " FILTER " ORDER BY id DESC LIMIT $9",
	.effect = DB_READS,
};

static const struct db_statement export_entries = {
	.name = "ctl_audit_export",
	.sql = "SELECT " ENTRY_COLUMNS " FROM audit_log WHERE " FILTER
	       " AND id > $9 ORDER BY id LIMIT 200",
	.effect = DB_READS,
};

static bool audit_check_time(const char *option, const char *text)
{
	const char *why;

	if (text == NULL || rfc3339_check(text, &why))
		return true;
	ctl_error("--%s %s: %s", option, text, why);
	return false;
}

/* Puts the options into params[0..FILTER_PARAMS), as FILTER takes them. */
static bool audit_read_filter(struct ctl *ctl, const struct values *values, const char **params)
{
	struct ctl_user_name user = { NULL, NULL };

	if (!audit_check_time("since", values->since) || !audit_check_time("until", values->until))
		return false;
	if (values->user != NULL && !ctl_parse_user(ctl, values->user, &user))
		return false;
	params[0] = values->since;
	params[1] = values->until;
	params[2] = values->actor;
	params[3] = user.id;
	params[4] = user.wallet;
	params[5] = values->action;
	if (values->subject != NULL) {
		const char *colon = strchr(values->subject, ':');

		if (colon == NULL) {
			ctl_error("--subject %s: not a type, a colon and an id, such as agent:%s",
				values->subject, "6a0d7f0e-…");
			return false;
		}
		params[6] = arena_strndup(
			ctl->arena, values->subject, (size_t)(colon - values->subject));
		params[7] = colon + 1;
	}
	return true;
}

static enum ctl_exit audit_list(struct ctl *ctl, const void *arg)
{
	const struct values *values = arg;
	const char *params[FILTER_PARAMS + 1] = { NULL };
	int64_t limit = LIST_DEFAULT;
	struct db_rows rows;

	if (!audit_read_filter(ctl, values, params))
		return CTL_USAGE;
	if (values->limit != NULL &&
		(!audit_read_number(values->limit, LIST_MOST, &limit) || limit == 0)) {
		ctl_error("--limit %s: not within 1..%d; aregctl audit export has no limit",
			values->limit, LIST_MOST);
		return CTL_USAGE;
	}
	params[FILTER_PARAMS] = arena_printf(ctl->arena, "%" PRId64, limit);
	ctl_open_db_to_read(ctl, AUDIT_TIMEOUT_MS);
	if (db_run(ctl->db, &list_entries, params, FILTER_PARAMS + 1, ctl->arena, &rows) != DB_OK)
		return ctl_db_failed(ctl, "audit list");
	ctl_print_rows(ctl, &rows, columns, column_count, "no such entries");
	return CTL_DONE;
}

/* One line of JSON for each entry, whatever --json says; a batch at a time in memory. */
static enum ctl_exit audit_export(struct ctl *ctl, const void *arg)
{
	const char *params[FILTER_PARAMS + 1] = { NULL };
	char last_id[24] = "-9223372036854775808";
	struct arena *arena;
	struct db_rows rows;
	enum db_status status;

	if (!audit_read_filter(ctl, arg, params))
		return CTL_USAGE;
	params[FILTER_PARAMS] = last_id;
	ctl_open_db_to_read(ctl, AUDIT_TIMEOUT_MS);
	arena = ctl_arena(AUDIT_BATCH_BYTES);
	while ((status = db_run(ctl->db, &export_entries, params, FILTER_PARAMS + 1, arena,
			&rows)) == DB_OK &&
		rows.count > 0 && !ferror(stdout)) {
		for (size_t row = 0; row < rows.count; row++)
			ctl_print_json_line(arena, &rows, row, columns, column_count);
		snprintf(last_id, sizeof(last_id), "%s", db_text(&rows, rows.count - 1, ID));
		arena_reset(arena);
	}
	arena_free(arena);
	return status == DB_OK ? CTL_DONE : ctl_db_failed(ctl, "audit export");
}

static enum ctl_exit audit_verify(struct ctl *ctl, const void *arg)
{
	const struct values *values = arg;

	return audit_log_verify(ctl, values->expect);
}

#define FILTER_OPTIONS \
	{ "since", CTL_TEXT, offsetof(struct values, since), "TIME", \
		"RFC 3339: entries of that time and after" }, \
		{ "until", CTL_TEXT, offsetof(struct values, until), "TIME", \
			"entries before it" }, \
		{ "actor", CTL_TEXT, offsetof(struct values, actor), "ACTOR", \
			"a key's prefix, or aregctl:NAME" }, \
		{ "user", CTL_TEXT, offsetof(struct values, user), "ID|WALLET", \
			"what this user did with any key" }, \
		{ "action", CTL_TEXT, offsetof(struct values, action), "ACTION", \
			"such as agent.register" }, \
	{ \
		"subject", CTL_TEXT, offsetof(struct values, subject), "TYPE:ID", \
			"what was changed, such as agent:UUID" \
	}

static const struct ctl_option list_options[] = {
	FILTER_OPTIONS,
	{ "limit", CTL_TEXT, offsetof(struct values, limit), "N", "at most that many; default 50" },
};

static const struct ctl_option export_options[] = { FILTER_OPTIONS };

static const struct ctl_option verify_options[] = {
	{ "expect", CTL_TEXT, offsetof(struct values, expect), "POSITION:HASH",
		"a head noted before: it must still be there" },
};

const struct ctl_command ctl_audit_commands[] = {
	{ "audit list", "", 0, "show the newest entries of the log of changes", NULL, list_options,
		sizeof(list_options) / sizeof(list_options[0]), sizeof(struct values), audit_list },
	{ "audit export", "", 0, "print entries as JSON Lines, the oldest first", NULL,
		export_options, sizeof(export_options) / sizeof(export_options[0]),
		sizeof(struct values), audit_export },
	{ "audit verify", "", 0, "find out whether anybody tampered with the log",
		"Exit status 0 when it is intact, 3 when not: then one line for each finding.\n"
		"Note the head that it prints elsewhere, and give it to a later run with --expect.\n",
		verify_options, 1, sizeof(struct values), audit_verify },
	{ .name = NULL },
};
