/*
 * memcached over libmemcached, in the text protocol: one "get" line asks for many keys. libmemcached
 * leaves a failed server alone in whole seconds only and asks it again in the middle of a request,
 * so each server has a circuit breaker of ours: while it is open, calls for its keys cost nothing.
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

enum {
	VALUE_MAX = 1024 * 1024, /* memcached's own default limit */
	POST_MAX = 1000 * 1000, /* room for what memcached keeps beside a value */
	TTL_MAX_S = 30 * 24 * 3600, /* past that memcached takes it for a date */
	SERVERS_MAX = 64,
};

struct cache {
	const struct cache_options *options;
	memcached_st *handle; /* NULL: no servers */
	memcached_result_st result; /* reused by every fetch */
	uint32_t server_count;
	int64_t closed_until_ms[SERVERS_MAX]; /* breaker: 0 while the server is well */
	uint64_t asked_at_us; /* when the exchange at hand began */
	uint64_t waited_us;
};

/* One entry of a server list, as it stands in the list: not NUL-terminated. */
struct server {
	const char *host; /* or the path of a socket */
	size_t host_len;
	in_port_t port; /* 0: a Unix socket */
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
		*server = (struct server){ start + 5, len - 5, 0 };
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
	*server = (struct server){ start, (size_t)(colon - start), (in_port_t)port };
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

static bool is_blank(const char *list)
{
	return list[strspn(list, " \t")] == '\0';
}

bool cache_servers_check(struct arena *arena, const char *servers, const char **why)
{
	const char *fault;
	struct server server;
	size_t count = 0;

	while (!is_blank(servers)) {
		const char *entry = servers + strspn(servers, " \t");

		if (!next_server(&servers, &server, &fault)) {
			*why = arena_printf(
				arena, "%.*s: %s", (int)strcspn(entry, ","), entry, fault);
			return false;
		}
		if (++count > SERVERS_MAX) {
			*why = arena_printf(arena, "more than %d servers", SERVERS_MAX);
			return false;
		}
	}
	return true;
}

static void set_behaviors(struct cache *cache)
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
		{ MEMCACHED_BEHAVIOR_RETRY_TIMEOUT, 0 }, /* the breaker's work */
		{ MEMCACHED_BEHAVIOR_DEAD_TIMEOUT, 0 },
		/* The same key on the same server from every host, whatever the order of the list. */
		{ MEMCACHED_BEHAVIOR_KETAMA, cache->server_count > 1 },
	};

	for (size_t i = 0; i < sizeof(behaviors) / sizeof(behaviors[0]); i++)
		memcached_behavior_set(cache->handle, behaviors[i].behavior, behaviors[i].value);
}

struct cache *cache_new(const struct cache_options *options)
{
	struct cache *cache = calloc(1, sizeof(*cache));
	const char *list = options->servers, *why;
	struct server server;

	if (!cache)
		abort();
	cache->options = options;
	while (!is_blank(list) && next_server(&list, &server, &why)) {
		char *host = strndup(server.host, server.host_len);

		if (!cache->handle)
			cache->handle = memcached_create(NULL);
		if (!host || !cache->handle ||
			memcached_failed(
				server.port
					? memcached_server_add(cache->handle, host, server.port)
					: memcached_server_add_unix_socket(cache->handle, host)))
			abort();
		free(host);
		cache->server_count++;
	}
	if (cache->handle) {
		set_behaviors(cache);
		if (!memcached_result_create(cache->handle, &cache->result))
			abort();
	}
	return cache;
}

void cache_free(struct cache *cache)
{
	if (!cache)
		return;
	if (cache->handle) {
		memcached_result_free(&cache->result);
		memcached_free(cache->handle);
	}
	free(cache);
}

bool cache_has_servers(const struct cache *cache)
{
	return cache->handle != NULL;
}

uint64_t cache_waited_us(const struct cache *cache)
{
	return cache->waited_us;
}

