/* SPDX-License-Identifier: BSD-2-Clause */
/* stats: the sums over all slabs; their rows are in stats_rows.c. */
#include "polder/stats.h"

const char *const stats_lookup_names[STATS_LOOKUPS] = {[STATS_LOOKUP_HIT] = "hit",
                                                       [STATS_LOOKUP_MISS] = "miss",
                                                       [STATS_LOOKUP_STALE] = "stale",
                                                       [STATS_LOOKUP_COLLAPSED] = "collapsed",
                                                       [STATS_LOOKUP_BYPASS] = "bypass"};

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
                           struct distribution *out)
{
    *out = distribution_empty(HISTOGRAM_LATENCY);
    for (unsigned i = PROC_SLOT_WORKER0; i < PROC_SLOTS; i++)
        distribution_add(out, &slabs[i].histogram[h]);
}

void stats_answers_of(const struct stats_slab *slabs, struct distribution *out)
{
    *out = distribution_empty(HISTOGRAM_LATENCY);
    for (unsigned i = PROC_SLOT_WORKER0; i < PROC_SLOTS; i++)
        for (int h = 0; h < STATS_HISTOGRAMS; h++)
            if (h != STATS_LATENCY_REFUSED)
                distribution_add(out, &slabs[i].histogram[h]);
}

uint64_t stats_route_avoided(const struct stats_route *r)
{
    return r->lookup[STATS_LOOKUP_HIT] + r->lookup[STATS_LOOKUP_STALE] +
           r->lookup[STATS_LOOKUP_COLLAPSED] + r->refused;
}
