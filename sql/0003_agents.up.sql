-- SPDX-License-Identifier: Apache-2.0
-- Agents, the addresses that they belong to or belonged to, their on-chain metadata, the counters that
-- agent ids are handed out from, the number of agents by chain and status, and what each user stores.
-- Safe under load: creates only.

CREATE TABLE erc8004_agent_counters (
	chain chain_name NOT NULL,
	registry_address eth_address NOT NULL,
	next_agent_id numeric NOT NULL DEFAULT 0 CONSTRAINT erc8004_agent_counters_range
		CHECK (next_agent_id >= 0 AND next_agent_id <= 2::numeric ^ 256 AND scale(next_agent_id) = 0),
	PRIMARY KEY (chain, registry_address)
);
COMMENT ON TABLE erc8004_agent_counters IS
	'Where the next agent id comes from; a trigger keeps it past every id that is stored';

CREATE TABLE erc8004_agent_counts (
	chain chain_name NOT NULL,
	status text NOT NULL,
	agents bigint NOT NULL CONSTRAINT erc8004_agent_counts_range CHECK (agents >= 0),
	PRIMARY KEY (chain, status)
);
COMMENT ON TABLE erc8004_agent_counts IS 'Number of agents, kept exact by triggers; rows may say 0';

-- Words of scripts that put no blanks between them (and of Hangul, which glues words together) are not
-- told apart: each of their characters and each two that stand together are words. Text without such a
-- script is left as it is. U+200B, which some put between words and nobody types, is left out.
CREATE FUNCTION areg_unspaced_characters() RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN '\u0E00-\u0EFF\u1000-\u109F\u1780-\u17FF\u1950-\u19DF\u1A20-\u1AAF\u3005-\u3007\u3041-\u30FA'
	|| '\u30FC-\u312F\u31A0-\u31BF\u31F0-\u31FF\u3400-\u4DBF\u4E00-\u9FFF\uA9E0-\uA9FF\uAA60-\uAADF'
	|| '\uAC00-\uD7A3\uF900-\uFAFF\uFF66-\uFF9F\U00020000-\U0003FFFF';
COMMENT ON FUNCTION areg_unspaced_characters() IS
	'Thai, Lao, Myanmar, Khmer, Tai, kana, bopomofo, Han and Hangul, for [] in a regular expression';

