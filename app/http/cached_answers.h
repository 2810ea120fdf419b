/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Serving by the cache: in shared memory first (app/cache/answers.h), then in memcached
 * (app/cache/memcached_answers.h), then by the handler. An answer includes every change that this
 * host acknowledged before the request began, and every change of other hosts that is older than a
 * second (see callers_set_fresh_until()). If the database is unavailable, the answer is as of the
 * last contact with it.
 */
#ifndef AREG_HTTP_CACHED_ANSWERS_H
#define AREG_HTTP_CACHED_ANSWERS_H

#include "app/http/call.h"

/* Answers a GET or HEAD whose route is BY_AGENT or BY_REGISTRY from the cache, or by its handler and
 * keeps what that says; any other call by its handler alone. */
void cached_answers_serve(struct call *call);

/* Drops what the call has changed, or may have: before its answer goes out. Returns false if a
 * replica could still answer with the state before the change; the caller must then not acknowledge
 * success. */
MUST_CHECK bool cached_answers_drop(struct call *call);

/* Releases the claim of the request being served, if it holds one. For use after a longjmp out of
 * its handler. */
void cached_answers_let_go(struct context *context);

enum warmth {
	WARM_STORED,
	WARM_ALREADY, /* it was there, in date */
	WARM_NOTHING, /* no such route, one that is not kept, or an answer other than 200 */
	WARM_FAILED, /* the database or memcached is away */
};

/* For aregctl cache, which has no shared memory: runs the handler for a GET of `target` (path and
 * query) and stores the answer in memcached. */
MUST_CHECK enum warmth cached_answers_warm(struct context *context, const char *target);

#endif
