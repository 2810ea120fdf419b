/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Strict JSON in three parts: the scanner that checks a text and builds its tree, the canonical
 * text of a tree, and the reader that fills a struct from a table of fields. Read beside this:
 * RFC 8259 (JSON), RFC 3629 (UTF-8), RFC 3986 (URIs).
 */
#include "lib/json_in.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "lib/buf.h"
#include "lib/eth.h"
#include "lib/json_out.h"
#include "lib/rfc3339.h"
#include "lib/unsafe.h"
#include "lib/utf8.h"

const struct json_rules json_rules_strict = {
	.max_depth = 32, .max_containers = 10000, .max_values = 20000
};
const struct json_rules json_rules_wild = { .max_depth = 64,
	.max_containers = 100000,
	.max_values = 1000000,
	.allow_nul = true,
	.allow_lone_surrogates = true };

/* ---- UTF-8 ---- */

/* How many bytes at the beginning are valid. */
static size_t utf8_prefix(const char *bytes, size_t len)
{
	const uint64_t high_bits = 0x8080808080808080;
	size_t at = 0;

	while (at < len) {
		uint64_t eight;
		size_t size;

		while (len - at >= sizeof eight) {
			memcpy(&eight, bytes + at, sizeof eight);
			if ((eight & high_bits) != 0)
				break;
			at += sizeof eight;
		}
		if (at == len)
			break;
		size = utf8_sequence(bytes + at, len - at);
		if (size == 0)
			break;
		at += size;
	}
	return at;
}

bool utf8_valid(const char *bytes, size_t len)
{
	return utf8_prefix(bytes, len) == len;
}

size_t utf8_length(const char *text)
{
	size_t count = 0;

	for (; *text != '\0'; text++)
		count += ((unsigned char)*text & 0xc0) != 0x80;
	return count;
}

static void put_code_point(struct buf *out, unsigned code)
{
	char bytes[4];
	size_t size = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
	static const unsigned leads[] = { 0, 0x00, 0xc0, 0xe0, 0xf0 };

	for (size_t i = size; i-- > 1; code >>= 6)
		bytes[i] = (char)(0x80 | (code & 0x3f));
	bytes[0] = (char)(leads[size] | code);
	buf_put(out, bytes, size);
}

/* ---- The scanner ---- */

struct scan {
	struct arena *arena;
	const struct json_rules *rules;
	const char *text; /* NUL-terminated */
	const char *at;
	const char *end; /* of the valid UTF-8 in it */
	size_t len; /* of the text */
	unsigned depth;
	size_t containers, values;
	const struct json_field *fields; /* the members of the root to be built; NULL: all */
	size_t field_count;
	bool skips; /* within a member that is not */
	struct json_object *root;
	void **root_owned; /* where the arena finds it */
	struct buf members; /* struct json_member, of the root */
	struct json_error *error;
};

enum { REPLACEMENT = 0xfffd }; /* U+FFFD, for what no UTF-8 can say */

static bool json_in_refuse(struct scan *scan, const struct json_place *place, const char *reason)
{
	scan->error->offset = (size_t)(scan->at - scan->text);
	scan->error->pointer = json_place_pointer(scan->arena, "", place);
	scan->error->reason = reason;
	return false;
}

/* Refuses what stands here instead of what is expected, or that the text is over. */
static bool unexpected(struct scan *scan, const struct json_place *place, const char *expected)
{
	if (scan->at < scan->end)
		return json_in_refuse(scan, place, expected);
	if (scan->end < scan->text + scan->len)
		return json_in_refuse(scan, place, "not valid UTF-8");
	return json_in_refuse(scan, place, "the text ends too early");
}

/* The character here, NUL at the end: no token of JSON is one. */
static char here(const struct scan *scan)
{
	return scan->at < scan->end ? *scan->at : '\0';
}

static void skip_blanks(struct scan *scan)
{
	while (here(scan) == ' ' || here(scan) == '\t' || here(scan) == '\n' || here(scan) == '\r')
		scan->at++;
}

static bool accept(struct scan *scan, char c)
{
	if (here(scan) != c)
		return false;
	scan->at++;
	return true;
}

/* A node that json-c could not allocate must not pass for the NULL that means JSON null. */
static struct json_object *made(struct scan *scan, struct json_object *value)
{
	if (value == NULL)
		arena_exhausted(scan->arena);
	return value;
}

static void put_tree(void *tree)
{
	json_object_put(tree);
}

/* Hangs a value where it belongs. Done before its own content is read, so that whatever ends the
 * scan, the root, and with it the arena, owns all there is. */
static struct json_object *attach(struct scan *scan, struct json_object *into,
	const struct json_place *place, struct json_object *value)
{
	const unsigned new_key = JSON_C_OBJECT_ADD_KEY_IS_NEW | JSON_C_OBJECT_KEY_IS_CONSTANT;
	int failed = 0;

	if (scan->skips)
		return NULL;
	if (into == NULL) {
		*scan->root_owned = scan->root = value;
	} else if (place->key != NULL) {
		failed = json_object_object_add_ex(into, place->key, value, new_key);
	} else {
		failed = json_object_array_add(into, value);
	}
	if (failed != 0) {
		json_object_put(value);
		made(scan, NULL);
	}
	return value;
}

