/* SPDX-License-Identifier: BSD-2-Clause */
/* route_stats: counters per route beside the totals (polder/stats.h). A request
 * that has no route is counted in a row of its own. */
#ifndef POLDER_WORKER_MESSAGE_ROUTE_STATS_H
#define POLDER_WORKER_MESSAGE_ROUTE_STATS_H
#include "daemons/worker/message/route_state.h"
#include "daemons/worker/worker.h"

static inline struct stats_route_row *route_stats(const struct worker *w,
                                                  const struct config_route *route)
{
    return &w->stats->route[w->routes[route ? route->index : w->config->n_routes].stats_row];
}

/* One lookup of a cacheable request has ended. */
static inline void route_stats_lookup(struct worker *w, const struct config_route *route,
                                      enum stats_lookup result)
{
    static const enum stats_counter counter[] = {[STATS_LOOKUP_HIT] = STATS_CACHE_HITS,
                                                 [STATS_LOOKUP_MISS] = STATS_CACHE_MISSES,
                                                 [STATS_LOOKUP_STALE] = STATS_CACHE_STALE,
                                                 [STATS_LOOKUP_COLLAPSED] = STATS_CACHE_COLLAPSED,
                                                 [STATS_LOOKUP_BYPASS] = STATS_CACHE_BYPASS};
    struct stats_route_row *row = route_stats(w, route);
    stats_add(w->stats, counter[result], 1);
    stats_bump(&row->lookup[result], 1);
    if (result != STATS_LOOKUP_MISS && result != STATS_LOOKUP_BYPASS)
        atomic_store_explicit(&row->last_hit_ms, w->real_ms, memory_order_relaxed);
}

/* The head of an answer goes out. */
static inline void route_stats_answer(struct worker *w, const struct config_route *route,
                                      unsigned status)
{
    static const enum stats_counter by_class[STATS_CLASSES] = {
        STATS_RESPONSES_1XX, STATS_RESPONSES_2XX, STATS_RESPONSES_3XX, STATS_RESPONSES_4XX,
        STATS_RESPONSES_5XX};
    if (status < 100 || status >= 600)
        return;
    stats_add(w->stats, by_class[status / 100 - 1], 1);
    stats_bump(&route_stats(w, route)->answers[status / 100 - 1], 1);
}

/* len bytes of a body go out. */
static inline void route_stats_bytes(const struct worker *w, const struct config_route *route,
                                     uint64_t bytes)
{
    stats_bump(&route_stats(w, route)->bytes, bytes);
}

#endif
