/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One HTTP request and its answer, over FastCGI (libfcgi's FCGX). Requests are read strictly and
 * within limits; answers are built whole in the arena and sent in one piece.
 */
#ifndef AREG_HTTP_H
#define AREG_HTTP_H

#include <fcgiapp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/arena.h"
#include "lib/buf.h"
#include "lib/faults.h"

enum http_method {
	HTTP_GET,
	HTTP_HEAD,
	HTTP_POST,
	HTTP_PUT,
	HTTP_PATCH,
	HTTP_DELETE,
	HTTP_OPTIONS,
	HTTP_OTHER,
};
enum { HTTP_METHODS = HTTP_OTHER + 1 };

enum {
	HTTP_BODY_MAX = 1024 * 1024, /* bytes of a request body */
	HTTP_PATH_MAX = 2048, /* bytes of a path, before decoding */
	HTTP_PATH_LOGGED_MAX = 1024, /* bytes of it that go into a log */
	HTTP_QUERY_MAX = 8192, /* bytes of a query string, before decoding */
	HTTP_SEGMENTS_MAX = 12, /* parts of a path between slashes */
	HTTP_PARAMS_MAX = 128, /* parameters of a query string */
	HTTP_REQUEST_ID_MAX = 128, /* characters of a request's id */
};

struct http_param {
	const char *name; /* decoded, valid UTF-8 */
	const char *value; /* decoded, valid UTF-8; "" when there is no = */
};

enum http_body_status {
	HTTP_BODY_OK,
	HTTP_BODY_TOO_LARGE, /* answer 413 */
	HTTP_BODY_TRUNCATED, /* the client went away, or sent less than it said: 400 */
	HTTP_BODY_NOT_JSON, /* the content type is not JSON: 415 */
};

struct http_request {
	struct arena *arena;
	FCGX_Request *fcgi;
	enum http_method method;
	const char *path; /* as it came, without the query; cut, for logs */
	const char
		*segments[HTTP_SEGMENTS_MAX]; /* decoded; a slash at the end counts for nothing */
	size_t segment_count;
	struct http_param *params;
	size_t param_count;
	const char *id; /* X-Request-ID: the caller's own if sane, else nginx's or ours */
	const char *client_address; /* REMOTE_ADDR, which only nginx sets */
	size_t body_most; /* bytes of a body that are taken; HTTP_BODY_MAX until lowered */
	bool body_is_read; /* by http_body_read(), which keeps here what it answered: */
	enum http_body_status body_status;
	const char *body;
	size_t body_len;
	int refused_status; /* not 0: the request line itself is bad, with this status … */
	const char *refused_detail; /* … for this reason */
};

/* Reads everything but the body. Nothing is lost on bad input: see refused_status. */
void http_request_read(struct http_request *request, FCGX_Request *fcgi, struct arena *arena);

/* Its two parts that take text from strangers apart, into a request with an arena: the path into
 * segments, the query (without its ?) into params. */
void http_path_read(struct http_request *request, const char *path, size_t len);
void http_query_read(struct http_request *request, const char *query);

const char *http_method_name(enum http_method method);

/* The value of a header by its CGI name ("HTTP_IF_NONE_MATCH", "CONTENT_TYPE"), or NULL. */
const char *http_header(const struct http_request *request, const char *cgi_name);

/*
 * Reads the body, at most body_most bytes, whose content type must be application/json (in
 * UTF-8, if it names a charset). Called again, gives the same again.
 */
MUST_CHECK enum http_body_status http_body_read(
	struct http_request *request, const char **bytes, size_t *len);

struct http_header {
	const char *name;
	const char *value;
};

enum { HTTP_HEADERS_MAX = 24 };

struct http_response {
	struct arena *arena;
	int status;
	struct http_header headers[HTTP_HEADERS_MAX]; /* without Content-Length and Content-Type */
	size_t header_count;
	const char *content_type;
	const char *etag; /* of a successful GET, in its quotes; NULL: not known yet */
	struct buf body;
	const char *
		code; /* the problem's code, when the answer is a problem: for the log and reports */
};

void http_response_init(struct http_response *response, struct arena *arena);

/* Adds a header; value is not copied. Control characters in it are a bug and abort. */
void http_header_add(struct http_response *response, const char *name, const char *value);

struct http_problem {
	const struct problem *problem; /* its status and code */
	const char *detail; /* a sentence; NULL with faults: names the first of them */
	const struct faults *faults; /* NULL, or what `errors` lists */
	const char *member, *value; /* NULL, or one more member of this problem, a string */
};

/* Makes the answer a problem (RFC 9457), dropping any body so far: type, title, status, detail,
 * code, request_id, and `errors` or one more member where given. */
void http_problem(struct http_response *response, const struct http_request *request,
	const struct http_problem *answer);

/* Address of the folder of pages CODE.html that describe each problem code, with its slash; set once
 * at start. Not copied. Without one, problems have the type about:blank (RFC 9457, section 4.2.1). */
void http_problem_base(const char *url);

/* The entity tag of the body as it is now: 34 bytes with its quotes, made of a hash of it. */
const char *http_etag(struct http_response *response);

/*
 * Sends the answer: status line, headers, body (none for HEAD, 204 and 304). Gives a successful GET
 * or HEAD its ETag and turns it into 304 when If-None-Match names it (RFC 9110, section 13.1.2).
 * Returns the bytes of body sent, 0 when the client went away meanwhile. Allocates nothing once the
 * first byte was sent.
 */
size_t http_response_send(struct http_response *response, const struct http_request *request);

#endif
