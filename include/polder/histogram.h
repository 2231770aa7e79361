/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * histogram: how long things take, in buckets of equal ratio.
 *
 * The buckets are those of schema 2 of Prometheus' native histograms: index i holds what took more
 * than 2^((i-1)/4) and at most 2^(i/4) seconds, so each is 19 % wider than the one before and a
 * quantile is at most that far off. A histogram has HISTOGRAM_BUCKETS of them from a lowest index
 * on: the first also takes all that is shorter, the last all that is longer. Its bounds are bounds
 * of native and of classic buckets (powers of two), so both are made from it exactly.
 *
 * struct histogram is written by one process with relaxed loads and stores (no locked instruction)
 * and may lie in shared memory: a writer killed on any line has counted an observation or not, or
 * its time without it. Readers copy it into a struct distribution.
 */
#ifndef POLDER_HISTOGRAM_H
#define POLDER_HISTOGRAM_H
#include <stdatomic.h>
#include <stdint.h>

#define HISTOGRAM_SCHEMA  2
#define HISTOGRAM_BUCKETS 126

/* The lowest index of what is measured. */
enum histogram_first {
    HISTOGRAM_LATENCY = -88, /* 0.24 us .. 10 min */
    HISTOGRAM_LIFETIME = -28 /* 7.8 ms .. 230 days */
};

struct histogram {
    _Atomic uint64_t sum_ns;
    _Atomic uint64_t bucket[HISTOGRAM_BUCKETS];
    uint64_t pad_;
};
_Static_assert(sizeof(struct histogram) == 1024, "whole cache lines");

/* Of schema 2. Let e be the power of two in ns: 2^e ns is 2^((4e - 119.6)/4) s, so 4e - 119 is the
 * first index whose upper bound is not below it, and the four bounds in the octave are always at
 * the same places: 10^9 * 2^((k - 119)/4), k = 0..3, here in parts of 2^63. Exact to the ns. */
static inline int histogram_index(uint64_t ns)
{
    const unsigned e = 63u - (unsigned)__builtin_clzll(ns | 1);
    const uint64_t m = (ns | !ns) << (63 - e);
    return (int)(4 * e) - 119 + (m > UINT64_C(0x8dc3b8960164a7d9)) +
           (m > UINT64_C(0xa8965f74bf065071)) + (m > UINT64_C(0xc87c3e7d03cdbec3)) +
           (m > UINT64_C(0xee6b280000000000));
}
static inline unsigned histogram_bucket(enum histogram_first first, uint64_t ns)
{
    const int at = histogram_index(ns) - (int)first;
    return at < 0 ? 0 : at < HISTOGRAM_BUCKETS ? (unsigned)at : HISTOGRAM_BUCKETS - 1;
}
static inline void histogram_word_add(_Atomic uint64_t *word, uint64_t n)
{
    atomic_store_explicit(word, atomic_load_explicit(word, memory_order_relaxed) + n,
                          memory_order_relaxed);
}
/* bucket: histogram_bucket() of ns, which several may share. */
static inline void histogram_add(struct histogram *h, unsigned bucket, uint64_t ns)
{
    histogram_word_add(&h->sum_ns, ns);
    histogram_word_add(&h->bucket[bucket], 1);
}

/* ---- reading ---- */

struct distribution {
    enum histogram_first first;
    uint64_t count, sum_ns;
    uint64_t bucket[HISTOGRAM_BUCKETS];
};
static inline struct distribution distribution_empty(enum histogram_first first)
{
    return (struct distribution){.first = first};
}
void distribution_add(struct distribution *to, const struct histogram *h);
/* The difference since then; counts that are lower now were reset. */
void distribution_since(struct distribution *now, const struct distribution *then);
/* Seconds below which `share` (0..1) of the observations lie; 0 where there are none. */
double distribution_quantile_s(const struct distribution *d, double share);
double distribution_mean_s(const struct distribution *d);
/* How many took at most as long as the bound of index (of schema 2; 0 below the first). */
uint64_t distribution_at_most(const struct distribution *d, int index);
/* The upper bound of an index, in seconds. */
double histogram_bound_s(int index);
#endif
