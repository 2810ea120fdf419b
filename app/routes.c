/* SPDX-License-Identifier: Apache-2.0 */
/* Columns: method and path, who may call, rate class, least tier, scope, audit action, input,
 * caching, handler. */
#include "app/routes.h"

#include "app/api/accounts.h"
#include "app/api/agents.h"
#include "app/api/agents_edit.h"
#include "app/api/agents_search.h"
#include "app/api/agents_stats.h"
#include "app/api/agents_summary.h"
#include "app/api/auth.h"
#include "app/api/chains.h"
#include "app/api/events.h"
#include "app/api/feedback.h"
#include "app/api/feedback_responses.h"
#include "app/api/keys.h"
#include "app/api/leaderboard.h"
#include "app/api/payments.h"
#include "app/api/validations.h"
#include "app/process/health.h"

#define V1 "/api/v1"
#define ANY_TIER TIER_ANONYMOUS

/* clang-format off */
const struct route routes[] = {
	{ { HTTP_POST,   V1 "/agents/register" },          FOR_KEY,      RATE_REGISTER, ANY_TIER, NULL, "agent.register", &agents_register_input,  NEVER_STORE,  agents_register },
	{ { HTTP_GET,    V1 "/agents" },                   FOR_ANYONE,   RATE_SEARCH,   ANY_TIER, NULL, NULL,             &agents_search_input,    BY_REGISTRY,  agents_search },
	{ { HTTP_GET,    V1 "/agents/{id}" },              FOR_ANYONE,   RATE_READ,     ANY_TIER, NULL, NULL,             NULL,                    BY_AGENT,     agents_get },
	{ { HTTP_PATCH,  V1 "/agents/{id}" },              FOR_KEY,      RATE_REGISTER, ANY_TIER, NULL, "agent.update",   &agents_edit_input,      NEVER_STORE,  agents_edit },
	{ { HTTP_GET,    V1 "/agents/{id}/registration" }, FOR_ANYONE,   RATE_READ,     ANY_TIER, NULL, NULL,             NULL,                    BY_AGENT,     agents_registration },
	{ { HTTP_GET,    V1 "/agents/{id}/stats" },        FOR_ANYONE,   RATE_READ,     ANY_TIER, NULL, NULL,             NULL,                    BY_AGENT,     agents_stats },
	{ { HTTP_GET,    V1 "/agents/{id}/reputation" },   FOR_ANYONE,   RATE_READ,     ANY_TIER, NULL, NULL,             NULL,                    BY_AGENT,     agents_reputation },
	{ { HTTP_GET,    V1 "/agents/{id}/summary" },      FOR_ANYONE,   RATE_READ,     ANY_TIER, NULL, NULL,             &agents_summary_input,   BY_AGENT,     agents_summary },

	{ { HTTP_POST,   V1 "/agents/feedback" },          FOR_KEY,      RATE_FEEDBACK, ANY_TIER, NULL, "feedback.give",  &feedback_give_input,    NEVER_STORE,  feedback_give },
	{ { HTTP_GET,    V1 "/agents/{id}/feedback" },     FOR_ANYONE,   RATE_SEARCH,   ANY_TIER, NULL, NULL,             &feedback_list_input,    BY_AGENT,     feedback_list },
	{ { HTTP_POST,   V1 "/agents/feedback/{feedback_id}/revoke" },    FOR_KEY,    RATE_FEEDBACK, ANY_TIER, NULL, "feedback.revoke",  NULL,                    NEVER_STORE, feedback_revoke },
	{ { HTTP_POST,   V1 "/agents/feedback/{feedback_id}/responses" }, FOR_KEY,    RATE_FEEDBACK, ANY_TIER, NULL, "feedback.respond", &feedback_responses_append_input, NEVER_STORE, feedback_responses_append },
	{ { HTTP_GET,    V1 "/agents/feedback/{feedback_id}/responses" }, FOR_ANYONE, RATE_SEARCH,   ANY_TIER, NULL, NULL,               &feedback_responses_list_input,   BY_REGISTRY, feedback_responses_list },

	{ { HTTP_POST,   V1 "/payments" },                 FOR_KEY,      RATE_PAYMENTS, ANY_TIER, PAYMENTS_SCOPE, "payment.record", &payments_record_input, NEVER_STORE, payments_record },
	{ { HTTP_POST,   V1 "/agents/link-payment" },      FOR_KEY,      RATE_PAYMENTS, ANY_TIER, NULL, "payment.link",   &payments_link_input,    NEVER_STORE,  payments_link },
	{ { HTTP_DELETE, V1 "/agents/link-payment" },      FOR_KEY,      RATE_PAYMENTS, ANY_TIER, PAYMENTS_SCOPE, "payment.unlink", &payments_link_input, NEVER_STORE, payments_unlink },
	{ { HTTP_GET,    V1 "/agents/{id}/payments" },     FOR_ANYONE,   RATE_SEARCH,   ANY_TIER, NULL, NULL,             &payments_list_input,    BY_AGENT,     payments_list },

	{ { HTTP_POST,   V1 "/agents/{id}/validations" },  FOR_KEY,      RATE_FEEDBACK, ANY_TIER, NULL, "validation.request", &validations_request_input, NEVER_STORE, validations_request },
	{ { HTTP_GET,    V1 "/agents/{id}/validations" },  FOR_ANYONE,   RATE_SEARCH,   ANY_TIER, NULL, NULL,             &validations_list_input, BY_AGENT,     validations_list },
	{ { HTTP_POST,   V1 "/validations/{request_hash}/response" }, FOR_KEY, RATE_FEEDBACK, ANY_TIER, NULL, "validation.respond", &validations_respond_input, NEVER_STORE, validations_respond },
	{ { HTTP_GET,    V1 "/validations/{request_hash}" }, FOR_ANYONE, RATE_READ,     ANY_TIER, NULL, NULL,             NULL,                    BY_REGISTRY,  validations_get },

	{ { HTTP_POST,   V1 "/auth/challenge" },           FOR_ANYONE,   RATE_SIGN_IN,  ANY_TIER, NULL, NULL,             &auth_challenge_input,   NEVER_STORE,  auth_challenge },
	{ { HTTP_POST,   V1 "/auth/verify" },              FOR_ANYONE,   RATE_SIGN_IN,  ANY_TIER, NULL, "user.sign_in",   &auth_verify_input,      HOLDS_SECRET, auth_verify },
	{ { HTTP_GET,    V1 "/me" },                       FOR_KEY,      RATE_READ,     ANY_TIER, NULL, NULL,             NULL,                    NEVER_STORE,  me_get },
	{ { HTTP_GET,    V1 "/keys" },                     FOR_KEY,      RATE_SEARCH,   ANY_TIER, NULL, NULL,             &keys_list_input,        NEVER_STORE,  keys_list },
	{ { HTTP_POST,   V1 "/keys" },                     FOR_KEY,      RATE_REGISTER, ANY_TIER, KEYS_SCOPE, "key.create",     &keys_create_input,      HOLDS_SECRET, keys_create },
	{ { HTTP_DELETE, V1 "/keys/{key_id}" },            FOR_KEY,      RATE_REGISTER, ANY_TIER, KEYS_SCOPE, "key.revoke",     NULL,                    NEVER_STORE,  keys_revoke },

	{ { HTTP_GET,    V1 "/accounts/{address}" },       FOR_ANYONE,   RATE_READ,     ANY_TIER, NULL, NULL,             NULL,                    BY_REGISTRY,  accounts_get },
	{ { HTTP_GET,    V1 "/chains" },                   FOR_ANYONE,   RATE_READ,     ANY_TIER, NULL, NULL,             NULL,                    BY_REGISTRY,  chains_get },
	{ { HTTP_GET,    V1 "/stats" },                    FOR_ANYONE,   RATE_READ,     ANY_TIER, NULL, NULL,             NULL,                    BY_REGISTRY,  stats_get },
	{ { HTTP_GET,    V1 "/leaderboard" },              FOR_ANYONE,   RATE_SEARCH,   ANY_TIER, NULL, NULL,             &leaderboard_input,      BY_REGISTRY,  leaderboard_get },
	{ { HTTP_GET,    V1 "/events" },                   FOR_ANYONE,   RATE_SEARCH,   ANY_TIER, NULL, NULL,             &events_list_input,      REVALIDATE,   events_list },

	{ { HTTP_GET,    V1 "/agents/health" },            FOR_OPERATOR, RATE_NONE,     ANY_TIER, NULL, NULL,             NULL,                    NEVER_STORE,  health_get },
	{ { HTTP_GET,    "/health" },                      FOR_OPERATOR, RATE_NONE,     ANY_TIER, NULL, NULL,             NULL,                    NEVER_STORE,  health_get },
	{ { HTTP_GET,    "/metrics" },                     FOR_OPERATOR, RATE_NONE,     ANY_TIER, NULL, NULL,             NULL,                    NEVER_STORE,  metrics_get },
};
/* clang-format on */
const size_t route_count = sizeof routes / sizeof routes[0];

struct router *routes_router(void)
{
	return router_new(routes, route_count, sizeof routes[0]);
}
