-- SPDX-License-Identifier: Apache-2.0
-- Feedback comes in, with all that it changes beside its own row: statistics, totals and event.
-- Under load: takes a short lock on erc8004_reputation.

-- One feedback, as the API gives it. Each statement, expression and trigger costs as much as the row that
-- it writes, because PostgreSQL sets up each of them anew in every transaction: so this counts what it
-- stores by itself, and tells erc8004_reputation_inserted by a setting, which that trigger takes back.
-- The setting is assigned, because PERFORM costs a statement, and SET beside the function takes a
-- superuser. From one statement to the next by variables: a row that another part of a statement
-- returns costs more. Each operator has its price, also where its branch is not taken; and a subquery within
-- an expression, but not one in FROM, has the whole statement searched for tables at every use.
-- Locks in the order that 0005_statistics says. The one on the statistics is what hands out
-- feedback_index: nobody else gives this agent feedback until this transaction ends.
CREATE FUNCTION areg_give_feedback(to_agent uuid, from_client text, given_score text,
	given_value text, given_decimals integer, given_tag1 text, given_tag2 text,
	given_endpoint text, given_file_uri text, given_file_hash text, automatic boolean DEFAULT false,
	most_a_day integer DEFAULT 0)
RETURNS TABLE (outcome text, id bigint, feedback_index bigint, score numeric, value numeric,
	value_decimals integer, created_at text, is_self boolean)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
	client eth_address := from_client;
	points numeric;
	number numeric := coalesce(given_score::numeric,
		areg_normalized(given_value::numeric, coalesce(given_decimals, 0)));
	tag text;
	given_at timestamptz;
	active bigint;
	is_new integer;
	times bigint;
	sum numeric;
	new_opinion integer;
	opinion numeric;
	own numeric[];
	first_tag text;
	tag_times bigint;
	tag_sum numeric;
	new_tag_opinion integer;
	tag_opinion numeric;
	is_counted text;
