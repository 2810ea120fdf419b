-- SPDX-License-Identifier: Apache-2.0
-- Indexes that searches walk in order, or that leave few agents to sort. Each costs every
-- registration, those on erc8004_agent_stats every feedback too: so all lists and flags of an agent
-- share one.
-- Under load: blocks writers of agents and feedback while the indexes are built.

-- GIN finds any set of words in any of its columns in one pass. Without a list of pending entries
-- (fastupdate), which every search would have to read through.
CREATE INDEX erc8004_agents_lists ON erc8004_agents
	USING gin (services, skills, domains, supported_trust, flags) WITH (fastupdate = off);
CREATE INDEX erc8004_agents_wallet ON erc8004_agents (agent_wallet, created_at, agent_uuid)
	WHERE agent_wallet IS NOT NULL;

CREATE INDEX erc8004_agent_stats_direct ON erc8004_agent_stats (status, direct_sort, agent_uuid);
CREATE INDEX erc8004_agent_stats_trust
	ON erc8004_agent_stats (status, trust_level, registered_at, agent_uuid);
CREATE INDEX erc8004_agent_stats_success ON erc8004_agent_stats (status, payment_success_rate, agent_uuid)
	WHERE payment_success_rate IS NOT NULL;

-- One word is asked for most, or one service, and the more agents have it the dearer it was to look at
-- all of them for the best or the newest: so these are on record, in order, and a page of them costs
-- what a page costs. Only of active agents; what asks for more goes by the indexes of erc8004_agents.
-- No foreign key: it would cost a registration a look for every word.
CREATE TABLE erc8004_agent_words (
	word text COLLATE "C" NOT NULL,
	relevance real NOT NULL,
	agent_uuid uuid NOT NULL,
	PRIMARY KEY (word, relevance, agent_uuid)
);
COMMENT ON TABLE erc8004_agent_words IS
	'Words in name and description of active agents; kept by triggers on erc8004_agents';
COMMENT ON COLUMN erc8004_agent_words.relevance IS 'areg_words_relevance() of the word alone';
-- Rarely asked for, a word still wants an estimate that is not that of a common one.
ALTER TABLE erc8004_agent_words ALTER COLUMN word SET STATISTICS 1000;

CREATE TABLE erc8004_agent_services (
	service text COLLATE "C" NOT NULL,
	registered_at timestamptz NOT NULL,
	agent_uuid uuid NOT NULL,
	facets integer NOT NULL,
	PRIMARY KEY (service, registered_at, agent_uuid) INCLUDE (facets)
);
COMMENT ON TABLE erc8004_agent_services IS
	'Services of active agents; kept by triggers on erc8004_agents';
COMMENT ON COLUMN erc8004_agent_services.facets IS 'areg_facets() of the flags of the agent';

-- app/api/agents_search.c asks for the bits.
CREATE FUNCTION areg_facets(flags text[]) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (flags @> '{x402}')::integer + 2 * (flags @> '{file}')::integer
	+ 4 * (flags @> '{active}')::integer + 8 * (flags @> '{inactive}')::integer;
COMMENT ON FUNCTION areg_facets(text[]) IS 'Flags as bits: 1 x402, 2 file, 4 active, 8 inactive';

