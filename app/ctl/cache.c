/* SPDX-License-Identifier: Apache-2.0 */
/* aregctl cache: fills memcached with the answers that are asked for most, and empties all caches. */
#include "app/ctl/ctl.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/cache/seal_key.h"
#include "app/http/cached_answers.h"
#include "app/http/metering.h"

enum { TIMEOUT_MS = 30 * 1000, TOP_DEFAULT = 1000, TOP_MAX = 1000000 };

struct values {
	const char *top;
};

/* Where nobody has said what is asked for most. */
static const struct db_statement most_feedback = {
	.name = "ctl_cache_most_feedback",
	.sql = "SELECT '/api/v1/agents/' || agent_uuid || part.path"
	       "  FROM (SELECT agent_uuid, total_feedback FROM erc8004_agent_stats"
	       "         ORDER BY total_feedback DESC, agent_uuid LIMIT $1) AS top,"
	       "       (VALUES (1, ''), (2, '/stats')) AS part (place, path)"
	       " ORDER BY total_feedback DESC, agent_uuid, part.place",
	.effect = DB_READS,
};

static const struct db_statement tell_hosts = {
	.name = "ctl_cache_flush",
	.sql = "SELECT pg_notify('areg_agents', 'all')",
	.effect = DB_CHANGES,
};

struct targets {
	const char **list;
	size_t count;
	const char *source; /* for people */
};

static bool read_top(const char *text, size_t *top)
{
	*top = TOP_DEFAULT;
	if (text == NULL)
		return true;
	*top = strspn(text, "0123456789") == strlen(text) && strlen(text) <= 7 ? (size_t)atol(text)
									       : 0;
	if (*top >= 1 && *top <= TOP_MAX)
		return true;
	ctl_error("--top \"%s\" is not a number within 1..%d", text, TOP_MAX);
	return false;
}

/* The first `most` of the lines that the hosts have noted. */
static void warm_take_lines(
	struct ctl *ctl, const char *lines, size_t most, struct targets *targets)
{
	targets->list = arena_alloc(ctl->arena, most * sizeof *targets->list);
	while (*lines != '\0' && targets->count < most) {
		size_t len = strcspn(lines, "\n");

		targets->list[targets->count++] = arena_strndup(ctl->arena, lines, len);
		lines += len + (lines[len] == '\n');
	}
}

static enum ctl_exit choose(
	struct ctl *ctl, struct context *context, size_t top, struct targets *targets)
{
	const char *limit = arena_printf(ctl->arena, "%zu", top);
	struct db_rows rows;

	targets->source = "asked for most";
	warm_take_lines(
		ctl, memcached_answers_hottest(&context->memcached, ctl->arena), top, targets);
	if (targets->count > 0)
		return CTL_DONE;
	targets->source = "about the agents with the most feedback";
	ctl_open_db(ctl, TIMEOUT_MS);
	if (db_run(ctl->db, &most_feedback, &limit, 1, ctl->arena, &rows) != DB_OK)
		return ctl_db_failed(ctl, "cache warm");
	targets->list = arena_alloc(ctl->arena, (rows.count + 1) * sizeof *targets->list);
	for (; targets->count < rows.count; targets->count++)
		targets->list[targets->count] = db_text(&rows, targets->count, 0);
	return CTL_DONE;
}

/* How many targets ended how, by enum warmth. False when it had to end early. */
static bool warm_all(struct ctl *ctl, struct context *context, const struct targets *targets,
	size_t counts[WARM_FAILED + 1])
{
	for (size_t i = 0; i < targets->count; i++) {
		enum warmth warmth = cached_answers_warm(context, targets->list[i]);

		arena_reset(context->arena);
		counts[warmth]++;
		if (warmth == WARM_FAILED)
			return false;
		if (i % 16 == 0)
			ctl_show_bar(ctl, (double)i / (double)targets->count,
				ctl_grouped(ctl->arena, i));
	}
	ctl_clear_bar(ctl);
	/* It does what it is sent in order: when it answers this, it has taken the rest. */
	return cache_check(context->cache) > 0;
}

static enum ctl_exit warm(struct ctl *ctl, struct context *context, size_t top)
{
	size_t counts[WARM_FAILED + 1] = { 0 };
	struct targets targets = { 0 };
	enum ctl_exit code;

