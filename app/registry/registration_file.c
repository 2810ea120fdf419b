/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One reading of a registration file: the columns that search needs, and every fault. Besides the
 * standard's own spelling it knows those found on chains, reads them where their meaning is plain,
 * and says what is off. See also: ERC-8004, "Agent Registration File".
 */
#include "app/registry/registration_file_reading.h"

#include <string.h>

#include "app/problem_list.h"
#include "lib/buf.h"
#include "lib/eth.h"
#include "lib/json_out.h"
#include "lib/sha256.h"
#include "lib/unsafe.h"

static const char registration_type[] = "https://eips.ethereum.org/EIPS/eip-8004#registration-v1";

/* Characters, and entries of a list. */
enum {
	NAME_MAX_CHARS = 200,
	DESCRIPTION_MAX_CHARS = 2000,
	IMAGE_MAX_CHARS = 2048,
	REGISTRATIONS_MAX = 10, /* as API.md bounds it */
	TRUST_WORDS_MAX = 100, /* kept for search */
};

void registration_file_complain(const struct registration_file_reading *reading,
	const char *pointer, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fault_vadd(reading->faults, PROBLEM_INVALID_REGISTRATION_FILE, pointer, format, args);
	va_end(args);
}

const char *registration_file_pointer(
	const struct registration_file_reading *reading, const char *key)
{
	return json_pointer(reading->arena, reading->base, key);
}

static bool file_is_string(struct json_object *value)
{
	return json_object_is_type(value, json_type_string);
}

bool registration_file_find(struct json_object *object, const char *key, struct json_object **value)
{
	return json_object_object_get_ex(object, key, value) && *value != NULL;
}

/* ---- Columns ---- */

char *registration_file_cut(struct arena *arena, const char *text, size_t len, size_t max_chars)
{
	const char *end = text + len;
	char *kept = arena_alloc(arena, len + 1), *to = kept;
	size_t chars = 0;

	for (; text < end; text++) {
		bool starts_character = ((unsigned char)*text & 0xc0) != 0x80;

		if (*text == '\0')
			continue;
		if (starts_character && chars++ == max_chars)
			break;
		*to++ = *text;
	}
	return to == kept ? NULL : kept;
}

char *registration_file_column(const struct registration_file_reading *reading,
	struct json_object *value, size_t max_chars)
{
	if (!file_is_string(value))
		return NULL;
	return registration_file_cut(reading->arena, json_object_get_string(value),
		(size_t)json_object_get_string_len(value), max_chars);
}

const char *registration_file_whole(const struct registration_file_reading *reading,
	struct json_object *value, size_t max_chars)
{
	const char *text = registration_file_column(reading, value, max_chars);

	if (text == NULL || strlen(text) != (size_t)json_object_get_string_len(value))
		return NULL;
	return text;
}

bool registration_file_is_unsafe(const struct registration_file_reading *reading,
	struct json_object *value, const char *pointer)
{
	if (!file_is_string(value) || !unsafe_uri(json_object_get_string(value),
					      (size_t)json_object_get_string_len(value)))
		return false;
	registration_file_complain(
		reading, pointer, "is a URI that runs code or reads files where it is followed");
	return true;
}

void registration_file_check_seen(const struct registration_file_reading *reading,
	struct json_object *value, const char *pointer)
{
	uint32_t code = file_is_string(value) ? unsafe_character(json_object_get_string(value),
							(size_t)json_object_get_string_len(value))
					      : 0;

	if (code != 0)
		registration_file_complain(reading, pointer,
			"holds U+%04X, which is not seen or turns the direction of the text",
			(unsigned)code);
}

static void put_set(void *set)
{
	json_object_put(set);
}

void registration_file_words_init(const struct registration_file_reading *reading,
	struct registration_file_words *words, size_t max)
{
	void **owned = arena_defer_slot(reading->arena, put_set);

	words->arena = reading->arena;
	words->list = arena_alloc(reading->arena, max * sizeof *words->list);
	words->count = 0;
	words->max = max;
	*owned = words->seen = json_object_new_object();
	if (words->seen == NULL)
		arena_exhausted(words->arena);
}

void registration_file_words_add(struct registration_file_words *words, const char *word)
{
	if (word == NULL || words->count == words->max ||
		json_object_object_get_ex(words->seen, word, NULL))
		return;
	if (json_object_object_add(words->seen, word, NULL) != 0)
		arena_exhausted(words->arena);
	words->list[words->count++] = word;
}

void registration_file_words_add_strings(const struct registration_file_reading *reading,
	struct registration_file_words *words, struct json_object *list)
{
	if (!json_object_is_type(list, json_type_array))
		return;
	for (size_t i = 0; i < json_object_array_length(list); i++)
		registration_file_words_add(
			words, registration_file_whole(reading, json_object_array_get_idx(list, i),
				       REGISTRATION_FILE_WORD_CHARS_MAX));
}

/* ---- Single members ---- */

