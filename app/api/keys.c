/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The caller's own user and API keys. Every statement names the calling user or key, so nobody sees
 * or changes another's. A scope of a key counts only while its user has it too.
 */
#include "app/api/keys.h"

#include <string.h>

#include "app/api/payments.h"
#include "app/cache/callers.h"
#include "app/cache/host_memory.h"
#include "app/http/authenticate.h"
#include "app/http/paging.h"
#include "app/http/query.h"
#include "app/problem_list.h"
#include "app/registry/api_key.h"
#include "app/registry/limits.h"
#include "lib/clock.h"
#include "lib/row_json.h"

/* ---- Who am I ---- */

static const struct db_statement get_me = {
	.name = "get_me",
	.effect = DB_READS,
	.sql = "SELECT u.id, u.name, u.wallet_address, u.tier, array_to_json(u.scopes),"
	       "       rfc3339(u.created_at), k.id, k.name, k.key_prefix,"
	       "       array_to_json(areg_common_scopes(k.scopes, u.scopes)),"
	       "       rfc3339(k.expires_at), rfc3339(k.created_at),"
	       "       coalesce(s.agents, 0), coalesce(s.bytes, 0)"
	       "  FROM api_keys k JOIN users u ON u.id = k.user_id"
	       "  LEFT JOIN user_storage s ON s.user_id = u.id"
	       " WHERE k.id = $1::uuid AND k.is_active AND u.is_active",
};

static const struct column my_columns[] = { { "id", COLUMN_TEXT }, { "name", COLUMN_TEXT },
	{ "wallet_address", COLUMN_TEXT }, { "tier", COLUMN_TEXT }, { "scopes", COLUMN_JSON },
	{ "created_at", COLUMN_TEXT } };
enum { MY_COLUMN_COUNT = sizeof my_columns / sizeof my_columns[0] };

static const struct column my_key_columns[] = { { "id", COLUMN_TEXT }, { "name", COLUMN_TEXT },
	{ "key_prefix", COLUMN_TEXT }, { "scopes", COLUMN_JSON }, { "expires_at", COLUMN_TEXT },
	{ "created_at", COLUMN_TEXT } };
enum { MY_KEY_COLUMN_COUNT = sizeof my_key_columns / sizeof my_key_columns[0] };

/* What is left, by the count of this host. */
static void write_limits(const struct call *call, struct json_out *out)
{
	const struct limiter *limiter = call->context->host->limiter;
	const uint64_t now_ms = limiter_clock_ms(limiter, clock_unix_ms());

	json_key(out, "limits");
	json_open_object(out);
	for (unsigned i = RATE_NONE + 1; i < RATE_CLASSES; i++) {
		uint32_t limit = call->context->settings->rates[i][call->caller->tier];
		struct limit_share share;

		limiter_share(limiter, authenticate_tag(call, i), now_ms, &share);
		json_key(out, rate_class_name(i));
		json_open_object(out);
		json_integer(out, "limit", limit);
		json_integer(out, "remaining",
			limiter_left(limit, share.used, share.used_before, now_ms));
		json_integer(out, "reset",
			(int64_t)(now_ms / LIMIT_WINDOW_MS + 1) * LIMIT_WINDOW_MS / 1000);
		json_close_object(out);
	}
	json_close_object(out);
}

static void write_quotas(const struct call *call, struct json_out *out, const struct db_rows *rows)
{
	static const char *const names[QUOTAS] = {
		[QUOTA_AGENTS] = "agents", [QUOTA_BYTES] = "bytes"
	};

	json_key(out, "quotas");
	json_open_object(out);
	for (enum quota_kind kind = 0; kind < QUOTAS; kind++) {
		const int64_t quota = call->context->settings->quotas[kind][call->caller->tier];

		json_key(out, names[kind]);
		json_open_object(out);
		json_key(out, "quota");
		if (quota == INT64_MAX)
			json_put_null(out);
		else
			json_put_integer(out, quota);
		json_integer(out, "used",
			db_int(rows, 0, MY_COLUMN_COUNT + MY_KEY_COLUMN_COUNT + (int)kind));
		json_close_object(out);
	}
	json_close_object(out);
}

