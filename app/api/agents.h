/* SPDX-License-Identifier: Apache-2.0 */
/* Agents: POST /agents/register, GET /agents/{id}, GET /agents/{id}/registration. */
#ifndef AREG_API_AGENTS_H
#define AREG_API_AGENTS_H

#include "app/api/agent_columns.h"
#include "app/http/call.h"
#include "app/http/query.h"
#include "app/registry/agent_id.h"

extern const struct route_input agents_register_input;
void agents_register(struct call *call);
void agents_get(struct call *call);
void agents_registration(struct call *call);

/* Reads the path's {id} into the parameters of AGENT_NAMED (agent_id.h). False when that cannot
 * name any agent: then the call is answered already (404). */
MUST_CHECK bool agent_named(struct call *call, const char *params[AGENT_NAMED_PARAMS]);

/*
 * The agent_uuid of the path's {id}, for calls that change something: they must know it before they
 * begin (call_changed()). Asks the database only where the path has another form of the id, so the
 * agent of an agent_uuid need not exist. NULL: the call is answered already.
 */
MUST_CHECK const char *agent_uuid_named(struct call *call);

/* Begins a query that has them as its first parameters. False as above. */
MUST_CHECK bool agent_query(struct call *call, struct query *query);

void agent_not_found(struct call *call);

/* Answers with the Agent object of the row that has AGENT_SHOWN (agent_columns.h) and behind it the
 * agent's metadata as JSON, from column `first` on. */
void agent_write(struct call *call, int status, const struct db_rows *rows, int first);

/* Whether a statement failed because an equal registration was stored at the same time, or because
 * the owner was suspended at that time. If the statement is run again, it finds that agent or that
 * suspension. */
bool agent_has_twin(const struct call *call, enum db_status status);

/* Refuses with 409 for an agent of the same owner, chain and registration file. */
void agent_refuse_twin(struct call *call, const char *agent_uuid);
/* Refuses with 403: that agent is suspended, or the owner who would register or change one is. */
void agent_refuse_suspended_twin(struct call *call, const char *agent_uuid);
void agent_refuse_suspended_owner(struct call *call);

/* The caller's quota of that kind, as a parameter of a statement. */
const char *quota_param(const struct call *call, enum quota_kind kind);
/* Refuses with 403: the caller's quota of agents or of bytes has no room for this. */
void agent_refuse_quota(struct call *call);
/* Whether a statement failed because there is no such user any more whose quota it could charge. */
bool agent_user_is_gone(const struct call *call, enum db_status status);

#endif
