/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checks lines of an import and makes rows of them, as COPY takes them. The tables of fields below
 * are what aregctl-import(8) documents; the order of columns is that of the COPY statements in
 * import_store.c.
 */
#include "app/ctl/import_batch.h"

#include <limits.h>
#include <inttypes.h>
#include <string.h>

#include "app/api/agent_columns.h"
#include "app/api/payments.h"
#include "app/problem_list.h"
#include "app/registry/registration_file.h"
#include "lib/json_in.h"
#include "lib/rfc3339.h"

void import_begin(struct import_batch *batch, struct arena *arena)
{
	batch->count = 0;
	for (int kind = 0; kind < IMPORT_KINDS; kind++)
		buf_init(&batch->text[kind], arena, 256 * 1024);
}

bool import_full(const struct import_batch *batch)
{
	size_t bytes = 0;

	for (int kind = 0; kind < IMPORT_KINDS; kind++)
		bytes += batch->text[kind].len;
	return batch->count == IMPORT_BATCH_LINES || bytes >= IMPORT_BATCH_BYTES;
}

/* ---- Rows ---- */

/* One column of a row in COPY's text format, with the tab before it. NULL is SQL null. */
static void put_column(struct buf *row, const char *text)
{
	buf_putc(row, '\t');
	if (text == NULL) {
		buf_put(row, "\\N", 2);
		return;
	}
	for (;;) {
		size_t plain = strcspn(text, "\\\n\r\t");

		buf_put(row, text, plain);
		text += plain;
		if (*text == '\0')
			return;
		buf_putc(row, '\\');
		buf_putc(row, *text == '\n'   ? 'n'
			      : *text == '\r' ? 'r'
			      : *text == '\t' ? 't'
					      : '\\');
		text++;
	}
}

static void put_flag(struct buf *row, bool flag)
{
	put_column(row, flag ? "t" : "f");
}

/* A line being read. */
struct reading {
	struct import_batch *batch;
	const struct settings *settings;
	uint64_t line;
	struct json_doc doc;
	struct faults *faults;
};

/* Begins the row of a good line; end_row() must follow. */
static struct buf *begin_row(struct reading *reading, enum import_kind kind)
{
	struct import_batch *batch = reading->batch;
	struct buf *row = &batch->text[kind];

	batch->rows[batch->count] =
		(struct import_row){ .line = reading->line, .kind = kind, .start = row->len };
	buf_printf(row, "%" PRIu64, reading->line);
	return row;
}

static bool end_row(struct reading *reading, struct buf *row)
{
	struct import_batch *batch = reading->batch;

	buf_putc(row, '\n');
	batch->rows[batch->count++].end = row->len;
	return true;
}

/* ---- Checks beyond those of the tables ---- */

static void complain(struct reading *reading, const char *pointer, const char *why)
{
	fault_add(reading->faults, PROBLEM_VALIDATION_FAILED, pointer, "%s", why);
}

/* The configured chain of that name; NULL, and said, when there is none. */
static const struct chain *read_chain(struct reading *reading, const char *name)
{
	const struct chain *chain = NULL;

	if (name != NULL && (chain = settings_chain(reading->settings, name)) == NULL)
		complain(reading, "/chain", "is not a chain of the configuration");
	return chain;
}

static void check_agent_id(struct reading *reading, const char *text)
{
	char canonical[UINT256_DIGITS + 1];
	const char *why;

	if (text != NULL && !uint256_parse(text, canonical, &why))
		complain(reading, "/agent_id", why);
}

static void stage_check_time(struct reading *reading, const char *pointer, const char *text)
{
	const char *why;

	if (text != NULL && !rfc3339_check(text, &why))
		complain(reading, pointer, why);
}

#define FIELD(record, name_, kind_, required_, min_, max_, words_) \
	{ \
		.name = #name_, .kind = kind_, .required = required_, \
		.offset = offsetof(struct record, name_), .min = min_, .max = max_, \
		.words = words_ \
	}
#define FIELD_COUNT(fields) (sizeof(fields) / sizeof((fields)[0]))

/* ---- Agents ---- */

/* For each column of AGENT_COLUMNS that is GIVEN: a member of the struct, a field, a column of the row. */
/* clang-format off */
#define MEMBER(column, shown, kind, sql, registered, value, imported, type, ...) \
	IF_GIVEN_##imported(const char *column;)