static bool scan_hex4(struct scan *scan, const struct json_place *place, unsigned *unit)
{
	*unit = 0;
	for (int i = 0; i < 4; i++, scan->at++) {
		char c = here(scan);

		if (!isxdigit((unsigned char)c))
			return unexpected(scan, place, "four hex digits are expected here");
		*unit = *unit << 4 | (unsigned)(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
	}
	return true;
}

/* What follows "\u". */
static bool scan_unicode_escape(
	struct scan *scan, const struct json_place *place, bool is_key, struct buf *out)
{
	const char *start = scan->at;
	unsigned code, low;

	if (!scan_hex4(scan, place, &code))
		return false;
	if (code >= 0xd800 && code <= 0xdbff && here(scan) == '\\' && scan->at[1] == 'u') {
		const char *second = scan->at;

		scan->at += 2;
		if (!scan_hex4(scan, place, &low))
			return false;
		if (low >= 0xdc00 && low <= 0xdfff)
			code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
		else
			scan->at = second; /* a character of its own */
	}
	if (code >= 0xd800 && code <= 0xdfff) {
		if (!scan->rules->allow_lone_surrogates) {
			scan->at = start;
			return json_in_refuse(scan, place, "half of a surrogate pair stands alone");
		}
		code = REPLACEMENT;
	}
	if (code == 0) {
		if (!scan->rules->allow_nul) {
			scan->at = start;
			return json_in_refuse(scan, place, "a string holds a NUL");
		}
		if (is_key)
			code = REPLACEMENT;
	}
	put_code_point(out, code);
	return true;
}

static bool scan_escape(
	struct scan *scan, const struct json_place *place, bool is_key, struct buf *out)
{
	static const char letters[] = "\"\\/bfnrt";
	static const char meanings[] = "\"\\/\b\f\n\r\t";
	const char *letter;

	scan->at++;
	if (accept(scan, 'u'))
		return scan_unicode_escape(scan, place, is_key, out);
	letter = here(scan) == '\0' ? NULL : strchr(letters, here(scan));
	if (letter == NULL)
		return unexpected(scan, place, "a backslash escapes nothing known");
	buf_putc(out, meanings[letter - letters]);
	scan->at++;
	return true;
}

static bool json_in_is_plain(char c)
{
	return (unsigned char)c >= 0x20 && c != '"' && c != '\\';
}

/* From one quote to behind the other. *bytes is in the text itself when nothing is escaped. */
static bool scan_string(struct scan *scan, const struct json_place *place, bool is_key,
	const char **bytes, size_t *len)
{
	const char *run = ++scan->at;
	struct buf decoded = { .arena = NULL };

	for (;;) {
		while (scan->at < scan->end && json_in_is_plain(*scan->at))
			scan->at++;
		if (here(scan) == '\\') {
			if (decoded.arena == NULL)
				buf_init(&decoded, scan->arena, (size_t)(scan->at - run) + 32);
			buf_put(&decoded, run, (size_t)(scan->at - run));
			if (!scan_escape(scan, place, is_key, &decoded))
				return false;
			run = scan->at;
		} else if (here(scan) == '"') {
			break;
		} else {
			return unexpected(scan, place,
				"a control character stands in a string without an escape");
		}
	}
	*bytes = run;
	*len = (size_t)(scan->at - run);
	if (decoded.arena != NULL) {
		buf_put(&decoded, run, *len);
		*bytes = decoded.data;
		*len = decoded.len;
	}
	scan->at++;
	return true;
}

static bool scan_digits(struct scan *scan, const struct json_place *place)
{
	if (!isdigit((unsigned char)here(scan)))
		return unexpected(scan, place, "a digit is expected here");
	while (isdigit((unsigned char)here(scan)))
		scan->at++;
	return true;
}

/* 64-bit integers become integers; all else becomes a double that remembers its text. */
static struct json_object *number_object(struct scan *scan, const char *text, bool is_integer)
{
	long long value;
	unsigned long long positive;

	errno = 0;
	value = strtoll(text, NULL, 10);
	if (is_integer && errno == 0)
		return made(scan, json_object_new_int64(value));
	errno = 0;
	positive = strtoull(text, NULL, 10);
	if (is_integer && errno == 0 && text[0] != '-')
		return made(scan, json_object_new_uint64(positive));
	return made(scan, json_object_new_double_s(strtod(text, NULL), text));
}

static bool scan_number(struct scan *scan, struct json_object *into, const struct json_place *place)
{
	const char *start = scan->at;
	bool is_integer = true;

	accept(scan, '-');
	if (!accept(scan, '0') && !scan_digits(scan, place))
		return false;
	if (accept(scan, '.')) {
		is_integer = false;
		if (!scan_digits(scan, place))
			return false;
	}
	if (accept(scan, 'e') || accept(scan, 'E')) {
		is_integer = false;
		if (!accept(scan, '+'))
			accept(scan, '-');
		if (!scan_digits(scan, place))
			return false;
	}
	if (scan->skips)
		return true;
	attach(scan, into, place,
		number_object(scan, arena_strndup(scan->arena, start, (size_t)(scan->at - start)),
			is_integer));
	return true;
}

static bool accept_word(struct scan *scan, const char *word)
{
	size_t len = strlen(word);

	if ((size_t)(scan->end - scan->at) < len || memcmp(scan->at, word, len) != 0)
		return false;
	scan->at += len;
	return true;
}

static bool scan_value(struct scan *scan, struct json_object *into, const struct json_place *place);

static bool scan_array(struct scan *scan, struct json_object *array, const struct json_place *place)
{
	struct json_place element = { .outer = place };

	skip_blanks(scan);
	if (accept(scan, ']'))
		return true;
	for (;; element.index++) {
		if (!scan_value(scan, array, &element))
			return false;
		skip_blanks(scan);
		if (accept(scan, ']'))
			return true;
		if (!accept(scan, ','))
			return unexpected(scan, place, "\",\" or \"]\" is expected here");
	}
}

static bool refuse_duplicate(struct scan *scan, const struct json_place *place)
{
	enum { SHOWN = 60 }; /* bytes of a long key */
	size_t len = utf8_cut(place->key, strlen(place->key), SHOWN);

	return json_in_refuse(scan, place,
		arena_printf(scan->arena, "the key \"%.*s%s\" stands twice", (int)len, place->key,
			place->key[len] == '\0' ? "" : "…"));
}

/* Keeps the text of a member of the root. */
static void keep_member(
	struct scan *scan, struct json_object *object, const char *key, const char *start)
{
	size_t len = (size_t)(scan->at - start);
	struct json_member member = { key, { json_object_object_get(object, key),
						   arena_strndup(scan->arena, start, len), len } };

	buf_put(&scan->members, &member, sizeof member);
}

static bool is_to_be_built(const struct scan *scan, const char *key)
{
	for (size_t i = 0; i < scan->field_count; i++)
		if (strcmp(scan->fields[i].name, key) == 0)
			return true;
	return scan->fields == NULL;
}

/* Checks the text of a member of the root that nobody will read, and remembers its key. */
static bool skip_member(
	struct scan *scan, struct json_object *object, const struct json_place *place)
{
	const struct json_member member = { .key = place->key };
	bool complete;

	scan->skips = true;
	complete = scan_value(scan, NULL, place);
	scan->skips = false;
	if (!complete)
		return false;
	attach(scan, object, place, NULL);
	buf_put(&scan->members, &member, sizeof member);
	return true;
}

/* One `"key": value`. Keys seen before are found in json-c's hash table, which is seeded. */
static bool scan_member(
	struct scan *scan, struct json_object *object, const struct json_place *place)
{
	const char *bytes, *start;
	size_t len;
	struct json_place member = { .outer = place };

	skip_blanks(scan);
	if (here(scan) != '"')
		return unexpected(scan, place, "a key in double quotes is expected here");
	start = scan->at;
	if (!scan_string(scan, place, true, &bytes, &len))
		return false;
	member.key = arena_strndup(scan->arena, bytes, len);
	if (!scan->skips && json_object_object_get_ex(object, member.key, NULL)) {
		scan->at = start;
		return refuse_duplicate(scan, &member);
	}
	skip_blanks(scan);
	if (!accept(scan, ':'))
		return unexpected(scan, place, "\":\" is expected here");
	skip_blanks(scan);
	start = scan->at;
	if (place == NULL && !is_to_be_built(scan, member.key))
		return skip_member(scan, object, &member);
	if (!scan_value(scan, object, &member))
		return false;
	if (place == NULL)
		keep_member(scan, object, member.key, start);
	return true;
}

static bool scan_object(
	struct scan *scan, struct json_object *object, const struct json_place *place)
{
	skip_blanks(scan);
	if (accept(scan, '}'))
		return true;
	for (;;) {
		if (!scan_member(scan, object, place))
			return false;
		skip_blanks(scan);
		if (accept(scan, '}'))
			return true;
		if (!accept(scan, ','))
			return unexpected(scan, place, "\",\" or \"}\" is expected here");
	}
}

/* An array or object, from its opening bracket. */
static bool scan_container(
	struct scan *scan, struct json_object *into, const struct json_place *place)
{
	bool complete;

	if (++scan->depth > scan->rules->max_depth)
		return json_in_refuse(scan, place,
			arena_printf(scan->arena, "nested deeper than %u", scan->rules->max_depth));
	if (++scan->containers > scan->rules->max_containers)
		return json_in_refuse(scan, place,
			arena_printf(scan->arena, "more than %zu arrays and objects",
				scan->rules->max_containers));
	if (*scan->at++ == '{')
		complete = scan_object(scan,
			scan->skips
				? NULL
				: attach(scan, into, place, made(scan, json_object_new_object())),
			place);
	else
		complete = scan_array(scan,
			scan->skips
				? NULL
				: attach(scan, into, place, made(scan, json_object_new_array())),
			place);
	scan->depth--;
	return complete;
}

/* Recursion is bounded by rules->max_depth. `into` is NULL for the root, as `place`. */
static bool scan_value(struct scan *scan, struct json_object *into, const struct json_place *place)
{
	const char *bytes;
	size_t len;

	skip_blanks(scan);
	if (++scan->values > scan->rules->max_values)
		return json_in_refuse(scan, place,
			arena_printf(scan->arena, "more than %zu values", scan->rules->max_values));
	switch (here(scan)) {
	case '{':
	case '[':
		return scan_container(scan, into, place);
	case '"':
		if (!scan_string(scan, place, false, &bytes, &len))
			return false;
		/* json-c counts in int; a text of 2 GiB is refused by json_parse() */
		if (!scan->skips)
			attach(scan, into, place,
				made(scan, json_object_new_string_len(bytes, (int)len)));
		return true;
	case 't':
		if (!accept_word(scan, "true"))
			break;
		if (!scan->skips)
			attach(scan, into, place, made(scan, json_object_new_boolean(true)));
		return true;
	case 'f':
		if (!accept_word(scan, "false"))
			break;
		if (!scan->skips)
			attach(scan, into, place, made(scan, json_object_new_boolean(false)));
		return true;
	case 'n':
		if (!accept_word(scan, "null"))
			break;
		attach(scan, into, place, NULL);
		return true;
	case '-':
	case '0' ... '9':
		return scan_number(scan, into, place);
	}
	return unexpected(scan, place, "a value is expected here");
}

bool json_parse(struct arena *arena, const char *text, size_t len, const struct json_rules *rules,
	struct json_doc *doc, struct json_error *error)
{
	return json_parse_fields(arena, text, len, rules, NULL, 0, doc, error);
}

bool json_parse_fields(struct arena *arena, const char *text, size_t len,
	const struct json_rules *rules, const struct json_field *fields, size_t field_count,
	struct json_doc *doc, struct json_error *error)
{
	struct scan scan = { .arena = arena,
		.rules = rules,
		.len = len,
		.fields = fields,
		.field_count = field_count,
		.error = error };
	const char *start;

	*doc = (struct json_doc){ .members = NULL };
	scan.text = scan.at = arena_strndup(arena, text, len);
	scan.end = scan.text + utf8_prefix(text, len);
	buf_init(&scan.members, arena, 16 * sizeof(struct json_member));
	scan.root_owned = arena_defer_slot(arena, put_tree);

	if (len > INT32_MAX)
		return json_in_refuse(&scan, NULL, "longer than 2 GiB");
	if (accept_word(&scan, "\xef\xbb\xbf")) {
		scan.at = scan.text;
		return json_in_refuse(&scan, NULL, "begins with a byte order mark");
	}
	skip_blanks(&scan);
	if (scan.at == scan.text + len)
		return json_in_refuse(&scan, NULL, "empty");
	start = scan.at;
	if (!scan_value(&scan, NULL, NULL))
		return false;
	doc->root.len = (size_t)(scan.at - start);
	skip_blanks(&scan);
	if (scan.at != scan.text + len)
		return unexpected(&scan, NULL, "something follows the value");

	doc->root.object = scan.root;
	doc->root.text = arena_strndup(arena, start, doc->root.len);
	doc->members = (struct json_member *)(void *)scan.members.data;
	doc->member_count = scan.members.len / sizeof(struct json_member);
	return true;
}

const struct json_member *json_member(const struct json_doc *doc, const char *key)
{
	for (size_t i = 0; i < doc->member_count; i++) {
		if (strcmp(doc->members[i].key, key) == 0)
			return &doc->members[i];
	}
	return NULL;
}

/* ---- Canonical text ---- */

/* The digits of a number without point, sign and exponent; returns what follows them. */
static const char *gather_digits(const char *text, struct buf *digits, long long *exponent)
{
	for (; isdigit((unsigned char)*text); text++)
		buf_putc(digits, *text);
	if (*text == '.') {
		for (text++; isdigit((unsigned char)*text); text++, --*exponent)
			buf_putc(digits, *text);
	}
	return text;
}

/* A number as its significant digits and a power of ten: "1e2", "-125e-2", "7", "0". */
static void put_canonical_number(struct json_out *out, struct arena *arena, const char *text)
{
	const char *rest; /* the exponent */
	struct buf digits;
	long long exponent = 0;
	size_t len, zeros;
	bool negative;

	if (text == NULL) /* json-c makes it on demand, and could not */
		arena_exhausted(arena);
	negative = text[0] == '-';
	len = strlen(text);
	if (text[len - 1] != '0' && strspn(text, "-0123456789") == len) {
		json_put_raw(out, text); /* as nearly all are */
		return;
	}
	buf_init(&digits, arena, len);
	rest = gather_digits(text + negative, &digits, &exponent);
	zeros = strspn(digits.data, "0");
	if (zeros == digits.len) {
		json_put_raw(out, "0");
		return;
	}
	for (; digits.data[digits.len - 1] == '0'; exponent++)
		digits.data[--digits.len] = '\0';
	if (*rest != '\0') {
		const bool down = rest[1] == '-';

		rest += 1 + strspn(rest + 1, "+-");
		rest += strspn(rest, "0");
		if (strlen(rest) > 15) { /* adding to it could overflow */
			json_put_raw(out, text);
			return;
		}
		exponent += (down ? -1 : 1) * strtoll(rest, NULL, 10);
	}
	json_put_raw(out, arena_printf(arena, exponent == 0 ? "%s%s" : "%s%se%lld",
				  negative ? "-" : "", digits.data + zeros, exponent));
}

static int compare_keys(const void *left, const void *right)
{
	const char *const *a = left, *const *b = right;

	return strcmp(*a, *b);
}

static void put_canonical(struct json_out *out, struct arena *arena, struct json_object *value)
{
	const char **keys;
	size_t count = 0;

	switch (json_object_get_type(value)) {
	case json_type_null:
		json_put_null(out);
		break;
	case json_type_boolean:
		json_put_bool(out, json_object_get_boolean(value));
		break;
	case json_type_int:
	case json_type_double:
		put_canonical_number(out, arena, json_object_get_string(value));
		break;
	case json_type_string:
		json_put_bytes(out, json_object_get_string(value),
			(size_t)json_object_get_string_len(value));
		break;
	case json_type_array:
		json_open_array(out);
		for (size_t i = 0; i < json_object_array_length(value); i++)
			put_canonical(out, arena, json_object_array_get_idx(value, i));
		json_close_array(out);
		break;
	case json_type_object:
		keys = arena_alloc(
			arena, (size_t)json_object_object_length(value) * sizeof *keys + 1);
		json_object_object_foreach (value, key, member) {
			(void)member;
			keys[count++] = key;
		}
		qsort(keys, count, sizeof *keys, compare_keys);
		json_open_object(out);
		for (size_t i = 0; i < count; i++) {
			json_key(out, keys[i]);
			put_canonical(out, arena, json_object_object_get(value, keys[i]));
		}
		json_close_object(out);
		break;
	}
}

const char *json_canonical(struct arena *arena, struct json_object *value, size_t *len)
{
	struct json_out out;
	struct buf text;

	buf_init(&text, arena, 1024);
	json_out_init(&out, &text);
	put_canonical(&out, arena, value);
	*len = text.len;
	return text.data;
}

/* ---- Checks of single values ---- */

bool uuid_parse(const char *text, char canonical[37], const char **why)
{
	size_t i;

	for (i = 0; i < 36; i++) {
		unsigned char c = (unsigned char)text[i];
		bool dash = i == 8 || i == 13 || i == 18 || i == 23;

		if (dash ? c != '-' : !isxdigit(c))
			break;
		canonical[i] = (char)tolower(c);
	}
	if (i == 36 && text[36] == '\0') {
		canonical[36] = '\0';
		return true;
	}
	canonical[0] = '\0';
	*why = "not a UUID";
	return false;
}

/* RFC 3986, section 2: whether the character, or the %XX, at `at` may stand in a URI at all. */
static bool is_uri_char(const char *at)
{
	if (*at == '%')
		return isxdigit((unsigned char)at[1]) && isxdigit((unsigned char)at[2]);
	return isalnum((unsigned char)*at) ||
	       (*at != '\0' && strchr("-._~:/?#[]@!$&'()*+,;=", *at) != NULL);
}

bool uri_check(const char *text, size_t max_chars, const char **why)
{
	const char *rest = text, *authority_end;

	*why = "not an absolute URI";
	if (!isalpha((unsigned char)*rest))
		return false;
	while (isalnum((unsigned char)*rest) || (*rest != '\0' && strchr("+-.", *rest) != NULL))
		rest++;
	if (*rest != ':' || rest[1] == '\0')
		return false;
	if (strncasecmp(text, "http:", 5) == 0 || strncasecmp(text, "https:", 6) == 0) {
		if (strncmp(rest, "://", 3) != 0 || strcspn(rest + 3, "/?#:") == 0) {
			*why = "a URI without a host";
			return false;
		}
	}
	if (utf8_length(text) > max_chars) {
		*why = "too long a URI";
		return false;
	}

	*why = "holds a character that must be escaped in a URI";
	for (const char *at = rest; *at != '\0'; at++) {
		if (!is_uri_char(at))
			return false;
	}
	/* brackets are only for IPv6 hosts, and there is one fragment at most */
	rest++;
	authority_end = strncmp(rest, "//", 2) == 0 ? rest + 2 + strcspn(rest + 2, "/?#") : rest;
	if (strpbrk(authority_end, "[]") != NULL)
		return false;
	rest = strchr(rest, '#');
	return rest == NULL || strchr(rest + 1, '#') == NULL;
}

/* ---- Reading by a table ---- */

struct reading {
	struct arena *arena;
	struct faults *faults;
	const struct json_field *field;
	const char *pointer; /* of the member */
};

static void __attribute__((format(printf, 2, 3)))
complain(const struct reading *reading, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fault_vadd(reading->faults, reading->field->problem, reading->pointer, format, args);
	va_end(args);
}

static bool is_bounded(const struct json_field *field)
{
	return field->min != 0 || field->max != 0;
}

static bool is_one_of(const char *text, const char *const *words)
{
	for (; *words != NULL; words++) {
		if (strcmp(text, *words) == 0)
			return true;
	}
	return false;
}

static void complain_of_words(const struct reading *reading)
{
	/* what would not be kept is not worded: an array can have a fault in each element */
	bool is_kept = reading->faults->count < FAULTS_MOST;
	struct buf list;

	buf_init(&list, reading->arena, is_kept ? 64 : 0);
	for (const char *const *word = reading->field->words; is_kept && *word != NULL; word++)
		buf_printf(&list, "%s%s", list.len == 0 ? "" : ", ", *word);
	complain(reading, "is not one of %s", list.data);
}

/* A JSON string that can be a C string; NULL, and a fault, for anything else. */
static const char *string_of(const struct reading *reading, const struct json_text *value)
{
	const char *text = json_object_get_string(value->object);

	if (!json_object_is_type(value->object, json_type_string)) {
		complain(reading, "is not a string");
		return NULL;
	}
	if (strlen(text) != (size_t)json_object_get_string_len(value->object)) {
		complain(reading, "holds a NUL");
		return NULL;
	}
	return text;
}

static const char *read_string(const struct reading *reading, const char *text)
{
	const struct json_field *field = reading->field;
	long long length = (long long)utf8_length(text);

	if (field->words != NULL && !is_one_of(text, field->words)) {
		complain_of_words(reading);
	} else if (is_bounded(field) && length < field->min) {
		if (length == 0)
			complain(reading, "is empty");
		else
			complain(reading, "is shorter than %lld characters", field->min);
	} else if (is_bounded(field) && length > field->max) {
		complain(reading, "is longer than %lld characters", field->max);
	} else {
		return text;
	}
	return NULL;
}

static const char *read_time(const struct reading *reading, const char *text)
{
	const char *why;

	if (rfc3339_check(text, &why))
		return text;
	complain(reading, "%s", why);
	return NULL;
}

/* A text that may be a URI: NULL, and a fault, for one that runs code where it is shown. */
static const char *read_safe(const struct reading *reading, const char *text)
{
	if (text == NULL || !unsafe_uri(text, strlen(text)))
		return text;
	complain(reading, "is a URI that runs code or reads files where it is followed");
	return NULL;
}

static const char *read_uri(const struct reading *reading, const char *text)
{
	const struct json_field *field = reading->field;
	const char *why;

	if (is_bounded(field) && utf8_length(text) > (size_t)field->max)
		complain(reading, "is longer than %lld characters", field->max);
	else if (!uri_check(text, SIZE_MAX, &why))
		complain(reading, "%s", why);
	else
		return read_safe(reading, text);
	return NULL;
}

/* The kinds that a parser of eth.h or uuid_parse() knows. */
static const char *read_parsed(const struct reading *reading, const char *text,
	bool parse(const char *text, char *canonical, const char **why))
{
	char *canonical = arena_alloc(reading->arena, ETH_HASH_LEN + 1);
	const char *why;

	if (parse(text, canonical, &why))
		return canonical;
	complain(reading, "%s", why);
	return NULL;
}

/*
 * A decimal text in parts. Compared exactly, in units of 10^-6: whole parts of more than 20 digits
 * are past any bound that a long long can say, and count as that many nines.
 */
struct decimal {
	const char *digits; /* behind the sign */
	size_t whole; /* digits before the point */
	size_t fraction; /* digits behind it */
	__int128 millionths; /* of the first six digits behind the point */
};

enum { WHOLE_DIGITS_COMPARED = 20 };

/* Whether `text` is -?(0|[1-9][0-9]*)(\.[0-9]+)? */
static bool decimal_parse(const char *text, struct decimal *decimal)
{
	size_t i;

	decimal->digits = text + (text[0] == '-');
	decimal->whole = strspn(decimal->digits, "0123456789");
	decimal->fraction = 0;
	decimal->millionths = 0;
	if (decimal->whole == 0 || (decimal->whole > 1 && decimal->digits[0] == '0'))
		return false;
	if (decimal->digits[decimal->whole] == '.') {
		const char *fraction = decimal->digits + decimal->whole + 1;

		decimal->fraction = strspn(fraction, "0123456789");
		if (decimal->fraction == 0 || fraction[decimal->fraction] != '\0')
			return false;
	} else if (decimal->digits[decimal->whole] != '\0') {
		return false;
	}
	for (i = 0; i < decimal->whole && i < WHOLE_DIGITS_COMPARED; i++)
		decimal->millionths =
			decimal->millionths * 10 +
			(decimal->whole > WHOLE_DIGITS_COMPARED ? 9 : decimal->digits[i] - '0');
	for (i = 0; i < 6; i++)
		decimal->millionths =
			decimal->millionths * 10 +
			(i < decimal->fraction ? decimal->digits[decimal->whole + 1 + i] - '0' : 0);
	if (text[0] == '-')
		decimal->millionths = -decimal->millionths;
	return true;
}

static bool json_in_is_zero(const struct decimal *decimal)
{
	return decimal->digits[strspn(decimal->digits, "0.")] == '\0';
}

/* `text` as a decimal of at most `fraction_max` digits behind the point, within the bounds. */
static const char *read_decimal(
	const struct reading *reading, const char *text, size_t fraction_max, const char *what)
{
	const struct json_field *field = reading->field;
	const __int128 unit = 1000000;
	struct decimal decimal;

	if (!decimal_parse(text, &decimal)) {
		complain(reading, "is not %s", what);
	} else if (decimal.fraction > 0 && fraction_max == 0) {
		complain(reading, "is not %s", what);
	} else if (decimal.fraction > fraction_max) {
		complain(reading, "has more than %zu digits behind the point", fraction_max);
	} else if (is_bounded(field) && (decimal.millionths < field->min * unit ||
						decimal.millionths > field->max * unit)) {
		complain(reading, "is not within %lld..%lld", field->min, field->max);
	} else {
		return json_in_is_zero(&decimal) ? decimal.digits : text; /* no minus zero */
	}
	return NULL;
}

static bool is_number(const struct json_text *value)
{
	return json_object_is_type(value->object, json_type_int) ||
	       json_object_is_type(value->object, json_type_double);
}

static const char *read_number(const struct reading *reading, const struct json_text *value)
{
	const char *why;

	if (!is_number(value)) {
		complain(reading, "is not a number");
		return NULL;
	}
	switch (reading->field->kind) {
	case JSON_INTEGER:
		return read_decimal(reading, value->text, 0, "an integer in plain digits");
	case JSON_VALUE:
		if (feedback_value_parse(value->text, &why))
			return value->text;
		complain(reading, "%s", why);
		return NULL;
	default:
		return read_decimal(reading, value->text, 2, "a decimal number in plain digits");
	}
}

static void put_zeros(struct buf *buf, long long count)
{
	const long long most = 64; /* no bound of a field has as many digits */

	for (long long i = 0; i < count && i < most; i++)
		buf_putc(buf, '0');
}

/*
 * A JSON number in plain digits, without zeros at the end of its fraction: 1e-05 becomes 0.00001.
 * Exact but for exponents that put the number far outside the bounds of every field: then the
 * result has fewer zeros and is outside them, too.
 */
static const char *plain_number(struct arena *arena, const char *text)
{
	const bool negative = text[0] == '-';
	const size_t len = strlen(text);
	struct buf digits, plain;
	long long exponent = 0, whole;
	const char *rest, *significant;

	buf_init(&digits, arena, len);
	rest = gather_digits(text + negative, &digits, &exponent);
	significant = digits.data + strspn(digits.data, "0");
	if (*significant == '\0')
		return "0";
	for (; digits.data[digits.len - 1] == '0'; exponent++)
		digits.data[--digits.len] = '\0';
	if (*rest != '\0') {
		long long given = strtoll(rest + 1, NULL, 10); /* or the nearest that it can say */

		exponent += given > INT_MAX ? INT_MAX : given < -INT_MAX ? -INT_MAX : given;
	}
	whole = (long long)strlen(significant) + exponent; /* digits before the point */
	buf_init(&plain, arena, len);
	buf_puts(&plain, negative ? "-" : "");
	if (exponent >= 0) {
		buf_puts(&plain, significant);
		put_zeros(&plain, exponent);
	} else if (whole > 0) {
		buf_put(&plain, significant, (size_t)whole);
		buf_printf(&plain, ".%s", significant + whole);
	} else {
		buf_puts(&plain, "0.");
		put_zeros(&plain, -whole);
		buf_puts(&plain, significant);
	}
	return plain.data;
}

static const char *read_amount(const struct reading *reading, const struct json_text *value)
{
	const char *text;

	if (json_object_is_type(value->object, json_type_string)) {
		text = string_of(reading, value);
	} else if (is_number(value)) {
		text = plain_number(reading->arena, value->text);
	} else {
		complain(reading, "is not a decimal number, as a string or a number");
		return NULL;
	}
	return text == NULL ? NULL
			    : read_decimal(reading, text, 6, "a decimal number in plain digits");
}

static const char *read_scalar(const struct reading *reading, const struct json_text *value)
{
	const enum json_kind kind = reading->field->kind;
	const char *text;

	if (kind == JSON_BOOL) {
		if (json_object_is_type(value->object, json_type_boolean))
			return json_object_get_boolean(value->object) ? "true" : "false";
		complain(reading, "is not true or false");
		return NULL;
	}
	if (kind == JSON_AMOUNT)
		return read_amount(reading, value);
	if (kind == JSON_INTEGER || kind == JSON_VALUE || kind == JSON_DECIMAL)
		return read_number(reading, value);

	text = string_of(reading, value);
	if (text == NULL)
		return NULL;
	switch (kind) {
	case JSON_ADDRESS:
		return read_parsed(reading, text, eth_address_parse);
	case JSON_HASH:
		return read_parsed(reading, text, eth_hash_parse);
	case JSON_UUID:
		return read_parsed(reading, text, uuid_parse);
	case JSON_URI:
		return read_uri(reading, text);
	case JSON_ENDPOINT:
		return read_safe(reading, read_string(reading, text));
	case JSON_TIME:
		return read_time(reading, text);
	default:
		return read_string(reading, text);
	}
}

static bool has_right_shape(const struct reading *reading, const struct json_text *value)
{
	const struct json_field *field = reading->field;
	long long length;

	if (field->kind == JSON_OBJECT) {
		if (json_object_is_type(value->object, json_type_object))
			return true;
		complain(reading, "is not an object");
		return false;
	}
	if (!json_object_is_type(value->object, json_type_array)) {
		complain(reading, "is not an array");
		return false;
	}
	length = (long long)json_object_array_length(value->object);
	if (is_bounded(field) && length < field->min)
		complain(reading, "has fewer than %lld elements", field->min);
	else if (is_bounded(field) && length > field->max)
		complain(reading, "has more than %lld elements", field->max);
	else
		return true;
	return false;
}

/* Faults point at the element. */
static void json_in_read_words(
	const struct reading *reading, const struct json_text *value, struct json_words *words)
{
	size_t count = json_object_array_length(value->object);

	words->texts = arena_alloc(reading->arena, (count + 1) * sizeof *words->texts);
	for (size_t i = 0; i < count; i++) {
		const struct json_text element = { .object = json_object_array_get_idx(
							   value->object, i) };
		struct reading at = *reading;
		const char *text;

		at.pointer = json_pointer_index(reading->arena, reading->pointer, i);
		text = string_of(&at, &element);
		if (text == NULL)
			continue;
		if (!is_one_of(text, reading->field->words))
			complain_of_words(&at);
		else if (is_one_of(text, words->texts))
			complain(&at, "stands twice");
		else
			words->texts[words->count++] = text;
	}
}

static void read_field(
	const struct reading *reading, const struct json_member *member, void *target)
{
	const struct json_field *field = reading->field;
	void *into = (char *)target + field->offset;
	bool words = field->kind == JSON_WORDS;
	bool nested = words || field->kind == JSON_OBJECT || field->kind == JSON_ARRAY;

	if (words)
		*(struct json_words *)into = (struct json_words){ .texts = NULL };
	else if (nested)
		*(struct json_text *)into = (struct json_text){ .object = NULL };
	else
		*(const char **)into = NULL;

	if (member == NULL || member->value.object == NULL) {
		if (field->required)
			complain(reading, member == NULL ? "is missing" : "is null");
	} else if (!nested) {
		*(const char **)into = read_scalar(reading, &member->value);
	} else if (!has_right_shape(reading, &member->value)) {
		return;
	} else if (words) {
		json_in_read_words(reading, &member->value, into);
	} else {
		*(struct json_text *)into = member->value;
	}
}

bool json_read(const struct json_doc *doc, const struct json_field *fields, size_t field_count,
	void *target, struct faults *faults)
{
	const size_t count_before = faults->count;
	struct arena *arena = faults->arena;

	if (!json_object_is_type(doc->root.object, json_type_object)) {
		fault_add(faults, NULL, "", "is not an object");
		return false;
	}
	for (size_t i = 0; i < field_count; i++) {
		struct reading reading = { arena, faults, &fields[i],
			json_pointer(arena, "", fields[i].name) };

		read_field(&reading, json_member(doc, fields[i].name), target);
	}
	for (size_t i = 0; i < doc->member_count; i++) {
		const char *key = doc->members[i].key;
		size_t known = 0;

		while (known < field_count && strcmp(key, fields[known].name) != 0)
			known++;
		if (known == field_count)
			fault_add(faults, NULL, json_pointer(arena, "", key),
				"is not a field of this request");
	}
	return faults->count == count_before;
}
