/* SPDX-License-Identifier: Apache-2.0 */
/* A thread of the process that answers nothing else asks the backends (app/process/backend_watch.h): a request only
 * gets told what was found. */
#include "app/process/health.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "app/http/metering.h"
#include "app/process/backend_watch.h"
#include "lib/clock.h"

struct memory {
	unsigned long long resident, private; /* bytes; private: not shared with others */
};

static void health_own_look(struct call *call, struct health_report *report)
{
	backend_watch_ask(call->context->watch, call->arena, report);
	if (report->cache == UNHEALTHY)
		report->cache = DEGRADED; /* at worst: everything works without */
}

/* Whether what a caller used on other hosts counts here, too. */
static bool limits_are_shared(const struct health_report *report)
{
	return report->cache_servers != 0;
}

static enum health check_workers(struct call *call)
{
	size_t ready, busy;

	scoreboard_count(call->context->scoreboard, &ready, &busy);
	return ready >= scoreboard_wanted(call->context->scoreboard) ? HEALTHY : DEGRADED;
}

static bool is_replica(const struct replica_health *replica)
{
	return strcmp(replica->role, "replica") == 0;
}

static enum health health_check_replicas(const struct health_report *report)
{
	for (size_t i = 0; i < report->replica_count; i++)
		if (!is_replica(&report->replicas[i]))
			return DEGRADED;
	return HEALTHY;
}

static void write_replicas(struct json_out *out, const struct health_report *report)
{
	json_key(out, "replicas");
	json_open_array(out);
	for (size_t i = 0; i < report->replica_count; i++) {
		const struct replica_health *replica = &report->replicas[i];

		json_open_object(out);
		json_string(out, "role", replica->role);
		if (is_replica(replica))
			json_integer(out, "lag_ms", replica->lag_ms);
		else
			json_raw(out, "lag_ms", NULL);
		json_close_object(out);
	}
	json_close_array(out);
}

static const char *now_text(struct arena *arena)
{
	struct timespec now;
	struct tm utc;
	char text[sizeof "9999-12-31T23:59:59"];

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &utc);
	strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &utc);
	return arena_printf(arena, "%s.%06ldZ", text, now.tv_nsec / 1000);
}

void health_get(struct call *call)
{
	static const char *const names[] = { "healthy", "degraded", "unhealthy" };
	enum health workers = check_workers(call), worst;
	struct health_report report;
	struct json_out out;

	health_own_look(call, &report);
	worst = report.database > report.cache ? report.database : report.cache;
	if (workers > worst)
		worst = workers;
	if (health_check_replicas(&report) > worst)
		worst = DEGRADED;
	out = call_answer(call, worst == UNHEALTHY ? 503 : 200);
	if (worst == UNHEALTHY)
		http_header_add(call->response, "Retry-After", "1");
	json_open_object(&out);
	json_string(&out, "status", names[worst]);
	json_key(&out, "checks");
	json_open_object(&out);
	json_string(&out, "database", names[report.database]);
	json_string(&out, "cache", names[report.cache]);
	json_string(&out, "workers", names[workers]);
	json_close_object(&out);
	json_key(&out, "cache_servers");
	json_open_object(&out);
	json_integer(&out, "in", (long long)health_cache_servers(&report));
	json_integer(&out, "out",
		(long long)(cache_server_count(call->context->cache) -
			    health_cache_servers(&report)));
	json_close_object(&out);
	write_replicas(&out, &report);
	json_string(&out, "limits", limits_are_shared(&report) ? "shared" : "per_host");
	json_string(&out, "version", PACKAGE_VERSION);
	json_string(&out, "timestamp", now_text(call->arena));
	json_close_object(&out);
}

static void print_gauge(struct buf *out, const char *name, const char *help)
{
	buf_printf(out, "# HELP %s %s\n# TYPE %s gauge\n", name, help, name);
}

/* Memory of a process, none when it is gone; see proc(5), statm. */
static struct memory memory_of(int pid)
{
	const unsigned long long page = (unsigned long long)sysconf(_SC_PAGESIZE);
	unsigned long long resident = 0, shared = 0;
	char path[64];
	FILE *file;

	snprintf(path, sizeof path, "/proc/%d/statm", pid);
	file = fopen(path, "re");
	if (file == NULL)
		return (struct memory){ 0, 0 };
	if (fscanf(file, "%*u %llu %llu", &resident, &shared) != 2)
		resident = shared = 0;
	fclose(file);
	return (struct memory){ resident * page, (resident - shared) * page };
}

static void print_memory(struct buf *out, const struct scoreboard *scoreboard)
{
	static const char resident[] = "areg_worker_resident_memory_bytes";
	static const char private[] = "areg_worker_private_memory_bytes";
	struct memory *of = arena_alloc(out->arena, scoreboard->count * sizeof *of);

	for (size_t at = 0; at < scoreboard->count; at++)
		of[at] = memory_of(__atomic_load_n(&scoreboard->places[at].pid, __ATOMIC_RELAXED));
	print_gauge(out, resident, "Resident memory of each worker, what all share included.");
	for (size_t at = 0; at < scoreboard->count; at++)
		if (of[at].resident != 0)
			buf_printf(out, "%s{worker=\"%zu\"} %llu\n", resident, at + 1,
				of[at].resident);
	print_gauge(out, private, "Resident memory of each worker that is its own.");
	for (size_t at = 0; at < scoreboard->count; at++)
		if (of[at].resident != 0)
			buf_printf(
				out, "%s{worker=\"%zu\"} %llu\n", private, at + 1, of[at].private);
}

