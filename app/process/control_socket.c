/* SPDX-License-Identifier: Apache-2.0 */
/* A client has CLIENT_MS to ask and to read; there is room for CONTROL_CLIENTS, others wait in the
 * listen queue. Read beside this: unix(7). */
#include "app/process/control_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/log.h"

enum { CLIENT_MS = 5000, QUEUE = 128, ANSWER_MAX = 4 * 1024 * 1024 };

/* ---- Sockets ---- */

static bool somebody_listens(const struct sockaddr_un *address)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	bool listens =
		fd >= 0 && (connect(fd, (const struct sockaddr *)address, sizeof *address) == 0 ||
				   errno == EAGAIN);

	if (fd >= 0)
		close(fd);
	return listens;
}

/* What is not allowed is left: in a folder with the set-group-ID bit the group is right already. */
static void resemble(const char *path, int like_fd)
{
	struct sockaddr_un other;
	socklen_t len = sizeof other;
	struct stat status;

	if (getsockname(like_fd, (struct sockaddr *)&other, &len) != 0 ||
		other.sun_family != AF_UNIX || len <= sizeof other.sun_family ||
		stat(other.sun_path, &status) != 0)
		return;
	if (chown(path, (uid_t)-1, status.st_gid) != 0)
		log_debug("%s: its group cannot be changed: %s", path, strerror(errno));
	if (chmod(path, status.st_mode & 0777) != 0)
		log_warn("%s: %s", path, strerror(errno));
}

int control_listen(const char *path, int like_fd)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	mode_t mask;

	strncpy(address.sun_path, path, sizeof address.sun_path - 1);
	errno = EADDRINUSE;
	if (fd < 0 || somebody_listens(&address))
		goto failed;
	if (unlink(path) != 0 && errno != ENOENT)
		goto failed;
	mask = umask(0177);
	if (bind(fd, (const struct sockaddr *)&address, sizeof address) != 0) {
		umask(mask);
		goto failed;
	}
	umask(mask);
	if (like_fd >= 0)
		resemble(path, like_fd);
	if (listen(fd, QUEUE) == 0)
		return fd;
failed:
	log_error("cannot listen on %s: %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
	return -1;
}

/* ---- Clients ---- */

void control_init(struct control *control, int listen_fd,
	void (*answer)(void *arg, const char *request, struct buf *out), void *arg)
{
	*control = (struct control){ .listen_fd = listen_fd, .answer = answer, .arg = arg };
	for (size_t i = 0; i < CONTROL_CLIENTS; i++)
		control->clients[i].fd = -1;
	if (listen_fd >= 0 && fcntl(listen_fd, F_SETFL, O_NONBLOCK) != 0)
		log_error("the control socket: %s", strerror(errno));
}

static void leave(struct control_client *client)
{
	close(client->fd);
	free(client->answer);
	*client = (struct control_client){ .fd = -1 };
}

static struct control_client *free_client(struct control *control)
{
	for (size_t i = 0; i < CONTROL_CLIENTS; i++)
		if (control->clients[i].fd < 0)
			return &control->clients[i];
	return NULL;
}

static void welcome(struct control *control)
{
	struct control_client *client;

	while (control->listen_fd >= 0 && (client = free_client(control)) != NULL) {
		int fd = accept4(control->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd < 0)
			return;
		*client = (struct control_client){ .fd = fd, .until_ms = clock_ms() + CLIENT_MS };
	}
}

static void control_compose(struct control *control, struct control_client *client)
{
	struct arena *arena = arena_new(16 * 1024, ANSWER_MAX);
	struct buf out;

	buf_init(&out, arena, 4096);
	control->answer(control->arg, client->request, &out);
	buf_putc(&out, '\n');
	client->answer = malloc(out.len);
	if (client->answer != NULL) {
		memcpy(client->answer, out.data, out.len);
		client->answer_len = out.len;
	}
	arena_free(arena);
}

/* False when the client is done with, or has to be. */
static bool control_read_request(struct control *control, struct control_client *client)
{
	size_t room = sizeof client->request - 1 - client->request_len;
	ssize_t got = recv(client->fd, client->request + client->request_len, room, 0);
	char *newline;

	if (got <= 0)
		return got < 0 && (errno == EAGAIN || errno == EINTR);
	client->request_len += (size_t)got;
	client->request[client->request_len] = '\0';
	newline = strchr(client->request, '\n');
	if (newline == NULL)
		return client->request_len < sizeof client->request - 1;
	*newline = '\0';
	control_compose(control, client);
	return client->answer != NULL;
}

static bool send_answer(struct control_client *client)
{
	ssize_t put = send(client->fd, client->answer + client->sent,
		client->answer_len - client->sent, MSG_NOSIGNAL);

	if (put < 0)
		return errno == EAGAIN || errno == EINTR;
	client->sent += (size_t)put;
	return client->sent < client->answer_len;
}

void control_serve(struct control *control)
{
	welcome(control);
	for (size_t i = 0; i < CONTROL_CLIENTS; i++) {
		struct control_client *client = &control->clients[i];
		bool goes_on = client->fd >= 0 && clock_ms() < client->until_ms;

		if (client->fd < 0)
			continue;
		if (goes_on && client->answer == NULL)
			goes_on = control_read_request(control, client);
		if (goes_on && client->answer != NULL)
			goes_on = send_answer(client);
		if (!goes_on)
			leave(client);
	}
}

size_t control_poll(const struct control *control, struct pollfd *set)
{
	bool has_room = false;
	size_t count = 0;

	for (size_t i = 0; i < CONTROL_CLIENTS; i++) {
		const struct control_client *client = &control->clients[i];

		has_room |= client->fd < 0;
		if (client->fd >= 0)
			set[count++] = (struct pollfd){ .fd = client->fd,
				.events = client->answer == NULL ? POLLIN : POLLOUT };
	}
	if (control->listen_fd >= 0 && has_room)
		set[count++] = (struct pollfd){ .fd = control->listen_fd, .events = POLLIN };
	return count;
}

void control_close(struct control *control)
{
	for (size_t i = 0; i < CONTROL_CLIENTS; i++)
		if (control->clients[i].fd >= 0)
			leave(&control->clients[i]);
	if (control->listen_fd >= 0)
		close(control->listen_fd);
	control->listen_fd = -1;
}