#define GIVEN_FIELD(column, shown, kind, sql, registered, value, imported, type, ...) \
	IF_GIVEN_##imported({ .name = #column, .offset = offsetof(struct agent, column), __VA_ARGS__ }, )
#define PUT_GIVEN(column, shown, kind, sql, registered, value, imported, type, ...) \
	IF_GIVEN_##imported(put_column(row, agent.column);)
#define IF_GIVEN_GIVEN(...) __VA_ARGS__
#define IF_GIVEN_READ(...)
#define IF_GIVEN_BY_HAND(...)

struct agent {
	const char *agent_id, *chain, *registry_address, *owner_address, *registered_at, *status;
	const char *tx_hash; /* the older name of registered_tx */
	AGENT_COLUMNS(MEMBER)
	struct json_text registration_file, metadata;
};

static const char *const agent_statuses[] = { "active", "suspended", "revoked", NULL };

static const struct json_field agent_fields[] = {
	FIELD(agent, agent_id, JSON_INTEGER, true, 0, 0, NULL),
	FIELD(agent, chain, JSON_STRING, true, 0, 0, NULL),
	FIELD(agent, registry_address, JSON_ADDRESS, true, 0, 0, NULL),
	FIELD(agent, owner_address, JSON_ADDRESS, true, 0, 0, NULL),
	FIELD(agent, registration_file, JSON_OBJECT, false, 0, 0, NULL),
	FIELD(agent, metadata, JSON_OBJECT, false, 0, 0, NULL),
	FIELD(agent, registered_at, JSON_STRING, false, 0, 0, NULL),
	FIELD(agent, status, JSON_STRING, false, 0, 0, agent_statuses),
	FIELD(agent, tx_hash, JSON_HASH, false, 0, 0, NULL),
	AGENT_COLUMNS(GIVEN_FIELD)
};
/* clang-format on */

/* Keys are any string, as in the contract; agentWallet has a column of its own. */
static void check_metadata(struct reading *reading, struct json_object *metadata)
{
	json_object_object_foreach (metadata, key, value) {
		const char *pointer = json_pointer(reading->faults->arena, "/metadata", key);

		if (strcmp(key, "agentWallet") == 0)
			complain(reading, pointer, "is reserved: it is the field agent_wallet");
		if (!json_object_is_type(value, json_type_string))
			complain(reading, pointer, "is not a string");
		else if (strlen(json_object_get_string(value)) !=
			 (size_t)json_object_get_string_len(value))
			complain(reading, pointer, "holds a NUL");
	}
}

static void put_file(struct buf *row, struct arena *arena, const struct registration_file *file,
	const struct faults *off)
{
	const char *const columns[] = { file->text,
		file->text != NULL ? arena_printf(arena, "\\x%s", file->digest) : NULL,
		registration_file_conformance(arena, off), AGENT_READ_VALUES };

	for (size_t i = 0; i < sizeof columns / sizeof columns[0]; i++)
		put_column(row, columns[i]);
}

void import_put_file(struct buf *row, struct arena *arena, const struct json_text *text)
{
	struct registration_file file = { .shown_services = "[]" };
	struct faults off;

	faults_init(&off, arena, PROBLEM_INVALID_REGISTRATION_FILE);
	if (text->object != NULL)
		registration_file_read(arena, text, "", &file, &off);
	put_file(row, arena, &file, &off);
}

static bool stage_agent(struct reading *reading)
{
	struct agent agent = { .agent_id = NULL }; /* a line that is no object fills nothing */
	bool good = json_read(
		&reading->doc, agent_fields, FIELD_COUNT(agent_fields), &agent, reading->faults);
	const struct chain *chain = read_chain(reading, agent.chain);
	struct buf *row;
	size_t len;

	check_agent_id(reading, agent.agent_id);
	stage_check_time(reading, "/registered_at", agent.registered_at);
	if (chain != NULL && agent.registry_address != NULL &&
		strcmp(chain->identity_registry, agent.registry_address) != 0)
		complain(reading, "/registry_address",
			"is not the identity registry configured for the chain");
	if (agent.registered_tx == NULL)
		agent.registered_tx = agent.tx_hash;
	else if (agent.tx_hash != NULL)
		complain(reading, "/tx_hash", "is an older name of registered_tx, which is there");
	if (agent.metadata.object != NULL)
		check_metadata(reading, agent.metadata.object);
	if (!good || reading->faults->count > 0)
		return false;

	row = begin_row(reading, IMPORT_AGENT);
	put_column(row, chain->name);
	buf_printf(row, "\t%" PRIu64, chain->chain_id);
	put_column(row, agent.registry_address);
	put_column(row, agent.agent_id);
	put_column(row, agent.owner_address);
	put_column(row, agent.status);
	import_put_file(row, reading->faults->arena, &agent.registration_file);
	AGENT_COLUMNS(PUT_GIVEN)
	put_column(row, agent.registered_at);
	/* canonical: without the escapes of lone surrogates, which json_each_text() refuses */
	put_column(row, agent.metadata.object == NULL ? NULL
						      : json_canonical(reading->faults->arena,
								agent.metadata.object, &len));
	return end_row(reading, row);
}

