/* SPDX-License-Identifier: Apache-2.0 */
/* Goes through the text once. What is no name is copied as it stands. */
#include "lib/sql_names.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/log.h"

enum { NAMES_MAX = 999 };

struct naming {
	const char *statement;
	const char *const *names;
	size_t name_count;
	bool is_used[NAMES_MAX];
};

/* A fault of this program, which the first run of the statement shows. */
static __attribute__((noreturn, format(printf, 2, 3))) void give_up(
	const struct naming *naming, const char *format, ...)
{
	char why[200];
	va_list args;

	va_start(args, format);
	vsnprintf(why, sizeof why, format, args);
	va_end(args);
	log_event(LOG_LEVEL_ERROR, "parameters of a statement do not fit its text",
		LOG_TEXT("statement", naming->statement), LOG_TEXT("reason", why));
	abort();
}

static bool in_word(char c)
{
	return isalnum((unsigned char)c) || c == '_';
}

/* How many bytes a comment, quoted text or a quoted identifier has that begins at `sql`; 0: none. */
static size_t quoted_length(const char *sql, bool has_escapes)
{
	const char quote = *sql;
	size_t at = 1;

	if (strncmp(sql, "--", 2) == 0)
		return strcspn(sql, "\n");
	if (strncmp(sql, "/*", 2) == 0) {
		const char *end = strstr(sql, "*/");

		return end != NULL ? (size_t)(end - sql) + 2 : strlen(sql);
	}
	if (quote != '\'' && quote != '"')
		return 0;
	while (sql[at] != '\0' && sql[at] != quote)
		at += has_escapes && sql[at] == '\\' && sql[at + 1] != '\0' ? 2 : 1;
	return sql[at] == '\0' ? at : at + 1;
}

/* The place of a name, from 1 on. */
static size_t names_number_of(struct naming *naming, const char *name, size_t len)
{
	for (size_t i = 0; i < naming->name_count; i++) {
		if (strncmp(naming->names[i], name, len) == 0 && naming->names[i][len] == '\0') {
			naming->is_used[i] = true;
			return i + 1;
		}
	}
	give_up(naming, ":%.*s is not in the list of names", (int)len, name);
}

static void count_names(struct naming *naming, size_t count)
{
	while (naming->names[naming->name_count] != NULL)
		if (++naming->name_count > NAMES_MAX)
			give_up(naming, "the list has more than %d names", NAMES_MAX);
	if (naming->name_count != count)
		give_up(naming, "the list has %zu names, but there are %zu values",
			naming->name_count, count);
}

char *sql_with_numbers(
	const char *statement, const char *sql, const char *const *names, size_t count)
{
	struct naming naming = { .statement = statement, .names = names };
	char *text = malloc(2 * strlen(sql) + 1), *to = text; /* :a can become $999 */
	size_t len;

	if (text == NULL)
		return NULL;
	count_names(&naming, count);
	for (const char *at = sql; *at != '\0'; at += len) {
		const bool has_escapes = at > sql && tolower((unsigned char)at[-1]) == 'e' &&
					 (at == sql + 1 || !in_word(at[-2]));

		if ((len = quoted_length(at, has_escapes)) > 0 ||
			(len = strncmp(at, "::", 2) == 0 ? 2 : 0) > 0) {
			to = mempcpy(to, at, len);
		} else if (*at == ':' && in_word(at[1]) && !isdigit((unsigned char)at[1])) {
			len = 1;
			while (in_word(at[len]))
				len++;
			to += sprintf(to, "$%zu", names_number_of(&naming, at + 1, len - 1));
		} else if (*at == '$') {
			give_up(&naming, "has $ beside names: %.20s", at);
		} else {
			len = 1;
			*to++ = *at;
		}
	}
	*to = '\0';
	for (size_t i = 0; i < naming.name_count; i++)
		if (!naming.is_used[i])
			give_up(&naming, ":%s of the list is not in the text", names[i]);
	return text;
}
