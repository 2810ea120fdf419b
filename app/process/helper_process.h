/* SPDX-License-Identifier: Apache-2.0 */
/* The life of the processes beside the workers: they wait, and hear what the master tells them. */
#ifndef AREG_PROCESS_HELPER_PROCESS_H
#define AREG_PROCESS_HELPER_PROCESS_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/must_check.h"

/* Waits for wait_ms (0: just looks) and reopens the log when told to (SIGUSR1). False as soon as
 * the process shall end (SIGTERM). Blocks both signals, so that they arrive nowhere else. */
MUST_CHECK bool helper_wait(int64_t wait_ms);

/* For who waits for other things besides: a descriptor that is readable when one of the two signals
 * has come; -1 with errno set. */
MUST_CHECK int helper_signals(void);

/* Takes one of them from there. As helper_wait(). */
MUST_CHECK bool helper_heed(int signal_fd);

#endif
