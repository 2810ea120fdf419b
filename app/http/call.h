/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One request on its way through a handler, and the few ways to answer it. A handler reads: take
 * the input apart, do the thing, answer; each refusal returns at once.
 */
#ifndef AREG_HTTP_CALL_H
#define AREG_HTTP_CALL_H

#include <stdbool.h>

#include "app/cache/callers.h"
#include "app/http/context.h"
#include "lib/http.h"
#include "lib/json_in.h"
#include "lib/json_out.h"

struct route;
struct call;

enum { CALL_CHANGES_MAX = 4 }; /* agents that one call names, at most */
enum { CALL_ECHOES_MAX = 2 }; /* parts of an answer that repeat the request, at most */

enum {
	BODY_MAX = 16 * 1024, /* bytes of a body, where its route_input says nothing else */
	/* With a registration file and metadata of 64 KiB each, whose characters can take six bytes. */
	BODY_WITH_FILE_MAX = 512 * 1024,
};

/* What a call takes, said in one place: anything else is refused. */
struct route_input {
	const struct json_field *fields; /* of the JSON body; NULL: no body is read */
	size_t field_count;
	size_t body_max; /* bytes; 0: BODY_MAX */
	const char *const *params; /* of the query string, NULL-terminated; NULL: none */
	const char *const *repeatable; /* likewise; these may stand several times */
	/*
	 * Only for a POST whose success answer repeats large parts of the request body. Rebuilds,
	 * from the same body and in the same order, the parts that the handler wrote with
	 * call_echo(). Returns DB_OURS if it cannot.
	 */
	enum db_status (*echo)(struct call *call, const char *parts[CALL_ECHOES_MAX]);
};

/* A part of the answer's body that the request says as well, in bytes. */
struct call_part {
	size_t at, len;
};

/* Who may be asked by call_read(). */
enum call_readers {
	READ_PRIMARY, /* only the primary */
	READ_PRIMARY_FIRST, /* the primary; a replica if the primary cannot be asked */
	READ_REPLICA_FIRST, /* a replica; the primary if no replica can answer */
};

/* Bytes of a body that a route of this input takes, at most. */
size_t route_body_max(const struct route_input *input);

struct call {
	struct context *context;
	struct arena *arena;
	struct http_request *request;
	struct http_response *response;
	const struct route *route; /* NULL: there is none at this address */
	size_t route_index; /* in the table, when there is one */
	const char *const *path_values; /* of the template's parameters, in order */
	const struct caller_record *caller; /* NULL: anonymous */
	/* See call_changed(); each points into changed_names, which survives a reset of the arena. */
	const char *changed_agents[CALL_CHANGES_MAX];
	char changed_names[CALL_CHANGES_MAX][37];
	size_t change_count;
	bool changed_all; /* more than could be named */
	struct call_part echoes[CALL_ECHOES_MAX]; /* see call_echo() */
	size_t echo_count;
	/* Nginx may give this answer to other callers (micro-cache), so nothing in it may be
	 * specific to this caller. */
	bool is_shared;
	enum call_readers readers;
	uint64_t
		/* Replicas must have replayed at least that: see app/cache/wal_position.h. */
		read_position;
	bool in_transaction; /* the handler runs within one: see idempotency.h */
	enum db_status db_status; /* of the failure that call_db_failed() answered, else DB_OK */
};

/*
 * Reads the JSON body by the route's table of fields into `target`. *doc stays available for checks
 * that the table cannot express. *faults holds the faults found; the caller may add more and then
 * refuses with call_refuse(). False when the body could not even be read as a JSON object: then the
 * call is answered already (400, 413, 415).
 */
MUST_CHECK bool call_body(
	struct call *call, void *target, struct json_doc *doc, struct faults *faults);

/* Refuses with 400 and every fault; the problem is that of the first. */
void call_refuse(struct call *call, const struct faults *faults);

/* Answers with a problem of app/problem_list.h, and a sentence about it. */
void call_problem(struct call *call, const struct problem *problem, const char *detail);

/* The answer to one outcome of an SQL function that is a refusal. */
struct refusal {
	const struct problem *problem;
	const char *detail; /* a sentence */
	const char *outcome; /* what the function calls it; NULL: it gives the problem's code */
};

/* Answers with the refusal that has this outcome. If no refusal has this outcome, the SQL function
 * comes from a migration that this program does not know: logs an error and answers 500. */
void call_refuse_outcome(
	struct call *call, const char *outcome, const struct refusal *refusals, size_t count);

/*
 * Runs a statement of effect DB_READS where the call may read: on the primary, as db_run(), or on a
 * replica that has all that is required of it. If a replica fails, the primary is asked instead, so
 * db_last_error() of the worker's own connection describes the failure.
 */
MUST_CHECK enum db_status call_read(const struct call *call, const struct db_statement *statement,
	const char *const *params, size_t count, struct db_rows *rows);

/*
 * Answers for a database call that failed, by the failure policy: 503 with Retry-After, 503
 * outcome_unknown, or 500 for what is our own fault; a DB_CALLER that the handler did not expect is
 * our fault too. Logs it. Inside a transaction it only notes the failure, and the function that
 * runs the transaction answers it.
 */
void call_db_failed(struct call *call, enum db_status status);

/* Refuses with 401: the key was revoked, or its user went, while the request was on its way. */
void call_key_gone(struct call *call);

/* A writer for the body of the answer; sets the status. */
struct json_out call_answer(struct call *call, int status);

/* Writes a key and its JSON, and remembers that the request says the same: see route_input.echo. At
 * most CALL_ECHOES_MAX in an answer, whose body `out` writes. */
void call_echo(struct call *call, struct json_out *out, const char *key, const char *json);

/* Whether the caller's wallet is this canonical address. */
bool call_is_wallet(const struct call *call, const char *address);

/* The chain that the body's field `chain` names; NULL when it names none, with a fault where this
 * registry serves none of that name. */
const struct chain *call_chain(const struct call *call, const char *name, struct faults *faults);

/* The value of a query parameter, NULL when absent. */
const char *call_param(const struct call *call, const char *name);

/* Begins to read the query: *faults has a fault for every parameter that the route's input does not
 * name, and for every one that is given twice and may not be. */
void call_params(const struct call *call, struct faults *faults);

/*
 * Says which agent the call changes, or may have changed: its answers are dropped from the cache
 * before this call is acknowledged, whatever becomes of it. NULL: the change affects lists and
 * totals, but no single agent. Where more are named than CALL_CHANGES_MAX, or by something else
 * than an agent_uuid, everything is dropped.
 */
void call_changed(struct call *call, const char *agent_uuid);

#endif
