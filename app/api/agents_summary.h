/* SPDX-License-Identifier: Apache-2.0 */
/* What the reputation registry's getSummary() says: GET /agents/{id}/summary. */
#ifndef AREG_API_AGENTS_SUMMARY_H
#define AREG_API_AGENTS_SUMMARY_H

#include "app/http/call.h"

extern const struct route_input agents_summary_input;
void agents_summary(struct call *call);

#endif
