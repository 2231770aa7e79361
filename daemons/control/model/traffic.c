/* SPDX-License-Identifier: BSD-2-Clause */
/* traffic: see traffic.h. */
#include "daemons/control/model/traffic.h"

void traffic_cache_sums(const struct stats_slab *s, struct cache_sums *out)
{
    out->hits = stats_total(s, STATS_CACHE_HITS);
    out->stale = stats_total(s, STATS_CACHE_STALE);
    out->misses = stats_total(s, STATS_CACHE_MISSES);
    const uint64_t answered = out->hits + out->stale, all = answered + out->misses;
    out->hit_rate = all ? (double)answered / (double)all : 0.;
    out->miss_rate = all ? 1. - out->hit_rate : 0.;
}

double traffic_mean_response_s(const struct stats_slab *s)
{
    struct distribution d;
    stats_answers_of(s, &d);
    return distribution_mean_s(&d);
}
