/*
 * Feedback that several workers have to store at the same time goes to PostgreSQL together. A writer, a
 * process beside the workers, takes what they have by then, stores it by one statement in one
 * transaction, and tells each what became of its own: so all of it shares one commit, and what a
 * statement costs by itself. While that is under way the next lot gathers; nobody waits for company.
 *
 * Only what can be stored at once is stored together. A worker stores its own, as ever, when the agent
 * does not take feedback, or no more of the client today (it finds out why), when somebody else holds the agent's statistics (it waits
 * for them, and nobody waits behind it), when anything in the lot is refused, and when there is no
 * writer.
 */
#ifndef AREG_PROCESS_FEEDBACK_WRITER_H
#define AREG_PROCESS_FEEDBACK_WRITER_H

#include <stdbool.h>
#include <stdint.h>

#include "app/registry/settings.h"
#include "lib/arena.h"
#include "lib/db.h"
#include "lib/metrics.h"
#include "lib/relay.h"

enum {
	WRITERS_MOST = 8, /* of a host */
	WRITER_WORKERS =
		8, /* for each: with fewer, lots are so small that workers are faster alone */
	WRITER_PARAMS = 14, /* of a feedback, in the order of areg_give_feedback_together() */
	/* id, agent_uuid, feedback_index, score, value, value_decimals, created_at, is_self */
	WRITER_VALUES = 8,
};

/* How many there are to be. */
size_t writers_for(const struct settings *settings);

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
 * Has one feedback stored, with its entry in the audit log, by the writer that stores all of its agent, so
 * that writers are not in each other's way. Values are texts in the arena, NULL for SQL
 * null. WRITER_FAILED goes with DB_OUTCOME_UNKNOWN, when the writer or its connection went meanwhile,
 * or with a failure after which nothing is stored.
 */
MUST_CHECK enum writer_outcome writer_store(struct writer_links *links,
	const char *const params[WRITER_PARAMS], struct arena *arena,
	const char *values[WRITER_VALUES], struct db_error *error);

/*
 * The writer process. After SIGTERM it ends when the last worker has closed its link. Counts its trips
 * to PostgreSQL. `reached` is for db_share_reached(). Closes ready_fd once it takes links. Returns the
 * process's exit code.
 */
int writer_run(const struct settings *settings, struct metrics *metrics, uint64_t *reached,
	struct relay door, int ready_fd);

#endif
