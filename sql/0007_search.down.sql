-- Undoes 0007. Nothing is lost.

DROP FUNCTION areg_services(json);
DROP FUNCTION areg_relevance(tsvector, text, text);