BEGIN
	IF (given_score IS NULL) = (given_value IS NULL) THEN
		RAISE EXCEPTION 'either a score or a value' USING ERRCODE = 'invalid_parameter_value';
	END IF;

	SELECT CASE
		WHEN automatic THEN 'created'
		WHEN a.status = 'suspended' THEN 'agent_suspended'
		WHEN a.status <> 'active' THEN 'agent_not_active'
		WHEN a.owner_address = from_client THEN 'own_agent'
		ELSE 'created' END,
		areg_feedback_score(number, given_score IS NOT NULL, coalesce(given_tag1, '')),
		areg_tag_key(coalesce(given_tag1, ''))
	INTO outcome, points, tag
	FROM erc8004_agents a JOIN erc8004_agent_stats s ON s.agent_uuid = a.agent_uuid
	WHERE a.agent_uuid = to_agent FOR KEY SHARE OF a FOR UPDATE OF s;

	IF outcome = 'created' THEN
		INSERT INTO erc8004_agent_clients AS c (agent_uuid, client_address, last_index,
			active_feedback, scored_feedback, score_sum, given_on, given_today, is_self, tag1,
			tag_feedback, tag_sum)
		SELECT to_agent, client, 1, 1, CASE WHEN points IS NULL THEN 0 ELSE 1 END, coalesce(points, 0),
			areg_today(), 1, own_address.times > 0 AND NOT automatic, tag, 1, number
		FROM (SELECT count(*) AS times FROM erc8004_agent_addresses x
			WHERE x.agent_uuid = to_agent AND x.address = client) AS own_address
		ON CONFLICT (agent_uuid, client_address) DO UPDATE SET
			last_index = c.last_index + 1, active_feedback = c.active_feedback + 1,
			scored_feedback = c.scored_feedback + EXCLUDED.scored_feedback,
			score_sum = c.score_sum + EXCLUDED.score_sum,
			given_on = greatest(c.given_on, EXCLUDED.given_on),
			given_today = CASE WHEN c.given_on >= EXCLUDED.given_on THEN c.given_today ELSE 0 END + 1,
			tag_feedback = CASE WHEN c.tag1 = EXCLUDED.tag1 THEN c.tag_feedback + 1 ELSE c.tag_feedback END,
			tag_sum = CASE WHEN c.tag1 = EXCLUDED.tag1 THEN c.tag_sum + EXCLUDED.tag_sum ELSE c.tag_sum END
			WHERE most_a_day = 0 OR c.given_today < most_a_day
				OR c.given_on IS NULL OR c.given_on < EXCLUDED.given_on
		RETURNING c.last_index, c.is_self, c.active_feedback, c.scored_feedback, c.score_sum, c.tag1,
			c.tag_feedback, c.tag_sum, set_config('areg.feedback_is_counted', 'on', true)
		INTO feedback_index, is_self, active, times, sum, first_tag, tag_times, tag_sum, is_counted;

		-- Most feedback is a client's first, from a stranger to the agent. For it the variables set
		-- below stay null, and the statements at the end use their defaults.
		IF feedback_index IS DISTINCT FROM 1 OR is_self OR automatic THEN
			IF feedback_index IS NULL THEN
				outcome := 'enough_today';
				RETURN NEXT;
				RETURN;
			END IF;
			is_new := (active = 1 AND NOT automatic)::integer;
			IF is_self OR automatic OR points IS NULL THEN
				new_opinion := 0;
				opinion := 0;
				IF is_self THEN
					own := areg_own_opinions(to_agent);
				END IF;
			ELSE
				new_opinion := (times = 1)::integer;
				opinion := areg_opinion(sum, times) - areg_opinion(sum - points, times - 1);
			END IF;
			IF tag <> first_tag THEN
				INSERT INTO erc8004_agent_client_tags AS t (agent_uuid, client_address, tag1,
					feedback_count, value_sum)
				VALUES (to_agent, client, tag, 1, number)
				ON CONFLICT (agent_uuid, client_address, tag1) DO UPDATE SET
					feedback_count = t.feedback_count + 1, value_sum = t.value_sum + EXCLUDED.value_sum
				RETURNING t.feedback_count, t.value_sum INTO tag_times, tag_sum;
			END IF;
			new_tag_opinion := (tag_times = 1)::integer;
			tag_opinion := areg_opinion(tag_sum, tag_times)
				- areg_opinion(tag_sum - number, tag_times - 1);
		END IF;

		INSERT INTO erc8004_reputation AS f (agent_uuid, client_address, feedback_index,
			has_explicit_score, value, value_decimals, tag1, tag2, endpoint, file_uri, file_hash,
			is_automatic)
		VALUES (to_agent, client, areg_give_feedback.feedback_index, given_score IS NOT NULL,
			coalesce(given_value::numeric, trim_scale(number * 10::numeric ^ scale(number))),
			coalesce(scale(given_score::numeric), given_decimals, 0), coalesce(given_tag1, ''),
			coalesce(given_tag2, ''), given_endpoint, given_file_uri, given_file_hash, automatic)
		RETURNING f.id, areg_shown_score(f.score), f.value, f.value_decimals, rfc3339(f.created_at),
			f.created_at
		INTO id, score, value, value_decimals, created_at, given_at;

		WITH counted_tag AS (
			INSERT INTO erc8004_agent_tags AS t (agent_uuid, tag1, feedback_count, value_sum,
				opinions, opinion_sum)
			VALUES (to_agent, tag, 1, number, coalesce(new_tag_opinion, 1),
				coalesce(tag_opinion, areg_opinion(number, 1)))
			ON CONFLICT (agent_uuid, tag1) DO UPDATE SET
				feedback_count = t.feedback_count + 1, value_sum = t.value_sum + EXCLUDED.value_sum,
				opinions = t.opinions + EXCLUDED.opinions,
				opinion_sum = t.opinion_sum + EXCLUDED.opinion_sum
		), event AS (
			INSERT INTO erc8004_events (place, type, agent_uuid, subject)
			SELECT place, 'feedback.given', to_agent, areg_give_feedback.id FROM areg_event_place()
		), total AS (
			INSERT INTO erc8004_total_changes (feedback) VALUES (1)
		)
		UPDATE erc8004_agent_stats s SET
			total_feedback = s.total_feedback + 1,
			scored_feedback = s.scored_feedback + CASE WHEN points IS NULL THEN 0 ELSE 1 END,
			score_sum = s.score_sum + coalesce(points, 0),
			automatic_scored = CASE WHEN automatic AND points IS NOT NULL THEN s.automatic_scored + 1
				ELSE s.automatic_scored END,
			automatic_score_sum = CASE WHEN automatic THEN s.automatic_score_sum + coalesce(points, 0)
				ELSE s.automatic_score_sum END,
			opinions = s.opinions + coalesce(new_opinion, CASE WHEN points IS NULL THEN 0 ELSE 1 END),
			opinion_sum = s.opinion_sum + coalesce(opinion, areg_opinion(points, 1), 0),
			own_opinions = coalesce(own, s.own_opinions),
			positive_feedback = s.positive_feedback + CASE WHEN points >= 80 THEN 1 ELSE 0 END,
			negative_feedback = s.negative_feedback + CASE WHEN points < 50 THEN 1 ELSE 0 END,
			unique_clients = s.unique_clients + coalesce(is_new, 1),
			last_feedback_at = greatest(s.last_feedback_at, given_at)
		WHERE s.agent_uuid = to_agent;
	ELSE
		outcome := coalesce(outcome, 'agent_not_found');
	END IF;
	RETURN NEXT;
