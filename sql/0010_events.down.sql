-- SPDX-License-Identifier: Apache-2.0
-- Undoes 0010. Destroys the record of what changed.

DROP TRIGGER erc8004_validations_events_updated ON erc8004_validations;
DROP TRIGGER erc8004_validations_events_inserted ON erc8004_validations;
DROP TRIGGER erc8004_agent_payments_events_deleted ON erc8004_agent_payments;
DROP TRIGGER erc8004_agent_payments_events_inserted ON erc8004_agent_payments;
DROP TRIGGER x402_payments_events_updated ON x402_payments;
DROP TRIGGER x402_payments_events_inserted ON x402_payments;
DROP TRIGGER erc8004_feedback_responses_events ON erc8004_feedback_responses;
DROP TRIGGER erc8004_reputation_events_deleted ON erc8004_reputation;
DROP TRIGGER erc8004_reputation_events_updated ON erc8004_reputation;
DROP TRIGGER erc8004_agent_metadata_events_deleted ON erc8004_agent_metadata;
DROP TRIGGER erc8004_agent_metadata_events_updated ON erc8004_agent_metadata;
DROP TRIGGER erc8004_agent_metadata_events_inserted ON erc8004_agent_metadata;
DROP TRIGGER erc8004_agents_events_deleted ON erc8004_agents;
DROP TRIGGER erc8004_agents_events_updated ON erc8004_agents;
DROP TRIGGER erc8004_agents_events_inserted ON erc8004_agents;
DROP FUNCTION areg_validations_changed();
DROP FUNCTION areg_links_changed();
DROP FUNCTION areg_payments_changed();
DROP FUNCTION areg_payment_name(text, text, bigint);
DROP FUNCTION areg_feedback_responses_changed();
DROP FUNCTION areg_feedback_changed();
DROP FUNCTION areg_metadata_changed();
DROP FUNCTION areg_agents_changed();
DROP FUNCTION areg_prune_events(integer);
DROP TABLE erc8004_events_pruned;
DROP FUNCTION areg_resume_events();
DROP FUNCTION areg_event_place();
DROP TABLE erc8004_events;
DROP DOMAIN event_type;
DROP FUNCTION areg_event_horizon();
DROP TABLE erc8004_event_base;