/* A key that memcached cannot hold: nothing is there, nothing can be put there. */
static bool key_valid(const char *key, size_t len)
{
	if (len == 0 || len > CACHE_KEY_MAX)
		return false;
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)key[i] <= ' ' || key[i] == 0x7f)
			return false;
	return true;
}

static uint32_t server_of(struct cache *cache, const char *key, size_t len)
{
	return cache->server_count > 1 ? memcached_generate_hash(cache->handle, key, len) : 0;
}

static bool is_away(const struct cache *cache, uint32_t server)
{
	return cache->closed_until_ms[server] && now_ms() < cache->closed_until_ms[server];
}

/* Whether the server was reached; minds the breaker and the time that it took. */
static bool reached(struct cache *cache, uint32_t server, memcached_return_t result)
{
	const uint64_t now_us = clock_us();

	cache->waited_us += now_us - cache->asked_at_us;
	cache->asked_at_us = now_us;
	switch (result) {
	case MEMCACHED_SUCCESS:
	case MEMCACHED_STORED:
	case MEMCACHED_DELETED:
	case MEMCACHED_END:
	case MEMCACHED_NOTFOUND:
	case MEMCACHED_NOTSTORED:
	case MEMCACHED_E2BIG:
	case MEMCACHED_SERVER_MEMORY_ALLOCATION_FAILURE:
		if (cache->closed_until_ms[server])
			log_event(LOG_LEVEL_INFO, "cache reached again",
				LOG_NUMBER("server", server));
		cache->closed_until_ms[server] = 0;
		return true;
	default:
		if (!cache->closed_until_ms[server])
			log_event(LOG_LEVEL_WARN, "cache not reached", LOG_NUMBER("server", server),
				LOG_TEXT("reason", memcached_strerror(cache->handle, result)));
		cache->closed_until_ms[server] = now_ms() + cache->options->retry_ms;
		return false;
	}
}

enum cache_status cache_get(
	struct cache *cache, const char *key, struct arena *arena, struct cache_value *value)
{
	return cache_get_many(cache, &key, 1, arena, value);
}

/* Puts a fetched result where it belongs: at every place that asked for its key. */
static void place(const struct cache *cache, const char *const *keys, size_t count,
	struct arena *arena, struct cache_value *values)
{
	const char *name = memcached_result_key_value(&cache->result);
	const size_t name_len = memcached_result_key_length(&cache->result);
	const size_t len = memcached_result_length(&cache->result);
	char *bytes = arena_alloc(arena, len + 1);

	if (len)
		memcpy(bytes, memcached_result_value(&cache->result), len);
	for (size_t i = 0; i < count; i++)
		if (strlen(keys[i]) == name_len && memcmp(keys[i], name, name_len) == 0)
			values[i] = (struct cache_value){ bytes, len };
}

enum cache_status cache_get_many(struct cache *cache, const char *const *keys, size_t count,
	struct arena *arena, struct cache_value *values)
{
	const char **asked = arena_alloc(arena, (count + 1) * sizeof(*asked));
	size_t *lengths = arena_alloc(arena, (count + 1) * sizeof(*lengths));
	bool servers[SERVERS_MAX] = { false };
	bool hit = false, away = cache->handle == NULL;
	size_t asked_count = 0;
	memcached_return_t result;

	memset(values, 0, count * sizeof(*values));
	for (size_t i = 0; i < count && cache->handle; i++) {
		const size_t len = strlen(keys[i]);
		uint32_t server;

		if (!key_valid(keys[i], len))
			continue;
		server = server_of(cache, keys[i], len);
		if (is_away(cache, server)) {
			away = true;
			continue;
		}
		servers[server] = true;
		asked[asked_count] = keys[i];
		lengths[asked_count++] = len;
	}
	if (asked_count) {
		cache->asked_at_us = clock_us();
		result = memcached_mget(cache->handle, asked, lengths, asked_count);
		while (memcached_success(result) || result == MEMCACHED_SOME_ERRORS) {
			if (!memcached_fetch_result(cache->handle, &cache->result, &result))
				break;
			place(cache, keys, count, arena, values);
			hit = true;
		}
		for (uint32_t i = 0; i < cache->server_count; i++) {
			const memcached_instance_st *instance =
				memcached_server_instance_by_position(cache->handle, i);

			if (servers[i] &&
				!reached(cache, i,
					cache->server_count == 1
						? result
						: memcached_server_error_return(instance)))
				away = true;
		}
	}
	return hit ? CACHE_HIT : away ? CACHE_AWAY : CACHE_MISS;
}

