/* SPDX-License-Identifier: Apache-2.0 */
/* What clients say of agents: POST /agents/feedback, GET /agents/{id}/feedback,
 * POST /agents/feedback/{feedback_id}/revoke. */
#ifndef AREG_API_FEEDBACK_H
#define AREG_API_FEEDBACK_H

#include "app/http/call.h"
#include "lib/row_json.h"

extern const struct route_input feedback_give_input;
void feedback_give(struct call *call);
extern const struct route_input feedback_list_input;
void feedback_list(struct call *call);
void feedback_revoke(struct call *call);

/*
 * The Feedback object of the API: its columns as SQL, over erc8004_reputation as `f`, and how each is
 * written.
 */
#define FEEDBACK_COLUMNS \
	"f.id, f.agent_uuid, f.client_address, f.feedback_index, areg_shown_score(f.score), f.value," \
	" f.value_decimals, f.tag1, f.tag2, f.is_revoked, rfc3339(f.created_at), f.endpoint," \
	" f.file_uri, f.file_hash, f.is_automatic, rfc3339(f.revoked_at)," \
	" NOT f.is_automatic AND EXISTS (SELECT FROM erc8004_agent_addresses x" \
	"   WHERE x.agent_uuid = f.agent_uuid AND x.address = f.client_address)"
enum { FEEDBACK_COLUMN_COUNT = 17 };
extern const struct column feedback_columns[FEEDBACK_COLUMN_COUNT];

/* The path's {feedback_id}, where it can be one: 1 .. 2^63 - 1. NULL: the call is answered already
 * (404). */
MUST_CHECK const char *feedback_id_named(struct call *call);

/* What never changes of the record that {feedback_id} names. */
struct feedback_named {
	const char *id, *agent_uuid, *client_address;
};

/* Looks it up. False when the call is answered already. */
MUST_CHECK bool feedback_named(struct call *call, struct feedback_named *named);

void feedback_not_found(struct call *call);

#endif
