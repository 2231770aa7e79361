/* SPDX-License-Identifier: BSD-2-Clause */
/* windows: see windows.h. */
#include "daemons/control/model/windows.h"
#include "daemons/control/control.h"
#include "daemons/control/model/savings.h"
#include "polder/clock.h"
#include "polder/config.h"
#include "polder/history.h"

#include <math.h>
#include <stdlib.h>

const char *const windows_names[WINDOWS_SPANS] = {"5m", "1h", "24h"};
static const uint64_t span_ms[WINDOWS_SPANS] = {300000, 3600000, 86400000};

/* ---- samples ---- */

struct sample {
    uint64_t mono_ms;
    uint64_t requests, hits, misses, errors;
    struct cost_counts cost;
    struct distribution latency;
};

struct windows {
    struct series {
        struct sample at[WINDOWS_SAMPLES + 1];
        uint64_t taken;
    } series[WINDOWS_SPANS];
};

struct windows *windows_new(void)
{
    return calloc(1, sizeof(struct windows));
}

void windows_free(struct windows *w)
{
    free(w);
}

struct windows_open windows_open_now(const struct control *c)
{
    return (struct windows_open){
        (double)stats_gauge_total(c->shared->stats, STATS_GAUGE_CONNECTIONS_OPEN),
        !config_has_websockets(c->config) ? 0
        : c->peers.websockets.known       ? c->peers.websockets.open
                                          : -1};
}

static void take_sample(const struct control *c, struct sample *out)
{
    const struct stats_slab *s = c->shared->stats;
    out->mono_ms = clock_mono_ms();
    out->requests = stats_total(s, STATS_REQUESTS);
    out->hits = stats_total(s, STATS_CACHE_HITS) + stats_total(s, STATS_CACHE_STALE);
    out->misses = stats_total(s, STATS_CACHE_MISSES);
    out->errors = stats_total(s, STATS_RESPONSES_5XX);
    savings_count_calls(c, c->peers.websockets.known ? c->peers.websockets.leaked_hours : -1,
                        &out->cost);
    stats_answers_of(s, &out->latency);
}

/* ---- series ---- */

static const struct sample *nth_youngest(const struct series *s, uint64_t n)
{
    return n < s->taken && n <= WINDOWS_SAMPLES ? &s->at[(s->taken - 1 - n) % (WINDOWS_SAMPLES + 1)]
                                                : NULL;
}

/* The youngest that is so old, else the oldest there is. */
static const struct sample *sample_of_age(const struct series *s, uint64_t now_ms, uint64_t age_ms)
{
    const struct sample *found = NULL, *at;
    for (uint64_t n = 0; (at = nth_youngest(s, n)); n++) {
        found = at;
        if (at->mono_ms + age_ms <= now_ms)
            break;
    }
    return found;
}

/* Where this is the first control, nothing had been counted when the service started. */
static void put_first(const struct control *c, struct series *s)
{
    const bool first =
        c->process && atomic_load(&c->shared->proc->slot[c->process->slot].incarnation) <= 1;
    struct sample *at = &s->at[0];
    take_sample(c, at);
    if (first)
        *at = (struct sample){.mono_ms = atomic_load(&c->shared->proc->started_ms),
                              .cost.websocket_known = true};
    s->taken = 1;
}

void windows_follow(struct control *c)
{
    for (int i = 0; i < WINDOWS_SPANS; i++) {
        struct series *s = &c->windows->series[i];
        const uint64_t now_ms = clock_mono_ms(), step_ms = span_ms[i] / WINDOWS_SAMPLES;
        if (!s->taken)
            put_first(c, s);
        else if (nth_youngest(s, 0)->mono_ms + step_ms <= now_ms)
            take_sample(c, &s->at[s->taken++ % (WINDOWS_SAMPLES + 1)]);
    }
}

/* ---- what they say ---- */

/* As cost_count() made both. */
static void cost_since(struct cost_counts *now, const struct cost_counts *then)
{
    now->calls -= then->calls;
    now->websocket_known = now->websocket_known && then->websocket_known;
    for (int i = 0; i < COST_OPTIMISATIONS; i++)
        now->spared[i] -= then->spared[i];
    if (!now->websocket_known)
        now->spared[COST_WEBSOCKET] = 0;
}

static void put_latencies(struct windows_sums *out, const struct distribution *d)
{
    out->p50_s = distribution_quantile_s(d, .5);
    out->p95_s = distribution_quantile_s(d, .95);
    out->p99_s = distribution_quantile_s(d, .99);
}

void windows_sum(const struct control *c, enum windows_span span, struct windows_sums *out)
{
    struct sample now;
    *out = (struct windows_sums){0};
    take_sample(c, &now);
    const struct sample *then =
        sample_of_age(&c->windows->series[span], now.mono_ms, span_ms[span]);
    if (!then)
        return;
    distribution_since(&now.latency, &then->latency);
    cost_since(&now.cost, &then->cost);
    out->seconds = (double)(now.mono_ms - then->mono_ms) / 1000;
    out->requests = now.requests - then->requests;
    out->hits = now.hits - then->hits;
    out->misses = now.misses - then->misses;
    out->errors = now.errors - then->errors;
    out->calls = now.cost.calls;
    out->refused = now.cost.spared[COST_RATE_LIMITING];
    out->avoided = now.cost.spared[COST_POLLING] + now.cost.spared[COST_CACHING] + out->refused;
    put_latencies(out, &now.latency);
    cost_of(&c->config->cost, &now.cost, &out->money);
}

/* The mean of a minute. */
static double value_ago(const struct control *c, enum history_series series, unsigned minutes)
{
    struct history_range range;
    const struct history_page *page = c->shared->history;
    if (!page || history_range(page, minutes * 60, 60, clock_real_ms() / 1000, &range))
        return -1;
    const double value = history_value(page, &range, series, 0);
    return isnan(value) ? -1 : value;
}

struct windows_open windows_open_ago(const struct control *c, unsigned minutes)
{
    return (struct windows_open){value_ago(c, HISTORY_CONNECTIONS, minutes),
                                 value_ago(c, HISTORY_WS_OPEN, minutes)};
}
