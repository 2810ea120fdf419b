/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One loop, a quarter of a second at most per turn: ask the database what changed, take what it
 * notified, do the next chore that is due. The listener drops outdated entries before it renews
 * their freshness, and the freshness counts from before the question. So an entry that workers take
 * as fresh is at most FRESH_MS behind the database. Read beside this: the PostgreSQL manual,
 * NOTIFY, and pg_visible_in_snapshot().
 */
#include "app/process/change_listener.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/cache/memcached_answers.h"
#include "app/process/helper_process.h"
#include "app/registry/sweep.h"
#include "lib/buf.h"
#include "lib/clock.h"
#include "lib/db.h"
#include "lib/eth.h"
#include "lib/log.h"
#include "lib/sha256.h"

enum {
	TURN_MS = 250,
	FRESH_MS = 1000,
	PAUSE_MS = 50, /* between looks at a database that is away; lib/db.c backs off by itself */
	BACKOFF_MOST_MS =
		100, /* the one process of the host that tries so often, for all of them */
	STATEMENT_MS = 1000, /* a chore that takes longer would keep the listener from listening */
	PAYLOAD_BYTES = 64,
	USES_A_STATEMENT = 5000,
	NUMBER_BYTES = 21,
	MISSED_MAX = 5000, /* changes that are caught up with; more are as good as all */
	HOTTEST = 1000,
	KEYS_A_STATEMENT = 10000, /* as the statement says */
	LOOKS = 200000, /* at places of answers, for the hottest, in one turn */
};

/*
 * Finds each change that was committed since a snapshot ($1; $2 is the base of places then), once,
 * and the parameters of the next look. Asked four times a second, this costs writers nothing: a
 * NOTIFY in their transactions takes a lock at commit that all of them share. One row more than is
 * caught up with, and at least one.
 *
 * Read is only what can be new, however long another transaction stays open. An event stands at its
 * transaction's number or behind it. So transactions that began after the snapshot are behind its
 * end. Of those that were under way, the ones that have ended since may be before it: from the
 * first of these on everything is read, once, and where that is too much, anything may have
 * changed. The session does without sequential scans (see change_listener_run()): the planner does
 * not know these places. And without JIT: a scan of the one row that has no index counts as dear
 * then, and each look would compile for a second.
 */
static const struct db_statement changes = {
	.name = "listener_changes",
	.effect = DB_READS,
	.sql = "WITH before AS MATERIALIZED ("
	       "  SELECT $2::bigint + pg_snapshot_xmax($1::pg_snapshot)::text::bigint AS new_place,"
	       "         $2::bigint + (SELECT min(xid::text::bigint)"
	       "                         FROM pg_snapshot_xip($1::pg_snapshot) AS xid"
	       "                        WHERE pg_visible_in_snapshot(xid, pg_current_snapshot()))"
	       "           AS old_place"
	       "), late AS MATERIALIZED ("
	       "  SELECT type, agent_uuid, xid FROM erc8004_events"
	       "   WHERE place >= (SELECT old_place FROM before)"
	       "     AND place < (SELECT new_place FROM before)"
	       "   LIMIT 20001"
	       "), changed AS MATERIALIZED ("
	       "  (SELECT type, agent_uuid FROM erc8004_events"
	       "    WHERE place >= (SELECT new_place FROM before)"
	       "      AND NOT pg_visible_in_snapshot(xid, $1::pg_snapshot)"
	       "    LIMIT 5001)"
	       "  UNION ALL"
	       "  (SELECT type, agent_uuid FROM late"
	       "    WHERE NOT pg_visible_in_snapshot(xid, $1::pg_snapshot) LIMIT 5001)"
	       ")"
	       "SELECT here.snapshot, here.base, here.horizon,"
	       "       (SELECT count(*) > 20000 FROM late), changed.type, changed.agent_uuid"
	       "  FROM (SELECT pg_current_snapshot()::text, base, areg_event_horizon()"
	       "          FROM erc8004_event_base) AS here (snapshot, base, horizon)"
	       "  LEFT JOIN changed ON true",
};

