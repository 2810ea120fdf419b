/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PostgreSQL: one connection per process, opened when first needed, reopened with back-off when
 * lost. Every statement is named, prepared once per connection, and takes parameters only. Errors
 * are sorted here, once, from SQLSTATE (PostgreSQL manual, appendix A), into what a caller can do
 * about them. Read beside this: the libpq chapter of the PostgreSQL manual, sections "Asynchronous
 * Command Processing" and "Functions Associated with the COPY Command".
 */
#ifndef AREG_DB_H
#define AREG_DB_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/arena.h"

struct db;

struct db_options {
	const char *url; /* libpq URI or key=value string */
	const char *application_name; /* as pg_stat_activity shows it */
	int connect_timeout_ms; /* for one attempt to connect */
	int statement_timeout_ms; /* told to the server, and kept by the client should the
					 server not answer at all (then a second later) */
	const char *session; /* more settings of the session, as "SET name = value; …", or NULL */
	bool read_write; /* only a server that takes changes will do: of several hosts in `url` the
			    first such is used, and a connection to one that turns read-only is given up */
};

enum db_status {
	DB_OK,
	DB_CALLER, /* a constraint or a bad value: the caller's fault, see db_error */
	DB_CONFLICT, /* serialization failure or deadlock, still so after all tries */
	DB_TIMEOUT, /* statement or lock timeout, or the server did not answer in time */
	DB_UNAVAILABLE, /* no connection to be had, shutting down, out of connections or disk, or
			   read-only where read_write was asked for */
	DB_OUTCOME_UNKNOWN, /* the connection went while a change may have been committed */
	DB_OURS, /* anything else: a fault in this program or its schema */
};
enum { DB_STATUSES = DB_OURS + 1 };

/* What is known of the last failure. For the log, but for `constraint` and `column`: no text of
 * PostgreSQL reaches a client. */
struct db_error {
	enum db_status status;
	char sqlstate[6]; /* "" when libpq itself failed */
	char constraint[64]; /* name of the violated constraint, or "" */
	char column[64]; /* name of the column, or "" */
	const char *statement; /* name of the statement, or "" */
	char message[512]; /* one line */
};

enum db_effect {
	DB_READS, /* may be sent again whenever the connection is lost */
	DB_CHANGES /* commits something: once sent, a lost connection leaves the outcome unknown */
};

/* One statement, declared static const beside the function that runs it. */
struct db_statement {
	const char *name; /* unique in the program: the prepared statement's name; "" for text that
			     was composed for this request, which is parsed anew each time */
	const char *sql;
	enum db_effect effect;
	/* Names of the parameters, in the order of their values, ended by NULL: the text then says
	 * :owner_address where it would say $5, see lib/sql_names.h. NULL: the text has numbers. */
	const char *const *names;
};

/* The answer to a statement: rows of text, owned by the arena they were asked for with. */
struct db_rows {
	void *result; /* PGresult */
	size_t count; /* rows; for a statement without rows, the number it changed */
};

/* How long the database kept this process waiting, and how often: for log and metrics. */
struct db_meter {
	uint64_t round_trips;
	uint64_t waited_us; /* pauses before retries included */
	uint64_t retries;
	uint64_t reconnects; /* connections made after the first */
	uint64_t changes; /* statements of effect DB_CHANGES that were sent */
};

/* Keeps the options (not copied). Connects to nothing yet. Never NULL. */
struct db *db_new(const struct db_options *options);

/*
 * For a caller whose body of db_transact(), or whatever else was under way, was left by a jump: the
 * connection is closed unless it is idle, and there is no transaction any more. Returns whether there
 * was one, which is rolled back then. NULL is allowed.
 */
bool db_abandon(struct db *db);

/* Closes the connection; NULL is allowed. In a forked child use db_new() afresh: a connection
 * must never be shared. */
void db_free(struct db *db);

/* Sets the function that waits for the server in place of poll(). A caller that has other work does
 * it in that function. As poll(): ready, 0 when late, -1 with errno. */
typedef int db_wait(void *arg, struct pollfd *fd, int timeout_ms);
void db_wait_with(struct db *db, db_wait *wait, void *arg);

/*
 * Lets processes tell each other that they reach the server again: A process that connects again
 * after a failure counts *reached up, in memory that they share; that ends the back-off of all
 * others. One of them may try more often than the rest: backoff_most_ms > 0 is the most that it
 * backs off, 0 the usual.
 */
