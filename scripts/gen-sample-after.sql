-- SPDX-License-Identifier: Apache-2.0
-- What scripts/gen-sample --into does after its COPY: all that triggers would have derived, from the
-- records as they stand; indexes back. See gen-sample-before.sql.

\warn 'statistics'
SELECT setval(pg_get_serial_sequence('erc8004_reputation', 'id'), max(id))
FROM erc8004_reputation HAVING max(id) IS NOT NULL;
SELECT setval(pg_get_serial_sequence('x402_payments', 'id'), max(id))
FROM x402_payments HAVING max(id) IS NOT NULL;
ANALYZE erc8004_agents, erc8004_reputation, x402_payments, erc8004_agent_payments;
SELECT areg_rebuild_stats();

\warn 'events'
INSERT INTO erc8004_events (place, type, agent_uuid, subject)
SELECT (SELECT areg_event_place()), type, agent_uuid, subject
FROM (SELECT 1 AS part, row_number() OVER (ORDER BY created_at, chain, agent_id) AS number,
		'agent.registered' AS type, agent_uuid, NULL AS subject FROM erc8004_agents
	UNION ALL
	SELECT 2, id, 'feedback.given', agent_uuid, id::text FROM erc8004_reputation
	UNION ALL
	SELECT 3, p.id, 'payment.recorded', l.agent_uuid,
		CASE WHEN l.agent_uuid IS NOT NULL THEN areg_payment_name(p.chain, p.tx_hash, p.id) END
	FROM x402_payments p LEFT JOIN erc8004_agent_payments l ON l.payment_id = p.id
	UNION ALL
	SELECT 4, p.id, 'payment.linked', l.agent_uuid, areg_payment_name(p.chain, p.tx_hash, p.id)
	FROM x402_payments p JOIN erc8004_agent_payments l ON l.payment_id = p.id) AS event
ORDER BY part, number;

\warn 'indexes'
DO $$
DECLARE
	i record;
BEGIN
	FOR i IN SELECT * FROM sample_indexes LOOP
		EXECUTE i.definition;
		IF i.comment IS NOT NULL THEN
			EXECUTE format('COMMENT ON INDEX %s IS %L', i.name, i.comment);
		END IF;
		IF i.targets IS NOT NULL THEN
			EXECUTE format('ALTER INDEX %s%s', i.name, i.targets);
		END IF;
	END LOOP;
END $$;
COMMIT;

\warn 'vacuum'
VACUUM ANALYZE;
