/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A FastCGI request without a web server: its parameters are given, its body is read out of memory, and
 * what is answered goes to memory. Bodies come and go in pieces of a chosen size, and either stream can
 * end early, as when the web server goes away.
 */
#ifndef AREG_T_MEMORY_FCGI_H
#define AREG_T_MEMORY_FCGI_H

#include <stddef.h>

#include <fcgiapp.h>

enum {
	MEMORY_FCGI_PARAMS = 32, /* most parameters of a request */
	MEMORY_FCGI_ANSWER = 4 * 1024 * 1024, /* most bytes of an answer */
	MEMORY_FCGI_PIECE = 64 * 1024, /* most bytes of a piece of the answer */
};

struct memory_fcgi {
	FCGX_Request request; /* what the code under test is given */
	FCGX_Stream in, out;
	char *params[MEMORY_FCGI_PARAMS + 1]; /* NAME=VALUE, NULL at the end */
	size_t param_count;
	const char *body;
	size_t body_len, body_at;
	size_t body_piece; /* bytes that arrive at once; 0: all */
	size_t answer_most; /* after that many bytes of the answer the other side is gone */
	size_t answer_len;
	char *answer; /* NUL-terminated */
	unsigned char piece[MEMORY_FCGI_PIECE];
};

/* A request with this method, address (path and query) and body (NULL: none), which must outlive it. Ends
 * with memory_fcgi_free(). */
void memory_fcgi_init(
	struct memory_fcgi *fcgi, const char *method, const char *uri, const char *body);
void memory_fcgi_free(struct memory_fcgi *fcgi);

/* Adds a parameter: "HTTP_ORIGIN", "https://example.org". */
void memory_fcgi_param(struct memory_fcgi *fcgi, const char *name, const char *value);

/* Ends the answer: whatever the code under test has left in the stream is in `answer` afterwards. */
void memory_fcgi_finish(struct memory_fcgi *fcgi);

#endif
