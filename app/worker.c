/*
 * The life of a worker. Signals are blocked except while it waits for a connection, so that no
 * system call of a request is ever interrupted; see wait_for_connection() for the one race that
 * leaves. Read beside this: accept(2), signal(7), fcgiapp.h.
 */
#include "app/worker.h"

#include <errno.h>
#include <fcgiapp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "app/metering.h"
#include "app/serve.h"
#include "lib/clock.h"
#include "lib/log.h"

enum {
	ARENA_BLOCK = 64 * 1024,
	ARENA_LIMIT = 64 * 1024 * 1024, /* far above what a request within its limits needs */
	NUDGE_MS = 50,
	QUEUE_MS = 1000, /* for which a draining worker takes what waits in the listen queue */
	EXIT_EXHAUSTED = 70, /* EX_SOFTWARE */
};

/* How near a name must be to what was searched for: one letter wrong in six still is. And what
 * suits many short reads of pages that are in memory: one process for each, nothing compiled, and
 * an index always: a scan that stops at enough matches reads everything when they lie at the end. */
static const char search_session[] =
	"-c pg_trgm.word_similarity_threshold=0.4 -c random_page_cost=1.1 -c enable_seqscan=off"
	" -c max_parallel_workers_per_gather=0 -c jit=off";

static volatile sig_atomic_t must_drain, must_reopen_log;
static timer_t nudge;

static void on_signal(int number)
{
	static const struct itimerspec every = { { 0, NUDGE_MS * 1000000 },
		{ 0, NUDGE_MS * 1000000 } };
	int saved = errno;

	if (number == SIGTERM) {
		must_drain = 1;
		timer_settime(nudge, 0, &every, NULL);
	} else if (number == SIGUSR1) {
		must_reopen_log = 1;
	}
	errno = saved;
}

