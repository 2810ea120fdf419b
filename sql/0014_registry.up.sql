-- SPDX-License-Identifier: Apache-2.0
-- The registry as a whole: its totals, its leaders, and what an account answered.
-- Under load: blocks writers of statistics and validations while indexes are built, and all writers
-- while the totals are counted at the end.

-- Every statement that changes records appends a row that says by how much, and the totals are the
-- sum of all rows. Writers only insert here, so none waits for another. areg_fold_totals() puts one
-- row in the place of many: whoever deletes a row inserts what it said in the same transaction, so
-- that every snapshot holds each change exactly once.
CREATE TABLE erc8004_total_changes (
	feedback bigint NOT NULL DEFAULT 0,
	revoked_feedback bigint NOT NULL DEFAULT 0,
	payments bigint NOT NULL DEFAULT 0,
	verified_payments bigint NOT NULL DEFAULT 0,
	failed_payments bigint NOT NULL DEFAULT 0,
	amount_usdc numeric(40, 6) NOT NULL DEFAULT 0,
	validations bigint NOT NULL DEFAULT 0,
	completed_validations bigint NOT NULL DEFAULT 0
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
	autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 10000);
COMMENT ON TABLE erc8004_total_changes IS 'What was added to the totals, and taken from them';
COMMENT ON COLUMN erc8004_total_changes.feedback IS 'Revoked or not';
COMMENT ON COLUMN erc8004_total_changes.amount_usdc IS 'Of verified payments, linked or not';

CREATE VIEW v_erc8004_totals AS
SELECT coalesce(sum(feedback), 0)::bigint AS feedback,
	coalesce(sum(revoked_feedback), 0)::bigint AS revoked_feedback,
	coalesce(sum(payments), 0)::bigint AS payments,
	coalesce(sum(verified_payments), 0)::bigint AS verified_payments,
	coalesce(sum(failed_payments), 0)::bigint AS failed_payments,
	coalesce(sum(amount_usdc), 0)::numeric(40, 6) AS amount_usdc,
	coalesce(sum(validations), 0)::bigint AS validations,
	coalesce(sum(completed_validations), 0)::bigint AS completed_validations
FROM erc8004_total_changes;

-- Each of these counts the rows that came (argument 1) or went (-1); an UPDATE is both. Feedback
-- that is given is counted by 0015_feedback.
CREATE FUNCTION areg_total_feedback() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
	change integer := TG_ARGV[0];
BEGIN
	INSERT INTO erc8004_total_changes (feedback, revoked_feedback)
	SELECT change * count(*), change * count(*) FILTER (WHERE is_revoked)
	FROM counted HAVING count(*) > 0;
	RETURN NULL;
END $$;
CREATE TRIGGER erc8004_reputation_total_before AFTER UPDATE ON erc8004_reputation
	REFERENCING OLD TABLE AS counted FOR EACH STATEMENT EXECUTE FUNCTION areg_total_feedback('-1');
CREATE TRIGGER erc8004_reputation_total_after AFTER UPDATE ON erc8004_reputation
	REFERENCING NEW TABLE AS counted FOR EACH STATEMENT EXECUTE FUNCTION areg_total_feedback('1');
CREATE TRIGGER erc8004_reputation_total_deleted AFTER DELETE ON erc8004_reputation
	REFERENCING OLD TABLE AS counted FOR EACH STATEMENT EXECUTE FUNCTION areg_total_feedback('-1');

CREATE FUNCTION areg_total_payments() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
	change integer := TG_ARGV[0];
BEGIN
	INSERT INTO erc8004_total_changes (payments, verified_payments, failed_payments, amount_usdc)
	SELECT change * count(*), change * count(*) FILTER (WHERE status = 'verified'),
		change * count(*) FILTER (WHERE status = 'failed'),
		change * coalesce(sum(amount_usdc) FILTER (WHERE status = 'verified'), 0)
	FROM counted HAVING count(*) > 0;
	RETURN NULL;
END $$;
CREATE TRIGGER x402_payments_total_inserted AFTER INSERT ON x402_payments
	REFERENCING NEW TABLE AS counted FOR EACH STATEMENT EXECUTE FUNCTION areg_total_payments('1');
CREATE TRIGGER x402_payments_total_before AFTER UPDATE ON x402_payments
	REFERENCING OLD TABLE AS counted FOR EACH STATEMENT EXECUTE FUNCTION areg_total_payments('-1');
CREATE TRIGGER x402_payments_total_after AFTER UPDATE ON x402_payments
	REFERENCING NEW TABLE AS counted FOR EACH STATEMENT EXECUTE FUNCTION areg_total_payments('1');
CREATE TRIGGER x402_payments_total_deleted AFTER DELETE ON x402_payments
	REFERENCING OLD TABLE AS counted FOR EACH STATEMENT EXECUTE FUNCTION areg_total_payments('-1');

CREATE FUNCTION areg_total_validations() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
	change integer := TG_ARGV[0];
BEGIN
	INSERT INTO erc8004_total_changes (validations, completed_validations)
	SELECT change * count(*), change * count(*) FILTER (WHERE status = 'completed')
	FROM counted HAVING count(*) > 0;
	RETURN NULL;
END $$;
CREATE TRIGGER erc8004_validations_total_inserted AFTER INSERT ON erc8004_validations
	REFERENCING NEW TABLE AS counted FOR EACH STATEMENT EXECUTE FUNCTION areg_total_validations('1');
