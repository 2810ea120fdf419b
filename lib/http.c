/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests are taken from the FastCGI parameters that our nginx configuration sends; the path is
 * read from REQUEST_URI as the client sent it, so that decoding happens once, here, per segment.
 * Read beside this: fcgiapp.h, RFC 3986 section 2, RFC 9110, RFC 9457.
 */
#include "lib/http.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

#include "lib/decimal.h"
#include "lib/eth.h"
#include "lib/json_in.h"
#include "lib/json_out.h"
#include "lib/sha256.h"

static const char *const method_names[HTTP_METHODS] = {
	[HTTP_GET] = "GET",
	[HTTP_HEAD] = "HEAD",
	[HTTP_POST] = "POST",
	[HTTP_PUT] = "PUT",
	[HTTP_PATCH] = "PATCH",
	[HTTP_DELETE] = "DELETE",
	[HTTP_OPTIONS] = "OPTIONS",
	[HTTP_OTHER] = "OTHER",
};

static const char *problem_base;

const char *http_method_name(enum http_method method)
{
	return method_names[method];
}

void http_problem_base(const char *url)
{
	problem_base = url;
}

const char *http_header(const struct http_request *request, const char *cgi_name)
{
	return FCGX_GetParam(cgi_name, request->fcgi->envp);
}

static enum http_method method_of(const char *name)
{
	for (size_t m = 0; name != NULL && m < HTTP_OTHER; m++)
		if (strcmp(name, method_names[m]) == 0)
			return (enum http_method)m;
	return HTTP_OTHER;
}

/* At most 128 characters that are safe in a header, a log line and a shell. */
static bool sane_request_id(const char *id)
{
	size_t len = id == NULL ? 0
				: strspn(id, "0123456789abcdefghijklmnopqrstuvwxyz"
					     "ABCDEFGHIJKLMNOPQRSTUVWXYZ._:-");

	return len > 0 && len <= HTTP_REQUEST_ID_MAX && id[len] == '\0';
}

static const char *request_id(const struct http_request *request)
{
	const char *id = http_header(request, "HTTP_X_REQUEST_ID");
	uint8_t random[16];
	char *made;

	if (sane_request_id(id))
		return id;
	id = http_header(request, "REQUEST_ID");
	if (sane_request_id(id))
		return id;
	if (getrandom(random, sizeof random, 0) != sizeof random)
		abort();
	made = arena_alloc(request->arena, 2 * sizeof random + 1);
	hex_encode(random, sizeof random, made);
	return made;
}

static void http_refuse(struct http_request *request, int status, const char *detail)
{
	if (request->refused_status == 0) {
		request->refused_status = status;
		request->refused_detail = detail;
	}
}

/* Decodes text[0..len), + as a blank too where `form` says so. NULL when it is malformed: a bad
 * escape, a NUL or what is not UTF-8. */
static const char *decode(struct arena *arena, const char *text, size_t len, bool form)
{
	char *out = arena_alloc(arena, len + 1);
	size_t used = 0;

	for (size_t i = 0; i < len; i++) {
		uint8_t byte = (uint8_t)text[i];

		if (byte == '%') {
			char digits[3] = "";

			if (len - i < 3)
				return NULL;
			memcpy(digits, text + i + 1, 2);
			if (!hex_decode(digits, 1, &byte))
				return NULL;
			i += 2;
		} else if (byte == '+' && form) {
			byte = ' ';
		}
		if (byte == '\0')
			return NULL;
		out[used++] = (char)byte;
	}
	return utf8_valid(out, used) ? out : NULL;
}

void http_path_read(struct http_request *request, const char *path, size_t len)
{
	const char *end = path + len;

	if (len > HTTP_PATH_MAX) {
		http_refuse(request, 414, "the path is longer than 2048 bytes");
		return;
	}
	if (len > 0 && end[-1] == '/')
		end--;
	while (path < end) {
		const char *start = path + (*path == '/');
		const char *slash = memchr(start, '/', (size_t)(end - start));
		const char *stop = slash == NULL ? end : slash;
		const char *segment;

		if (request->segment_count == HTTP_SEGMENTS_MAX) {
			request->segment_count = 0; /* longer than any route: no path of ours */
			return;
		}
		segment = decode(request->arena, start, (size_t)(stop - start), false);
		if (segment == NULL) {
			http_refuse(request, 400, "the path is not percent-encoded UTF-8");
			return;
		}
		request->segments[request->segment_count++] = segment;
		path = stop;
	}
}