static const struct db_statement write_uses = {
	.name = "listener_write_uses",
	.effect = DB_CHANGES,
	.sql = "UPDATE api_keys SET last_used_at = to_timestamp(use.at_s) "
	       "FROM unnest($1::uuid[], $2::bigint[]) AS use (key_id, at_s) "
	       "WHERE id = use.key_id "
	       "AND coalesce(last_used_at < to_timestamp(use.at_s), true)",
};

static const struct db_statement seal_audit = {
	.name = "listener_seal_audit",
	.effect = DB_CHANGES,
	.sql = "SELECT areg_seal_audit()",
};

static const struct db_statement resume_events = {
	.name = "listener_resume_events",
	.effect = DB_CHANGES,
	.sql = "SELECT areg_resume_events()",
};

static const struct db_statement audit_head = {
	.name = "listener_audit_head",
	.effect = DB_READS,
	.sql = "SELECT seal_position, seal_hash FROM areg_audit_head()",
};

/* One row more than is caught up with, and at least one. A place ahead of the horizon is of another
 * database: this one was restored. Events from the place on may have been deleted since. */
static const struct db_statement missed_changes = {
	.name = "listener_missed_changes",
	.effect = DB_READS,
	.sql = "SELECT here.is_lost, missed.place IS NOT NULL, missed.agent_uuid"
	       "  FROM (SELECT areg_event_horizon() < $1::bigint OR place >= $1::bigint AS is_lost"
	       "          FROM erc8004_events_pruned) AS here"
	       "  LEFT JOIN LATERAL (SELECT place, agent_uuid FROM erc8004_events"
	       "                      WHERE place >= $1::bigint LIMIT 5001) AS missed ON true",
};

/* The first eight bytes of each hash, in hex, in order of the hashes. */
static const struct db_statement read_keys = {
	.name = "listener_read_keys",
	.effect = DB_READS,
	.sql = "SELECT string_agg(encode(substr(key_hash, 1, 8), 'hex'), '' ORDER BY key_hash)"
	       "  FROM (SELECT key_hash FROM api_keys"
	       "         WHERE key_hash > decode($1, 'hex') AND is_active"
	       "         ORDER BY key_hash LIMIT 10000) AS next",
};

/* What was heard since the last time that it was passed on. */
struct heard {
	const char *agents[MEMCACHED_ANSWERS_CHANGES];
	size_t agent_count;
	bool registry; /* lists and totals, whatever the agents */
	bool all;
};

struct listener {
	const struct settings *settings;
	struct host_memory *host;
	struct reports *reports; /* of errors; NULL: none is wanted */
	struct wal_position *wal; /* the same as host->wal */
	int ready_fd; /* -1: nobody waits for it to listen, or no more */
	struct db *db;
	struct memcached_answers memcached;
	struct heard heard;
	uint64_t filling; /* number of the filling of the key ring that is under way; 0: none */
	char filled_to[2 * SHA256_BYTES + 1]; /* hash up to which keys were read for it, in hex */
	char *snapshot; /* up to which changes were heard; NULL at first. From malloc() */
	char base[NUMBER_BYTES]; /* of places, in that snapshot */
	char horizon[NUMBER_BYTES]; /* of events, in that snapshot */
	struct arena *arena; /* of a turn */
	int64_t logged_head; /* position of the audit log's last seal, as it was logged */
	bool listens;
	bool has_listened;
	bool is_behind; /* changes were not read in time: the next look begins anew */
	bool is_deaf; /* could not ask what changed: says so once */
	bool requires_in_vain; /* said once */
};

/* What is to be done now and then. Returns whether there is more to do at once. */
struct chore {
	const char *name; /* for the log */
	uint64_t every_ms;
	enum db_status (*run)(struct listener *listener, bool *more);
	uint64_t due_ms;
	bool fails; /* it did last time: says so once */
};

