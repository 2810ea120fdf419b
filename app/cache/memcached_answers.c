/* SPDX-License-Identifier: Apache-2.0 */
/* Tokens are drawn anew for each change, so that nothing depends on counting or on clocks. */
#include "app/cache/memcached_answers.h"

#include <endian.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "app/build.h"
#include "lib/buf.h"
#include "lib/eth.h"
#include "lib/log.h"
#include "lib/random.h"
#include "lib/sha256.h"

enum {
	ANSWER_TTL_S = 24 * 3600,
	TOKEN_TTL_S = 30 * 24 * 3600,
	KEY_BYTES = 160,
	HEAD_BYTES = 2 * MEMCACHED_ANSWERS_TOKEN + ANSWER_ETAG_LEN,
};

/* ---- Keys ---- */

static void digest_hex(const struct buf *text, char hex[MEMCACHED_ANSWERS_SPACE])
{
	uint8_t digest[SHA256_BYTES];

	sha256(text->data, text->len, digest);
	hex_encode(digest, (MEMCACHED_ANSWERS_SPACE - 1) / 2, hex);
}

/* Which database, and which key of seals. */
static void put_space(struct buf *text, struct arena *arena, const struct settings *settings)
{
	char key_id[SEAL_ID];

	seal_key_id(settings->cache_key, key_id);
	buf_printf(text, "%s\n%s", settings_database(arena, settings), key_id);
}

void memcached_answers_edition(
	struct arena *arena, const struct settings *settings, char edition[MEMCACHED_ANSWERS_SPACE])
{
	struct buf text;

	buf_init(&text, arena, 1024);
	put_space(&text, arena, settings);
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
	digest_hex(&text, edition);
}

void memcached_answers_init(struct memcached_answers *memcached, struct arena *arena,
	const struct settings *settings, struct cache *cache, struct answers *answers,
	const struct wal_position *wal)
{
	struct buf text;

	*memcached = (struct memcached_answers){ .cache = cache, .answers = answers, .wal = wal };
	buf_init(&text, arena, 1024);
	put_space(&text, arena, settings);
	digest_hex(&text, memcached->space);
	memcached_answers_edition(arena, settings, memcached->edition);
}

/* `place` says on which server it lies; NULL: the name itself does. */
static void name_key(const struct memcached_answers *memcached, const char *place, const char *name,
	char key[KEY_BYTES])
{
	snprintf(key, KEY_BYTES, "%s%s%sareg:%s:%s", place == NULL ? "" : "{",
		place == NULL ? "" : place, place == NULL ? "" : "}", memcached->space, name);
}

static const char registry[] = "registry";

/* Where the token lies that answers about the agent, or (NULL) the registry, depend on. */
static const char *token_place(const char *agent_uuid)
{
	return agent_uuid == NULL ? registry : agent_uuid;
}

static void token_key(
	const struct memcached_answers *memcached, const char *agent_uuid, char key[KEY_BYTES])
{
	char name[64];

	snprintf(name, sizeof name, "agent:%.36s", agent_uuid == NULL ? "" : agent_uuid);
	name_key(memcached, token_place(agent_uuid), agent_uuid == NULL ? registry : name, key);
}

/* SHA-256 whole: nobody finds two requests that share an answer. It lies where the agent's token
 * does; those of the registry are spread. */
static void memcached_answers_key(const struct memcached_answers *memcached, const char *agent_uuid,
	const char *text, size_t len, char key[KEY_BYTES])
{
	uint8_t digest[SHA256_BYTES];
	char hex[2 * SHA256_BYTES + 1], name[sizeof hex + MEMCACHED_ANSWERS_SPACE];

	sha256(text, len, digest);
	hex_encode(digest, sizeof digest, hex);
	snprintf(name, sizeof name, "%s:%s", memcached->edition, hex);
	name_key(memcached, agent_uuid, name, key);
}

/* ---- Tokens ---- */

/* Half of it random, half the position that is required when it is drawn. */
static bool draw_token(
	const struct memcached_answers *memcached, char token[MEMCACHED_ANSWERS_TOKEN])
{
	const uint64_t position =
		htobe64(memcached->wal == NULL ? 0 : wal_position_required(memcached->wal));

	memcpy(token + MEMCACHED_ANSWERS_TOKEN - sizeof position, &position, sizeof position);
	return random_text(token, MEMCACHED_ANSWERS_TOKEN - sizeof position);
}

static uint64_t token_position(const char *token)
{
	uint64_t position;

	memcpy(&position, token + MEMCACHED_ANSWERS_TOKEN - sizeof position, sizeof position);
	return be64toh(position);
}

