/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Layout: sets of 8 keys, found by the key's hash (SHA-256, so nobody steers it). Each set begins
 * with a line of tags by key and a line of tags by user, so that looking a key up, and looking a
 * user up in all sets, touch little else.
 *
 * An entry is written under a lock that covers a run of sets, and read without one (lib/words.h).
 * One whose writer was killed is as good as free.
 *
 * The version is counted up before a drop looks at the first set, and compared under the set's lock
 * before a store: either the store sees that it is late, or the drop finds what was stored.
 */
#include "app/cache/callers.h"

#include <pthread.h>
#include <string.h>
#include <time.h>

#include "lib/shm.h"
#include "lib/words.h"

enum { WAYS = 8, LOCKS = 64, CACHE_LINE = 64 };
enum { RECORD_WORDS = sizeof(struct caller_record) / 8 };
_Static_assert(sizeof(struct caller_record) % 8 == 0, "a record is whole words");

struct entry {
	_Alignas(CACHE_LINE) uint64_t sequence; /* 0: never used; odd: being written */
	uint64_t live; /* 0: dropped; the record stays, for its last use to be told */
	int64_t used_s; /* Unix time of the last use */
	int64_t told_s; /* and the one that callers_take_used() told last */
	uint64_t words[RECORD_WORDS]; /* a struct caller_record */
};

struct set {
	_Alignas(CACHE_LINE) uint64_t key_tags[WAYS];
	uint64_t user_tags[WAYS];
	struct entry entries[WAYS];
};

/* Holds no pointers: the memory may be mapped elsewhere after an exec. */
struct callers {
	uint64_t version;
	uint64_t fresh_until_ms;
	uint64_t set_count;
	uint64_t sets_per_lock;
	pthread_mutex_t locks[LOCKS];
	struct set sets[];
};

bool caller_has_scope(const struct caller_record *caller, const char *scope)
{
	size_t len = strlen(scope), word;

	for (const char *at = caller->scopes; *at != '\0'; at += word + (at[word] == ' ')) {
		word = strcspn(at, " ");
		if (word == len && memcmp(at, scope, len) == 0)
			return len > 0;
	}
	return false;
}

static int64_t time_get(const int64_t *time_s)
{
	return __atomic_load_n(time_s, __ATOMIC_RELAXED);
}

static void time_put(int64_t *time_s, int64_t value)
{
	__atomic_store_n(time_s, value, __ATOMIC_RELAXED);
}

static uint64_t word_of(const void *bytes)
{
	uint64_t word;

	memcpy(&word, bytes, sizeof word);
	return word;
}

static uint64_t key_tag(const uint8_t key_hash[32])
{
	return word_of(key_hash);
}

/* FNV-1a. Two users with the same tag only cost each other a look into the database. */
static uint64_t user_tag(const char *user_id)
{
	uint64_t tag = 0xcbf29ce484222325;

	for (; *user_id != '\0'; user_id++)
		tag = (tag ^ (uint8_t)*user_id) * 0x100000001b3;
	return tag;
}

static size_t set_number(const struct callers *callers, const uint8_t key_hash[32])
{
	return word_of(key_hash + 8) % callers->set_count;
}

static size_t sets_for(size_t keys)
{
	return keys / WAYS + 1;
}

size_t callers_bytes(size_t keys)
{
	return sizeof(struct callers) + sets_for(keys) * sizeof(struct set);
}

struct callers *callers_init(void *memory, size_t keys)
{
	struct callers *callers = memory;

	callers->set_count = sets_for(keys);
	callers->sets_per_lock = (callers->set_count + LOCKS - 1) / LOCKS;
	for (size_t i = 0; i < LOCKS; i++)
		shm_mutex_init(&callers->locks[i]);
	return callers;
}

/* Copies the record of an entry; false when it was being written, or never was: then what is in
 * *record is of no use. */
static bool read_entry(const struct entry *entry, struct caller_record *record)
{
	uint64_t sequence = word_get(&entry->sequence);

	if (!words_are_whole(sequence))
		return false;
	words_get(record, entry->words, sizeof *record);
	return words_were_whole(&entry->sequence, sequence);
}

