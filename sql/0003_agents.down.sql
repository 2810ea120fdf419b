-- SPDX-License-Identifier: Apache-2.0
-- Undoes 0003. Destroys all agents, and the record of who they belonged to.

DROP FUNCTION areg_rebuild_storage();
DROP VIEW v_user_storage;
DROP FUNCTION areg_metadata_bytes(text, bytea);
DROP TABLE erc8004_agent_metadata;
DROP FUNCTION areg_metadata_key_digest(text);
DROP FUNCTION areg_track_addresses(uuid[]);
DROP FUNCTION areg_registered_by(uuid);
DROP TABLE erc8004_agent_addresses;
DROP TABLE erc8004_agents;
DROP FUNCTION areg_words_to_find(text);
DROP FUNCTION areg_words_to_store(text);
DROP FUNCTION areg_unspaced_characters();
DROP FUNCTION areg_agents_owner_suspended();
DROP FUNCTION areg_hold_off_suspensions();
DROP TABLE erc8004_suspended_owners;
DROP TABLE erc8004_agent_counts;
DROP TABLE erc8004_agent_counters;
DROP TABLE user_storage;
DROP FUNCTION areg_refund_agent();
DROP FUNCTION areg_agents_deleted();
DROP FUNCTION areg_agents_updated();
DROP FUNCTION areg_agents_inserted();
DROP FUNCTION areg_take_agent_id(text, text);
