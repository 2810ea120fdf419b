/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PostgreSQL over libpq's asynchronous calls, so that every wait has a deadline of our own: a
 * server that is stopped, or behind a dead network, costs a caller no more than its timeout. (The
 * one exception is libpq's look-up of a host name, which blocks: give addresses, or a local
 * resolver.) Read beside this: the PostgreSQL manual, chapter "libpq", sections "Asynchronous
 * Command Processing" and "Pipeline Mode", and appendix A, "PostgreSQL Error Codes".
 */
#include "lib/db.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <libpq-fe.h>

#include "lib/log.h"
#include "lib/sql_names.h"

enum {
	TRIES = 3,
	PREPARED_MAX = 512, /* statements past that are parsed each time */
	SAVEPOINT_DEPTH_MAX = 8,
	BACKOFF_FIRST_MS = 100,
	BACKOFF_MOST_MS = 2000,
	IDLE_IN_TRANSACTION_MS = 60000, /* longest that our own code may take between statements */
	TAG_BYTES = 64, /* of application_name: NAMEDATALEN */
	RENEW_MS = 1000, /* at least between two connections given up for an error of ours */
	LOG_EVERY_MS = 2000, /* at most, of attempts to connect that fail one after the other */
	GRACE_MS = 1000, /* for a server's own timeout to arrive before we give it up */
	COPY_FLUSH_BYTES = 64 * 1024,
};

struct db {
	const struct db_options *options;
	PGconn *conn; /* NULL when not connected */
	bool was_connected;
	bool listens; /* db_listen() was called: only it may connect again */
	bool dying; /* the server said goodbye while nothing was asked of it */
	int64_t retry_at_us; /* backing off until then */
	int backoff_ms; /* of the last failure, 0 after a success */
	int backoff_most_ms;
	uint64_t *reached; /* see db_share_reached(); NULL: nobody tells us */
	uint64_t reached_before; /* what it was when the last attempt began */
	int64_t log_at_us; /* the next failure from then on is logged */

	const struct db_statement *prepared[PREPARED_MAX];
	size_t prepared_count;
	bool can_tag; /* set_tag is prepared */
	bool session_bad; /* the last error may live as long as this connection */
	int64_t renewed_us; /* when a connection was last given up for an error of ours */
	bool plans_stale; /* DEALLOCATE ALL is due before the next statement outside a transaction */

	char tag[TAG_BYTES]; /* "" for none, see db_tag() */
	bool tag_due; /* it goes out together with the next statement */

	bool in_transaction;
	bool begin_due; /* BEGIN goes out together with the first statement */
	bool transaction_lost; /* its connection is gone, and COMMIT was not sent */
	int savepoints;
	size_t copy_unflushed;

	struct db_error error;
	struct db_meter meter;
	uint64_t random;
	db_wait *wait; /* see db_wait_with() */
	void *wait_arg;
};

/* How an exchange with the server went, whatever it answered. */
enum flow { FLOW_DONE, FLOW_UNSENT, FLOW_LOST, FLOW_LATE };

/* What is to be exchanged: one trip. */
struct trip {
	const struct db_statement *statement; /* NULL: plain SQL */
	const char *sql;
	const char *const *params;
	int param_count;
	bool begins, enables_tag, tags, prepares; /* filled in by send_trip(), in that order */
	PGresult *result; /* out: rows or command; NULL when none or failed */
	bool failed; /* out: the server refused, see db_last_error() */
	bool copying; /* out: the server waits for COPY data */
};

static const struct db_statement set_tag = {
	.name = "areg_set_tag",
	.effect = DB_READS,
	.sql = "SELECT set_config('application_name', $1, false)",
};

static int64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* xorshift: spreads retries of several processes, nothing more is asked of it. */
static uint64_t next_random(struct db *db)
{
	db->random ^= db->random << 13;
	db->random ^= db->random >> 7;
	db->random ^= db->random << 17;
	return db->random;
}

static void pause_before_retry(struct db *db, int failed_tries)
{
	const uint64_t us = (5000 + next_random(db) % 15000) * (uint64_t)failed_tries;
	const int64_t until_us = now_us() + (int64_t)us;
	struct pollfd none = { .fd = -1 };

	db->meter.retries++;
	db->meter.waited_us += us;
	for (int64_t left_us = (int64_t)us; left_us > 0; left_us = until_us - now_us())
		(void)db->wait(db->wait_arg, &none, (int)((left_us + 999) / 1000));
}

static void copy_line(char *to, size_t size, const char *from)
{
	size_t len = 0;

	for (; from && *from && len + 1 < size; from++)
		to[len++] = (unsigned char)*from < ' ' ? ' ' : *from;
	while (len && to[len - 1] == ' ')
		len--;
	to[len] = '\0';
}

static enum db_status fail(struct db *db, enum db_status status, const char *message)
{
	db->error = (struct db_error){ .status = status, .statement = "" };
	copy_line(db->error.message, sizeof(db->error.message), message);
	return status;
}

/* The first rule that fits counts. Some errors live as long as the connection: a session that was
 * read-only when it began stays so, one whose search path or role was wrong keeps them after an
 * operator has put them right, and what a server process has broken in its own memory stays broken. */
