-- pg_restore works with an empty search_path, where areg_score() of a generated column did not find
-- the function that it calls: a dump with feedback in it could not be restored. Setting the path with
-- every call would cost each feedback more than the score: so it calls no other any more.
-- Safe under load.

CREATE OR REPLACE FUNCTION areg_score(is_explicit boolean, value numeric, value_decimals smallint,
	tag1 text) RETURNS numeric
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
	result numeric;
BEGIN
	IF NOT is_explicit AND tag1 NOT IN ('', 'starred') THEN
		RETURN NULL;
	END IF;
	-- As areg_normalized() does.
	result := CASE value_decimals WHEN 0 THEN value
		ELSE value * ('1e-' || value_decimals::text)::numeric END;
	RETURN CASE WHEN result BETWEEN 0 AND 100 THEN result END;
END $$;