/* ---- Feedback ---- */

struct feedback {
	const char *record, *chain, *agent_id, *client_address, *feedback_index, *score, *value;
	const char *value_decimals, *tag1, *tag2, *endpoint, *file_uri, *file_hash, *is_revoked;
	const char *created_at;
};

static const struct json_field feedback_fields[] = {
	FIELD(feedback, record, JSON_STRING, true, 0, 0, NULL),
	FIELD(feedback, chain, JSON_STRING, true, 0, 0, NULL),
	FIELD(feedback, agent_id, JSON_INTEGER, true, 0, 0, NULL),
	FIELD(feedback, client_address, JSON_ADDRESS, true, 0, 0, NULL),
	FIELD(feedback, feedback_index, JSON_INTEGER, true, 1, INT64_MAX, NULL),
	FIELD(feedback, score, JSON_DECIMAL, false, 0, 100, NULL),
	FIELD(feedback, value, JSON_VALUE, false, 0, 0, NULL),
	FIELD(feedback, value_decimals, JSON_INTEGER, false, 0, 18, NULL),
	FIELD(feedback, tag1, JSON_STRING, false, 0, 0, NULL),
	FIELD(feedback, tag2, JSON_STRING, false, 0, 0, NULL),
	FIELD(feedback, endpoint, JSON_STRING, false, 0, 0, NULL),
	FIELD(feedback, file_uri, JSON_STRING, false, 0, 0, NULL),
	FIELD(feedback, file_hash, JSON_HASH, false, 0, 0, NULL),
	FIELD(feedback, is_revoked, JSON_BOOL, false, 0, 0, NULL),
	FIELD(feedback, created_at, JSON_STRING, false, 0, 0, NULL),
};

static bool stage_is_given(const struct reading *reading, const char *name)
{
	const struct json_member *member = json_member(&reading->doc, name);

	return member != NULL && member->value.object != NULL;
}

/* A score is stored exactly, as its digits and how many of them stand behind the point. */
static void put_score(struct buf *row, const char *score)
{
	const size_t whole = strcspn(score, ".");
	const char *fraction = score[whole] == '.' ? score + whole + 1 : "";

	buf_printf(row, "\tt\t%.*s%s\t%zu", (int)whole, score, fraction, strlen(fraction));
}

static bool stage_feedback(struct reading *reading)
{
	struct feedback feedback = { .record = NULL };
	bool good = json_read(&reading->doc, feedback_fields, FIELD_COUNT(feedback_fields),
		&feedback, reading->faults);
	const struct chain *chain = read_chain(reading, feedback.chain);
	struct buf *row;

	check_agent_id(reading, feedback.agent_id);
	stage_check_time(reading, "/created_at", feedback.created_at);
	if (stage_is_given(reading, "score") == stage_is_given(reading, "value"))
		complain(reading, "", "needs either score or value");
	if (stage_is_given(reading, "value_decimals") && !stage_is_given(reading, "value"))
		complain(reading, "/value_decimals", "stands without value");
	if (!good || reading->faults->count > 0)
		return false;

	row = begin_row(reading, IMPORT_FEEDBACK);
	put_column(row, chain->name);
	put_column(row, chain->identity_registry);
	put_column(row, feedback.agent_id);
	put_column(row, feedback.client_address);
	put_column(row, feedback.feedback_index);
	if (feedback.score != NULL) {
		put_score(row, feedback.score);
	} else {
		put_flag(row, false);
		put_column(row, feedback.value);
		put_column(row, feedback.value_decimals != NULL ? feedback.value_decimals : "0");
	}
	put_column(row, feedback.tag1 != NULL ? feedback.tag1 : "");
	put_column(row, feedback.tag2 != NULL ? feedback.tag2 : "");
	put_column(row, feedback.endpoint);
	put_column(row, feedback.file_uri);
	put_column(row, feedback.file_hash);
	put_flag(row, feedback.is_revoked != NULL && feedback.is_revoked[0] == 't');
	put_column(row, feedback.created_at);
	return end_row(reading, row);
}

