/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How far a replica of PostgreSQL must be for its answers to be true on this host: one position in
 * the primary's log of writes (WAL), in shared memory, which only grows. A process that commits a
 * change raises it before it acknowledges the change; the listener raises it for the changes of
 * others, before it drops answers from the caches: so a replica that lags never fills them with
 * what was just dropped.
 *
 * Positions count on one timeline of one cluster only. The timeline stands above the place in the
 * same number (a promotion begins a higher one); of which cluster that is, the system identifier
 * says. Read beside this: the PostgreSQL manual, "Timelines", pg_control_system().
 */
#ifndef AREG_CACHE_WAL_POSITION_H
#define AREG_CACHE_WAL_POSITION_H

#include <stdbool.h>
#include <stdint.h>

#include "app/registry/settings.h"
#include "lib/arena.h"
#include "lib/db.h"

enum { WAL_POSITION_BYTES = 4096 };

struct wal_position; /* lies in shared memory */

/* Where a server stands. */
struct wal_place {
	uint64_t system; /* system identifier of its cluster */
	uint64_t position; /* by wal_position_number() */
};

/* Timeline and LSN as one number: 16 bits, and 48 of which each counts 8 bytes. */
uint64_t wal_position_number(int64_t timeline, int64_t lsn);

/* Takes zeroed memory of WAL_POSITION_BYTES, before forking. */
struct wal_position *wal_position_init(void *memory);

/* Turns WAL positions on, because replicas are configured. From then on every process of this host
 * reports its commits by wal_position_tell(), also one of a generation that was started without
 * replicas. */
void wal_position_want(struct wal_position *wal);
bool wal_position_is_wanted(const struct wal_position *wal);

/* The WAL position that replicas must have replayed: 0 while it is unknown. */
uint64_t wal_position_required(const struct wal_position *wal);

/* True if a replica at this WAL position has replayed everything this host requires, and at least
 * `at_least`. */
bool wal_position_allows(const struct wal_position *wal, struct wal_place place, uint64_t at_least);

/* After a commit on that connection, before it is acknowledged: asks where the primary stands, and
 * requires that. */
MUST_CHECK enum db_status wal_position_tell(
	struct wal_position *wal, struct db *db, struct arena *arena);

/*
 * For a change that may have been committed at an unknown WAL position. Until the listener calls
 * wal_position_settle(), wal_position_is_settled() is false, and reads must ask the primary first.
 */
void wal_position_doubt(struct wal_position *wal);
bool wal_position_is_settled(const struct wal_position *wal);

/* For the listener: requires all that is committed by now, and settles the doubts of before. When the
 * primary cannot be asked, that is one doubt more. */
MUST_CHECK enum db_status wal_position_settle(
	struct wal_position *wal, struct db *db, struct arena *arena);

/*
 * A replica that fails is left alone by all processes of the host, for a second at first, doubling,
 * at most 8 s. Then one of them tries it: wal_position_may_try() is true for that one only, for as
 * long as it may take (in ms), until it reports what became of it. wal_position_failed() and
 * wal_position_worked() return whether that changed the known state of the replica. asked_ms (by
 * clock_ms()) is when the failed attempt began, so that failures of one cause count once.
 */
bool wal_position_may_try(struct wal_position *wal, size_t replica, uint64_t takes_ms);
bool wal_position_failed(struct wal_position *wal, size_t replica, uint64_t asked_ms);
bool wal_position_worked(struct wal_position *wal, size_t replica);

#endif
