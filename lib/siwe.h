/* SPDX-License-Identifier: Apache-2.0 */
/* The text that a wallet signs to sign in: EIP-4361 (Sign-In with Ethereum), version 1. */
#ifndef AREG_SIWE_H
#define AREG_SIWE_H

#include <stdint.h>

#include "lib/arena.h"
#include "lib/eth.h"

struct siwe {
	const char *domain; /* RFC 3986 authority: "registry.example:8443" */
	const char *address; /* EIP-55 mixed case in the text; canonical here */
	const char *statement; /* one line, or NULL */
	const char *uri;
	uint64_t chain_id;
	const char *nonce; /* at least 8 of A-Za-z0-9 */
	const char *issued_at; /* RFC 3339 */
	const char *expires_at; /* RFC 3339, or NULL */
};

/* The message text. Never NULL. */
const char *siwe_write(struct arena *arena, const struct siwe *siwe);

/* Reads a message strictly by the grammar of EIP-4361 (ABNF), at most 4 KiB. False with *why (arena
 * memory) that names the line. Optional fields that areg does not use are allowed as the grammar
 * says and not returned. */
MUST_CHECK bool siwe_read(
	struct arena *arena, const char *text, struct siwe *siwe, const char **why);

#endif
