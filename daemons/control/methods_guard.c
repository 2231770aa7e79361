/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * methods_guard: cache.guard, and what follows when the leak guard has quarantined a route.
 *
 * The quarantine is the worker's word in the page (polder/leak_guard.h) and holds without control.
 * Here it is said in the log, once a start; what is stored of the route is invalidated, so that the
 * keeper deletes it and those who wait for a change of it are told; and it ends here.
 */
#include "daemons/control/control.h"
#include "polder/clock.h"
#include "polder/conditions.h"
#include "polder/config.h"
#include "polder/leak_guard.h"
#include "polder/inval.h"
#include "polder/log.h"

#include <stdio.h>
#include <string.h>

static struct guard_route *find(const struct control *c, const struct config_route *route)
{
    return route->cache ? guard_route_find(c->shared->guard, route->id, false) : NULL;
}

static bool is_quarantined(const struct control *c, const struct config_route *route)
{
    const struct guard_route *g = find(c, route);
    return g && guard_is_closed(g);
}

/* ---- what follows ---- */

static void say(const struct config_route *route, const struct guard_route *g)
{
    char names[GUARD_NAMES + 1], url[GUARD_URL + 1];
    guard_route_names(g, names);
    guard_route_url(g, url);
    log_error("cache: route \"%s\" is quarantined: its responses differ by %s (seen at %s) and do "
              "not say so in Vary; nothing of it is stored or served from the store until "
              "\"polderctl cache guard --release %s\", see polder-runbook(7)",
              route->pattern, *names ? names : "who asks", *url ? url : "some URL", route->pattern);
}

/* name: "x-api-key" or "cookie:sid". */
static bool key_holds(const struct config_cache *cache, const char *name, size_t len)
{
    for (uint32_t i = 0; i < cache->n_partition; i++) {
        const struct config_key *k = &cache->partition[i];
        char text[GUARD_NAMES + 1] = "";
        if (k->kind == CONFIG_KEY_HEADER || k->kind == CONFIG_KEY_JWT)
            snprintf(text, sizeof text, "%s",
                     k->kind == CONFIG_KEY_JWT ? "authorization" : k->name);
        else if (k->kind == CONFIG_KEY_COOKIE)
            snprintf(text, sizeof text, "cookie:%s", k->name);
        if (strlen(text) == len && !memcmp(text, name, len))
            return true;
    }
    return false;
}

/* Does the partition of the route hold everything that the content differs by? */
static bool is_covered(const struct config_cache *cache, const struct guard_route *g)
{
    char names[GUARD_NAMES + 1];
    guard_route_names(g, names);
    if (!*names)
        return false;
    for (const char *at = names; *at;) {
        const size_t len = strcspn(at, ",");
        if (!key_holds(cache, at, len))
            return false;
        at += len + strspn(at + len, ", ");
    }
    return true;
}

/* Long enough for the worker that has closed it to find out what it differs by. */
static bool is_named_in_time(const struct guard_route *g)
{
    const uint64_t since_ms = atomic_load(&g->since_ms), now_ms = clock_real_ms();
    return atomic_load(&g->names_len) || now_ms < since_ms || now_ms > since_ms + GUARD_HOLD_MS;
}

static void follow_route(struct control *c, const struct config_route *route, bool alone)
{
    struct guard_route *g = find(c, route);
    if (!g || !guard_is_closed(g))
        return;
    if (alone && is_covered(route->cache, g)) {
        log_info("cache: route \"%s\" is released from quarantine: its partition holds what its "
                 "responses differ by",
                 route->pattern);
        guard_route_release(g, c->shared->inval);
        return;
    }
    if (atomic_load(&g->told) < GUARD_TOLD_STORE) {
        cache_forget_prefix(c, route->prefix);
        atomic_store(&g->told, GUARD_TOLD_STORE);
    }
    if (atomic_load(&g->told) < GUARD_TOLD_LOG && is_named_in_time(g)) {
        say(route, g);
        atomic_store(&g->told, GUARD_TOLD_LOG);
    }
}

/* True: it is quarantined. */
static bool raise_route(const struct control *c, const struct config_route *route)
{
    char names[GUARD_NAMES + 1] = "", reason[GUARD_NAMES + 32];
    const bool closed = is_quarantined(c, route);
    if (closed)
        guard_route_names(find(c, route), names);
    snprintf(reason, sizeof reason, "they differ by %s", *names ? names : "who asks");
    condition_set(c->shared->conditions, COND_ROUTE_QUARANTINED, route->pattern, closed, reason,
                  clock_real_ms());
    return closed;
}

/* Checks of hits by others than the fetcher, none of which could tell: each answer is another one.
 */
#define INCONCLUSIVE 3

static void raise_inconclusive(const struct control *c, const struct config_route *route)
{
    const struct guard_route *g = find(c, route);
    const uint64_t unstable = g ? atomic_load(&g->unstable) : 0;
    const bool holds = g && route->cache->leak_guard > 0 && unstable >= INCONCLUSIVE &&
                       !atomic_load(&g->same) && !atomic_load(&g->differs);
    condition_set(c->shared->conditions, COND_LEAK_GUARD_INCONCLUSIVE, route->pattern, holds,
                  "each answer of the backend is another one; a partition, private or Vary says "
                  "what the guard cannot find out",
                  clock_real_ms());
}

