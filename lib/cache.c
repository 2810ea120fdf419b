/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memcached over libmemcached, in the text protocol: one "get" line asks for many keys. Each server
 * has a handle of its own, so that it is ours to say which one a key belongs to. libmemcached leaves
 * a failed server alone in whole seconds only and asks it again in the middle of a request: an only
 * server has a circuit breaker of ours instead, and of several the failed one leaves the view.
 */
#include "lib/cache.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <time.h>

#include <libmemcached/memcached.h>

#include "lib/clock.h"
#include "lib/log.h"
#include "lib/siphash.h"

enum {
	VALUE_MAX = 1024 * 1024 - SEAL_BYTES, /* memcached's own default limit */
	POST_MAX = 1000 * 1000, /* room for what memcached keeps beside a value */
	TTL_MAX_S = 30 * 24 * 3600, /* past that memcached takes it for a date */
	PAUSES_MAX = 8, /* times retry_ms: longest that a server is left alone that fails again */
	STEADY_MS = 60 * 1000, /* a server that was in for so long is as good as any */
	CLOCKS_APART_S = 60, /* a value lives that much longer: hosts' clocks differ */
	WARN_EVERY_S = 60, /* of wrong seals, on a host */
	COUNT_DIGITS = 20, /* of the largest number of 64 bits */
};

struct node {
	char *name; /* as it stands in the list */
	uint64_t hash; /* of that */
	memcached_st *handle;
	memcached_st *several; /* another connection: its sets wait for what is asked next */
	memcached_result_st result; /* reused by every fetch */
	int64_t closed_until_ms; /* breaker, of an only server: 0 while it is well */
	uint32_t joined; /* the generation in which it came back, of our connection to it */
	/* For who probes. */
	int64_t probe_at_ms; /* 0: it was in when last looked at */
	int64_t pause_ms; /* before the next probe */
	int64_t back_at_ms; /* when it was last put in */
};

struct cache {
	const struct cache_options *options;
	struct cache_view *view;
	struct cache_view own; /* where the options give none */
	uint64_t list; /* of the names in their order: says what the bits of the view mean */
	uint64_t state; /* of the view, at the beginning of the exchange at hand */
	uint32_t in; /* the servers that are in by that, a bit each */
	struct node nodes[CACHE_SERVERS_MAX];
	uint32_t node_count;
	uint64_t asked_at_us; /* when the exchange at hand began */
	uint64_t waited_us;
	char key_id[SEAL_ID];
	char *sealed; /* a value on its way, with its seal */
	size_t sealed_room;
};

/* One entry of a server list, as it stands in the list: not NUL-terminated. */
struct server {
	const char *host; /* or the path of a socket */
	size_t host_len;
	in_port_t port; /* 0: a Unix socket */
	const char *name; /* the whole entry */
	size_t name_len;
};

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Reads the entry at *list and moves behind it. False with *why when it is not right. */
static bool next_server(const char **list, struct server *server, const char **why)
{
	const char *start = *list + strspn(*list, " \t");
	size_t len = strcspn(start, ",");
	const char *colon;
	unsigned long port = 0;

	*list = start + len + (start[len] == ',');
	while (len && strchr(" \t", start[len - 1]))
		len--;
	if (len > 5 && strncmp(start, "unix:", 5) == 0) {
		*server = (struct server){ start + 5, len - 5, 0, start, len };
		*why = start[5] != '/' ? "the path of a socket must begin with /"
		       : len - 5 >= sizeof(((struct sockaddr_un *)0)->sun_path)
			       ? "the path of a socket is too long"
			       : NULL;
		return !*why;
	}

	colon = memrchr(start, ':', len);
	*why = "not host:port, [address]:port or unix:/path";
	if (!colon || colon == start || colon + 1 == start + len || start + len - colon > 6)
		return false;
	for (const char *c = colon + 1; c < start + len; c++) {
		if (*c < '0' || *c > '9')
			return false;
		port = port * 10 + (unsigned long)(*c - '0');
	}
	*server = (struct server){ start, (size_t)(colon - start), (in_port_t)port, start, len };
	if (start[0] == '[') {
		if (server->host_len < 4 || colon[-1] != ']')
			return false;
		server->host++;
		server->host_len -= 2;
	} else if (memchr(start, ':', server->host_len)) {
		*why = "an IPv6 address must stand in [ ]";
		return false;
	}
	for (size_t i = 0; i < server->host_len; i++)
		if ((unsigned char)server->host[i] <= ' ' || strchr("[]/", server->host[i]))
			return false;
	*why = port == 0 || port > 65535 ? "the port is not within 1..65535" : NULL;
	return !*why;
}

static bool cache_is_blank(const char *list)
{
	return list[strspn(list, " \t")] == '\0';
}

bool cache_servers_check(struct arena *arena, const char *servers, const char **why)
{
	const char *fault;
	struct server server;
	size_t count = 0;

	while (!cache_is_blank(servers)) {
		const char *entry = servers + strspn(servers, " \t");

		if (!next_server(&servers, &server, &fault)) {
			*why = arena_printf(
				arena, "%.*s: %s", (int)strcspn(entry, ","), entry, fault);
			return false;
		}
		if (++count > CACHE_SERVERS_MAX) {
			*why = arena_printf(arena, "more than %d servers", CACHE_SERVERS_MAX);
			return false;
		}
	}
	return true;
}

