-- SPDX-License-Identifier: Apache-2.0
-- Statistics of agents, kept exact in the transaction that changes them, and recounted at the end
-- of this migration. Under load: blocks writers of agents, feedback and payments while it recounts.
--
-- Order of locks, the same for every writer, so that none waits in a circle: agents, feedback and
-- payments rows, then rows of erc8004_agent_stats by agent_uuid; whoever holds the row there may
-- change the agent's rows in erc8004_agent_clients and erc8004_agent_tags.
-- All this is for READ COMMITTED: each statement of a trigger sees what the lock before it let
-- through. (REPEATABLE READ and SERIALIZABLE get serialization failures on a busy agent, and the
-- former can miss that a payment was linked while it was changed.)

-- Division of numerics rounds; with 36 digits behind the point in the dividend it does so far from
-- where the second rounding looks, so that a mean just under a tie is not rounded up twice.
CREATE FUNCTION areg_average(sum numeric, count bigint) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN round(round(sum, 36) / nullif(count, 0), 2);
COMMENT ON FUNCTION areg_average(numeric, bigint) IS 'Mean with 2 decimals; null of none';

-- Rounded, so that sums of opinions are exact however they came about: no change drifts from a recount.
-- The inner rounding sets how far the division looks, whatever scale the sum happens to have.
CREATE FUNCTION areg_opinion(sum numeric, count bigint) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE count WHEN 0 THEN 0 WHEN 1 THEN round(sum, 8)
	ELSE round(round(sum, 36) / count, 8) END;
COMMENT ON FUNCTION areg_opinion(numeric, bigint) IS
	'What one client thinks: the mean of the client''s values with 8 decimals; 0 of none';

-- The automatic feedback of an agent speaks with one voice, and it says what the payers say that count:
-- otherwise payments that count for nothing could praise or spoil an agent by the feedback that they give.
CREATE FUNCTION areg_payments_opinion(payers bigint, rate_sum numeric) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN round(30 + 65 * rate_sum / nullif(payers, 0), 8);
COMMENT ON FUNCTION areg_payments_opinion(bigint, numeric) IS
	'A score between that of a failed payment, 30, and of a verified one, 95; null without a payer that counts';

-- This table and those behind it reference no agent: nearly every feedback adds a row to them, and would pay
-- for each check. Triggers write them, which hold the agent's row of erc8004_agent_stats, and the
-- agent's deletion takes its rows away. Only who writes here by hand can leave rows of no agent, which
-- count for nothing until areg_rebuild_stats() deletes them.
CREATE TABLE erc8004_agent_clients (
	agent_uuid uuid NOT NULL,
	client_address eth_address NOT NULL,
	last_index feedback_index NOT NULL,
	active_feedback record_count NOT NULL,
	scored_feedback record_count NOT NULL DEFAULT 0,
	score_sum numeric NOT NULL DEFAULT 0,
	given_on date,
	given_today integer NOT NULL DEFAULT 0,
	is_self boolean NOT NULL DEFAULT false,
	tag1 text COLLATE "C" NOT NULL,
	tag_feedback bigint NOT NULL,
	tag_sum numeric NOT NULL,
	PRIMARY KEY (agent_uuid, client_address)
);
COMMENT ON TABLE erc8004_agent_clients IS 'Who gave an agent feedback; stays when all of it is revoked';
COMMENT ON COLUMN erc8004_agent_clients.last_index IS 'The greatest feedback_index there ever was';
COMMENT ON COLUMN erc8004_agent_clients.active_feedback IS 'Number of unrevoked feedback';
COMMENT ON COLUMN erc8004_agent_clients.scored_feedback IS 'Of active_feedback those with a score; their sum likewise';
COMMENT ON COLUMN erc8004_agent_clients.given_on IS
	'The last day (UTC) on which the client gave feedback by the API; history like last_index';
COMMENT ON COLUMN erc8004_agent_clients.is_self IS
	'The client is, or at any time was, the agent''s owner, wallet or operator: erc8004_agent_addresses; a trigger there keeps it';
COMMENT ON COLUMN erc8004_agent_clients.given_today IS 'How often on that day, revoked or not';
COMMENT ON COLUMN erc8004_agent_clients.tag1 IS
	'areg_tag_key() of the client''s first feedback; of several that came at once, the least. History like last_index';
COMMENT ON COLUMN erc8004_agent_clients.tag_feedback IS
	'Of active_feedback those with that tag1; tag_sum: the sum of their normalized';

CREATE TABLE erc8004_agent_tags (
	agent_uuid uuid NOT NULL,
	tag1 text COLLATE "C" NOT NULL,
	feedback_count record_count NOT NULL,
	value_sum numeric NOT NULL,
	opinions record_count NOT NULL DEFAULT 0,
	opinion_sum numeric NOT NULL DEFAULT 0,
	PRIMARY KEY (agent_uuid, tag1)
);
COMMENT ON TABLE erc8004_agent_tags IS
	'Unrevoked feedback by tag1; rows may say 0. Least and greatest: from index erc8004_reputation_tag';
COMMENT ON COLUMN erc8004_agent_tags.tag1 IS 'Its areg_tag_key()';
COMMENT ON COLUMN erc8004_agent_tags.value_sum IS 'Sum of normalized';
COMMENT ON COLUMN erc8004_agent_tags.opinions IS
	'Clients with such feedback; the sum is that of their areg_opinion()';

-- Most clients give an agent feedback with one tag only, and erc8004_agent_clients counts that.
CREATE TABLE erc8004_agent_client_tags (
	agent_uuid uuid NOT NULL,
	client_address eth_address NOT NULL,
	tag1 text COLLATE "C" NOT NULL,
	feedback_count record_count NOT NULL,
	value_sum numeric NOT NULL,
	PRIMARY KEY (agent_uuid, client_address, tag1)
);
COMMENT ON TABLE erc8004_agent_client_tags IS
	'Unrevoked feedback by client and tag1, without the tag1 that erc8004_agent_clients counts; rows may say 0';
COMMENT ON COLUMN erc8004_agent_client_tags.tag1 IS 'Its areg_tag_key()';

-- By the agent's few addresses: an index of clients that are is_self would cost every feedback more.
CREATE FUNCTION areg_own_opinions(of_agent uuid) RETURNS numeric[]
LANGUAGE sql STABLE
RETURN ARRAY(SELECT areg_opinion(c.score_sum, c.scored_feedback)
	FROM (SELECT DISTINCT address FROM erc8004_agent_addresses WHERE agent_uuid = of_agent) AS x
		JOIN erc8004_agent_clients c ON c.agent_uuid = of_agent AND c.client_address = x.address
	WHERE c.is_self AND c.scored_feedback > 0 ORDER BY 1 LIMIT 100);
