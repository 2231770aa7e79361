/* SPDX-License-Identifier: BSD-2-Clause */
/* route_settings: see route_settings.h. */
#include "daemons/worker/route_settings.h"
#include "daemons/worker/fetch/fetch.h"
#include "daemons/worker/message/route_state.h"
#include "daemons/worker/request/limits.h"
#include "daemons/worker/worker.h"
#include "polder/config.h"
#include "polder/config_keys.h"
#include "polder/policy.h"

#include <string.h>

static void settings_of(const struct config_cache *top, const struct config_route *route,
                        const struct runtime_cache *running, struct policy_settings *s)
{
    const struct config_cache *c = route->cache;
    *s = (struct policy_settings){.value = *running, .store_set_cookie = c->store_set_cookie};
    s->min_interval_ms = route->poll ? route->poll->min_interval_ms : 0;
    s->rfc = c->share == CONFIG_SHARE_RFC;
    config_live_overlay(CONFIG_SECTION_CACHE, &c->value, c->set, &s->value);
    if (!((c->set | top->set) & CONFIG_BIT(CACHE, ttl_negative)) &&
        running->ttl_negative_ms == top->value.ttl_negative_ms &&
        s->value.ttl_negative_ms > s->value.ttl_ms)
        s->value.ttl_negative_ms = s->value.ttl_ms; /* what is not stated anywhere */
    s->swr_is_stated = (c->set | top->set) & CONFIG_BIT(CACHE, stale_while_revalidate) ||
                       running->stale_while_revalidate_ms != top->value.stale_while_revalidate_ms;
    for (uint32_t i = 0; i < c->n_partition; i++) {
        const struct config_key *k = &c->partition[i];
        if (k->kind == CONFIG_KEY_IDENTITY || k->kind == CONFIG_KEY_JWT ||
            (k->kind == CONFIG_KEY_HEADER && !strcmp(k->name, "authorization")))
            s->partitioned_by_authorization = true;
    }
}

void route_settings_read(struct worker *w)
{
    limits_read(w);
    limit_shadow_read(w);
    w->generation++;
    for (uint32_t i = 0; i < w->config->n_routes; i++) {
        const struct config_route *route = &w->config->routes[i];
        if (route->websocket && !route->upstream)
            w->supervisor.any_subscribers = true;
        if (!route->cache)
            continue;
        w->fetches->any_cache = true;
        settings_of(&w->config->cache, route, &w->runtime.cache, &w->routes[route->index].settings);
    }
    limits_prepare(w);
}
