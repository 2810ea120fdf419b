/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aregctl: what an administrator of areg does by hand. Finds the command in the tables of the
 * ctl_*.c files, reads its options and runs it. Manual pages: aregctl(8) and one for each group.
 */
#include "app/ctl/ctl.h"

#include <errno.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/cache/callers.h"
#include "app/ctl/text_table.h"
#include "app/routes.h"
#include "lib/db_reach.h"
#include "lib/json_in.h"
#include "lib/utf8.h"

/* Who runs a command waits longer for a busy server than a request may. */
enum { CONNECT_MS = 10000 };

struct group {
	const char *name;
	const char *summary;
	const struct ctl_command *commands; /* one of them may bear the group's own name */
};

static const struct group groups[] = {
	{ "migrate", "set up the database and move its schema up or down", ctl_migrate_commands },
	{ "user", "add, list and change users", ctl_user_commands },
	{ "key", "create, list and revoke API keys", ctl_key_commands },
	{ "agent", "show, suspend and reactivate agents", ctl_agent_commands },
	{ "payment", "list and unlink payments, and distrust facilitators", ctl_payment_commands },
	{ "import", "load agents, feedback and payments from JSON Lines", ctl_import_commands },
	{ "audit", "show, export and verify the log of changes", ctl_audit_commands },
	{ "cache", "fill the cache of answers, and empty it", ctl_cache_commands },
	{ "sweep", "remove what has expired from the database", ctl_sweep_commands },
	{ "status", "say how the running aregd is", ctl_status_commands },
	{ "workers", "show what each worker of the running aregd does", ctl_workers_commands },
	{ "reload", "reload configuration and program of the running aregd", ctl_reload_commands },
};
static const size_t group_count = sizeof(groups) / sizeof(groups[0]);

struct globals {
	const char *config;
	bool json, help, version;
};

static const struct ctl_option global_options[] = {
	{ "config", CTL_TEXT, offsetof(struct globals, config), "FILE",
		"configuration, also -c FILE; default $AREG_CONF, else the installed one" },
	{ "json", CTL_FLAG, offsetof(struct globals, json), NULL, "print JSON, for programs" },
	{ "help", CTL_FLAG, offsetof(struct globals, help), NULL, "explain a command, also -h" },
	{ "version", CTL_FLAG, offsetof(struct globals, version), NULL,
		"print the version, also -V" },
};
static const size_t global_count = sizeof(global_options) / sizeof(global_options[0]);

/* The command line while it is read. */
struct words {
	char **at;
	char **end;
};

void ctl_error(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fputs("aregctl: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
}

/* ---- Help ---- */

static void print_options(const struct ctl_option *options, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		const char *argument = options[i].argument != NULL ? options[i].argument : "";
		int width = 22 - (int)(strlen(options[i].name) + strlen(argument));

		printf("  --%s %s%*s%s\n", options[i].name, argument, width > 1 ? width : 1, "",
			options[i].help);
	}
}

static void print_synopsis(const struct ctl_command *command)
{
	printf("%s%s%s%s", command->name, command->option_count > 0 ? " [option ...]" : "",
		command->operands[0] != '\0' ? " " : "", command->operands);
}

static void help_command(const struct ctl_command *command)
{
	printf("usage: aregctl ");
	print_synopsis(command);
	printf("\n\n%s.\n", command->summary);
	if (command->notes != NULL)
		printf("\n%s", command->notes);
	if (command->option_count > 0) {
		printf("\nOptions:\n");
		print_options(command->options, command->option_count);
	}
	printf("\nOptions of every command:\n");
	print_options(global_options, global_count);
}

static void help_group(const struct group *group)
{
	printf("aregctl %s: %s\n\n", group->name, group->summary);
	for (const struct ctl_command *command = group->commands; command->name != NULL;
		command++) {
		printf("  aregctl ");
		print_synopsis(command);
		printf("\n      %s\n", command->summary);
	}
	printf("\nMore: aregctl help %s COMMAND, or man aregctl-%s\n", group->name, group->name);
}

static void help_all(void)
{
	printf("usage: aregctl [-c FILE] [--json] COMMAND [option ...]\n\n"
	       "Administers areg, the registry of AI agents.\n\n");
	for (size_t i = 0; i < group_count; i++)
		printf("  %-9s%s\n", groups[i].name, groups[i].summary);
	printf("  %-9s%s\n\nOptions of every command:\n", "help",
		"explain a command: aregctl help key create");
	print_options(global_options, global_count);
	printf("\nExit status: 0 done, 1 failed, 2 wrong usage, 3 not found or refused,\n"
	       "4 imported, but for lines that were refused. More: man aregctl\n");
}

