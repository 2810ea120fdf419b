/* SPDX-License-Identifier: Apache-2.0 */
/* Triggers write the events; sql/0010_events.up.sql says why their order can be resumed from. The
 * cursor is "place.id" of the last event seen. Old events are deleted in the same order, so a
 * cursor is too old if it lies before the last deleted event. */
#include "app/api/events.h"

#include <string.h>

#include "app/http/paging.h"
#include "app/problem_list.h"
#include "lib/row_json.h"

/* Returns at least one row; its event columns are null if there is no event. With a null $1 the
 * list begins with the oldest event. */
static const struct db_statement list_events = {
	.name = "events_list",
	.effect = DB_READS,
	.sql = "SELECT e.place || '.' || e.id, e.type, rfc3339(e.at), e.agent_uuid, e.subject,"
	       "       p.place || '.' || p.id,"
	       "       coalesce((p.place, p.id) > ($1::bigint, $2::bigint), false)"
	       "  FROM erc8004_events_pruned p LEFT JOIN LATERAL ("
	       "    SELECT * FROM erc8004_events"
	       "     WHERE (place, id) > (coalesce($1::bigint, 0), coalesce($2::bigint, 0))"
	       "       AND place < areg_event_horizon()"
	       "     ORDER BY place, id LIMIT $3::bigint) AS e ON true"
	       " ORDER BY e.place, e.id",
};
enum { PRUNED_CURSOR = 5, IS_GONE };

/* Whatever is not shown yet stands at the horizon or behind it. */
static const struct db_statement find_end = {
	.name = "events_find_end",
	.effect = DB_READS,
	.sql = "SELECT areg_event_horizon() || '.0'",
};

static const struct column event_columns[] = { { "cursor", COLUMN_TEXT }, { "type", COLUMN_TEXT },
	{ "at", COLUMN_TEXT }, { "agent_uuid", COLUMN_TEXT }, { "subject", COLUMN_TEXT } };
enum { EVENT_COLUMN_COUNT = sizeof event_columns / sizeof event_columns[0], EVENT_CURSOR = 0 };

static const char *const params[] = { "after", "limit", NULL };
const struct route_input events_list_input = { .params = params };

/* Digits that fit a bigint, without needless zeros. Returns how many, 0 when it is no such number. */
static size_t number_length(const char *text)
{
	size_t digits = strspn(text, "0123456789");

	return digits > 18 || (digits > 1 && *text == '0') ? 0 : digits;
}

static bool is_cursor(const char *text)
{
	size_t place = number_length(text), id;

	if (place == 0 || text[place] != '.')
		return false;
	id = number_length(text + place + 1);
	return id > 0 && text[place + 1 + id] == '\0';
}

static void write_events(struct call *call, const struct db_rows *rows, size_t count, size_t limit,
	const char *next_after)
{
	const int days = call->context->settings->event_retention_days;
	size_t shown = count > limit ? limit : count;
	struct json_out out = call_answer(call, 200);

	json_open_object(&out);
	shown = page_write_rows(&out, "events", event_columns, EVENT_COLUMN_COUNT, rows, shown, 0);
	json_string(&out, "next_after",
		shown == 0 ? next_after : db_text(rows, shown - 1, EVENT_CURSOR));
	json_flag(&out, "has_more", count > shown);
	json_raw(
		&out, "retention_days", days == 0 ? "null" : arena_printf(call->arena, "%d", days));
	json_close_object(&out);
}

/* For a reader that wants what comes from now on. */
static void answer_end(struct call *call)
{
	const struct db_rows none = { 0 };
	struct db_rows rows;
	enum db_status status = call_read(call, &find_end, NULL, 0, &rows);

	if (status != DB_OK)
		call_db_failed(call, status);
	else
		write_events(call, &none, 0, 0, db_text(&rows, 0, 0));
}

/* after == NULL: from the oldest that is kept on. */
static void answer_after(struct call *call, const char *after, size_t limit)
{
	const char *dot = after == NULL ? NULL : strchr(after, '.');
	const char *values[] = {
		dot == NULL ? NULL : arena_strndup(call->arena, after, (size_t)(dot - after)),
		dot == NULL ? NULL : dot + 1, arena_printf(call->arena, "%zu", limit + 1)
	};
	struct db_rows rows;
	enum db_status status = call_read(call, &list_events, values, 3, &rows);

	if (status != DB_OK)
		call_db_failed(call, status);
	else if (db_bool(&rows, 0, IS_GONE))
		call_problem(call, PROBLEM_EVENTS_GONE,
			"Changes behind this place are not kept any more. Ask with after=now, keep "
			"next_after, read anew what you follow, and go on from there.");
	else
		write_events(call, &rows, db_text(&rows, 0, EVENT_CURSOR) == NULL ? 0 : rows.count,
			limit, after == NULL ? db_text(&rows, 0, PRUNED_CURSOR) : after);
}

void events_list(struct call *call)
{
	const char *after = call_param(call, "after");
	struct faults faults;
	size_t limit;

	faults_init(&faults, call->arena, PROBLEM_VALIDATION_FAILED);
	call_params(call, &faults);
	if (after != NULL && strcmp(after, "now") != 0 && !is_cursor(after))
		fault_add(&faults, PROBLEM_VALIDATION_FAILED, "after",
			"is neither now nor the next_after or cursor of events");
	limit = page_number(call, "limit", 1, PAGE_LIMIT_MAX, PAGE_LIMIT_DEFAULT, &faults);
	if (faults.count > 0)
		call_refuse(call, &faults);
	else if (after != NULL && strcmp(after, "now") == 0)
		answer_end(call);
	else
		answer_after(call, after, limit);
}
