/* SPDX-License-Identifier: Apache-2.0 */
/* The services of a registration file: the words that searches find, and the list that they show. */
#include "app/registry/registration_file_reading.h"

#include <string.h>

#include "lib/json_tree.h"

enum {
	SERVICES_MAX = 20, /* as API.md bounds the list */
	NAMES_MAX = 100, /* kept for search */
	SKILLS_MAX = 500, /* and domains */
};

static bool services_is_string(struct json_object *value)
{
	return json_object_is_type(value, json_type_string);
}

/* ASCII only: names of services are words like MCP and A2A. Changes the text in place. */
static const char *services_lower_case(char *text)
{
	for (char *c = text; c != NULL && *c != '\0'; c++) {
		if (*c >= 'A' && *c <= 'Z')
			*c = (char)(*c - 'A' + 'a');
	}
	return text;
}

struct services {
	struct registration_file_words names, skills, domains;
};

/* A member of a service that must be a string, and the names under which it is found instead. */
struct service_text {
	const char *key;
	const char *instead[2];
};

/* The string that the file has under the key, or under another name; NULL when there is none. */
static struct json_object *service_text(const struct registration_file_reading *reading,
	struct json_object *service, const char *pointer, const struct service_text *text)
{
	const char *at = json_pointer(reading->arena, pointer, text->key);
	struct json_object *value;

	if (registration_file_find(service, text->key, &value)) {
		if (services_is_string(value))
			return value;
		registration_file_complain(reading, at, "is not a string");
		return NULL;
	}
	for (size_t i = 0; i < 2 && text->instead[i] != NULL; i++) {
		if (registration_file_find(service, text->instead[i], &value) &&
			services_is_string(value)) {
			registration_file_complain(reading, at,
				"is missing; \"%s\" stands in its place", text->instead[i]);
			return value;
		}
	}
	registration_file_complain(reading, at, "is missing");
	return NULL;
}

/* A skill is a string, or an object with a name or an id, as in the card of an A2A agent. */
static void read_skill(const struct registration_file_reading *reading, struct json_object *skill,
	struct services *services)
{
	struct json_object *name = skill;

	if (json_object_is_type(skill, json_type_object) &&
		!registration_file_find(skill, "name", &name) &&
		!registration_file_find(skill, "id", &name))
		return;
	registration_file_words_add(&services->skills,
		registration_file_whole(reading, name, REGISTRATION_FILE_WORD_CHARS_MAX));
}

/* Where SDKs write what a service can do. */
static void read_skills(const struct registration_file_reading *reading, struct json_object *object,
	struct services *services)
{
	static const char *const keys[] = { "skills", "a2aSkills", "mcpTools", "mcpPrompts",
		"mcpResources" };
	struct json_object *list;

	for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
		if (!registration_file_find(object, keys[k], &list) ||
			!json_object_is_type(list, json_type_array))
			continue;
		for (size_t i = 0; i < json_object_array_length(list); i++)
			read_skill(reading, json_object_array_get_idx(list, i), services);
	}
}

static void read_service(const struct registration_file_reading *reading,
	struct json_object *service, const char *pointer, struct services *services)
{
	static const struct service_text name = { "name", { "type" } };
	static const struct service_text endpoint = { "endpoint", { "url", "serviceEndpoint" } };
	struct json_object *value;

	if (services_is_string(service)) {
		registration_file_complain(
			reading, pointer, "is a string, not an object with name and endpoint");
		registration_file_is_unsafe(reading, service, pointer);
		if (strchr(json_object_get_string(service), ':') == NULL) /* a name, not a URI */
			registration_file_words_add(&services->names,
				services_lower_case(registration_file_column(
					reading, service, REGISTRATION_FILE_WORD_CHARS_MAX)));
		return;
	}
	if (!json_object_is_type(service, json_type_object)) {
		registration_file_complain(reading, pointer, "is not an object");
		return;
	}
	value = service_text(reading, service, pointer, &name);
	registration_file_check_seen(reading, value, json_pointer(reading->arena, pointer, "name"));
	registration_file_words_add(
		&services->names, services_lower_case(registration_file_column(
					  reading, value, REGISTRATION_FILE_WORD_CHARS_MAX)));
	value = service_text(reading, service, pointer, &endpoint);
	registration_file_is_unsafe(
		reading, value, json_pointer(reading->arena, pointer, "endpoint"));
	read_skills(reading, service, services);
	if (registration_file_find(service, "domains", &value))
		registration_file_words_add_strings(reading, &services->domains, value);
}

/* `{"mcp": "https://…"}` where a list is due: its keys are the names. */
static void read_service_object(const struct registration_file_reading *reading,
	struct json_object *object, const char *pointer, struct services *services)
{
	registration_file_complain(reading, pointer, "is an object, not a list of services");
	json_object_object_foreach (object, key, value) {
		registration_file_is_unsafe(
			reading, value, json_pointer(reading->arena, pointer, key));
		registration_file_words_add(&services->names,
			services_lower_case(registration_file_cut(reading->arena, key, strlen(key),
				REGISTRATION_FILE_WORD_CHARS_MAX)));
	}
}

/* The part of the list that searches show. */
static const char *show_services(
	const struct registration_file_reading *reading, struct json_object *list)
{
	size_t most = json_object_array_length(list);
	struct json_out out;
	struct buf shown;

	buf_init(&shown, reading->arena, 512);
	json_out_init(&out, &shown);
	json_open_array(&out);
	if (most > REGISTRATION_FILE_SHOWN_SERVICES)
		most = REGISTRATION_FILE_SHOWN_SERVICES;
	for (size_t i = 0; i < most; i++) {
		const struct json_out before = out;
		const size_t len = shown.len;

		json_put_tree(&out, json_object_array_get_idx(list, i));
		if (shown.len + strlen("]") > REGISTRATION_FILE_SHOWN_BYTES) {
			out = before;
			shown.data[shown.len = len] = '\0';
		}
	}
	json_close_array(&out);
	return shown.data;
}

void registration_file_read_services(const struct registration_file_reading *reading)
{
	struct registration_file *out = reading->out;
	const char *pointer = registration_file_pointer(reading, "services");
	struct json_object *list = NULL;
	struct services services;

	if (!registration_file_find(reading->file, "services", &list) &&
		registration_file_find(reading->file, "endpoints", &list))
		pointer = registration_file_pointer(reading, "endpoints");
	registration_file_words_init(reading, &services.names, NAMES_MAX);
	registration_file_words_init(reading, &services.skills, SKILLS_MAX);
	registration_file_words_init(reading, &services.domains, SKILLS_MAX);
	if (list == NULL) {
		; /* none */
	} else if (json_object_is_type(list, json_type_object)) {
		read_service_object(reading, list, pointer, &services);
	} else if (registration_file_is_list(reading, list, pointer, SERVICES_MAX)) {
		for (size_t i = 0; i < json_object_array_length(list); i++)
			read_service(reading, json_object_array_get_idx(list, i),
				json_pointer_index(reading->arena, pointer, i), &services);
		out->shown_services = show_services(reading, list);
	}
	read_skills(reading, reading->file, &services);
	out->services = services.names.list;
	out->service_count = services.names.count;
	out->skills = services.skills.list;
	out->skill_count = services.skills.count;
	out->domains = services.domains.list;
	out->domain_count = services.domains.count;
}