void http_query_read(struct http_request *request, const char *query)
{
	const char *pair = query;

	if (strlen(query) > HTTP_QUERY_MAX) {
		http_refuse(request, 414, "the query string is longer than 8192 bytes");
		return;
	}
	request->params = arena_alloc(request->arena, HTTP_PARAMS_MAX * sizeof *request->params);
	while (*pair != '\0') {
		size_t len = strcspn(pair, "&");
		const char *equals = memchr(pair, '=', len);
		size_t name_len = equals == NULL ? len : (size_t)(equals - pair);
		struct http_param param = { NULL, "" };

		if (len > 0) {
			param.name = decode(request->arena, pair, name_len, true);
			if (equals != NULL)
				param.value = decode(
					request->arena, equals + 1, len - name_len - 1, true);
			if (param.name == NULL || param.value == NULL) {
				http_refuse(request, 400, "the query is not percent-encoded UTF-8");
				return;
			}
			if (request->param_count == HTTP_PARAMS_MAX) {
				http_refuse(request, 400, "the query has more than 128 parameters");
				return;
			}
			request->params[request->param_count++] = param;
		}
		pair += len;
		if (*pair == '&')
			pair++;
	}
}

void http_request_read(struct http_request *request, FCGX_Request *fcgi, struct arena *arena)
{
	const char *uri, *query, *address;
	size_t path_len;

	*request =
		(struct http_request){ .arena = arena, .fcgi = fcgi, .body_most = HTTP_BODY_MAX };
	request->method = method_of(http_header(request, "REQUEST_METHOD"));
	request->id = request_id(request);
	address = http_header(request, "REMOTE_ADDR");
	request->client_address = address == NULL ? "" : address;
	uri = http_header(request, "REQUEST_URI");
	if (uri == NULL || uri[0] != '/') {
		request->path = "";
		http_refuse(request, 400, "the request has no path");
		return;
	}
	path_len = strcspn(uri, "?");
	request->path = arena_strndup(
		arena, uri, path_len < HTTP_PATH_LOGGED_MAX ? path_len : HTTP_PATH_LOGGED_MAX);
	http_path_read(request, uri, path_len);
	query = uri[path_len] == '?' ? uri + path_len + 1 : "";
	if (*query != '\0')
		http_query_read(request, query);
}

/* application/json, with no parameter but charset=utf-8 (RFC 8259 section 11 defines none, but
 * many clients send that one). */
static bool is_json(const char *content_type)
{
	static const char json[] = "application/json";
	const char *rest;

	if (content_type == NULL || strncasecmp(content_type, json, sizeof json - 1) != 0)
		return false;
	rest = content_type + sizeof json - 1;
	rest += strspn(rest, " \t");
	if (*rest == '\0')
		return true;
	if (*rest++ != ';')
		return false;
	rest += strspn(rest, " \t");
	return *rest == '\0' || strcasecmp(rest, "charset=utf-8") == 0 ||
	       strcasecmp(rest, "charset=\"utf-8\"") == 0;
}

/* Compressed, that is: no body is unpacked here (RFC 9110, section 8.4: answer 415). */
static bool http_is_encoded(const char *content_encoding)
{
	return content_encoding != NULL && *content_encoding != '\0' &&
	       strcasecmp(content_encoding, "identity") != 0;
}

