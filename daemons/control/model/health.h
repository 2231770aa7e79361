/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * health: raises the conditions that only control can see, once a second and before it is asked:
 * missing processes, and growing counters of the limiter. Decides from all conditions, those of
 * other processes too, whether the service is ready.
 *
 * A condition of a counter holds while the counter has grown within the last minute. Counters are
 * in shared memory; their earlier values are kept in control, so a respawned control starts with
 * none of these conditions and raises them again if the counters still grow.
 */
#ifndef POLDER_CONTROL_HEALTH_H
#define POLDER_CONTROL_HEALTH_H
#include "polder/conditions.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct control;

/* The current conditions, and the readiness that follows. */
struct health {
    bool ready;
    const char *expected; /* an intended state that is no condition; NULL: none */
    size_t n;
    struct condition condition[CONDITION_ROWS];
};
void health_follow(struct control *c); /* each second */
void health_get(struct control *c, struct health *out);

struct workers_count {
    uint32_t wanted, ready, draining;
};
void health_count_workers(const struct control *c, struct workers_count *out);

/* A counter that should not grow. Times are monotonic. */
struct growth {
    bool known; /* total has been looked at before */
    bool holds;
    uint64_t total, before; /* now, and when it began to grow */
    uint64_t grown_ms;
};
/* Has it grown within the last minute? */
bool growth_look(struct growth *g, uint64_t total, uint64_t now_ms);
#endif
