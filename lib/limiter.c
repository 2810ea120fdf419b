/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rule: at `elapsed` milliseconds into a minute in which `used` requests passed, after a minute
 * in which `before` passed, one more passes if
 *
 *	used + ceil(before * (60000 - elapsed) / 60000) + 1 <= limit
 *
 * That takes the requests of the minute before as spread evenly over it, and rounds against the
 * caller, so that no window of 60 s holds more than `limit` by this reckoning. As time goes by the
 * left side never grows, also not from one minute into the next; so the time to wait is found by
 * asking the same rule about later seconds.
 *
 * Layout: buckets of 8 subjects. A subject has a tag and three words, each a minute (28 bits, good
 * until the year 2480) and two counts (18 bits), so that one compare-and-swap changes all of a word
 * and a word of an old minute tells so itself:
 *
 *	count:  minute | let through in the minute before | let through
 *	share:  minute | limit last asked with | reserved by this host
 *	ledger: minute | reserved by all hosts in the minute before | reserved by all
 *
 * A subject moves in under the lock of its bucket: tag 0, words cleared, new tag, in this order. A
 * process that is killed on the way leaves a free place. A process that was counting on that place
 * meanwhile sees afterwards that the tag is no longer its own, and counts again where it belongs.
 */
#include "lib/limiter.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "lib/shm.h"
#include "lib/siphash.h"

enum { WAYS = 8, LOCKS = 64, CACHE_LINE = 64 };
enum { COUNT_BITS = 18, HOSTS_BITS = 16 };

#define COUNT_MOST ((1u << COUNT_BITS) - 1)
_Static_assert(LIMIT_MOST < COUNT_MOST, "a count that passed fits its bits");

struct bucket {
	_Alignas(CACHE_LINE) uint64_t tags[WAYS]; /* 0: free */
	uint64_t counts[WAYS];
	uint64_t shares[WAYS];
	uint64_t ledgers[WAYS];
};

/* Holds no pointers: the memory may be mapped elsewhere after an exec. */
struct limiter {
	uint8_t key[16]; /* of where a tag is put */
	uint64_t ahead_ms; /* of the clock; 0 but in tests */
	uint64_t hosts; /* until_ms << HOSTS_BITS | hosts */
	uint64_t bucket_count;
	pthread_mutex_t locks[LOCKS]; /* of the buckets with that number modulo LOCKS */
	struct bucket buckets[];
};

/* A word taken apart. */
struct word {
	uint64_t minute;
	uint32_t first, second;
};

struct place {
	struct bucket *bucket;
	size_t way;
};

static uint64_t pack(struct word word)
{
	return word.minute << (2 * COUNT_BITS) | (uint64_t)word.first << COUNT_BITS | word.second;
}

static struct word unpack(uint64_t bits)
{
	return (struct word){ bits >> (2 * COUNT_BITS), (uint32_t)(bits >> COUNT_BITS) & COUNT_MOST,
		(uint32_t)bits & COUNT_MOST };
}

static uint64_t limiter_get(const uint64_t *bits)
{
	return __atomic_load_n(bits, __ATOMIC_ACQUIRE);
}

static void limiter_put(uint64_t *bits, uint64_t value)
{
	__atomic_store_n(bits, value, __ATOMIC_RELEASE);
}

