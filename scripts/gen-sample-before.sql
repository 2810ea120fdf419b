-- SPDX-License-Identifier: Apache-2.0
-- What scripts/gen-sample --into does before its COPY: triggers off, indexes away. All of it, with
-- the rebuilding in gen-sample-after.sql, is one transaction: it leaves either a registry as the
-- triggers would have made it, or nothing at all.

BEGIN;
SET LOCAL maintenance_work_mem = '512MB';
SET LOCAL work_mem = '256MB';
SET LOCAL synchronous_commit = off;

DO $$ BEGIN
	LOCK TABLE erc8004_agents, erc8004_reputation, x402_payments, erc8004_agent_payments,
		erc8004_events IN SHARE ROW EXCLUSIVE MODE;
	IF EXISTS (SELECT FROM erc8004_agents) OR EXISTS (SELECT FROM x402_payments) THEN
		RAISE EXCEPTION 'the registry is not empty: it holds agents or payments';
	END IF;
END $$;

-- Neither triggers nor foreign keys: the sample names no agent that it does not hold.
SET LOCAL session_replication_role = replica;

-- Built at the end they take a tenth of the time. Those of constraints stay.
CREATE TEMPORARY TABLE sample_indexes ON COMMIT DROP AS
SELECT indexrelid::regclass::text AS name, pg_get_indexdef(indexrelid) AS definition,
	obj_description(indexrelid, 'pg_class') AS comment,
	(SELECT string_agg(format(' ALTER COLUMN %s SET STATISTICS %s', attnum, attstattarget), ',')
		FROM pg_attribute WHERE attrelid = indexrelid AND attstattarget >= 0) AS targets
FROM pg_index
WHERE indrelid = ANY (ARRAY['erc8004_agents', 'erc8004_reputation', 'erc8004_agent_stats',
		'x402_payments', 'erc8004_agent_payments', 'erc8004_events']::regclass[])
	AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid);
DO $$
DECLARE
	name text;
BEGIN
	FOR name IN SELECT i.name FROM sample_indexes i LOOP
		EXECUTE 'DROP INDEX ' || name;
	END LOOP;
END $$;
