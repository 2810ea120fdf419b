/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Open descriptors on their way from one process to another: a pair of sockets that a parent makes
 * before it forks. Read beside this: unix(7), SCM_RIGHTS.
 */
#ifndef AREG_RELAY_H
#define AREG_RELAY_H

#include "lib/must_check.h"

/* Descriptors that are put into `give` come out of `take`. -1: there is none. */
struct relay {
	int give, take;
};

/* 0, or -1 with errno set. */
MUST_CHECK int relay_new(struct relay *relay);
void relay_close(struct relay *relay);

/* Sends a descriptor along, and keeps it open here. When the relay is full it does not arrive: whoever
 * is at its other end sees it closed once it is closed here. */
void relay_give(struct relay relay, int fd);

/* The next that was sent, close-on-exec; -1 when there is none, or somebody else was faster. */
MUST_CHECK int relay_take(struct relay relay);

#endif
