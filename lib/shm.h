/* Memory shared by a master and the processes it forks, that can outlive an exec. */
#ifndef AREG_SHM_H
#define AREG_SHM_H

#include <stddef.h>

#include "lib/must_check.h"

/* Maps `size` zeroed bytes, shared, behind a memfd whose descriptor goes to *fd (close-on-exec).
 * NULL with errno set when the system refuses. */
MUST_CHECK void *shm_new(const char *name, size_t size, int *fd);

void shm_free(void *memory, size_t size, int fd);

#endif
