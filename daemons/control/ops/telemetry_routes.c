/* SPDX-License-Identifier: BSD-2-Clause */
/* telemetry_routes: see telemetry_routes.h. */
#include "daemons/control/ops/telemetry_routes.h"
#include "daemons/control/control.h"
#include "daemons/control/model/route_use.h"
#include "polder/config.h"

#include <inttypes.h>

static void put_ratio(struct text *t, const char *name, uint64_t part, uint64_t all)
{
    if (all)
        text_put(t, ",\"%s\":%.6g", name, (double)part / (double)all);
    else
        text_put(t, ",\"%s\":null", name);
}

static void put_cache(struct text *t, const struct stats_route *sums)
{
    const uint64_t hits = sums->lookup[STATS_LOOKUP_HIT] + sums->lookup[STATS_LOOKUP_STALE],
                   misses = sums->lookup[STATS_LOOKUP_MISS];
    text_put(t,
             ",\"hits\":%" PRIu64 ",\"misses\":%" PRIu64 ",\"collapsed\":%" PRIu64
             ",\"bypassed\":%" PRIu64,
             hits, misses, sums->lookup[STATS_LOOKUP_COLLAPSED], sums->lookup[STATS_LOOKUP_BYPASS]);
    put_ratio(t, "hitRate", hits, hits + misses);
}

static void put_moment(struct text *t, const char *name, uint64_t ms)
{
    if (ms)
        text_put(t, ",\"%s\":%.3f", name, (double)ms / 1000);
    else
        text_put(t, ",\"%s\":null", name);
}

static void put_latencies(struct text *t, const struct distribution *d)
{
    if (d->count)
        text_put(t, ",\"p50\":%.6g,\"p95\":%.6g,\"p99\":%.6g", distribution_quantile_s(d, .5),
                 distribution_quantile_s(d, .95), distribution_quantile_s(d, .99));
    else
        text_put(t, ",\"p50\":null,\"p95\":null,\"p99\":null");
}

static void put_route(struct text *t, struct control *c, const struct config_route *r)
{
    struct stats_route sums;
    stats_route_of(c->shared->stats, r->id, r->index, &sums);
    text_put(t, "{\"route\":\"");
    text_put_json(t, r->pattern);
    text_put(t, "\",\"upstream\":\"");
    text_put_json(t, r->upstream ? r->upstream->name : "");
    text_put(t,
             "\",\"cached\":%s,\"websocket\":%s,\"requests\":%" PRIu64 ",\"errors\":%" PRIu64
             ",\"refused\":%" PRIu64 ",\"backendCalls\":%" PRIu64 ",\"backgroundCalls\":%" PRIu64
             ",\"avoidedCalls\":%" PRIu64 ",\"bytes\":%" PRIu64,
             r->cache ? "true" : "false", r->websocket ? "true" : "false",
             route_use_requests(&sums), sums.answers[4], sums.refused, sums.calls, sums.background,
             stats_route_avoided(&sums), sums.bytes);
    put_cache(t, &sums);
    put_latencies(t, &sums.latency);
    put_moment(t, "lastRequest", route_use_last_ms(c, r, &sums));
    put_moment(t, "lastCacheHit", sums.last_hit_ms);
    text_put(t, "}");
}

void telemetry_routes_make(struct control *c, page_made_fn made, void *arg)
{
    struct text t = {0};
    text_put(&t, "{\"routes\":[");
    for (uint32_t i = 0; i < c->config->n_routes; i++) {
        text_put(&t, "%s", i ? "," : "");
        put_route(&t, c, &c->config->routes[i]);
    }
    text_put(&t, "]}\n");
    made(arg, &t);
}

void telemetry_routes_page(struct control *c, const struct http_call *call)
{
    page_answer_made(c, call, telemetry_routes_make);
}
