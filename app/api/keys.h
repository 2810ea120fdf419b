/* SPDX-License-Identifier: Apache-2.0 */
/* One's own account: GET /me, GET and POST /keys, DELETE /keys/{key_id}. */
#ifndef AREG_API_KEYS_H
#define AREG_API_KEYS_H

#include "app/http/call.h"

#define KEYS_SCOPE "keys:write" /* to make and revoke keys; every user may have keys with it */

void me_get(struct call *call);
extern const struct route_input keys_list_input;
void keys_list(struct call *call);
extern const struct route_input keys_create_input;
void keys_create(struct call *call);
void keys_revoke(struct call *call);

#endif