static enum db_status status_of_sqlstate(const char *state, bool *session_bad)
{
	static const struct {
		const char *prefix;
		enum db_status status;
		bool session_bad;
	} rules[] = {
		{ "40001", DB_CONFLICT, false }, /* serialization_failure */
		{ "40P01", DB_CONFLICT, false }, /* deadlock_detected */
		{ "57014", DB_TIMEOUT, false }, /* query_canceled: statement_timeout */
		{ "55P03", DB_TIMEOUT, false }, /* lock_not_available: lock_timeout */
		{ "22", DB_CALLER, false }, /* data exception */
		{ "23", DB_CALLER, false }, /* integrity constraint violation */
		{ "57P", DB_UNAVAILABLE, false }, /* shutdown, crash, starting up */
		{ "08", DB_UNAVAILABLE, false }, /* connection exception */
		{ "53200", DB_UNAVAILABLE,
			true }, /* out_of_memory: that process may be the cause */
		{ "53", DB_UNAVAILABLE, false }, /* out of disk, connections */
		{ "58030", DB_UNAVAILABLE, false }, /* io_error */
		{ "25006", DB_UNAVAILABLE, true }, /* read_only_sql_transaction */
		{ "25", DB_OURS, true }, /* the transaction is not in the state that we think */
		{ "3", DB_OURS, true }, /* no such schema, cursor, savepoint or role */
		{ "42", DB_OURS, true }, /* no such object, or no right to it */
		{ "XX", DB_OURS, true }, /* internal error, data corrupted */
	};

	for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++)
		if (strncmp(state, rules[i].prefix, strlen(rules[i].prefix)) == 0) {
			*session_bad = rules[i].session_bad;
			return rules[i].status;
		}
	*session_bad = false;
	return DB_OURS;
}

static void fail_with_result(struct db *db, const PGresult *result)
{
	const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
	const char *function = PQresultErrorField(result, PG_DIAG_SOURCE_FUNCTION);

	fail(db, state ? status_of_sqlstate(state, &db->session_bad) : DB_UNAVAILABLE,
		message ? message : PQresultErrorMessage(result));
	copy_line(db->error.sqlstate, sizeof(db->error.sqlstate), state);
	copy_line(db->error.constraint, sizeof(db->error.constraint),
		PQresultErrorField(result, PG_DIAG_CONSTRAINT_NAME));
	copy_line(db->error.column, sizeof(db->error.column),
		PQresultErrorField(result, PG_DIAG_COLUMN_NAME));

	/* On a replica every change is refused, and that is the fault of who sent it there. */
	if (strcmp(db->error.sqlstate, "25006") == 0 && !db->options->read_write) {
		db->error.status = DB_OURS;
		db->session_bad = false;
	}
	/* 0A000 is also "feature not supported": the function tells, messages are translated. */
	if (strcmp(db->error.sqlstate, "26000") == 0 || strcmp(db->error.sqlstate, "42P05") == 0 ||
		(strcmp(db->error.sqlstate, "0A000") == 0 && function &&
			strcmp(function, "RevalidateCachedQuery") == 0))
		db->plans_stale = true;
}

static void take_notice(void *arg, const PGresult *result)
{
	struct db *db = arg;
	const char *severity = PQresultErrorField(result, PG_DIAG_SEVERITY_NONLOCALIZED);
	const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);

	if (severity && (strcmp(severity, "FATAL") == 0 || strcmp(severity, "PANIC") == 0))
		db->dying = true;
	log_debug("postgresql: %s: %s", severity ? severity : "notice", message ? message : "");
}

static int just_poll(void *arg, struct pollfd *fd, int timeout_ms)
{
	(void)arg;
	return poll(fd, 1, timeout_ms);
}

struct db *db_new(const struct db_options *options)
{
	struct db *db = calloc(1, sizeof(*db));

	if (!db)
		abort();
	db->options = options;
	db->error.statement = "";
	db->random = ((uint64_t)now_us() << 16 ^ (uint64_t)getpid()) | 1;
	db->wait = just_poll;
	db->backoff_most_ms = BACKOFF_MOST_MS;
	return db;
}

void db_share_reached(struct db *db, uint64_t *reached, int backoff_most_ms)
{
	db->reached = reached;
	if (backoff_most_ms > 0)
		db->backoff_most_ms = backoff_most_ms;
}

void db_wait_with(struct db *db, db_wait *wait, void *arg)
{
	db->wait = wait;
	db->wait_arg = arg;
}

static void db_disconnect(struct db *db)
{
	PQfinish(db->conn);
	db->conn = NULL;
	db->dying = db->session_bad = false;
	db->prepared_count = 0;
	db->plans_stale = db->can_tag = false;
	db->tag_due = db->tag[0] != '\0';
	db->copy_unflushed = 0;
}

bool db_abandon(struct db *db)
{
	const bool was_in_transaction = db != NULL && db->in_transaction;

	if (db == NULL)
		return false;
	if (db->conn != NULL && PQtransactionStatus(db->conn) != PQTRANS_IDLE)
		db_disconnect(db);
	db->in_transaction = db->begin_due = false;
	db->savepoints = 0;
	return was_in_transaction;
}

void db_free(struct db *db)
{
	if (!db)
		return;
	db_disconnect(db);
	free(db);
}

