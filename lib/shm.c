/* An anonymous file rather than MAP_ANONYMOUS: its descriptor can be handed over an exec. */
#include "lib/shm.h"

#include <errno.h>
#include <sys/mman.h>
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

void shm_free(void *memory, size_t size, int fd)
{
	if (memory != NULL)
		munmap(memory, size);
	if (fd >= 0)
		close(fd);
}
