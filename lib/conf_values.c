/* SPDX-License-Identifier: Apache-2.0 */
/* The values of a configuration: from text to members of a struct, and back to print them. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "lib/conf_private.h"
#include "lib/utf8.h"

enum { QUOTE_MAX = 60 }; /* bytes of a value that a fault quotes */

static const char blanks[] = " \t";

const char *conf_quote(struct arena *arena, const char *text)
{
	size_t len = strlen(text), shown = utf8_cut(text, len, QUOTE_MAX);

	return arena_printf(
		arena, "\"%.*s%s\"", (int)shown, text, shown < len ? "\xe2\x80\xa6" : "");
}

struct unit {
	const char *name;
	int64_t worth;
};

/* A kind of number with units, the largest first, as they are printed. */
struct measure {
	const struct unit *units;
	size_t count;
	const char *none; /* 0, printed */
	const char *no_unit, *not_one; /* what is wrong with others */
};

static const struct unit time_units[] = { { "h", 3600000 }, { "m", 60000 }, { "s", 1000 },
	{ "ms", 1 } };
static const struct measure durations = { time_units, 4, "0s", "has no unit (ms, s, m or h)",
	"is not a duration such as 500ms, 30s, 5m or 1h" };
static const struct unit size_units[] = { { "g", 1 << 30 }, { "m", 1 << 20 }, { "k", 1 << 10 } };
static const struct measure sizes = { size_units, 3, "0k", "has no unit (k, m or g)",
	"is not a size such as 512k, 64m or 1g" };

/* Numbers that were stored are multiples of the smallest unit. */
static const char *measure_text(struct arena *arena, const struct measure *measure, int64_t number)
{
	const struct unit *unit = measure->units;

	if (number == 0)
		return measure->none;
	while (number % unit->worth != 0)
		unit++;
	return arena_printf(arena, "%lld%s", (long long)(number / unit->worth), unit->name);
}

/* Reads a number with an optional sign, saturated, up to *end. */
static bool read_digits(const char *text, int64_t *number, const char **end)
{
	char *stop;

	if (!isdigit((unsigned char)text[*text == '-']))
		return false;
	*number = strtoll(text, &stop, 10);
	*end = stop;
	return true;
}

/* The functions below store a value, or return why not: the rest of a sentence, in the arena. */

static const char *store_number(struct arena *arena, const struct conf_key *key, const char *text,
	int64_t *number, const char **subject)
{
	const char *end;

	if (!read_digits(text, number, &end) || *end != '\0')
		return "is not a whole number";
	if (*number >= key->min && *number <= key->max)
		return NULL;
	*subject = text;
	return arena_printf(
		arena, "is not within %lld..%lld", (long long)key->min, (long long)key->max);
}

static const char *store_measure(struct arena *arena, const struct conf_key *key,
	const struct measure *measure, const char *text, int64_t *number, const char **subject)
{
	const char *end;
	size_t unit = 0;

	if (!read_digits(text, number, &end))
		return measure->not_one;
	if (*end == '\0')
		return measure->no_unit;
	while (unit < measure->count && strcmp(end, measure->units[unit].name) != 0)
		unit++;
	if (unit == measure->count)
		return measure->not_one;
	if (__builtin_mul_overflow(*number, measure->units[unit].worth, number))
		*number = INT64_MAX;
	if (*number >= key->min && *number <= key->max)
		return NULL;
	*subject = text;
	return arena_printf(arena, "is not within %s..%s", measure_text(arena, measure, key->min),
		measure_text(arena, measure, key->max));
}

static const char *store_word(
	struct arena *arena, const struct conf_key *key, const char *text, int *word)
{
	const char *all = "";

	for (*word = 0; key->words[*word] != NULL; ++*word) {
		if (strcmp(key->words[*word], text) == 0)
			return NULL;
		all = arena_printf(arena, "%s%s%s", all, *word > 0 ? ", " : "", key->words[*word]);
	}
	return arena_printf(arena, "is not one of %s", all);
}

static const char *store_list(struct arena *arena, const struct conf_key *key, const char *text,
	const char *const **list, const char **subject)
{
	static const char between[] = " \t,";
	/* Between two words stands at least one byte. */
	const char **words = arena_alloc(arena, (strlen(text) / 2 + 2) * sizeof *words);
	size_t count = 0;

	for (text += strspn(text, between); *text != '\0'; text += strspn(text, between)) {
		size_t len = strcspn(text, between);
		const char *why = NULL;

		words[count] = arena_strndup(arena, text, len);
		if (key->check != NULL)
			why = key->check(arena, words[count], &words[count]);
		if (why != NULL) {
			*subject = conf_quote(arena, words[count]);
			return why;
		}
		count++;
		text += len;
	}
	*list = words;
	return NULL;
}

static const char *store_text(
	struct arena *arena, const struct conf_key *key, const char *text, const char **value)
{
	*value = text;
	return key->check == NULL ? NULL : key->check(arena, text, value);
}

