-- SPDX-License-Identifier: Apache-2.0
-- Users, their API keys, and the audit log.
-- Safe under load: creates only.

CREATE TABLE users (
	id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
	name text CONSTRAINT users_name_length CHECK (char_length(name) BETWEEN 1 AND 200),
	wallet_address eth_address CONSTRAINT users_wallet_address_key UNIQUE,
	tier text NOT NULL DEFAULT 'free'
		CONSTRAINT users_tier_known CHECK (tier IN ('free', 'pro', 'enterprise')),
	-- A key has them all and keys:write, in 255 bytes (scope_list).
	scopes scope_list NOT NULL DEFAULT '{}' CONSTRAINT users_scopes_leave_room_for_keys_write
		CHECK (octet_length(array_to_string(scopes::text[], ' ')) <= 244),
	is_active boolean NOT NULL DEFAULT true,
	created_at timestamptz NOT NULL DEFAULT now(),
	updated_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE users IS 'Who may call with an API key';
COMMENT ON COLUMN users.scopes IS 'The most that a key of this user may have, beside keys:write';
CREATE TRIGGER users_touch BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION areg_touch();

CREATE TABLE api_keys (
	id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
	user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
	name text CONSTRAINT api_keys_name_length CHECK (char_length(name) BETWEEN 1 AND 200),
	key_hash bytea NOT NULL CONSTRAINT api_keys_key_hash_key UNIQUE
		CONSTRAINT api_keys_key_hash_length CHECK (octet_length(key_hash) = 32),
	key_prefix text NOT NULL
		CONSTRAINT api_keys_key_prefix_length CHECK (char_length(key_prefix) BETWEEN 1 AND 32),
	scopes scope_list NOT NULL DEFAULT '{}',
	is_active boolean NOT NULL DEFAULT true,
	expires_at timestamptz,
	last_used_at timestamptz,
	created_at timestamptz NOT NULL DEFAULT now(),
	revoked_at timestamptz,
	made_by_sign_in boolean NOT NULL DEFAULT false,
	CONSTRAINT api_keys_revoked_has_time CHECK (is_active = (revoked_at IS NULL))
);
COMMENT ON TABLE api_keys IS 'API keys; the key itself is nowhere, only its digest';
COMMENT ON COLUMN api_keys.key_hash IS 'SHA-256 of the key';
COMMENT ON COLUMN api_keys.key_prefix IS 'What a person recognises the key by; not secret';
COMMENT ON COLUMN api_keys.made_by_sign_in IS
	'Later sign-ins may retire it to make room; a key that was made otherwise stays, whatever its name';
CREATE INDEX api_keys_user ON api_keys (user_id, created_at);

CREATE TABLE audit_log (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	at timestamptz NOT NULL DEFAULT now(),
	actor_user uuid,
	actor text NOT NULL,
	action text NOT NULL,
	subject_type text NOT NULL,
	subject_id text NOT NULL,
	before jsonb,
	after jsonb,
	request_id text,
	client_address inet
);
COMMENT ON TABLE audit_log IS 'Who changed what, written in the same transaction; append-only';
COMMENT ON COLUMN audit_log.actor_user IS 'The user, without a foreign key: the log outlives users';
COMMENT ON COLUMN audit_log.actor IS 'Key prefix, or the program: aregctl, import';
CREATE INDEX audit_log_subject ON audit_log (subject_type, subject_id, id);
CREATE INDEX audit_log_at ON audit_log (at);

CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
	FOR EACH STATEMENT EXECUTE FUNCTION areg_refuse_change('the log is append-only');
