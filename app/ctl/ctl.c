/* SPDX-License-Identifier: Apache-2.0 */
/* Functions that the commands of aregctl share. */
#include "app/ctl/ctl.h"

#include <inttypes.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/cache/callers.h"
#include "app/ctl/text_table.h"
#include "lib/db_reach.h"
#include "lib/json_in.h"
#include "lib/utf8.h"

/* An administrator can wait longer for a busy server than a request can. */
enum { CONNECT_MS = 10000 };

void ctl_error(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fputs("aregctl: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
}

static void out_of_memory(void *unused)
{
	(void)unused;
	ctl_error("out of memory");
	exit(CTL_FAILED);
}

struct arena *ctl_arena(size_t limit)
{
	struct arena *arena = arena_new(64 * 1024, limit);

	arena_on_exhaustion(arena, out_of_memory, NULL);
	return arena;
}

void ctl_open_db(struct ctl *ctl, int timeout_ms)
{
	ctl_open_db_to_read(ctl, timeout_ms);
	ctl->db_options.read_write = true;
}

void ctl_open_db_to_read(struct ctl *ctl, int timeout_ms)
{
	const int configured_ms = ctl->settings.database_connect_timeout_ms;

	ctl->db_options = (struct db_options){ ctl->settings.database_url, "aregctl",
		configured_ms > CONNECT_MS ? configured_ms : CONNECT_MS, timeout_ms, NULL, false };
	ctl->db = db_new(&ctl->db_options);
}

enum ctl_exit ctl_db_failed(const struct ctl *ctl, const char *doing)
{
	const struct db_error *error = db_last_error(ctl->db);

	/* undefined_table, undefined_column, undefined_function, undefined_object */
	if (strcmp(error->sqlstate, "42P01") == 0 || strcmp(error->sqlstate, "42703") == 0 ||
		strcmp(error->sqlstate, "42883") == 0 || strcmp(error->sqlstate, "42704") == 0) {
		ctl_error("%s: the database has not been set up or is behind this program: run "
			  "aregctl migrate (%s)",
			doing, error->message);
		return CTL_FAILED;
	}
	if (strcmp(error->sqlstate, "42501") == 0) { /* insufficient_privilege */
		ctl_error("%s: the role that database_url names may not do that (%s): what is the "
			  "owner's, run as the owner; aregctl migrate grants the rest to "
			  "runtime_role, which is %s",
			doing, error->message, ctl->settings.runtime_role);
		return CTL_FAILED;
	}
	switch (error->status) {
	case DB_UNAVAILABLE:
		ctl_error("%s: the database cannot be used: %s\n"
			  "         %s (configuration: %s)",
			doing, error->message,
			db_reach_advice(ctl->arena, db_reach(&ctl->db_options),
				strncmp(doing, "migrate", 7) == 0 ? "areg_owner" : "areg",
				"aregctl ..."),
			ctl->settings.source != NULL ? ctl->settings.source : "none");
		return CTL_FAILED;
	case DB_OUTCOME_UNKNOWN:
		ctl_error("%s: the connection was lost while the change was being committed: look "
			  "whether it was made before trying again (%s)",
			doing, error->message);
		return CTL_FAILED;
	case DB_TIMEOUT:
	case DB_CONFLICT:
		ctl_error("%s: others kept the database busy; nothing was changed, try again (%s)",
			doing, error->message);
		return CTL_FAILED;
	case DB_CALLER:
		ctl_error("%s: refused by the database: %s", doing, error->message);
		return CTL_REFUSED;
	default:
		ctl_error("%s: %s", doing, error->message);
		return CTL_FAILED;
	}
}

const char *ctl_actor(struct ctl *ctl)
{
	/* The name that was logged in with outlives su and sudo; a daemon or container has none. */
	const char *name = getlogin();
	const struct passwd *user = name == NULL ? getpwuid(getuid()) : NULL;

	if (name != NULL)
		return arena_printf(ctl->arena, "aregctl:%s", utf8_shown(ctl->arena, name));
	if (user != NULL)
		return arena_printf(
			ctl->arena, "aregctl:%s", utf8_shown(ctl->arena, user->pw_name));
	return arena_printf(ctl->arena, "aregctl:%lu", (unsigned long)getuid());
}

static void put_json(struct arena *arena, struct json_out *out, const struct ctl_column *column,
	const char *value)
{
	char *word, *rest;

	json_key(out, column->key);
	if (value == NULL) {
		json_put_null(out);
		return;
	}
	switch (column->kind) {
	case CTL_STRING:
		json_put_string(out, value);
		break;
	case CTL_RAW:
		json_put_raw(out, value);
		break;
	case CTL_BOOL:
		json_put_bool(out, value[0] == 't');
		break;
	case CTL_WORDS:
		json_open_array(out);
		rest = arena_strdup(arena, value);
		while ((word = strsep(&rest, " ")) != NULL) {
			if (word[0] != '\0')
				json_put_string(out, word);
		}
		json_close_array(out);
		break;
	}
}

static void ctl_put_object(struct arena *arena, struct json_out *out, const struct db_rows *rows,
	size_t row, const struct ctl_column *columns, size_t count)
{
	json_open_object(out);
	for (size_t i = 0; i < count; i++)
		put_json(arena, out, &columns[i], db_text(rows, row, (int)i));
	json_close_object(out);
}

/* The cell as people read it; NULL and "" become "-". */
static const char *readable(const struct ctl_column *column, const char *value)
{
	if (value == NULL || value[0] == '\0')
		return "-";
	if (column->kind == CTL_BOOL)
		return value[0] == 't' ? "yes" : "no";
	return value;
}

void ctl_print_rows(struct ctl *ctl, const struct db_rows *rows, const struct ctl_column *columns,
	size_t count, const char *nothing)
{
	const char *cells[TABLE_COLUMNS_MAX + 1] = { NULL };
	struct text_table *table;
	size_t used = 0;

	if (ctl->json) {
		struct json_out out;
		struct buf buf;

		buf_init(&buf, ctl->arena, 4096);
		json_out_init(&out, &buf);
		json_open_array(&out);
		for (size_t row = 0; row < rows->count; row++)
			ctl_put_object(ctl->arena, &out, rows, row, columns, count);
		json_close_array(&out);
		ctl_print_buf(&buf);
		return;
	}
	if (rows->count == 0) {
		printf("%s\n", nothing);
		return;
	}
	for (size_t i = 0; i < count; i++) {
		if (columns[i].heading != NULL)
			cells[used++] = columns[i].heading;
	}
	table = text_table_new(ctl->arena, cells);
	for (size_t row = 0; row < rows->count; row++) {
		used = 0;
		for (size_t i = 0; i < count; i++) {
			if (columns[i].heading != NULL)
				cells[used++] = readable(&columns[i], db_text(rows, row, (int)i));
		}
		text_table_row(table, cells);
	}
	text_table_print(table, stdout);
}

void ctl_print_row(
	struct ctl *ctl, const struct db_rows *rows, const struct ctl_column *columns, size_t count)
{
	size_t widest = 0;

	if (ctl->json) {
		struct json_out out;
		struct buf buf;

		buf_init(&buf, ctl->arena, 4096);
		json_out_init(&out, &buf);
		ctl_put_object(ctl->arena, &out, rows, 0, columns, count);
		ctl_print_buf(&buf);
		return;
	}
	for (size_t i = 0; i < count; i++) {
		if (columns[i].heading != NULL && strlen(columns[i].heading) > widest)
			widest = strlen(columns[i].heading);
	}
	for (size_t i = 0; i < count; i++) {
		if (columns[i].heading != NULL)
			printf("%s:%*s%s\n", columns[i].heading,
				(int)(widest - strlen(columns[i].heading)) + 1, "",
				table_cell(ctl->arena,
					readable(&columns[i], db_text(rows, 0, (int)i))));
	}
}

void ctl_print_json_line(struct arena *arena, const struct db_rows *rows, size_t row,
	const struct ctl_column *columns, size_t count)
{
	struct json_out out;
	struct buf buf;

	buf_init(&buf, arena, 4096);
	json_out_init(&out, &buf);
	ctl_put_object(arena, &out, rows, row, columns, count);
	ctl_print_buf(&buf);
}

const char *ctl_grouped(struct arena *arena, uint64_t number)
{
	const char *digits = arena_printf(arena, "%" PRIu64, number);
	size_t len = strlen(digits);
	struct buf text;

	buf_init(&text, arena, 32);
	for (size_t i = 0; i < len; i++) {
		if (i > 0 && (len - i) % 3 == 0)
			buf_putc(&text, ',');
		buf_putc(&text, digits[i]);
	}
	return text.data;
}

void ctl_show_bar(struct ctl *ctl, double part, const char *text)
{
	enum { BAR = 30 };
	static const char full[] = "##############################";
	static const char empty[] = "..............................";
	int done = (int)(part * BAR);

	if (!isatty(STDERR_FILENO))
		return;
	ctl_clear_bar(ctl);
	if (part >= 0)
		fprintf(stderr, "[%.*s%.*s] ", done, full, BAR - done, empty);
	fprintf(stderr, "%s", text);
	ctl->bar = true;
}

void ctl_clear_bar(struct ctl *ctl)
{
	if (ctl->bar)
		fputs("\r\033[K", stderr);
	ctl->bar = false;
}

void ctl_print_buf(const struct buf *buf)
{
	fwrite(buf->data, 1, buf->len, stdout);
	fputc('\n', stdout);
}

bool ctl_parse_wallet(const char *text, char canonical[ETH_ADDRESS_LEN + 1])
{
	const char *why;

	if (eth_address_parse(text, canonical, &why))
		return true;
	ctl_error("\"%s\" is no wallet address: %s", text, why);
	return false;
}

const char *ctl_parse_scopes(struct ctl *ctl, const struct ctl_list *scopes, size_t most)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyz_";
	size_t bytes = 0;

	if (scopes->count == 1 && strcmp(scopes->texts[0], "none") == 0)
		return "{}";
	for (size_t i = 0; i < scopes->count; i++) {
		const char *scope = scopes->texts[i];
		size_t what = strspn(scope, letters);
		size_t may = scope[what] == ':' ? strspn(scope + what + 1, letters) : 0;

		if (what == 0 || may == 0 || scope[what + 1 + may] != '\0') {
			ctl_error("\"%s\" is no scope: two words and a colon, such as "
				  "payments:write",
				scope);
			return NULL;
		}
		bytes += strlen(scope) + 1;
	}
	if (bytes > most + 1) {
		ctl_error("the scopes are longer than %zu bytes with a blank between them", most);
		return NULL;
	}
	return db_array(ctl->arena, scopes->texts, scopes->count);
}

bool ctl_parse_user(struct ctl *ctl, const char *text, struct ctl_user_name *name)
{
	char id[37], wallet[ETH_ADDRESS_LEN + 1];
	const char *why;

	*name = (struct ctl_user_name){ NULL, NULL };
	if (strncmp(text, "0x", 2) == 0 || strncmp(text, "0X", 2) == 0) {
		if (!ctl_parse_wallet(text, wallet))
			return false;
		name->wallet = arena_strdup(ctl->arena, wallet);
		return true;
	}
	if (!uuid_parse(text, id, &why)) {
		ctl_error("\"%s\" is neither a user's id nor a wallet address: see aregctl user "
			  "list",
			text);
		return false;
	}
	name->id = arena_strdup(ctl->arena, id);
	return true;
}
