/* SPDX-License-Identifier: Apache-2.0 */
/* The front door: the one table of all routes. To know the API, read routes.c. */
#ifndef AREG_ROUTES_H
#define AREG_ROUTES_H

#include "app/http/route.h"

extern const struct route routes[];
extern const size_t route_count;

/* A router of that table; router_free() ends it. Never NULL. */
struct router *routes_router(void);

#endif
