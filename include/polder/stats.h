/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * stats: counters, gauges and latency histograms, a slab a process slot, in shared memory.
 *
 * The owner of a slab writes with relaxed load + store (0.6 ns; a locked add costs 9); readers add
 * all slabs up. Slabs belong to the slot: counters go on after a respawn and survive kill -9.
 * Gauges are reset by the master when it reaps. Which counters there are: libshared/tables/.
 *
 * Beside them a slab has rows: of each route, limit and server, found by an id made of its name.
 * A worker makes the rows it needs when it starts (stats_adopt()); they stay in place when its
 * successor has another configuration, and counts of removed items are kept as long as there is
 * room. So the sum of one name over all slabs never decreases, and new names begin at 0.
 */
#ifndef POLDER_STATS_H
#define POLDER_STATS_H
#include "polder/histogram.h"
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
#define STATS_SERVERS_MAX  257  /* one is the ops pages' */
#define STATS_ROUTES_MAX   1025 /* one is of requests without a route */

enum stats_lookup {
    STATS_LOOKUP_HIT,
    STATS_LOOKUP_MISS,
    STATS_LOOKUP_STALE,
    STATS_LOOKUP_COLLAPSED,
    STATS_LOOKUP_BYPASS,
    STATS_LOOKUPS
};
extern const char *const stats_lookup_names[STATS_LOOKUPS];
#define STATS_CLASSES 5 /* of a status: 1xx .. 5xx */

struct stats_route_row {
    /* what a hit writes is one pair of cache lines, and two words of the histogram */
    _Alignas(128) _Atomic uint64_t answers[STATS_CLASSES];
    _Atomic uint64_t lookup[STATS_LOOKUPS];
    _Atomic uint64_t bytes;       /* of bodies, to clients */
    _Atomic uint64_t last_hit_ms; /* real time of the last answer from the store; 0: none yet */
    _Atomic uint64_t refused;     /* by limits */
    _Atomic uint64_t calls;       /* requests sent to backends */
    _Atomic uint64_t background;  /* those of them in the background */
    uint64_t pad_;
    struct histogram latency; /* of answers that no limit refused */
};
_Static_assert(sizeof(struct stats_route_row) == 128 + sizeof(struct histogram), "no gaps");

struct stats_limit_row {
    _Atomic uint64_t checked, admitted, refused, dry_refused;
};
struct stats_server_row {
    /* attempts; errors are in polder/server_state.h */
    _Alignas(64) _Atomic uint64_t requests;
    _Atomic uint64_t bytes_in, bytes_out; /* from it and to it, heads too */
    _Atomic uint64_t connects;            /* connections opened to it */
    _Atomic uint64_t reuses;              /* requests sent over one that was kept */
    struct histogram latency;             /* until the head of its answer */
};

#define STATS_LAYOUT 4
struct stats_slab {
    _Alignas(128) _Atomic uint64_t counter[STATS_COUNTERS_MAX];
    _Atomic uint64_t gauge[STATS_GAUGES_MAX];
    struct histogram histogram[STATS_HISTOGRAMS];
    /* How many rows of each may have an id, from the first on; then the ids, 0: free. An id is
     * stored when its row is 0, and taken away before the row is cleared. */
    _Atomic uint32_t routes, limits, servers;
    _Alignas(64) _Atomic uint64_t route_id[STATS_ROUTES_MAX];
    _Atomic uint64_t limit_id[STATS_LIMITS_MAX], server_id[STATS_SERVERS_MAX];
    struct stats_limit_row limit[STATS_LIMITS_MAX];
    struct stats_server_row server[STATS_SERVERS_MAX];
    struct stats_route_row route[STATS_ROUTES_MAX];
};
_Static_assert(STATS_COUNTERS <= STATS_COUNTERS_MAX, "grow STATS_COUNTERS_MAX");
_Static_assert(STATS_GAUGES <= STATS_GAUGES_MAX, "grow STATS_GAUGES_MAX");

static inline void stats_bump(_Atomic uint64_t *word, uint64_t n)
{
    histogram_word_add(word, n);
}
static inline void stats_add(struct stats_slab *slab, enum stats_counter c, uint64_t n)
{
    stats_bump(&slab->counter[c], n);
}
static inline void stats_gauge_set(struct stats_slab *slab, enum stats_gauge g, uint64_t value)
{
    atomic_store_explicit(&slab->gauge[g], value, memory_order_relaxed);
}
/* row NULL: of no route's. */
static inline void stats_observe(struct stats_slab *slab, enum stats_histogram h,
                                 struct stats_route_row *row, uint64_t ns)
{
    const unsigned bucket = histogram_bucket(HISTOGRAM_LATENCY, ns);
    histogram_add(&slab->histogram[h], bucket, ns);
    if (row)
        histogram_add(&row->latency, bucket, ns);
}

/* ---- rows of the owner ---- */

struct config;
struct config_server;
/* The id of requests that have no route, beside config_route.id; of the ops pages, beside
 * stats_server_id(). */
#define STATS_NO_ROUTE UINT64_C(1)
#define STATS_OPS      UINT64_C(1)
uint64_t stats_server_id(const struct config_server *server);
/* For a worker, before it counts anything: makes the missing rows that its configuration needs. */
void stats_adopt(struct stats_slab *slab, const struct config *config);
/* The row of an adopted id; never NULL. */
struct stats_route_row *stats_route_row(struct stats_slab *slab, uint64_t id);
struct stats_limit_row *stats_limit_row(struct stats_slab *slab, uint64_t id);
struct stats_server_row *stats_server_row(struct stats_slab *slab, uint64_t id);

/* ---- readers: sums over all PROC_SLOTS slabs ---- */

uint64_t stats_total(const struct stats_slab *slabs, enum stats_counter c);
uint64_t stats_gauge_total(const struct stats_slab *slabs, enum stats_gauge g);
void stats_distribution_of(const struct stats_slab *slabs, enum stats_histogram h,
                           struct distribution *out);
/* Of the answers that were not refused. */
void stats_answers_of(const struct stats_slab *slabs, struct distribution *out);

struct stats_route {
    uint64_t answers[STATS_CLASSES], lookup[STATS_LOOKUPS];
    uint64_t bytes, refused, calls, background;
    uint64_t last_hit_ms; /* the latest of all */
    struct distribution latency;
};
struct stats_limit {
    uint64_t checked, admitted, refused, dry_refused;
};
struct stats_server {
    uint64_t requests, bytes_in, bytes_out, connects, reuses;
    struct distribution latency;
};
/* at: a hint where the row may be, such as the index in the configuration. */
void stats_route_of(const struct stats_slab *slabs, uint64_t route_id, uint32_t at,
                    struct stats_route *out);
void stats_limit_of(const struct stats_slab *slabs, uint64_t limit_id, uint32_t at,
                    struct stats_limit *out);
void stats_server_of(const struct stats_slab *slabs, uint64_t server_id, uint32_t at,
                     struct stats_server *out);
/* Answers for which no backend was asked: from the cache, and refusals of limits. */
uint64_t stats_route_avoided(const struct stats_route *r);
#endif
