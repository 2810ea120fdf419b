/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The key that seals what lies in memcached (lib/seal.h). It is made of cache_secret_file, which
 * all hosts of a registry have a copy of. Without such a file the key is made of database_url. Then
 * the key is as hard to guess as the password in that URL; without a password, everybody can
 * compute it.
 */
#ifndef AREG_CACHE_SEAL_KEY_H
#define AREG_CACHE_SEAL_KEY_H

#include "app/registry/settings.h"

enum {
	CACHE_SECRET_LEAST = 16,
	CACHE_SECRET_MOST = 4096
}; /* bytes of the file, but for line ends behind it */

/* Sets settings->cache_key and is_cache_key_secret. False, with the fault in *faults, when the file is
 * named but not there, cannot be read, can be read by every user of this host, or is too short or too
 * long. The default file may be absent. For programs that use memcached. */
MUST_CHECK bool seal_key_read(
	struct arena *arena, struct settings *settings, struct settings_faults *faults);

/* Whether that database_url holds a password. */
MUST_CHECK bool url_has_password(const char *url);

#endif
