/* Signing in with a wallet (EIP-4361): POST /auth/challenge, POST /auth/verify. */
#ifndef AREG_SIGNIN_H
#define AREG_SIGNIN_H

#include "app/call.h"

void auth_challenge(struct call *call);
void auth_verify(struct call *call);

#endif
