/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * stats: log-linear histograms and the sums over all slabs.
 *
 * Values below 16 have a bucket each; above, each power of two is cut in 16 equal parts.
 */
#include "polder/stats.h"

#define STATS_SUB_BITS 4
#define STATS_SUB      (1u << STATS_SUB_BITS)

_Static_assert(STATS_BUCKETS % STATS_SUB == 0, "whole powers of two");

unsigned stats_bucket_of(uint64_t ns)
{
    if (ns < STATS_SUB)
        return (unsigned)ns;
    const unsigned exponent = 63u - (unsigned)__builtin_clzll(ns);
    const unsigned shift = exponent - STATS_SUB_BITS;
    const unsigned bucket = (shift + 1) * STATS_SUB + (unsigned)((ns >> shift) & (STATS_SUB - 1));
    return bucket < STATS_BUCKETS ? bucket : STATS_BUCKETS - 1;
}

uint64_t stats_bucket_limit_ns(unsigned bucket)
{
    if (bucket < STATS_SUB)
        return bucket + 1;
    const unsigned shift = bucket / STATS_SUB - 1;
    return (uint64_t)(STATS_SUB + bucket % STATS_SUB + 1) << shift;
}

void stats_observe(struct stats_slab *slab, enum stats_histogram h, uint64_t ns)
{
    stats_bump(&slab->histogram[h].sum_ns, ns);
    stats_bump(&slab->histogram[h].bucket[stats_bucket_of(ns)], 1);
}

uint64_t stats_total(const struct stats_slab *slabs, enum stats_counter c)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < PROC_SLOTS; i++)
        sum += atomic_load_explicit(&slabs[i].counter[c], memory_order_relaxed);
    return sum;
}

uint64_t stats_gauge_total(const struct stats_slab *slabs, enum stats_gauge g)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < PROC_SLOTS; i++)
        sum += atomic_load_explicit(&slabs[i].gauge[g], memory_order_relaxed);
    return sum;
}

void stats_distribution_of(const struct stats_slab *slabs, enum stats_histogram h,
                           struct stats_distribution *out)
{
    *out = (struct stats_distribution){0};
    for (unsigned i = 0; i < PROC_SLOTS; i++) {
        out->sum_ns += atomic_load_explicit(&slabs[i].histogram[h].sum_ns, memory_order_relaxed);
        for (unsigned b = 0; b < STATS_BUCKETS; b++)
            out->bucket[b] +=
                atomic_load_explicit(&slabs[i].histogram[h].bucket[b], memory_order_relaxed);
    }
    for (unsigned b = 0; b < STATS_BUCKETS; b++)
        out->count += out->bucket[b];
}

uint64_t stats_quantile_ns(const struct stats_distribution *d, double share)
{
    if (d->count == 0)
        return 0;
    const double wanted = share * (double)d->count;
    double below = 0;
    unsigned last = 0;
    for (unsigned b = 0; b < STATS_BUCKETS; b++) {
        const double here = (double)d->bucket[b];
        if (here == 0)
            continue;
        last = b;
        if (below + here >= wanted) {
            const double floor_ns = b ? (double)stats_bucket_limit_ns(b - 1) : 0;
            const double width = (double)stats_bucket_limit_ns(b) - floor_ns;
            const double part = wanted > below ? (wanted - below) / here : 0;
            return (uint64_t)(floor_ns + part * width);
        }
        below += here;
    }
    return stats_bucket_limit_ns(last); /* share above 1 */
}
