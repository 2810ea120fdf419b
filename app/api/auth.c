/* SPDX-License-Identifier: Apache-2.0 */
/* Sign-in: a text is given out with a nonce, comes back signed, and becomes an API key. */
#include "app/api/auth.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "app/cache/callers.h"
#include "app/cache/host_memory.h"
#include "app/http/authenticate.h"
#include "app/problem_list.h"
#include "app/registry/api_key.h"
#include "lib/eth_signature.h"
#include "lib/random.h"
#include "lib/rfc3339.h"
#include "lib/siwe.h"

enum {
	NONCE_LEN = 22, /* 131 bits */
	VALID_S = 5 * 60,
	MESSAGE_MAX = 4096, /* as siwe_read() */
	SIGNATURE_MAX = 8192, /* of a contract wallet, which brings the contract's code along */
	CHAIN_ID_DIGITS = 20,
	TRIES = 3,
};

/* ---- The challenge ---- */

static const struct db_statement issue_challenge = {
	.name = "issue_challenge",
	.effect = DB_CHANGES,
	.sql = "INSERT INTO auth_nonces (nonce, address, chain_id, message, expires_at)"
	       " VALUES ($1, $2, $3::bigint, $4, $5::timestamptz)",
};

struct challenge {
	const char *address;
	const char *chain_id;
};

static const struct json_field challenge_fields[] = {
	{ .name = "address",
		.kind = JSON_ADDRESS,
		.required = true,
		.offset = offsetof(struct challenge, address),
		.problem = PROBLEM_INVALID_ADDRESS },
	{ .name = "chain_id",
		.kind = JSON_INTEGER,
		.offset = offsetof(struct challenge, chain_id),
		.min = 1,
		.max = (1LL << 53) - 1 },
};
const struct route_input auth_challenge_input = { .fields = challenge_fields,
	.field_count = sizeof challenge_fields / sizeof challenge_fields[0] };

/* The chain that the body names, or the first that is configured. */
static const struct chain *chain_of(
	const struct call *call, const struct challenge *challenge, struct faults *faults)
{
	const struct settings *settings = call->context->settings;
	const struct chain *chain = settings->chain_count == 0 ? NULL : &settings->chains[0];

	if (challenge->chain_id != NULL)
		chain = settings_chain_by_id(settings, strtoull(challenge->chain_id, NULL, 10));
	if (chain == NULL)
		fault_add(faults, PROBLEM_CHAIN_NOT_SUPPORTED, "/chain_id",
			"this registry serves no such chain");
	return chain;
}

/* Host and port of public_url: the domain that wallets show and bind a signature to. */
static const char *domain_of(const struct call *call)
{
	const char *authority = strstr(call->context->settings->public_url, "://") + 3;

	return arena_strndup(call->arena, authority, strcspn(authority, "/"));
}

static const char *time_text(struct arena *arena, time_t when)
{
	char text[RFC3339_LEN + 1];

	rfc3339_format(when, text);
	return arena_strdup(arena, text);
}

static void answer_challenge(struct call *call, const char *message, const struct siwe *siwe)
{
	struct json_out out = call_answer(call, 200);

	json_open_object(&out);
	json_string(&out, "message", message);
	json_string(&out, "nonce", siwe->nonce);
	json_string(&out, "expires_at", siwe->expires_at);
	json_close_object(&out);
}

static void refuse_no_random(struct call *call)
{
	call_problem(call, PROBLEM_INTERNAL, "The registry's random source gives nothing.");
}

