/* SPDX-License-Identifier: Apache-2.0 */
/* Answers to feedback, by anyone: POST and GET /agents/feedback/{feedback_id}/responses. */
#ifndef AREG_API_FEEDBACK_RESPONSES_H
#define AREG_API_FEEDBACK_RESPONSES_H

#include "app/http/call.h"

extern const struct route_input feedback_responses_append_input;
void feedback_responses_append(struct call *call);
extern const struct route_input feedback_responses_list_input;
void feedback_responses_list(struct call *call);

#endif