/* Whether the key can be asked for now: CACHE_HIT with its server, or why not; `never` for a key
 * that memcached cannot hold. */
static enum cache_status ask(
	struct cache *cache, const char *key, enum cache_status never, uint32_t *server)
{
	const size_t len = strlen(key);

	if (!cache->handle)
		return CACHE_AWAY;
	if (!key_valid(key, len))
		return never;
	*server = server_of(cache, key, len);
	cache->asked_at_us = clock_us();
	return is_away(cache, *server) ? CACHE_AWAY : CACHE_HIT;
}

static time_t expiration(unsigned ttl_s)
{
	return (time_t)(ttl_s < TTL_MAX_S ? ttl_s : TTL_MAX_S);
}

enum cache_status cache_set(
	struct cache *cache, const char *key, const char *bytes, size_t len, unsigned ttl_s)
{
	uint32_t server;
	enum cache_status status = ask(cache, key, CACHE_TOO_LARGE, &server);
	memcached_return_t result;

	if (status == CACHE_HIT && len > VALUE_MAX)
		return CACHE_TOO_LARGE;
	if (status != CACHE_HIT)
		return status;
	result = memcached_set(cache->handle, key, strlen(key), bytes, len, expiration(ttl_s), 0);
	if (!reached(cache, server, result))
		return CACHE_AWAY;
	return memcached_success(result) ? CACHE_HIT : CACHE_TOO_LARGE;
}

enum cache_status cache_add(
	struct cache *cache, const char *key, const char *bytes, size_t len, unsigned ttl_s)
{
	uint32_t server;
	enum cache_status status = ask(cache, key, CACHE_TOO_LARGE, &server);
	memcached_return_t result;

	if (status == CACHE_HIT && len > VALUE_MAX)
		return CACHE_TOO_LARGE;
	if (status != CACHE_HIT)
		return status;
	result = memcached_add(cache->handle, key, strlen(key), bytes, len, expiration(ttl_s), 0);
	if (!reached(cache, server, result))
		return CACHE_AWAY;
	if (memcached_success(result))
		return CACHE_HIT;
	return result == MEMCACHED_NOTSTORED ? CACHE_MISS : CACHE_TOO_LARGE;
}

typedef memcached_return_t storing(memcached_st *handle, const char *key, size_t key_len,
	const char *bytes, size_t len, time_t expiration, uint32_t flags);

/*
 * "noreply": the server says nothing, also when it refuses the value, so that what it says to the
 * next command on the connection is the reply to that one.
 */
