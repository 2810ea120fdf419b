/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads configuration files and the environment by tables of keys. A line is taken apart, its key
 * looked up and its value stored in one pass; every refusal becomes a fault and reading goes on.
 */
#include "lib/conf_private.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/utf8.h"

enum {
	KEY_MAX = 64, /* bytes of a key that is looked up or quoted */
};

static const char blanks[] = " \t";

/* ---- Faults ---- */

static void add_fault(struct conf *conf, const char *where, const char *why)
{
	struct conf_fault *fault;

	if (conf->fault_count == CONF_FAULTS_MAX)
		return;
	fault = arena_alloc(conf->arena, sizeof *fault);
	fault->where = where;
	fault->why = conf->fault_count + 1 < CONF_FAULTS_MAX
			     ? why
			     : "too many faults; there may be more from here on";
	*conf->faults_end = fault;
	conf->faults_end = &fault->next;
	conf->fault_count++;
}

void conf_fault(struct conf *conf, const char *where, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	add_fault(conf, where, arena_vprintf(conf->arena, format, args));
	va_end(args);
}

/* ---- Keys and sections ---- */

static const struct conf_key *find_key(const struct conf_keys *keys, const char *name)
{
	for (size_t i = 0; i < keys->count; i++)
		if (strcmp(keys->list[i].name, name) == 0)
			return &keys->list[i];
	return NULL;
}

/* Letters to insert, drop or replace to make one name of the other (Levenshtein's distance). */
static size_t distance(const char *a, const char *b)
{
	size_t row[KEY_MAX + 1];
	size_t width = strlen(b);

	for (size_t i = 0; i <= width; i++)
		row[i] = i;
	for (size_t i = 0; a[i] != '\0'; i++) {
		size_t diagonal = row[0];

		row[0] = i + 1;
		for (size_t j = 0; j < width; j++) {
			size_t above = row[j + 1];
			size_t least = diagonal + (a[i] != b[j]);

			if (above + 1 < least)
				least = above + 1;
			if (row[j] + 1 < least)
				least = row[j] + 1;
			row[j + 1] = least;
			diagonal = above;
		}
	}
	return row[width];
}

/* The key whose name is nearest, when a third of its letters at most are wrong; else NULL. */
static const struct conf_key *nearest_key(const struct conf_keys *keys, const char *name)
{
	const struct conf_key *nearest = NULL;
	size_t least = SIZE_MAX;

	for (size_t i = 0; i < keys->count; i++) {
		size_t wrong = distance(name, keys->list[i].name);

		if (wrong < least && wrong * 3 <= strlen(keys->list[i].name)) {
			least = wrong;
			nearest = &keys->list[i];
		}
	}
	return nearest;
}

static void init_section(struct conf_section *section, struct arena *arena, const char *name,
	const char *where, const struct conf_keys *keys, void *values)
{
	*section = (struct conf_section){ .name = name,
		.where = where,
		.keys = keys,
		.values = values,
		.set_at = arena_alloc(arena, keys->count * sizeof *section->set_at) };
	for (size_t i = 0; i < keys->count; i++) {
		/* A default that its own key refuses is a bug in the table. */
		if (keys->list[i].fallback != NULL &&
			conf_store(arena, &keys->list[i], keys->list[i].fallback, values) != NULL)
			abort();
	}
}

static struct conf_section *new_section(struct conf *conf, const char *name, const char *where)
{
	struct conf_section *section = arena_alloc(conf->arena, sizeof *section);

	init_section(section, conf->arena, name, where, &conf->schema->section,
		arena_alloc(conf->arena, conf->schema->section_size));
	return section;
}

static struct conf_section *add_section(struct conf *conf, const char *name, const char *where)
{
	struct conf_section *section = new_section(conf, name, where);

	*conf->sections_end = section;
	conf->sections_end = &section->next;
	conf->section_count++;
	return section;
}

static struct conf_section *find_section(const struct conf *conf, const char *name)
{
	struct conf_section *section = conf->sections;

	while (section != NULL && strcmp(section->name, name) != 0)
		section = section->next;
	return section;
}

