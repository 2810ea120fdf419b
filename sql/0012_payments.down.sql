-- SPDX-License-Identifier: Apache-2.0
-- Undoes 0012. Nothing is lost.

DROP INDEX erc8004_validations_summary;
DROP FUNCTION areg_unlink_payment(uuid, bigint, text, text, uuid);
DROP FUNCTION areg_link_payment(uuid, bigint, text, text, text, uuid, boolean);
DROP FUNCTION areg_recorder_is_trusted(x402_payments);
DROP FUNCTION areg_is_payee_of_another(uuid, x402_payments);
DROP FUNCTION areg_was_payee(uuid, x402_payments);
DROP FUNCTION areg_record_payment(text, text, numeric, text, text, text, bigint, text, text, text, uuid,
	numeric, boolean);
DROP FUNCTION areg_same_payment(text, text, text, text, text, bigint);
DROP FUNCTION areg_give_payment_feedback(uuid, x402_payments);
