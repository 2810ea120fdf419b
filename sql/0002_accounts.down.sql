-- SPDX-License-Identifier: Apache-2.0
-- Undoes 0002. Destroys users, keys and the audit log.

DROP TABLE audit_log;
DROP TABLE api_keys;
DROP TABLE users;