static const char **set_at(const struct conf_section *section, const struct conf_key *key)
{
	return &section->set_at[key - section->keys->list];
}

const char *conf_set_at(const struct conf_section *section, const char *key)
{
	return *set_at(section, find_key(section->keys, key));
}

static void conf_set(struct conf *conf, struct conf_section *section, const struct conf_key *key,
	const char *text, const char *where)
{
	const char *why = conf_store(conf->arena, key, text, section->values);

	if (why != NULL)
		add_fault(conf, where, why);
	*set_at(section, key) = where;
}

void conf_init(struct conf *conf, struct arena *arena, const struct conf_schema *schema,
	void *values, const char *where)
{
	*conf = (struct conf){ .arena = arena, .schema = schema };
	conf->sections_end = &conf->sections;
	conf->faults_end = &conf->faults;
	init_section(&conf->top, arena, "", where, &schema->top, values);
}

/* ---- The file ---- */

/* Why these bytes cannot be a line or a value at all, or NULL. */
static const char *unreadable(const char *bytes, size_t len)
{
	size_t size;

	if (len > CONF_LINE_MAX)
		return "is longer than 4096 bytes";
	for (; len > 0; bytes += size, len -= size) {
		size = utf8_sequence(bytes, len);
		if (size == 0)
			return "is not valid UTF-8";
		if (*bytes == '\0')
			return "holds a NUL byte";
		if ((*bytes >= 0 && *bytes < ' ' && *bytes != '\t') || *bytes == 0x7f)
			return "holds a control character";
	}
	return NULL;
}

/* Cuts the blanks off both ends, in place. */
static char *trim(char *text)
{
	size_t len;

	text += strspn(text, blanks);
	len = strlen(text);
	while (len > 0 && strchr(blanks, text[len - 1]) != NULL)
		len--;
	text[len] = '\0';
	return text;
}

static bool is_made_of(const char *text, const char *allowed, size_t most)
{
	size_t len = strspn(text, allowed);

	return len > 0 && len <= most && text[len] == '\0';
}

/* Only what looks like a key is quoted in a fault: anything else may be a secret gone astray. */
static bool conf_is_key(const char *text)
{
	return is_made_of(text, "abcdefghijklmnopqrstuvwxyz0123456789_", KEY_MAX);
}

static bool is_section_name(const char *text)
{
	return is_made_of(text, "abcdefghijklmnopqrstuvwxyz0123456789-", CONF_NAME_MAX);
}

/* Takes a value out of its quotes, in place. NULL when it is right, else what is wrong. */
static const char *unquote(char **value)
{
	char *from = *value, *to = *value;

	if (*from != '"')
		return NULL;
	for (from++; *from != '"'; *to++ = *from++) {
		if (*from == '\\') {
			from++;
			if (*from != '"' && *from != '\\')
				return "in quotes, a backslash stands only before \" or another \\";
		}
		if (*from == '\0')
			return "the quoted value has no closing quote";
	}
	if (from[1] != '\0')
		return "something stands behind the closing quote";
	*to = '\0';
	return NULL;
}

/*
 * Reads a section header. Returns the section that the lines below it fill: one that is kept
 * nowhere when the header is at fault, so that those lines are checked as well; NULL when not even
 * the kind is known, and their keys cannot be.
 */
static struct conf_section *conf_read_header(struct conf *conf, char *line, const char *where)
{
	const char *kind = conf->schema->kind;
	size_t len = strlen(line);
	struct conf_section *section;
	char *name;

