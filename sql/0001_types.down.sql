-- Undoes 0001. The extension stays: other schemas may use it, and a second run does not mind.

DROP FUNCTION areg_touch();
DROP FUNCTION areg_refuse_change();
DROP FUNCTION areg_trust_score(numeric, numeric);
DROP FUNCTION areg_trust_level(numeric, numeric, bigint, bigint);
DROP FUNCTION areg_score(boolean, numeric, smallint, text);
DROP FUNCTION areg_normalized(numeric, smallint);
DROP FUNCTION rfc3339(timestamptz);
DROP DOMAIN scope_list;
DROP DOMAIN chain_name;
DROP DOMAIN uint256;
DROP DOMAIN eth_hash;
DROP DOMAIN eth_address;
