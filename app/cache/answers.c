/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Layout: head, versions, then for each class of sizes its tags and its slots. A class is an array
 * of sets of up to 8 slots, found by the key. A slot is written under the lock of its class that
 * covers its set, and read without one (lib/words.h); one whose writer was killed reads as a miss
 * and is used again. Its tag is written last. A reader only finds the slot by the tag, and then
 * checks the slot itself.
 *
 * A change moves the registry's version and the agent's in one place each, so it costs the same
 * however many answers go with it.
 */
#include "app/cache/answers.h"

#include <ctype.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/random.h>

#include "lib/shm.h"
#include "lib/siphash.h"
#include "lib/words.h"

enum {
	CACHE_LINE = 64,
	WAYS = 8,
	LOCKS = 32,
	CLAIMS = 512,
	CELLS_MAX = 65536,
	CLASSES = 5,
	TURN_MOST_MS = 16,
	PATIENCE = 1000, /* looks at a claim whose key is not written yet */
};

/* Versions that are no agent's. */
enum { CELL_REGISTRY, CELL_LASTING, CELL_AGENTS };

/* Slots of each class, head included, and its part of the memory in sixteenths. */
static const struct {
	size_t bytes, part;
} plan[CLASSES] = { { 256, 1 }, { 1024, 6 }, { 4096, 4 }, { 16384, 3 }, { 65536, 2 } };

/* What is known of an answer beside its target and its body. */
struct head {
	struct answer_key key;
	struct answer_label label;
	uint32_t len, target_len;
	char etag[40]; /* of which ANSWER_ETAG_LEN are used */
};
_Static_assert(sizeof(struct head) % 8 == 0, "a head is whole words");

struct slot {
	_Alignas(CACHE_LINE) uint64_t sequence;
	int64_t used_s; /* Unix time of the last use */
	uint64_t uses; /* fading, see answers_tell_used(); a few may be lost */
	uint64_t head[sizeof(struct head) / 8];
	uint64_t words[]; /* the target, then the body, each from a whole word on */
};

struct class
{
	uint64_t tags_at, slots_at; /* bytes from the beginning of the answers */
	uint64_t slot_bytes;
	uint64_t sets, ways; /* no sets: nothing of that size is kept */
	pthread_mutex_t locks[LOCKS];
};

/* The mutex is held from claiming to letting go; the kernel gives it back for who dies. */
struct answer_claim {
	_Alignas(CACHE_LINE) pthread_mutex_t mutex;
	uint64_t key[2]; /* all zero: not written yet, or nobody's */
};

/* Holds no pointers: the memory may be mapped elsewhere after an exec. */
struct answers {
	uint8_t hash_keys[3][16]; /* of the two halves of a key, and of cells */
	uint64_t epoch;
	uint64_t distrusts, trusted; /* failures so far; of which so many do not matter any more */
	uint64_t cells; /* a power of two */
	uint64_t versions_at;
	uint64_t told_class, told_slot; /* where answers_tell_used() goes on */
	struct class classes[CLASSES];
	struct answer_claim claims[CLAIMS];
};

/* ---- Layout ---- */

static uint64_t *versions(const struct answers *answers)
{
	return (uint64_t *)((char *)answers + answers->versions_at);
}

static uint64_t *tags_of(const struct answers *answers, const struct class *class, size_t set)
{
	return (uint64_t *)((char *)answers + class->tags_at) + set * class->ways;
}

static struct slot *slot_at(const struct answers *answers, const struct class *class, size_t slot)
{
	return (struct slot *)((char *)answers + class->slots_at + slot * class->slot_bytes);
}