	if (line[len - 1] != ']') {
		conf_fault(conf, where, "a section header ends in ]");
		return NULL;
	}
	line[len - 1] = '\0';
	line = trim(line + 1);
	len = strcspn(line, blanks);
	name = trim(line + len);
	line[len] = '\0';
	if (strcmp(line, kind) != 0) {
		if (conf_is_key(line))
			conf_fault(conf, where, "unknown section [%s]; sections are [%s NAME]",
				line, kind);
		else
			conf_fault(conf, where, "unknown section; sections are [%s NAME]", kind);
		return NULL;
	}
	if (!is_section_name(name)) {
		conf_fault(conf, where,
			"[%s NAME]: %s is not 1 to %d lower-case letters, digits and hyphens", kind,
			conf_quote(conf->arena, name), CONF_NAME_MAX);
		return new_section(conf, "", where);
	}
	section = find_section(conf, name);
	if (section != NULL) {
		conf_fault(conf, where, "[%s %s] stands twice, first at %s", kind, name,
			section->where);
		return new_section(conf, "", where);
	}
	if (conf->section_count == CONF_SECTIONS_MAX) {
		conf_fault(conf, where, "more than %d sections", CONF_SECTIONS_MAX);
		return new_section(conf, "", where);
	}
	return add_section(conf, arena_strdup(conf->arena, name), where);
}

static void unknown_key(
	struct conf *conf, const struct conf_section *section, const char *name, const char *where)
{
	const struct conf_schema *schema = conf->schema;
	const struct conf_key *near = nearest_key(section->keys, name);

	if (section != &conf->top && find_key(&schema->top, name) != NULL)
		conf_fault(conf, where, "%s belongs before the first section", name);
	else if (section == &conf->top && find_key(&schema->section, name) != NULL)
		conf_fault(conf, where, "%s belongs into a [%s NAME] section", name, schema->kind);
	else if (near != NULL)
		conf_fault(conf, where, "unknown key %s; did you mean %s?", name, near->name);
	else
		conf_fault(conf, where, "unknown key %s", name);
}

/* Reads a key and its value into the section; NULL when the header above was not understood. */
static void read_pair(
	struct conf *conf, struct conf_section *section, char *line, const char *where)
{
	char *equals = strchr(line, '=');
	const struct conf_key *key;
	const char *why;
	char *value;

	if (equals == NULL) {
		conf_fault(conf, where,
			"no = in this line, which is neither a comment nor a section header");
		return;
	}
	*equals = '\0';
	value = trim(equals + 1);
	line = trim(line);
	if (!conf_is_key(line)) {
		conf_fault(conf, where,
			"what stands before the = is not a key (lower-case letters, digits, _)");
		return;
	}
	why = unquote(&value);
	if (why != NULL) {
		conf_fault(conf, where, "%s: %s", line, why);
		return;
	}
	if (section == NULL)
		return;
	key = find_key(section->keys, line);
	if (key == NULL)
		unknown_key(conf, section, line, where);
	else if (*set_at(section, key) != NULL)
		conf_fault(
			conf, where, "%s stands twice, first at %s", line, *set_at(section, key));
	else
		conf_set(conf, section, key, arena_strdup(conf->arena, value), where);
}

static void read_lines(struct conf *conf, char *text, size_t len, const char *path)
{
	struct conf_section *section = &conf->top;
	char *end = text + len, *next;

	if (len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0)
		text += 3; /* a byte order mark, which some editors leave with their CRLF */
	for (size_t number = 1; text < end && conf->fault_count < CONF_FAULTS_MAX;
		number++, text = next) {
		const char *where, *why;
		char *line_end = memchr(text, '\n', (size_t)(end - text));

		if (line_end == NULL)
			line_end = end;
		next = line_end + 1;
		if (line_end > text && line_end[-1] == '\r')
			line_end--;
		*line_end = '\0';
		text += strspn(text, blanks);
		if (text >= line_end)
			continue;

		why = unreadable(text, (size_t)(line_end - text));
		if (why == NULL && *text == '#')
			continue;
		where = arena_printf(conf->arena, "%s:%zu", path, number);
		if (why != NULL) {
			conf_fault(conf, where, "the line %s", why);
			continue;
		}
		text = trim(text);
		if (*text == '[')
			section = conf_read_header(conf, text, where);
		else
			read_pair(conf, section, text, where);
	}
}