/* Says what could not be done, once until it can be; `fails` remembers. A failure that neither the
 * connection nor another session caused is a fault of areg: operators must hear of it. */
static void tell_failure(
	const struct listener *listener, const char *chore, enum db_status status, bool *fails)
{
	const struct db_error *error = db_last_error(listener->db);
	struct report report = { .level = REPORT_ERROR, .place = "listener" };

	if (!*fails)
		log_event(LOG_LEVEL_WARN, "could not be done; it is tried again",
			LOG_TEXT("chore", chore), LOG_TEXT("status", db_status_name(status)),
			LOG_TEXT("sqlstate", error->sqlstate), LOG_TEXT("reason", error->message));
	*fails = true;
	if (status != DB_OURS)
		return;
	snprintf(report.code, sizeof report.code, "%s",
		error->sqlstate[0] != '\0' ? error->sqlstate : db_status_name(status));
	snprintf(report.statement, sizeof report.statement, "%s", error->statement);
	reports_put(listener->reports, &report);
}

static void tell_success(const char *chore, bool *fails)
{
	if (*fails)
		log_event(LOG_LEVEL_INFO, "works again", LOG_TEXT("chore", chore));
	*fails = false;
}

/* ---- Chores ---- */

enum { START_DIGITS = 2 * KEY_FILTER_START };

/* Passes on the start of a key's hash that stands there in hex; what is none is left out. */
static void key_is_there(const struct listener *listener, const char *digits,
	void (*add)(struct key_filter *key_filter, const uint8_t start[KEY_FILTER_START]))
{
	uint8_t start[KEY_FILTER_START];

	if (hex_decode(digits, KEY_FILTER_START, start))
		add(listener->host->key_filter, start);
}

/* Uses of keys on their way into one statement. */
struct uses {
	struct arena *arena;
	const char *key_ids[USES_A_STATEMENT];
	const char *times[USES_A_STATEMENT];
	size_t count;
	struct listener *listener;
	enum db_status status;
};

static void write_out(struct uses *uses)
{
	const char *params[] = { db_array(uses->arena, uses->key_ids, uses->count),
		db_array(uses->arena, uses->times, uses->count) };
	struct db_rows rows;

	if (uses->count > 0 && uses->status == DB_OK)
		uses->status =
			db_run(uses->listener->db, &write_uses, params, 2, uses->arena, &rows);
	uses->count = 0;
}

static void add_use(const char *key_id, int64_t used_at_s, void *arg)
{
	struct uses *uses = arg;

	if (uses->count == USES_A_STATEMENT)
		write_out(uses);
	uses->key_ids[uses->count] = arena_strdup(uses->arena, key_id);
	uses->times[uses->count++] = arena_printf(uses->arena, "%" PRId64, used_at_s);
}

/* Uses that cannot be written are lost: last_used_at is a hint. */
static enum db_status tell_uses(struct listener *listener, bool *more)
{
	struct uses *uses = arena_alloc(listener->arena, sizeof *uses);

	*more = false;
	uses->arena = listener->arena;
	uses->listener = listener;
	uses->status = DB_OK;
	callers_take_used(listener->host->callers, add_use, uses);
	write_out(uses);
	return uses->status;
}

static enum db_status listener_sweep(struct listener *listener, enum sweep what, bool *more)
{
	uint64_t removed;

	return sweep_batch(listener->db, what, listener->settings, listener->arena, &removed, more);
}

static enum db_status sweep_retries(struct listener *listener, bool *more)
{
	return listener_sweep(listener, SWEEP_RETRIES, more);
}

static enum db_status sweep_challenges(struct listener *listener, bool *more)
{
	return listener_sweep(listener, SWEEP_CHALLENGES, more);
}

static enum db_status sweep_events(struct listener *listener, bool *more)
{
	return listener_sweep(listener, SWEEP_EVENTS, more);
}

