/* SPDX-License-Identifier: BSD-2-Clause */
/* telemetry: the JSON documents under /api/telemetry; rates are 0..1, times in seconds. */
#include "daemons/control/control.h"
#include "polder/config.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

void telemetry_sums(const struct control *c, struct cache_sums *out)
{
    const struct stats_slab *s = c->shared->stats;
    out->hits = stats_total(s, STATS_CACHE_HITS);
    out->stale = stats_total(s, STATS_CACHE_STALE);
    out->misses = stats_total(s, STATS_CACHE_MISSES);
    const uint64_t answered = out->hits + out->stale, all = answered + out->misses;
    out->hit_rate = all ? (double)answered / (double)all : 0.;
    out->miss_rate = all ? 1. - out->hit_rate : 0.;
}

/* Over all requests that were not refused. */
double telemetry_mean_response_s(const struct control *c)
{
    uint64_t count = 0, sum_ns = 0;
    for (int h = STATS_LATENCY_HIT; h <= STATS_LATENCY_PASS; h++) {
        struct stats_distribution d;
        stats_distribution_of(c->shared->stats, (enum stats_histogram)h, &d);
        count += d.count;
        sum_ns += d.sum_ns;
    }
    return count ? (double)sum_ns / 1e9 / (double)count : 0.;
}

void telemetry_cache(const struct control *c, struct page_text *t)
{
    const struct stats_slab *s = c->shared->stats;
    struct cache_sums sums;
    telemetry_sums(c, &sums);
    page_put(t,
             "{\"hitRate\":%.6g,\"missRate\":%.6g,\"hits\":%" PRIu64 ",\"misses\":%" PRIu64
             ",\"stale\":%" PRIu64 ",\"collapsed\":%" PRIu64 ",\"evictions\":%" PRIu64
             ",\"items\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"avgResponseTime\":%.9g}\n",
             sums.hit_rate, sums.miss_rate, sums.hits, sums.misses, sums.stale,
             stats_total(s, STATS_CACHE_COLLAPSED), stats_total(s, STATS_CACHE_EVICTIONS),
             stats_gauge_total(s, STATS_GAUGE_CACHE_ITEMS),
             stats_gauge_total(s, STATS_GAUGE_CACHE_BYTES), telemetry_mean_response_s(c));
}

/* ---- WebSockets ---- */

struct question {
    struct control *control;
    struct ops_request *request;
};

double telemetry_number(const msgpack_object *map, const char *key, double absent)
{
    const msgpack_object *o = rpc_in_get(map, key);
    if (!o)
        return absent;
    if (o->type == MSGPACK_OBJECT_POSITIVE_INTEGER)
        return (double)o->via.u64;
    return o->type == MSGPACK_OBJECT_FLOAT64 || o->type == MSGPACK_OBJECT_FLOAT32 ? o->via.f64
                                                                                  : absent;
}

/* As the supervisor would say it: of all routes together. */
static uint64_t configured_capacity(const struct config *c)
{
    const uint64_t total = c->websocket_max_connections_total;
    uint64_t sum = 0;
    if (!config_has_websockets(c))
        return c->websocket.max_connections;
    for (uint32_t i = 0; i < c->n_routes; i++)
        if (c->routes[i].websocket)
            sum += c->routes[i].websocket->max_connections;
    return total && total < sum ? total : sum;
}

/* Where nobody answers nothing is known: not that there is no connection. */
static void write_no_websocket(const struct control *c, struct page_text *t)
{
    page_put(t,
             "{\"supervisor\":\"%s\",\"activeConnections\":null,\"maxConnections\":%" PRIu64
             ",\"heartbeatSuccess\":null,\"heartbeatsSent\":null,\"refused\":null,\"reaped\":null,"
             "\"connectionDuration\":null}\n",
             !config_has_websockets(c->config)         ? "not needed"
             : c->supervisor_state == SUPERVISOR_HANGS ? "does not answer"
                                                       : "missing",
             configured_capacity(c->config));
}

static void write_websocket(const msgpack_object *result, struct page_text *t)
{
    const msgpack_object *times = rpc_in_get(result, "connectionDuration");
    page_put(t,
             "{\"supervisor\":\"ok\",\"activeConnections\":%.0f,\"maxConnections\":%.0f,"
             "\"heartbeatSuccess\":%.6g,"
             "\"heartbeatsSent\":%.0f,\"refused\":%.0f,\"reaped\":%.0f,\"connectionDuration\":{"
             "\"avg\":%.6g,\"p50\":%.6g,\"p95\":%.6g,\"max\":%.6g}}\n",
             telemetry_number(result, "activeConnections", 0),
             telemetry_number(result, "maxConnections", 0),
             telemetry_number(result, "heartbeatSuccess", 0),
             telemetry_number(result, "heartbeatsSent", 0), telemetry_number(result, "refused", 0),
             telemetry_number(result, "reaped", 0), telemetry_number(times, "avg", 0),
             telemetry_number(times, "p50", 0), telemetry_number(times, "p95", 0),
             telemetry_number(times, "max", 0));
}

static void on_stats(void *arg, enum rpc_error code, const char *message,
                     const msgpack_object *result)
{
    struct question *q = arg;
    struct page_text t = {0};
    (void)message;
    if (code)
        write_no_websocket(q->control, &t);
    else
        write_websocket(result, &t);
    ops_answer(q->request, 200, "application/json", t.at ? t.at : "", t.len);
    free(t.at);
    free(q);
}

void telemetry_websocket(struct control *c, struct ops_request *request)
{
    struct question *q = malloc(sizeof *q);
    if (!q) {
        ops_answer(request, 503, "application/json", "{}\n", 3);
        return;
    }
    *q = (struct question){c, request};
    rpc_client_call(&c->supervisor, "ws.stats", NULL, CONTROL_ASK_MS, on_stats, q);
}
