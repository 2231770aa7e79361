/* SPDX-License-Identifier: BSD-2-Clause */
/* fleet: the hosts that share a store, as this one sees them. */
#include "daemons/control/call.h"
#include "daemons/control/control.h"
#include "daemons/control/methods/methods.h"
#include "daemons/control/model/fleet_member.h"
#include "daemons/control/model/fleet_share.h"
#include "daemons/control/model/fleet_slots.h"
#include "polder/config_keys.h"
#include "polder/fleet_grants.h"
#include "polder/fleet_slots.h"
#include "polder/shared.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* "0.1.0", and in which versions it writes the store. */
static void put_versions(struct rpc_out *o, const struct fleet_host *h)
{
    char writes[48];
    snprintf(writes, sizeof writes, "%u/%u/%u", h->format, h->entry, h->object);
    rpc_out_str(o, "version", *h->program ? h->program : "unknown");
    rpc_out_str(o, "writes", writes);
}

static void put_host(struct rpc_out *o, const struct fleet_view *v, const struct fleet_host *h)
{
    rpc_out_map(o, NULL);
    rpc_out_str(o, "host", h->name);
    rpc_out_bool(o, "self", h->self);
    rpc_out_str(o, "state", h->foreign ? "stranger" : h->alive ? "member" : "cut off");
    rpc_out_u64(o, "applied", h->applied);
    rpc_out_u64(o, "lag", v->last > h->applied ? v->last - h->applied : 0);
    rpc_out_f64(o, "behind_seconds", (double)h->late_ms / 1000);
    rpc_out_f64(o, "lease_seconds", (double)h->lease_ms / 1000);
    put_versions(o, h);
    rpc_out_end(o);
}

static void put_hosts(struct rpc_out *o, const struct fleet_view *v)
{
    rpc_out_list(o, "hosts");
    for (uint32_t i = 0; i < v->n; i++)
        put_host(o, v, &v->at[i]);
    rpc_out_end(o);
}

static void put_servers(struct rpc_out *o, const struct fleet_view *v)
{
    if (!v->n_servers)
        return;
    rpc_out_list(o, "servers");
    for (uint32_t i = 0; i < v->n_servers; i++) {
        rpc_out_map(o, NULL);
        rpc_out_str(o, "server", v->server[i].name);
        rpc_out_str(o, "state", v->server[i].state);
        rpc_out_str(o, "why", v->server[i].why);
        rpc_out_end(o);
    }
    rpc_out_end(o);
}

static void put_cache(struct control *c, struct rpc_out *o)
{
    struct fleet_share_view v;
    fleet_member_share_view(c, &v);
    rpc_out_str(o, "cache", !v.shares ? "off" : v.quick ? "in use" : "left out");
    if (!v.shares)
        return;
    rpc_out_u64(o, "hits", v.hits);
    rpc_out_u64(o, "misses", v.misses);
    rpc_out_u64(o, "waits", v.waits);
    rpc_out_u64(o, "late", v.late);
    rpc_out_u64(o, "puts", v.puts);
    rpc_out_u64(o, "left_out", v.left_out);
    rpc_out_u64(o, "outdated", v.overtaken);
    rpc_out_u64(o, "rejected", v.rejected);
}

/* Where limits hold over the fleet. */
static void put_limits(const struct control *c, struct rpc_out *o)
{
    const struct fleet_grants *g = c->shared->fleet_grants;
    if (!fleet_member_has_limits(c->config))
        return;
    rpc_out_map(o, "limits");
    rpc_out_str(o, "state", fleet_member_limits_state(c));
    rpc_out_f64(o, "share_percent", atomic_load(&g->share) / (FLEET_SHARE_WHOLE / 100.));
    rpc_out_u64(o, "hosts", atomic_load(&g->hosts));
    rpc_out_u64(o, "granted", atomic_load(&g->taken));
    rpc_out_u64(o, "refusals", atomic_load(&g->refused));
    rpc_out_u64(o, "calls", atomic_load(&g->calls));
    rpc_out_u64(o, "waited", atomic_load(&g->waited));
    rpc_out_u64(o, "waited_in_vain", atomic_load(&g->late));
    rpc_out_end(o);
}

