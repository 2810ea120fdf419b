-- SPDX-License-Identifier: Apache-2.0
-- The ways in for payments, what they say about the agent that they were for, and what the lists of
-- validations need.
-- Safe under load: creates only; the index takes a short lock on validations.
--
-- Locks in the order that 0005_statistics says: the agent's row, then the payment's, then whatever
-- the triggers and areg_give_feedback() lock. The lock on the payment decides who links it, and
-- whether it settles before or after it is linked.

CREATE FUNCTION areg_give_payment_feedback(to_agent uuid, payment x402_payments) RETURNS bigint
LANGUAGE plpgsql AS $$
BEGIN
	-- A payment that cannot count for trust buys no praise either.
	IF payment.status NOT IN ('verified', 'failed') OR NOT payment.reaches_minimum
		OR NOT EXISTS (SELECT FROM erc8004_agents WHERE agent_uuid = to_agent AND status = 'active')
		OR EXISTS (SELECT FROM erc8004_agent_addresses
			WHERE agent_uuid = to_agent AND address = payment.payer)
	THEN
		RETURN NULL;
	END IF;
	RETURN (SELECT id FROM areg_give_feedback(to_agent, '0x0000000000000000000000000000000000000001',
		CASE payment.status WHEN 'verified' THEN '95' ELSE '30' END, NULL, NULL,
		CASE payment.status WHEN 'verified' THEN 'payment_success' ELSE 'payment_failure' END,
		NULL, payment.endpoint, NULL, NULL, true));
END $$;
COMMENT ON FUNCTION areg_give_payment_feedback(uuid, x402_payments) IS
	'Feedback of the system itself for a settled payment, and its id; null where none is due';

CREATE FUNCTION areg_same_payment(of_tx_hash text, on_chain text, from_payer text, to_payee text,
	of_nonce text, at_log_index bigint) RETURNS bigint
LANGUAGE plpgsql STABLE AS $$
BEGIN
	IF of_tx_hash IS NULL THEN
		RETURN (SELECT p.id FROM x402_payments p
			WHERE p.tx_hash IS NULL AND p.nonce = of_nonce AND p.chain = on_chain
				AND p.payer = from_payer AND p.payee = to_payee);
	END IF;
	RETURN (SELECT p.id FROM x402_payments p
		WHERE p.tx_hash = of_tx_hash AND p.chain = on_chain AND p.payer = from_payer
			AND p.payee = to_payee AND p.nonce IS NOT DISTINCT FROM of_nonce
			AND p.log_index IS NOT DISTINCT FROM at_log_index);
END $$;
COMMENT ON FUNCTION areg_same_payment(text, text, text, text, text, bigint) IS
	'The id of the payment that a report is about; null if it is about a new one';

CREATE FUNCTION areg_record_payment(of_tx_hash text, on_chain text, amount numeric, from_payer text,
	to_payee text, of_nonce text, at_log_index bigint, new_status text, at_endpoint text, because text,
	by_user uuid, min_payment numeric, gives_feedback boolean)
RETURNS TABLE (outcome text, payment x402_payments, link erc8004_agent_payments, before jsonb,
	feedback_id bigint)
LANGUAGE plpgsql AS $$
DECLARE
	locked_agent uuid;
