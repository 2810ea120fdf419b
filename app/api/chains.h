/* The registry as a whole: GET /chains, GET /stats. */
#ifndef AREG_API_CHAINS_H
#define AREG_API_CHAINS_H

#include "app/http/call.h"

void registry_chains(struct call *call);
void registry_stats(struct call *call);

#endif