/* Where requests under way, or WebSockets, are counted over the fleet. */
static void put_slots(const struct control *c, struct rpc_out *o)
{
    const struct fleet_slots *p = c->shared->fleet_slots;
    struct fleet_slots_view v;
    if (!fleet_member_has_slots(c))
        return;
    fleet_slots_view(c->shared, 0, &v);
    rpc_out_map(o, "slots");
    rpc_out_str(o, "state", v.comes ? "granted" : "cut off");
    if (!v.comes)
        rpc_out_f64(o, "kept_seconds", (double)v.left_ms / 1000);
    rpc_out_u64(o, "keys", v.keys);
    rpc_out_u64(o, "requests_held", v.held[FLEET_SLOT_REQUEST]);
    rpc_out_u64(o, "requests_in_use", v.used[FLEET_SLOT_REQUEST]);
    rpc_out_u64(o, "websockets_held", v.held[FLEET_SLOT_WEBSOCKET]);
    rpc_out_u64(o, "websockets_in_use", v.used[FLEET_SLOT_WEBSOCKET]);
    rpc_out_u64(o, "granted", atomic_load(&p->taken));
    rpc_out_u64(o, "refusals", atomic_load(&p->refused));
    rpc_out_u64(o, "calls", atomic_load(&p->calls));
    rpc_out_u64(o, "waited", atomic_load(&p->waited));
    rpc_out_u64(o, "waited_in_vain", atomic_load(&p->late));
    rpc_out_u64(o, "ended", atomic_load(&p->ended));
    rpc_out_end(o);
}

void fleet_show(struct control *c, const struct rpc_call *call)
{
    struct fleet_view v;
    if (!fleet_member_view(c, &v)) {
        call_error(c, call->reply, RPC_BAD_ARGUMENT,
                   "this host is in no fleet: the configuration has no section fleet");
        return;
    }
    struct rpc_out *o = rpc_reply_result(call->reply);
    rpc_out_map(o, NULL);
    rpc_out_str(o, "fleet", v.name);
    rpc_out_str(o, "host", v.host);
    rpc_out_str(o, "store", v.store);
    rpc_out_str(o, "state", v.connected ? "member" : "cut off");
    rpc_out_u64(o, "since_ms", v.since_ms);
    if (!v.connected) {
        rpc_out_str(o, "why", v.why);
        rpc_out_str(o, "cut_off",
                    config_word(&config_rows[CONFIG_FLEET_cut_off], c->config->fleet.cut_off));
    }
    rpc_out_u64(o, "applied", v.applied);
    rpc_out_u64(o, "lag", v.last > v.applied ? v.last - v.applied : 0);
    rpc_out_f64(o, "behind_seconds", (double)v.late_ms / 1000);
    rpc_out_u64(o, "sent", v.sent);
    rpc_out_u64(o, "accepted", v.received);
    rpc_out_u64(o, "pending", v.pending);
    rpc_out_u64(o, "gaps", v.gaps);
    rpc_out_u64(o, "strange", v.strange);
    put_cache(c, o);
    put_limits(c, o);
    put_slots(c, o);
    put_servers(o, &v);
    put_hosts(o, &v);
    rpc_out_end(o);
    rpc_reply_send(call->reply);
}

/* ---- forget ---- */

struct forgetting {
    struct control *control;
    struct rpc_reply *reply;
    char host[FLEET_HOST_SIZE];
};

static void answer_forgotten(struct forgetting *f, uint64_t holders)
{
    struct rpc_out *o = rpc_reply_result(f->reply);
    rpc_out_map(o, NULL);
    rpc_out_str(o, "forgotten", f->host);
    rpc_out_bool(o, "held_places", holders != 0);
    rpc_out_end(o);
    rpc_reply_send(f->reply);
}

static void on_forgotten(void *arg, enum fleet_forgotten what, uint64_t n)
{
    struct forgetting *f = arg;
    if (what == FLEET_FORGOTTEN)
        answer_forgotten(f, n);
    else if (what == FLEET_FORGET_LIVES)
        call_error(f->control, f->reply, RPC_BUSY,
                   "%s is a member: its lease has %" PRIu64 " ms left; stop it first", f->host, n);
    else if (what == FLEET_FORGET_UNKNOWN)
        call_error(f->control, f->reply, RPC_NOT_FOUND, "no host of the fleet is called %s",
                   f->host);
    else
        call_error(f->control, f->reply, RPC_UNAVAILABLE, "this host is cut off from its fleet");
    free(f);
}

void fleet_forget_host(struct control *c, const struct rpc_call *call)
{
    struct forgetting *f = malloc(sizeof *f);
    if (!f) {
        call_error(c, call->reply, RPC_BUSY, "no memory");
        return;
    }
    *f = (struct forgetting){.control = c, .reply = call->reply};
    if (rpc_in_text(call->params, "host", f->host, sizeof f->host) <= 0)
        call_error(c, call->reply, RPC_BAD_ARGUMENT, "host is the name of a host of the fleet");
    else if (fleet_member_forget(c, f->host, on_forgotten, f))
        return;
    else
        call_error(c, call->reply, RPC_BAD_ARGUMENT,
                   "this host is in no fleet: the configuration has no section fleet");
    free(f);
}
