-- SPDX-License-Identifier: Apache-2.0
-- Shapes that several queries of the API share.
-- Safe under load: creates only.

CREATE VIEW v_erc8004_agent_reputation AS
SELECT agent_uuid, a.agent_id, s.total_feedback, s.reputation_score AS average_score,
	trim_scale(areg_average(s.score_sum, s.scored_feedback)) AS raw_average_score,
	s.positive_feedback, s.negative_feedback, s.revoked_feedback, s.unique_clients,
	(SELECT count(*) FROM erc8004_agent_clients c WHERE c.agent_uuid = s.agent_uuid AND c.is_self
		AND c.active_feedback > 0) AS self_clients,
	s.last_feedback_at
FROM erc8004_agents a JOIN erc8004_agent_stats s USING (agent_uuid);

CREATE VIEW v_erc8004_agent_stats AS
SELECT agent_uuid, a.agent_id, a.chain, a.registry_address, a.owner_address, a.name, a.status,
	a.created_at AS registered_at, s.last_activity_at, s.total_feedback, s.reputation_score,
	s.positive_feedback, s.negative_feedback, s.revoked_feedback, s.unique_clients,
	s.last_feedback_at, s.total_payments, s.successful_payments, s.failed_payments,
	s.total_amount_usdc, s.payment_success_rate, s.last_payment_at, s.trust_level, s.trust_score,
	s.direct_score, s.counted_payers, a.description, a.image, a.shown_services, a.x402_support
FROM erc8004_agents a JOIN erc8004_agent_stats s USING (agent_uuid);

CREATE FUNCTION areg_shown_score(score numeric) RETURNS numeric
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN trim_scale(round(score, 2));
COMMENT ON FUNCTION areg_shown_score(numeric) IS 'A score as answers give it: at most 2 decimals';
