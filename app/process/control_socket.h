/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The master's private sockets: making them, and answering one line with one line of JSON on the one
 * for aregctl, without ever waiting for a client.
 */
#ifndef AREG_PROCESS_CONTROL_SOCKET_H
#define AREG_PROCESS_CONTROL_SOCKET_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "lib/buf.h"
#include "lib/must_check.h"

/* Binds and listens, in place of a socket that nobody listens on any more. Mode 0600; or, with
 * `like_fd` >= 0, group and mode of the path that this one is bound to, as far as that is allowed.
 * The descriptor, close-on-exec, or -1 with the reason logged. */
MUST_CHECK int control_listen(const char *path, int like_fd);

enum { CONTROL_CLIENTS = 8, CONTROL_REQUEST = 64 };

struct control_client {
	int fd; /* -1: none */
	uint64_t until_ms;
	char request[CONTROL_REQUEST];
	size_t request_len;
	char *answer; /* malloc()ed; NULL: the request is not whole yet */
	size_t answer_len, sent;
};

struct control {
	int listen_fd; /* -1: none */
	struct control_client clients[CONTROL_CLIENTS];
	/* Writes the answer to a request, without a newline at its end. */
	void (*answer)(void *arg, const char *request, struct buf *out);
	void *arg;
};

void control_init(struct control *control, int listen_fd,
	void (*answer)(void *arg, const char *request, struct buf *out), void *arg);

/* What to wait for: fills up to CONTROL_CLIENTS + 1 and returns how many. */
size_t control_poll(const struct control *control, struct pollfd *set);

/* Does what can be done without waiting. */
void control_serve(struct control *control);

/* In a child: closes everything. */
void control_close(struct control *control);

#endif
