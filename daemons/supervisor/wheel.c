/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * wheel: one wheel of WHEEL_SLOTS slots for all sessions. A session lies in the slot of its next
 * due time; what happens there is decided by looking at its times, so traffic only stores a time
 * and moves nothing.
 */
#include "daemons/supervisor/supervisor.h"

void wheel_drop(struct session *x)
{
    if (!x->wheel_link)
        return;
    *x->wheel_link = x->wheel_next;
    if (x->wheel_next)
        x->wheel_next->wheel_link = x->wheel_link;
    x->wheel_link = NULL;
}

void wheel_wake(struct supervisor *s)
{
    if (ev_is_active(&s->tick))
        return;
    s->wheel_tick = s->now_ms / WHEEL_TICK_MS;
    ev_timer_again(s->loop, &s->tick);
}

void wheel_set(struct supervisor *s, struct session *x, uint64_t due_ms)
{
    wheel_wake(s);
    uint64_t tick = due_ms / WHEEL_TICK_MS + 1;
    if (tick <= s->wheel_tick)
        tick = s->wheel_tick + 1;
    if (tick >= s->wheel_tick + WHEEL_SLOTS)
        tick = s->wheel_tick + WHEEL_SLOTS - 1; /* looked at on the way */
    wheel_drop(x);
    x->due_ms = due_ms;
    struct session **slot = &s->wheel[tick % WHEEL_SLOTS];
    x->wheel_next = *slot;
    x->wheel_link = slot;
    if (x->wheel_next)
        x->wheel_next->wheel_link = &x->wheel_next;
    *slot = x;
}

void wheel_turn(struct supervisor *s, void (*due)(struct supervisor *s, struct session *x))
{
    const uint64_t now_tick = s->now_ms / WHEEL_TICK_MS;
    if (now_tick - s->wheel_tick > WHEEL_SLOTS)
        s->wheel_tick = now_tick - WHEEL_SLOTS; /* the machine slept: each slot once is enough */
    while (s->wheel_tick < now_tick) {
        struct session *x, *all = s->wheel[++s->wheel_tick % WHEEL_SLOTS];
        s->wheel[s->wheel_tick % WHEEL_SLOTS] = NULL;
        if (all)
            all->wheel_link = &all;
        while ((x = all)) {
            wheel_drop(x);
            if (s->now_ms < x->due_ms)
                wheel_set(s, x, x->due_ms); /* only passing by */
            else
                due(s, x);
        }
    }
}
