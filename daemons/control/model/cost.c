/* SPDX-License-Identifier: BSD-2-Clause */
/* cost: see cost.h. */
#include "daemons/control/model/cost.h"
#include "polder/config.h"

const char *const cost_names[COST_OPTIMISATIONS] = {[COST_POLLING] = "polling",
                                                    [COST_WEBSOCKET] = "websocket",
                                                    [COST_CACHING] = "caching",
                                                    [COST_RATE_LIMITING] = "rateLimiting"};

/* Counters are read one after the other while they grow: what is taken away may be ahead. */
static double less(uint64_t a, uint64_t b)
{
    return a > b ? (double)(a - b) : 0.;
}

void cost_count(const struct cost_events *e, struct cost_counts *out)
{
    const uint64_t from_store = e->hits + e->collapsed,
                   elsewhere = e->poll_kept + e->refreshed + e->guard_requests;
    *out = (struct cost_counts){
        .calls = (double)e->upstream_requests,
        .spared = {[COST_POLLING] = (double)e->poll_kept,
                   [COST_WEBSOCKET] = e->leaked_hours > 0 ? e->leaked_hours : 0,
                   [COST_CACHING] = less(from_store, elsewhere),
                   [COST_RATE_LIMITING] = (double)e->limit_refused},
        .websocket_known = e->leaked_hours >= 0};
}

void cost_of(const struct config_cost *prices, const struct cost_counts *counts,
             struct cost_money *out)
{
    *out = (struct cost_money){.estimated = counts->calls * prices->upstream_call};
    for (int i = 0; i < COST_OPTIMISATIONS; i++) {
        const double price = i == COST_WEBSOCKET ? prices->websocket_hour : prices->upstream_call;
        out->saved[i] = counts->spared[i] * price;
        out->saved_total += out->saved[i];
    }
}

static double at_least_a_sample(double seconds)
{
    return seconds > COST_SAMPLE_S ? seconds : COST_SAMPLE_S;
}

struct cost_counts cost_month(const struct cost_counts *counts)
{
    const double calls = COST_MONTH_S / at_least_a_sample(counts->seconds),
                 websocket = COST_MONTH_S / at_least_a_sample(counts->websocket_seconds);
    struct cost_counts month = *counts;
    month.seconds = month.websocket_seconds = COST_MONTH_S;
    month.calls *= calls;
    for (int i = 0; i < COST_OPTIMISATIONS; i++)
        month.spared[i] *= i == COST_WEBSOCKET ? websocket : calls;
    return month;
}

/* ---- the last hour ---- */

bool cost_past_due(const struct cost_past *past, double seconds)
{
    return !past->taken ||
           seconds - past->sample[(past->taken - 1) % COST_SAMPLES].seconds >= COST_SAMPLE_S;
}

void cost_past_add(struct cost_past *past, const struct cost_counts *now)
{
    past->sample[past->taken++ % COST_SAMPLES] = *now;
}

/* A count that has begun again has counted at least this. */
static double grown(double then, double now)
{
    return now >= then ? now - then : now;
}

void cost_difference(const struct cost_counts *then, const struct cost_counts *now,
                     struct cost_counts *out)
{
    *out = (struct cost_counts){.seconds = now->seconds - then->seconds,
                                .websocket_seconds = now->seconds - then->seconds,
                                .calls = grown(then->calls, now->calls),
                                .websocket_known = now->websocket_known && then->websocket_known};
    for (int i = 0; i < COST_OPTIMISATIONS; i++)
        out->spared[i] = grown(then->spared[i], now->spared[i]);
    /* refreshes may come before the hits they make */
    if (now->spared[COST_CACHING] < then->spared[COST_CACHING])
        out->spared[COST_CACHING] = 0;
    if (!out->websocket_known)
        out->spared[COST_WEBSOCKET] = 0;
}

bool cost_past_hour(const struct cost_past *past, const struct cost_counts *now,
                    struct cost_counts *out)
{
    const unsigned kept = past->taken < COST_SAMPLES ? past->taken : COST_SAMPLES;
    for (unsigned i = 1; i <= kept; i++) {
        const struct cost_counts *then = &past->sample[(past->taken - i) % COST_SAMPLES];
        if (now->seconds - then->seconds >= COST_HOUR_S) {
            cost_difference(then, now, out);
            return true;
        }
    }
    return false;
}
