/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * limit_table: where the entries of the limiter live, how one is found, made, taken over and given
 * up. Private to libshared/limit*.c.
 *
 * A bucket has eight entries: a word {tag, kept until} and a 128-bit state each. Both buckets of a
 * key lie in one page of memory, because with a million keys a check mostly waits for address
 * translation. The word is one atomic unit, on which everything else relies:
 *
 *   - an entry is free when its time has run out, and it can be taken only by a compare-and-swap of
 *     the word; a charge pushes the time forward by a compare-and-swap of the same word. One of the
 *     two fails. So no count is lost because another process took it for expired. No process makes
 *     the time shorter, however old its clock;
 *   - while an entry changes hands its word is BUSY and names the process that does it. If that
 *     process is killed, the next one that needs an entry there sees it and finishes the work;
 *   - an entry for a key is made only under the lock of the key's stripe, so there are never two.
 *     The lock names its owner and is stolen from a dead one. The data it guards is consistent
 *     between any two instructions, so the new owner has nothing to repair.
 *
 * A charge reads the word again between loading the state and changing it, and once more after
 * that. If the entry changed hands in between, it charges again where the key lives now: the first
 * charge then counts for another key, or for none; an admitted one is never lost.
 *
 * Both buckets full of live entries: the entry with the lowest count is evicted, and the new key
 * inherits that count (Space-Saving): the lowest of either bucket, whichever is higher. No entry
 * evicted from a bucket had a higher count than any there now, so a returning key has lost nothing,
 * unless others there expire sooner than its own requests would have. To ensure that, a process
 * that takes a live entry checks its count again when it cannot be charged any more, and gives it
 * back if it has grown. A flood of new keys raises the counts of new keys instead of evicting those
 * of heavy clients. It is counted; it means that the table is too small.
 */
#ifndef POLDER_LIBSHARED_LIMIT_LIMIT_TABLE_H
#define POLDER_LIBSHARED_LIMIT_LIMIT_TABLE_H
#include "libshared/limit/limit_algorithms.h"
#include "polder/limit_top.h"
#include "polder/proc.h"
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define LIMIT_WAYS    8
#define LIMIT_STRIPES 1024
#define LIMIT_EPOCHS  4096

/* word: tag 36 bits | until 28 bits (mono seconds). 0: never used. */
#define LIMIT_UNTIL_BITS 28
#define LIMIT_UNTIL_MASK ((UINT64_C(1) << LIMIT_UNTIL_BITS) - 1)
/* Changing hands; then the low 28 bits are slot 8 bits | incarnation 20 bits. MOVING: it was live,
 * and may yet be given back to the key that had it. */
#define LIMIT_TAG_BUSY              (UINT64_MAX >> LIMIT_UNTIL_BITS)
#define LIMIT_TAG_MOVING            (LIMIT_TAG_BUSY - 1)
#define LIMIT_BUSY_INCARNATION_BITS 20

struct limit_bucket {
    _Alignas(64) _Atomic uint64_t word[LIMIT_WAYS];
    _Alignas(64) limit_word state[LIMIT_WAYS]; /* changed by limit_word_swap() alone */
};
_Static_assert(sizeof(struct limit_bucket) == 192, "three cache lines");

#define LIMIT_PAGE_BUCKETS 21
#define LIMIT_PAGE_ENTRIES (LIMIT_PAGE_BUCKETS * LIMIT_WAYS)

struct limit_page {
    _Alignas(4096) struct limit_bucket bucket[LIMIT_PAGE_BUCKETS];
    /* For each bucket: until when a key evicted from it may return with counts that matter; in
     * units of 128 s, modulo 2^16. 0: none. */
    _Atomic uint16_t evicted_until[LIMIT_PAGE_BUCKETS];
};
_Static_assert(sizeof(struct limit_page) == 4096, "a page");
_Static_assert(PROC_SLOTS <= 256, "BUSY words have 8 bits for a slot");

