/* aregctl agent: looks at one agent, takes it out of service and puts it back. */
#include "app/ctl.h"

#include <stdio.h>
#include <string.h>

#include "app/agentid.h"

enum { TIMEOUT_MS = 30 * 1000 };

struct values {
	const char *reason;
};

static const struct db_statement show_agent = {
	.name = "ctl_agent_show",
	.sql = "SELECT a.agent_uuid, a.agent_id, a.chain, a.chain_id, a.registry_address,"
	       " a.owner_address, a.agent_wallet, a.token_uri, a.status, a.source, a.tx_hash,"
	       " a.registered_block, rfc3339(a.created_at), rfc3339(a.updated_at), a.name,"
	       " json_array_length(a.conformance), a.conformance, a.registration_file,"
	       " s.total_feedback, s.reputation_score, s.total_payments, s.trust_level "
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
	{ "tx_hash", "tx_hash", CTL_STRING },
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
};

/* $5 is the status to set, $6 the one it must have now, $7 the action, $8 the reason. */
static const struct db_statement change_status = {
	.name = "ctl_agent_status",
	.sql = "WITH found AS ("
	       " SELECT agent_uuid, status FROM erc8004_agents a WHERE a.agent_uuid = " AGENT_NAMED
	       " FOR UPDATE), "
	       "changed AS ("
	       " UPDATE erc8004_agents a SET status = $5, updated_at = now()"
	       " FROM found WHERE a.agent_uuid = found.agent_uuid AND found.status = $6"
	       " RETURNING a.agent_uuid, a.status), "
	       "audited AS ("
	       " INSERT INTO audit_log (actor, action, subject_type, subject_id, before, after)"
	       " SELECT $9, $7, 'agent', agent_uuid::text,"
	       "  jsonb_build_object('status', found.status),"
	       "  jsonb_strip_nulls(jsonb_build_object('status', changed.status,"
	       "   'reason', $8::text))"
	       " FROM found JOIN changed USING (agent_uuid)) "
	       "SELECT agent_uuid, found.status, changed.status "
	       "FROM found LEFT JOIN changed USING (agent_uuid)",
	.effect = DB_CHANGES,
};

/* Fills params[0..3] for AGENT_NAMED. */
static enum ctl_exit name_agent(struct ctl *ctl, const char **params)
{
	struct agentid *id = arena_alloc(ctl->arena, sizeof(*id));
	const char *why;

	switch (agentid_parse(&ctl->settings, ctl->operands[0], id, &why)) {
	case AGENTID_OK:
		break;
	case AGENTID_NO_CHAIN:
		ctl_error("agent %s: %s: see the [chain NAME] sections of the configuration",
			ctl->operands[0], why);
		return CTL_REFUSED;
	case AGENTID_MALFORMED:
		ctl_error("agent \"%s\": %s", ctl->operands[0], why);
		return CTL_USAGE;
	}
	agentid_params(id, params);
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
	enum ctl_exit code = name_agent(ctl, params);

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
	const char *from, *to; /* statuses */
};

static enum ctl_exit change(
	struct ctl *ctl, const struct values *values, const struct change *change)
{
	const char *params[9] = { NULL };
	struct db_rows rows;
	enum ctl_exit code = name_agent(ctl, params);

	if (code != CTL_DONE)
		return code;
	params[4] = change->to;
	params[5] = change->from;
	params[6] = change->action;
	params[7] = values->reason;
	params[8] = ctl_actor(ctl);
	ctl_open_db(ctl, TIMEOUT_MS);
	if (db_run(ctl->db, &change_status, params, 9, ctl->arena, &rows) != DB_OK) {
		if (strcmp(db_last_error(ctl->db)->sqlstate, "23505") != 0)
			return ctl_db_failed(ctl, change->action);
		ctl_error("agent %s cannot be active: another active agent of its owner has the "
			  "same registration file",
			ctl->operands[0]);
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
			change->to);
	else
		printf("%s %s\n", change->verb, db_text(&rows, 0, 0));
	return CTL_DONE;
}

static enum ctl_exit agent_suspend(struct ctl *ctl, const void *values)
{
	static const struct change suspend = { "suspended", "agent.suspend", "active",
		"suspended" };

	return change(ctl, values, &suspend);
}

static enum ctl_exit agent_reactivate(struct ctl *ctl, const void *values)
{
	static const struct change reactivate = { "reactivated", "agent.reactivate", "suspended",
		"active" };

	return change(ctl, values, &reactivate);
}

static const struct ctl_option options[] = {
	{ "reason", CTL_TEXT, offsetof(struct values, reason), "TEXT", "why, for the audit log" },
};

static const char forms[] =
	"ID is any of: the agent_uuid; chain:agent_id (base:42); the global form\n"
	"eip155:8453:0x8004A169FB4a3325136EB29fA0ceB6D2e539a432:42.\n";

const struct ctl_command ctl_agent_commands[] = {
	{ "agent show", "ID", 1, "show an agent, suspended or not", forms, NULL, 0,
		sizeof(struct values), agent_show },
	{ "agent suspend", "ID", 1, "take an active agent out of service", forms, options, 1,
		sizeof(struct values), agent_suspend },
	{ "agent reactivate", "ID", 1, "put a suspended agent back into service", forms, options, 1,
		sizeof(struct values), agent_reactivate },
	{ .name = NULL },
};
