-- SPDX-License-Identifier: Apache-2.0
-- Undoes 0009. Destroys the seals and hashes of the audit log; its entries stay.

DROP FUNCTION areg_seal_audit();
DROP FUNCTION areg_audit_head();
DROP FUNCTION areg_seal_hash(bytea, bigint, timestamptz, uuid, bigint, bytea);
DROP TABLE audit_sealing;
DROP TABLE audit_seals;
DROP TRIGGER audit_log_chain ON audit_log;
DROP FUNCTION areg_chain_audit();
DROP FUNCTION areg_audit_lane_head();
DROP FUNCTION areg_audit_hash(bytea, uuid, bigint, bigint, timestamptz, uuid, text, text, text, text,
	jsonb, jsonb, text, inet);
ALTER TABLE audit_log DROP COLUMN lane, DROP COLUMN lane_seq, DROP COLUMN hash;
DROP SEQUENCE audit_log_ids;
ALTER TABLE audit_log ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY;
DO $$ BEGIN
	PERFORM setval(pg_get_serial_sequence('audit_log', 'id'), max(id))
	FROM audit_log HAVING max(id) IS NOT NULL;
END $$;
