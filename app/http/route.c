/* SPDX-License-Identifier: Apache-2.0 */
/* Whom a route is open to. */
#include "app/http/route.h"

const struct route *route_at(const struct router *router, size_t index)
{
	/* Each row begins with its path. */
	return (const struct route *)router_path(router, index);
}

enum route_verdict route_check(
	const struct route *route, const uint32_t limits[TIERS], const struct caller_record *caller)
{
	bool is_for_key =
		route->access == FOR_KEY || route->tier != TIER_ANONYMOUS || route->scope != NULL;

	if (caller == NULL)
		return is_for_key || limits[TIER_ANONYMOUS] == 0 ? ROUTE_NEEDS_KEY : ROUTE_OPEN;
	if (caller->tier < route->tier)
		return ROUTE_NEEDS_TIER;
	if (limits[caller->tier] == 0)
		return ROUTE_CLOSED_TO_TIER;
	if (route->scope != NULL && !caller_has_scope(caller, route->scope))
		return ROUTE_NEEDS_SCOPE;
	return ROUTE_OPEN;
}
