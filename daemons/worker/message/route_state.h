/* SPDX-License-Identifier: BSD-2-Clause */
/* route_state: a worker's state of each route beside its configuration (worker.routes). Each member
 * is written by the part that is named. */
#ifndef POLDER_WORKER_MESSAGE_ROUTE_STATE_H
#define POLDER_WORKER_MESSAGE_ROUTE_STATE_H
#include "daemons/worker/message/identity.h"
#include "polder/leak_guard.h"
#include "polder/policy.h"

#include <stdbool.h>
#include <stdint.h>

struct route_state {
    uint32_t stats_row; /* route_stats.h; behind the last route: of none */
    struct policy_settings settings;
    struct identity_rules identity;
    struct identity_counts identity_counts;
    bool hinted_upgrade; /* hints.h */
    struct guard_route *guard;
    uint32_t guard_left;            /* hits until one is looked at */
    uint32_t guard_step, guard_max; /* what it starts from next, and in the end; most 0: off */
    uint64_t guard_again_ms;        /* not before */
    char guard_detail[GUARD_NAMES + 64];
};

#endif
