-- SPDX-License-Identifier: Apache-2.0
-- What callers need: retries that are safe, sign-in by wallet, and news of changes to users and keys.
-- Safe under load: creates only; the triggers take a short lock on users and api_keys.

CREATE TABLE idempotency_keys (
	user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
	key text COLLATE "C" NOT NULL
		CONSTRAINT idempotency_keys_key_visible CHECK (key ~ '^[\x21-\x7e]{1,255}$'),
	route text NOT NULL,
	body_digest bytea NOT NULL
		CONSTRAINT idempotency_keys_body_digest_length CHECK (octet_length(body_digest) = 32),
	status smallint CONSTRAINT idempotency_keys_status_range CHECK (status BETWEEN 100 AND 599),
	content_type text,
	location text,
	body text,
	changed text,
	created_at timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (user_id, key),
	CONSTRAINT idempotency_keys_answer_has_status CHECK
		(status IS NOT NULL OR num_nonnulls(content_type, location, body, changed) = 0)
);
COMMENT ON TABLE idempotency_keys IS 'First answers to POSTs with an Idempotency-Key, kept for a day';
COMMENT ON COLUMN idempotency_keys.body_digest IS 'SHA-256 of the request body';
COMMENT ON COLUMN idempotency_keys.changed IS
	'What the cache has to forget: agent_uuids between blanks, registry, or all';
COMMENT ON COLUMN idempotency_keys.status IS 'HTTP status of the answer; null until there is one';
CREATE INDEX idempotency_keys_created ON idempotency_keys (created_at);

CREATE TABLE auth_nonces (
	nonce text COLLATE "C" PRIMARY KEY
		CONSTRAINT auth_nonces_nonce_alphanumeric CHECK (nonce ~ '^[A-Za-z0-9]{8,128}$'),
	address eth_address NOT NULL,
	chain_id bigint NOT NULL CONSTRAINT auth_nonces_chain_id_range CHECK (chain_id >= 1),
	message text NOT NULL
		CONSTRAINT auth_nonces_message_size CHECK (octet_length(message) <= 4096),
	expires_at timestamptz NOT NULL,
	used_at timestamptz,
	created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE auth_nonces IS 'Sign-in challenges (EIP-4361); each works once';
COMMENT ON COLUMN auth_nonces.message IS 'The text to be signed, byte for byte';
CREATE INDEX auth_nonces_expires ON auth_nonces (expires_at);

-- Every user may have keys that make and revoke keys; which of them may, is said key by key.
CREATE FUNCTION areg_scopes_for_keys(of_user scope_list) RETURNS text[]
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN ARRAY(SELECT scope FROM unnest(of_user::text[] || '{keys:write}') AS scope
	GROUP BY scope ORDER BY scope);
COMMENT ON FUNCTION areg_scopes_for_keys(scope_list) IS
	'The most that a key of a user with these scopes may have';

CREATE FUNCTION areg_common_scopes(of_key scope_list, of_user scope_list) RETURNS text[]
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN ARRAY(SELECT scope FROM unnest(of_key::text[]) AS scope
	WHERE scope = ANY (areg_scopes_for_keys(of_user)) ORDER BY scope);
COMMENT ON FUNCTION areg_common_scopes(scope_list, scope_list) IS
	'What a key may do: its scopes that its user may give to keys';

-- nginx says "unix:" of a client behind a local socket. Null of null; but STRICT would keep the planner
-- from putting it in its caller's place, and every write pays for it.
CREATE FUNCTION areg_client_address(remote_addr text) RETURNS inet
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN remote_addr ~ '^[0-9A-Fa-f.:]+$' THEN remote_addr::inet END;
COMMENT ON FUNCTION areg_client_address(text) IS 'Address of a client; null when it has none';

-- VOLATILE on purpose: it sees what was committed while the calling statement waited for a lock.
CREATE FUNCTION areg_active_keys(of_user uuid) RETURNS bigint
LANGUAGE plpgsql VOLATILE STRICT AS $$
BEGIN
	RETURN (SELECT count(*) FROM api_keys WHERE user_id = of_user AND is_active);
END $$;
COMMENT ON FUNCTION areg_active_keys(uuid) IS
	'Keys of a user that are not revoked; exact while the caller holds a lock on the user';

CREATE FUNCTION areg_notify_callers() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_notify('areg_callers', 'user:' || (to_jsonb(OLD) ->> TG_ARGV[0]));
	RETURN NULL;
END $$;
COMMENT ON FUNCTION areg_notify_callers() IS 'Tells every host to drop what it remembers of a user';

-- Columns that a remembered caller holds; writing last_used_at tells nobody.
CREATE TRIGGER users_notify_update AFTER UPDATE ON users FOR EACH ROW
	WHEN ((OLD.wallet_address, OLD.tier, OLD.scopes, OLD.is_active)
		IS DISTINCT FROM (NEW.wallet_address, NEW.tier, NEW.scopes, NEW.is_active))
	EXECUTE FUNCTION areg_notify_callers('id');
CREATE TRIGGER users_notify_delete AFTER DELETE ON users FOR EACH ROW
	EXECUTE FUNCTION areg_notify_callers('id');
CREATE TRIGGER api_keys_notify_update AFTER UPDATE ON api_keys FOR EACH ROW
	WHEN ((OLD.user_id, OLD.key_hash, OLD.key_prefix, OLD.scopes, OLD.is_active, OLD.expires_at)
		IS DISTINCT FROM
		(NEW.user_id, NEW.key_hash, NEW.key_prefix, NEW.scopes, NEW.is_active, NEW.expires_at))
	EXECUTE FUNCTION areg_notify_callers('user_id');
-- Eight bytes of the hash tell every host that the key exists; see app/cache/key_filter.h.
CREATE FUNCTION areg_notify_new_key() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_notify('areg_callers', 'key:' || encode(substr(NEW.key_hash, 1, 8), 'hex'));
	RETURN NULL;
END $$;
COMMENT ON FUNCTION areg_notify_new_key() IS 'Tells every host that there is another key';
CREATE TRIGGER api_keys_notify_insert AFTER INSERT ON api_keys FOR EACH ROW
	EXECUTE FUNCTION areg_notify_new_key();
CREATE TRIGGER api_keys_notify_delete AFTER DELETE ON api_keys FOR EACH ROW
	EXECUTE FUNCTION areg_notify_callers('user_id');
