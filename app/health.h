/* For those who run it: GET /health and GET /metrics. */
#ifndef AREG_HEALTH_H
#define AREG_HEALTH_H

#include "app/call.h"

void health_get(struct call *call);
void metrics_get(struct call *call);

#endif
