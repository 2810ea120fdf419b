-- SPDX-License-Identifier: Apache-2.0
-- Undoes 0007. Nothing is lost.

DROP FUNCTION areg_name_relevance(text, text);
DROP FUNCTION areg_words_relevance(tsvector, tsquery);
