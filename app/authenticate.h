/* Who calls: the API key of a request, looked up. */
#ifndef AREG_AUTHENTICATE_H
#define AREG_AUTHENTICATE_H

#include "app/call.h"

/*
 * Sets call->caller from "Authorization: Bearer KEY" or "X-API-Key: KEY"; leaves it NULL when the
 * request carries neither. False when a key is there but wrong, revoked or expired (answered 401),
 * or when it could not be looked up (503).
 */
MUST_CHECK bool authenticate(struct call *call);

#endif
