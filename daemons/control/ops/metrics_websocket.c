/* SPDX-License-Identifier: BSD-2-Clause */
/* metrics_websocket: see metrics_websocket.h. */
#include "daemons/control/ops/metrics_websocket.h"
#include "polder/rpc_in.h"

static void write_ends(struct metrics_writer *w, const msgpack_object *stats)
{
    const msgpack_object *ends = rpc_in_get(stats, "ends");
    char reason[64], label[METRICS_VALUE_MAX];
    if (!ends || ends->type != MSGPACK_OBJECT_MAP || !metrics_family_begin(w, METRIC_WS_ENDS))
        return;
    for (uint32_t i = 0; i < ends->via.map.size; i++)
        if (rpc_in_object_text(&ends->via.map.ptr[i].key, reason, sizeof reason) >= 0)
            metrics_f64(w, METRICS_LABELS({"reason", metrics_label_value(reason, label)}),
                        rpc_in_f64(ends, reason, 0));
}

static void write_routes(struct metrics_writer *w, const msgpack_object *stats)
{
    static const struct {
        const char *key;
        enum metric metric;
    } of[] = {
        {"open", METRIC_WS_OPEN},
        {"maxConnections", METRIC_WS_ROUTE_MAX},
        {"opened", METRIC_WS_OPENED},
        {"refused", METRIC_WS_REFUSED},
        {"reaped", METRIC_WS_REAPED},
        {"messagesIn", METRIC_WS_CLIENT_MESSAGES},
        {"messagesOut", METRIC_WS_BACKEND_MESSAGES},
    };
    const msgpack_object *routes = rpc_in_get(stats, "routes");
    char route[512], label[METRICS_VALUE_MAX];
    if (!routes || routes->type != MSGPACK_OBJECT_ARRAY)
        return;
    for (size_t m = 0; m < sizeof of / sizeof *of; m++) {
        if (!metrics_family_begin(w, of[m].metric))
            continue;
        for (uint32_t i = 0; i < routes->via.array.size; i++) {
            const msgpack_object *r = &routes->via.array.ptr[i];
            if (rpc_in_text(r, "route", route, sizeof route) >= 0)
                metrics_f64(w, METRICS_LABELS({"route", metrics_label_value(route, label)}),
                            rpc_in_f64(r, of[m].key, 0));
        }
    }
}

static void write_durations(struct metrics_writer *w, const msgpack_object *stats)
{
    const msgpack_object *counts = rpc_in_get(stats, "durationCounts");
    const double sum_s = rpc_in_f64(stats, "durationSum", 0);
    struct distribution d = distribution_empty(HISTOGRAM_LIFETIME);
    if (!counts || counts->type != MSGPACK_OBJECT_ARRAY ||
        !metrics_family_begin(w, METRIC_WS_SECONDS))
        return;
    for (uint32_t i = 0; i < counts->via.array.size && i < HISTOGRAM_BUCKETS; i++)
        if (counts->via.array.ptr[i].type == MSGPACK_OBJECT_POSITIVE_INTEGER)
            d.count += d.bucket[i] = counts->via.array.ptr[i].via.u64;
    metrics_distribution(w, METRICS_NO_LABELS, &d, &sum_s);
}

static void put(struct metrics_writer *w, enum metric id, double value)
{
    if (metrics_family_begin(w, id))
        metrics_f64(w, METRICS_NO_LABELS, value);
}

void metrics_write_websockets(struct metrics_writer *w, const msgpack_object *stats)
{
    put(w, METRIC_WS_SUPERVISOR_UP, stats != NULL);
    if (!stats)
        return;
    put(w, METRIC_WS_MAX, rpc_in_f64(stats, "maxConnections", 0));
    if (metrics_family_begin(w, METRIC_WS_HEARTBEATS)) {
        metrics_f64(w, METRICS_LABELS({"kind", "json"}), rpc_in_f64(stats, "jsonHeartbeats", 0));
        metrics_f64(w, METRICS_LABELS({"kind", "ping"}), rpc_in_f64(stats, "pings", 0));
    }
    put(w, METRIC_WS_PONGS, rpc_in_f64(stats, "pongs", 0));
    put(w, METRIC_WS_DEATHS, rpc_in_f64(stats, "deaths", 0));
    if (metrics_family_begin(w, METRIC_WS_UPGRADES)) {
        metrics_f64(w, METRICS_LABELS({"result", "ok"}), rpc_in_f64(stats, "upgrades", 0));
        metrics_f64(w, METRICS_LABELS({"result", "failed"}),
                    rpc_in_f64(stats, "upgradesFailed", 0));
    }
    if (metrics_family_begin(w, METRIC_WS_TAKEN_UP)) {
        metrics_f64(w, METRICS_LABELS({"result", "kept"}), rpc_in_f64(stats, "takenUp", 0));
        metrics_f64(w, METRICS_LABELS({"result", "closed"}), rpc_in_f64(stats, "takenUpClosed", 0));
        metrics_f64(w, METRICS_LABELS({"result", "refused"}),
                    rpc_in_f64(stats, "takenUpRefused", 0));
    }
    write_routes(w, stats);
    write_ends(w, stats);
    write_durations(w, stats);
}
