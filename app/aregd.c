/* SPDX-License-Identifier: Apache-2.0 */
/* The program that spawn-fcgi starts: options, configuration, then the master. See aregd(8). */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "app/build.h"
#include "app/cache/seal_key.h"
#include "app/describe.h"
#include "app/process/backend_checks.h"
#include "app/process/handover.h"
#include "app/process/host_checks.h"
#include "app/process/master.h"
#include "app/process/reload_trial.h"
#include "app/registry/settings.h"
#include "app/routes.h"
#include "lib/http.h"
#include "lib/log.h"

enum {
	EXIT_REFUSED = 1, /* the configuration is wrong, or the program could not start */
	EXIT_USAGE = 2,
	EXIT_BACKENDS = 3, /* -t: the configuration is right, a backend is not as it should be */
	LISTEN_FD = 0, /* where the FastCGI specification, section 2.2, puts the socket */
};

static const char usage[] =
	"usage: spawn-fcgi -n -s SOCKET -- aregd [-c FILE]\n"
	"       aregd -t [-c FILE]     check configuration, database and memcached, and exit\n"
	"       aregd -p [-c FILE]     print the configuration in force, secrets hidden, and exit\n"
	"       aregd -r               print the table of routes and exit\n"
	"       aregd -j               print what every route takes, as JSON, and exit\n"
	"       aregd -V | --version   print the version and exit\n"
	"       aregd -h | --help      print this and exit\n"
	"\n"
	"aregd serves the registry of AI agents over FastCGI, behind nginx. spawn-fcgi gives it the\n"
	"listening socket as standard input. FILE is " AREG_CONF_DEFAULT "\n"
	"unless AREG_CONF or -c names another.\n"
	"\n"
	"Signals: HUP reloads configuration and program, TERM and INT drain and stop, USR1 reopens\n"
	"the log file, TTIN and TTOU add and remove a worker.\n"
	"Exit codes: 0 done, 1 wrong configuration or no start, 2 wrong usage,\n"
	"3 (with -t) a right configuration, but a server, file or right that is not as it should be.\n"
	"Manual pages: aregd(8), areg.conf(5), aregctl(8).\n";

static const struct option long_options[] = {
	{ "config", required_argument, NULL, 'c' },
	{ "test", no_argument, NULL, 't' },
	{ "print", no_argument, NULL, 'p' },
	{ "routes", no_argument, NULL, 'r' },
	{ "describe", no_argument, NULL, 'j' },
	{ "version", no_argument, NULL, 'V' },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};

static int test_backends(struct arena *arena, const struct settings *settings)
{
	struct backend_report reports[BACKENDS_MAX];
	const struct host_finding *findings;
	const size_t found = host_checks(arena, settings, &findings);
	int exit_code = EXIT_SUCCESS;
	bool is_refused = false;
	size_t count;

	for (size_t i = 0; i < found; i++)
		is_refused = is_refused || findings[i].weight == HOST_REFUSED;
	if (!is_refused)
		printf("configuration: %s is right\n", settings->source);
	for (size_t i = 0; i < found; i++) {
		printf("%s%s\n", findings[i].weight == HOST_WARNING ? "warning: " : "",
			findings[i].what);
		if (findings[i].weight != HOST_WARNING)
			exit_code = EXIT_BACKENDS;
	}
	if (is_refused)
		return EXIT_REFUSED;
	count = backends_check(arena, settings, reports);
	for (size_t i = 0; i < count; i++) {
		printf("%s: %s\n", reports[i].name, reports[i].detail);
		if (reports[i].warning != NULL)
			printf("warning: %s\n", reports[i].warning);
		if (reports[i].state != BACKEND_OK)
			exit_code = EXIT_BACKENDS;
	}
	return exit_code;
}

/* One line for each route, its fields with tabs between: for people, and for tests that must miss
 * none. */
static void print_routes(void)
{
	static const char *const who[] = {
		[FOR_ANYONE] = "anyone", [FOR_KEY] = "key", [FOR_OPERATOR] = "operator"
	};

	for (size_t i = 0; i < route_count; i++) {
		const struct route *route = &routes[i];

		printf("%s\t%s\t%s\t%s\t%s\n", http_method_name(route->path.method),
			route->path.template, who[route->access],
			route->rate == RATE_NONE ? "-" : rate_class_name(route->rate),
			route->audits != NULL ? route->audits : "-");
	}
}

