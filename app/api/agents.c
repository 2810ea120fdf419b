/* SPDX-License-Identifier: Apache-2.0 */
/* Identity: registering agents and reading them back. */
#include "app/api/agents.h"

#include <inttypes.h>
#include <string.h>
#include <sys/random.h>

#include "app/http/metering.h"
#include "app/problem_list.h"
#include "app/registry/metadata.h"
#include "app/registry/registration_file.h"
#include "lib/clock.h"
#include "lib/row_json.h"

#define AS_COLUMN(column, shown, kind, ...) AS_COLUMN_IF_##shown(#column, COLUMN_##kind)
#define AS_COLUMN_IF_SHOWN(key, kind) { key, kind },
#define AS_COLUMN_IF_HIDDEN(key, kind)
/* clang-format off */
const struct column agent_columns[AGENT_MEMBER_COUNT] = { AGENT_COLUMNS(AS_COLUMN)
	{ "metadata", COLUMN_JSON }, { "authority", COLUMN_TEXT } };
/* clang-format on */

static const struct db_statement get_agent = {
	.name = "get_agent",
	.effect = DB_READS,
	.sql = "SELECT " AGENT_SHOWN
	       "       coalesce((SELECT json_object_agg(m.key, convert_from(m.value, 'UTF8')"
	       "                                        ORDER BY m.key)"
	       "                   FROM erc8004_agent_metadata m"
	       "                  WHERE m.agent_uuid = a.agent_uuid), '{}')"
	       "  FROM erc8004_agents a"
	       " WHERE a.agent_uuid = " AGENT_NAMED,
};

static const struct db_statement find_agent = {
	.name = "find_agent",
	.effect = DB_READS,
	.sql = "SELECT " AGENT_NAMED,
};

static const struct db_statement get_registration = {
	.name = "get_registration",
	.effect = DB_READS,
	.sql = "SELECT a.registration_file FROM erc8004_agents a"
	       " WHERE a.agent_uuid = " AGENT_NAMED
	       "   AND a.status = 'active' AND a.registration_file IS NOT NULL",
};

/* The metadata of a registration as its answer shows it, of two parameters: keys and values. */
#define GIVEN_METADATA(keys, values) \
	"coalesce((SELECT json_object_agg(m.key, m.value ORDER BY m.key)" \
	"  FROM unnest(" keys "::text[], " values "::text[]) AS m (key, value)), '{}')"

static const struct db_statement show_metadata = {
	.name = "show_metadata",
	.effect = DB_READS,
	.sql = "SELECT " GIVEN_METADATA("$1", "$2"),
};

/* Parameters of register_agent beside what is read out of the file, and their values in
 * agents_store(). */
/* clang-format off */
#define REGISTER_PARAMS(X) \
	X(agent_uuid, uuid) \
	X(chain, chain->name) \
	X(chain_id, arena_printf(arena, "%llu", (unsigned long long)chain->chain_id)) \
	X(registry_address, chain->identity_registry) \
	X(owner_address, registration->owner_address) \
	X(token_uri, arena_printf(arena, "%s/api/v1/agents/%s/registration", \
		call->context->settings->public_url, uuid)) \
	X(registration_file, file->text) \
	X(registration_digest, file->digest) \
	X(metadata_keys, db_array(arena, metadata->keys, metadata->count)) \
	X(metadata_values, db_array(arena, metadata->values, metadata->count)) \
	X(user_id, call->caller->user_id) \
	X(key_prefix, call->caller->key_prefix) \
	X(request_id, call->request->id) \
	X(client_address, call->request->client_address) \
	X(bytes, arena_printf(arena, "%zu", file->len + metadata->size)) \
	X(quota_agents, quota_param(call, QUOTA_AGENTS)) \
	X(quota_bytes, quota_param(call, QUOTA_BYTES))
#define NAME_OF(name, value) #name,
#define VALUE_OF(name, value) value,
/* clang-format on */

