-- SPDX-License-Identifier: Apache-2.0
-- Makes the audit log tamper-evident: entries are chained by SHA-256 in lanes, and the heads of the
-- lanes are sealed in one chain. How the hashes are made, for anybody to do again, is written down
-- in aregctl-audit(8).
-- Entries made before are chained in one lane of their own; writers of the log wait meanwhile.

-- Numbers come from the trigger, not from a default: see areg_chain_audit().
ALTER TABLE audit_log ALTER COLUMN id DROP IDENTITY;
CREATE SEQUENCE audit_log_ids OWNED BY audit_log.id;
DO $$ BEGIN
	PERFORM setval('audit_log_ids', max(id)) FROM audit_log HAVING max(id) IS NOT NULL;
END $$;

ALTER TABLE audit_log ADD COLUMN lane uuid, ADD COLUMN lane_seq bigint, ADD COLUMN hash bytea;
COMMENT ON COLUMN audit_log.lane IS
	'The database session: start of the server (microseconds since 1970) and process id, 16 hex digits each';
COMMENT ON COLUMN audit_log.lane_seq IS 'Counts from 1 in the lane, without gaps';
COMMENT ON COLUMN audit_log.hash IS 'SHA-256 of the hash of the entry before in the lane, and of this entry';

-- The text that is hashed is a JSON array of the columns. In SQL, and with a parameter for each of
-- them, because only then does the planner put it in its caller's place: every write pays for it.
CREATE FUNCTION areg_audit_hash(previous bytea, lane uuid, lane_seq bigint, id bigint, at timestamptz,
	actor_user uuid, actor text, action text, subject_type text, subject_id text, before jsonb,
	after jsonb, request_id text, client_address inet) RETURNS bytea
LANGUAGE sql STABLE PARALLEL SAFE
RETURN sha256(previous || convert_to(json_build_array(lane, lane_seq, id, rfc3339(at), actor_user,
	actor, action, subject_type, subject_id, before, after, request_id, client_address)::text, 'UTF8'));

DO $$
DECLARE
	entry audit_log;
	previous bytea := decode(repeat('00', 32), 'hex');
	number bigint := 0;
BEGIN
	ALTER TABLE audit_log DISABLE TRIGGER audit_log_append_only;
	FOR entry IN SELECT * FROM audit_log ORDER BY id LOOP
		number := number + 1;
		entry.lane := '00000000-0000-0000-0000-000000000000';
		entry.lane_seq := number;
		previous := areg_audit_hash(previous, entry.lane, number, entry.id, entry.at, entry.actor_user,
			entry.actor, entry.action, entry.subject_type, entry.subject_id, entry.before, entry.after,
			entry.request_id, entry.client_address);
		UPDATE audit_log SET lane = entry.lane, lane_seq = number, hash = previous WHERE id = entry.id;
	END LOOP;
	ALTER TABLE audit_log ENABLE TRIGGER audit_log_append_only;
END $$;

ALTER TABLE audit_log ALTER COLUMN lane SET NOT NULL, ALTER COLUMN lane_seq SET NOT NULL,
	ALTER COLUMN hash SET NOT NULL,
	ADD CONSTRAINT audit_log_lane_key UNIQUE (lane, lane_seq);

