/* SPDX-License-Identifier: Apache-2.0 */
/* Starting and stopping of private servers, see servers.h. */
#include "t/unit/servers.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <glob.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <libpq-fe.h>

enum { WORDS_MAX = 64, WAIT_MS = 20000, WAIT_STEP_MS = 10 };

static void die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
static void die(const char *format, ...)
{
	va_list args;

	fputs("Bail out! ", stdout);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
	fflush(stdout);
	exit(1);
}

static void pause_ms(long ms)
{
	struct timespec left = { ms / 1000, ms % 1000 * 1000000 };

	while (nanosleep(&left, &left) < 0 && errno == EINTR)
		;
}

/* Whom the servers run as: PostgreSQL and memcached both refuse to be root. NULL: ourselves. */
static const struct passwd *other_user(const char *name)
{
	const struct passwd *user;

	if (geteuid() != 0)
		return NULL;
	user = getpwnam(name);
	if (!user)
		die("no user %s to run a server as", name);
	return user;
}

static void become(const struct passwd *user)
{
	if (user && (initgroups(user->pw_name, user->pw_gid) || setgid(user->pw_gid) ||
			    setuid(user->pw_uid)))
		_exit(126);
}

/* Starts a program, its words split at blanks, with its output in DIR/log; it dies with us. */
static pid_t start(const char *dir, const struct passwd *user, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
static pid_t start(const char *dir, const struct passwd *user, const char *format, ...)
{
	char line[1024], log[96], *words[WORDS_MAX + 1] = { NULL }, *save;
	size_t count = 0;
	va_list args;
	pid_t pid;

	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	for (char *word = strtok_r(line, " ", &save); word && count < WORDS_MAX;
		word = strtok_r(NULL, " ", &save))
		words[count++] = word;
	snprintf(log, sizeof(log), "%s/log", dir);

	pid = fork();
	if (pid < 0)
		die("fork: %s", strerror(errno));
	if (pid == 0) {
		int fd;

		become(user);
		fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
		if (fd < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0 || chdir(dir) < 0)
			_exit(126);
		prctl(PR_SET_PDEATHSIG, SIGQUIT);
		execvp(words[0], words);
		_exit(127);
	}
	return pid;
}

static int wait_for(pid_t pid)
{
	int status = -1;

	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return status;
}

static void make_dir(char *dir, size_t size, const char *kind, const struct passwd *user)
{
	const char *base = getenv("TMPDIR");

	snprintf(dir, size, "%s/areg-%s-XXXXXX", base && strlen(base) < 30 ? base : "/tmp", kind);
	if (!mkdtemp(dir) || (user && chown(dir, user->pw_uid, user->pw_gid) < 0))
		die("%s: %s", dir, strerror(errno));
}

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *at)
{
	(void)st, (void)kind, (void)at;
	return remove(path);
}