/*
 * All or nothing, in one statement. The user's row in user_storage is charged first, and no row
 * comes back from it when that would exceed a quota. Then the counter's row is taken, before the
 * agent is stored, so that numbers are consecutive and two registrations at once both succeed; a
 * duplicate takes none. All who take both rows take them in this order, so there is no deadlock. If
 * two equal registrations run at the same time, the unique index erc8004_agents_one_registration
 * refuses the second. If the owner is suspended at the same time, a trigger refuses the
 * registration.
 */
static const struct db_statement register_agent = {
	.name = "register_agent",
	.effect = DB_CHANGES,
	.sql = "WITH duplicate AS ("
	       "    SELECT agent_uuid, status FROM erc8004_agents"
	       "     WHERE owner_address = :owner_address AND registration_digest = decode(:registration_digest, 'hex')"
	       "       AND status IN ('active', 'suspended') AND (chain = :chain OR status = 'suspended')"
	       "     ORDER BY status DESC LIMIT 1"
	       "), suspended AS ("
	       "    SELECT true AS is FROM erc8004_suspended_owners WHERE owner_address = :owner_address"
	       "), charged AS ("
	       "    INSERT INTO user_storage AS s (user_id, agents, bytes)"
	       "    SELECT :user_id::uuid, 1, :bytes::bigint"
	       "     WHERE :bytes::bigint <= :quota_bytes::bigint AND NOT EXISTS (SELECT FROM duplicate)"
	       "       AND NOT EXISTS (SELECT FROM suspended)"
	       "    ON CONFLICT (user_id) DO UPDATE"
	       "       SET agents = s.agents + 1, bytes = s.bytes + EXCLUDED.bytes"
	       "     WHERE s.agents < :quota_agents::bigint AND s.bytes + EXCLUDED.bytes <= :quota_bytes::bigint"
	       "    RETURNING s.user_id"
	       "), number AS ("
	       "    SELECT user_id, areg_take_agent_id(:chain, :registry_address) AS agent_id FROM charged"
	       "), a AS ("
	       "    INSERT INTO erc8004_agents (" AGENT_STORED "charged_to, file_charged_to)"
	       "    SELECT " AGENT_STORED_VALUES "number.user_id, number.user_id"
	       "      FROM number"
	       "    RETURNING *"
	       "), metadata AS ("
	       "    INSERT INTO erc8004_agent_metadata (agent_uuid, key, value, charged_to)"
	       "    SELECT a.agent_uuid, m.key, convert_to(m.value, 'UTF8'), a.charged_to"
	       "      FROM a, unnest(:metadata_keys::text[], :metadata_values::text[]) AS m (key, value)"
	       "), audited AS ("
	       "    INSERT INTO audit_log (actor_user, actor, request_id, client_address, action,"
	       "        subject_type, subject_id, after)"
	       "    SELECT :user_id::uuid, :key_prefix, :request_id, areg_client_address(:client_address), 'agent.register', 'agent', a.agent_uuid,"
	       "        jsonb_build_object('chain', a.chain, 'agent_id', a.agent_id,"
	       "            'owner_address', a.owner_address, 'name', a.name,"
	       "            'registration_digest', :registration_digest, 'metadata_keys', areg_audited(to_jsonb(:metadata_keys::text[])))"
	       "      FROM a"
	       ")"
	       "SELECT duplicate.agent_uuid, " AGENT_SHOWN
	       "       " GIVEN_METADATA(":metadata_keys",
		       ":metadata_values") ", duplicate.status, suspended.is"
					   "  FROM (SELECT) AS one LEFT JOIN duplicate ON true LEFT JOIN a ON true"
					   "       LEFT JOIN suspended ON true",
	.names = (const char *const[]){ REGISTER_PARAMS(NAME_OF) AGENT_READ_NAMES NULL },
};
enum {
	ROW_DUPLICATE,
	ROW_AGENT,
	ROW_DUPLICATE_STATUS = ROW_AGENT + AGENT_SHOWN_COUNT,
	ROW_SUSPENDED
};

struct registration {
	const char *owner_address;
	const char *chain;
	struct json_text registration_file;
	struct json_text metadata;
};

