/* SPDX-License-Identifier: BSD-2-Clause */
/* savings: see savings.h. */
#include "daemons/control/model/savings.h"
#include "daemons/control/control.h"
#include "polder/clock.h"
#include "polder/config.h"
#include "polder/history.h"

#include <math.h>
#include <stdlib.h>

void savings_count_calls(const struct control *c, double leaked_hours, struct cost_counts *out)
{
    const struct stats_slab *s = c->shared->stats;
    const struct cost_events events = {
        .upstream_requests = stats_total(s, STATS_UPSTREAM_REQUESTS),
        .hits = stats_total(s, STATS_CACHE_HITS),
        .collapsed = stats_total(s, STATS_CACHE_COLLAPSED),
        .poll_kept = stats_total(s, STATS_POLL_KEPT),
        .refreshed = stats_total(s, STATS_CACHE_REFRESHED),
        .guard_requests = stats_total(s, STATS_GUARD_REQUESTS),
        .limit_refused = stats_total(s, STATS_LIMIT_REFUSED),
        .leaked_hours = config_has_websockets(c->config) ? leaked_hours : 0,
    };
    cost_count(&events, out);
}

static void count(const struct control *c, const struct peers_leaked *leaked,
                  struct cost_counts *out)
{
    savings_count_calls(c, leaked->hours, out);
    out->seconds = (double)(clock_mono_ms() - atomic_load(&c->shared->proc->started_ms)) / 1000;
    out->websocket_seconds = config_has_websockets(c->config) ? leaked->counted_s : out->seconds;
}

static void put_month(const struct control *c, const char *name, const struct cost_counts *counts,
                      struct savings_month *out)
{
    const struct cost_counts month = cost_month(counts);
    out->name = name;
    out->seconds = counts->seconds;
    out->websocket_known = counts->websocket_known;
    cost_of(&c->config->cost, &month, &out->money);
}

/* ---- from the history ---- */

#define DAY_S     86400
#define DAY_MIN_S 3600. /* of it: less says nothing of a month */

static const enum history_series day_series[SAVINGS_DAY_SERIES] = {
    [COST_POLLING] = HISTORY_SAVINGS_POLLING,
    [COST_WEBSOCKET] = HISTORY_SAVINGS_WEBSOCKET,
    [COST_CACHING] = HISTORY_SAVINGS_CACHING,
    [COST_RATE_LIMITING] = HISTORY_SAVINGS_RATE_LIMITING,
    [COST_OPTIMISATIONS] = HISTORY_COST};

/* Money an hour, and in how many seconds that was known. */
static void day_mean(const struct history_page *page, const struct history_range *range, int i,
                     struct savings_day *day)
{
    double sum = 0;
    size_t n = 0;
    for (size_t at = 0; at < range->n; at++) {
        const double value = history_value(page, range, day_series[i], at);
        if (isnan(value))
            continue;
        sum += value;
        n++;
    }
    day->seconds[i] = (double)n * (double)range->step;
    day->mean[i] = n ? sum / (double)n : 0;
}

/* Some 8640 samples of each series: looked at again when there is another one. */
static const struct savings_day *day_of(struct control *c)
{
    struct savings_day *day = &c->savings_day;
    const struct history_page *page = c->shared->history;
    struct history_range range;
    if (!page || history_range(page, DAY_S, HISTORY_COARSE_STEP, clock_real_ms() / 1000, &range))
        return NULL;
    if (day->end == range.end && day->newest == atomic_load(&page->newest[HISTORY_COARSE]))
        return day;
    day->end = range.end;
    day->newest = atomic_load(&page->newest[HISTORY_COARSE]);
    for (int i = 0; i < SAVINGS_DAY_SERIES; i++)
        day_mean(page, &range, i, day);
    return day;
}

static void put_day(struct control *c, struct savings_month *out)
{
    const double hours = COST_MONTH_S / 3600;
    const struct savings_day *day = day_of(c);
    if (!day || day->seconds[COST_OPTIMISATIONS] < DAY_MIN_S)
        return;
    out->name = "last day";
    out->seconds = day->seconds[COST_OPTIMISATIONS];
    out->money.estimated = day->mean[COST_OPTIMISATIONS] * hours;
    out->websocket_known = day->seconds[COST_WEBSOCKET] > 0 || !config_has_websockets(c->config);
    for (int i = 0; i < COST_OPTIMISATIONS; i++) {
        out->money.saved[i] = day->mean[i] * hours;
        out->money.saved_total += out->money.saved[i];
    }
}

void savings_find(struct control *c, const struct peers_leaked *leaked, struct savings *out)
{
    const struct config_cost *prices = &c->config->cost;
    struct cost_counts hour;
    *out = (struct savings){.currency = prices->currency,
                            .upstream_call = prices->upstream_call,
                            .websocket_hour = prices->websocket_hour};
    count(c, leaked, &out->counts);
    cost_of(prices, &out->counts, &out->money);
    put_month(c, "since start", &out->counts, &out->month[SAVINGS_SINCE_START]);
    if (cost_past_hour(&c->cost_past, &out->counts, &hour))
        put_month(c, "last hour", &hour, &out->month[SAVINGS_LAST_HOUR]);
    put_day(c, &out->month[SAVINGS_LAST_DAY]);
}

/* ---- with the supervisor's counts ---- */

struct question {
    struct control *control;
    void (*done)(void *arg, const struct savings *s);
    void *arg;
};

static void tell(const struct question *q, const struct peers_leaked *leaked)
{
    struct savings s;
    savings_find(q->control, leaked, &s);
    q->done(q->arg, &s);
}

static void on_leaked(void *arg, const struct peers_leaked *leaked)
{
    struct question *q = arg;
    tell(q, leaked);
    free(q);
}

void savings_ask(struct control *c, void (*done)(void *arg, const struct savings *s), void *arg)
{
    const struct question question = {c, done, arg};
    struct question *q = config_has_websockets(c->config) ? malloc(sizeof *q) : NULL;
    if (!q) {
        tell(&question, &(struct peers_leaked){.hours = -1});
        return;
    }
    *q = question;
    peers_ask_leaked(&c->peers, on_leaked, q);
}

static void take_sample(void *arg, const struct savings *s)
{
    struct control *c = arg;
    c->cost_requested = false;
    cost_past_add(&c->cost_past, &s->counts);
}

void savings_follow(struct control *c)
{
    const uint64_t up_ms = clock_mono_ms() - atomic_load(&c->shared->proc->started_ms);
    if (c->cost_requested || !cost_past_due(&c->cost_past, (double)up_ms / 1000))
        return;
    c->cost_requested = true;
    savings_ask(c, take_sample, c);
}
