/* SPDX-License-Identifier: BSD-2-Clause */
/* telemetry_upstreams: see telemetry_upstreams.h. */
#include "daemons/control/ops/telemetry_upstreams.h"
#include "daemons/control/control.h"
#include "daemons/control/model/servers.h"
#include "daemons/control/model/shift.h"
#include "polder/clock.h"
#include "polder/config.h"
#include "polder/server_check.h"
#include "polder/server_load.h"
#include "polder/server_state.h"

#include <inttypes.h>
#include <string.h>

static void put_errors(struct text *t, const struct server_row *row)
{
    uint64_t sum = 0;
    bool first = true;
    for (unsigned i = 0; row && i < SERVER_REASONS; i++)
        sum += atomic_load(&row->errors[i]);
    text_put(t, ",\"errors\":%" PRIu64 ",\"errorsByReason\":{", sum);
    for (unsigned i = 0; row && i < SERVER_REASONS; i++) {
        const uint64_t n = atomic_load(&row->errors[i]);
        if (!n)
            continue;
        text_put(t, "%s\"%s\":%" PRIu64, first ? "" : ",",
                 server_reason_label((enum server_reason)i), n);
        first = false;
    }
    text_put(t, "}");
}

static void put_state(struct text *t, const struct config_server *s, const struct server_row *row,
                      uint32_t weight)
{
    const uint64_t now_ms = clock_mono_ms();
    const struct server_view v = row ? server_view(row) : (struct server_view){.since_ms = now_ms};
    text_put(t, ",\"state\":\"%s\",\"weight\":%u,\"fileWeight\":%u",
             servers_state_name(s, row, weight), weight, s->weight);
    if (v.reason)
        text_put(t, ",\"lastError\":\"%s\"", server_reason_text(v.reason));
    else
        text_put(t, ",\"lastError\":null");
}

/* check: null where there is none. */
static void put_health(struct text *t, const struct control *c, const struct server_row *row)
{
    struct server_loads load;
    server_load_look(&load, c->shared->servers, row);
    const struct server_check check = row ? server_check_read(row) : (struct server_check){0};
    text_put(t, ",\"busy\":%u,\"ejections\":%" PRIu64, row ? server_load_busy(&load) : 0,
             row ? atomic_load(&row->ejections) : 0);
    if (check.known)
        text_put(t, ",\"check\":\"%s\",\"checkPercent\":%u", server_check_label(check.last),
                 check.drain ? 0 : check.percent);
    else
        text_put(t, ",\"check\":null,\"checkPercent\":null");
}

static void put_latencies(struct text *t, const struct distribution *d)
{
    static const struct {
        const char *name;
        double share;
    } shown[] = {{"p50", .5}, {"p95", .95}, {"p99", .99}};
    for (size_t i = 0; i < sizeof shown / sizeof *shown; i++)
        if (d->count)
            text_put(t, ",\"%s\":%.6g", shown[i].name, distribution_quantile_s(d, shown[i].share));
        else
            text_put(t, ",\"%s\":null", shown[i].name);
}

static void put_shift(struct text *t, const struct control *c, const struct config_server *s)
{
    const struct shift_state *shift = shift_of(c, s->upstream);
    if (!shift) {
        text_put(t, ",\"shiftPercent\":null,\"shiftGuard\":null,\"shiftErrorRate\":null,"
                    "\"shiftP95\":null");
        return;
    }
    const enum shift_side side = strcmp(shift->server, s->address.text) ? SHIFT_OTHER : SHIFT_NEW;
    text_put(t, ",\"shiftPercent\":%u,\"shiftGuard\":\"%s\",\"shiftErrorRate\":%.6g",
             side == SHIFT_NEW ? shift->percent : 100 - shift->percent, shift_guard_text(shift),
             shift_error_rate(&shift->watch, side));
    if (shift_answers(&shift->watch, side))
        text_put(t, ",\"shiftP95\":%.6g", shift_p95_s(&shift->watch, side));
    else
        text_put(t, ",\"shiftP95\":null");
}

static void put_server(struct text *t, const struct control *c, const struct config_server *s,
                       uint32_t weight)
{
    const uint64_t id = stats_server_id(s);
    const struct server_row *row = server_find(c->shared->servers, id);
    struct stats_server sums;
    stats_server_of(c->shared->stats, id, s->index, &sums);
    text_put(t, "{\"upstream\":\"");
    text_put_json(t, s->upstream->name);
    text_put(t, "\",\"server\":\"");
    text_put_json(t, s->address.text);
    text_put(t, "\"");
    put_state(t, s, row, weight);
    text_put(t, ",\"requests\":%" PRIu64, sums.requests + (row ? atomic_load(&row->upgrades) : 0));
    text_put(t, ",\"bytesIn\":%" PRIu64 ",\"bytesOut\":%" PRIu64, sums.bytes_in, sums.bytes_out);
    put_health(t, c, row);
    put_errors(t, row);
    put_latencies(t, &sums.latency);
    put_shift(t, c, s);
    text_put(t, "}");
}

void telemetry_upstreams_make(struct control *c, page_made_fn made, void *arg)
{
    struct text t = {0};
    struct runtime_values values;
    const char *comma = "";
    runtime_read(c->runtime, &values);
    text_put(&t, "{\"servers\":[");
    for (uint32_t u = 0; u < c->config->n_upstreams; u++)
        for (uint32_t i = 0; i < c->config->upstreams[u].n_servers; i++) {
            const struct config_server *s = &c->config->upstreams[u].servers[i];
            text_put(&t, "%s", comma);
            put_server(&t, c, s, values.server[s->index].weight);
            comma = ",";
        }
    text_put(&t, "]}\n");
    made(arg, &t);
}

void telemetry_upstreams_page(struct control *c, const struct http_call *call)
{
    page_answer_made(c, call, telemetry_upstreams_make);
}
