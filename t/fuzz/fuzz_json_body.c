/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bodies and registration files: any bytes through the scanner under both sets of rules, its tree
 * through canonical text and back, and what is accepted through a table of fields and the reader of
 * registration files.
 */
#include "t/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "app/problem_list.h"
#include "app/registry/registration_file.h"
#include "lib/eth.h"
#include "lib/json_in.h"

/* A field of every kind, under names and with bounds that bodies of the API have. */
struct body {
	const char *agent_uuid, *client_address, *file_hash, *file_uri, *expires_at;
	const char *tag1, *status, *score, *value, *value_decimals, *amount_usdc, *is_final;
	struct json_text registration_file, entries;
	struct json_words scopes;
};

#define AT(member) .offset = offsetof(struct body, member)
static const char *const statuses[] = { "pending", "verified", "failed", NULL };
static const char *const scopes[] = { "payments:write", "agents:write", NULL };
static const struct json_field fields[] = {
	{ .name = "agent_uuid", .kind = JSON_UUID, .required = true, AT(agent_uuid) },
	{ .name = "client_address",
		.kind = JSON_ADDRESS,
		AT(client_address),
		.problem = PROBLEM_INVALID_ADDRESS },
	{ .name = "file_hash", .kind = JSON_HASH, AT(file_hash) },
	{ .name = "file_uri", .kind = JSON_URI, AT(file_uri), .max = 2048 },
	{ .name = "expires_at", .kind = JSON_TIME, AT(expires_at) },
	{ .name = "tag1", .kind = JSON_STRING, AT(tag1), .max = 32 },
	{ .name = "status", .kind = JSON_STRING, AT(status), .words = statuses },
	{ .name = "score", .kind = JSON_DECIMAL, AT(score), .min = 0, .max = 100 },
	{ .name = "value", .kind = JSON_VALUE, AT(value) },
	{ .name = "value_decimals", .kind = JSON_INTEGER, AT(value_decimals), .min = 0, .max = 18 },
	{ .name = "amount_usdc", .kind = JSON_AMOUNT, AT(amount_usdc), .max = 1000000000000 },
	{ .name = "is_final", .kind = JSON_BOOL, AT(is_final) },
	{ .name = "registration_file", .kind = JSON_OBJECT, AT(registration_file) },
	{ .name = "entries", .kind = JSON_ARRAY, AT(entries), .min = 1, .max = 20 },
	{ .name = "scopes", .kind = JSON_WORDS, AT(scopes), .max = 10, .words = scopes },
};
enum { FIELDS = sizeof fields / sizeof fields[0] };
#undef AT

/* Canonical text is JSON, and its own canonical text. */
static const char *check_canonical(
	struct arena *arena, struct json_object *value, const struct json_rules *rules)
{
	size_t len, again_len;
	const char *text = json_canonical(arena, value, &len), *again;
	struct json_error error;
	struct json_doc doc;

	REQUIRE(utf8_valid(text, len) && strlen(text) == len);
	REQUIRE(json_parse(arena, text, len, rules, &doc, &error));
	again = json_canonical(arena, doc.root.object, &again_len);
	REQUIRE(again_len == len && strcmp(text, again) == 0);
	return text;
}

static void check_faults(const struct faults *faults)
{
	size_t kept = 0;

	for (const struct fault *fault = faults->first; fault != NULL; fault = fault->next) {
		REQUIRE(fault->problem != NULL);
		REQUIRE(fault->pointer[0] == '\0' || fault->pointer[0] == '/');
		REQUIRE(utf8_valid(fault->pointer, strlen(fault->pointer)));
		REQUIRE(fault->detail[0] != '\0');
		REQUIRE(utf8_valid(fault->detail, strlen(fault->detail)));
		kept++;
	}
	REQUIRE(kept == (faults->count < FAULTS_MOST ? faults->count : FAULTS_MOST));
}

/* The text of each member is the whole of its value. */
static void check_members(
	struct arena *arena, const struct json_doc *doc, const struct json_rules *rules)
{
	enum { LOOKED_AT = 8 };

	for (size_t i = 0; i < doc->member_count && i < LOOKED_AT; i++) {
		const struct json_member *member = &doc->members[i];
		struct json_error error;
		struct json_doc inner;
		size_t len, inner_len;
		const char *text = json_canonical(arena, member->value.object, &len);

		REQUIRE(json_member(doc, member->key) == member);
		REQUIRE(strlen(member->value.text) == member->value.len);
		REQUIRE(json_parse(
			arena, member->value.text, member->value.len, rules, &inner, &error));
		REQUIRE(strcmp(text, json_canonical(arena, inner.root.object, &inner_len)) == 0);
	}
}

