/* SPDX-License-Identifier: Apache-2.0 */
/* Read beside this: epoll(7), unix(7) (SCM_RIGHTS), ngx_http_upstream_module (keepalive). */
#include "app/http/connections.h"

#include <errno.h>
#include <fastcgi.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/clock.h"

enum {
	GRACE_MS = 1, /* that a request may wait behind another's trip to the database */
	BALANCE_EVERY = 16, /* answers: how often a worker looks whether it holds too many */
	TURN = 4, /* connections that a worker accepts before the others come first */
	PEEK_BYTES = 2048, /* of a new request */
};

/* ---- What is held ---- */

static int connections_watch(const struct connections *connections, int fd, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.fd = fd };

	return epoll_ctl(connections->epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

int connections_open(struct connections *connections, int listen_fd, struct relay relay,
	int signal_fd, struct scoreboard *scoreboard, size_t place)
{
	*connections = (struct connections){ .scoreboard = scoreboard,
		.place = place,
		.relay = relay,
		.listen_fd = listen_fd,
		.signal_fd = signal_fd,
		.current = -1,
		.epoll_fd = epoll_create1(EPOLL_CLOEXEC) };
	/* A worker woken for a connection that another worker has already accepted must not block
	 * in accept(). */
	if (connections->epoll_fd < 0 ||
		fcntl(listen_fd, F_SETFL, fcntl(listen_fd, F_GETFL) | O_NONBLOCK) != 0)
		return -1;
	if (connections_watch(connections, signal_fd, EPOLLIN) != 0 ||
		connections_watch(connections, listen_fd, EPOLLIN | EPOLLEXCLUSIVE) != 0)
		return -1;
	return relay.take < 0
		       ? 0
		       : connections_watch(connections, relay.take, EPOLLIN | EPOLLEXCLUSIVE);
}

static bool holds(const struct connections *connections, int fd)
{
	for (size_t i = 0; i < connections->count; i++)
		if (connections->fds[i] == fd)
			return true;
	return false;
}

static void hold(struct connections *connections, int fd)
{
	if (connections->count == CONNECTIONS_PLACES ||
		connections_watch(connections, fd, EPOLLIN | EPOLLRDHUP) != 0) {
		close(fd);
		return;
	}
	connections->fds[connections->count++] = fd;
	scoreboard_keeps(connections->scoreboard, connections->place, connections->count);
}

static void forget(struct connections *connections, int fd)
{
	for (size_t i = 0; i < connections->count; i++) {
		if (connections->fds[i] != fd)
			continue;
		connections->fds[i] = connections->fds[--connections->count];
		scoreboard_keeps(connections->scoreboard, connections->place, connections->count);
		return;
	}
}

static void hang_up(struct connections *connections, int fd)
{
	forget(connections, fd);
	close(fd);
}

/* Gives it to a colleague, if there is one to come. */
static void part_with(struct connections *connections, int fd)
{
	if (holds(connections, fd)) /* who takes it must not wake us */
		(void)epoll_ctl(connections->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
	if (connections->relay.give >= 0 && scoreboard_wanted(connections->scoreboard) > 0)
		relay_give(connections->relay, fd);
	hang_up(connections, fd);
}

static void part_with_all(struct connections *connections)
{
	while (connections->count > 0)
		part_with(connections, connections->fds[0]);
}

void connections_close(struct connections *connections)
{
	part_with_all(connections);
	if (connections->epoll_fd >= 0)
		close(connections->epoll_fd);
}

/* ---- One request after the other ---- */

/* Accepts a new connection; returns -1 with errno set if there is none. The kernel wakes the
 * waiting worker that registered first. After every TURN connections this worker registers again,
 * and so goes to the end of the line. */
static int take_new(struct connections *connections)
{
	int fd = accept4(connections->listen_fd, NULL, NULL, SOCK_CLOEXEC);

	if (fd >= 0 && ++connections->accepted % TURN == 0 &&
		epoll_ctl(connections->epoll_fd, EPOLL_CTL_DEL, connections->listen_fd, NULL) ==
			0 &&
		connections_watch(connections, connections->listen_fd, EPOLLIN | EPOLLEXCLUSIVE) !=
			0) {
		close(fd);
		return -1;
	}
	return fd;
}

/* Whether all parameters of a new connection's request have come, as nginx sends them: at once. The
 * stream of parameters ends with an empty record (FastCGI specification, section 3.3). */
static bool has_come(int fd)
{
	struct pollfd one = { .fd = fd, .events = POLLIN };
	uint8_t bytes[PEEK_BYTES];
	FCGI_Header record;
	size_t at = 0, len;
	ssize_t got;

	if (poll(&one, 1, GRACE_MS) <= 0)
		return false;
	got = recv(fd, bytes, sizeof bytes, MSG_PEEK | MSG_DONTWAIT);
	len = got < 0 ? 0 : (size_t)got;
	while (at + sizeof record <= len) {
		size_t content;

		memcpy(&record, bytes + at, sizeof record);
		content = (size_t)record.contentLengthB1 << 8 | record.contentLengthB0;
		if (record.type == FCGI_PARAMS && content == 0)
			return true;
		at += sizeof record + content + record.paddingLength;
	}
	return len == sizeof bytes; /* the rest is under way */
}

enum connections_event connections_next(struct connections *connections, int *connection)
{
	bool drains = connections->drain_until_ms != 0;

	for (;;) {
		struct epoll_event event;
		/* One at a time: the kernel turns to each that is ready in its turn. */
		int fd, ready = epoll_wait(connections->epoll_fd, &event, 1, drains ? 0 : -1);

		if (ready == 0 || (drains && clock_ms() >= connections->drain_until_ms))
			return CONNECTIONS_DRAINED;
		if (ready < 0 && errno == EINTR)
			continue;
		if (ready < 0)
			return CONNECTIONS_FAILED;
		fd = event.data.fd;
		if (fd == connections->signal_fd)
			return CONNECTIONS_SIGNAL;
		if (fd == connections->relay.take) {
			fd = relay_take(connections->relay);
			if (fd >= 0)
				hold(connections, fd);
			continue;
		}
		if (fd == connections->listen_fd) {
			*connection = connections->current = take_new(connections);
			if (*connection >= 0) {
				/* If the new connection's request has not come yet, other workers
				 * get the held connections, so that none waits behind it. */
				if (connections->count > 0 && !has_come(*connection))
					part_with_all(connections);
				return CONNECTIONS_NEW_REQUEST;
			}
			if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED)
				continue;
			return CONNECTIONS_FAILED;
		}
		if (event.events & (EPOLLHUP | EPOLLRDHUP | EPOLLERR)) {
			hang_up(connections, fd);
			continue;
		}
		*connection = connections->current = fd;
		return CONNECTIONS_REQUEST;
	}
}

/* Whether a colleague waits who holds clearly fewer. Not looked for each time. */
static bool has_too_many(struct connections *connections)
{
	return ++connections->answered % BALANCE_EVERY == 0 && connections->count > 1 &&
	       scoreboard_has_fewer(
		       connections->scoreboard, connections->place, connections->count - 1, true);
}

static bool has_request(int fd)
{
	struct pollfd one = { .fd = fd, .events = POLLIN };

	return poll(&one, 1, 0) > 0;
}

/* Keeps a connection whose request was answered, or gives it to another worker. */
static void connections_keep(struct connections *connections, int fd)
{
	bool is_held = holds(connections, fd);

	if (connections->drain_until_ms != 0 || has_too_many(connections))
		part_with(connections, fd);
	else if (is_held && connections->count <= CONNECTIONS_MOST)
		return;
	else if (!is_held && connections->count < CONNECTIONS_MOST)
		hold(connections, fd);
	else if (scoreboard_has_fewer(
			 connections->scoreboard, connections->place, CONNECTIONS_MOST, false))
		part_with(connections, fd);
	else if (!has_request(fd))
		hang_up(connections, fd);
	else if (!is_held) /* nginx has sent the next request already: that is served first */
		hold(connections, fd);
}

void connections_answered(struct connections *connections, int connection, bool is_kept)
{
	int fd = connections->current;

	connections->current = -1;
	if (connection < 0)
		forget(connections, fd);
	else if (is_kept)
		connections_keep(connections, fd);
	else
		hang_up(connections, fd);
}

void connections_drain(struct connections *connections, int most_ms)
{
	if (connections->drain_until_ms != 0)
		return;
	connections->drain_until_ms = clock_ms() + (uint64_t)most_ms;
	if (connections->relay.take >= 0)
		(void)epoll_ctl(
			connections->epoll_fd, EPOLL_CTL_DEL, connections->relay.take, NULL);
	for (size_t i = connections->count; i-- > 0;)
		if (!has_request(connections->fds[i]))
			part_with(connections, connections->fds[i]);
}

/* ---- While a request is served ---- */

/* Waits for what others send, and for *fd where it is not NULL. */
static int connections_look(struct connections *connections, struct pollfd *fd, int timeout_ms)
{
	struct pollfd all[1 + CONNECTIONS_PLACES];
	nfds_t count = 1;
	int ready;

	all[0] = fd == NULL ? (struct pollfd){ .fd = -1 } : *fd;
	for (size_t i = 0; i < connections->count; i++)
		if (connections->fds[i] != connections->current)
			all[count++] =
				(struct pollfd){ .fd = connections->fds[i], .events = POLLIN };
	ready = poll(all, count, timeout_ms);
	if (ready <= 0)
		return ready;
	for (nfds_t i = 1; i < count; i++)
		if (all[i].revents & (POLLHUP | POLLERR))
			hang_up(connections, all[i].fd);
		else if (all[i].revents != 0)
			part_with(connections, all[i].fd);
	if (fd != NULL)
		*fd = all[0];
	return ready;
}

void connections_let_go(struct connections *connections)
{
	if (connections != NULL && connections->count > 0)
		(void)connections_look(connections, NULL, 0);
}

int connections_wait(void *arg, struct pollfd *fd, int timeout_ms)
{
	struct connections *connections = arg;
	uint64_t until_ms;
	int ready;

	if (connections->count == 0 || (timeout_ms >= 0 && timeout_ms <= GRACE_MS))
		return poll(fd, 1, timeout_ms);
	ready = poll(fd, 1, GRACE_MS);
	until_ms = clock_ms() + (uint64_t)(timeout_ms < 0 ? 0 : timeout_ms);
	while (ready == 0) {
		uint64_t now = clock_ms();

		if (timeout_ms >= 0 && now >= until_ms)
			return 0;
		ready = connections_look(
			connections, fd, timeout_ms < 0 ? -1 : (int)(until_ms - now));
		if (ready > 0 && fd->revents == 0)
			ready = 0;
		else if (ready == 0)
			return 0;
	}
	return ready;
}
