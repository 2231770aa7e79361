/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * timer: deadlines of connections and exchanges, on one wheel with ticks of TIMER_TICK_MS. Setting
 * a later deadline costs one store: the timer is looked at when its old one comes, and moved on.
 *
 * A timer is part of what it is for, carries the function that is called when it is due, and is
 * stopped before that is freed.
 */
#ifndef POLDER_WORKER_TIMER_H
#define POLDER_WORKER_TIMER_H
#include <ev.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct worker;

struct timer {
    struct timer *next, **link; /* link NULL: not armed */
    uint64_t due_ms, visit_ms;
    void (*fire)(struct timer *t); /* no longer armed then; may set it again */
};
/* What the timer is a member of. */
#define TIMER_OWNER(t, type, member) ((type *)(void *)((char *)(t)-offsetof(type, member)))
#define TIMER_TICK_MS                250
#define TIMER_SLOTS                  512
struct timer_wheel {
    struct timer *slot[TIMER_SLOTS];
    uint64_t tick; /* last one that was served */
    uint32_t armed;
    ev_timer ev; /* runs while any is armed */
};
void timer_init(struct worker *w);
static inline bool timer_is_armed(const struct timer *t)
{
    return t->link != NULL;
}
void timer_set(struct worker *w, struct timer *t, uint64_t due_ms);
void timer_stop(struct worker *w, struct timer *t);

#endif