BEGIN
	SELECT l.agent_uuid INTO locked_agent FROM erc8004_agent_payments l WHERE l.payment_id =
		areg_same_payment(of_tx_hash, on_chain, from_payer, to_payee, of_nonce, at_log_index);
	PERFORM FROM erc8004_agents a WHERE a.agent_uuid = locked_agent FOR KEY SHARE;

	INSERT INTO x402_payments AS p (tx_hash, chain, nonce, log_index, amount_usdc, payer, payee, status,
		endpoint, failure_reason, settled_at, recorded_by, reaches_minimum)
	VALUES (of_tx_hash, on_chain, of_nonce, at_log_index, amount, from_payer, to_payee, new_status,
		at_endpoint, because, CASE WHEN new_status <> 'pending' THEN now() END, by_user,
		amount >= min_payment)
	ON CONFLICT DO NOTHING
	RETURNING p.* INTO payment;
	IF FOUND THEN
		outcome := 'recorded';
		RETURN NEXT;
		RETURN;
	END IF;

	SELECT p.* INTO STRICT payment FROM x402_payments p WHERE p.id =
		areg_same_payment(of_tx_hash, on_chain, from_payer, to_payee, of_nonce, at_log_index)
	FOR NO KEY UPDATE;
	SELECT l.* INTO link FROM erc8004_agent_payments l WHERE l.payment_id = payment.id;
	IF link.agent_uuid IS DISTINCT FROM locked_agent THEN
		RAISE EXCEPTION 'the payment was linked meanwhile: its agent must be locked first'
			USING ERRCODE = 'serialization_failure';
	END IF;
	outcome := CASE
		WHEN payment.status <> 'pending' THEN 'settled'
		WHEN payment.recorded_by IS DISTINCT FROM by_user THEN 'recorded_by_another' END;
	IF outcome IS NOT NULL THEN
		RETURN NEXT;
		RETURN;
	END IF;

	before := to_jsonb(payment);
	UPDATE x402_payments p SET status = new_status, endpoint = coalesce(at_endpoint, p.endpoint),
		failure_reason = coalesce(because, p.failure_reason),
		settled_at = CASE WHEN new_status <> 'pending' THEN now() END
	WHERE p.id = payment.id
	RETURNING p.* INTO payment;
	IF gives_feedback AND link.agent_uuid IS NOT NULL THEN
		feedback_id := areg_give_payment_feedback(link.agent_uuid, payment);
		UPDATE erc8004_agent_payments l SET feedback_id = areg_record_payment.feedback_id
		WHERE l.payment_id = payment.id AND areg_record_payment.feedback_id IS NOT NULL;
	END IF;
	outcome := 'updated';
	RETURN NEXT;
END $$;
COMMENT ON FUNCTION areg_record_payment(text, text, numeric, text, text, text, bigint, text, text, text, uuid,
	numeric, boolean) IS
	'Stores a payment, or updates a pending one of the same user; outcome: recorded, updated (with how it was before), settled or recorded_by_another (and nothing changed)';

-- Paid is when the payment was first recorded here, by the clock of the database: nobody can date a
-- payment back to a time when somebody else owned the agent.
CREATE FUNCTION areg_was_payee(of_agent uuid, payment x402_payments) RETURNS boolean
LANGUAGE sql STABLE
RETURN EXISTS (SELECT FROM erc8004_agent_addresses d
	WHERE d.agent_uuid = of_agent AND d.address = payment.payee AND d.role IN ('owner', 'wallet')
		AND d.since <= payment.created_at AND (d.until IS NULL OR d.until > payment.created_at));
COMMENT ON FUNCTION areg_was_payee(uuid, x402_payments) IS
	'Whether the payee was owner or wallet of this agent when the payment was recorded';

CREATE FUNCTION areg_is_payee_of_another(than_agent uuid, payment x402_payments) RETURNS boolean
LANGUAGE sql STABLE
RETURN EXISTS (SELECT FROM erc8004_agent_addresses d
	WHERE d.address = payment.payee AND d.agent_uuid <> than_agent AND d.role IN ('owner', 'wallet')
		AND d.since <= payment.created_at AND (d.until IS NULL OR d.until > payment.created_at));
COMMENT ON FUNCTION areg_is_payee_of_another(uuid, x402_payments) IS
	'The same of any other agent';

-- The lock makes whoever takes the scope from the facilitator wait for the link, and then see it.
CREATE FUNCTION areg_recorder_is_trusted(payment x402_payments) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
	IF payment.recorded_by IS NULL THEN
		RETURN true;
	END IF;
	PERFORM FROM users u WHERE u.id = payment.recorded_by AND 'payments:write' = ANY (u.scopes) FOR SHARE;
	RETURN FOUND;
