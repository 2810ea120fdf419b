/* SPDX-License-Identifier: Apache-2.0 */
/* An anonymous file rather than MAP_ANONYMOUS: its descriptor can be handed over an exec. */
#include "lib/shm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

void *shm_new(const char *name, size_t size, int *fd)
{
	void *memory = MAP_FAILED;
	int saved;

	*fd = memfd_create(name, MFD_CLOEXEC);
	if (*fd >= 0 && ftruncate(*fd, (off_t)size) == 0)
		memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
	if (memory != MAP_FAILED)
		return memory;
	saved = errno;
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
	errno = saved;
	return NULL;
}

void *shm_adopt(int fd, size_t size)
{
	struct stat status;
	void *memory;

	if (fstat(fd, &status) != 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) != 0)
		return NULL;
	if ((size_t)status.st_size < size) {
		errno = EINVAL;
		return NULL;
	}
	memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	return memory == MAP_FAILED ? NULL : memory;
}

void shm_free(void *memory, size_t size, int fd)
{
	if (memory != NULL)
		munmap(memory, size);
	if (fd >= 0)
		close(fd);
}

/* None of these can fail but by a bug or for want of memory at the start: then nothing runs. */
static void must(int error)
{
	if (error != 0)
		abort();
}

void shm_mutex_init(pthread_mutex_t *mutex)
{
	pthread_mutexattr_t attributes;

	must(pthread_mutexattr_init(&attributes));
	must(pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED));
	must(pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST));
	must(pthread_mutex_init(mutex, &attributes));
	must(pthread_mutexattr_destroy(&attributes));
}

/* Whether the mutex was had, by what an attempt at it returned; `busy` is what it may say besides. */
static bool had(pthread_mutex_t *mutex, int error, int busy)
{
	if (error == busy)
		return false;
	if (error == EOWNERDEAD)
		error = pthread_mutex_consistent(mutex);
	must(error);
	return true;
}

void shm_mutex_lock(pthread_mutex_t *mutex)
{
	(void)had(mutex, pthread_mutex_lock(mutex), -1);
}

bool shm_mutex_try(pthread_mutex_t *mutex)
{
	return had(mutex, pthread_mutex_trylock(mutex), EBUSY);
}

bool shm_mutex_wait(pthread_mutex_t *mutex, unsigned wait_ms)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += wait_ms / 1000;
	until.tv_nsec += (long)(wait_ms % 1000) * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_nsec -= 1000000000;
		until.tv_sec++;
	}
	return had(mutex, pthread_mutex_timedlock(mutex, &until), ETIMEDOUT);
}

void shm_mutex_unlock(pthread_mutex_t *mutex)
{
	must(pthread_mutex_unlock(mutex));
}
