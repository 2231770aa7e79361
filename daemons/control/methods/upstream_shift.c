/* SPDX-License-Identifier: BSD-2-Clause */
/* upstream_shift: upstream.shift and why. */
#include "daemons/control/call.h"
#include "daemons/control/control.h"
#include "daemons/control/methods/methods.h"
#include "daemons/control/model/servers.h"
#include "daemons/control/model/shift.h"
#include "polder/clock.h"
#include "polder/edit_distance.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define NAME_TEXT 256
#define TIME_MAX  UINT64_C(604800000) /* a week */

/* ---- what is meant ---- */

static void unknown(struct control *c, const struct rpc_call *call, const char *what,
                    const char *name, const char *near)
{
    if (near && edit_distance(name, near) < 4)
        call_error(c, call->reply, RPC_NOT_FOUND, "there is no %s \"%.200s\"; did you mean \"%s\"?",
                   what, name, near);
    else
        call_error(c, call->reply, RPC_NOT_FOUND,
                   "there is no %s \"%.200s\"; upstream list shows upstreams and their servers",
                   what, name);
}

/* NULL: the call is answered. */
static const struct config_upstream *upstream_named(struct control *c, const struct rpc_call *call)
{
    char name[NAME_TEXT];
    const char *near = NULL;
    if (rpc_in_text(call->params, "upstream", name, sizeof name) < 0) {
        call_error(c, call->reply, RPC_BAD_ARGUMENT, "upstream is missing, or no name");
        return NULL;
    }
    for (uint32_t i = 0; i < c->config->n_upstreams; i++) {
        const char *one = c->config->upstreams[i].name;
        if (!strcmp(one, name))
            return &c->config->upstreams[i];
        if (!near || edit_distance(name, one) < edit_distance(name, near))
            near = one;
    }
    unknown(c, call, "upstream", name, near);
    return NULL;
}

static const struct config_server *server_named(struct control *c, const struct rpc_call *call,
                                                const struct config_upstream *u)
{
    char name[NAME_TEXT];
    const char *near = NULL;
    if (rpc_in_text(call->params, "server", name, sizeof name) < 0) {
        call_error(c, call->reply, RPC_BAD_ARGUMENT, "server is missing, or no name");
        return NULL;
    }
    for (uint32_t i = 0; i < u->n_servers; i++) {
        const char *one = u->servers[i].address.text;
        if (!strcmp(one, name))
            return &u->servers[i];
        if (!near || edit_distance(name, one) < edit_distance(name, near))
            near = one;
    }
    unknown(c, call, "server", name, near);
    return NULL;
}

/* False: the call is answered. */
static bool duration(struct control *c, const struct rpc_call *call, const char *key, uint64_t min,
                     uint64_t *ms)
{
    char text[64];
    const int len = rpc_in_text(call->params, key, text, sizeof text);
    if (len == -ENOENT)
        return true;
    if (len >= 0 && !config_parse_duration(text, ms) && *ms >= min && *ms <= TIME_MAX)
        return true;
    call_error(c, call->reply, RPC_BAD_ARGUMENT, "%s is a duration between %u s and 7d", key,
               (unsigned)(min / 1000));
    return false;
}

/* Where it stands now: a walk begins with the step behind that. */
static uint32_t percent_now(const struct control *c, const struct config_server *server)
{
    const struct shift_state *s = shift_of(c, server->upstream);
    return s && !strcmp(s->server, server->address.text) ? s->percent : 0;
}

static bool read_order(struct control *c, const struct rpc_call *call, struct shift_order *o)
{
    uint64_t percent = 0;
    o->walks = rpc_in_flag(call->params, "auto");
    o->guarded = o->walks || rpc_in_flag(call->params, "guard");
    o->hold_ms = SHIFT_HOLD_MS;
    o->max_ms = SHIFT_MAX_MS;
    const int given = rpc_in_u64(call->params, "percent", 100, &percent);
    if ((given && given != -ENOENT) || (given == -ENOENT && !o->walks)) {
        call_error(c, call->reply, RPC_BAD_ARGUMENT,
                   "percent is a whole number from 0 to 100: the share that the server gets");
        return false;
    }
    if (rpc_in_get(call->params, "smoke")) {
        call_error(c, call->reply, RPC_BAD_ARGUMENT,
                   "smoke: these requests are made by polderctl, before it calls this");
        return false;
    }
    o->percent = given ? shift_next_percent(percent_now(c, o->server)) : (uint32_t)percent;
    return duration(c, call, "hold", SHIFT_CHECK_MS, &o->hold_ms) &&
           duration(c, call, "max", SHIFT_CHECK_MS, &o->max_ms);
}

/* ---- answers ---- */

