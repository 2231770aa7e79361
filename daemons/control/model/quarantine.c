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

struct guard_scope *quarantine_nth(const struct control *c, const struct config_route *route,
                                   uint32_t n)
{
    struct guard_route *g = quarantine_find(c, route);
    return g ? guard_scope_at(g, n) : NULL;
}

const struct guard_scope *quarantine_of(const struct control *c, const struct config_route *route,
                                        const char *url, size_t len)
{
    struct guard_route *g = quarantine_find(c, route);
    return g ? guard_scope_of(g, url, len) : NULL;
}

void quarantine_names(const struct guard_scope *s, char names[GUARD_NAMES + 1])
{
    guard_scope_names(s, names);
    if (!*names)
        strcpy(names, "identity");
}

/* "URL host/path of route \"/x\"" */
static void describe(const struct config_route *route, const struct guard_scope *s, char *out,
                     size_t size)
{
    char covers[GUARD_URL + 2];
    guard_scope_covers(s, covers);
    snprintf(out, size, "%s%s%sroute \"%s\"",
             !*covers                   ? ""
             : guard_scope_is_prefix(s) ? "directory "
                                        : "URL ",
             covers, *covers ? " of " : "", route->pattern);
}

static void quarantine_log(const struct config_route *route, const struct guard_scope *s)
{
    char names[GUARD_NAMES + 1], url[GUARD_URL + 1], covers[GUARD_URL + 2], what[GUARD_URL + 1100];
    guard_scope_names(s, names);
    guard_scope_url(s, url);
    guard_scope_covers(s, covers);
    describe(route, s, what, sizeof what);
    log_error("cache: %s is quarantined: its responses differ by %s (seen at %s) and do "
              "not say so in Vary; nothing of it is stored or served from the store until "
              "\"polderctl cache guard --release %s\", see polder-runbook(7)",
              what, *names ? names : "identity", *url ? url : "some URL",
              *covers ? covers : route->pattern);
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
static bool is_covered(const struct config_cache *cache, const struct guard_scope *s)
{
    char names[GUARD_NAMES + 1];
    guard_scope_names(s, names);
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
static bool is_named_in_time(const struct guard_scope *s)
{
    const uint64_t since_ms = atomic_load(&s->since_ms), now_ms = clock_real_ms();
    return atomic_load(&s->names_len) || now_ms < since_ms || now_ms > since_ms + GUARD_HOLD_MS;
}

/* What is stored of it is gone. */
static void forget(struct control *c, const struct config_route *route, const struct guard_scope *s)
{
    char text[GUARD_URL + 1];
    const size_t len = atomic_load(&s->len);
    snprintf(text, sizeof text, "%.*s", (int)(len < GUARD_URL ? len : GUARD_URL), s->url);
    invalidate_below(c, len ? text : route->prefix);
}

static void follow_scope(struct control *c, const struct config_route *route, struct guard_scope *s,
                         bool alone)
{
    char what[GUARD_URL + 1100];
    if (alone && is_covered(route->cache, s)) {
        describe(route, s, what, sizeof what);
        log_info("cache: %s is released from quarantine: its partition holds what its responses "
                 "differ by",
                 what);
        guard_release(quarantine_find(c, route), s, c->shared->inval);
        return;
    }
    if (atomic_load(&s->notified) < GUARD_NOTIFIED_STORE) {
        forget(c, route, s);
        atomic_store(&s->notified, GUARD_NOTIFIED_STORE);
    }
    if (atomic_load(&s->notified) < GUARD_NOTIFIED_LOG && is_named_in_time(s)) {
        quarantine_log(route, s);
        atomic_store(&s->notified, GUARD_NOTIFIED_LOG);
    }
}

static void follow_route(struct control *c, const struct config_route *route, bool alone)
{
    struct guard_route *g = quarantine_find(c, route);
    for (uint32_t i = 0; g && i <= GUARD_SCOPES; i++)
        if (guard_scope_holds(g, &g->scope[i]))
            follow_scope(c, route, &g->scope[i], alone);
}

/* True: it is quarantined, or some of it. */
static bool raise_route(const struct control *c, const struct config_route *route)
{
    char names[GUARD_NAMES + 1] = "", covers[GUARD_URL + 2] = "", reason[GUARD_NAMES + 160];
    const struct guard_scope *first = quarantine_nth(c, route, 0);
    if (first) {
        guard_scope_names(first, names);
        guard_scope_covers(first, covers);
    }
    snprintf(reason, sizeof reason, "%s%.80s%s differ by %s", *covers ? "those of " : "they",
             covers, first && quarantine_nth(c, route, 1) ? " and others" : "",
             *names ? names : "identity");
    condition_set(c->shared->conditions, COND_ROUTE_QUARANTINED, route->pattern, first != NULL,
                  reason, clock_real_ms());
    return first != NULL;
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
                  "each answer of the backend differs; state partition, private or Vary, which "
                  "the guard cannot determine",
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

static void release_part(struct control *c, const struct config_route *route, struct guard_scope *s)
{
    forget(c, route, s); /* what was asked for before, too */
    guard_release(quarantine_find(c, route), s, c->shared->inval);
}

/* All of it. */
static bool release_route(struct control *c, const struct config_route *route)
{
    struct guard_route *g = quarantine_find(c, route);
    if (!quarantine_nth(c, route, 0))
        return false;
    if (guard_is_closed(g))
        guard_release(g, &g->scope[0], c->shared->inval);
    for (struct guard_scope *s; (s = quarantine_nth(c, route, 0));)
        release_part(c, route, s);
    return true;
}

/* "host/path", or "host/directory/" with or without '*', as it is shown, or as a URL. */
static bool is_named(const struct guard_scope *s, const char *text)
{
    char covers[GUARD_URL + 2];
    const char *scheme = strstr(text, "://");
    const char *name = scheme ? scheme + 3 : text;
    guard_scope_covers(s, covers);
    const size_t len = strlen(covers);
    return len && (!strcmp(covers, name) || (covers[len - 1] == '*' && strlen(name) == len - 1 &&
                                             !memcmp(covers, name, len - 1)));
}

static bool release_parts(struct control *c, const char *text)
{
    bool any = false;
    for (uint32_t i = 0; i < c->config->n_routes; i++) {
        struct guard_route *g = quarantine_find(c, &c->config->routes[i]);
        for (uint32_t n = 1; g && n <= GUARD_SCOPES; n++) {
            struct guard_scope *s = &g->scope[n];
            if (!guard_scope_holds(g, s) || !is_named(s, text))
                continue;
            release_part(c, &c->config->routes[i], s);
            any = true;
        }
    }
    return any;
}

bool quarantine_release(struct control *c, const struct config_route *route, const char *text)
{
    const bool any = route ? release_route(c, route) : release_parts(c, text);
    quarantine_follow(c);
    return any;
}