	if (cache_check(context->cache) == 0) {
		ctl_error(
			"cache warm: no memcached answers: see memcached_servers in areg.conf(5)");
		return CTL_FAILED;
	}
	code = choose(ctl, context, top, &targets);
	if (code != CTL_DONE)
		return code;
	if (!warm_all(ctl, context, &targets, counts)) {
		ctl_clear_bar(ctl);
		ctl_error("cache warm: the database or memcached went away after %zu answers",
			counts[WARM_STORED] + counts[WARM_ALREADY] + counts[WARM_NOTHING]);
		return CTL_FAILED;
	}
	if (ctl->json)
		printf("{\"stored\":%zu,\"already\":%zu,\"without_answer\":%zu}\n",
			counts[WARM_STORED], counts[WARM_ALREADY], counts[WARM_NOTHING]);
	else
		printf("%s answers %s: %s stored in memcached, %s were there, %s have no answer "
		       "any more\n",
			ctl_grouped(ctl->arena, targets.count), targets.source,
			ctl_grouped(ctl->arena, counts[WARM_STORED]),
			ctl_grouped(ctl->arena, counts[WARM_ALREADY]),
			ctl_grouped(ctl->arena, counts[WARM_NOTHING]));
	return CTL_DONE;
}

/* What is stored without the right key, nobody believes. */
static bool warm_has_key(struct ctl *ctl, const char *name)
{
	struct settings_faults faults;

	if (seal_key_read(ctl->arena, &ctl->settings, &faults))
		return true;
	ctl_error("%s: %s: %s", name, faults.list[0].where, faults.list[0].why);
	return false;
}

static enum ctl_exit cache_warm(struct ctl *ctl, const void *arg)
{
	const struct values *values = arg;
	struct context context = { .settings = &ctl->settings, .router = ctl->router };
	enum ctl_exit code = CTL_FAILED;
	size_t top;

	if (!read_top(values->top, &top))
		return CTL_USAGE;
	if (!warm_has_key(ctl, "cache warm"))
		return CTL_FAILED;
	context.metrics = metering_new(ctl->arena, &ctl->settings, ctl->router, 1);
	if (context.metrics == NULL) {
		ctl_error("cache warm: no memory for metrics: %m");
		return CTL_FAILED;
	}
	context_open(&context);
	code = warm(ctl, &context, top);
	context_close(&context);
	metrics_free(context.metrics);
	return code;
}

static enum ctl_exit cache_flush(struct ctl *ctl, const void *arg)
{
	const struct cache_options options = { ctl->settings.memcached_servers,
		ctl->settings.cache_timeout_ms, ctl->settings.cache_retry_ms, NULL,
		ctl->settings.cache_key };
	struct cache *cache;
	struct memcached_answers memcached;
	struct db_rows rows;
	bool is_void;

	(void)arg;
	if (!warm_has_key(ctl, "cache flush"))
		return CTL_FAILED;
	cache = cache_new(&options);
	memcached_answers_init(&memcached, ctl->arena, &ctl->settings, cache, NULL, NULL);
	is_void = memcached_answers_drop_all(&memcached);
	cache_free(cache);
	ctl_open_db(ctl, TIMEOUT_MS);
	if (db_run(ctl->db, &tell_hosts, NULL, 0, ctl->arena, &rows) != DB_OK)
		return ctl_db_failed(ctl, "cache flush");
	if (!is_void) {
		ctl_error(
			"cache flush: memcached did not answer; hosts that run void what is in it "
			"as soon as they reach it");
		return CTL_FAILED;
	}
	if (ctl->json)
		printf("{\"flushed\":true}\n");
	else
		printf("every host forgets all answers within a second\n");
	return CTL_DONE;
}

static const struct ctl_option warm_options[] = {
	{ "top", CTL_TEXT, offsetof(struct values, top), "N",
		"how many answers, or agents where nothing was asked yet; default 1000" },
};

const struct ctl_command ctl_cache_commands[] = {
	{ "cache warm", "", 0, "put the answers that are asked for most into memcached", NULL,
		warm_options, 1, sizeof(struct values), cache_warm },
	{ "cache flush", "", 0, "make every host and memcached forget all answers", NULL, NULL, 0,
		sizeof(struct values), cache_flush },
	{ .name = NULL },
};
