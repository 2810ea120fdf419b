/* SPDX-License-Identifier: Apache-2.0 */
/* Who leads: GET /leaderboard. */
#ifndef AREG_API_LEADERBOARD_H
#define AREG_API_LEADERBOARD_H

#include "app/http/call.h"

extern const struct route_input leaderboard_input;
void leaderboard_get(struct call *call);

#endif