static enum http_body_status read_body(
	const struct http_request *request, const char **bytes, size_t *len)
{
	const char *declared_text = http_header(request, "CONTENT_LENGTH");
	unsigned long long declared = 0;
	bool is_declared = declared_text != NULL && *declared_text != '\0';
	struct buf body;

	if (!is_json(http_header(request, "CONTENT_TYPE")) ||
		http_is_encoded(http_header(request, "HTTP_CONTENT_ENCODING")))
		return HTTP_BODY_NOT_JSON;
	if (is_declared) {
		char *end;

		errno = 0;
		declared = strtoull(declared_text, &end, 10);
		if (!isdigit((unsigned char)*declared_text) || *end != '\0' || errno != 0 ||
			declared > request->body_most)
			return HTTP_BODY_TOO_LARGE;
	}
	/* A chunked request comes without a length: it is read to its end, within the limit. */
	buf_init(&body, request->arena, is_declared ? (size_t)declared : 4096);
	while (body.len <= request->body_most) {
		int room, got;

		if (body.size - 1 == body.len)
			buf_reserve(&body, 1);
		room = (int)(body.size - 1 - body.len);
		got = FCGX_GetStr(body.data + body.len, room, request->fcgi->in);
		body.len += (size_t)got;
		if (got < room || (is_declared && body.len == declared))
			break;
	}
	body.data[body.len] = '\0';
	if (body.len > request->body_most)
		return HTTP_BODY_TOO_LARGE;
	if (is_declared && body.len != declared)
		return HTTP_BODY_TRUNCATED;
	*bytes = body.data;
	*len = body.len;
	return HTTP_BODY_OK;
}

enum http_body_status http_body_read(struct http_request *request, const char **bytes, size_t *len)
{
	if (!request->body_is_read) {
		request->body_status = read_body(request, &request->body, &request->body_len);
		request->body_is_read = true;
	}
	*bytes = request->body;
	*len = request->body_len;
	return request->body_status;
}

void http_response_init(struct http_response *response, struct arena *arena)
{
	*response = (struct http_response){
		.arena = arena, .status = 200, .content_type = "application/json"
	};
	buf_init(&response->body, arena, 2048);
}

