/* SPDX-License-Identifier: Apache-2.0 */
/* The registry as a whole: GET /chains, GET /stats. */
#ifndef AREG_API_CHAINS_H
#define AREG_API_CHAINS_H

#include "app/http/call.h"

void chains_get(struct call *call);
void stats_get(struct call *call);

#endif
