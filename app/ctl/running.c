/* SPDX-License-Identifier: Apache-2.0 */
/* aregctl status, workers, reload: what the master of the running aregd says on its control socket.
 * One line is asked, one line of JSON answered; see app/process/control_socket.h. */
#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "app/ctl/ctl.h"
#include "app/ctl/text_table.h"
#include "lib/buf.h"
#include "lib/clock.h"

enum {
	ANSWER_MS = 6000, /* for the master to answer */
	RELOAD_MS = 120000, /* for a reload to be done: one may be under way, and have to drain */
	LOOK_MS = 100,
	BACKEND_WATCH_MS = 1000,
};

/* ---- Asking ---- */

static int connect_to(const char *path)
{
	const struct timeval timeout = { ANSWER_MS / 1000, 0 };
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strncpy(address.sun_path, path, sizeof address.sun_path - 1);
	if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout) == 0 &&
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout) == 0 &&
		connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
		return fd;
	if (fd >= 0)
		close(fd);
	return -1;
}

/* The line of the answer, in `text`. False with errno set; 0 when the master closed too early, as it
 * does in the moment of a reload. */
static bool running_ask(const char *path, const char *request, struct buf *text)
{
	int fd = connect_to(path);
	char part[4096];
	ssize_t got = -1;

	if (fd < 0)
		return false;
	if (dprintf(fd, "%s\n", request) > 0)
		while ((got = recv(fd, part, sizeof part, 0)) > 0)
			for (ssize_t i = 0; i < got; i++)
				buf_putc(text, part[i]);
	if (got == 0)
		errno = 0;
	close(fd);
	return got == 0 && text->len > 0 && text->data[text->len - 1] == '\n';
}

/* Asks, and says what is wrong when there is no answer. NULL then; else to be put by the caller. */
static struct json_object *ask_master(struct ctl *ctl, const char *request, struct buf *text)
{
	const char *path = ctl->settings.control_socket;
	uint64_t until_ms = clock_ms() + ANSWER_MS;
	struct json_object *answer;

	if (*path == '\0') {
		ctl_error("control_socket is none: there is nowhere to ask");
		return NULL;
	}
	do {
		buf_init(text, ctl->arena, 4096);
		if (running_ask(path, request, text)) {
			answer = json_tokener_parse(text->data);
			if (answer != NULL)
				return answer;
			errno = EPROTO;
		}
		if (errno != 0)
			break;
		nanosleep(&(struct timespec){ 0, LOOK_MS * 1000000L }, NULL);
	} while (clock_ms() < until_ms);
	ctl_error("%s: %s%s", path, errno == 0 ? "no answer" : strerror(errno),
		errno == ENOENT || errno == ECONNREFUSED ? ": aregd does not run" : "");
	return NULL;
}

static const char *running_text_of(struct json_object *object, const char *key)
{
	struct json_object *value = json_object_object_get(object, key);

	return value == NULL ? "" : json_object_get_string(value);
}

static int64_t running_number_of(struct json_object *object, const char *key)
{
	return json_object_get_int64(json_object_object_get(object, key));
}

/* ---- For people ---- */

static const char *duration(struct arena *arena, int64_t ms)
{
	if (ms < 1000)
		return arena_printf(arena, "%lld ms", (long long)ms);
	if (ms < 120 * 1000)
		return arena_printf(arena, "%.1f s", (double)ms / 1000);
	if (ms < 2 * 3600 * 1000)
		return arena_printf(arena, "%lld min", (long long)ms / 60000);
	return arena_printf(
		arena, "%lld h %lld min", (long long)ms / 3600000, (long long)ms / 60000 % 60);
}

static void running_print_workers(struct ctl *ctl, struct json_object *status)
{
	struct json_object *workers = json_object_object_get(status, "workers");

	printf("%3s %4s %8s  %-9s %9s %10s %9s  %s\n", "#", "gen", "pid", "state", "for",
		"requests", "memory", "serving");
	for (size_t i = 0; i < json_object_array_length(workers); i++) {
		struct json_object *worker = json_object_array_get_idx(workers, i);

		printf("%3lld %4lld %8lld  %-9s %9s %10lld %5.1f MiB  %s\n",
			(long long)running_number_of(worker, "worker"),
			(long long)running_number_of(worker, "generation"),
			(long long)running_number_of(worker, "pid"),
			running_text_of(worker, "state"),
			duration(ctl->arena, running_number_of(worker, "for_ms")),
			(long long)running_number_of(worker, "requests"),
			(double)running_number_of(worker, "private_bytes") / (1024 * 1024),
			running_text_of(worker, "serving"));
	}
}

static void running_print_status(struct ctl *ctl, struct json_object *status)
{
	struct json_object *generations = json_object_object_get(status, "generations");
	struct json_object *reloads = json_object_object_get(status, "reloads");

	printf("areg %s, pid %lld, %s, up for %s\n", running_text_of(status, "version"),
		(long long)running_number_of(status, "pid"), running_text_of(status, "state"),
		duration(ctl->arena, running_number_of(status, "uptime_ms")));
	printf("configuration: %s\n", running_text_of(status, "configuration"));
	for (size_t i = 0; i < json_object_array_length(generations); i++) {
		struct json_object *one = json_object_array_get_idx(generations, i);

		printf("generation %lld: areg %s, %s, %lld workers\n",
			(long long)running_number_of(one, "generation"),
			running_text_of(one, "version"), running_text_of(one, "state"),
			(long long)running_number_of(one, "workers"));
	}
	if (json_object_object_get(reloads, "last_failure") != NULL)
		printf("the last reload failed: %s\n", running_text_of(reloads, "last_failure"));
	printf("\n");
	running_print_workers(ctl, status);
}