/* Waits until the socket is ready or the deadline (0: none). Returns revents, 0 when late. */
static short wait_until(const struct db *db, short events, int64_t deadline_us)
{
	for (;;) {
		struct pollfd fd = { .fd = PQsocket(db->conn), .events = events };
		const int64_t left_us = deadline_us ? deadline_us - now_us() : 0;
		int ready;

		if (deadline_us && left_us <= 0)
			return 0;
		ready = db->wait(
			db->wait_arg, &fd, deadline_us ? (int)((left_us + 999) / 1000) : -1);
		if (ready > 0)
			return fd.revents;
		if (ready < 0 && errno != EINTR)
			return POLLERR;
	}
}

static enum flow take_answers(struct db *db, int64_t deadline_us, struct trip *trip);

/* Told once the connection stands and not along with it, as libpq's `options`: poolers refuse those,
 * or drop them. So ours come after the operator's own in the URL, too. */
static bool set_up_session(struct db *db, int64_t deadline_us)
{
	struct trip trip = { 0 };
	enum flow flow = FLOW_LOST;
	char *sql;

	if (asprintf(&sql,
		    "SET statement_timeout = %d; SET idle_in_transaction_session_timeout = %d;"
		    "SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; %s",
		    db->options->statement_timeout_ms, IDLE_IN_TRANSACTION_MS,
		    db->options->session ? db->options->session : "") < 0)
		return fail(db, DB_UNAVAILABLE, "out of memory") == DB_OK;
	if (PQsendQuery(db->conn, sql))
		flow = take_answers(db, deadline_us, &trip);
	free(sql);
	PQclear(trip.result);
	if (flow == FLOW_DONE && !trip.failed)
		return true;
	if (!trip.failed)
		fail(db, DB_UNAVAILABLE,
			flow == FLOW_LATE ? "no answer to the attempt to connect in time"
					  : PQerrorMessage(db->conn));
	return false;
}

/* One attempt. On failure the reason is in db->error. */
static bool connect_once(struct db *db)
{
	const int64_t deadline_us = now_us() + (int64_t)db->options->connect_timeout_ms * 1000;
	const bool read_write = db->options->read_write;
	/* Later keywords override the URL. */
	const char *const keys[] = { "dbname", "application_name", "client_encoding",
		read_write ? "target_session_attrs" : NULL, NULL };
	const char *const values[] = { db->options->url, db->options->application_name, "UTF8",
		read_write ? "read-write" : NULL, NULL };
	PostgresPollingStatusType state = PGRES_POLLING_WRITING;

	db->conn = PQconnectStartParams(keys, values, 1);
	if (!db->conn) {
		fail(db, DB_UNAVAILABLE, "out of memory");
		return false;
	}
	PQsetNoticeReceiver(db->conn, take_notice, db);
	if (PQstatus(db->conn) == CONNECTION_BAD)
		state = PGRES_POLLING_FAILED;
	while (state != PGRES_POLLING_OK && state != PGRES_POLLING_FAILED) {
		if (!wait_until(
			    db, state == PGRES_POLLING_READING ? POLLIN : POLLOUT, deadline_us)) {
			fail(db, DB_UNAVAILABLE, "no answer to the attempt to connect in time");
			db_disconnect(db);
			return false;
		}
		state = PQconnectPoll(db->conn);
	}
	if (state == PGRES_POLLING_FAILED || PQsetnonblocking(db->conn, 1) != 0) {
		fail(db, DB_UNAVAILABLE, PQerrorMessage(db->conn));
		db_disconnect(db);
		return false;
	}
	if (set_up_session(db, deadline_us))
		return true;
	db_disconnect(db);
	return false;
}

static uint64_t times_reached(const struct db *db)
{
	return db->reached == NULL ? 0 : __atomic_load_n(db->reached, __ATOMIC_SEQ_CST);
}

static bool is_backing_off(const struct db *db, int64_t at_us)
{
	return at_us < db->retry_at_us && times_reached(db) == db->reached_before;
}

static void db_back_off(struct db *db)
{
	const int64_t at_us = now_us();

	db->backoff_ms = db->backoff_ms ? db->backoff_ms * 2 : BACKOFF_FIRST_MS;
	if (db->backoff_ms > db->backoff_most_ms)
		db->backoff_ms = db->backoff_most_ms;
	db->retry_at_us = at_us + (int64_t)db->backoff_ms * 1000;
	if (at_us < db->log_at_us)
		return;
	db->log_at_us = at_us + (int64_t)LOG_EVERY_MS * 1000;
	log_event(LOG_LEVEL_WARN, "database not reached",
		LOG_TEXT("as", db->options->application_name),
		LOG_TEXT("reason", db->error.message), LOG_NUMBER("next_try_ms", db->backoff_ms));
}

enum db_status db_connect(struct db *db)
{
	int64_t start_us;
	bool connected;

	if (db->conn)
		return DB_OK;
	if (db->listens)
		return fail(db, DB_UNAVAILABLE, "the connection that listened is lost");
	start_us = now_us();
	if (is_backing_off(db, start_us)) /* db->error still says why */
		return db->error.status = DB_UNAVAILABLE;

