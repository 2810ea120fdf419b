/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a master hands over to the program that it becomes on a reload: descriptors, and the processes
 * that were forked so far, which stay its children. It lies in a memfd, whose number the variable
 * AREGD_HANDOVER tells; nothing that a client sends gets there.
 */
#ifndef AREG_PROCESS_HANDOVER_H
#define AREG_PROCESS_HANDOVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "lib/must_check.h"

enum {
	HANDOVER_CREWS = 4, /* generations of which processes are left */
	HANDOVER_PLACES = 1100, /* processes of a generation */
	HANDOVER_PATH = 108, /* as sun_path */
	HANDOVER_REASON = 512,
};

struct handover_crew {
	uint32_t number;
	char version[32]; /* of the program */
	int32_t scoreboard_fd;
	uint64_t scoreboard_layout; /* 0: there is no scoreboard */
	int32_t metrics_fd;
	int32_t request_timeout_ms, shutdown_timeout_ms;
	uint32_t capacity; /* places for workers; those for processes beside them follow */
	uint32_t wanted;
	uint32_t has_other_segment; /* than the one that is handed over */
	struct {
		int32_t pid; /* 0: nobody */
		uint64_t started_ms;
	} places[HANDOVER_PLACES];
};

struct handover {
	uint64_t layout, bytes; /* HANDOVER_LAYOUT and the size of this */
	int32_t master_pid;
	uint64_t service_since_ms; /* when the first master started, by clock_ms() */
	int32_t memory_fd;
	uint64_t memory_layout, memory_edition, memory_bytes; /* struct host_memory_identity */
	int32_t control_fd, health_fd; /* listening; -1: none */
	int32_t relay_fds[2]; /* see app/http/connections.h: give, take */
	char control_path[HANDOVER_PATH], health_path[HANDOVER_PATH];
	uint32_t reloads_asked, reloads_begun, reloads_done;
	char reload_failure[HANDOVER_REASON]; /* of the last that is done; "": it went well */
	uint32_t crew_count;
	struct handover_crew crews[HANDOVER_CREWS]; /* oldest first */
};

/* Puts it into the environment of a program to come. Returns the descriptor, which stays open over
 * an exec, or -1 with errno set. */
MUST_CHECK int handover_offer(const struct handover *handover);

/* Takes the offer back: the exec failed. */
void handover_withdraw(int fd);

/* Whether there is anything to accept. */
bool handover_is_offered(void);

/* What this program was handed over; false when it was started in the ordinary way. On true the
 * caller frees *handover with free(). *why is set when there was an offer that cannot be used. */
MUST_CHECK bool handover_accept(struct handover **handover, const char **why);

#endif
