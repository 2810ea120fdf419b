/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the master share: master.c keeps the crew up, master_reload.c reloads,
 * master_status.c answers aregctl. */
#ifndef AREG_PROCESS_MASTER_PRIVATE_H
#define AREG_PROCESS_MASTER_PRIVATE_H

#include "app/process/control_socket.h"
#include "app/process/crew.h"
#include "app/process/handover.h"
#include "app/process/master.h"
#include "app/process/reload_trial.h"
#include "lib/buf.h"

enum {
	LOOK_MS = 250, /* how often it looks for workers that are stuck */
	CHANGE_LOOK_MS = 20, /* and for those of a new generation that are ready */
	LEDGER_READY_MS = 300, /* longest that workers wait for the ledger keeper's first round */
	READY_MS = 15000, /* for a new generation to come up */
	HELPERS_END_MS = 2000, /* for the processes beside the workers to end */
	LISTENER_END_MS = 1000, /* before an exec; longer would hold up who waits for the master */
	LISTENER_LATE_MS = 5000, /* an old listener waits no longer than that for the new one */
};

enum phase { SERVING, STARTING, RETIRING, HELD };

struct master {
	const struct settings *settings;
	const struct master_program *program;
	struct stage stage;
	struct host_memory host;
	struct host_memory_identity host_memory_identity;
	struct metrics *metrics;
	int signal_fd;
	struct control control;
	const char *control_path, *health_path; /* "" while there is no such socket */
	uint64_t service_since_ms;

	struct crew crew; /* of this program */
	struct crew old[HANDOVER_CREWS]; /* oldest first */
	size_t old_count;
	enum phase phase;
	uint64_t phase_until_ms; /* STARTING, RETIRING: then whoever is late is ended */
	uint64_t alone_since_ms; /* RETIRING: since no old worker is left; 0: not yet */
	bool is_draining;

	struct reload_trial trial;
	unsigned reloads_asked, reloads_begun, reloads_done; /* numbers: one after the other */
	char reload_failure[HANDOVER_REASON]; /* of the last that is done; "": it went well */
};

/* In a child. */
void master_close_own(void *arg);

size_t master_old_workers(const struct master *master);

void master_forget_old(struct master *master);

/* Returns the number of the reload that will have seen what there is now. */
unsigned master_ask_for_reload(struct master *master);

void master_keep_over_exec(int fd, bool keep);

void master_reload_trial_over(struct master *master, int status);

/* What the phase asks for now. */
void master_go_on(struct master *master);

/* Whether this installation is one that tests have made for themselves. */
bool master_is_test(const struct master *master);

void master_answer_control(void *arg, const char *request, struct buf *text);

#endif
