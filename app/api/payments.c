/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Payments. Facilitators record them; they and the owners of agents say which agent each was for. The
 * rules of who may do what, and what follows from a settled payment, are in sql/0012_payments, which
 * holds them in the same transaction.
 */
#include "app/api/payments.h"

#include <limits.h>
#include <string.h>

#include "app/api/agents.h"
#include "app/http/metering.h"
#include "app/http/paging.h"
#include "app/problem_list.h"
#include "lib/row_json.h"

const char *const payment_statuses[] = { "pending", "verified", "failed", "rejected", NULL };

/* Of x402_payments and erc8004_agent_payments, as SQL over `payment` and `link`, which may be values
 * of a function or tables. */
#define PAYMENT_COLUMNS(payment, link) \
	payment ".id, " payment ".tx_hash, " payment ".chain, " payment ".nonce, " payment \
		".log_index, " payment ".amount_usdc, " payment ".payer, " payment \
		".payee, " payment ".status, " payment ".endpoint, " payment \
		".failure_reason, " link ".agent_uuid, rfc3339(" payment \
		".created_at), rfc3339(" payment ".updated_at), rfc3339(" payment \
		".settled_at), rfc3339(" link ".linked_at)"

static const struct column payment_columns[] = { { "payment_id", COLUMN_JSON },
	{ "tx_hash", COLUMN_TEXT }, { "chain", COLUMN_TEXT }, { "nonce", COLUMN_TEXT },
	{ "log_index", COLUMN_JSON }, { "amount_usdc", COLUMN_TEXT }, { "payer", COLUMN_TEXT },
	{ "payee", COLUMN_TEXT }, { "status", COLUMN_TEXT }, { "endpoint", COLUMN_TEXT },
	{ "failure_reason", COLUMN_TEXT }, { "agent_uuid", COLUMN_TEXT },
	{ "created_at", COLUMN_TEXT }, { "updated_at", COLUMN_TEXT }, { "settled_at", COLUMN_TEXT },
	{ "linked_at", COLUMN_TEXT } };
enum {
	PAYMENT_COLUMN_COUNT = sizeof payment_columns / sizeof payment_columns[0],
	PAYMENT_STATUS = 8,
	PAYMENT_AGENT = 11
};

#define AT(type, member) .offset = offsetof(struct type, member)
#define COUNT(table) (sizeof(table) / sizeof(table)[0])

/* ---- Recording ---- */

static const struct db_statement record_payment = {
	.name = "record_payment",
	.effect = DB_CHANGES,
	.sql = "WITH done AS ("
	       "    SELECT * FROM areg_record_payment($1, $2, $3::numeric, $4, $5, $6, $7::bigint, $8,"
	       "        $9, $10, $11::uuid, $12::numeric, $13::boolean)"
	       "), audited AS ("
	       "    INSERT INTO audit_log (actor_user, actor, request_id, client_address, action,"
	       "        subject_type, subject_id, before, after)"
	       "    SELECT $11::uuid, $14, $15, areg_client_address($16),"
	       "        CASE outcome WHEN 'recorded' THEN 'payment.record' ELSE 'payment.update' END,"
	       "        'payment', areg_payment_name((payment).chain, (payment).tx_hash,"
	       "        (payment).id), before,"
	       "        to_jsonb(payment) || jsonb_build_object('feedback_id', feedback_id)"
	       "      FROM done WHERE outcome IN ('recorded', 'updated')"
	       ")"
	       "SELECT outcome, " PAYMENT_COLUMNS("(payment)", "(link)") " FROM done",
};

struct payment {
	const char *tx_hash;
	const char *chain;
	const char *nonce, *log_index;
	const char *amount_usdc;
	const char *payer, *payee;
	const char *status;
	const char *endpoint;
	const char *failure_reason;
};

