/* What the reputation registry's getSummary() says: GET /agents/{id}/summary. */
#ifndef AREG_SUMMARY_H
#define AREG_SUMMARY_H

#include "app/call.h"

extern const struct route_input agents_summary_input;
void agents_summary(struct call *call);

#endif
