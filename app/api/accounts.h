/* SPDX-License-Identifier: Apache-2.0 */
/* The records of an account: GET /accounts/{address}. keys.h serves the caller's own user and keys. */
#ifndef AREG_API_ACCOUNTS_H
#define AREG_API_ACCOUNTS_H

#include "app/http/call.h"

void accounts_get(struct call *call);

#endif
