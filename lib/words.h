/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records in shared memory that are written under a lock and read without one. A sequence number
 * stands beside each: odd from before the first word is written until after the last. A reader that
 * meets an odd one, or another one after reading than before, has not read a record. Words are stored
 * with release and loaded with acquire, which orders them against the sequence number (Boehm, "Can
 * seqlocks get along with programming language memory models?", 2012) and costs nothing on x86.
 */
#ifndef AREG_WORDS_H
#define AREG_WORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint64_t word_get(const uint64_t *word)
{
	return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

static inline void word_put(uint64_t *word, uint64_t value)
{
	__atomic_store_n(word, value, __ATOMIC_RELEASE);
}

/* Copies len bytes, as whole words and what is left of the last one, out of shared memory. */
static inline void words_get(void *to, const uint64_t *words, size_t len)
{
	size_t at = 0;

	for (; len - at >= 8; at += 8)
		memcpy((char *)to + at, &(uint64_t){ word_get(words++) }, 8);
	if (at < len)
		memcpy((char *)to + at, &(uint64_t){ word_get(words) }, len - at);
}

/* The same into it; what is left of the last word becomes zero. */
static inline void words_put(uint64_t *words, const void *from, size_t len)
{
	size_t at = 0;
	uint64_t word;

	for (; len - at >= 8; at += 8) {
		memcpy(&word, (const char *)from + at, 8);
		word_put(words++, word);
	}
	if (at < len) {
		word = 0;
		memcpy(&word, (const char *)from + at, len - at);
		word_put(words, word);
	}
}

/* Around writing, with the lock held: returns what words_end() takes. A writer that is killed in
 * between leaves the number odd, and the record as good as none. */
static inline uint64_t words_begin(uint64_t *sequence)
{
	const uint64_t writing = (word_get(sequence) + 1) | 1;

	__atomic_exchange_n(sequence, writing, __ATOMIC_ACQ_REL);
	return writing;
}

static inline void words_end(uint64_t *sequence, uint64_t writing)
{
	word_put(sequence, writing + 1);
}

/* Whether a record with that sequence number may be read; and whether it was the same all the time
 * since. */
static inline bool words_are_whole(uint64_t sequence)
{
	return sequence != 0 && sequence % 2 == 0;
}

static inline bool words_were_whole(const uint64_t *sequence, uint64_t before)
{
	return __atomic_load_n(sequence, __ATOMIC_RELAXED) == before;
}

#endif
