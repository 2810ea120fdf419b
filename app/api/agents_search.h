/* SPDX-License-Identifier: Apache-2.0 */
/* Search: GET /agents. */
#ifndef AREG_API_AGENTS_SEARCH_H
#define AREG_API_AGENTS_SEARCH_H

#include "app/http/call.h"

extern const struct route_input agents_search_input;
void agents_search(struct call *call);

#endif
