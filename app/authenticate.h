/* Who calls, and whether they may call now: API keys and rate limits. */
#ifndef AREG_AUTHENTICATE_H
#define AREG_AUTHENTICATE_H

#include "app/call.h"
#include "app/limits.h"

/*
 * Sets call->caller from "Authorization: Bearer KEY" or "X-API-Key: KEY", leaves it NULL when the
 * request carries neither, and counts the request against the limit of its class and the caller's
 * tier, with the headers that say so. False when the call is answered already: 401 for a key that
 * is wrong, revoked or expired, 429 over the limit, 503 when a key could not be looked up.
 *
 * A hot key costs no round trip. Wrong keys are counted by the client's address, and past the limit
 * of anonymous reads none that is not in memory is looked up for it.
 */
MUST_CHECK bool authenticate(struct call *call, enum rate_class class);

#endif
