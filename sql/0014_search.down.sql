-- Undoes 0014. Nothing is lost.

DROP INDEX erc8004_agent_stats_success;
DROP INDEX erc8004_agent_stats_trust;
DROP INDEX erc8004_agent_stats_direct;
DROP INDEX erc8004_agents_wallet;
DROP INDEX erc8004_agents_lists;