END $$;
COMMENT ON FUNCTION areg_recorder_is_trusted(x402_payments) IS
	'Whether the payment is of an import, or of a facilitator that still has the scope';

CREATE FUNCTION areg_link_payment(to_agent uuid, of_payment bigint, of_tx_hash text, on_chain text,
	by_wallet text, by_facilitator uuid, gives_feedback boolean)
RETURNS TABLE (outcome text, payment x402_payments, feedback_id bigint, choices bigint[])
LANGUAGE plpgsql AS $$
DECLARE
	agent record;
	linked_agent uuid;
	owns boolean;
	recorded boolean;
BEGIN
	SELECT a.status, a.owner_address INTO agent
	FROM erc8004_agents a WHERE a.agent_uuid = to_agent FOR KEY SHARE;
	owns := coalesce(agent.owner_address = by_wallet, false);
	outcome := CASE
		WHEN NOT FOUND THEN 'agent_not_found'
		WHEN NOT owns AND by_facilitator IS NULL THEN 'forbidden'
		WHEN agent.status = 'suspended' THEN 'agent_suspended'
		WHEN agent.status <> 'active' THEN 'agent_not_active' END;
	IF outcome IS NOT NULL THEN
		RETURN NEXT;
		RETURN;
	END IF;

	-- Of several payments of a transaction, those that the caller could link.
	IF of_payment IS NULL THEN
		choices := ARRAY(SELECT p.id FROM x402_payments p
			WHERE p.tx_hash = of_tx_hash AND p.chain = on_chain AND areg_was_payee(to_agent, p)
				AND (owns OR p.recorded_by = by_facilitator)
			ORDER BY p.id LIMIT 20);
		IF cardinality(choices) > 1 THEN
			outcome := 'payment_ambiguous';
			RETURN NEXT;
			RETURN;
		END IF;
		of_payment := coalesce(choices[1], (SELECT p.id FROM x402_payments p
			WHERE p.tx_hash = of_tx_hash AND p.chain = on_chain
			ORDER BY p.recorded_by = by_facilitator DESC NULLS LAST LIMIT 1));
	END IF;
	SELECT p.* INTO payment FROM x402_payments p
	WHERE p.id = of_payment AND (of_tx_hash IS NULL OR p.tx_hash = of_tx_hash)
		AND (on_chain IS NULL OR p.chain = on_chain)
	FOR NO KEY UPDATE;
	IF NOT FOUND THEN
		outcome := 'payment_not_found';
		RETURN NEXT;
		RETURN;
	END IF;

	SELECT l.agent_uuid INTO linked_agent
	FROM erc8004_agent_payments l WHERE l.payment_id = payment.id;
	recorded := coalesce(payment.recorded_by = by_facilitator, false);
	outcome := CASE
		WHEN NOT owns AND NOT recorded THEN 'forbidden'
		WHEN linked_agent = to_agent THEN 'linked_already'
		WHEN NOT areg_was_payee(to_agent, payment) THEN 'payee_mismatch'
		WHEN linked_agent IS NOT NULL THEN 'payment_already_linked'
		WHEN NOT recorded AND areg_is_payee_of_another(to_agent, payment) THEN 'payee_ambiguous'
		WHEN NOT recorded AND NOT areg_recorder_is_trusted(payment) THEN 'facilitator_distrusted'
		ELSE 'linked' END;
	IF outcome = 'linked' THEN
		IF gives_feedback THEN
			feedback_id := areg_give_payment_feedback(to_agent, payment);
		END IF;
		INSERT INTO erc8004_agent_payments (payment_id, agent_uuid, feedback_id)
		VALUES (payment.id, to_agent, areg_link_payment.feedback_id);
	END IF;
	RETURN NEXT;