static const struct json_field registration_fields[] = {
	{ .name = "owner_address",
		.kind = JSON_ADDRESS,
		.required = true,
		.offset = offsetof(struct registration, owner_address),
		.problem = PROBLEM_INVALID_ADDRESS },
	{ .name = "chain",
		.kind = JSON_STRING,
		.required = true,
		.offset = offsetof(struct registration, chain),
		.min = 1,
		.max = 64 },
	{ .name = "registration_file",
		.kind = JSON_OBJECT,
		.required = true,
		.offset = offsetof(struct registration, registration_file),
		.problem = PROBLEM_INVALID_REGISTRATION_FILE },
	{ .name = "metadata",
		.kind = JSON_OBJECT,
		.offset = offsetof(struct registration, metadata) },
};

/* What agent_write() shows of a registration's own body. */
static enum db_status registration_echo(struct call *call, const char *parts[CALL_ECHOES_MAX])
{
	struct registration registration = { 0 };
	struct metadata metadata;
	const char *params[2];
	struct faults faults;
	struct json_doc doc;
	struct db_rows rows;
	enum db_status status;

	if (!call_body(call, &registration, &doc, &faults) ||
		registration.registration_file.object == NULL)
		return DB_OURS;
	metadata_read(call->arena, registration.metadata.object, false, &metadata, &faults);
	params[0] = db_array(call->arena, metadata.keys, metadata.count);
	params[1] = db_array(call->arena, metadata.values, metadata.count);
	status = db_run(call->context->db, &show_metadata, params, 2, call->arena, &rows);
	if (status != DB_OK)
		return status;
	parts[0] = registration.registration_file.text;
	parts[1] = db_text(&rows, 0, 0);
	return DB_OK;
}

const struct route_input agents_register_input = { .body_max = BODY_WITH_FILE_MAX,
	.echo = registration_echo,
	.fields = registration_fields,
	.field_count = sizeof registration_fields / sizeof registration_fields[0] };

void agent_not_found(struct call *call)
{
	call_problem(call, PROBLEM_AGENT_NOT_FOUND,
		arena_printf(call->arena,
			"There is no agent %s. An agent is named by its agent_uuid, as "
			"chain:agent_id (base:42), as chain_id:agent_id (8453:42), or as "
			"eip155:chain_id:registry:agent_id.",
			call->path_values[0]));
}

bool agent_named(struct call *call, const char *params[AGENT_NAMED_PARAMS])
{
	struct agent_id *id = arena_alloc(call->arena, sizeof *id);
	const char *why;

	if (agent_id_parse(call->context->settings, call->path_values[0], id, &why) !=
		AGENT_ID_OK) {
		agent_not_found(call);
		return false;
	}
	agent_id_params(id, params);
	return true;
}

const char *agent_uuid_named(struct call *call)
{
	const char *params[AGENT_NAMED_PARAMS];
	struct db_rows rows;
	enum db_status status;

	if (!agent_named(call, params))
		return NULL;
	if (params[0] != NULL)
		return params[0];
	status = call_read(call, &find_agent, params, AGENT_NAMED_PARAMS, &rows);
	if (status != DB_OK)
		call_db_failed(call, status);
	else if (db_text(&rows, 0, 0) == NULL)
		agent_not_found(call);
	else
		return db_text(&rows, 0, 0);
	return NULL;
}

bool agent_query(struct call *call, struct query *query)
{
	query_init(query, call->arena);
	query->param_count = AGENT_NAMED_PARAMS;
	return agent_named(call, query->params);
}

void agent_write(struct call *call, int status, const struct db_rows *rows, int first)
{
	struct json_out out = call_answer(call, status);

	json_open_object(&out);
	row_json_write(&out, agent_columns, SHOWN_registration_file, rows, 0, first);
	call_echo(
		call, &out, "registration_file", db_text(rows, 0, first + SHOWN_registration_file));
	json_raw(&out, "conformance", db_text(rows, 0, first + SHOWN_conformance));
	call_echo(call, &out, "metadata", db_text(rows, 0, first + SHOWN_metadata));
	json_string(&out, "authority", "registry"); /* until chains are read */
	json_close_object(&out);
}

