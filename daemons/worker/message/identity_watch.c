/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * identity_watch: notices routes whose cache has little effect, because most requests bypass it for
 * one identity field: raises a condition that names the field and the remedies.
 *
 * Each worker judges its own requests, WINDOW of a route at a time. The field is found by majority
 * vote: one that makes more than half of all requests bypass is never voted down. The condition is
 * cleared at a lower share than it is raised at, because workers see different clients.
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