void auth_challenge(struct call *call)
{
	struct challenge challenge = { 0 };
	struct faults faults;
	struct json_doc doc;
	struct db_rows rows;
	const struct chain *chain;
	const char *message;
	char nonce[NONCE_LEN + 1] = "";
	time_t now = time(NULL);
	enum db_status status;

	if (!call_body(call, &challenge, &doc, &faults))
		return;
	chain = chain_of(call, &challenge, &faults);
	if (faults.count > 0) {
		call_refuse(call, &faults);
		return;
	}
	if (!random_text(nonce, NONCE_LEN)) {
		refuse_no_random(call);
		return;
	}
	const struct siwe siwe = {
		.domain = domain_of(call),
		.address = challenge.address,
		.statement = "Sign in to areg.",
		.uri = call->context->settings->public_url,
		.chain_id = chain->chain_id,
		.nonce = nonce,
		.issued_at = time_text(call->arena, now),
		.expires_at = time_text(call->arena, now + VALID_S),
	};
	message = siwe_write(call->arena, &siwe);
	const char *params[] = { nonce, siwe.address,
		arena_printf(call->arena, "%llu", (unsigned long long)siwe.chain_id), message,
		siwe.expires_at };
	status = db_run(call->context->db, &issue_challenge, params,
		sizeof params / sizeof params[0], call->arena, &rows);
	if (status != DB_OK)
		call_db_failed(call, status);
	else
		answer_challenge(call, message, &siwe);
}

/* ---- The signed text ---- */

#define KEYS_KEPT "20"

/*
 * All in one statement. Of two that bring the same nonce at once, the second waits for the row and
 * finds it used. If the verdict is good but no user comes back, another request has just created
 * the user: nothing was changed, and the next try finds that user. The oldest keys of earlier
 * sign-ins make room, so that whoever signs in every day does not pile up keys.
 */
static const struct db_statement sign_in = {
	.name = "sign_in",
	.effect = DB_CHANGES,
	.sql = "WITH issued AS ("
	       "    SELECT * FROM auth_nonces WHERE nonce = $1 FOR UPDATE"
	       "), found AS ("
	       "    SELECT * FROM users WHERE wallet_address = $2 FOR SHARE"
	       "), verdict AS ("
	       "    SELECT CASE WHEN issued.nonce IS NULL THEN 'nonce_unknown'"
	       "                WHEN issued.address <> $2 THEN 'other_address'"
	       "                WHEN issued.message <> $3 THEN 'altered'"
	       "                WHEN issued.used_at IS NOT NULL THEN 'used'"
	       "                WHEN issued.expires_at <= now() THEN 'expired'"
	       "                WHEN NOT found.is_active THEN 'user_off'"
	       "                ELSE 'good' END AS word"
	       "      FROM (SELECT) AS one LEFT JOIN issued ON true LEFT JOIN found ON true"
	       "), created AS ("
	       "    INSERT INTO users (wallet_address)"
	       "    SELECT $2 FROM verdict"
	       "     WHERE word = 'good' AND NOT EXISTS (SELECT FROM found)"
	       "    ON CONFLICT (wallet_address) DO NOTHING"
	       "    RETURNING *"
	       "), who AS ("
	       "    SELECT found.* FROM found, verdict WHERE word = 'good'"
	       "    UNION ALL SELECT * FROM created"
	       "), used AS ("
	       "    UPDATE auth_nonces SET used_at = now() FROM who WHERE nonce = $1"
	       "), made AS ("
	       "    INSERT INTO api_keys (user_id, name, made_by_sign_in, key_hash, key_prefix,"
	       "                          scopes)"
	       "    SELECT id, 'wallet sign-in', true, decode($4, 'hex'), $5,"
	       "           areg_scopes_for_keys(scopes) FROM who"
	       "    RETURNING *"
	       "), outdated AS ("
	       "    SELECT k.* FROM api_keys k JOIN who ON who.id = k.user_id"
	       "     WHERE k.is_active AND k.made_by_sign_in"
	       "     ORDER BY k.created_at DESC OFFSET " KEYS_KEPT " - 1"
	       "), retired AS ("
	       "    UPDATE api_keys k SET is_active = false, revoked_at = now()"
	       "      FROM outdated WHERE k.id = outdated.id AND k.is_active"
	       "    RETURNING k.*"
	       "), entry AS ("
	       "    SELECT 1 AS nth, 'user.create' AS action, 'user' AS subject_type, id,"
	       "           NULL::jsonb AS before, to_jsonb(created) AS after FROM created"
	       "    UNION ALL SELECT 2, 'user.sign_in', 'api_key', id, NULL,"
	       "           to_jsonb(made) - 'key_hash' FROM made"
	       "    UNION ALL SELECT 3, 'key.revoke', 'api_key', retired.id,"
	       "           to_jsonb(outdated) - 'key_hash', to_jsonb(retired) - 'key_hash'"
	       "      FROM retired JOIN outdated USING (id)"
	       "), audited AS ("
	       "    INSERT INTO audit_log (actor_user, actor, action, subject_type, subject_id,"
	       "        before, after, request_id, client_address)"
	       "    SELECT who.id, $2, action, subject_type, entry.id::text, before, after, $6,"
	       "        areg_client_address($7)"
	       "      FROM who, entry ORDER BY nth"
	       ")"
	       "SELECT verdict.word, who.id, who.wallet_address, who.tier,"
	       "       array_to_json(who.scopes), rfc3339(who.created_at)"
	       "  FROM verdict LEFT JOIN who ON true",
};

