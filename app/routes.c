#include "app/routes.h"

#include "app/agents.h"
#include "app/feedback.h"
#include "app/health.h"
#include "app/search.h"
#include "app/stats.h"

#define V1 "/api/v1"

/* clang-format off */
const struct route routes[] = {
	{ { HTTP_POST, V1 "/agents/register" },          FOR_KEY,      NEVER_STORE, agents_register },
	{ { HTTP_GET,  V1 "/agents" },                   FOR_ANYONE,   REVALIDATE,  agents_search },
	{ { HTTP_GET,  V1 "/agents/{id}" },              FOR_ANYONE,   REVALIDATE,  agents_get },
	{ { HTTP_GET,  V1 "/agents/{id}/registration" }, FOR_ANYONE,   REVALIDATE,  agents_registration },
	{ { HTTP_GET,  V1 "/agents/{id}/stats" },        FOR_ANYONE,   REVALIDATE,  agents_stats },
	{ { HTTP_GET,  V1 "/agents/{id}/reputation" },   FOR_ANYONE,   REVALIDATE,  agents_reputation },
	{ { HTTP_POST, V1 "/agents/feedback" },          FOR_KEY,      NEVER_STORE, feedback_give },
	{ { HTTP_GET,  V1 "/agents/{id}/feedback" },     FOR_ANYONE,   REVALIDATE,  feedback_list },

	{ { HTTP_GET,  V1 "/agents/health" },            FOR_OPERATOR, NEVER_STORE, health_get },
	{ { HTTP_GET,  "/health" },                      FOR_OPERATOR, NEVER_STORE, health_get },
	{ { HTTP_GET,  "/metrics" },                     FOR_OPERATOR, NEVER_STORE, metrics_get },
};
/* clang-format on */
const size_t route_count = sizeof routes / sizeof routes[0];
