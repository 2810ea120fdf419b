/* SPDX-License-Identifier: Apache-2.0 */
/* One call of areg_edit_agent() changes the file, metadata and status of an agent, or nothing. */
#include "app/api/agents_edit.h"

#include <string.h>

#include "app/api/agents.h"
#include "app/problem_list.h"
#include "app/registry/metadata.h"
#include "app/registry/registration_file.h"

/* Parameters of edit_agent beside what is read out of the file, and their values in edit_store(). */
/* clang-format off */
#define EDIT_PARAMS(X) \
	X(agent_uuid, agent_uuid) \
	X(editor, call->caller->wallet) \
	X(status, edit->status) \
	X(registration_file, file->text) \
	X(registration_digest, file->text == NULL ? NULL : file->digest) \
	X(metadata_keys, db_array(arena, metadata->keys, metadata->count)) \
	X(metadata_values, db_array(arena, metadata->values, metadata->count)) \
	X(user_id, call->caller->user_id) \
	X(key_prefix, call->caller->key_prefix) \
	X(request_id, call->request->id) \
	X(client_address, call->request->client_address) \
	X(quota_bytes, quota_param(call, QUOTA_BYTES))
#define NAME_OF(name, value) #name,
#define VALUE_OF(name, value) value,
/* An argument of areg_edit_agent() for each column that is read out of the file. */
#define READ_ARGUMENTS AGENT_COLUMNS(READ_ARGUMENT)
#define READ_ARGUMENT(column, shown, kind, sql, registered, value, imported, type, ...) \
	AGENT_IF_READ_##imported("new_" #column " => :" #column ", ")
/* clang-format on */

static const struct db_statement edit_agent = {
	.name = "edit_agent",
	.effect = DB_CHANGES,
	.sql = "WITH edited AS ("
	       "    SELECT * FROM areg_edit_agent(of_agent => :agent_uuid, editor => :editor,"
	       "        new_status => :status, new_file => :registration_file,"
	       "        new_digest => :registration_digest, " READ_ARGUMENTS
	       "        metadata_keys => :metadata_keys, metadata_values => :metadata_values,"
	       "        by_user => :user_id::uuid, quota_bytes => :quota_bytes)"
	       "), audited AS ("
	       "    INSERT INTO audit_log (actor_user, actor, request_id, client_address, action,"
	       "        subject_type, subject_id, before, after)"
	       "    SELECT :user_id::uuid, :key_prefix, :request_id, areg_client_address(:client_address),"
	       "        CASE WHEN after ? 'status' THEN 'agent.revoke' ELSE 'agent.update' END,"
	       "        'agent', (agent).agent_uuid, before, after"
	       "      FROM edited WHERE outcome = 'edited'"
	       ")"
	       "SELECT edited.outcome, edited.twin, " AGENT_SHOWN "edited.metadata"
	       "  FROM edited CROSS JOIN LATERAL (SELECT (edited.agent).*) AS a",
	.names = (const char *const[]){ EDIT_PARAMS(NAME_OF) AGENT_READ_NAMES NULL },
};

struct edit {
	struct json_text registration_file;
	struct json_text metadata;
	const char *status;
};

static const char *const statuses[] = { "revoked", NULL };
static const struct json_field edit_fields[] = {
	{ .name = "registration_file",
		.kind = JSON_OBJECT,
		.offset = offsetof(struct edit, registration_file),
		.problem = PROBLEM_INVALID_REGISTRATION_FILE },
	{ .name = "metadata", .kind = JSON_OBJECT, .offset = offsetof(struct edit, metadata) },
	{ .name = "status",
		.kind = JSON_STRING,
		.offset = offsetof(struct edit, status),
		.words = statuses },
};
const struct route_input agents_edit_input = { .body_max = BODY_WITH_FILE_MAX,
	.fields = edit_fields,
	.field_count = sizeof edit_fields / sizeof edit_fields[0] };