void agents_get(struct call *call)
{
	const char *params[AGENT_NAMED_PARAMS];
	struct db_rows rows;
	enum db_status status;

	if (!agent_named(call, params))
		return;
	status = call_read(call, &get_agent, params, AGENT_NAMED_PARAMS, &rows);
	if (status != DB_OK)
		call_db_failed(call, status);
	else if (rows.count == 0)
		agent_not_found(call);
	else
		agent_write(call, 200, &rows, 0);
}

void agents_registration(struct call *call)
{
	const char *params[AGENT_NAMED_PARAMS];
	struct db_rows rows;
	enum db_status status;

	if (!agent_named(call, params))
		return;
	status = call_read(call, &get_registration, params, AGENT_NAMED_PARAMS, &rows);
	if (status != DB_OK)
		call_db_failed(call, status);
	else if (rows.count == 0)
		call_problem(call, PROBLEM_AGENT_NOT_FOUND,
			"There is no active agent of this id that has a registration file.");
	else
		buf_puts(&call->response->body, db_text(&rows, 0, 0));
}

/* A random UUID (RFC 9562, version 4), NULL when the kernel gives no random bytes. */
static const char *new_uuid(struct arena *arena)
{
	uint8_t bytes[16];
	char hex[33];

	if (getrandom(bytes, sizeof bytes, 0) != sizeof bytes)
		return NULL;
	bytes[6] = (uint8_t)((bytes[6] & 0x0f) | 0x40);
	bytes[8] = (uint8_t)((bytes[8] & 0x3f) | 0x80);
	hex_encode(bytes, sizeof bytes, hex);
	return arena_printf(
		arena, "%.8s-%.4s-%.4s-%.4s-%.12s", hex, hex + 8, hex + 12, hex + 16, hex + 20);
}

const char *quota_param(const struct call *call, enum quota_kind kind)
{
	return arena_printf(
		call->arena, "%" PRId64, call->context->settings->quotas[kind][call->caller->tier]);
}

static const char *quota_text(const struct call *call, enum quota_kind kind, const char *unit)
{
	const int64_t quota = call->context->settings->quotas[kind][call->caller->tier];

	return quota == INT64_MAX ? arena_printf(call->arena, "any number of %s", unit)
				  : arena_printf(call->arena, "%" PRId64 " %s", quota, unit);
}

void agent_refuse_quota(struct call *call)
{
	call_problem(call, PROBLEM_QUOTA_EXCEEDED,
		arena_printf(call->arena,
			"This would exceed what you may store in all: %s and %s of registration "
			"files and metadata. GET /api/v1/me says how much of it is used.",
			quota_text(call, QUOTA_AGENTS, "agents"),
			quota_text(call, QUOTA_BYTES, "bytes")));
}

bool agent_user_is_gone(const struct call *call, enum db_status status)
{
	return status == DB_CALLER && strcmp(db_last_error(call->context->db)->constraint,
					      "user_storage_user_id_fkey") == 0;
}

static enum db_status agents_store(struct call *call, const struct registration *registration,
	const struct chain *chain, const struct registration_file *file,
	const struct metadata *metadata, struct db_rows *rows)
{
	struct arena *arena = call->arena;
	const char *uuid = new_uuid(arena);
	const char *params[] = { REGISTER_PARAMS(VALUE_OF) AGENT_READ_VALUES };

	return db_run(call->context->db, &register_agent, params, sizeof params / sizeof params[0],
		arena, rows);
}

void agent_refuse_twin(struct call *call, const char *agent_uuid)
{
	const struct http_problem problem = { .problem = PROBLEM_AGENT_ALREADY_EXISTS,
		.detail = "This owner has registered the same file on this chain already.",
		.member = "agent_uuid",
		.value = agent_uuid };

	http_problem(call->response, call->request, &problem);
}

void agent_refuse_suspended_twin(struct call *call, const char *agent_uuid)
{
	const struct http_problem problem = { .problem = PROBLEM_AGENT_SUSPENDED,
		.detail = "An agent of this owner that has the same file is suspended.",
		.member = "agent_uuid",
		.value = agent_uuid };

	http_problem(call->response, call->request, &problem);
}