static bool is_a_route(void *arg, const char *subject)
{
    const struct control *c = arg;
    for (uint32_t i = 0; i < c->config->n_routes; i++)
        if (condition_subject_is(subject, c->config->routes[i].pattern))
            return true;
    return false;
}

void guard_follow(struct control *c)
{
    struct config_region *region[SHARED_REGIONS];
    const bool alone = control_live_regions(c, region) == 1; /* nobody has the old partition */
    uint32_t n = 0;
    for (uint32_t i = 0; i < c->config->n_routes; i++) {
        follow_route(c, &c->config->routes[i], alone);
        n += raise_route(c, &c->config->routes[i]);
        raise_inconclusive(c, &c->config->routes[i]);
    }
    condition_clear_except(c->shared->conditions, COND_LEAK_GUARD_INCONCLUSIVE, is_a_route, c,
                           clock_real_ms());
    condition_clear_except(c->shared->conditions, COND_ROUTE_QUARANTINED, is_a_route, c,
                           clock_real_ms());
    stats_gauge_set(c->stats, STATS_GAUGE_GUARD_QUARANTINED, n);
}

/* ---- what is shown ---- */

const char *guard_why(const struct control *c, const struct config_route *route)
{
    static char text[GUARD_NAMES + 128];
    char names[GUARD_NAMES + 1];
    if (!is_quarantined(c, route))
        return NULL;
    guard_route_names(find(c, route), names);
    snprintf(text, sizeof text,
             "passes to the backend: the route is quarantined, its responses "
             "differ by %s; see cache guard",
             *names ? names : "who asks");
    return text;
}

void guard_put_quarantined(const struct control *c, struct rpc_out *o, const char *key)
{
    char names[GUARD_NAMES + 1], text[GUARD_NAMES + 300];
    rpc_out_list(o, key);
    for (uint32_t i = 0; i < c->config->n_routes; i++) {
        const struct config_route *route = &c->config->routes[i];
        if (!is_quarantined(c, route))
            continue;
        guard_route_names(find(c, route), names);
        snprintf(text, sizeof text, "%.200s (differs by %s)", route->pattern,
                 *names ? names : "who asks");
        rpc_out_str(o, NULL, text);
    }
    rpc_out_end(o);
}

static const char *state_of(const struct config_route *route, const struct guard_route *g)
{
    if (g && guard_is_closed(g))
        return "quarantined";
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

static void put_route(struct rpc_out *o, const struct config_route *route,
                      const struct guard_route *g)
{
    static const struct guard_route nothing;
    char names[GUARD_NAMES + 1], url[GUARD_URL + 1];
    const struct guard_route *seen = g ? g : &nothing;
    guard_route_names(seen, names);
    guard_route_url(seen, url);
    rpc_out_map(o, NULL);
    rpc_out_str(o, "route", route->pattern);
    rpc_out_str(o, "state", state_of(route, g));
    rpc_out_u64(o, "same", atomic_load(&seen->same));
    rpc_out_u64(o, "differs", atomic_load(&seen->differs));
    rpc_out_u64(o, "inconclusive", atomic_load(&seen->unstable) + atomic_load(&seen->failed));
    put_date(o, "checked", atomic_load(&seen->checked_ms));
    put_text(o, "differs_by", names);
    put_text(o, "seen_at", url);
    put_date(o, "since", guard_is_closed(seen) ? atomic_load(&seen->since_ms) : 0);
    rpc_out_end(o);
}

static void list(struct control *c, const struct rpc_call *call)
{
    struct rpc_out *o = rpc_reply_result(call->reply);
    rpc_out_list(o, NULL);
    for (uint32_t i = 0; i < c->config->n_routes; i++)
        if (c->config->routes[i].cache)
            put_route(o, &c->config->routes[i], find(c, &c->config->routes[i]));
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
    char pattern[1024];
    if (!rpc_in_get(call->params, "release")) {
        list(c, call);
        return;
    }
    const struct config_route *route = NULL;
    if (rpc_in_text(call->params, "release", pattern, sizeof pattern) > 0)
        route = route_named(c, pattern);
    if (!route || !is_quarantined(c, route)) {
        admin_error(c, call->reply, route ? RPC_FAILED : RPC_BAD_ARGUMENT,
                    route ? "this route is not quarantined"
                          : "a route is named by its pattern, as cache guard shows it");
        return;
    }
    log_info("admin: cache.guard release=%s by uid %u, pid %d", route->pattern,
             (unsigned)call->peer.uid, (int)call->peer.pid);
    guard_route_release(find(c, route), c->shared->inval);
    guard_follow(c);
    struct rpc_out *o = rpc_reply_result(call->reply);
    rpc_out_map(o, NULL);
    rpc_out_str(o, "released", route->pattern);
    rpc_out_end(o);
    rpc_reply_send(call->reply);
}
