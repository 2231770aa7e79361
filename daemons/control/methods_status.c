/* SPDX-License-Identifier: BSD-2-Clause */
/* methods_status: status, reload and drain. */
#include "daemons/control/control.h"
#include "polder/clock.h"
#include "polder/config.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define RELOAD_PATIENCE_MS 90000

/* ---- status ---- */

static void put_process(struct rpc_out *o, const struct proc_slot *slot, unsigned index,
                        uint64_t now_ms)
{
    const uint64_t started_ms = atomic_load(&slot->started_ms);
    rpc_out_map(o, NULL);
    rpc_out_str(o, "process", proc_slot_name(index));
    if (index >= PROC_SLOT_WORKER0)
        rpc_out_u64(o, "number", atomic_load(&slot->index));
    else
        rpc_out_nil(o, "number");
    rpc_out_u64(o, "pid", atomic_load(&slot->pid));
    rpc_out_str(o, "state", proc_state_name((enum proc_state)atomic_load(&slot->state)));
    rpc_out_u64(o, "incarnation", atomic_load(&slot->incarnation));
    rpc_out_u64(o, "uptime_ms", now_ms > started_ms ? now_ms - started_ms : 0);
    rpc_out_u64(o, "connections", atomic_load(&slot->connections));
    rpc_out_u64(o, "crashes", atomic_load(&slot->crashes));
    rpc_out_u64(o, "generation", atomic_load(&slot->generation));
    rpc_out_end(o);
}

static void put_processes(const struct control *c, struct rpc_out *o, uint64_t now_ms)
{
    rpc_out_list(o, "processes");
    for (unsigned i = 0; i < PROC_SLOTS; i++)
        if (atomic_load(&c->shared->proc->slot[i].pid))
            put_process(o, &c->shared->proc->slot[i], i, now_ms);
    rpc_out_end(o);
}

static void put_texts(struct rpc_out *o, const char *key, const char *const *text, uint32_t n)
{
    rpc_out_list(o, key);
    for (uint32_t i = 0; i < n; i++)
        rpc_out_str(o, NULL, text[i]);
    rpc_out_end(o);
}

static void put_traffic(const struct control *c, struct rpc_out *o)
{
    const struct stats_slab *s = c->shared->stats;
    struct cache_sums sums;
    telemetry_sums(c, &sums);
    rpc_out_u64(o, "requests", stats_total(s, STATS_REQUESTS));
    rpc_out_u64(o, "connections_open", stats_gauge_total(s, STATS_GAUGE_CONNECTIONS_OPEN));
    rpc_out_f64(o, "cache_hit_rate", sums.hit_rate);
    rpc_out_u64(o, "cache_items", stats_gauge_total(s, STATS_GAUGE_CACHE_ITEMS));
    rpc_out_u64(o, "cache_bytes", stats_gauge_total(s, STATS_GAUGE_CACHE_BYTES));
    rpc_out_bool(o, "cache_ready", stats_gauge_total(s, STATS_GAUGE_CACHE_READY) > 0);
    rpc_out_u64(o, "limit_refused", stats_total(s, STATS_LIMIT_REFUSED));
    rpc_out_u64(o, "upstream_requests", stats_total(s, STATS_UPSTREAM_REQUESTS));
    rpc_out_u64(o, "upstream_errors", stats_total(s, STATS_UPSTREAM_ERRORS));
}

