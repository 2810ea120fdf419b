/* Search: GET /agents. */
#ifndef AREG_SEARCH_H
#define AREG_SEARCH_H

#include "app/call.h"

void agents_search(struct call *call);

#endif
