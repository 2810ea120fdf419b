/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aregctl payment: what facilitators recorded, which of them are trusted, and taking back what one
 * of them, or an owner, did wrong. Read beside this: sql/0012_payments, docs/trust.md.
 */
#include "app/ctl/ctl.h"

#include <stdio.h>
#include <string.h>

#include "app/problem_list.h"
#include "lib/eth.h"

enum { TIMEOUT_MS = 30 * 1000 };

struct values {
	const char *transaction, *recorded_by, *reason;
};

/* ---- Lists ---- */

/* Each condition is off where its parameters are null. */
static const struct db_statement list_payments = {
	.name = "ctl_payment_list",
	.sql = "SELECT p.id, p.chain, p.tx_hash, p.amount_usdc, p.payer, p.payee, p.status,"
	       " l.agent_uuid, p.recorded_by, rfc3339(p.created_at) "
	       "FROM x402_payments p LEFT JOIN erc8004_agent_payments l ON l.payment_id = p.id"
	       " LEFT JOIN users u ON u.id = p.recorded_by "
	       "WHERE ($1::text IS NULL OR p.tx_hash = $1)"
	       " AND (coalesce($2::text, $3::text) IS NULL OR p.recorded_by = $2::uuid"
	       "  OR u.wallet_address = $3) "
	       "ORDER BY p.id DESC LIMIT 100",
	.effect = DB_READS,
};

static const struct ctl_column payment_columns[] = {
	{ "payment_id", "PAYMENT", CTL_RAW },
	{ "chain", "CHAIN", CTL_STRING },
	{ "tx_hash", "TRANSACTION", CTL_STRING },
	{ "amount_usdc", "USDC", CTL_STRING },
	{ "payer", "PAYER", CTL_STRING },
	{ "payee", "PAYEE", CTL_STRING },
	{ "status", "STATUS", CTL_STRING },
	{ "agent_uuid", "AGENT", CTL_STRING },
	{ "recorded_by", "RECORDED BY", CTL_STRING },
	{ "created_at", "RECORDED", CTL_STRING },
};

/* Lists the users who may record payments, and those who did. */
static const struct db_statement list_facilitators = {
	.name = "ctl_payment_facilitators",
	.sql = "SELECT coalesce(u.id, d.recorded_by), u.name, u.wallet_address,"
	       " coalesce(u.is_active AND 'payments:write' = ANY (u.scopes), false),"
	       " coalesce(d.recorded, 0), coalesce(d.verified, 0), coalesce(d.failed, 0),"
	       " coalesce(d.linked, 0), rfc3339(d.last_at) "
	       "FROM (SELECT * FROM users WHERE 'payments:write' = ANY (scopes)"
	       "   OR id IN (SELECT recorded_by FROM x402_payments)) AS u"
	       " FULL JOIN (SELECT p.recorded_by, count(*) AS recorded,"
	       "   count(*) FILTER (WHERE p.status = 'verified') AS verified,"
	       "   count(*) FILTER (WHERE p.status = 'failed') AS failed,"
	       "   count(l.payment_id) AS linked, max(p.created_at) AS last_at"
	       "   FROM x402_payments p LEFT JOIN erc8004_agent_payments l ON l.payment_id = p.id"
	       "   WHERE p.recorded_by IS NOT NULL GROUP BY p.recorded_by) AS d"
	       "  ON d.recorded_by = u.id "
	       "ORDER BY 5 DESC, 1",
	.effect = DB_READS,
};

static const struct ctl_column facilitator_columns[] = {
	{ "id", "ID", CTL_STRING },
	{ "name", "NAME", CTL_STRING },
	{ "wallet_address", "WALLET", CTL_STRING },
	{ "may_record", "MAY RECORD", CTL_BOOL },
	{ "recorded", "RECORDED", CTL_RAW },
	{ "verified", "VERIFIED", CTL_RAW },
	{ "failed", "FAILED", CTL_RAW },
	{ "linked", "LINKED", CTL_RAW },
	{ "last_recorded_at", "LAST", CTL_STRING },
};

static enum ctl_exit payment_list(struct ctl *ctl, const void *arg)
{
	const struct values *values = arg;
	const char *params[3] = { NULL };
	char hash[ETH_HASH_LEN + 1];
	struct ctl_user_name user;
	struct db_rows rows;
	const char *why;

