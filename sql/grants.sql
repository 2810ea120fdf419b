-- SPDX-License-Identifier: Apache-2.0
-- What the role that aregd and aregctl run as may do: areg.runtime_role names it. `aregctl migrate` runs
-- this as the owner of the schema after the migrations, each time. A table, view or sequence that is not
-- here is closed to that role, and t/api/10-schema.t fails. UPDATE is also what FOR SHARE and FOR UPDATE
-- take. The sequences of identity columns need nothing. Functions run with their caller's rights, but for
-- those at the end.

DO $$
DECLARE
	runtime name := current_setting('areg.runtime_role');
	item text[];
BEGIN
	EXECUTE format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC, %I', current_schema(), runtime);
	EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), runtime);
	-- An import stages its records in temporary tables.
	EXECUTE format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO %I', current_database(), runtime);

	FOREACH item SLICE 1 IN ARRAY ARRAY[
		['schema_migrations', 'SELECT'],
		['users', 'SELECT, INSERT, UPDATE'],
		['api_keys', 'SELECT, INSERT, UPDATE'],
		['auth_nonces', 'SELECT, INSERT, UPDATE, DELETE'],
		['idempotency_keys', 'SELECT, INSERT, UPDATE, DELETE'],

		-- Append-only, and sealed by areg_seal_audit() alone.
		['audit_log', 'SELECT, INSERT'],
		['audit_seals', 'SELECT'],
		['audit_sealing', 'SELECT'],

		['user_storage', 'SELECT, INSERT, UPDATE'],

		['erc8004_agents', 'SELECT, INSERT, UPDATE'],
		['erc8004_agent_addresses', 'SELECT, INSERT, UPDATE'],
		['erc8004_suspended_owners', 'SELECT, INSERT, DELETE'],
		['erc8004_agent_metadata', 'SELECT, INSERT, UPDATE, DELETE'],
		['erc8004_agent_counters', 'SELECT, INSERT, UPDATE'],
		['erc8004_agent_counts', 'SELECT, INSERT, UPDATE'],
		['erc8004_reputation', 'SELECT, INSERT, UPDATE'],
		['erc8004_feedback_responses', 'SELECT, INSERT'],
		['erc8004_validations', 'SELECT, INSERT, UPDATE'],
		['x402_payments', 'SELECT, INSERT, UPDATE'],
		['erc8004_agent_payments', 'SELECT, INSERT, UPDATE, DELETE'],

		-- Derived by triggers from the rows above.
		['erc8004_agent_clients', 'SELECT, INSERT, UPDATE'],
		['erc8004_agent_tags', 'SELECT, INSERT, UPDATE'],
		['erc8004_agent_client_tags', 'SELECT, INSERT, UPDATE'],
		['erc8004_agent_payers', 'SELECT, INSERT, UPDATE'],
		['erc8004_agent_stats', 'SELECT, INSERT, UPDATE'],
		['erc8004_agent_words', 'SELECT, INSERT, DELETE'],
		['erc8004_agent_services', 'SELECT, INSERT, DELETE'],
		['erc8004_total_changes', 'SELECT, INSERT, UPDATE, DELETE'],
		['erc8004_event_base', 'SELECT'],
		['erc8004_events', 'SELECT, INSERT'],
		['erc8004_events_pruned', 'SELECT'],

		['v_user_storage', 'SELECT'],
		['v_erc8004_agent_reputation', 'SELECT'],
		['v_erc8004_agent_stats', 'SELECT'],
		['v_erc8004_totals', 'SELECT']
	] LOOP
		-- An older schema has not all of them.
		CONTINUE WHEN to_regclass(item[1]) IS NULL;
		EXECUTE format('REVOKE ALL ON %I FROM PUBLIC, %I', item[1], runtime);
		EXECUTE format('GRANT %s ON %I TO %I', item[2], item[1], runtime);
	END LOOP;

	-- USAGE is nextval() without setval().
	FOREACH item SLICE 1 IN ARRAY ARRAY[
		['audit_log_ids', 'USAGE, SELECT']
	] LOOP
		CONTINUE WHEN to_regclass(item[1]) IS NULL;
		EXECUTE format('REVOKE ALL ON SEQUENCE %I FROM PUBLIC, %I', item[1], runtime);
		EXECUTE format('GRANT %s ON SEQUENCE %I TO %I', item[2], item[1], runtime);
	END LOOP;

	-- What runs with its owner's rights, whoever calls it.
	FOREACH item SLICE 1 IN ARRAY ARRAY[
		['areg_seal_audit()', 'EXECUTE'],
		['areg_resume_events()', 'EXECUTE'],
		['areg_prune_events(integer)', 'EXECUTE']
	] LOOP
		CONTINUE WHEN to_regprocedure(item[1]) IS NULL;
		EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC, %I', item[1], runtime);
		EXECUTE format('GRANT %s ON FUNCTION %s TO %I', item[2], item[1], runtime);
	END LOOP;
END $$;
