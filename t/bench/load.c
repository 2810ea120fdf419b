/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asks a web server on loopback as many requests as it answers, or a steady number a second, and
 * prints how long they took. One thread, one epoll, HTTP/1.1 with kept connections.
 *
 * Usage: load --port N [OPTION…] WORKLOAD
 *
 *   --host NAME        the Host that is asked for (default localhost)
 *   --connections N    1..4096 (default 32)
 *   --seconds S        how long to go on asking (default 10)
 *   --requests N       stop after that many instead
 *   --rate R           open loop: R requests a second are due at even distances, whatever became of
 *                      those before, and their time counts from when they were due
 *   --callers FILE     lines of "KEY WALLET": connections take turns to be one of them
 *   --agents FILE      lines of agent_uuid
 *   --only N           of them the first N only
 *   --kind NAME        of the workload the lines of that kind only
 *
 * WORKLOAD is a file of lines with these fields between tabs: weight, kind, method, header or -,
 * path, and the body if there is one. In path and body {agent} becomes any agent, {popular} one
 * that is the more likely the further in front it stands, {wallet} the caller's wallet, {word} a
 * word from names of sample agents, {score} 0..100 and {n} a number that comes only once.
 *
 * Prints a line for every kind that was asked, and one for "all": kind, requests, failed (no 2xx),
 * seconds, and p50, p99, p99.9 and the longest in microseconds.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "t/bench/samples.h"

enum {
	CONNECTIONS_MAX = 4096,
	LINES_MAX = 64, /* of a workload */
	REQUEST_BYTES = 8192,
	HEAD_BYTES = 16384, /* of an answer */
	DRAIN_SECONDS = 30 /* that the last answers may take */
};

static const uint64_t SECOND = 1000000000; /* in nanoseconds */

static const char *const WORDS[] = { "oracle", "weather", "trading", "security", "amber", "river",
	"market", "translation" };

struct kind {
	const char *name;
	struct samples samples;
	uint64_t failed;
};

struct line {
	unsigned weight;
	struct kind *kind;
	char *method, *header, *path, *body;
};

struct texts {
	char **items;
	size_t count;
};

struct connection {
	int fd;
	bool busy, closes;
	struct kind *kind; /* of the request under way */
	uint64_t since; /* when the request was sent, or was due; ns */
	char head[HEAD_BYTES];
	size_t head_len;
	bool in_body;
	size_t body_left;
	int status;
	const char *caller;
};

struct load {
	const char *host;
	uint16_t port;
	size_t connection_count;
	uint64_t requests_max; /* UINT64_MAX: until time is up */
	double seconds, rate;
	struct line lines[LINES_MAX];
	size_t line_count;
	struct kind kinds[LINES_MAX];
	size_t kind_count;
	unsigned weights;
	struct texts callers, agents;
	struct connection *connections;
	int epoll;
	uint64_t random, number;
	uint64_t begun, issued;
	size_t busy;
	int bad_status; /* of the last failed answer */
};

static void die(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
static void die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fputs("load: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	exit(1);
}

static uint64_t now(void)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	return (uint64_t)at.tv_sec * SECOND + (uint64_t)at.tv_nsec;
}

/* xorshift64* (Vigna, 2016): 0 .. bound - 1. */
static uint32_t draw(struct load *load, uint64_t bound)
{
	load->random ^= load->random >> 12;
	load->random ^= load->random << 25;
	load->random ^= load->random >> 27;
	return (uint32_t)(((load->random * 0x2545f4914f6cdd1d >> 32) * bound) >> 32);
}

/* ---- Requests ---- */

/* The fourth power puts half of all requests on a sixteenth of the agents. */
static const char *pick_agent(struct load *load, bool popular)
{
	double share = draw(load, UINT32_MAX) / (double)UINT32_MAX;

	if (load->agents.count == 0)
		die("the workload names agents: --agents FILE");
	if (popular)
		share *= share * share * share;
	return load->agents.items[(size_t)(share * (double)(load->agents.count - 1))];
}

