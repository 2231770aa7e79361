/* SPDX-License-Identifier: BSD-2-Clause */
/* traffic: sums over all processes, shared by pages and methods. */
#ifndef POLDER_CONTROL_TRAFFIC_H
#define POLDER_CONTROL_TRAFFIC_H
#include "polder/stats.h"

struct cache_sums {
    uint64_t hits, misses, stale;
    double hit_rate, miss_rate; /* 0..1; stale answers are hits: the backend was not asked */
};
void traffic_cache_sums(const struct stats_slab *stats, struct cache_sums *out);
/* Over all requests that were not refused. */
double traffic_mean_response_s(const struct stats_slab *stats);
#endif
