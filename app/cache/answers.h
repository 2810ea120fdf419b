/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers kept in shared memory as the bytes that were sent, so that a hot read costs no round trip
 * and no JSON is built again. What makes them true:
 *
 * Each agent has a version here (agents share them: a change of one may drop answers about
 * another), and so has the registry as a whole, which every change moves. A process that wants to
 * store an answer takes its label (the version that the answer depends on) before it asks the
 * database; an entry is served only while its label is the present one. A process that changes
 * something moves the versions after the commit and before it acknowledges the change. So a read
 * that starts after an acknowledgement meets nothing older, and a slow reader can only store what
 * nobody is served.
 */
#ifndef AREG_CACHE_ANSWERS_H
#define AREG_CACHE_ANSWERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/arena.h"

struct answers; /* lies in shared memory */

enum {
	ANSWER_BYTES_MAX = 63 * 1024, /* of a body; larger ones are not kept here */
	ANSWER_TARGET_MAX = 255, /* bytes of a request's path and query that are remembered */
	ANSWER_ETAG_LEN = 34, /* with its quotes */
};

/* What was asked: a keyed hash, of 128 bits, that nobody can steer. */
struct answer_key {
	uint64_t words[2];
};

struct answer_label {
	uint64_t epoch; /* counts the times that everything was dropped */
	uint64_t version;
	uint64_t cell; /* whose version */
};

struct answer {
	char etag[ANSWER_ETAG_LEN + 1];
	const char *target; /* path and query of one that was asked, "" when too long */
	const char *body; /* NUL-terminated behind its length */
	size_t len;
};

/* Makes an empty store in `bytes` (at least 512 KiB) of zeroed memory, before forking. NULL when
 * there are no random bytes to be had. */
MUST_CHECK struct answers *answers_init(void *memory, size_t bytes);

struct answer_key answers_key(const struct answers *answers, const void *text, size_t len);

/* ---- Versions ---- */

/* The label of what is asked from now on: about that agent (agent_uuid in any letter case), or NULL
 * for what depends on the registry as a whole. */
struct answer_label answers_label(const struct answers *answers, const char *agent_uuid);

/* The label for answers that no change outdates; only answers_drop_all() drops them. */
struct answer_label answers_lasting_label(const struct answers *answers);

/* An agent has changed, and so the registry; or NULL: lists and totals only. After the commit. */
void answers_changed(struct answers *answers, const char *agent_uuid);

/* Anything may have changed. */
void answers_drop_all(struct answers *answers);

/* ---- Entries ---- */

/* On a hit fills *answer with copies in the arena. now_s is Unix time. */
MUST_CHECK bool answers_find(struct answers *answers, struct answer_key key, int64_t now_s,
	struct arena *arena, struct answer *answer);

/* Stores under a label that was taken before the answer was asked for. Where there is no room, what
 * is out of date goes first, then what was not used for longest. */
void answers_store(struct answers *answers, struct answer_key key, struct answer_label label,
	int64_t now_s, const struct answer *answer);

/* Calls visit() with the target and the use count of each answer in use. Looks at no more than
 * `most` slots, and lowers each use count by a sixteenth. The next call goes on where this one
 * ended. For one process only. */
void answers_tell_used(struct answers *answers, size_t most,
	void (*visit)(const char *target, uint64_t uses, void *arg), void *arg);

/* ---- Claims: of several requests that miss the same answer, one asks the database ---- */

struct answer_claim;

/*
 * Claims a key, so that others who miss it wait instead of asking, too. Returns NULL if the claim
 * cannot be had. If another process holds the claim for this very key, waits until that process
 * releases it or wait_ms are over, and sets *waited. If the holder died, one waiting process gets
 * the claim, with *waited set, and the others go on waiting. Meanwhile let_go(arg) is called now
 * and then, unless it is NULL.
 */
MUST_CHECK struct answer_claim *answers_claim(struct answers *answers, struct answer_key key,
	unsigned wait_ms, void (*let_go)(void *arg), void *arg, bool *waited);
void answers_let_go(struct answer_claim *claim);

/* ---- Whether memcached may be believed: see app/cache/memcached_answers.h ---- */

/* A drop did not reach memcached. Counts such failures. */
void answers_distrust(struct answers *answers);
uint64_t answers_distrusts(const struct answers *answers);

/* Call once new tokens of everything are set in memcached: the first `distrusts` failures then no
 * longer matter. */
void answers_trust(struct answers *answers, uint64_t distrusts);
bool answers_is_trusted(const struct answers *answers);

#endif