static size_t put(char *to, size_t at, const char *text, size_t len)
{
	if (at + len >= REQUEST_BYTES)
		die("a request is longer than %d bytes", REQUEST_BYTES);
	memcpy(to + at, text, len);
	return at + len;
}

/* Writes `text` with what stands in braces replaced; returns the end. */
static size_t put_filled(struct load *load, const struct connection *connection, char *to,
	size_t at, const char *text)
{
	char number[24];

	while (*text) {
		size_t plain = strcspn(text, "{");
		const char *end = strchr(text + plain, '}');
		const char *value = NULL;
		size_t len;

		at = put(to, at, text, plain);
		text += plain;
		if (!*text)
			break;
		len = end ? (size_t)(end - text) + 1 : 1;
		if (len == strlen("{agent}") && !strncmp(text, "{agent}", len)) {
			value = pick_agent(load, false);
		} else if (len == strlen("{popular}") && !strncmp(text, "{popular}", len)) {
			value = pick_agent(load, true);
		} else if (len == strlen("{wallet}") && !strncmp(text, "{wallet}", len)) {
			value = connection->caller + strcspn(connection->caller, " ") + 1;
		} else if (len == strlen("{word}") && !strncmp(text, "{word}", len)) {
			value = WORDS[draw(load, sizeof WORDS / sizeof *WORDS)];
		} else if (len == strlen("{score}") && !strncmp(text, "{score}", len)) {
			snprintf(number, sizeof number, "%" PRIu32, draw(load, 101));
			value = number;
		} else if (len == strlen("{n}") && !strncmp(text, "{n}", len)) {
			snprintf(number, sizeof number, "%" PRIu64, load->number++);
			value = number;
		} else {
			value = "{";
			len = 1;
		}
		at = put(to, at, value, strlen(value));
		text += len;
	}
	return at;
}

static const struct line *pick_line(struct load *load)
{
	uint32_t at = draw(load, load->weights);
	const struct line *line = load->lines;

	while (at >= line->weight)
		at -= line++->weight;
	return line;
}

static size_t make_request(
	struct load *load, const struct connection *connection, const struct line *line, char *to)
{
	char body[REQUEST_BYTES];
	char head[512];
	size_t body_len = line->body ? put_filled(load, connection, body, 0, line->body) : 0;
	size_t at = put(to, 0, line->method, strlen(line->method));

	at = put(to, at, " ", 1);
	at = put_filled(load, connection, to, at, line->path);
	snprintf(head, sizeof head, " HTTP/1.1\r\nHost: %s\r\n", load->host);
	at = put(to, at, head, strlen(head));
	if (connection->caller) {
		snprintf(head, sizeof head, "Authorization: Bearer %.*s\r\n",
			(int)strcspn(connection->caller, " "), connection->caller);
		at = put(to, at, head, strlen(head));
	}
	if (strcmp(line->header, "-") != 0) {
		at = put(to, at, line->header, strlen(line->header));
		at = put(to, at, "\r\n", 2);
	}
	if (line->body) {
		snprintf(head, sizeof head,
			"Content-Type: application/json\r\nContent-Length: %zu\r\n", body_len);
		at = put(to, at, head, strlen(head));
	}
	at = put(to, at, "\r\n", 2);
	return put(to, at, body, body_len);
}

/* ---- Connections ---- */

static void open_connection(struct load *load, struct connection *connection)
{
	struct sockaddr_in address = { .sin_family = AF_INET,
		.sin_port = htons(load->port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = connection };
	int one = 1;

	connection->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connection->fd == -1 ||
		connect(connection->fd, (struct sockaddr *)&address, sizeof address) != 0)
		die("cannot connect to port %d: %s", load->port, strerror(errno));
	setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	if (epoll_ctl(load->epoll, EPOLL_CTL_ADD, connection->fd, &event) != 0)
		die("epoll: %s", strerror(errno));
}

static void reopen(struct load *load, struct connection *connection)
{
	close(connection->fd);
	open_connection(load, connection);
}

