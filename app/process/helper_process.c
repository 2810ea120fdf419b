/* SPDX-License-Identifier: Apache-2.0 */
/* Signals are blocked and taken here, so that no system call is interrupted: sigtimedwait(2),
 * signalfd(2). */
#include "app/process/helper_process.h"

#include <signal.h>
#include <stddef.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/log.h"

static sigset_t helper_block_signals(void)
{
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGUSR1);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	return signals;
}

static void helper_reopen_log(void)
{
	const char *why;

	if (!log_reopen(&why))
		log_error("cannot reopen the log: %s", why);
}

int helper_signals(void)
{
	const sigset_t signals = helper_block_signals();

	return signalfd(-1, &signals, SFD_CLOEXEC);
}

bool helper_heed(int signal_fd)
{
	struct signalfd_siginfo signal;

	if (read(signal_fd, &signal, sizeof signal) != sizeof signal)
		return true;
	if (signal.ssi_signo == SIGUSR1)
		helper_reopen_log();
	return signal.ssi_signo != SIGTERM;
}

bool helper_wait(int64_t wait_ms)
{
	const uint64_t until_ms = clock_ms() + (uint64_t)wait_ms;
	const sigset_t signals = helper_block_signals();

	for (;;) {
		const uint64_t now_ms = clock_ms();
		const uint64_t left_ms = now_ms < until_ms ? until_ms - now_ms : 0;
		const struct timespec left = { (time_t)(left_ms / 1000),
			(long)(left_ms % 1000 * 1000000) };

		switch (sigtimedwait(&signals, NULL, &left)) {
		case SIGTERM:
			return false;
		case SIGUSR1:
			helper_reopen_log();
			break;
		default:
			if (left_ms == 0)
				return true;
		}
	}
}