static enum db_status fold_totals(struct listener *listener, bool *more)
{
	return listener_sweep(listener, SWEEP_TOTALS, more);
}

/* The database may have been restored from another cluster. */
static enum db_status resume(struct listener *listener, bool *more)
{
	struct db_rows rows;

	*more = false;
	return db_run(listener->db, &resume_events, NULL, 0, listener->arena, &rows);
}

/* The host logs each head that it has not logged yet, whoever sealed it. If somebody deletes an
 * entry later, the log of every host shows it: see `aregctl audit verify --expect`. */
static enum db_status listener_seal(struct listener *listener, bool *more)
{
	struct db_rows rows;
	enum db_status status = db_run(listener->db, &seal_audit, NULL, 0, listener->arena, &rows);
	int64_t position;

	*more = false;
	if (status == DB_OK)
		status = db_run(listener->db, &audit_head, NULL, 0, listener->arena, &rows);
	if (status != DB_OK)
		return status;
	position = db_int(&rows, 0, 0);
	if (position != listener->logged_head && position > 0)
		log_event(LOG_LEVEL_INFO, "audit head", LOG_NUMBER("position", position),
			LOG_TEXT("hash", db_text(&rows, 0, 1)));
	listener->logged_head = position;
	return DB_OK;
}

/* Which keys exist, a piece at a time. */
static enum db_status fill_key_filter(struct listener *listener, bool *more)
{
	const char *after = listener->filled_to;
	struct db_rows rows;
	enum db_status status;
	const char *starts;
	size_t count;

	*more = false;
	if (listener->filling == 0) {
		listener->filling = key_filter_fill_begin(listener->host->key_filter);
		*listener->filled_to = '\0';
	}
	status = db_run(listener->db, &read_keys, &after, 1, listener->arena, &rows);
	if (status != DB_OK)
		return status;
	starts = db_text(&rows, 0, 0) == NULL ? "" : db_text(&rows, 0, 0);
	count = strlen(starts) / START_DIGITS;
	for (size_t i = 0; i < count; i++)
		key_is_there(listener, starts + i * START_DIGITS, key_filter_fill);
	*more = count == KEYS_A_STATEMENT;
	if (*more) {
		/* Another hash that begins so sets the same bits. */
		memset(listener->filled_to, 'f', sizeof listener->filled_to - 1);
		memcpy(listener->filled_to, starts + (count - 1) * START_DIGITS, START_DIGITS);
	} else {
		key_filter_fill_end(listener->host->key_filter, listener->filling);
		listener->filling = 0;
	}
	return DB_OK;
}

/* Notes in memcached that every change before listener->horizon was heard of, for a listener that
 * starts later. */
static enum db_status note_heard(struct listener *listener, bool *more)
{
	*more = false;
	memcached_answers_set_heard(&listener->memcached, listener->horizon, listener->arena);
	return DB_OK;
}

/* Targets on their way into the list of the hottest. */
struct targets {
	struct arena *arena;
	struct target {
		const char *text;
		uint64_t uses;
	} * list;
	size_t count;
};

static void add_target(const char *text, uint64_t uses, void *arg)
{
	struct targets *targets = arg;

	targets->list[targets->count++] =
		(struct target){ arena_strdup(targets->arena, text), uses };
}

static int by_uses(const void *left, const void *right)
{
	const struct target *one = left, *other = right;

	return (one->uses < other->uses) - (one->uses > other->uses);
}

static enum db_status tell_hottest(struct listener *listener, bool *more)
{
	struct targets targets = { .arena = listener->arena };
	struct buf lines;