/* ---- Payments ---- */

struct payment {
	const char *record, *tx_hash, *chain, *amount_usdc, *payer, *payee, *status, *endpoint;
	const char *failure_reason, *created_at, *agent_id, *nonce, *log_index;
};

static const struct json_field payment_fields[] = {
	FIELD(payment, record, JSON_STRING, true, 0, 0, NULL),
	FIELD(payment, tx_hash, JSON_HASH, true, 0, 0, NULL),
	FIELD(payment, chain, JSON_STRING, true, 0, 0, NULL),
	FIELD(payment, amount_usdc, JSON_AMOUNT, true, 0, PAYMENT_USDC_MAX, NULL),
	FIELD(payment, payer, JSON_ADDRESS, true, 0, 0, NULL),
	FIELD(payment, payee, JSON_ADDRESS, true, 0, 0, NULL),
	FIELD(payment, status, JSON_STRING, true, 0, 0, payment_statuses),
	FIELD(payment, endpoint, JSON_STRING, false, 0, 2048, NULL),
	FIELD(payment, failure_reason, JSON_STRING, false, 0, 2000, NULL),
	FIELD(payment, created_at, JSON_STRING, false, 0, 0, NULL),
	FIELD(payment, agent_id, JSON_INTEGER, false, 0, 0, NULL),
	FIELD(payment, nonce, JSON_HASH, false, 0, 0, NULL),
	FIELD(payment, log_index, JSON_INTEGER, false, 0, LLONG_MAX, NULL),
};

static bool stage_payment(struct reading *reading)
{
	struct payment payment = { .record = NULL };
	bool good = json_read(&reading->doc, payment_fields, FIELD_COUNT(payment_fields), &payment,
		reading->faults);
	const struct chain *chain = read_chain(reading, payment.chain);
	struct buf *row;

	check_agent_id(reading, payment.agent_id);
	stage_check_time(reading, "/created_at", payment.created_at);
	if (!good || reading->faults->count > 0)
		return false;

	row = begin_row(reading, IMPORT_PAYMENT);
	put_column(row, payment.tx_hash);
	put_column(row, chain->name);
	put_column(row, payment.amount_usdc);
	put_column(row, payment.payer);
	put_column(row, payment.payee);
	put_column(row, payment.status);
	put_column(row, payment.endpoint);
	put_column(row, payment.failure_reason);
	put_column(row, payment.created_at);
	put_column(row, chain->identity_registry);
	put_column(row, payment.agent_id);
	put_column(row, payment.nonce);
	put_column(row, payment.log_index);
	put_column(row, reading->settings->min_payment);
	return end_row(reading, row);
}

bool import_stage(struct import_batch *batch, const struct settings *settings, uint64_t line,
	const char *text, size_t len, struct faults *faults, enum import_kind *kind)
{
	struct reading reading = {
		.batch = batch, .settings = settings, .line = line, .faults = faults
	};
	const struct json_member *record;
	struct json_error error;

	*kind = IMPORT_KINDS;
	/* Wild: registration files are stored as found. json_read() refuses NULs elsewhere. */
	if (!json_parse(faults->arena, text, len, &json_rules_wild, &reading.doc, &error)) {
		fault_add(faults, PROBLEM_VALIDATION_FAILED, error.pointer,
			"not JSON from byte %zu on: %s", error.offset + 1, error.reason);
		return false;
	}
	record = json_member(&reading.doc, "record");
	if (record == NULL) {
		*kind = IMPORT_AGENT;
		return stage_agent(&reading);
	}
	if (strcmp(record->value.text, "\"feedback\"") == 0) {
		*kind = IMPORT_FEEDBACK;
		return stage_feedback(&reading);
	}
	if (strcmp(record->value.text, "\"payment\"") == 0) {
		*kind = IMPORT_PAYMENT;
		return stage_payment(&reading);
	}
	complain(&reading, "/record", "is neither \"feedback\" nor \"payment\"; agents have none");
	return false;
}