static void read_type(const struct registration_file_reading *reading)
{
	struct json_object *type;

	if (!registration_file_find(reading->file, "type", &type))
		return;
	if (!file_is_string(type) || strcmp(json_object_get_string(type), registration_type) != 0 ||
		(size_t)json_object_get_string_len(type) != strlen(registration_type))
		registration_file_complain(reading, registration_file_pointer(reading, "type"),
			"is not %s", registration_type);
}

/* A required text; what it says is read even when it is too long. */
static const char *read_text(
	const struct registration_file_reading *reading, const char *key, size_t max_chars)
{
	const char *pointer = registration_file_pointer(reading, key);
	struct json_object *value;

	if (!registration_file_find(reading->file, key, &value))
		registration_file_complain(reading, pointer, "is missing");
	else if (!file_is_string(value))
		registration_file_complain(reading, pointer, "is not a string");
	else if (json_object_get_string_len(value) == 0)
		registration_file_complain(reading, pointer, "is empty");
	else if (utf8_length(json_object_get_string(value)) > max_chars)
		registration_file_complain(
			reading, pointer, "is longer than %zu characters", max_chars);
	return registration_file_column(reading, value, max_chars);
}

static void read_image(const struct registration_file_reading *reading)
{
	const char *pointer = registration_file_pointer(reading, "image");
	struct json_object *image;
	const char *uri, *why;

	if (!registration_file_find(reading->file, "image", &image))
		return;
	uri = json_object_get_string(image);
	reading->out->image = registration_file_whole(reading, image, IMAGE_MAX_CHARS);
	if (!file_is_string(image))
		registration_file_complain(reading, pointer, "is not a string");
	else if (json_object_get_string_len(image) == 0)
		return; /* none */
	else if (registration_file_is_unsafe(reading, image, pointer))
		reading->out->image = NULL;
	else if (utf8_length(uri) > IMAGE_MAX_CHARS)
		registration_file_complain(
			reading, pointer, "is longer than %d characters", IMAGE_MAX_CHARS);
	else if (!uri_check(uri, IMAGE_MAX_CHARS, &why))
		registration_file_complain(reading, pointer, "%s", why);
}

/* The member `key`, else `wild`, a spelling of it that is found on chains and is a fault. *pointer
 * goes to the one that counts. */
static bool find_spelled(const struct registration_file_reading *reading, const char *key,
	const char *wild, struct json_object **value, const char **pointer)
{
	struct json_object *misspelled;
	bool found = registration_file_find(reading->file, key, value);

	*pointer = registration_file_pointer(reading, key);
	if (registration_file_find(reading->file, wild, &misspelled)) {
		registration_file_complain(reading, registration_file_pointer(reading, wild),
			"is written %s; the standard says %s", wild, key);
		if (!found) {
			*pointer = registration_file_pointer(reading, wild);
			*value = misspelled;
			found = true;
		}
	}
	return found;
}

static const char *read_flag(const struct registration_file_reading *reading,
	struct json_object *flag, const char *pointer)
{
	if (json_object_is_type(flag, json_type_boolean))
		return json_object_get_boolean(flag) ? "true" : "false";
	registration_file_complain(reading, pointer, "is not true or false");
	return NULL;
}

static void read_flags(const struct registration_file_reading *reading)
{
	struct json_object *flag;
	const char *pointer;

	if (find_spelled(reading, "x402Support", "x402support", &flag, &pointer))
		reading->out->x402_support = read_flag(reading, flag, pointer);
	if (registration_file_find(reading->file, "active", &flag))
		reading->out->active =
			read_flag(reading, flag, registration_file_pointer(reading, "active"));
}

/* ---- Lists ---- */

bool registration_file_is_list(const struct registration_file_reading *reading,
	struct json_object *list, const char *pointer, size_t max_entries)
{
	if (!json_object_is_type(list, json_type_array)) {
		registration_file_complain(reading, pointer, "is not a list");
		return false;
	}
	if (json_object_array_length(list) > max_entries)
		registration_file_complain(
			reading, pointer, "has more than %zu entries", max_entries);
	return true;
}

static void read_trust(const struct registration_file_reading *reading)
{
	struct json_object *list;
	struct registration_file_words words;
	const char *pointer;

	if (!find_spelled(reading, "supportedTrust", "supportedTrusts", &list, &pointer))
		return;
	if (!registration_file_is_list(reading, list, pointer, SIZE_MAX))
		return;
	for (size_t i = 0; i < json_object_array_length(list); i++) {
		if (!file_is_string(json_object_array_get_idx(list, i)))
			registration_file_complain(reading,
				json_pointer_index(reading->arena, pointer, i), "is not a string");
	}
	registration_file_words_init(reading, &words, TRUST_WORDS_MAX);
	registration_file_words_add_strings(reading, &words, list);
	reading->out->supported_trust = words.list;
	reading->out->trust_count = words.count;
}

static void read_registration(const struct registration_file_reading *reading,
	struct json_object *entry, const char *pointer)
{
	char agent_id[UINT256_DIGITS + 1];
	const char *at, *why;
	struct json_object *value;