/* ---- The command line ---- */

static const struct group *find_group(const char *name)
{
	for (size_t i = 0; i < group_count; i++) {
		if (strcmp(groups[i].name, name) == 0)
			return &groups[i];
	}
	return NULL;
}

/* The command "group verb", else the one that bears the group's name, else NULL. *with_verb says
 * which it was. */
static const struct ctl_command *find_command(
	const struct group *group, const char *verb, bool *with_verb)
{
	const struct ctl_command *own = NULL;
	size_t len = strlen(group->name);

	for (const struct ctl_command *command = group->commands; command->name != NULL;
		command++) {
		if (command->name[len] == '\0') {
			own = command;
		} else if (verb != NULL && strcmp(command->name + len + 1, verb) == 0) {
			*with_verb = true;
			return command;
		}
	}
	*with_verb = false;
	return own;
}

static const struct ctl_option *find_option(
	const struct ctl_option *options, size_t count, const char *name, size_t len)
{
	for (size_t i = 0; i < count; i++) {
		if (strlen(options[i].name) == len && strncmp(options[i].name, name, len) == 0)
			return &options[i];
	}
	return NULL;
}

/* Stores what `option` was given into the struct that its offset belongs to. */
static void store(
	struct arena *arena, const struct ctl_option *option, void *values, const char *argument)
{
	void *place = (char *)values + option->offset;

	switch (option->kind) {
	case CTL_FLAG:
		*(bool *)place = true;
		break;
	case CTL_TEXT:
		*(const char **)place = argument;
		break;
	case CTL_LIST: {
		struct ctl_list *list = place;
		const char **longer = arena_alloc(arena, (list->count + 1) * sizeof(char *));

		for (size_t i = 0; i < list->count; i++)
			longer[i] = list->texts[i];
		longer[list->count++] = argument;
		list->texts = longer;
		break;
	}
	}
}

/* Reads the option at words->at, one of the command's or a global one. */
static bool take_option(struct arena *arena, struct words *words, const struct ctl_command *command,
	void *values, struct globals *globals)
{
	const char *word = *words->at++;
	const char *name = word + 2, *argument;
	const struct ctl_option *option = NULL;
	size_t len;

	if (strcmp(word, "-c") == 0)
		name = "config";
	else if (strcmp(word, "-h") == 0)
		name = "help";
	else if (strcmp(word, "-V") == 0)
		name = "version";
	else if (word[1] != '-')
		name = "";
	len = strcspn(name, "=");
	argument = name[len] == '=' ? name + len + 1 : NULL;
	if (command != NULL)
		option = find_option(command->options, command->option_count, name, len);
	if (option == NULL) {
		option = find_option(global_options, global_count, name, len);
		values = globals;
	}
	if (option == NULL) {
		ctl_error("unknown option %s: see aregctl %s%s--help", word,
			command != NULL ? command->name : "", command != NULL ? " " : "");
		return false;
	}
	if (option->kind == CTL_FLAG) {
		if (argument != NULL) {
			ctl_error("--%s takes no argument", option->name);
			return false;
		}
	} else if (argument == NULL) {
		if (words->at == words->end) {
			ctl_error("%s needs an argument: %s", word, option->argument);
			return false;
		}
		argument = *words->at++;
	}
	store(arena, option, values, argument);
	return true;
}

/* Whether the word is an option: "-" alone is an operand, stdin. */
static bool is_option(const char *word)
{
	return word[0] == '-' && word[1] != '\0';
}

/* Reads the rest of the command line for the command: options and operands in any order; what
 * stands behind "--" is an operand. */
static bool take_words(struct ctl *ctl, struct words *words, const struct ctl_command *command,
	void *values, struct globals *globals)
{
	const char **operands =
		arena_alloc(ctl->arena, (size_t)(words->end - words->at + 1) * sizeof(char *));
	bool options = true;

	while (words->at < words->end) {
		if (options && strcmp(*words->at, "--") == 0) {
			options = false;
			words->at++;
		} else if (options && is_option(*words->at)) {
			if (!take_option(ctl->arena, words, command, values, globals))
				return false;
		} else {
			operands[ctl->operand_count++] = *words->at++;
		}
	}
	ctl->operands = operands;
	if (globals->help || globals->version)
		return true;
	if (ctl->operand_count > command->operand_count) {
		ctl_error("unexpected \"%s\": see aregctl %s --help",
			operands[command->operand_count], command->name);
		return false;
	}
	if (ctl->operand_count < command->operand_count) {
		ctl_error("%s needs %s: see aregctl %s --help", command->name, command->operands,
			command->name);
		return false;
	}
	return true;
}

