/* SPDX-License-Identifier: Apache-2.0 */
/* Validations: what owners ask of validators and what these answer. POST and GET
 * /agents/{id}/validations, POST /validations/{request_hash}/response,
 * GET /validations/{request_hash}. */
#ifndef AREG_API_VALIDATIONS_H
#define AREG_API_VALIDATIONS_H

#include "app/http/call.h"

extern const struct route_input validations_request_input;
void validations_request(struct call *call);
extern const struct route_input validations_respond_input;
void validations_respond(struct call *call);
void validations_get(struct call *call);
extern const struct route_input validations_list_input;
void validations_list(struct call *call);

#endif
