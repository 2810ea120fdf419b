/* Agents: POST /agents/register, GET /agents/{id}, GET /agents/{id}/registration. */
#ifndef AREG_AGENTS_H
#define AREG_AGENTS_H

#include "app/agentid.h"
#include "app/call.h"

extern const struct route_input agents_register_input;
void agents_register(struct call *call);
void agents_get(struct call *call);
void agents_registration(struct call *call);

/* The parameters of AGENT_NAMED (agentid.h) from the path's {id}. False when that cannot name any
 * agent: then the call is answered already (404). */
MUST_CHECK bool agent_named(struct call *call, const char *params[AGENT_NAMED_PARAMS]);

void agent_not_found(struct call *call);

#endif