/* With the lock of the set held. */
static void write_entry(struct set *set, size_t way, const struct caller_record *record)
{
	struct entry *entry = &set->entries[way];
	uint64_t writing = words_begin(&entry->sequence);
	int64_t now_s = time(NULL);

	word_put(&set->key_tags[way], key_tag(record->key_hash));
	word_put(&set->user_tags[way], user_tag(record->user_id));
	words_put(entry->words, record, sizeof *record);
	time_put(&entry->told_s, 0);
	time_put(&entry->used_s, now_s);
	word_put(&entry->live, 1);
	words_end(&entry->sequence, writing);
}

bool callers_find(struct callers *callers, const uint8_t key_hash[32], int64_t now_s,
	struct caller_record *record, uint64_t *version)
{
	struct set *set = &callers->sets[set_number(callers, key_hash)];

	*version = __atomic_load_n(&callers->version, __ATOMIC_SEQ_CST);
	for (size_t way = 0; way < WAYS; way++) {
		struct entry *entry = &set->entries[way];

		if (word_get(&set->key_tags[way]) != key_tag(key_hash) ||
			word_get(&entry->live) == 0)
			continue;
		if (!read_entry(entry, record) || memcmp(record->key_hash, key_hash, 32) != 0)
			continue;
		if (time_get(&entry->used_s) != now_s)
			time_put(&entry->used_s, now_s);
		return true;
	}
	return false;
}

/* With the lock of the set held: where the key is already, else a free place, else the one that was
 * not used for longest. */
static size_t place_for(const struct set *set, const uint8_t key_hash[32])
{
	int64_t oldest = INT64_MAX;
	size_t found = 0;

	for (size_t way = 0; way < WAYS; way++) {
		const struct entry *entry = &set->entries[way];
		bool is_free = word_get(&entry->sequence) % 2 != 0 || word_get(&entry->live) == 0;
		int64_t used_s = is_free ? INT64_MIN : time_get(&entry->used_s);

		if (word_get(&set->key_tags[way]) == key_tag(key_hash))
			return way;
		if (used_s < oldest) {
			oldest = used_s;
			found = way;
		}
	}
	return found;
}

void callers_store(struct callers *callers, const struct caller_record *record, uint64_t version)
{
	size_t number = set_number(callers, record->key_hash);
	pthread_mutex_t *lock = &callers->locks[number / callers->sets_per_lock];
	struct set *set = &callers->sets[number];

	shm_mutex_lock(lock);
	if (__atomic_load_n(&callers->version, __ATOMIC_SEQ_CST) == version)
		write_entry(set, place_for(set, record->key_hash), record);
	shm_mutex_unlock(lock);
}

/* Drops what has that user's tag, or everything when `all`. Also entries whose writer was killed:
 * those are dead already. */
static void callers_drop(struct callers *callers, bool all, uint64_t tag)
{
	__atomic_fetch_add(&callers->version, 1, __ATOMIC_SEQ_CST);
	for (size_t lock = 0, number = 0; number < callers->set_count; lock++) {
		size_t end = number + callers->sets_per_lock;

		shm_mutex_lock(&callers->locks[lock]);
		for (; number < end && number < callers->set_count; number++) {
			struct set *set = &callers->sets[number];

			for (size_t way = 0; way < WAYS; way++)
				if (all || word_get(&set->user_tags[way]) == tag)
					word_put(&set->entries[way].live, 0);
		}
		shm_mutex_unlock(&callers->locks[lock]);
	}
}

void callers_drop_user(struct callers *callers, const char *user_id)
{
	callers_drop(callers, false, user_tag(user_id));
}

void callers_drop_all(struct callers *callers)
{
	callers_drop(callers, true, 0);
}

void callers_set_fresh_until(struct callers *callers, uint64_t until_ms)
{
	word_put(&callers->fresh_until_ms, until_ms);
}

bool callers_are_fresh(const struct callers *callers, uint64_t now_ms)
{
	return now_ms < word_get(&callers->fresh_until_ms);
}

void callers_take_used(struct callers *callers,
	void (*visit)(const char *key_id, int64_t used_at_s, void *arg), void *arg)
{
	struct caller_record record;

	for (size_t i = 0; i < callers->set_count * WAYS; i++) {
		struct entry *entry = &callers->sets[i / WAYS].entries[i % WAYS];
		int64_t used_s = time_get(&entry->used_s);

		if (used_s == time_get(&entry->told_s) || !read_entry(entry, &record))
			continue;
		time_put(&entry->told_s, used_s);
		visit(record.key_id, used_s, arg);
	}
}
