/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * timer: one wheel for all deadlines of a worker.
 *
 * A timer lies in the slot of the tick at which it is looked at next. Moving its deadline further
 * away (what each request does to a connection's idle time) stores the new time and leaves it where
 * it lies; when its slot comes round it moves on. Only an earlier deadline is relinked.
 */
#include "daemons/worker/timer.h"
#include "daemons/worker/worker.h"

#define FIRE_MAX 1000 /* a tick; the rest at the next one */

static void timer_link(struct timer_wheel *wheel, struct timer *t, uint64_t due_ms)
{
    uint64_t tick = due_ms / TIMER_TICK_MS + 1;
    if (tick <= wheel->tick)
        tick = wheel->tick + 1;
    if (tick >= wheel->tick + TIMER_SLOTS)
        tick = wheel->tick + TIMER_SLOTS - 1;
    struct timer **slot = &wheel->slot[tick % TIMER_SLOTS];
    t->visit_ms = tick * TIMER_TICK_MS;
    t->next = *slot;
    if (t->next)
        t->next->link = &t->next;
    t->link = slot;
    *slot = t;
}

static void timer_unlink(struct timer *t)
{
    *t->link = t->next;
    if (t->next)
        t->next->link = t->link;
    t->link = NULL;
}

static void tick_begin(struct worker *w)
{
    ev_timer *ev = &w->wheel.ev;
    if (!ev_is_active(ev)) {
        ev_timer_set(ev, TIMER_TICK_MS / 1000.0, TIMER_TICK_MS / 1000.0);
        ev_timer_start(w->loop, ev);
    }
}

void timer_set(struct worker *w, struct timer *t, uint64_t due_ms)
{
    t->due_ms = due_ms;
    if (t->link) {
        if (due_ms + TIMER_TICK_MS >= t->visit_ms)
            return;
        timer_unlink(t);
    } else if (w->wheel.armed++ == 0) {
        w->wheel.tick = w->mono_ms / TIMER_TICK_MS;
        tick_begin(w);
    }
    timer_link(&w->wheel, t, due_ms);
}

void timer_stop(struct worker *w, struct timer *t)
{
    if (!t->link)
        return;
    timer_unlink(t);
    w->wheel.armed--;
}

/* False: it has fired enough for now. */
static bool slot_serve(struct worker *w, unsigned *fired)
{
    struct timer_wheel *wheel = &w->wheel;
    struct timer **slot = &wheel->slot[wheel->tick % TIMER_SLOTS];
    while (*slot) {
        struct timer *t = *slot;
        timer_unlink(t);
        if (t->due_ms > w->mono_ms) {
            timer_link(wheel, t, t->due_ms);
            continue;
        }
        wheel->armed--;
        t->fire(t);
        if (++*fired >= FIRE_MAX)
            return false;
    }
    return true;
}

/* Fires what is due, at most FIRE_MAX. */
static void timer_serve(struct worker *w)
{
    const uint64_t now = w->mono_ms / TIMER_TICK_MS;
    unsigned fired = 0;
    while (w->wheel.tick < now && w->wheel.armed) {
        w->wheel.tick++;
        if (!slot_serve(w, &fired)) {
            w->wheel.tick--; /* this slot has more */
            return;
        }
    }
    if (!w->wheel.armed)
        w->wheel.tick = now;
}

static void on_tick(EV_P_ ev_timer *watcher, int events)
{
    struct worker *w = watcher->data;
    (void)events;
    timer_serve(w);
    if (!w->wheel.armed)
        ev_timer_stop(EV_A_ watcher);
}

void timer_init(struct worker *w)
{
    ev_timer_init(&w->wheel.ev, on_tick, 0., 0.);
    w->wheel.ev.data = w;
}
