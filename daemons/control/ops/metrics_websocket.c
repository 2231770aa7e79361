/* SPDX-License-Identifier: BSD-2-Clause */
/* metrics_websocket: see metrics_websocket.h. */
#include "daemons/control/ops/metrics_websocket.h"
#include "polder/rpc_in.h"

#include <stdio.h>

static void write_ends(struct metrics_writer *w, const msgpack_object *stats)
{
    const msgpack_object *ends = rpc_in_get(stats, "ends");
    char reason[64], labels[96];
    if (!ends || ends->type != MSGPACK_OBJECT_MAP)
        return;
    metrics_family(w, "websocket_ends", "counter", NULL, "WebSockets that ended, by reason");
    for (uint32_t i = 0; i < ends->via.map.size; i++) {
        if (rpc_in_object_text(&ends->via.map.ptr[i].key, reason, sizeof reason) < 0)
            continue;
        snprintf(labels, sizeof labels, "reason=\"%s\"", reason);
        metrics_sample(w, "_total", labels, rpc_in_f64(ends, reason, 0));
    }
}

static void write_websocket_routes(struct metrics_writer *w, const msgpack_object *stats)
{
    static const struct {
        const char *key, *name, *type, *suffix, *help;
    } metric[] = {
        {"open", "websocket_connections", "gauge", "", "Open WebSockets, by route"},
        {"opened", "websocket_opened", "counter", "_total", "WebSockets that were opened"},
        {"refused", "websocket_refused", "counter", "_total", "WebSockets that found no room"},
        {"messagesIn", "websocket_client_messages", "counter", "_total", "Messages from clients"},
        {"messagesOut", "websocket_backend_messages", "counter", "_total",
         "Messages from backends"},
    };
    const msgpack_object *routes = rpc_in_get(stats, "routes");
    char route[512], name[600], labels[640];
    if (!routes || routes->type != MSGPACK_OBJECT_ARRAY)
        return;
    for (size_t m = 0; m < sizeof metric / sizeof *metric; m++) {
        metrics_family(w, metric[m].name, metric[m].type, NULL, metric[m].help);
        for (uint32_t i = 0; i < routes->via.array.size; i++) {
            const msgpack_object *r = &routes->via.array.ptr[i];
            if (rpc_in_text(r, "route", route, sizeof route) < 0)
                continue;
            snprintf(labels, sizeof labels, "route=\"%s\"",
                     metrics_escaped(route, name, sizeof name));
            metrics_sample(w, metric[m].suffix, labels, rpc_in_f64(r, metric[m].key, 0));
        }
    }
}

static void write_websocket_durations(struct metrics_writer *w, const msgpack_object *stats)
{
    const msgpack_object *counts = rpc_in_get(stats, "durationCounts");
    const double sum_s = rpc_in_f64(stats, "durationSum", 0);
    struct distribution d = distribution_empty(HISTOGRAM_LIFETIME);
    if (!counts || counts->type != MSGPACK_OBJECT_ARRAY)
        return;
    for (uint32_t i = 0; i < counts->via.array.size && i < HISTOGRAM_BUCKETS; i++)
        if (counts->via.array.ptr[i].type == MSGPACK_OBJECT_POSITIVE_INTEGER)
            d.count += d.bucket[i] = counts->via.array.ptr[i].via.u64;
    metrics_family(w, "websocket_duration_seconds", "histogram", "seconds",
                   "How long WebSockets lived");
    metrics_histogram(w, "", &d, &sum_s);
}

void metrics_write_websockets(struct metrics_writer *w, const msgpack_object *stats)
{
    metrics_family(w, "websocket_supervisor_up", "gauge", NULL, "1 if polder-supervisor answers");
    metrics_sample_u64(w, "", "", stats != NULL);
    if (!stats)
        return;
    metrics_family(w, "websocket_max_connections", "gauge", NULL,
                   "WebSockets that may be open, now");
    metrics_sample(w, "", "", rpc_in_f64(stats, "maxConnections", 0));
    metrics_family(w, "websocket_heartbeats", "counter", NULL, "Heartbeats sent, by kind");
    metrics_sample(w, "_total", "kind=\"json\"", rpc_in_f64(stats, "jsonHeartbeats", 0));
    metrics_sample(w, "_total", "kind=\"ping\"", rpc_in_f64(stats, "pings", 0));
    metrics_family(w, "websocket_pongs", "counter", NULL, "Answers to our pings");
    metrics_sample(w, "_total", "", rpc_in_f64(stats, "pongs", 0));
    write_websocket_routes(w, stats);
    write_ends(w, stats);
    write_websocket_durations(w, stats);
}