-- Process id, lane, lane_seq and hash of what this session appended last.
CREATE FUNCTION areg_audit_lane_head() RETURNS text[]
LANGUAGE plpgsql AS $$
DECLARE
	own_lane uuid := (lpad(to_hex((extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint),
		16, '0') || lpad(to_hex(pg_backend_pid()), 16, '0'))::uuid;
	head text[];
BEGIN
	SELECT ARRAY[pg_backend_pid()::text, own_lane::text, l.lane_seq::text, encode(l.hash, 'hex')]
	INTO head
	FROM audit_log l WHERE l.lane = own_lane ORDER BY l.lane_seq DESC LIMIT 1;
	RETURN coalesce(head, ARRAY[pg_backend_pid()::text, own_lane::text, '0', repeat('00', 32)]);
END $$;

-- Only this session appends to its lane, so that no writer waits for another: two processes of one
-- server with the same id do not live at the same time. Values that the INSERT gives for these
-- columns are ignored. The transaction gets its id before the entry gets its number:
-- areg_seal_audit() relies on that.
--
-- Every write pays for this, so the head of the lane is kept in a setting of the session, which
-- costs a tenth of looking it up and is rolled back as the rows are. The process id keeps it from
-- being taken from elsewhere; a session that changes it breaks its own lane, and is found.
CREATE FUNCTION areg_chain_audit() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
	head text[] := string_to_array(current_setting('areg.audit_head', true), ' ');
BEGIN
	IF head[1]::integer IS DISTINCT FROM pg_backend_pid() THEN
		head := areg_audit_lane_head();
	END IF;
	NEW.lane := head[2];
	NEW.lane_seq := head[3]::bigint + 1;
	NEW.id := CASE WHEN pg_current_xact_id() IS NOT NULL THEN nextval('audit_log_ids') END;
	NEW.at := clock_timestamp();
	NEW.hash := areg_audit_hash(decode(head[4], 'hex'), NEW.lane, NEW.lane_seq, NEW.id, NEW.at,
		NEW.actor_user, NEW.actor, NEW.action, NEW.subject_type, NEW.subject_id, NEW.before,
		NEW.after, NEW.request_id, NEW.client_address);
	head[1] := set_config('areg.audit_head',
		concat_ws(' ', pg_backend_pid(), NEW.lane, NEW.lane_seq, encode(NEW.hash, 'hex')), false);
	RETURN NEW;
END $$;
CREATE TRIGGER audit_log_chain BEFORE INSERT ON audit_log
	FOR EACH ROW EXECUTE FUNCTION areg_chain_audit();

CREATE TABLE audit_seals (
	position bigint PRIMARY KEY,
	sealed_at timestamptz NOT NULL,
	lane uuid NOT NULL,
	lane_seq bigint NOT NULL,
	lane_hash bytea NOT NULL CONSTRAINT audit_seals_lane_hash_length CHECK (octet_length(lane_hash) = 32),
	hash bytea NOT NULL CONSTRAINT audit_seals_hash_length CHECK (octet_length(hash) = 32),
	CONSTRAINT audit_seals_lane_key UNIQUE (lane, lane_seq)
);
COMMENT ON TABLE audit_seals IS
	'Heads of the lanes of audit_log as they were at a time, in one chain; append-only';
COMMENT ON COLUMN audit_seals.position IS 'Counts from 1, without gaps';
COMMENT ON COLUMN audit_seals.lane_hash IS 'Hash of the entry at lane_seq of the lane';
COMMENT ON COLUMN audit_seals.hash IS 'SHA-256 of the hash of the seal before, and of this seal';
CREATE TRIGGER audit_seals_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_seals
	FOR EACH STATEMENT EXECUTE FUNCTION areg_refuse_change('the log is append-only');

CREATE FUNCTION areg_seal_hash(previous bytea, at_position bigint, sealed_at timestamptz, lane uuid,
	lane_seq bigint, lane_hash bytea) RETURNS bytea
LANGUAGE sql STABLE PARALLEL SAFE
RETURN sha256(previous || convert_to(json_build_array(at_position, rfc3339(sealed_at), lane, lane_seq,
	encode(lane_hash, 'hex'))::text, 'UTF8'));

CREATE FUNCTION areg_audit_head(OUT seal_position bigint, OUT seal_hash text)
LANGUAGE sql STABLE AS $$
	SELECT coalesce(last.position, 0), coalesce(encode(last.hash, 'hex'), repeat('00', 32))
	FROM (SELECT) AS one LEFT JOIN
		(SELECT position, hash FROM audit_seals ORDER BY position DESC LIMIT 1) AS last ON true
$$;
COMMENT ON FUNCTION areg_audit_head() IS
	'The last seal: who noted it elsewhere can tell later that nothing up to it was changed';

-- Entries become visible in another order than they were numbered in, so the sealer must know up
-- to which number nothing can appear any more.
CREATE TABLE audit_sealing (
	one_row boolean PRIMARY KEY DEFAULT true CONSTRAINT audit_sealing_one_row CHECK (one_row),
	settled_id bigint NOT NULL DEFAULT 0,
	pending_id bigint NOT NULL DEFAULT 0,
	pending_xact xid8 NOT NULL DEFAULT '0',
	sealed_position bigint NOT NULL DEFAULT 0
);
COMMENT ON TABLE audit_sealing IS 'How far areg_seal_audit() has come; one row';
COMMENT ON COLUMN audit_sealing.settled_id IS
	'Every entry of audit_log up to this number is sealed, or its transaction failed';
COMMENT ON COLUMN audit_sealing.pending_id IS
	'The same once every transaction before pending_xact has ended';
COMMENT ON COLUMN audit_sealing.sealed_position IS
	'How many seals were made, and so the position of the last: it stays when seals are removed';
INSERT INTO audit_sealing DEFAULT VALUES;

-- With its owner's rights: the role that aregd runs as appends to audit_log and can do nothing else
-- to it, nor to the seals, so it calls this. Names in such a function are looked up where only the
-- owner can make anything; temporary tables, which anybody can make, come last. By indexes from the
-- newest entries on, also where the planner knows nothing of the table yet. What is not enabled has
-- a cost for which the plan would be compiled, each time anew.
CREATE FUNCTION areg_seal_audit() RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
DECLARE
	state audit_sealing;
	last_id bigint;
	settles boolean;
	run_at timestamptz;
	sealed bigint := 0;
	newest record;
	head_position bigint;
	head_hash bytea;
BEGIN
	IF pg_current_xact_id_if_assigned() IS NOT NULL THEN
		RAISE EXCEPTION 'areg_seal_audit() must come first in its transaction'
			USING ERRCODE = 'active_sql_transaction';
	END IF;
	-- One at a time; any number will do that nothing else locks: "seal" in ASCII.
	PERFORM pg_advisory_xact_lock(1936023916);

	SELECT * INTO STRICT state FROM audit_sealing;
	SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END INTO last_id FROM audit_log_ids;
	IF state.settled_id = last_id THEN
		RETURN 0;
	END IF;

	-- A transaction that has a number up to last_id got its transaction id before ours. An id
	-- greater than ours is of the server that this database was restored from.
	settles := state.pending_xact > pg_current_xact_id()
		OR state.pending_xact <= pg_snapshot_xmin(pg_current_snapshot());
	run_at := clock_timestamp();
	SELECT seal_position, decode(seal_hash, 'hex') INTO head_position, head_hash
	FROM areg_audit_head();
	FOR newest IN
		SELECT l.lane, l.lane_seq, l.hash
		FROM (SELECT lane, max(lane_seq) AS lane_seq
			FROM audit_log WHERE id > state.settled_id GROUP BY lane) AS grown
		JOIN audit_log l USING (lane, lane_seq)
		WHERE NOT EXISTS (SELECT FROM audit_seals s
			WHERE s.lane = l.lane AND s.lane_seq >= l.lane_seq)
		ORDER BY l.id
	LOOP
		sealed := sealed + 1;
		head_position := head_position + 1;
		head_hash := areg_seal_hash(head_hash, head_position, run_at, newest.lane, newest.lane_seq,
			newest.hash);
		INSERT INTO audit_seals (position, sealed_at, lane, lane_seq, lane_hash, hash)
		VALUES (head_position, run_at, newest.lane, newest.lane_seq, newest.hash, head_hash);
	END LOOP;
	UPDATE audit_sealing SET
		settled_id = CASE WHEN settles THEN state.pending_id ELSE state.settled_id END,
		pending_id = CASE WHEN settles THEN last_id ELSE state.pending_id END,
		pending_xact = CASE WHEN settles THEN pg_current_xact_id() ELSE state.pending_xact END,
		sealed_position = state.sealed_position + sealed;
	RETURN sealed;
END $$;
COMMENT ON FUNCTION areg_seal_audit() IS
	'Seals every lane that has new entries, and says how many; to be called about once a second';
REVOKE ALL ON FUNCTION areg_seal_audit() FROM PUBLIC;
DO $$ BEGIN
	EXECUTE format('ALTER FUNCTION areg_seal_audit() SET search_path = pg_catalog, %I, pg_temp',
		current_schema());
END $$;
