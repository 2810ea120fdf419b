-- SPDX-License-Identifier: Apache-2.0
-- Undoes 0005. The statistics can be counted again from what stays; only the greatest feedback
-- indexes of deleted feedback are lost.

DROP FUNCTION areg_rebuild_stats();
DROP TRIGGER x402_payments_stats_updated ON x402_payments;
DROP TRIGGER erc8004_agent_payments_stats_deleted ON erc8004_agent_payments;
DROP TRIGGER erc8004_agent_payments_stats_inserted ON erc8004_agent_payments;
DROP TRIGGER erc8004_reputation_stats_deleted ON erc8004_reputation;
DROP TRIGGER erc8004_reputation_stats_updated ON erc8004_reputation;
DROP TRIGGER erc8004_agent_addresses_fixed ON erc8004_agent_addresses;
DROP TRIGGER erc8004_agent_addresses_stats_deleted ON erc8004_agent_addresses;
DROP TRIGGER erc8004_agent_addresses_stats_inserted ON erc8004_agent_addresses;
DROP TRIGGER erc8004_agents_stats_deleted ON erc8004_agents;
DROP TRIGGER erc8004_agents_stats_deleting ON erc8004_agents;
DROP TRIGGER erc8004_agents_stats_updated ON erc8004_agents;
DROP TRIGGER erc8004_agents_stats_inserted ON erc8004_agents;
DROP TRIGGER erc8004_agent_addresses_payers_inserted ON erc8004_agent_addresses;
DROP FUNCTION areg_payers_addresses_inserted();
DROP FUNCTION areg_stats_payments_updated();
DROP FUNCTION areg_stats_payments_linked();
DROP FUNCTION areg_count_payers(uuid[], text[], uuid[], bigint[], bigint[]);
DROP FUNCTION areg_payer_rate(numeric, numeric);
DROP FUNCTION areg_stats_addresses_changed();
DROP FUNCTION areg_stats_feedback_changed();
DROP FUNCTION areg_stats_agent_deleted();
DROP FUNCTION areg_stats_agent_deleting();
DROP FUNCTION areg_stats_agents_updated();
DROP FUNCTION areg_stats_agents_inserted();
DROP TABLE erc8004_agent_stats;
DROP FUNCTION areg_average_with_own(numeric, bigint, numeric[]);
DROP FUNCTION areg_take_own(numeric, bigint, numeric[]);
DROP FUNCTION areg_own_opinions(uuid);
DROP FUNCTION areg_derive_stats();
DROP TABLE erc8004_agent_client_tags;
DROP TABLE erc8004_agent_payers;
DROP TABLE erc8004_agent_tags;
DROP TABLE erc8004_agent_clients;
DROP FUNCTION areg_opinion(numeric, bigint);
DROP FUNCTION areg_payments_opinion(bigint, numeric);
DROP FUNCTION areg_average(numeric, bigint);