void http_header_add(struct http_response *response, const char *name, const char *value)
{
	for (const char *c = value; *c != '\0'; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			abort();
	if (response->header_count == HTTP_HEADERS_MAX)
		abort();
	response->headers[response->header_count++] = (struct http_header){ name, value };
}

static const char *reason_phrase(int status)
{
	static const struct {
		int status;
		const char *phrase;
	} phrases[] = { { 200, "OK" }, { 201, "Created" }, { 204, "No Content" },
		{ 304, "Not Modified" }, { 400, "Bad Request" }, { 401, "Unauthorized" },
		{ 403, "Forbidden" }, { 404, "Not Found" }, { 405, "Method Not Allowed" },
		{ 409, "Conflict" }, { 410, "Gone" }, { 413, "Content Too Large" },
		{ 414, "URI Too Long" }, { 415, "Unsupported Media Type" },
		{ 429, "Too Many Requests" }, { 500, "Internal Server Error" },
		{ 503, "Service Unavailable" } };

	for (size_t i = 0; i < sizeof phrases / sizeof phrases[0]; i++)
		if (phrases[i].status == status)
			return phrases[i].phrase;
	return "Unknown";
}

/* "Invalid owner_address: not 0x and 40 hex digits": the first fault as a sentence. */
static const char *first_fault(struct arena *arena, const struct fault *fault)
{
	const char *name = fault->pointer[0] == '/' ? fault->pointer + 1 : fault->pointer;

	return arena_printf(
		arena, "Invalid %s: %s", name[0] == '\0' ? "body" : name, fault->detail);
}

void http_problem(struct http_response *response, const struct http_request *request,
	const struct http_problem *answer)
{
	const struct problem *problem = answer->problem;
	struct arena *arena = response->arena;
	const struct fault *fault = answer->faults == NULL ? NULL : answer->faults->first;
	const char *detail = answer->detail;
	struct json_out out;

	if (detail == NULL && fault != NULL)
		detail = first_fault(arena, fault);
	response->status = problem->status;
	response->code = problem->code;
	response->content_type = "application/problem+json";
	buf_init(&response->body, arena, 512);
	json_out_init(&out, &response->body);
	json_open_object(&out);
	json_string(&out, "type",
		problem_base == NULL
			? "about:blank"
			: arena_printf(arena, "%s%s.html", problem_base, problem->code));
	json_string(&out, "title", reason_phrase(problem->status));
	json_integer(&out, "status", problem->status);
	json_string(&out, "detail", detail);
	json_string(&out, "code", problem->code);
	json_string(&out, "request_id", request->id);
	if (answer->member != NULL)
		json_string(&out, answer->member, answer->value);
	if (fault != NULL) {
		json_key(&out, "errors");
		json_open_array(&out);
		for (; fault != NULL; fault = fault->next) {
			json_open_object(&out);
			json_string(&out, "pointer", fault->pointer);
			json_string(&out, "detail", fault->detail);
			json_close_object(&out);
		}
		json_close_array(&out);
	}
	json_close_object(&out);
}

/* Whether the list of entity tags in If-None-Match names this one, by weak comparison: nginx
 * weakens the tag of what it compresses (RFC 9110, sections 8.8.3.2 and 13.1.2). */
static bool names_etag(const char *list, const char *etag)
{
	size_t len = strlen(etag);

	while (*list != '\0') {
		list += strspn(list, " \t,");
		if (*list == '*')
			return true;
		if (strncmp(list, "W/", 2) == 0)
			list += 2;
		if (strncmp(list, etag, len) == 0 && strchr(" \t,", list[len]) != NULL)
			return true;
		list += strcspn(list, ",");
	}
	return false;
}

const char *http_etag(struct http_response *response)
{
	uint8_t digest[SHA256_BYTES];
	char *etag;

	if (response->etag != NULL)
		return response->etag;
	etag = arena_alloc(response->arena, 2 * 16 + 3);
	sha256(response->body.data, response->body.len, digest);
	etag[0] = '"';
	hex_encode(digest, 16, etag + 1);
	etag[33] = '"';
	response->etag = etag;
	return etag;
}

static void add_etag(struct http_response *response, const struct http_request *request)
{
	const char *known = http_header(request, "HTTP_IF_NONE_MATCH");
	const char *etag = http_etag(response);

	http_header_add(response, "ETag", etag);
	if (known != NULL && names_etag(known, etag))
		response->status = 304;
}

/* nginx gives up an answer (502) when the application closes before it could send the whole
 * request: what the handler did not read is read now. */
static void http_drain(FCGX_Stream *in)
{
	char scrap[8192];

	while (FCGX_GetStr(scrap, sizeof scrap, in) == sizeof scrap)
		;
}

static void http_put_number(struct buf *to, int64_t number)
{
	char digits[DECIMAL_BYTES];

	buf_put(to, digits, decimal(digits, number));
}

size_t http_response_send(struct http_response *response, const struct http_request *request)
{
	FCGX_Stream *out = request->fcgi->out;
	bool is_read = request->method == HTTP_GET || request->method == HTTP_HEAD;
	bool has_body;
	struct buf head;

	http_drain(request->fcgi->in);
	if (is_read && response->status == 200)
		add_etag(response, request);
	has_body = response->status != 204 && response->status != 304;
	buf_init(&head, response->arena, 1024);
	buf_puts(&head, "Status: ");
	http_put_number(&head, (int64_t)response->status);
	buf_puts(&head, " ");
	buf_puts(&head, reason_phrase(response->status));
	buf_puts(&head, "\r\n");
	for (size_t i = 0; i < response->header_count; i++) {
		buf_puts(&head, response->headers[i].name);
		buf_puts(&head, ": ");
		buf_puts(&head, response->headers[i].value);
		buf_puts(&head, "\r\n");
	}
	if (has_body) {
		buf_puts(&head, "Content-Type: ");
		buf_puts(&head, response->content_type);
		buf_puts(&head, "\r\nContent-Length: ");
		http_put_number(&head, (int64_t)response->body.len);
		buf_puts(&head, "\r\n");
	}
	buf_puts(&head, "\r\n");
	if (FCGX_PutStr(head.data, (int)head.len, out) < 0 || !has_body ||
		request->method == HTTP_HEAD ||
		FCGX_PutStr(response->body.data, (int)response->body.len, out) < 0)
		return 0;
	return response->body.len;
}
