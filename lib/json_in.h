/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON from strangers (RFC 8259), read strictly: one value and nothing behind it, nesting bounded,
 * valid UTF-8 (RFC 3629), no NUL in any string, no key twice in an object. One scan of our own
 * checks all that and builds a json-c tree, in which a number that is no 64-bit integer keeps its
 * own text (json_object_get_string() gives it). The original text of every member of the top-level
 * object is kept, so that whole files stay as they came.
 */
#ifndef AREG_JSON_IN_H
#define AREG_JSON_IN_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/faults.h"

/* A value with its own text. `object` is NULL for JSON null. Lives as long as the arena. */
struct json_text {
	struct json_object *object;
	const char *text; /* as it came, NUL-terminated copy */
	size_t len; /* bytes */
};

struct json_member {
	const char *key; /* decoded */
	struct json_text value;
};

struct json_doc {
	struct json_text root;
	struct json_member *members; /* of the root, in order; none when the root is no object */
	size_t member_count;
};

struct json_error {
	size_t offset; /* byte at which the text stops being acceptable, from 0 */
	const char *pointer; /* of the innermost value being read, or of the member whose key stands
				twice */
	const char *reason; /* "the key \"chain\" stands twice", "nested deeper than 32" */
};

struct json_rules {
	unsigned max_depth; /* levels of arrays and objects */
	size_t max_containers; /* arrays and objects in all: each costs some hundred bytes of tree,
				  so that 1 MiB of "[[],[],…" would cost hundreds of MiB */
	size_t max_values; /* values of any kind in all: each costs time */
	bool allow_nul; /* \u0000 in strings: for text that is stored as found, not from the API.
			   In a key it is read as U+FFFD, since keys of json-c are C strings */
	bool allow_lone_surrogates; /* \ud800 without its other half: likewise; read as U+FFFD */
};

/* depth 32, 10,000 arrays and objects, 20,000 values, nothing allowed */
extern const struct json_rules json_rules_strict;
/* depth 64, 100,000 arrays and objects, 1,000,000 values, both allowed */
extern const struct json_rules json_rules_wild;

/*
 * Parses text[0..len). False when it is refused, with *error filled in. The tree is owned by the
 * arena (json_object_put on its reset).
 */
MUST_CHECK bool json_parse(struct arena *arena, const char *text, size_t len,
	const struct json_rules *rules, struct json_doc *doc, struct json_error *error);

struct json_field;

/*
 * The same for a body that json_read() is to read by that table: of a member of the root that the table
 * does not name, the text is checked and nothing is built. Such a member has a NULL object and no text.
 */
MUST_CHECK bool json_parse_fields(struct arena *arena, const char *text, size_t len,
	const struct json_rules *rules, const struct json_field *fields, size_t field_count,
	struct json_doc *doc, struct json_error *error);

/* The root's member of that name, or NULL. A member that is JSON null is returned. */
const struct json_member *json_member(const struct json_doc *doc, const char *key);

/*
 * One value of canonical text for one JSON value: keys sorted by bytes at every level, no white
 * space, shortest escapes, numbers by their exact decimal value whatever their size (100, 1e2 and
 * 100.0 are all "1e2"). Two values of json_parse() that are equal as JSON give the same text, and
 * two that differ do not, but for what the wild rules read as U+FFFD and for exponents of more than
 * 15 digits, which stay as written.
 */
const char *json_canonical(struct arena *arena, struct json_object *value, size_t *len);

/* ---- Bodies: a table of fields says all that a body may hold ---- */

enum json_kind {
	JSON_STRING, /* const char *: min..max characters (code points) */
	JSON_ADDRESS, /* const char *: canonical, EIP-55 checked */
	JSON_HASH, /* const char *: canonical 32-byte hash */
	JSON_UUID, /* const char *: lower-case RFC 9562 text */
	JSON_URI, /* const char *: RFC 3986 absolute URI that is not unsafe_uri(), at most max
		     characters */
	JSON_ENDPOINT, /* const char *: as JSON_STRING, and not unsafe_uri() */
	JSON_INTEGER, /* const char *: decimal text of an integer, canonical, within min..max */
	JSON_VALUE, /* const char *: integer of feedback_value_parse() */
	JSON_DECIMAL, /* const char *: decimal text, no exponent, at most 2 fraction digits, within
			 min..max */
	JSON_AMOUNT, /* const char *: decimal text without exponent, at most 6 fraction digits,
			within min..max; from a string of that form, or from a JSON number in any
			notation (1e-05), exactly */
	JSON_BOOL, /* const char *: "true" or "false" */
	JSON_TIME, /* const char *: RFC 3339 time, as rfc3339_check() allows */
	JSON_OBJECT, /* struct json_text */
	JSON_ARRAY, /* struct json_text: min..max elements */
	JSON_WORDS, /* struct json_words: an array of `words`, none of them twice */
};

/* `texts` is NULL when the member is absent or null, and not when the array is empty. */
struct json_words {
	const char **texts;
	size_t count;
};

struct json_field {
	const char *name;
	enum json_kind kind;
	bool required;
	size_t offset; /* of a const char *, struct json_text or struct json_words in the target */
	long long min, max; /* what they bound depends on the kind; 0, 0 is no bound */
	const struct problem *problem; /* of its faults; NULL: the usual one, see faults_init() */
	const char *const *words; /* JSON_STRING, JSON_WORDS: NULL-terminated list of the only ones
				     allowed */
};

/*
 * Fills `target` from the document's members by the table. Adds one fault for each member that is
 * missing, unknown, of the wrong type or out of its bounds; an optional member that is null counts
 * as absent and leaves its pointer NULL (text.object, words.texts). A root that is no object is one fault.
 * Returns whether no fault was added.
 */
MUST_CHECK bool json_read(const struct json_doc *doc, const struct json_field *fields,
	size_t field_count, void *target, struct faults *faults);

/* Checks shared with query strings. `why` as in eth.h; `canonical` has room for 37 bytes. */
MUST_CHECK bool uuid_parse(const char *text, char canonical[37], const char **why);
MUST_CHECK bool uri_check(const char *text, size_t max_chars, const char **why);

/* Whether bytes[0..len) are valid UTF-8 (RFC 3629: no surrogates, nothing overlong). */
MUST_CHECK bool utf8_valid(const char *bytes, size_t len);

/* Code points in valid UTF-8. */
size_t utf8_length(const char *text);

#endif
