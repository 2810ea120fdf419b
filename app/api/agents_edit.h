/* SPDX-License-Identifier: Apache-2.0 */
/* Changing an agent: PATCH /agents/{id}. */
#ifndef AREG_API_AGENTS_EDIT_H
#define AREG_API_AGENTS_EDIT_H

#include "app/http/call.h"

extern const struct route_input agents_edit_input;
void agents_edit(struct call *call);

#endif
