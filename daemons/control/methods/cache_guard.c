/* SPDX-License-Identifier: BSD-2-Clause */
/* cache_guard: cache.guard, what the leak guard has seen of each route, and the end of a
 * quarantine. */
#include "daemons/control/call.h"
#include "daemons/control/control.h"
#include "daemons/control/methods/methods.h"
#include "daemons/control/model/quarantine.h"
#include "polder/config.h"
#include "polder/log.h"

#include <string.h>

static const char *state_of(const struct config_route *route, struct guard_route *g)
{
    if (g && guard_is_closed(g))
        return "quarantined";
    if (g && guard_scope_at(g, 0))
        return "partly quarantined";
    if (route->cache->leak_guard <= 0)
        return "off";
    if (!g || !(atomic_load(&g->same) + atomic_load(&g->unstable) + atomic_load(&g->failed)))
        return "nothing seen";
    return atomic_load(&g->same) ? "the same for all" : "inconclusive";
}

static void put_text(struct rpc_out *o, const char *key, const char *text)
{
    if (*text)
        rpc_out_str(o, key, text);
    else
        rpc_out_nil(o, key);
}

static void put_date(struct rpc_out *o, const char *key, uint64_t real_ms)
{
    if (real_ms)
        rpc_out_u64(o, key, real_ms / 1000);
    else
        rpc_out_nil(o, key);
}

static void put_scope(struct rpc_out *o, const struct guard_scope *s)
{
    char names[GUARD_NAMES + 1] = "", url[GUARD_URL + 1] = "";
    if (s) {
        guard_scope_names(s, names);
        guard_scope_url(s, url);
    }
    put_text(o, "differs_by", names);
    put_text(o, "seen_at", url);
    put_date(o, "since", s ? atomic_load(&s->since_ms) : 0);
}

static void put_route(struct rpc_out *o, const struct config_route *route, struct guard_route *g)
{
    static const struct guard_route nothing;
    const struct guard_route *seen = g ? g : &nothing;
    rpc_out_map(o, NULL);
    rpc_out_str(o, "route", route->pattern);
    rpc_out_str(o, "state", state_of(route, g));
    rpc_out_nil(o, "part");
    rpc_out_u64(o, "same", atomic_load(&seen->same));
    rpc_out_u64(o, "differs", atomic_load(&seen->differs));
    rpc_out_u64(o, "inconclusive", atomic_load(&seen->unstable) + atomic_load(&seen->failed));
    put_date(o, "checked", atomic_load(&seen->checked_ms));
    put_scope(o, g && guard_is_closed(g) ? &g->scope[0] : NULL);
    rpc_out_end(o);
}

/* A row for each part that is quarantined. Its checks are whether it still differs. */
static void put_part(struct rpc_out *o, const struct config_route *route,
                     const struct guard_scope *s)
{
    char covers[GUARD_URL + 2];
    guard_scope_covers(s, covers);
    rpc_out_map(o, NULL);
    rpc_out_str(o, "route", route->pattern);
    rpc_out_str(o, "state", "quarantined");
    rpc_out_str(o, "part", covers);
    rpc_out_u64(o, "same", atomic_load(&s->calm));
    rpc_out_u64(o, "differs", atomic_load(&s->differs));
    rpc_out_nil(o, "inconclusive");
    put_date(o, "checked", atomic_load(&s->tried_ms));
    put_scope(o, s);
    rpc_out_end(o);
}

static void guard_list(struct control *c, const struct rpc_call *call)
{
    struct rpc_out *o = rpc_reply_result(call->reply);
    rpc_out_list(o, NULL);
    for (uint32_t i = 0; i < c->config->n_routes; i++) {
        const struct config_route *route = &c->config->routes[i];
        struct guard_route *g = quarantine_find(c, route);
        if (!route->cache)
            continue;
        put_route(o, route, g);
        for (uint32_t n = 1; g && n <= GUARD_SCOPES; n++)
            if (guard_scope_holds(g, &g->scope[n]))
                put_part(o, route, &g->scope[n]);
    }
    rpc_out_end(o);
    rpc_reply_send(call->reply);
}

static const struct config_route *route_named(const struct control *c, const char *pattern)
{
    for (uint32_t i = 0; i < c->config->n_routes; i++)
        if (!strcmp(c->config->routes[i].pattern, pattern))
            return &c->config->routes[i];
    return NULL;
}

void cache_guard(struct control *c, const struct rpc_call *call)
{
    char text[1024];
    if (!rpc_in_get(call->params, "release")) {
        guard_list(c, call);
        return;
    }
    const bool given = rpc_in_text(call->params, "release", text, sizeof text) > 0;
    const struct config_route *route = given ? route_named(c, text) : NULL;
    if (!given || !quarantine_release(c, route, text)) {
        call_error(c, call->reply, route ? RPC_FAILED : RPC_BAD_ARGUMENT,
                   route ? "this route is not quarantined"
                         : "a route is named by its pattern, a part of one as cache guard shows "
                           "it");
        return;
    }
    log_info("admin: cache.guard release=%s by uid %u, pid %d", text, (unsigned)call->peer.uid,
             (int)call->peer.pid);
    struct rpc_out *o = rpc_reply_result(call->reply);
    rpc_out_map(o, NULL);
    rpc_out_str(o, "released", text);
    rpc_out_end(o);
    rpc_reply_send(call->reply);
}
