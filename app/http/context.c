/* SPDX-License-Identifier: Apache-2.0 */
/* Connections of its own, and the session of a connection that reads. */
#include "app/http/context.h"

enum {
	ARENA_BLOCK = 64 * 1024,
	ARENA_LIMIT = 64 * 1024 *
		      /* Far above what a request within its limits needs: serve() answers one that
		 * needs more. */
		      1024,
};

/* How near a name must be to what was searched for: one letter wrong in six still is. The other
 * settings suit many short reads of cached pages: no parallel workers, no JIT, and no sequential
 * scans, since a scan with a LIMIT reads the whole table if the matches lie at its end. */
static const char search_session[] =
	"SET pg_trgm.word_similarity_threshold = 0.4; SET random_page_cost = 1.1;"
	"SET enable_seqscan = off; SET max_parallel_workers_per_gather = 0; SET jit = off;";

struct db_meter context_db_meter(const struct context *context)
{
	struct db_meter meter = { 0 };

	if (context->db != NULL)
		meter = *db_meter(context->db);
	replicas_add_meter(context->replicas, &meter);
	meter.waited_us += context->writers.waited_us;
	meter.changes += context->writers.given;
	return meter;
}

void context_open(struct context *context)
{
	const struct settings *settings = context->settings;

	context->db_options = (struct db_options){ settings->database_url, "areg",
		settings->database_connect_timeout_ms, settings->database_statement_timeout_ms,
		search_session, true };
	context->cache_options = (struct cache_options){ settings->memcached_servers,
		settings->cache_timeout_ms, settings->cache_retry_ms,
		context->host == NULL ? NULL : context->host->view, settings->cache_key };
	context->arena = arena_new(ARENA_BLOCK, ARENA_LIMIT);
	context->db = db_new(&context->db_options);
	if (context->host != NULL) {
		db_share_reached(context->db, context->host->reached, 0);
		context->replicas = replicas_new(settings, context->host->wal, context->place,
			context->db_options.application_name, search_session);
	}
	context->cache = cache_new(&context->cache_options);
	memcached_answers_init(&context->memcached, context->arena, settings, context->cache,
		context->host == NULL ? NULL : context->host->answers,
		context->host == NULL ? NULL : context->host->wal);
	arena_reset(context->arena);
}

void context_close(struct context *context)
{
	cache_free(context->cache);
	replicas_free(context->replicas);
	db_free(context->db);
	arena_free(context->arena);
}