void me_get(struct call *call)
{
	const char *params[] = { call->caller->key_id };
	struct json_out out;
	struct db_rows rows;
	enum db_status status;

	status = db_run(call->context->db, &get_me, params, 1, call->arena, &rows);
	if (status != DB_OK) {
		call_db_failed(call, status);
		return;
	}
	if (rows.count == 0) {
		call_key_gone(call);
		return;
	}
	out = call_answer(call, 200);
	json_open_object(&out);
	json_key(&out, "user");
	json_open_object(&out);
	row_json_write(&out, my_columns, MY_COLUMN_COUNT, &rows, 0, 0);
	json_close_object(&out);
	json_key(&out, "key");
	json_open_object(&out);
	row_json_write(&out, my_key_columns, MY_KEY_COLUMN_COUNT, &rows, 0, MY_COLUMN_COUNT);
	json_close_object(&out);
	write_limits(call, &out);
	write_quotas(call, &out, &rows);
	json_close_object(&out);
}

/* ---- Keys: the list ---- */

/* In the order of key_columns; `usable` are the scopes that the user has, too. */
#define KEY_COLUMNS \
	"k.id, k.name, k.key_prefix, array_to_json(k.usable), k.is_active, rfc3339(k.expires_at)," \
	" rfc3339(k.last_used_at), rfc3339(k.created_at), rfc3339(k.revoked_at)"

static const struct column key_columns[] = { { "id", COLUMN_TEXT }, { "name", COLUMN_TEXT },
	{ "key_prefix", COLUMN_TEXT }, { "scopes", COLUMN_JSON }, { "is_active", COLUMN_FLAG },
	{ "expires_at", COLUMN_TEXT }, { "last_used_at", COLUMN_TEXT },
	{ "created_at", COLUMN_TEXT }, { "revoked_at", COLUMN_TEXT } };
enum { KEY_COLUMN_COUNT = sizeof key_columns / sizeof key_columns[0], KEY_CREATED_AT = 7 };

static const char order[] = "newest";

/* Rows: total, the key's columns; one row with a null id when there is no key that far. */
static void compose_list(struct query *query, const struct call *call, const struct page *page)
{
	query_init(query, call->arena);
	query_text(query,
		"SELECT (SELECT count(*) FROM api_keys WHERE user_id = u.id), " KEY_COLUMNS
		"  FROM users u LEFT JOIN LATERAL ("
		"SELECT *, areg_common_scopes(scopes, u.scopes) AS usable FROM api_keys"
		" WHERE user_id = u.id");
	if (page->after_key != NULL) {
		query_add(query, " AND (created_at, id) < (?::timestamptz", page->after_key);
		query_add(query, ", ?::uuid)", page->after_id);
	}
	query_text(query, arena_printf(call->arena,
				  " ORDER BY created_at DESC, id DESC LIMIT %zu OFFSET %zu)"
				  " AS k ON true",
				  page->limit + 1, page->offset));
	query_add(query, " WHERE u.id = ?::uuid ORDER BY k.created_at DESC, k.id DESC",
		call->caller->user_id);
}

static void keys_write_list(struct call *call, const struct page *page, const struct db_rows *rows)
{
	size_t shown = db_text(rows, 0, 1) == NULL ? 0 : rows->count;
	bool has_more = shown > page->limit;
	struct json_out out = call_answer(call, 200);

	if (has_more)
		shown = page->limit;
	json_open_object(&out);
	json_key(&out, "keys");
	json_open_array(&out);
	for (size_t row = 0; row < shown; row++) {
		json_open_object(&out);
		row_json_write(&out, key_columns, KEY_COLUMN_COUNT, rows, row, 1);
		json_close_object(&out);
	}
	json_close_array(&out);
	page_write(call, &out, page, db_int(rows, 0, 0), false, order,
		has_more ? db_text(rows, shown - 1, 1 + KEY_CREATED_AT) : NULL,
		has_more ? db_text(rows, shown - 1, 1) : NULL);
	json_close_object(&out);
}

static const char *const list_params[] = { "limit", "offset", "cursor", NULL };
const struct route_input keys_list_input = { .params = list_params };

