/* Tokens are drawn anew for each change, so that nothing depends on counting or on clocks. */
#include "app/level2.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "lib/buf.h"
#include "lib/eth.h"
#include "lib/log.h"
#include "lib/random.h"
#include "lib/sha256.h"

enum {
	ANSWER_TTL_S = 24 * 3600,
	TOKEN_TTL_S = 30 * 24 * 3600,
	KEY_BYTES = 128,
	HEAD_BYTES = 2 * LEVEL2_TOKEN + ANSWER_ETAG_LEN,
};

/* ---- Keys ---- */

static void digest_hex(const struct buf *text, char hex[LEVEL2_SPACE])
{
	uint8_t digest[SHA256_BYTES];

	sha256(text->data, text->len, digest);
	hex_encode(digest, (LEVEL2_SPACE - 1) / 2, hex);
}

void level2_init(struct level2 *level2, struct arena *arena, const struct settings *settings,
	struct cache *cache, struct answers *answers)
{
	struct buf text;

	*level2 = (struct level2){ .cache = cache, .answers = answers };
	buf_init(&text, arena, 1024);
	buf_puts(&text, settings_database(arena, settings));
	digest_hex(&text, level2->space);
	buf_printf(&text, "\n%s %d %s", PACKAGE_VERSION, AREG_SCHEMA_VERSION, settings->public_url);
	for (size_t i = 0; i < settings->chain_count; i++) {
		const struct chain *chain = &settings->chains[i];

		buf_printf(&text, "\n%s %" PRIu64 " %s %s %s %d", chain->name, chain->chain_id,
			chain->identity_registry,
			chain->reputation_registry == NULL ? "" : chain->reputation_registry,
			chain->validation_registry == NULL ? "" : chain->validation_registry,
			chain->rpc_url != NULL);
		for (size_t at = 0; chain->aliases != NULL && chain->aliases[at] != NULL; at++)
			buf_printf(&text, " %s", chain->aliases[at]);
	}
	digest_hex(&text, level2->edition);
}

static void name_key(const struct level2 *level2, const char *name, char key[KEY_BYTES])
{
	snprintf(key, KEY_BYTES, "areg:%s:%s", level2->space, name);
}

/* Of the token that answers about the agent, or (NULL) the registry, depend on. */
static void token_key(const struct level2 *level2, const char *agent_uuid, char key[KEY_BYTES])
{
	char name[64];

	snprintf(name, sizeof name, "agent:%.36s", agent_uuid == NULL ? "" : agent_uuid);
	name_key(level2, agent_uuid == NULL ? "registry" : name, key);
}

/* SHA-256 whole: nobody finds two requests that share an answer. */
static void answer_key(
	const struct level2 *level2, const char *text, size_t len, char key[KEY_BYTES])
{
	uint8_t digest[SHA256_BYTES];
	char hex[2 * SHA256_BYTES + 1];

	sha256(text, len, digest);
	hex_encode(digest, sizeof digest, hex);
	snprintf(key, KEY_BYTES, "areg:%s:%s:%s", level2->space, level2->edition, hex);
}

/* ---- Trust ---- */

bool level2_is_trusted(const struct level2 *level2)
{
	return level2->cache != NULL && cache_has_servers(level2->cache) &&
	       (level2->answers == NULL || answers_is_trusted(level2->answers));
}

static bool distrust(struct level2 *level2)
{
	if (level2->answers != NULL) {
		if (answers_is_trusted(level2->answers))
			log_warn("a change could not be told to memcached: answers in it are not "
				 "used until they are void");
		answers_distrust(level2->answers);
	}
	return false;
}

void level2_recover(struct level2 *level2)
{
	const uint64_t distrusts = answers_distrusts(level2->answers);
	char key[KEY_BYTES], token[LEVEL2_TOKEN];

	if (!cache_has_servers(level2->cache) || answers_is_trusted(level2->answers))
		return;
	name_key(level2, "all", key);
	if (!random_text(token, sizeof token) ||
		cache_set(level2->cache, key, token, sizeof token, TOKEN_TTL_S) != CACHE_HIT)
		return;
	answers_trust(level2->answers, distrusts);
	if (answers_is_trusted(level2->answers))
		log_info("answers in memcached are void, and it is used again");
}

/* ---- Answers ---- */

/* Makes a token, for the next answer: this one may be older than it. */
static void make_token(struct level2 *level2, const char *key)
{
	char token[LEVEL2_TOKEN];

	if (random_text(token, sizeof token) &&
		!cache_post_new(level2->cache, key, token, sizeof token, TOKEN_TTL_S))
		log_debug("memcached went away while a token was made");
}

