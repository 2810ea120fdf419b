/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A second request with the same key waits on the first one's row until that transaction ends, then
 * finds its answer. Sealing is AES-256-GCM (NIST SP 800-38D) with a random nonce before the text
 * and the tag behind it, written in hex.
 */
#include "app/http/idempotency.h"

#include <openssl/evp.h>
#include <string.h>
#include <sys/random.h>

#include "app/http/authenticate.h"
#include "app/http/route.h"
#include "app/problem_list.h"
#include "lib/eth.h"
#include "lib/sha256.h"

static const struct db_statement claim_key = {
	.name = "claim_idempotency_key",
	.effect = DB_CHANGES,
	.sql = "INSERT INTO idempotency_keys (user_id, key, route, body_digest)"
	       " VALUES ($1, $2, $3, decode($4, 'hex')) ON CONFLICT DO NOTHING RETURNING key",
};

static const struct db_statement find_answer = {
	.name = "find_idempotent_answer",
	.effect = DB_READS,
	.sql = "SELECT route = $3 AND body_digest = decode($4, 'hex'), status, content_type, location,"
	       "       body, changed"
	       "  FROM idempotency_keys WHERE user_id = $1 AND key = $2",
};

static const struct db_statement keep_answer = {
	.name = "keep_idempotent_answer",
	.effect = DB_CHANGES,
	.sql = "UPDATE idempotency_keys"
	       "   SET status = $3::smallint, content_type = $4, location = $5, body = $6,"
	       "       changed = $7"
	       " WHERE user_id = $1 AND key = $2",
};

static const struct db_statement release_key = {
	.name = "release_idempotency_key",
	.effect = DB_CHANGES,
	.sql = "DELETE FROM idempotency_keys WHERE user_id = $1 AND key = $2",
};

enum {
	/* Of a refusal that is kept. One that names a hundred faults at long pointers has more. */
	REFUSAL_BYTES_MAX = 16 * 1024,
	/* Stands in a kept body for what the request says as well. JSON has no such byte. */
	ECHO_MARK = '\x01',
};

enum { SEAL_KEY = 32, SEAL_NONCE = 12, SEAL_TAG = 16 };

struct attempt {
	struct call *call;
	const struct http_response *before; /* the answer before any try */
	const char *key;
	const char *route;
	char body_digest[2 * SHA256_BYTES + 1];
};

/* The caller's API key, made into a key that is stored nowhere. */
static void seal_key(const struct attempt *attempt, uint8_t key[SEAL_KEY])
{
	const char *text = arena_printf(attempt->call->arena, "areg idempotency\n%s\n%s",
		authenticate_key(attempt->call), attempt->key);

	sha256(text, strlen(text), key);
}

/* NULL when OpenSSL or the kernel's random source fails. */
static const char *idempotency_seal(const struct attempt *attempt, const char *text)
{
	struct arena *arena = attempt->call->arena;
	int len = (int)strlen(text), part = 0;
	size_t total = SEAL_NONCE + (size_t)len + SEAL_TAG;
	uint8_t key[SEAL_KEY], *bytes = arena_alloc(arena, total);
	char *hex = arena_alloc(arena, 2 * total + 1);
	EVP_CIPHER_CTX *context;
	bool is_sealed;

	seal_key(attempt, key);
	context = EVP_CIPHER_CTX_new(); /* nothing allocates in the arena while there is one */
	is_sealed = context != NULL && getrandom(bytes, SEAL_NONCE, 0) == SEAL_NONCE &&
		    EVP_EncryptInit_ex(context, EVP_aes_256_gcm(), NULL, key, bytes) == 1 &&
		    EVP_EncryptUpdate(
			    context, bytes + SEAL_NONCE, &part, (const uint8_t *)text, len) == 1 &&
		    EVP_EncryptFinal_ex(context, bytes + SEAL_NONCE + part, &part) == 1 &&
		    EVP_CIPHER_CTX_ctrl(
			    context, EVP_CTRL_GCM_GET_TAG, SEAL_TAG, bytes + SEAL_NONCE + len) == 1;
	EVP_CIPHER_CTX_free(context);
	hex_encode(bytes, total, hex);
	return is_sealed ? hex : NULL;
}

