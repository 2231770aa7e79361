/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * health: raises the conditions that only control can see, once a second and before it is asked:
 * processes that are missing, and counters of the limiter that grow. It shows all conditions, those
 * of other processes too, in status, and says from them whether the service is ready.
 *
 * A condition of a counter holds while the counter has grown within the last minute. Counters are
 * in shared memory; what they were is remembered here, so a respawned control starts with nothing
 * wrong and sees it again when it goes on.
 */
#include "daemons/control/control.h"
#include "polder/clock.h"
#include "polder/conditions.h"
#include "polder/config.h"
#include "polder/limit.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define HOLDS_MS 60000

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

static void look_at_processes(const struct control *c)
{
    struct condition_table *t = c->shared->conditions;
    const struct proc_table *proc = c->shared->proc;
    const uint64_t now_ms = clock_real_ms();
    struct workers_count workers;
    char reason[64];
    pages_count_workers(c, &workers);
    snprintf(reason, sizeof reason, "%u of %u workers are ready", workers.ready, workers.wanted);
    condition_set(t, COND_NO_READY_WORKER, NULL, !workers.ready, reason, now_ms);
    condition_set(t, COND_WORKERS_MISSING, NULL, workers.ready && workers.ready < workers.wanted,
                  reason, now_ms);
    condition_set(t, COND_KEEPER_MISSING, NULL,
                  atomic_load(&proc->slot[PROC_SLOT_KEEPER].state) != PROC_READY, NULL, now_ms);
    condition_set(t, COND_DRAINING, NULL, atomic_load(&proc->draining) != 0, NULL, now_ms);
}

void health_look(struct control *c)
{
    look_at_processes(c);
    look_at_limiter(c);
}

/* ---- what is shown of it ---- */

static bool is_ready(const struct condition *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (condition_kind(list[i].id)->readyz == CONDITION_UNREADY)
            return false;
    return true;
}

bool health_is_ready(const struct control *c)
{
    struct condition list[CONDITION_ROWS];
    look_at_processes(c); /* as it is now, not as it was up to a second ago */
    return is_ready(list, conditions_list(c->shared->conditions, clock_real_ms(), list));
}

void health_put_conditions(const struct control *c, struct rpc_out *o)
{
    struct condition list[CONDITION_ROWS];
    const uint64_t now_ms = clock_real_ms();
    const size_t n = conditions_list(c->shared->conditions, now_ms, list);
    rpc_out_list(o, "conditions");
    for (size_t i = 0; i < n; i++) {
        const struct condition_kind *k = condition_kind(list[i].id);
        rpc_out_map(o, NULL);
        rpc_out_str(o, "condition", k->name);
        rpc_out_str(o, "severity", condition_severity_name(k->severity));
        rpc_out_u64(o, "since_ms", now_ms > list[i].since_ms ? now_ms - list[i].since_ms : 0);
        rpc_out_str(o, "subject", list[i].subject);
        rpc_out_str(o, "reason", list[i].reason);
        rpc_out_str(o, "what", k->meaning);
        rpc_out_end(o);
    }
    rpc_out_end(o);
}

static void put_reason(const struct condition *x, struct page_text *t)
{
    const struct condition_kind *k = condition_kind(x->id);
    page_put(t, "%s", k->name);
    if (*x->subject) {
        page_put(t, " ");
        page_put_json(t, x->subject);
    }
    page_put(t, ": %s", k->meaning);
    if (*x->reason) {
        page_put(t, ": ");
        page_put_json(t, x->reason);
    }
}

bool health_put_reasons(const struct control *c, struct page_text *t)
{
    struct condition list[CONDITION_ROWS];
    bool first = true;
    look_at_processes(c);
    const size_t n = conditions_list(c->shared->conditions, clock_real_ms(), list);
    for (size_t i = 0; i < n; i++) {
        if (condition_kind(list[i].id)->readyz == CONDITION_SILENT)
            continue;
        page_put(t, first ? "\"" : ",\"");
        put_reason(&list[i], t);
        page_put(t, "\"");
        first = false;
    }
    return is_ready(list, n);
}

void health_put_json(const struct control *c, struct page_text *t)
{
    struct condition list[CONDITION_ROWS];
    look_at_processes(c);
    const size_t n = conditions_list(c->shared->conditions, clock_real_ms(), list);
    page_put(t, "{\"conditions\":[");
    for (size_t i = 0; i < n; i++) {
        const struct condition_kind *k = condition_kind(list[i].id);
        page_put(t, "%s{\"condition\":\"%s\",\"severity\":\"%s\",\"since\":%.3f,\"subject\":\"",
                 i ? "," : "", k->name, condition_severity_name(k->severity),
                 (double)list[i].since_ms / 1000);
        page_put_json(t, list[i].subject);
        page_put(t, "\",\"reason\":\"");
        page_put_json(t, list[i].reason);
        page_put(t, "\",\"what\":\"%s\"}", k->meaning);
    }
    page_put(t, "],\"lost\":%" PRIu64 "}\n", conditions_lost(c->shared->conditions));
}
