-- What searches need beside indexes: how well an agent fits a query, and its services as a list.
-- Safe under load: creates only.

CREATE FUNCTION areg_relevance(search tsvector, name text, q text) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN round(((search @@ plainto_tsquery('simple'::regconfig, q))::integer
	+ ts_rank(search, plainto_tsquery('simple'::regconfig, q))
	+ word_similarity(lower(q), lower(coalesce(name, ''))))::numeric, 6);
COMMENT ON FUNCTION areg_relevance(tsvector, text, text) IS
	'All words found goes first; then how well they fit, and how near q is to the name';

CREATE FUNCTION areg_services(registration_file json) RETURNS json
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
	WHEN json_typeof(registration_file -> 'services') = 'array' THEN registration_file -> 'services'
	WHEN json_typeof(registration_file -> 'endpoints') = 'array' THEN registration_file -> 'endpoints'
	ELSE '[]'::json END;
COMMENT ON FUNCTION areg_services(json) IS 'The list of services as it stands in the file; [] when there is none';