/* NULL when it was sealed under another key, or changed. */
static const char *unseal(const struct attempt *attempt, const char *hex)
{
	struct arena *arena = attempt->call->arena;
	size_t total = strlen(hex) / 2;
	uint8_t key[SEAL_KEY], *bytes = arena_alloc(arena, total + 1);
	EVP_CIPHER_CTX *context;
	char *text;
	int len = (int)total - SEAL_NONCE - SEAL_TAG, part = 0;
	bool is_open;

	if (len < 0 || !hex_decode(hex, total, bytes))
		return NULL;
	text = arena_alloc(arena, (size_t)len + 1);
	seal_key(attempt, key);
	context = EVP_CIPHER_CTX_new();
	is_open =
		context != NULL &&
		EVP_DecryptInit_ex(context, EVP_aes_256_gcm(), NULL, key, bytes) == 1 &&
		EVP_DecryptUpdate(context, (uint8_t *)text, &part, bytes + SEAL_NONCE, len) == 1 &&
		EVP_CIPHER_CTX_ctrl(
			context, EVP_CTRL_GCM_SET_TAG, SEAL_TAG, bytes + SEAL_NONCE + len) == 1 &&
		EVP_DecryptFinal_ex(context, (uint8_t *)text + part, &part) == 1;
	EVP_CIPHER_CTX_free(context);
	return is_open ? text : NULL;
}

static void refuse_reuse(struct call *call)
{
	call_problem(call, PROBLEM_IDEMPOTENCY_CONFLICT,
		"This Idempotency-Key was used for another request. Use a new key for each change.");
}

/* What call_changed() was told, as text. */
static const char *changes(const struct call *call)
{
	struct buf text;

	buf_init(&text, call->arena, 64);
	for (size_t i = 0; i < call->change_count; i++)
		buf_printf(&text, "%s%s", i == 0 ? "" : " ",
			call->changed_agents[i] == NULL ? "registry" : call->changed_agents[i]);
	return call->changed_all ? "all" : text.data;
}

/* The first attempt may have ended between its commit and telling the cache: this one tells it. */
static void repeat_changes(struct call *call, const char *changed)
{
	char *words = arena_strdup(call->arena, changed == NULL ? "" : changed), *rest = NULL;

	for (char *word = strtok_r(words, " ", &rest); word != NULL;
		word = strtok_r(NULL, " ", &rest))
		call_changed(call, strcmp(word, "registry") == 0 ? NULL : word);
}

/* The answer's body, with a mark in the place of each part that the request says as well. */
static const char *body_without_echoes(const struct call *call)
{
	const struct buf *body = &call->response->body;
	struct buf kept;
	size_t at = 0;

	if (call->route->input == NULL || call->route->input->echo == NULL ||
		call->response->status >= 400)
		return body->data;
	buf_init(&kept, call->arena, 2048);
	for (size_t i = 0; i < call->echo_count; i++) {
		buf_put(&kept, body->data + at, call->echoes[i].at - at);
		buf_putc(&kept, ECHO_MARK);
		at = call->echoes[i].at + call->echoes[i].len;
	}
	buf_put(&kept, body->data + at, body->len - at);
	return kept.data;
}

/* Answers with a body that was kept so: *call has the same request, or one with the same digest. */
static enum db_status answer_with_echoes(struct call *call, const char *kept)
{
	const char *parts[CALL_ECHOES_MAX] = { NULL }, *mark = strchr(kept, ECHO_MARK);
	enum db_status status = DB_OK;

	if (mark != NULL)
		status = call->route->input == NULL || call->route->input->echo == NULL
				 ? DB_OURS
				 : call->route->input->echo(call, parts);
	for (size_t i = 0; status == DB_OK && mark != NULL; mark = strchr(kept, ECHO_MARK)) {
		if (i == CALL_ECHOES_MAX || parts[i] == NULL)
			return DB_OURS;
		buf_put(&call->response->body, kept, (size_t)(mark - kept));
		buf_puts(&call->response->body, parts[i++]);
		kept = mark + 1;
	}
	buf_puts(&call->response->body, kept);
	return status;
}

static enum db_status replay(struct attempt *attempt)
{
	struct call *call = attempt->call;
	const char *params[] = { call->caller->user_id, attempt->key, attempt->route,
		attempt->body_digest };
	struct db_rows rows;
	enum db_status status;
	const char *body;

