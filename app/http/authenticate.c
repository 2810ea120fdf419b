/* SPDX-License-Identifier: Apache-2.0 */
/* Only a well-formed key can cost a look-up; keys are compared as SHA-256, in shared memory first,
 * then by the database's index. */
#include "app/http/authenticate.h"

#include <string.h>
#include <strings.h>

#include "app/cache/limit_ledger.h"
#include "app/http/metering.h"
#include "app/problem_list.h"
#include "app/registry/api_key.h"
#include "lib/clock.h"
#include "lib/decimal.h"
#include "lib/log.h"
#include "lib/sha256.h"

/* Scopes of a key count only while its user has them, too. */
static const struct db_statement find_caller = {
	.name = "find_caller",
	.effect = DB_READS,
	.sql = "SELECT u.id, k.id, coalesce(u.wallet_address, ''), k.key_prefix, u.tier,"
	       "       array_to_string(areg_common_scopes(k.scopes, u.scopes), ' '),"
	       "       coalesce(ceil(extract(epoch FROM k.expires_at)), 0)::bigint"
	       "  FROM api_keys k JOIN users u ON u.id = k.user_id"
	       " WHERE k.key_hash = decode($1, 'hex') AND k.is_active AND u.is_active"
	       "   AND (k.expires_at IS NULL OR k.expires_at > now())",
};

/* The key that the request carries, NULL for none. Credentials of another kind, which programs add by
 * themselves (curl does from .netrc), do not matter beside a key in the header of its own; without one
 * they are returned whole, which is no key. */
static const char *key_of(const struct http_request *request)
{
	static const char scheme[] = "Bearer ";
	const char *authorization = http_header(request, "HTTP_AUTHORIZATION");
	const char *own = http_header(request, "HTTP_X_API_KEY");

	if (authorization == NULL || *authorization == '\0')
		return own;
	if (strncasecmp(authorization, scheme, sizeof scheme - 1) != 0)
		return own != NULL && *own != '\0' ? own : authorization;
	authorization += sizeof scheme - 1;
	return authorization + strspn(authorization, " ");
}

const char *authenticate_key(const struct call *call)
{
	return key_of(call->request);
}

static void add_number(struct call *call, const char *name, uint64_t number)
{
	char *digits = arena_alloc(call->arena, DECIMAL_BYTES);

	decimal(digits, (int64_t)number);
	http_header_add(call->response, name, digits);
}

static void add_limit_headers(struct call *call, const struct limit_answer *answer)
{
	add_number(call, "X-RateLimit-Limit", answer->limit);
	add_number(call, "X-RateLimit-Remaining", answer->remaining);
	add_number(call, "X-RateLimit-Reset", answer->reset_s);
}

static bool refuse_over_limit(
	struct call *call, enum rate_class class, const struct limit_answer *answer)
{
	metrics_add(call->context->metrics, METER_LIMIT_REFUSALS, class, 0, 1);
	add_number(call, "Retry-After", answer->retry_after_s);
	call_problem(call, PROBLEM_RATE_LIMIT_EXCEEDED,
		arena_printf(call->arena,
			"Over the limit of %u requests a minute for calls of class %s; one more fits "
			"in %u s.",
			answer->limit, rate_class_name(class), answer->retry_after_s));
	return false;
}

/*
 * Counts the request. Where this host has used up what it reserved among several, it reserves more
 * in two round trips; with the ledger away it owes what it lets through.
 */
static enum limit_verdict caller_take(struct call *call, uint64_t tag, uint32_t limit,
	uint64_t now_ms, struct limit_answer *answer)
{
	struct limiter *limiter = call->context->host->limiter;
	enum limit_verdict verdict = limiter_take(limiter, tag, limit, now_ms, answer);
	bool is_away = false;

	/* Other workers may use up a batch before this one gets to it, but not for ever. */
	for (int tries = 0; verdict == LIMIT_UNRESERVED && tries < 16; tries++) {
		metrics_add(call->context->metrics, METER_LIMIT_RESERVATIONS, 0, 0, 1);
		if (!limit_ledger_reserve(
			    limiter, call->context->cache, tag, limit, now_ms, &is_away)) {
			if (!is_away)
				break;
			verdict = limiter_take_owing(limiter, tag, limit, now_ms, answer);
			metrics_add(call->context->metrics, METER_LIMIT_FALLBACKS, 0, 0, 1);
			break;
		}
		verdict = limiter_take(limiter, tag, limit, now_ms, answer);
	}
	if (verdict == LIMIT_UNRESERVED) {
		answer->remaining = 0;
		answer->retry_after_s = (uint32_t)(answer->reset_s - now_ms / 1000);
		if (answer->retry_after_s == 0)
			answer->retry_after_s = 1;
		verdict = LIMIT_REFUSED;
	}
	return verdict;
}