COMMENT ON FUNCTION areg_own_opinions(uuid) IS 'The hundred lowest of clients that are is_self, ascending';

-- An owner cannot raise the average by praise of the agent's own addresses, nor by making a critic one of
-- them. The lowest first: each is taken while it lowers the average of those before it. With nobody else's
-- opinion to compare with, only what counts as negative is taken.
CREATE FUNCTION areg_take_own(INOUT sum numeric, INOUT count bigint, own numeric[])
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
	opinion numeric;
BEGIN
	FOREACH opinion IN ARRAY own LOOP
		EXIT WHEN CASE count WHEN 0 THEN opinion >= 50 ELSE opinion * count >= sum END;
		sum := sum + opinion;
		count := count + 1;
	END LOOP;
END $$;
COMMENT ON FUNCTION areg_take_own(numeric, bigint, numeric[]) IS
	'Takes count opinions of others and those of the agent''s own (ascending) that lower their average; without others, the lowest own if it is below 50';

CREATE FUNCTION areg_average_with_own(sum numeric, count bigint, own numeric[]) RETURNS numeric
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
	taken record := areg_take_own(sum, count, own);
BEGIN
	RETURN areg_average(taken.sum, taken.count);
END $$;
COMMENT ON FUNCTION areg_average_with_own(numeric, bigint, numeric[]) IS 'areg_average() of what areg_take_own() takes';

CREATE TABLE erc8004_agent_payers (
	agent_uuid uuid NOT NULL,
	payer eth_address NOT NULL,
	recorded_by uuid NOT NULL,
	verified record_count NOT NULL,
	failed record_count NOT NULL,
	is_self boolean NOT NULL,
	PRIMARY KEY (agent_uuid, payer, recorded_by)
);
COMMENT ON TABLE erc8004_agent_payers IS
	'Linked payments that reach the minimum, by payer and by who recorded them; rows may say 0';
COMMENT ON COLUMN erc8004_agent_payers.recorded_by IS 'As in x402_payments; of an import: all zeros';
COMMENT ON COLUMN erc8004_agent_payers.is_self IS
	'The payer is or was an owner, wallet or operator of the agent: such a payer never counts';

-- It references no agent either: PostgreSQL checks the reference of a row that one transaction changes
-- twice, and that takes the lock on the agent after those on payments, in the wrong order.
CREATE TABLE erc8004_agent_stats (
	agent_uuid uuid PRIMARY KEY,
	chain chain_name NOT NULL,
	status text NOT NULL,
	registered_at timestamptz NOT NULL,
	total_feedback bigint NOT NULL DEFAULT 0,
	scored_feedback bigint NOT NULL DEFAULT 0,
	score_sum numeric NOT NULL DEFAULT 0,
	automatic_scored bigint NOT NULL DEFAULT 0,
	automatic_score_sum numeric NOT NULL DEFAULT 0,
	opinions bigint NOT NULL DEFAULT 0,
	opinion_sum numeric NOT NULL DEFAULT 0,
	own_opinions numeric[] NOT NULL DEFAULT '{}',
	positive_feedback bigint NOT NULL DEFAULT 0,
	negative_feedback bigint NOT NULL DEFAULT 0,
	revoked_feedback bigint NOT NULL DEFAULT 0,
	unique_clients bigint NOT NULL DEFAULT 0,
	last_feedback_at timestamptz,
	total_payments bigint NOT NULL DEFAULT 0,
	successful_payments bigint NOT NULL DEFAULT 0,
	failed_payments bigint NOT NULL DEFAULT 0,
	total_amount_usdc numeric(36, 6) NOT NULL DEFAULT 0,
	last_payment_at timestamptz,
	counted_payers bigint NOT NULL DEFAULT 0,
	payer_rate_sum numeric NOT NULL DEFAULT 0,
	reputation_score numeric,
	payment_success_rate numeric,
	trust_level text COLLATE "C" NOT NULL,
	trust_score numeric,
	reputation_sort numeric NOT NULL,
	direct_score numeric,
	direct_sort numeric NOT NULL,
	last_activity_at timestamptz NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.02); -- every feedback leaves a dead row; searches walk the indexes
COMMENT ON TABLE erc8004_agent_stats IS 'One row for every agent from the moment it exists';
COMMENT ON COLUMN erc8004_agent_stats.chain IS 'Of the agent, for indexes that put it before a statistic';
COMMENT ON COLUMN erc8004_agent_stats.status IS 'Of the agent, likewise: searches ask for active ones';
COMMENT ON COLUMN erc8004_agent_stats.registered_at IS 'created_at of the agent';
COMMENT ON COLUMN erc8004_agent_stats.total_feedback IS 'Unrevoked; as are the counts and sums after it';
COMMENT ON COLUMN erc8004_agent_stats.automatic_scored IS
	'Of scored_feedback what this registry gave by itself, for payments; its sum likewise';
COMMENT ON COLUMN erc8004_agent_stats.positive_feedback IS 'Score >= 80; negative: < 50';
COMMENT ON COLUMN erc8004_agent_stats.opinions IS
	'Clients with scored feedback that are neither is_self nor areg_system_address(); the sum is that of their areg_opinion()';
COMMENT ON COLUMN erc8004_agent_stats.own_opinions IS 'areg_own_opinions() of the agent';
COMMENT ON COLUMN erc8004_agent_stats.unique_clients IS
	'Clients with unrevoked feedback, but areg_system_address()';
COMMENT ON COLUMN erc8004_agent_stats.last_feedback_at IS 'Newest created_at of unrevoked feedback';
COMMENT ON COLUMN erc8004_agent_stats.total_payments IS 'Linked payments in any status';
COMMENT ON COLUMN erc8004_agent_stats.total_amount_usdc IS 'Of verified payments';
COMMENT ON COLUMN erc8004_agent_stats.last_payment_at IS 'Newest linked_at';
COMMENT ON COLUMN erc8004_agent_stats.counted_payers IS
	'Payers with a verified payment that reaches the minimum, none of them the agent itself';
COMMENT ON COLUMN erc8004_agent_stats.payer_rate_sum IS
	'Over counted_payers: the sum of their success rates, 0..1 each; see areg_payer_rate()';
