/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A worker and its writer talk over a pair of sockets that the worker makes; messages are whole, and
 * when either side dies the other sees it. A worker has one feedback under way, so a link never holds
 * more than one message. Read beside this: unix(7), SOCK_SEQPACKET.
 */
#include "app/http/feedback_link.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/clock.h"

enum { MARGIN_MS = 1000 }; /* for db.c to give up first */

/* ---- Messages ---- */

void writer_put_text(struct buf *message, const char *text)
{
	buf_putc(message, text == NULL ? 0 : 1);
	if (text != NULL)
		buf_put(message, text, strlen(text) + 1);
}

bool writer_take_texts(const char *message, size_t len, const char **texts, size_t count)
{
	const char *at = message + 1, *end = message + len;

	for (size_t i = 0; i < count; i++) {
		const char *nul;

		texts[i] = NULL;
		if (at == end)
			return false;
		if (*at++ == 0)
			continue;
		nul = memchr(at, '\0', (size_t)(end - at));
		if (nul == NULL)
			return false;
		texts[i] = at;
		at = nul + 1;
	}
	return at == end;
}

bool writer_send(int fd, const struct buf *message)
{
	return send(fd, message->data, message->len, MSG_NOSIGNAL | MSG_DONTWAIT) ==
	       (ssize_t)message->len;
}

/* ---- Links ---- */

static void link_knock(struct writer_link *link, struct relay door)
{
	int ends[2];

	if (link->fd >= 0)
		close(link->fd);
	*link = (struct writer_link){ .fd = -1 };
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
		return;
	link->fd = ends[0];
	relay_give(door, ends[1]);
	close(ends[1]);
}

/* The writer may have to connect and to finish the previous lot before this one: two statements.
 * But the worker is to give up before the master gives up the worker. */
static int timeout_ms(const struct settings *settings)
{
	const int64_t longest_ms =
		settings->database_connect_timeout_ms +
		2 * ((int64_t)settings->database_statement_timeout_ms + MARGIN_MS) + MARGIN_MS;
	const int64_t patience_ms = settings->request_timeout_ms / 2;

	return (int)(longest_ms < patience_ms ? longest_ms : patience_ms);
}

void writer_links_open(struct writer_links *links, const struct writer_doors *doors,
	const struct settings *settings, db_wait *wait, void *wait_arg)
{
	*links = (struct writer_links){ .doors = *doors,
		.timeout_ms = timeout_ms(settings),
		.wait = wait,
		.wait_arg = wait_arg };
	for (size_t i = 0; i < doors->count; i++) {
		links->links[i].fd = -1;
		link_knock(&links->links[i], doors->doors[i]);
	}
}

void writer_links_close(struct writer_links *links)
{
	for (size_t i = 0; i < links->doors.count; i++)
		if (links->links[i].fd >= 0)
			close(links->links[i].fd);
	links->doors.count = 0;
}

/* Whether the writer has taken the link; if it has gone, knocks for the next time. */
static bool is_open(struct writer_link *link, struct relay door)
{
	char greeting;
	ssize_t len;

	if (link->is_open)
		return true;
	len = link->fd < 0 ? 0 : recv(link->fd, &greeting, 1, MSG_DONTWAIT);
	if (len == 1)
		link->is_open = true;
	else if (len == 0)
		link_knock(link, door);
	return link->is_open;
}

/* The index of the writer that stores all feedback of this agent. FNV-1a; letter case does not
 * count, as in a UUID. */
static size_t writer_of(const struct writer_links *links, const char *agent_uuid)
{
	uint32_t hash = 2166136261;

	for (; *agent_uuid != '\0'; agent_uuid++)
		hash = (hash ^ ((unsigned char)*agent_uuid | 0x20)) * 16777619;
	return hash % links->doors.count;
}

/* The bytes of the writer's answer; 0 when it is gone or late, with *why. */
static size_t await_answer(struct writer_links *links, int from, char *message, const char **why)
{
	const uint64_t begun_us = clock_us();
	const uint64_t until_us = begun_us + (uint64_t)links->timeout_ms * 1000;
	ssize_t len = 0;

	*why = "the writer has gone";
	for (;;) {
		struct pollfd fd = { .fd = from, .events = POLLIN };
		const uint64_t now_us = clock_us();
		int ready;

		if (now_us >= until_us) {
			*why = "the writer did not answer in time";
			break;
		}
		ready = links->wait(links->wait_arg, &fd, (int)((until_us - now_us + 999) / 1000));
		if (ready == 0 || (ready < 0 && errno == EINTR))
			continue;
		len = recv(from, message, WRITER_ANSWER_BYTES, MSG_DONTWAIT);
		if (len < 0 && errno == EAGAIN)
			continue;
		break;
	}
	links->waited_us += clock_us() - begun_us;
	return len > 0 ? (size_t)len : 0;
}

enum writer_outcome writer_store(struct writer_links *links,
	const char *const params[WRITER_PARAMS], struct arena *arena,
	const char *values[WRITER_VALUES], struct db_error *error)
{
	struct writer_link *link;
	struct relay door;
	const char *failure[WRITER_FAILURE_TEXTS], *why;
	struct buf message;
	char *answer;
	size_t len;

	if (links->doors.count == 0)
		return WRITER_ALONE;
	link = &links->links[writer_of(links, params[0])];
	door = links->doors.doors[link - links->links];
	if (!is_open(link, door))
		return WRITER_ALONE;
	buf_init(&message, arena, 512);
	buf_putc(&message, WORKER_GIVES);
	for (size_t i = 0; i < WRITER_PARAMS; i++)
		writer_put_text(&message, params[i]);
	if (message.len > WRITER_MESSAGE_BYTES)
		return WRITER_ALONE;
	answer = arena_alloc(arena, WRITER_ANSWER_BYTES); /* before sending: it may not return */
	if (!writer_send(link->fd, &message)) {
		link_knock(link, door);
		return WRITER_ALONE;
	}
	links->given++;
	len = await_answer(links, link->fd, answer, &why);
	if (len == 1 && *answer == WRITER_LEAVES_ALONE)
		return WRITER_ALONE;
	if (len > 0 && *answer == WRITER_HAS_STORED &&
		writer_take_texts(answer, len, values, WRITER_VALUES))
		return WRITER_STORED;
	*error = (struct db_error){ .statement = WRITER_STATEMENT };
	if (len > 0 && *answer == WRITER_HAS_FAILED &&
		writer_take_texts(answer, len, failure, WRITER_FAILURE_TEXTS)) {
		error->status = (enum db_status)atoi(failure[0]);
		snprintf(error->sqlstate, sizeof error->sqlstate, "%s", failure[1]);
		snprintf(error->message, sizeof error->message, "%s", failure[2]);
		return WRITER_FAILED;
	}
	link_knock(link, door);
	error->status = DB_OUTCOME_UNKNOWN;
	snprintf(error->message, sizeof error->message, "%s", why);
	return WRITER_FAILED;
}
