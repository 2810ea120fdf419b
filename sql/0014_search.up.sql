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