/* ---- What the commands share ---- */

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

static void put_object(struct arena *arena, struct json_out *out, const struct db_rows *rows,
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
			put_object(ctl->arena, &out, rows, row, columns, count);
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
		put_object(ctl->arena, &out, rows, 0, columns, count);
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
	put_object(arena, &out, rows, row, columns, count);
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

/* ---- main ---- */

static bool load_settings(struct ctl *ctl, const char *path)
{
	struct settings_faults faults;

	if (settings_load(ctl->arena, path, &ctl->settings, &faults))
		return true;
	for (size_t i = 0; i < faults.count; i++)
		ctl_error("%s: %s", faults.list[i].where, faults.list[i].why);
	return false;
}

/* Output that could not be written, to a full disk or a closed pipe, is a failure too. */
static enum ctl_exit finish(enum ctl_exit code)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return code;
	ctl_error("writing the output: %s", strerror(errno));
	return CTL_FAILED;
}

/* `aregctl help [GROUP [VERB]]`, with words->at behind "help". */
static enum ctl_exit help(struct words *words)
{
	const struct group *group;
	const struct ctl_command *command;
	bool with_verb;

	if (words->at == words->end) {
		help_all();
		return CTL_DONE;
	}
	group = find_group(words->at[0]);
	if (group == NULL) {
		ctl_error("unknown command \"%s\": see aregctl --help", words->at[0]);
		return CTL_USAGE;
	}
	if (words->at + 1 == words->end) {
		help_group(group);
		return CTL_DONE;
	}
	command = find_command(group, words->at[1], &with_verb);
	if (!with_verb) {
		ctl_error("unknown command \"%s %s\": see aregctl %s --help", group->name,
			words->at[1], group->name);
		return CTL_USAGE;
	}
	help_command(command);
	return CTL_DONE;
}

static enum ctl_exit run(struct ctl *ctl, struct words *words)
{
	struct globals globals = { 0 };
	const struct group *group = NULL;
	const struct ctl_command *command = NULL;
	void *values = NULL;
	bool with_verb = false;

	while (words->at < words->end && is_option(*words->at)) {
		if (!take_option(ctl->arena, words, NULL, NULL, &globals))
			return CTL_USAGE;
	}
	if (words->at < words->end && strcmp(*words->at, "help") == 0) {
		words->at++;
		return help(words);
	}
	if (words->at < words->end) {
		group = find_group(*words->at++);
		if (group == NULL) {
			ctl_error("unknown command \"%s\": see aregctl --help", words->at[-1]);
			return CTL_USAGE;
		}
		command =
			find_command(group, words->at < words->end ? *words->at : NULL, &with_verb);
		words->at += with_verb ? 1 : 0;
	}
	if (command != NULL) {
		values = arena_alloc(ctl->arena, command->values_size + 1);
		if (!take_words(ctl, words, command, values, &globals))
			return CTL_USAGE;
	} else if (group != NULL && words->at < words->end) {
		if (!is_option(*words->at)) {
			ctl_error("unknown command \"%s %s\": see aregctl %s --help", group->name,
				*words->at, group->name);
			return CTL_USAGE;
		}
		while (words->at < words->end) {
			if (!take_option(ctl->arena, words, NULL, NULL, &globals))
				return CTL_USAGE;
		}
	}
	if (globals.version) {
		printf("aregctl %s\n", PACKAGE_VERSION);
		return CTL_DONE;
	}
	if (globals.help) {
		if (command != NULL && (with_verb || group->commands[1].name == NULL))
			help_command(command);
		else if (group != NULL)
			help_group(group);
		else
			help_all();
		return CTL_DONE;
	}
	if (command == NULL) {
		ctl_error("no command given: see aregctl %s%s--help",
			group != NULL ? group->name : "", group != NULL ? " " : "");
		return CTL_USAGE;
	}
	ctl->json = globals.json;
	if (!load_settings(ctl, globals.config))
		return CTL_USAGE;
	return command->run(ctl, values);
}

int main(int argc, char **argv)
{
	struct words words = { argv + (argc > 0 ? 1 : 0), argv + argc };
	struct ctl ctl = { .arena = ctl_arena((size_t)256 * 1024 * 1024),
		.router = routes_router() };
	enum ctl_exit code;

	log_process("aregctl");
	code = finish(run(&ctl, &words));
	db_free(ctl.db);
	router_free(ctl.router);
	arena_free(ctl.arena);
	return code;
}
