/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * budget: see budget.h. How many background fetches may be under way, and when there are to be
 * none.
 *
 * "Twice as long" compares each fetch with the last one of the same entry, which stands in its
 * record, so a slow URL among fast ones does no harm. A fetch that fails counts as one that took
 * MOST_SLOWER times as long: one broken URL does not stop the others, two failures in a row do.
 */
#include "daemons/worker/background/budget.h"
#include "daemons/worker/fetch/fetch.h"
#include "daemons/worker/cache/lookup.h"
#include "daemons/net/timer_wheel.h"
#include "daemons/worker/fetch/upstream.h"
#include "daemons/worker/worker.h"

#include <assert.h>
#include <stdlib.h>

#define SOURCES      4
#define STEP_S       0.05
#define PAUSE_MS     5000
#define ALONE_MS     30000 /* then such a fetch is given up */
#define SAME         256   /* in parts of this: it took as long as the last time */
#define SLOWER_MAX   (8 * SAME)
#define WEIGHT       8       /* of a mean of the last fetches */
#define FETCH_NS_MIN 5000000 /* a fetch that took less is taken for one of this length */

struct budget_upstream {
    uint64_t paused_until_ms;
    uint32_t under_way, ahead; /* requests; of them, background fetches */
    int32_t slower;            /* mean of times as long, in parts of SAME */
};

struct budget {
    ev_timer timer;
    struct worker *worker;
    uint32_t fetching;
    unsigned turn, n_sources;
    background_step_fn source[SOURCES];
    struct budget_upstream upstream[]; /* by config_upstream.index */
};

static struct budget_upstream *of(const struct worker *w, const struct config_upstream *u)
{
    return u == &w->upstreams->ops ? NULL : &w->background->budget->upstream[u->index];
}

/* ---- the bound ---- */

bool budget_in_trouble(const struct worker *w, const struct config_upstream *u)
{
    if (of(w, u)->paused_until_ms > w->mono_ms ||
        w->upstreams->servers[u->servers[0].index].waiting)
        return true;
    return pool_any_down(w, u);
}

bool budget_may(const struct worker *w, const struct config_upstream *u)
{
    const struct budget_upstream *a = of(w, u);
    const uint64_t share = (uint64_t)a->under_way * u->refresh_share / 100;
    return a->ahead < (share > 1 ? share : 1) && !budget_in_trouble(w, u);
}

static void pause_background(const struct worker *w, struct budget_upstream *a)
{
    a->paused_until_ms = w->mono_ms + PAUSE_MS;
}

static void take_measure(const struct worker *w, struct budget_upstream *a, uint64_t times)
{
    const int32_t one = times < SLOWER_MAX ? (int32_t)times : SLOWER_MAX;
    a->slower += (one - a->slower) / WEIGHT;
    if (a->slower > 2 * SAME)
        pause_background(w, a);
}

/* ---- what fetches tell (fetch_ops) ---- */

static void budget_begin(struct fetch *ex)
{
    struct worker *w = ex->worker;
    struct budget_upstream *a = of(w, ex->upstream);
    if (!a || ex->counted)
        return;
    ex->counted = true;
    a->under_way++;
    if (!ex->background)
        return;
    a->ahead++;
    w->background->budget->fetching++;
    ex->alone_ms = w->mono_ms + ALONE_MS;
    timer_set(&w->wheel, &ex->timer, ex->alone_ms);
}

static void budget_end(struct fetch *ex)
{
    struct worker *w = ex->worker;
    if (!ex->counted)
        return;
    struct budget_upstream *a = of(w, ex->upstream);
    ex->counted = false;
    a->under_way--;
    if (!ex->background)
        return;
    a->ahead--;
    w->background->budget->fetching--;
    if (!w->draining)
        ev_feed_event(w->loop, &w->background->budget->timer, EV_TIMER); /* the next one */
}

/* A whole answer where only "not modified" was asked for may take longer: that tells nothing. */
static void budget_answered(struct fetch *ex, bool failure)
{
    struct budget_upstream *a = of(ex->worker, ex->upstream);
    if (!a || !ex->for_store || !(ex->background || ex->stale))
        return;
    if (failure) {
        take_measure(ex->worker, a, SLOWER_MAX);
    } else if (ex->stale && (!ex->conditional || ex->answered == 304)) {
        const uint64_t before = ex->stale->view.record->fetch_ns;
        take_measure(ex->worker, a,
                     ex->fetch_ns / ((before > FETCH_NS_MIN ? before : FETCH_NS_MIN) / SAME));
    }
}

static void budget_failed(struct fetch *ex)
{
    struct budget_upstream *a = of(ex->worker, ex->upstream);
    if (a)
        pause_background(ex->worker, a);
}

uint32_t budget_fetching(const struct worker *w)
{
    return w->background->budget ? w->background->budget->fetching : 0;
}

/* ---- steps ---- */

static void on_step(EV_P_ ev_timer *watcher, int events)
{
    struct budget *a = watcher->data;
    bool more = false;
    (void)events;
    for (unsigned i = 0; i < a->n_sources; i++)
        more |= a->source[(a->turn + i) % a->n_sources](a->worker);
    a->turn++;
    if (!more && ev_is_active(watcher))
        ev_timer_stop(EV_A_ watcher);
    else if (more)
        budget_wake(a->worker);
}

void budget_source(struct worker *w, background_step_fn step)
{
    struct budget *a = w->background->budget;
    assert(a->n_sources < SOURCES);
    a->source[a->n_sources++] = step;
}

void budget_wake(struct worker *w)
{
    ev_timer *timer = &w->background->budget->timer;
    if (ev_is_active(timer))
        return;
    ev_timer_set(timer, STEP_S, STEP_S);
    ev_timer_start(w->loop, timer);
}

bool budget_open(struct worker *w)
{
    static const struct fetch_ops ops = {.begun = budget_begin,
                                         .ended = budget_end,
                                         .answered = budget_answered,
                                         .failed = budget_failed};
    const uint32_t n = w->config->n_upstreams;
    struct budget *a = calloc(1, sizeof *a + n * sizeof *a->upstream);
    if (!a)
        return false;
    for (uint32_t i = 0; i < n; i++)
        a->upstream[i].slower = SAME;
    a->worker = w;
    ev_timer_init(&a->timer, on_step, STEP_S, STEP_S);
    a->timer.data = a;
    w->background->budget = a;
    w->fetches->ops = &ops;
    return true;
}

void budget_close(struct worker *w)
{
    free(w->background->budget);
    w->background->budget = NULL;
}