void keys_list(struct call *call)
{
	struct faults faults;
	struct query query;
	struct page page;
	struct db_rows rows;
	enum db_status status;

	call_params(call, &faults);
	page_read(call, order, &page, &faults);
	if (faults.count > 0) {
		call_refuse(call, &faults);
		return;
	}
	compose_list(&query, call, &page);
	status = query_run(&query, call, &rows);
	if (status == DB_CALLER && page.after_key != NULL) {
		fault_add(&faults, PROBLEM_VALIDATION_FAILED, "cursor",
			"is not one that a list gave");
		call_refuse(call, &faults);
	} else if (status != DB_OK) {
		call_db_failed(call, status);
	} else if (rows.count == 0) {
		call_key_gone(call);
	} else {
		keys_write_list(call, &page, &rows);
	}
}

/* ---- Keys: making one ---- */

#define KEYS_MOST "100"

/*
 * The lock on the user makes the count of keys exact, and that on the calling key lets no key be
 * made by one that is being revoked. A key never outlives the key that made it: whoever took a key
 * that ends soon must not keep access by making another one.
 */
static const struct db_statement create_key = {
	.name = "create_key",
	.effect = DB_CHANGES,
	.sql = "WITH owner AS ("
	       "    SELECT u.id, areg_common_scopes(k.scopes, u.scopes) AS scopes,"
	       "           k.expires_at AS ends_at"
	       "      FROM api_keys k JOIN users u ON u.id = k.user_id"
	       "     WHERE k.id = $1::uuid AND k.is_active AND u.is_active"
	       "       FOR NO KEY UPDATE OF u FOR SHARE OF k"
	       "), verdict AS ("
	       "    SELECT CASE WHEN $4::timestamptz <= now() THEN 'past'"
	       "                WHEN $4::timestamptz > ends_at THEN 'outlives'"
	       "                WHEN NOT $3::text[] <@ scopes THEN 'scope'"
	       "                WHEN areg_active_keys(id) >= " KEYS_MOST " THEN 'too_many'"
	       "                ELSE 'good' END AS word"
	       "      FROM owner"
	       "), made AS ("
	       "    INSERT INTO api_keys (user_id, name, scopes, expires_at, key_hash, key_prefix)"
	       "    SELECT id, $2, coalesce($3::text[], scopes),"
	       "           coalesce($4::timestamptz, ends_at),"
	       "           decode($5, 'hex'), $6"
	       "      FROM owner, verdict WHERE word = 'good'"
	       "    RETURNING *"
	       "), audited AS ("
	       "    INSERT INTO audit_log (actor_user, actor, action, subject_type, subject_id,"
	       "        after, request_id, client_address)"
	       "    SELECT user_id, $7, 'key.create', 'api_key', id::text,"
	       "        to_jsonb(made) - 'key_hash', $8, areg_client_address($9) FROM made"
	       ")"
	       "SELECT verdict.word, " KEY_COLUMNS
	       "  FROM verdict LEFT JOIN (SELECT *, scopes AS usable FROM made) AS k ON true",
};

struct wanted {
	const char *name;
	const char *expires_at;
	struct json_words scopes;
};

static const char *const known_scopes[] = { KEYS_SCOPE, PAYMENTS_SCOPE, NULL };

static const struct json_field wanted_fields[] = {
	{ .name = "name",
		.kind = JSON_STRING,
		.required = true,
		.offset = offsetof(struct wanted, name),
		.min = 1,
		.max = 200 },
	{ .name = "expires_at", .kind = JSON_TIME, .offset = offsetof(struct wanted, expires_at) },
	{ .name = "scopes",
		.kind = JSON_WORDS,
		.offset = offsetof(struct wanted, scopes),
		.words = known_scopes },
};
const struct route_input keys_create_input = { .fields = wanted_fields,
	.field_count = sizeof wanted_fields / sizeof wanted_fields[0] };

static enum db_status keys_store(
	struct call *call, const struct wanted *wanted, const char *key, struct db_rows *rows)
{
	char hash[API_KEY_HASH_LEN + 1], prefix[API_KEY_PREFIX_LEN + 1];
	const char *params[] = { call->caller->key_id, wanted->name,
		wanted->scopes.texts == NULL
			? NULL
			: db_array(call->arena, wanted->scopes.texts, wanted->scopes.count),
		wanted->expires_at, hash, prefix, call->caller->key_prefix, call->request->id,
		call->request->client_address };

