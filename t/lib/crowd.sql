-- SPDX-License-Identifier: Apache-2.0
-- :n agents as a registry has them: some with a file, few owners of many, words of which some are
-- common, statistics without the records behind them. Triggers are off: it takes seconds.
SET session_replication_role = replica;
SELECT setseed(0.42);

CREATE FUNCTION pg_temp.word() RETURNS text LANGUAGE sql VOLATILE AS $$
	SELECT (ARRAY['ka','lo','mi','ren','tus','vo','zan','pel','qui','dor','bas','fen','gri','hul','jo','wex','ny','sto','cla','bri'])[1 + floor(20 * random() ^ 2)::int]
	|| (ARRAY['ra','den','fo','lik','mus','net','por','sil','tam','ver','wo','xis','yor','zed','ban','cor','dal','ex','fim','gat'])[1 + floor(20 * random() ^ 2)::int]
	|| (ARRAY['','','','a','on','ix','er','um'])[1 + floor(8 * random())::int] $$;
CREATE FUNCTION pg_temp.words(count int) RETURNS text LANGUAGE plpgsql VOLATILE AS $$
DECLARE result text := pg_temp.word();
BEGIN
	FOR i IN 2 .. count LOOP result := result || ' ' || pg_temp.word(); END LOOP;
	RETURN result;
END $$;
CREATE FUNCTION pg_temp.some(pool text[], chances float[]) RETURNS text[] LANGUAGE plpgsql VOLATILE AS $$
DECLARE result text[] := '{}';
BEGIN
	FOR i IN 1 .. cardinality(pool) LOOP
		IF random() < chances[i] THEN result := result || pool[i]; END IF;
	END LOOP;
	RETURN result;
END $$;
INSERT INTO erc8004_agents (agent_uuid, chain, chain_id, registry_address, agent_id, owner_address,
	agent_wallet, status, source, registration_file, registration_digest, name, description, image,
	shown_services, x402_support, file_active, services, skills, domains, supported_trust, created_at,
	registered_tx)
SELECT md5('agent' || n)::uuid, chain, chain_id, '0x' || repeat('80', 20),
	CASE WHEN status <> 'pending' THEN n END, '0x' || left(md5(owner::text) || md5(owner::text), 40),
	'0x' || left(md5((owner + n % 3)::text) || md5(owner::text), 40), status, 'import',
	CASE WHEN has_file THEN json_build_object('name', name, 'services', services) END,
	CASE WHEN has_file THEN sha256(n::text::bytea) END,
	CASE WHEN has_file THEN name END, CASE WHEN has_file THEN pg_temp.words(12) END,
	CASE WHEN has_file THEN 'https://example.com/' || n || '.png' END,
	CASE WHEN has_file THEN to_json(services) ELSE '[]' END,
	CASE WHEN has_file AND random() < 0.6 THEN random() < 0.1 END,
	CASE WHEN has_file AND random() < 0.6 THEN random() < 0.995 END,
	CASE WHEN has_file THEN services ELSE '{}' END,
	CASE WHEN has_file AND random() < 0.3 THEN ARRAY['skill ' || floor(200 * random() ^ 3), 'skill ' || floor(200 * random() ^ 2)] ELSE '{}' END,
	CASE WHEN has_file AND random() < 0.3 THEN ARRAY['domain ' || floor(50 * random() ^ 2)] ELSE '{}' END,
	CASE WHEN has_file THEN pg_temp.some('{reputation,crypto-economic,tee-attestation}', '{0.4,0.05,0.005}') ELSE '{}' END,
	'2026-01-01'::timestamptz + n * interval '20 seconds' + random() * interval '10 seconds',
	'0x' || md5('tx' || n) || md5(n::text)
FROM (SELECT n, random() < 0.6 AS has_file,
		CASE WHEN random() < 0.05 THEN 0 ELSE floor(200000 * random())::int END AS owner,
		pg_temp.words(1 + n % 3) || (ARRAY[' Agent', ' Agent', ' Bot', ' Desk', ' Oracle', ''])[1 + floor(6 * random())::int] || ' ' || n % 1000 AS name,
		pg_temp.some('{web,mcp,a2a,oasf,ens,did,email}', '{0.5,0.4,0.3,0.05,0.02,0.001,0.01}') AS services,
		CASE WHEN random() < 0.97 THEN 'active' ELSE (ARRAY['pending','suspended','revoked'])[1 + floor(3 * random())::int] END AS status,
		c.chain, c.chain_id
	FROM generate_series(1, :n) n JOIN (VALUES (0, 'base', 8453), (1, 'ethereum', 1), (2, 'sepolia', 11155111), (3, 'base-sepolia', 84532)) AS c (pick, chain, chain_id)
		ON pick = CASE WHEN n % 10 < 6 THEN 0 WHEN n % 10 < 9 THEN 1 WHEN n % 200 = 9 THEN 3 ELSE 2 END) AS each;
INSERT INTO erc8004_agent_stats (agent_uuid, chain, status, registered_at, total_feedback, scored_feedback, score_sum,
	automatic_scored, automatic_score_sum, opinions, opinion_sum, unique_clients, last_feedback_at, total_payments,
	successful_payments, failed_payments, total_amount_usdc, last_payment_at, counted_payers, payer_rate_sum)
SELECT agent_uuid, chain, status, created_at, f, f, f * score, f / 3, f / 3 * 95, least(f - f / 3, 5),
	least(f - f / 3, 5) * score, least(f, 5),
	CASE WHEN f > 0 THEN created_at + random() * interval '200 days' END,
	p, p - p / 30, p / 30, p * 1.25, CASE WHEN p > 0 THEN created_at + random() * interval '200 days' END,
	p - p / 30, (p - p / 30) * (1 - p / 30 / greatest(p, 1)::numeric)
FROM (SELECT agent_uuid, chain, status, created_at, (60 + 40 * random())::numeric(5, 2) AS score,
		CASE WHEN random() < 0.6 THEN 0 ELSE floor(exp(6 * random()))::bigint END AS f,
		CASE WHEN random() < 0.9 THEN 0 ELSE floor(exp(4 * random()))::bigint END AS p
	FROM erc8004_agents ORDER BY created_at) AS each;
INSERT INTO erc8004_agent_counts SELECT chain, status, count(*) FROM erc8004_agents GROUP BY 1, 2
ON CONFLICT (chain, status) DO UPDATE SET agents = EXCLUDED.agents;
RESET session_replication_role;
SELECT areg_rebuild_lists();
ANALYZE;
