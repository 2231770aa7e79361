/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * stats: counters, gauges and latency histograms, a slab a process slot, in shared memory.
 *
 * The owner of a slab writes with relaxed load + store (0.6 ns; a locked add costs 9); readers add
 * all slabs up. Slabs belong to the slot: counters go on after a respawn and survive kill -9.
 * Gauges are reset by the master when it reaps. Which counters there are: libshared/tables/.
 */
#ifndef POLDER_STATS_H
#define POLDER_STATS_H
#include "polder/proc.h"
#include <stdatomic.h>
#include <stdint.h>

enum stats_counter {
#define COUNTER(id, metric, labels, help) STATS_##id,
#include "../../libshared/tables/counters.def"
#undef COUNTER
    STATS_COUNTERS
};
enum stats_gauge {
#define GAUGE(id, metric, labels, help) STATS_GAUGE_##id,
#include "../../libshared/tables/gauges.def"
#undef GAUGE
    STATS_GAUGES
};
/* latency of responses to clients, by where the answer came from, in nanoseconds */
enum stats_histogram {
    STATS_LATENCY_HIT,
    STATS_LATENCY_MISS,
    STATS_LATENCY_PASS,
    STATS_LATENCY_REFUSED,
    STATS_HISTOGRAMS
};

#define STATS_COUNTERS_MAX 128
#define STATS_GAUGES_MAX   32
#define STATS_LIMITS_MAX   256
#define STATS_SERVERS_MAX  257
#define STATS_BUCKETS      528 /* log-linear: 16 a power of two, 1 ns .. 64 s, at most 6.25 % wide */

struct stats_slab {
    _Alignas(128) _Atomic uint64_t counter[STATS_COUNTERS_MAX];
    _Atomic uint64_t gauge[STATS_GAUGES_MAX];
    struct {
        _Atomic uint64_t sum_ns;
        _Atomic uint64_t bucket[STATS_BUCKETS];
    } histogram[STATS_HISTOGRAMS];
    /* by config_limit.index: what each limit did (owner writes) */
    struct {
        _Atomic uint64_t admitted, refused, dry_refused;
    } limit[STATS_LIMITS_MAX];
    /* by config_server.index; the row behind the last server is the ops pages' */
    struct {
        _Atomic uint64_t requests, time_ns; /* errors: polder/server_state.h */
    } server[STATS_SERVERS_MAX];
    /* Whose those rows are: the next configuration may count the same limits in another order. */
    _Atomic uint64_t limit_id[STATS_LIMITS_MAX], server_id[STATS_SERVERS_MAX];
};
_Static_assert(STATS_COUNTERS <= STATS_COUNTERS_MAX, "grow STATS_COUNTERS_MAX");
_Static_assert(STATS_GAUGES <= STATS_GAUGES_MAX, "grow STATS_GAUGES_MAX");

static inline void stats_bump(_Atomic uint64_t *word, uint64_t n)
{
    atomic_store_explicit(word, atomic_load_explicit(word, memory_order_relaxed) + n,
                          memory_order_relaxed);
}
static inline void stats_add(struct stats_slab *slab, enum stats_counter c, uint64_t n)
{
    stats_bump(&slab->counter[c], n);
}
static inline void stats_gauge_set(struct stats_slab *slab, enum stats_gauge g, uint64_t value)
{
    atomic_store_explicit(&slab->gauge[g], value, memory_order_relaxed);
}
unsigned stats_bucket_of(uint64_t ns);
uint64_t stats_bucket_limit_ns(unsigned bucket); /* exclusive upper bound */
void stats_observe(struct stats_slab *slab, enum stats_histogram h, uint64_t ns);

/* Sums over all PROC_SLOTS slabs. */
uint64_t stats_total(const struct stats_slab *slabs, enum stats_counter c);
uint64_t stats_gauge_total(const struct stats_slab *slabs, enum stats_gauge g);
struct stats_distribution {
    uint64_t count, sum_ns;
    uint64_t bucket[STATS_BUCKETS];
};
void stats_distribution_of(const struct stats_slab *slabs, enum stats_histogram h,
                           struct stats_distribution *out);
/* Rows of limits and servers are told apart by what they belong to, for a slot keeps its slab when
 * its next process has another configuration. stats_adopt(): a worker, before it counts anything,
 * moves the rows that its predecessor left to where its own configuration has them; rows of what is
 * gone are dropped. */
struct config;
struct config_server;
struct stats_limit {
    uint64_t admitted, refused, dry_refused;
};
struct stats_server {
    uint64_t requests, time_ns;
};
void stats_adopt(struct stats_slab *slab, const struct config *config);
uint64_t stats_server_id(const struct config_server *server);
/* Sums over all PROC_SLOTS slabs; limit_id: config_limit.id. */
void stats_limit_of(const struct stats_slab *slabs, uint64_t limit_id, struct stats_limit *out);
void stats_server_of(const struct stats_slab *slabs, uint64_t server_id, struct stats_server *out);

/* The value below which `share` (0..1) of the observations lie; 0 where there are none. */
uint64_t stats_quantile_ns(const struct stats_distribution *d, double share);
#endif
