/* SPDX-License-Identifier: Apache-2.0 */
/* Checks a well-formed configuration for faults that this host can see by itself: files,
 * permissions, and settings that ask for what this program does not do. For aregd -t and the log at
 * start. app/process/backend_checks.h checks the servers. */
#ifndef AREG_PROCESS_HOST_CHECKS_H
#define AREG_PROCESS_HOST_CHECKS_H

#include <stdbool.h>

#include "app/registry/settings.h"

enum host_weight {
	HOST_WARNING, /* it works, but an operator should know */
	HOST_FAULT, /* something will not work */
	HOST_REFUSED, /* the configuration asks for what this program does not do */
};

struct host_finding {
	enum host_weight weight;
	const char *what; /* "chain base: rpc_url: ..." */
};

/* Looks, and changes nothing. Returns how many findings stand in *findings, which are the arena's. */
size_t host_checks(
	struct arena *arena, const struct settings *settings, const struct host_finding **findings);

/* Whether the identity registry of that chain is one that the standard's authors have deployed: then
 * every agent id that this registry hands out contradicts the real chain. */
bool chain_is_official(const struct chain *chain);

#endif
