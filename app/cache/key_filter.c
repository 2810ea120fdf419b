/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two filters: one in force, one to fill. Each has a random key of its own for the places of its bits
 * (SipHash), so that nobody can search at home for wrong keys that it holds, and those that somebody
 * found by trying are of no use with the next one. Read beside this: Bloom, "Space/time trade-offs in
 * hash coding with allowable errors", 1970.
 */
#include "app/cache/key_filter.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "lib/siphash.h"
#include "lib/words.h"

enum { PROBES = 4, WRONG = 1024, WORD_BITS = 64, TIME_BITS = 24 };

struct filter {
	uint64_t salt[2];
	uint64_t first; /* number of its first word among key_filter->words */
};

/* Holds no pointers: the memory may be mapped elsewhere after an exec. */
struct key_filter {
	uint64_t in_force; /* 0: none yet; else the number of a filter, from 1 */
	uint64_t fillings; /* begun so far */
	uint64_t word_count; /* of each filter */
	struct filter filters[2];
	uint64_t wrong[WRONG]; /* TIME_BITS of Unix time below the rest of a tag; 0: free */
	uint64_t words[];
};

static void filter_draw_salt(struct filter *filter)
{
	uint64_t salt[2];

	if (getrandom(salt, sizeof salt, 0) != (ssize_t)sizeof salt)
		abort(); /* cannot happen for 16 bytes, see getrandom(2) */
	word_put(&filter->salt[0], salt[0]);
	word_put(&filter->salt[1], salt[1]);
}

struct key_filter *key_filter_init(void *memory, size_t bytes)
{
	struct key_filter *key_filter = memory;

	key_filter->word_count = (bytes - sizeof *key_filter) / sizeof key_filter->words[0] / 2;
	key_filter->filters[1].first = key_filter->word_count;
	filter_draw_salt(&key_filter->filters[0]);
	filter_draw_salt(&key_filter->filters[1]);
	return key_filter;
}

static uint64_t filter_hash(const struct filter *filter, const uint8_t start[KEY_FILTER_START])
{
	const uint64_t salt[2] = { word_get(&filter->salt[0]), word_get(&filter->salt[1]) };
	uint8_t key[16];

	memcpy(key, salt, sizeof key);
	return siphash(key, start, KEY_FILTER_START);
}

/* The word and the bit in it of one probe; see Kirsch and Mitzenmacher, "Less hashing, same
 * performance", 2006. */
static const uint64_t *filter_word(const struct key_filter *key_filter, const struct filter *filter,
	uint64_t hash, uint64_t probe, uint64_t *mask)
{
	const uint64_t at = ((hash & UINT32_MAX) + probe * (hash >> 32 | 1)) %
			    (key_filter->word_count * WORD_BITS);

	*mask = 1ULL << at % WORD_BITS;
	return &key_filter->words[filter->first + at / WORD_BITS];
}

static void filter_add(struct key_filter *key_filter, const struct filter *filter,
	const uint8_t start[KEY_FILTER_START])
{
	const uint64_t hash = filter_hash(filter, start);

	for (uint64_t probe = 0; probe < PROBES; probe++) {
		uint64_t mask,
			*word = (uint64_t *)filter_word(key_filter, filter, hash, probe, &mask);

		__atomic_fetch_or(word, mask, __ATOMIC_RELAXED);
	}
}

void key_filter_add(struct key_filter *key_filter, const uint8_t start[KEY_FILTER_START])
{
	filter_add(key_filter, &key_filter->filters[0], start);
	filter_add(key_filter, &key_filter->filters[1], start);
}

bool key_filter_may_hold(const struct key_filter *key_filter, const uint8_t start[KEY_FILTER_START])
{
	const uint64_t in_force = word_get(&key_filter->in_force);
	const struct filter *filter;
	uint64_t hash;

	if (in_force == 0)
		return false;
	filter = &key_filter->filters[in_force - 1];
	hash = filter_hash(filter, start);
	for (uint64_t probe = 0; probe < PROBES; probe++) {
		uint64_t mask;
		const uint64_t *word = filter_word(key_filter, filter, hash, probe, &mask);

		if ((__atomic_load_n(word, __ATOMIC_RELAXED) & mask) == 0)
			return false;
	}
	return true;
}

/* The filter that is not in force. */
static struct filter *key_filter_spare(struct key_filter *key_filter)
{
	return &key_filter->filters[word_get(&key_filter->in_force) == 1 ? 1 : 0];
}

uint64_t key_filter_fill_begin(struct key_filter *key_filter)
{
	const uint64_t number = __atomic_add_fetch(&key_filter->fillings, 1, __ATOMIC_SEQ_CST);
	struct filter *spare = key_filter_spare(key_filter);

	/* In this order: a key that is added meanwhile was committed before, and so is read. */
	filter_draw_salt(spare);
	for (uint64_t i = 0; i < key_filter->word_count; i++)
		word_put(&key_filter->words[spare->first + i], 0);
	return number;
}

void key_filter_fill(struct key_filter *key_filter, const uint8_t start[KEY_FILTER_START])
{
	filter_add(key_filter, key_filter_spare(key_filter), start);
}

void key_filter_fill_end(struct key_filter *key_filter, uint64_t number)
{
	if (__atomic_load_n(&key_filter->fillings, __ATOMIC_SEQ_CST) == number)
		word_put(&key_filter->in_force,
			(uint64_t)(key_filter_spare(key_filter) - key_filter->filters) + 1);
}

/* ---- Keys found wrong ---- */

#define TIME_MASK ((1ULL << TIME_BITS) - 1)

static uint64_t wrong_tag(const uint8_t start[KEY_FILTER_START])
{
	uint64_t tag;

	memcpy(&tag, start, sizeof tag);
	return tag & ~TIME_MASK;
}

static size_t wrong_place(const uint8_t start[KEY_FILTER_START])
{
	return (size_t)(wrong_tag(start) >> TIME_BITS) % WRONG;
}

void key_filter_note_wrong(
	struct key_filter *key_filter, const uint8_t start[KEY_FILTER_START], uint64_t now_s)
{
	word_put(&key_filter->wrong[wrong_place(start)], wrong_tag(start) | (now_s & TIME_MASK));
}

bool key_filter_was_wrong(
	const struct key_filter *key_filter, const uint8_t start[KEY_FILTER_START], uint64_t now_s)
{
	const uint64_t word = word_get(&key_filter->wrong[wrong_place(start)]);

	return word != 0 && (word & ~TIME_MASK) == wrong_tag(start) &&
	       ((now_s - word) & TIME_MASK) < KEY_FILTER_WRONG_S;
}
