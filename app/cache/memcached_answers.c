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
	HEAD_BYTES = 2 * LEVEL2_TOKEN + ANSWER_ETAG_LEN,
};

/* ---- Keys ---- */

static void digest_hex(const struct buf *text, char hex[LEVEL2_SPACE])
{
	uint8_t digest[SHA256_BYTES];

	sha256(text->data, text->len, digest);
	hex_encode(digest, (LEVEL2_SPACE - 1) / 2, hex);
}

/* Which database, and which key of seals. */
static void put_space(struct buf *text, struct arena *arena, const struct settings *settings)
{
	char key_id[SEAL_ID];

	seal_key_id(settings->cache_key, key_id);
	buf_printf(text, "%s\n%s", settings_database(arena, settings), key_id);
}

void level2_edition(
	struct arena *arena, const struct settings *settings, char edition[LEVEL2_SPACE])
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

void level2_init(struct level2 *level2, struct arena *arena, const struct settings *settings,
	struct cache *cache, struct answers *answers, const struct progress *progress)
{
	struct buf text;

	*level2 = (struct level2){ .cache = cache, .answers = answers, .progress = progress };
	buf_init(&text, arena, 1024);
	put_space(&text, arena, settings);
	digest_hex(&text, level2->space);
	level2_edition(arena, settings, level2->edition);
}

/* `place` says on which server it lies; NULL: the name itself does. */
static void name_key(
	const struct level2 *level2, const char *place, const char *name, char key[KEY_BYTES])
{
	snprintf(key, KEY_BYTES, "%s%s%sareg:%s:%s", place == NULL ? "" : "{",
		place == NULL ? "" : place, place == NULL ? "" : "}", level2->space, name);
}

static const char registry[] = "registry";

/* Where the token lies that answers about the agent, or (NULL) the registry, depend on. */
static const char *token_place(const char *agent_uuid)
{
	return agent_uuid == NULL ? registry : agent_uuid;
}

static void token_key(const struct level2 *level2, const char *agent_uuid, char key[KEY_BYTES])
{
	char name[64];

	snprintf(name, sizeof name, "agent:%.36s", agent_uuid == NULL ? "" : agent_uuid);
	name_key(level2, token_place(agent_uuid), agent_uuid == NULL ? registry : name, key);
}

/* SHA-256 whole: nobody finds two requests that share an answer. It lies where the agent's token
 * does; those of the registry are spread. */
static void answer_key(const struct level2 *level2, const char *agent_uuid, const char *text,
	size_t len, char key[KEY_BYTES])
{
	uint8_t digest[SHA256_BYTES];
	char hex[2 * SHA256_BYTES + 1], name[sizeof hex + LEVEL2_SPACE];

	sha256(text, len, digest);
	hex_encode(digest, sizeof digest, hex);
	snprintf(name, sizeof name, "%s:%s", level2->edition, hex);
	name_key(level2, agent_uuid, name, key);
}

/* ---- Tokens ---- */

/* Half of it random, half the position that is required when it is drawn. */
static bool draw_token(const struct level2 *level2, char token[LEVEL2_TOKEN])
{
	const uint64_t position =
		htobe64(level2->progress == NULL ? 0 : progress_required(level2->progress));

	memcpy(token + LEVEL2_TOKEN - sizeof position, &position, sizeof position);
	return random_text(token, LEVEL2_TOKEN - sizeof position);
}

static uint64_t token_position(const char *token)
{
	uint64_t position;

	memcpy(&position, token + LEVEL2_TOKEN - sizeof position, sizeof position);
	return be64toh(position);
}

/* ---- Trust ---- */