COMMENT ON COLUMN erc8004_agent_stats.payment_success_rate IS 'The mean of those rates, in per cent';
COMMENT ON COLUMN erc8004_agent_stats.reputation_sort IS 'reputation_score with -1 for none, to sort and page by';
COMMENT ON COLUMN erc8004_agent_stats.direct_score IS 'reputation_score without automatic feedback';
COMMENT ON COLUMN erc8004_agent_stats.direct_sort IS 'direct_score with -1 for none';
CREATE INDEX erc8004_agent_stats_reputation
	ON erc8004_agent_stats (status, reputation_sort, agent_uuid) INCLUDE (total_feedback);
CREATE INDEX erc8004_agent_stats_feedback
	ON erc8004_agent_stats (status, total_feedback, agent_uuid) INCLUDE (reputation_sort);
CREATE INDEX erc8004_agent_stats_activity ON erc8004_agent_stats (status, last_activity_at, agent_uuid);

-- Whatever a statement says of the columns that follow from others counts for nothing, and what cannot
-- be is refused. By a trigger, because PostgreSQL reads and plans the expressions of generated columns
-- and of checks anew for every statement, and every feedback pays for it.
CREATE FUNCTION areg_derive_stats() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
	direct numeric := areg_average(NEW.opinion_sum, NEW.opinions);
	score numeric;
	success numeric;
BEGIN
	IF least(NEW.positive_feedback, NEW.negative_feedback, NEW.revoked_feedback,
			NEW.scored_feedback - NEW.positive_feedback - NEW.negative_feedback,
			NEW.total_feedback - NEW.scored_feedback, NEW.automatic_scored,
			NEW.scored_feedback - NEW.automatic_scored,
			NEW.unique_clients, NEW.total_feedback - NEW.unique_clients, NEW.opinions,
			NEW.scored_feedback - NEW.automatic_scored - NEW.opinions, NEW.successful_payments, NEW.failed_payments,
			NEW.total_payments - NEW.successful_payments - NEW.failed_payments,
			NEW.counted_payers) < 0
		OR NEW.payer_rate_sum < 0 OR NEW.payer_rate_sum > NEW.counted_payers
		OR NEW.total_amount_usdc < 0
		OR (NEW.last_feedback_at IS NULL) <> (NEW.total_feedback = 0)
		OR (NEW.last_payment_at IS NULL) <> (NEW.total_payments = 0) THEN
		RAISE EXCEPTION 'statistics that cannot be: %', NEW
			USING ERRCODE = 'check_violation', CONSTRAINT = 'erc8004_agent_stats_range';
	END IF;
	NEW.last_activity_at := greatest(NEW.registered_at, NEW.last_feedback_at, NEW.last_payment_at);
	-- Most agents have neither payers that count nor opinions of their own, and each expression costs.
	IF NEW.counted_payers = 0 AND cardinality(NEW.own_opinions) = 0 THEN
		NEW.direct_score := trim_scale(direct);
		NEW.reputation_score := NEW.direct_score;
		NEW.direct_sort := coalesce(direct, -1);
		NEW.reputation_sort := NEW.direct_sort;
		NEW.payment_success_rate := NULL;
		NEW.trust_level := areg_trust_level(direct, NULL, 0, NEW.total_feedback - NEW.automatic_scored);
		NEW.trust_score := NULL;
		RETURN NEW;
	END IF;

	score := direct;
	IF NEW.automatic_scored > 0 AND NEW.counted_payers > 0 THEN
		score := areg_average(NEW.opinion_sum
			+ areg_payments_opinion(NEW.counted_payers, NEW.payer_rate_sum), NEW.opinions + 1);
	END IF;
	IF cardinality(NEW.own_opinions) > 0 THEN
		direct := areg_average_with_own(NEW.opinion_sum, NEW.opinions, NEW.own_opinions);
		score := direct;
		IF NEW.automatic_scored > 0 AND NEW.counted_payers > 0 THEN
			score := areg_average_with_own(NEW.opinion_sum
				+ areg_payments_opinion(NEW.counted_payers, NEW.payer_rate_sum),
				NEW.opinions + 1, NEW.own_opinions);
		END IF;
	END IF;
	IF NEW.counted_payers > 0 THEN
		success := round(100 * NEW.payer_rate_sum / NEW.counted_payers, 2);
	END IF;
	NEW.reputation_score := trim_scale(score);
	NEW.reputation_sort := coalesce(score, -1);
	NEW.direct_score := trim_scale(direct);
	NEW.direct_sort := coalesce(direct, -1);
	NEW.payment_success_rate := trim_scale(success);
	NEW.trust_level := areg_trust_level(score, success, NEW.counted_payers,
		NEW.total_feedback - NEW.automatic_scored);
	NEW.trust_score := areg_trust_score(score, success);
	RETURN NEW;
END $$;
CREATE TRIGGER erc8004_agent_stats_derived BEFORE INSERT OR UPDATE ON erc8004_agent_stats
	FOR EACH ROW EXECUTE FUNCTION areg_derive_stats();
-- Also in a session that loads with triggers off.
ALTER TABLE erc8004_agent_stats ENABLE ALWAYS TRIGGER erc8004_agent_stats_derived;

CREATE FUNCTION areg_stats_agents_inserted() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO erc8004_agent_stats (agent_uuid, chain, status, registered_at)
	SELECT agent_uuid, chain, status, created_at FROM new_rows;
	RETURN NULL;
END $$;
CREATE TRIGGER erc8004_agents_stats_inserted AFTER INSERT ON erc8004_agents
	REFERENCING NEW TABLE AS new_rows
	FOR EACH STATEMENT EXECUTE FUNCTION areg_stats_agents_inserted();

CREATE FUNCTION areg_stats_agents_updated() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
	IF NOT EXISTS (SELECT FROM new_rows n JOIN old_rows o USING (agent_uuid)
		WHERE n.status <> o.status) THEN
		RETURN NULL;
	END IF;
	PERFORM FROM erc8004_agent_stats WHERE agent_uuid IN (SELECT agent_uuid FROM new_rows)
	ORDER BY agent_uuid FOR UPDATE;
	UPDATE erc8004_agent_stats s SET status = n.status
	FROM new_rows n WHERE n.agent_uuid = s.agent_uuid AND n.status <> s.status;
	RETURN NULL;
END $$;
CREATE TRIGGER erc8004_agents_stats_updated AFTER UPDATE ON erc8004_agents
	REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
	FOR EACH STATEMENT EXECUTE FUNCTION areg_stats_agents_updated();

