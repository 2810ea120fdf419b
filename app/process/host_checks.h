/* Checks a well-formed configuration for faults that this host can see by itself: files, rights, and
 * claims that nothing keeps. For aregd -t and the log at start. app/process/backend_checks.h checks the servers. */
#ifndef AREG_PROCESS_HOST_CHECKS_H
#define AREG_PROCESS_HOST_CHECKS_H

#include <stdbool.h>

#include "app/registry/settings.h"

enum preflight_weight {
	PREFLIGHT_WARNING, /* it works, but an operator should know */
	PREFLIGHT_FAULT, /* something will not work */
	PREFLIGHT_REFUSED, /* the configuration asks for what this program does not do */
};

struct preflight_finding {
	enum preflight_weight weight;
	const char *what; /* "chain base: rpc_url: ..." */
};

/* Looks, and changes nothing. Returns how many findings stand in *findings, which are the arena's. */
size_t preflight(struct arena *arena, const struct settings *settings,
	const struct preflight_finding **findings);

/* Whether the identity registry of that chain is one that the standard's authors have deployed: then
 * every agent id that this registry hands out contradicts the real chain. */
bool chain_is_official(const struct chain *chain);

#endif