void db_share_reached(struct db *db, uint64_t *reached, int backoff_most_ms);

/* Connects if there is no connection. DB_OK or DB_UNAVAILABLE; while backing off after a failed
 * attempt (100 ms, doubling, at most 2 s; see db_share_reached()) answers DB_UNAVAILABLE at once. */
MUST_CHECK enum db_status db_connect(struct db *db);

/*
 * Runs one statement in its own transaction, or in the one that is open, with `count` parameters
 * as text (NULL is SQL null); rows go to *rows. Outside a transaction: DB_CONFLICT and, for
 * DB_READS, a lost connection are tried again, up to 3 tries with jitter; so is any statement
 * that is known not to have reached the server. Inside one, the failure is for db_transact().
 */
MUST_CHECK enum db_status db_run(struct db *db, const struct db_statement *statement,
	const char *const *params, size_t count, struct arena *arena, struct db_rows *rows);

/* Runs SQL text that has no parameters and gives no rows, several statements allowed: for
 * migrations and sessions' settings. Not prepared, not tried again. */
MUST_CHECK enum db_status db_script(struct db *db, const char *sql);

/*
 * Calls body(db, arg) between BEGIN and COMMIT; anything but DB_OK from it rolls back and is
 * returned. On DB_CONFLICT or a connection lost before COMMIT was sent, rolls back and calls it
 * again, up to 3 tries with jitter, so the body must be repeatable. A connection lost while
 * committing is DB_OUTCOME_UNKNOWN and never tried again.
 */
typedef enum db_status db_body(struct db *db, void *arg);
MUST_CHECK enum db_status db_transact(struct db *db, db_body *body, void *arg);

/* Inside db_transact(): calls body between SAVEPOINT and RELEASE; anything but DB_OK from it rolls
 * back to the savepoint and is returned, with the transaction still usable. */
MUST_CHECK enum db_status db_savepoint(struct db *db, db_body *body, void *arg);

/*
 * LISTEN to all of these channels (ended by NULL), connecting first where need be. From then on a
 * lost connection is not replaced behind the caller's back, since what was notified meanwhile is
 * lost with it: everything answers DB_UNAVAILABLE until db_listen() is called again. Names are SQL
 * identifiers.
 */
MUST_CHECK enum db_status db_listen(struct db *db, const char *const *channels);

/* Waits up to timeout_ms for the next notification and copies its payload, cut off at size - 1
 * bytes. DB_OK with "" when there was none in time. */
MUST_CHECK enum db_status db_wait_notify(struct db *db, int timeout_ms, char *payload, size_t size);

/* COPY … FROM STDIN: begin, put as often as needed, then end (failed == NULL) or abandon (with a
 * reason). rows of *copied are those stored. Not tried again. */
MUST_CHECK enum db_status db_copy_begin(struct db *db, const char *copy_sql);
MUST_CHECK enum db_status db_copy_put(struct db *db, const char *bytes, size_t len);
MUST_CHECK enum db_status db_copy_end(struct db *db, const char *failed, size_t *copied);

/*
 * Names the work at hand to the server: from the next statement on its application_name is this
 * text, of which the server keeps 63 bytes. The tag is sent together with that statement. It costs
 * no extra round trip, but about 5 us, a fifth of the shortest trip. Copied, at most 63 bytes.
 */
void db_tag(struct db *db, const char *tag);

/* One row of these values, as if a statement had answered it; NULL is SQL null. */
void db_row_of(struct arena *arena, const char *const *values, size_t count, struct db_rows *rows);

/* Notes a failure that another process had with this database: db_last_error() tells it. */
void db_note_failure(struct db *db, const struct db_error *error);

/* The value of a column, NULL for SQL null. Lives as long as the rows. */
const char *db_text(const struct db_rows *rows, size_t row, int column);
/* The same, read as int64 (0 for null) and bool (false for null). */
int64_t db_int(const struct db_rows *rows, size_t row, int column);
bool db_bool(const struct db_rows *rows, size_t row, int column);

/* The literal of a text[] with these elements (NULL elements are SQL null). */
const char *db_array(struct arena *arena, const char *const *elements, size_t count);

/* The last failure. Valid until the next call. */
const struct db_error *db_last_error(const struct db *db);
const char *db_status_name(enum db_status status);

const struct db_meter *db_meter(const struct db *db);

#endif
