/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The replicas of the database (database_read), as one process asks them. A worker keeps to one of
 * them, by its place, and turns to the next when that one fails. A replica answers only what
 * app/cache/wal_position.h allows; it is asked again how far it is when what was last heard is not enough.
 */
#ifndef AREG_HTTP_REPLICAS_H
#define AREG_HTTP_REPLICAS_H

#include "app/cache/wal_position.h"
#include "app/registry/settings.h"

struct replicas;

enum replica_outcome {
	REPLICA_ANSWERED,
	REPLICA_BEHIND, /* none that works has replayed enough */
	REPLICA_AWAY, /* none could be asked, or there are none */
	REPLICA_REFUSED, /* it was asked and failed; the primary may still answer */
};
enum { REPLICA_OUTCOMES = REPLICA_REFUSED + 1 };

/* Connects to nothing yet. NULL when the settings name no replica. Keeps settings and wal; who
 * only looks, by replicas_look(), may have none. `session` is as in db_options, or NULL. */
struct replicas *replicas_new(const struct settings *settings, struct wal_position *wal,
	size_t first, const char *application_name, const char *session);
void replicas_free(struct replicas *replicas);
size_t replicas_count(const struct replicas *replicas);

/* Runs a statement that only reads on one that may answer it, with at least that position replayed.
 * *rows only with REPLICA_ANSWERED. */
MUST_CHECK enum replica_outcome replicas_read(struct replicas *replicas, uint64_t at_least,
	const struct db_statement *statement, const char *const *params, size_t count,
	struct arena *arena, struct db_rows *rows);

/* As db_wait_with() and db_tag(), for each, and the sum of db_meter(). */
void replicas_wait_with(struct replicas *replicas, db_wait *wait, void *arg);
void replicas_tag(struct replicas *replicas, const char *tag);
void replicas_add_meter(const struct replicas *replicas, struct db_meter *meter);

/* What one of them is, for people. */
struct replica_report {
	bool is_reachable;
	bool is_replica; /* it replays the log of a primary */
	int64_t lag_ms; /* how old its last transaction is, 0 when it has all that was received */
	int64_t schema_version;
	const char *version; /* of PostgreSQL, or why it is not reachable: the arena's */
};

/* Asks it now, whether it was left alone or not. */
void replicas_look(
	struct replicas *replicas, size_t at, struct arena *arena, struct replica_report *report);

#endif