CREATE FUNCTION areg_words(search tsvector) RETURNS TABLE (word text, relevance real)
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
	SELECT lexeme, areg_words_relevance(search, (''''
		|| replace(replace(lexeme, E'\\', E'\\\\'), '''', '''''') || '''')::tsquery)
	FROM unnest(search) WHERE lexeme < U&'\0080' COLLATE "C";
END;
COMMENT ON FUNCTION areg_words(tsvector) IS
	'Every word that begins in ASCII, with its relevance: app/api/agents_search.c asks the list for no others';

CREATE FUNCTION areg_agents_listed() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO erc8004_agent_words
	SELECT l.word, l.relevance, n.agent_uuid FROM new_rows n, areg_words(n.search) AS l
	WHERE n.status = 'active';
	INSERT INTO erc8004_agent_services
	SELECT DISTINCT service, n.created_at, n.agent_uuid, areg_facets(n.flags)
	FROM new_rows n, unnest(n.services) AS service WHERE n.status = 'active';
	RETURN NULL;
END $$;
CREATE TRIGGER erc8004_agents_listed AFTER INSERT ON erc8004_agents
	REFERENCING NEW TABLE AS new_rows
	FOR EACH STATEMENT EXECUTE FUNCTION areg_agents_listed();

CREATE FUNCTION areg_agents_relisted() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
	DELETE FROM erc8004_agent_words w
	USING old_rows o JOIN new_rows n USING (agent_uuid), areg_words(o.search) AS l
	WHERE o.status = 'active' AND (n.status <> 'active' OR n.search <> o.search)
		AND (w.word, w.relevance, w.agent_uuid) = (l.word, l.relevance, o.agent_uuid);
	INSERT INTO erc8004_agent_words
	SELECT l.word, l.relevance, n.agent_uuid
	FROM new_rows n JOIN old_rows o USING (agent_uuid), areg_words(n.search) AS l
	WHERE n.status = 'active' AND (o.status <> 'active' OR n.search <> o.search);

	DELETE FROM erc8004_agent_services s
	USING old_rows o JOIN new_rows n USING (agent_uuid), unnest(o.services) AS old_service
	WHERE o.status = 'active'
		AND (n.status <> 'active' OR (n.services, n.flags) <> (o.services, o.flags))
		AND (s.service, s.registered_at, s.agent_uuid) = (old_service, o.created_at, o.agent_uuid);
	INSERT INTO erc8004_agent_services
	SELECT DISTINCT service, n.created_at, n.agent_uuid, areg_facets(n.flags)
	FROM new_rows n JOIN old_rows o USING (agent_uuid), unnest(n.services) AS service
	WHERE n.status = 'active'
		AND (o.status <> 'active' OR (n.services, n.flags) <> (o.services, o.flags));
	RETURN NULL;
END $$;
CREATE TRIGGER erc8004_agents_relisted AFTER UPDATE ON erc8004_agents
	REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
	FOR EACH STATEMENT EXECUTE FUNCTION areg_agents_relisted();

CREATE FUNCTION areg_agents_unlisted() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
	DELETE FROM erc8004_agent_words w USING old_rows o, areg_words(o.search) AS l
	WHERE o.status = 'active'
		AND (w.word, w.relevance, w.agent_uuid) = (l.word, l.relevance, o.agent_uuid);
	DELETE FROM erc8004_agent_services s USING old_rows o, unnest(o.services) AS old_service
	WHERE o.status = 'active'
		AND (s.service, s.registered_at, s.agent_uuid) = (old_service, o.created_at, o.agent_uuid);
	RETURN NULL;
END $$;
CREATE TRIGGER erc8004_agents_unlisted AFTER DELETE ON erc8004_agents
	REFERENCING OLD TABLE AS old_rows
	FOR EACH STATEMENT EXECUTE FUNCTION areg_agents_unlisted();

CREATE FUNCTION areg_rebuild_lists() RETURNS void
LANGUAGE sql AS $$
	DELETE FROM erc8004_agent_words;
	INSERT INTO erc8004_agent_words
	SELECT l.word, l.relevance, a.agent_uuid FROM erc8004_agents a, areg_words(a.search) AS l
	WHERE a.status = 'active' ORDER BY l.word, l.relevance, a.agent_uuid;
	DELETE FROM erc8004_agent_services;
	INSERT INTO erc8004_agent_services
	SELECT DISTINCT service, a.created_at, a.agent_uuid, areg_facets(a.flags)
	FROM erc8004_agents a, unnest(a.services) AS service WHERE a.status = 'active'
	ORDER BY service, a.created_at, a.agent_uuid;
$$;
COMMENT ON FUNCTION areg_rebuild_lists() IS 'Part of areg_rebuild_stats(), which locks what has to stand still';
LOCK TABLE erc8004_agents IN SHARE ROW EXCLUSIVE MODE;
DO $$ BEGIN PERFORM areg_rebuild_lists(); END $$;