	/* Before the attempt: what is told during it is news. */
	db->reached_before = times_reached(db);
	connected = connect_once(db);
	db->meter.waited_us += (uint64_t)(now_us() - start_us);
	if (!connected) {
		db_back_off(db);
		return DB_UNAVAILABLE;
	}
	if (db->reached != NULL && (db->was_connected || db->backoff_ms > 0))
		__atomic_fetch_add(db->reached, 1, __ATOMIC_SEQ_CST);
	if (db->was_connected) {
		db->meter.reconnects++;
		log_event(LOG_LEVEL_INFO, "database reached again",
			LOG_TEXT("as", db->options->application_name));
	}
	db->was_connected = true;
	db->backoff_ms = 0;
	db->retry_at_us = db->log_at_us = 0;
	return DB_OK;
}

/* Whether the connection is still there, as far as the kernel knows: what makes it possible to
 * say that a statement was never sent. */
static bool still_connected(struct db *db)
{
	struct pollfd fd = { .fd = PQsocket(db->conn), .events = POLLIN };

	while (!db->dying && poll(&fd, 1, 0) > 0) {
		if (!PQconsumeInput(db->conn))
			return false;
		PQisBusy(db->conn); /* parses: a goodbye comes to take_notice() */
	}
	return !db->dying && PQstatus(db->conn) == CONNECTION_OK;
}

/* The server tells along with its answers when it turns read-only (since version 14), so that asking
 * costs nothing. A transaction that has begun may end. */
static bool turned_read_only(const struct db *db)
{
	static const char *const settings[] = { "default_transaction_read_only", "in_hot_standby" };

	if (!db->options->read_write || (db->in_transaction && !db->begin_due))
		return false;
	for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++) {
		const char *value = PQparameterStatus(db->conn, settings[i]);

		if (value && strcmp(value, "on") == 0)
			return true;
	}
	return false;
}

static bool is_prepared(const struct db *db, const struct db_statement *statement)
{
	for (size_t i = 0; i < db->prepared_count; i++)
		if (db->prepared[i] == statement)
			return true;
	return false;
}

static bool send_preparation(struct db *db, const struct trip *trip, const char *sql)
{
	return PQsendPrepare(db->conn, trip->statement->name, sql, trip->param_count, NULL);
}

static bool send_unprepared(struct db *db, const struct trip *trip, const char *sql)
{
	return PQsendQueryParams(
		db->conn, sql, trip->param_count, NULL, trip->params, NULL, NULL, 0);
}

/* Sends the text of the statement by one of the two functions above, with numbers for names. Fails as
 * those do where there is no memory. */
static bool send_text(struct db *db, const struct trip *trip,
	bool (*send)(struct db *db, const struct trip *trip, const char *sql))
{
	const struct db_statement *statement = trip->statement;
	char *numbered;
	bool sent;

	if (!statement->names)
		return send(db, trip, statement->sql);
	numbered = sql_with_numbers(
		statement->name, statement->sql, statement->names, (size_t)trip->param_count);
	sent = numbered && send(db, trip, numbered);
	free(numbered);
	return sent;
}

static bool send_execution(struct db *db, const struct trip *trip, bool named)
{
	if (named)
		return PQsendQueryPrepared(db->conn, trip->statement->name, trip->param_count,
			trip->params, NULL, NULL, 0);
	return send_text(db, trip, send_unprepared);
}

static bool send_tag(struct db *db, const struct trip *trip)
{
	const char *const params[] = { db->tag };

	return (!trip->enables_tag ||
		       PQsendPrepare(db->conn, set_tag.name, set_tag.sql, 1, NULL)) &&
	       (!trip->tags ||
		       PQsendQueryPrepared(db->conn, set_tag.name, 1, params, NULL, NULL, 0));
}

/* BEGIN, the tag and PREPARE, where due, travel with the statement itself. */
static bool send_trip(struct db *db, struct trip *trip)
{
	bool named;

	if (!trip->statement)
		return PQsendQuery(db->conn, trip->sql);

	named = trip->statement->name[0] != '\0';
	trip->begins = db->begin_due;
	trip->prepares = named && !is_prepared(db, trip->statement);
	if (trip->prepares && db->prepared_count == PREPARED_MAX)
		named = trip->prepares = false;
	trip->tags = db->tag_due;
	trip->enables_tag = trip->tags && !db->can_tag;
	if (!trip->begins && !trip->tags && !trip->prepares)
		return send_execution(db, trip, named);
	return PQenterPipelineMode(db->conn) &&
	       (!trip->begins ||
		       PQsendQueryParams(db->conn, "BEGIN", 0, NULL, NULL, NULL, NULL, 0)) &&
	       send_tag(db, trip) && (!trip->prepares || send_text(db, trip, send_preparation)) &&
	       send_execution(db, trip, named) && PQpipelineSync(db->conn);
}

/* Sends what is left to send and waits for the next result, NULL between and after them. */
static enum flow next_result(struct db *db, int64_t deadline_us, PGresult **result)
{
	for (;;) {
		const int unsent = PQflush(db->conn);
		short ready;

		if (unsent < 0)
			return FLOW_LOST;
		if (!unsent && !PQisBusy(db->conn))
			break;
		ready = wait_until(db, (short)(POLLIN | (unsent ? POLLOUT : 0)), deadline_us);
		if (!ready)
			return FLOW_LATE;
		if ((ready & ~POLLOUT) && !PQconsumeInput(db->conn))
			return FLOW_LOST;
	}
	*result = PQgetResult(db->conn);
	return FLOW_DONE;
}