-- The cascades of the foreign keys run in no order that one can rely on, and each DELETE here ends
-- with the lock on the statistics: so every row is locked first, and then deleted.
CREATE FUNCTION areg_stats_agent_deleting() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM FROM erc8004_reputation WHERE agent_uuid = OLD.agent_uuid ORDER BY id FOR UPDATE;
	PERFORM FROM erc8004_agent_payments WHERE agent_uuid = OLD.agent_uuid
	ORDER BY payment_id FOR UPDATE;
	PERFORM FROM x402_payments WHERE id IN
		(SELECT payment_id FROM erc8004_agent_payments WHERE agent_uuid = OLD.agent_uuid)
	ORDER BY id FOR SHARE;
	DELETE FROM erc8004_reputation WHERE agent_uuid = OLD.agent_uuid;
	DELETE FROM erc8004_agent_payments WHERE agent_uuid = OLD.agent_uuid;
	DELETE FROM erc8004_agent_clients WHERE agent_uuid = OLD.agent_uuid;
	DELETE FROM erc8004_agent_client_tags WHERE agent_uuid = OLD.agent_uuid;
	DELETE FROM erc8004_agent_tags WHERE agent_uuid = OLD.agent_uuid;
	DELETE FROM erc8004_agent_payers WHERE agent_uuid = OLD.agent_uuid;
	RETURN OLD;
END $$;
CREATE TRIGGER erc8004_agents_stats_deleting BEFORE DELETE ON erc8004_agents
	FOR EACH ROW EXECUTE FUNCTION areg_stats_agent_deleting();

CREATE FUNCTION areg_stats_agent_deleted() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
	DELETE FROM erc8004_agent_stats WHERE agent_uuid = OLD.agent_uuid;
	RETURN NULL;
END $$;
CREATE TRIGGER erc8004_agents_stats_deleted AFTER DELETE ON erc8004_agents
	FOR EACH ROW EXECUTE FUNCTION areg_stats_agent_deleted();

-- What given feedback adds to the statistics is in 0015_feedback, with all else that it changes.

-- For revocation (UPDATE) and DELETE alike: what a row was is in old_rows, what it has become is in
-- the table, or is not. Its client and tag have had their rows since the INSERT.
CREATE FUNCTION areg_stats_feedback_changed() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM FROM erc8004_agent_stats WHERE agent_uuid IN (SELECT agent_uuid FROM old_rows)
	ORDER BY agent_uuid FOR UPDATE;

	WITH changes AS (
		SELECT o.agent_uuid, o.client_address, o.tag_key, o.normalized, o.score, o.is_automatic,
			o.tag_key = c.tag1 AS is_first_tag,
			(r.id IS NOT NULL AND NOT r.is_revoked)::integer - (NOT o.is_revoked)::integer AS active,
			(r.id IS NOT NULL AND r.is_revoked)::integer - o.is_revoked::integer AS revoked
		FROM old_rows o LEFT JOIN erc8004_reputation r ON r.id = o.id
			JOIN erc8004_agent_clients c
				ON c.agent_uuid = o.agent_uuid AND c.client_address = o.client_address
		WHERE r.id IS NULL OR r.is_revoked <> o.is_revoked
	), other_tags AS (
		UPDATE erc8004_agent_client_tags t SET
			feedback_count = t.feedback_count + d.active, value_sum = t.value_sum + d.value_sum
		FROM (SELECT agent_uuid, client_address, tag_key, sum(active) AS active,
				sum(active * normalized) AS value_sum
			FROM changes WHERE NOT is_first_tag GROUP BY agent_uuid, client_address, tag_key) AS d
		WHERE t.agent_uuid = d.agent_uuid AND t.client_address = d.client_address
			AND t.tag1 = d.tag_key
		RETURNING t.agent_uuid, t.tag1,
			(t.feedback_count > 0)::integer - (t.feedback_count - d.active > 0)::integer AS opinions,
			areg_opinion(t.value_sum, t.feedback_count) - areg_opinion(t.value_sum - d.value_sum,
				(t.feedback_count - d.active)::bigint) AS opinion_sum
	), clients AS (
		UPDATE erc8004_agent_clients c SET active_feedback = c.active_feedback + d.active,
			scored_feedback = c.scored_feedback + d.scored, score_sum = c.score_sum + d.score_sum,
			tag_feedback = c.tag_feedback + d.tag_active, tag_sum = c.tag_sum + d.tag_sum
		FROM (SELECT agent_uuid, client_address, sum(active) AS active,
				coalesce(sum(active) FILTER (WHERE score IS NOT NULL), 0) AS scored,
				coalesce(sum(active * score), 0) AS score_sum,
				coalesce(sum(active) FILTER (WHERE is_first_tag), 0) AS tag_active,
				coalesce(sum(active * normalized) FILTER (WHERE is_first_tag), 0) AS tag_sum
			FROM changes GROUP BY agent_uuid, client_address) AS d
		WHERE c.agent_uuid = d.agent_uuid AND c.client_address = d.client_address
		RETURNING c.agent_uuid, c.client_address, c.is_self, c.tag1,
			(c.active_feedback > 0)::integer - (c.active_feedback - d.active > 0)::integer AS present,
			(c.scored_feedback > 0)::integer - (c.scored_feedback - d.scored > 0)::integer
				AS opinions,
			areg_opinion(c.score_sum, c.scored_feedback) - areg_opinion(c.score_sum - d.score_sum,
				c.scored_feedback - d.scored) AS opinion_sum,
			(c.tag_feedback > 0)::integer - (c.tag_feedback - d.tag_active > 0)::integer AS tag_opinions,
			areg_opinion(c.tag_sum, c.tag_feedback) - areg_opinion(c.tag_sum - d.tag_sum,
				c.tag_feedback - d.tag_active) AS tag_opinion_sum
	), tag_opinions AS (
		SELECT agent_uuid, tag1, opinions, opinion_sum FROM other_tags
		UNION ALL
		SELECT agent_uuid, tag1, tag_opinions, tag_opinion_sum FROM clients
	), tags AS (
		UPDATE erc8004_agent_tags t SET
			feedback_count = t.feedback_count + d.active, value_sum = t.value_sum + d.value_sum,
			opinions = t.opinions + o.opinions, opinion_sum = t.opinion_sum + o.opinion_sum
		FROM (SELECT agent_uuid, tag_key, sum(active) AS active, sum(active * normalized) AS value_sum
			FROM changes GROUP BY agent_uuid, tag_key) AS d,
			(SELECT agent_uuid, tag1, sum(opinions) AS opinions, sum(opinion_sum) AS opinion_sum
			FROM tag_opinions GROUP BY agent_uuid, tag1) AS o
		WHERE t.agent_uuid = d.agent_uuid AND t.tag1 = d.tag_key
			AND o.agent_uuid = d.agent_uuid AND o.tag1 = d.tag_key
	)
	UPDATE erc8004_agent_stats s SET
		total_feedback = s.total_feedback + d.active,
		scored_feedback = s.scored_feedback + d.scored,
		score_sum = s.score_sum + d.score_sum,
		automatic_scored = s.automatic_scored + d.automatic_scored,
		automatic_score_sum = s.automatic_score_sum + d.automatic_score_sum,
		positive_feedback = s.positive_feedback + d.positive,
		negative_feedback = s.negative_feedback + d.negative,
		revoked_feedback = s.revoked_feedback + d.revoked,
		unique_clients = s.unique_clients + coalesce(c.present, 0),
		opinions = s.opinions + coalesce(c.opinions, 0),
		opinion_sum = s.opinion_sum + coalesce(c.opinion_sum, 0),
		last_feedback_at = (SELECT max(created_at) FROM erc8004_reputation r
			WHERE r.agent_uuid = s.agent_uuid AND NOT r.is_revoked)
	FROM (SELECT agent_uuid, sum(active) AS active, sum(revoked) AS revoked,
			coalesce(sum(active) FILTER (WHERE score IS NOT NULL), 0) AS scored,
			coalesce(sum(active * score), 0) AS score_sum,
			coalesce(sum(active) FILTER (WHERE score IS NOT NULL AND is_automatic), 0)
				AS automatic_scored,
			coalesce(sum(active * score) FILTER (WHERE is_automatic), 0) AS automatic_score_sum,
			coalesce(sum(active) FILTER (WHERE score >= 80), 0) AS positive,
			coalesce(sum(active) FILTER (WHERE score < 50), 0) AS negative
		FROM changes GROUP BY agent_uuid) AS d
	LEFT JOIN (SELECT agent_uuid, sum(present) AS present,
			sum(opinions) FILTER (WHERE NOT is_self) AS opinions,
			sum(opinion_sum) FILTER (WHERE NOT is_self) AS opinion_sum
		FROM clients WHERE client_address <> areg_system_address() GROUP BY agent_uuid) AS c
		USING (agent_uuid)
	WHERE s.agent_uuid = d.agent_uuid;

	UPDATE erc8004_agent_stats s SET own_opinions = areg_own_opinions(s.agent_uuid)
	WHERE s.agent_uuid IN (SELECT o.agent_uuid FROM old_rows o JOIN erc8004_agent_clients c
		ON c.agent_uuid = o.agent_uuid AND c.client_address = o.client_address WHERE c.is_self);
	RETURN NULL;