END $$;
COMMENT ON FUNCTION areg_give_feedback(uuid, text, text, text, integer, text, text, text, text, text,
	boolean, integer) IS
	'Stores one feedback; outcome: created (and what the caller did not know), agent_not_found, agent_suspended, agent_not_active, own_agent, enough_today (the client has given the agent most_a_day; 0: no limit). Automatic feedback is of this registry, and never refused';

-- Feedback that comes otherwise, by an import or by hand, is counted by sets. Feedback of a session that
-- sets areg.feedback_is_counted itself is not counted until areg_rebuild_stats() runs. The setting is
-- read here, because a condition of the trigger is read and planned anew for every statement.
CREATE FUNCTION areg_feedback_inserted() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
	IF (CASE WHEN current_setting('areg.feedback_is_counted', true) = 'on'
		THEN set_config('areg.feedback_is_counted', 'off', true) END) = 'off' THEN
		RETURN NULL;
	END IF;
	PERFORM FROM erc8004_agent_stats WHERE agent_uuid IN (SELECT agent_uuid FROM new_rows)
	ORDER BY agent_uuid FOR UPDATE;

	WITH of_client AS MATERIALIZED (
		SELECT agent_uuid, client_address, max(feedback_index) AS last_index,
			count(*) FILTER (WHERE NOT is_revoked) AS active,
			count(score) FILTER (WHERE NOT is_revoked) AS scored,
			coalesce(sum(score) FILTER (WHERE NOT is_revoked), 0) AS score_sum,
			count(*) FILTER (WHERE source = 'api') AS given, first_tag,
			count(*) FILTER (WHERE NOT is_revoked AND tag_key = first_tag) AS tag_active,
			coalesce(sum(normalized) FILTER (WHERE NOT is_revoked AND tag_key = first_tag), 0) AS tag_sum
		FROM (SELECT n.*, coalesce(c.tag1,
					min(n.tag_key) OVER (PARTITION BY n.agent_uuid, n.client_address)) AS first_tag
			FROM new_rows n LEFT JOIN erc8004_agent_clients c
				ON c.agent_uuid = n.agent_uuid AND c.client_address = n.client_address) AS n
		GROUP BY agent_uuid, client_address, first_tag
	), counted AS (
		INSERT INTO erc8004_agent_clients AS c (agent_uuid, client_address, last_index,
			active_feedback, scored_feedback, score_sum, given_on, given_today, is_self, tag1,
			tag_feedback, tag_sum)
		SELECT agent_uuid, client_address, last_index, active, scored, score_sum,
			CASE WHEN given > 0 THEN areg_today() END, given,
			client_address <> areg_system_address() AND EXISTS (
				SELECT FROM erc8004_agent_addresses x
				WHERE x.agent_uuid = of_client.agent_uuid AND x.address = client_address),
			first_tag, tag_active, tag_sum
		FROM of_client
		ON CONFLICT (agent_uuid, client_address) DO UPDATE SET
			last_index = greatest(c.last_index, EXCLUDED.last_index),
			active_feedback = c.active_feedback + EXCLUDED.active_feedback,
			scored_feedback = c.scored_feedback + EXCLUDED.scored_feedback,
			score_sum = c.score_sum + EXCLUDED.score_sum,
			given_on = greatest(c.given_on, EXCLUDED.given_on),
			given_today = CASE WHEN c.given_on < EXCLUDED.given_on THEN 0 ELSE c.given_today END
				+ EXCLUDED.given_today,
			tag_feedback = c.tag_feedback + EXCLUDED.tag_feedback,
			tag_sum = c.tag_sum + EXCLUDED.tag_sum
		RETURNING c.*
	), opinion AS (
		SELECT o.agent_uuid,
			sum((c.active_feedback > 0)::integer - (c.active_feedback > o.active)::integer) AS clients,
			sum((c.scored_feedback > 0)::integer - (c.scored_feedback > o.scored)::integer)
				FILTER (WHERE NOT c.is_self) AS opinions,
			sum(areg_opinion(c.score_sum, c.scored_feedback)
				- areg_opinion(c.score_sum - o.score_sum, c.scored_feedback - o.scored))
				FILTER (WHERE NOT c.is_self) AS opinion_sum
		FROM of_client o JOIN counted c
			ON c.agent_uuid = o.agent_uuid AND c.client_address = o.client_address
		WHERE o.client_address <> areg_system_address() GROUP BY o.agent_uuid
	)
	UPDATE erc8004_agent_stats s SET
		total_feedback = s.total_feedback + d.total,
		scored_feedback = s.scored_feedback + d.scored,
		score_sum = s.score_sum + d.score_sum,
		automatic_scored = s.automatic_scored + d.automatic_scored,
		automatic_score_sum = s.automatic_score_sum + d.automatic_score_sum,
		positive_feedback = s.positive_feedback + d.positive,
		negative_feedback = s.negative_feedback + d.negative,
		revoked_feedback = s.revoked_feedback + d.revoked,
		unique_clients = s.unique_clients + coalesce(o.clients, 0),
		opinions = s.opinions + coalesce(o.opinions, 0),
		opinion_sum = s.opinion_sum + coalesce(o.opinion_sum, 0),
		last_feedback_at = greatest(s.last_feedback_at, d.last_at)
	FROM (SELECT agent_uuid,
			count(*) FILTER (WHERE NOT is_revoked) AS total,
			count(score) FILTER (WHERE NOT is_revoked) AS scored,
			coalesce(sum(score) FILTER (WHERE NOT is_revoked), 0) AS score_sum,
			count(score) FILTER (WHERE NOT is_revoked AND is_automatic) AS automatic_scored,
			coalesce(sum(score) FILTER (WHERE NOT is_revoked AND is_automatic), 0)
				AS automatic_score_sum,
			count(*) FILTER (WHERE NOT is_revoked AND score >= 80) AS positive,
			count(*) FILTER (WHERE NOT is_revoked AND score < 50) AS negative,
			count(*) FILTER (WHERE is_revoked) AS revoked,
			max(created_at) FILTER (WHERE NOT is_revoked) AS last_at
		FROM new_rows GROUP BY agent_uuid) AS d
		LEFT JOIN opinion o ON o.agent_uuid = d.agent_uuid
	WHERE s.agent_uuid = d.agent_uuid;

	UPDATE erc8004_agent_stats s SET own_opinions = areg_own_opinions(s.agent_uuid)
	WHERE s.agent_uuid IN (SELECT n.agent_uuid FROM new_rows n JOIN erc8004_agent_clients c
		ON c.agent_uuid = n.agent_uuid AND c.client_address = n.client_address WHERE c.is_self);

	WITH of_client AS MATERIALIZED (
		SELECT c.agent_uuid, c.client_address, n.tag_key, n.tag_key <> c.tag1 AS is_other, c.tag_feedback,
			c.tag_sum, count(*) FILTER (WHERE NOT n.is_revoked) AS times,
			coalesce(sum(n.normalized) FILTER (WHERE NOT n.is_revoked), 0) AS value_sum
		FROM new_rows n JOIN erc8004_agent_clients c
			ON c.agent_uuid = n.agent_uuid AND c.client_address = n.client_address
		GROUP BY c.agent_uuid, c.client_address, n.tag_key
	), other AS (
		INSERT INTO erc8004_agent_client_tags AS t (agent_uuid, client_address, tag1,
			feedback_count, value_sum)
		SELECT agent_uuid, client_address, tag_key, times, value_sum FROM of_client WHERE is_other
		ON CONFLICT (agent_uuid, client_address, tag1) DO UPDATE SET
			feedback_count = t.feedback_count + EXCLUDED.feedback_count,
			value_sum = t.value_sum + EXCLUDED.value_sum
		RETURNING t.*
	), counted AS (
		SELECT o.*, coalesce(t.feedback_count, o.tag_feedback) AS all_times,
			coalesce(t.value_sum, o.tag_sum) AS all_sum
		FROM of_client o LEFT JOIN other t ON t.agent_uuid = o.agent_uuid
			AND t.client_address = o.client_address AND t.tag1 = o.tag_key
	)
	INSERT INTO erc8004_agent_tags AS t (agent_uuid, tag1, feedback_count, value_sum, opinions,
		opinion_sum)
	SELECT agent_uuid, tag_key, sum(times), sum(value_sum),
		sum((all_times > 0)::integer - (all_times > times)::integer),
		sum(areg_opinion(all_sum, all_times)
			- areg_opinion(all_sum - value_sum, all_times - times))
	FROM counted GROUP BY agent_uuid, tag_key
	ON CONFLICT (agent_uuid, tag1) DO UPDATE SET
		feedback_count = t.feedback_count + EXCLUDED.feedback_count,
		value_sum = t.value_sum + EXCLUDED.value_sum,
		opinions = t.opinions + EXCLUDED.opinions,
		opinion_sum = t.opinion_sum + EXCLUDED.opinion_sum;

	INSERT INTO erc8004_events (place, type, agent_uuid, subject)
	SELECT (SELECT place FROM areg_event_place()), 'feedback.given', agent_uuid, id FROM new_rows
	ORDER BY id;
	INSERT INTO erc8004_total_changes (feedback, revoked_feedback)
	SELECT count(*), count(*) FILTER (WHERE is_revoked) FROM new_rows HAVING count(*) > 0;
	RETURN NULL;
