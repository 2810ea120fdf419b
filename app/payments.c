/*
 * Payments. Facilitators report them, agents' owners say whom they were for; what follows from a
 * settled one, areg_record_payment() and areg_link_payment() do in the same transaction.
 */
#include "app/payments.h"

#include <string.h>

#include "app/agents.h"
#include "app/columns.h"
#include "app/metering.h"
#include "app/page.h"

const char *const payment_statuses[] = { "pending", "verified", "failed", "rejected", NULL };

/* Of x402_payments and erc8004_agent_payments, as SQL over `payment` and `link`, which may be values
 * of a function or tables. */
#define PAYMENT_COLUMNS(payment, link) \
	payment ".tx_hash, " payment ".chain, " payment ".amount_usdc, " payment \
		".payer, " payment ".payee, " payment ".status, " payment ".endpoint, " payment \
		".failure_reason, " link ".agent_uuid, rfc3339(" payment \
		".created_at), rfc3339(" payment ".updated_at), rfc3339(" payment \
		".settled_at), rfc3339(" link ".linked_at)"

static const struct column payment_columns[] = { { "tx_hash", COLUMN_TEXT },
	{ "chain", COLUMN_TEXT }, { "amount_usdc", COLUMN_TEXT }, { "payer", COLUMN_TEXT },
	{ "payee", COLUMN_TEXT }, { "status", COLUMN_TEXT }, { "endpoint", COLUMN_TEXT },
	{ "failure_reason", COLUMN_TEXT }, { "agent_uuid", COLUMN_TEXT },
	{ "created_at", COLUMN_TEXT }, { "updated_at", COLUMN_TEXT }, { "settled_at", COLUMN_TEXT },
	{ "linked_at", COLUMN_TEXT } };
enum {
	PAYMENT_COLUMN_COUNT = sizeof payment_columns / sizeof payment_columns[0],
	PAYMENT_STATUS = 5,
	PAYMENT_AGENT = 8
};

#define AT(type, member) .offset = offsetof(struct type, member)
#define COUNT(table) (sizeof(table) / sizeof(table)[0])

/* ---- Recording ---- */

static const struct db_statement record_payment = {
	.name = "record_payment",
	.effect = DB_CHANGES,
	.sql = "WITH done AS ("
	       "    SELECT * FROM areg_record_payment($1, $2, $3::numeric, $4, $5, $6, $7, $8,"
	       "        $9::boolean)"
	       "), audited AS ("
	       "    INSERT INTO audit_log (actor_user, actor, request_id, client_address, action,"
	       "        subject_type, subject_id, before, after)"
	       "    SELECT $10::uuid, $11, $12, areg_client_address($13),"
	       "        CASE outcome WHEN 'recorded' THEN 'payment.record' ELSE 'payment.update' END,"
	       "        'payment', $2 || ':' || $1, before,"
	       "        to_jsonb(payment) || jsonb_build_object('feedback_id', feedback_id)"
	       "      FROM done WHERE outcome <> 'settled'"
	       ")"
	       "SELECT outcome, " PAYMENT_COLUMNS("(payment)", "(link)") " FROM done",
};

struct payment {
	const char *tx_hash;
	const char *chain;
	const char *amount_usdc;
	const char *payer, *payee;
	const char *status;
	const char *endpoint;
	const char *failure_reason;
};

static const struct json_field payment_fields[] = {
	{ .name = "tx_hash", .kind = JSON_HASH, .required = true, AT(payment, tx_hash) },
	{ .name = "chain",
		.kind = JSON_STRING,
		.required = true,
		AT(payment, chain),
		.min = 1,
		.max = 64 },
	{ .name = "amount_usdc",
		.kind = JSON_AMOUNT,
		.required = true,
		AT(payment, amount_usdc),
		.min = 0,
		.max = PAYMENT_USDC_MAX },
	{ .name = "payer",
		.kind = JSON_ADDRESS,
		.required = true,
		AT(payment, payer),
		.code = "invalid_address" },
	{ .name = "payee",
		.kind = JSON_ADDRESS,
		.required = true,
		AT(payment, payee),
		.code = "invalid_address" },
	{ .name = "status",
		.kind = JSON_STRING,
		.required = true,
		AT(payment, status),
		.words = payment_statuses },
	{ .name = "endpoint", .kind = JSON_STRING, AT(payment, endpoint), .max = 2048 },
	{ .name = "failure_reason", .kind = JSON_STRING, AT(payment, failure_reason), .max = 2000 },
};
const struct route_input payments_record_input = { .fields = payment_fields,
	.field_count = COUNT(payment_fields) };

