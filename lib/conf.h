/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Configuration: a file of `key = value` lines with [KIND NAME] sections, and the environment over
 * it, read into structs by tables of keys. Every fault is found, said with its place, and none is
 * fatal on the way. What the keys mean is the program's business.
 *
 * Lines are UTF-8 of at most CONF_LINE_MAX bytes and end in LF or CRLF. A line is empty, a comment
 * (its first character is #), a section header, or a key with its value. Blanks around either are
 * no part of it; a value in double quotes keeps its blanks, and \" and \\ in it stand for " and \.
 */
#ifndef AREG_CONF_H
#define AREG_CONF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "lib/arena.h"

enum {
	CONF_FILE_MAX = 256 * 1024, /* bytes of a file */
	CONF_LINE_MAX = 4096, /* bytes of a line, or of a variable's value */
	CONF_NAME_MAX = 32, /* bytes of a section's name: lower-case letters, digits, hyphens */
	CONF_SECTIONS_MAX = 256,
	CONF_FAULTS_MAX = 500, /* the last says that there are more, and reading stops */
};

enum conf_type {
	CONF_INT, /* int */
	CONF_INT64, /* int64_t, or uint64_t when min is not negative */
	CONF_DURATION, /* int, in milliseconds: digits and one of ms, s, m, h */
	CONF_SIZE, /* size_t, in bytes: digits and one of k, m, g (powers of 1024) */
	CONF_BOOL, /* bool: on or off */
	CONF_WORD, /* an enum counted from 0: one of `words` */
	CONF_TEXT, /* const char * */
	CONF_LIST, /* const char *const *, NULL-terminated: words between blanks or commas */
};

/*
 * Checks a text, or each word of a list. Returns NULL when it is right, and may replace *value (the
 * text at first) by its canonical form in the arena. Otherwise returns what is wrong as the rest
 * of a sentence, "is not an address"; it must not quote the text.
 */
typedef const char *conf_check(struct arena *arena, const char *text, const char **value);

/* A secret as it may be shown: the text with everything secret replaced by ****. */
typedef const char *conf_mask(struct arena *arena, const char *text);

struct conf_key {
	const char *name; /* lower-case letters, digits, underscores */
	enum conf_type type;
	size_t offset; /* in the struct that is filled */
	const char
		*fallback; /* what counts when nothing is set, as the file would say it; NULL leaves
				 the zeroed value */
	int64_t min, max; /* of numbers; durations in milliseconds, sizes in bytes */
	const char *const *words; /* CONF_WORD: NULL-terminated, in the order of the enum */
	conf_check *check; /* CONF_TEXT and CONF_LIST; NULL takes any text */
	conf_mask *mask; /* makes the value a secret, which no fault quotes */
	bool required;
	bool may_be_empty; /* CONF_TEXT: "" is a value */
	const char *help; /* one line, for conf_print() */
};

struct conf_keys {
	const struct conf_key *list;
	size_t count;
};

/* Another name of a key in the environment; the name made of the prefix wins over it. */
struct conf_alias {
	const char *variable; /* "DATABASE_URL" */
	const char
		*section; /* name of the section the key is in, made when not there; NULL: none */
	const char *key;
	/* Key, value, key, value, NULL: what else is known of the section when this variable is set
	 * and nobody says otherwise. NULL for nothing. */
	const char *const *implied;
};

struct conf_schema {
	struct conf_keys top; /* keys before the first section */
	const char *kind; /* of the sections: "chain" */
	struct conf_keys section; /* keys of each section */
	size_t section_size; /* bytes of the struct that a section fills */
	const char *prefix; /* of variables: "AREG_" makes AREG_WORKERS, AREG_CHAIN_NAME_KEY */
	const struct conf_alias *aliases;
	size_t alias_count;
	const char *const *other_variables; /* NULL-terminated: names with the prefix that are no
					       settings; one that ends in * stands for all such */
};

/* Values of one table, and where each comes from. */
struct conf_section {
	struct conf_section *next;
	const char *name; /* "" for the keys before the first section */
	const char *where; /* of its header, or of the variable that made it */
	const struct conf_keys *keys;
	void *values;
	const char **set_at; /* for each key where it was set; NULL: nowhere */
};

struct conf_fault {
	struct conf_fault *next;
	const char *where; /* "areg.conf:12", "environment variable AREG_WORKERS" */
	const char *why; /* "workers: 0 is not within 1..1024" */
};

struct conf {
	struct arena *arena;
	const struct conf_schema *schema;
	struct conf_section top;
	struct conf_section *sections, **sections_end; /* in the order in which they appeared */
	size_t section_count;
	struct conf_fault *faults, **faults_end; /* in the order found */
	size_t fault_count;
};

/*
 * Fills `values` with the defaults. `where` names what is blamed for a key that is nowhere. All
 * memory is the arena's: some KiB, and less than 2 MiB for the worst of files. The schema must
 * outlive *conf.
 */
void conf_init(struct conf *conf, struct arena *arena, const struct conf_schema *schema,
	void *values, const char *where);

/* Reads a file. False, with errno set and nothing read, when the file cannot be read or is larger
 * than CONF_FILE_MAX; faults in it are conf->faults. */
MUST_CHECK bool conf_read_file(struct conf *conf, const char *path);

/* Reads variables (as in environ(7); NULL after clearenv(3)) over what was read so far. An empty
 * one counts as unset. */
void conf_read_environment(struct conf *conf, char *const *environment);

/* Finds the required keys that nobody has set. */
void conf_check_required(struct conf *conf);

void conf_fault(struct conf *conf, const char *where, const char *format, ...) PRINTF_LIKE(3, 4);

/* Where that key of the section was set (rightly or not), or NULL. The key must exist. */
const char *conf_set_at(const struct conf_section *section, const char *key);

/* Writes each key with its help and its value as a file would have it, secrets masked. A key
 * without a value is written as a comment. */
void conf_print(const struct conf_keys *keys, const void *values, FILE *out);

#endif
