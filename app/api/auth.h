/* SPDX-License-Identifier: Apache-2.0 */
/* Signing in with a wallet (EIP-4361): POST /auth/challenge, POST /auth/verify. */
#ifndef AREG_API_AUTH_H
#define AREG_API_AUTH_H

#include "app/http/call.h"

extern const struct route_input auth_challenge_input;
void auth_challenge(struct call *call);
extern const struct route_input auth_verify_input;
void auth_verify(struct call *call);

#endif
