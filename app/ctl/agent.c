/* SPDX-License-Identifier: Apache-2.0 */
/* aregctl agent: looks at one agent, takes it or all that an owner registered out of service, and puts
 * them back. */
#include "app/ctl/ctl.h"

#include <stdio.h>
#include <string.h>

#include "app/registry/agent_id.h"
#include "lib/eth.h"

enum { TIMEOUT_MS = 30 * 1000 };

struct values {
	const char *reason;
};

static const struct db_statement show_agent = {
	.name = "ctl_agent_show",
	.sql = "SELECT a.agent_uuid, a.agent_id, a.chain, a.chain_id, a.registry_address,"
	       " a.owner_address, a.agent_wallet, a.token_uri, a.status, a.source, a.registered_tx,"
	       " a.registered_block, rfc3339(a.created_at), rfc3339(a.updated_at), a.name,"
	       " json_array_length(a.conformance), a.conformance, a.registration_file,"
	       " s.total_feedback, s.reputation_score, s.total_payments, s.trust_level,"
	       " areg_registered_by(a.agent_uuid), CASE WHEN a.status = 'suspended' THEN"
	       "  CASE WHEN a.suspended_with_owner THEN 'owner' ELSE 'agent' END END "
	       "FROM erc8004_agents a JOIN erc8004_agent_stats s USING (agent_uuid) "
	       "WHERE a.agent_uuid = " AGENT_NAMED,
	.effect = DB_READS,
};

static const struct ctl_column columns[] = {
	{ "agent_uuid", "agent_uuid", CTL_STRING },
	{ "agent_id", "agent_id", CTL_RAW },
	{ "chain", "chain", CTL_STRING },
	{ "chain_id", "chain_id", CTL_RAW },
	{ "registry_address", "registry_address", CTL_STRING },
	{ "owner_address", "owner_address", CTL_STRING },
	{ "agent_wallet", "agent_wallet", CTL_STRING },
	{ "token_uri", "token_uri", CTL_STRING },
	{ "status", "status", CTL_STRING },
	{ "source", "source", CTL_STRING },
	{ "registered_tx", "registered tx", CTL_STRING },
	{ "registered_block", "registered_block", CTL_RAW },
	{ "created_at", "registered", CTL_STRING },
	{ "updated_at", "updated", CTL_STRING },
	{ "name", "name", CTL_STRING },
	{ "conformance_faults", "conformance faults", CTL_RAW },
	{ "conformance", NULL, CTL_RAW },
	{ "registration_file", NULL, CTL_RAW },
	{ "total_feedback", "feedback", CTL_RAW },
	{ "reputation_score", "reputation score", CTL_RAW },
	{ "total_payments", "payments", CTL_RAW },
	{ "trust_level", "trust level", CTL_STRING },
	{ "registered_by", "registered by", CTL_STRING },
	{ "suspended_as", "suspended as", CTL_STRING },
};

/* $5 is the action, $6 the reason, $7 who does it. A macro of how the columns change and of which. */
#define CHANGE_AGENT(changes, those) \
	"WITH found AS (" \
	" SELECT agent_uuid, status, suspended_from, suspended_with_owner FROM erc8004_agents a" \
	" WHERE a.agent_uuid = " AGENT_NAMED " FOR UPDATE), " \
	"changed AS (" \
	" UPDATE erc8004_agents a SET suspended_with_owner = false, updated_at = now(), " changes \
	" FROM found WHERE a.agent_uuid = found.agent_uuid AND (" those ")" \
	" RETURNING a.agent_uuid, a.status), " \
	"audited AS (" \
	" INSERT INTO audit_log (actor, action, subject_type, subject_id, before, after)" \
	" SELECT $7, $5, 'agent', agent_uuid::text," \
	"  jsonb_build_object('status', found.status)," \
	"  jsonb_strip_nulls(jsonb_build_object('status', changed.status," \
	"   'reason', $6::text))" \
	" FROM found JOIN changed USING (agent_uuid)) " \
	"SELECT agent_uuid, found.status, changed.status " \
	"FROM found LEFT JOIN changed USING (agent_uuid)"

/* One that is suspended with its owner stays so when that owner comes back. */
static const struct db_statement suspend_agent = {
	.name = "ctl_agent_suspend",
	.sql = CHANGE_AGENT("status = 'suspended', suspended_from = CASE found.status"
			    " WHEN 'suspended' THEN found.suspended_from ELSE found.status END",
		"found.status IN ('active', 'revoked') OR found.suspended_with_owner"),
	.effect = DB_CHANGES,
};

