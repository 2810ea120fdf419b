-- SPDX-License-Identifier: Apache-2.0
-- Undoes 0008. Destroys stored answers to POSTs with an Idempotency-Key, and open sign-ins.

DROP TRIGGER api_keys_notify_delete ON api_keys;
DROP TRIGGER api_keys_notify_insert ON api_keys;
DROP FUNCTION areg_notify_new_key();
DROP TRIGGER api_keys_notify_update ON api_keys;
DROP TRIGGER users_notify_delete ON users;
DROP TRIGGER users_notify_update ON users;
DROP FUNCTION areg_notify_callers();
DROP FUNCTION areg_active_keys(uuid);
DROP FUNCTION areg_client_address(text);
DROP FUNCTION areg_common_scopes(scope_list, scope_list);
DROP FUNCTION areg_scopes_for_keys(scope_list);
DROP TABLE auth_nonces;
DROP TABLE idempotency_keys;
