/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of a worker. The worker reads signals from a signalfd between requests, so no signal
 * interrupts a system call of a request. Read beside this: accept(2), signalfd(2), fcgiapp.h.
 */
#include "app/process/worker.h"

#include <errno.h>
#include <fcgiapp.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "app/http/metering.h"
#include "app/http/serve.h"
#include "app/process/helper_process.h"
#include "lib/clock.h"
#include "lib/log.h"

enum { QUEUE_MS = 1000 }; /* how long a draining worker still accepts waiting connections */

/* A descriptor that tells of SIGTERM and SIGUSR1; -1 with errno set. */
static int receive_signals(void)
{
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGUSR1);
	sigprocmask(SIG_SETMASK, &signals, NULL);
	signal(SIGPIPE, SIG_IGN);
	/* Keys pressed at a terminal reach the whole group; what they mean is the master's. */
	signal(SIGINT, SIG_IGN);
	signal(SIGQUIT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	return signalfd(-1, &signals, SFD_CLOEXEC);
}

/*
 * nginx sends a whole request at once: a connection that says nothing for half of request_timeout
 * is dead. Half, so that the worker gives up before the master gives up the worker.
 */
static void bound_waiting(int connection, int request_timeout_ms)
{
	int timeout_ms = request_timeout_ms / 2;
	struct timeval timeout = { timeout_ms / 1000, timeout_ms % 1000 * 1000 };

	setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
	setsockopt(connection, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
}

/*
 * FCGX_Accept_r() would accept by itself, deaf to our signals. Given a connection that looks kept
 * from an earlier request it goes straight to reading; should that fail, it finds no listening
 * socket to turn to (FCGX_InitRequest() was given none) and comes back. Without the check of
 * FCGX_GetError(), a request that breaks off before its parameters would look like one without any,
 * and the worker would wait for it again until the master kills the worker.
 */
static bool worker_read_request(FCGX_Request *fcgi, int connection)
{
	fcgi->ipcFd = connection;
	fcgi->keepConnection = 1; /* FCGX_Accept_r() replaces this by the flag in the request */
	if (FCGX_Accept_r(fcgi) != 0)
		return false;
	if (FCGX_GetError(fcgi->in) == 0)
		return true;
	FCGX_Free(fcgi, 1);
	return false;
}

/*
 * Ends a request. FCGX_Finish_r() would close a connection that is not to be kept, and wait for
 * nginx to close its end first, lest bytes that nobody read undo the answer: a switch to nginx and
 * back. http_response_send() has read the whole request, so FCGX_Finish_r() is always told to keep
 * the connection. After anything but a GET nginx does not use a connection again.
 */
static void end_request(struct connections *connections, FCGX_Request *fcgi)
{
	const char *method =
		fcgi->keepConnection ? FCGX_GetParam("REQUEST_METHOD", fcgi->envp) : NULL;
	bool is_kept = method != NULL && strcmp(method, "GET") == 0;

	fcgi->keepConnection = 1;
	FCGX_Finish_r(fcgi);
	connections_answered(connections, fcgi->ipcFd, is_kept);
	fcgi->ipcFd = -1;
}

/* What the worker counted since the last request, into shared memory. */
static void count_database(struct context *context, struct db_meter *counted)
{
	const struct db_meter now = context_db_meter(context);

	metrics_add(context->metrics, METER_DB_ROUND_TRIPS, 0, 0,
		now.round_trips - counted->round_trips);
	metrics_add(context->metrics, METER_DB_RETRIES, 0, 0, now.retries - counted->retries);
	metrics_add(
		context->metrics, METER_DB_RECONNECTS, 0, 0, now.reconnects - counted->reconnects);
	*counted = now;
}

static void count_log(struct context *context, uint64_t *counted)
{
	metrics_add(context->metrics, METER_LOG_DROPPED, 0, 0, log_dropped() - *counted);
	*counted = log_dropped();
}

/* Takes one signal. */
static void heed_signal(int signal_fd, struct connections *connections)
{
	if (!helper_heed(signal_fd))
		connections_drain(connections, QUEUE_MS);
}

/* The last request of this worker: spread over the workers, so that they do not all recycle at
 * the same moment. */
static int64_t last_request(const struct context *context)
{
	int64_t most = context->settings->max_requests;

	return most + most / 10 * (int64_t)context->place /
			      (int64_t)(scoreboard_wanted(context->scoreboard) + 1);
}

/* The next request that can be read, or false when the worker is done. */
static bool next_request(struct context *context, FCGX_Request *fcgi, int *exit_code)
{
	struct connections *connections = context->connections;

	for (;;) {
		int connection = -1;

		switch (connections_next(connections, &connection)) {
		case CONNECTIONS_NEW_REQUEST:
			bound_waiting(connection, context->settings->request_timeout_ms);
			break;
		case CONNECTIONS_REQUEST:
			break;
		case CONNECTIONS_SIGNAL:
			heed_signal(connections->signal_fd, connections);
			continue;
		case CONNECTIONS_DRAINED:
			return false;
		case CONNECTIONS_FAILED:
			log_error("accept: %s", strerror(errno));
			*exit_code = 1;
			return false;
		}
		scoreboard_enter(context->scoreboard, context->place, SCOREBOARD_BUSY);
		if (worker_read_request(fcgi, connection))
			return true;
		connections_answered(connections, -1, false);
		scoreboard_enter(context->scoreboard, context->place, SCOREBOARD_IDLE);
	}
}

int worker_run(struct context *context, int listen_fd, struct relay relay,
	const struct writer_doors *doors)
{
	const struct settings *settings = context->settings;
	struct db_meter counted = { 0 };
	uint64_t counted_dropped = log_dropped();
	int64_t served = 0;
	int exit_code = 0, signal_fd = receive_signals();
	FCGX_Request fcgi;
	struct connections connections;

	if (signal_fd < 0 || connections_open(&connections, listen_fd, relay, signal_fd,
				     context->scoreboard, context->place) != 0) {
		log_error("cannot wait for requests: %s", strerror(errno));
		return 1;
	}
	context->connections = &connections;
	metrics_use_slot(context->metrics, context->place);
	context_open(context);
	db_wait_with(context->db, connections_wait, &connections);
	replicas_wait_with(context->replicas, connections_wait, &connections);
	writer_links_open(&context->writers, doors, settings, connections_wait, &connections);
	FCGX_Init();
	FCGX_InitRequest(&fcgi, -1, 0);
	scoreboard_enter(context->scoreboard, context->place, SCOREBOARD_IDLE);
	while ((settings->max_requests == 0 || served < last_request(context)) &&
		next_request(context, &fcgi, &exit_code)) {
		serve(context, &fcgi);
		end_request(&connections, &fcgi);
		count_database(context, &counted);
		count_log(context, &counted_dropped);
		arena_reset(context->arena);
		served++;
		scoreboard_enter(context->scoreboard, context->place, SCOREBOARD_IDLE);
	}
	connections_close(&connections);
	writer_links_close(&context->writers);
	context_close(context);
	log_info("worker ends after %lld requests", (long long)served);
	return exit_code;
}