static void answer_recorded(struct call *call, const struct db_rows *rows)
{
	const char *outcome = db_text(rows, 0, 0);
	struct json_out out;

	if (strcmp(outcome, "settled") == 0) {
		call_problem(call, 409, "payment_already_settled",
			arena_printf(call->arena,
				"This payment is settled already, as %s, and changes no more.",
				db_text(rows, 0, 1 + PAYMENT_STATUS)));
		return;
	}
	out = call_answer(call, strcmp(outcome, "recorded") == 0 ? 201 : 200);
	json_open_object(&out);
	columns_write(&out, payment_columns, PAYMENT_COLUMN_COUNT, rows, 0, 1);
	json_close_object(&out);
}

void payments_record(struct call *call)
{
	struct payment payment = { 0 };
	const struct chain *chain;
	struct faults faults;
	struct json_doc doc;
	struct db_rows rows;
	enum db_status status;

	if (!call_body(call, &payment, &doc, &faults))
		return;
	chain = call_chain(call, payment.chain, &faults);
	if (faults.count > 0) {
		call_refuse(call, &faults);
		return;
	}
	const char *params[] = { payment.tx_hash, chain->name, payment.amount_usdc, payment.payer,
		payment.payee, payment.status, payment.endpoint, payment.failure_reason,
		call->worker->settings->auto_feedback ? "true" : "false", call->caller->user_id,
		call->caller->key_prefix, call->request->id, call->request->client_address };
	call_changed(call, NULL);
	status = db_run(
		call->worker->db, &record_payment, params, COUNT(params), call->arena, &rows);
	if (status != DB_OK) {
		call_db_failed(call, status);
		return;
	}
	/* Which agent it is linked to, if any, only the answer tells. */
	call_changed(call, db_text(&rows, 0, 1 + PAYMENT_AGENT));
	answer_recorded(call, &rows);
}

/* ---- Linking ---- */

static const struct db_statement link_payment = {
	.name = "link_payment",
	.effect = DB_CHANGES,
	.sql = "WITH done AS ("
	       "    SELECT * FROM areg_link_payment($1, $2, $3, $4, $5::boolean, $6::boolean)"
	       "), audited AS ("
	       "    INSERT INTO audit_log (actor_user, actor, request_id, client_address, action,"
	       "        subject_type, subject_id, after)"
	       "    SELECT $7::uuid, $8, $9, areg_client_address($10), 'payment.link', 'payment',"
	       "        $3 || ':' || $2,"
	       "        jsonb_build_object('agent_uuid', $1::uuid, 'feedback_id', feedback_id)"
	       "      FROM done WHERE outcome = 'linked'"
	       ")"
	       "SELECT outcome FROM done",
};

struct payment_link {
	const char *agent_uuid;
	const char *tx_hash;
	const char *chain;
};

static const struct json_field link_fields[] = {
	{ .name = "agent_uuid", .kind = JSON_UUID, .required = true, AT(payment_link, agent_uuid) },
	{ .name = "tx_hash", .kind = JSON_HASH, .required = true, AT(payment_link, tx_hash) },
	{ .name = "chain",
		.kind = JSON_STRING,
		.required = true,
		AT(payment_link, chain),
		.min = 1,
		.max = 64 },
};
const struct route_input payments_link_input = { .fields = link_fields,
	.field_count = COUNT(link_fields) };

/* The answer to each outcome of areg_link_payment(); a code makes it a problem. */
static const struct link_answer {
	const char *outcome;
	int status;
	const char *code, *text;
} link_answers[] = {
	{ "linked", 200, NULL, "The payment is linked to the agent." },
	{ "linked_already", 200, NULL, "The payment was linked to this agent already." },
	{ "agent_not_found", 404, "agent_not_found", "There is no agent of this agent_uuid." },
	{ "forbidden", 403, "forbidden",
		"Only the agent's owner, or a key with scope " PAYMENTS_SCOPE
		", can link a payment to it." },
	{ "agent_suspended", 403, "agent_suspended",
		"The agent is suspended, so no payment can be linked to it." },
	{ "agent_not_active", 409, "agent_not_active",
		"The agent is not active, so no payment can be linked to it." },
	{ "payment_not_found", 404, "payment_not_found",
		"No payment of this tx_hash was reported on this chain." },
	{ "payment_already_linked", 409, "payment_already_linked",
		"The payment is linked to another agent." },
};

