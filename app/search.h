/* Search: GET /agents. */
#ifndef AREG_SEARCH_H
#define AREG_SEARCH_H

#include "app/call.h"

extern const struct route_input agents_search_input;
void agents_search(struct call *call);

#endif
