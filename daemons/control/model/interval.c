/* SPDX-License-Identifier: BSD-2-Clause */
/* interval: the values of the history, from two snapshots; arithmetic alone. */
#include "daemons/control/model/cost.h"
#include "daemons/control/model/snapshot.h"

#include <math.h>

struct interval {
    const struct snapshot *then, *now, *minute;
    double seconds;
    float *values;
};

static void put(const struct interval *v, enum history_series series, double value)
{
    v->values[series] = (float)value;
}

/* A count that is lower now has begun again. */
static double grown(double then, double now)
{
    return now >= then ? now - then : now;
}

static double share(double part, double all)
{
    return all > 0 ? (part < all ? part / all : 1) : NAN;
}

/* ---- what workers, keeper and control count ---- */

static double count_of(const struct interval *v, enum stats_counter c)
{
    return grown((double)v->then->counter[c], (double)v->now->counter[c]);
}

static void put_rates(const struct interval *v)
{
    static const struct {
        enum history_series series;
        enum stats_counter counter;
    } rate[] = {
        {HISTORY_REQUESTS, STATS_REQUESTS},
        {HISTORY_HITS, STATS_CACHE_HITS},
        {HISTORY_STALE, STATS_CACHE_STALE},
        {HISTORY_MISSES, STATS_CACHE_MISSES},
        {HISTORY_COLLAPSED, STATS_CACHE_COLLAPSED},
        {HISTORY_BYPASS, STATS_CACHE_BYPASS},
        {HISTORY_BACKEND_CALLS, STATS_UPSTREAM_REQUESTS},
        {HISTORY_ERRORS_4XX, STATS_RESPONSES_4XX},
        {HISTORY_ERRORS, STATS_RESPONSES_5XX},
        {HISTORY_BACKEND_ERRORS, STATS_UPSTREAM_ERRORS},
        {HISTORY_BACKEND_TIMEOUTS, STATS_UPSTREAM_TIMEOUTS},
        {HISTORY_RETRIES, STATS_UPSTREAM_RETRIES},
        {HISTORY_CONNECTIONS_REFUSED, STATS_CONNECTIONS_REFUSED},
        {HISTORY_BYTES_IN, STATS_BYTES_IN},
        {HISTORY_BYTES_OUT, STATS_BYTES_OUT},
        {HISTORY_LIMIT_CHECKS, STATS_LIMIT_CHECKS},
        {HISTORY_LIMIT_REFUSED, STATS_LIMIT_REFUSED},
        {HISTORY_POLL_KEPT, STATS_POLL_KEPT},
        {HISTORY_EVICTIONS, STATS_CACHE_EVICTIONS},
        {HISTORY_INVALIDATIONS, STATS_CACHE_INVALIDATIONS},
    };
    for (size_t i = 0; i < sizeof rate / sizeof *rate; i++)
        put(v, rate[i].series, count_of(v, rate[i].counter) / v->seconds);
}

static void put_ratios(const struct interval *v)
{
    const double found = count_of(v, STATS_CACHE_HITS) + count_of(v, STATS_CACHE_STALE);
    double answers = 0;
    for (int c = STATS_RESPONSES_2XX; c <= STATS_RESPONSES_5XX; c++)
        answers += count_of(v, (enum stats_counter)c);
    put(v, HISTORY_HIT_RATE, share(found, found + count_of(v, STATS_CACHE_MISSES)));
    put(v, HISTORY_ERROR_RATE, share(count_of(v, STATS_RESPONSES_5XX), answers));
}

static double quantile(const struct distribution *d, double part)
{
    return d->count ? distribution_quantile_s(d, part) : NAN;
}

static double mean(const struct distribution *d)
{
    return d->count ? distribution_mean_s(d) : NAN;
}

static void put_latencies(const struct interval *v)
{
    struct distribution d = v->now->answers;
    distribution_since(&d, &v->then->answers);
    put(v, HISTORY_P50, quantile(&d, .5));
    put(v, HISTORY_P95, quantile(&d, .95));
    put(v, HISTORY_P99, quantile(&d, .99));
    put(v, HISTORY_MEAN, mean(&d));
}

static void put_gauges(const struct interval *v)
{
    const struct usage_memory *m = &v->now->memory;
    put(v, HISTORY_CONNECTIONS, (double)v->now->gauge[STATS_GAUGE_CONNECTIONS_OPEN]);
    put(v, HISTORY_ITEMS, (double)v->now->gauge[STATS_GAUGE_CACHE_ITEMS]);
    put(v, HISTORY_BYTES, (double)v->now->gauge[STATS_GAUGE_CACHE_BYTES]);
    put(v, HISTORY_WORKERS, v->now->workers);
    put(v, HISTORY_CONDITIONS, v->now->conditions);
    put(v, HISTORY_CPU, grown((double)v->then->cpu_ns, (double)v->now->cpu_ns) / 1e9 / v->seconds);
    put(v, HISTORY_MEMORY, m->known ? (double)m->used : NAN);
    put(v, HISTORY_MEMORY_RATE, m->known ? (double)m->used / (double)m->limit : NAN);
}

/* ---- WebSockets ---- */

