-- SPDX-License-Identifier: Apache-2.0
-- Undoes 0004. Destroys feedback, responses, validations and payments.

DROP TABLE erc8004_agent_payments;
DROP TABLE x402_payments;
DROP TABLE erc8004_validations;
DROP TABLE erc8004_feedback_responses;
DROP TABLE erc8004_reputation;
DROP FUNCTION areg_derive_feedback();
DROP FUNCTION areg_feedback_score(numeric, boolean, text);
DROP FUNCTION areg_normalized(numeric, integer);
