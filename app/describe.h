/* SPDX-License-Identifier: Apache-2.0 */
/* What the program knows of its own API, as JSON: what openapi.json is made from. */
#ifndef AREG_DESCRIBE_H
#define AREG_DESCRIBE_H

#include "lib/buf.h"

/* Appends one object: the version, the default limits, bounds of requests and lists, and every
 * route with all that it takes. */
void describe(struct buf *out);

#endif
