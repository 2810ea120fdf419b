/* SPDX-License-Identifier: Apache-2.0 */
/* Only for registration_file.c and registration_file_services.c: the state of reading one
 * registration file. */
#ifndef AREG_REGISTRY_REGISTRATION_FILE_READING_H
#define AREG_REGISTRY_REGISTRATION_FILE_READING_H

#include "app/registry/registration_file.h"

enum {
	REGISTRATION_FILE_WORD_CHARS_MAX =
		200, /* a service's name, a skill, a domain, a kind of trust */
};

struct registration_file_reading {
	struct arena *arena;
	const char *base; /* the pointer to the file */
	struct json_object *file; /* an object */
	struct registration_file *out;
	struct faults *faults;
};

/* Adds a fault at the pointer. */
void registration_file_complain(const struct registration_file_reading *reading,
	const char *pointer, const char *format, ...) PRINTF_LIKE(3, 4);

/* The pointer to a member of the file. */
const char *registration_file_pointer(
	const struct registration_file_reading *reading, const char *key);

/* Whether the object has a member of that name that is not null: null means absent. */
bool registration_file_find(
	struct json_object *object, const char *key, struct json_object **value);

/* Whether the value is a list. Says so where it is none, or where it has more than max_entries; one
 * that is too long is read nevertheless. */
bool registration_file_is_list(const struct registration_file_reading *reading,
	struct json_object *list, const char *pointer, size_t max_entries);

/* The first max_chars characters of text[0..len), valid UTF-8, without its NULs, which PostgreSQL's
 * text cannot hold. NULL when nothing is left. */
char *registration_file_cut(struct arena *arena, const char *text, size_t len, size_t max_chars);

/* The same of a value; NULL, too, when it is no string. */
char *registration_file_column(const struct registration_file_reading *reading,
	struct json_object *value, size_t max_chars);

/* A text that is nothing when it is cut, such as a URI: NULL where it is too long, too, or holds a
 * NUL. */
const char *registration_file_whole(const struct registration_file_reading *reading,
	struct json_object *value, size_t max_chars);

/* Adds a fault where the value is a string that is unsafe_uri(); returns whether it is. */
bool registration_file_is_unsafe(const struct registration_file_reading *reading,
	struct json_object *value, const char *pointer);

/* Adds a fault where the value is a string that holds an unsafe_character(). */
void registration_file_check_seen(const struct registration_file_reading *reading,
	struct json_object *value, const char *pointer);

/* A list of distinct words on its way into a column. */
struct registration_file_words {
	struct arena *arena;
	const char **list;
	size_t count, max;
	struct json_object *seen; /* a set: json-c's hash is seeded, whoever chose the words */
};

void registration_file_words_init(const struct registration_file_reading *reading,
	struct registration_file_words *words, size_t max);

/* Adds a word that is neither NULL nor there already, up to the words' max. */
void registration_file_words_add(struct registration_file_words *words, const char *word);

/* Adds the strings of a list that are no longer than a word; nothing where the value is no list. */
void registration_file_words_add_strings(const struct registration_file_reading *reading,
	struct registration_file_words *words, struct json_object *list);

/* registration_file_services.c: `services`, or the older `endpoints`, into the columns of
 * *reading->out. */
void registration_file_read_services(const struct registration_file_reading *reading);

#endif