/* Requests in flight: a row a process slot, written by its owner alone. A cell: tag 44 bits | count
 * 20 bits; 0: free. A key has its cell in one group. */
#define LIMIT_ROW_GROUPS      2048
#define LIMIT_ROW_CELLS       16
#define LIMIT_CELL_COUNT_BITS 20
struct limit_row {
    _Alignas(4096) _Atomic uint64_t cell[LIMIT_ROW_GROUPS][LIMIT_ROW_CELLS];
};

/* What limit_top.h describes: one a process slot and limit, written by the slot's owner. */
struct limit_sketch_row {
    _Atomic uint32_t version; /* odd: being written */
    uint32_t who_len;
    _Atomic uint64_t key, count, error;
    char who[LIMIT_TOP_WHO];
};
struct limit_sketch {
    _Alignas(64) _Atomic uint32_t epoch; /* limit_table.top_epoch of when its rows were begun */
    uint32_t incarnation;
    uint64_t halved_ms;
    struct limit_sketch_row row[2][LIMIT_TOP_ROWS]; /* by enum limit_top_by */
};

struct limit_table {
    struct shm_header header;
    uint8_t secret[192];
    uint64_t pages;
    _Atomic uint64_t formats[LIMIT_FORMATS]; /* limit_format_value() by format; only ever grows */
    _Atomic uint64_t epoch[LIMIT_EPOCHS];    /* of limits, by id: mixed into keys */
    _Atomic uint64_t stripe[LIMIT_STRIPES];  /* 0, or the creator of an entry of this stripe */
    _Alignas(128) _Atomic uint64_t evicted_live; /* statistics; any process adds */
    _Atomic uint64_t lock_steals, lock_refusals;
    _Atomic uint64_t rows_full;
    _Atomic uint64_t stuck_owner;                /* of a lock that timed out */
    _Atomic uint32_t row_owner[PROC_SLOTS];      /* incarnation of the row's owner; 0: none */
    _Atomic uint32_t top_epoch[LIMIT_TOP_LISTS]; /* by config_limit.index; +1 empties its lists */
    /* [pages]; then, in a segment of their own, a page with its header; rows, [PROC_SLOTS];
     * sketches, [PROC_SLOTS][LIMIT_TOP_LISTS] */
    struct limit_page page[];
};
_Static_assert(offsetof(struct limit_table, page) % 4096 == 0, "segments begin at a page");

#define LIMIT_ROWS_HEAD 4096
_Static_assert(sizeof(struct shm_header) <= LIMIT_ROWS_HEAD, "room for the header of the rows");

static inline struct limit_row *limit_table_row(struct limit_table *table, uint32_t slot)
{
    char *rows = (char *)&table->page[table->pages];
    return (struct limit_row *)(void *)(rows + LIMIT_ROWS_HEAD) + slot;
}

/* Where a key may live. */
struct limit_place {
    struct limit_bucket *bucket[2];
    uint64_t tag;
};
struct limit_entry {
    _Atomic uint64_t *word;
    limit_word *state;
};

static inline uint64_t limit_word_tag(uint64_t word)
{
    return word >> LIMIT_UNTIL_BITS;
}

static inline bool limit_word_is_busy(uint64_t word)
{
    return limit_word_tag(word) >= LIMIT_TAG_MOVING;
}

/* Whether an entry kept until then (seconds, modulo 2^28) still matters. */
static inline bool limit_word_lives(uint64_t word, uint64_t now_s)
{
    const uint32_t ahead = (uint32_t)(word - now_s) << (32 - LIMIT_UNTIL_BITS);
    return word != 0 && (int32_t)ahead >= 0;
}

static inline uint64_t limit_key_tag(uint64_t key)
{
    const uint64_t tag = limit_word_tag(key);
    return __builtin_expect(tag == 0 || tag >= LIMIT_TAG_MOVING, 0) ? tag ^ 2 : tag;
}

/* Which entry it will be is not known yet, but memory is as fast with three lines side by side as
 * with one. */
