/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * cache_refusal: why the last answer of a URL was not stored, for `cache why`: the backend's answer
 * that told is gone by then. One word a URL, which the next one of its place overwrites; for people
 * only.
 *
 *   hash of the URL, 32 bits | reason, 8 bits | when, 24 bits, in units of four seconds
 */
#include "polder/cache.h"
#include <string.h>
#include <xxhash.h>

#define TICK_MS   4000
#define TICK_BITS 24
#define TICK_MASK ((UINT64_C(1) << TICK_BITS) - 1)

static uint64_t hash_of(const uint8_t secret[32], const char *url, size_t len)
{
    uint64_t seed;
    memcpy(&seed, secret, sizeof seed);
    return XXH3_64bits_withSeed(url, len, seed);
}

void cache_refusal_note(struct cache_shared *shared, const uint8_t secret[32], const char *url,
                        size_t len, unsigned reason, uint64_t real_ms)
{
    const uint64_t hash = hash_of(secret, url, len);
    _Atomic uint64_t *word = &shared->refusal[hash % CACHE_REFUSALS];
    if (!reason && atomic_load_explicit(word, memory_order_relaxed) >> 32 != hash >> 32)
        return; /* nothing to forget */
    atomic_store_explicit(word,
                          reason ? hash >> 32 << 32 | (uint64_t)(reason & 0xff) << TICK_BITS |
                                       (real_ms / TICK_MS & TICK_MASK)
                                 : 0,
                          memory_order_relaxed);
}

unsigned cache_refusal_find(const struct cache_shared *shared, const uint8_t secret[32],
                            const char *url, size_t len, uint64_t real_ms, uint64_t *ago_s)
{
    const uint64_t hash = hash_of(secret, url, len);
    const uint64_t word =
        atomic_load_explicit(&shared->refusal[hash % CACHE_REFUSALS], memory_order_relaxed);
    if (!word || word >> 32 != hash >> 32)
        return 0;
    *ago_s = ((real_ms / TICK_MS - word) & TICK_MASK) * (TICK_MS / 1000);
    return (unsigned)(word >> TICK_BITS & 0xff);
}