/* ---- The commands ---- */

static enum ctl_exit show_status(struct ctl *ctl, const void *values)
{
	struct buf text;
	struct json_object *status = ask_master(ctl, "status", &text);

	(void)values;
	if (status == NULL)
		return CTL_FAILED;
	if (ctl->json)
		fputs(text.data, stdout);
	else
		running_print_status(ctl, status);
	json_object_put(status);
	return CTL_DONE;
}

struct watching {
	bool watch;
};

static enum ctl_exit show_workers(struct ctl *ctl, const void *values)
{
	const struct watching *watching = values;

	for (;;) {
		struct ctl turn = *ctl;
		struct buf text;
		struct json_object *status;

		turn.arena = ctl_arena(16 * 1024 * 1024);
		status = ask_master(&turn, "status", &text);
		if (status == NULL)
			return CTL_FAILED;
		/* Clears the screen and begins at its top: ECMA-48, ED and CUP. */
		if (watching->watch && isatty(STDOUT_FILENO))
			printf("\033[H\033[2J");
		if (ctl->json)
			printf("%s\n", json_object_to_json_string_ext(
					       json_object_object_get(status, "workers"),
					       JSON_C_TO_STRING_PLAIN));
		else
			running_print_workers(&turn, status);
		json_object_put(status);
		arena_free(turn.arena);
		if (!watching->watch || fflush(stdout) != 0)
			return CTL_DONE;
		nanosleep(&(struct timespec){ BACKEND_WATCH_MS / 1000, 0 }, NULL);
	}
}

/* Waits for the reload of that number. NULL when the master does not answer any more. */
static struct json_object *await_reload(struct ctl *ctl, int64_t number)
{
	uint64_t until_ms = clock_ms() + RELOAD_MS;

	for (;;) {
		struct buf text;
		struct json_object *status = ask_master(ctl, "status", &text);
		bool is_done = status != NULL &&
			       running_number_of(
				       json_object_object_get(status, "reloads"), "done") >= number;

		if (status == NULL || is_done || clock_ms() >= until_ms)
			return status;
		json_object_put(status);
		nanosleep(&(struct timespec){ 0, LOOK_MS * 1000000L }, NULL);
	}
}

static enum ctl_exit reload(struct ctl *ctl, const void *values)
{
	struct buf text;
	struct json_object *answer = ask_master(ctl, "reload", &text), *status, *reloads;
	int64_t number = answer == NULL ? 0 : running_number_of(answer, "reload");
	enum ctl_exit result = CTL_FAILED;

	(void)values;
	if (answer != NULL && number == 0)
		ctl_error("reload: %s", running_text_of(answer, "error"));
	json_object_put(answer);
	if (number == 0)
		return CTL_FAILED;
	status = await_reload(ctl, number);
	if (status == NULL)
		return CTL_FAILED;
	reloads = json_object_object_get(status, "reloads");
	if (running_number_of(reloads, "done") < number) {
		ctl_error("reload: not done after %d s; aregctl status says how it goes on",
			RELOAD_MS / 1000);
	} else if (json_object_object_get(reloads, "last_failure") != NULL) {
		ctl_error("reload refused: %s", running_text_of(reloads, "last_failure"));
		result = CTL_REFUSED;
	} else if (ctl->json) {
		printf("{\"generation\":%lld,\"version\":\"%s\"}\n",
			(long long)running_number_of(status, "generation"),
			running_text_of(status, "version"));
		result = CTL_DONE;
	} else {
		printf("reloaded: areg %s, generation %lld\n", running_text_of(status, "version"),
			(long long)running_number_of(status, "generation"));
		result = CTL_DONE;
	}
	json_object_put(status);
	return result;
}

const struct ctl_command ctl_status_commands[] = {
	{ "status", "", 0, "Say how the running aregd is", NULL, NULL, 0, 0, show_status },
	{ .name = NULL },
};

static const struct ctl_option workers_options[] = {
	{ "watch", CTL_FLAG, offsetof(struct watching, watch), NULL, "again every second" },
};

const struct ctl_command ctl_workers_commands[] = {
	{ "workers", "", 0, "Show what each worker of the running aregd does", NULL,
		workers_options, sizeof(workers_options) / sizeof(workers_options[0]),
		sizeof(struct watching), show_workers },
	{ .name = NULL },
};

const struct ctl_command ctl_reload_commands[] = {
	{ "reload", "", 0, "Reload configuration and program of the running aregd",
		"Waits until the new generation serves, or until it is clear that the old one "
		"stays;\nthen says why, and exits with 3.\n",
		NULL, 0, 0, reload },
	{ .name = NULL },
};