/* Extra rate classes, counted by address. Wrong keys, malformed keys and reads without a key each
 * have a class, so that one client cannot use up what others at the same address need. */
enum { WRONG_KEYS = RATE_CLASSES, MALFORMED_KEYS };

/* Requests a minute that a client without a key is counted against as a reader: at least 1, also
 * where reading takes a key, so that asking without one and with wrong ones is limited, too. */
static uint32_t anonymous_reads(const struct call *call)
{
	uint32_t limit = call->context->settings->rates[RATE_READ][TIER_ANONYMOUS];

	return limit > 0 ? limit : 1;
}

static uint64_t address_tag(const struct call *call, unsigned class)
{
	char subject[64];

	limiter_address_subject(call->request->client_address, subject);
	return limiter_tag(call->context->host->limiter, class, subject);
}

/* A user has as many keys as they like, and an address as many users as there are wallets: so signing
 * in counts by address for everybody. */
uint64_t authenticate_tag(const struct call *call, enum rate_class class)
{
	return call->caller == NULL || class == RATE_SIGN_IN
		       ? address_tag(call, class)
		       : limiter_tag(call->context->host->limiter, class, call->caller->user_id);
}

/* Counts the request under a tag, and says in its headers how that stands. */
static bool count_as(
	struct call *call, enum rate_class class, uint64_t tag, uint32_t limit, uint64_t now_ms)
{
	struct limit_answer answer;
	enum limit_verdict verdict = caller_take(call, tag, limit, now_ms, &answer);

	add_limit_headers(call, &answer);
	return verdict == LIMIT_PASSED || refuse_over_limit(call, class, &answer);
}

/* Counts the request of whom it is from: a user, or else a client's address. What is not for the
 * caller's tier at all, and so will be refused, counts as a read. */
static bool caller_count(struct call *call, enum rate_class class, uint64_t now_ms)
{
	const struct caller_record *caller = call->caller;
	enum tier tier = caller == NULL ? TIER_ANONYMOUS : (enum tier)caller->tier;
	uint32_t limit = call->context->settings->rates[class][tier];

	if (limit == 0) {
		class = RATE_READ;
		limit = call->context->settings->rates[class][tier];
		if (limit == 0)
			limit = anonymous_reads(call);
	}
	return count_as(call, class, authenticate_tag(call, class), limit, now_ms);
}

/* Answers for a key that does not count, which is counted as of `kind`. */
static bool refuse_key(struct call *call, unsigned kind, const char *why, uint64_t now_ms)
{
	if (!count_as(call, RATE_READ, address_tag(call, kind), anonymous_reads(call), now_ms))
		return false;
	http_header_add(call->response, "WWW-Authenticate", "Bearer error=\"invalid_token\"");
	call_problem(call, PROBLEM_UNAUTHORIZED, why);
	return false;
}

static bool refuse_malformed(struct call *call, const char *key, uint64_t now_ms)
{
	static const char wrong[] =
		"The API key is not valid: it is mistyped, cut short, or none at all.";
	static const char other[] =
		"The Authorization header carries credentials of another kind, such as Basic (curl "
		"adds those from .netrc): send Authorization: Bearer areg_live_…, or X-API-Key.";

	return refuse_key(call, MALFORMED_KEYS,
		key == http_header(call->request, "HTTP_AUTHORIZATION") ? other : wrong, now_ms);
}

static bool refuse_wrong(struct call *call, uint64_t now_ms)
{
	return refuse_key(call, WRONG_KEYS,
		"The API key is not valid: it is mistyped, revoked or expired.", now_ms);
}

/* Whether the client's address has sent so many wrong keys that the key filter is asked first. */
static bool is_guessing(const struct call *call, uint64_t now_ms)
{
	struct limit_share share;

	limiter_share(call->context->host->limiter, address_tag(call, WRONG_KEYS), now_ms, &share);
	return limiter_left(anonymous_reads(call), share.used, share.used_before, now_ms) == 0;
}

/* Whether the database is to be asked about a key that is not in memory. */
static bool is_worth_looking_up(const struct call *call, const uint8_t hash[32], uint64_t now_ms)
{
	const struct host_memory *host = call->context->host;
	const uint64_t limit_ms = limiter_clock_ms(host->limiter, now_ms);

	return !is_guessing(call, limit_ms) ||
	       (key_filter_may_hold(host->key_filter, hash) &&
		       !key_filter_was_wrong(host->key_filter, hash, now_ms / 1000));
}

