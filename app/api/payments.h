/* SPDX-License-Identifier: Apache-2.0 */
/* Payments by x402, and the agents they were for: POST /payments, POST and DELETE
 * /agents/link-payment,
 * GET /agents/{id}/payments. */
#ifndef AREG_API_PAYMENTS_H
#define AREG_API_PAYMENTS_H

#include "app/http/call.h"

#define PAYMENTS_SCOPE "payments:write" /* of facilitators */
#define PAYMENT_USDC_MAX 1000000000000000000 /* the most that one payment can be of */

extern const char *const payment_statuses[]; /* NULL-terminated */

extern const struct route_input payments_record_input;
void payments_record(struct call *call);
extern const struct route_input payments_link_input;
void payments_link(struct call *call);
void payments_unlink(struct call *call); /* the input is that of linking */
extern const struct route_input payments_list_input;
void payments_list(struct call *call);

#endif
