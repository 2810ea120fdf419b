/* The registry as a whole: GET /chains, GET /stats. */
#ifndef AREG_REGISTRY_H
#define AREG_REGISTRY_H

#include "app/call.h"

void registry_chains(struct call *call);
void registry_stats(struct call *call);

#endif