/*
 * Reads everything up to the server's "ready for query": only then is the statement's own
 * transaction committed, and a deferred constraint can fail after its rows have come.
 */
static enum flow take_answers(struct db *db, int64_t deadline_us, struct trip *trip)
{
	/* Answers before the statement's own. */
	int due_before = trip->begins + trip->enables_tag + trip->tags + trip->prepares;
	const bool pipeline = due_before > 0;

	for (;;) {
		PGresult *result = NULL;
		const enum flow flow = next_result(db, deadline_us, &result);
		ExecStatusType kind;

		if (flow != FLOW_DONE)
			return flow;
		if (PQstatus(db->conn) == CONNECTION_BAD) {
			if (result && !trip->failed)
				fail_with_result(db, result);
			PQclear(result);
			return FLOW_LOST;
		}
		if (!result) {
			if (!pipeline)
				return FLOW_DONE;
			due_before--;
			continue;
		}
		kind = PQresultStatus(result);
		if (kind == PGRES_PIPELINE_SYNC) {
			PQclear(result);
			return PQexitPipelineMode(db->conn) ? FLOW_DONE : FLOW_LOST;
		}
		if (kind == PGRES_COPY_IN) {
			PQclear(result);
			trip->copying = true;
			return FLOW_DONE;
		}
		if (kind == PGRES_TUPLES_OK || kind == PGRES_COMMAND_OK) {
			if (due_before == 1 + trip->prepares && trip->tags)
				db->tag_due = !(db->can_tag = true);
			if (due_before == 1 && trip->prepares)
				db->prepared[db->prepared_count++] = trip->statement;
			if (due_before <= 0) {
				PQclear(trip->result);
				trip->result = result;
				continue;
			}
		} else if (kind == PGRES_COPY_OUT || kind == PGRES_COPY_BOTH) {
			PQclear(result);
			fail(db, DB_OURS, "COPY TO is not for this connection");
			return FLOW_LOST;
		} else if (kind != PGRES_PIPELINE_ABORTED && !trip->failed) {
			fail_with_result(db, result);
			trip->failed = true;
		}
		PQclear(result);
	}
}

/* 0 for no deadline. */
static int64_t statement_deadline(const struct db *db)
{
	const int timeout_ms = db->options->statement_timeout_ms;

	return timeout_ms > 0 ? now_us() + ((int64_t)timeout_ms + GRACE_MS) * 1000 : 0;
}

/* One trip on the open connection, which is closed if it is lost or the server is late. The result
 * of a failed trip is cleared. */
static enum flow make_trip(struct db *db, struct trip *trip)
{
	const int64_t start_us = now_us();
	enum flow flow;

	if (!still_connected(db)) {
		fail(db, DB_UNAVAILABLE, "the server has closed the connection");
		flow = FLOW_UNSENT;
	} else if (turned_read_only(db)) {
		fail(db, DB_UNAVAILABLE, "the server has turned read-only");
		flow = FLOW_UNSENT;
	} else {
		const int64_t deadline_us = statement_deadline(db);

		db->error = (struct db_error){ .statement = "" };
		db->meter.round_trips++;
		if (trip->statement && trip->statement->effect == DB_CHANGES)
			db->meter.changes++;
		flow = send_trip(db, trip) ? take_answers(db, deadline_us, trip) : FLOW_LOST;
		db->meter.waited_us += (uint64_t)(now_us() - start_us);
		if (flow == FLOW_DONE && trip->begins)
			db->begin_due = false;
	}
	if (flow == FLOW_LATE)
		fail(db, DB_TIMEOUT, "the server did not answer in time");
	if (flow == FLOW_LOST && !db->error.status)
		fail(db, DB_UNAVAILABLE, PQerrorMessage(db->conn));
	if (flow != FLOW_DONE) {
		if (db->in_transaction) {
			db->transaction_lost = flow != FLOW_LATE;
			db->begin_due = false; /* what follows in the body must not begin anew */
		}
		log_event(LOG_LEVEL_WARN, "database connection lost",
			LOG_TEXT("as", db->options->application_name),
			LOG_TEXT("reason", db->error.message),
			LOG_TEXT("sqlstate", db->error.sqlstate));
		db_disconnect(db);
	}
	if (flow != FLOW_DONE || trip->failed) {
		PQclear(trip->result);
		trip->result = NULL;
		db->tag_due = db->tag[0] != '\0'; /* what a transaction set goes with it */
		if (trip->statement)
			db->error.statement = trip->statement->name;
	}
	return flow;
}

/* What a trip means for its caller; commits: it would have ended in a commit. */
static enum db_status db_judge(struct db *db, enum flow flow, const struct trip *trip, bool commits)
{
	if (flow == FLOW_DONE)
		return trip->failed ? db->error.status : DB_OK;
	if (commits && flow != FLOW_UNSENT)
		return db->error.status = DB_OUTCOME_UNKNOWN;
	/* A connection ended by the server says why in many classes (57P01, 25P03): it is gone. */
	if (flow != FLOW_LATE)
		db->error.status = DB_UNAVAILABLE;
	return db->error.status;
}

