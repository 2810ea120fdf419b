/*
 * A worker and its writer talk over a pair of sockets that the worker makes; messages are whole, and
 * when either side dies the other sees it. A worker has one feedback under way, so a link never holds
 * more than one message. Read beside this: unix(7), SOCK_SEQPACKET.
 */
#include "app/process/feedback_writer.h"

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "app/process/helper_process.h"
#include "app/http/metering.h"
#include "lib/buf.h"
#include "lib/clock.h"
#include "lib/log.h"

enum {
	LOT_MOST = 32, /* feedbacks stored together */
	LINKS_MOST = 1100, /* workers of a generation, and those that just replaced one */
	MESSAGE_BYTES = 64 * 1024, /* above what the fields of a feedback can hold */
	ANSWER_BYTES = 1024,
	FAILURE_TEXTS = 3, /* status, SQLSTATE, message */
	MARGIN_MS = 1000, /* for db.c to give up first */
};

/* What a message is: its first byte. */
enum { HELLO = 'H', GIVE = 'G', STORED = 'S', ALONE = 'A', FAILED = 'F' };

static const struct db_statement store_together = {
	.name = "give_feedback_together",
	.effect = DB_CHANGES,
	.sql = "SELECT place, id, agent_uuid, feedback_index, score, value, value_decimals, created_at,"
	       "       is_self"
	       "  FROM areg_give_feedback_together($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12,"
	       "       $13, $14, $15)",
};

size_t writers_for(const struct settings *settings)
{
	const int worth = settings->workers / WRITER_WORKERS;

	return (size_t)(worth < settings->feedback_writers ? worth : settings->feedback_writers);
}

/* ---- Messages: a kind, and texts or nulls ---- */

static void put_text(struct buf *message, const char *text)
{
	buf_putc(message, text == NULL ? 0 : 1);
	if (text != NULL)
		buf_put(message, text, strlen(text) + 1);
}

/* Takes exactly `count` texts from what follows the kind. They point into the message. */
static bool take_texts(const char *message, size_t len, const char **texts, size_t count)
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

static bool send_message(int fd, const struct buf *message)
{
	return send(fd, message->data, message->len, MSG_NOSIGNAL | MSG_DONTWAIT) ==
	       (ssize_t)message->len;
}

/* ---- The worker's side ---- */

static void knock(struct writer_link *link, struct relay door)
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

/* The lot before has to be done first: two statements, and the writer may have to connect. But the worker
 * is to give up before the master gives up the worker. */
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
		knock(&links->links[i], doors->doors[i]);
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
		knock(link, door);
	return link->is_open;
}

/* Of those that have this one of its agents to store. FNV-1a; letter case is not told apart, as in a
 * UUID. */
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
		len = recv(from, message, ANSWER_BYTES, MSG_DONTWAIT);
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
	const char *failure[FAILURE_TEXTS], *why;
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
	buf_putc(&message, GIVE);
	for (size_t i = 0; i < WRITER_PARAMS; i++)
		put_text(&message, params[i]);
	if (message.len > MESSAGE_BYTES)
		return WRITER_ALONE;
	answer = arena_alloc(arena, ANSWER_BYTES); /* before sending: it may not return */
	if (!send_message(link->fd, &message)) {
		knock(link, door);
		return WRITER_ALONE;
	}
	links->given++;
	len = await_answer(links, link->fd, answer, &why);
	if (len == 1 && *answer == ALONE)
		return WRITER_ALONE;
	if (len > 0 && *answer == STORED && take_texts(answer, len, values, WRITER_VALUES))
		return WRITER_STORED;
	*error = (struct db_error){ .statement = store_together.name };
	if (len > 0 && *answer == FAILED && take_texts(answer, len, failure, FAILURE_TEXTS)) {
		error->status = (enum db_status)atoi(failure[0]);
		snprintf(error->sqlstate, sizeof error->sqlstate, "%s", failure[1]);
		snprintf(error->message, sizeof error->message, "%s", failure[2]);
		return WRITER_FAILED;
	}
	knock(link, door);
	error->status = DB_OUTCOME_UNKNOWN;
	snprintf(error->message, sizeof error->message, "%s", why);
	return WRITER_FAILED;
}

