/* SPDX-License-Identifier: BSD-2-Clause */
/* quarantine: see quarantine.h. */
#include "daemons/control/model/quarantine.h"
#include "daemons/control/control.h"
#include "daemons/control/model/invalidation.h"
#include "daemons/control/regions.h"
#include "polder/clock.h"
#include "polder/conditions.h"
#include "polder/config.h"
#include "polder/log.h"

#include <stdio.h>
#include <string.h>

struct guard_route *quarantine_find(const struct control *c, const struct config_route *route)
{
    return route->cache ? guard_route_find(c->shared->guard, route->id, false) : NULL;
}

bool quarantine_holds(const struct control *c, const struct config_route *route)
{
    const struct guard_route *g = quarantine_find(c, route);
    return g && guard_is_closed(g);
}

bool quarantine_names(const struct control *c, const struct config_route *route,
                      char names[GUARD_NAMES + 1])
{
    if (!quarantine_holds(c, route))
        return false;
    guard_route_names(quarantine_find(c, route), names);
    if (!*names)
        strcpy(names, "who asks");
    return true;
}

static void quarantine_log(const struct config_route *route, const struct guard_route *g)
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
    struct guard_route *g = quarantine_find(c, route);
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
        invalidate_below(c, route->prefix);
        atomic_store(&g->told, GUARD_TOLD_STORE);
    }
    if (atomic_load(&g->told) < GUARD_TOLD_LOG && is_named_in_time(g)) {
        quarantine_log(route, g);
        atomic_store(&g->told, GUARD_TOLD_LOG);
    }
}

/* True: it is quarantined. */
static bool raise_route(const struct control *c, const struct config_route *route)
{
    char names[GUARD_NAMES + 1] = "", reason[GUARD_NAMES + 32];
    const bool closed = quarantine_holds(c, route);
    if (closed)
        guard_route_names(quarantine_find(c, route), names);
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
    const struct guard_route *g = quarantine_find(c, route);
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

void quarantine_follow(struct control *c)
{
    struct config_region *region[SHARED_REGIONS];
    const bool alone = regions_live(c, region) == 1; /* no process has the old partition */
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

void quarantine_release(struct control *c, const struct config_route *route)
{
    guard_route_release(quarantine_find(c, route), c->shared->inval);
    quarantine_follow(c);
}