/* SQL of our own inside the machinery: never tried again. */
static enum db_status command(struct db *db, const char *sql, bool commits, struct trip *trip)
{
	*trip = (struct trip){ .sql = sql };
	if (!db->conn)
		return fail(db, DB_UNAVAILABLE, "the connection of the transaction is lost");
	return db_judge(db, make_trip(db, trip), trip, commits);
}

static enum db_status run_command(struct db *db, const char *sql, bool commits)
{
	struct trip trip;
	const enum db_status status = command(db, sql, commits, &trip);

	PQclear(trip.result);
	return status;
}

/* Gets the connection ready for something else than a prepared statement. */
static enum db_status make_ready(struct db *db)
{
	enum db_status status;

	if (!db->in_transaction && !db->conn && (status = db_connect(db)) != DB_OK)
		return status;
	if (db->begin_due) {
		if ((status = db_connect(db)) != DB_OK ||
			(status = run_command(db, "BEGIN", false)) != DB_OK)
			return status;
		db->begin_due = false;
	}
	return DB_OK;
}

/*
 * Outside a transaction, after a failure: gives the connection up if the error may live as long as it
 * does. An error of ours does so once a second at most, since a new connection costs more than the
 * statement that fails. Returns whether it is worth trying again: nothing was changed, and another
 * server, or the same one meanwhile, may take changes.
 */
static bool leave_bad_session(struct db *db)
{
	const bool ours = db->error.status == DB_OURS;

	if (!db->session_bad || !db->conn)
		return false;
	db->session_bad = false;
	if (db->plans_stale ||
		(ours && db->renewed_us && now_us() - db->renewed_us < RENEW_MS * 1000))
		return false;
	if (ours)
		db->renewed_us = now_us();
	log_event(LOG_LEVEL_WARN, "database connection given up",
		LOG_TEXT("as", db->options->application_name),
		LOG_TEXT("reason", db->error.message), LOG_TEXT("sqlstate", db->error.sqlstate));
	db_disconnect(db);
	return !ours;
}

static void clear_result(void *result)
{
	PQclear(result);
}

static enum db_status try_once(struct db *db, struct trip *trip, enum flow *flow)
{
	enum db_status status;

	*flow = FLOW_DONE;
	if (db->in_transaction && !db->begin_due && !db->conn)
		return fail(db, DB_UNAVAILABLE, "the connection of the transaction is lost");
	if ((status = db_connect(db)) != DB_OK)
		return status;
	if (db->plans_stale && (!db->in_transaction || db->begin_due)) {
		if ((status = run_command(db, "DEALLOCATE ALL", false)) != DB_OK)
			return status;
		db->prepared_count = 0;
		db->can_tag = false;
		db->plans_stale = false;
	}
	*flow = make_trip(db, trip);
	return db_judge(
		db, *flow, trip, !db->in_transaction && trip->statement->effect == DB_CHANGES);
}

enum db_status db_run(struct db *db, const struct db_statement *statement,
	const char *const *params, size_t count, struct arena *arena, struct db_rows *rows)
{
	void **owned = arena_defer_slot(arena, clear_result);
	enum db_status status;
	struct trip trip;

	*rows = (struct db_rows){ 0 };
	for (int tries = 1;; tries++) {
		bool again;
		enum flow flow;

		if (!db->in_transaction)
			db->session_bad = false;
		trip = (struct trip){
			.statement = statement, .params = params, .param_count = (int)count
		};
		status = try_once(db, &trip, &flow);
		if (status == DB_OK)
			break;
		again = (!db->in_transaction && leave_bad_session(db)) || flow == FLOW_UNSENT ||
			status == DB_CONFLICT || db->plans_stale ||
			(flow == FLOW_LOST && statement->effect == DB_READS);
		if (!again || db->in_transaction || tries == TRIES)
			return status;
		pause_before_retry(db, tries);
	}
	if (trip.result) {
		rows->result = *owned = trip.result;
		rows->count = PQresultStatus(trip.result) == PGRES_TUPLES_OK
				      ? (size_t)PQntuples(trip.result)
				      : (size_t)strtoull(PQcmdTuples(trip.result), NULL, 10);
	}
	return DB_OK;
}

enum db_status db_script(struct db *db, const char *sql)
{
	enum db_status status = make_ready(db);

	if (status != DB_OK)
		return status;
	status = run_command(db, sql, !db->in_transaction);
	if (status != DB_OK && !db->in_transaction)
		leave_bad_session(db);
	return status;
}

/* The end of a transaction whose body was content. */
static enum db_status commit(struct db *db)
{
	struct trip trip;
	enum db_status status;

	if (db->begin_due) /* the body asked nothing */
		return DB_OK;
	if (db->conn && PQtransactionStatus(db->conn) != PQTRANS_INTRANS)
		return db->error.status ? db->error.status
					: fail(db, DB_OURS, "the transaction had already failed");
	status = command(db, "COMMIT", true, &trip);
	/* The server answers COMMIT of a failed transaction with ROLLBACK, and no error. */
	if (status == DB_OK && strcmp(PQcmdStatus(trip.result), "COMMIT") != 0)
		status = fail(db, DB_OURS, "COMMIT was answered with ROLLBACK");
	PQclear(trip.result);
	return status;
}

static void roll_back(struct db *db)
{
	const struct db_error why = db->error;

	if (db->conn && PQtransactionStatus(db->conn) != PQTRANS_IDLE &&
		run_command(db, "ROLLBACK", false) != DB_OK && db->conn)
		db_disconnect(db);
	db->tag_due = db->tag[0] != '\0';
	db->error = why;
}