CREATE FUNCTION areg_words_to_store(of_text text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN octet_length(of_text) = char_length(of_text)
	OR of_text !~ ('[' || areg_unspaced_characters() || ']') THEN of_text
	ELSE regexp_replace(regexp_replace(replace(of_text, U&'\200B', ''),
			'[' || areg_unspaced_characters() || ']+', ' \& ', 'g'),
		'[' || areg_unspaced_characters() || ']', '\& \& \&', 'g') END;
COMMENT ON FUNCTION areg_words_to_store(text) IS 'ABC of an unspaced script becomes A A AB B BC C C';

CREATE FUNCTION areg_words_to_find(q text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN regexp_replace(regexp_replace(replace(q, U&'\200B', ''),
		'[' || areg_unspaced_characters() || ']+', ' \& ', 'g'),
	'(?<=[' || areg_unspaced_characters() || '])[' || areg_unspaced_characters()
		|| '](?=[' || areg_unspaced_characters() || '])', '\& \&', 'g');
COMMENT ON FUNCTION areg_words_to_find(text) IS 'ABC of an unspaced script becomes AB BC, and A alone stays A';

CREATE TABLE user_storage (
	user_id uuid PRIMARY KEY REFERENCES users ON DELETE CASCADE,
	agents bigint NOT NULL DEFAULT 0 CONSTRAINT user_storage_agents_range CHECK (agents >= 0),
	bytes bigint NOT NULL DEFAULT 0 CONSTRAINT user_storage_bytes_range CHECK (bytes >= 0)
);
COMMENT ON TABLE user_storage IS
	'How much of their quota users have used; the sums of what charged_to names, kept by what stores it';
COMMENT ON COLUMN user_storage.agents IS 'That the user registered, whoever owns them now';
COMMENT ON COLUMN user_storage.bytes IS
	'Of the registration files, metadata keys and metadata values that the user stored last';

CREATE TABLE erc8004_agents (
	-- First what searches read of every match: whatever stands before a column is walked past.
	agent_uuid uuid NOT NULL DEFAULT gen_random_uuid(),
	created_at timestamptz NOT NULL DEFAULT now(),
	updated_at timestamptz NOT NULL DEFAULT now(),
	status text NOT NULL CONSTRAINT erc8004_agents_status_known
		CHECK (status IN ('pending', 'active', 'suspended', 'revoked')),
	chain chain_name NOT NULL,
	chain_id bigint NOT NULL CONSTRAINT erc8004_agents_chain_id_range CHECK (chain_id > 0),
	registry_address eth_address NOT NULL,
	agent_id uint256,
	owner_address eth_address NOT NULL,
	agent_wallet eth_address,
	token_uri text CONSTRAINT erc8004_agents_token_uri_size CHECK (octet_length(token_uri) <= 1048576),
	source text NOT NULL CONSTRAINT erc8004_agents_source_known
		CHECK (source IN ('api', 'import', 'chain')),
	registration_file json CONSTRAINT erc8004_agents_registration_file_size
		CHECK (octet_length(registration_file::text) <= 1048576
			AND json_typeof(registration_file) <> 'null'),
	registration_digest bytea CONSTRAINT erc8004_agents_registration_digest_length
		CHECK (octet_length(registration_digest) = 32),
	conformance json NOT NULL DEFAULT '[]'
		CONSTRAINT erc8004_agents_conformance_list CHECK (json_typeof(conformance) = 'array'),
	name text CONSTRAINT erc8004_agents_name_length CHECK (char_length(name) <= 200),
	description text
		CONSTRAINT erc8004_agents_description_length CHECK (char_length(description) <= 2000),
	image text CONSTRAINT erc8004_agents_image_length CHECK (char_length(image) <= 2048),
	shown_services json NOT NULL DEFAULT '[]' CONSTRAINT erc8004_agents_shown_services_size
		CHECK (octet_length(shown_services::text) <= 8192 AND json_typeof(shown_services) = 'array'),
	x402_support boolean,
	file_active boolean,
	services text[] NOT NULL DEFAULT '{}'
		CONSTRAINT erc8004_agents_services_size CHECK (cardinality(services) <= 100),
	skills text[] NOT NULL DEFAULT '{}'
		CONSTRAINT erc8004_agents_skills_size CHECK (cardinality(skills) <= 500),
	domains text[] NOT NULL DEFAULT '{}'
		CONSTRAINT erc8004_agents_domains_size CHECK (cardinality(domains) <= 500),
	supported_trust text[] NOT NULL DEFAULT '{}'
		CONSTRAINT erc8004_agents_supported_trust_size CHECK (cardinality(supported_trust) <= 100),
	registered_tx eth_hash,
	registered_block bigint
		CONSTRAINT erc8004_agents_registered_block_range CHECK (registered_block >= 0),
	suspended_from text CONSTRAINT erc8004_agents_suspended_from_known
		CHECK (suspended_from IN ('active', 'revoked')),
	suspended_with_owner boolean NOT NULL DEFAULT false,
	charged_to uuid,
	file_charged_to uuid,
	name_sort text COLLATE "C" NOT NULL
		GENERATED ALWAYS AS (left(lower(coalesce(name, '')), 100)) STORED,
	search tsvector NOT NULL GENERATED ALWAYS AS (
		setweight(to_tsvector('simple'::regconfig, areg_words_to_store(coalesce(name, ''))), 'A')
		|| setweight(to_tsvector('simple'::regconfig, areg_words_to_store(coalesce(description, ''))),
			'B')) STORED,
	flags text[] NOT NULL GENERATED ALWAYS AS (ARRAY[
		CASE WHEN x402_support IS TRUE THEN 'x402' ELSE 'no x402' END,
		CASE WHEN registration_digest IS NULL THEN 'no file' ELSE 'file' END,
		CASE file_active WHEN true THEN 'active' WHEN false THEN 'inactive' ELSE 'not said' END]) STORED,
	-- With what most searches ask of agents that they found by statistics: the index alone answers.
	CONSTRAINT erc8004_agents_pkey PRIMARY KEY (agent_uuid) INCLUDE (chain, status),
	CONSTRAINT erc8004_agents_identity UNIQUE (chain, registry_address, agent_id),
	CONSTRAINT erc8004_agents_pending_has_no_id CHECK ((status = 'pending') = (agent_id IS NULL)),
	CONSTRAINT erc8004_agents_digest_of_file
		CHECK ((registration_file IS NULL) = (registration_digest IS NULL))
);
COMMENT ON TABLE erc8004_agents IS 'Agents of the ERC-8004 identity registries';
COMMENT ON COLUMN erc8004_agents.registration_file IS
	'The registration file as it was given; json and not jsonb, which would change its text and refuse \u0000';
COMMENT ON COLUMN erc8004_agents.registration_digest IS 'SHA-256 of the file in canonical form';
COMMENT ON COLUMN erc8004_agents.conformance IS 'What is off about the file: [{pointer, detail}]';
COMMENT ON COLUMN erc8004_agents.name IS
	'This and the columns to supported_trust: read out of the file, cut to size, for search';
COMMENT ON COLUMN erc8004_agents.shown_services IS
	'The services as lists show them, to be copied into the answer: no operator takes json apart that others wrote';
COMMENT ON COLUMN erc8004_agents.file_active IS 'The file''s own flag "active"';
COMMENT ON COLUMN erc8004_agents.flags IS
	'What is true or false of the file, as words for the one index over all lists';
COMMENT ON COLUMN erc8004_agents.registered_tx IS
	'The transaction that registered the agent on its chain; null: not known, or registered here';
COMMENT ON COLUMN erc8004_agents.suspended_from IS
	'What a suspended agent was before, and is again when it is reactivated; null: active';
COMMENT ON COLUMN erc8004_agents.suspended_with_owner IS
	'Suspended because of who registered it, and reactivated together with that owner';
COMMENT ON COLUMN erc8004_agents.charged_to IS
	'The user that registered the agent here, whose quota counts it; without a foreign key; null: nobody';
COMMENT ON COLUMN erc8004_agents.file_charged_to IS
	'The user that stored this registration file, whose quota counts its bytes; null: nobody';
COMMENT ON COLUMN erc8004_agents.source IS 'api: registered here; import; chain: seen by the indexer';
COMMENT ON COLUMN erc8004_agents.created_at IS 'When this registry took the agent in: registered_at';

-- Two registrations of the same thing at once: one gets the violation of this index. What is suspended
-- counts, or a suspension would last until its owner registers the same file again.
CREATE UNIQUE INDEX erc8004_agents_one_registration
	ON erc8004_agents (owner_address, chain, registration_digest)
	WHERE status IN ('active', 'suspended') AND source = 'api';
-- Of what is suspended, the chain does not matter: the same file is refused on every chain.
CREATE INDEX erc8004_agents_same_registration
	ON erc8004_agents (owner_address, registration_digest, chain) WHERE status IN ('active', 'suspended');
CREATE INDEX erc8004_agents_owner ON erc8004_agents (owner_address, created_at, agent_uuid);
CREATE INDEX erc8004_agents_by_time ON erc8004_agents (status, created_at, agent_uuid);
CREATE INDEX erc8004_agents_chain_by_time ON erc8004_agents (chain, status, created_at, agent_uuid);
CREATE INDEX erc8004_agents_registered_tx ON erc8004_agents (registered_tx) WHERE registered_tx IS NOT NULL;
CREATE INDEX erc8004_agents_by_name ON erc8004_agents (status, name_sort, agent_uuid);
CREATE INDEX erc8004_agents_search ON erc8004_agents USING gin (search);
CREATE INDEX erc8004_agents_name_trigrams ON erc8004_agents USING gin (lower(name) gin_trgm_ops);
-- The planner compares each search with as many names, twice: 100 took longer than most searches
-- do.
ALTER INDEX erc8004_agents_name_trigrams ALTER COLUMN 1 SET STATISTICS 10;

CREATE TABLE erc8004_agent_addresses (
	agent_uuid uuid NOT NULL REFERENCES erc8004_agents ON DELETE CASCADE,
	address eth_address NOT NULL,
	role text COLLATE "C" NOT NULL CONSTRAINT erc8004_agent_addresses_role_known
		CHECK (role IN ('owner', 'wallet', 'operator')),
	since timestamptz NOT NULL,
	until timestamptz,
	PRIMARY KEY (agent_uuid, address, role, since),
	CONSTRAINT erc8004_agent_addresses_period CHECK (until >= since)
);
COMMENT ON TABLE erc8004_agent_addresses IS
	'Who is or was owner, agent wallet or operator of an agent, and when; triggers keep owner and wallet';
COMMENT ON COLUMN erc8004_agent_addresses.since IS
	'The first moment: created_at of the agent, or when this registry stored the change';
COMMENT ON COLUMN erc8004_agent_addresses.until IS 'The first moment after the last one; null: still';
CREATE INDEX erc8004_agent_addresses_address ON erc8004_agent_addresses (address, agent_uuid);
CREATE UNIQUE INDEX erc8004_agent_addresses_now ON erc8004_agent_addresses (agent_uuid, role)
	WHERE until IS NULL AND role <> 'operator';

CREATE FUNCTION areg_registered_by(of_agent uuid) RETURNS text
LANGUAGE sql STABLE AS $$
	SELECT address FROM erc8004_agent_addresses WHERE agent_uuid = of_agent AND role = 'owner'
	ORDER BY since, until NULLS LAST LIMIT 1
$$;
COMMENT ON FUNCTION areg_registered_by(uuid) IS
	'Who registered an agent: its first owner, as far as this registry knows';

CREATE TABLE erc8004_suspended_owners (
	owner_address eth_address PRIMARY KEY,
	suspended_at timestamptz NOT NULL DEFAULT now(),
	suspended_by text NOT NULL,
	reason text
);
COMMENT ON TABLE erc8004_suspended_owners IS
	'Owners who may not register or change agents; see areg_suspend_owner()';

-- Between a registration and the suspension of an owner: who registers holds this together with others
-- until its transaction ends, who suspends alone. So no registration is between the two.
CREATE FUNCTION areg_hold_off_suspensions() RETURNS void
LANGUAGE sql AS 'SELECT pg_advisory_xact_lock_shared(1634887016)';

CREATE FUNCTION areg_agents_owner_suspended() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM areg_hold_off_suspensions();
	IF EXISTS (SELECT FROM erc8004_suspended_owners WHERE owner_address = NEW.owner_address) THEN
		RAISE EXCEPTION 'the owner is suspended'
			USING ERRCODE = 'check_violation', CONSTRAINT = 'erc8004_agents_owner_suspended';
	END IF;
	RETURN NEW;
END $$;
CREATE TRIGGER erc8004_agents_owner_suspended BEFORE INSERT ON erc8004_agents
	FOR EACH ROW WHEN (NEW.source = 'api') EXECUTE FUNCTION areg_agents_owner_suspended();

CREATE FUNCTION areg_track_addresses(of_agents uuid[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	-- The time of the clock, not of the transaction: the row of an agent is changed by one transaction
	-- after the other, but the later one may have begun first.
	UPDATE erc8004_agent_addresses d SET until = greatest(d.since, clock_timestamp())
	FROM erc8004_agents a
	WHERE d.agent_uuid = ANY (of_agents) AND a.agent_uuid = d.agent_uuid AND d.until IS NULL
		AND d.address IS DISTINCT FROM
			CASE d.role WHEN 'owner' THEN a.owner_address WHEN 'wallet' THEN a.agent_wallet
				ELSE d.address END;

	INSERT INTO erc8004_agent_addresses (agent_uuid, address, role, since)
	SELECT a.agent_uuid, n.address, n.role,
		CASE WHEN EXISTS (SELECT FROM erc8004_agent_addresses d WHERE d.agent_uuid = a.agent_uuid)
			THEN clock_timestamp() ELSE a.created_at END
	FROM erc8004_agents a CROSS JOIN LATERAL
		(VALUES ('owner', a.owner_address), ('wallet', a.agent_wallet)) AS n (role, address)
	WHERE a.agent_uuid = ANY (of_agents) AND n.address IS NOT NULL AND NOT EXISTS (
		SELECT FROM erc8004_agent_addresses d WHERE d.agent_uuid = a.agent_uuid AND d.role = n.role
			AND d.until IS NULL);
END $$;
COMMENT ON FUNCTION areg_track_addresses(uuid[]) IS
	'Makes erc8004_agent_addresses say who is owner and wallet of these agents now';

-- IMMUTABLE, although convert_to() is not: the database is UTF-8 for good.
CREATE FUNCTION areg_metadata_key_digest(key text) RETURNS bytea
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN sha256(convert_to(key, 'UTF8'));
COMMENT ON FUNCTION areg_metadata_key_digest(text) IS 'A key of any length, for an index';

CREATE TABLE erc8004_agent_metadata (
	agent_uuid uuid NOT NULL REFERENCES erc8004_agents ON DELETE CASCADE,
	key text COLLATE "C" NOT NULL CONSTRAINT erc8004_agent_metadata_key_valid
		CHECK (octet_length(key) <= 1048576 AND key <> 'agentWallet'),
	key_digest bytea NOT NULL GENERATED ALWAYS AS (areg_metadata_key_digest(key)) STORED,
	value bytea NOT NULL
		CONSTRAINT erc8004_agent_metadata_value_size CHECK (octet_length(value) <= 1048576),
	updated_at timestamptz NOT NULL DEFAULT now(),
	charged_to uuid,
	PRIMARY KEY (agent_uuid, key_digest)
);
COMMENT ON TABLE erc8004_agent_metadata IS 'On-chain metadata (MetadataSet); agentWallet is a column of the agent';
COMMENT ON COLUMN erc8004_agent_metadata.key IS
	'Any string, as in the contract; a key may be longer than an entry of an index';
COMMENT ON COLUMN erc8004_agent_metadata.charged_to IS
	'The user that stored this value, whose quota counts the bytes of key and value; null: nobody';
CREATE TRIGGER erc8004_agent_metadata_touch BEFORE UPDATE ON erc8004_agent_metadata
	FOR EACH ROW EXECUTE FUNCTION areg_touch();

CREATE TRIGGER erc8004_agents_touch BEFORE UPDATE ON erc8004_agents
	FOR EACH ROW EXECUTE FUNCTION areg_touch();
CREATE TRIGGER erc8004_agents_fixed
	BEFORE UPDATE OF agent_uuid, chain, chain_id, registry_address, source, created_at ON erc8004_agents
	FOR EACH ROW WHEN ((OLD.agent_uuid, OLD.chain, OLD.chain_id, OLD.registry_address, OLD.source,
		OLD.created_at) IS DISTINCT FROM (NEW.agent_uuid, NEW.chain, NEW.chain_id,
		NEW.registry_address, NEW.source, NEW.created_at))
	EXECUTE FUNCTION areg_refuse_change('what identifies an agent stays');

-- Everybody who takes an id locks the counter row before any row of erc8004_agent_counts; so do
-- the triggers below.
CREATE FUNCTION areg_take_agent_id(of_chain text, of_registry text) RETURNS numeric
LANGUAGE sql AS $$
	INSERT INTO erc8004_agent_counters AS c (chain, registry_address, next_agent_id)
	VALUES (of_chain, of_registry, 1)
	ON CONFLICT (chain, registry_address) DO UPDATE SET next_agent_id = c.next_agent_id + 1
	RETURNING next_agent_id - 1
$$;
COMMENT ON FUNCTION areg_take_agent_id(text, text) IS
	'The next agent id of a registry; other takers wait until this transaction ends, so there are no gaps';

CREATE FUNCTION areg_agents_inserted() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO erc8004_agent_counters AS c (chain, registry_address, next_agent_id)
	SELECT chain, registry_address, max(agent_id) + 1 FROM new_rows
	WHERE agent_id IS NOT NULL GROUP BY chain, registry_address ORDER BY chain, registry_address
	ON CONFLICT (chain, registry_address) DO UPDATE SET next_agent_id = EXCLUDED.next_agent_id
		WHERE c.next_agent_id < EXCLUDED.next_agent_id;

	INSERT INTO erc8004_agent_counts AS c (chain, status, agents)
	SELECT chain, status, count(*) FROM new_rows GROUP BY chain, status ORDER BY chain, status
	ON CONFLICT (chain, status) DO UPDATE SET agents = c.agents + EXCLUDED.agents;

	INSERT INTO erc8004_agent_addresses (agent_uuid, address, role, since)
	SELECT agent_uuid, owner_address, 'owner', created_at FROM new_rows
	UNION ALL
	SELECT agent_uuid, agent_wallet, 'wallet', created_at FROM new_rows WHERE agent_wallet IS NOT NULL;
	RETURN NULL;
END $$;
CREATE TRIGGER erc8004_agents_inserted AFTER INSERT ON erc8004_agents
	REFERENCING NEW TABLE AS new_rows
	FOR EACH STATEMENT EXECUTE FUNCTION areg_agents_inserted();

CREATE FUNCTION areg_agents_updated() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
	changed uuid[];
BEGIN
	INSERT INTO erc8004_agent_counters AS c (chain, registry_address, next_agent_id)
	SELECT n.chain, n.registry_address, max(n.agent_id) + 1
	FROM new_rows n JOIN old_rows o USING (agent_uuid)
	WHERE n.agent_id IS NOT NULL AND n.agent_id IS DISTINCT FROM o.agent_id
	GROUP BY n.chain, n.registry_address ORDER BY n.chain, n.registry_address
	ON CONFLICT (chain, registry_address) DO UPDATE SET next_agent_id = EXCLUDED.next_agent_id
		WHERE c.next_agent_id < EXCLUDED.next_agent_id;

	changed := ARRAY(SELECT agent_uuid FROM new_rows n JOIN old_rows o USING (agent_uuid)
		WHERE (n.owner_address, n.agent_wallet) IS DISTINCT FROM (o.owner_address, o.agent_wallet));
	IF cardinality(changed) > 0 THEN
		PERFORM areg_track_addresses(changed);
	END IF;

	IF NOT EXISTS (SELECT FROM new_rows n JOIN old_rows o USING (agent_uuid)
		WHERE n.status <> o.status) THEN
		RETURN NULL;
	END IF;
	INSERT INTO erc8004_agent_counts (chain, status, agents)
	SELECT DISTINCT chain, status, 0 FROM new_rows ORDER BY chain, status
	ON CONFLICT DO NOTHING;
	PERFORM FROM erc8004_agent_counts
	WHERE (chain, status) IN (SELECT chain, status FROM new_rows UNION SELECT chain, status FROM old_rows)
	ORDER BY chain, status FOR UPDATE;
	UPDATE erc8004_agent_counts c SET agents = c.agents + d.agents
	FROM (SELECT chain, status, sum(agents) AS agents
		FROM (SELECT chain, status, 1 AS agents FROM new_rows
			UNION ALL SELECT chain, status, -1 FROM old_rows) AS each
		GROUP BY chain, status) AS d
	WHERE c.chain = d.chain AND c.status = d.status AND d.agents <> 0;
	RETURN NULL;
END $$;
-- A trigger with transition tables takes no column list: that would have spared most calls.
CREATE TRIGGER erc8004_agents_updated AFTER UPDATE ON erc8004_agents
	REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
	FOR EACH STATEMENT EXECUTE FUNCTION areg_agents_updated();

CREATE FUNCTION areg_agents_deleted() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM FROM erc8004_agent_counts
	WHERE (chain, status) IN (SELECT chain, status FROM old_rows)
	ORDER BY chain, status FOR UPDATE;
	UPDATE erc8004_agent_counts c SET agents = c.agents - d.agents
	FROM (SELECT chain, status, count(*) AS agents FROM old_rows GROUP BY chain, status) AS d
	WHERE c.chain = d.chain AND c.status = d.status;
	RETURN NULL;
END $$;
CREATE TRIGGER erc8004_agents_deleted AFTER DELETE ON erc8004_agents
	REFERENCING OLD TABLE AS old_rows
	FOR EACH STATEMENT EXECUTE FUNCTION areg_agents_deleted();

-- A row and its entry in an index take that much more than key and value: many short entries are not
-- cheap.
CREATE FUNCTION areg_metadata_bytes(key text, value bytea) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 128 + octet_length(key) + octet_length(value);
COMMENT ON FUNCTION areg_metadata_bytes(text, bytea) IS
	'What an entry of metadata counts in a quota; as METADATA_ENTRY_BYTES in app/registry/metadata.h';

-- Each thing that is stored is charged to one user, so nothing can be refunded twice.
CREATE VIEW v_user_storage AS
SELECT user_id, sum(agents)::bigint AS agents, sum(bytes)::bigint AS bytes
FROM (SELECT charged_to, 1, 0 FROM erc8004_agents
	UNION ALL
	SELECT file_charged_to, 0, octet_length(registration_file::text) FROM erc8004_agents
	UNION ALL
	SELECT charged_to, 0, areg_metadata_bytes(key, value) FROM erc8004_agent_metadata)
	AS charges (user_id, agents, bytes)
WHERE user_id IS NOT NULL GROUP BY user_id;
COMMENT ON VIEW v_user_storage IS 'What user_storage has to say, counted anew';

CREATE FUNCTION areg_refund_agent() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
	refund record;
BEGIN
	-- One by one, in the order of their ids, as edits lock them.
	FOR refund IN SELECT user_id, sum(charges.agents) AS agents, sum(charges.bytes) AS bytes
		FROM (SELECT OLD.charged_to, 1, 0
			UNION ALL SELECT OLD.file_charged_to, 0, octet_length(OLD.registration_file::text)
			UNION ALL SELECT charged_to, 0, areg_metadata_bytes(key, value)
				FROM erc8004_agent_metadata WHERE agent_uuid = OLD.agent_uuid)
			AS charges (user_id, agents, bytes)
		WHERE user_id IS NOT NULL GROUP BY user_id ORDER BY user_id LOOP
		UPDATE user_storage s SET agents = greatest(s.agents - refund.agents, 0),
			bytes = greatest(s.bytes - refund.bytes, 0)
		WHERE s.user_id = refund.user_id;
	END LOOP;
	RETURN OLD;
END $$;
CREATE TRIGGER erc8004_agents_refund BEFORE DELETE ON erc8004_agents
	FOR EACH ROW EXECUTE FUNCTION areg_refund_agent();

CREATE FUNCTION areg_rebuild_storage() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	LOCK TABLE erc8004_agents, erc8004_agent_metadata, user_storage IN SHARE ROW EXCLUSIVE MODE;
	DELETE FROM user_storage;
	INSERT INTO user_storage (user_id, agents, bytes)
	SELECT user_id, agents, bytes FROM v_user_storage WHERE user_id IN (SELECT id FROM users);
END $$;
COMMENT ON FUNCTION areg_rebuild_storage() IS 'What areg_rebuild_stats() does about quotas';

CREATE TRIGGER erc8004_agents_truncate BEFORE TRUNCATE ON erc8004_agents
	FOR EACH STATEMENT EXECUTE FUNCTION areg_refuse_change('DELETE keeps the statistics right');