static void set_behaviors(const struct cache *cache, memcached_st *handle)
{
	const uint64_t ms = (uint64_t)cache->options->timeout_ms;
	const struct {
		memcached_behavior_t behavior;
		uint64_t value;
	} behaviors[] = {
		{ MEMCACHED_BEHAVIOR_NO_BLOCK, 1 },
		{ MEMCACHED_BEHAVIOR_TCP_NODELAY, 1 },
		{ MEMCACHED_BEHAVIOR_CONNECT_TIMEOUT, ms },
		{ MEMCACHED_BEHAVIOR_POLL_TIMEOUT, ms },
		{ MEMCACHED_BEHAVIOR_SND_TIMEOUT, ms * 1000 },
		{ MEMCACHED_BEHAVIOR_RCV_TIMEOUT, ms * 1000 },
		{ MEMCACHED_BEHAVIOR_RETRY_TIMEOUT, 0 }, /* the breaker's and the view's work */
		{ MEMCACHED_BEHAVIOR_DEAD_TIMEOUT, 0 },
	};

	for (size_t i = 0; i < sizeof(behaviors) / sizeof(behaviors[0]); i++)
		memcached_behavior_set(handle, behaviors[i].behavior, behaviors[i].value);
}

/* The same on every host, so that all of them find a key in the same place. */
static uint64_t hash_of(const char *text, size_t len)
{
	static const uint8_t no_secret[16];

	return siphash(no_secret, text, len);
}

/* Every bit of the sum decides about every bit of the result (the finalizer of MurmurHash3). */
static uint64_t mixed(uint64_t sum)
{
	sum = (sum ^ sum >> 33) * UINT64_C(0xff51afd7ed558ccd);
	sum = (sum ^ sum >> 33) * UINT64_C(0xc4ceb9fe1a85ec53);
	return sum ^ sum >> 33;
}

static void open_node(struct cache *cache, const struct server *server)
{
	struct node *node = &cache->nodes[cache->node_count++];
	char *host = strndup(server->host, server->host_len);

	node->name = strndup(server->name, server->name_len);
	node->handle = memcached_create(NULL);
	if (!host || !node->name || !node->handle ||
		memcached_failed(server->port
					 ? memcached_server_add(node->handle, host, server->port)
					 : memcached_server_add_unix_socket(node->handle, host)) ||
		!memcached_result_create(node->handle, &node->result))
		abort();
	set_behaviors(cache, node->handle);
	node->several = memcached_clone(NULL, node->handle);
	if (!node->several)
		abort();
	memcached_behavior_set(node->several, MEMCACHED_BEHAVIOR_BUFFER_REQUESTS, 1);
	memcached_behavior_set(node->several, MEMCACHED_BEHAVIOR_NOREPLY, 1);
	node->hash = hash_of(node->name, server->name_len);
	cache->list = mixed(cache->list ^ node->hash);
	free(host);
}

struct cache *cache_new(const struct cache_options *options)
{
	struct cache *cache = calloc(1, sizeof(*cache));
	const char *list = options->servers, *why;
	struct server server;

	if (!cache)
		abort();
	cache->options = options;
	cache->view = options->view ? options->view : &cache->own;
	seal_key_id(options->key, cache->key_id);
	while (!cache_is_blank(list) && next_server(&list, &server, &why))
		open_node(cache, &server);
	return cache;
}

void cache_free(struct cache *cache)
{
	if (!cache)
		return;
	for (uint32_t i = 0; i < cache->node_count; i++) {
		memcached_result_free(&cache->nodes[i].result);
		memcached_free(cache->nodes[i].several);
		memcached_free(cache->nodes[i].handle);
		free(cache->nodes[i].name);
	}
	free(cache->sealed);
	free(cache);
}

bool cache_has_servers(const struct cache *cache)
{
	return cache->node_count > 0;
}

const char *cache_key_id(const struct cache *cache)
{
	return cache->key_id;
}

uint64_t cache_waited_us(const struct cache *cache)
{
	return cache->waited_us;
}

/* ---- The view ---- */

/* In a state, the servers that are out are the lower half and the generation is the upper one. */
static uint64_t next_state(uint64_t state, uint32_t out)
{
	return ((state >> 32) + 1) << 32 | out;
}

static uint64_t cache_load(const uint64_t *word)
{
	return __atomic_load_n(word, __ATOMIC_SEQ_CST);
}