enum db_status db_transact(struct db *db, db_body *body, void *arg)
{
	assert(!db->in_transaction);
	for (int tries = 1;; tries++) {
		enum db_status status;
		bool again;

		db->in_transaction = db->begin_due = true;
		db->transaction_lost = db->session_bad = false;
		db->savepoints = 0;
		status = body(db, arg);
		if (status == DB_OK)
			status = commit(db);
		if (status != DB_OK)
			roll_back(db);
		again = status == DB_CONFLICT || (status != DB_OK && db->plans_stale) ||
			(status == DB_UNAVAILABLE && db->transaction_lost);
		db->in_transaction = db->begin_due = false;
		if (status != DB_OK && leave_bad_session(db))
			again = true;
		if (status == DB_OK || !again || tries == TRIES)
			return status;
		pause_before_retry(db, tries);
	}
}

enum db_status db_savepoint(struct db *db, db_body *body, void *arg)
{
	char begin[32], release[32], undo[80];
	enum db_status status;
	struct db_error why;

	assert(db->in_transaction && db->savepoints < SAVEPOINT_DEPTH_MAX);
	snprintf(begin, sizeof(begin), "SAVEPOINT areg_%d", db->savepoints);
	snprintf(release, sizeof(release), "RELEASE areg_%d", db->savepoints);
	snprintf(undo, sizeof(undo), "ROLLBACK TO areg_%d; %s", db->savepoints, release);

	if ((status = make_ready(db)) != DB_OK || (status = run_command(db, begin, false)) != DB_OK)
		return status;
	db->savepoints++;
	status = body(db, arg);
	db->savepoints--;
	if (status == DB_OK && db->conn && PQtransactionStatus(db->conn) == PQTRANS_INTRANS)
		return run_command(db, release, false);
	if (status == DB_OK) /* the body overlooked a failure */
		status = db->error.status ? db->error.status
					  : fail(db, DB_OURS, "the transaction had already failed");
	why = db->error;
	if (db->conn && run_command(db, undo, false) != DB_OK)
		return db->error.status;
	db->error = why;
	return status;
}

enum db_status db_copy_begin(struct db *db, const char *copy_sql)
{
	struct trip trip;
	enum db_status status = make_ready(db);

	if (status != DB_OK)
		return status;
	status = command(db, copy_sql, false, &trip);
	PQclear(trip.result);
	if (status == DB_OK && !trip.copying)
		return fail(db, DB_OURS, "not a COPY FROM STDIN");
	db->copy_unflushed = 0;
	return status;
}

/* A COPY that cannot go on: the connection goes with it. */
static enum db_status give_up_copy(struct db *db, enum flow flow, bool commits)
{
	if (flow == FLOW_LATE)
		fail(db, DB_TIMEOUT, "the server did not take or answer a COPY in time");
	else
		fail(db, DB_UNAVAILABLE, PQerrorMessage(db->conn));
	if (db->in_transaction)
		db->transaction_lost = flow != FLOW_LATE;
	db_disconnect(db);
	return db_judge(db, flow, NULL, commits);
}

static enum flow flush_copy(struct db *db)
{
	const int64_t deadline_us = statement_deadline(db);
	int unsent;

	while ((unsent = PQflush(db->conn)) > 0) {
		const short ready = wait_until(db, POLLIN | POLLOUT, deadline_us);

		if (!ready)
			return FLOW_LATE;
		if ((ready & ~POLLOUT) && !PQconsumeInput(db->conn))
			return FLOW_LOST;
	}
	db->copy_unflushed = 0;
	return unsent < 0 ? FLOW_LOST : FLOW_DONE;
}

enum db_status db_copy_put(struct db *db, const char *bytes, size_t len)
{
	enum flow flow;

	if (!db->conn)
		return fail(db, DB_UNAVAILABLE, "the connection of the COPY is lost");
	while (len) {
		const size_t part = len < COPY_FLUSH_BYTES ? len : COPY_FLUSH_BYTES;

		if (PQputCopyData(db->conn, bytes, (int)part) != 1)
			return give_up_copy(db, FLOW_LOST, false);
		bytes += part;
		len -= part;
		db->copy_unflushed += part;
		if (db->copy_unflushed >= COPY_FLUSH_BYTES && (flow = flush_copy(db)) != FLOW_DONE)
			return give_up_copy(db, flow, false);
	}
	return DB_OK;
}

enum db_status db_copy_end(struct db *db, const char *failed, size_t *copied)
{
	struct trip trip = { 0 };
	const int64_t start_us = now_us();
	const bool commits = !failed && !db->in_transaction;
	enum db_status status;
	enum flow flow;

	*copied = 0;
	if (!db->conn)
		return fail(db, DB_UNAVAILABLE, "the connection of the COPY is lost");
	db->error = (struct db_error){ .statement = "" };
	if (PQputCopyEnd(db->conn, failed) != 1)
		return give_up_copy(db, FLOW_LOST, commits);
	flow = take_answers(db, statement_deadline(db), &trip);
	db->meter.round_trips++;
	db->meter.waited_us += (uint64_t)(now_us() - start_us);
	if (flow != FLOW_DONE) {
		PQclear(trip.result);
		return give_up_copy(db, flow, commits);
	}
	status = db_judge(db, flow, &trip, commits);
	if (failed && status == DB_TIMEOUT && strcmp(db->error.sqlstate, "57014") == 0)
		status = DB_OK; /* the server's answer to being told to abandon */
	else if (status == DB_OK && trip.result)
		*copied = (size_t)strtoull(PQcmdTuples(trip.result), NULL, 10);
	PQclear(trip.result);
	return status;
}