/* Replaces *seen by `word` unless it changed meanwhile. */
static bool swap(uint64_t *bits, uint64_t seen, struct word word)
{
	return __atomic_compare_exchange_n(
		bits, &seen, pack(word), false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

static uint32_t capped(uint64_t count)
{
	return count < COUNT_MOST ? (uint32_t)count : COUNT_MOST;
}

static uint64_t minute_of(uint64_t ms)
{
	return ms / LIMIT_WINDOW_MS;
}

/* What the window holds at that time, if nothing passes from here on. `first` of the word counts
 * the minute before, `second` the minute. A word may be of a minute that has just begun for another
 * process, and for us will in a moment. */
static uint64_t limiter_load(struct word word, uint64_t at_ms)
{
	uint64_t left = LIMIT_WINDOW_MS - at_ms % LIMIT_WINDOW_MS;
	uint64_t minute = minute_of(at_ms);

	if (minute < word.minute)
		return (uint64_t)word.second + word.first;
	if (minute == word.minute)
		return word.second + (word.first * left + LIMIT_WINDOW_MS - 1) / LIMIT_WINDOW_MS;
	if (minute == word.minute + 1)
		return (word.second * left + LIMIT_WINDOW_MS - 1) / LIMIT_WINDOW_MS;
	return 0;
}

static uint32_t limiter_room(struct word word, uint32_t limit, uint64_t at_ms)
{
	uint64_t held = limiter_load(word, at_ms);

	return held < limit ? (uint32_t)(limit - held) : 0;
}

uint32_t limiter_left(uint32_t limit, uint32_t used, uint32_t before, uint64_t now_ms)
{
	return limiter_room((struct word){ minute_of(now_ms), before, used }, limit, now_ms);
}

/* A count as it stands in the minute of now_ms. One that is further ahead than the next minute was
 * made before the clock was set back, and is void like an old one. */
static struct word count_at(uint64_t bits, uint64_t now_ms)
{
	struct word count = unpack(bits);
	uint64_t minute = minute_of(now_ms);

	if (count.minute == minute || count.minute == minute + 1)
		return count;
	if (count.minute + 1 == minute)
		return (struct word){ minute, count.second, 0 };
	return (struct word){ minute, 0, 0 };
}

size_t limiter_bytes(size_t subjects)
{
	size_t buckets = subjects / WAYS + 1;

	return sizeof(struct limiter) + buckets * sizeof(struct bucket);
}

struct limiter *limiter_init(void *memory, size_t subjects)
{
	struct limiter *limiter = memory;

	limiter->bucket_count = subjects / WAYS + 1;
	if (getrandom(limiter->key, sizeof limiter->key, 0) != (ssize_t)sizeof limiter->key)
		abort(); /* cannot happen for 16 bytes, see getrandom(2) */
	for (size_t i = 0; i < LOCKS; i++)
		shm_mutex_init(&limiter->locks[i]);
	return limiter;
}

uint64_t limiter_clock_ms(const struct limiter *limiter, uint64_t unix_ms)
{
	return unix_ms + limiter_get(&limiter->ahead_ms);
}

void limiter_turn_clock(struct limiter *limiter, uint64_t ahead_ms)
{
	limiter_put(
		&limiter->ahead_ms, ahead_ms < LIMIT_TURN_MOST_MS ? ahead_ms : LIMIT_TURN_MOST_MS);
}

uint64_t limiter_tag(const struct limiter *limiter, unsigned class, const char *subject)
{
	/* The hosts have no secret in common, and need none: what a tag is good for is a count,
	 * and its place is chosen with a random key. */
	uint8_t key[16] = "areg-limit";
	uint64_t tag;

	(void)limiter;
	memcpy(key + 12, &(uint32_t){ htonl(class) }, 4);
	tag = siphash(key, subject, strlen(subject));
	return tag == 0 ? 1 : tag;
}

void limiter_address_subject(const char *address, char subject[64])
{
	char text[INET6_ADDRSTRLEN];
	struct in6_addr six;
	struct in_addr four;

	if (inet_pton(AF_INET6, address, &six) == 1 && IN6_IS_ADDR_V4MAPPED(&six)) {
		memcpy(&four, &six.s6_addr[12], sizeof four);
		inet_ntop(AF_INET, &four, subject, 64);
	} else if (inet_pton(AF_INET6, address, &six) == 1) {
		memset(&six.s6_addr[8], 0, 8);
		inet_ntop(AF_INET6, &six, text, sizeof text);
		snprintf(subject, 64, "%s/64", text);
	} else if (inet_pton(AF_INET, address, &four) == 1) {
		inet_ntop(AF_INET, &four, subject, 64);
	} else {
		strcpy(subject, "unknown");
	}
}

static size_t bucket_number(const struct limiter *limiter, uint64_t tag)
{
	return siphash(limiter->key, &tag, sizeof tag) % limiter->bucket_count;
}

static bool limiter_find(const struct limiter *limiter, uint64_t tag, struct place *place)
{
	/* The memory is not const, only this view of it. */
	struct bucket *bucket = (struct bucket *)&limiter->buckets[bucket_number(limiter, tag)];

	for (size_t way = 0; way < WAYS; way++) {
		if (limiter_get(&bucket->tags[way]) == tag) {
			*place = (struct place){ bucket, way };
			return true;
		}
	}
	return false;
}

/* The free place of a bucket, or else the one that holds least. */
static size_t place_to_use(const struct bucket *bucket, uint64_t now_ms)
{
	uint64_t least = UINT64_MAX;
	size_t found = 0;

	for (size_t way = 0; way < WAYS; way++) {
		uint64_t held =
			limiter_load(count_at(limiter_get(&bucket->counts[way]), now_ms), now_ms);

		if (limiter_get(&bucket->tags[way]) == 0)
			return way;
		if (held < least) {
			least = held;
			found = way;
		}
	}
	return found;
}

/* With the bucket locked: finds the subject, or moves it in. */
static struct place find_or_add(struct limiter *limiter, uint64_t tag, uint64_t now_ms)
{
	struct bucket *bucket = &limiter->buckets[bucket_number(limiter, tag)];
	struct place place;

	if (limiter_find(limiter, tag, &place))
		return place;
	place = (struct place){ bucket, place_to_use(bucket, now_ms) };
	limiter_put(&bucket->tags[place.way], 0);
	limiter_put(&bucket->counts[place.way], 0);
	limiter_put(&bucket->shares[place.way], 0);
	limiter_put(&bucket->ledgers[place.way], 0);
	limiter_put(&bucket->tags[place.way], tag);
	return place;
}

static pthread_mutex_t *limiter_lock_of(struct limiter *limiter, uint64_t tag)
{
	return &limiter->locks[bucket_number(limiter, tag) % LOCKS];
}

static struct place limiter_add(struct limiter *limiter, uint64_t tag, uint64_t now_ms)
{
	pthread_mutex_t *lock = limiter_lock_of(limiter, tag);
	struct place place;

	shm_mutex_lock(lock);
	place = find_or_add(limiter, tag, now_ms);
	shm_mutex_unlock(lock);
	return place;
}

static void note_limit(uint64_t *share_bits, uint32_t limit)
{
	uint64_t seen;
	struct word share;

	do {
		seen = limiter_get(share_bits);
		share = unpack(seen);
		if (share.first == limit)
			return;
		share.first = limit;
	} while (!swap(share_bits, seen, share));
}

/* What is known of a subject at one moment. */
struct standing {
	uint32_t limit;
	struct word count; /* of this host */
	bool shared; /* with other hosts: then it must reserve what it lets through */
	uint32_t reserved; /* by this host in the minute of the count */
	bool knows_all;
	struct word all; /* reserved by all hosts, if known */
};

static struct standing standing_of(const struct limiter *limiter, struct place at, uint64_t bits,
	uint32_t limit, uint64_t now_ms)
{
	struct standing standing = { .limit = limit, .count = count_at(bits, now_ms) };
	struct word share;

	if (limiter_hosts(limiter, now_ms) <= 1)
		return standing;
	share = unpack(limiter_get(&at.bucket->shares[at.way]));
	standing.shared = true;
	standing.reserved = share.minute == standing.count.minute ? share.second : 0;
	standing.all = unpack(limiter_get(&at.bucket->ledgers[at.way]));
	standing.knows_all = standing.all.minute == standing.count.minute;
	return standing;
}

static enum limit_verdict limiter_judge(
	const struct standing *standing, bool may_owe, uint64_t now_ms)
{
	if (limiter_room(standing->count, standing->limit, now_ms) == 0)
		return LIMIT_REFUSED;
	if (!standing->shared || standing->count.second < standing->reserved)
		return LIMIT_PASSED;
	if (standing->knows_all && limiter_room(standing->all, standing->limit, now_ms) == 0)
		return LIMIT_REFUSED;
	return may_owe ? LIMIT_PASSED : LIMIT_UNRESERVED;
}

/* How many more could pass here now: no more than the host's own window has room for, nor, where
 * that is known, than it has reserved and all hosts have left. */
static uint32_t remaining(const struct standing *standing, uint64_t now_ms)
{
	uint32_t own = limiter_room(standing->count, standing->limit, now_ms);
	uint32_t together = own, used = standing->count.second;

	if (standing->knows_all) {
		together = limiter_room(standing->all, standing->limit, now_ms);
		together += standing->reserved > used ? standing->reserved - used : 0;
	}
	return together < own ? together : own;
}

static bool limiter_fits(const struct standing *standing, uint64_t at_ms)
{
	return limiter_room(standing->count, standing->limit, at_ms) > 0 &&
	       (!standing->knows_all || limiter_room(standing->all, standing->limit, at_ms) > 0);
}

/* The first whole second from which one request fits; two minutes after the one that is counted
 * nothing is held any more. */
static uint32_t seconds_until_one_fits(const struct standing *standing, uint64_t now_ms)
{
	uint32_t not_yet = 0, by_then = 180;

	while (by_then - not_yet > 1) {
		uint32_t middle = (not_yet + by_then) / 2;

		if (limiter_fits(standing, now_ms + 1000 * (uint64_t)middle))
			by_then = middle;
		else
			not_yet = middle;
	}
	return by_then;
}

static enum limit_verdict limiter_own_take(struct limiter *limiter, uint64_t tag, uint32_t limit,
	bool may_owe, uint64_t now_ms, struct limit_answer *answer)
{
	struct standing standing;
	enum limit_verdict verdict;
	struct place at;
	bool counted;

	if (limit > LIMIT_MOST)
		limit = LIMIT_MOST;
	do {
		uint64_t seen;

		if (!limiter_find(limiter, tag, &at))
			at = limiter_add(limiter, tag, now_ms);
		note_limit(&at.bucket->shares[at.way], limit);
		seen = limiter_get(&at.bucket->counts[at.way]);
		standing = standing_of(limiter, at, seen, limit, now_ms);
		verdict = limiter_judge(&standing, may_owe, now_ms);
		counted = true;
		if (verdict == LIMIT_PASSED) {
			standing.count.second++;
			counted = swap(&at.bucket->counts[at.way], seen, standing.count);
		}
	} while (!counted || limiter_get(&at.bucket->tags[at.way]) != tag);
	*answer = (struct limit_answer){ .limit = limit,
		.remaining = verdict == LIMIT_REFUSED ? 0 : remaining(&standing, now_ms),
		.reset_s = (minute_of(now_ms) + 1) * (LIMIT_WINDOW_MS / 1000),
		.retry_after_s =
			verdict == LIMIT_REFUSED ? seconds_until_one_fits(&standing, now_ms) : 0 };
	return verdict;
}

void limiter_carry(struct limiter *limiter, const struct limiter *from, uint64_t now_ms)
{
	for (size_t i = 0; i < from->bucket_count * WAYS; i++) {
		const struct bucket *bucket = &from->buckets[i / WAYS];
		uint64_t tag = limiter_get(&bucket->tags[i % WAYS]);
		struct word count = count_at(limiter_get(&bucket->counts[i % WAYS]), now_ms);
		struct word share = unpack(limiter_get(&bucket->shares[i % WAYS]));
		struct place at;

		if (tag == 0 || limiter_load(count, now_ms) == 0)
			continue;
		at = limiter_add(limiter, tag, now_ms);
		limiter_put(&at.bucket->counts[at.way], pack(count));
		limiter_put(&at.bucket->shares[at.way],
			pack((struct word){ count.minute, share.first, count.second }));
		limiter_put(&at.bucket->ledgers[at.way], limiter_get(&bucket->ledgers[i % WAYS]));
	}
}

enum limit_verdict limiter_take(struct limiter *limiter, uint64_t tag, uint32_t limit,
	uint64_t now_ms, struct limit_answer *answer)
{
	return limiter_own_take(limiter, tag, limit, false, now_ms, answer);
}

enum limit_verdict limiter_take_owing(struct limiter *limiter, uint64_t tag, uint32_t limit,
	uint64_t now_ms, struct limit_answer *answer)
{
	return limiter_own_take(limiter, tag, limit, true, now_ms, answer);
}

void limiter_set_hosts(struct limiter *limiter, unsigned hosts, uint64_t until_ms)
{
	const uint64_t most_hosts = (1u << HOSTS_BITS) - 1, last_ms = UINT64_MAX >> HOSTS_BITS;

	limiter_put(&limiter->hosts, (until_ms < last_ms ? until_ms : last_ms) << HOSTS_BITS |
					     (hosts < most_hosts ? hosts : most_hosts));
}

unsigned limiter_hosts(const struct limiter *limiter, uint64_t now_ms)
{
	uint64_t bits = limiter_get(&limiter->hosts);
	unsigned hosts = (unsigned)(bits & ((1u << HOSTS_BITS) - 1));

	return now_ms < bits >> HOSTS_BITS && hosts > 1 ? hosts : 1;
}

static struct limit_share share_at(struct place at, uint64_t tag, uint64_t now_ms)
{
	struct word count = count_at(limiter_get(&at.bucket->counts[at.way]), now_ms);
	struct word share = unpack(limiter_get(&at.bucket->shares[at.way]));

	return (struct limit_share){ .tag = tag,
		.minute = count.minute,
		.limit = share.first,
		.used = count.second,
		.used_before = count.first,
		.reserved = share.minute == count.minute ? share.second : 0 };
}

void limiter_share(
	const struct limiter *limiter, uint64_t tag, uint64_t now_ms, struct limit_share *share)
{
	struct place at;

	*share = (struct limit_share){ .tag = tag, .minute = minute_of(now_ms) };
	if (limiter_find(limiter, tag, &at))
		*share = share_at(at, tag, now_ms);
}

/* Under the lock, so that the place stays the subject's meanwhile. The limit beside it may still be
 * noted by others. */
void limiter_reserved(struct limiter *limiter, uint64_t tag, uint64_t minute, uint32_t more,
	uint32_t total, uint32_t total_before)
{
	pthread_mutex_t *lock = limiter_lock_of(limiter, tag);
	uint64_t seen, *bits;
	struct word share;
	struct place at;

	shm_mutex_lock(lock);
	at = find_or_add(limiter, tag, minute * LIMIT_WINDOW_MS);
	bits = &at.bucket->shares[at.way];
	do {
		seen = limiter_get(bits);
		share = unpack(seen);
		if (share.minute == minute + 1) /* came too late: the next one has begun */
			goto unlock;
		share.second = capped((share.minute == minute ? share.second : 0) + (uint64_t)more);
		share.minute = minute;
	} while (!swap(bits, seen, share));
	limiter_put(&at.bucket->ledgers[at.way],
		pack((struct word){ minute, capped(total_before), capped(total) }));
unlock:
	shm_mutex_unlock(lock);
}

void limiter_each(const struct limiter *limiter, uint64_t now_ms,
	void (*visit)(const struct limit_share *share, void *arg), void *arg)
{
	for (size_t i = 0; i < limiter->bucket_count; i++) {
		struct bucket *bucket = (struct bucket *)&limiter->buckets[i];

		for (size_t way = 0; way < WAYS; way++) {
			uint64_t tag = limiter_get(&bucket->tags[way]);
			struct limit_share share;

			if (tag == 0 || unpack(limiter_get(&bucket->counts[way])).minute !=
						minute_of(now_ms))
				continue;
			share = share_at((struct place){ bucket, way }, tag, now_ms);
			visit(&share, arg);
		}
	}
}
