/* SPDX-License-Identifier: BSD-2-Clause */
/* route_use: see route_use.h. */
#include "daemons/control/model/route_use.h"
#include "daemons/control/control.h"
#include "polder/clock.h"
#include "polder/config.h"

#include <stdlib.h>

#define LOOK_MS 10000

struct route_use {
    uint64_t looked_ms;
    struct seen {
        uint64_t id; /* of the route; 0: free */
        uint64_t requests;
        uint64_t last_ms; /* real; 0: not since control runs */
    } seen[STATS_ROUTES_MAX];
};

struct route_use *route_use_new(void)
{
    return calloc(1, sizeof(struct route_use));
}

void route_use_free(struct route_use *u)
{
    free(u);
}

uint64_t route_use_requests(const struct stats_route *sums)
{
    uint64_t n = 0;
    for (int i = 1; i < STATS_CLASSES; i++) /* but 1xx */
        n += sums->answers[i];
    return n;
}

/* Its place is that in the configuration; after a reload it may be another's. */
static struct seen *seen_of(struct route_use *u, const struct config_route *route,
                            uint64_t requests)
{
    struct seen *s = &u->seen[route->index % STATS_ROUTES_MAX];
    if (s->id != route->id)
        *s = (struct seen){.id = route->id, .requests = requests};
    return s;
}

uint64_t route_use_last_ms(struct control *c, const struct config_route *route,
                           const struct stats_route *sums)
{
    const uint64_t requests = route_use_requests(sums);
    if (!c->route_use)
        return sums->last_hit_ms;
    struct seen *s = seen_of(c->route_use, route, requests);
    if (s->requests != requests) {
        s->requests = requests;
        s->last_ms = clock_real_ms();
    }
    return sums->last_hit_ms > s->last_ms ? sums->last_hit_ms : s->last_ms;
}

void route_use_follow(struct control *c)
{
    const uint64_t now_ms = clock_mono_ms();
    struct stats_route sums;
    if (!c->route_use || now_ms < c->route_use->looked_ms + LOOK_MS)
        return;
    c->route_use->looked_ms = now_ms;
    for (uint32_t i = 0; i < c->config->n_routes; i++) {
        stats_route_of(c->shared->stats, c->config->routes[i].id, i, &sums);
        route_use_last_ms(c, &c->config->routes[i], &sums);
    }
}
