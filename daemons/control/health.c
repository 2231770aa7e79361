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
#include "daemons/rpc/socket.h"
#include "polder/clock.h"
#include "polder/conditions.h"
#include "polder/config.h"
#include "polder/limit.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define HOLDS_MS 60000
#define START_MS 10000
/* for the supervisor's answer; with the second between two questions a hang is seen within 5 s */
#define SUPERVISOR_MS 3500

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

/* Who listens and does not answer hangs: connecting is the kernel's work. */
static enum supervisor_state state_without_answer(const struct control *c)
{
    const int fd = rpc_socket_connect(c->supervisor.path);
    if (fd >= 0)
        close(fd);
    return fd >= 0 || fd == -EAGAIN ? SUPERVISOR_HANGS : SUPERVISOR_MISSING;
}

static void on_supervisor(void *arg, enum rpc_error code, const char *message,
                          const msgpack_object *result)
{
    struct control *c = arg;
    (void)message, (void)result;
    c->supervisor_asked = false;
    c->supervisor_state = code == RPC_UNAVAILABLE ? state_without_answer(c) : SUPERVISOR_ANSWERS;
}

/* One question at a time. */
static void ask_supervisor(struct control *c)
{
    if (c->supervisor_asked || !config_has_websockets(c->config))
        return;
    c->supervisor_asked = true;
    rpc_client_call(&c->supervisor, "ws.stats", NULL, SUPERVISOR_MS, on_supervisor, c);
}

static void look_at_supervisor(struct control *c)
{
    struct condition_table *t = c->shared->conditions;
    const uint64_t now_ms = clock_real_ms();
    const bool wanted = config_has_websockets(c->config);
    ask_supervisor(c);
    condition_set(t, COND_SUPERVISOR_MISSING, NULL,
                  wanted && c->supervisor_state == SUPERVISOR_MISSING, NULL, now_ms);
    condition_set(t, COND_SUPERVISOR_HUNG, NULL, wanted && c->supervisor_state == SUPERVISOR_HANGS,
                  NULL, now_ms);
}

/* NULL: all that was to come since the start has come. */
static const char *what_is_missing(struct control *c, const struct workers_count *workers)
{
    if (workers->ready < workers->wanted)
        return "not all workers are ready";
    if (atomic_load(&c->shared->proc->slot[PROC_SLOT_KEEPER].state) != PROC_READY)
        return "the keeper is not ready";
    if (!config_has_websockets(c->config) || c->supervisor_state == SUPERVISOR_ANSWERS)
        return NULL;
    ask_supervisor(c);
    return "polder-supervisor does not answer yet";
}

/* Before anybody sends traffic for the first time all of it has to work; later a part that is
 * missing is no reason to keep traffic from the rest. NULL: that is over. */
static const char *what_the_start_waits_for(struct control *c)
{
    struct proc_table *proc = c->shared->proc;
    struct workers_count workers;
    if (atomic_load(&proc->was_ready))
        return NULL;
    pages_count_workers(c, &workers);
    const char *missing = what_is_missing(c, &workers);
    if (!missing && atomic_exchange(&proc->was_ready, 1) == 0 && c->process)
        shared_wake_master(c->shared); /* it waits for that */
    return missing;
}

static bool is_long_under_way(const struct control *c)
{
    return clock_mono_ms() >= atomic_load(&c->shared->proc->started_ms) + START_MS;
}

/* A start takes its time; what is missing for longer needs somebody. */
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
    pages_count_workers(c, &workers);
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

void health_look(struct control *c)
{
    look_at_processes(c);
    if (atomic_load(&c->shared->proc->was_ready) || is_long_under_way(c))
        look_at_supervisor(c);
    look_at_limiter(c);
}

/* ---- what is shown of it ---- */

static bool is_ready(struct control *c, const struct condition *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (condition_kind(list[i].id)->readyz == CONDITION_UNREADY)
            return false;
    return !what_is_expected(c);
}

bool health_is_ready(struct control *c)
{
    struct condition list[CONDITION_ROWS];
    look_at_processes(c); /* as it is now, not as it was up to a second ago */
    return is_ready(c, list, conditions_list(c->shared->conditions, clock_real_ms(), list));
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

bool health_put_reasons(struct control *c, struct page_text *t)
{
    struct condition list[CONDITION_ROWS];
    look_at_processes(c);
    const char *expected = what_is_expected(c);
    if (expected)
        page_put(t, "\"%s\"", expected);
    bool first = !expected;
    const size_t n = conditions_list(c->shared->conditions, clock_real_ms(), list);
    for (size_t i = 0; i < n; i++) {
        if (condition_kind(list[i].id)->readyz == CONDITION_SILENT)
            continue;
        page_put(t, first ? "\"" : ",\"");
        put_reason(&list[i], t);
        page_put(t, "\"");
        first = false;
    }
    return is_ready(c, list, n);
}

void health_put_json(struct control *c, struct page_text *t)
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
