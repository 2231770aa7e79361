/* SPDX-License-Identifier: BSD-2-Clause */
/* health: see health.h. */
#include "daemons/control/model/health.h"
#include "daemons/control/control.h"
#include "polder/clock.h"
#include "polder/config.h"
#include "polder/limit.h"

#include <inttypes.h>
#include <stdio.h>

#define HOLDS_MS 60000
#define START_MS 10000

/* ---- counters ---- */

bool growth_look(struct growth *g, uint64_t total, uint64_t now_ms)
{
    if (!g->known) {
        *g = (struct growth){.known = true, .total = total};
        return false;
    }
    if (total != g->total) {
        if (!g->holds)
            g->before = g->total;
        g->holds = true;
        g->grown_ms = now_ms;
        g->total = total;
    } else if (g->holds && now_ms >= g->grown_ms + HOLDS_MS) {
        g->holds = false;
    }
    return g->holds;
}

static void look_at_counter(struct control *c, enum condition_id id, struct growth *g,
                            uint64_t total)
{
    char reason[64];
    const bool holds = growth_look(g, total, clock_mono_ms());
    snprintf(reason, sizeof reason, "%" PRIu64 " times so far", g->total - g->before);
    condition_set(c->shared->conditions, id, NULL, holds, reason, clock_real_ms());
}

static void look_at_limiter(struct control *c)
{
    struct limit_table_stats s;
    limit_table_counters(c->shared->limits, &s);
    look_at_counter(c, COND_LIMIT_TABLE_FULL, &c->limiter[0], s.evicted_live);
    look_at_counter(c, COND_LIMIT_LOCK_REFUSALS, &c->limiter[1], s.lock_refusals);
    look_at_counter(c, COND_LIMIT_ROWS_FULL, &c->limiter[2], s.rows_full);
}

/* ---- processes ---- */

void health_count_workers(const struct control *c, struct workers_count *out)
{
    const struct proc_table *proc = c->shared->proc;
    const uint32_t generation = atomic_load(&proc->generation);
    *out = (struct workers_count){.wanted = c->config->workers};
    for (unsigned i = PROC_SLOT_WORKER0; i < PROC_SLOTS; i++) {
        const struct proc_slot *slot = &proc->slot[i];
        const uint32_t state = atomic_load(&slot->state);
        if (!atomic_load(&slot->pid))
            continue;
        out->draining += state == PROC_DRAINING;
        out->ready += state == PROC_READY && atomic_load(&slot->generation) == generation;
    }
}

static void ask_supervisor(struct control *c)
{
    if (config_has_websockets(c->config))
        peers_ask_supervisor(&c->peers);
}

static void look_at_supervisor(struct control *c)
{
    struct condition_table *t = c->shared->conditions;
    const uint64_t now_ms = clock_real_ms();
    const bool wanted = config_has_websockets(c->config);
    ask_supervisor(c);
    condition_set(t, COND_SUPERVISOR_MISSING, NULL,
                  wanted && c->peers.supervisor_state == SUPERVISOR_MISSING, NULL, now_ms);
    condition_set(t, COND_SUPERVISOR_HUNG, NULL,
                  wanted && c->peers.supervisor_state == SUPERVISOR_HANGS, NULL, now_ms);
}

/* NULL: all that was to come since the start has come. */
static const char *what_is_missing(struct control *c, const struct workers_count *workers)
{
    if (workers->ready < workers->wanted)
        return "not all workers are ready";
    if (atomic_load(&c->shared->proc->slot[PROC_SLOT_KEEPER].state) != PROC_READY)
        return "the keeper is not ready";
    if (!config_has_websockets(c->config) || c->peers.supervisor_state == SUPERVISOR_ANSWERS)
        return NULL;
    ask_supervisor(c);
    return "polder-supervisor does not answer yet";
}

/* Before the first traffic all parts have to work; later a missing part is no reason to keep
 * traffic away from the rest. NULL: that phase is over. */
static const char *what_the_start_waits_for(struct control *c)
{
    struct proc_table *proc = c->shared->proc;
    struct workers_count workers;
    if (atomic_load(&proc->was_ready))
        return NULL;
    health_count_workers(c, &workers);
    const char *missing = what_is_missing(c, &workers);
    if (!missing && atomic_exchange(&proc->was_ready, 1) == 0 && c->process)
        shared_wake_master(c->shared); /* it waits for that */
    return missing;
}

static bool is_long_under_way(const struct control *c)
{
    return clock_mono_ms() >= atomic_load(&c->shared->proc->started_ms) + START_MS;
}

/* A start takes its time; what is missing for longer is a condition. */
static void look_at_processes(struct control *c)
{
    struct condition_table *t = c->shared->conditions;
    const struct proc_table *proc = c->shared->proc;
    const uint64_t now_ms = clock_real_ms();
    const char *waits_for = what_the_start_waits_for(c);
    struct workers_count workers;
    char reason[64];
    condition_set(t, COND_DRAINING, NULL, atomic_load(&proc->drained) != 0, NULL, now_ms);
    if ((waits_for && !is_long_under_way(c)) || atomic_load(&proc->draining))
        return;
    health_count_workers(c, &workers);
    snprintf(reason, sizeof reason, "%u of %u workers are ready", workers.ready, workers.wanted);
    condition_set(t, COND_STARTING, NULL, waits_for != NULL, waits_for, now_ms);
    condition_set(t, COND_NO_READY_WORKER, NULL, !workers.ready, reason, now_ms);
    condition_set(t, COND_WORKERS_MISSING, NULL, workers.ready && workers.ready < workers.wanted,
                  reason, now_ms);
    condition_set(t, COND_KEEPER_MISSING, NULL,
                  atomic_load(&proc->slot[PROC_SLOT_KEEPER].state) != PROC_READY, NULL, now_ms);
}

/* What is no condition, for it is meant to be so. NULL: nothing. */
static const char *what_is_expected(struct control *c)
{
    if (atomic_load(&c->shared->proc->draining))
        return "the service is draining: it was told to stop";
    return what_the_start_waits_for(c);
}

void health_follow(struct control *c)
{
    look_at_processes(c);
    if (atomic_load(&c->shared->proc->was_ready) || is_long_under_way(c))
        look_at_supervisor(c);
    look_at_limiter(c);
}

void health_get(struct control *c, struct health *out)
{
    look_at_processes(c); /* as it is now, not as it was up to a second ago */
    out->expected = what_is_expected(c);
    out->n = conditions_list(c->shared->conditions, clock_real_ms(), out->condition);
    out->ready = !out->expected;
    for (size_t i = 0; i < out->n; i++)
        if (condition_kind(out->condition[i].id)->readyz == CONDITION_UNREADY)
            out->ready = false;
}