static void set_up_signals(sigset_t *while_waiting)
{
	struct sigaction action = { .sa_handler = on_signal };
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM };

	timer_create(CLOCK_MONOTONIC, &event, &nudge);
	sigaction(SIGTERM, &action, NULL); /* without SA_RESTART: they must end accept() */
	sigaction(SIGUSR1, &action, NULL);
	sigaction(SIGALRM, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
	/* Keys pressed at a terminal reach the whole group; what they mean is the master's. */
	signal(SIGINT, SIG_IGN);
	signal(SIGQUIT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	sigemptyset(while_waiting);
	sigaddset(while_waiting, SIGTERM);
	sigaddset(while_waiting, SIGUSR1);
	sigaddset(while_waiting, SIGALRM);
	sigprocmask(SIG_SETMASK, while_waiting, NULL);
}

/*
 * A connection, or -1 with errno EINTR when a signal came instead. A SIGTERM that lands between
 * the look at must_drain and accept() would be slept through, so the handler starts a timer that
 * interrupts again every NUDGE_MS until the worker has ended.
 */
static int wait_for_connection(int listen_fd, const sigset_t *while_waiting, bool is_draining)
{
	int connection = -1;

	sigprocmask(SIG_UNBLOCK, while_waiting, NULL);
	if (must_drain != is_draining || must_reopen_log)
		errno = EINTR;
	else
		connection = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
	sigprocmask(SIG_BLOCK, while_waiting, NULL);
	return connection;
}

/*
 * Whether a draining worker is done. Whoever stands in the queue of a socket that is about to close
 * would get 502: they are served first, for QUEUE_MS at most, since under load the queue of a socket
 * that nginx goes on using is never empty.
 */
static bool is_drained(int listen_fd, uint64_t *until_ms)
{
	struct pollfd queue = { .fd = listen_fd, .events = POLLIN };

	if (*until_ms == 0)
		*until_ms = clock_ms() + QUEUE_MS;
	return clock_ms() >= *until_ms || poll(&queue, 1, 0) <= 0;
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
 * socket to turn to (FCGX_InitRequest() was given none) and comes back.
 */
static bool read_request(FCGX_Request *fcgi, int connection)
{
	fcgi->ipcFd = connection;
	fcgi->keepConnection = 1; /* the request says anew what is to be */
	return FCGX_Accept_r(fcgi) == 0;
}

/*
 * FCGX_Finish_r() would wait for nginx to close its end first, lest bytes that nobody read undo the
 * answer: a switch to nginx and back for each request. Here everything was read (http_response_send()),
 * so the connection is kept from it and closed at once.
 */
static void finish(FCGX_Request *fcgi)
{
	fcgi->keepConnection = 1;
	FCGX_Finish_r(fcgi);
	if (fcgi->ipcFd >= 0)
		close(fcgi->ipcFd);
	fcgi->ipcFd = -1;
}

/* A request that needs more memory than any should: nginx answers 502, the master starts another
 * worker. */
static void exhausted(void *arg)
{
	(void)arg;
	log_error("out of memory for a request; this worker ends");
	_exit(EXIT_EXHAUSTED);
}

/* What the worker counted since the last request, into shared memory. */
static void count_database(struct worker *worker, struct db_meter *counted)
{
	const struct db_meter *now = db_meter(worker->db);

	metrics_add(worker->metrics, METER_DB_ROUND_TRIPS, 0, 0,
		now->round_trips - counted->round_trips);
	metrics_add(worker->metrics, METER_DB_RETRIES, 0, 0, now->retries - counted->retries);
	metrics_add(
		worker->metrics, METER_DB_RECONNECTS, 0, 0, now->reconnects - counted->reconnects);
	*counted = *now;
}

static void count_log(struct worker *worker, uint64_t *counted)
{
	metrics_add(worker->metrics, METER_LOG_DROPPED, 0, 0, log_dropped() - *counted);
	*counted = log_dropped();
}

static void reopen_log(void)
{
	const char *why;

	must_reopen_log = 0;
	if (!log_reopen(&why))
		log_error("cannot reopen the log: %s", why);
}

/* The last request of this worker: spread over the workers, so that they do not all recycle at
 * the same moment. */
static int64_t last_request(const struct worker *worker)
{
	int64_t most = worker->settings->max_requests;

	return most +
	       most / 10 * (int64_t)worker->place / (int64_t)(board_wanted(worker->board) + 1);
}

void worker_open(struct worker *worker)
{
	const struct settings *settings = worker->settings;

	worker->db_options = (struct db_options){ settings->database_url, "areg",
		settings->database_connect_timeout_ms, settings->database_statement_timeout_ms,
		search_session };
	worker->cache_options = (struct cache_options){ settings->memcached_servers,
		settings->cache_timeout_ms, settings->cache_retry_ms };
	worker->arena = arena_new(ARENA_BLOCK, ARENA_LIMIT);
	worker->db = db_new(&worker->db_options);
	worker->cache = cache_new(&worker->cache_options);
	level2_init(&worker->level2, worker->arena, settings, worker->cache,
		worker->hot == NULL ? NULL : worker->hot->answers);
	arena_reset(worker->arena);
}

void worker_close(struct worker *worker)
{
	cache_free(worker->cache);
	db_free(worker->db);
	arena_free(worker->arena);
}

int worker_run(struct worker *worker, int listen_fd)
{
	const struct settings *settings = worker->settings;
	struct db_meter counted = { 0 };
	uint64_t counted_dropped = log_dropped();
	sigset_t while_waiting;
	FCGX_Request fcgi;
	int64_t served = 0;
	uint64_t drain_until_ms = 0;
	int connection, exit_code = 0;

	set_up_signals(&while_waiting);
	metrics_use_slot(worker->metrics, worker->place);
	worker_open(worker);
	arena_on_exhaustion(worker->arena, exhausted, NULL);
	FCGX_Init();
	FCGX_InitRequest(&fcgi, -1, 0);
	while (settings->max_requests == 0 || served < last_request(worker)) {
		bool is_draining = must_drain;

		if (is_draining && is_drained(listen_fd, &drain_until_ms))
			break;
		board_enter(worker->board, worker->place, BOARD_IDLE);
		connection = wait_for_connection(listen_fd, &while_waiting, is_draining);
		if (must_reopen_log)
			reopen_log();
		if (connection < 0) {
			if (errno == EINTR || errno == ECONNABORTED || errno == EAGAIN)
				continue;
			log_error("accept: %s", strerror(errno));
			exit_code = 1;
			break;
		}
		board_enter(worker->board, worker->place, BOARD_BUSY);
		bound_waiting(connection, settings->request_timeout_ms);
		if (!read_request(&fcgi, connection))
			continue;
		serve(worker, &fcgi);
		finish(&fcgi);
		count_database(worker, &counted);
		count_log(worker, &counted_dropped);
		arena_reset(worker->arena);
		served++;
	}
	worker_close(worker);
	log_info("worker ends after %lld requests", (long long)served);
	return exit_code;
}