	*more = false;
	if (!memcached_answers_is_trusted(&listener->memcached))
		return DB_OK;
	targets.list = arena_alloc(listener->arena, LOOKS * sizeof *targets.list);
	answers_tell_used(listener->host->answers, LOOKS, add_target, &targets);
	if (targets.count == 0)
		return DB_OK;
	qsort(targets.list, targets.count, sizeof *targets.list, by_uses);
	buf_init(&lines, listener->arena, 65536);
	for (size_t i = 0; i < targets.count && i < HOTTEST; i++)
		buf_printf(&lines, "%s\n", targets.list[i].text);
	memcached_answers_set_hottest(&listener->memcached, lines.data, lines.len);
	return DB_OK;
}

static void run_chore(struct listener *listener, struct chore *chore)
{
	bool more = false;
	enum db_status status = chore->run(listener, &more);

	chore->due_ms = clock_ms() + (more ? 0 : chore->every_ms);
	if (status == DB_OK)
		tell_success(chore->name, &chore->fails);
	else
		tell_failure(listener, chore->name, status, &chore->fails);
}

/* The one that is due for longest: one a turn, so that what is heard never waits for several. */
static struct chore *next_due(struct chore *chores, size_t count)
{
	struct chore *due = NULL;

	for (size_t i = 0; i < count; i++)
		if (chores[i].due_ms <= clock_ms() &&
			(due == NULL || chores[i].due_ms < due->due_ms))
			due = &chores[i];
	return due;
}

/* ---- Hearing ---- */

/* Replicas are to have replayed all that was heard: before it is dropped from what they may fill. */
static void require(struct listener *listener)
{
	enum db_status status = DB_OK;

	if (wal_position_is_wanted(listener->wal))
		status = wal_position_settle(listener->wal, listener->db, listener->arena);
	if (status != DB_OK && !listener->requires_in_vain)
		log_event(LOG_LEVEL_WARN,
			"replicas are not asked: the primary does not tell how far it is",
			LOG_TEXT("status", db_status_name(status)),
			LOG_TEXT("reason", db_last_error(listener->db)->message));
	listener->requires_in_vain = status != DB_OK;
}

/* Tells memcached and the workers, in that order (see app/http/cached_answers.c), what was heard. */
static void pass_on(struct listener *listener)
{
	struct heard *heard = &listener->heard;
	struct answers *answers = listener->host->answers;

	if (heard->all || heard->agent_count > 0 || heard->registry)
		require(listener);
	if (heard->all) {
		memcached_answers_drop_all(&listener->memcached);
		answers_drop_all(answers);
	} else if (heard->agent_count > 0 || heard->registry) {
		memcached_answers_changed(
			&listener->memcached, heard->agents, heard->agent_count, listener->arena);
		for (size_t i = 0; i < heard->agent_count; i++)
			answers_changed(answers, heard->agents[i]);
		answers_changed(answers, NULL);
	}
	*heard = (struct heard){ 0 };
}

static void heard_agent(struct listener *listener, const char *agent_uuid)
{
	struct heard *heard = &listener->heard;

	for (size_t i = 0; i < heard->agent_count; i++)
		if (strcmp(heard->agents[i], agent_uuid) == 0)
			return;
	heard->agents[heard->agent_count++] = arena_strdup(listener->arena, agent_uuid);
	if (heard->agent_count == MEMCACHED_ANSWERS_CHANGES)
		pass_on(listener);
}

/* Sets the tokens of what changed since somebody last noted how far they were set. False when that
 * cannot be found out. */
static bool listener_catch_up(struct listener *listener)
{
	const char *place = memcached_answers_heard(&listener->memcached, listener->arena);
	struct db_rows rows;

	if (*place == '\0' ||
		db_run(listener->db, &missed_changes, &place, 1, listener->arena, &rows) != DB_OK)
		return false;
	if (rows.count > MISSED_MAX || db_bool(&rows, 0, 0))
		return false;
	listener->heard.registry = db_bool(&rows, 0, 1);
	for (size_t row = 0; row < rows.count; row++)
		if (db_text(&rows, row, 2) != NULL)
			heard_agent(listener, db_text(&rows, row, 2));
	pass_on(listener);
	return true;
}

