/* SPDX-License-Identifier: Apache-2.0 */
/* Every word is written by atomic operations alone, so that a process may die at any of them. */
#include "app/cache/wal_position.h"

#include <assert.h>

#include "lib/clock.h"

enum { ALONE_FIRST_MS = 1000, ALONE_MOST_MS = 8000, TIMELINE_SHIFT = 48 };

struct wal_position {
	uint64_t wanted;
	uint64_t system; /* of the primary; 0: not known, and no replica may answer */
	uint64_t required;
	uint64_t doubts, settled; /* counted; settled: the first so many are */
	struct {
		uint64_t alone_until_ms;
		uint64_t failed_ms; /* last */
		uint64_t failures; /* in a row; 0: it works, as far as is known */
	} replicas[REPLICAS_MAX];
};

static_assert(
	sizeof(struct wal_position) <= WAL_POSITION_BYTES, "it fits the place that it is given");

/*
 * The flushed part of the WAL holds all commits of this session, unless synchronous_commit is off.
 * Commits of other sessions may lie after it: with $1 the insert position is read instead. The
 * flush position is preferred, because WAL that is not flushed when the primary is lost never
 * reaches a replica.
 */
static const struct db_statement find_primary = {
	.name = "wal_position_find_primary",
	.effect = DB_READS,
	.sql = "SELECT control.system_identifier,"
	       "       ('x' || substr(pg_walfile_name(here.lsn), 1, 8))::bit(32)::bigint,"
	       "       (here.lsn - '0/0')::bigint"
	       "  FROM pg_control_system() AS control,"
	       "       (SELECT CASE WHEN $1::boolean OR current_setting('synchronous_commit') = 'off'"
	       "                    THEN pg_current_wal_insert_lsn()"
	       "                    ELSE pg_current_wal_flush_lsn() END) AS here (lsn)",
};

static uint64_t wal_get(const uint64_t *word)
{
	return __atomic_load_n(word, __ATOMIC_SEQ_CST);
}

static void wal_set(uint64_t *word, uint64_t value)
{
	__atomic_store_n(word, value, __ATOMIC_SEQ_CST);
}

static bool replace(uint64_t *word, uint64_t from, uint64_t to)
{
	return __atomic_compare_exchange_n(
		word, &from, to, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

static void raise_to(uint64_t *word, uint64_t value)
{
	for (uint64_t now = wal_get(word); now < value; now = wal_get(word))
		if (replace(word, now, value))
			return;
}

uint64_t wal_position_number(int64_t timeline, int64_t lsn)
{
	return (uint64_t)timeline << TIMELINE_SHIFT |
	       (uint64_t)lsn >> 3; /* records begin at such places */
}

struct wal_position *wal_position_init(void *memory)
{
	return memory;
}

void wal_position_want(struct wal_position *wal)
{
	wal_set(&wal->wanted, 1);
}

bool wal_position_is_wanted(const struct wal_position *wal)
{
	return wal_get(&wal->wanted) != 0;
}

uint64_t wal_position_required(const struct wal_position *wal)
{
	return wal_get(&wal->required);
}

bool wal_position_allows(const struct wal_position *wal, struct wal_place place, uint64_t at_least)
{
	/* In that order: wal_position_settle() sets the system last. */
	const uint64_t system = wal_get(&wal->system), required = wal_get(&wal->required);

	/* On a higher timeline than the primary's it follows another. Changes that were lost with
	 * an old timeline are not on the primary, either. */
	return place.system != 0 && place.system == system &&
	       place.position >> TIMELINE_SHIFT == required >> TIMELINE_SHIFT &&
	       place.position >= required && place.position >= at_least;
}

static enum db_status wal_ask(
	struct db *db, bool for_others, struct arena *arena, struct wal_place *place)
{
	const char *params[] = { for_others ? "true" : "false" };
	struct db_rows rows;
	enum db_status status = db_run(db, &find_primary, params, 1, arena, &rows);

	if (status == DB_OK)
		*place = (struct wal_place){ (uint64_t)db_int(&rows, 0, 0),
			wal_position_number(db_int(&rows, 0, 1), db_int(&rows, 0, 2)) };
	return status;
}

enum db_status wal_position_tell(struct wal_position *wal, struct db *db, struct arena *arena)
{
	struct wal_place place;
	enum db_status status = wal_ask(db, false, arena, &place);

	if (status != DB_OK)
		return status;
	if (place.system == wal_get(&wal->system))
		raise_to(&wal->required, place.position);
	else
		wal_position_doubt(wal);
	return DB_OK;
}

void wal_position_doubt(struct wal_position *wal)
{
	__atomic_add_fetch(&wal->doubts, 1, __ATOMIC_SEQ_CST);
}

bool wal_position_is_settled(const struct wal_position *wal)
{
	return wal_get(&wal->settled) >= wal_get(&wal->doubts);
}

enum db_status wal_position_settle(struct wal_position *wal, struct db *db, struct arena *arena)
{
	const uint64_t doubts = wal_get(&wal->doubts);
	struct wal_place place;
	enum db_status status = wal_ask(db, true, arena, &place);

	if (status != DB_OK) {
		wal_position_doubt(wal);
		return status;
	}
	if (place.system == wal_get(&wal->system)) {
		raise_to(&wal->required, place.position);
	} else {
		/* Another cluster: positions of the last one mean nothing here. */
		wal_set(&wal->system, 0);
		wal_set(&wal->required, place.position);
		wal_set(&wal->system, place.system);
	}
	raise_to(&wal->settled, doubts);
	return DB_OK;
}

bool wal_position_may_try(struct wal_position *wal, size_t replica, uint64_t takes_ms)
{
	uint64_t *until = &wal->replicas[replica].alone_until_ms;
	const uint64_t alone_until_ms = wal_get(until), now_ms = clock_ms();

	if (wal_get(&wal->replicas[replica].failures) == 0)
		return true;
	return now_ms >= alone_until_ms && replace(until, alone_until_ms, now_ms + takes_ms);
}

bool wal_position_failed(struct wal_position *wal, size_t replica, uint64_t asked_ms)
{
	const uint64_t now_ms = clock_ms();
	uint64_t *failures = &wal->replicas[replica].failures;
	uint64_t alone_ms = ALONE_FIRST_MS, before;

	if (wal_get(failures) != 0 && asked_ms <= wal_get(&wal->replicas[replica].failed_ms))
		return false;
	before = __atomic_fetch_add(failures, 1, __ATOMIC_SEQ_CST);
	for (uint64_t i = 0; i < before && alone_ms < ALONE_MOST_MS; i++)
		alone_ms *= 2;
	wal_set(&wal->replicas[replica].failed_ms, now_ms);
	wal_set(&wal->replicas[replica].alone_until_ms, now_ms + alone_ms);
	return before == 0;
}

bool wal_position_worked(struct wal_position *wal, size_t replica)
{
	uint64_t *failures = &wal->replicas[replica].failures;

	return wal_get(failures) != 0 && __atomic_exchange_n(failures, 0, __ATOMIC_SEQ_CST) != 0;
}