static const struct json_field payment_fields[] = {
	{ .name = "tx_hash", .kind = JSON_HASH, AT(payment, tx_hash) },
	{ .name = "chain",
		.kind = JSON_STRING,
		.required = true,
		AT(payment, chain),
		.min = 1,
		.max = 64 },
	{ .name = "nonce", .kind = JSON_HASH, AT(payment, nonce) },
	{ .name = "log_index",
		.kind = JSON_INTEGER,
		AT(payment, log_index),
		.min = 0,
		.max = LLONG_MAX },
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
		.problem = PROBLEM_INVALID_ADDRESS },
	{ .name = "payee",
		.kind = JSON_ADDRESS,
		.required = true,
		AT(payment, payee),
		.problem = PROBLEM_INVALID_ADDRESS },
	{ .name = "status",
		.kind = JSON_STRING,
		.required = true,
		AT(payment, status),
		.words = payment_statuses },
	{ .name = "endpoint", .kind = JSON_ENDPOINT, AT(payment, endpoint), .max = 2048 },
	{ .name = "failure_reason", .kind = JSON_STRING, AT(payment, failure_reason), .max = 2000 },
};
const struct route_input payments_record_input = { .fields = payment_fields,
	.field_count = COUNT(payment_fields) };

/* A settlement that failed may have left no transaction; every other payment is one. */
static void payment_check_transaction(
	const struct payment *payment, const struct json_doc *doc, struct faults *faults)
{
	const struct json_member *given = json_member(doc, "tx_hash");

	if (given != NULL && !json_object_is_type(given->value.object, json_type_null))
		return; /* with a fault of its own, if it is none */
	if (payment->status == NULL || strcmp(payment->status, "pending") == 0 ||
		strcmp(payment->status, "verified") == 0)
		fault_add(faults, PROBLEM_VALIDATION_FAILED, "/tx_hash",
			"is missing: only a failed or rejected payment has none");
	else if (payment->log_index != NULL)
		fault_add(faults, PROBLEM_VALIDATION_FAILED, "/log_index",
			"is of no use without a tx_hash");
}

static void answer_recorded(struct call *call, const struct db_rows *rows)
{
	static const struct refusal by_another = { PROBLEM_PAYMENT_ALREADY_RECORDED,
		"Another facilitator has recorded this payment, and nobody else can change it.",
		"recorded_by_another" };
	const char *outcome = db_text(rows, 0, 0);
	struct json_out out;

	if (strcmp(outcome, "settled") == 0) {
		call_problem(call, PROBLEM_PAYMENT_ALREADY_SETTLED,
			arena_printf(call->arena,
				"This payment is settled already, as %s, and changes no more.",
				db_text(rows, 0, 1 + PAYMENT_STATUS)));
		return;
	}
	if (strcmp(outcome, "recorded") != 0 && strcmp(outcome, "updated") != 0) {
		call_refuse_outcome(call, outcome, &by_another, 1);
		return;
	}
	out = call_answer(call, strcmp(outcome, "recorded") == 0 ? 201 : 200);
	json_open_object(&out);
	row_json_write(&out, payment_columns, PAYMENT_COLUMN_COUNT, rows, 0, 1);
	json_close_object(&out);
}

void payments_record(struct call *call)
{
	const struct settings *settings = call->context->settings;
	struct payment payment = { 0 };
	const struct chain *chain;
	struct faults faults;
	struct json_doc doc;
	struct db_rows rows;
	enum db_status status;

	if (!call_body(call, &payment, &doc, &faults))
		return;
	payment_check_transaction(&payment, &doc, &faults);
	chain = call_chain(call, payment.chain, &faults);
	if (faults.count > 0) {
		call_refuse(call, &faults);
		return;
	}
	const char *params[] = { payment.tx_hash, chain->name, payment.amount_usdc, payment.payer,
		payment.payee, payment.nonce, payment.log_index, payment.status, payment.endpoint,
		payment.failure_reason, call->caller->user_id, settings->min_payment,
		settings->auto_feedback ? "true" : "false", call->caller->key_prefix,
		call->request->id, call->request->client_address };
	call_changed(call, NULL);
	status = db_run(
		call->context->db, &record_payment, params, COUNT(params), call->arena, &rows);
	if (status != DB_OK) {
		call_db_failed(call, status);
		return;
	}
	/* Which agent it is linked to, if any, only the answer tells. */
	call_changed(call, db_text(&rows, 0, 1 + PAYMENT_AGENT));
	answer_recorded(call, &rows);
}

/* ---- Linking and unlinking ---- */

