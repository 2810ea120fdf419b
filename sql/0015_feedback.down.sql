-- SPDX-License-Identifier: Apache-2.0
-- Undoes 0015. Nothing is lost; feedback that is stored from now on is in no statistics.

DROP FUNCTION areg_give_feedback_together(uuid[], text[], text[], text[], integer[], text[], text[],
	text[], text[], text[], uuid[], text[], text[], text[], integer);
DROP TRIGGER erc8004_reputation_inserted ON erc8004_reputation;
DROP FUNCTION areg_feedback_inserted();
DROP FUNCTION areg_give_feedback(uuid, text, text, text, integer, text, text, text, text, text,
	boolean, integer);
