/* SPDX-License-Identifier: BSD-2-Clause */
/* sticky: see sticky.h. */
#include "polder/sticky.h"
#include "polder/shm.h"

#include <math.h>
#include <string.h>
#include <xxhash.h>

/* ---- keys ---- */

uint64_t sticky_hash(const void *at, size_t len)
{
    const uint64_t hash = XXH3_64bits(at, len);
    return hash ? hash : 1;
}

/* Exponential variates: the lowest of several is that of server i with the probability weight_i of
 * the sum of weights, and another weight of one server changes no order among the others. */
double sticky_score(uint64_t hash, uint64_t server_id, double weight)
{
    const uint64_t both[2] = {hash, server_id};
    const uint64_t mixed = XXH3_64bits(both, sizeof both) >> 11; /* 53 bits */
    return -log(((double)mixed + .5) / 9007199254740992.) / weight;
}

bool sticky_value_read(const char *at, size_t len, uint64_t *hash)
{
    uint64_t n = 0;
    if (len != STICKY_VALUE)
        return false;
    for (size_t i = 0; i < len; i++) {
        const char c = at[i];
        if (!(c >= '0' && c <= '9') && !(c >= 'a' && c <= 'f'))
            return false;
        n = n << 4 | (uint64_t)(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    *hash = n;
    return n != 0;
}

void sticky_value_write(uint64_t hash, char out[STICKY_VALUE])
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < STICKY_VALUE; i++)
        out[i] = digits[hash >> (60 - 4 * i) & 15];
}

/* ---- sessions ---- */

#define BUCKETS 8192
#define WAYS    8

/* The word: minute 20, server 24, part of the hash 20 bits; 0: free. */
#define MINUTE_MASK ((UINT64_C(1) << 20) - 1)
#define SERVER_MASK ((UINT64_C(1) << 24) - 1)

struct sticky_page {
    struct shm_header header;
    _Alignas(64) _Atomic uint64_t bucket[BUCKETS][WAYS];
};

size_t sticky_page_size(void)
{
    return sizeof(struct sticky_page);
}

uint64_t sticky_page_layout(void)
{
    return (uint64_t)sizeof(struct sticky_page) << 16 | WAYS;
}

/* From 1 to 2^20 - 1: two years. */
static uint64_t minute_of(uint64_t real_ms)
{
    return real_ms / 60000 % MINUTE_MASK + 1;
}

static uint64_t age_of(uint64_t word, uint64_t minute)
{
    return (minute - (word & MINUTE_MASK)) & MINUTE_MASK;
}

static bool is_live(uint64_t word, uint64_t minute)
{
    return word && age_of(word, minute) <= STICKY_IDLE_MIN;
}

static uint64_t part_of(uint64_t hash)
{
    return hash >> 44;
}

static _Atomic uint64_t *bucket_of(struct sticky_page *page, uint64_t hash)
{
    return page->bucket[hash % BUCKETS];
}

/* That session's word; NULL: it is not there. */
static _Atomic uint64_t *word_of(struct sticky_page *page, uint64_t hash, uint64_t minute)
{
    _Atomic uint64_t *bucket = bucket_of(page, hash);
    for (unsigned i = 0; i < WAYS; i++) {
        const uint64_t word = atomic_load_explicit(&bucket[i], memory_order_relaxed);
        if (is_live(word, minute) && word >> 44 == part_of(hash))
            return &bucket[i];
    }
    return NULL;
}

/* A free one, or that of the session that was used longest ago. */
static _Atomic uint64_t *word_to_take(struct sticky_page *page, uint64_t hash, uint64_t minute)
{
    _Atomic uint64_t *bucket = bucket_of(page, hash), *oldest = bucket;
    for (unsigned i = 0; i < WAYS; i++) {
        const uint64_t word = atomic_load_explicit(&bucket[i], memory_order_relaxed);
        if (!is_live(word, minute))
            return &bucket[i];
        if (age_of(word, minute) > age_of(atomic_load(oldest), minute))
            oldest = &bucket[i];
    }
    return oldest;
}

/* Where another process has changed it meanwhile, that was as recent. */
static void put(_Atomic uint64_t *at, uint64_t word)
{
    uint64_t before = atomic_load_explicit(at, memory_order_relaxed);
    if (before != word)
        atomic_compare_exchange_strong(at, &before, word);
}

void sticky_remember(struct sticky_page *page, uint64_t hash, uint64_t server_id, uint64_t real_ms)
{
    const uint64_t minute = minute_of(real_ms);
    _Atomic uint64_t *at = word_of(page, hash, minute);
    put(at ? at : word_to_take(page, hash, minute),
        part_of(hash) << 44 | (server_id >> 40 & SERVER_MASK) << 20 | minute);
}

uint32_t sticky_recall(struct sticky_page *page, uint64_t hash, uint64_t real_ms)
{
    const uint64_t minute = minute_of(real_ms);
    _Atomic uint64_t *at = word_of(page, hash, minute);
    if (!at)
        return 0;
    const uint64_t word = atomic_load_explicit(at, memory_order_relaxed);
    put(at, (word & ~MINUTE_MASK) | minute);
    return (uint32_t)(word >> 20 & SERVER_MASK) | 1u << 24;
}

/* ---- keys that have too many requests ---- */

static unsigned slot_of(const struct sticky_counts *counts, uint64_t id)
{
    unsigned i = 0;
    while (i < STICKY_UPSTREAMS &&
           atomic_load_explicit(&counts->of[i].upstream, memory_order_relaxed) != id)
        i++;
    return i;
}

static unsigned slot_claim(struct sticky_counts *counts, uint64_t id)
{
    unsigned i = slot_of(counts, id);
    for (unsigned k = 0; i == STICKY_UPSTREAMS && k < STICKY_UPSTREAMS; k++) {
        uint64_t owner = 0;
        if (atomic_compare_exchange_strong(&counts->of[k].upstream, &owner, id) || owner == id)
            i = k;
    }
    return i;
}

void sticky_count(struct sticky_counts *counts, const char *upstream, uint64_t hash)
{
    const unsigned i = slot_claim(counts, sticky_hash(upstream, strlen(upstream)));
    if (i == STICKY_UPSTREAMS)
        return;
    atomic_fetch_add_explicit(&counts->of[i].total, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&counts->of[i].cell[hash % STICKY_CELLS], 1, memory_order_relaxed);
}

void sticky_counts_turn(struct sticky_counts *counts)
{
    for (unsigned i = 0; i < STICKY_UPSTREAMS; i++) {
        uint32_t max = 0;
        const uint32_t total = atomic_exchange(&counts->of[i].total, 0);
        for (unsigned k = 0; total && k < STICKY_CELLS; k++) {
            const uint32_t n = atomic_exchange(&counts->of[i].cell[k], 0);
            max = n > max ? n : max;
        }
        max = max < total ? max : total;
        atomic_store(&counts->of[i].top_percent,
                     total ? (uint32_t)((uint64_t)max * 100 / total) : 0);
        atomic_store(&counts->of[i].top_of, total);
        if (!total) /* another upstream may need the place; this one takes it again */
            atomic_store(&counts->of[i].upstream, 0);
    }
}

uint32_t sticky_top_percent(const struct sticky_counts *counts, const char *upstream)
{
    const unsigned i = slot_of(counts, sticky_hash(upstream, strlen(upstream)));
    if (i == STICKY_UPSTREAMS || atomic_load(&counts->of[i].top_of) < STICKY_TOP_MIN)
        return 0;
    return atomic_load(&counts->of[i].top_percent);
}