static void remove_dir(const char *dir)
{
	nftw(dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

/* Where initdb and postgres are: not in PATH on Debian. The newest version found. */
static const char *postgres_bin(void)
{
	static char bin[256];
	glob_t found;

	if (glob("/usr/lib/postgresql/*/bin/initdb", 0, NULL, &found) == 0) {
		const char *last = found.gl_pathv[found.gl_pathc - 1];

		snprintf(bin, sizeof(bin), "%.*s", (int)(strrchr(last, '/') - last + 1), last);
		globfree(&found);
	}
	return bin;
}

void test_postgres_restart(struct test_postgres *server)
{
	server->pid = start(server->dir, other_user("postgres"),
		"%spostgres -D %s/data -k %s -c listen_addresses= -c fsync=off %s", postgres_bin(),
		server->dir, server->dir, server->settings);
	for (int waited = 0; PQping(server->url) != PQPING_OK; waited += WAIT_STEP_MS) {
		if (waited > WAIT_MS || waitpid(server->pid, NULL, WNOHANG) != 0)
			die("PostgreSQL does not start, see %s/log", server->dir);
		pause_ms(WAIT_STEP_MS);
	}
}

void test_postgres_start(struct test_postgres *server, const char *settings)
{
	const struct passwd *user = other_user("postgres");

	make_dir(server->dir, sizeof(server->dir), "pg", user);
	server->settings = settings;
	snprintf(server->url, sizeof(server->url), "postgresql:///postgres?host=%s&user=areg",
		server->dir);
	if (wait_for(start(server->dir, user,
		    "%sinitdb -D %s/data -A trust -U areg -E UTF8 --no-sync", postgres_bin(),
		    server->dir)) != 0)
		die("initdb failed, see %s/log", server->dir);
	test_postgres_restart(server);
}

void test_postgres_stop(struct test_postgres *server, int signal)
{
	if (!server->pid)
		return;
	kill(server->pid, signal);
	wait_for(server->pid);
	server->pid = 0;
}

void test_postgres_remove(struct test_postgres *server)
{
	test_postgres_stop(server, SIGQUIT);
	remove_dir(server->dir);
}

static int free_port(int family)
{
	struct sockaddr_in6 six = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	struct sockaddr_in four = { .sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr *address = family == AF_INET6 ? (void *)&six : (void *)&four;
	socklen_t len = family == AF_INET6 ? sizeof(six) : sizeof(four);
	const int fd = socket(family, SOCK_STREAM, 0);

	if (fd < 0 || bind(fd, address, len) < 0 || getsockname(fd, address, &len) < 0)
		die("no free port: %s", strerror(errno));
	close(fd);
	return ntohs(family == AF_INET6 ? six.sin6_port : four.sin_port);
}

static int answers(const struct test_memcached *server, const char *host)
{
	struct sockaddr_un local = { .sun_family = AF_UNIX };
	struct sockaddr_in6 six = { .sin6_family = AF_INET6,
		.sin6_port = htons((in_port_t)server->port) };
	struct sockaddr_in four = { .sin_family = AF_INET,
		.sin_port = htons((in_port_t)server->port) };
	const int family = !host ? AF_UNIX : strchr(host, ':') ? AF_INET6 : AF_INET;
	const int fd = socket(family, SOCK_STREAM, 0);
	int connected;

	snprintf(local.sun_path, sizeof(local.sun_path), "%s", server->socket);
	if (family == AF_UNIX) {
		connected = connect(fd, (void *)&local, sizeof(local));
	} else if (family == AF_INET6) {
		inet_pton(AF_INET6, host, &six.sin6_addr);
		connected = connect(fd, (void *)&six, sizeof(six));
	} else {
		inet_pton(AF_INET, host, &four.sin_addr);
		connected = connect(fd, (void *)&four, sizeof(four));
	}
	close(fd);
	return connected == 0;
}

void test_memcached_restart(struct test_memcached *server, const char *host)
{
	const struct passwd *user = other_user("nobody");

	if (host)
		server->pid = start(
			server->dir, user, "memcached -U 0 -m 64 -l %s -p %d", host, server->port);
	else
		server->pid = start(
			server->dir, user, "memcached -U 0 -m 64 -s %s -a 0700", server->socket);
	for (int waited = 0; !answers(server, host); waited += WAIT_STEP_MS) {
		if (waited > WAIT_MS || waitpid(server->pid, NULL, WNOHANG) != 0)
			die("memcached does not start, see %s/log", server->dir);
		pause_ms(WAIT_STEP_MS);
	}
}

void test_memcached_start(struct test_memcached *server, const char *host)
{
	make_dir(server->dir, sizeof(server->dir), "mc", other_user("nobody"));
	snprintf(server->socket, sizeof(server->socket), "%s/socket", server->dir);
	server->port = host ? free_port(strchr(host, ':') ? AF_INET6 : AF_INET) : 0;
	test_memcached_restart(server, host);
}

void test_memcached_stop(struct test_memcached *server)
{
	if (!server->pid)
		return;
	kill(server->pid, SIGKILL);
	wait_for(server->pid);
	unlink(server->socket);
	server->pid = 0;
}

void test_memcached_remove(struct test_memcached *server)
{
	test_memcached_stop(server);
	remove_dir(server->dir);
}

void test_migrate(struct db *db)
{
	const char *srcdir = getenv("srcdir");
	char pattern[4096];
	glob_t found;

	snprintf(pattern, sizeof pattern, "%s/sql/*.up.sql", srcdir == NULL ? "." : srcdir);
	if (glob(pattern, 0, NULL, &found) != 0)
		die("no migrations at %s", pattern);
	for (size_t i = 0; i < found.gl_pathc; i++) {
		char *text = NULL;
		size_t size = 0;
		FILE *file = fopen(found.gl_pathv[i], "r");

		if (file == NULL || getdelim(&text, &size, '\0', file) <= 0)
			die("%s cannot be read", found.gl_pathv[i]);
		fclose(file);
		if (db_script(db, text) != DB_OK)
			die("%s: %s", found.gl_pathv[i], db_last_error(db)->message);
		free(text);
	}
	globfree(&found);
}