static const struct db_statement reactivate_agent = {
	.name = "ctl_agent_reactivate",
	.sql = CHANGE_AGENT(
		"status = coalesce(found.suspended_from, 'active'), suspended_from = NULL",
		"found.status = 'suspended'"),
	.effect = DB_CHANGES,
};

static const struct db_statement suspend_owner = {
	.name = "ctl_owner_suspend",
	.sql = "SELECT agents, outcome FROM areg_suspend_owner($1, $2, $3)",
	.effect = DB_CHANGES,
};

static const struct db_statement reactivate_owner = {
	.name = "ctl_owner_reactivate",
	.sql = "SELECT agents, outcome FROM areg_reactivate_owner($1, $2, $3)",
	.effect = DB_CHANGES,
};

static const struct db_statement list_suspended_owners = {
	.name = "ctl_owners_suspended",
	.sql = "SELECT o.owner_address, rfc3339(o.suspended_at), o.suspended_by, o.reason,"
	       " (SELECT count(*) FROM erc8004_agents a WHERE a.suspended_with_owner"
	       "   AND a.status = 'suspended' AND areg_registered_by(a.agent_uuid) = o.owner_address) "
	       "FROM erc8004_suspended_owners o ORDER BY o.suspended_at, o.owner_address",
	.effect = DB_READS,
};

static const struct ctl_column owner_columns[] = {
	{ "owner_address", "owner", CTL_STRING },
	{ "suspended_at", "since", CTL_STRING },
	{ "suspended_by", "by", CTL_STRING },
	{ "reason", "reason", CTL_STRING },
	{ "agents", "agents", CTL_RAW },
};

/* Fills params[0..3] for AGENT_NAMED. */
static enum ctl_exit agent_name_agent(struct ctl *ctl, const char **params)
{
	struct agent_id *id = arena_alloc(ctl->arena, sizeof(*id));
	const char *why;

	switch (agent_id_parse(&ctl->settings, ctl->operands[0], id, &why)) {
	case AGENT_ID_OK:
		break;
	case AGENT_ID_NO_CHAIN:
		ctl_error("agent %s: %s: see the [chain NAME] sections of the configuration",
			ctl->operands[0], why);
		return CTL_REFUSED;
	case AGENT_ID_MALFORMED:
		ctl_error("agent \"%s\": %s", ctl->operands[0], why);
		return CTL_USAGE;
	}
	agent_id_params(id, params);
	return CTL_DONE;
}

static enum ctl_exit no_agent(const struct ctl *ctl)
{
	ctl_error("no agent %s in the registry", ctl->operands[0]);
	return CTL_REFUSED;
}

static enum ctl_exit agent_show(struct ctl *ctl, const void *arg)
{
	const char *params[4] = { NULL };
	struct db_rows rows;
	enum ctl_exit code = agent_name_agent(ctl, params);

	(void)arg;
	if (code != CTL_DONE)
		return code;
	ctl_open_db(ctl, TIMEOUT_MS);
	if (db_run(ctl->db, &show_agent, params, 4, ctl->arena, &rows) != DB_OK)
		return ctl_db_failed(ctl, "agent show");
	if (rows.count == 0)
		return no_agent(ctl);
	ctl_print_row(ctl, &rows, columns, sizeof(columns) / sizeof(columns[0]));
	return CTL_DONE;
}

struct change {
	const char *verb; /* for people */
	const char *action; /* in audit_log */
	const char *from; /* statuses, for people */
	const struct db_statement *statement;
};

static enum ctl_exit change(
	struct ctl *ctl, const struct values *values, const struct change *change)
{
	const char *params[7] = { NULL };
	struct db_rows rows;
	enum ctl_exit code = agent_name_agent(ctl, params);

	if (code != CTL_DONE)
		return code;
	params[4] = change->action;
	params[5] = values->reason;
	params[6] = ctl_actor(ctl);
	ctl_open_db(ctl, TIMEOUT_MS);
	if (db_run(ctl->db, change->statement, params, 7, ctl->arena, &rows) != DB_OK) {
		if (strcmp(db_last_error(ctl->db)->sqlstate, "23505") != 0)
			return ctl_db_failed(ctl, change->action);
		ctl_error("agent %s cannot be %s: another agent of its owner has the same "
			  "registration file, and is active or suspended",
			ctl->operands[0], change->verb);
		return CTL_REFUSED;
	}
	if (rows.count == 0)
		return no_agent(ctl);
	if (db_text(&rows, 0, 2) == NULL) {
		ctl_error("agent %s is %s: only one that is %s can be %s", ctl->operands[0],
			db_text(&rows, 0, 1), change->from, change->verb);
		return CTL_REFUSED;
	}
	if (ctl->json)
		printf("{\"agent_uuid\":\"%s\",\"status\":\"%s\"}\n", db_text(&rows, 0, 0),
			db_text(&rows, 0, 2));
	else
		printf("%s %s\n", change->verb, db_text(&rows, 0, 0));
	return CTL_DONE;
}

