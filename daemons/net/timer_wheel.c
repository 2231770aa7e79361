/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * timer_wheel: see timer_wheel.h.
 *
 * A timer lies in the slot of the tick at which it is looked at next. Moving its deadline further
 * away (what each request does to a connection's idle time) stores the new time and leaves it where
 * it lies; when its slot comes round it moves on. Only an earlier deadline is relinked.
 */
#include "daemons/net/timer_wheel.h"

static void timer_link(struct timer_wheel *wheel, struct timer *t, uint64_t due_ms)
{
    uint64_t tick = due_ms / TIMER_TICK_MS + 1;
    if (tick <= wheel->tick)
        tick = wheel->tick + 1;
    if (tick >= wheel->tick + TIMER_SLOTS)
        tick = wheel->tick + TIMER_SLOTS - 1;
    t->visit_ms = tick * TIMER_TICK_MS;
    LIST_INSERT_HEAD(&wheel->slot[tick % TIMER_SLOTS], t, entry);
}

static void timer_unlink(struct timer *t)
{
    LIST_REMOVE(t, entry);
    t->visit_ms = 0;
}

static void tick_begin(struct timer_wheel *wheel)
{
    if (!ev_is_active(&wheel->ev)) {
        ev_timer_set(&wheel->ev, TIMER_TICK_MS / 1000.0, TIMER_TICK_MS / 1000.0);
        ev_timer_start(wheel->loop, &wheel->ev);
    }
}

void timer_set(struct timer_wheel *wheel, struct timer *t, uint64_t due_ms)
{
    t->due_ms = due_ms;
    if (timer_is_armed(t)) {
        if (due_ms + TIMER_TICK_MS >= t->visit_ms)
            return;
        timer_unlink(t);
    } else if (wheel->armed++ == 0) {
        wheel->tick = *wheel->now_ms / TIMER_TICK_MS;
        tick_begin(wheel);
    }
    timer_link(wheel, t, due_ms);
}

void timer_stop(struct timer_wheel *wheel, struct timer *t)
{
    if (!timer_is_armed(t))
        return;
    timer_unlink(t);
    wheel->armed--;
}

/* False: it has fired enough for now. */
static bool slot_serve(struct timer_wheel *wheel, uint32_t *fired)
{
    struct timer *t;
    while ((t = LIST_FIRST(&wheel->slot[wheel->tick % TIMER_SLOTS]))) {
        timer_unlink(t);
        if (t->due_ms > *wheel->now_ms) {
            timer_link(wheel, t, t->due_ms);
            continue;
        }
        wheel->armed--;
        t->fire(t);
        if (++*fired == wheel->fire_max)
            return false;
    }
    return true;
}

static void wheel_serve(struct timer_wheel *wheel)
{
    const uint64_t now = *wheel->now_ms / TIMER_TICK_MS;
    uint32_t fired = 0;
    if (now - wheel->tick > TIMER_SLOTS)
        wheel->tick = now - TIMER_SLOTS; /* the machine slept: each slot once is enough */
    while (wheel->tick < now && wheel->armed) {
        wheel->tick++;
        if (!slot_serve(wheel, &fired)) {
            wheel->tick--; /* this slot has more */
            return;
        }
    }
    if (!wheel->armed)
        wheel->tick = now;
}

static void on_tick(EV_P_ ev_timer *watcher, int events)
{
    struct timer_wheel *wheel = watcher->data;
    (void)events;
    wheel_serve(wheel);
    if (!wheel->armed)
        ev_timer_stop(EV_A_ watcher);
}

void timer_wheel_init(struct timer_wheel *wheel, struct ev_loop *loop, const uint64_t *now_ms,
                      uint32_t fire_max)
{
    wheel->loop = loop;
    wheel->now_ms = now_ms;
    wheel->fire_max = fire_max;
    for (size_t i = 0; i < TIMER_SLOTS; i++)
        LIST_INIT(&wheel->slot[i]);
    ev_timer_init(&wheel->ev, on_tick, 0., 0.);
    wheel->ev.data = wheel;
}
