/*
 * Limits over several hosts: the ledger in memcached. For each subject and minute there is a number,
 * "areg:rl:KEY:TAG:MINUTE", the sum of what hosts have reserved; KEY stands for the key that seals items
 * (lib/seal.h). Numbers have no seal: somebody who can write in memcached can use up what others are
 * allowed, and can make each host allow a caller the whole limit, but no more than that.
 *
 * A host that is not alone reserves in batches ahead of need: the folder does so in the background, at the latest every 100 ms; a worker
 * that meets an exhausted reservation does it itself, in two round trips (look, take).
 */
#ifndef AREG_PROCESS_LEDGER_KEEPER_H
#define AREG_PROCESS_LEDGER_KEEPER_H

#include "app/registry/settings.h"
#include "lib/cache.h"
#include "lib/limiter.h"

/*
 * Reserves the next batch of a subject for this host: a fraction of what is left, at least 1, never
 * more than the sliding window leaves over. Returns whether this host has something reserved now
 * that is not used up. False with the ledger away sets *away: then limiter_take_owing() decides. That
 * is for moments; when the folder has not reached the ledger for a second, the host counts by itself.
 */
MUST_CHECK bool fold_reserve(struct limiter *limiter, struct cache *cache, uint64_t tag,
	uint32_t limit, uint64_t now_ms, bool *away);

/*
 * The folder process: says this host is there, counts the hosts, tops reservations up, by the host's
 * view of memcached servers (NULL: its own). Until SIGTERM
 * (which the master's end sends, too). Closes ready_fd once the other hosts, if any, have had the
 * time to learn of this one: from then on workers may serve without passing a limit together.
 * Returns the process's exit code.
 */
int folder_run(const struct settings *settings, struct limiter *limiter, struct cache_view *view,
	int ready_fd);

#endif