static bool post(struct cache *cache, storing *store, const char *key, const char *bytes,
	size_t len, unsigned ttl_s)
{
	uint32_t server;
	memcached_return_t result;

	if (ask(cache, key, CACHE_TOO_LARGE, &server) != CACHE_HIT || len > POST_MAX)
		return false;
	memcached_behavior_set(cache->handle, MEMCACHED_BEHAVIOR_NOREPLY, 1);
	result = store(cache->handle, key, strlen(key), bytes, len, expiration(ttl_s), 0);
	memcached_behavior_set(cache->handle, MEMCACHED_BEHAVIOR_NOREPLY, 0);
	if (result == MEMCACHED_BUFFERED || memcached_success(result))
		return true;
	return reached(cache, server, result) && memcached_success(result);
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
 * Posts all and reads them back: commands on a connection are done in order, so what is found as it
 * was sent has been stored. What is not may have been lost with a connection, or stored over by
 * another: that one is stored again, and its reply waited for.
 */
enum cache_status cache_set_many(struct cache *cache, const struct cache_item *items, size_t count,
	unsigned ttl_s, struct arena *arena)
{
	const char *keys[CACHE_ITEMS_MAX] = { NULL };
	struct cache_value values[CACHE_ITEMS_MAX];
	enum cache_status status = CACHE_HIT;

	for (size_t i = 0; i < count; i++) {
		keys[i] = items[i].key;
		if (!cache_post(cache, items[i].key, items[i].bytes, items[i].len, ttl_s))
			return CACHE_AWAY;
	}
	if (cache_get_many(cache, keys, count, arena, values) == CACHE_AWAY)
		return CACHE_AWAY;
	for (size_t i = 0; i < count && status == CACHE_HIT; i++)
		if (!is_there(&items[i], &values[i]))
			status =
				cache_set(cache, items[i].key, items[i].bytes, items[i].len, ttl_s);
	return status == CACHE_HIT ? CACHE_HIT : CACHE_AWAY;
}

/* CACHE_HIT, or CACHE_MISS when there is no such number. */
static enum cache_status change_count(
	struct cache *cache, const char *key, uint32_t delta, bool up, uint64_t *total)
{
	uint32_t server;
	enum cache_status status = ask(cache, key, CACHE_MISS, &server);
	memcached_return_t result;

	if (status != CACHE_HIT)
		return status;
	result = up ? memcached_increment(cache->handle, key, strlen(key), delta, total)
		    : memcached_decrement(cache->handle, key, strlen(key), delta, total);
	if (!reached(cache, server, result))
		return CACHE_AWAY;
	return memcached_success(result) ? CACHE_HIT : CACHE_MISS;
}

enum cache_status cache_add_count(struct cache *cache, const char *key, uint32_t delta,
	uint64_t initial, unsigned ttl_s, uint64_t *total)
{
	enum cache_status status = change_count(cache, key, delta, true, total);
	char digits[24];

	if (status != CACHE_MISS)
		return status;
	snprintf(digits, sizeof(digits), "%llu", (unsigned long long)initial);
	status = cache_add(cache, key, digits, strlen(digits), ttl_s);
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

enum cache_status cache_delete(struct cache *cache, const char *key)
{
	uint32_t server;
	enum cache_status status = ask(cache, key, CACHE_MISS, &server);
	memcached_return_t result;

	if (status != CACHE_HIT)
		return status;
	result = memcached_delete(cache->handle, key, strlen(key), 0);
	if (!reached(cache, server, result))
		return CACHE_AWAY;
	return memcached_success(result) ? CACHE_HIT : CACHE_MISS;
}

/* Asks one server for a key that is its own, whether it is there or not. */
static bool answers(struct cache *cache, uint32_t server)
{
	char key[32];
	unsigned number = 0;

	do
		snprintf(key, sizeof key, "areg:check:%u", number++);
	while (server_of(cache, key, strlen(key)) != server);
	return reached(cache, server, memcached_exist(cache->handle, key, strlen(key)));
}

/* The version is asked for but once per connection and says nothing of now: see answers(). */
enum cache_status cache_check(struct cache *cache, char version[32])
{
	const memcached_instance_st *first;

	if (!cache->handle)
		return CACHE_AWAY;
	for (uint32_t i = 0; i < cache->server_count; i++)
		if (is_away(cache, i) || !answers(cache, i))
			return CACHE_AWAY;
	if (!version)
		return CACHE_HIT;
	if (memcached_failed(memcached_version(cache->handle)))
		return CACHE_AWAY;
	first = memcached_server_instance_by_position(cache->handle, 0);
	snprintf(version, 32, "%u.%u.%u", memcached_server_major_version(first),
		memcached_server_minor_version(first), memcached_server_micro_version(first));
	return CACHE_HIT;
}