static inline struct limit_bucket *limit_bucket_prefetch(struct limit_bucket *b)
{
    __builtin_prefetch(b->word);
    __builtin_prefetch(&b->state[0]);
    __builtin_prefetch(&b->state[LIMIT_WAYS / 2]);
    return b;
}

/* The low 28 bits choose the page, and what is left of them the bucket. */
static inline struct limit_bucket *limit_bucket_first(struct limit_table *table, uint64_t key)
{
    const uint64_t spread = (key & LIMIT_UNTIL_MASK) * table->pages;
    const uint64_t first = (spread & LIMIT_UNTIL_MASK) * LIMIT_PAGE_BUCKETS >> LIMIT_UNTIL_BITS;
    return limit_bucket_prefetch(&table->page[spread >> LIMIT_UNTIL_BITS].bucket[first]);
}

static inline struct limit_page *limit_page_of(const void *in_bucket)
{
    return (struct limit_page *)((uintptr_t)in_bucket &
                                 ~(uintptr_t)(sizeof(struct limit_page) - 1));
}

/* One of the other twenty of the page. */
static inline struct limit_bucket *limit_bucket_second(struct limit_bucket *first, uint64_t tag)
{
    struct limit_bucket *bucket = limit_page_of(first)->bucket;
    const uint64_t mixed = tag * UINT64_C(0x9e3779b97f4a7c15) >> 48;
    const uint64_t second =
        (uint64_t)(first - bucket) + 1 + (mixed * (LIMIT_PAGE_BUCKETS - 1) >> 16);
    return limit_bucket_prefetch(
        &bucket[second < LIMIT_PAGE_BUCKETS ? second : second - LIMIT_PAGE_BUCKETS]);
}

/* All that making an entry looks at, on its way at once. */
static inline void limit_place_prefetch(struct limit_bucket *first, uint64_t tag)
{
    __builtin_prefetch(limit_page_of(first)->evicted_until);
    limit_bucket_second(first, tag);
}

static inline struct limit_place limit_slot_of(struct limit_table *table, uint64_t key)
{
    const uint64_t tag = limit_key_tag(key);
    struct limit_bucket *first = limit_bucket_first(table, key);
    return (struct limit_place){{first, limit_bucket_second(first, tag)}, tag};
}

/* Two bits for each entry of the bucket whose tag has the same lower 32 bits. Without branches: the
 * result is unpredictable, and a misprediction costs more than the whole function. */
static inline unsigned limit_bucket_match(const struct limit_bucket *b, uint64_t tag)
{
#ifdef __SSE2__
    const __m128i wanted = _mm_set1_epi32((int)(uint32_t)tag);
    const __m128i *word = (const __m128i *)(const void *)b->word;
#define TAGS(i) _mm_castsi128_ps(_mm_srli_epi64(_mm_load_si128(&word[i]), LIMIT_UNTIL_BITS))
#define EQUAL(i)                                                                                   \
    _mm_cmpeq_epi32(                                                                               \
        _mm_castps_si128(_mm_shuffle_ps(TAGS(i), TAGS((i) + 1), _MM_SHUFFLE(2, 0, 2, 0))), wanted)
    const __m128i equal = _mm_packs_epi32(EQUAL(0), EQUAL(2)); /* 16 bits an entry */
#undef EQUAL
#undef TAGS
    return (unsigned)_mm_movemask_epi8(equal);
#else
    unsigned match = 0;
    for (unsigned i = 0; i < LIMIT_WAYS; i++) {
        const uint64_t word = atomic_load_explicit(&b->word[i], memory_order_acquire);
        match |= (unsigned)((uint32_t)limit_word_tag(word) == (uint32_t)tag) << (2 * i);
    }
    return match;
#endif
}

/* The same, entry by entry: where two tags have those bits, or a word has just changed. */
bool limit_entry_look(struct limit_bucket *first, uint64_t tag, struct limit_entry *entry,
                      uint64_t *seen);

