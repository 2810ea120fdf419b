/* SPDX-License-Identifier: Apache-2.0 */
/* The ways to name an agent in a path or on a command line: see enum agent_id_kind below. */
#ifndef AREG_REGISTRY_AGENT_ID_H
#define AREG_REGISTRY_AGENT_ID_H

#include "app/registry/settings.h"

enum agent_id_kind {
	AGENT_ID_UUID, /* agent_uuid */
	AGENT_ID_TOKEN, /* base:42, 8453:42, or eip155:8453:0x8004…:42 */
};

struct agent_id {
	enum agent_id_kind kind;
	char uuid[37]; /* AGENT_ID_UUID: lower case */
	/* AGENT_ID_TOKEN: */
	const struct chain *chain;
	char registry_address[ETH_ADDRESS_LEN + 1]; /* canonical; the chain's identity registry
						       where the text names none */
	char agent_id[UINT256_DIGITS + 1]; /* decimal, no leading zeros */
};

enum agent_id_status {
	AGENT_ID_OK,
	AGENT_ID_MALFORMED, /* none of the forms */
	AGENT_ID_NO_CHAIN, /* of the right form, but the chain is not configured */
};

/*
 * Reads any of the forms into *id. Chains go by name, alias or EIP-155 id of `settings`,
 * which must outlive *id. On refusal sets *why to a static phrase for a person.
 */
MUST_CHECK enum agent_id_status agent_id_parse(
	const struct settings *settings, const char *text, struct agent_id *id, const char **why);

/*
 * An agent in a statement: SQL for its agent_uuid in terms of the first four parameters, which
 * agent_id_params() fills from *id (that must outlive them). The look-up by chain and number is only
 * made when it is needed, in the same statement.
 */
#define AGENT_NAMED \
	"coalesce($1::uuid, (SELECT named.agent_uuid FROM erc8004_agents named" \
	" WHERE named.chain = $2 AND named.registry_address = $3 AND named.agent_id = $4::numeric))"
enum { AGENT_NAMED_PARAMS = 4 };
void agent_id_params(const struct agent_id *id, const char *params[AGENT_NAMED_PARAMS]);

#endif
