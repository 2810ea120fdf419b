/* SPDX-License-Identifier: Apache-2.0 */
/* Memory shared by a master and the processes it forks, that can outlive an exec. */
#ifndef AREG_SHM_H
#define AREG_SHM_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

#include "lib/must_check.h"

/* Maps `size` zeroed bytes, shared, behind a memfd whose descriptor goes to *fd (close-on-exec).
 * NULL with errno set when the system refuses. */
MUST_CHECK void *shm_new(const char *name, size_t size, int *fd);

/* Maps `size` bytes of what shm_new() made in the program before an exec, and makes the descriptor
 * close-on-exec again. NULL with errno set when it is smaller, or the system refuses. */
MUST_CHECK void *shm_adopt(int fd, size_t size);

void shm_free(void *memory, size_t size, int fd);

/*
 * A mutex in shared memory, robust: when its holder died, the next one gets it as if it had been
 * given back. So what it guards must be usable whatever instruction the holder got to.
 */
void shm_mutex_init(pthread_mutex_t *mutex);
void shm_mutex_lock(pthread_mutex_t *mutex);
void shm_mutex_unlock(pthread_mutex_t *mutex);

/* Takes it unless somebody alive holds it; and waits for it, at most wait_ms. Whether it was had. */
MUST_CHECK bool shm_mutex_try(pthread_mutex_t *mutex);
MUST_CHECK bool shm_mutex_wait(pthread_mutex_t *mutex, unsigned wait_ms);

#endif
