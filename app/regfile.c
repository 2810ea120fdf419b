/*
 * One reading of a registration file: the columns that search needs, and every fault. Besides the
 * standard's own spelling it knows those found on chains, reads them where their meaning is plain,
 * and says what is off. Read beside this: API.md's "Registration file", ERC-8004.
 */
#include "app/regfile.h"

#include <string.h>

#include "lib/buf.h"
#include "lib/eth.h"
#include "lib/json_out.h"
#include "lib/sha256.h"

static const char registration_type[] = "https://eips.ethereum.org/EIPS/eip-8004#registration-v1";

/* Characters, and entries of a list. */
enum {
	NAME_MAX_CHARS = 200,
	DESCRIPTION_MAX_CHARS = 2000,
	IMAGE_MAX_CHARS = 2048,
	WORD_MAX_CHARS = 200, /* a service's name, a skill, a domain, a kind of trust */
	SERVICES_MAX = 20, /* the standard's lists, as API.md bounds them */
	REGISTRATIONS_MAX = 10,
	SERVICE_WORDS_MAX = 100, /* what is kept for search */
	SKILL_WORDS_MAX = 500,
	TRUST_WORDS_MAX = 100,
};

struct reading {
	struct arena *arena;
	const char *base;
	struct json_object *file; /* an object */
	struct regfile *out;
	struct faults *faults;
};

static void __attribute__((format(printf, 3, 4)))
complain(const struct reading *reading, const char *pointer, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fault_vadd(reading->faults, "invalid_registration_file", pointer, format, args);
	va_end(args);
}

static const char *pointer_to(const struct reading *reading, const char *key)
{
	return json_pointer(reading->arena, reading->base, key);
}

static bool is_string(struct json_object *value)
{
	return json_object_is_type(value, json_type_string);
}

/* Whether the object has a member of that name; it may be null. */
static bool find(struct json_object *object, const char *key, struct json_object **value)
{
	return json_object_object_get_ex(object, key, value);
}

/* ---- Columns ---- */

/* The first max_chars characters of text[0..len), valid UTF-8, without its NULs, which PostgreSQL's
 * text cannot hold. NULL when nothing is left. */
static char *cut(struct arena *arena, const char *text, size_t len, size_t max_chars)
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

/* The same of a value; NULL, too, when it is no string. */
static char *column(const struct reading *reading, struct json_object *value, size_t max_chars)
{
	if (!is_string(value))
		return NULL;
	return cut(reading->arena, json_object_get_string(value),
		(size_t)json_object_get_string_len(value), max_chars);
}

/* A list of distinct words on its way into a column. */
struct words {
	const char **list;
	size_t count, max;
	struct json_object *seen; /* a set: json-c's hash is seeded, whoever chose the words */
};

static void put_set(void *set)
{
	json_object_put(set);
}

static void words_init(const struct reading *reading, struct words *words, size_t max)
{
	words->list = arena_alloc(reading->arena, max * sizeof *words->list);
	words->count = 0;
	words->max = max;
	words->seen = json_object_new_object();
	arena_defer(reading->arena, put_set, words->seen);
}

static void words_add(struct words *words, const char *word)
{
	if (word == NULL || words->count == words->max || words->seen == NULL ||
		find(words->seen, word, NULL))
		return;
	if (json_object_object_add(words->seen, word, NULL) == 0)
		words->list[words->count++] = word;
}

static void words_add_strings(
	const struct reading *reading, struct words *words, struct json_object *list)
{
	if (!json_object_is_type(list, json_type_array))
		return;
	for (size_t i = 0; i < json_object_array_length(list); i++)
		words_add(
			words, column(reading, json_object_array_get_idx(list, i), WORD_MAX_CHARS));
}

/* ASCII only: names of services are words like MCP and A2A. Changes the text in place. */
static const char *lower_case(char *text)
{
	for (char *c = text; c != NULL && *c != '\0'; c++) {
		if (*c >= 'A' && *c <= 'Z')
			*c = (char)(*c - 'A' + 'a');
	}
	return text;
}

/* ---- Single members ---- */

static void read_type(const struct reading *reading)
{
	struct json_object *type;

	if (!find(reading->file, "type", &type))
		return;
	if (!is_string(type) || strcmp(json_object_get_string(type), registration_type) != 0 ||
		(size_t)json_object_get_string_len(type) != strlen(registration_type))
		complain(reading, pointer_to(reading, "type"), "is not %s", registration_type);
}

/* A required text; what it says is read even when it is too long. */
static const char *read_text(const struct reading *reading, const char *key, size_t max_chars)
{
	const char *pointer = pointer_to(reading, key);
	struct json_object *value;

	if (!find(reading->file, key, &value))
		complain(reading, pointer, "is missing");
	else if (!is_string(value))
		complain(reading, pointer, "is not a string");
	else if (json_object_get_string_len(value) == 0)
		complain(reading, pointer, "is empty");
	else if (utf8_length(json_object_get_string(value)) > max_chars)
		complain(reading, pointer, "is longer than %zu characters", max_chars);
	return column(reading, value, max_chars);
}

