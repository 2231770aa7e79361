/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * snapshot: all counts at one moment; and interval: the figures between two moments.
 *
 * Counts are those of all processes since the start of Polder; those of the supervisor since its
 * own start, so they may be lower than before.
 */
#ifndef POLDER_CONTROL_SNAPSHOT_H
#define POLDER_CONTROL_SNAPSHOT_H
#include "daemons/control/model/usage.h"
#include "daemons/control/peers.h"
#include "polder/history.h"
#include "polder/stats.h"

struct control;
struct config_cost;

struct snapshot_server {
    uint64_t id;
    size_t row; /* of the history */
    uint64_t requests, errors;
    struct distribution latency;
};
struct snapshot {
    uint64_t mono_ms;
    uint64_t counter[STATS_COUNTERS], gauge[STATS_GAUGES];
    struct distribution answers; /* those that were not refused */
    struct peers_websockets ws;
    uint64_t cpu_ns;
    struct usage_memory memory;
    uint32_t workers, conditions;
    size_t n_servers;
    struct snapshot_server server[HISTORY_SERVERS];
};
/* The caller fills in WebSockets, CPU and memory, and which servers have a row. */
void snapshot_take(const struct control *c, struct snapshot *out);

/* values[HISTORY_WIDTH] of the time between two snapshots; NaN: not known. minute: a
 * snapshot of about a minute before `now`, or the oldest there is. */
void interval_values(const struct snapshot *then, const struct snapshot *now,
                     const struct snapshot *minute, const struct config_cost *prices,
                     float *values);
#endif
