-- Shapes that several queries of the API share, and the one way in for feedback.
-- Safe under load: creates only.

CREATE VIEW v_erc8004_agent_reputation AS
SELECT agent_uuid, a.agent_id, s.total_feedback, s.reputation_score AS average_score,
	s.positive_feedback, s.negative_feedback, s.revoked_feedback, s.unique_clients,
	s.last_feedback_at
FROM erc8004_agents a JOIN erc8004_agent_stats s USING (agent_uuid);

CREATE VIEW v_erc8004_agent_stats AS
SELECT agent_uuid, a.agent_id, a.chain, a.registry_address, a.owner_address, a.name, a.status,
	a.created_at AS registered_at, s.last_activity_at, s.total_feedback, s.reputation_score,
	s.positive_feedback, s.negative_feedback, s.revoked_feedback, s.unique_clients,
	s.last_feedback_at, s.total_payments, s.successful_payments, s.failed_payments,
	s.total_amount_usdc, s.payment_success_rate, s.last_payment_at, s.trust_level, s.trust_score,
	s.direct_score, a.description, a.image, a.registration_file, a.x402_support
FROM erc8004_agents a JOIN erc8004_agent_stats s USING (agent_uuid);

CREATE FUNCTION areg_shown_score(score numeric) RETURNS numeric
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN trim_scale(round(score, 2));
COMMENT ON FUNCTION areg_shown_score(numeric) IS 'A score as answers give it: at most 2 decimals';

-- Locks in the order that 0005_statistics says. The one on the statistics is what hands out
-- feedback_index: nobody else gives this agent feedback until this transaction ends. Few statements and
-- few expressions, because PostgreSQL sets up each of them anew in every transaction.
CREATE FUNCTION areg_give_feedback(to_agent uuid, from_client text, given_score text,
	given_value text, given_decimals integer, given_tag1 text, given_tag2 text,
	given_endpoint text, given_file_uri text, given_file_hash text, automatic boolean DEFAULT false)
RETURNS TABLE (outcome text, id bigint, agent_uuid uuid, client_address text,
	feedback_index bigint, score numeric, value numeric, value_decimals integer, tag1 text,
	tag2 text, is_revoked boolean, created_at text)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
	IF num_nonnulls(given_score, given_value) <> 1 THEN
		RAISE EXCEPTION 'either a score or a value' USING ERRCODE = 'invalid_parameter_value';
	END IF;

	SELECT CASE
		WHEN automatic THEN 'created'
		WHEN a.status = 'suspended' THEN 'agent_suspended'
		WHEN a.status <> 'active' THEN 'agent_not_active'
		WHEN a.owner_address = from_client THEN 'own_agent'
		ELSE 'created' END
	INTO outcome
	FROM erc8004_agents a JOIN erc8004_agent_stats s ON s.agent_uuid = a.agent_uuid
	WHERE a.agent_uuid = to_agent FOR KEY SHARE OF a FOR UPDATE OF s;

	IF outcome = 'created' THEN
		INSERT INTO erc8004_reputation AS f (agent_uuid, client_address, feedback_index,
			has_explicit_score, value, value_decimals, tag1, tag2, endpoint, file_uri, file_hash,
			is_automatic)
		VALUES (to_agent, from_client,
			1 + coalesce((SELECT c.last_index FROM erc8004_agent_clients c
				WHERE c.agent_uuid = to_agent AND c.client_address = from_client), 0),
			given_score IS NOT NULL,
			coalesce(given_value::numeric, trim_scale(
				given_score::numeric * 10::numeric ^ scale(given_score::numeric))),
			coalesce(scale(given_score::numeric), given_decimals, 0), coalesce(given_tag1, ''),
			coalesce(given_tag2, ''), given_endpoint, given_file_uri, given_file_hash, automatic)
		RETURNING f.id, f.agent_uuid, f.client_address, f.feedback_index, areg_shown_score(f.score),
			f.value, f.value_decimals, f.tag1, f.tag2, f.is_revoked, rfc3339(f.created_at)
		INTO id, agent_uuid, client_address, feedback_index, score, value, value_decimals, tag1, tag2,
			is_revoked, created_at;
	ELSE
		outcome := coalesce(outcome, 'agent_not_found');
	END IF;
	RETURN NEXT;
END $$;
COMMENT ON FUNCTION areg_give_feedback(uuid, text, text, text, integer, text, text, text, text, text,
	boolean) IS
	'Stores one feedback; outcome: created (and the row), agent_not_found, agent_suspended, agent_not_active, own_agent. Automatic feedback is of this registry, and never refused';