static void read_image(const struct reading *reading)
{
	const char *pointer = pointer_to(reading, "image");
	struct json_object *image;
	const char *uri, *why;

	if (!find(reading->file, "image", &image))
		return;
	reading->out->image = column(reading, image, IMAGE_MAX_CHARS);
	uri = json_object_get_string(image);
	if (!is_string(image))
		complain(reading, pointer, "is not a string");
	else if (uri[0] == '\0')
		complain(reading, pointer, "is empty; a file without an image leaves it out");
	else if (utf8_length(uri) > IMAGE_MAX_CHARS)
		complain(reading, pointer, "is longer than %d characters", IMAGE_MAX_CHARS);
	else if (!uri_check(uri, IMAGE_MAX_CHARS, &why))
		complain(reading, pointer, "%s", why);
}

/* The member `key`, else `wild`, a spelling of it that is found on chains and is a fault. *pointer
 * goes to the one that counts. */
static bool find_spelled(const struct reading *reading, const char *key, const char *wild,
	struct json_object **value, const char **pointer)
{
	struct json_object *misspelled;
	bool found = find(reading->file, key, value);

	*pointer = pointer_to(reading, key);
	if (find(reading->file, wild, &misspelled)) {
		complain(reading, pointer_to(reading, wild), "is written %s; the standard says %s",
			wild, key);
		if (!found) {
			*pointer = pointer_to(reading, wild);
			*value = misspelled;
			found = true;
		}
	}
	return found;
}

static const char *read_flag(
	const struct reading *reading, struct json_object *flag, const char *pointer)
{
	if (json_object_is_type(flag, json_type_boolean))
		return json_object_get_boolean(flag) ? "true" : "false";
	complain(reading, pointer, "is not true or false");
	return NULL;
}

static void read_flags(const struct reading *reading)
{
	struct json_object *flag;
	const char *pointer;

	if (find_spelled(reading, "x402Support", "x402support", &flag, &pointer))
		reading->out->x402_support = read_flag(reading, flag, pointer);
	if (find(reading->file, "active", &flag))
		reading->out->active = read_flag(reading, flag, pointer_to(reading, "active"));
}

/* ---- Lists ---- */

/* Whether it is a list; a list that is too long is read nevertheless. */
static bool check_list(const struct reading *reading, struct json_object *list, const char *pointer,
	size_t max_entries)
{
	if (!json_object_is_type(list, json_type_array)) {
		complain(reading, pointer, "is not a list");
		return false;
	}
	if (json_object_array_length(list) > max_entries)
		complain(reading, pointer, "has more than %zu entries", max_entries);
	return true;
}

static void read_trust(const struct reading *reading)
{
	struct json_object *list;
	struct words words;
	const char *pointer;

	if (!find_spelled(reading, "supportedTrust", "supportedTrusts", &list, &pointer))
		return;
	if (!check_list(reading, list, pointer, SIZE_MAX))
		return;
	for (size_t i = 0; i < json_object_array_length(list); i++) {
		if (!is_string(json_object_array_get_idx(list, i)))
			complain(reading, json_pointer_index(reading->arena, pointer, i),
				"is not a string");
	}
	words_init(reading, &words, TRUST_WORDS_MAX);
	words_add_strings(reading, &words, list);
	reading->out->supported_trust = words.list;
	reading->out->trust_count = words.count;
}

static void read_registration(
	const struct reading *reading, struct json_object *entry, const char *pointer)
{
	char agent_id[UINT256_DIGITS + 1];
	const char *at, *why;
	struct json_object *value;

	if (!json_object_is_type(entry, json_type_object)) {
		complain(reading, pointer, "is not an object");
		return;
	}
	at = json_pointer(reading->arena, pointer, "agentId");
	if (!find(entry, "agentId", &value))
		complain(reading, at, "is missing");
	else if (value != NULL && (is_string(value) || !uint256_parse(json_object_get_string(value),
							       agent_id, &why)))
		complain(reading, at, "is not a whole number or null");
	at = json_pointer(reading->arena, pointer, "agentRegistry");
	if (!find(entry, "agentRegistry", &value))
		complain(reading, at, "is missing");
	else if (!is_string(value))
		complain(reading, at, "is not a string");
}

static void read_registrations(const struct reading *reading)
{
	const char *pointer = pointer_to(reading, "registrations");
	struct json_object *list;

	if (!find(reading->file, "registrations", &list) ||
		!check_list(reading, list, pointer, REGISTRATIONS_MAX))
		return;
	for (size_t i = 0; i < json_object_array_length(list); i++)
		read_registration(reading, json_object_array_get_idx(list, i),
			json_pointer_index(reading->arena, pointer, i));
}

/* ---- Services ---- */

struct services {
	struct words names, skills, domains;
};

/* A member of a service that must be a string, and the names under which it is found instead. */
struct service_text {
	const char *key;
	const char *instead[2];
};

