/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who calls, kept in shared memory: API keys that were looked up, so that a hot key costs no round
 * trip. An entry is written under a robust lock and read without one (a sequence number tells a
 * reader that it saw half of a write, also when the writer was killed in the middle). Only keys
 * that the database knows are kept: a wrong key leaves no trace.
 *
 * After a change: a process that changes a user or a key commits first and drops the entry here
 * afterwards. A record that the database gave before the drop is not stored, because its version is
 * out of date.
 */
#ifndef AREG_CACHE_CALLERS_H
#define AREG_CACHE_CALLERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "app/registry/limits.h"
#include "lib/must_check.h"

enum { CALLER_SCOPES_BYTES = 256 };

struct caller_record {
	uint8_t key_hash[32]; /* SHA-256 of the key */
	char user_id[37];
	char key_id[37];
	char wallet[43]; /* canonical address; "" for none */
	char key_prefix[19];
	char scopes[CALLER_SCOPES_BYTES]; /* words with single blanks between: "payments:write" */
	uint8_t tier; /* enum tier */
	int64_t expires_at_s; /* Unix time; 0: never */
};

/* Whether the record's scopes hold that word. */
bool caller_has_scope(const struct caller_record *caller, const char *scope);

struct callers; /* lies in shared memory */

size_t callers_bytes(size_t keys);
/* Makes an empty one in zeroed memory of callers_bytes(keys), before forking. */
struct callers *callers_init(void *memory, size_t keys);

/* Looks a key up. On a hit copies it to *record, notes its use at now_s (Unix time) and returns
 * true: expiry is the caller's to check. On a miss gives the version to store with. */
MUST_CHECK bool callers_find(struct callers *callers, const uint8_t key_hash[32], int64_t now_s,
	struct caller_record *record, uint64_t *version);

/* Stores what the database answered, unless anything was dropped since `version` was given. Counts
 * as a use of the key, now. In a full table the key that was not used for longest makes room. */
void callers_store(struct callers *callers, const struct caller_record *record, uint64_t version);

/* Drops every key of a user (after a change was committed), or all. */
void callers_drop_user(struct callers *callers, const char *user_id);
void callers_drop_all(struct callers *callers);

/*
 * Freshness: the listener says until when (Unix ms) it is certain to hear of changes made elsewhere.
 * Past that an entry may be stale: a worker asks the database, and takes the entry only when the
 * database cannot be asked.
 */
void callers_set_fresh_until(struct callers *callers, uint64_t until_ms);
bool callers_are_fresh(const struct callers *callers, uint64_t now_ms);

/* Keys used since the last call, for writing api_keys.last_used_at: visit(key_id, used_at_s). Also
 * keys that were dropped meanwhile. For one process only. */
void callers_take_used(struct callers *callers,
	void (*visit)(const char *key_id, int64_t used_at_s, void *arg), void *arg);

#endif
