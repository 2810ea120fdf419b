/* What an account did: GET /accounts/{address}. The caller's own user and keys are accounts.h. */
#ifndef AREG_WALLETS_H
#define AREG_WALLETS_H

#include "app/call.h"

void wallets_get(struct call *call);

#endif
