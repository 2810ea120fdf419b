/* SPDX-License-Identifier: Apache-2.0 */
/* Reads the forms of an agent's id. See CAIP-2 and CAIP-10 for eip155:8453:0x…. */
#include "app/registry/agent_id.h"

#include <string.h>

#include "lib/json_in.h"

static const char no_form[] = "not an agent_uuid, chain:agent_id, chain_id:agent_id or "
			      "eip155:chain_id:registry_address:agent_id";

/* Copies text[0..len) when it fits and is not empty. */
static bool part(const char *text, size_t len, char *copy, size_t size)
{
	if (len == 0 || len >= size)
		return false;
	memcpy(copy, text, len);
	copy[len] = '\0';
	return true;
}

/* An EIP-155 chain id in its one decimal form. */
static bool parse_chain_id(const char *text, uint64_t *chain_id)
{
	size_t digits = strspn(text, "0123456789");

	/* 16 digits hold every chain id, which end at 2^53 - 1 */
	if (digits == 0 || digits > 16 || text[digits] != '\0' || text[0] == '0')
		return false;
	*chain_id = 0;
	for (; *text != '\0'; text++)
		*chain_id = *chain_id * 10 + (uint64_t)(*text - '0');
	return true;
}

static enum agent_id_status parse_short(const struct settings *settings, const char *text,
	const char *colon, struct agent_id *id, const char **why)
{
	char name[64];
	uint64_t chain_id;

	if (!part(text, (size_t)(colon - text), name, sizeof(name))) {
		*why = no_form;
		return AGENT_ID_MALFORMED;
	}
	if (!uint256_parse(colon + 1, id->agent_id, why))
		return AGENT_ID_MALFORMED;
	id->chain = settings_chain(settings, name);
	if (id->chain == NULL && parse_chain_id(name, &chain_id))
		id->chain = settings_chain_by_id(settings, chain_id);
	if (id->chain == NULL) {
		*why = "the chain is not configured";
		return AGENT_ID_NO_CHAIN;
	}
	strcpy(id->registry_address, id->chain->identity_registry);
	return AGENT_ID_OK;
}

/* What stands behind "eip155:". */
static enum agent_id_status parse_global(
	const struct settings *settings, const char *text, struct agent_id *id, const char **why)
{
	char number[UINT256_DIGITS + 1], address[ETH_ADDRESS_LEN + 1];
	const char *registry = strchr(text, ':');
	const char *token = registry != NULL ? strchr(registry + 1, ':') : NULL;
	uint64_t chain_id;

	*why = no_form;
	if (token == NULL ||
		!part(registry + 1, (size_t)(token - registry) - 1, address, sizeof(address)) ||
		!part(text, (size_t)(registry - text), number, sizeof(number)) ||
		!parse_chain_id(number, &chain_id))
		return AGENT_ID_MALFORMED;
	if (!eth_address_parse(address, id->registry_address, why) ||
		!uint256_parse(token + 1, id->agent_id, why))
		return AGENT_ID_MALFORMED;
	id->chain = settings_chain_by_id(settings, chain_id);
	if (id->chain == NULL) {
		*why = "the chain is not configured";
		return AGENT_ID_NO_CHAIN;
	}
	return AGENT_ID_OK;
}

enum agent_id_status agent_id_parse(
	const struct settings *settings, const char *text, struct agent_id *id, const char **why)
{
	const char *colon = strchr(text, ':');

	memset(id, 0, sizeof(*id));
	if (colon == NULL) {
		id->kind = AGENT_ID_UUID;
		if (uuid_parse(text, id->uuid, why))
			return AGENT_ID_OK;
		*why = no_form;
		return AGENT_ID_MALFORMED;
	}
	id->kind = AGENT_ID_TOKEN;
	if (strncmp(text, "eip155:", 7) == 0)
		return parse_global(settings, colon + 1, id, why);
	return parse_short(settings, text, colon, id, why);
}

void agent_id_params(const struct agent_id *id, const char *params[AGENT_NAMED_PARAMS])
{
	bool is_token = id->kind == AGENT_ID_TOKEN;

	params[0] = is_token ? NULL : id->uuid;
	params[1] = is_token ? id->chain->name : NULL;
	params[2] = is_token ? id->registry_address : NULL;
	params[3] = is_token ? id->agent_id : NULL;
}