void authenticate_new_key(const struct call *call, const char *key)
{
	uint8_t hash[SHA256_BYTES];

	sha256(key, strlen(key), hash);
	key_filter_add(call->context->host->key_filter, hash);
}

static void copy_text(char *to, size_t size, const char *from)
{
	size_t len = strnlen(from, size - 1);

	memcpy(to, from, len);
	to[len] = '\0';
}

/* DB_OK with *is_known; or why it could not be asked. */
static enum db_status caller_look_up(
	struct call *call, const uint8_t hash[32], struct caller_record *caller, bool *is_known)
{
	char hex[2 * 32 + 1];
	const char *params[] = { hex };
	struct db_rows rows;
	enum db_status status;

	hex_encode(hash, 32, hex);
	status = db_run(call->context->db, &find_caller, params, 1, call->arena, &rows);
	*is_known = status == DB_OK && rows.count == 1;
	if (!*is_known)
		return status;
	*caller = (struct caller_record){ .tier = (uint8_t)tier_of(db_text(&rows, 0, 4)),
		.expires_at_s = db_int(&rows, 0, 6) };
	memcpy(caller->key_hash, hash, sizeof caller->key_hash);
	copy_text(caller->user_id, sizeof caller->user_id, db_text(&rows, 0, 0));
	copy_text(caller->key_id, sizeof caller->key_id, db_text(&rows, 0, 1));
	copy_text(caller->wallet, sizeof caller->wallet, db_text(&rows, 0, 2));
	copy_text(caller->key_prefix, sizeof caller->key_prefix, db_text(&rows, 0, 3));
	/* Half of a longer scope may be another one: rather none at all. */
	if (strlen(db_text(&rows, 0, 5)) < sizeof caller->scopes)
		copy_text(caller->scopes, sizeof caller->scopes, db_text(&rows, 0, 5));
	else
		log_error("the scopes of key %s are longer than %zu bytes: it has none",
			caller->key_prefix, sizeof caller->scopes - 1);
	return DB_OK;
}

/* Finds the caller of a well-formed key. DB_OK with *is_known; or why it could not be asked. */
static enum db_status caller_find(struct call *call, const char *key, uint64_t now_ms,
	struct caller_record *caller, bool *is_known)
{
	struct callers *callers = call->context->host->callers;
	bool is_hot, is_fresh = callers_are_fresh(callers, now_ms);
	struct caller_record cached;
	uint8_t hash[SHA256_BYTES];
	uint64_t version = 0;
	enum db_status status;

	sha256(key, strlen(key), hash);
	is_hot = callers_find(callers, hash, (int64_t)(now_ms / 1000), &cached, &version);
	metrics_add(call->context->metrics,
		is_hot && is_fresh ? METER_CALLER_HITS : METER_CALLER_MISSES, 0, 0, 1);
	if (is_hot && is_fresh) {
		*caller = cached;
		*is_known = true;
		return DB_OK;
	}
	if (!is_hot && !is_worth_looking_up(call, hash, now_ms)) {
		*is_known = false;
		return DB_OK;
	}
	status = caller_look_up(call, hash, caller, is_known);
	if (*is_known && is_fresh)
		callers_store(callers, caller, version);
	if (status == DB_OK && !*is_known)
		key_filter_note_wrong(call->context->host->key_filter, hash, now_ms / 1000);
	if (status != DB_OK && is_hot) {
		/* Nobody can have revoked it in a database that cannot be reached. */
		*caller = cached;
		*is_known = true;
		return DB_OK;
	}
	return status;
}

bool authenticate(struct call *call, enum rate_class class)
{
	const char *key = key_of(call->request);
	const uint64_t now_ms = clock_unix_ms();
	const uint64_t limit_ms = limiter_clock_ms(call->context->host->limiter, now_ms);
	struct caller_record *caller;
	enum db_status status;
	bool is_known;

	if (key == NULL) /* nginx has counted what is shared */
		return call->is_shared || caller_count(call, class, limit_ms);
	call->is_shared = false;
	if (!api_key_well_formed(key))
		return refuse_malformed(call, key, limit_ms);
	caller = arena_alloc(call->arena, sizeof *caller);
	status = caller_find(call, key, now_ms, caller, &is_known);
	if (status != DB_OK) {
		if (caller_count(call, class, limit_ms))
			call_db_failed(call, status);
		return false;
	}
	if (!is_known ||
		(caller->expires_at_s != 0 && caller->expires_at_s <= (int64_t)(now_ms / 1000)))
		return refuse_wrong(call, limit_ms);
	call->caller = caller;
	return caller_count(call, class, limit_ms);
}
