/* SPDX-License-Identifier: Apache-2.0 */
/* Rounds of 100 ms: who is there, who has reserved too little, who has reserved too much. */
#include "app/process/ledger_keeper.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "app/process/helper_process.h"
#include "lib/clock.h"
#include "lib/log.h"

enum {
	ROUND_MS = 100, /* of the keeper */
	NOTICE_MS = 150, /* time in which the ledger keepers of other hosts make a round */
	VALID_MS = 1000, /* if no round succeeds for this long, this host counts by itself */
	TIMEOUT_MS = 250, /* of the keeper, at least: nobody waits for it, as they do for workers */
	RETRY_MS = ROUND_MS, /* of the keeper: a hiccup must not cost a host what it shares */
	HOSTS_MAX = 32, /* places for hosts in memcached; more share limits without a place */
	HOST_TTL_S = 3, /* a host silent for longer is gone */
	REFRESH_MS = 1000,
	SUBJECTS_A_ROUND = 500,
	SEEN = 4096,
	ID_BYTES = 17, /* 16 hex digits */
};

/* All on one server: a look at them is one question. */
#define PLACES "{areg:host}"

struct ledger_keeper {
	struct limiter *limiter;
	struct cache *cache;
	struct arena *arena; /* of a round */
	char id[ID_BYTES]; /* of this host */
	int place; /* among the hosts; -1: none yet */
	uint64_t refresh_at_ms;
	unsigned hosts; /* as last logged */
	uint64_t valid_until_ms; /* Unix time until which the count of hosts holds */
	bool lost; /* memcached has forgotten this host, and so the ledger */
	uint64_t view, new_view; /* of memcached servers, in the last round and in this one */

	uint64_t now_ms; /* of the round, by the clock of limits */
	struct limit_share *needy;
	size_t needy_count;
	size_t skip, met; /* so many needy ones were tended to in earlier rounds; met in this one */
	/* Uses at the last look, by tag: a subject nobody has used since needs no more. */
	struct {
		uint64_t tag, minute;
		uint32_t used;
	} seen[SEEN];
};

static void host_key(const struct ledger_keeper *keeper, unsigned place, char key[LEDGER_KEY_BYTES])
{
	snprintf(key, LEDGER_KEY_BYTES, PLACES "areg:host:%s:%u", cache_key_id(keeper->cache),
		place);
}

static bool is_mine(const struct ledger_keeper *keeper, const struct cache_value *value)
{
	return value->len == ID_BYTES - 1 && memcmp(value->bytes, keeper->id, value->len) == 0;
}

/* Takes the first place that is free. */
static void claim_place(struct ledger_keeper *keeper, const struct cache_value values[HOSTS_MAX])
{
	char key[LEDGER_KEY_BYTES];

	keeper->place = -1;
	for (unsigned i = 0; i < HOSTS_MAX && keeper->place < 0; i++) {
		host_key(keeper, i, key);
		if (values[i].bytes == NULL && cache_add(keeper->cache, key, keeper->id,
						       ID_BYTES - 1, HOST_TTL_S) == CACHE_HIT)
			keeper->place = (int)i;
	}
}

static void keep_place(struct ledger_keeper *keeper)
{
	char key[LEDGER_KEY_BYTES];

	if (keeper->now_ms < keeper->refresh_at_ms)
		return;
	host_key(keeper, (unsigned)keeper->place, key);
	if (cache_set(keeper->cache, key, keeper->id, ID_BYTES - 1, HOST_TTL_S) == CACHE_HIT)
		keeper->refresh_at_ms = keeper->now_ms + REFRESH_MS;
}

static void leave_place(struct ledger_keeper *keeper)
{
	struct cache_value value;
	char key[LEDGER_KEY_BYTES];

	if (keeper->place < 0)
		return;
	host_key(keeper, (unsigned)keeper->place, key);
	if (cache_get(keeper->cache, key, keeper->arena, &value) == CACHE_HIT &&
		is_mine(keeper, &value) && cache_delete(keeper->cache, key) == CACHE_AWAY)
		log_debug("memcached went away while this host left");
}

