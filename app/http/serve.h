/* SPDX-License-Identifier: Apache-2.0 */
/* From a FastCGI request to its answer: routing, who calls, the handler, log and metrics. */
#ifndef AREG_HTTP_SERVE_H
#define AREG_HTTP_SERVE_H

#include <fcgiapp.h>

#include "app/http/context.h"

/* Serves one request whole. Its memory is the worker's arena, which the caller resets. */
void serve(struct context *context, FCGX_Request *fcgi);

#endif
