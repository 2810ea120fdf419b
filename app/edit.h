/* Changing an agent: PATCH /agents/{id}. */
#ifndef AREG_EDIT_H
#define AREG_EDIT_H

#include "app/call.h"

extern const struct route_input agents_edit_input;
void agents_edit(struct call *call);

#endif