/* Takes what was committed since it was last asked for. False when the database cannot be asked. */
static bool hear_changes(struct listener *listener)
{
	static const char chore[] = "hearing what changed";
	const char *params[] = { listener->snapshot,
		listener->snapshot == NULL ? NULL : listener->base };
	struct db_rows rows;
	enum db_status status = db_run(listener->db, &changes, params, 2, listener->arena, &rows);

	if (status != DB_OK) {
		tell_failure(listener, chore, status, &listener->is_deaf);
		if (status == DB_TIMEOUT) {
			free(listener->snapshot);
			listener->snapshot = NULL;
			listener->is_behind = true;
		}
		return false;
	}
	tell_success(chore, &listener->is_deaf);
	/* Only what changes from now on is known: anything may have changed before. */
	listener->heard.all = listener->heard.all || listener->is_behind;
	listener->is_behind = false;
	listener->heard.all =
		listener->heard.all || rows.count > MISSED_MAX || db_bool(&rows, 0, 3);
	for (size_t row = 0; row < rows.count && !listener->heard.all; row++) {
		const char *type = db_text(&rows, row, 4);

		if (type == NULL)
			continue;
		listener->heard.registry = true;
		/* Another agent may get the chain and agent_id of the deleted one. */
		if (strcmp(type, "agent.deleted") == 0)
			listener->heard.all = true;
		if (db_text(&rows, row, 5) != NULL)
			heard_agent(listener, db_text(&rows, row, 5));
	}
	free(listener->snapshot);
	listener->snapshot = strdup(db_text(&rows, 0, 0));
	if (listener->snapshot == NULL)
		abort();
	snprintf(listener->base, sizeof listener->base, "%s", db_text(&rows, 0, 1));
	snprintf(listener->horizon, sizeof listener->horizon, "%s", db_text(&rows, 0, 2));
	return true;
}

static void tell_ready(struct listener *listener)
{
	if (listener->ready_fd < 0)
		return;
	if (write(listener->ready_fd, "", 1) != 1)
		log_warn("the master was not told that the listener listens: %s", strerror(errno));
	close(listener->ready_fd);
	listener->ready_fd = -1;
}

static void begin_to_listen(struct listener *listener)
{
	static const char *const channels[] = { "areg_callers", "areg_agents", NULL };

	free(listener->snapshot);
	listener->snapshot = NULL;
	if (db_listen(listener->db, channels) != DB_OK || !hear_changes(listener))
		return;
	listener->filling = 0;
	require(listener);
	/* Afterwards, not before: what changed until now was never heard of. */
	if (!listener_catch_up(listener))
		memcached_answers_drop_all(&listener->memcached);
	callers_drop_all(listener->host->callers);
	answers_drop_all(listener->host->answers);
	if (listener->has_listened)
		log_warn(
			"connected again: changes may have been missed, so all callers and answers "
			"that were kept in memory are dropped");
	else
		log_info("listens to changes of users, keys and agents");
	listener->listens = listener->has_listened = true;
	tell_ready(listener);
}

static void heard(struct listener *listener, const char *payload)
{
	static const char user[] = "user:", key[] = "key:";

	if (strncmp(payload, user, sizeof user - 1) == 0)
		callers_drop_user(listener->host->callers, payload + sizeof user - 1);
	else if (strncmp(payload, key, sizeof key - 1) == 0 &&
		 strlen(payload) == sizeof key - 1 + START_DIGITS)
		key_is_there(listener, payload + sizeof key - 1, key_filter_add);
	else if (strcmp(payload, "all") == 0)
		listener->heard.all = true;
	else
		log_event(LOG_LEVEL_WARN, "a notification that is not understood",
			LOG_TEXT("payload", payload));
}