bool level2_is_trusted(const struct level2 *level2)
{
	return level2->cache != NULL && cache_has_servers(level2->cache) &&
	       (level2->answers == NULL ||
		       (answers_is_trusted(level2->answers) && cache_is_settled(level2->cache)));
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

static bool draw_one(const void *level2, char *token, size_t len)
{
	(void)len;
	return draw_token(level2, token);
}

/* A new token of everything, on each server. */
static bool void_all(struct level2 *level2, uint64_t *view)
{
	char key[KEY_BYTES];

	name_key(level2, NULL, "all", key);
	return cache_set_everywhere(level2->cache, key, draw_one, level2, LEVEL2_TOKEN, TOKEN_TTL_S,
		       view) == CACHE_HIT;
}

void level2_recover(struct level2 *level2)
{
	const uint64_t distrusts = answers_distrusts(level2->answers);
	uint64_t view;

	if (!cache_has_servers(level2->cache))
		return;
	cache_probe(level2->cache);
	if (level2_is_trusted(level2) || !void_all(level2, &view))
		return;
	answers_trust(level2->answers, distrusts);
	cache_settle(level2->cache, view);
	if (level2_is_trusted(level2))
		log_info("answers in memcached are void, and it is used again");
}

/* ---- Answers ---- */

/* Makes a token, for the next answer: this one may be older than it. */
static void make_token(struct level2 *level2, const char *key)
{
	char token[LEVEL2_TOKEN];

	if (draw_token(level2, token) &&
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
	const uint64_t view = cache_view(level2->cache);
	char all[KEY_BYTES], dependency[KEY_BYTES], key[KEY_BYTES];
	const char *const keys[] = { all, dependency, key };
	struct cache_value values[3];

	ticket->is_valid = false;
	if (!level2_is_trusted(level2))
		return false;
	name_key(level2, token_place(agent_uuid), "all", all);
	token_key(level2, agent_uuid, dependency);
	answer_key(level2, agent_uuid, text, len, key);
	if (cache_get_many(level2->cache, keys, 3, arena, values) == CACHE_AWAY ||
		cache_view(level2->cache) != view)
		return false;
	*ticket = (struct level2_ticket){ .is_valid = true };
	for (size_t i = 0; i < 2; i++) {
		if (values[i].bytes == NULL || values[i].len != LEVEL2_TOKEN) {
			ticket->is_valid = false;
			make_token(level2, keys[i]);
		} else {
			const uint64_t position = token_position(values[i].bytes);

			memcpy(ticket->tokens + i * LEVEL2_TOKEN, values[i].bytes, LEVEL2_TOKEN);
			if (position > ticket->position)
				ticket->position = position;
		}
	}
	return read_answer(&values[2], ticket, answer);
}

bool level2_store(struct level2 *level2, const struct level2_ticket *ticket, const char *agent_uuid,
	const char *text, size_t len, struct arena *arena, const struct answer *answer)
{
	char key[KEY_BYTES];
	struct buf value;

	if (!ticket->is_valid || !level2_is_trusted(level2))
		return false;
	answer_key(level2, agent_uuid, text, len, key);
	buf_init(&value, arena, HEAD_BYTES + answer->len + 1);
	buf_put(&value, ticket->tokens, sizeof ticket->tokens);
	buf_put(&value, answer->etag, ANSWER_ETAG_LEN);
	buf_put(&value, answer->body, answer->len);
	return cache_post(level2->cache, key, value.data, value.len, ANSWER_TTL_S);
}

/* ---- Changes ---- */

/* Sets a new token where it is not known of the one before that it was stored: it may be there after
 * all, hidden by a later one, and must not come back. */
static enum cache_status set_anew(
	struct level2 *level2, const struct cache_item *items, const bool *known, size_t count)
{
	enum cache_status status = CACHE_HIT;
	char token[LEVEL2_TOKEN];

	for (size_t i = 0; i < count && status == CACHE_HIT; i++)
		if (!known[i])
			status = !draw_token(level2, token)
					 ? CACHE_AWAY
					 : cache_set(level2->cache, items[i].key, token,
						   sizeof token, TOKEN_TTL_S);
	return status;
}

bool level2_changed(
	struct level2 *level2, const char *const *agent_uuids, size_t count, struct arena *arena)
{
	char keys[CACHE_ITEMS_MAX][KEY_BYTES], tokens[CACHE_ITEMS_MAX][LEVEL2_TOKEN];
	struct cache_item items[CACHE_ITEMS_MAX];
	bool known[CACHE_ITEMS_MAX];
	const uint64_t view = cache_view(level2->cache);
	enum cache_status status;
	size_t used = 1;

	if (!cache_has_servers(level2->cache))
		return true;
	token_key(level2, NULL, keys[0]);
	for (size_t i = 0; i < count; i++)
		if (agent_uuids[i] != NULL)
			token_key(level2, agent_uuids[i], keys[used++]);
	for (size_t i = 0; i < used; i++) {
		if (!draw_token(level2, tokens[i]))
			return distrust(level2);
		items[i] = (struct cache_item){ keys[i], tokens[i], LEVEL2_TOKEN };
	}
	status = cache_set_many(level2->cache, items, used, TOKEN_TTL_S, arena, known);
	if (status == CACHE_MISS)
		status = set_anew(level2, items, known, used);
	/* Another view is void until it is settled, which is after this change. */
	if (status == CACHE_HIT || cache_view(level2->cache) != view)
		return true;
	return distrust(level2);
}

bool level2_drop_all(struct level2 *level2)
{
	uint64_t view;

	if (!cache_has_servers(level2->cache))
		return true;
	return void_all(level2, &view) || distrust(level2);
}

/* ---- Notes of the listener ---- */

static const char *note(struct level2 *level2, const char *name, struct arena *arena)
{
	struct cache_value value;
	char key[KEY_BYTES];

	name_key(level2, NULL, name, key);
	return cache_get(level2->cache, key, arena, &value) == CACHE_HIT
		       ? arena_strndup(arena, value.bytes, value.len)
		       : "";
}

static void set_note(struct level2 *level2, const char *name, const char *bytes, size_t len)
{
	char key[KEY_BYTES];

	name_key(level2, NULL, name, key);
	if (cache_set(level2->cache, key, bytes, len, TOKEN_TTL_S) == CACHE_AWAY)
		log_debug("memcached went away while \"%s\" was noted", name);
}

/* " SERVERS", which a note of what was heard ends with. */
static const char *members_text(const struct level2 *level2, uint64_t view, struct arena *arena)
{
	return arena_printf(arena, " %016" PRIx64, cache_members(level2->cache, view));
}

const char *level2_heard(struct level2 *level2, struct arena *arena)
{
	const uint64_t view = cache_view(level2->cache);
	const char *heard = note(level2, "heard", arena);
	const size_t place_len = strcspn(heard, " ");

	return strcmp(heard + place_len, members_text(level2, view, arena)) == 0
		       ? arena_strndup(arena, heard, place_len)
		       : "";
}

void level2_set_heard(struct level2 *level2, const char *place, struct arena *arena)
{
	const uint64_t view = cache_view(level2->cache);
	const char *heard;

	if (!level2_is_trusted(level2))
		return;
	heard = arena_printf(arena, "%s%s", place, members_text(level2, view, arena));
	set_note(level2, "heard", heard, strlen(heard));
}

const char *level2_hottest(struct level2 *level2, struct arena *arena)
{
	return note(level2, "hottest", arena);
}

void level2_set_hottest(struct level2 *level2, const char *lines, size_t len)
{
	set_note(level2, "hottest", lines, len);
}