/* Says this host is there and who else is. Returns the number of hosts; 0 with memcached away. */
static unsigned count_hosts(struct ledger_keeper *keeper)
{
	char names[HOSTS_MAX][LEDGER_KEY_BYTES];
	const char *keys[HOSTS_MAX];
	struct cache_value values[HOSTS_MAX];
	unsigned hosts = 1;
	bool is_here = false;

	for (unsigned i = 0; i < HOSTS_MAX; i++) {
		host_key(keeper, i, names[i]);
		keys[i] = names[i];
	}
	if (cache_get_many(keeper->cache, keys, HOSTS_MAX, keeper->arena, values) == CACHE_AWAY)
		return 0;
	for (unsigned i = 0; i < HOSTS_MAX; i++) {
		if (values[i].bytes == NULL)
			continue;
		if (!is_mine(keeper, &values[i]))
			hosts++;
		else if ((int)i == keeper->place)
			is_here = true;
	}
	if (is_here) {
		keep_place(keeper);
	} else {
		keeper->lost = keeper->place >= 0;
		claim_place(keeper, values);
	}
	return hosts;
}

static void log_hosts(struct ledger_keeper *keeper, unsigned hosts)
{
	if (hosts == keeper->hosts)
		return;
	if (hosts == 0)
		log_warn("memcached is away: limits are counted per host");
	else
		log_event(LOG_LEVEL_INFO, "hosts that share limits", LOG_NUMBER("hosts", hosts));
	keeper->hosts = hosts;
}

/* Whether what was entered under the key is to be entered again: it belongs on another server than
 * in the last round, or its server was started again, as far as this host's own place tells. */
static bool keeper_is_lost(const struct ledger_keeper *keeper, const char *key)
{
	const uint64_t view = keeper->new_view;
	const size_t server = cache_server_of(keeper->cache, view, key);

	return server != cache_server_of(keeper->cache, keeper->view, key) ||
	       (keeper->lost && server == cache_server_of(keeper->cache, view, PLACES));
}

/* Enters again what this host has reserved in this minute. A worker may have begun to do so: then it
 * counts twice, which errs on the safe side, but never beyond the limit. */
static void restore(const struct limit_share *share, void *arg)
{
	struct ledger_keeper *keeper = arg;
	struct ledger ledger;
	uint64_t total;
	uint32_t excess;

	ledger_keys(keeper->cache, share, &ledger);
	if (share->reserved == 0 || !keeper_is_lost(keeper, ledger.key) ||
		cache_add_count(keeper->cache, ledger.key, share->reserved, share->reserved,
			LEDGER_TTL_S, &total) != CACHE_HIT ||
		total <= share->limit)
		return;
	excess = total - share->limit < share->reserved ? (uint32_t)(total - share->limit)
							: share->reserved;
	if (cache_take_count(keeper->cache, ledger.key, excess, &total) != CACHE_HIT)
		log_debug("memcached went away while a reservation was restored");
}

/* Whether a subject may need a larger reservation: it has nothing reserved left, or it was used
 * since the last look and has less than half of the largest batch left. */
static bool is_needy(struct ledger_keeper *keeper, const struct limit_share *share)
{
	size_t at = share->tag % SEEN;
	bool is_used = keeper->seen[at].tag != share->tag ||
		       keeper->seen[at].minute != share->minute ||
		       keeper->seen[at].used != share->used;

	keeper->seen[at].tag = share->tag;
	keeper->seen[at].minute = share->minute;
	keeper->seen[at].used = share->used;
	if (ledger_unused(share) == 0)
		return share->used > 0;
	return is_used && ledger_unused(share) < ledger_batch(share->limit, keeper->hosts) / 2;
}

static void meet(const struct limit_share *share, void *arg)
{
	struct ledger_keeper *keeper = arg;

	if (!is_needy(keeper, share) || keeper->met++ < keeper->skip ||
		keeper->needy_count == SUBJECTS_A_ROUND)
		return;
	keeper->needy[keeper->needy_count++] = *share;
}

/* The subjects to look after in this round: at most SUBJECTS_A_ROUND, the rest in the next. */
static void collect_needy(struct ledger_keeper *keeper)
{
	keeper->needy_count = keeper->met = 0;
	limiter_each(keeper->limiter, keeper->now_ms, meet, keeper);
	keeper->skip =
		keeper->met > keeper->skip + SUBJECTS_A_ROUND ? keeper->skip + SUBJECTS_A_ROUND : 0;
}

