/* SPDX-License-Identifier: Apache-2.0 */
/* The tables of routes and fields, member by member: nothing here is said a second time. */
#include "app/describe.h"

#include "app/api/agent_columns.h"
#include "app/api/agents_stats.h"
#include "app/http/paging.h"
#include "app/problem_list.h"
#include "app/registry/registration_file.h"
#include "app/routes.h"

static const char *const access_names[] = {
	[FOR_ANYONE] = "anyone", [FOR_KEY] = "key", [FOR_OPERATOR] = "operator"
};

static const char *const caching_names[] = { [NEVER_STORE] = "never_store",
	[HOLDS_SECRET] = "holds_secret",
	[REVALIDATE] = "revalidate",
	[BY_AGENT] = "by_agent",
	[BY_REGISTRY] = "by_registry" };

static const char *const kind_names[] = { [JSON_STRING] = "string",
	[JSON_ADDRESS] = "address",
	[JSON_HASH] = "hash",
	[JSON_UUID] = "uuid",
	[JSON_URI] = "uri",
	[JSON_ENDPOINT] = "string",
	[JSON_INTEGER] = "integer",
	[JSON_VALUE] = "value",
	[JSON_DECIMAL] = "decimal",
	[JSON_AMOUNT] = "amount",
	[JSON_BOOL] = "bool",
	[JSON_TIME] = "time",
	[JSON_OBJECT] = "object",
	[JSON_ARRAY] = "array",
	[JSON_WORDS] = "words" };

static void write_words(struct json_out *out, const char *key, const char *const *words)
{
	json_key(out, key);
	json_open_array(out);
	for (; words != NULL && *words != NULL; words++)
		json_put_string(out, *words);
	json_close_array(out);
}

static void write_field(struct json_out *out, const struct json_field *field)
{
	json_open_object(out);
	json_string(out, "name", field->name);
	json_string(out, "kind", kind_names[field->kind]);
	json_flag(out, "required", field->required);
	json_string(out, "code",
		(field->problem != NULL ? field->problem : PROBLEM_VALIDATION_FAILED)->code);
	if (field->min != 0 || field->max != 0) {
		json_integer(out, "min", field->min);
		json_integer(out, "max", field->max);
	}
	if (field->words != NULL)
		write_words(out, "words", field->words);
	json_close_object(out);
}

static void write_input(struct json_out *out, const struct route_input *input)
{
	if (input == NULL)
		return;
	if (input->fields != NULL) {
		json_integer(out, "body_max", (int64_t)route_body_max(input));
		json_key(out, "fields");
		json_open_array(out);
		for (size_t i = 0; i < input->field_count; i++)
			write_field(out, &input->fields[i]);
		json_close_array(out);
	}
	write_words(out, "params", input->params);
	write_words(out, "repeatable", input->repeatable);
}

static void write_route(struct json_out *out, const struct route *route)
{
	json_open_object(out);
	json_string(out, "method", http_method_name(route->path.method));
	json_string(out, "template", route->path.template);
	json_string(out, "access", access_names[route->access]);
	json_string(out, "rate", route->rate == RATE_NONE ? NULL : rate_class_name(route->rate));
	json_string(out, "tier", route->tier == TIER_ANONYMOUS ? NULL : tier_name(route->tier));
	json_string(out, "scope", route->scope);
	json_string(out, "audits", route->audits);
	json_string(out, "caching", caching_names[route->caching]);
	write_input(out, route->input);
	json_close_object(out);
}

static void write_rates(struct json_out *out)
{
	json_key(out, "rates");
	json_open_object(out);
	for (enum rate_class class = RATE_NONE + 1; class < RATE_CLASSES; class ++) {
		json_key(out, rate_class_name(class));
		json_open_object(out);
		for (enum tier tier = TIER_ANONYMOUS; tier < TIERS; tier++)
			json_integer(out, tier_name(tier), rate_defaults[class][tier]);
		json_close_object(out);
	}
	json_close_object(out);
}

/* The members of a schema of the API, as the program writes them. */
static void write_columns(
	struct json_out *out, const char *schema, const struct column *columns, size_t count)
{
	static const char *const kinds[] = {
		[COLUMN_TEXT] = "text", [COLUMN_JSON] = "json", [COLUMN_FLAG] = "flag"
	};

	json_key(out, schema);
	json_open_array(out);
	for (size_t i = 0; i < count; i++) {
		json_open_object(out);
		json_string(out, "name", columns[i].key);
		json_string(out, "kind", kinds[columns[i].kind]);
		json_close_object(out);
	}
	json_close_array(out);
}

static void write_problems(struct json_out *out)
{
	json_key(out, "problems");
	json_open_array(out);
	for (size_t i = 0; i < PROBLEM_COUNT; i++) {
		json_open_object(out);
		json_string(out, "code", problem_list[i].code);
		json_integer(out, "status", problem_list[i].status);
		json_close_object(out);
	}
	json_close_array(out);
}

void describe(struct buf *text)
{
	struct json_out out;

	json_out_init(&out, text);
	json_open_object(&out);
	json_string(&out, "version", PACKAGE_VERSION);
	json_integer(&out, "page_limit_default", PAGE_LIMIT_DEFAULT);
	json_integer(&out, "page_limit_max", PAGE_LIMIT_MAX);
	json_integer(&out, "page_offset_max", PAGE_OFFSET_MAX);
	json_integer(&out, "page_bytes_max", PAGE_BYTES_MAX);
	json_integer(&out, "shown_services_max", REGISTRATION_FILE_SHOWN_SERVICES);
	json_integer(&out, "shown_services_bytes_max", REGISTRATION_FILE_SHOWN_BYTES);
	write_rates(&out);
	json_key(&out, "columns");
	json_open_object(&out);
	write_columns(&out, "Agent", agent_columns, AGENT_MEMBER_COUNT);
	write_columns(&out, "AgentStats", stats_columns, STATS_COLUMN_COUNT);
	json_close_object(&out);
	write_problems(&out);
	json_key(&out, "routes");
	json_open_array(&out);
	for (size_t i = 0; i < route_count; i++)
		write_route(&out, &routes[i]);
	json_close_array(&out);
	json_close_object(&out);
}
