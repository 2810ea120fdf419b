/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole requests, as libfcgi takes them off the socket. The web server frames them rightly, so what
 * strangers choose is within the frames. An input is lines NAME=VALUE, an empty line, and the body;
 * http_request_read() and http_body_read() must cope with every name, value and body, and with a
 * length that is not the body's. Behind a ! at its very beginning stands, in two bytes, after how
 * many bytes of the stream the web server goes away.
 */
#include "t/fuzz/fuzz.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "app/problem_list.h"
#include "lib/http.h"
#include "lib/json_in.h"

/* FastCGI specification, section 8. */
enum { BEGIN_REQUEST = 1, PARAMS = 4, STDIN = 5, RESPONDER = 1, RECORD_MAX = 65535 };

/* A stream that ends within its names leaves 48 bytes behind in libfcgi 2.4.2 itself. Asked for by
 * LeakSanitizer. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
	return "leak:libfcgi";
}

static void put_record(struct buf *out, int type, const void *content, size_t len)
{
	const uint8_t head[8] = { 1, (uint8_t)type, 0, 1, (uint8_t)(len >> 8), (uint8_t)len, 0, 0 };

	buf_put(out, head, sizeof head);
	buf_put(out, content, len);
}

static void put_stream(struct buf *out, int type, const char *bytes, size_t len)
{
	while (len > 0) {
		size_t part = len < RECORD_MAX ? len : RECORD_MAX;

		put_record(out, type, bytes, part);
		bytes += part;
		len -= part;
	}
	put_record(out, type, "", 0);
}

static void put_length(struct buf *out, size_t len)
{
	const uint8_t four[4] = { (uint8_t)(0x80 | len >> 24), (uint8_t)(len >> 16),
		(uint8_t)(len >> 8), (uint8_t)len };

	if (len < 128)
		buf_putc(out, (char)len);
	else
		buf_put(out, four, sizeof four);
}

/* Lines NAME=VALUE as name-value pairs; returns where the body begins. */
static size_t put_params(struct buf *out, const char *lines, size_t size)
{
	size_t at = 0;

	while (at < size && lines[at] != '\n') {
		const char *line = lines + at;
		const char *end = memchr(line, '\n', size - at);
		size_t len = end == NULL ? size - at : (size_t)(end - line);
		const char *equals = memchr(line, '=', len);

		if (equals != NULL) {
			put_length(out, (size_t)(equals - line));
			put_length(out, len - (size_t)(equals - line) - 1);
			buf_put(out, line, (size_t)(equals - line));
			buf_put(out, equals + 1, len - (size_t)(equals - line) - 1);
		}
		at += len + (end != NULL);
	}
	return at + (at < size);
}

static void put_request(struct buf *out, const char *text, size_t size)
{
	static const uint8_t begin[8] = { 0, RESPONDER };
	struct buf params;
	size_t body;

	buf_init(&params, out->arena, size);
	body = put_params(&params, text, size);
	put_record(out, BEGIN_REQUEST, begin, sizeof begin);
	put_stream(out, PARAMS, params.data, params.len);
	put_stream(out, STDIN, text + body, size - body);
}

/* A socket to listen on that has no name in any folder; never waits. */
static int listener(struct sockaddr_un *address, socklen_t *len)
{
	static int fd = -1;
	static struct sockaddr_un bound = { .sun_family = AF_UNIX };
	static socklen_t bound_len = sizeof bound;

	if (fd < 0) {
		fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		REQUIRE(fd >= 0 && bind(fd, (struct sockaddr *)&bound, sizeof(sa_family_t)) == 0);
		REQUIRE(listen(fd, 4) == 0);
		REQUIRE(getsockname(fd, (struct sockaddr *)&bound, &bound_len) == 0);
		REQUIRE(FCGX_Init() == 0);
	}
	*address = bound;
	*len = bound_len;
	return fd;
}

/* Connects, and sends everything before anybody reads: it fits the socket's buffer. */
static int connect_and_send(const char *bytes, size_t len, int *listening)
{
	struct sockaddr_un address;
	socklen_t address_len;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	*listening = listener(&address, &address_len);
	REQUIRE(fd >= 0 && connect(fd, (struct sockaddr *)&address, address_len) == 0);
	REQUIRE(send(fd, bytes, len, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)len);
	REQUIRE(shutdown(fd, SHUT_WR) == 0);
	return fd;
}

static void check_request(struct http_request *request)
{
	const char *bytes = NULL;
	size_t len = 0;

	REQUIRE(request->id[0] != '\0' && strlen(request->id) <= 128);
	REQUIRE(request->client_address != NULL && request->path != NULL);
	REQUIRE(request->segment_count <= HTTP_SEGMENTS_MAX);
	REQUIRE(request->param_count <= HTTP_PARAMS_MAX);
	REQUIRE(request->refused_status == 0 || request->refused_detail != NULL);
	if (http_body_read(request, &bytes, &len) == HTTP_BODY_OK)
		REQUIRE(len <= HTTP_BODY_MAX && bytes[len] == '\0');
}

static void answer(struct http_request *request)
{
	struct http_response response;

	http_response_init(&response, request->arena);
	http_header_add(&response, "X-Request-ID", request->id);
	if (request->refused_status != 0) {
		const struct http_problem answer = { .problem = PROBLEM_VALIDATION_FAILED,
			.detail = request->refused_detail };

		http_problem(&response, request, &answer);
	} else {
		buf_puts(&response.body, "{}");
	}
	REQUIRE(http_response_send(&response, request) <= response.body.len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct arena *arena = fuzz_arena();
	const char *text = (const char *)data;
	struct http_request request;
	FCGX_Request fcgi;
	struct buf stream;
	int client, listening;

	buf_init(&stream, arena, size + 64);
	if (size >= 3 && text[0] == '!') {
		put_request(&stream, text + 3, size - 3);
		stream.len = ((size_t)data[1] << 8 | data[2]) % (stream.len + 1);
	} else {
		put_request(&stream, text, size);
	}
	client = connect_and_send(stream.data, stream.len, &listening);
	REQUIRE(FCGX_InitRequest(&fcgi, listening, 0) == 0);
	if (FCGX_Accept_r(&fcgi) == 0) {
		http_request_read(&request, &fcgi, arena);
		check_request(&request);
		answer(&request);
		FCGX_Finish_r(&fcgi);
	}
	FCGX_Free(&fcgi, 1);
	close(client);
	/* room for a body of the length declared, and little more */
	REQUIRE(arena_used(arena) <= HTTP_BODY_MAX + 512 * 1024 + 64 * size);
	return 0;
}
