-- SPDX-License-Identifier: Apache-2.0
-- Undoes 0013. Nothing is lost.

DROP FUNCTION areg_rebuild_lists();
DROP TRIGGER erc8004_agents_unlisted ON erc8004_agents;
DROP TRIGGER erc8004_agents_relisted ON erc8004_agents;
DROP TRIGGER erc8004_agents_listed ON erc8004_agents;
DROP FUNCTION areg_agents_unlisted();
DROP FUNCTION areg_agents_relisted();
DROP FUNCTION areg_agents_listed();
DROP FUNCTION areg_words(tsvector);
DROP FUNCTION areg_facets(text[]);
DROP TABLE erc8004_agent_services;
DROP TABLE erc8004_agent_words;
DROP INDEX erc8004_agent_stats_success;
DROP INDEX erc8004_agent_stats_trust;
DROP INDEX erc8004_agent_stats_direct;
DROP INDEX erc8004_agents_wallet;
DROP INDEX erc8004_agents_lists;
