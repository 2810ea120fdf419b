-- Undoes 0006. Nothing is lost.

DROP FUNCTION areg_give_feedback(uuid, text, text, text, integer, text, text, text, text, text,
	boolean);
DROP FUNCTION areg_shown_score(numeric);
DROP VIEW v_erc8004_agent_stats;
DROP VIEW v_erc8004_agent_reputation;
