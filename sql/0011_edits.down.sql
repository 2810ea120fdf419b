-- SPDX-License-Identifier: Apache-2.0
-- Undoes 0011. Nothing is lost.

DROP FUNCTION areg_reactivate_owner(text, text, text);
DROP FUNCTION areg_suspend_owner(text, text, text);
DROP FUNCTION areg_feedback_summary(uuid, text[], text, text);
DROP FUNCTION areg_edit_agent(uuid, text, text, text, text, text, text, text, json, boolean, boolean,
	text[], text[], text[], text[], text[], text[], uuid, bigint);
DROP FUNCTION areg_charge_edit(uuid, text, text[], text[], uuid, bigint);
DROP FUNCTION areg_audited_response(erc8004_validations);
DROP FUNCTION areg_audited_text(text);
DROP FUNCTION areg_audited(jsonb);
DROP FUNCTION areg_audited_value(bytea);
DROP FUNCTION areg_audited_agent(erc8004_agents);
