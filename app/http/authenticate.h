/* SPDX-License-Identifier: Apache-2.0 */
/* Who calls, and whether they may call now: API keys and rate limits. */
#ifndef AREG_HTTP_AUTHENTICATE_H
#define AREG_HTTP_AUTHENTICATE_H

#include "app/http/call.h"
#include "app/registry/limits.h"

/*
 * Sets call->caller from "Authorization: Bearer KEY" or "X-API-Key: KEY", leaves it NULL when the
 * request carries neither, and counts the request against the limit of its class and the caller's
 * tier, with the headers that say so. False when the call is answered already: 401 for a key that
 * is wrong, revoked or expired, 429 over the limit, 503 when a key could not be looked up.
 *
 * All keys of a user share that user's limits, on all hosts. Requests without a key, and sign-ins,
 * count by the client's address (IPv6: its /64). A hot key costs no round trip.
 *
 * Keys that cannot be one are refused by their form and count by the client's address for
 * themselves, and so do well-formed keys that nobody was given. Once an address has sent as many
 * wrong keys in a minute as the limit of anonymous reads allows, only keys that the key filter
 * holds are looked up for it. So further wrong keys cost the database nothing, and right keys from
 * that address go on working.
 */
MUST_CHECK bool authenticate(struct call *call, enum rate_class class);

/* The key that the request carries, right or wrong, whichever header it came in; credentials of another
 * kind only where there is no key beside them. NULL when it carries nothing of all that. */
MUST_CHECK const char *authenticate_key(const struct call *call);

/* The tag under which a request of that class counts (see lib/limiter.h). Needs call->caller. */
MUST_CHECK uint64_t authenticate_tag(const struct call *call, enum rate_class class);

/* Makes known on this host that a key was made just now. Of a well-formed one. */
void authenticate_new_key(const struct call *call, const char *key);

#endif
