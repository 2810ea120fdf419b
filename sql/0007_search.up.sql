-- SPDX-License-Identifier: Apache-2.0
-- What searches need beside indexes: how well an agent fits a query.
-- Safe under load: creates only.

-- Words first, by how well they fit, which costs next to nothing; then names, by how near they are,
-- which costs twenty times as much.
CREATE FUNCTION areg_words_relevance(search tsvector, words tsquery) RETURNS real
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 1 + ts_rank(search, words);
COMMENT ON FUNCTION areg_words_relevance(tsvector, tsquery) IS 'Where all words are found: 1 and more';
CREATE FUNCTION areg_name_relevance(name text, q text) RETURNS real
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN word_similarity(lower(q), lower(name));
COMMENT ON FUNCTION areg_name_relevance(text, text) IS 'Where they are not: how near q is to the name, to 1';