END $$;
CREATE TRIGGER erc8004_reputation_inserted AFTER INSERT ON erc8004_reputation
	REFERENCING NEW TABLE AS new_rows
	FOR EACH STATEMENT EXECUTE FUNCTION areg_feedback_inserted();

-- Several feedbacks at once, with their entries in the audit log: a row of arguments for each, as
-- areg_give_feedback() takes them, then who gave it (user, key prefix), request id and client address.
-- Stores those that can be stored now, and returns a row for each of them, with its place among the
-- arguments from 1 on. Not stored is what the agent does not take, what is past the client's limit a day,
-- and what somebody else is in the way of: so nobody waits here behind a lock, and there is no order to keep to. The trigger above counts.
-- An index counts on from the client's last: who holds the statistics is the only one to change that.
CREATE FUNCTION areg_give_feedback_together(to_agents uuid[], from_clients text[], given_scores text[],
	given_values text[], given_decimals integer[], given_tag1 text[], given_tag2 text[],
	given_endpoints text[], given_file_uris text[], given_file_hashes text[], users uuid[], actors text[],
	request_ids text[], addresses text[], most_a_day integer)
RETURNS TABLE (place bigint, id bigint, agent_uuid uuid, feedback_index bigint, score numeric,
	value numeric, value_decimals integer, created_at text, is_self boolean)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
	free uuid[];
