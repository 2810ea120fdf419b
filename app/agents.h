/* Agents: POST /agents/register, GET /agents/{id}, GET /agents/{id}/registration. */
#ifndef AREG_AGENTS_H
#define AREG_AGENTS_H

#include "app/call.h"

void agents_register(struct call *call);
void agents_get(struct call *call);
void agents_registration(struct call *call);

/*
 * The agent that a path names, for statements about it: SQL for its agent_uuid in terms of the
 * first four parameters, which agent_named() fills from the path's {id}. The lookup by chain and
 * number is only made when it is needed, in the same statement.
 */
#define AGENT_NAMED \
	"coalesce($1::uuid, (SELECT named.agent_uuid FROM erc8004_agents named" \
	" WHERE named.chain = $2 AND named.registry_address = $3 AND named.agent_id = $4::numeric))"
enum { AGENT_NAMED_PARAMS = 4 };

/* False when {id} cannot name any agent: then the call is answered already (404). */
MUST_CHECK bool agent_named(struct call *call, const char *params[AGENT_NAMED_PARAMS]);

void agent_not_found(struct call *call);

#endif
