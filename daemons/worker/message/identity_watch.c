/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * identity_watch: notices routes whose cache is of little use, since most of their requests pass by
 * it for one field that says who asks: a condition that names the field and the remedies.
 *
 * Each worker judges what it has seen itself, WINDOW requests of a route at a time. Which field it
 * is comes out by majority vote: a field that passes more than half of all requests by is never
 * voted down. The condition falls at a lower share than it rises at, for workers see different
 * clients.
 */
#include "daemons/worker/message/identity.h"
#include "daemons/worker/message/request.h"
#include "daemons/worker/worker.h"
#include "daemons/worker/message/route_state.h"
#include "polder/conditions.h"

#include <stdio.h>
#include <string.h>

#define WINDOW 50

void identity_note_bypass(const struct request *r, const char *detail)
{
    struct identity_counts *c = &r->worker->routes[r->route->index].identity_counts;
    const char *colon = strchr(detail, ' '), *name = colon ? colon + 1 : detail;
    const size_t len = strcspn(name, ","), n = len < sizeof c->field ? len : sizeof c->field - 1;
    if (c->votes && (strlen(c->field) != n || memcmp(c->field, name, n) != 0)) {
        c->votes--;
        return;
    }
    if (!c->votes) {
        memcpy(c->field, name, n);
        c->field[n] = 0;
        c->bypassed = 0;
    }
    c->votes++;
    c->bypassed++;
}

static void judge(struct worker *w, const struct config_route *route, struct identity_counts *c)
{
    char reason[CONDITION_REASON];
    struct condition_table *table = w->shared->conditions;
    if (c->bypassed > c->requests / 2) {
        snprintf(reason, sizeof reason,
                 "%u of %u for %.30s; partition = identity, share = true or ignore_cookies",
                 c->bypassed, c->requests, c->field);
        condition_raise(table, COND_IDENTITY_BYPASS, route->pattern, reason, w->real_ms);
    } else if (c->bypassed < c->requests / 3) {
        condition_clear(table, COND_IDENTITY_BYPASS, route->pattern, w->real_ms);
    }
    *c = (struct identity_counts){0};
}

void identity_watch(struct worker *w)
{
    for (uint32_t i = 0; i < w->config->n_routes; i++) {
        const struct config_route *route = &w->config->routes[i];
        struct identity_counts *c = &w->routes[route->index].identity_counts;
        if (c->requests >= WINDOW)
            judge(w, route, c);
    }
}

static bool has_cache(void *arg, const char *subject)
{
    const struct config *config = arg;
    for (uint32_t i = 0; i < config->n_routes; i++)
        if (config->routes[i].cache && condition_subject_is(subject, config->routes[i].pattern))
            return true;
    return false;
}

void identity_watch_begin(struct worker *w)
{
    condition_clear_except(w->shared->conditions, COND_IDENTITY_BYPASS, has_cache,
                           (void *)(uintptr_t)w->config, w->real_ms);
}