bool conf_read_file(struct conf *conf, const char *path)
{
	/* Not the arena's: no longer needed below, and half of what may be in it. One byte more
	 * than allowed tells a file that is too large, and is where the last line ends. */
	char *text = malloc(CONF_FILE_MAX + 1);
	size_t len = 0;
	ssize_t got = 1;
	bool done = false;
	int fd = -1;

	if (text == NULL)
		goto out;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		goto out;
	while (got > 0 && len <= CONF_FILE_MAX) {
		got = read(fd, text + len, CONF_FILE_MAX + 1 - len);
		if (got > 0)
			len += (size_t)got;
	}
	if (got < 0)
		goto out;
	if (len > CONF_FILE_MAX) {
		errno = EFBIG;
		goto out;
	}
	read_lines(conf, text, len, arena_strdup(conf->arena, path));
	done = true;
out:
	if (fd >= 0)
		close(fd);
	free(text);
	return done;
}

/* ---- The environment ---- */

static const char *variable_value(char *const *environment, const char *name)
{
	size_t len = strlen(name);

	for (; *environment != NULL; environment++)
		if (strncmp(*environment, name, len) == 0 && (*environment)[len] == '=')
			return *environment + len + 1;
	return "";
}

static const char *variable_where(struct conf *conf, const char *name)
{
	return arena_printf(conf->arena, "environment variable %s", name);
}

/* PREFIX_KEY or PREFIX_KIND_NAME_KEY; `section` NULL for the former. */
static const char *variable_name(struct conf *conf, const char *section, const char *key)
{
	const struct conf_schema *schema = conf->schema;
	char *name = section == NULL ? arena_printf(conf->arena, "%s%s", schema->prefix, key)
				     : arena_printf(conf->arena, "%s%s_%s_%s", schema->prefix,
					       schema->kind, section, key);

	for (char *at = name; *at != '\0'; at++)
		*at = *at == '-' ? '_' : (char)toupper((unsigned char)*at);
	return name;
}

static void set_from_variable(struct conf *conf, struct conf_section *section,
	const struct conf_key *key, const char *value, const char *where)
{
	const char *why = unreadable(value, strlen(value));

	if (why != NULL)
		conf_fault(conf, where, "%s: the value %s", key->name, why);
	else
		conf_set(conf, section, key, arena_strdup(conf->arena, value), where);
}

static struct conf_section *section_for_variable(
	struct conf *conf, const char *name, const char *where)
{
	struct conf_section *section = find_section(conf, name);

	return section != NULL ? section : add_section(conf, name, where);
}

static void read_alias(struct conf *conf, const struct conf_alias *alias, char *const *environment)
{
	const char *value = variable_value(environment, alias->variable);
	const char *where = variable_where(conf, alias->variable);
	struct conf_section *section = &conf->top;

	if (*value == '\0')
		return;
	if (alias->section != NULL)
		section = section_for_variable(conf, alias->section, where);
	for (const char *const *pair = alias->implied; pair != NULL && *pair != NULL; pair += 2)
		if (conf_set_at(section, pair[0]) == NULL)
			conf_set(conf, section, find_key(section->keys, pair[0]), pair[1], where);
	/* Not looked at where the name with the prefix is set: this one may be another program's. */
	if (*variable_value(environment, variable_name(conf, alias->section, alias->key)) == '\0')
		set_from_variable(conf, section, find_key(section->keys, alias->key), value, where);
}

/*
 * Splits what stands behind PREFIX_KIND_ into the section's name and its key: the key is the one
 * whose name it ends in. False when that cannot be.
 */
static bool split_section_variable(
	struct conf *conf, const char *rest, const char **name, const struct conf_key **key)
{
	const struct conf_keys *keys = &conf->schema->section;

	for (size_t i = 0; i < keys->count; i++) {
		size_t key_len = strlen(keys->list[i].name);
		size_t len = strlen(rest);

		if (len < key_len + 2 ||
			strcasecmp(rest + len - key_len, keys->list[i].name) != 0 ||
			rest[len - key_len - 1] != '_')
			continue;
		char *section = arena_strndup(conf->arena, rest, len - key_len - 1);

		for (char *at = section; *at != '\0'; at++)
			*at = *at == '_' ? '-' : (char)tolower((unsigned char)*at);
		*name = section;
		*key = &keys->list[i];
		return is_section_name(section);
	}
	return false;
}