static size_t aligned(size_t bytes)
{
	return (bytes + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
}

/* Lays a class out from *at on, within `bytes`. */
static void init_class(struct class *class, size_t slot_bytes, size_t bytes, size_t *at)
{
	/* A line less than there is, for the tags' alignment. */
	const size_t slots = (bytes - CACHE_LINE) / (slot_bytes + sizeof(uint64_t));

	class->slot_bytes = slot_bytes;
	class->ways = slots < WAYS ? slots : WAYS;
	class->sets = slots == 0 ? 0 : slots / class->ways;
	class->tags_at = *at;
	*at += aligned(class->sets * class->ways * sizeof(uint64_t));
	class->slots_at = *at;
	*at += class->sets * class->ways * slot_bytes;
	for (size_t i = 0; i < LOCKS; i++)
		shm_mutex_init(&class->locks[i]);
}

struct answers *answers_init(void *memory, size_t bytes)
{
	struct answers *answers = memory;
	size_t at = aligned(sizeof *answers), part;

	if (getrandom(answers->hash_keys, sizeof answers->hash_keys, 0) !=
		sizeof answers->hash_keys)
		return NULL;
	answers->versions_at = at;
	answers->cells = CELLS_MAX;
	while (answers->cells * sizeof(uint64_t) > bytes / 16)
		answers->cells /= 2;
	at += aligned(answers->cells * sizeof(uint64_t));
	part = (bytes - at) / 16;
	for (size_t i = 0; i < CLASSES; i++)
		init_class(&answers->classes[i], plan[i].bytes, plan[i].part * part, &at);
	for (size_t i = 0; i < CLAIMS; i++)
		shm_mutex_init(&answers->claims[i].mutex);
	return answers;
}

struct answer_key answers_key(const struct answers *answers, const void *text, size_t len)
{
	return (struct answer_key){ { siphash(answers->hash_keys[0], text, len),
		siphash(answers->hash_keys[1], text, len) } };
}

static bool is_same(struct answer_key one, struct answer_key other)
{
	return one.words[0] == other.words[0] && one.words[1] == other.words[1];
}

/* ---- Versions ---- */

static size_t cell_of(const struct answers *answers, const char *agent_uuid)
{
	char lower[37] = "";

	if (agent_uuid == NULL)
		return CELL_REGISTRY;
	for (size_t i = 0; i < sizeof lower - 1 && agent_uuid[i] != '\0'; i++)
		lower[i] = (char)tolower((unsigned char)agent_uuid[i]);
	return CELL_AGENTS +
	       siphash(answers->hash_keys[2], lower, sizeof lower) % (answers->cells - CELL_AGENTS);
}

static uint64_t present(const uint64_t *counter)
{
	return __atomic_load_n(counter, __ATOMIC_SEQ_CST);
}

static void move(uint64_t *counter)
{
	__atomic_fetch_add(counter, 1, __ATOMIC_SEQ_CST);
}

static struct answer_label label_of(const struct answers *answers, size_t cell)
{
	return (struct answer_label){ present(&answers->epoch), present(&versions(answers)[cell]),
		cell };
}

struct answer_label answers_label(const struct answers *answers, const char *agent_uuid)
{
	return label_of(answers, cell_of(answers, agent_uuid));
}

struct answer_label answers_lasting_label(const struct answers *answers)
{
	return label_of(answers, CELL_LASTING);
}

static bool is_present(const struct answers *answers, const struct answer_label *label)
{
	return label->epoch == present(&answers->epoch) &&
	       label->version == present(&versions(answers)[label->cell]);
}

void answers_changed(struct answers *answers, const char *agent_uuid)
{
	if (agent_uuid != NULL)
		move(&versions(answers)[cell_of(answers, agent_uuid)]);
	move(&versions(answers)[CELL_REGISTRY]);
}

void answers_drop_all(struct answers *answers)
{
	move(&answers->epoch);
}

/* ---- Entries ---- */

static size_t words_for(size_t bytes)
{
	return (bytes + 7) / 8;
}

static size_t answers_room(const struct class *class)
{
	return (class->slot_bytes - sizeof(struct slot)) / 8;
}

static size_t set_of(const struct class *class, struct answer_key key)
{
	return key.words[1] % class->sets;
}

/* Never 0, which is the tag of an empty slot. */
static uint64_t answers_tag_of(struct answer_key key)
{
	return key.words[0] | 1;
}

static pthread_mutex_t *answers_lock_of(struct class *class, size_t set)
{
	return &class->locks[set % LOCKS];
}

/* The head of a slot, with its sequence number. False when there is none to be had. */
static bool answers_read_head(const struct slot *slot, struct head *head, uint64_t *sequence)
{
	*sequence = word_get(&slot->sequence);
	if (!words_are_whole(*sequence))
		return false;
	words_get(head, slot->head, sizeof *head);
	return words_were_whole(&slot->sequence, *sequence);
}

/* len bytes from that word on, NUL-terminated. */
static char *copy_out(struct arena *arena, const uint64_t *words, size_t len)
{
	char *copy = arena_alloc(arena, len + 1);

	words_get(copy, words, len);
	return copy;
}

/* Whether the slot has that answer, whole and in date: then it is in *answer. */
static bool read_slot(const struct answers *answers, const struct slot *slot, struct answer_key key,
	struct arena *arena, struct answer *answer)
{
	struct head head;
	uint64_t sequence;

	if (!answers_read_head(slot, &head, &sequence) || !is_same(head.key, key) ||
		!is_present(answers, &head.label))
		return false;
	answer->target = copy_out(arena, slot->words, head.target_len);
	answer->body = copy_out(arena, slot->words + words_for(head.target_len), head.len);
	answer->len = head.len;
	memcpy(answer->etag, head.etag, sizeof answer->etag);
	return words_were_whole(&slot->sequence, sequence);
}

static void note_use(struct slot *slot, int64_t now_s)
{
	if (__atomic_load_n(&slot->used_s, __ATOMIC_RELAXED) != now_s)
		__atomic_store_n(&slot->used_s, now_s, __ATOMIC_RELAXED);
	__atomic_store_n(
		&slot->uses, __atomic_load_n(&slot->uses, __ATOMIC_RELAXED) + 1, __ATOMIC_RELAXED);
}

bool answers_find(struct answers *answers, struct answer_key key, int64_t now_s,
	struct arena *arena, struct answer *answer)
{
	for (size_t i = 0; i < CLASSES; i++) {
		const struct class *class = &answers->classes[i];
		const size_t set = class->sets == 0 ? 0 : set_of(class, key);
		const uint64_t *tags = tags_of(answers, class, set);

		for (size_t way = 0; way < class->ways; way++) {
			struct slot *slot = slot_at(answers, class, set * class->ways + way);

			if (word_get(&tags[way]) != answers_tag_of(key) ||
				!read_slot(answers, slot, key, arena, answer))
				continue;
			note_use(slot, now_s);
			return true;
		}
	}
	return false;
}

/* How much a slot is worth keeping: the time of its last use; less than for any other slot if the
 * answer is out of date or the slot is empty. With the lock of its set held. */
static int64_t worth(const struct answers *answers, const struct slot *slot, uint64_t tag)
{
	struct head head;
	uint64_t sequence;

	if (tag == 0 || !answers_read_head(slot, &head, &sequence))
		return INT64_MIN;
	if (!is_present(answers, &head.label))
		return INT64_MIN + 1;
	return __atomic_load_n(&slot->used_s, __ATOMIC_RELAXED);
}

static void write_slot(
	struct slot *slot, const struct head *head, int64_t now_s, const struct answer *answer)
{
	const uint64_t writing = words_begin(&slot->sequence);

	words_put(slot->head, head, sizeof *head);
	words_put(slot->words, answer->target, head->target_len);
	words_put(slot->words + words_for(head->target_len), answer->body, head->len);
	__atomic_store_n(&slot->used_s, now_s, __ATOMIC_RELAXED);
	__atomic_store_n(&slot->uses, 1, __ATOMIC_RELAXED);
	words_end(&slot->sequence, writing);
}

/* In one class: empties whatever has the key, and where `keeps` is set, stores there instead. */
static void store_in(struct answers *answers, struct class *class, const struct head *head,
	int64_t now_s, const struct answer *answer, bool keeps)
{
	const size_t set = set_of(class, head->key);
	uint64_t *tags = tags_of(answers, class, set);
	const uint64_t tag = answers_tag_of(head->key);
	int64_t least = INT64_MAX;
	size_t found = 0;

	shm_mutex_lock(answers_lock_of(class, set));
	for (size_t way = 0; way < class->ways; way++) {
		int64_t now_worth;

		if (word_get(&tags[way]) == tag)
			word_put(&tags[way], 0);
		now_worth = worth(answers, slot_at(answers, class, set * class->ways + way),
			word_get(&tags[way]));
		if (now_worth < least) {
			least = now_worth;
			found = way;
		}
	}
	if (keeps) {
		word_put(&tags[found], 0);
		write_slot(slot_at(answers, class, set * class->ways + found), head, now_s, answer);
		word_put(&tags[found], tag);
	}
	shm_mutex_unlock(answers_lock_of(class, set));
}

void answers_store(struct answers *answers, struct answer_key key, struct answer_label label,
	int64_t now_s, const struct answer *answer)
{
	struct head head = { .key = key,
		.label = label,
		.len = (uint32_t)answer->len,
		.target_len = (uint32_t)strlen(answer->target) };
	bool is_stored = answer->len > ANSWER_BYTES_MAX || head.target_len > ANSWER_TARGET_MAX;

	memcpy(head.etag, answer->etag, sizeof answer->etag);
	for (size_t i = 0; i < CLASSES; i++) {
		struct class *class = &answers->classes[i];
		bool fits =
			words_for(head.target_len) + words_for(answer->len) <= answers_room(class);

		if (class->sets == 0)
			continue;
		store_in(answers, class, &head, now_s, answer, fits && !is_stored);
		is_stored = is_stored || fits;
	}
}

void answers_tell_used(struct answers *answers, size_t most,
	void (*visit)(const char *target, uint64_t uses, void *arg), void *arg)
{
	uint64_t words[ANSWER_TARGET_MAX / 8 + 1], sequence, uses;
	struct head head;

	/* Once round at most; what lies before the place begun at is for the next time. */
	for (size_t begun = 0; begun < CLASSES && most > 0; begun++) {
		const struct class *class = &answers->classes[answers->told_class % CLASSES];
		const size_t slots = class->sets * class->ways;

		for (; answers->told_slot < slots && most > 0; answers->told_slot++, most--) {
			struct slot *slot = slot_at(answers, class, answers->told_slot);

			uses = __atomic_load_n(&slot->uses, __ATOMIC_RELAXED);
			if (uses == 0)
				continue;
			__atomic_store_n(&slot->uses, uses - (uses + 15) / 16, __ATOMIC_RELAXED);
			if (!answers_read_head(slot, &head, &sequence) || head.target_len == 0)
				continue;
			words_get(words, slot->words, head.target_len);
			((char *)words)[head.target_len] = '\0';
			if (words_were_whole(&slot->sequence, sequence))
				visit((const char *)words, uses, arg);
		}
		if (answers->told_slot >= slots) {
			answers->told_slot = 0;
			answers->told_class = (answers->told_class + 1) % CLASSES;
		}
	}
}

/* ---- Claims ---- */

static bool answers_has_key(const struct answer_claim *claim, struct answer_key key)
{
	return word_get(&claim->key[0]) == key.words[0] && word_get(&claim->key[1]) == key.words[1];
}

static bool has_no_key(const struct answer_claim *claim)
{
	return word_get(&claim->key[0]) == 0 && word_get(&claim->key[1]) == 0;
}

static struct answer_claim *claimed(struct answer_claim *claim, struct answer_key key)
{
	word_put(&claim->key[1], key.words[1]);
	word_put(&claim->key[0], key.words[0]);
	return claim;
}

/* As shm_mutex_wait(), with a look at what else there is to do after 1, 2, 4, … ms. */
static bool wait_in_turns(
	pthread_mutex_t *mutex, unsigned wait_ms, void (*let_go)(void *arg), void *arg)
{
	unsigned turn_ms = 1;

	while (let_go != NULL && turn_ms < wait_ms) {
		if (shm_mutex_wait(mutex, turn_ms))
			return true;
		let_go(arg);
		wait_ms -= turn_ms;
		if (turn_ms < TURN_MOST_MS)
			turn_ms *= 2;
	}
	return shm_mutex_wait(mutex, wait_ms);
}

struct answer_claim *answers_claim(struct answers *answers, struct answer_key key, unsigned wait_ms,
	void (*let_go)(void *arg), void *arg, bool *waited)
{
	struct answer_claim *claim = &answers->claims[key.words[0] % CLAIMS];

	*waited = false;
	/* A process that has just taken the claim has not written its key yet. */
	for (int looks = 0; looks < PATIENCE; looks++) {
		if (shm_mutex_try(&claim->mutex))
			return claimed(claim, key);
		if (!has_no_key(claim))
			break;
		sched_yield();
	}
	if (!answers_has_key(claim, key))
		return NULL;
	*waited = true;
	if (!wait_in_turns(&claim->mutex, wait_ms, let_go, arg))
		return NULL;
	/* A holder that lets go clears the key. If the key is still there, the holder died, and
	 * this process asks for the others. */
	if (answers_has_key(claim, key))
		return claim;
	shm_mutex_unlock(&claim->mutex);
	return NULL;
}

void answers_let_go(struct answer_claim *claim)
{
	word_put(&claim->key[0], 0);
	word_put(&claim->key[1], 0);
	shm_mutex_unlock(&claim->mutex);
}

/* ---- Trust ---- */

void answers_distrust(struct answers *answers)
{
	move(&answers->distrusts);
}

uint64_t answers_distrusts(const struct answers *answers)
{
	return present(&answers->distrusts);
}

void answers_trust(struct answers *answers, uint64_t distrusts)
{
	__atomic_store_n(&answers->trusted, distrusts, __ATOMIC_SEQ_CST);
}

bool answers_is_trusted(const struct answers *answers)
{
	return present(&answers->trusted) == present(&answers->distrusts);
}
