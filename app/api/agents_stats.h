/* SPDX-License-Identifier: Apache-2.0 */
/* What is known of an agent's record: GET /agents/{id}/stats, GET /agents/{id}/reputation. */
#ifndef AREG_API_AGENTS_STATS_H
#define AREG_API_AGENTS_STATS_H

#include "app/http/call.h"
#include "lib/row_json.h"

void agents_stats(struct call *call);
void agents_reputation(struct call *call);

/*
 * The Stats object of the API: its columns as SQL, over v_erc8004_agent_stats as `v`, and how each
 * is written. Searches answer with the same ones, and may show another score.
 */
#define STATS_COLUMNS STATS_COLUMNS_SCORED("v.reputation_score")
#define STATS_COLUMNS_SCORED(score) \
	"v.agent_uuid, v.agent_id, v.chain, v.registry_address, v.owner_address, v.name," \
	" v.status, rfc3339(v.registered_at), rfc3339(v.last_activity_at), v.total_feedback, " score \
	", v.positive_feedback, v.negative_feedback, v.revoked_feedback," \
	" v.unique_clients, rfc3339(v.last_feedback_at), v.total_payments, v.successful_payments," \
	" v.failed_payments, v.total_amount_usdc, v.payment_success_rate," \
	" rfc3339(v.last_payment_at), v.counted_payers, v.trust_level, v.trust_score"
enum { STATS_COLUMN_COUNT = 25 };
extern const struct column stats_columns[STATS_COLUMN_COUNT];

#endif