	if (values->transaction != NULL) {
		if (!eth_hash_parse(values->transaction, hash, &why)) {
			ctl_error("--transaction %s: %s", values->transaction, why);
			return CTL_USAGE;
		}
		params[0] = hash;
	}
	if (values->recorded_by != NULL) {
		if (!ctl_parse_user(ctl, values->recorded_by, &user))
			return CTL_USAGE;
		params[1] = user.id;
		params[2] = user.wallet;
	}
	ctl_open_db(ctl, TIMEOUT_MS);
	if (db_run(ctl->db, &list_payments, params, 3, ctl->arena, &rows) != DB_OK)
		return ctl_db_failed(ctl, "payment list");
	ctl_print_rows(ctl, &rows, payment_columns,
		sizeof(payment_columns) / sizeof(payment_columns[0]), "no such payments");
	return CTL_DONE;
}

static enum ctl_exit payment_facilitators(struct ctl *ctl, const void *arg)
{
	struct db_rows rows;

	(void)arg;
	ctl_open_db(ctl, TIMEOUT_MS);
	if (db_run(ctl->db, &list_facilitators, NULL, 0, ctl->arena, &rows) != DB_OK)
		return ctl_db_failed(ctl, "payment facilitators");
	ctl_print_rows(ctl, &rows, facilitator_columns,
		sizeof(facilitator_columns) / sizeof(facilitator_columns[0]),
		"nobody may record payments: see --scope in aregctl user add --help");
	return CTL_DONE;
}

/* ---- Taking back ---- */

static const struct db_statement unlink_payment = {
	.name = "ctl_payment_unlink",
	.sql = "WITH done AS ("
	       " SELECT * FROM areg_unlink_payment(NULL, $1::bigint, NULL, NULL, NULL)), "
	       "audited AS ("
	       " INSERT INTO audit_log (actor, action, subject_type, subject_id, before, after)"
	       " SELECT $2, 'payment.unlink', 'payment',"
	       "  areg_payment_name((payment).chain, (payment).tx_hash, (payment).id),"
	       "  to_jsonb(link), jsonb_strip_nulls(jsonb_build_object('reason', $3::text))"
	       " FROM done WHERE outcome = 'unlinked') "
	       "SELECT outcome, (link).agent_uuid FROM done",
	.effect = DB_CHANGES,
};

static enum ctl_exit payment_unlink(struct ctl *ctl, const void *arg)
{
	const struct values *values = arg;
	const char *params[3] = { ctl->operands[0], ctl_actor(ctl), values->reason };
	const size_t digits = strspn(params[0], "0123456789");
	struct db_rows rows;
	const char *outcome;

	if (digits == 0 || digits > 18 || params[0][digits] != '\0') {
		ctl_error("\"%s\" is not the number of a payment: see aregctl payment list",
			params[0]);
		return CTL_USAGE;
	}
	ctl_open_db(ctl, TIMEOUT_MS);
	if (db_run(ctl->db, &unlink_payment, params, 3, ctl->arena, &rows) != DB_OK)
		return ctl_db_failed(ctl, "payment unlink");
	outcome = db_text(&rows, 0, 0);
	if (strcmp(outcome, "unlinked") != 0) {
		if (problem_is(PROBLEM_PAYMENT_NOT_FOUND, outcome))
			ctl_error("no payment %s in the registry", params[0]);
		else if (problem_is(PROBLEM_PAYMENT_NOT_LINKED, outcome))
			ctl_error("payment %s is not linked to any agent", params[0]);
		else
			ctl_error("the database gave an answer that aregctl does not know: %s",
				outcome);
		return CTL_REFUSED;
	}
	if (ctl->json)
		printf("{\"payment_id\":%s,\"agent_uuid\":\"%s\"}\n", params[0],
			db_text(&rows, 0, 1));
	else
		printf("unlinked %s from %s\n", params[0], db_text(&rows, 0, 1));
	return CTL_DONE;
}

/* Answers the user's id; no row: no such user. */
static const struct db_statement revoke_scope = {
	.name = "ctl_payment_distrust",
	.sql = "WITH found AS ("
	       " SELECT * FROM users WHERE id = $1::uuid OR wallet_address = $2 FOR UPDATE), "
	       "changed AS ("
	       " UPDATE users u SET scopes = array_remove(u.scopes, 'payments:write')"
	       " FROM found WHERE u.id = found.id AND 'payments:write' = ANY (u.scopes)"
	       " RETURNING u.*), "
	       "audited AS ("
	       " INSERT INTO audit_log (actor, action, subject_type, subject_id, before, after)"
	       " SELECT $3, 'user.set', 'user', found.id::text, to_jsonb(found),"
	       "  to_jsonb(changed) || jsonb_strip_nulls(jsonb_build_object('reason', $4::text))"
	       " FROM found JOIN changed USING (id)) "
	       "SELECT id FROM found",
	.effect = DB_CHANGES,
};