CREATE TRIGGER erc8004_validations_total_before AFTER UPDATE ON erc8004_validations
	REFERENCING OLD TABLE AS counted FOR EACH STATEMENT EXECUTE FUNCTION areg_total_validations('-1');
CREATE TRIGGER erc8004_validations_total_after AFTER UPDATE ON erc8004_validations
	REFERENCING NEW TABLE AS counted FOR EACH STATEMENT EXECUTE FUNCTION areg_total_validations('1');
CREATE TRIGGER erc8004_validations_total_deleted AFTER DELETE ON erc8004_validations
	REFERENCING OLD TABLE AS counted FOR EACH STATEMENT EXECUTE FUNCTION areg_total_validations('-1');
CREATE TRIGGER erc8004_validations_truncate BEFORE TRUNCATE ON erc8004_validations
	FOR EACH STATEMENT EXECUTE FUNCTION areg_refuse_change('DELETE keeps the totals right');

-- Rows that somebody else is folding are left to them, so several hosts may do this at once.
CREATE FUNCTION areg_fold_totals() RETURNS bigint
LANGUAGE sql AS $$
	WITH folded AS (
		DELETE FROM erc8004_total_changes WHERE ctid = ANY (ARRAY(
			SELECT ctid FROM erc8004_total_changes
			WHERE (SELECT count(*) FROM (SELECT FROM erc8004_total_changes LIMIT 100) AS few) = 100
			LIMIT 10000 FOR UPDATE SKIP LOCKED))
		RETURNING *
	), put AS (
		INSERT INTO erc8004_total_changes (feedback, revoked_feedback, payments, verified_payments,
			failed_payments, amount_usdc, validations, completed_validations)
		SELECT sum(feedback), sum(revoked_feedback), sum(payments), sum(verified_payments),
			sum(failed_payments), sum(amount_usdc), sum(validations), sum(completed_validations)
		FROM folded HAVING count(*) > 0
	)
	SELECT count(*) FROM folded
$$;
COMMENT ON FUNCTION areg_fold_totals() IS
	'Where there are 100 rows or more: puts the sum of up to 10,000 in their place. Returns how many';

ALTER FUNCTION areg_rebuild_stats() RENAME TO areg_rebuild_agent_stats;
COMMENT ON FUNCTION areg_rebuild_agent_stats() IS 'What areg_rebuild_stats() does about single agents';

CREATE FUNCTION areg_rebuild_totals() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	LOCK TABLE erc8004_reputation, x402_payments, erc8004_validations, erc8004_total_changes
		IN SHARE ROW EXCLUSIVE MODE;
	DELETE FROM erc8004_total_changes;
	INSERT INTO erc8004_total_changes (feedback, revoked_feedback, payments, verified_payments,
		failed_payments, amount_usdc, validations, completed_validations)
	SELECT f.*, p.*, v.*
	FROM (SELECT count(*), count(*) FILTER (WHERE is_revoked) FROM erc8004_reputation) AS f,
		(SELECT count(*), count(*) FILTER (WHERE status = 'verified'),
			count(*) FILTER (WHERE status = 'failed'),
			coalesce(sum(amount_usdc) FILTER (WHERE status = 'verified'), 0)
		FROM x402_payments) AS p,
		(SELECT count(*), count(*) FILTER (WHERE status = 'completed') FROM erc8004_validations) AS v;
END $$;
COMMENT ON FUNCTION areg_rebuild_totals() IS 'What areg_rebuild_stats() does about totals';

CREATE FUNCTION areg_rebuild_stats() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	LOCK TABLE erc8004_agents, erc8004_reputation, x402_payments, erc8004_agent_payments,
		erc8004_validations, erc8004_total_changes IN SHARE ROW EXCLUSIVE MODE;
	PERFORM areg_rebuild_agent_stats();
	PERFORM areg_rebuild_totals();
	PERFORM areg_rebuild_lists();
	PERFORM areg_rebuild_storage();
END $$;
COMMENT ON FUNCTION areg_rebuild_stats() IS
	'Recounts every derived table from the records, and has erc8004_agent_addresses say who owns each agent now; writers wait meanwhile. For repair and after a load with triggers off';

DO $$ BEGIN PERFORM areg_rebuild_totals(); END $$;

-- Leaders. By chain first: the leaders of all chains are the first of those of each. The count at the
-- end of a key is for min_feedback, to be looked at without the row: of feedback records, or of the
-- clients that the score rests on. An agent that has nothing of
-- what is asked for is in none of them, so that registrations pay nothing.
CREATE INDEX erc8004_agent_stats_leaders_score
	ON erc8004_agent_stats (chain, reputation_sort, agent_uuid, opinions)
	WHERE status = 'active' AND reputation_sort >= 0;
CREATE INDEX erc8004_agent_stats_leaders_feedback
	ON erc8004_agent_stats (chain, total_feedback, agent_uuid)
	WHERE status = 'active' AND total_feedback > 0;
CREATE INDEX erc8004_agent_stats_leaders_amount
	ON erc8004_agent_stats (chain, total_amount_usdc, agent_uuid, total_feedback)
	WHERE status = 'active' AND total_amount_usdc > 0;

-- Anybody can name an account as validator: what it was merely asked for is not in here.
CREATE INDEX erc8004_validations_answered ON erc8004_validations (validator_address, responded_at, id)
	WHERE status = 'completed';
