-- SPDX-License-Identifier: Apache-2.0
-- Undoes 0006. Nothing is lost.

DROP FUNCTION areg_shown_score(numeric);
DROP VIEW v_erc8004_agent_stats;
DROP VIEW v_erc8004_agent_reputation;
