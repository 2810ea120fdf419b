/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memcached, the second level of the cache, shared by all hosts. Nothing depends on it: every call
 * that finds it away or slow says so quickly and the caller goes to the database. One handle per
 * process. Read beside this: libmemcached's manual pages, memcached's doc/protocol.txt.
 *
 * Keys are spread over the servers by rendezvous hashing: with one server less, only its own keys
 * go elsewhere. Where there are several, the processes of a host have a view in common, of which of
 * them are in. A process that finds a server failing takes it out for all; one process probes those
 * that are out and puts them in again. A server that is merely late once or twice stays in: only
 * who asked goes without the answer. CACHE_LATE_MOST time-outs in a row, of any processes of the
 * host, are a failure. A value that was set under one view may be missing under the next: see
 * cache_is_settled().
 */
#ifndef AREG_CACHE_H
#define AREG_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/arena.h"
#include "lib/seal.h"

struct cache;

enum { CACHE_SERVERS_MAX = 32, CACHE_LATE_MOST = 3 };

/* Lies in shared memory, zeroed at first: all servers are in, and settled. */
struct cache_view {
	uint64_t state; /* which servers are out, and a generation that each change moves */
	uint64_t settled; /* the state that was settled last */
	uint64_t list; /* of servers that the state speaks of; 0: nobody has claimed it yet */
	uint32_t joined[CACHE_SERVERS_MAX]; /* generation in which each was last put in */
	uint32_t late[CACHE_SERVERS_MAX]; /* time-outs in a row of each */
	uint64_t refused; /* values whose seal was wrong */
	uint64_t warn_at_s; /* Unix time from which the next such value is logged */
};

struct cache_options {
	const char *servers; /* "host:port, [::1]:port, unix:/path, …"; "" for no cache at all */
	int timeout_ms; /* for one operation, and for connecting */
	int retry_ms; /* how long a server that failed is left alone */
	struct cache_view *view; /* of the host; NULL: one of its own */
	const uint8_t *key; /* SEAL_KEY_BYTES bytes, the same on all hosts; not copied */
};

enum cache_status {
	CACHE_HIT,
	CACHE_MISS,
	CACHE_AWAY, /* no server reached in time, or none configured */
	CACHE_TOO_LARGE,
};

/*
 * Keys have no blanks or control characters and at most so many bytes: the protocol's rule. One may
 * begin with "{PLACE}", which is not sent and not counted: then PLACE alone says on which server it
 * belongs, and keys of the same place lie on the same one.
 */
enum { CACHE_KEY_MAX = 250 };

/* Checks a server list; on refusal sets *why (arena memory) and returns false. */
MUST_CHECK bool cache_servers_check(struct arena *arena, const char *servers, const char **why);

/* Keeps the options (not copied). Connects to nothing yet. Never NULL; `servers` was checked. */
struct cache *cache_new(const struct cache_options *options);
void cache_free(struct cache *cache);

/* Closes all connections, for a caller that left an exchange in its middle by a jump: what the servers
 * still answer must not be read as the answer to the next question. NULL is allowed. */
void cache_abandon(struct cache *cache);

/* Whether there are any servers. */
bool cache_has_servers(const struct cache *cache);

/* Hex digits that stand for the key, to be part of the names of what hosts share. */
const char *cache_key_id(const struct cache *cache);

/* How many values that processes of this host met had a wrong seal. */
uint64_t cache_refused(const struct cache_view *view);

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

/* Stores several for ttl_s seconds, in one round trip. CACHE_HIT when each of them is known to have
 * been stored (somebody else may have stored another value since), CACHE_MISS when some are not: then
 * known[i] says which are. At most CACHE_ITEMS_MAX; `arena` is for what is read back. */
enum { CACHE_ITEMS_MAX = 64 };
MUST_CHECK enum cache_status cache_set_many(struct cache *cache, const struct cache_item *items,
	size_t count, unsigned ttl_s, struct arena *arena, bool *known);

/*
 * Stores a value of `len` bytes on each server that is in; draw(arg) makes a different value for
 * each. CACHE_HIT when all of them took theirs, in the view that *view tells; CACHE_AWAY when one
 * did not and stays in, or there is none.
 */
