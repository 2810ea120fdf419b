/* The one table of all routes. Whoever reads routes.c knows the API. */
#ifndef AREG_ROUTES_H
#define AREG_ROUTES_H

#include "app/call.h"
#include "lib/router.h"

enum route_access {
	FOR_ANYONE, /* a key is optional, but if there is one it must be right */
	FOR_KEY, /* any valid API key */
	FOR_OPERATOR, /* kept from the public by nginx; no key is looked at */
};

enum route_caching {
	NEVER_STORE, /* Cache-Control: no-store */
	REVALIDATE, /* Cache-Control: no-cache; with an ETag */
};

struct route {
	struct route_path path; /* first: the router reads it */
	enum route_access access;
	enum route_caching caching;
	void (*serve)(struct call *call);
};

extern const struct route routes[];
extern const size_t route_count;

#endif
