/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Before a reload, the program that would be started and its configuration are tried out: a child
 * becomes that program, does what a start does, but for taking the sockets, and says how it went.
 */
#ifndef AREG_PROCESS_RELOAD_TRIAL_H
#define AREG_PROCESS_RELOAD_TRIAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "app/cache/host_memory.h"
#include "app/registry/settings.h"
#include "lib/router.h"

/* ---- In the master ---- */

enum { RELOAD_TRIAL_SAID = 2048, RELOAD_TRIAL_REASON = 512 };

struct reload_trial {
	pid_t pid; /* 0: none is on */
	int fd; /* what it says; -1: nothing more */
	uint64_t until_ms;
	char said[RELOAD_TRIAL_SAID];
	size_t len;
};

/* Starts the program `path` with those arguments; in_child(arg) closes what is the master's own.
 * False with errno set when that is not possible. */
MUST_CHECK bool reload_trial_start(struct reload_trial *trial, const char *path, char *const *argv,
	void (*in_child)(void *arg), void *arg);

/* Takes in what it says; kills it when its time is up. */
void reload_trial_look(struct reload_trial *trial);

/* It has ended. True when it went well: then whether the program wants the segment that this one has,
 * `ours`. Else the reason in one line. */
MUST_CHECK bool reload_trial_ended(struct reload_trial *trial, int status, bool *same_segment,
	const struct host_memory_identity *ours, char reason[RELOAD_TRIAL_REASON]);

/* Ends it, if one is on. */
void reload_trial_kill(struct reload_trial *trial);

/* ---- In the child ---- */

/* Whether this program was started for a trial. */
bool reload_trial_is_on(void);

/* Does what a start does. Returns the exit code; on failure a reason stands on stderr. */
int reload_trial_perform(
	struct arena *arena, const struct settings *settings, struct router *router);

#endif