static bool changes_nothing(const struct edit *edit)
{
	return edit->registration_file.object == NULL && edit->metadata.object == NULL &&
	       edit->status == NULL;
}

static enum db_status edit_store(struct call *call, const char *agent_uuid, const struct edit *edit,
	const struct registration_file *file, const struct metadata *metadata, struct db_rows *rows)
{
	struct arena *arena = call->arena;
	const char *params[] = { EDIT_PARAMS(VALUE_OF) AGENT_READ_VALUES };

	return db_run(call->context->db, &edit_agent, params, sizeof params / sizeof params[0],
		arena, rows);
}

/* Those outcomes of areg_edit_agent() whose detail is always the same. */
static const struct refusal edit_refusals[] = {
	{ PROBLEM_FORBIDDEN, "The agent's owner is not the wallet of this API key's user.", NULL },
	{ PROBLEM_AGENT_SUSPENDED, "The agent is suspended, so it takes no change.", NULL },
	{ PROBLEM_AGENT_NOT_ACTIVE_409, "The agent is pending or revoked, so it takes no change.",
		NULL },
};

static void edit_answer_outcome(struct call *call, const struct db_rows *rows)
{
	const char *outcome = db_text(rows, 0, 0);
	struct faults faults;

	if (strcmp(outcome, "edited") == 0 || strcmp(outcome, "unchanged") == 0) {
		agent_write(call, 200, rows, 2);
	} else if (problem_is(PROBLEM_AGENT_NOT_FOUND, outcome)) {
		agent_not_found(call);
	} else if (problem_is(PROBLEM_OWNER_SUSPENDED, outcome)) {
		agent_refuse_suspended_owner(call);
	} else if (strcmp(outcome, "suspended_twin") == 0) {
		agent_refuse_suspended_twin(call, db_text(rows, 0, 1));
	} else if (problem_is(PROBLEM_AGENT_ALREADY_EXISTS, outcome)) {
		agent_refuse_twin(call, db_text(rows, 0, 1));
	} else if (strcmp(outcome, "metadata_too_large") == 0) {
		faults_init(&faults, call->arena, PROBLEM_VALIDATION_FAILED);
		fault_add(&faults, PROBLEM_VALIDATION_FAILED, "/metadata",
			"with what is stored already, its keys or values have more than 64 KiB");
		call_refuse(call, &faults);
	} else if (problem_is(PROBLEM_QUOTA_EXCEEDED, outcome)) {
		agent_refuse_quota(call);
	} else {
		call_refuse_outcome(call, outcome, edit_refusals,
			sizeof edit_refusals / sizeof edit_refusals[0]);
	}
}

void agents_edit(struct call *call)
{
	struct edit edit = { 0 };
	struct metadata metadata;
	struct registration_file file = { 0 };
	const char *agent_uuid;
	struct faults faults;
	struct json_doc doc;
	struct db_rows rows;
	enum db_status status;

	if (!call_body(call, &edit, &doc, &faults))
		return;
	if (edit.registration_file.object != NULL)
		registration_file_read(
			call->arena, &edit.registration_file, "/registration_file", &file, &faults);
	metadata_read(call->arena, edit.metadata.object, true, &metadata, &faults);
	if (faults.count == 0 && changes_nothing(&edit))
		fault_add(&faults, PROBLEM_VALIDATION_FAILED, "", "names nothing to change");
	if (faults.count > 0) {
		call_refuse(call, &faults);
		return;
	}
	agent_uuid = agent_uuid_named(call);
	if (agent_uuid == NULL)
		return;
	call_changed(call, agent_uuid);
	status = edit_store(call, agent_uuid, &edit, &file, &metadata, &rows);
	if (agent_has_twin(call, status)) /* stored just now: now it is found */
		status = edit_store(call, agent_uuid, &edit, &file, &metadata, &rows);
	if (agent_user_is_gone(call, status))
		call_key_gone(call);
	else if (status != DB_OK)
		call_db_failed(call, status);
	else
		edit_answer_outcome(call, &rows);
}