static void print_description(struct arena *arena)
{
	struct buf text;

	buf_init(&text, arena, 64 * 1024);
	describe(&text);
	puts(text.data);
}

static int is_listening(int fd)
{
	int yes = 0;
	socklen_t len = sizeof yes;

	return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &yes, &len) == 0 && yes;
}

/* The path by which this program was started, with links left as they are: at a reload a link may
 * lead to a new program. */
static const char *own_path(struct arena *arena)
{
	const char *called = (const char *)getauxval(AT_EXECFN);
	char folder[4096];

	if (called == NULL || *called == '/' || getcwd(folder, sizeof folder) == NULL)
		return called == NULL ? "/proc/self/exe" : called;
	return arena_printf(arena, "%s/%s", folder, called);
}

static bool must_end(void)
{
	sigset_t pending;

	return sigpending(&pending) == 0 && sigismember(&pending, SIGTERM) == 1;
}

static int serve_socket(struct arena *arena, const struct settings *settings, struct router *router,
	char *const *argv)
{
	const struct master_program program = { own_path(arena), argv };
	const char *why;

	if (!is_listening(LISTEN_FD)) {
		fprintf(stderr, "aregd: standard input is not a listening socket: start it by "
				"spawn-fcgi (see aregd -h)\n");
		return EXIT_USAGE;
	}
	if (!log_open(settings->log_file, settings->log_format, settings->log_level, &why)) {
		fprintf(stderr, "aregd: log_file %s: %s\n", settings->log_file, why);
		return EXIT_REFUSED;
	}
	log_process("master");
	http_problem_base(arena_printf(arena, "%s/docs/errors/", settings->public_url));
	return master_run(arena, settings, router, LISTEN_FD, &program);
}

/* API keys, the password of the database and what callers send lie in memory: no core file of it is
 * written, and no other process of the same user may attach to it and read it. Children and programs
 * that this one becomes keep the limit; each asks for the rest anew. */
static void keep_memory_private(void)
{
	const struct rlimit none = { 0, 0 };

	setrlimit(RLIMIT_CORE, &none);
#ifndef __SANITIZE_ADDRESS__ /* LeakSanitizer attaches to its own process */
	prctl(PR_SET_DUMPABLE, 0);
#endif
}

int main(int argc, char **argv)
{
	struct arena *arena = arena_new(16 * 1024, 16 * 1024 * 1024);
	struct router *router = routes_router();
	struct settings_faults faults;
	struct settings settings;
	const char *path = NULL;
	enum { SERVE, TEST, PRINT } task = SERVE;
	int option, exit_code = EXIT_REFUSED;

	keep_memory_private();
	while ((option = getopt_long(argc, argv, "c:tprjVh", long_options, NULL)) != -1) {
		switch (option) {
		case 'c':
			path = optarg;
			break;
		case 't':
			task = TEST;
			break;
		case 'p':
			task = PRINT;
			break;
		case 'r':
			print_routes();
			exit_code = EXIT_SUCCESS;
			goto done;
		case 'j':
			print_description(arena);
			exit_code = EXIT_SUCCESS;
			goto done;
		case 'V':
			printf("areg %s\n", PACKAGE_VERSION);
			exit_code = EXIT_SUCCESS;
			goto done;
		case 'h':
			fputs(usage, stdout);
			exit_code = EXIT_SUCCESS;
			goto done;
		default:
			fputs(usage, stderr);
			exit_code = EXIT_USAGE;
			goto done;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "aregd: %s: no arguments expected\n%s", argv[optind], usage);
		exit_code = EXIT_USAGE;
		goto done;
	}
	while (!settings_load(arena, path, &settings, &faults) ||
		(task != PRINT && !seal_key_read(arena, &settings, &faults))) {
		for (size_t i = 0; i < faults.count; i++)
			fprintf(stderr, "aregd: %s: %s\n", faults.list[i].where,
				faults.list[i].why);
		/* It was right a moment ago, and there are workers that serve: they shall not go. */
		if (!handover_is_offered() || must_end())
			goto done;
		sleep(1);
	}
	if (reload_trial_is_on()) {
		exit_code = reload_trial_perform(arena, &settings, router);
	} else if (task == TEST) {
		exit_code = test_backends(arena, &settings);
	} else if (task == PRINT) {
		settings_print(&settings, stdout);
		exit_code = EXIT_SUCCESS;
	} else {
		exit_code = serve_socket(arena, &settings, router, argv);
	}
done:
	router_free(router);
	arena_free(arena);
	return exit_code;
}
