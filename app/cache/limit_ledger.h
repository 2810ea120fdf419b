/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Limits over several hosts: the ledger in memcached. For each subject and minute there is a
 * number, "areg:rl:KEY:TAG:MINUTE", the sum of what hosts have reserved; KEY stands for the key
 * that seals items (lib/seal.h). Numbers have no seal: somebody who can write in memcached can use
 * up what others are allowed, and can make each host allow a caller the whole limit, but no more
 * than that.
 *
 * A host that is not alone reserves in batches ahead of need: its ledger keeper does so in the
 * background (app/process/ledger_keeper.h), at the latest every 100 ms; a worker that meets an
 * exhausted reservation does it itself, in two round trips (look, take).
 */
#ifndef AREG_CACHE_LIMIT_LEDGER_H
#define AREG_CACHE_LIMIT_LEDGER_H

#include "lib/cache.h"
#include "lib/limiter.h"

/*
 * Reserves the next batch of a subject for this host: a fraction of what is left, at least 1, never
 * more than the sliding window leaves over. Returns whether this host has something reserved now
 * that is not used up. If the ledger cannot be reached, returns false and sets *away; the caller
 * then uses limiter_take_owing(). Once the ledger keeper has not reached the ledger for a second,
 * the host counts by itself.
 */
MUST_CHECK bool limit_ledger_reserve(struct limiter *limiter, struct cache *cache, uint64_t tag,
	uint32_t limit, uint64_t now_ms, bool *away);

/* ---- The steps of that, for the ledger keeper, which takes them for many subjects at once ---- */

enum {
	LEDGER_KEY_BYTES = 96,
	LEDGER_TTL_S = 180, /* a minute is looked at until the end of the next */
};

/* The ledger's numbers for one subject. */
struct ledger {
	char key[LEDGER_KEY_BYTES], key_before[LEDGER_KEY_BYTES];
	uint64_t total; /* reserved by all hosts in this minute */
	uint64_t total_before; /* in the minute before */
};

/* The keys of the share's minute and of the one before. */
void ledger_keys(const struct cache *cache, const struct limit_share *share, struct ledger *ledger);

/* Takes over what memcached answered for both keys, and what this host knows better. */
void ledger_note(struct cache *cache, const struct limit_share *share,
	const struct cache_count counts[2], struct ledger *ledger);

/* How much all hosts together may have reserved by now. */
uint64_t ledger_allowance(uint32_t limit, const struct ledger *ledger, uint64_t now_ms);

/* Let through without a reservation, while this host counted by itself. */
uint32_t ledger_owed(const struct limit_share *share);

/* Reserved and not used yet. */
uint32_t ledger_unused(const struct limit_share *share);

/* How much to reserve at a time, of what is left, with so many hosts. */
uint32_t ledger_batch(uint64_t left, unsigned hosts);

/* How much of `left` to reserve: what this host owes, and one batch. */
uint32_t ledger_wanted(const struct limit_share *share, uint64_t left, unsigned hosts);

/* Adds `more` to the number and gives back what exceeds `allowed`. What is kept goes to *kept, 0
 * when the ledger is away. */
MUST_CHECK bool ledger_take(struct cache *cache, const struct limit_share *share,
	struct ledger *ledger, uint32_t more, uint64_t allowed, uint32_t *kept);

/* Tells the limiter of this host what is reserved, and what the ledger says. */
void ledger_note_reserved(struct limiter *limiter, const struct limit_share *share, uint32_t more,
	const struct ledger *ledger);

#endif
