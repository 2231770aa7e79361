/* SPDX-License-Identifier: BSD-2-Clause */
/* status: status. */
#include "daemons/control/call.h"
#include "daemons/control/control.h"
#include "daemons/control/methods/methods.h"
#include "daemons/control/model/alerts.h"
#include "daemons/control/model/fleet_member.h"
#include "daemons/control/model/health.h"
#include "daemons/control/model/quarantine.h"
#include "daemons/control/model/traffic.h"
#include "polder/clock.h"
#include "polder/config.h"

#include <stdio.h>
#include <string.h>

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

static const char *supervisor_text(const struct control *c)
{
    static const char *const text[] = {[SUPERVISOR_UNKNOWN] = "not known yet",
                                       [SUPERVISOR_ANSWERS] = "answers",
                                       [SUPERVISOR_MISSING] = "missing",
                                       [SUPERVISOR_HANGS] = "does not answer"};
    return config_has_websockets(c->config) ? text[c->peers.supervisor_state] : "not needed";
}

static void put_traffic(const struct control *c, struct rpc_out *o)
{
    const struct stats_slab *s = c->shared->stats;
    struct cache_sums sums;
    traffic_cache_sums(s, &sums);
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

static void put_listeners(const struct control *c, struct rpc_out *o)
{
    const struct proc_table *proc = c->shared->proc;
    call_put_listeners(c, o);
    rpc_out_str(o, "listeners_from",
                proc->sockets_from_systemd ? "systemd; listen in the file is not used" : "listen");
}

static void put_conditions(struct rpc_out *o, const struct health *h)
{
    const uint64_t now_ms = clock_real_ms();
    rpc_out_list(o, "conditions");
    for (size_t i = 0; i < h->n; i++) {
        const struct condition *x = &h->condition[i];
        const struct condition_kind *k = condition_kind(x->id);
        rpc_out_map(o, NULL);
        rpc_out_str(o, "condition", k->name);
        rpc_out_str(o, "severity", condition_severity_name(k->severity));
        rpc_out_u64(o, "since_ms", now_ms > x->since_ms ? now_ms - x->since_ms : 0);
        rpc_out_str(o, "subject", x->subject);
        rpc_out_str(o, "reason", x->reason);
        rpc_out_str(o, "what", k->meaning);
        rpc_out_end(o);
    }
    rpc_out_end(o);
}

/* Those that are pending or fire. */
static void put_alerts(const struct control *c, struct rpc_out *o)
{
    const struct alert_row *list[ALERT_ROWS];
    const size_t n = alerts_list(c, list);
    const uint64_t now_ms = clock_mono_ms();
    struct alert_shown s;
    rpc_out_list(o, "alerts");
    for (size_t i = 0; i < n && alert_view(list[i]).state != ALERT_RESOLVED; i++) {
        const uint64_t since_ms = alert_view(list[i]).since_ms;
        alerts_show(c, list[i], &s);
        rpc_out_map(o, NULL);
        rpc_out_str(o, "alert", s.name);
        rpc_out_str(o, "subject", s.subject);
        rpc_out_str(o, "state", s.state);
        rpc_out_str(o, "severity", s.rule ? s.rule->severity : "info");
        rpc_out_u64(o, "since_ms", now_ms > since_ms ? now_ms - since_ms : 0);
        rpc_out_end(o);
    }
    rpc_out_end(o);
}

static void put_quarantined(const struct control *c, struct rpc_out *o)
{
    char names[GUARD_NAMES + 1], covers[GUARD_URL + 2], text[GUARD_NAMES + GUARD_URL + 300];
    const struct guard_scope *s;
    rpc_out_list(o, "quarantined");
    for (uint32_t i = 0; i < c->config->n_routes; i++) {
        const struct config_route *route = &c->config->routes[i];
        for (uint32_t n = 0; (s = quarantine_nth(c, route, n)); n++) {
            quarantine_names(s, names);
            guard_scope_covers(s, covers);
            snprintf(text, sizeof text, "%.200s%s%s (differs by %s)", route->pattern,
                     *covers ? ": " : "", covers, names);
            rpc_out_str(o, NULL, text);
        }
    }
    rpc_out_end(o);
}

/* Nothing where there is none. */
static void put_fleet(const struct control *c, struct rpc_out *o)
{
    struct fleet_view v;
    char text[160];
    if (!fleet_member_view(c, &v))
        return;
    snprintf(text, sizeof text, "%s %s", v.connected ? "member of" : "cut off from", v.name);
    rpc_out_str(o, "fleet", text);
}

void status_show(struct control *c, const struct rpc_call *call)
{
    const struct proc_table *proc = c->shared->proc;
    const uint64_t now_ms = clock_mono_ms();
    struct workers_count workers;
    struct health health;
    health_get(c, &health);
    health_count_workers(c, &workers);
    struct rpc_out *o = rpc_reply_result(call->reply);
    rpc_out_map(o, NULL);
    rpc_out_str(o, "version", POLDER_VERSION);
    rpc_out_u64(o, "uptime_ms", now_ms - atomic_load(&proc->started_ms));
    rpc_out_bool(o, "ready", health.ready);
    rpc_out_bool(o, "draining", atomic_load(&proc->draining) != 0);
    rpc_out_bool(o, "drained", atomic_load(&proc->drained) != 0);
    rpc_out_str(o, "configuration", c->config->path);
    rpc_out_u64(o, "generation", atomic_load(&proc->generation));
    rpc_out_u64(o, "workers_ready", workers.ready);
    rpc_out_u64(o, "workers", workers.wanted);
    rpc_out_str(o, "supervisor", supervisor_text(c));
    put_fleet(c, o);
    put_traffic(c, o);
    put_listeners(c, o);
    rpc_out_str(o, "ops", c->config->ops_listen.len ? c->config->ops_listen.text : "");
    put_quarantined(c, o);
    put_alerts(c, o);
    put_conditions(o, &health);
    put_processes(c, o, now_ms);
    rpc_out_end(o);
    rpc_reply_send(call->reply);
}