	status = db_run(call->context->db, &find_answer, params, 4, call->arena, &rows);
	if (status != DB_OK)
		return status;
	if (rows.count == 0)
		return DB_CONFLICT; /* its first transaction was rolled back, or it was just swept */
	if (!db_bool(&rows, 0, 0)) {
		refuse_reuse(call);
		return DB_OK;
	}
	repeat_changes(call, db_text(&rows, 0, 5));
	body = db_text(&rows, 0, 4);
	if (call->route->caching == HOLDS_SECRET && db_int(&rows, 0, 1) < 400) {
		body = unseal(attempt, body);
		if (body == NULL) {
			refuse_reuse(call);
			return DB_OK;
		}
	}
	status = answer_with_echoes(call, body);
	if (status != DB_OK)
		return status;
	call->response->status = (int)db_int(&rows, 0, 1);
	call->response->content_type = db_text(&rows, 0, 2);
	if (db_text(&rows, 0, 3) != NULL)
		http_header_add(call->response, "Location", db_text(&rows, 0, 3));
	http_header_add(call->response, "Idempotency-Replayed", "true");
	return DB_OK;
}

static const char *location_of(const struct http_response *response)
{
	for (size_t i = 0; i < response->header_count; i++)
		if (strcmp(response->headers[i].name, "Location") == 0)
			return response->headers[i].value;
	return NULL;
}

static enum db_status idempotency_keep(struct attempt *attempt)
{
	struct call *call = attempt->call;
	const char *body = body_without_echoes(call);
	struct db_rows rows;

	if (call->route->caching == HOLDS_SECRET && call->response->status < 400)
		body = idempotency_seal(attempt, body);
	if (body == NULL)
		return DB_OURS;
	const char *params[] = { call->caller->user_id, attempt->key,
		arena_printf(call->arena, "%d", call->response->status),
		call->response->content_type, location_of(call->response), body, changes(call) };
	return db_run(call->context->db, &keep_answer, params, 7, call->arena, &rows);
}

/* The transaction. May run more than once, also after its COMMIT failed: each time the answer begins
 * anew. */
static enum db_status attempt_once(struct db *db, void *arg)
{
	struct attempt *attempt = arg;
	struct call *call = attempt->call;
	const char *params[] = { call->caller->user_id, attempt->key, attempt->route,
		attempt->body_digest };
	struct db_rows rows;
	enum db_status status;

	*call->response = *attempt->before;
	call->db_status = DB_OK;
	status = db_run(db, &claim_key, params, 4, call->arena, &rows);
	if (status == DB_OK && rows.count == 0)
		return replay(attempt);
	if (status != DB_OK)
		return status;
	call->route->serve(call);
	if (call->db_status != DB_OK)
		return call->db_status;
	if (call->response->status >= 500)
		return DB_OURS;
	if (call->response->status >= 400 && call->response->body.len > REFUSAL_BYTES_MAX)
		return db_run(db, &release_key, params, 2, call->arena, &rows);
	return idempotency_keep(attempt);
}

static bool is_user_gone(const struct call *call, enum db_status status)
{
	return status == DB_CALLER && strcmp(db_last_error(call->context->db)->constraint,
					      "idempotency_keys_user_id_fkey") == 0;
}

/* The same for all spellings of an address: percent-encoded or not, with a slash at its end or
 * not. */
static const char *route_of(const struct call *call)
{
	const struct http_request *request = call->request;
	const char *route = "POST ";

	for (size_t i = 0; i < request->segment_count; i++)
		route = arena_printf(call->arena, "%s/%s", route, request->segments[i]);
	return route;
}

static bool idempotency_is_key(const char *key)
{
	size_t len = 0;

	while (key[len] > ' ' && key[len] < 0x7f)
		len++;
	return len >= 1 && len <= 255 && key[len] == '\0';
}

void idempotent_serve(struct call *call, const char *key)
{
	const struct http_response before = *call->response;
	struct attempt attempt = {
		.call = call, .before = &before, .key = key, .route = route_of(call)
	};
	uint8_t digest[SHA256_BYTES];
	bool has_body = call->route->input != NULL && call->route->input->fields != NULL;
	const char *bytes = "";
	enum db_status status;
	size_t len = 0;

	if (!idempotency_is_key(key)) {
		call_problem(call, PROBLEM_VALIDATION_FAILED,
			"Invalid Idempotency-Key: not 1 to 255 visible ASCII characters.");
		return;
	}
	if (has_body && http_body_read(call->request, &bytes, &len) != HTTP_BODY_OK) {
		call->route->serve(call); /* refuses it, and stores nothing */
		return;
	}
	sha256(bytes, len, digest);
	hex_encode(digest, sizeof digest, attempt.body_digest);
	call->in_transaction = true;
	status = db_transact(call->context->db, attempt_once, &attempt);
	call->in_transaction = false;
	if (status == DB_OK)
		return;
	*call->response = before;
	if (is_user_gone(call, status))
		call_key_gone(call);
	else
		call_db_failed(call, status);
}
