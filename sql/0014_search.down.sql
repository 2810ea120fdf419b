-- Undoes 0014. Nothing is lost.

DROP FUNCTION areg_rebuild_words();
DROP TRIGGER erc8004_agents_words_deleted ON erc8004_agents;
DROP TRIGGER erc8004_agents_words_updated ON erc8004_agents;
DROP TRIGGER erc8004_agents_words_inserted ON erc8004_agents;
DROP FUNCTION areg_agent_words_changed();
DROP FUNCTION areg_words(tsvector);
DROP TABLE erc8004_agent_words;
DROP INDEX erc8004_agent_stats_success;
DROP INDEX erc8004_agent_stats_trust;
DROP INDEX erc8004_agent_stats_direct;
DROP INDEX erc8004_agents_wallet;
DROP INDEX erc8004_agents_lists;