static bool is_other_variable(const struct conf_schema *schema, const char *name)
{
	for (const char *const *other = schema->other_variables; *other != NULL; other++) {
		size_t len = strlen(*other);

		if ((*other)[len - 1] == '*' ? strncmp(name, *other, len - 1) == 0
					     : strcmp(name, *other) == 0)
			return true;
	}
	return false;
}

static void unknown_variable(struct conf *conf, const char *rest, const char *where)
{
	const struct conf_key *near = NULL;
	char *name = arena_strdup(conf->arena, rest);

	for (char *at = name; *at != '\0'; at++)
		*at = (char)tolower((unsigned char)*at);
	if (conf_is_key(name))
		near = nearest_key(&conf->schema->top, name);
	if (near != NULL)
		conf_fault(conf, where, "there is no such setting; did you mean %s?",
			variable_name(conf, NULL, near->name));
	else
		conf_fault(conf, where, "there is no such setting");
}

/* Reads one variable NAME=VALUE whose name begins with the prefix. */
static void read_variable(struct conf *conf, const char *variable)
{
	const struct conf_schema *schema = conf->schema;
	size_t prefix_len = strlen(schema->prefix), kind_len = strlen(schema->kind);
	const char *equals = strchr(variable, '=');
	const char *name, *rest, *where, *section_name;
	const struct conf_key *key;

	name = arena_strndup(conf->arena, variable, (size_t)(equals - variable));
	rest = name + prefix_len;
	if (equals[1] == '\0' || is_other_variable(schema, name))
		return;
	where = unreadable(name, strlen(name)) == NULL
			? variable_where(conf, name)
			: arena_printf(conf->arena, "environment variable %s...", schema->prefix);

	for (size_t i = 0; i < schema->top.count; i++) {
		key = &schema->top.list[i];
		if (strcmp(name, variable_name(conf, NULL, key->name)) == 0) {
			set_from_variable(conf, &conf->top, key, equals + 1, where);
			return;
		}
	}
	if (strncasecmp(rest, schema->kind, kind_len) == 0 && rest[kind_len] == '_' &&
		split_section_variable(conf, rest + kind_len + 1, &section_name, &key) &&
		strcmp(name, variable_name(conf, section_name, key->name)) == 0)
		set_from_variable(conf, section_for_variable(conf, section_name, where), key,
			equals + 1, where);
	else
		unknown_variable(conf, rest, where);
}

static int compare_variables(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

void conf_read_environment(struct conf *conf, char *const *environment)
{
	const struct conf_schema *schema = conf->schema;
	size_t prefix_len = strlen(schema->prefix);
	const char **ours;
	size_t count = 0;

	if (environment == NULL)
		return;
	for (size_t i = 0; i < schema->alias_count; i++)
		read_alias(conf, &schema->aliases[i], environment);

	for (char *const *at = environment; *at != NULL; at++)
		count += strncmp(*at, schema->prefix, prefix_len) == 0;
	ours = arena_alloc(conf->arena, count * sizeof *ours);
	count = 0;
	for (char *const *at = environment; *at != NULL; at++)
		if (strncmp(*at, schema->prefix, prefix_len) == 0 && strchr(*at, '=') != NULL)
			ours[count++] = *at;
	/* The environment has no order; sections and faults shall have one. */
	qsort(ours, count, sizeof *ours, compare_variables);
	for (size_t i = 0; i < count; i++)
		read_variable(conf, ours[i]);
}

/* ---- After reading ---- */

void conf_check_required(struct conf *conf)
{
	const struct conf_schema *schema = conf->schema;
	const struct conf_key *key;

	for (size_t i = 0; i < schema->top.count; i++) {
		key = &schema->top.list[i];
		if (key->required && *set_at(&conf->top, key) == NULL)
			conf_fault(conf, conf->top.where, "%s is required; set it here or as %s",
				key->name, variable_name(conf, NULL, key->name));
	}
	for (struct conf_section *section = conf->sections; section != NULL;
		section = section->next)
		for (size_t i = 0; i < schema->section.count; i++) {
			key = &schema->section.list[i];
			if (key->required && *set_at(section, key) == NULL)
				conf_fault(conf, section->where, "[%s %s] has no %s", schema->kind,
					section->name, key->name);
		}
}
