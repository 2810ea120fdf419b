-- SPDX-License-Identifier: Apache-2.0
-- Changing an agent in one piece, and the contract's summary of feedback.
-- Safe under load: creates only.

-- What the audit log says of an agent: the file by its digest and by what was read out of it.
CREATE FUNCTION areg_audited_agent(a erc8004_agents) RETURNS jsonb
LANGUAGE sql STABLE
RETURN jsonb_build_object('status', a.status,
	'registration_digest', encode(a.registration_digest, 'hex'), 'name', a.name,
	'description', a.description, 'image', a.image, 'x402_support', a.x402_support,
	'file_active', a.file_active, 'services', a.services, 'skills', a.skills,
	'domains', a.domains, 'supported_trust', a.supported_trust);

-- The log is kept for good, and a value may have a megabyte.
CREATE FUNCTION areg_audited_value(value bytea) RETURNS text
LANGUAGE sql STABLE STRICT
RETURN CASE WHEN octet_length(value) <= 256 THEN convert_from(value, 'UTF8')
	ELSE 'sha256:' || encode(sha256(value), 'hex') END;
COMMENT ON FUNCTION areg_audited_value(bytea) IS 'A metadata value for the audit log: itself, or its digest';

-- Nor do lists of many short texts fill it: an edit may be repeated for ever.
CREATE FUNCTION areg_audited(said jsonb) RETURNS jsonb
LANGUAGE sql STABLE STRICT
RETURN CASE WHEN octet_length(said::text) <= 1024 THEN said
	ELSE to_jsonb('sha256:' || encode(sha256(convert_to(said::text, 'UTF8')), 'hex')) END;
COMMENT ON FUNCTION areg_audited(jsonb) IS 'Something for the audit log: itself, or the digest of its text';

-- A validator may respond again for ever: what the request says, its own entry has, and long texts are
-- logged by their digest.
CREATE FUNCTION areg_audited_text(said text) RETURNS text
LANGUAGE sql STABLE STRICT
RETURN areg_audited_value(convert_to(said, 'UTF8'));
COMMENT ON FUNCTION areg_audited_text(text) IS 'A text for the audit log: itself, or its digest';

CREATE FUNCTION areg_audited_response(v erc8004_validations) RETURNS jsonb
LANGUAGE sql STABLE
RETURN jsonb_build_object('agent_uuid', v.agent_uuid, 'validator_address', v.validator_address,
	'status', v.status, 'response', v.response, 'response_uri', areg_audited_text(v.response_uri),
	'response_hash', v.response_hash, 'tag', areg_audited_text(v.tag), 'responded_at', v.responded_at);
COMMENT ON FUNCTION areg_audited_response(erc8004_validations) IS
	'What the audit log says of a response to a validation';

-- The editor is charged for what an edit stores. The user who was charged for what it replaces or
-- removes gets that back: so a new owner pays nothing for what was in an agent, and the former
-- owner nothing for what has gone. Rows of user_storage are locked in the order of their ids, and
-- before counters of agents, as in a registration.
CREATE FUNCTION areg_charge_edit(of_agent uuid, new_file text, metadata_keys text[], metadata_values text[],
	editor uuid, quota bigint) RETURNS boolean
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
	users uuid[];
	growths bigint[];
BEGIN
	SELECT array_agg(user_id), array_agg(growth) INTO users, growths
	FROM (SELECT user_id, sum(bytes)::bigint AS growth
		FROM (SELECT editor, octet_length(new_file) WHERE new_file IS NOT NULL
			UNION ALL
			SELECT a.file_charged_to, -octet_length(a.registration_file::text)
			FROM erc8004_agents a WHERE a.agent_uuid = of_agent AND new_file IS NOT NULL
			UNION ALL
			SELECT charge.* FROM unnest(metadata_keys, metadata_values) AS given (key, value)
			LEFT JOIN erc8004_agent_metadata m ON m.agent_uuid = of_agent AND m.key = given.key
			CROSS JOIN LATERAL (VALUES
				(editor, areg_metadata_bytes(given.key, convert_to(given.value, 'UTF8'))),
				(m.charged_to, -areg_metadata_bytes(m.key, m.value)))
				AS charge (user_id, bytes)
			WHERE m.value IS DISTINCT FROM convert_to(given.value, 'UTF8'))
			AS charges (user_id, bytes)
		WHERE user_id IS NOT NULL GROUP BY user_id HAVING sum(bytes) <> 0) AS changes;
	IF users IS NULL THEN
		RETURN true;
	END IF;

	IF editor = ANY (users) THEN
		INSERT INTO user_storage (user_id) VALUES (editor) ON CONFLICT DO NOTHING;
	END IF;
	PERFORM FROM user_storage WHERE user_id = ANY (users) ORDER BY user_id FOR NO KEY UPDATE;
	IF EXISTS (SELECT FROM user_storage s JOIN unnest(users, growths) AS change (user_id, growth)
			USING (user_id)
		WHERE user_id = editor AND growth > 0 AND s.bytes + growth > quota) THEN
		RETURN false;
	END IF;
	UPDATE user_storage s SET bytes = greatest(s.bytes + change.growth, 0)
	FROM unnest(users, growths) AS change (user_id, growth) WHERE s.user_id = change.user_id;
	RETURN true;
