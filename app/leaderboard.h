/* Who leads: GET /leaderboard. */
#ifndef AREG_LEADERBOARD_H
#define AREG_LEADERBOARD_H

#include "app/call.h"

extern const struct route_input leaderboard_input;
void leaderboard_get(struct call *call);

#endif
