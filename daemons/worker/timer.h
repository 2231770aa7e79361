/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * timer: deadlines of connections and exchanges, on one wheel with ticks of TIMER_TICK_MS. Setting
 * a later deadline costs one store: the timer is looked at when its old one comes, and moved on.
 *
 * A timer is part of what it is for (kind), and is stopped before that is freed.
 */
#ifndef POLDER_WORKER_TIMER_H
#define POLDER_WORKER_TIMER_H
#include <stdint.h>

struct worker;

enum timer_kind { TIMER_CLIENT, TIMER_UPSTREAM, TIMER_EXCHANGE };
struct timer {
    struct timer *next, **link; /* link NULL: not armed */
    uint64_t due_ms, visit_ms;
    enum timer_kind kind;
};
#define TIMER_TICK_MS 250
#define TIMER_SLOTS   512
struct timer_wheel {
    struct timer *slot[TIMER_SLOTS];
    uint64_t tick; /* last one that was served */
    uint32_t armed;
};
void timer_set(struct worker *w, struct timer *t, uint64_t due_ms);
void timer_stop(struct worker *w, struct timer *t);
void timer_serve(struct worker *w); /* fires what is due, at most 1000 a call */

#endif