static const struct db_statement link_payment = {
	.name = "link_payment",
	.effect = DB_CHANGES,
	.sql = "WITH done AS ("
	       "    SELECT * FROM areg_link_payment($1, $2::bigint, $3, $4, $5, $6::uuid,"
	       "        $7::boolean)"
	       "), audited AS ("
	       "    INSERT INTO audit_log (actor_user, actor, request_id, client_address, action,"
	       "        subject_type, subject_id, after)"
	       "    SELECT $8::uuid, $9, $10, areg_client_address($11), 'payment.link', 'payment',"
	       "        areg_payment_name((payment).chain, (payment).tx_hash, (payment).id),"
	       "        jsonb_build_object('agent_uuid', $1::uuid, 'payment_id', (payment).id,"
	       "            'feedback_id', feedback_id)"
	       "      FROM done WHERE outcome = 'linked'"
	       ")"
	       "SELECT outcome, array_to_string(choices, ', ') FROM done",
};

static const struct db_statement unlink_payment = {
	.name = "unlink_payment",
	.effect = DB_CHANGES,
	.sql = "WITH done AS ("
	       "    SELECT * FROM areg_unlink_payment($1, $2::bigint, $3, $4, $5::uuid)"
	       "), audited AS ("
	       "    INSERT INTO audit_log (actor_user, actor, request_id, client_address, action,"
	       "        subject_type, subject_id, before)"
	       "    SELECT $5::uuid, $6, $7, areg_client_address($8), 'payment.unlink', 'payment',"
	       "        areg_payment_name((payment).chain, (payment).tx_hash, (payment).id),"
	       "        to_jsonb(link)"
	       "      FROM done WHERE outcome = 'unlinked'"
	       ")"
	       "SELECT outcome, array_to_string(choices, ', ') FROM done",
};

struct payment_link {
	const char *agent_uuid;
	const char *tx_hash;
	const char *chain;
	const char *payment_id;
};

static const struct json_field link_fields[] = {
	{ .name = "agent_uuid", .kind = JSON_UUID, .required = true, AT(payment_link, agent_uuid) },
	{ .name = "tx_hash", .kind = JSON_HASH, AT(payment_link, tx_hash) },
	{ .name = "chain", .kind = JSON_STRING, AT(payment_link, chain), .min = 1, .max = 64 },
	{ .name = "payment_id",
		.kind = JSON_INTEGER,
		AT(payment_link, payment_id),
		.min = 1,
		.max = LLONG_MAX },
};
const struct route_input payments_link_input = { .fields = link_fields,
	.field_count = COUNT(link_fields) };

/* The outcomes of areg_link_payment() and areg_unlink_payment(). */
static const struct {
	const char *outcome, *message;
} link_successes[] = {
	{ "linked", "The payment is linked to the agent." },
	{ "linked_already", "The payment was linked to this agent already." },
	{ "unlinked", "The payment is not linked to the agent any more." },
};

static const struct refusal link_refusals[] = {
	{ PROBLEM_AGENT_NOT_FOUND, "There is no agent of this agent_uuid.", NULL },
	{ PROBLEM_FORBIDDEN,
		"Only the facilitator that recorded the payment can do this, and to link it the "
		"agent's owner.",
		NULL },
	{ PROBLEM_PAYEE_MISMATCH,
		"The payee was neither owner nor wallet of this agent when the payment was "
		"recorded.",
		NULL },
	{ PROBLEM_PAYEE_AMBIGUOUS,
		"The payee was owner or wallet of several agents when the payment was recorded: "
		"only the facilitator that recorded it can say for which of them it was.",
		NULL },
	{ PROBLEM_FACILITATOR_DISTRUSTED,
		"The facilitator that recorded the payment may record none any more, so its word "
		"counts for nothing here.",
		NULL },
	{ PROBLEM_AGENT_SUSPENDED, "The agent is suspended, so no payment can be linked to it.",
		NULL },
	{ PROBLEM_AGENT_NOT_ACTIVE_409,
		"The agent is not active, so no payment can be linked to it.", NULL },
	{ PROBLEM_PAYMENT_NOT_FOUND, "No such payment was reported on this chain.", NULL },
	{ PROBLEM_PAYMENT_ALREADY_LINKED, "The payment is linked to another agent.", NULL },
	{ PROBLEM_PAYMENT_NOT_LINKED, "The payment is not linked to this agent.", NULL },
};