/* ---- The writer ---- */

/* The plan is the same whatever is in the lot: making it anew would cost more than following it. */
static const char session[] =
	"SET plan_cache_mode = force_generic_plan; SET random_page_cost = 1.1; SET enable_seqscan = off;"
	"SET max_parallel_workers_per_gather = 0; SET jit = off;";

struct item {
	int fd; /* of the worker's link */
	const char *params[WRITER_PARAMS];
	bool is_stored;
};

struct writer {
	struct db *db;
	struct arena *arena; /* of a lot */
	char most_a_day[16]; /* feedback_per_client_per_day */
	struct metrics *metrics;
	struct db_meter counted;
	int signal_fd;
	struct relay door;
	size_t link_count;
	int links[LINKS_MOST];
	size_t item_count;
	struct item items[LOT_MOST];
	char message[MESSAGE_BYTES];
};

static void answer_kind(int fd, char kind)
{
	/* A worker that is gone needs no answer, and no other can be in its way. */
	(void)!send(fd, &kind, 1, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Takes all who knock. A worker without a link does what it has by itself. */
static void open_door(struct writer *writer)
{
	int fd;

	while ((fd = relay_take(writer->door)) >= 0) {
		if (writer->link_count == LINKS_MOST) {
			close(fd);
			continue;
		}
		writer->links[writer->link_count++] = fd;
		answer_kind(fd, HELLO);
	}
}

/* Takes what has come over a link into the lot. False when its worker is gone. */
static bool take_item(struct writer *writer, int fd)
{
	struct item *item = &writer->items[writer->item_count];
	ssize_t len = recv(fd, writer->message, MESSAGE_BYTES, MSG_DONTWAIT);
	char *kept;

	if (len < 0 && (errno == EAGAIN || errno == EINTR))
		return true;
	if (len <= 0)
		return false;
	kept = arena_alloc(writer->arena, (size_t)len);
	memcpy(kept, writer->message, (size_t)len);
	if (*kept != GIVE || !take_texts(kept, (size_t)len, item->params, WRITER_PARAMS))
		return false;
	item->fd = fd;
	item->is_stored = false;
	writer->item_count++;
	return true;
}

/* One array for each parameter of a feedback, in the order of the lot. */
static enum db_status run_lot(struct writer *writer, struct db_rows *rows)
{
	const char *params[WRITER_PARAMS + 1], *column[LOT_MOST];

	for (size_t i = 0; i < WRITER_PARAMS; i++) {
		for (size_t at = 0; at < writer->item_count; at++)
			column[at] = writer->items[at].params[i];
		params[i] = db_array(writer->arena, column, writer->item_count);
	}
	params[WRITER_PARAMS] = writer->most_a_day;
	return db_run(writer->db, &store_together, params, WRITER_PARAMS + 1, writer->arena, rows);
}

static void answer_stored(struct writer *writer, const struct db_rows *rows)
{
	for (size_t row = 0; row < rows->count; row++) {
		struct item *item = &writer->items[db_int(rows, row, 0) - 1];
		struct buf message;

		item->is_stored = true;
		buf_init(&message, writer->arena, 256);
		buf_putc(&message, STORED);
		for (int i = 0; i < WRITER_VALUES; i++)
			put_text(&message, db_text(rows, row, 1 + i));
		(void)send_message(item->fd, &message);
	}
}

static void answer_failed(const struct writer *writer, enum db_status status)
{
	struct buf message;

	buf_init(&message, writer->arena, 256);
	buf_putc(&message, FAILED);
	put_text(&message, arena_printf(writer->arena, "%d", (int)status));
	put_text(&message, db_last_error(writer->db)->sqlstate);
	put_text(&message, db_last_error(writer->db)->message);
	for (size_t at = 0; at < writer->item_count; at++)
		(void)send_message(writer->items[at].fd, &message);
}

static void count_trips(struct writer *writer)
{
	const struct db_meter now = *db_meter(writer->db), *before = &writer->counted;

	metrics_add(
		writer->metrics, METER_DB_ROUND_TRIPS, 0, 0, now.round_trips - before->round_trips);
	metrics_add(writer->metrics, METER_DB_RETRIES, 0, 0, now.retries - before->retries);
	metrics_add(
		writer->metrics, METER_DB_RECONNECTS, 0, 0, now.reconnects - before->reconnects);
	writer->counted = now;
}

/*
 * A statement that took too long, or may have been committed, is not tried again. After any other
 * failure nothing is stored, and one feedback may be the fault of it: each worker finds out about its
 * own.
 */
static void store_lot(struct writer *writer)
{
	struct db_rows rows;
	const enum db_status status = run_lot(writer, &rows);

	if (status == DB_OK)
		answer_stored(writer, &rows);
	if (status == DB_TIMEOUT || status == DB_OUTCOME_UNKNOWN) {
		answer_failed(writer, status);
	} else {
		for (size_t at = 0; at < writer->item_count; at++)
			if (!writer->items[at].is_stored)
				answer_kind(writer->items[at].fd, ALONE);
	}
	count_trips(writer);
	writer->item_count = 0;
	arena_reset(writer->arena);
}

/* Waits for messages, knocks and signals. Returns how many descriptors are ready. */
static int await(struct writer *writer, struct pollfd *fds, int wait_ms)
{
	fds[0] = (struct pollfd){ .fd = writer->signal_fd, .events = POLLIN };
	fds[1] = (struct pollfd){ .fd = writer->door.take, .events = POLLIN };
	for (size_t i = 0; i < writer->link_count; i++)
		fds[2 + i] = (struct pollfd){ .fd = writer->links[i], .events = POLLIN };
	return poll(fds, 2 + writer->link_count, wait_ms);
}

/* Takes the lot that there is by now, each round from another link on, so that none comes last each
 * time. Where the worker has closed its link, it has died, or has told its client that it does not know:
 * what is left there is not stored any more. */
static void gather(struct writer *writer, const struct pollfd *fds, size_t from)
{
	const size_t count = writer->link_count;

	for (size_t i = 0; i < count && writer->item_count < LOT_MOST; i++) {
		const size_t at = (from + i) % count;

		if (fds[2 + at].revents == 0 ||
			(!(fds[2 + at].revents & POLLHUP) && take_item(writer, writer->links[at])))
			continue;
		close(writer->links[at]);
		writer->links[at] = -1;
	}
	writer->link_count = 0;
	for (size_t at = 0; at < count; at++)
		if (writer->links[at] >= 0)
			writer->links[writer->link_count++] = writer->links[at];
}

int writer_run(const struct settings *settings, struct metrics *metrics, uint64_t *reached,
	struct relay door, int ready_fd)
{
	const struct db_options options = { settings->database_url, "areg writer",
		settings->database_connect_timeout_ms, settings->database_statement_timeout_ms,
		session, true };
	struct writer *writer = calloc(1, sizeof *writer);
	struct pollfd *fds = calloc(2 + LINKS_MOST, sizeof *fds);
	bool ends = false;
	size_t turn = 0;

	if (writer == NULL || fds == NULL)
		abort();
	writer->db = db_new(&options);
	db_share_reached(writer->db, reached, 0);
	writer->arena = arena_new(256 * 1024, 16 * 1024 * 1024);
	writer->metrics = metrics;
	snprintf(writer->most_a_day, sizeof writer->most_a_day, "%d",
		settings->feedback_per_client_per_day);
	writer->door = door;
	writer->signal_fd = beside_signals();
	if (writer->signal_fd < 0) {
		log_error("the writer cannot start: %m");
		return 1;
	}
	close(ready_fd);
	while (!ends || writer->link_count > 0) {
		if (await(writer, fds, -1) < 0 && errno != EINTR) {
			log_error("the writer cannot wait: %m");
			return 1;
		}
		if (fds[0].revents != 0)
			ends |= !beside_heed(writer->signal_fd);
		gather(writer, fds, turn++);
		if (fds[1].revents != 0)
			open_door(writer);
		if (writer->item_count > 0)
			store_lot(writer);
	}
	close(writer->signal_fd);
	db_free(writer->db);
	arena_free(writer->arena);
	free(fds);
	free(writer);
	return 0;
}
