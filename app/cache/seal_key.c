/* SPDX-License-Identifier: Apache-2.0 */
/* Read beside this: open(2), on what O_NONBLOCK means for a FIFO. */
#include "app/cache/seal_key.h"

#include <errno.h>
#include <fcntl.h>
#include <libpq-fe.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "app/build.h"
#include "lib/buf.h"
#include "lib/sha256.h"

static void make_key(struct arena *arena, const char *origin, const char *secret, size_t len,
	uint8_t key[SEAL_KEY_BYTES])
{
	uint8_t digest[SHA256_BYTES];
	struct buf text;

	buf_init(&text, arena, len + 64);
	buf_printf(&text, "areg: memcached, by %s\n", origin);
	buf_put(&text, secret, len);
	sha256(text.data, text.len, digest);
	memcpy(key, digest, SEAL_KEY_BYTES);
}

bool url_has_password(const char *url)
{
	PQconninfoOption *options = PQconninfoParse(url, NULL);
	bool has = false;

	for (const PQconninfoOption *option = options; option != NULL && option->keyword != NULL;
		option++)
		if (strcmp(option->keyword, "password") == 0)
			has = option->val != NULL && *option->val != '\0';
	PQconninfoFree(options);
	return has;
}

/* Whole, without line ends behind it; NULL with *why. */
static const char *read_secret(struct arena *arena, int fd, size_t *len, const char **why)
{
	char *secret = arena_alloc(arena, CACHE_SECRET_MOST + 1);
	struct stat found;
	ssize_t got;

	*len = 0;
	*why = NULL;
	if (fstat(fd, &found) != 0) {
		*why = strerror(errno);
		return NULL;
	}
	if (!S_ISREG(found.st_mode)) {
		*why = "it is no regular file";
		return NULL;
	}
	if ((found.st_mode & S_IROTH) != 0) {
		*why = "every user of this host can read it: chgrp it to the group of areg, and "
		       "chmod 0640";
		return NULL;
	}
	while (*len <= CACHE_SECRET_MOST &&
		(got = read(fd, secret + *len, CACHE_SECRET_MOST + 1 - *len)) > 0)
		*len += (size_t)got;
	if (*len <= CACHE_SECRET_MOST && got < 0)
		*why = strerror(errno);
	else if (*len > CACHE_SECRET_MOST)
		*why = arena_printf(arena, "it is longer than %d bytes", CACHE_SECRET_MOST);
	while (*len > 0 && strchr("\r\n", secret[*len - 1]) != NULL)
		--*len;
	if (*why == NULL && *len < CACHE_SECRET_LEAST)
		*why = arena_printf(arena, "it is shorter than %d bytes", CACHE_SECRET_LEAST);
	return *why == NULL ? secret : NULL;
}

bool seal_key_read(struct arena *arena, struct settings *settings, struct settings_faults *faults)
{
	const char *path = settings->cache_secret_file, *secret = NULL, *why = NULL;
	int fd = *path == '\0' ? -1 : open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct settings_fault *fault;
	size_t len;

	if (*path == '\0' ||
		(fd < 0 && errno == ENOENT && strcmp(path, AREG_CACHE_SECRET_DEFAULT) == 0)) {
		make_key(arena, "database_url", settings->database_url,
			strlen(settings->database_url), settings->cache_key);
		settings->is_cache_key_secret = url_has_password(settings->database_url);
		return true;
	}
	if (fd < 0) {
		why = strerror(errno);
	} else {
		secret = read_secret(arena, fd, &len, &why);
		close(fd);
	}
	if (secret != NULL) {
		make_key(arena, "cache_secret_file", secret, len, settings->cache_key);
		settings->is_cache_key_secret = true;
		return true;
	}
	fault = arena_alloc(arena, sizeof *fault);
	*fault = (struct settings_fault){ path, arena_printf(arena, "cache_secret_file: %s", why) };
	*faults = (struct settings_faults){ fault, 1 };
	return false;
}