END $$;
COMMENT ON FUNCTION areg_charge_edit(uuid, text, text[], text[], uuid, bigint) IS
	'Charges users for an edit that is about to be stored; false, and nothing is changed, if the editor would store more than the quota of bytes';

-- The lock on the agent makes edits wait for one another; each statement after it sees what the edit
-- before has left (READ COMMITTED).
CREATE FUNCTION areg_edit_agent(of_agent uuid, editor text, new_status text, new_file text,
	new_digest text, new_name text, new_description text, new_image text, new_shown_services json,
	new_x402_support boolean, new_file_active boolean, new_services text[], new_skills text[],
	new_domains text[], new_supported_trust text[], metadata_keys text[], metadata_values text[],
	by_user uuid, quota_bytes bigint,
	OUT outcome text, OUT twin uuid, OUT before jsonb, OUT after jsonb, OUT agent erc8004_agents,
	OUT metadata json)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
	old erc8004_agents;
	old_values jsonb;
	new_values jsonb;
	most constant integer := 65536;
BEGIN
	SELECT * INTO old FROM erc8004_agents a WHERE a.agent_uuid = of_agent FOR NO KEY UPDATE;
	outcome := CASE
		WHEN NOT FOUND THEN 'agent_not_found'
		WHEN old.owner_address <> editor THEN 'forbidden'
		WHEN old.status = 'suspended' THEN 'agent_suspended'
		WHEN EXISTS (SELECT FROM erc8004_suspended_owners s WHERE s.owner_address = editor)
			THEN 'owner_suspended'
		WHEN old.status IN ('pending', 'revoked') THEN 'agent_not_active' END;
	IF outcome IS NOT NULL THEN
		RETURN;
	END IF;

	IF new_file IS NOT NULL AND new_status IS NULL THEN
		SELECT a.agent_uuid, CASE a.status WHEN 'suspended' THEN 'suspended_twin'
				ELSE 'agent_already_exists' END
		INTO twin, outcome FROM erc8004_agents a
		WHERE a.owner_address = editor AND a.registration_digest = decode(new_digest, 'hex')
			AND a.status IN ('active', 'suspended') AND (a.chain = old.chain OR a.status = 'suspended')
			AND a.agent_uuid <> of_agent
		ORDER BY a.status DESC LIMIT 1;
		IF FOUND THEN
			RETURN;
		END IF;
	END IF;

	IF cardinality(metadata_keys) > 0 AND EXISTS (SELECT FROM (
			SELECT octet_length(key) AS key_size, octet_length(convert_to(value, 'UTF8')) AS value_size
			FROM unnest(metadata_keys, metadata_values) AS given (key, value) WHERE value IS NOT NULL
			UNION ALL
			SELECT octet_length(key), octet_length(value) FROM erc8004_agent_metadata
			WHERE agent_uuid = of_agent AND key <> ALL (metadata_keys)) AS afterwards
		HAVING greatest(sum(key_size), sum(value_size)) > most) THEN
		outcome := 'metadata_too_large';
		RETURN;
	END IF;

	agent := old;
	agent.status := coalesce(new_status, old.status);
	IF new_file IS NOT NULL THEN
		agent.registration_file := new_file;
		agent.file_charged_to := by_user;
		agent.registration_digest := decode(new_digest, 'hex');
		agent.conformance := '[]';
		agent.name := new_name;
		agent.description := new_description;
		agent.image := new_image;
		agent.shown_services := new_shown_services;
		agent.x402_support := new_x402_support;
		agent.file_active := new_file_active;
		agent.services := new_services;
		agent.skills := new_skills;
		agent.domains := new_domains;
		agent.supported_trust := new_supported_trust;
	END IF;
	old_values := areg_audited_agent(old);
	new_values := areg_audited_agent(agent);
	SELECT jsonb_object_agg(key, areg_audited(o.value)), jsonb_object_agg(key, areg_audited(n.value))
	INTO before, after
	FROM jsonb_each(old_values) o JOIN jsonb_each(new_values) n USING (key)
	WHERE o.value <> n.value;

	SELECT jsonb_object_agg(given.key, areg_audited_value(m.value)),
		jsonb_object_agg(given.key, areg_audited_value(convert_to(given.value, 'UTF8')))
	INTO old_values, new_values
	FROM unnest(metadata_keys, metadata_values) AS given (key, value)
	LEFT JOIN erc8004_agent_metadata m ON m.agent_uuid = of_agent AND m.key = given.key
	WHERE m.value IS DISTINCT FROM convert_to(given.value, 'UTF8');
	IF old_values IS NOT NULL THEN
		before := coalesce(before, '{}') || jsonb_build_object('metadata', areg_audited(old_values));
		after := coalesce(after, '{}') || jsonb_build_object('metadata', areg_audited(new_values));
	END IF;

	outcome := CASE WHEN before IS NULL THEN 'unchanged'
		WHEN areg_charge_edit(of_agent, new_file, metadata_keys, metadata_values, by_user, quota_bytes)
			THEN 'edited'
		ELSE 'quota_exceeded' END;
	IF outcome = 'edited' THEN
		DELETE FROM erc8004_agent_metadata m
		USING unnest(metadata_keys, metadata_values) AS given (key, value)
		WHERE m.agent_uuid = of_agent AND m.key = given.key AND given.value IS NULL;
		INSERT INTO erc8004_agent_metadata AS m (agent_uuid, key, value, charged_to)
		SELECT of_agent, given.key, convert_to(given.value, 'UTF8'), by_user
		FROM unnest(metadata_keys, metadata_values) AS given (key, value)
		WHERE given.value IS NOT NULL
		ON CONFLICT (agent_uuid, key_digest) DO UPDATE SET value = EXCLUDED.value,
			charged_to = EXCLUDED.charged_to
			WHERE m.value <> EXCLUDED.value;
		UPDATE erc8004_agents a SET status = agent.status,
			file_charged_to = agent.file_charged_to, registration_file = agent.registration_file,
			registration_digest = agent.registration_digest, conformance = agent.conformance,
			name = agent.name, description = agent.description, image = agent.image,
			shown_services = agent.shown_services,
			x402_support = agent.x402_support, file_active = agent.file_active,
			services = agent.services, skills = agent.skills, domains = agent.domains,
			supported_trust = agent.supported_trust
		WHERE a.agent_uuid = of_agent
		RETURNING a.* INTO agent;
	END IF;

	SELECT coalesce(json_object_agg(m.key, convert_from(m.value, 'UTF8') ORDER BY m.key), '{}')
	INTO metadata
	FROM erc8004_agent_metadata m WHERE m.agent_uuid = of_agent;
