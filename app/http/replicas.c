/* SPDX-License-Identifier: Apache-2.0 */
/* Each has a connection of its own, opened when it is first asked. A failure here fails no request:
 * the next replica is asked, or the primary. */
#include "app/http/replicas.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/clock.h"
#include "lib/log.h"

enum {
	BEHIND_MS = 10, /* one that lags is not asked again sooner how far it is */
	GRACE_MS = 1500, /* beside connecting and answering, until a trial counts as given up */
};

struct replica {
	struct db *db;
	struct db_options options;
	char name[64]; /* application_name: with its number, as the log says it */
	struct wal_place place; /* heard on this connection */
	uint64_t behind_until_ms;
	uint64_t asked_ms; /* when it was last turned to */
};

struct replicas {
	const struct settings *settings;
	struct wal_position *wal;
	char *session;
	size_t first, count;
	struct replica list[];
};

/* On the server asked: whether it replays, and as far as it has. The control file tells the timeline
 * as of the last restart point, so after a promotion its replicas are left out until their next. */
static const struct db_statement find_replica = {
	.name = "replica_find",
	.effect = DB_READS,
	.sql = "SELECT pg_is_in_recovery(), system.system_identifier,"
	       "       greatest(point.timeline_id, recovery.min_recovery_end_timeline),"
	       "       (pg_last_wal_replay_lsn() - '0/0')::bigint"
	       "  FROM pg_control_system() AS system, pg_control_checkpoint() AS point,"
	       "       pg_control_recovery() AS recovery",
};

static const struct db_statement describe_replica = {
	.name = "replica_describe",
	.effect = DB_READS,
	.sql = "SELECT pg_is_in_recovery(), CASE WHEN pg_last_wal_receive_lsn() ="
	       "         pg_last_wal_replay_lsn() THEN 0 ELSE 1000 * extract(epoch FROM"
	       "         clock_timestamp() - pg_last_xact_replay_timestamp()) END::bigint,"
	       "       current_setting('server_version'),"
	       "       (SELECT max(version) FROM schema_migrations)",
};

struct replicas *replicas_new(const struct settings *settings, struct wal_position *wal,
	size_t first, const char *application_name, const char *session)
{
	const size_t count = settings_replicas(settings);
	struct replicas *replicas;

	if (count == 0)
		return NULL;
	replicas = calloc(1, sizeof *replicas + count * sizeof replicas->list[0]);
	if (replicas == NULL ||
		asprintf(&replicas->session, "SET default_transaction_read_only = on;%s",
			session == NULL ? "" : session) < 0)
		abort();
	replicas->settings = settings;
	replicas->wal = wal;
	replicas->count = count;
	replicas->first = first % count;
	for (size_t i = 0; i < count; i++) {
		struct replica *replica = &replicas->list[i];

		snprintf(replica->name, sizeof replica->name, "%s replica %zu", application_name,
			i + 1);
		replica->options = (struct db_options){ settings->database_read[i], replica->name,
			settings->database_read_timeout_ms, settings->database_read_timeout_ms,
			replicas->session, false };
		replica->db = db_new(&replica->options);
	}
	return replicas;
}

void replicas_free(struct replicas *replicas)
{
	if (replicas == NULL)
		return;
	for (size_t i = 0; i < replicas->count; i++)
		db_free(replicas->list[i].db);
	free(replicas->session);
	free(replicas);
}

size_t replicas_count(const struct replicas *replicas)
{
	return replicas == NULL ? 0 : replicas->count;
}

static void leave_alone(struct replicas *replicas, size_t at, const char *why)
{
	replicas->list[at].place = (struct wal_place){ 0 };
	if (wal_position_failed(replicas->wal, at, replicas->list[at].asked_ms))
		log_event(LOG_LEVEL_WARN, "a replica is left alone for now",
			LOG_NUMBER("replica", (int64_t)at + 1), LOG_TEXT("reason", why));
}

/* Whether the server itself is at fault, rather than what it was asked. */
static bool is_away(const struct db *db, enum db_status status)
{
	return status == DB_UNAVAILABLE ||
	       (status == DB_TIMEOUT && db_last_error(db)->sqlstate[0] == '\0');
}

static enum replica_outcome failed(struct replicas *replicas, size_t at, enum db_status status)
{
	struct db *db = replicas->list[at].db;

	if (!is_away(db, status))
		return REPLICA_REFUSED;
	leave_alone(replicas, at, db_last_error(db)->message);
	return REPLICA_AWAY;
}

/* Asks a replica how far it is: REPLICA_ANSWERED when that is enough. */
static enum replica_outcome replicas_catch_up(
	struct replicas *replicas, size_t at, uint64_t at_least, struct arena *arena)
{
	struct replica *replica = &replicas->list[at];
	struct db_rows rows;
	enum db_status status;

