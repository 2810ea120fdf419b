/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Retries that are safe: a POST with an Idempotency-Key is done once. The key, what was sent and
 * the answer are stored in the transaction of the change itself, so that after any failure the same
 * request sent again finds either the answer or nothing done.
 */
#ifndef AREG_HTTP_IDEMPOTENCY_H
#define AREG_HTTP_IDEMPOTENCY_H

#include "app/http/call.h"

/*
 * Runs the route's handler for an authenticated POST that carries the header: answers as the
 * handler does; or again as it did the first time, with Idempotency-Replayed: true; or 409 when the
 * key was used for something else; or 400 for a key that is not 1 to 255 visible ASCII characters.
 * Answers 5xx are not kept. An answer that holds a secret is stored encrypted, with a key made of
 * the caller's API key. A caller without that API key cannot get the answer again.
 */
void idempotent_serve(struct call *call, const char *key);

#endif