END $$;
CREATE TRIGGER erc8004_reputation_stats_updated AFTER UPDATE ON erc8004_reputation
	REFERENCING OLD TABLE AS old_rows
	FOR EACH STATEMENT EXECUTE FUNCTION areg_stats_feedback_changed();
CREATE TRIGGER erc8004_reputation_stats_deleted AFTER DELETE ON erc8004_reputation
	REFERENCING OLD TABLE AS old_rows
	FOR EACH STATEMENT EXECUTE FUNCTION areg_stats_feedback_changed();

-- An address that becomes the agent's own takes its opinion along, also what it said before. Feedback holds
-- the lock on the statistics while it looks whose it is, so one of the two sees the other. A new agent has
-- no statistics yet when its first addresses come, and nobody's feedback.
CREATE FUNCTION areg_stats_addresses_changed() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM FROM erc8004_agent_stats WHERE agent_uuid IN (SELECT agent_uuid FROM changed)
	ORDER BY agent_uuid FOR UPDATE;
	IF NOT FOUND THEN
		RETURN NULL;
	END IF;

	WITH turned AS (
		UPDATE erc8004_agent_clients c SET is_self = NOT c.is_self
		WHERE (c.agent_uuid, c.client_address) IN (SELECT agent_uuid, address FROM changed)
			AND c.client_address <> areg_system_address()
			AND c.is_self <> EXISTS (SELECT FROM erc8004_agent_addresses x
				WHERE x.agent_uuid = c.agent_uuid AND x.address = c.client_address)
		RETURNING c.agent_uuid, (c.scored_feedback > 0)::integer
				* CASE WHEN c.is_self THEN -1 ELSE 1 END AS opinions,
			areg_opinion(c.score_sum, c.scored_feedback)
				* CASE WHEN c.is_self THEN -1 ELSE 1 END AS opinion_sum
	)
	UPDATE erc8004_agent_stats s SET
		opinions = s.opinions + t.opinions, opinion_sum = s.opinion_sum + t.opinion_sum
	FROM (SELECT agent_uuid, sum(opinions) AS opinions, sum(opinion_sum) AS opinion_sum
		FROM turned GROUP BY agent_uuid) AS t
	WHERE s.agent_uuid = t.agent_uuid;

	UPDATE erc8004_agent_stats s SET own_opinions = areg_own_opinions(s.agent_uuid)
	WHERE s.agent_uuid IN (SELECT agent_uuid FROM changed)
		AND s.own_opinions <> areg_own_opinions(s.agent_uuid);
	RETURN NULL;
END $$;
CREATE TRIGGER erc8004_agent_addresses_stats_inserted AFTER INSERT ON erc8004_agent_addresses
	REFERENCING NEW TABLE AS changed
	FOR EACH STATEMENT EXECUTE FUNCTION areg_stats_addresses_changed();
CREATE TRIGGER erc8004_agent_addresses_stats_deleted AFTER DELETE ON erc8004_agent_addresses
	REFERENCING OLD TABLE AS changed
	FOR EACH STATEMENT EXECUTE FUNCTION areg_stats_addresses_changed();
CREATE TRIGGER erc8004_agent_addresses_fixed BEFORE UPDATE OF agent_uuid, address ON erc8004_agent_addresses
	FOR EACH STATEMENT EXECUTE FUNCTION areg_refuse_change('add a row, and end the old one');

-- A payer counts once, however often he pays, and only if he is not the agent itself and has a verified
-- payment that reaches the minimum. His rate is the share of his payments that succeeded. A failure
-- costs nothing to claim and names no transaction: so the failures that a facilitator reports count only
-- beside verified payments of the same payer that the same facilitator reported, one for each at most.
-- Rounded here, so that adding and taking away again leaves nothing.
CREATE FUNCTION areg_payer_rate(verified numeric, failed numeric) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN round(verified / nullif(verified + failed, 0), 18);
COMMENT ON FUNCTION areg_payer_rate(numeric, numeric) IS
	'The success rate of one payer, 0..1, of payments that count; 18 decimals';