	if (!json_object_is_type(entry, json_type_object)) {
		registration_file_complain(reading, pointer, "is not an object");
		return;
	}
	at = json_pointer(reading->arena, pointer, "agentId");
	if (!json_object_object_get_ex(entry, "agentId", &value))
		registration_file_complain(reading, at, "is missing");
	else if (value != NULL &&
		 (file_is_string(value) ||
			 !uint256_parse(json_object_get_string(value), agent_id, &why)))
		registration_file_complain(reading, at, "is not a whole number or null");
	at = json_pointer(reading->arena, pointer, "agentRegistry");
	if (!registration_file_find(entry, "agentRegistry", &value))
		registration_file_complain(reading, at, "is missing");
	else if (!file_is_string(value))
		registration_file_complain(reading, at, "is not a string");
}

static void read_registrations(const struct registration_file_reading *reading)
{
	const char *pointer = registration_file_pointer(reading, "registrations");
	struct json_object *list;

	if (!registration_file_find(reading->file, "registrations", &list) ||
		!registration_file_is_list(reading, list, pointer, REGISTRATIONS_MAX))
		return;
	for (size_t i = 0; i < json_object_array_length(list); i++)
		read_registration(reading, json_object_array_get_idx(list, i),
			json_pointer_index(reading->arena, pointer, i));
}

/* Links that marketplaces of tokens follow, beside those of the standard. */
static void check_links(const struct registration_file_reading *reading)
{
	static const char *const keys[] = { "external_url", "animation_url", "url", "website" };
	struct json_object *link;

	for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
		if (registration_file_find(reading->file, keys[i], &link))
			registration_file_is_unsafe(
				reading, link, registration_file_pointer(reading, keys[i]));
}

static void check_name(const struct registration_file_reading *reading)
{
	struct json_object *name;

	if (registration_file_find(reading->file, "name", &name))
		registration_file_check_seen(
			reading, name, registration_file_pointer(reading, "name"));
}

/* ---- The whole file ---- */

/* Depth is bounded by the rules under which the file was parsed. */
static void find_nuls(const struct registration_file_reading *reading, struct json_object *value,
	const struct json_place *place)
{
	struct json_place member = { .outer = place };

	if (file_is_string(value)) {
		if (strlen(json_object_get_string(value)) !=
			(size_t)json_object_get_string_len(value))
			registration_file_complain(reading,
				reading->faults->count < FAULTS_MOST
					? json_place_pointer(reading->arena, reading->base, place)
					: "", /* not kept */
				"holds a NUL");
	} else if (json_object_is_type(value, json_type_array)) {
		for (; member.index < json_object_array_length(value); member.index++)
			find_nuls(reading, json_object_array_get_idx(value, member.index), &member);
	} else if (json_object_is_type(value, json_type_object)) {
		json_object_object_foreach (value, key, inner) {
			member.key = key;
			find_nuls(reading, inner, &member);
		}
	}
}

static void digest_of(struct arena *arena, struct json_object *value, char digest[65])
{
	uint8_t bytes[SHA256_BYTES];
	size_t len;
	const char *canonical = json_canonical(arena, value, &len);

	sha256(canonical, len, bytes);
	hex_encode(bytes, sizeof bytes, digest);
}

void registration_file_read(struct arena *arena, const struct json_text *file, const char *base,
	struct registration_file *out, struct faults *faults)
{
	struct registration_file_reading reading = { arena, base, file->object, out, faults };

	*out = (struct registration_file){
		.text = file->text, .len = file->len, .shown_services = "[]"
	};
	digest_of(arena, file->object, out->digest);
	if (file->len > REGISTRATION_FILE_BYTES_MAX)
		registration_file_complain(&reading, base, "is larger than %d KiB",
			REGISTRATION_FILE_BYTES_MAX / 1024);
	if (!json_object_is_type(file->object, json_type_object)) {
		registration_file_complain(&reading, base, "is not an object");
		return;
	}
	if (strstr(file->text, "\\u0000") != NULL)
		find_nuls(&reading, file->object, NULL);
	read_type(&reading);
	out->name = read_text(&reading, "name", NAME_MAX_CHARS);
	check_name(&reading);
	out->description = read_text(&reading, "description", DESCRIPTION_MAX_CHARS);
	read_image(&reading);
	check_links(&reading);
	registration_file_read_services(&reading);
	read_registrations(&reading);
	read_trust(&reading);
	read_flags(&reading);
}

const char *registration_file_conformance(struct arena *arena, const struct faults *faults)
{
	struct json_out out;
	struct buf text;

	buf_init(&text, arena, 256);
	json_out_init(&out, &text);
	json_open_array(&out);
	for (const struct fault *fault = faults->first; fault != NULL; fault = fault->next) {
		json_open_object(&out);
		json_string(&out, "pointer", fault->pointer);
		json_string(&out, "detail", fault->detail);
		json_close_object(&out);
	}
	if (faults->count > FAULTS_MOST) {
		json_open_object(&out);
		json_string(&out, "pointer", "");
		json_string(&out, "detail",
			arena_printf(arena, "has %zu more faults", faults->count - FAULTS_MOST));
		json_close_object(&out);
	}
	json_close_array(&out);
	return text.data;
}