/* A heartbeat whose answer may still be under way counts as answered. */
static double heartbeat_success(const struct peers_websockets *then,
                                const struct peers_websockets *now)
{
    const double sent = grown(then->heartbeats, now->heartbeats);
    return share(grown(then->answered, now->answered) + now->open * 2, sent);
}

static void put_websockets(const struct interval *v)
{
    const struct peers_websockets *then = &v->then->ws, *now = &v->now->ws,
                                  *minute = &v->minute->ws;
    if (!now->known)
        return;
    put(v, HISTORY_WS_OPEN, now->open);
    put(v, HISTORY_WS_MAX, now->max);
    if (minute->known) {
        put(v, HISTORY_WS_DEMAND, now->open + grown(minute->refused, now->refused));
        put(v, HISTORY_HEARTBEAT_SUCCESS, heartbeat_success(minute, now));
    }
    if (!then->known)
        return;
    put(v, HISTORY_WS_REFUSED, grown(then->refused, now->refused) / v->seconds);
    put(v, HISTORY_WS_OPENED, grown(then->opened, now->opened) / v->seconds);
    put(v, HISTORY_WS_REAPED, grown(then->reaped, now->reaped) / v->seconds);
    put(v, HISTORY_WS_MESSAGES, grown(then->messages, now->messages) / v->seconds);
}

/* ---- money ---- */

static void count_cost(const struct snapshot *s, struct cost_counts *out)
{
    const struct cost_events events = {
        .upstream_requests = s->counter[STATS_UPSTREAM_REQUESTS],
        .hits = s->counter[STATS_CACHE_HITS],
        .collapsed = s->counter[STATS_CACHE_COLLAPSED],
        .poll_kept = s->counter[STATS_POLL_KEPT],
        .refreshed = s->counter[STATS_CACHE_REFRESHED],
        .guard_requests = s->counter[STATS_GUARD_REQUESTS],
        .limit_refused = s->counter[STATS_LIMIT_REFUSED],
        .leaked_hours = s->ws.known ? s->ws.leaked_hours : -1,
    };
    cost_count(&events, out);
}

static void put_cost(const struct interval *v, const struct config_cost *prices)
{
    struct cost_counts then, now, counts;
    struct cost_money money;
    const double hours = v->seconds / 3600;
    count_cost(v->then, &then);
    count_cost(v->now, &now);
    cost_difference(&then, &now, &counts);
    cost_of(prices, &counts, &money);
    put(v, HISTORY_AVOIDED_CALLS,
        (counts.spared[COST_POLLING] + counts.spared[COST_CACHING] +
         counts.spared[COST_RATE_LIMITING]) /
            v->seconds);
    put(v, HISTORY_COST, money.estimated / hours);
    put(v, HISTORY_SAVINGS, money.saved_total / hours);
    put(v, HISTORY_SAVINGS_POLLING, money.saved[COST_POLLING] / hours);
    put(v, HISTORY_SAVINGS_CACHING, money.saved[COST_CACHING] / hours);
    put(v, HISTORY_SAVINGS_RATE_LIMITING, money.saved[COST_RATE_LIMITING] / hours);
    if (counts.websocket_known)
        put(v, HISTORY_SAVINGS_WEBSOCKET, money.saved[COST_WEBSOCKET] / hours);
}

/* ---- servers ---- */

static const struct snapshot_server *server_then(const struct snapshot *s, uint64_t id)
{
    for (size_t i = 0; i < s->n_servers; i++)
        if (s->server[i].id == id)
            return &s->server[i];
    return NULL;
}

static void put_server(const struct interval *v, const struct snapshot_server *now)
{
    const struct snapshot_server *then = server_then(v->then, now->id);
    float *to = &v->values[history_server_column(now->row, (enum history_server_series)0)];
    if (!then)
        return;
    const double requests = grown((double)then->requests, (double)now->requests),
                 errors = grown((double)then->errors, (double)now->errors);
    struct distribution d = now->latency;
    distribution_since(&d, &then->latency);
    to[HISTORY_SERVER_REQUESTS] = (float)(requests / v->seconds);
    to[HISTORY_SERVER_ERRORS] = (float)(errors / v->seconds);
    to[HISTORY_SERVER_ERROR_RATE] = (float)share(errors, requests > errors ? requests : errors);
    to[HISTORY_SERVER_P95] = (float)quantile(&d, .95);
    to[HISTORY_SERVER_MEAN] = (float)mean(&d);
}

void interval_values(const struct snapshot *then, const struct snapshot *now,
                     const struct snapshot *minute, const struct config_cost *prices, float *values)
{
    const double ms = now->mono_ms > then->mono_ms ? (double)(now->mono_ms - then->mono_ms) : 1;
    const struct interval v = {then, now, minute, ms / 1000, values};
    for (size_t i = 0; i < HISTORY_WIDTH; i++)
        values[i] = NAN;
    put_rates(&v);
    put_ratios(&v);
    put_latencies(&v);
    put_gauges(&v);
    put_websockets(&v);
    put_cost(&v, prices);
    for (size_t i = 0; i < now->n_servers; i++)
        if (now->server[i].row < HISTORY_SERVERS)
            put_server(&v, &now->server[i]);
}
