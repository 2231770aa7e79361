/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * access_bits: the byte of access bits that each cached object has in shared memory (shared.ref).
 *
 *   reads 6 | used 2
 *
 * used: 0..3, raised by each hit, taken back to 0 when the eviction's hand passes. reads: the
 * approximate number of reads since it was stored, as a logarithm: each step is worth 19 % more
 * than the one before, and is taken with a probability that falls accordingly, so a hot object's
 * byte is rarely written. Typically off by a third. Reset to 0 when the object is replaced or
 * revalidated.
 *
 * Writers: workers at each hit, and the keeper. There is no lock: a lost update is one hit not
 * counted.
 */
#ifndef POLDER_ACCESS_BITS_H
#define POLDER_ACCESS_BITS_H
#include <stdatomic.h>
#include <stdint.h>

#define ACCESS_BITS_USED_MAX  3u
#define ACCESS_BITS_READS_MAX 63u /* steps; 290 000 reads */

/* Chance of the next step, of 2^32. */
static inline uint32_t access_bits_chance(unsigned reads)
{
    static const uint32_t quarter[4] = {0xffffffff, 0xd744fcca, 0xb504f333, 0x9837f051};
    return quarter[reads & 3] >> (reads >> 2);
}

static inline unsigned access_bits_used(uint8_t byte)
{
    return byte & ACCESS_BITS_USED_MAX;
}

/* random: 32 bits of its own for each call. */
static inline void access_bits_touch(_Atomic uint8_t *byte, uint32_t random)
{
    const uint8_t was = atomic_load_explicit(byte, memory_order_relaxed);
    unsigned used = access_bits_used(was), reads = was >> 2;
    used += used < ACCESS_BITS_USED_MAX;
    reads += reads < ACCESS_BITS_READS_MAX && random <= access_bits_chance(reads);
    const uint8_t now = (uint8_t)(reads << 2 | used);
    if (now != was) /* the test keeps a hot line shared */
        atomic_store_explicit(byte, now, memory_order_relaxed);
}

/* The eviction's hand has passed. */
static inline void access_bits_forget_used(_Atomic uint8_t *byte)
{
    const uint8_t was = atomic_load_explicit(byte, memory_order_relaxed);
    atomic_store_explicit(byte, (uint8_t)(was & ~ACCESS_BITS_USED_MAX), memory_order_relaxed);
}

/* A new object in the slot; used is inherited from the one that it replaces. */
static inline void access_bits_begin(_Atomic uint8_t *byte, unsigned used)
{
    atomic_store_explicit(byte, (uint8_t)used, memory_order_relaxed);
}

/* How many reads the steps stand for. */
uint64_t access_bits_reads(uint8_t byte);
#endif
