/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Request lines: a path and a query as they come off the wire are taken apart, routed, and what
 * handlers make of their parts is made of them. Percent-encoded again and read again, they are the
 * same.
 */
#include "t/fuzz/fuzz.h"

#include <string.h>

#include "app/registry/agent_id.h"
#include "app/registry/api_key.h"
#include "lib/buf.h"
#include "lib/http.h"
#include "lib/json_in.h"
#include "lib/rfc3339.h"
#include "lib/router.h"

static const struct route_path templates[] = {
	{ HTTP_POST, "/api/v1/agents/register" },
	{ HTTP_GET, "/api/v1/agents" },
	{ HTTP_GET, "/api/v1/agents/{id}" },
	{ HTTP_PATCH, "/api/v1/agents/{id}" },
	{ HTTP_GET, "/api/v1/agents/{id}/stats" },
	{ HTTP_POST, "/api/v1/agents/feedback" },
	{ HTTP_POST, "/api/v1/agents/feedback/{feedback_id}/revoke" },
	{ HTTP_DELETE, "/api/v1/keys/{key_id}" },
	{ HTTP_GET, "/health" },
};
enum { TEMPLATES = sizeof templates / sizeof templates[0] };

static const char *const no_aliases[] = { NULL };
static const char *const aliases[] = { "baseSepolia", NULL };
static const struct chain chains[] = {
	{ .name = "base",
		.aliases = no_aliases,
		.chain_id = 8453,
		.identity_registry = "0x8004a169fb4a3325136eb29fa0ceb6d2e539a432" },
	{ .name = "base-sepolia",
		.aliases = aliases,
		.chain_id = 84532,
		.identity_registry = "0x8004a818bfb912233c491871b3d84c89a494bd9e" },
};
static const struct settings settings = { .chains = chains, .chain_count = 2 };

/* Every byte as %XX: what can be read of it is the same. */
static void put_encoded(struct buf *out, const char *text)
{
	for (; *text != '\0'; text++)
		buf_printf(out, "%%%02X", (unsigned char)*text);
}

static void check_path(const struct http_request *request)
{
	struct http_request again = { .arena = request->arena };
	struct buf path;

	buf_init(&path, request->arena, 64);
	for (size_t i = 0; i < request->segment_count; i++) {
		REQUIRE(utf8_valid(request->segments[i], strlen(request->segments[i])));
		buf_putc(&path, '/');
		put_encoded(&path, request->segments[i]);
	}
	buf_putc(&path, '/'); /* counts for nothing, and saves an empty segment before it */
	if (path.len > HTTP_PATH_MAX)
		return;
	http_path_read(&again, path.data, path.len);
	REQUIRE(again.refused_status == 0);
	REQUIRE(again.segment_count == request->segment_count);
	for (size_t i = 0; i < again.segment_count; i++)
		REQUIRE(strcmp(again.segments[i], request->segments[i]) == 0);
}

static void check_query(const struct http_request *request)
{
	struct http_request again = { .arena = request->arena };
	struct buf query;

	buf_init(&query, request->arena, 64);
	for (size_t i = 0; i < request->param_count; i++) {
		const struct http_param *param = &request->params[i];

		REQUIRE(utf8_valid(param->name, strlen(param->name)));
		REQUIRE(utf8_valid(param->value, strlen(param->value)));
		put_encoded(&query, param->name);
		buf_putc(&query, '=');
		put_encoded(&query, param->value);
		buf_putc(&query, '&');
	}
	if (query.len > HTTP_QUERY_MAX)
		return;
	http_query_read(&again, query.data);
	REQUIRE(again.refused_status == 0);
	REQUIRE(again.param_count == request->param_count);
	for (size_t i = 0; i < again.param_count; i++) {
		REQUIRE(strcmp(again.params[i].name, request->params[i].name) == 0);
		REQUIRE(strcmp(again.params[i].value, request->params[i].value) == 0);
	}
}

static void check_agentid(struct arena *arena, const char *text)
{
	struct agent_id id, again;
	const char *why = NULL, *global;

	if (agent_id_parse(&settings, text, &id, &why) != AGENT_ID_OK) {
		REQUIRE(why != NULL);
		return;
	}
	if (id.kind == AGENT_ID_UUID) {
		REQUIRE(agent_id_parse(&settings, id.uuid, &again, &why) == AGENT_ID_OK);
		REQUIRE(strcmp(id.uuid, again.uuid) == 0);
		return;
	}
	global = arena_printf(arena, "eip155:%llu:%s:%s", (unsigned long long)id.chain->chain_id,
		id.registry_address, id.agent_id);
	REQUIRE(agent_id_parse(&settings, global, &again, &why) == AGENT_ID_OK);
	REQUIRE(again.chain == id.chain && strcmp(again.agent_id, id.agent_id) == 0);
	REQUIRE(strcmp(again.registry_address, id.registry_address) == 0);
}

static void check_value(struct arena *arena, const char *text)
{
	char uuid[37], again[37];
	const char *why = NULL;

	check_agentid(arena, text);
	if (uuid_parse(text, uuid, &why))
		REQUIRE(uuid_parse(uuid, again, &why) && strcmp(uuid, again) == 0);
	if (uri_check(text, 64, &why))
		REQUIRE(utf8_length(text) <= 64);
	if (rfc3339_check(text, &why))
		REQUIRE(strlen(text) >= RFC3339_LEN);
	if (api_key_well_formed(text))
		REQUIRE(strlen(text) == API_KEY_LEN);
}

static void check_route(struct http_request *request)
{
	static struct router *router;
	struct routed routed;

	if (router == NULL)
		router = router_new(templates, TEMPLATES, sizeof templates[0]);
	for (int method = 0; method < HTTP_METHODS; method++) {
		memset(&routed, 0, sizeof routed);
		request->method = (enum http_method)method;
		switch (router_match(router, request, &routed)) {
		case ROUTE_FOUND:
			REQUIRE(routed.index < TEMPLATES);
			break;
		case ROUTE_NO_METHOD:
		case ROUTE_OPTIONS:
			REQUIRE(strstr(routed.allow, "OPTIONS") != NULL);
			break;
		case ROUTE_NO_PATH:
			break;
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct arena *arena = fuzz_arena();
	struct http_request request = { .arena = arena };
	const char *uri = fuzz_text(arena, data, size);
	size_t path_len = strcspn(uri, "?");

	http_path_read(&request, uri, path_len);
	if (uri[path_len] == '?')
		http_query_read(&request, uri + path_len + 1);
	REQUIRE(request.segment_count <= HTTP_SEGMENTS_MAX);
	REQUIRE(request.param_count <= HTTP_PARAMS_MAX);
	if (request.refused_status != 0) {
		REQUIRE(request.refused_status == 400 || request.refused_status == 414);
		REQUIRE(request.refused_detail != NULL);
		return 0;
	}
	check_path(&request);
	check_query(&request);
	check_route(&request);
	for (size_t i = 0; i < request.segment_count; i++)
		check_value(arena, request.segments[i]);
	for (size_t i = 0; i < request.param_count; i++)
		check_value(arena, request.params[i].value);
	fuzz_require_little_memory(arena, size);
	return 0;
}