-- Changes the payments of payers by as many as are given, and the statistics by what that does to the
-- rates. For triggers that hold the agents' rows of erc8004_agent_stats.
CREATE FUNCTION areg_count_payers(of_agents uuid[], of_payers text[], recorders uuid[],
	verified_changes bigint[], failed_changes bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	WITH change AS MATERIALIZED (
		SELECT agent_uuid, payer, recorded_by, sum(verified) AS verified, sum(failed) AS failed
		FROM unnest(of_agents, of_payers, recorders, verified_changes, failed_changes)
			AS c (agent_uuid, payer, recorded_by, verified, failed)
		GROUP BY agent_uuid, payer, recorded_by
	), before AS MATERIALIZED (
		SELECT p.* FROM erc8004_agent_payers p
			JOIN (SELECT DISTINCT agent_uuid, payer FROM change) AS c USING (agent_uuid, payer)
	), after AS MATERIALIZED (
		SELECT agent_uuid, payer, recorded_by,
			coalesce(b.verified, 0) + coalesce(c.verified, 0) AS verified,
			coalesce(b.failed, 0) + coalesce(c.failed, 0) AS failed,
			coalesce(b.is_self, EXISTS (SELECT FROM erc8004_agent_addresses d
				WHERE d.agent_uuid = c.agent_uuid AND d.address = c.payer)) AS is_self
		FROM before b FULL JOIN change c USING (agent_uuid, payer, recorded_by)
	), put AS (
		INSERT INTO erc8004_agent_payers AS p (agent_uuid, payer, recorded_by, verified, failed, is_self)
		SELECT a.* FROM after a JOIN change USING (agent_uuid, payer, recorded_by)
		ON CONFLICT (agent_uuid, payer, recorded_by) DO UPDATE SET
			verified = EXCLUDED.verified, failed = EXCLUDED.failed
	)
	UPDATE erc8004_agent_stats s SET
		counted_payers = s.counted_payers + d.payers,
		payer_rate_sum = s.payer_rate_sum + d.rates
	FROM (SELECT agent_uuid, sum(sign) AS payers, sum(sign * rate) AS rates
		FROM (SELECT agent_uuid, sign,
				areg_payer_rate(sum(verified), sum(least(failed, verified))) AS rate
			FROM (SELECT 1 AS sign, agent_uuid, payer, verified, failed, is_self FROM after
				UNION ALL
				SELECT -1, agent_uuid, payer, verified, failed, is_self FROM before) AS both_times
			WHERE NOT is_self
			GROUP BY sign, agent_uuid, payer HAVING sum(verified) > 0) AS each
		GROUP BY agent_uuid) AS d
	WHERE s.agent_uuid = d.agent_uuid AND (d.payers <> 0 OR d.rates <> 0);
END $$;
COMMENT ON FUNCTION areg_count_payers(uuid[], text[], uuid[], bigint[], bigint[]) IS
	'Adds to the payments of payers, and to the statistics what follows; one row of arguments for each change';

-- For linking (INSERT) and unlinking (DELETE) alike. The lock on the payments keeps their status
-- still: whoever is changing one is waited for, and whoever changes one later sees the link.
CREATE FUNCTION areg_stats_payments_linked() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
	change integer := CASE TG_OP WHEN 'INSERT' THEN 1 ELSE -1 END;
BEGIN
	PERFORM FROM x402_payments WHERE id IN (SELECT payment_id FROM links) ORDER BY id FOR SHARE;
	PERFORM FROM erc8004_agent_stats WHERE agent_uuid IN (SELECT agent_uuid FROM links)
	ORDER BY agent_uuid FOR UPDATE;

	UPDATE erc8004_agent_stats s SET
		total_payments = s.total_payments + change * d.total,
		successful_payments = s.successful_payments + change * d.successful,
		failed_payments = s.failed_payments + change * d.failed,
		total_amount_usdc = s.total_amount_usdc + change * d.amount,
		last_payment_at = (SELECT max(linked_at) FROM erc8004_agent_payments l
			WHERE l.agent_uuid = s.agent_uuid)
	FROM (SELECT l.agent_uuid, count(*) AS total,
			count(*) FILTER (WHERE p.status = 'verified') AS successful,
			count(*) FILTER (WHERE p.status = 'failed') AS failed,
			coalesce(sum(p.amount_usdc) FILTER (WHERE p.status = 'verified'), 0) AS amount
		FROM links l JOIN x402_payments p ON p.id = l.payment_id GROUP BY l.agent_uuid) AS d
	WHERE s.agent_uuid = d.agent_uuid;

	PERFORM areg_count_payers(array_agg(l.agent_uuid), array_agg(p.payer::text),
		array_agg(coalesce(p.recorded_by, '00000000-0000-0000-0000-000000000000')),
		array_agg((change * (p.status = 'verified')::integer)::bigint),
		array_agg((change * (p.status = 'failed')::integer)::bigint))
	FROM links l JOIN x402_payments p ON p.id = l.payment_id
	WHERE p.reaches_minimum AND p.status IN ('verified', 'failed') HAVING count(*) > 0;
	RETURN NULL;
END $$;
CREATE TRIGGER erc8004_agent_payments_stats_inserted AFTER INSERT ON erc8004_agent_payments
	REFERENCING NEW TABLE AS links
	FOR EACH STATEMENT EXECUTE FUNCTION areg_stats_payments_linked();
CREATE TRIGGER erc8004_agent_payments_stats_deleted AFTER DELETE ON erc8004_agent_payments
	REFERENCING OLD TABLE AS links
	FOR EACH STATEMENT EXECUTE FUNCTION areg_stats_payments_linked();

CREATE FUNCTION areg_stats_payments_updated() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM FROM erc8004_agent_stats WHERE agent_uuid IN (SELECT l.agent_uuid
		FROM old_rows o JOIN erc8004_agent_payments l ON l.payment_id = o.id)
	ORDER BY agent_uuid FOR UPDATE;

	UPDATE erc8004_agent_stats s SET
		successful_payments = s.successful_payments + d.successful,
		failed_payments = s.failed_payments + d.failed,
		total_amount_usdc = s.total_amount_usdc + d.amount
	FROM (SELECT l.agent_uuid,
			sum((n.status = 'verified')::integer - (o.status = 'verified')::integer) AS successful,
			sum((n.status = 'failed')::integer - (o.status = 'failed')::integer) AS failed,
			sum(CASE n.status WHEN 'verified' THEN n.amount_usdc ELSE 0 END
				- CASE o.status WHEN 'verified' THEN o.amount_usdc ELSE 0 END) AS amount
		FROM old_rows o JOIN new_rows n USING (id)
		JOIN erc8004_agent_payments l ON l.payment_id = id
		WHERE (o.status, o.amount_usdc) <> (n.status, n.amount_usdc) GROUP BY l.agent_uuid) AS d
	WHERE s.agent_uuid = d.agent_uuid;

	PERFORM areg_count_payers(array_agg(l.agent_uuid), array_agg(c.payer::text),
		array_agg(coalesce(c.recorded_by, '00000000-0000-0000-0000-000000000000')),
		array_agg((c.sign * (c.status = 'verified')::integer)::bigint),
		array_agg((c.sign * (c.status = 'failed')::integer)::bigint))
	FROM (SELECT -1 AS sign, * FROM old_rows UNION ALL SELECT 1, * FROM new_rows) AS c
		JOIN erc8004_agent_payments l ON l.payment_id = c.id
	WHERE c.reaches_minimum AND c.status IN ('verified', 'failed') HAVING count(*) > 0;
	RETURN NULL;
END $$;
CREATE TRIGGER x402_payments_stats_updated AFTER UPDATE ON x402_payments
	REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
	FOR EACH STATEMENT EXECUTE FUNCTION areg_stats_payments_updated();

-- A payer who becomes an owner, wallet or operator counts no more. An agent that has statistics is
-- locked even if the address has paid nothing: a payment that is linked meanwhile comes before or
-- after, and sees the address in the second case.
CREATE FUNCTION areg_payers_addresses_inserted() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM FROM erc8004_agent_stats WHERE agent_uuid IN (SELECT agent_uuid FROM new_rows)
	ORDER BY agent_uuid FOR UPDATE;
	IF NOT FOUND THEN
		RETURN NULL; -- agents that are being registered
	END IF;

	WITH self AS (
		UPDATE erc8004_agent_payers p SET is_self = true
		FROM (SELECT DISTINCT agent_uuid, address FROM new_rows) AS n
		WHERE p.agent_uuid = n.agent_uuid AND p.payer = n.address AND NOT p.is_self
		RETURNING p.agent_uuid, p.payer, p.verified, p.failed
	)
	UPDATE erc8004_agent_stats s SET
		counted_payers = s.counted_payers - d.payers,
		payer_rate_sum = s.payer_rate_sum - d.rates
	FROM (SELECT agent_uuid, count(*) AS payers, sum(rate) AS rates
		FROM (SELECT agent_uuid, areg_payer_rate(sum(verified), sum(least(failed, verified))) AS rate
			FROM self GROUP BY agent_uuid, payer HAVING sum(verified) > 0) AS each
		GROUP BY agent_uuid) AS d
	WHERE s.agent_uuid = d.agent_uuid;
	RETURN NULL;
END $$;
CREATE TRIGGER erc8004_agent_addresses_payers_inserted AFTER INSERT ON erc8004_agent_addresses
	REFERENCING NEW TABLE AS new_rows
	FOR EACH STATEMENT EXECUTE FUNCTION areg_payers_addresses_inserted();

CREATE FUNCTION areg_rebuild_stats() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	LOCK TABLE erc8004_agents, erc8004_reputation, x402_payments, erc8004_agent_payments
		IN SHARE ROW EXCLUSIVE MODE;

	PERFORM areg_track_addresses(ARRAY(SELECT agent_uuid FROM erc8004_agents));

	DELETE FROM erc8004_agent_counts;
	INSERT INTO erc8004_agent_counts (chain, status, agents)
	SELECT chain, status, count(*) FROM erc8004_agents GROUP BY chain, status;

	INSERT INTO erc8004_agent_counters AS c (chain, registry_address, next_agent_id)
	SELECT chain, registry_address, max(agent_id) + 1 FROM erc8004_agents
	WHERE agent_id IS NOT NULL GROUP BY chain, registry_address
	ON CONFLICT (chain, registry_address) DO UPDATE
		SET next_agent_id = greatest(c.next_agent_id, EXCLUDED.next_agent_id);

	-- last_index is history and only grows.
	DELETE FROM erc8004_agent_clients c
	WHERE NOT EXISTS (SELECT FROM erc8004_agents a WHERE a.agent_uuid = c.agent_uuid);
	UPDATE erc8004_agent_clients SET active_feedback = 0, scored_feedback = 0, score_sum = 0,
		is_self = false, tag_feedback = 0, tag_sum = 0;
	INSERT INTO erc8004_agent_clients AS c (agent_uuid, client_address, last_index, active_feedback,
		scored_feedback, score_sum, tag1, tag_feedback, tag_sum)
	SELECT agent_uuid, client_address, max(last_index), sum(active), sum(scored), sum(score_sum), first_tag,
		coalesce(sum(active) FILTER (WHERE tag_key = first_tag), 0),
		coalesce(sum(value_sum) FILTER (WHERE tag_key = first_tag), 0)
	FROM (SELECT t.*, coalesce(c.tag1,
				min(t.tag_key) OVER (PARTITION BY t.agent_uuid, t.client_address)) AS first_tag
		FROM (SELECT agent_uuid, client_address, tag_key, max(feedback_index) AS last_index,
				count(*) FILTER (WHERE NOT is_revoked) AS active,
				count(score) FILTER (WHERE NOT is_revoked) AS scored,
				coalesce(sum(score) FILTER (WHERE NOT is_revoked), 0) AS score_sum,
				coalesce(sum(normalized) FILTER (WHERE NOT is_revoked), 0) AS value_sum
			FROM erc8004_reputation GROUP BY agent_uuid, client_address, tag_key) AS t
			LEFT JOIN erc8004_agent_clients c
				ON c.agent_uuid = t.agent_uuid AND c.client_address = t.client_address) AS of_tag
	GROUP BY agent_uuid, client_address, first_tag
	ON CONFLICT (agent_uuid, client_address) DO UPDATE SET
		last_index = greatest(c.last_index, EXCLUDED.last_index),
		active_feedback = EXCLUDED.active_feedback, scored_feedback = EXCLUDED.scored_feedback,
		score_sum = EXCLUDED.score_sum, tag_feedback = EXCLUDED.tag_feedback,
		tag_sum = EXCLUDED.tag_sum;
	UPDATE erc8004_agent_clients c SET is_self = true
	WHERE c.client_address <> areg_system_address()
		AND (c.agent_uuid, c.client_address) IN (SELECT agent_uuid, address FROM erc8004_agent_addresses);

	DELETE FROM erc8004_agent_client_tags;
	INSERT INTO erc8004_agent_client_tags (agent_uuid, client_address, tag1, feedback_count, value_sum)
	SELECT r.agent_uuid, r.client_address, r.tag_key, count(*) FILTER (WHERE NOT r.is_revoked),
		coalesce(sum(r.normalized) FILTER (WHERE NOT r.is_revoked), 0)
	FROM erc8004_reputation r JOIN erc8004_agent_clients c
		ON c.agent_uuid = r.agent_uuid AND c.client_address = r.client_address
	WHERE r.tag_key <> c.tag1 GROUP BY r.agent_uuid, r.client_address, r.tag_key;

	DELETE FROM erc8004_agent_tags;
	INSERT INTO erc8004_agent_tags (agent_uuid, tag1, feedback_count, value_sum, opinions, opinion_sum)
	SELECT agent_uuid, tag_key, sum(feedback_count), sum(value_sum),
		count(*) FILTER (WHERE feedback_count > 0), sum(areg_opinion(value_sum, feedback_count))
	FROM (SELECT agent_uuid, tag_key, count(*) FILTER (WHERE NOT is_revoked) AS feedback_count,
			coalesce(sum(normalized) FILTER (WHERE NOT is_revoked), 0) AS value_sum
		FROM erc8004_reputation GROUP BY agent_uuid, client_address, tag_key) AS of_client
	GROUP BY agent_uuid, tag_key;

	DELETE FROM erc8004_agent_payers;
	INSERT INTO erc8004_agent_payers (agent_uuid, payer, recorded_by, verified, failed, is_self)
	SELECT agent_uuid, payer, coalesce(recorded_by, '00000000-0000-0000-0000-000000000000'),
		count(*) FILTER (WHERE status = 'verified'), count(*) FILTER (WHERE status = 'failed'),
		EXISTS (SELECT FROM erc8004_agent_addresses d
			WHERE d.agent_uuid = l.agent_uuid AND d.address = p.payer)
	FROM erc8004_agent_payments l JOIN x402_payments p ON p.id = l.payment_id
	WHERE reaches_minimum AND status IN ('verified', 'failed')
	GROUP BY l.agent_uuid, p.payer, 3;

	DELETE FROM erc8004_agent_stats;
	INSERT INTO erc8004_agent_stats (agent_uuid, chain, status, registered_at, total_feedback,
		scored_feedback, score_sum, automatic_scored, automatic_score_sum, opinions,
		opinion_sum, own_opinions, positive_feedback, negative_feedback, revoked_feedback, unique_clients, last_feedback_at, total_payments, successful_payments,
		failed_payments, total_amount_usdc, last_payment_at, counted_payers, payer_rate_sum)
	SELECT a.agent_uuid, a.chain, a.status, a.created_at, coalesce(f.total, 0), coalesce(f.scored, 0),
		coalesce(f.score_sum, 0), coalesce(f.automatic_scored, 0),
		coalesce(f.automatic_score_sum, 0), coalesce(c.opinions, 0), coalesce(c.opinion_sum, 0),
		CASE WHEN c.has_own THEN areg_own_opinions(a.agent_uuid) ELSE '{}' END, coalesce(f.positive, 0), coalesce(f.negative, 0), coalesce(f.revoked, 0),
		coalesce(c.clients, 0), f.last_at,
		coalesce(p.total, 0), coalesce(p.successful, 0), coalesce(p.failed, 0),
		coalesce(p.amount, 0), p.last_at, coalesce(paid.payers, 0), coalesce(paid.rates, 0)
	FROM erc8004_agents a
	LEFT JOIN (SELECT agent_uuid,
			count(*) FILTER (WHERE NOT is_revoked) AS total,
			count(score) FILTER (WHERE NOT is_revoked) AS scored,
			sum(score) FILTER (WHERE NOT is_revoked) AS score_sum,
			count(score) FILTER (WHERE NOT is_revoked AND is_automatic) AS automatic_scored,
			sum(score) FILTER (WHERE NOT is_revoked AND is_automatic) AS automatic_score_sum,
			count(*) FILTER (WHERE NOT is_revoked AND score >= 80) AS positive,
			count(*) FILTER (WHERE NOT is_revoked AND score < 50) AS negative,
			count(*) FILTER (WHERE is_revoked) AS revoked,
			max(created_at) FILTER (WHERE NOT is_revoked) AS last_at
		FROM erc8004_reputation GROUP BY agent_uuid) AS f USING (agent_uuid)
	LEFT JOIN (SELECT agent_uuid, count(*) FILTER (WHERE active_feedback > 0) AS clients,
			count(*) FILTER (WHERE scored_feedback > 0 AND NOT is_self) AS opinions,
			sum(areg_opinion(score_sum, scored_feedback)) FILTER (WHERE NOT is_self) AS opinion_sum,
			bool_or(is_self) AS has_own
		FROM erc8004_agent_clients WHERE client_address <> areg_system_address()
		GROUP BY agent_uuid) AS c USING (agent_uuid)
	LEFT JOIN (SELECT agent_uuid, count(*) AS total,
			count(*) FILTER (WHERE status = 'verified') AS successful,
			count(*) FILTER (WHERE status = 'failed') AS failed,
			sum(amount_usdc) FILTER (WHERE status = 'verified') AS amount,
			max(linked_at) AS last_at
		FROM erc8004_agent_payments JOIN x402_payments ON id = payment_id
		GROUP BY agent_uuid) AS p USING (agent_uuid)
	LEFT JOIN (SELECT agent_uuid, count(*) AS payers, sum(rate) AS rates
		FROM (SELECT agent_uuid, areg_payer_rate(sum(verified), sum(least(failed, verified))) AS rate
			FROM erc8004_agent_payers WHERE NOT is_self
			GROUP BY agent_uuid, payer HAVING sum(verified) > 0) AS each
		GROUP BY agent_uuid) AS paid USING (agent_uuid);
END $$;
COMMENT ON FUNCTION areg_rebuild_stats() IS
	'Recounts every derived table from the records, and has erc8004_agent_addresses say who owns each agent now; writers wait meanwhile. For repair and after a load with triggers off';

DO $$ BEGIN PERFORM areg_rebuild_stats(); END $$;
