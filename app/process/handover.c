/* SPDX-License-Identifier: Apache-2.0 */
/* One struct in a memfd. Read beside this: memfd_create(2), execve(2). */
#include "app/process/handover.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "app/layouts.h"

static const char variable[] = "AREGD_HANDOVER";

int handover_offer(const struct handover *handover)
{
	char number[16];
	int fd = memfd_create("areg-handover", 0);

	if (fd < 0)
		return -1;
	snprintf(number, sizeof number, "%d", fd);
	if (write(fd, handover, sizeof *handover) == (ssize_t)sizeof *handover &&
		setenv(variable, number, 1) == 0)
		return fd;
	close(fd);
	return -1;
}

void handover_withdraw(int fd)
{
	unsetenv(variable);
	close(fd);
}

bool handover_is_offered(void)
{
	return getenv(variable) != NULL;
}

bool handover_accept(struct handover **handover, const char **why)
{
	const char *number = getenv(variable);
	ssize_t got;
	int fd;

	*why = NULL;
	if (number == NULL)
		return false;
	fd = atoi(number);
	unsetenv(variable);
	*handover = malloc(sizeof **handover);
	got = *handover == NULL ? -1 : pread(fd, *handover, sizeof **handover, 0);
	if (got < 0)
		*why = strerror(errno);
	else if ((size_t)got != sizeof **handover || (*handover)->layout != HANDOVER_LAYOUT ||
		 (*handover)->bytes != sizeof **handover)
		*why = "it is of another version";
	else if ((*handover)->master_pid != getpid())
		*why = "it was meant for another process";
	if (*why == NULL) {
		close(fd);
		return true;
	}
	free(*handover);
	*handover = NULL;
	return false;
}
