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

static int watch(const struct kept *kept, int fd, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.fd = fd };

	return epoll_ctl(kept->epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

int kept_open(struct kept *kept, int listen_fd, struct relay relay, int signal_fd,
	struct board *board, size_t place)
{
	*kept = (struct kept){ .board = board,
		.place = place,
		.relay = relay,
		.listen_fd = listen_fd,
		.signal_fd = signal_fd,
		.current = -1,
		.epoll_fd = epoll_create1(EPOLL_CLOEXEC) };
	/* Who was called for a connection that a colleague took must not stand and wait for another. */
	if (kept->epoll_fd < 0 ||
		fcntl(listen_fd, F_SETFL, fcntl(listen_fd, F_GETFL) | O_NONBLOCK) != 0)
		return -1;
	if (watch(kept, signal_fd, EPOLLIN) != 0 ||
		watch(kept, listen_fd, EPOLLIN | EPOLLEXCLUSIVE) != 0)
		return -1;
	return relay.take < 0 ? 0 : watch(kept, relay.take, EPOLLIN | EPOLLEXCLUSIVE);
}

static bool holds(const struct kept *kept, int fd)
{
	for (size_t i = 0; i < kept->count; i++)
		if (kept->fds[i] == fd)
			return true;
	return false;
}

static void hold(struct kept *kept, int fd)
{
	if (kept->count == KEPT_PLACES || watch(kept, fd, EPOLLIN | EPOLLRDHUP) != 0) {
		close(fd);
		return;
	}
	kept->fds[kept->count++] = fd;
	board_keeps(kept->board, kept->place, kept->count);
}

static void forget(struct kept *kept, int fd)
{
	for (size_t i = 0; i < kept->count; i++) {
		if (kept->fds[i] != fd)
			continue;
		kept->fds[i] = kept->fds[--kept->count];
		board_keeps(kept->board, kept->place, kept->count);
		return;
	}
}

static void hang_up(struct kept *kept, int fd)
{
	forget(kept, fd);
	close(fd);
}

/* Gives it to a colleague, if there is one to come. */
static void part_with(struct kept *kept, int fd)
{
	if (holds(kept, fd)) /* who takes it must not wake us */
		(void)epoll_ctl(kept->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
	if (kept->relay.give >= 0 && board_wanted(kept->board) > 0)
		relay_give(kept->relay, fd);
	hang_up(kept, fd);
}

static void part_with_all(struct kept *kept)
{
	while (kept->count > 0)
		part_with(kept, kept->fds[0]);
}

void kept_close(struct kept *kept)
{
	part_with_all(kept);
	if (kept->epoll_fd >= 0)
		close(kept->epoll_fd);
}

/* ---- One request after the other ---- */

/* -1 with errno when there is none. The kernel calls the first who waits, in the order in which they
 * began to watch: who has had a few goes to the end. */
static int take_new(struct kept *kept)
{
	int fd = accept4(kept->listen_fd, NULL, NULL, SOCK_CLOEXEC);

	if (fd >= 0 && ++kept->accepted % TURN == 0 &&
		epoll_ctl(kept->epoll_fd, EPOLL_CTL_DEL, kept->listen_fd, NULL) == 0 &&
		watch(kept, kept->listen_fd, EPOLLIN | EPOLLEXCLUSIVE) != 0) {
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

enum kept_event kept_next(struct kept *kept, int *connection)
{
	bool drains = kept->drain_until_ms != 0;

	for (;;) {
		struct epoll_event event;
		/* One at a time: the kernel turns to each that is ready in its turn. */
		int fd, ready = epoll_wait(kept->epoll_fd, &event, 1, drains ? 0 : -1);

		if (ready == 0 || (drains && clock_ms() >= kept->drain_until_ms))
			return KEPT_DRAINED;
		if (ready < 0 && errno == EINTR)
			continue;
		if (ready < 0)
			return KEPT_FAILED;
		fd = event.data.fd;
		if (fd == kept->signal_fd)
			return KEPT_SIGNAL;
		if (fd == kept->relay.take) {
			fd = relay_take(kept->relay);
			if (fd >= 0)
				hold(kept, fd);
			continue;
		}
		if (fd == kept->listen_fd) {
			*connection = kept->current = take_new(kept);
			if (*connection >= 0) {
				/* Nobody waits behind one who has not said what he wants. */
				if (kept->count > 0 && !has_come(*connection))
					part_with_all(kept);
				return KEPT_NEW_REQUEST;
			}
			if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED)
				continue;
			return KEPT_FAILED;
		}
		if (event.events & (EPOLLHUP | EPOLLRDHUP | EPOLLERR)) {
			hang_up(kept, fd);
			continue;
		}
		*connection = kept->current = fd;
		return KEPT_REQUEST;
	}
}

/* Whether a colleague waits who holds clearly fewer. Not looked for each time. */
static bool has_too_many(struct kept *kept)
{
	return ++kept->answered % BALANCE_EVERY == 0 && kept->count > 1 &&
	       board_has_fewer(kept->board, kept->place, kept->count - 1, true);
}

static bool has_request(int fd)
{
	struct pollfd one = { .fd = fd, .events = POLLIN };

	return poll(&one, 1, 0) > 0;
}

/* Answered, and to be kept by somebody. */
static void keep(struct kept *kept, int fd)
{
	bool is_held = holds(kept, fd);

	if (kept->drain_until_ms != 0 || has_too_many(kept))
		part_with(kept, fd);
	else if (is_held && kept->count <= KEPT_MOST)
		return;
	else if (!is_held && kept->count < KEPT_MOST)
		hold(kept, fd);
	else if (board_has_fewer(kept->board, kept->place, KEPT_MOST, false))
		part_with(kept, fd);
	else if (!has_request(fd))
		hang_up(kept, fd);
	else if (!is_held) /* nginx has sent the next request already: that is served first */
		hold(kept, fd);
}

void kept_answered(struct kept *kept, int connection, bool is_kept)
{
	int fd = kept->current;

	kept->current = -1;
	if (connection < 0)
		forget(kept, fd);
	else if (is_kept)
		keep(kept, fd);
	else
		hang_up(kept, fd);
}

void kept_drain(struct kept *kept, int most_ms)
{
	if (kept->drain_until_ms != 0)
		return;
	kept->drain_until_ms = clock_ms() + (uint64_t)most_ms;
	if (kept->relay.take >= 0)
		(void)epoll_ctl(kept->epoll_fd, EPOLL_CTL_DEL, kept->relay.take, NULL);
	for (size_t i = kept->count; i-- > 0;)
		if (!has_request(kept->fds[i]))
			part_with(kept, kept->fds[i]);
}

/* ---- While a request is served ---- */

/* Waits for what others send, and for *fd where it is not NULL. */
static int look(struct kept *kept, struct pollfd *fd, int timeout_ms)
{
	struct pollfd all[1 + KEPT_PLACES];
	nfds_t count = 1;
	int ready;

	all[0] = fd == NULL ? (struct pollfd){ .fd = -1 } : *fd;
	for (size_t i = 0; i < kept->count; i++)
		if (kept->fds[i] != kept->current)
			all[count++] = (struct pollfd){ .fd = kept->fds[i], .events = POLLIN };
	ready = poll(all, count, timeout_ms);
	if (ready <= 0)
		return ready;
	for (nfds_t i = 1; i < count; i++)
		if (all[i].revents & (POLLHUP | POLLERR))
			hang_up(kept, all[i].fd);
		else if (all[i].revents != 0)
			part_with(kept, all[i].fd);
	if (fd != NULL)
		*fd = all[0];
	return ready;
}

void kept_let_go(struct kept *kept)
{
	if (kept != NULL && kept->count > 0)
		(void)look(kept, NULL, 0);
}

int kept_wait(void *arg, struct pollfd *fd, int timeout_ms)
{
	struct kept *kept = arg;
	uint64_t until_ms;
	int ready;

	if (kept->count == 0 || (timeout_ms >= 0 && timeout_ms <= GRACE_MS))
		return poll(fd, 1, timeout_ms);
	ready = poll(fd, 1, GRACE_MS);
	until_ms = clock_ms() + (uint64_t)(timeout_ms < 0 ? 0 : timeout_ms);
	while (ready == 0) {
		uint64_t now = clock_ms();

		if (timeout_ms >= 0 && now >= until_ms)
			return 0;
		ready = look(kept, fd, timeout_ms < 0 ? -1 : (int)(until_ms - now));
		if (ready > 0 && fd->revents == 0)
			ready = 0;
		else if (ready == 0)
			return 0;
	}
	return ready;
}
