/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From method and path to the one route that serves them. Templates are literal segments and
 * {parameters}: "/api/v1/agents/{id}/stats". Where several templates match a path, the one with a
 * literal further to the front is meant (agents/register before agents/{id}), for every method: a
 * path names one resource.
 */
#ifndef AREG_ROUTER_H
#define AREG_ROUTER_H

#include "lib/http.h"

enum { ROUTE_PARAMS_MAX = 4 };

/* What the router needs to know of a route; the program's own table has its routes begin so. */
struct route_path {
	enum http_method method; /* a GET serves HEAD too */
	const char *template; /* begins with a slash, does not end in one */
};

struct router;

/* Compiles `count` routes that stand `stride` bytes apart, each beginning with a route_path. The
 * table must outlive the router. Aborts on a template that cannot be right. Never NULL. */
struct router *router_new(const void *routes, size_t count, size_t stride);
void router_free(struct router *router);

size_t router_count(const struct router *router);
/* The path that the route of that place in the table, of router_count(), begins with. */
const struct route_path *router_path(const struct router *router, size_t index);

enum route_match {
	ROUTE_FOUND,
	ROUTE_NO_PATH, /* 404 */
	ROUTE_NO_METHOD, /* 405, with the `allow` list */
	ROUTE_OPTIONS, /* OPTIONS on a path that exists: 204, with the `allow` list */
};

struct routed {
	size_t index; /* of the route in the table */
	const char *values[ROUTE_PARAMS_MAX]; /* of the template's parameters, in order */
	const char *allow; /* "GET, HEAD, OPTIONS": methods of this path */
};

MUST_CHECK enum route_match router_match(
	const struct router *router, const struct http_request *request, struct routed *routed);

#endif
