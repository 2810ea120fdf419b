/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records in bulk, from JSON to the registry in two steps: import_stage() checks a line and makes
 * it a row of a batch, import_store() puts a batch into the database, what is there already passed
 * over.
 */
#ifndef AREG_CTL_IMPORT_BATCH_H
#define AREG_CTL_IMPORT_BATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "app/registry/settings.h"
#include "lib/buf.h"
#include "lib/db.h"
#include "lib/faults.h"
#include "lib/json_in.h"

enum import_kind { IMPORT_AGENT, IMPORT_FEEDBACK, IMPORT_PAYMENT, IMPORT_KINDS };

enum {
	IMPORT_BATCH_LINES = 5000,
	IMPORT_BATCH_BYTES = 16 * 1024 * 1024, /* of staged text: a batch ends at either */
};

/* A checked line, in COPY's text format: text[kind].data[start..end) of its batch. */
struct import_row {
	uint64_t line;
	enum import_kind kind;
	size_t start, end;
};

struct import_batch {
	struct buf text[IMPORT_KINDS];
	struct import_row rows[IMPORT_BATCH_LINES];
	size_t count;
};

/* Empties a batch, to be filled with memory of `arena`. */
void import_begin(struct import_batch *batch, struct arena *arena);

bool import_full(const struct import_batch *batch);

/*
 * Checks line number `line`, the JSON in text[0..len), and adds it to a batch that is not full.
 * Otherwise returns false, with every fault in *faults, and with its kind, or IMPORT_KINDS when
 * that cannot be told, in *kind. Works in the arena of *faults.
 */
MUST_CHECK bool import_stage(struct import_batch *batch, const struct settings *settings,
	uint64_t line, const char *text, size_t len, struct faults *faults, enum import_kind *kind);

/*
 * Adds to a row in COPY's text format the columns that come out of a registration file, each with a
 * tab before it: registration_file, registration_digest, conformance, and those of AGENT_READ
 * (app/api/agent_columns.h). Where text->object is NULL, all are empty: null, or a list of nothing.
 */
void import_put_file(struct buf *row, struct arena *arena, const struct json_text *text);

/* How many lines of one kind went which way. */
struct import_tally {
	uint64_t stored;
	uint64_t there; /* already, those that differ included */
	uint64_t differs;
	uint64_t refused;
};

struct import_listener {
	void *arg;
	/* A line that the database does not take. */
	void (*refused)(void *arg, uint64_t line, const char *pointer, const char *why);
	/* A line that is already there with other content, in these fields. */
	void (*differs)(void *arg, uint64_t line, const char *fields);
};

/*
 * Stores a batch, in one transaction unless a line of it is refused for a reason that only the
 * database knows; adds to `tallies` what was committed. Works in `arena`, which it resets. DB_OK,
 * or the failure of the database, with what was stored before it in the tallies.
 */
MUST_CHECK enum db_status import_store(struct db *db, const struct import_batch *batch,
	struct arena *arena, struct import_tally tallies[IMPORT_KINDS],
	const struct import_listener *listener);

#endif
