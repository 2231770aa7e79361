/* SPDX-License-Identifier: BSD-2-Clause */
/* limits_wait: see limits_wait.h. */
#include "daemons/worker/request/limits_wait.h"
#include "daemons/http/h1.h"
#include "daemons/worker/client/client.h"
#include "daemons/worker/request/limits.h"
#include "daemons/worker/request/limits_slots.h"
#include "daemons/worker/request/repeat.h"
#include "daemons/worker/request/steps.h"
#include "daemons/worker/worker.h"
#include "polder/clock.h"
#include "polder/shared.h"

#include <stdlib.h>
#include <string.h>

#define WAITERS_MAX 4096 /* of a worker; further requests wait for nothing */

struct limit_waiter {
    TAILQ_ENTRY(limit_waiter) entry;
    struct client *client;
    uint64_t key; /* that it waits for */
    uint32_t cost;
    bool for_slot; /* key is a slot's, whose row had so many answers */
    uint32_t answers;
    uint64_t until_ms;
    size_t len;
    char head[];
};

static struct fleet_grants *grants_of(const struct worker *w)
{
    return w->shared->fleet_grants;
}

static void timer_follow(struct worker *w)
{
    struct limit_waiters *all = &w->limits->waiters;
    const struct limit_waiter *first = TAILQ_FIRST(&all->all);
    ev_timer_stop(w->loop, &all->timer);
    if (!first)
        return;
    const uint64_t now_ms = clock_mono_ms();
    ev_timer_set(&all->timer,
                 first->until_ms > now_ms ? (double)(first->until_ms - now_ms) / 1000 : 0., 0.);
    ev_timer_start(w->loop, &all->timer);
}

bool limits_wait(struct client *c, const struct h1_head *head, const struct limit_bill *bill,
                 uint64_t charge_by_ms)
{
    struct worker *w = c->worker;
    struct limit_waiters *all = &w->limits->waiters;
    struct limit_waiter *p =
        all->n < WAITERS_MAX && !c->waiter ? malloc(sizeof *p + head->head_len) : NULL;
    if (!p)
        return false;
    *p = (struct limit_waiter){.client = c,
                               .key = bill->awaited,
                               .cost = bill->awaited_cost,
                               .for_slot = bill->awaits_slot,
                               .answers = bill->awaited_answers,
                               .until_ms = charge_by_ms ? charge_by_ms
                                                        : clock_mono_ms() +
                                                              w->config->fleet.limit_timeout_ms,
                               .len = head->head_len};
    memcpy(p->head, head->method.at, head->head_len);
    struct limit_waiter *after = TAILQ_LAST(&all->all, limit_waiter_list);
    while (after && after->until_ms > p->until_ms)
        after = TAILQ_PREV(after, limit_waiter_list, entry);
    if (after)
        TAILQ_INSERT_AFTER(&all->all, after, p, entry);
    else
        TAILQ_INSERT_HEAD(&all->all, p, entry);
    all->n++;
    c->waiter = p;
    repeat_forget(c);
    if (!charge_by_ms)
        atomic_fetch_add(p->for_slot ? &w->shared->fleet_slots->waited : &grants_of(w)->waited, 1);
    timer_follow(w);
    return true;
}

void limits_wait_drop(struct client *c)
{
    struct limit_waiter *p = c->waiter;
    if (!p)
        return;
    c->waiter = NULL;
    TAILQ_REMOVE(&c->worker->limits->waiters.all, p, entry);
    c->worker->limits->waiters.n--;
    free(p);
}

/* It takes its steps again. */
static void go_on(struct limit_waiter *p)
{
    struct client *c = p->client;
    struct worker *w = c->worker;
    const struct request_replay what = {
        .bytes = p->head, .len = p->len, .charge_by_ms = p->until_ms};
    c->waiter = NULL;
    TAILQ_REMOVE(&w->limits->waiters.all, p, entry);
    w->limits->waiters.n--;
    w->limits->waiters.again(c, &what);
    client_schedule(c);
    free(p);
}

static bool is_due(const struct worker *w, const struct limit_waiter *p, uint64_t now_ms)
{
    if (now_ms >= p->until_ms)
        return true;
    if (p->for_slot)
        return limits_slots_is_due(w, p->key, p->answers, now_ms);
    return !fleet_grants_come(grants_of(w), now_ms) ||
           fleet_grant_is_known(grants_of(w), p->key, p->cost, now_ms);
}

void limits_wait_wake(struct worker *w)
{
    struct limit_waiters *all = &w->limits->waiters;
    const uint64_t now_ms = clock_mono_ms();
    const struct limit_waiter *p;
    uint32_t n = 0;
    if (!all->n)
        return;
    struct client **who = malloc(all->n * sizeof(struct client *));
    TAILQ_FOREACH (p, &all->all, entry)
        if (who && is_due(w, p, now_ms))
            who[n++] = p->client;
    for (uint32_t i = 0; i < n; i++) { /* they are there until the iteration ends */
        /* Each that still lacks a slot asks for it, so that control knows how many are waited for. */
        struct limit_waiter *waiter = who[i]->waiter;
        if (waiter && (waiter->for_slot || is_due(w, waiter, now_ms)))
            go_on(waiter);
    }
    free(who);
    timer_follow(w);
}

static void on_timer(struct ev_loop *loop, ev_timer *t, int events)
{
    (void)loop, (void)events;
    limits_wait_wake(t->data);
}

void limits_wait_init(struct worker *w)
{
    struct limit_waiters *all = &w->limits->waiters;
    const struct config_fleet *f = &w->config->fleet;
    TAILQ_INIT(&all->all);
    ev_timer_init(&all->timer, on_timer, 0., 0.);
    all->timer.data = w;
    if (f->n_store)
        fleet_grants_secret(f->name, f->secret, all->secret);
}