const char *conf_store(
	struct arena *arena, const struct conf_key *key, const char *text, void *values)
{
	char *place = (char *)values + key->offset;
	const char *subject = NULL; /* what is at fault, when that is not the whole text, quoted */
	const char *why = NULL;
	union {
		int word;
		bool flag;
		int64_t number;
		const char *text;
		const char *const *list;
	} value;

	if (*text == '\0' && !key->may_be_empty)
		return arena_printf(arena, "%s: the value is empty", key->name);
	switch (key->type) {
	case CONF_INT:
	case CONF_INT64:
		why = store_number(arena, key, text, &value.number, &subject);
		break;
	case CONF_DURATION:
		why = store_measure(arena, key, &durations, text, &value.number, &subject);
		break;
	case CONF_SIZE:
		why = store_measure(arena, key, &sizes, text, &value.number, &subject);
		break;
	case CONF_BOOL:
		value.flag = strcmp(text, "on") == 0;
		if (!value.flag && strcmp(text, "off") != 0)
			why = "is neither on nor off";
		break;
	case CONF_WORD:
		why = store_word(arena, key, text, &value.word);
		break;
	case CONF_TEXT:
		why = store_text(arena, key, text, &value.text);
		break;
	case CONF_LIST:
		why = store_list(arena, key, text, &value.list, &subject);
		break;
	}
	if (why != NULL) {
		if (key->mask != NULL)
			subject = "the value";
		else if (subject == NULL)
			subject = conf_quote(arena, text);
		return arena_printf(arena, "%s: %s %s", key->name, subject, why);
	}

	switch (key->type) {
	case CONF_INT:
	case CONF_DURATION:
		*(int *)(void *)place = (int)value.number;
		break;
	case CONF_INT64:
		*(int64_t *)(void *)place = value.number;
		break;
	case CONF_SIZE:
		*(size_t *)(void *)place = (size_t)value.number;
		break;
	case CONF_BOOL:
		*(bool *)(void *)place = value.flag;
		break;
	case CONF_WORD:
		memcpy(place, &value.word, sizeof value.word);
		break;
	case CONF_TEXT:
		*(const char **)(void *)place = value.text;
		break;
	case CONF_LIST:
		*(const char *const **)(void *)place = value.list;
		break;
	}
	return NULL;
}

/* ---- Printing ---- */

static const char *value_text(struct arena *arena, const struct conf_key *key, const char *place)
{
	const char *text = NULL;
	int word;

	switch (key->type) {
	case CONF_INT:
		return arena_printf(arena, "%d", *(const int *)(const void *)place);
	case CONF_INT64:
		return arena_printf(
			arena, "%lld", (long long)*(const int64_t *)(const void *)place);
	case CONF_DURATION:
		return measure_text(arena, &durations, *(const int *)(const void *)place);
	case CONF_SIZE:
		return measure_text(arena, &sizes, (int64_t) * (const size_t *)(const void *)place);
	case CONF_BOOL:
		return *(const bool *)(const void *)place ? "on" : "off";
	case CONF_WORD:
		memcpy(&word, place, sizeof word);
		return key->words[word];
	case CONF_TEXT:
		text = *(const char *const *)(const void *)place;
		return text != NULL && key->mask != NULL ? key->mask(arena, text) : text;
	case CONF_LIST:
		for (const char *const *at = *(const char *const *const *)(const void *)place;
			at != NULL && *at != NULL; at++)
			text = arena_printf(arena, "%s%s%s", text == NULL ? "" : text,
				text == NULL ? "" : " ",
				key->mask == NULL ? *at : key->mask(arena, *at));
		return text;
	}
	return NULL;
}

static void print_value(const char *text, FILE *out)
{
	size_t len = strlen(text);

	if (len > 0 && *text != '"' && strchr(blanks, *text) == NULL &&
		strchr(blanks, text[len - 1]) == NULL) {
		fputs(text, out);
		return;
	}
	putc('"', out);
	for (; *text != '\0'; text++) {
		if (*text == '"' || *text == '\\')
			putc('\\', out);
		putc(*text, out);
	}
	putc('"', out);
}

void conf_print(const struct conf_keys *keys, const void *values, FILE *out)
{
	/* A value has at most CONF_LINE_MAX bytes; a list is joined word by word. */
	struct arena *arena = arena_new(CONF_LINE_MAX, SIZE_MAX);

	for (size_t i = 0; i < keys->count; i++) {
		const struct conf_key *key = &keys->list[i];
		const char *text = value_text(arena, key, (const char *)values + key->offset);

		fprintf(out, "# %s\n%s%s =", key->help, text == NULL ? "#" : "", key->name);
		if (text != NULL) {
			putc(' ', out);
			print_value(text, out);
		}
		putc('\n', out);
		arena_reset(arena);
	}
	arena_free(arena);
}
