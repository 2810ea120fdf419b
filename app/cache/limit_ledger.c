/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ledger is never wrong in the direction that would pass a limit. A host adds what it wants to
 * a subject's number first, looks at the sum that memcached answers, and gives back what is too
 * much; only what it keeps counts as reserved. Additions of several hosts come one after the other,
 * so each sees those before it, and what is kept never exceeds what the window allows. A failure in
 * between (a killed process, a give-back that is lost) leaves the number too high, for two minutes
 * at most.
 *
 * Read beside this: memcached's doc/protocol.txt, "Increment/Decrement".
 */
#include "app/cache/limit_ledger.h"

#include <inttypes.h>
#include <stdio.h>

#include "lib/clock.h"
#include "lib/log.h"

enum { BATCHES = 8 }; /* a batch is what is left, divided by this and by the number of hosts */

static void ledger_key(const struct cache *cache, const struct limit_share *share, uint64_t minute,
	char key[LEDGER_KEY_BYTES])
{
	snprintf(key, LEDGER_KEY_BYTES, "{%016" PRIx64 "}areg:rl:%s:%016" PRIx64 ":%" PRIu64,
		share->tag, cache_key_id(cache), share->tag, minute);
}

void ledger_keys(const struct cache *cache, const struct limit_share *share, struct ledger *ledger)
{
	ledger_key(cache, share, share->minute, ledger->key);
	ledger_key(cache, share, share->minute - 1, ledger->key_before);
}

/* This host's own reservations are in the sum, whatever the ledger says: so somebody who writes smaller
 * numbers there gains no more than hosts would allow by themselves. */
static void ledger_correct(struct ledger *ledger, uint64_t own)
{
	if (ledger->total < own)
		ledger->total = own;
}

void ledger_note(struct cache *cache, const struct limit_share *share,
	const struct cache_count counts[2], struct ledger *ledger)
{
	ledger->total = counts[0].number;
	ledger_correct(ledger, share->reserved);
	ledger->total_before = counts[1].number;
	/* This host was alone a minute ago: others are to know what it let through. */
	if (!counts[1].is_there && share->used_before > 0 &&
		cache_start_count(cache, ledger->key_before, share->used_before, LEDGER_TTL_S) ==
			CACHE_AWAY)
		log_debug("the ledger went away while a past minute was entered");
	if (ledger->total_before < share->used_before)
		ledger->total_before = share->used_before;
}

uint64_t ledger_allowance(uint32_t limit, const struct ledger *ledger, uint64_t now_ms)
{
	const uint64_t before = ledger->total_before < limit ? ledger->total_before : limit;

	return limiter_left(limit, 0, (uint32_t)before, now_ms);
}

uint32_t ledger_owed(const struct limit_share *share)
{
	return share->used > share->reserved ? share->used - share->reserved : 0;
}

uint32_t ledger_unused(const struct limit_share *share)
{
	return share->reserved > share->used ? share->reserved - share->used : 0;
}

uint32_t ledger_batch(uint64_t left, unsigned hosts)
{
	const uint64_t size = left / (BATCHES * (uint64_t)hosts);

	return size > 0 ? (uint32_t)size : 1;
}

uint32_t ledger_wanted(const struct limit_share *share, uint64_t left, unsigned hosts)
{
	const uint32_t debt = ledger_owed(share);

	return debt >= left ? (uint32_t)left : debt + ledger_batch(left - debt, hosts);
}

bool ledger_take(struct cache *cache, const struct limit_share *share, struct ledger *ledger,
	uint32_t more, uint64_t allowed, uint32_t *kept)
{
	uint32_t excess = 0;
	uint64_t total;

	*kept = 0;
	if (cache_add_count(cache, ledger->key, more, (uint64_t)share->reserved + more,
		    LEDGER_TTL_S, &ledger->total) != CACHE_HIT)
		return false;
	ledger_correct(ledger, (uint64_t)share->reserved + more);
	if (ledger->total > allowed)
		excess =
			ledger->total - allowed < more ? (uint32_t)(ledger->total - allowed) : more;
	if (excess > 0) {
		if (cache_take_count(cache, ledger->key, excess, &total) != CACHE_HIT)
			log_debug("the ledger went away while an excess was given back");
		ledger->total -= excess;
	}
	*kept = more - excess;
	return true;
}

void ledger_note_reserved(struct limiter *limiter, const struct limit_share *share, uint32_t more,
	const struct ledger *ledger)
{
	limiter_reserved(limiter, share->tag, share->minute, more,
		ledger->total < UINT32_MAX ? (uint32_t)ledger->total : UINT32_MAX,
		ledger->total_before < UINT32_MAX ? (uint32_t)ledger->total_before : UINT32_MAX);
}

/* Looks at the ledger, takes what is wanted and to be had. False when it is away. */
static bool reserve_next(struct limiter *limiter, struct cache *cache, struct arena *arena,
	const struct limit_share *share, uint32_t limit, uint64_t now_ms)
{
	struct ledger ledger;
	const char *const keys[] = { ledger.key, ledger.key_before };
	struct cache_count counts[2];
	uint32_t more = 0, kept = 0;
	uint64_t allowed;

	ledger_keys(cache, share, &ledger);
	if (cache_get_counts(cache, keys, 2, arena, counts) == CACHE_AWAY)
		return false;
	ledger_note(cache, share, counts, &ledger);
	allowed = ledger_allowance(limit, &ledger, now_ms);
	if (ledger.total < allowed)
		more = ledger_wanted(share, allowed - ledger.total, limiter_hosts(limiter, now_ms));
	if (more > 0 && !ledger_take(cache, share, &ledger, more, allowed, &kept))
		return false;
	ledger_note_reserved(limiter, share, kept, &ledger);
	return true;
}

bool limit_ledger_reserve(struct limiter *limiter, struct cache *cache, uint64_t tag,
	uint32_t limit, uint64_t now_ms, bool *away)
{
	struct arena *arena = arena_new(1024, 64 * 1024);
	struct limit_share share;

	limiter_share(limiter, tag, now_ms, &share);
	*away = !reserve_next(limiter, cache, arena, &share, limit, now_ms);
	arena_free(arena);
	if (*away)
		return false;
	limiter_share(limiter, tag, now_ms, &share);
	return ledger_unused(&share) > 0;
}
