/* Signals are blocked and taken here, so that no system call is interrupted: sigtimedwait(2). */
#include "app/beside.h"

#include <signal.h>
#include <stddef.h>
#include <time.h>

#include "lib/clock.h"
#include "lib/log.h"

bool beside_wait(int64_t wait_ms)
{
	const uint64_t until_ms = clock_ms() + (uint64_t)wait_ms;
	sigset_t signals;
	const char *why;

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGUSR1);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	for (;;) {
		const uint64_t now_ms = clock_ms();
		const uint64_t left_ms = now_ms < until_ms ? until_ms - now_ms : 0;
		const struct timespec left = { (time_t)(left_ms / 1000),
			(long)(left_ms % 1000 * 1000000) };

		switch (sigtimedwait(&signals, NULL, &left)) {
		case SIGTERM:
			return false;
		case SIGUSR1:
			if (!log_reopen(&why))
				log_error("cannot reopen the log: %s", why);
			break;
		default:
			if (left_ms == 0)
				return true;
		}
	}
}
