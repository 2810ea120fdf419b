-- SPDX-License-Identifier: Apache-2.0
-- Undoes 0014. What it counted can be counted again.

DROP INDEX erc8004_validations_answered;
DROP INDEX erc8004_agent_stats_leaders_amount;
DROP INDEX erc8004_agent_stats_leaders_feedback;
DROP INDEX erc8004_agent_stats_leaders_score;
DROP FUNCTION areg_rebuild_stats();
DROP FUNCTION areg_rebuild_totals();
ALTER FUNCTION areg_rebuild_agent_stats() RENAME TO areg_rebuild_stats;
COMMENT ON FUNCTION areg_rebuild_stats() IS
	'Recounts every derived table from the records, and has erc8004_agent_addresses say who owns each agent now; writers wait meanwhile. For repair and after a load with triggers off';
DROP FUNCTION areg_fold_totals();
DROP TRIGGER erc8004_validations_truncate ON erc8004_validations;
DROP TRIGGER erc8004_validations_total_deleted ON erc8004_validations;
DROP TRIGGER erc8004_validations_total_after ON erc8004_validations;
DROP TRIGGER erc8004_validations_total_before ON erc8004_validations;
DROP TRIGGER erc8004_validations_total_inserted ON erc8004_validations;
DROP FUNCTION areg_total_validations();
DROP TRIGGER x402_payments_total_deleted ON x402_payments;
DROP TRIGGER x402_payments_total_after ON x402_payments;
DROP TRIGGER x402_payments_total_before ON x402_payments;
DROP TRIGGER x402_payments_total_inserted ON x402_payments;
DROP FUNCTION areg_total_payments();
DROP TRIGGER erc8004_reputation_total_deleted ON erc8004_reputation;
DROP TRIGGER erc8004_reputation_total_after ON erc8004_reputation;
DROP TRIGGER erc8004_reputation_total_before ON erc8004_reputation;
DROP FUNCTION areg_total_feedback();
DROP VIEW v_erc8004_totals;
DROP TABLE erc8004_total_changes;
