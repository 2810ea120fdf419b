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
	IF payment.status NOT IN ('verified', 'failed')
		OR NOT EXISTS (SELECT FROM erc8004_agents WHERE agent_uuid = to_agent AND status = 'active')
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

CREATE FUNCTION areg_record_payment(of_tx_hash text, on_chain text, amount numeric, from_payer text,
	to_payee text, new_status text, at_endpoint text, because text, gives_feedback boolean)
RETURNS TABLE (outcome text, payment x402_payments, link erc8004_agent_payments, before jsonb,
	feedback_id bigint)
LANGUAGE plpgsql AS $$
DECLARE
	locked_agent uuid;
BEGIN
	SELECT l.agent_uuid INTO locked_agent
	FROM x402_payments p JOIN erc8004_agent_payments l ON l.payment_id = p.id
	WHERE p.tx_hash = of_tx_hash AND p.chain = on_chain;
	PERFORM FROM erc8004_agents a WHERE a.agent_uuid = locked_agent FOR KEY SHARE;

	INSERT INTO x402_payments AS p (tx_hash, chain, amount_usdc, payer, payee, status, endpoint,
		failure_reason, settled_at)
	VALUES (of_tx_hash, on_chain, amount, from_payer, to_payee, new_status, at_endpoint, because,
		CASE WHEN new_status <> 'pending' THEN now() END)
	ON CONFLICT ON CONSTRAINT x402_payments_identity DO NOTHING
	RETURNING p.* INTO payment;
	IF FOUND THEN
		outcome := 'recorded';
		RETURN NEXT;
		RETURN;
	END IF;

	SELECT p.* INTO STRICT payment FROM x402_payments p
	WHERE p.tx_hash = of_tx_hash AND p.chain = on_chain FOR NO KEY UPDATE;
	SELECT l.* INTO link FROM erc8004_agent_payments l WHERE l.payment_id = payment.id;
	IF link.agent_uuid IS DISTINCT FROM locked_agent THEN
		RAISE EXCEPTION 'the payment was linked meanwhile: its agent must be locked first'
			USING ERRCODE = 'serialization_failure';
	END IF;
	IF payment.status <> 'pending' THEN
		outcome := 'settled';
		RETURN NEXT;
		RETURN;
	END IF;

	before := to_jsonb(payment);
	UPDATE x402_payments p SET amount_usdc = amount, payer = from_payer, payee = to_payee,
		status = new_status, endpoint = coalesce(at_endpoint, p.endpoint),
		failure_reason = coalesce(because, p.failure_reason),
		settled_at = CASE WHEN new_status <> 'pending' THEN now() END
	WHERE p.id = payment.id
	RETURNING p.* INTO payment;
	IF gives_feedback AND link.agent_uuid IS NOT NULL THEN
		feedback_id := areg_give_payment_feedback(link.agent_uuid, payment);
	END IF;
	outcome := 'updated';
	RETURN NEXT;
END $$;
COMMENT ON FUNCTION areg_record_payment(text, text, numeric, text, text, text, text, text, boolean) IS
	'Stores a payment, or updates a pending one; outcome: recorded, updated (with how it was before), settled (and nothing changed)';

CREATE FUNCTION areg_link_payment(to_agent uuid, of_tx_hash text, on_chain text, by_wallet text,
	may_link_any boolean, gives_feedback boolean)
RETURNS TABLE (outcome text, feedback_id bigint)
LANGUAGE plpgsql AS $$
DECLARE
	agent record;
	payment x402_payments;
	linked_agent uuid;
BEGIN
	SELECT a.status, a.owner_address INTO agent
	FROM erc8004_agents a WHERE a.agent_uuid = to_agent FOR KEY SHARE;
	outcome := CASE
		WHEN NOT FOUND THEN 'agent_not_found'
		WHEN NOT may_link_any AND agent.owner_address <> by_wallet THEN 'forbidden'
		WHEN agent.status = 'suspended' THEN 'agent_suspended'
		WHEN agent.status <> 'active' THEN 'agent_not_active' END;
	IF outcome IS NOT NULL THEN
		RETURN NEXT;
		RETURN;
	END IF;

	SELECT p.* INTO payment FROM x402_payments p
	WHERE p.tx_hash = of_tx_hash AND p.chain = on_chain FOR NO KEY UPDATE;
	IF NOT FOUND THEN
		outcome := 'payment_not_found';
		RETURN NEXT;
		RETURN;
	END IF;
	SELECT l.agent_uuid INTO linked_agent
	FROM erc8004_agent_payments l WHERE l.payment_id = payment.id;
	outcome := CASE
		WHEN linked_agent = to_agent THEN 'linked_already'
		WHEN linked_agent IS NOT NULL THEN 'payment_already_linked'
		ELSE 'linked' END;
	IF outcome = 'linked' THEN
		INSERT INTO erc8004_agent_payments (payment_id, agent_uuid) VALUES (payment.id, to_agent);
		IF gives_feedback THEN
			feedback_id := areg_give_payment_feedback(to_agent, payment);
		END IF;
	END IF;
	RETURN NEXT;
END $$;
COMMENT ON FUNCTION areg_link_payment(uuid, text, text, text, boolean, boolean) IS
	'Says which agent a payment was for; outcome: linked, linked_already (to this agent), or why not';

CREATE INDEX erc8004_validations_summary
	ON erc8004_validations (agent_uuid) INCLUDE (validator_address, tag_key, response);
COMMENT ON INDEX erc8004_validations_summary IS 'Counts and means are read from the index alone';
