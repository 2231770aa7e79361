/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * timer_wheel: deadlines on one wheel with ticks of TIMER_TICK_MS. Setting a later deadline costs
 * one store: the timer is checked at the old one, and moved on.
 *
 * A timer is embedded in its owner's struct, has the function that is called when it is due, and is
 * stopped before the owner is freed. The loop wakes for the wheel only while a timer is armed.
 */
#ifndef POLDER_TIMER_WHEEL_H
#define POLDER_TIMER_WHEEL_H
#include <ev.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

struct timer {
    LIST_ENTRY(timer) entry;
    uint64_t due_ms, visit_ms;     /* visit_ms 0: not armed */
    void (*fire)(struct timer *t); /* no longer armed then; may set it again */
};
/* What the timer is a member of. */
#define TIMER_OWNER(t, type, member) ((type *)(void *)((char *)(t)-offsetof(type, member)))
#define TIMER_TICK_MS                250
#define TIMER_SLOTS                  512
struct timer_wheel {
    LIST_HEAD(, timer) slot[TIMER_SLOTS];
    uint64_t tick; /* last one that was served */
    uint32_t armed;
    uint32_t fire_max;      /* timers a tick, the rest at the next one; 0: any number */
    const uint64_t *now_ms; /* its owner's, up to date in each turn of the loop */
    struct ev_loop *loop;
    ev_timer ev; /* runs while any is armed */
};
void timer_wheel_init(struct timer_wheel *wheel, struct ev_loop *loop, const uint64_t *now_ms,
                      uint32_t fire_max);
static inline bool timer_is_armed(const struct timer *t)
{
    return t->visit_ms != 0;
}
void timer_set(struct timer_wheel *wheel, struct timer *t, uint64_t due_ms);
void timer_stop(struct timer_wheel *wheel, struct timer *t);

#endif