enum { CACHE_DRAWN_MAX = 64 };
MUST_CHECK enum cache_status cache_set_everywhere(struct cache *cache, const char *key,
	bool (*draw)(const void *arg, char *bytes, size_t len), const void *arg, size_t len,
	unsigned ttl_s, uint64_t *view);

/* Sends a value to be stored for ttl_s seconds, or only if its key is not there, and does not wait
 * to hear of it. False when it could not even be sent, or is too large. */
MUST_CHECK bool cache_post(
	struct cache *cache, const char *key, const char *bytes, size_t len, unsigned ttl_s);
MUST_CHECK bool cache_post_new(
	struct cache *cache, const char *key, const char *bytes, size_t len, unsigned ttl_s);

/* ---- Numbers ---- */

/*
 * Numbers that hosts count together, in digits. They have no seal, since memcached adds to them by
 * itself: who reads one must make sure that no number does harm.
 */
struct cache_count {
	bool is_there; /* and is a number */
	uint64_t number;
};

/* Several numbers in one round trip, as cache_get_many(). */
MUST_CHECK enum cache_status cache_get_counts(struct cache *cache, const char *const *keys,
	size_t count, struct arena *arena, struct cache_count *counts);

/* Reads a number as memcached keeps it: digits, and blanks behind them. False for all else, and for
 * what exceeds 64 bits. */
MUST_CHECK bool cache_count_parse(const char *bytes, size_t len, uint64_t *number);

/* Starts a number unless it is there already: CACHE_HIT when started, CACHE_MISS when not. */
MUST_CHECK enum cache_status cache_start_count(
	struct cache *cache, const char *key, uint64_t initial, unsigned ttl_s);

/*
 * Adds `delta` to a number, or where the key is not there starts it with `initial` for ttl_s seconds
 * (adding does not prolong its life). CACHE_HIT with the new value in *total, which is the sum of all
 * that was added, whatever the order.
 */
MUST_CHECK enum cache_status cache_add_count(struct cache *cache, const char *key, uint32_t delta,
	uint64_t initial, unsigned ttl_s, uint64_t *total);

/* Takes `delta` off it, down to 0 at most: CACHE_HIT with the new value, CACHE_MISS when the key is
 * not there. */
MUST_CHECK enum cache_status cache_take_count(
	struct cache *cache, const char *key, uint32_t delta, uint64_t *total);

/* CACHE_HIT when it was there and is gone, CACHE_MISS when it was not there. */
MUST_CHECK enum cache_status cache_delete(struct cache *cache, const char *key);

/* ---- The view ---- */

/* The present view: another number after each change. */
uint64_t cache_view(const struct cache *cache);

/*
 * Whether the view is the one that was settled last. A caller that relies on the view looks at it
 * before an exchange and again afterwards: a server that comes in with old values must not be met
 * unawares.
 */
bool cache_is_settled(const struct cache *cache);
void cache_settle(struct cache *cache, uint64_t view);

/* A number for the servers that are in, the same on all hosts in whatever order they list them. */
uint64_t cache_members(const struct cache *cache, uint64_t view);

/* Which server a key belongs to in that view; cache_server_count() when none is in. */
size_t cache_server_of(const struct cache *cache, uint64_t view, const char *key);

/* For one process of a host, the one that settles its view. Makes the view one of the servers of
 * this cache, all in: a program before a reload may have had others. A process that still has other
 * servers finds them away from now on. */
void cache_claim(struct cache *cache);
/* Asks the servers that are out and due for a probe, and puts those in that answer. */
void cache_probe(struct cache *cache);

/* ---- Servers ---- */

size_t cache_server_count(const struct cache *cache);
const char *cache_server_name(const struct cache *cache, size_t server);

/* Whether that server is in and answers within the timeout: CACHE_HIT or CACHE_AWAY. Its version goes
 * to version[] when given. */
MUST_CHECK enum cache_status cache_check_server(
	struct cache *cache, size_t server, char version[32]);

/* Which servers are in and answer, a bit each from the lowest on. */
MUST_CHECK uint32_t cache_check(struct cache *cache);

#endif
