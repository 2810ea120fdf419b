/* What clients say of agents: POST /agents/feedback, GET /agents/{id}/feedback. */
#ifndef AREG_FEEDBACK_H
#define AREG_FEEDBACK_H

#include "app/call.h"

void feedback_give(struct call *call);
void feedback_list(struct call *call);

#endif