/* The entry of the key, live or not, with the word that was seen; false: it has none. Most are in
 * their first bucket. */
static inline bool limit_entry_seek(struct limit_bucket *first, uint64_t tag,
                                    struct limit_entry *entry, uint64_t *seen)
{
    struct limit_bucket *b = first;
    unsigned match = limit_bucket_match(b, tag);
    if (__builtin_expect(match == 0, 0)) {
        b = limit_bucket_second(b, tag);
        match = limit_bucket_match(b, tag);
        if (match == 0)
            return false;
    }
    const unsigned i = (unsigned)__builtin_ctz(match) / 2;
    entry->word = &b->word[i];
    entry->state = &b->state[i];
    *seen = atomic_load_explicit(entry->word, memory_order_acquire);
    return __builtin_expect(limit_word_tag(*seen) == tag, 1) ||
           limit_entry_look(first, tag, entry, seen);
}

static inline bool limit_entry_find(const struct limit_place *place, struct limit_entry *entry,
                                    uint64_t *seen)
{
    return limit_entry_seek(place->bucket[0], place->tag, entry, seen);
}

static inline bool limit_entry_is(const struct limit_entry *entry, uint64_t tag)
{
    return limit_word_tag(atomic_load_explicit(entry->word, memory_order_acquire)) == tag;
}

/* Not atomic: may mix two states. The caller confirms it with limit_word_swap(). */
static inline limit_word limit_word_glance(const limit_word *state)
{
    const _Atomic uint64_t *half = (const _Atomic uint64_t *)(const void *)state;
    const uint64_t low = atomic_load_explicit(&half[0], memory_order_acquire);
    const uint64_t high = atomic_load_explicit(&half[1], memory_order_acquire);
    return (limit_word)high << 64 | low;
}

/* One compare-and-swap of 128 bits; on failure *seen is a new glance. */
static inline bool limit_word_swap(limit_word *state, limit_word *seen, limit_word wanted)
{
    if (__builtin_expect(__sync_bool_compare_and_swap(state, *seen, wanted), 1))
        return true;
    *seen = limit_word_glance(state);
    return false;
}

/* The word of an entry charged now. */
uint64_t limit_word_kept(const struct limit_rule *rule, uint64_t tag);

/* The live entry of the key, made if need be; false if the lock or an entry cannot be had soon. */
bool limit_entry_make(const struct limit_caller *caller, const struct limit_place *place,
                      const struct limit_rule *rule, struct limit_entry *entry);
/* Gives the entry up; true if it counted something. */
bool limit_entry_forget(const struct limit_caller *caller, const struct limit_place *place);
/* Registers what limit_table_format() did not find at its home. */
uint32_t limit_table_register(struct limit_table *table, uint64_t value, uint32_t home);

/* The number under which the algorithm and window of the limit are registered. */
static inline uint32_t limit_table_format(struct limit_table *table,
                                          const struct runtime_limit *limit)
{
    const uint64_t value = limit_format_value(limit->algorithm, limit->window_ms);
    const uint32_t home =
        (uint32_t)(value * UINT64_C(0x9e3779b97f4a7c15) >> (64 - LIMIT_FORMAT_BITS));
    if (__builtin_expect(atomic_load_explicit(&table->formats[home], memory_order_acquire) == value,
                         1))
        return home;
    return limit_table_register(table, value, home);
}
static inline _Atomic uint64_t *limit_stripe(const struct limit_caller *c, uint64_t key)
{
    return &c->table->stripe[(key >> 32) % LIMIT_STRIPES];
}
/* A lock that names its owner, for anything short: false if it cannot be had within 10 ms. */
bool limit_lock(const struct limit_caller *caller, _Atomic uint64_t *lock);
void limit_unlock(const struct limit_caller *caller, _Atomic uint64_t *lock);
/* Whether that process is known to be dead. thorough: asks the kernel (microseconds). */
bool limit_owner_is_dead(const struct proc_table *proc, uint32_t slot, uint32_t incarnation,
                         bool thorough);
#endif
