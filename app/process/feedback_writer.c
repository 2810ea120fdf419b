/* SPDX-License-Identifier: Apache-2.0 */
/* The lot is what has come by the time that the lot before is stored. */
#include "app/process/feedback_writer.h"

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "app/http/metering.h"
#include "app/process/helper_process.h"
#include "lib/buf.h"
#include "lib/clock.h"
#include "lib/log.h"

enum {
	LOT_MOST = 32, /* feedbacks stored together */
	LINKS_MOST = 1100, /* workers of a generation, and those that just replaced one */
};

static const struct db_statement store_together = {
	.name = WRITER_STATEMENT,
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
	char message[WRITER_MESSAGE_BYTES];
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
		answer_kind(fd, WRITER_SAYS_HELLO);
	}
}

/* Takes what has come over a link into the lot. False when its worker is gone. */
static bool take_item(struct writer *writer, int fd)
{
	struct item *item = &writer->items[writer->item_count];
	ssize_t len = recv(fd, writer->message, WRITER_MESSAGE_BYTES, MSG_DONTWAIT);
	char *kept;

	if (len < 0 && (errno == EAGAIN || errno == EINTR))
		return true;
	if (len <= 0)
		return false;
	kept = arena_alloc(writer->arena, (size_t)len);
	memcpy(kept, writer->message, (size_t)len);
	if (*kept != WORKER_GIVES ||
		!writer_take_texts(kept, (size_t)len, item->params, WRITER_PARAMS))
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
		buf_putc(&message, WRITER_HAS_STORED);
		for (int i = 0; i < WRITER_VALUES; i++)
			writer_put_text(&message, db_text(rows, row, 1 + i));
		(void)writer_send(item->fd, &message);
	}
}

static void answer_failed(const struct writer *writer, enum db_status status)
{
	struct buf message;

	buf_init(&message, writer->arena, 256);
	buf_putc(&message, WRITER_HAS_FAILED);
	writer_put_text(&message, arena_printf(writer->arena, "%d", (int)status));
	writer_put_text(&message, db_last_error(writer->db)->sqlstate);
	writer_put_text(&message, db_last_error(writer->db)->message);
	for (size_t at = 0; at < writer->item_count; at++)
		(void)writer_send(writer->items[at].fd, &message);
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
				answer_kind(writer->items[at].fd, WRITER_LEAVES_ALONE);
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
static void writer_gather(struct writer *writer, const struct pollfd *fds, size_t from)
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

int feedback_writer_run(const struct settings *settings, struct metrics *metrics, uint64_t *reached,
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
	writer->signal_fd = helper_signals();
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
			ends |= !helper_heed(writer->signal_fd);
		writer_gather(writer, fds, turn++);
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
