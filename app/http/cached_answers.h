/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Serving by the cache: in shared memory first (app/cache/answers.h), then in memcached (app/cache/memcached_answers.h),
 * then by the handler. What is served was true when the request began, on this host; of what other
 * hosts changed, at most a second ago (the listener says how long that holds). With the database
 * away, what was true when it was last heard of.
 */
#ifndef AREG_HTTP_CACHED_ANSWERS_H
#define AREG_HTTP_CACHED_ANSWERS_H

#include "app/http/call.h"

/* Answers a GET or HEAD whose route is BY_AGENT or BY_REGISTRY from the cache, or by its handler and
 * keeps what that says; any other call by its handler alone. */
void cached_answers_serve(struct call *call);

/* Drops what the call has changed, or may have: before its answer goes out. False when nobody can be
 * kept from reading what was before, on a replica: then its success must not be acknowledged. */
MUST_CHECK bool cached_answers_drop(struct call *call);

/* Lets go of what the request being served keeps others waiting for, if anything: its handler was left
 * by a jump. */
void cached_answers_let_go(struct context *context);

enum warmth {
	WARM_STORED,
	WARM_ALREADY, /* it was there, in date */
	WARM_NOTHING, /* no such route, one that is not kept, or an answer other than 200 */
	WARM_FAILED, /* the database or memcached is away */
};

/* For a program that stands alone, its worker without shared memory: asks the handler for the answer
 * to a GET of `target` (path and query) and stores it in memcached. */
MUST_CHECK enum warmth cached_answers_warm(struct context *context, const char *target);

#endif