END $$;
COMMENT ON FUNCTION areg_edit_agent(uuid, text, text, text, text, text, text, text, json, boolean, boolean,
	text[], text[], text[], text[], text[], text[], uuid, bigint) IS
	'Changes an agent by its owner; a null status or file stays, a metadata value that is null goes. outcome: edited or unchanged (and the agent), agent_not_found, forbidden, agent_suspended, owner_suspended, agent_not_active, agent_already_exists or suspended_twin (and twin), metadata_too_large, quota_exceeded. before and after: what changed';

-- All that an owner registered goes out of service, whoever owns it now. Agents that were only
-- transferred to them stay: agents are also given to people who did not ask for them.
CREATE FUNCTION areg_suspend_owner(of_owner text, why text, by_actor text, OUT agents bigint,
	OUT outcome text)
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_advisory_xact_lock(1634887016); -- see areg_hold_off_suspensions()
	INSERT INTO erc8004_suspended_owners (owner_address, suspended_by, reason)
	VALUES (of_owner, by_actor, why) ON CONFLICT DO NOTHING;
	IF NOT FOUND THEN
		outcome := 'suspended before';
		RETURN;
	END IF;

	WITH changed AS (
		UPDATE erc8004_agents a SET status = 'suspended', suspended_from = 'active',
			suspended_with_owner = true, updated_at = now()
		FROM (SELECT DISTINCT agent_uuid FROM erc8004_agent_addresses
			WHERE address = of_owner AND role = 'owner') AS owned
		WHERE a.agent_uuid = owned.agent_uuid AND a.status = 'active'
			AND areg_registered_by(a.agent_uuid) = of_owner
		RETURNING a.agent_uuid
	), audited AS (
		INSERT INTO audit_log (actor, action, subject_type, subject_id, before, after)
		SELECT by_actor, 'agent.suspend', 'agent', agent_uuid::text, '{"status": "active"}'::jsonb,
			jsonb_strip_nulls(jsonb_build_object('status', 'suspended', 'owner', of_owner, 'reason', why))
		FROM changed
	)
	SELECT count(*) INTO agents FROM changed;
	INSERT INTO audit_log (actor, action, subject_type, subject_id, after)
	VALUES (by_actor, 'owner.suspend', 'owner', of_owner,
		jsonb_strip_nulls(jsonb_build_object('agents', agents, 'reason', why)));
	outcome := 'suspended';
