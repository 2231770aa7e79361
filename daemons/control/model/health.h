/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * health: raises the conditions that only control can see, once a second and before it is asked:
 * processes that are missing, and counters of the limiter that grow. Says from all conditions,
 * those of other processes too, whether the service is ready.
 *
 * A condition of a counter holds while the counter has grown within the last minute. Counters are
 * in shared memory; what they were is remembered in control, so a respawned control starts with
 * nothing wrong and sees it again when it goes on.
 */
#ifndef POLDER_CONTROL_HEALTH_H
#define POLDER_CONTROL_HEALTH_H
#include "polder/conditions.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct control;

/* What is wrong now, and what comes of it. */
struct health {
    bool ready;
    const char *expected; /* what is no condition, for it is meant to be so; NULL: nothing */
    size_t n;
    struct condition condition[CONDITION_ROWS];
};
void health_follow(struct control *c); /* each second */
void health_get(struct control *c, struct health *out);

struct workers_count {
    uint32_t wanted, ready, draining;
};
void health_count_workers(const struct control *c, struct workers_count *out);

/* A counter that should stand still. Times are monotonic. */
struct growth {
    bool known; /* total has been looked at before */
    bool holds;
    uint64_t total, before; /* now, and when it began to grow */
    uint64_t grown_ms;
};
/* Has it grown within the last minute? */
bool growth_look(struct growth *g, uint64_t total, uint64_t now_ms);
#endif