void agent_refuse_suspended_owner(struct call *call)
{
	call_problem(call, PROBLEM_OWNER_SUSPENDED,
		"The operators of the registry have suspended this owner, who cannot register or "
		"change agents.");
}

bool agent_has_twin(const struct call *call, enum db_status status)
{
	const char *constraint = db_last_error(call->context->db)->constraint;

	return status == DB_CALLER &&
	       (strcmp(constraint, "erc8004_agents_one_registration") == 0 ||
		       strcmp(constraint, "erc8004_agents_owner_suspended") == 0);
}

/* Whether a statement failed because the registry has handed out the last of its 2^256 ids. */
static bool agent_registry_is_full(const struct call *call, enum db_status status)
{
	return status == DB_CALLER && strcmp(db_last_error(call->context->db)->constraint,
					      "erc8004_agent_counters_range") == 0;
}

static void register_one(struct call *call, const struct chain **chain)
{
	struct registration registration = { 0 };
	struct metadata metadata;
	struct registration_file file = { 0 };
	struct faults faults;
	struct json_doc doc;
	struct db_rows rows;
	enum db_status status;

	if (!call_body(call, &registration, &doc, &faults))
		return;
	*chain = call_chain(call, registration.chain, &faults);
	if (registration.registration_file.object != NULL)
		registration_file_read(call->arena, &registration.registration_file,
			"/registration_file", &file, &faults);
	metadata_read(call->arena, registration.metadata.object, false, &metadata, &faults);
	if (faults.count > 0) {
		call_refuse(call, &faults);
		return;
	}
	if (!call_is_wallet(call, registration.owner_address)) {
		call_problem(call, PROBLEM_FORBIDDEN,
			"owner_address is not the wallet of this API key's user.");
		return;
	}
	call_changed(call, NULL);
	status = agents_store(call, &registration, *chain, &file, &metadata, &rows);
	if (agent_has_twin(call, status))
		/* Another request has just stored an equal registration; a second run finds it.
		 * Inside a transaction, the whole transaction must run again. */
		status = call->in_transaction ? DB_CONFLICT
					      : agents_store(call, &registration, *chain, &file,
							&metadata, &rows);
	if (agent_registry_is_full(call, status)) {
		call_problem(call, PROBLEM_REGISTRY_FULL,
			"The identity registry of this chain has an agent with the highest id that "
			"there can be, so it has no id for another.");
	} else if (agent_user_is_gone(call, status)) {
		call_key_gone(call);
	} else if (status != DB_OK) {
		call_db_failed(call, status);
	} else if (db_bool(&rows, 0, ROW_SUSPENDED)) {
		agent_refuse_suspended_owner(call);
	} else if (db_text(&rows, 0, ROW_DUPLICATE) != NULL) {
		if (strcmp(db_text(&rows, 0, ROW_DUPLICATE_STATUS), "suspended") == 0)
			agent_refuse_suspended_twin(call, db_text(&rows, 0, ROW_DUPLICATE));
		else
			agent_refuse_twin(call, db_text(&rows, 0, ROW_DUPLICATE));
	} else if (db_text(&rows, 0, ROW_AGENT) == NULL) {
		agent_refuse_quota(call);
	} else {
		http_header_add(call->response, "Location",
			arena_printf(
				call->arena, "/api/v1/agents/%s", db_text(&rows, 0, ROW_AGENT)));
		agent_write(call, 201, &rows, ROW_AGENT);
	}
}

void agents_register(struct call *call)
{
	struct metrics *metrics = call->context->metrics;
	uint64_t began = clock_us();
	const struct chain *chain = NULL;

	register_one(call, &chain);
	metrics_add(metrics, METER_REGISTRATIONS, meter_chain(call->context->settings, chain),
		meter_outcome(call->response->status), 1);
	metrics_observe(metrics, METER_REGISTRATION_DURATION, 0, 0, clock_us() - began);
}
