/* One's own account: GET /me, GET and POST /keys, DELETE /keys/{key_id}. */
#ifndef AREG_ACCOUNTS_H
#define AREG_ACCOUNTS_H

#include "app/call.h"

#define KEYS_SCOPE "keys:write" /* to make and revoke keys; every user may have keys with it */

void me_get(struct call *call);
extern const struct route_input keys_list_input;
void keys_list(struct call *call);
extern const struct route_input keys_create_input;
void keys_create(struct call *call);
void keys_revoke(struct call *call);

#endif
