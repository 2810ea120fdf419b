/*
 * memcached, the second level of the cache, shared by all hosts. Nothing depends on it: every call
 * that finds it away or slow says so quickly and the caller goes to the database. One handle per
 * process. Read beside this: libmemcached's manual pages, memcached's doc/protocol.txt.
 */
#ifndef AREG_CACHE_H
#define AREG_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/arena.h"

struct cache;

struct cache_options {
	const char *servers; /* "host:port, [::1]:port, unix:/path, …"; "" for no cache at all */
	int timeout_ms; /* for one operation, and for connecting */
	int retry_ms; /* how long a server that failed is left alone */
};

enum cache_status {
	CACHE_HIT,
	CACHE_MISS,
	CACHE_AWAY, /* no server reached in time, or none configured */
	CACHE_TOO_LARGE,
};

enum { CACHE_KEY_MAX = 250 }; /* bytes, no blanks or control characters: the protocol's rule */

/* Checks a server list; on refusal sets *why (arena memory) and returns false. */
MUST_CHECK bool cache_servers_check(struct arena *arena, const char *servers, const char **why);

/* Keeps the options (not copied). Connects to nothing yet. Never NULL; `servers` was checked. */
struct cache *cache_new(const struct cache_options *options);
void cache_free(struct cache *cache);

/* Whether there are any servers. */
bool cache_has_servers(const struct cache *cache);

/* How long memcached kept this process waiting: for log and metrics. */
uint64_t cache_waited_us(const struct cache *cache);

struct cache_value {
	const char *bytes; /* arena memory; NULL when it was not there */
	size_t len;
};

/* One value: CACHE_HIT fills *value. */
MUST_CHECK enum cache_status cache_get(
	struct cache *cache, const char *key, struct arena *arena, struct cache_value *value);

/* Several values in one round trip; values[i] belongs to keys[i]. CACHE_HIT when any was there. */
MUST_CHECK enum cache_status cache_get_many(struct cache *cache, const char *const *keys,
	size_t count, struct arena *arena, struct cache_value *values);

/* Stores for ttl_s seconds. CACHE_HIT when stored. */
MUST_CHECK enum cache_status cache_set(
	struct cache *cache, const char *key, const char *bytes, size_t len, unsigned ttl_s);

/* Stores for ttl_s seconds unless the key is there already: CACHE_HIT when stored, CACHE_MISS when
 * not. */
MUST_CHECK enum cache_status cache_add(
	struct cache *cache, const char *key, const char *bytes, size_t len, unsigned ttl_s);

struct cache_item {
	const char *key, *bytes;
	size_t len;
};

/* Stores several for ttl_s seconds, in one round trip as a rule. CACHE_HIT when each of them is known
 * to have been stored (somebody else may have stored another value since), CACHE_AWAY when not. At
 * most CACHE_ITEMS_MAX; `arena` is for what is read back. */
enum { CACHE_ITEMS_MAX = 64 };
MUST_CHECK enum cache_status cache_set_many(struct cache *cache, const struct cache_item *items,
	size_t count, unsigned ttl_s, struct arena *arena);

/* Sends a value to be stored for ttl_s seconds, or only if its key is not there, and does not wait
 * to hear of it. False when it could not even be sent, or is too large. */
MUST_CHECK bool cache_post(
	struct cache *cache, const char *key, const char *bytes, size_t len, unsigned ttl_s);
MUST_CHECK bool cache_post_new(
	struct cache *cache, const char *key, const char *bytes, size_t len, unsigned ttl_s);

/*
 * A number that hosts count together, in digits. Adds `delta` to it, or where the key is not there
 * starts it with `initial` for ttl_s seconds (adding does not prolong its life). CACHE_HIT with the
 * new value in *total, which is the sum of all that was added, whatever the order.
 */
MUST_CHECK enum cache_status cache_add_count(struct cache *cache, const char *key, uint32_t delta,
	uint64_t initial, unsigned ttl_s, uint64_t *total);

/* Takes `delta` off it, down to 0 at most: CACHE_HIT with the new value, CACHE_MISS when the key is
 * not there. */
MUST_CHECK enum cache_status cache_take_count(
	struct cache *cache, const char *key, uint32_t delta, uint64_t *total);

/* CACHE_HIT when it was there and is gone, CACHE_MISS when it was not there. */
MUST_CHECK enum cache_status cache_delete(struct cache *cache, const char *key);

/* Whether every server answers a version request within the timeout: CACHE_HIT or CACHE_AWAY. The
 * version of the first goes to version[] when given. */
MUST_CHECK enum cache_status cache_check(struct cache *cache, char version[32]);

#endif
