/* Signing in with a wallet (EIP-4361): POST /auth/challenge, POST /auth/verify. */
#ifndef AREG_SIGNIN_H
#define AREG_SIGNIN_H

#include "app/call.h"

extern const struct route_input auth_challenge_input;
void auth_challenge(struct call *call);
extern const struct route_input auth_verify_input;
void auth_verify(struct call *call);

#endif