static void print_state(struct call *call, const struct health_report *report, struct buf *out)
{
	static const char healthy[] = "areg_healthy";

	print_gauge(out, "areg_info", "The version that answers; always 1.");
	buf_printf(out, "areg_info{version=\"%s\"} 1\n", PACKAGE_VERSION);
	print_gauge(out, healthy, "Whether a part is as it should be, as GET /health has it.");
	buf_printf(out, "%s{check=\"database\"} %d\n", healthy, report->database == HEALTHY);
	buf_printf(out, "%s{check=\"cache\"} %d\n", healthy, report->cache == HEALTHY);
	buf_printf(out, "%s{check=\"workers\"} %d\n", healthy, check_workers(call) == HEALTHY);
}

static void health_print_workers(struct buf *out, const struct scoreboard *scoreboard)
{
	size_t ready, busy;

	scoreboard_count(scoreboard, &ready, &busy);
	print_gauge(out, "areg_workers_busy", "Workers that serve a request.");
	buf_printf(out, "areg_workers_busy %zu\n", busy);
	print_gauge(out, "areg_workers_idle", "Workers that wait for a request.");
	buf_printf(out, "areg_workers_idle %zu\n", ready - busy);
}

static void print_limiter(
	const struct call *call, const struct health_report *report, struct buf *out)
{
	print_gauge(out, "areg_limiter_hosts",
		"Hosts that share rate limits, this one included; 1 when it counts by itself.");
	buf_printf(out, "areg_limiter_hosts %u\n",
		limiter_hosts(call->context->host->limiter,
			limiter_clock_ms(call->context->host->limiter, clock_unix_ms())));
	print_gauge(out, "areg_limiter_shared",
		"Whether rate limits count over all hosts: 0 without memcached.");
	buf_printf(out, "areg_limiter_shared %d\n", limits_are_shared(report));
}

/* A text between quotes, as the exposition format wants it. */
static void print_label(struct buf *out, const char *text)
{
	for (; *text != '\0'; text++)
		buf_printf(out, *text == '"' || *text == '\\' ? "\\%c" : "%c", *text);
}

static void print_cache_servers(
	const struct cache *cache, const struct health_report *report, struct buf *out)
{
	static const char in[] = "areg_cache_server_in";

	if (!cache_has_servers(cache))
		return;
	print_gauge(out, in, "Whether a memcached server is used: 0 while it does not answer.");
	for (size_t i = 0; i < cache_server_count(cache); i++) {
		buf_printf(out, "%s{server=\"", in);
		print_label(out, cache_server_name(cache, i));
		buf_printf(out, "\"} %u\n", report->cache_servers >> i & 1);
	}
}

static void print_cache(
	const struct call *call, const struct health_report *report, struct buf *out)
{
	print_cache_servers(call->context->cache, report, out);
	print_gauge(out, "areg_cache_memcached_trusted",
		"Whether answers in memcached are used: 0 after changes that it was not told.");
	buf_printf(out, "areg_cache_memcached_trusted %d\n",
		memcached_answers_is_trusted(&call->context->memcached));
	buf_printf(out,
		"# HELP areg_cache_refused_total Values in memcached that were not used, since this "
		"registry's seal was missing or wrong.\n"
		"# TYPE areg_cache_refused_total counter\nareg_cache_refused_total %llu\n",
		(unsigned long long)cache_refused(call->context->host->view));
	buf_printf(out,
		"# HELP areg_cache_distrusts_total Changes that memcached was not told.\n"
		"# TYPE areg_cache_distrusts_total counter\nareg_cache_distrusts_total %llu\n",
		(unsigned long long)answers_distrusts(call->context->host->answers));
}

static void print_replicas(const struct health_report *report, struct buf *out)
{
	static const char up[] = "areg_replica_up", lag[] = "areg_replica_lag_seconds";

	if (report->replica_count == 0)
		return;
	print_gauge(out, up, "Whether a server of database_read answers, and is a replica.");
	for (size_t i = 0; i < report->replica_count; i++)
		buf_printf(out, "%s{replica=\"%zu\"} %d\n", up, i + 1,
			is_replica(&report->replicas[i]));
	print_gauge(out, lag, "How old the last transaction is that it has; 0 when it has all.");
	for (size_t i = 0; i < report->replica_count; i++)
		if (is_replica(&report->replicas[i]))
			buf_printf(out, "%s{replica=\"%zu\"} %.3f\n", lag, i + 1,
				(double)report->replicas[i].lag_ms / 1000);
}

/* Left out while that is not known, as the next. */
static void print_events(const struct health_report *report, struct buf *out)
{
	static const char held_back[] = "areg_events_held_back_seconds";

	if (report->events_held_back_ms < 0)
		return;
	print_gauge(out, held_back,
		"Age of the first event that is not shown yet, since a transaction that began "
		"before it is open; 0 when all are shown.");
	buf_printf(out, "%s %.3f\n", held_back, (double)report->events_held_back_ms / 1000);
}

/* Left out while the database is away: a scrape must not fail with it. Its name, which others know,
 * is a counter's, and promtool(1) would complain of a gauge that has one. */
static void print_agents(const struct health_report *report, struct buf *out)
{
	if (report->agents == NULL)
		return;
	buf_puts(out, "# HELP erc8004_active_agents_total Active agents by chain.\n"
		      "# TYPE erc8004_active_agents_total untyped\n");
	buf_puts(out, report->agents);
}

void metrics_get(struct call *call)
{
	struct buf *out = &call->response->body;
	struct health_report report;

	health_own_look(call, &report);
	call->response->content_type = "text/plain; version=0.0.4; charset=utf-8";
	metrics_print(call->context->metrics, out);
	print_state(call, &report, out);
	health_print_workers(out, call->context->scoreboard);
	print_memory(out, call->context->scoreboard);
	print_limiter(call, &report, out);
	print_cache(call, &report, out);
	print_replicas(&report, out);
	print_events(&report, out);
	print_agents(&report, out);
}