static void answer_linked(struct call *call, const char *outcome)
{
	const struct link_answer *answer = link_answers;
	struct json_out out;

	while (strcmp(answer->outcome, outcome) != 0)
		answer++;
	if (answer->code != NULL) {
		call_problem(call, answer->status, answer->code, answer->text);
		return;
	}
	out = call_answer(call, answer->status);
	json_open_object(&out);
	json_flag(&out, "success", true);
	json_string(&out, "message", answer->text);
	json_close_object(&out);
}

static void link_one(struct call *call, const struct chain **chain)
{
	struct payment_link link = { 0 };
	struct faults faults;
	struct json_doc doc;
	struct db_rows rows;
	enum db_status status;

	if (!call_body(call, &link, &doc, &faults))
		return;
	*chain = call_chain(call, link.chain, &faults);
	if (faults.count > 0) {
		call_refuse(call, &faults);
		return;
	}
	const char *params[] = { link.agent_uuid, link.tx_hash, (*chain)->name,
		call->caller->wallet,
		caller_has_scope(call->caller, PAYMENTS_SCOPE) ? "true" : "false",
		call->worker->settings->auto_feedback ? "true" : "false", call->caller->user_id,
		call->caller->key_prefix, call->request->id, call->request->client_address };
	call_changed(call, link.agent_uuid);
	status = db_run(call->worker->db, &link_payment, params, COUNT(params), call->arena, &rows);
	if (status != DB_OK)
		call_db_failed(call, status);
	else
		answer_linked(call, db_text(&rows, 0, 0));
}

void payments_link(struct call *call)
{
	const struct chain *chain = NULL;

	link_one(call, &chain);
	metrics_add(call->worker->metrics, METER_PAYMENT_LINKS,
		meter_chain(call->worker->settings, chain), meter_outcome(call->response->status),
		1);
}

/* ---- The list ---- */

/* Rows as page_write_list() wants them. No row: no such agent. */
static void compose(struct query *query, const struct page *page)
{
	query_text(
		query, "SELECT s.total_payments, link.payment_id, " PAYMENT_COLUMNS("p", "link"));
	query_text(query, " FROM erc8004_agent_stats s"
			  " LEFT JOIN LATERAL (SELECT * FROM erc8004_agent_payments l"
			  "                     WHERE l.agent_uuid = s.agent_uuid");
	page_add(query, page, "l.payment_id");
	query_text(query, ") AS link ON true LEFT JOIN x402_payments p ON p.id = link.payment_id"
			  " WHERE s.agent_uuid = " AGENT_NAMED " ORDER BY link.payment_id DESC");
}

static const struct page_list payment_list = { .key = "payments",
	.order = "newest",
	.columns = payment_columns,
	.column_count = PAYMENT_COLUMN_COUNT,
	.first = 2 };

static const char *const list_params[] = { "limit", "offset", "cursor", NULL };
const struct route_input payments_list_input = { .params = list_params };

void payments_list(struct call *call)
{
	struct query query;
	struct faults faults;
	struct page page;
	struct db_rows rows;
	struct json_out out;
	enum db_status status;

	if (!agent_query(call, &query))
		return;
	call_params(call, &faults);
	page_read(call, payment_list.order, &page, &faults);
	if (faults.count > 0) {
		call_refuse(call, &faults);
		return;
	}
	compose(&query, &page);
	status = query_run(&query, call, &rows);
	if (status == DB_CALLER && page.after_id != NULL) {
		page_refuse_cursor(call);
	} else if (status != DB_OK) {
		call_db_failed(call, status);
	} else if (rows.count == 0) {
		agent_not_found(call);
	} else {
		out = call_answer(call, 200);
		json_open_object(&out);
		page_write_list(call, &out, &page, &payment_list, &rows);
		json_close_object(&out);
	}
}
