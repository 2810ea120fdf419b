/*
 * One request on its way through a handler, and the few ways to answer it. A handler reads: take
 * the input apart, do the thing, answer; each refusal returns at once.
 */
#ifndef AREG_CALL_H
#define AREG_CALL_H

#include <stdbool.h>

#include "app/worker.h"
#include "lib/http.h"
#include "lib/json_in.h"
#include "lib/json_out.h"

/* Who calls, by API key. */
struct caller {
	const char *user_id;
	const char *wallet; /* canonical address, or NULL */
	const char *tier;
	const char *key_id;
	const char *key_prefix;
};

struct route;

struct call {
	struct worker *worker;
	struct arena *arena;
	struct http_request *request;
	struct http_response *response;
	const struct route *route;
	const char *const *path_values; /* of the template's parameters, in order */
	const struct caller *caller; /* NULL: anonymous */
};

/*
 * Reads the JSON body by a table of fields into `target`. The document stays available for what
 * the table cannot say; *faults collects, for the caller to add to and to refuse with. False when
 * the body could not even be read as a JSON object: then the call is answered already (400, 413,
 * 415).
 */
MUST_CHECK bool call_body(struct call *call, const struct json_field *fields, size_t field_count,
	void *target, struct json_doc *doc, struct faults *faults);

/* Refuses with 400 and every fault; the problem's code is that of the first. */
void call_refuse(struct call *call, const struct faults *faults);

/* Answers with a problem of one sentence. */
void call_problem(struct call *call, int status, const char *code, const char *detail);

/*
 * Answers for a database call that failed, by the failure policy: 503 with Retry-After, 503
 * outcome_unknown, or 500 for what is our own fault; a DB_CALLER that the handler did not expect
 * is our fault too. Logs it.
 */
void call_db_failed(struct call *call, enum db_status status);

/* A writer for the body of the answer; sets the status. */
struct json_out call_answer(struct call *call, int status);

/* Whether the caller's wallet is this canonical address. */
bool call_is_wallet(const struct call *call, const char *address);

/* The value of a query parameter, NULL when absent. */
const char *call_param(const struct call *call, const char *name);

/* Adds a fault for every query parameter that neither list (NULL-terminated) names, and for every
 * one that is given twice and is not `repeatable` (NULL: none is). */
void call_params_known(const struct call *call, const char *const *known,
	const char *const *repeatable, struct faults *faults);

#endif