	if (clock_ms() < replica->behind_until_ms)
		return REPLICA_BEHIND;
	status = db_run(replica->db, &find_replica, NULL, 0, arena, &rows);
	if (status != DB_OK)
		return failed(replicas, at, status);
	if (!db_bool(&rows, 0, 0)) {
		leave_alone(replicas, at, "it is no replica, or not any more");
		return REPLICA_AWAY;
	}
	replica->place = (struct wal_place){ (uint64_t)db_int(&rows, 0, 1),
		wal_position_number(db_int(&rows, 0, 2), db_int(&rows, 0, 3)) };
	if (wal_position_allows(replicas->wal, replica->place, at_least))
		return REPLICA_ANSWERED;
	replica->behind_until_ms = clock_ms() + BEHIND_MS;
	return REPLICA_BEHIND;
}

/* Twice where the connection was made anew on the way: behind its address may be another server. */
static enum replica_outcome read_from(struct replicas *replicas, size_t at, uint64_t at_least,
	const struct db_statement *statement, const char *const *params, size_t count,
	struct arena *arena, struct db_rows *rows)
{
	struct replica *replica = &replicas->list[at];

	for (int tries = 0; tries < 2; tries++) {
		enum replica_outcome outcome = REPLICA_ANSWERED;
		uint64_t connections;
		enum db_status status;

		if (!wal_position_allows(replicas->wal, replica->place, at_least))
			outcome = replicas_catch_up(replicas, at, at_least, arena);
		if (outcome != REPLICA_ANSWERED)
			return outcome;
		connections = db_meter(replica->db)->reconnects;
		status = db_run(replica->db, statement, params, count, arena, rows);
		if (status != DB_OK)
			return failed(replicas, at, status);
		if (db_meter(replica->db)->reconnects == connections)
			return REPLICA_ANSWERED;
		replica->place = (struct wal_place){ 0 };
	}
	return REPLICA_REFUSED;
}

enum replica_outcome replicas_read(struct replicas *replicas, uint64_t at_least,
	const struct db_statement *statement, const char *const *params, size_t count,
	struct arena *arena, struct db_rows *rows)
{
	enum replica_outcome worst = REPLICA_AWAY;

	for (size_t i = 0; i < replicas_count(replicas); i++) {
		const size_t at = (replicas->first + i) % replicas->count;
		const uint64_t takes_ms =
			2 * ((uint64_t)replicas->settings->database_read_timeout_ms + GRACE_MS);
		enum replica_outcome outcome;

		if (!wal_position_may_try(replicas->wal, at, takes_ms))
			continue;
		replicas->list[at].asked_ms = clock_ms();
		outcome = read_from(replicas, at, at_least, statement, params, count, arena, rows);
		if (outcome != REPLICA_AWAY && wal_position_worked(replicas->wal, at))
			log_event(LOG_LEVEL_INFO, "a replica is asked again",
				LOG_NUMBER("replica", (int64_t)at + 1));
		if (outcome == REPLICA_ANSWERED)
			return REPLICA_ANSWERED;
		if (outcome != REPLICA_AWAY)
			worst = outcome;
	}
	return worst;
}

void replicas_wait_with(struct replicas *replicas, db_wait *wait, void *arg)
{
	for (size_t i = 0; i < replicas_count(replicas); i++)
		db_wait_with(replicas->list[i].db, wait, arg);
}

void replicas_tag(struct replicas *replicas, const char *tag)
{
	for (size_t i = 0; i < replicas_count(replicas); i++)
		db_tag(replicas->list[i].db, tag);
}

void replicas_add_meter(const struct replicas *replicas, struct db_meter *meter)
{
	for (size_t i = 0; i < replicas_count(replicas); i++) {
		const struct db_meter *one = db_meter(replicas->list[i].db);

		meter->round_trips += one->round_trips;
		meter->waited_us += one->waited_us;
		meter->retries += one->retries;
		meter->reconnects += one->reconnects;
	}
}

void replicas_look(
	struct replicas *replicas, size_t at, struct arena *arena, struct replica_report *report)
{
	struct db *db = replicas->list[at].db;
	struct db_rows rows;

	*report = (struct replica_report){ .version = "" };
	if (db_run(db, &describe_replica, NULL, 0, arena, &rows) != DB_OK) {
		report->version = arena_strdup(arena, db_last_error(db)->message);
		return;
	}
	*report = (struct replica_report){ .is_reachable = true,
		.is_replica = db_bool(&rows, 0, 0),
		.lag_ms = db_int(&rows, 0, 1),
		.version = db_text(&rows, 0, 2),
		.schema_version = db_int(&rows, 0, 3) };
}
