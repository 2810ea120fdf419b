/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aregctl: what an administrator of areg does by hand. Finds the command in the tables of the
 * files of app/ctl/, reads its options and runs it. Manual pages: aregctl(8) and one for each group.
 */
#include "app/ctl/ctl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/routes.h"

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
static void aregctl_store(
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
	aregctl_store(arena, option, values, argument);
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

static enum ctl_exit aregctl_run(struct ctl *ctl, struct words *words)
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
	code = finish(aregctl_run(&ctl, &words));
	db_free(ctl.db);
	router_free(ctl.router);
	arena_free(ctl.arena);
	return code;
}
