/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private PostgreSQL and memcached servers for tests: real ones, on Unix sockets in a temporary
 * folder, gone when the test program is. A server that cannot be started ends the program.
 */
#ifndef AREG_T_SERVERS_H
#define AREG_T_SERVERS_H

#include <sys/types.h>

#include "lib/db.h"

struct test_postgres {
	char dir[64];
	char url[160]; /* of database "postgres", as superuser "areg" */
	const char *settings; /* "-c name=value …", words split at blanks */
	pid_t pid; /* the postmaster; 0 when stopped */
};

/* Makes a cluster and starts it. As root, it belongs to and runs as user postgres. */
void test_postgres_start(struct test_postgres *server, const char *settings);
/* SIGINT is stop -m fast, SIGQUIT stop -m immediate. Waits until it is gone. */
void test_postgres_stop(struct test_postgres *server, int signal);
/* Starts the same cluster again and waits until it answers. */
void test_postgres_restart(struct test_postgres *server);
/* Stops it and removes its folder. */
void test_postgres_remove(struct test_postgres *server);

/* Applies all migrations of the source tree, in order. */
void test_migrate(struct db *db);

struct test_memcached {
	char dir[64];
	char socket[96]; /* path */
	int port; /* TCP, when asked for; else 0 */
	pid_t pid; /* 0 when stopped */
};

/* Listens on its socket, or, when host is given, at that address and a free port. */
void test_memcached_start(struct test_memcached *server, const char *host);
void test_memcached_stop(struct test_memcached *server);
void test_memcached_restart(struct test_memcached *server, const char *host);
void test_memcached_remove(struct test_memcached *server);

#endif
