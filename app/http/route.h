/* SPDX-License-Identifier: Apache-2.0 */
/* What a route is: a row of the table in app/routes.c, and whom it is open to. */
#ifndef AREG_HTTP_ROUTE_H
#define AREG_HTTP_ROUTE_H

#include "app/cache/callers.h"
#include "app/registry/limits.h"
#include "lib/router.h"

struct call;
struct route_input;

enum route_access {
	FOR_ANYONE, /* a key is optional, but if there is one it must be right */
	FOR_KEY, /* any valid API key */
	FOR_OPERATOR, /* on the private socket only; no key is looked at, nothing is limited */
};

enum route_caching {
	NEVER_STORE, /* Cache-Control: no-store */
	HOLDS_SECRET, /* the same; where the answer is kept for a retry, it is sealed */
	REVALIDATE, /* Cache-Control: no-cache; with an ETag */
	BY_AGENT, /* the same; kept, and true until the agent that {id} names changes */
	BY_REGISTRY, /* the same; kept, and true until anything in the registry changes */
};

struct route {
	struct route_path path; /* first: the router reads it */
	enum route_access access;
	enum rate_class rate;
	enum tier tier; /* the least tier that may call; TIER_ANONYMOUS: any */
	const char *scope; /* that the key must have, or NULL */
	const char *
		/* Action of the audit entry that the call leaves; NULL if the call changes
		 * nothing. */
		audits;
	const struct route_input *input; /* NULL: neither body nor parameters */
	enum route_caching caching;
	void (*serve)(struct call *call);
};

/* The route of that place in the table that the router was made of. */
const struct route *route_at(const struct router *router, size_t index);

enum route_verdict {
	ROUTE_OPEN,
	ROUTE_NEEDS_KEY,
	ROUTE_NEEDS_TIER, /* a higher one than the caller's */
	ROUTE_CLOSED_TO_TIER, /* the operator's limits leave the caller's tier nothing of its class */
	ROUTE_NEEDS_SCOPE,
};

/* Whether a route is open to a caller (NULL: anonymous). `limits` is the row of its rate class. */
MUST_CHECK enum route_verdict route_check(const struct route *route, const uint32_t limits[TIERS],
	const struct caller_record *caller);

#endif