static enum ctl_exit agent_suspend(struct ctl *ctl, const void *values)
{
	static const struct change suspend = { "suspended", "agent.suspend", "active or revoked",
		&suspend_agent };

	return change(ctl, values, &suspend);
}

static enum ctl_exit agent_reactivate(struct ctl *ctl, const void *values)
{
	static const struct change reactivate = { "reactivated", "agent.reactivate", "suspended",
		&reactivate_agent };

	return change(ctl, values, &reactivate);
}

static enum ctl_exit change_owner(struct ctl *ctl, const struct values *values,
	const struct db_statement *statement, const char *done)
{
	char owner[ETH_ADDRESS_LEN + 1];
	struct db_rows rows;

	if (!ctl_parse_wallet(ctl->operands[0], owner))
		return CTL_USAGE;
	ctl_open_db(ctl, TIMEOUT_MS);
	const char *params[] = { owner, values->reason, ctl_actor(ctl) };
	if (db_run(ctl->db, statement, params, 3, ctl->arena, &rows) != DB_OK)
		return ctl_db_failed(ctl, statement->name);
	if (strcmp(db_text(&rows, 0, 1), done) != 0) {
		ctl_error("owner %s: %s", owner, db_text(&rows, 0, 1));
		return CTL_REFUSED;
	}
	if (ctl->json)
		printf("{\"owner_address\":\"%s\",\"is_suspended\":%s,\"agents\":%s}\n", owner,
			statement == &suspend_owner ? "true" : "false", db_text(&rows, 0, 0));
	else
		printf("%s %s and %s agents\n", done, owner, db_text(&rows, 0, 0));
	return CTL_DONE;
}

static enum ctl_exit agent_suspend_owner(struct ctl *ctl, const void *values)
{
	return change_owner(ctl, values, &suspend_owner, "suspended");
}

static enum ctl_exit agent_reactivate_owner(struct ctl *ctl, const void *values)
{
	return change_owner(ctl, values, &reactivate_owner, "reactivated");
}

static enum ctl_exit agent_suspended_owners(struct ctl *ctl, const void *values)
{
	struct db_rows rows;

	(void)values;
	ctl_open_db_to_read(ctl, TIMEOUT_MS);
	if (db_run(ctl->db, &list_suspended_owners, NULL, 0, ctl->arena, &rows) != DB_OK)
		return ctl_db_failed(ctl, "agent suspended-owners");
	ctl_print_rows(ctl, &rows, owner_columns, sizeof(owner_columns) / sizeof(owner_columns[0]),
		"no owner is suspended");
	return CTL_DONE;
}

static const struct ctl_option options[] = {
	{ "reason", CTL_TEXT, offsetof(struct values, reason), "TEXT", "why, for the audit log" },
};

static const char forms[] =
	"ID is any of: the agent_uuid; chain:agent_id (base:42); the global form\n"
	"eip155:8453:0x617265672D64656D6F2D6964656e746974696573:42.\n";

static const char owner_notes[] =
	"ADDRESS is the wallet that registered the agents. Agents that were only transferred to it\n"
	"stay in service; agents that it registered and gave away do not.\n";

const struct ctl_command ctl_agent_commands[] = {
	{ "agent show", "ID", 1, "show an agent, suspended or not", forms, NULL, 0,
		sizeof(struct values), agent_show },
	{ "agent suspend", "ID", 1, "take an agent out of service", forms, options, 1,
		sizeof(struct values), agent_suspend },
	{ "agent reactivate", "ID", 1, "put a suspended agent back into service", forms, options, 1,
		sizeof(struct values), agent_reactivate },
	{ "agent suspend-owner", "ADDRESS", 1,
		"take all that an owner registered out of service, and refuse more", owner_notes,
		options, 1, sizeof(struct values), agent_suspend_owner },
	{ "agent reactivate-owner", "ADDRESS", 1,
		"lift that, for the owner and the agents suspended with them", NULL, options, 1,
		sizeof(struct values), agent_reactivate_owner },
	{ "agent suspended-owners", "", 0, "list the owners that are suspended", NULL, NULL, 0,
		sizeof(struct values), agent_suspended_owners },
	{ .name = NULL },
};
