/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How requests come to a worker: over new connections, and over those that nginx keeps open between
 * requests (fastcgi_keep_conn). A worker holds several of these and serves one request at a time.
 *
 * A worker gives connections that it holds and cannot serve at once to other workers: through the
 * relay, a pair of sockets that all workers on the listening socket share, those of other
 * generations too. An idle worker waits for such a connection as well as for requests. So no
 * request waits behind a slow one, and a worker that ends takes no connection with it. Where a
 * connection is closed nevertheless, nginx sends its request again over another: conf/nginx keeps
 * connections for GET only.
 */
#ifndef AREG_HTTP_CONNECTIONS_H
#define AREG_HTTP_CONNECTIONS_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "app/http/scoreboard.h"
#include "lib/must_check.h"
#include "lib/relay.h"

enum {
	CONNECTIONS_MOST = 64, /* that a worker keeps */
	CONNECTIONS_PLACES = 2 * CONNECTIONS_MOST, /* with what it was given */
};

struct connections {
	struct scoreboard *scoreboard;
	size_t place; /* on the scoreboard */
	struct relay relay;
	int listen_fd, signal_fd, epoll_fd;
	int current; /* the connection whose request is being served; -1: none */
	unsigned answered, accepted;
	uint64_t drain_until_ms; /* by clock_ms(); 0: not draining */
	size_t count;
	int fds[CONNECTIONS_PLACES]; /* `current` is among them unless it is new */
};

/* Makes `listen_fd` non-blocking. `relay` is -1, -1 for a worker without colleagues; `signal_fd` is
 * readable when a signal has come. 0, or -1 with errno set. */
MUST_CHECK int connections_open(struct connections *connections, int listen_fd, struct relay relay,
	int signal_fd, struct scoreboard *scoreboard, size_t place);

/* Gives away or closes what is left. */
void connections_close(struct connections *connections);

enum connections_event {
	CONNECTIONS_REQUEST, /* *connection is to be read from */
	CONNECTIONS_NEW_REQUEST, /* likewise, and it was just made */
	CONNECTIONS_SIGNAL,
	CONNECTIONS_DRAINED, /* there is nothing more to serve */
	CONNECTIONS_FAILED, /* errno says why */
};

/* Waits for a request; connections_answered() is to follow one. */
MUST_CHECK enum connections_event connections_next(
	struct connections *connections, int *connection);

/* The request is served. `connection` is what it came over, to be kept or to be closed; -1: it was
 * closed already. */
void connections_answered(struct connections *connections, int connection, bool is_kept);

/*
 * From now on nothing is kept or taken: what has no request waiting is given away. Requests in the
 * queue of a socket that is about to close would get 502, so they are still served: for `most_ms`
 * at most, since under load the queue of a socket that nginx goes on using is never empty.
 */
void connections_drain(struct connections *connections, int most_ms);

/* To be called while a request waits for something: gives held connections that have a request to
 * other workers. NULL is allowed: there are none. */
void connections_let_go(struct connections *connections);

/* A db_wait: polls *fd. If that takes long, calls connections_let_go() whenever a held connection
 * has a request. `arg` is the struct connections. */
int connections_wait(void *arg, struct pollfd *fd, int timeout_ms);

#endif