/* Whether a value is an answer under the present tokens: then it is in *answer. */
static bool read_answer(
	const struct cache_value *value, const struct level2_ticket *ticket, struct answer *answer)
{
	if (!ticket->is_valid || value->bytes == NULL || value->len < HEAD_BYTES ||
		memcmp(value->bytes, ticket->tokens, sizeof ticket->tokens) != 0)
		return false;
	memcpy(answer->etag, value->bytes + sizeof ticket->tokens, ANSWER_ETAG_LEN);
	answer->etag[ANSWER_ETAG_LEN] = '\0';
	answer->target = "";
	answer->body = value->bytes + HEAD_BYTES;
	answer->len = value->len - HEAD_BYTES;
	return true;
}

bool level2_find(struct level2 *level2, const char *agent_uuid, const char *text, size_t len,
	struct arena *arena, struct answer *answer, struct level2_ticket *ticket)
{
	char all[KEY_BYTES], dependency[KEY_BYTES], key[KEY_BYTES];
	const char *const keys[] = { all, dependency, key };
	struct cache_value values[3];

	ticket->is_valid = false;
	name_key(level2, "all", all);
	token_key(level2, agent_uuid, dependency);
	answer_key(level2, text, len, key);
	if (cache_get_many(level2->cache, keys, 3, arena, values) == CACHE_AWAY)
		return false;
	ticket->is_valid = true;
	for (size_t i = 0; i < 2; i++) {
		if (values[i].bytes == NULL || values[i].len != LEVEL2_TOKEN) {
			ticket->is_valid = false;
			make_token(level2, keys[i]);
		} else {
			memcpy(ticket->tokens + i * LEVEL2_TOKEN, values[i].bytes, LEVEL2_TOKEN);
		}
	}
	return read_answer(&values[2], ticket, answer);
}

bool level2_store(struct level2 *level2, const struct level2_ticket *ticket, const char *text,
	size_t len, struct arena *arena, const struct answer *answer)
{
	char key[KEY_BYTES];
	struct buf value;

	if (!ticket->is_valid || !level2_is_trusted(level2))
		return false;
	answer_key(level2, text, len, key);
	buf_init(&value, arena, HEAD_BYTES + answer->len + 1);
	buf_put(&value, ticket->tokens, sizeof ticket->tokens);
	buf_put(&value, answer->etag, ANSWER_ETAG_LEN);
	buf_put(&value, answer->body, answer->len);
	return cache_post(level2->cache, key, value.data, value.len, ANSWER_TTL_S);
}

/* ---- Changes ---- */

bool level2_changed(
	struct level2 *level2, const char *const *agent_uuids, size_t count, struct arena *arena)
{
	char keys[CACHE_ITEMS_MAX][KEY_BYTES], tokens[CACHE_ITEMS_MAX][LEVEL2_TOKEN];
	struct cache_item items[CACHE_ITEMS_MAX];
	size_t used = 1;

	if (!cache_has_servers(level2->cache))
		return true;
	token_key(level2, NULL, keys[0]);
	for (size_t i = 0; i < count; i++)
		if (agent_uuids[i] != NULL)
			token_key(level2, agent_uuids[i], keys[used++]);
	for (size_t i = 0; i < used; i++) {
		if (!random_text(tokens[i], LEVEL2_TOKEN))
			return distrust(level2);
		items[i] = (struct cache_item){ keys[i], tokens[i], LEVEL2_TOKEN };
	}
	if (cache_set_many(level2->cache, items, used, TOKEN_TTL_S, arena) != CACHE_HIT)
		return distrust(level2);
	return true;
}

bool level2_drop_all(struct level2 *level2)
{
	char key[KEY_BYTES], token[LEVEL2_TOKEN];

	if (!cache_has_servers(level2->cache))
		return true;
	name_key(level2, "all", key);
	if (!random_text(token, sizeof token) ||
		cache_set(level2->cache, key, token, sizeof token, TOKEN_TTL_S) != CACHE_HIT)
		return distrust(level2);
	return true;
}

/* ---- Notes of the listener ---- */

static const char *note(struct level2 *level2, const char *name, struct arena *arena)
{
	struct cache_value value;
	char key[KEY_BYTES];

	name_key(level2, name, key);
	return cache_get(level2->cache, key, arena, &value) == CACHE_HIT
		       ? arena_strndup(arena, value.bytes, value.len)
		       : "";
}

static void set_note(struct level2 *level2, const char *name, const char *bytes, size_t len)
{
	char key[KEY_BYTES];

	name_key(level2, name, key);
	if (cache_set(level2->cache, key, bytes, len, TOKEN_TTL_S) == CACHE_AWAY)
		log_debug("memcached went away while \"%s\" was noted", name);
}

const char *level2_heard(struct level2 *level2, struct arena *arena)
{
	return note(level2, "heard", arena);
}

void level2_set_heard(struct level2 *level2, const char *place)
{
	set_note(level2, "heard", place, strlen(place));
}

const char *level2_hottest(struct level2 *level2, struct arena *arena)
{
	return note(level2, "hottest", arena);
}

void level2_set_hottest(struct level2 *level2, const char *lines, size_t len)
{
	set_note(level2, "hottest", lines, len);
}