/* The string that the file has under the key, or under another name; NULL when there is none. */
static struct json_object *service_text(const struct reading *reading, struct json_object *service,
	const char *pointer, const struct service_text *text)
{
	const char *at = json_pointer(reading->arena, pointer, text->key);
	struct json_object *value;

	if (find(service, text->key, &value)) {
		if (is_string(value))
			return value;
		complain(reading, at, "is not a string");
		return NULL;
	}
	for (size_t i = 0; i < 2 && text->instead[i] != NULL; i++) {
		if (find(service, text->instead[i], &value) && is_string(value)) {
			complain(reading, at, "is missing; \"%s\" stands in its place",
				text->instead[i]);
			return value;
		}
	}
	complain(reading, at, "is missing");
	return NULL;
}

static void read_service(const struct reading *reading, struct json_object *service,
	const char *pointer, struct services *services)
{
	static const struct service_text name = { "name", { "type" } };
	static const struct service_text endpoint = { "endpoint", { "url", "serviceEndpoint" } };
	struct json_object *value;

	if (is_string(service)) {
		complain(reading, pointer, "is a string, not an object with name and endpoint");
		if (strchr(json_object_get_string(service), ':') == NULL) /* a name, not a URI */
			words_add(&services->names,
				lower_case(column(reading, service, WORD_MAX_CHARS)));
		return;
	}
	if (!json_object_is_type(service, json_type_object)) {
		complain(reading, pointer, "is not an object");
		return;
	}
	value = service_text(reading, service, pointer, &name);
	words_add(&services->names, lower_case(column(reading, value, WORD_MAX_CHARS)));
	service_text(reading, service, pointer, &endpoint);
	if (find(service, "skills", &value))
		words_add_strings(reading, &services->skills, value);
	if (find(service, "domains", &value))
		words_add_strings(reading, &services->domains, value);
}

/* `{"mcp": "https://…"}` where a list is due: its keys are the names. */
static void read_service_object(const struct reading *reading, struct json_object *object,
	const char *pointer, struct services *services)
{
	complain(reading, pointer, "is an object, not a list of services");
	json_object_object_foreach (object, key, value) {
		(void)value;
		words_add(&services->names,
			lower_case(cut(reading->arena, key, strlen(key), WORD_MAX_CHARS)));
	}
}

static void read_services(const struct reading *reading)
{
	struct regfile *out = reading->out;
	const char *pointer = pointer_to(reading, "services");
	struct json_object *list;
	struct services services;

	if (!find(reading->file, "services", &list)) {
		if (!find(reading->file, "endpoints", &list))
			return;
		pointer = pointer_to(reading, "endpoints");
	}
	words_init(reading, &services.names, SERVICE_WORDS_MAX);
	words_init(reading, &services.skills, SKILL_WORDS_MAX);
	words_init(reading, &services.domains, SKILL_WORDS_MAX);
	if (json_object_is_type(list, json_type_object)) {
		read_service_object(reading, list, pointer, &services);
	} else if (check_list(reading, list, pointer, SERVICES_MAX)) {
		for (size_t i = 0; i < json_object_array_length(list); i++)
			read_service(reading, json_object_array_get_idx(list, i),
				json_pointer_index(reading->arena, pointer, i), &services);
	}
	out->services = services.names.list;
	out->service_count = services.names.count;
	out->skills = services.skills.list;
	out->skill_count = services.skills.count;
	out->domains = services.domains.list;
	out->domain_count = services.domains.count;
}

/* ---- The whole file ---- */

/* Depth is bounded by the rules under which the file was parsed. */
static void find_nuls(
	const struct reading *reading, struct json_object *value, const struct json_place *place)
{
	struct json_place member = { .outer = place };

	if (is_string(value)) {
		if (strlen(json_object_get_string(value)) !=
			(size_t)json_object_get_string_len(value))
			complain(reading,
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

void regfile_read(struct arena *arena, const struct json_text *file, const char *base,
	struct regfile *out, struct faults *faults)
{
	struct reading reading = { arena, base, file->object, out, faults };

	*out = (struct regfile){ .text = file->text, .len = file->len };
	digest_of(arena, file->object, out->digest);
	if (file->len > REGFILE_BYTES_MAX)
		complain(&reading, base, "is larger than %d KiB", REGFILE_BYTES_MAX / 1024);
	if (!json_object_is_type(file->object, json_type_object)) {
		complain(&reading, base, "is not an object");
		return;
	}
	if (strstr(file->text, "\\u0000") != NULL)
		find_nuls(&reading, file->object, NULL);
	read_type(&reading);
	out->name = read_text(&reading, "name", NAME_MAX_CHARS);
	out->description = read_text(&reading, "description", DESCRIPTION_MAX_CHARS);
	read_image(&reading);
	read_services(&reading);
	read_registrations(&reading);
	read_trust(&reading);
	read_flags(&reading);
}

const char *regfile_conformance(struct arena *arena, const struct faults *faults)
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