static void answer_linked(struct call *call, const struct db_rows *rows)
{
	const char *outcome = db_text(rows, 0, 0);
	struct json_out out;

	for (size_t i = 0; i < COUNT(link_successes); i++) {
		if (strcmp(link_successes[i].outcome, outcome) != 0)
			continue;
		out = call_answer(call, 200);
		json_open_object(&out);
		json_flag(&out, "success", true);
		json_string(&out, "message", link_successes[i].message);
		json_close_object(&out);
		return;
	}
	if (problem_is(PROBLEM_PAYMENT_AMBIGUOUS, outcome))
		call_problem(call, PROBLEM_PAYMENT_AMBIGUOUS,
			arena_printf(call->arena,
				"The transaction has several payments that this can be about: name "
				"one by its payment_id. They are %s.",
				db_text(rows, 0, 1)));
	else
		call_refuse_outcome(call, outcome, link_refusals, COUNT(link_refusals));
}

/* Reads the body of both calls. A payment is named by its transaction and chain, by its id, or by
 * all of these, which must then agree. */
static bool link_read(struct call *call, struct payment_link *link, const struct chain **chain)
{
	struct faults faults;
	struct json_doc doc;

	if (!call_body(call, link, &doc, &faults))
		return false;
	if (json_member(&doc, "payment_id") == NULL) {
		if (json_member(&doc, "tx_hash") == NULL)
			fault_add(&faults, PROBLEM_VALIDATION_FAILED, "/tx_hash",
				"is missing, and so is payment_id");
		if (json_member(&doc, "chain") == NULL)
			fault_add(&faults, PROBLEM_VALIDATION_FAILED, "/chain", "is missing");
	}
	*chain = call_chain(call, link->chain, &faults);
	if (faults.count == 0 && link->payment_id == NULL &&
		(link->tx_hash == NULL || *chain == NULL))
		fault_add(&faults, PROBLEM_VALIDATION_FAILED, "/payment_id",
			"is null, and so is tx_hash or chain");
	if (faults.count > 0)
		call_refuse(call, &faults);
	return faults.count == 0;
}

static void link_store(struct call *call, const struct chain **chain)
{
	struct payment_link link = { 0 };
	struct db_rows rows;
	enum db_status status;

	if (!link_read(call, &link, chain))
		return;
	const char *params[] = { link.agent_uuid, link.payment_id, link.tx_hash,
		*chain != NULL ? (*chain)->name : NULL, call->caller->wallet,
		caller_has_scope(call->caller, PAYMENTS_SCOPE) ? call->caller->user_id : NULL,
		call->context->settings->auto_feedback ? "true" : "false", call->caller->user_id,
		call->caller->key_prefix, call->request->id, call->request->client_address };
	call_changed(call, link.agent_uuid);
	status =
		db_run(call->context->db, &link_payment, params, COUNT(params), call->arena, &rows);
	if (status != DB_OK)
		call_db_failed(call, status);
	else
		answer_linked(call, &rows);
}

void payments_link(struct call *call)
{
	const struct chain *chain = NULL;

	link_store(call, &chain);
	metrics_add(call->context->metrics, METER_PAYMENT_LINKS,
		meter_chain(call->context->settings, chain), meter_outcome(call->response->status),
		1);
}

void payments_unlink(struct call *call)
{
	struct payment_link link = { 0 };
	const struct chain *chain;
	struct db_rows rows;
	enum db_status status;

	if (!link_read(call, &link, &chain))
		return;
	const char *params[] = { link.agent_uuid, link.payment_id, link.tx_hash,
		chain != NULL ? chain->name : NULL, call->caller->user_id, call->caller->key_prefix,
		call->request->id, call->request->client_address };
	call_changed(call, link.agent_uuid);
	status = db_run(
		call->context->db, &unlink_payment, params, COUNT(params), call->arena, &rows);
	if (status != DB_OK)
		call_db_failed(call, status);
	else
		answer_linked(call, &rows);
}

/* ---- The list ---- */

/* Rows as page_write_list() wants them. No row: no such agent. */
static void payments_compose(struct query *query, const struct page *page)
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
	payments_compose(&query, &page);
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
