/* SPDX-License-Identifier: BSD-2-Clause */
/* snapshot: see snapshot.h. */
#include "daemons/control/model/snapshot.h"
#include "daemons/control/control.h"
#include "daemons/control/model/health.h"
#include "polder/clock.h"
#include "polder/config.h"
#include "polder/server_state.h"

/* Most slots have never had a process: their slabs are not touched. */
static void add_up(const struct control *c, struct snapshot *s)
{
    for (unsigned slot = 0; slot < PROC_SLOTS; slot++) {
        const struct stats_slab *slab = &c->shared->stats[slot];
        if (!atomic_load_explicit(&c->shared->proc->slot[slot].incarnation, memory_order_relaxed))
            continue;
        for (unsigned i = 0; i < STATS_COUNTERS; i++)
            s->counter[i] += atomic_load_explicit(&slab->counter[i], memory_order_relaxed);
        for (unsigned i = 0; i < STATS_GAUGES; i++)
            s->gauge[i] += atomic_load_explicit(&slab->gauge[i], memory_order_relaxed);
    }
}

/* at: where its row may be expected. */
static void look_at_server(const struct control *c, struct snapshot_server *s, uint32_t at)
{
    struct stats_server sums;
    const struct server_row *row = server_find(c->shared->servers, s->id);
    stats_server_of(c->shared->stats, s->id, at, &sums);
    s->requests = sums.requests + (row ? atomic_load(&row->upgrades) : 0);
    s->latency = sums.latency;
    s->errors = 0;
    for (unsigned i = SERVER_NONE + 1; row && i < SERVER_REASONS; i++)
        s->errors += atomic_load(&row->errors[i]);
}

void snapshot_take(const struct control *c, struct snapshot *out)
{
    struct workers_count workers;
    struct condition list[CONDITION_ROWS];
    add_up(c, out);
    stats_answers_of(c->shared->stats, &out->answers);
    out->mono_ms = clock_mono_ms();
    health_count_workers(c, &workers);
    out->workers = workers.ready;
    out->conditions = (uint32_t)conditions_list(c->shared->conditions, clock_real_ms(), list);
    for (size_t i = 0; i < out->n_servers; i++)
        look_at_server(c, &out->server[i], (uint32_t)i);
}