/* Takes what is notified until nothing has come for wait_ms. False when the connection is lost. */
static bool hear(struct listener *listener, int wait_ms)
{
	char payload[PAYLOAD_BYTES];
	bool is_connected;

	do {
		is_connected =
			db_wait_notify(listener->db, wait_ms, payload, sizeof payload) == DB_OK;
		if (payload[0] != '\0')
			heard(listener, payload);
		wait_ms = 0;
	} while (is_connected && payload[0] != '\0');
	pass_on(listener);
	return is_connected;
}

/* Asks the database what changed, and takes what it notified before it answered. */
static void say_fresh(struct listener *listener)
{
	const uint64_t asked_ms = clock_unix_ms();

	if (!hear_changes(listener) || !hear(listener, 0))
		return;
	if (!wal_position_is_settled(listener->wal))
		require(listener);
	callers_set_fresh_until(listener->host->callers, asked_ms + FRESH_MS);
}

static void listener_take_turn(struct listener *listener, struct chore *chores, size_t count)
{
	struct chore *chore;

	if (!listener->listens) {
		begin_to_listen(listener);
		for (size_t i = 0; i < count; i++)
			chores[i].due_ms = 0;
	}
	if (!listener->listens)
		return;
	memcached_answers_recover(&listener->memcached);
	say_fresh(listener);
	chore = next_due(chores, count);
	if (chore != NULL)
		run_chore(listener, chore);
	listener->listens = hear(listener, next_due(chores, count) != NULL ? 0 : TURN_MS);
}

int change_listener_run(const struct settings *settings, struct host_memory *host,
	struct reports *reports, int ready_fd)
{
	const struct db_options options = { settings->database_url, "areg listener",
		settings->database_connect_timeout_ms,
		settings->database_statement_timeout_ms < STATEMENT_MS
			? settings->database_statement_timeout_ms
			: STATEMENT_MS,
		"SET enable_seqscan = off; SET jit = off", true };
	struct chore chores[] = {
		{ .name = "resuming events after a restore", .every_ms = 60000, .run = resume },
		{ .name = "folding totals", .every_ms = 1000, .run = fold_totals },
		{ .name = "sealing the audit log", .every_ms = 1000, .run = listener_seal },
		{ .name = "writing last uses of keys", .every_ms = 10000, .run = tell_uses },
		{ .name = "noting how far changes were heard",
			.every_ms = 1000,
			.run = note_heard },
		{ .name = "telling what is asked for most",
			.every_ms = 10000,
			.run = tell_hottest },
		{ .name = "sweeping answers kept for retries",
			.every_ms = 60000,
			.run = sweep_retries },
		{ .name = "sweeping sign-in challenges",
			.every_ms = 60000,
			.run = sweep_challenges },
		{ .name = "sweeping old events", .every_ms = 60000, .run = sweep_events },
		{ .name = "reading which keys there are",
			.every_ms = 3600 * 1000,
			.run = fill_key_filter },
	};
	const struct cache_options cache_options = { settings->memcached_servers,
		settings->cache_timeout_ms, settings->cache_retry_ms, host->view,
		settings->cache_key };
	struct listener listener = { .settings = settings,
		.host = host,
		.wal = host->wal,
		.reports = reports,
		.ready_fd = ready_fd };

	listener.db = db_new(&options);
	db_share_reached(listener.db, host->reached, BACKOFF_MOST_MS);
	listener.arena = arena_new(64 * 1024, 256 * 1024 * 1024);
	memcached_answers_init(&listener.memcached, listener.arena, settings,
		cache_new(&cache_options), host->answers, host->wal);
	cache_claim(listener.memcached.cache);
	if (settings_replicas(settings) > 0)
		wal_position_want(host->wal);
	while (helper_wait(listener.listens ? 0 : PAUSE_MS)) {
		listener_take_turn(&listener, chores, sizeof chores / sizeof chores[0]);
		arena_reset(listener.arena);
	}
	cache_free(listener.memcached.cache);
	free(listener.snapshot);
	db_free(listener.db);
	arena_free(listener.arena);
	return 0;
}
