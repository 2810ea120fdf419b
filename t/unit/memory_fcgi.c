/* SPDX-License-Identifier: Apache-2.0 */
/* The streams of libfcgi call back for bytes, so any source and sink will do: fcgiapp.h, FCGX_Stream. */
#include "t/unit/memory_fcgi.h"

#include <stdarg.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void memory_fcgi_fill(FCGX_Stream *stream)
{
	struct memory_fcgi *fcgi = stream->data;
	size_t len = fcgi->body_len - fcgi->body_at;

	if (fcgi->body_piece > 0 && len > fcgi->body_piece)
		len = fcgi->body_piece;
	/* libfcgi only reads from here, though its pointers are not const. */
	stream->rdNext = stream->stopUnget = (unsigned char *)(uintptr_t)fcgi->body + fcgi->body_at;
	stream->stop = stream->wrNext = stream->rdNext + len;
	stream->isClosed = len == 0;
	fcgi->body_at += len;
}

static void memory_fcgi_empty(FCGX_Stream *stream, int closes)
{
	struct memory_fcgi *fcgi = stream->data;
	size_t len = (size_t)(stream->wrNext - fcgi->piece);

	if (fcgi->answer_len + len > fcgi->answer_most) {
		len = fcgi->answer_most - fcgi->answer_len;
		stream->isClosed = 1;
		stream->FCGI_errno = -1;
	}
	memcpy(fcgi->answer + fcgi->answer_len, fcgi->piece, len);
	fcgi->answer_len += len;
	stream->wrNext = fcgi->piece;
	stream->isClosed |= closes;
}

void memory_fcgi_init(
	struct memory_fcgi *fcgi, const char *method, const char *uri, const char *body)
{
	memset(fcgi, 0, sizeof *fcgi);
	fcgi->body = body == NULL ? "" : body;
	fcgi->body_len = strlen(fcgi->body);
	fcgi->answer_most = MEMORY_FCGI_ANSWER;
	fcgi->answer = calloc(1, MEMORY_FCGI_ANSWER + 1);
	assert_non_null(fcgi->answer);
	fcgi->in = (FCGX_Stream){ .isReader = 1, .fillBuffProc = memory_fcgi_fill, .data = fcgi };
	fcgi->out = (FCGX_Stream){ .emptyBuffProc = memory_fcgi_empty, .data = fcgi };
	fcgi->out.rdNext = fcgi->out.stop = fcgi->piece + sizeof fcgi->piece;
	fcgi->out.wrNext = fcgi->piece;
	fcgi->request = (FCGX_Request){
		.in = &fcgi->in, .out = &fcgi->out, .err = &fcgi->out, .envp = fcgi->params
	};
	memory_fcgi_param(fcgi, "REQUEST_METHOD", method);
	memory_fcgi_param(fcgi, "REQUEST_URI", uri);
	memory_fcgi_param(fcgi, "REMOTE_ADDR", "192.0.2.1");
}

void memory_fcgi_param(struct memory_fcgi *fcgi, const char *name, const char *value)
{
	assert_true(fcgi->param_count < MEMORY_FCGI_PARAMS);
	assert_true(asprintf(&fcgi->params[fcgi->param_count++], "%s=%s", name, value) > 0);
}

void memory_fcgi_finish(struct memory_fcgi *fcgi)
{
	if (!fcgi->out.isClosed)
		memory_fcgi_empty(&fcgi->out, 1);
	fcgi->answer[fcgi->answer_len] = '\0';
}

void memory_fcgi_free(struct memory_fcgi *fcgi)
{
	for (size_t i = 0; i < fcgi->param_count; i++)
		free(fcgi->params[i]);
	free(fcgi->answer);
}
