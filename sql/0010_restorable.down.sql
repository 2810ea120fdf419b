-- Undoes 0010.

ALTER FUNCTION areg_score(boolean, numeric, smallint, text) RESET search_path;