static void check_body(struct arena *arena, const struct json_doc *doc)
{
	char canonical[ETH_HASH_LEN + 1];
	struct body body;
	struct faults faults;
	const char *why;
	bool accepted;

	memset(&body, 0xa5, sizeof body); /* json_read() sets every member, or it shows */
	faults_init(&faults, arena, PROBLEM_VALIDATION_FAILED);
	accepted = json_read(doc, fields, FIELDS, &body, &faults);
	REQUIRE(accepted == (faults.count == 0));
	check_faults(&faults);
	if (!json_object_is_type(doc->root.object, json_type_object)) {
		REQUIRE(!accepted);
		return;
	}
	REQUIRE(!accepted || body.agent_uuid != NULL);
	if (body.agent_uuid != NULL)
		REQUIRE(uuid_parse(body.agent_uuid, canonical, &why) &&
			strcmp(canonical, body.agent_uuid) == 0);
	if (body.client_address != NULL)
		REQUIRE(eth_address_parse(body.client_address, canonical, &why) &&
			strcmp(canonical, body.client_address) == 0);
	if (body.file_hash != NULL)
		REQUIRE(eth_hash_parse(body.file_hash, canonical, &why) &&
			strcmp(canonical, body.file_hash) == 0);
	if (body.file_uri != NULL)
		REQUIRE(uri_check(body.file_uri, 2048, &why) && utf8_length(body.file_uri) <= 2048);
	if (body.tag1 != NULL)
		REQUIRE(utf8_length(body.tag1) <= 32 && utf8_valid(body.tag1, strlen(body.tag1)));
	if (body.status != NULL)
		REQUIRE(fuzz_same(body.status, "pending") || fuzz_same(body.status, "verified") ||
			fuzz_same(body.status, "failed"));
	if (body.score != NULL)
		REQUIRE(strspn(body.score, "0123456789.") == strlen(body.score) &&
			strtod(body.score, NULL) <= 100);
	if (body.value != NULL)
		REQUIRE(feedback_value_parse(body.value, &why));
	if (body.value_decimals != NULL)
		REQUIRE(strspn(body.value_decimals, "0123456789") == strlen(body.value_decimals) &&
			atoi(body.value_decimals) <= 18);
	if (body.amount_usdc != NULL)
		REQUIRE(strspn(body.amount_usdc, "0123456789.") == strlen(body.amount_usdc) &&
			strtod(body.amount_usdc, NULL) <= 1e12);
	if (body.is_final != NULL)
		REQUIRE(fuzz_same(body.is_final, "true") || fuzz_same(body.is_final, "false"));
	if (body.entries.object != NULL)
		REQUIRE(json_object_array_length(body.entries.object) >= 1 &&
			json_object_array_length(body.entries.object) <= 20);
	REQUIRE(body.scopes.count <= sizeof scopes / sizeof scopes[0] - 1);
	if (body.registration_file.object != NULL)
		REQUIRE(json_object_is_type(body.registration_file.object, json_type_object));
}

static void check_words(const char *const *words, size_t count, size_t most)
{
	REQUIRE(count <= most);
	for (size_t i = 0; i < count; i++) {
		REQUIRE(words[i][0] != '\0' && utf8_length(words[i]) <= 200);
		REQUIRE(utf8_valid(words[i], strlen(words[i])));
	}
}

static void check_text(const char *text, size_t most)
{
	if (text != NULL)
		REQUIRE(text[0] != '\0' && utf8_length(text) <= most &&
			utf8_valid(text, strlen(text)));
}

static void check_file(struct arena *arena, const struct json_text *text, const char *base)
{
	struct registration_file file;
	struct faults faults;
	struct json_error error;
	struct json_doc doc;
	const char *conformance;

	memset(&file, 0xa5, sizeof file);
	faults_init(&faults, arena, PROBLEM_VALIDATION_FAILED);
	registration_file_read(arena, text, base, &file, &faults);
	check_faults(&faults);
	for (const struct fault *fault = faults.first; fault != NULL; fault = fault->next)
		REQUIRE(strncmp(fault->pointer, base, strlen(base)) == 0);
	REQUIRE(strspn(file.digest, "0123456789abcdef") == 64 && file.digest[64] == '\0');
	check_text(file.name, 200);
	check_text(file.description, 2000);
	check_text(file.image, 2048);
	check_words(file.services, file.service_count, 100);
	check_words(file.skills, file.skill_count, 500);
	check_words(file.domains, file.domain_count, 500);
	check_words(file.supported_trust, file.trust_count, 100);
	REQUIRE(faults.count > 0 || (file.name != NULL && file.description != NULL));
	conformance = registration_file_conformance(arena, &faults);
	REQUIRE(json_parse(
		arena, conformance, strlen(conformance), &json_rules_wild, &doc, &error));
	REQUIRE(json_object_is_type(doc.root.object, json_type_array));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *)data, *canonical;
	struct arena *arena = fuzz_arena();
	struct json_error error;
	struct json_doc doc, strict;

	if (!json_parse(arena, text, size, &json_rules_wild, &doc, &error)) {
		REQUIRE(error.offset <= size && error.reason[0] != '\0');
		REQUIRE(utf8_valid(error.pointer, strlen(error.pointer)));
		REQUIRE(utf8_valid(error.reason, strlen(error.reason)));
		REQUIRE(!json_parse(arena, text, size, &json_rules_strict, &strict, &error));
		return 0;
	}
	fuzz_require_little_memory(arena, size);
	canonical = check_canonical(arena, doc.root.object, &json_rules_wild);
	check_members(arena, &doc, &json_rules_wild);
	if (doc.root.object != NULL)
		check_file(arena, &doc.root, "");
	if (json_parse(arena, text, size, &json_rules_strict, &strict, &error)) {
		REQUIRE(strcmp(canonical, check_canonical(arena, strict.root.object,
						  &json_rules_strict)) == 0);
		check_body(arena, &strict);
		if (strict.root.object != NULL)
			check_file(arena, &strict.root, "/registration_file");
	}
	/* parsed and written some twelve times by now */
	fuzz_require_little_memory(arena, 12 * size);
	return 0;
}