static void ask(struct load *load, struct connection *connection, uint64_t since)
{
	const struct line *line = pick_line(load);
	char request[REQUEST_BYTES];
	size_t len = make_request(load, connection, line, request);

	connection->kind = line->kind;
	connection->busy = true;
	connection->closes = connection->in_body = false;
	connection->head_len = 0;
	connection->status = 0;
	connection->since = since;
	load->busy++;
	load->issued++;
	/* A request is far smaller than the buffer of a socket that is empty. A connection that the
	 * server closed meanwhile shows when the answer is read. */
	if (send(connection->fd, request, len, MSG_NOSIGNAL) != (ssize_t)len && errno != EPIPE &&
		errno != ECONNRESET)
		die("cannot send: %s", strerror(errno));
}

static void finish(struct load *load, struct connection *connection)
{
	uint64_t at = now();

	samples_add(&connection->kind->samples, (at - connection->since) / 1000);
	if (connection->status < 200 || connection->status > 299) {
		connection->kind->failed++;
		load->bad_status = connection->status;
	}
	connection->busy = false;
	load->busy--;
	if (connection->closes)
		reopen(load, connection);
}

/* Reads the status and the length out of a complete head, whose last byte is at `end`. */
static void read_head(struct connection *connection, size_t end)
{
	const char *length;

	connection->head[end - 1] = '\0'; /* the last \n of it */
	if (sscanf(connection->head, "HTTP/1.1 %d ", &connection->status) != 1)
		die("not an answer: %.60s", connection->head);
	length = strcasestr(connection->head, "\r\nContent-Length:");
	if (!length)
		die("an answer without Content-Length: %.60s", connection->head);
	connection->closes = strcasestr(connection->head, "\r\nConnection: close") != NULL;
	connection->body_left = strtoul(length + strlen("\r\nContent-Length:"), NULL, 10);
	connection->in_body = true;
}

/* Takes what has come. */
static void take(struct load *load, struct connection *connection)
{
	static char scratch[1 << 18];
	ssize_t got;

	if (connection->in_body)
		got = recv(connection->fd, scratch, sizeof scratch, 0);
	else
		got = recv(connection->fd, connection->head + connection->head_len,
			HEAD_BYTES - connection->head_len, 0);
	if (got <= 0) {
		connection->closes = true;
		if (connection->busy)
			finish(load, connection); /* status 0: failed */
		else
			reopen(load, connection);
		return;
	}
	if (!connection->busy)
		die("an answer that nobody asked for");
	if (connection->in_body) {
		connection->body_left -= (size_t)got;
	} else {
		const char *end;
		size_t head_bytes;

		connection->head_len += (size_t)got;
		end = memmem(connection->head, connection->head_len, "\r\n\r\n", 4);
		if (!end && connection->head_len == HEAD_BYTES)
			die("the head of an answer is longer than %d bytes", HEAD_BYTES);
		if (!end)
			return;
		head_bytes = (size_t)(end - connection->head) + 4;
		read_head(connection, head_bytes);
		connection->body_left -= connection->head_len - head_bytes;
	}
	if (connection->body_left == 0)
		finish(load, connection);
}

/* ---- The run ---- */

static bool is_over(const struct load *load, uint64_t at)
{
	if (load->requests_max != UINT64_MAX)
		return load->issued >= load->requests_max;
	if (load->rate > 0)
		return (double)load->issued >= load->rate * load->seconds;
	return (double)(at - load->begun) >= load->seconds * 1e9;
}

/* When the next request of an open loop is due. */
static uint64_t due(const struct load *load)
{
	return load->begun + (uint64_t)((double)load->issued / load->rate * 1e9);
}

/* Gives requests to connections that have none; returns the nanoseconds until one more is due. */
static uint64_t issue(struct load *load)
{
	for (size_t i = 0; i < load->connection_count; i++) {
		struct connection *connection = &load->connections[i];
		uint64_t at;

		if (connection->busy)
			continue;
		at = now();
		if (is_over(load, at))
			break;
		if (load->rate <= 0) {
			ask(load, connection, at);
			continue;
		}
		if (due(load) > at)
			return due(load) - at;
		ask(load, connection, due(load));
	}
	return SECOND;
}