/* ---- Trust ---- */

bool memcached_answers_is_trusted(const struct memcached_answers *memcached)
{
	return memcached->cache != NULL && cache_has_servers(memcached->cache) &&
	       (memcached->answers == NULL || (answers_is_trusted(memcached->answers) &&
						      cache_is_settled(memcached->cache)));
}

static bool distrust(struct memcached_answers *memcached)
{
	if (memcached->answers != NULL) {
		if (answers_is_trusted(memcached->answers))
			log_warn("a change could not be told to memcached: answers in it are not "
				 "used until they are void");
		answers_distrust(memcached->answers);
	}
	return false;
}

static bool draw_one(const void *memcached, char *token, size_t len)
{
	(void)len;
	return draw_token(memcached, token);
}

/* A new token of everything, on each server. */
static bool void_all(struct memcached_answers *memcached, uint64_t *view)
{
	char key[KEY_BYTES];

	name_key(memcached, NULL, "all", key);
	return cache_set_everywhere(memcached->cache, key, draw_one, memcached,
		       MEMCACHED_ANSWERS_TOKEN, TOKEN_TTL_S, view) == CACHE_HIT;
}

void memcached_answers_recover(struct memcached_answers *memcached)
{
	const uint64_t distrusts = answers_distrusts(memcached->answers);
	uint64_t view;

	if (!cache_has_servers(memcached->cache))
		return;
	cache_probe(memcached->cache);
	if (memcached_answers_is_trusted(memcached) || !void_all(memcached, &view))
		return;
	answers_trust(memcached->answers, distrusts);
	cache_settle(memcached->cache, view);
	if (memcached_answers_is_trusted(memcached))
		log_info("answers in memcached are void, and it is used again");
}

/* ---- Answers ---- */

/* Makes a token, for the next answer. The present answer may be older than the token, so it must
 * not be stored under it. */
static void make_token(struct memcached_answers *memcached, const char *key)
{
	char token[MEMCACHED_ANSWERS_TOKEN];

	if (draw_token(memcached, token) &&
		!cache_post_new(memcached->cache, key, token, sizeof token, TOKEN_TTL_S))
		log_debug("memcached went away while a token was made");
}

/* Whether a value is an answer under the present tokens: then it is in *answer. */
static bool read_answer(const struct cache_value *value,
	const struct memcached_answers_ticket *ticket, struct answer *answer)
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

bool memcached_answers_find(struct memcached_answers *memcached, const char *agent_uuid,
	const char *text, size_t len, struct arena *arena, struct answer *answer,
	struct memcached_answers_ticket *ticket)
{
	const uint64_t view = cache_view(memcached->cache);
	char all[KEY_BYTES], dependency[KEY_BYTES], key[KEY_BYTES];
	const char *const keys[] = { all, dependency, key };
	struct cache_value values[3];

	ticket->is_valid = false;
	if (!memcached_answers_is_trusted(memcached))
		return false;
	name_key(memcached, token_place(agent_uuid), "all", all);
	token_key(memcached, agent_uuid, dependency);
	memcached_answers_key(memcached, agent_uuid, text, len, key);
	if (cache_get_many(memcached->cache, keys, 3, arena, values) == CACHE_AWAY ||
		cache_view(memcached->cache) != view)
		return false;
	*ticket = (struct memcached_answers_ticket){ .is_valid = true };
	for (size_t i = 0; i < 2; i++) {
		if (values[i].bytes == NULL || values[i].len != MEMCACHED_ANSWERS_TOKEN) {
			ticket->is_valid = false;
			make_token(memcached, keys[i]);
		} else {
			const uint64_t position = token_position(values[i].bytes);

			memcpy(ticket->tokens + i * MEMCACHED_ANSWERS_TOKEN, values[i].bytes,
				MEMCACHED_ANSWERS_TOKEN);
			if (position > ticket->position)
				ticket->position = position;
		}
	}
	return read_answer(&values[2], ticket, answer);
}

bool memcached_answers_store(struct memcached_answers *memcached,
	const struct memcached_answers_ticket *ticket, const char *agent_uuid, const char *text,
	size_t len, struct arena *arena, const struct answer *answer)
{
	char key[KEY_BYTES];
	struct buf value;

	if (!ticket->is_valid || !memcached_answers_is_trusted(memcached))
		return false;
	memcached_answers_key(memcached, agent_uuid, text, len, key);
	buf_init(&value, arena, HEAD_BYTES + answer->len + 1);
	buf_put(&value, ticket->tokens, sizeof ticket->tokens);
	buf_put(&value, answer->etag, ANSWER_ETAG_LEN);
	buf_put(&value, answer->body, answer->len);
	return cache_post(memcached->cache, key, value.data, value.len, ANSWER_TTL_S);
}