static bool change_state(struct cache *cache, uint64_t *state, uint64_t next)
{
	return __atomic_compare_exchange_n(
		&cache->view->state, state, next, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

/* Whether the bits of the view are of another list: that of a program before or after a reload. */
static bool is_foreign(const struct cache *cache)
{
	const uint64_t list = cache_load(&cache->view->list);

	return list != 0 && list != cache->list;
}

static uint32_t servers_in(const struct cache *cache, uint64_t state)
{
	return ~(uint32_t)state & (uint32_t)((UINT64_C(1) << cache->node_count) - 1);
}

static void cache_disconnect(struct node *node)
{
	memcached_quit(node->handle);
	memcached_quit(node->several);
}

void cache_abandon(struct cache *cache)
{
	for (uint32_t i = 0; cache != NULL && i < cache->node_count; i++)
		cache_disconnect(&cache->nodes[i]);
}

/* A server that has come back may have been cut off: our connections to it may be dead without our
 * knowing. */
static void connect_anew(struct cache *cache)
{
	for (uint32_t i = 0; i < cache->node_count; i++) {
		const uint32_t joined = __atomic_load_n(&cache->view->joined[i], __ATOMIC_SEQ_CST);

		if (joined != cache->nodes[i].joined)
			cache_disconnect(&cache->nodes[i]);
		cache->nodes[i].joined = joined;
	}
}

/* Begins an exchange: by the view as it is now. */
static void cache_begin(struct cache *cache)
{
	const uint64_t state = cache_load(&cache->view->state);

	if (state != cache->state)
		connect_anew(cache);
	cache->state = state;
	cache->in = is_foreign(cache) ? 0 : servers_in(cache, state);
	cache->asked_at_us = clock_us();
}

uint64_t cache_view(const struct cache *cache)
{
	return cache_load(&cache->view->state);
}

bool cache_is_settled(const struct cache *cache)
{
	return cache_load(&cache->view->settled) == cache_load(&cache->view->state) &&
	       !is_foreign(cache);
}

void cache_settle(struct cache *cache, uint64_t view)
{
	__atomic_store_n(&cache->view->settled, view, __ATOMIC_SEQ_CST);
}

uint64_t cache_refused(const struct cache_view *view)
{
	return cache_load(&view->refused);
}

uint64_t cache_members(const struct cache *cache, uint64_t view)
{
	const uint32_t in = servers_in(cache, view);
	uint64_t sum = 0;

	for (uint32_t i = 0; i < cache->node_count; i++)
		if (in >> i & 1)
			sum += cache->nodes[i].hash;
	return sum;
}

void cache_claim(struct cache *cache)
{
	uint64_t state = cache_load(&cache->view->state);
	const uint64_t list = cache_load(&cache->view->list);

	if (list == cache->list)
		return;
	/* A process that sees the new list must see a view that is not settled. */
	while (list != 0 && !change_state(cache, &state, next_state(state, 0)))
		;
	for (size_t i = 0; i < CACHE_SERVERS_MAX; i++)
		__atomic_store_n(&cache->view->late[i], 0, __ATOMIC_RELAXED);
	__atomic_store_n(&cache->view->list, cache->list, __ATOMIC_SEQ_CST);
}

static void take_out(struct cache *cache, uint32_t at, memcached_return_t result)
{
	uint64_t state = cache->state;
	const uint64_t next = next_state(state, (uint32_t)state | UINT32_C(1) << at);

	/* Else the view is another one already: whether this server fails in that, the next exchange
	 * will show. */
	if (!change_state(cache, &state, next))
		return;
	cache->state = next;
	log_event(LOG_LEVEL_WARN, "cache server taken out",
		LOG_TEXT("server", cache->nodes[at].name),
		LOG_TEXT("reason", memcached_strerror(cache->nodes[at].handle, result)));
}

/* Asks one server for a key, whether it is there or not. */
static memcached_return_t cache_knock(struct node *node)
{
	return memcached_exist(node->handle, "areg:check", strlen("areg:check"));
}

static bool is_answer(memcached_return_t result)
{
	switch (result) {
	case MEMCACHED_SUCCESS:
	case MEMCACHED_STORED:
	case MEMCACHED_DELETED:
	case MEMCACHED_END:
	case MEMCACHED_NOTFOUND:
	case MEMCACHED_NOTSTORED:
	case MEMCACHED_E2BIG:
	case MEMCACHED_SERVER_MEMORY_ALLOCATION_FAILURE:
		return true;
	default:
		return false;
	}
}

/* Counts a time-out. Whether that was one too many; an answer in between begins the count anew. */
static bool is_too_late(struct cache *cache, uint32_t at)
{
	return __atomic_add_fetch(&cache->view->late[at], 1, __ATOMIC_RELAXED) >= CACHE_LATE_MOST;
}

/* Every answer comes by here: the shared word is written only when it changes. */
static void is_in_time(struct cache *cache, uint32_t at)
{
	if (__atomic_load_n(&cache->view->late[at], __ATOMIC_RELAXED) != 0)
		__atomic_store_n(&cache->view->late[at], 0, __ATOMIC_RELAXED);
}

static void put_in(struct cache *cache, uint32_t at)
{
	uint64_t state = cache_load(&cache->view->state), next;

	is_in_time(cache, at);
	do {
		next = next_state(state, (uint32_t)state & ~(UINT32_C(1) << at));
		__atomic_store_n(
			&cache->view->joined[at], (uint32_t)(next >> 32), __ATOMIC_SEQ_CST);
	} while (!change_state(cache, &state, next));
	log_event(LOG_LEVEL_INFO, "cache server put in again",
		LOG_TEXT("server", cache->nodes[at].name));
}

/* When to knock at a server that is out: what fails soon after it was put in is left alone for
 * twice as long as before. */
static void plan_probe(const struct cache *cache, struct node *node, int64_t now)
{
	const int64_t least = cache->options->retry_ms;

	node->pause_ms *= 2;
	if (node->pause_ms < least ||
		(node->probe_at_ms == 0 && now - node->back_at_ms > STEADY_MS))
		node->pause_ms = least;
	if (node->pause_ms > PAUSES_MAX * least)
		node->pause_ms = PAUSES_MAX * least;
	node->probe_at_ms = now + node->pause_ms;
}

void cache_probe(struct cache *cache)
{
	cache_begin(cache);
	for (uint32_t i = 0; i < cache->node_count && !is_foreign(cache); i++) {
		struct node *node = &cache->nodes[i];
		const int64_t now = now_ms();

		if (cache->in >> i & 1) {
			node->probe_at_ms = 0;
		} else if (node->probe_at_ms == 0) {
			plan_probe(cache, node, now);
		} else if (now >= node->probe_at_ms && is_answer(cache_knock(node))) {
			put_in(cache, i);
			node->probe_at_ms = 0;
			node->back_at_ms = now;
		} else if (now >= node->probe_at_ms) {
			plan_probe(cache, node, now);
		}
	}
}

/* ---- Keys ---- */

/* A key without what says where it belongs. */
struct key {
	const char *text;
	size_t len;
	uint64_t place; /* a hash of what decides that */
};

static struct key read_key(const char *key)
{
	const char *end = *key == '{' ? strchr(key, '}') : NULL;
	const char *text = end ? end + 1 : key;
	const size_t len = strlen(text);

	return (struct key){ text, len,
		end ? hash_of(key + 1, (size_t)(end - key - 1)) : hash_of(text, len) };
}

/* A key that memcached cannot hold: nothing is there, nothing can be put there. */
static bool key_valid(const struct key *key)
{
	if (key->len == 0 || key->len > CACHE_KEY_MAX)
		return false;
	for (size_t i = 0; i < key->len; i++)
		if ((unsigned char)key->text[i] <= ' ' || key->text[i] == 0x7f)
			return false;
	return true;
}

/* Which of the servers in `in` a place belongs to: the one that draws the highest number for it
 * (rendezvous hashing: Thaler and Ravishankar, 1998). node_count when there is none. */
static uint32_t owner_of(const struct cache *cache, uint32_t in, uint64_t place)
{
	uint32_t owner = cache->node_count;
	uint64_t highest = 0;

	if (cache->node_count == 1)
		return in ? 0 : 1;
	for (uint32_t i = 0; i < cache->node_count; i++) {
		const uint64_t drawn = mixed(place ^ cache->nodes[i].hash);

		if ((in >> i & 1) && (owner == cache->node_count || drawn > highest)) {
			owner = i;
			highest = drawn;
		}
	}
	return owner;
}

size_t cache_server_of(const struct cache *cache, uint64_t view, const char *key)
{
	return owner_of(cache, servers_in(cache, view), read_key(key).place);
}

/* ---- Seals ---- */

static uint64_t cache_now_s(void)
{
	return clock_unix_ms() / 1000;
}

static time_t expiration(unsigned ttl_s)
{
	return (time_t)(ttl_s < TTL_MAX_S ? ttl_s : TTL_MAX_S);
}

/* The value with its seal behind it, len + SEAL_BYTES bytes, until the next call. NULL when there is
 * no memory for it. */
static const char *sealed(
	struct cache *cache, const struct key *key, const char *bytes, size_t len, unsigned ttl_s)
{
	if (cache->sealed_room < len + SEAL_BYTES) {
		char *more = realloc(cache->sealed, len + SEAL_BYTES);

		if (!more)
			return NULL;
		cache->sealed = more;
		cache->sealed_room = len + SEAL_BYTES;
	}
	if (len)
		memcpy(cache->sealed, bytes, len);
	seal_put(cache->options->key, key->text, key->len, cache->sealed, len,
		cache_now_s() + (uint64_t)expiration(ttl_s) + CLOCKS_APART_S);
	return cache->sealed;
}

/* Counts a value with a wrong seal; one of them a minute is logged. */
static void cache_refuse(struct cache *cache, const struct node *node, const struct key *key)
{
	const uint64_t now = cache_now_s();
	uint64_t warn_at = cache_load(&cache->view->warn_at_s);

	__atomic_add_fetch(&cache->view->refused, 1, __ATOMIC_RELAXED);
	if (now < warn_at || !__atomic_compare_exchange_n(&cache->view->warn_at_s, &warn_at,
				     now + WARN_EVERY_S, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		return;
	log_event(LOG_LEVEL_WARN,
		"memcached holds what this registry did not store there; it is not used",
		LOG_TEXT("server", node->name), LOG_TEXT("key", key->text),
		LOG_NUMBER("so_far", (int64_t)cache_refused(cache->view)));
}

/* ---- Exchanges ---- */

static bool is_closed(const struct node *node)
{
	return node->closed_until_ms && now_ms() < node->closed_until_ms;
}

static void close_breaker(struct cache *cache, struct node *node, memcached_return_t result)
{
	if (!node->closed_until_ms)
		log_event(LOG_LEVEL_WARN, "cache not reached", LOG_TEXT("server", node->name),
			LOG_TEXT("reason", memcached_strerror(node->handle, result)));
	node->closed_until_ms = now_ms() + cache->options->retry_ms;
}

/* A connection may have died of age, or with a server that was started again since: what answers at
 * once on another one stays. */
static bool cache_is_lost(struct node *node, memcached_return_t result)
{
	return result == MEMCACHED_TIMEOUT || !is_answer(cache_knock(node));
}

/* Whether the server was reached; minds the breaker, the view and the time that it took. */
static bool reached(struct cache *cache, uint32_t at, memcached_return_t result)
{
	struct node *node = &cache->nodes[at];
	uint64_t now_us;

	/* What ended one connection ended the other. A server that is merely slow would be waited
	 * for again. */
	if (!is_answer(result) && result != MEMCACHED_TIMEOUT)
		cache_disconnect(node);
	if (is_answer(result)) {
		if (node->closed_until_ms)
			log_event(LOG_LEVEL_INFO, "cache reached again",
				LOG_TEXT("server", node->name));
		node->closed_until_ms = 0;
		is_in_time(cache, at);
	} else if (result == MEMCACHED_TIMEOUT && !is_too_late(cache, at)) {
		log_debug("%s is late", node->name);
	} else if (cache->node_count == 1) {
		close_breaker(cache, node, result);
	} else if (cache_is_lost(node, result)) {
		take_out(cache, at, result);
	}
	now_us = clock_us();
	cache->waited_us += now_us - cache->asked_at_us;
	cache->asked_at_us = now_us;
	return is_answer(result);
}

enum cache_status cache_get(
	struct cache *cache, const char *key, struct arena *arena, struct cache_value *value)
{
	return cache_get_many(cache, &key, 1, arena, value);
}

/* A question for several keys, and whom each of them is asked. */
struct question {
	const struct cache_item *items; /* to be stored before, one for each key; NULL: none */
	unsigned ttl_s; /* of these */
	bool has_seals; /* what is asked for; numbers have none */
	const struct key *keys;
	const uint8_t *owners; /* CACHE_SERVERS_MAX: nobody */
	size_t count;
	struct arena *arena;
	struct cache_value *values;
};

/* Puts a fetched result where it belongs: at every place that asked for its key. False, with the key
 * that has it in *refused, when its seal is wrong. */
static bool place(struct cache *cache, struct node *node, const struct question *question,
	const struct key **refused)
{
	const char *name = memcached_result_key_value(&node->result);
	const size_t name_len = memcached_result_key_length(&node->result);
	const char *value = memcached_result_value(&node->result);
	size_t len = memcached_result_length(&node->result);
	const bool is_right =
		!question->has_seals ||
		seal_holds(cache->options->key, name, name_len, value, len, cache_now_s(), &len);
	char *bytes = is_right ? arena_alloc(question->arena, len + 1) : NULL;

	if (is_right && len)
		memcpy(bytes, value, len);
	for (size_t i = 0; i < question->count; i++) {
		if (question->keys[i].len != name_len ||
			memcmp(question->keys[i].text, name, name_len) != 0)
			continue;
		if (is_right)
			question->values[i] = (struct cache_value){ bytes, len };
		else
			*refused = &question->keys[i];
	}
	return is_right;
}

static memcached_st *connection(const struct node *node, const struct question *question)
{
	return question->items ? node->several : node->handle;
}

static memcached_return_t send_question(
	struct cache *cache, uint32_t at, const struct question *question)
{
	memcached_st *handle = connection(&cache->nodes[at], question);
	const size_t room = question->count * sizeof(size_t);
	const char **asked = arena_alloc(question->arena, room);
	size_t *lengths = arena_alloc(question->arena, room);
	size_t count = 0;

	for (size_t i = 0; i < question->count; i++) {
		const struct key *key = &question->keys[i];
		const struct cache_item *item = question->items ? &question->items[i] : NULL;
		memcached_return_t result = MEMCACHED_SUCCESS;
		const char *bytes;

		if (question->owners[i] != at)
			continue;
		if (item) {
			bytes = sealed(cache, key, item->bytes, item->len, question->ttl_s);
			result = !bytes ? MEMCACHED_MEMORY_ALLOCATION_FAILURE
					: memcached_set(handle, key->text, key->len, bytes,
						  item->len + SEAL_BYTES,
						  expiration(question->ttl_s), 0);
		}
		if (memcached_failed(result))
			return result;
		asked[count] = key->text;
		lengths[count++] = key->len;
	}
	return memcached_mget(handle, asked, lengths, count);
}

/* Takes away what has a wrong seal: who stores a value only where there is none finds room again.
 * Nobody waits for it, and should somebody have stored a right one just now, it is merely lost. */
static void cache_drop(struct node *node, const struct key *key)
{
	memcached_behavior_set(node->handle, MEMCACHED_BEHAVIOR_NOREPLY, 1);
	(void)memcached_delete(node->handle, key->text, key->len, 0);
	memcached_behavior_set(node->handle, MEMCACHED_BEHAVIOR_NOREPLY, 0);
}

/* Returns whether anything was there; *result says how it ended. */
static bool take_answer(struct cache *cache, uint32_t at, const struct question *question,
	memcached_return_t *result)
{
	struct node *node = &cache->nodes[at];
	const struct key *refused = NULL;
	bool hit = false;

	while (memcached_success(*result) || *result == MEMCACHED_SOME_ERRORS) {
		if (!memcached_fetch_result(connection(node, question), &node->result, result))
			break;
		hit |= place(cache, node, question, &refused);
	}
	if (refused) {
		cache_refuse(cache, node, refused);
		if (is_answer(*result))
			cache_drop(node, refused);
	}
	return hit;
}

/* All servers concerned are asked, each by one message, before the first of them is listened to. */
static enum cache_status exchange(struct cache *cache, const char *const *keys, size_t count,
	const struct cache_item *items, unsigned ttl_s, bool has_seals, struct arena *arena,
	struct cache_value *values)
{
	struct key *read = arena_alloc(arena, (count + 1) * sizeof(*read));
	uint8_t *owners = arena_alloc(arena, count + 1);
	const struct question question = { items, ttl_s, has_seals, read, owners, count, arena,
		values };
	memcached_return_t results[CACHE_SERVERS_MAX];
	uint32_t concerned = 0;
	bool hit = false, away = cache->node_count == 0;

	cache_begin(cache);
	memset(values, 0, count * sizeof(*values));
	for (size_t i = 0; i < count; i++) {
		uint32_t owner;

		read[i] = read_key(keys[i]);
		owners[i] = CACHE_SERVERS_MAX;
		if (!key_valid(&read[i]))
			continue;
		owner = owner_of(cache, cache->in, read[i].place);
		if (owner == cache->node_count || is_closed(&cache->nodes[owner])) {
			away = true;
			continue;
		}
		owners[i] = (uint8_t)owner;
		concerned |= UINT32_C(1) << owner;
	}
	for (uint32_t i = 0; i < cache->node_count; i++)
		if (concerned >> i & 1)
			results[i] = send_question(cache, i, &question);
	for (uint32_t i = 0; i < cache->node_count; i++) {
		if (!(concerned >> i & 1))
			continue;
		hit |= take_answer(cache, i, &question, &results[i]);
		away |= !reached(cache, i, results[i]);
	}
	return hit ? CACHE_HIT : away ? CACHE_AWAY : CACHE_MISS;
}

enum cache_status cache_get_many(struct cache *cache, const char *const *keys, size_t count,
	struct arena *arena, struct cache_value *values)
{
	return exchange(cache, keys, count, NULL, 0, true, arena, values);
}

/* Whether the key can be asked for now: CACHE_HIT with its server and what that knows it by, or why
 * not; `never` for a key that memcached cannot hold. */
static enum cache_status cache_ask(struct cache *cache, const char *name, enum cache_status never,
	struct key *key, uint32_t *owner)
{
	*key = read_key(name);
	if (cache->node_count == 0)
		return CACHE_AWAY;
	if (!key_valid(key))
		return never;
	cache_begin(cache);
	*owner = owner_of(cache, cache->in, key->place);
	return *owner == cache->node_count || is_closed(&cache->nodes[*owner]) ? CACHE_AWAY
									       : CACHE_HIT;
}

static enum cache_status set_on(struct cache *cache, uint32_t at, const struct key *key,
	const char *bytes, size_t len, unsigned ttl_s)
{
	memcached_return_t result;

	if (len > VALUE_MAX)
		return CACHE_TOO_LARGE;
	bytes = sealed(cache, key, bytes, len, ttl_s);
	if (!bytes)
		return CACHE_AWAY;
	result = memcached_set(cache->nodes[at].handle, key->text, key->len, bytes,
		len + SEAL_BYTES, expiration(ttl_s), 0);
	if (!reached(cache, at, result))
		return CACHE_AWAY;
	return memcached_success(result) ? CACHE_HIT : CACHE_TOO_LARGE;
}

enum cache_status cache_set(
	struct cache *cache, const char *name, const char *bytes, size_t len, unsigned ttl_s)
{
	struct key key;
	uint32_t owner;
	enum cache_status status = cache_ask(cache, name, CACHE_TOO_LARGE, &key, &owner);

	return status == CACHE_HIT ? set_on(cache, owner, &key, bytes, len, ttl_s) : status;
}

enum cache_status cache_set_everywhere(struct cache *cache, const char *name,
	bool (*draw)(const void *arg, char *bytes, size_t len), const void *arg, size_t len,
	unsigned ttl_s, uint64_t *view)
{
	const struct key key = read_key(name);
	char bytes[CACHE_DRAWN_MAX];
	bool is_done;

	/* A server that fails leaves the view: then the others are told once more. */
	do {
		cache_begin(cache);
		*view = cache->state;
		is_done = cache->in != 0;
		for (uint32_t i = 0; i < cache->node_count; i++)
			if (cache->in >> i & 1)
				is_done = is_done && !is_closed(&cache->nodes[i]) &&
					  draw(arg, bytes, len) &&
					  set_on(cache, i, &key, bytes, len, ttl_s) == CACHE_HIT;
	} while (!is_done && cache->in != 0 && cache_view(cache) != *view);
	return is_done ? CACHE_HIT : CACHE_AWAY;
}

/* Adds bytes as they are. */
static enum cache_status add_on(struct cache *cache, uint32_t at, const struct key *key,
	const char *bytes, size_t len, unsigned ttl_s)
{
	const memcached_return_t result = memcached_add(
		cache->nodes[at].handle, key->text, key->len, bytes, len, expiration(ttl_s), 0);

	if (!reached(cache, at, result))
		return CACHE_AWAY;
	if (memcached_success(result))
		return CACHE_HIT;
	return result == MEMCACHED_NOTSTORED ? CACHE_MISS : CACHE_TOO_LARGE;
}

enum cache_status cache_add(
	struct cache *cache, const char *name, const char *bytes, size_t len, unsigned ttl_s)
{
	struct key key;
	uint32_t owner;
	enum cache_status status = cache_ask(cache, name, CACHE_TOO_LARGE, &key, &owner);

	if (status == CACHE_HIT && len > VALUE_MAX)
		return CACHE_TOO_LARGE;
	if (status != CACHE_HIT)
		return status;
	bytes = sealed(cache, &key, bytes, len, ttl_s);
	return bytes ? add_on(cache, owner, &key, bytes, len + SEAL_BYTES, ttl_s) : CACHE_AWAY;
}

typedef memcached_return_t storing(memcached_st *handle, const char *key, size_t key_len,
	const char *bytes, size_t len, time_t expiration, uint32_t flags);

/*
 * "noreply": the server says nothing, also when it refuses the value, so that what it says to the
 * next command on the connection is the reply to that one.
 */
static bool post(struct cache *cache, storing *store, const char *name, const char *bytes,
	size_t len, unsigned ttl_s)
{
	struct key key;
	uint32_t owner;
	memcached_st *handle;
	memcached_return_t result;

	if (cache_ask(cache, name, CACHE_TOO_LARGE, &key, &owner) != CACHE_HIT || len > POST_MAX)
		return false;
	bytes = sealed(cache, &key, bytes, len, ttl_s);
	if (!bytes)
		return false;
	handle = cache->nodes[owner].handle;
	memcached_behavior_set(handle, MEMCACHED_BEHAVIOR_NOREPLY, 1);
	result = store(handle, key.text, key.len, bytes, len + SEAL_BYTES, expiration(ttl_s), 0);
	memcached_behavior_set(handle, MEMCACHED_BEHAVIOR_NOREPLY, 0);
	if (result == MEMCACHED_BUFFERED || memcached_success(result))
		return true;
	return reached(cache, owner, result) && memcached_success(result);
}

bool cache_post(struct cache *cache, const char *key, const char *bytes, size_t len, unsigned ttl_s)
{
	return post(cache, memcached_set, key, bytes, len, ttl_s);
}

bool cache_post_new(
	struct cache *cache, const char *key, const char *bytes, size_t len, unsigned ttl_s)
{
	return post(cache, memcached_add, key, bytes, len, ttl_s);
}

static bool is_there(const struct cache_item *item, const struct cache_value *value)
{
	return value->bytes != NULL && value->len == item->len &&
	       memcmp(value->bytes, item->bytes, item->len) == 0;
}

/*
 * Commands on a connection are done in order, so what is found as it was sent has been stored. What is
 * not may have been lost with a connection, or stored over by another: nobody knows.
 */
enum cache_status cache_set_many(struct cache *cache, const struct cache_item *items, size_t count,
	unsigned ttl_s, struct arena *arena, bool *known)
{
	const char *keys[CACHE_ITEMS_MAX] = { NULL };
	struct cache_value values[CACHE_ITEMS_MAX];
	enum cache_status status = CACHE_HIT;

	for (size_t i = 0; i < count; i++) {
		keys[i] = items[i].key;
		if (items[i].len > POST_MAX)
			return CACHE_AWAY;
	}
	if (exchange(cache, keys, count, items, ttl_s, true, arena, values) == CACHE_AWAY)
		return CACHE_AWAY;
	for (size_t i = 0; i < count; i++) {
		known[i] = is_there(&items[i], &values[i]);
		if (!known[i])
			status = CACHE_MISS;
	}
	return status;
}

/* ---- Numbers ---- */

bool cache_count_parse(const char *bytes, size_t len, uint64_t *number)
{
	size_t digits = 0;

	*number = 0;
	for (; digits < len && bytes[digits] >= '0' && bytes[digits] <= '9'; digits++)
		if (__builtin_mul_overflow(*number, 10, number) ||
			__builtin_add_overflow(*number, (uint64_t)(bytes[digits] - '0'), number))
			return false;
	/* memcached fills a number that became shorter by subtraction up with blanks. */
	for (size_t i = digits; i < len; i++)
		if (bytes[i] != ' ')
			return false;
	return digits > 0 && len <= COUNT_DIGITS;
}

enum cache_status cache_get_counts(struct cache *cache, const char *const *keys, size_t count,
	struct arena *arena, struct cache_count *counts)
{
	struct cache_value *values = arena_alloc(arena, (count + 1) * sizeof(*values));
	const enum cache_status status =
		exchange(cache, keys, count, NULL, 0, false, arena, values);

	for (size_t i = 0; i < count; i++) {
		counts[i] = (struct cache_count){ .is_there = false };
		if (values[i].bytes)
			counts[i].is_there = cache_count_parse(
				values[i].bytes, values[i].len, &counts[i].number);
	}
	return status;
}

enum cache_status cache_start_count(
	struct cache *cache, const char *name, uint64_t initial, unsigned ttl_s)
{
	char digits[COUNT_DIGITS + 1];
	struct key key;
	uint32_t owner;
	enum cache_status status = cache_ask(cache, name, CACHE_TOO_LARGE, &key, &owner);

	if (status != CACHE_HIT)
		return status;
	snprintf(digits, sizeof(digits), "%llu", (unsigned long long)initial);
	return add_on(cache, owner, &key, digits, strlen(digits), ttl_s);
}

/* CACHE_HIT, or CACHE_MISS when there is no such number. */
static enum cache_status change_count(
	struct cache *cache, const char *name, uint32_t delta, bool up, uint64_t *total)
{
	struct key key;
	uint32_t owner;
	enum cache_status status = cache_ask(cache, name, CACHE_MISS, &key, &owner);
	memcached_return_t result;

	if (status != CACHE_HIT)
		return status;
	result = (up ? memcached_increment : memcached_decrement)(
		cache->nodes[owner].handle, key.text, key.len, delta, total);
	if (result == MEMCACHED_CLIENT_ERROR) /* it is no number */
		result = MEMCACHED_NOTFOUND;
	if (!reached(cache, owner, result))
		return CACHE_AWAY;
	return memcached_success(result) ? CACHE_HIT : CACHE_MISS;
}

enum cache_status cache_add_count(struct cache *cache, const char *key, uint32_t delta,
	uint64_t initial, unsigned ttl_s, uint64_t *total)
{
	enum cache_status status = change_count(cache, key, delta, true, total);

	if (status != CACHE_MISS)
		return status;
	status = cache_start_count(cache, key, initial, ttl_s);
	if (status == CACHE_HIT)
		*total = initial;
	if (status != CACHE_MISS)
		return status;
	/* Another host was quicker to start it; should it vanish again this moment, give up. */
	return change_count(cache, key, delta, true, total) == CACHE_HIT ? CACHE_HIT : CACHE_AWAY;
}

enum cache_status cache_take_count(
	struct cache *cache, const char *key, uint32_t delta, uint64_t *total)
{
	return change_count(cache, key, delta, false, total);
}

/* ---- Deleting ---- */

enum cache_status cache_delete(struct cache *cache, const char *name)
{
	struct key key;
	uint32_t owner;
	enum cache_status status = cache_ask(cache, name, CACHE_MISS, &key, &owner);
	memcached_return_t result;

	if (status != CACHE_HIT)
		return status;
	result = memcached_delete(cache->nodes[owner].handle, key.text, key.len, 0);
	if (!reached(cache, owner, result))
		return CACHE_AWAY;
	return memcached_success(result) ? CACHE_HIT : CACHE_MISS;
}

/* ---- Looking after servers ---- */

size_t cache_server_count(const struct cache *cache)
{
	return cache->node_count;
}

const char *cache_server_name(const struct cache *cache, size_t server)
{
	return cache->nodes[server].name;
}

/* The version is asked for but once per connection and says nothing of now: see cache_knock(). */
enum cache_status cache_check_server(struct cache *cache, size_t server, char version[32])
{
	struct node *node = &cache->nodes[server];
	const memcached_instance_st *instance;

	cache_begin(cache);
	if (!(cache->in >> server & 1) || is_closed(node) ||
		!reached(cache, (uint32_t)server, cache_knock(node)))
		return CACHE_AWAY;
	if (!version)
		return CACHE_HIT;
	if (memcached_failed(memcached_version(node->handle)))
		return CACHE_AWAY;
	instance = memcached_server_instance_by_position(node->handle, 0);
	snprintf(version, 32, "%u.%u.%u", memcached_server_major_version(instance),
		memcached_server_minor_version(instance), memcached_server_micro_version(instance));
	return CACHE_HIT;
}

uint32_t cache_check(struct cache *cache)
{
	uint32_t answering = 0;

	for (uint32_t i = 0; i < cache->node_count; i++)
		if (cache_check_server(cache, i, NULL) == CACHE_HIT)
			answering |= UINT32_C(1) << i;
	return answering;
}