static void run(struct load *load)
{
	struct epoll_event events[256];
	uint64_t last = UINT64_MAX;

	load->begun = now();
	while (true) {
		uint64_t wait = issue(load);
		struct timespec timeout = { (time_t)(wait / SECOND), (long)(wait % SECOND) };
		int count;

		if (is_over(load, now())) {
			if (load->busy == 0)
				return;
			if (last == UINT64_MAX)
				last = now() + DRAIN_SECONDS * SECOND;
			if (now() > last)
				die("%zu requests have had no answer for %d s", load->busy,
					DRAIN_SECONDS);
		}
		count = epoll_pwait2(load->epoll, events, 256, &timeout, NULL);
		if (count == -1 && errno != EINTR)
			die("epoll: %s", strerror(errno));
		for (int i = 0; i < count; i++)
			take(load, events[i].data.ptr);
	}
}

static void print_row(const char *kind, struct samples *samples, uint64_t failed, double seconds)
{
	samples_sort(samples);
	printf("%s %zu %" PRIu64 " %.3f %" PRIu32 " %" PRIu32 " %" PRIu32 " %" PRIu32 "\n", kind,
		samples->count, failed, seconds, samples_at(samples, 500), samples_at(samples, 990),
		samples_at(samples, 999), samples_at(samples, 1000));
}

static void print_results(struct load *load)
{
	double seconds = (double)(now() - load->begun) / 1e9;
	struct samples all = { 0 };
	uint64_t failed = 0;

	for (struct kind *kind = load->kinds; kind < load->kinds + load->kind_count; kind++) {
		if (kind->samples.count == 0)
			continue;
		for (size_t i = 0; i < kind->samples.count; i++)
			samples_add(&all, kind->samples.us[i]);
		failed += kind->failed;
		print_row(kind->name, &kind->samples, kind->failed, seconds);
		samples_free(&kind->samples);
	}
	print_row("all", &all, failed, seconds);
	samples_free(&all);
	if (failed > 0)
		fprintf(stderr, "load: %" PRIu64 " requests failed; the last answer was %d\n",
			failed, load->bad_status);
}

/* ---- What is asked for ---- */

/* The lines of a file, without comments; kept until the program ends. */
static struct texts read_lines(const char *path)
{
	struct texts texts = { 0 };
	size_t room = 0, size = 0;
	char *line = NULL;
	ssize_t len;
	FILE *file = fopen(path, "r");

	if (!file)
		die("%s: %s", path, strerror(errno));
	while ((len = getline(&line, &size, file)) != -1) {
		if (len > 0 && line[len - 1] == '\n')
			line[len - 1] = '\0';
		if (*line == '\0' || *line == '#')
			continue;
		if (texts.count == room) {
			room = room ? 2 * room : 1024;
			texts.items = realloc(texts.items, room * sizeof *texts.items);
		}
		if (!texts.items || !(texts.items[texts.count++] = strdup(line)))
			die("no memory for %s", path);
	}
	free(line);
	fclose(file);
	if (texts.count == 0)
		die("%s is empty", path);
	return texts;
}

static struct kind *kind_named(struct load *load, const char *name)
{
	for (size_t i = 0; i < load->kind_count; i++)
		if (strcmp(load->kinds[i].name, name) == 0)
			return &load->kinds[i];
	load->kinds[load->kind_count].name = name;
	return &load->kinds[load->kind_count++];
}