	api_key_hash(key, hash);
	api_key_prefix(key, prefix);
	return db_run(call->context->db, &create_key, params, sizeof params / sizeof params[0],
		call->arena, rows);
}

static void keys_answer_key(struct call *call, const char *key, const struct db_rows *rows)
{
	struct json_out out = call_answer(call, 201);

	json_open_object(&out);
	json_string(&out, "api_key", key);
	row_json_write(&out, key_columns, KEY_COLUMN_COUNT, rows, 0, 1);
	json_close_object(&out);
}

void keys_create(struct call *call)
{
	struct wanted wanted = { 0 };
	char key[API_KEY_LEN + 1];
	struct faults faults;
	struct json_doc doc;
	struct db_rows rows;
	const char *verdict;
	enum db_status status;

	if (!call_body(call, &wanted, &doc, &faults))
		return;
	if (faults.count > 0) {
		call_refuse(call, &faults);
		return;
	}
	if (!api_key_make(key)) {
		call_problem(call, PROBLEM_INTERNAL, "The registry's random source gives nothing.");
		return;
	}
	status = keys_store(call, &wanted, key, &rows);
	if (status != DB_OK) {
		call_db_failed(call, status);
		return;
	}
	if (rows.count == 0) {
		call_key_gone(call);
		return;
	}
	verdict = db_text(&rows, 0, 0);
	if (strcmp(verdict, "past") == 0) {
		fault_add(
			&faults, PROBLEM_VALIDATION_FAILED, "/expires_at", "is not in the future");
		call_refuse(call, &faults);
	} else if (strcmp(verdict, "outlives") == 0) {
		fault_add(&faults, PROBLEM_VALIDATION_FAILED, "/expires_at",
			"is later than the end of the key that makes it");
		call_refuse(call, &faults);
	} else if (strcmp(verdict, "scope") == 0) {
		call_problem(call, PROBLEM_FORBIDDEN,
			"A key can have no scope that the key which makes it has not.");
	} else if (strcmp(verdict, "too_many") == 0) {
		call_problem(call, PROBLEM_TOO_MANY_KEYS,
			"There are " KEYS_MOST " active keys already: revoke one first.");
	} else {
		authenticate_new_key(call, key);
		keys_answer_key(call, key, &rows);
	}
}

/* ---- Keys: revoking one ---- */

static const struct db_statement revoke_own_key = {
	.name = "revoke_own_key",
	.effect = DB_CHANGES,
	.sql = "WITH found AS ("
	       "    SELECT * FROM api_keys WHERE id = $1::uuid AND user_id = $2::uuid FOR UPDATE"
	       "), changed AS ("
	       "    UPDATE api_keys k SET is_active = false, revoked_at = now()"
	       "      FROM found WHERE k.id = found.id AND found.is_active"
	       "    RETURNING k.*"
	       "), audited AS ("
	       "    INSERT INTO audit_log (actor_user, actor, action, subject_type, subject_id,"
	       "        before, after, request_id, client_address)"
	       "    SELECT $2::uuid, $3, 'key.revoke', 'api_key', found.id::text,"
	       "        to_jsonb(found) - 'key_hash', to_jsonb(changed) - 'key_hash',"
	       "        $4, areg_client_address($5)"
	       "      FROM found JOIN changed USING (id)"
	       ")"
	       "SELECT id FROM found",
};

void keys_revoke(struct call *call)
{
	const struct caller_record *caller = call->caller;
	char key_id[37];
	const char *params[] = { key_id, caller->user_id, caller->key_prefix, call->request->id,
		call->request->client_address };
	struct db_rows rows = { .count = 0 };
	enum db_status status = DB_OK;
	const char *why;

	if (uuid_parse(call->path_values[0], key_id, &why))
		status = db_run(call->context->db, &revoke_own_key, params,
			sizeof params / sizeof params[0], call->arena, &rows);
	if (status != DB_OK) {
		call_db_failed(call, status);
	} else if (rows.count == 0) {
		call_problem(call, PROBLEM_KEY_NOT_FOUND, "You have no key of this id.");
	} else {
		callers_drop_user(call->context->host->callers, caller->user_id);
		call->response->status = 204;
	}
}
