/* What clients say of agents: POST /agents/feedback, GET /agents/{id}/feedback. */
#ifndef AREG_FEEDBACK_H
#define AREG_FEEDBACK_H

#include "app/call.h"

extern const struct route_input feedback_give_input;
void feedback_give(struct call *call);
extern const struct route_input feedback_list_input;
void feedback_list(struct call *call);

#endif