END $$;
COMMENT ON FUNCTION areg_suspend_owner(text, text, text) IS
	'Suspends an owner and the agents that they registered: outcome suspended (and how many agents), or suspended before';

CREATE FUNCTION areg_reactivate_owner(of_owner text, why text, by_actor text, OUT agents bigint,
	OUT outcome text)
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_advisory_xact_lock(1634887016); -- see areg_hold_off_suspensions()
	DELETE FROM erc8004_suspended_owners WHERE owner_address = of_owner;
	IF NOT FOUND THEN
		outcome := 'not suspended';
		RETURN;
	END IF;

	WITH changed AS (
		UPDATE erc8004_agents a SET status = coalesce(suspended_from, 'active'),
			suspended_from = NULL, suspended_with_owner = false, updated_at = now()
		FROM (SELECT DISTINCT agent_uuid FROM erc8004_agent_addresses
			WHERE address = of_owner AND role = 'owner') AS owned
		WHERE a.agent_uuid = owned.agent_uuid AND a.status = 'suspended' AND a.suspended_with_owner
			AND areg_registered_by(a.agent_uuid) = of_owner
		RETURNING a.agent_uuid, a.status
	), audited AS (
		INSERT INTO audit_log (actor, action, subject_type, subject_id, before, after)
		SELECT by_actor, 'agent.reactivate', 'agent', agent_uuid::text,
			'{"status": "suspended"}'::jsonb,
			jsonb_strip_nulls(jsonb_build_object('status', status, 'owner', of_owner, 'reason', why))
		FROM changed
	)
	SELECT count(*) INTO agents FROM changed;
	INSERT INTO audit_log (actor, action, subject_type, subject_id, before, after)
	VALUES (by_actor, 'owner.reactivate', 'owner', of_owner, jsonb_build_object('suspended', true),
		jsonb_strip_nulls(jsonb_build_object('agents', agents, 'reason', why)));
	outcome := 'reactivated';
END $$;
COMMENT ON FUNCTION areg_reactivate_owner(text, text, text) IS
	'Lifts the suspension of an owner and of the agents that were suspended with them: outcome reactivated (and how many agents), or not suspended';

-- ERC-8004, getSummary(). All is exact: powers of ten are written as text because the power of a
-- numeric is rounded, and div() cuts toward zero where / rounds. A client that is named twice counts
-- twice, as in the contract's loop over them.
CREATE FUNCTION areg_feedback_summary(of_agent uuid, clients text[], only_tag1 text, only_tag2 text,
	OUT count bigint, OUT summary_value numeric, OUT summary_value_decimals smallint)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
	SELECT coalesce(sum(n), 0)::bigint,
		coalesce(div(div(sum(value_sum * ('1e' || (18 - decimals))::numeric), sum(n)),
			('1e' || (18 - (array_agg(decimals ORDER BY n DESC, decimals))[1]))::numeric), 0),
		coalesce((array_agg(decimals ORDER BY n DESC, decimals))[1], 0)::smallint
	FROM (SELECT f.value_decimals AS decimals, count(*) AS n, sum(f.value) AS value_sum
		FROM unnest(clients) AS given (client_address)
		JOIN erc8004_reputation f ON f.agent_uuid = of_agent AND f.client_address = given.client_address
		WHERE NOT f.is_revoked AND coalesce(only_tag1, '') IN ('', f.tag1)
			AND coalesce(only_tag2, '') IN ('', f.tag2)
		GROUP BY f.value_decimals) AS of_decimals
$$;
COMMENT ON FUNCTION areg_feedback_summary(uuid, text[], text, text) IS
	'getSummary() of the reputation registry; an empty or null tag filters nothing';