BEGIN
	free := ARRAY(
		SELECT a.agent_uuid
		FROM erc8004_agents a JOIN erc8004_agent_stats s ON s.agent_uuid = a.agent_uuid
		WHERE a.agent_uuid = ANY (to_agents) AND a.status = 'active'
		FOR KEY SHARE OF a SKIP LOCKED FOR UPDATE OF s SKIP LOCKED);

	RETURN QUERY
	WITH item AS MATERIALIZED (
		SELECT i.*, coalesce(c.last_index, 0) + row_number() OVER of_client AS feedback_index,
			CASE WHEN c.given_on >= areg_today() THEN c.given_today ELSE 0 END
				+ row_number() OVER of_client AS given_today
		FROM unnest(to_agents, from_clients, given_scores, given_values, given_decimals, given_tag1,
				given_tag2, given_endpoints, given_file_uris, given_file_hashes, users, actors,
				request_ids, addresses) WITH ORDINALITY
			AS i (agent_uuid, client_address, score, value, decimals, tag1, tag2, endpoint, file_uri,
				file_hash, actor_user, actor, request_id, remote_address, place)
			JOIN erc8004_agents a ON a.agent_uuid = i.agent_uuid
				AND a.owner_address <> i.client_address
			LEFT JOIN erc8004_agent_clients c
				ON c.agent_uuid = i.agent_uuid AND c.client_address = i.client_address
		WHERE i.agent_uuid = ANY (free)
		WINDOW of_client AS (PARTITION BY i.agent_uuid, i.client_address ORDER BY i.place)
	), given AS (
		INSERT INTO erc8004_reputation AS f (agent_uuid, client_address, feedback_index,
			has_explicit_score, value, value_decimals, tag1, tag2, endpoint, file_uri, file_hash)
		SELECT i.agent_uuid, i.client_address, i.feedback_index, i.score IS NOT NULL,
			coalesce(i.value::numeric,
				trim_scale(i.score::numeric * 10::numeric ^ scale(i.score::numeric))),
			coalesce(scale(i.score::numeric), i.decimals, 0), i.tag1, i.tag2, i.endpoint, i.file_uri,
			i.file_hash
		FROM item i WHERE most_a_day = 0 OR i.given_today <= most_a_day ORDER BY i.place
		RETURNING f.id, f.agent_uuid, f.client_address, f.feedback_index, areg_shown_score(f.score) AS score,
			f.value, f.value_decimals, f.tag1, f.tag2, f.created_at
	), known AS MATERIALIZED (
		SELECT g.*, i.place, i.actor_user, i.actor, i.request_id, i.remote_address
		FROM given g JOIN item i USING (agent_uuid, client_address, feedback_index)
	), audited AS (
		INSERT INTO audit_log (actor_user, actor, request_id, client_address, action, subject_type,
			subject_id, after)
		SELECT k.actor_user, k.actor, k.request_id, areg_client_address(k.remote_address),
			'feedback.give', 'feedback', k.id,
			jsonb_build_object('agent_uuid', k.agent_uuid, 'client_address', k.client_address,
				'feedback_index', k.feedback_index, 'score', k.score, 'value', k.value,
				'value_decimals', k.value_decimals, 'tag1', k.tag1, 'tag2', k.tag2)
		FROM known k ORDER BY k.id
	)
	SELECT k.place, k.id, k.agent_uuid, k.feedback_index::bigint, k.score, k.value::numeric,
		k.value_decimals::integer, rfc3339(k.created_at),
		EXISTS (SELECT FROM erc8004_agent_addresses x
			WHERE x.agent_uuid = k.agent_uuid AND x.address = k.client_address)
	FROM known k;
END $$;
COMMENT ON FUNCTION areg_give_feedback_together(uuid[], text[], text[], text[], integer[], text[], text[],
	text[], text[], text[], uuid[], text[], text[], text[], integer) IS
	'Stores those of several feedbacks that can be stored at once, and returns what their callers did not know';
