/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What changed, in order: GET /events. A reader that asks again with the `next_after` of the answer
 * before gets every change exactly once, whatever is written meanwhile.
 *
 * All changes are in one order. A change that begins after another has committed comes after it.
 * Changes of concurrent transactions may come in either order. An event is shown once every
 * transaction that began to change something before it has ended, in whatever database of the
 * cluster: a long one (an import, a migration, a session left open in psql) holds back the events
 * of all others until it ends. They are late then, and never lost. Reading alone (pg_dump) holds
 * nothing back.
 */
#ifndef AREG_API_EVENTS_H
#define AREG_API_EVENTS_H

#include "app/http/call.h"

extern const struct route_input events_list_input;
void events_list(struct call *call);

#endif