/* Looks at the ledger for all of them in one trip, and takes for those that need. */
static void top_up(struct ledger_keeper *keeper)
{
	const size_t count = keeper->needy_count;
	struct ledger *ledgers = arena_alloc(keeper->arena, count * sizeof *ledgers + 1);
	const char **keys = arena_alloc(keeper->arena, 2 * count * sizeof *keys + 1);
	struct cache_count *counts = arena_alloc(keeper->arena, 2 * count * sizeof *counts + 1);

	for (size_t i = 0; i < count; i++) {
		ledger_keys(keeper->cache, &keeper->needy[i], &ledgers[i]);
		keys[2 * i] = ledgers[i].key;
		keys[2 * i + 1] = ledgers[i].key_before;
	}
	if (count == 0 || cache_get_counts(keeper->cache, keys, 2 * count, keeper->arena, counts) ==
				  CACHE_AWAY)
		return;
	/* Reservations whose server has changed are entered again first, in the next round. */
	if (cache_view(keeper->cache) != keeper->view)
		return;
	for (size_t i = 0; i < count; i++) {
		const struct limit_share *share = &keeper->needy[i];
		struct ledger *ledger = &ledgers[i];
		uint64_t allowed, left;
		uint32_t kept = 0, debt = ledger_owed(share);

		ledger_note(keeper->cache, share, &counts[2 * i], ledger);
		allowed = ledger_allowance(share->limit, ledger, keeper->now_ms);
		left = allowed > ledger->total ? allowed - ledger->total : 0;
		/* Nothing ahead of need where a batch is a single request: it might be missing on
		 * the host that needs it. */
		if (left > 0 &&
			(debt > 0 ||
				ledger_unused(share) < ledger_batch(left, keeper->hosts) / 2) &&
			!ledger_take(keeper->cache, share, ledger,
				ledger_wanted(share, left, keeper->hosts), allowed, &kept))
			return;
		ledger_note_reserved(keeper->limiter, share, kept, ledger);
	}
}

static void make_round(struct ledger_keeper *keeper)
{
	unsigned hosts;

	arena_reset(keeper->arena);
	keeper->now_ms = limiter_clock_ms(keeper->limiter, clock_unix_ms());
	hosts = count_hosts(keeper);
	if (hosts == 0) {
		/* Until the last count is void, workers owe to the ledger what they let through. */
		if (keeper->now_ms >= keeper->valid_until_ms)
			log_hosts(keeper, 0);
		return;
	}
	log_hosts(keeper, hosts);
	keeper->valid_until_ms = keeper->now_ms + VALID_MS;
	limiter_set_hosts(keeper->limiter, hosts, keeper->valid_until_ms);
	keeper->new_view = cache_view(keeper->cache);
	/* If the view has changed, only the server that a key belongs to tells whether the key must
	 * be entered again. */
	keeper->lost = keeper->lost && keeper->new_view == keeper->view;
	if (keeper->lost || keeper->new_view != keeper->view)
		limiter_each(keeper->limiter, keeper->now_ms, restore, keeper);
	keeper->view = keeper->new_view;
	keeper->lost = false;
	if (hosts == 1)
		return;
	collect_needy(keeper);
	top_up(keeper);
}

/* The first round takes a place, the second sees who else has. A host that looked before this host
 * took its place believes for one more of its rounds that it is alone. */
static bool join(struct ledger_keeper *keeper)
{
	make_round(keeper);
	make_round(keeper);
	return keeper->hosts <= 1 || helper_wait(NOTICE_MS);
}

int ledger_keeper_run(const struct settings *settings, struct limiter *limiter,
	struct cache_view *view, int ready_fd)
{
	const struct cache_options options = { settings->memcached_servers,
		settings->cache_timeout_ms > TIMEOUT_MS ? settings->cache_timeout_ms : TIMEOUT_MS,
		RETRY_MS, view, settings->cache_key };
	struct ledger_keeper *keeper = calloc(1, sizeof *keeper);
	uint64_t random, next_ms;
	bool goes_on;

	if (keeper == NULL ||
		(keeper->needy = calloc(SUBJECTS_A_ROUND, sizeof *keeper->needy)) == NULL ||
		getrandom(&random, sizeof random, 0) != (ssize_t)sizeof random) {
		log_error("the ledger keeper cannot start: %m");
		goto failed;
	}
	snprintf(keeper->id, ID_BYTES, "%016" PRIx64, random);
	keeper->limiter = limiter;
	keeper->place = -1;
	keeper->hosts = 1;
	keeper->cache = cache_new(&options);
	keeper->view = cache_view(keeper->cache);
	keeper->arena = arena_new(64 * 1024, 64 * 1024 * 1024);
	goes_on = join(keeper);
	close(ready_fd);
	next_ms = clock_ms();
	while (goes_on) {
		uint64_t now_ms = clock_ms();

		next_ms = next_ms + ROUND_MS > now_ms ? next_ms + ROUND_MS : now_ms;
		goes_on = helper_wait((int64_t)(next_ms - now_ms));
		if (goes_on)
			make_round(keeper);
	}
	leave_place(keeper);
	cache_free(keeper->cache);
	arena_free(keeper->arena);
	free(keeper->needy);
	free(keeper);
	return 0;
failed:
	if (keeper != NULL)
		free(keeper->needy);
	free(keeper);
	return 1;
}
