-- pg_restore works with an empty search_path, where areg_score() of a generated column did not find
-- the function that it calls: a dump with feedback in it could not be restored.
-- Safe under load.

ALTER FUNCTION areg_score(boolean, numeric, smallint, text) SET search_path FROM CURRENT;