struct proof {
	const char *message;
	const char *signature;
};

static const struct json_field proof_fields[] = {
	{ .name = "message",
		.kind = JSON_STRING,
		.required = true,
		.offset = offsetof(struct proof, message),
		.min = 1,
		.max = MESSAGE_MAX },
	{ .name = "signature",
		.kind = JSON_STRING,
		.required = true,
		.offset = offsetof(struct proof, signature),
		.min = 1,
		.max = SIGNATURE_MAX },
};
const struct route_input auth_verify_input = { .fields = proof_fields,
	.field_count = sizeof proof_fields / sizeof proof_fields[0] };

/* Whether a signature can only be that of a contract: hex of more bytes than a private key gives. */
static bool is_of_contract(const char *signature)
{
	const size_t len = strlen(signature);

	return len > 2 + 2 * 65 && len % 2 == 0 && strncmp(signature, "0x", 2) == 0 &&
	       strspn(signature + 2, "0123456789abcdefABCDEF") == len - 2;
}

static bool read_proof(
	struct call *call, struct proof *proof, struct siwe *siwe, uint8_t signature[65])
{
	struct faults faults;
	struct json_doc doc;
	const char *why;

	if (!call_body(call, proof, &doc, &faults))
		return false;
	if (proof->message != NULL && !siwe_read(call->arena, proof->message, siwe, &why))
		fault_add(&faults, PROBLEM_VALIDATION_FAILED, "/message",
			"is no sign-in text (EIP-4361): %s", why);
	if (proof->signature != NULL && is_of_contract(proof->signature))
		fault_add(&faults, PROBLEM_VALIDATION_FAILED, "/signature",
			"is longer than the 65 bytes of a private key's signature: it comes from a "
			"contract wallet (ERC-1271, ERC-6492), and contract wallets cannot sign in "
			"yet, because this registry asks no chain whether the contract takes it");
	else if (proof->signature != NULL &&
		 !eth_signature_parse(proof->signature, signature, &why))
		fault_add(&faults, PROBLEM_VALIDATION_FAILED, "/signature", "%s", why);
	if (faults.count > 0)
		call_refuse(call, &faults);
	return faults.count == 0;
}

/* Whether the wallet that the text names signed it. */
static bool is_signed(const struct proof *proof, const struct siwe *siwe, const uint8_t *signature)
{
	char address[ETH_ADDRESS_LEN + 1];
	uint8_t digest[32];

	eth_personal_digest(proof->message, strlen(proof->message), digest);
	return eth_recover(digest, signature, address) && strcmp(address, siwe->address) == 0;
}

static void refuse_sign_in(struct call *call, const char *detail)
{
	http_header_add(call->response, "WWW-Authenticate", "Bearer");
	call_problem(call, PROBLEM_UNAUTHORIZED, detail);
}

