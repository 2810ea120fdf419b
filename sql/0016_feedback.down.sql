-- Undoes 0016. Nothing is lost; feedback that is given from now on is in no statistics.

DROP TRIGGER erc8004_reputation_inserted ON erc8004_reputation;
DROP FUNCTION areg_feedback_inserted();