static void put_weights(const struct control *c, struct rpc_out *o, const struct config_upstream *u)
{
    struct runtime_values values;
    runtime_read(c->runtime, &values);
    rpc_out_map(o, "weights");
    for (uint32_t i = 0; i < u->n_servers; i++)
        rpc_out_u64(o, u->servers[i].address.text, values.server[u->servers[i].index].weight);
    rpc_out_end(o);
}

static void put_head(const struct control *c, struct rpc_out *o, const struct config_upstream *u,
                     const struct shift_state *s)
{
    const uint64_t now_ms = clock_real_ms();
    rpc_out_str(o, "upstream", u->name);
    rpc_out_str(o, "server", s->server);
    rpc_out_u64(o, "percent", s->percent);
    rpc_out_str(o, "state", shift_phase_name((enum shift_phase)s->phase));
    rpc_out_u64(o, "since_ms", now_ms > s->moved_ms ? now_ms - s->moved_ms : 0);
    rpc_out_str(o, "guard", shift_guard_text(s));
    put_weights(c, o, u);
}

static void put_side(struct rpc_out *o, const struct shift_watch *w, enum shift_side side,
                     const char *name)
{
    rpc_out_map(o, name);
    rpc_out_u64(o, "requests", w->since[side].requests);
    rpc_out_u64(o, "errors", w->since[side].errors);
    rpc_out_f64(o, "error_percent", 100 * shift_error_rate(w, side));
    rpc_out_f64(o, "p95_seconds", shift_p95_s(w, side));
    rpc_out_end(o);
}

static void put_numbers(struct rpc_out *o, const struct shift_state *s)
{
    const struct shift_watch *w = &s->watch;
    rpc_out_f64(o, "z", w->z);
    if (w->chance > 0)
        rpc_out_f64(o, "chance_percent", 100 * w->chance);
    rpc_out_f64(o, "evidence", w->rise.evidence);
    rpc_out_f64(o, "evidence_limit", proportion_rise_limit(w->since[SHIFT_NEW].requests));
    put_side(o, w, SHIFT_NEW, "new");
    put_side(o, w, SHIFT_OTHER, "other");
}

/* ---- methods ---- */

static void stop(struct control *c, const struct rpc_call *call)
{
    const struct config_upstream *u = upstream_named(c, call);
    if (!u)
        return;
    if (!shift_stop(c, u->name)) {
        call_error(c, call->reply, RPC_NOT_FOUND, "no guard watches a shift of upstream %s",
                   u->name);
        return;
    }
    struct rpc_out *o = rpc_reply_result(call->reply);
    rpc_out_map(o, NULL);
    put_head(c, o, u, shift_of(c, u));
    rpc_out_end(o);
    rpc_reply_send(call->reply);
}

void upstream_shift(struct control *c, const struct rpc_call *call)
{
    struct shift_order order = {0};
    if (rpc_in_flag(call->params, "stop")) {
        stop(c, call);
        return;
    }
    const struct config_upstream *u = upstream_named(c, call);
    if (!u || !(order.server = server_named(c, call, u)) || !read_order(c, call, &order))
        return;
    const char *why = shift_begin(c, &order);
    if (why) {
        call_error(c, call->reply, RPC_FAILED, "%s; nothing is changed", why);
        return;
    }
    char next[160];
    const struct shift_state *s = shift_of(c, u);
    struct rpc_out *o = rpc_reply_result(call->reply);
    rpc_out_map(o, NULL);
    put_head(c, o, u, s);
    shift_describe_next(s, next, sizeof next);
    rpc_out_str(o, "next", next);
    rpc_out_end(o);
    rpc_reply_send(call->reply);
}

void upstream_why(struct control *c, const struct rpc_call *call)
{
    char text[SHIFT_REASON];
    const struct config_upstream *u = upstream_named(c, call);
    const struct shift_state *s = u ? shift_of(c, u) : NULL;
    if (!u)
        return;
    struct rpc_out *o = rpc_reply_result(call->reply);
    rpc_out_map(o, NULL);
    if (!s) {
        rpc_out_str(o, "upstream", u->name);
        rpc_out_str(o, "state", "no shift");
        put_weights(c, o, u);
    } else {
        put_head(c, o, u, s);
        if (s->phase == SHIFT_ROLLED_BACK)
            rpc_out_str(o, "rule", shift_rule_name((enum shift_rule)s->watch.rule));
        shift_explain(&s->watch, text, sizeof text);
        rpc_out_str(o, "seen", *s->reason ? s->reason : text);
        put_numbers(o, s);
        shift_describe_next(s, text, sizeof text);
        rpc_out_str(o, "next", text);
    }
    rpc_out_end(o);
    rpc_reply_send(call->reply);
}