/* `only`: the one kind that is wanted, or NULL. */
static void read_workload(struct load *load, const char *path, const char *only)
{
	struct texts texts = read_lines(path);

	if (texts.count > LINES_MAX)
		die("%s has more than %d lines", path, LINES_MAX);
	for (size_t i = 0; i < texts.count; i++) {
		struct line *line = &load->lines[load->line_count];
		char *rest = texts.items[i];
		const char *weight = strsep(&rest, "\t");
		const char *kind = strsep(&rest, "\t");

		line->method = strsep(&rest, "\t");
		line->header = strsep(&rest, "\t");
		line->path = strsep(&rest, "\t");
		line->body = rest;
		line->weight = (unsigned)strtoul(weight, NULL, 10);
		if (!line->path || line->weight == 0)
			die("%s: line %zu is not as it should be", path, i + 1);
		if (only && strcmp(kind, only) != 0)
			continue;
		load->line_count++;
		line->kind = kind_named(load, kind);
		load->weights += line->weight;
	}
	if (load->line_count == 0)
		die("%s has no line of kind %s", path, only);
	free(texts.items);
}

/* A number from the command line, min..max. */
static double argument(const char *name, const char *text, double min, double max)
{
	char *end;
	double number = strtod(text, &end);

	if (end == text || *end || !(number >= min && number <= max)) {
		fprintf(stderr, "load: --%s: '%s' is not a number within %g..%g\n", name, text, min,
			max);
		exit(2);
	}
	return number;
}

static void read_options(struct load *load, int argc, char **argv)
{
	static const struct option options[] = { { "port", required_argument, NULL, 'p' },
		{ "host", required_argument, NULL, 'h' },
		{ "connections", required_argument, NULL, 'c' },
		{ "seconds", required_argument, NULL, 's' },
		{ "requests", required_argument, NULL, 'n' },
		{ "rate", required_argument, NULL, 'r' },
		{ "callers", required_argument, NULL, 'k' },
		{ "agents", required_argument, NULL, 'a' },
		{ "only", required_argument, NULL, 'o' }, { "kind", required_argument, NULL, 'i' },
		{ NULL, 0, NULL, 0 } };
	size_t only = SIZE_MAX;
	const char *kind = NULL;
	int option, which = 0;

	while ((option = getopt_long(argc, argv, "", options, &which)) != -1) {
		const char *name = options[which].name;

		switch (option) {
		case 'p':
			load->port = (uint16_t)argument(name, optarg, 1, 65535);
			break;
		case 'h':
			load->host = optarg;
			break;
		case 'c':
			load->connection_count = (size_t)argument(name, optarg, 1, CONNECTIONS_MAX);
			break;
		case 's':
			load->seconds = argument(name, optarg, 0.1, 86400);
			break;
		case 'n':
			load->requests_max = (uint64_t)argument(name, optarg, 1, 1e12);
			break;
		case 'r':
			load->rate = argument(name, optarg, 1, 1e6);
			break;
		case 'k':
			load->callers = read_lines(optarg);
			break;
		case 'a':
			load->agents = read_lines(optarg);
			break;
		case 'o':
			only = (size_t)argument(name, optarg, 1, 1e9);
			break;
		case 'i':
			kind = optarg;
			break;
		default:
			exit(2);
		}
	}
	if (optind + 1 != argc || load->port == 0) {
		fputs("Usage: load --port N [OPTION...] WORKLOAD\n", stderr);
		exit(2);
	}
	if (load->agents.count > only)
		load->agents.count = only;
	read_workload(load, argv[optind], kind);
}

int main(int argc, char **argv)
{
	static struct load load = { .host = "localhost",
		.connection_count = 32,
		.requests_max = UINT64_MAX,
		.seconds = 10 };

	read_options(&load, argc, argv);
	/* Numbers that no run before has used. */
	load.random = load.number = (uint64_t)time(NULL) * 1000000 + (uint64_t)getpid() % 1000000;
	load.epoll = epoll_create1(EPOLL_CLOEXEC);
	load.connections = calloc(load.connection_count, sizeof *load.connections);
	if (load.epoll == -1 || !load.connections)
		die("cannot begin: %s", strerror(errno));
	for (size_t i = 0; i < load.connection_count; i++) {
		if (load.callers.count > 0)
			load.connections[i].caller = load.callers.items[i % load.callers.count];
		open_connection(&load, &load.connections[i]);
	}
	run(&load);
	print_results(&load);
	return 0;
}
