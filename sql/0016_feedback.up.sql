-- All that given feedback changes beside its own row, in one trigger: statistics, totals and event.
-- Under load: takes a short lock on erc8004_reputation.
--
-- One feedback, as the API gives it, is counted by plain values in one statement; many at once, as an
-- import brings them, by sets. Each statement and each expression of a trigger costs as much as the row
-- that it writes.
CREATE FUNCTION areg_feedback_inserted() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
	given record;
BEGIN
	SELECT id, agent_uuid, client_address, feedback_index, tag1, normalized, created_at,
		coalesce(score, 0) AS points, (score IS NOT NULL)::integer AS scored,
		is_automatic::integer AS automatic,
		NOT is_revoked AND NOT EXISTS (SELECT FROM new_rows OFFSET 1) AS is_one
	INTO given FROM new_rows LIMIT 1;
	IF given.is_one THEN
		PERFORM FROM erc8004_agent_stats WHERE agent_uuid = given.agent_uuid FOR UPDATE;

		WITH client AS (
			INSERT INTO erc8004_agent_clients AS c
				(agent_uuid, client_address, last_index, active_feedback)
			VALUES (given.agent_uuid, given.client_address, given.feedback_index, 1)
			ON CONFLICT (agent_uuid, client_address) DO UPDATE SET
				last_index = greatest(c.last_index, EXCLUDED.last_index),
				active_feedback = c.active_feedback + 1
			RETURNING (active_feedback = 1)::integer AS is_new
		), tag AS (
			INSERT INTO erc8004_agent_tags AS t (agent_uuid, tag1, feedback_count, value_sum)
			VALUES (given.agent_uuid, given.tag1, 1, given.normalized)
			ON CONFLICT (agent_uuid, tag1) DO UPDATE SET
				feedback_count = t.feedback_count + 1, value_sum = t.value_sum + EXCLUDED.value_sum
		), event AS (
			INSERT INTO erc8004_events (place, type, agent_uuid, subject)
			VALUES (areg_event_place(), 'feedback.given', given.agent_uuid, given.id)
		), total AS (
			INSERT INTO erc8004_total_changes (feedback) VALUES (1)
		)
		UPDATE erc8004_agent_stats s SET
			total_feedback = s.total_feedback + 1,
			scored_feedback = s.scored_feedback + given.scored,
			score_sum = s.score_sum + given.points,
			automatic_scored = s.automatic_scored + given.automatic * given.scored,
			automatic_score_sum = s.automatic_score_sum + given.automatic * given.points,
			positive_feedback = s.positive_feedback + (given.points >= 80)::integer,
			negative_feedback = s.negative_feedback + given.scored * (given.points < 50)::integer,
			unique_clients = s.unique_clients + client.is_new,
			last_feedback_at = greatest(s.last_feedback_at, given.created_at)
		FROM client WHERE s.agent_uuid = given.agent_uuid;
		RETURN NULL;
	END IF;

	PERFORM FROM erc8004_agent_stats WHERE agent_uuid IN (SELECT agent_uuid FROM new_rows)
	ORDER BY agent_uuid FOR UPDATE;

	UPDATE erc8004_agent_stats s SET
		total_feedback = s.total_feedback + d.total,
		scored_feedback = s.scored_feedback + d.scored,
		score_sum = s.score_sum + d.score_sum,
		automatic_scored = s.automatic_scored + d.automatic_scored,
		automatic_score_sum = s.automatic_score_sum + d.automatic_score_sum,
		positive_feedback = s.positive_feedback + d.positive,
		negative_feedback = s.negative_feedback + d.negative,
		revoked_feedback = s.revoked_feedback + d.revoked,
		unique_clients = s.unique_clients + d.clients,
		last_feedback_at = greatest(s.last_feedback_at, d.last_at)
	FROM (SELECT n.agent_uuid,
			count(*) FILTER (WHERE NOT is_revoked) AS total,
			count(score) FILTER (WHERE NOT is_revoked) AS scored,
			coalesce(sum(score) FILTER (WHERE NOT is_revoked), 0) AS score_sum,
			count(score) FILTER (WHERE NOT is_revoked AND is_automatic) AS automatic_scored,
			coalesce(sum(score) FILTER (WHERE NOT is_revoked AND is_automatic), 0)
				AS automatic_score_sum,
			count(*) FILTER (WHERE NOT is_revoked AND score >= 80) AS positive,
			count(*) FILTER (WHERE NOT is_revoked AND score < 50) AS negative,
			count(*) FILTER (WHERE is_revoked) AS revoked,
			count(DISTINCT n.client_address)
				FILTER (WHERE NOT is_revoked AND coalesce(c.active_feedback, 0) = 0) AS clients,
			max(created_at) FILTER (WHERE NOT is_revoked) AS last_at
		FROM new_rows n LEFT JOIN erc8004_agent_clients c
			ON c.agent_uuid = n.agent_uuid AND c.client_address = n.client_address
		GROUP BY n.agent_uuid) AS d
	WHERE s.agent_uuid = d.agent_uuid;

	INSERT INTO erc8004_agent_clients AS c (agent_uuid, client_address, last_index, active_feedback)
	SELECT agent_uuid, client_address, max(feedback_index), count(*) FILTER (WHERE NOT is_revoked)
	FROM new_rows GROUP BY agent_uuid, client_address
	ON CONFLICT (agent_uuid, client_address) DO UPDATE SET
		last_index = greatest(c.last_index, EXCLUDED.last_index),
		active_feedback = c.active_feedback + EXCLUDED.active_feedback;

	INSERT INTO erc8004_agent_tags AS t (agent_uuid, tag1, feedback_count, value_sum)
	SELECT agent_uuid, tag1, count(*), sum(normalized)
	FROM new_rows WHERE NOT is_revoked GROUP BY agent_uuid, tag1
	ON CONFLICT (agent_uuid, tag1) DO UPDATE SET
		feedback_count = t.feedback_count + EXCLUDED.feedback_count,
		value_sum = t.value_sum + EXCLUDED.value_sum;

	INSERT INTO erc8004_events (place, type, agent_uuid, subject)
	SELECT (SELECT areg_event_place()), 'feedback.given', agent_uuid, id FROM new_rows ORDER BY id;
	INSERT INTO erc8004_total_changes (feedback, revoked_feedback)
	SELECT count(*), count(*) FILTER (WHERE is_revoked) FROM new_rows HAVING count(*) > 0;
	RETURN NULL;
END $$;
CREATE TRIGGER erc8004_reputation_inserted AFTER INSERT ON erc8004_reputation
	REFERENCING NEW TABLE AS new_rows
	FOR EACH STATEMENT EXECUTE FUNCTION areg_feedback_inserted();