/* The answer to each verdict of sign_in but `good` and `user_off`. */
static const struct bad_verdict {
	const char *verdict, *detail;
} bad_verdicts[] = {
	{ "nonce_unknown", "The nonce is not one that this registry knows: ask for a challenge." },
	{ "other_address", "The nonce was given to another address: ask for a challenge." },
	{ "altered", "The message is not the one that was given out with this nonce." },
	{ "used", "The nonce was used already: ask for another challenge." },
	{ "expired", "The message has expired: ask for another challenge." },
};

static void auth_answer_key(struct call *call, const char *key, const struct db_rows *rows)
{
	char prefix[API_KEY_PREFIX_LEN + 1];
	struct json_out out = call_answer(call, 201);

	api_key_prefix(key, prefix);
	json_open_object(&out);
	json_string(&out, "api_key", key);
	json_string(&out, "key_prefix", prefix);
	json_key(&out, "user");
	json_open_object(&out);
	json_string(&out, "id", db_text(rows, 0, 1));
	json_string(&out, "wallet_address", db_text(rows, 0, 2));
	json_string(&out, "tier", db_text(rows, 0, 3));
	json_raw(&out, "scopes", db_text(rows, 0, 4));
	json_string(&out, "created_at", db_text(rows, 0, 5));
	json_close_object(&out);
	json_close_object(&out);
}

static void answer_verdict(struct call *call, const char *key, const struct db_rows *rows)
{
	const char *verdict = db_text(rows, 0, 0);

	for (size_t i = 0; i < sizeof bad_verdicts / sizeof bad_verdicts[0]; i++)
		if (strcmp(verdict, bad_verdicts[i].verdict) == 0) {
			refuse_sign_in(call, bad_verdicts[i].detail);
			return;
		}
	if (strcmp(verdict, "user_off") == 0) {
		call_problem(
			call, PROBLEM_FORBIDDEN, "The user of this wallet has been switched off.");
		return;
	}
	if (strcmp(verdict, "good") != 0) {
		call_refuse_outcome(call, verdict, NULL, 0);
		return;
	}
	callers_drop_user(call->context->host->callers, db_text(rows, 0, 1));
	authenticate_new_key(call, key);
	auth_answer_key(call, key, rows);
}

static enum db_status auth_store(struct call *call, const struct proof *proof,
	const struct siwe *siwe, const char *key, struct db_rows *rows)
{
	char hash[API_KEY_HASH_LEN + 1], prefix[API_KEY_PREFIX_LEN + 1];
	const char *params[] = { siwe->nonce, siwe->address, proof->message, hash, prefix,
		call->request->id, call->request->client_address };

	api_key_hash(key, hash);
	api_key_prefix(key, prefix);
	for (int tries = 0; tries < TRIES; tries++) {
		enum db_status status = db_run(call->context->db, &sign_in, params,
			sizeof params / sizeof params[0], call->arena, rows);

		if (status != DB_OK || strcmp(db_text(rows, 0, 0), "good") != 0 ||
			db_text(rows, 0, 1) != NULL)
			return status;
	}
	return DB_CONFLICT;
}

void auth_verify(struct call *call)
{
	struct proof proof = { 0 };
	struct siwe siwe = { 0 };
	uint8_t signature[65];
	char key[API_KEY_LEN + 1];
	struct db_rows rows;
	enum db_status status;

	if (!read_proof(call, &proof, &siwe, signature))
		return;
	if (!is_signed(&proof, &siwe, signature)) {
		refuse_sign_in(
			call, "The signature is not one of this message by the address in it.");
		return;
	}
	if (strcmp(siwe.domain, domain_of(call)) != 0) {
		refuse_sign_in(call, "The message is for another domain than this registry's.");
		return;
	}
	if (!api_key_make(key)) {
		refuse_no_random(call);
		return;
	}
	status = auth_store(call, &proof, &siwe, key, &rows);
	if (status != DB_OK)
		call_db_failed(call, status);
	else
		answer_verdict(call, key, &rows);
}