END $$;
COMMENT ON FUNCTION areg_link_payment(uuid, bigint, text, text, text, uuid, boolean) IS
	'Says which agent a payment was for: by its id, or by transaction and chain where that is enough (else choices). by_facilitator: the caller, if he has the scope. outcome: linked, linked_already (to this agent), or why not';

-- Locks in the order that 0005_statistics says; the link is looked at again once its agent is locked.
CREATE FUNCTION areg_unlink_payment(of_agent uuid, of_payment bigint, of_tx_hash text, on_chain text,
	by_facilitator uuid)
RETURNS TABLE (outcome text, payment x402_payments, link erc8004_agent_payments, choices bigint[])
LANGUAGE plpgsql AS $$
DECLARE
	locked_agent uuid;
BEGIN
	IF of_payment IS NULL THEN
		choices := ARRAY(SELECT p.id FROM x402_payments p JOIN erc8004_agent_payments l ON l.payment_id = p.id
			WHERE p.tx_hash = of_tx_hash AND p.chain = on_chain AND l.agent_uuid = of_agent
				AND (by_facilitator IS NULL OR p.recorded_by = by_facilitator)
			ORDER BY p.id LIMIT 20);
		IF cardinality(choices) > 1 THEN
			outcome := 'payment_ambiguous';
			RETURN NEXT;
			RETURN;
		END IF;
		of_payment := coalesce(choices[1], (SELECT p.id FROM x402_payments p
			WHERE p.tx_hash = of_tx_hash AND p.chain = on_chain
			ORDER BY p.recorded_by = by_facilitator DESC NULLS LAST LIMIT 1));
	END IF;

	SELECT l.agent_uuid INTO locked_agent
	FROM erc8004_agent_payments l WHERE l.payment_id = of_payment;
	PERFORM FROM erc8004_agents a WHERE a.agent_uuid = locked_agent FOR KEY SHARE;
	SELECT p.* INTO payment FROM x402_payments p
	WHERE p.id = of_payment AND (of_tx_hash IS NULL OR p.tx_hash = of_tx_hash)
		AND (on_chain IS NULL OR p.chain = on_chain)
	FOR NO KEY UPDATE;
	outcome := CASE
		WHEN NOT FOUND THEN 'payment_not_found'
		WHEN by_facilitator IS NOT NULL AND payment.recorded_by IS DISTINCT FROM by_facilitator
			THEN 'forbidden' END;
	IF outcome IS NOT NULL THEN
		RETURN NEXT;
		RETURN;
	END IF;

	SELECT l.* INTO link FROM erc8004_agent_payments l WHERE l.payment_id = payment.id FOR UPDATE;
	IF link.agent_uuid IS DISTINCT FROM locked_agent THEN
		RAISE EXCEPTION 'the payment was linked meanwhile: its agent must be locked first'
			USING ERRCODE = 'serialization_failure';
	END IF;
	outcome := CASE WHEN link.agent_uuid = coalesce(of_agent, link.agent_uuid) THEN 'unlinked'
		ELSE 'payment_not_linked' END;
	IF outcome = 'unlinked' THEN
		UPDATE erc8004_reputation f SET is_revoked = true, revoked_at = now()
		WHERE f.id = link.feedback_id AND NOT f.is_revoked;
		DELETE FROM erc8004_agent_payments l WHERE l.payment_id = payment.id;
	END IF;
	RETURN NEXT;
END $$;
COMMENT ON FUNCTION areg_unlink_payment(uuid, bigint, text, text, uuid) IS
	'Takes a link back, and revokes the automatic feedback that came of it. by_facilitator: only if that user recorded the payment; null: an operator. outcome: unlinked (and the link as it was), payment_ambiguous (and choices), or why not';

CREATE INDEX erc8004_validations_summary
	ON erc8004_validations (agent_uuid) INCLUDE (validator_address, tag_key, response);
COMMENT ON INDEX erc8004_validations_summary IS 'Counts and means are read from the index alone';
