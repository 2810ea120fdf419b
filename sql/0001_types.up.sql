-- SPDX-License-Identifier: Apache-2.0
-- Types of the field and the functions that format or derive values of them.
-- Safe under load: creates only.

CREATE EXTENSION IF NOT EXISTS pg_trgm;

-- Without regular expressions: for an address one takes ten times as long.
CREATE DOMAIN eth_address AS text COLLATE "C"
	CHECK (octet_length(VALUE) = 42 AND rtrim(VALUE, '0123456789abcdef') = '0x');
COMMENT ON DOMAIN eth_address IS 'Address of an account or contract, lower case';

CREATE DOMAIN eth_hash AS text COLLATE "C"
	CHECK (octet_length(VALUE) = 66 AND rtrim(VALUE, '0123456789abcdef') = '0x');
COMMENT ON DOMAIN eth_hash IS '32 bytes: a transaction, a keccak-256 digest';

CREATE DOMAIN uint256 AS numeric CHECK (VALUE >= 0 AND VALUE < 2::numeric ^ 256 AND scale(VALUE) = 0);
COMMENT ON DOMAIN uint256 IS 'Integer of the EVM; written without fraction digits, so that its text is an integer';

CREATE DOMAIN chain_name AS text COLLATE "C" CHECK (VALUE ~ '^[a-z0-9][a-z0-9_-]{0,62}$');
COMMENT ON DOMAIN chain_name IS 'Name of a chain as configured: base-sepolia';

CREATE DOMAIN scope_list AS text[] CHECK (
	array_to_string(VALUE, ' ', '?') ~ '^([a-z_]+:[a-z_]+( [a-z_]+:[a-z_]+)*)?$'
	AND cardinality(VALUE) = cardinality(string_to_array(array_to_string(VALUE, ' '), ' '))
	AND octet_length(array_to_string(VALUE, ' ')) < 256);
COMMENT ON DOMAIN scope_list IS 'What a user or key may do: payments:write';

-- What columns of feedback may hold. As domains, because PostgreSQL reads a CHECK of a table out of its
-- catalog anew for every statement, and that of a domain once per session: every feedback paid a
-- fifth of its price for them.
CREATE DOMAIN feedback_index AS bigint CONSTRAINT feedback_index_range CHECK (VALUE >= 1);
COMMENT ON DOMAIN feedback_index IS 'Counts from 1 per agent and client, as in the contract';

CREATE DOMAIN feedback_value AS numeric
	CONSTRAINT feedback_value_range CHECK (abs(VALUE) <= 1e38 AND scale(VALUE) = 0);
COMMENT ON DOMAIN feedback_value IS 'As the contract takes it, an integer';

CREATE DOMAIN feedback_decimals AS smallint
	CONSTRAINT feedback_decimals_range CHECK (VALUE BETWEEN 0 AND 18);
COMMENT ON DOMAIN feedback_decimals IS 'How many digits of a feedback_value are behind the point';

-- A contract takes texts of any size, and an import keeps what is on the chain: only the API has limits.
CREATE DOMAIN feedback_tag AS text COLLATE "C";
COMMENT ON DOMAIN feedback_tag IS 'As it was given, of any size; indexes hold its areg_tag_key()';

CREATE DOMAIN feedback_source AS text
	CONSTRAINT feedback_source_known CHECK (VALUE IN ('api', 'import', 'chain'));

CREATE DOMAIN block_number AS bigint CONSTRAINT block_number_range CHECK (VALUE >= 0);

CREATE DOMAIN record_count AS bigint CONSTRAINT record_count_range CHECK (VALUE >= 0);
COMMENT ON DOMAIN record_count IS 'How many there are';

-- STABLE and not IMMUTABLE, as to_char() is: only then does the planner inline it.
CREATE FUNCTION rfc3339(at timestamptz) RETURNS text
LANGUAGE sql STABLE STRICT PARALLEL SAFE
RETURN to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');
COMMENT ON FUNCTION rfc3339(timestamptz) IS 'RFC 3339 text in UTC with microseconds';

-- An entry of a b-tree has at most 2,704 bytes. A tag that the API takes is its own key.
-- In two functions, because the planner puts only the second one in the place of its call.
CREATE FUNCTION areg_long_tag_key(tag text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN left(tag, 100) || '...sha256:' || encode(sha256(convert_to(tag, 'UTF8')), 'hex');
CREATE FUNCTION areg_tag_key(tag text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN octet_length(tag) <= 1024 THEN tag ELSE areg_long_tag_key(tag) END;
COMMENT ON FUNCTION areg_tag_key(text) IS
	'The tag itself, or for more than 1,024 bytes its first 100 characters and its SHA-256';

CREATE FUNCTION areg_today() RETURNS date
LANGUAGE sql STABLE PARALLEL SAFE
RETURN (now() AT TIME ZONE 'UTC')::date;
COMMENT ON FUNCTION areg_today() IS 'The day in UTC when the transaction began';

CREATE FUNCTION areg_system_address() RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN '0x0000000000000000000000000000000000000001';
COMMENT ON FUNCTION areg_system_address() IS
	'Gives the automatic feedback for settled payments; a precompiled contract, so nobody has its key';

CREATE FUNCTION areg_trust_level(score numeric, success_rate numeric, payments bigint, feedback bigint)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
	WHEN payments = 0 AND feedback = 0 THEN 'new'
	WHEN success_rate >= 95 AND score >= 80 AND payments >= 10 THEN 'excellent'
	WHEN success_rate >= 85 AND score >= 70 AND payments >= 5 THEN 'good'
	WHEN success_rate >= 75 AND score >= 60 THEN 'fair'
	ELSE 'poor' END;

CREATE FUNCTION areg_trust_score(score numeric, success_rate numeric) RETURNS numeric
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN trim_scale(round(0.6 * score + 0.4 * success_rate, 2));

-- For columns that only an INSERT may write; the trigger names the columns.
CREATE FUNCTION areg_refuse_change() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION '% of % is refused: %', lower(TG_OP), TG_TABLE_NAME, TG_ARGV[0]
		USING ERRCODE = 'object_not_in_prerequisite_state';
END $$;

CREATE FUNCTION areg_touch() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
	NEW.updated_at := now();
	RETURN NEW;
END $$;
