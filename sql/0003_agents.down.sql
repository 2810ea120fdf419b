-- Undoes 0003. Destroys all agents.

DROP TABLE erc8004_agent_metadata;
DROP TABLE erc8004_agents;
DROP TABLE erc8004_agent_counts;
DROP TABLE erc8004_agent_counters;
DROP FUNCTION areg_agents_deleted();
DROP FUNCTION areg_agents_updated();
DROP FUNCTION areg_agents_inserted();
DROP FUNCTION areg_take_agent_id(text, text);
