/* SPDX-License-Identifier: Apache-2.0 */
/* For those who run it: GET /health and GET /metrics. */
#ifndef AREG_PROCESS_HEALTH_H
#define AREG_PROCESS_HEALTH_H

#include "app/http/call.h"

void health_get(struct call *call);
void metrics_get(struct call *call);

#endif