void status_show(struct control *c, const struct rpc_call *call)
{
    const struct proc_table *proc = c->shared->proc;
    const uint64_t now_ms = clock_mono_ms();
    struct workers_count workers;
    pages_count_workers(c, &workers);
    struct rpc_out *o = rpc_reply_result(call->reply);
    rpc_out_map(o, NULL);
    rpc_out_str(o, "version", POLDER_VERSION);
    rpc_out_u64(o, "uptime_ms", now_ms - atomic_load(&proc->started_ms));
    rpc_out_bool(o, "ready", health_is_ready(c));
    rpc_out_bool(o, "draining", atomic_load(&proc->draining) != 0);
    rpc_out_str(o, "configuration", c->config->path);
    rpc_out_u64(o, "generation", atomic_load(&proc->generation));
    rpc_out_u64(o, "workers_ready", workers.ready);
    rpc_out_u64(o, "workers", workers.wanted);
    put_traffic(c, o);
    rpc_out_list(o, "listeners");
    for (uint32_t i = 0; i < c->config->n_listen; i++)
        rpc_out_str(o, NULL, c->config->listen[i].text);
    rpc_out_end(o);
    rpc_out_str(o, "ops", c->config->ops_listen.len ? c->config->ops_listen.text : "");
    guard_put_quarantined(c, o, "quarantined");
    put_texts(o, "not_active_yet", c->config->inactive, c->config->n_inactive);
    health_put_conditions(c, o);
    put_processes(c, o, now_ms);
    rpc_out_end(o);
    rpc_reply_send(call->reply);
}

/* ---- reload ---- */

struct reload_wait {
    struct reload_wait *next;
    struct rpc_reply *reply;
    uint32_t asked;
    uint64_t until_ms;
};

static void reloaded(struct control *c, struct rpc_reply *reply)
{
    struct rpc_out *o = rpc_reply_result(reply);
    rpc_out_map(o, NULL);
    rpc_out_bool(o, "reloaded", true);
    rpc_out_u64(o, "generation", atomic_load(&c->shared->proc->generation));
    rpc_out_end(o);
    rpc_reply_send(reply);
}

/* true: it is over, and answered */
static bool reload_look(struct control *c, const struct reload_wait *w)
{
    struct proc_table *proc = c->shared->proc;
    const int32_t past = (int32_t)(atomic_load(&proc->reload_done) - w->asked);
    const uint32_t state = atomic_load(&proc->reload_state);
    if (past >= 0 && state == PROC_RELOAD_OK) {
        reloaded(c, w->reply);
    } else if (past >= 0 && state == PROC_RELOAD_FAILED) {
        char why[sizeof proc->reload_message];
        memcpy(why, proc->reload_message, sizeof why);
        why[sizeof why - 1] = 0;
        for (size_t n = strlen(why); n && why[n - 1] == '\n';)
            why[--n] = 0;
        admin_error(c, w->reply, RPC_FAILED, "%s", why);
    } else if (clock_mono_ms() > w->until_ms) {
        admin_error(c, w->reply, RPC_FAILED, "the reload is not over yet; see the log");
    } else {
        return false;
    }
    return true;
}

void reload_watch(struct control *c)
{
    for (struct reload_wait **at = &c->reloads; *at;) {
        struct reload_wait *w = *at;
        if (reload_look(c, w)) {
            *at = w->next;
            free(w);
        } else {
            at = &w->next;
        }
    }
}

void reload_run(struct control *c, const struct rpc_call *call)
{
    struct reload_wait *w = calloc(1, sizeof *w);
    if (!w) {
        admin_error(c, call->reply, RPC_FAILED, "out of memory");
        return;
    }
    w->asked = atomic_fetch_add(&c->shared->proc->reload_asked, 1) + 1;
    w->reply = call->reply;
    w->until_ms = clock_mono_ms() + RELOAD_PATIENCE_MS;
    shared_wake_master(c->shared);
    if (rpc_in_flag(call->params, "wait")) {
        w->next = c->reloads;
        c->reloads = w;
        return;
    }
    free(w);
    struct rpc_out *o = rpc_reply_result(call->reply);
    rpc_out_map(o, NULL);
    rpc_out_bool(o, "asked", true);
    rpc_out_end(o);
    rpc_reply_send(call->reply);
}

/* ---- drain ---- */

void drain_run(struct control *c, const struct rpc_call *call)
{
    if (kill(c->process->master_pid, SIGTERM) < 0) {
        admin_error(c, call->reply, RPC_FAILED, "cannot signal the master: %s", strerror(errno));
        return;
    }
    struct rpc_out *o = rpc_reply_result(call->reply);
    rpc_out_map(o, NULL);
    rpc_out_bool(o, "draining", true);
    rpc_out_end(o);
    rpc_reply_send(call->reply);
}