enum db_status db_listen(struct db *db, const char *const *channels)
{
	char sql[256] = "";
	enum db_status status;

	assert(!db->in_transaction);
	for (size_t len = 0; *channels != NULL; channels++, len = strlen(sql))
		snprintf(sql + len, sizeof(sql) - len, "LISTEN %s;", *channels);
	db->listens = false;
	if ((status = db_connect(db)) != DB_OK || (status = run_command(db, sql, false)) != DB_OK)
		return status;
	db->listens = true;
	return DB_OK;
}

enum db_status db_wait_notify(struct db *db, int timeout_ms, char *payload, size_t size)
{
	const int64_t deadline_us = now_us() + (int64_t)timeout_ms * 1000;
	PGnotify *notify;

	payload[0] = '\0';
	if (!db->conn)
		return fail(db, DB_UNAVAILABLE, "the connection that listened is lost");
	while (!(notify = PQnotifies(db->conn))) {
		if (!still_connected(db)) {
			fail(db, DB_UNAVAILABLE, "the server has closed the connection");
			log_event(LOG_LEVEL_WARN, "database connection lost",
				LOG_TEXT("as", db->options->application_name),
				LOG_TEXT("reason", db->error.message));
			db_disconnect(db);
			return DB_UNAVAILABLE;
		}
		/* poll() cannot see bytes that still_connected() has just read from the socket. */
		if ((notify = PQnotifies(db->conn)))
			break;
		if (!wait_until(db, POLLIN, deadline_us))
			return DB_OK;
	}
	copy_line(payload, size, notify->extra);
	PQfreemem(notify);
	return DB_OK;
}

void db_row_of(struct arena *arena, const char *const *values, size_t count, struct db_rows *rows)
{
	PGresAttDesc *columns = arena_alloc(arena, count * sizeof *columns);
	void **owned = arena_defer_slot(arena, clear_result);
	PGresult *result;
	bool done;

	for (size_t i = 0; i < count; i++)
		columns[i].name = arena_strdup(arena, "");
	*owned = result = PQmakeEmptyPGresult(NULL, PGRES_TUPLES_OK);
	done = result && PQsetResultAttrs(result, (int)count, columns);
	for (size_t i = 0; i < count && done; i++) {
		const int len = values[i] == NULL ? -1 : (int)strlen(values[i]);

		done = PQsetvalue(result, 0, (int)i, (char *)values[i], len) != 0;
	}
	if (!done)
		arena_exhausted(arena);
	*rows = (struct db_rows){ result, 1 };
}

void db_note_failure(struct db *db, const struct db_error *error)
{
	db->error = *error;
}

void db_tag(struct db *db, const char *tag)
{
	copy_line(db->tag, sizeof(db->tag), tag);
	db->tag_due = db->tag[0] != '\0';
}

const char *db_text(const struct db_rows *rows, size_t row, int column)
{
	return PQgetisnull(rows->result, (int)row, column)
		       ? NULL
		       : PQgetvalue(rows->result, (int)row, column);
}

int64_t db_int(const struct db_rows *rows, size_t row, int column)
{
	return strtoll(PQgetvalue(rows->result, (int)row, column), NULL, 10);
}

bool db_bool(const struct db_rows *rows, size_t row, int column)
{
	return PQgetvalue(rows->result, (int)row, column)[0] == 't';
}

const char *db_array(struct arena *arena, const char *const *elements, size_t count)
{
	size_t size = sizeof("{}");
	char *literal, *at;

	for (size_t i = 0; i < count; i++)
		size += elements[i] ? 2 * strlen(elements[i]) + sizeof("\"\",") : sizeof("NULL,");
	at = literal = arena_alloc(arena, size);
	*at++ = '{';
	for (size_t i = 0; i < count; i++) {
		if (i)
			*at++ = ',';
		if (!elements[i]) {
			at = stpcpy(at, "NULL");
			continue;
		}
		*at++ = '"';
		for (const char *c = elements[i]; *c; c++) {
			if (*c == '"' || *c == '\\')
				*at++ = '\\';
			*at++ = *c;
		}
		*at++ = '"';
	}
	stpcpy(at, "}");
	return literal;
}

const struct db_error *db_last_error(const struct db *db)
{
	return &db->error;
}

const char *db_status_name(enum db_status status)
{
	switch (status) {
	case DB_OK:
		return "ok";
	case DB_CALLER:
		return "caller";
	case DB_CONFLICT:
		return "conflict";
	case DB_TIMEOUT:
		return "timeout";
	case DB_UNAVAILABLE:
		return "unavailable";
	case DB_OUTCOME_UNKNOWN:
		return "outcome_unknown";
	case DB_OURS:
		return "ours";
	}
	return "ours";
}

const struct db_meter *db_meter(const struct db *db)
{
	return &db->meter;
}
