/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memcached, the second level of the cache of answers, shared by all hosts of a registry. The age
 * of an item does not say whether it is valid. Each agent, the registry and the whole contents have
 * a key that holds a random token, and an answer carries the two tokens that were current when it
 * was asked for. It counts only while they are the present ones. A process that changes something
 * sets new tokens after the commit and before it acknowledges the change.
 *
 * A token also holds the WAL position that its maker required of replicas
 * (app/cache/wal_position.h). So a host that has not heard of a change cannot fill the cache from a
 * replica that has not replayed it. Should memcached lose a token just then, the host that makes it
 * anew knows less, until its listener hears of the change and sets another.
 *
 * A process that cannot set a token, because memcached is away or slow, distrusts memcached for the
 * whole host: from then on nobody there reads or writes answers in it, until the listener has set a
 * new token of everything after the last such failure. So a memcached that slept through a change
 * and woke up again serves nothing that it missed.
 *
 * Everybody who reaches memcached can write there. So each item is sealed under its name
 * (lib/cache.h), and an item without the right seal is not there. Somebody who can write to
 * memcached could put back an old token together with its old answer. Such an answer is believed
 * until its seal expires, at most ANSWER_TTL_S after it was stored.
 *
 *	areg:SPACE:all            token of everything, one on each server
 *	areg:SPACE:registry       token of what any change may touch
 *	areg:SPACE:agent:UUID     token of an agent
 *	areg:SPACE:heard          up to which place of erc8004_events the tokens are set, and on which
 *	                          servers
 *	areg:SPACE:hottest        what is asked for most, a path with its query a line
 *	areg:SPACE:EDITION:HASH   two tokens, the ETag, the body
 *
 * Several servers. What an answer about an agent needs lies on one server: the agent's token, the
 * answer, and that server's own token of everything. Lists are spread, with the registry's token on
 * one server. Which servers are in is the host's view (lib/cache.h), and it holds that
 *
 *  1. a token is drawn for one server, stored there once, and never again anywhere;
 *  2. an answer is asked of the database after both its tokens were read from one server;
 *  3. each host sets, in its own view, new tokens for every change: its writers before they
 *     acknowledge one, its listener within a second for those of all hosts;
 *  4. a new view is not settled, and as good as away, until the listener has set a new token of
 *     everything on each server in it.
 *
 * Views of one host. A change that was told under the old view was committed before the view moved,
 * hence before 4. Answers that count in the new view were asked for after 4, so they include the
 * change. Therefore a writer whose view moves meanwhile need not tell the next one, however much of
 * what it sent got lost; and a reader takes what it read only if the view is still the one that it
 * saw settled before, since what it read in between may be from a server that has just come in with
 * its old contents.
 *
 * Views of several hosts. Let a host serve an answer that was asked before some change, over a
 * second after it. By 2 and 1 both its tokens were stored on this server, and on no other, before
 * the change. The host's listener has heard of the change by then (3), and set a new token: on this
 * server, so that the answer does not count, or else on another one, where its view had the agent
 * then. But then its view has moved since, and the server has a token of everything that is newer
 * than the change (4). It does not matter where other hosts, whose views differ, look for that
 * agent, and what they leave there. Hosts that do not see the same servers only find less of each
 * other's answers.
 *
 * "heard" is believed for exactly those servers that it names: of others nobody says what they
 * missed. The note stays right for those servers, whenever it is read, because the tokens for all
 * changes before that place are set already.
 */
#ifndef AREG_CACHE_MEMCACHED_ANSWERS_H
#define AREG_CACHE_MEMCACHED_ANSWERS_H

#include "app/cache/answers.h"
#include "app/cache/wal_position.h"
#include "app/registry/settings.h"
#include "lib/cache.h"

enum { MEMCACHED_ANSWERS_TOKEN = 16, MEMCACHED_ANSWERS_SPACE = 17 };

struct memcached_answers {
	struct cache *cache;
	struct answers *answers; /* of this host; NULL: a program that stands alone, and trusts */
	const struct wal_position *wal; /* of this host; NULL: likewise, and asks the primary */
	char space
		/* Of the database and the key of seals: others have other tokens. */
		[MEMCACHED_ANSWERS_SPACE];
	char edition
		/* Of the program and its settings: others answer otherwise. */
		[MEMCACHED_ANSWERS_SPACE];
};

/* Hex digits that stand for the program and its settings, as far as answers depend on them. `arena`
 * is for this call only. */
void memcached_answers_edition(struct arena *arena, const struct settings *settings,
	char edition[MEMCACHED_ANSWERS_SPACE]);

/* Keeps cache, answers and wal, which may be NULL. `arena` is for this call only. */
void memcached_answers_init(struct memcached_answers *memcached, struct arena *arena,
	const struct settings *settings, struct cache *cache, struct answers *answers,
	const struct wal_position *wal);

/* Whether there is a memcached, and it may be believed. */
bool memcached_answers_is_trusted(const struct memcached_answers *memcached);

/* The tokens to store an answer under; from before it was asked for. */
struct memcached_answers_ticket {
	bool is_valid;
	uint64_t position; /* that a replica must have replayed to answer under it */
	char tokens[2 * MEMCACHED_ANSWERS_TOKEN];
};

/*
 * Looks for what is asked by that text about that agent (NULL: it depends on the registry), in one
 * round trip; where it is not trusted, in none. True with *answer (its target is not known: ""). On
 * false, *ticket is for memcached_answers_store(). If a token was missing, the ticket is not valid,
 * and the token is made for the next request.
 */
MUST_CHECK bool memcached_answers_find(struct memcached_answers *memcached, const char *agent_uuid,
	const char *text, size_t len, struct arena *arena, struct answer *answer,
	struct memcached_answers_ticket *ticket);

/* Sends the answer to be stored, without waiting for it. False when that was not possible. */
bool memcached_answers_store(struct memcached_answers *memcached,
	const struct memcached_answers_ticket *ticket, const char *agent_uuid, const char *text,
	size_t len, struct arena *arena, const struct answer *answer);

/* These agents have changed (lower case; NULL: lists and totals only), and so the registry. Where
 * that cannot be told to memcached, it is distrusted; then false. At most MEMCACHED_ANSWERS_CHANGES. */
enum { MEMCACHED_ANSWERS_CHANGES = CACHE_ITEMS_MAX - 1 };
bool memcached_answers_changed(struct memcached_answers *memcached, const char *const *agent_uuids,
	size_t count, struct arena *arena);

/* Everything in it is void from now on; where that cannot be told, it is distrusted; then false. */
bool memcached_answers_drop_all(struct memcached_answers *memcached);

/* For the listener, now and then: takes servers in again, tries to be able to trust it again. */
void memcached_answers_recover(struct memcached_answers *memcached);

/* Up to which place of erc8004_events tokens are known to have been set on all servers that are in;
 * "" when that is unknown. Note it only while memcached is trusted. */
MUST_CHECK const char *memcached_answers_heard(
	struct memcached_answers *memcached, struct arena *arena);
void memcached_answers_set_heard(
	struct memcached_answers *memcached, const char *place, struct arena *arena);

/* What is asked for most, lines of path and query; "" when nobody has said. */
MUST_CHECK const char *memcached_answers_hottest(
	struct memcached_answers *memcached, struct arena *arena);
void memcached_answers_set_hottest(
	struct memcached_answers *memcached, const char *lines, size_t len);

#endif