/* By agent, as everybody locks their statistics; a batch at a time, so that no writer waits long. */
static const struct db_statement unlink_batch = {
	.name = "ctl_payment_unlink_batch",
	.sql = "WITH found AS MATERIALIZED ("
	       " SELECT p.id, l.agent_uuid FROM x402_payments p"
	       "  JOIN erc8004_agent_payments l ON l.payment_id = p.id"
	       " WHERE p.recorded_by = $1::uuid ORDER BY l.agent_uuid, p.id LIMIT 100), "
	       "done AS MATERIALIZED ("
	       " SELECT d.* FROM found,"
	       "  LATERAL areg_unlink_payment(NULL, found.id, NULL, NULL, NULL) AS d), "
	       "audited AS ("
	       " INSERT INTO audit_log (actor, action, subject_type, subject_id, before, after)"
	       " SELECT $2, 'payment.unlink', 'payment',"
	       "  areg_payment_name((payment).chain, (payment).tx_hash, (payment).id),"
	       "  to_jsonb(link), jsonb_strip_nulls(jsonb_build_object('reason', $3::text))"
	       " FROM done WHERE outcome = 'unlinked') "
	       "SELECT outcome FROM done",
	.effect = DB_CHANGES,
};

static enum ctl_exit payment_distrust(struct ctl *ctl, const void *arg)
{
	const struct values *values = arg;
	struct ctl_user_name user;
	struct db_rows rows;
	const char *id;
	size_t unlinked = 0;

	if (!ctl_parse_user(ctl, ctl->operands[0], &user))
		return CTL_USAGE;
	const char *who[] = { user.id, user.wallet, ctl_actor(ctl), values->reason };
	ctl_open_db(ctl, TIMEOUT_MS);
	if (db_run(ctl->db, &revoke_scope, who, 4, ctl->arena, &rows) != DB_OK)
		return ctl_db_failed(ctl, "payment distrust");
	/* A user that is gone may have left payments. */
	id = rows.count > 0 ? db_text(&rows, 0, 0) : user.id;
	if (id == NULL) {
		ctl_error("no user %s: see aregctl payment facilitators", ctl->operands[0]);
		return CTL_REFUSED;
	}
	const char *batch[] = { id, ctl_actor(ctl), values->reason };
	do {
		if (db_run(ctl->db, &unlink_batch, batch, 3, ctl->arena, &rows) != DB_OK)
			return ctl_db_failed(ctl, "payment distrust");
		unlinked += rows.count;
	} while (rows.count > 0);
	if (ctl->json)
		printf("{\"id\":\"%s\",\"unlinked\":%zu}\n", id, unlinked);
	else
		printf("%s may record no payments; %zu payments unlinked\n", id, unlinked);
	return CTL_DONE;
}

static const struct ctl_option list_options[] = {
	{ "transaction", CTL_TEXT, offsetof(struct values, transaction), "HASH",
		"only those that this transaction settles" },
	{ "recorded-by", CTL_TEXT, offsetof(struct values, recorded_by), "USER",
		"only those that the user with this id or wallet recorded" },
};

static const struct ctl_option reason_options[] = {
	{ "reason", CTL_TEXT, offsetof(struct values, reason), "TEXT", "why, for the audit log" },
};

const struct ctl_command ctl_payment_commands[] = {
	{ "payment list", "", 0, "list the last 100 payments that were recorded", NULL,
		list_options, sizeof(list_options) / sizeof(list_options[0]), sizeof(struct values),
		payment_list },
	{ "payment unlink", "PAYMENT", 1, "take the link of a payment to an agent back",
		"PAYMENT is a number that payment list shows.\n"
		"The automatic feedback that came of the link is revoked.\n",
		reason_options, 1, sizeof(struct values), payment_unlink },
	{ "payment facilitators", "", 0, "list who may record payments, and who did", NULL, NULL, 0,
		0, payment_facilitators },
	{ "payment distrust", "ID|WALLET", 1,
		"let a user record no payments any more, and unlink those it recorded",
		"The payments stay recorded, and nobody can link them while the user has no such scope.\n",
		reason_options, 1, sizeof(struct values), payment_distrust },
	{ .name = NULL },
};
