/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rate limits, counted in shared memory by all workers of a host: a sliding window of one minute,
 * made of the current minute's count plus the previous minute's, weighted by how much of it the
 * window still covers. A count is one 64-bit word changed by compare-and-swap, so that a process
 * killed at any instruction leaves it right; finding room for a new subject takes a robust lock.
 *
 * With several hosts, a host lets through only what it has reserved for itself in a ledger that all
 * share (memcached; see app/process/ledger_keeper.h), so that together they never exceed the limit.
 * Alone, or with the ledger away, it counts by itself.
 */
#ifndef AREG_LIMITER_H
#define AREG_LIMITER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/must_check.h"

struct limiter; /* lies in shared memory */

enum {
	LIMIT_MOST = 250000, /* requests a minute that a limit can say */
	LIMIT_WINDOW_MS = 60000,
};

/* Bytes of shared memory for about that many subjects at a time. */
size_t limiter_bytes(size_t subjects);

/* Makes a limiter in zeroed memory of limiter_bytes(subjects), before forking. */
struct limiter *limiter_init(void *memory, size_t subjects);

/* The tag under which a subject is counted, the same on every host: a hash of its class and its
 * name. Never 0. (Where in memory it is counted hangs on a random key, which nobody can steer.) */
uint64_t limiter_tag(const struct limiter *limiter, unsigned class, const char *subject);

/* As whom a client without a key is counted: an IPv4 address, also when it comes mapped into IPv6;
 * the /64 of an IPv6 address, since one subscriber has a whole one; "unknown" for anything else. */
void limiter_address_subject(const char *address, char subject[64]);

/* How many more requests the window leaves over at that time, when `used` were let through in its
 * minute and `before` in the minute before. 0 when none. */
uint32_t limiter_left(uint32_t limit, uint32_t used, uint32_t before, uint64_t now_ms);

/*
 * The clock of limits: Unix time in milliseconds, plus what a test has turned it by, for both of the
 * processes that count. Nothing but counting goes by it. limiter_turn_clock() sets how far it is ahead
 * (0..LIMIT_TURN_MOST_MS); only for installations whose environment is called "test".
 */
enum { LIMIT_TURN_MOST_MS = 24 * 3600 * 1000 };
uint64_t limiter_clock_ms(const struct limiter *limiter, uint64_t unix_ms);
void limiter_turn_clock(struct limiter *limiter, uint64_t ahead_ms);

enum limit_verdict {
	LIMIT_PASSED, /* counted */
	LIMIT_REFUSED, /* over the limit; not counted */
	LIMIT_UNRESERVED, /* not counted: this host has used up what it reserved; reserve more with
			     limiter_reserved() and ask again */
};

struct limit_answer {
	uint32_t limit; /* as asked */
	uint32_t remaining; /* at this moment, 0 when refused */
	uint64_t reset_s; /* Unix time at which the current minute ends */
	uint32_t retry_after_s; /* when not passed: seconds until one request fits, at least 1 */
};

/*
 * Counts one request of a subject against `limit` (1..LIMIT_MOST), at `now_ms` (Unix time in
 * milliseconds). Where there is no room for another subject, the one least used in its bucket
 * makes room.
 */
MUST_CHECK enum limit_verdict limiter_take(struct limiter *limiter, uint64_t tag, uint32_t limit,
	uint64_t now_ms, struct limit_answer *answer);

/* The same while the ledger is out of reach: lets through what this host has not reserved, too, so
 * never LIMIT_UNRESERVED. The host owes these requests to the ledger; the ledger keeper adds them
 * to it. */
MUST_CHECK enum limit_verdict limiter_take_owing(struct limiter *limiter, uint64_t tag,
	uint32_t limit, uint64_t now_ms, struct limit_answer *answer);

/*
 * Takes over what was counted in another limiter, of the same layout and any size: for a limiter
 * that nobody counts in yet. Requests let through there count as reserved here, so that the ledger
 * is not told of them twice.
 */
void limiter_carry(struct limiter *limiter, const struct limiter *from, uint64_t now_ms);

/* ---- Several hosts: for the ledger keeper, and for a worker that reserves ---- */

/* How many hosts share the ledger, 1 for alone; valid until `until_ms`, then it counts as alone. */
void limiter_set_hosts(struct limiter *limiter, unsigned hosts, uint64_t until_ms);
unsigned limiter_hosts(const struct limiter *limiter, uint64_t now_ms);

/* What a host knows of a subject's minute. */
struct limit_share {
	uint64_t tag;
	uint64_t minute; /* Unix time / 60 */
	uint32_t limit; /* as last asked with */
	uint32_t used; /* let through on this host in that minute */
	uint32_t used_before; /* in the minute before */
	uint32_t reserved; /* by this host in that minute */
};

/* A subject's share at that time; all zero but tag and minute when it is not there. */
void limiter_share(
	const struct limiter *limiter, uint64_t tag, uint64_t now_ms, struct limit_share *share);

/* Adds `more` to what this host has reserved of a subject's minute, and notes what the ledger says
 * of all hosts together: reserved in that minute and in the one before. `more` may be 0; what would
 * not fit a count (2^18 - 1) is cut down to that. */
void limiter_reserved(struct limiter *limiter, uint64_t tag, uint64_t minute, uint32_t more,
	uint32_t total, uint32_t total_before);

/* Calls visit() for every subject that was counted in the current minute. */
void limiter_each(const struct limiter *limiter, uint64_t now_ms,
	void (*visit)(const struct limit_share *share, void *arg), void *arg);

#endif
