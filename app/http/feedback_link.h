/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Feedback that several workers have to store at the same time goes to PostgreSQL together: a
 * worker gives its own to a writer, a process beside the workers (app/process/feedback_writer.h),
 * over a link.
 *
 * Feedback is stored together only if it can be stored without waiting for a lock. A worker stores
 * its own, as ever, when the agent does not take feedback, or no more of the client today (it finds
 * out why), when somebody else holds the agent's statistics (it waits for them, and nobody waits
 * behind it), when anything in the lot is refused, and when there is no writer.
 */
#ifndef AREG_HTTP_FEEDBACK_LINK_H
#define AREG_HTTP_FEEDBACK_LINK_H

#include <stdbool.h>
#include <stdint.h>

#include "app/registry/settings.h"
#include "lib/arena.h"
#include "lib/buf.h"
#include "lib/db.h"
#include "lib/relay.h"

enum {
	WRITER_PARAMS = 14, /* of a feedback, in the order of areg_give_feedback_together() */
	/* id, agent_uuid, feedback_index, score, value, value_decimals, created_at, is_self */
	WRITER_VALUES = 8,
};

/* Where a writer takes links from workers: one end for them, one for it. */
struct writer_doors {
	size_t count; /* as many as there are writers */
	struct relay doors[WRITERS_MOST];
};

/* A worker's way to the writers. */
struct writer_links {
	struct writer_doors doors;
	struct writer_link {
		int fd; /* -1: there is no link now */
		bool is_open; /* the writer has said that it is there */
	} links[WRITERS_MOST];
	int timeout_ms; /* for an answer */
	db_wait *wait;
	void *wait_arg;
	uint64_t waited_us; /* so far */
	uint64_t given; /* feedbacks that a writer was asked to store */
};

/* Knocks at the doors. While a writer keeps the worker waiting, wait(wait_arg, …) is called, as
 * db_wait_with() says. */
void writer_links_open(struct writer_links *links, const struct writer_doors *doors,
	const struct settings *settings, db_wait *wait, void *wait_arg);
void writer_links_close(struct writer_links *links);

enum writer_outcome {
	WRITER_STORED, /* values say what */
	WRITER_ALONE, /* nothing is stored: the worker is to do it by itself */
	WRITER_FAILED, /* *error says how */
};

/*
 * Has one feedback stored, with its entry in the audit log, by the writer that stores all of its
 * agent, so that writers are not in each other's way. Values are texts in the arena, NULL for SQL
 * null. WRITER_FAILED goes with DB_OUTCOME_UNKNOWN, when the writer or its connection went
 * meanwhile, or with a failure after which nothing is stored.
 */
MUST_CHECK enum writer_outcome writer_store(struct writer_links *links,
	const char *const params[WRITER_PARAMS], struct arena *arena,
	const char *values[WRITER_VALUES], struct db_error *error);

/* ---- Messages, which both sides of a link send ---- */

enum {
	WRITER_MESSAGE_BYTES = 64 * 1024, /* above what the fields of a feedback can hold */
	WRITER_ANSWER_BYTES = 1024,
	WRITER_FAILURE_TEXTS = 3, /* status, SQLSTATE, message */
};

/* The kind of a message is its first byte. The texts of that kind follow. */
enum writer_message {
	WRITER_SAYS_HELLO = 'H', /* it has taken the link */
	WORKER_GIVES = 'G', /* WRITER_PARAMS texts */
	WRITER_HAS_STORED = 'S', /* WRITER_VALUES texts */
	WRITER_LEAVES_ALONE = 'A',
	WRITER_HAS_FAILED = 'F', /* WRITER_FAILURE_TEXTS texts */
};

/* The statement that stores a lot, by which its failures are logged on both sides. */
#define WRITER_STATEMENT "give_feedback_together"

/* Appends a text, or a null. */
void writer_put_text(struct buf *message, const char *text);

/* Takes exactly `count` texts from what follows the kind. They point into the message. */
MUST_CHECK bool writer_take_texts(
	const char *message, size_t len, const char **texts, size_t count);

/* Sends it whole without waiting, or not at all. */
bool writer_send(int fd, const struct buf *message);

#endif
