-- Undoes 0012. Nothing is lost.

DROP INDEX erc8004_validations_summary;
DROP FUNCTION areg_link_payment(uuid, text, text, text, boolean, boolean);
DROP FUNCTION areg_record_payment(text, text, numeric, text, text, text, text, text, boolean);
DROP FUNCTION areg_give_payment_feedback(uuid, x402_payments);
