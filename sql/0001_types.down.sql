-- SPDX-License-Identifier: Apache-2.0
-- Undoes 0001. The extension stays: other schemas may use it, and a second run does not mind.

DROP FUNCTION areg_touch();
DROP FUNCTION areg_refuse_change();
DROP FUNCTION areg_trust_score(numeric, numeric);
DROP FUNCTION areg_trust_level(numeric, numeric, bigint, bigint);
DROP FUNCTION areg_system_address();
DROP FUNCTION areg_today();
DROP FUNCTION areg_tag_key(text);
DROP FUNCTION areg_long_tag_key(text);
DROP FUNCTION rfc3339(timestamptz);
DROP DOMAIN record_count;
DROP DOMAIN block_number;
DROP DOMAIN feedback_source;
DROP DOMAIN feedback_tag;
DROP DOMAIN feedback_decimals;
DROP DOMAIN feedback_value;
DROP DOMAIN feedback_index;
DROP DOMAIN scope_list;
DROP DOMAIN chain_name;
DROP DOMAIN uint256;
DROP DOMAIN eth_hash;
DROP DOMAIN eth_address;
