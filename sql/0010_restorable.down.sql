-- Undoes 0010.

CREATE OR REPLACE FUNCTION areg_score(is_explicit boolean, value numeric, value_decimals smallint,
	tag1 text) RETURNS numeric
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
	result numeric;
BEGIN
	IF NOT is_explicit AND tag1 NOT IN ('', 'starred') THEN
		RETURN NULL;
	END IF;
	result := areg_normalized(value, value_decimals);
	RETURN CASE WHEN result BETWEEN 0 AND 100 THEN result END;
END $$;