/* ---- Changes ---- */

/* For each token that is not known to have been stored, sets another new one. The first may have
 * reached the server after all and been replaced since; it must never be current again. */
static enum cache_status set_anew(struct memcached_answers *memcached,
	const struct cache_item *items, const bool *known, size_t count)
{
	enum cache_status status = CACHE_HIT;
	char token[MEMCACHED_ANSWERS_TOKEN];

	for (size_t i = 0; i < count && status == CACHE_HIT; i++)
		if (!known[i])
			status = !draw_token(memcached, token)
					 ? CACHE_AWAY
					 : cache_set(memcached->cache, items[i].key, token,
						   sizeof token, TOKEN_TTL_S);
	return status;
}

bool memcached_answers_changed(struct memcached_answers *memcached, const char *const *agent_uuids,
	size_t count, struct arena *arena)
{
	char keys[CACHE_ITEMS_MAX][KEY_BYTES], tokens[CACHE_ITEMS_MAX][MEMCACHED_ANSWERS_TOKEN];
	struct cache_item items[CACHE_ITEMS_MAX];
	bool known[CACHE_ITEMS_MAX];
	const uint64_t view = cache_view(memcached->cache);
	enum cache_status status;
	size_t used = 1;

	if (!cache_has_servers(memcached->cache))
		return true;
	token_key(memcached, NULL, keys[0]);
	for (size_t i = 0; i < count; i++)
		if (agent_uuids[i] != NULL)
			token_key(memcached, agent_uuids[i], keys[used++]);
	for (size_t i = 0; i < used; i++) {
		if (!draw_token(memcached, tokens[i]))
			return distrust(memcached);
		items[i] = (struct cache_item){ keys[i], tokens[i], MEMCACHED_ANSWERS_TOKEN };
	}
	status = cache_set_many(memcached->cache, items, used, TOKEN_TTL_S, arena, known);
	if (status == CACHE_MISS)
		status = set_anew(memcached, items, known, used);
	/* Another view is void until it is settled, which is after this change. */
	if (status == CACHE_HIT || cache_view(memcached->cache) != view)
		return true;
	return distrust(memcached);
}

bool memcached_answers_drop_all(struct memcached_answers *memcached)
{
	uint64_t view;

	if (!cache_has_servers(memcached->cache))
		return true;
	return void_all(memcached, &view) || distrust(memcached);
}

/* ---- Notes of the listener ---- */

static const char *note(struct memcached_answers *memcached, const char *name, struct arena *arena)
{
	struct cache_value value;
	char key[KEY_BYTES];

	name_key(memcached, NULL, name, key);
	return cache_get(memcached->cache, key, arena, &value) == CACHE_HIT
		       ? arena_strndup(arena, value.bytes, value.len)
		       : "";
}

static void set_note(
	struct memcached_answers *memcached, const char *name, const char *bytes, size_t len)
{
	char key[KEY_BYTES];

	name_key(memcached, NULL, name, key);
	if (cache_set(memcached->cache, key, bytes, len, TOKEN_TTL_S) == CACHE_AWAY)
		log_debug("memcached went away while \"%s\" was noted", name);
}

/* " SERVERS", which a note of what was heard ends with. */
static const char *members_text(
	const struct memcached_answers *memcached, uint64_t view, struct arena *arena)
{
	return arena_printf(arena, " %016" PRIx64, cache_members(memcached->cache, view));
}

const char *memcached_answers_heard(struct memcached_answers *memcached, struct arena *arena)
{
	const uint64_t view = cache_view(memcached->cache);
	const char *heard = note(memcached, "heard", arena);
	const size_t place_len = strcspn(heard, " ");

	return strcmp(heard + place_len, members_text(memcached, view, arena)) == 0
		       ? arena_strndup(arena, heard, place_len)
		       : "";
}

void memcached_answers_set_heard(
	struct memcached_answers *memcached, const char *place, struct arena *arena)
{
	const uint64_t view = cache_view(memcached->cache);
	const char *heard;

	if (!memcached_answers_is_trusted(memcached))
		return;
	heard = arena_printf(arena, "%s%s", place, members_text(memcached, view, arena));
	set_note(memcached, "heard", heard, strlen(heard));
}

const char *memcached_answers_hottest(struct memcached_answers *memcached, struct arena *arena)
{
	return note(memcached, "hottest", arena);
}

void memcached_answers_set_hottest(
	struct memcached_answers *memcached, const char *lines, size_t len)
{
	set_note(memcached, "hottest", lines, len);
}
