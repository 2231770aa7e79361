/* SPDX-License-Identifier: BSD-2-Clause */
/* telemetry: see telemetry.h. */
#include "daemons/control/ops/telemetry.h"
#include "daemons/control/control.h"
#include "daemons/control/model/savings.h"
#include "daemons/control/model/shares.h"
#include "daemons/control/model/traffic.h"
#include "daemons/control/ops/page.h"
#include "polder/config.h"

#include <inttypes.h>
#include <stdlib.h>

void telemetry_cache_make(struct control *c, page_made_fn made, void *arg)
{
    const struct stats_slab *s = c->shared->stats;
    struct cache_sums sums;
    struct text t = {0};
    traffic_cache_sums(s, &sums);
    text_put(&t,
             "{\"hitRate\":%.6g,\"missRate\":%.6g,\"hits\":%" PRIu64 ",\"misses\":%" PRIu64
             ",\"stale\":%" PRIu64 ",\"collapsed\":%" PRIu64 ",\"evictions\":%" PRIu64
             ",\"items\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"avgResponseTime\":%.9g}\n",
             sums.hit_rate, sums.miss_rate, sums.hits, sums.misses, sums.stale,
             stats_total(s, STATS_CACHE_COLLAPSED), stats_total(s, STATS_CACHE_EVICTIONS),
             stats_gauge_total(s, STATS_GAUGE_CACHE_ITEMS),
             stats_gauge_total(s, STATS_GAUGE_CACHE_BYTES), traffic_mean_response_s(s));
    made(arg, &t);
}

void telemetry_cache_page(struct control *c, const struct http_call *call)
{
    page_answer_made(c, call, telemetry_cache_make);
}

/* ---- WebSockets ---- */

struct question {
    struct control *control;
    page_made_fn made;
    void *arg;
};

/* As the supervisor would say it: of all routes together. */
static uint64_t configured_capacity(const struct config *c)
{
    const uint64_t total = c->websocket.max_connections_total;
    uint64_t sum = 0;
    if (!config_has_websockets(c))
        return c->websocket.max_connections;
    for (uint32_t i = 0; i < c->n_routes; i++)
        if (c->routes[i].websocket)
            sum += c->routes[i].websocket->max_connections;
    return total && total < sum ? total : sum;
}

/* Without an answer nothing is known: not that there is no connection. */
static void write_no_websocket(const struct control *c, struct text *t)
{
    text_put(t,
             "{\"supervisor\":\"%s\",\"activeConnections\":null,\"maxConnections\":%" PRIu64
             ",\"heartbeatSuccess\":null,\"heartbeatsSent\":null,\"refused\":null,\"reaped\":null,"
             "\"connectionDuration\":null}\n",
             !config_has_websockets(c->config)               ? "not needed"
             : c->peers.supervisor_state == SUPERVISOR_HANGS ? "does not answer"
                                                             : "missing",
             configured_capacity(c->config));
}

static void write_websocket(const msgpack_object *result, struct text *t)
{
    const msgpack_object *times = rpc_in_get(result, "connectionDuration");
    text_put(t,
             "{\"supervisor\":\"ok\",\"activeConnections\":%.0f,\"maxConnections\":%.0f,"
             "\"heartbeatSuccess\":%.6g,"
             "\"heartbeatsSent\":%.0f,\"refused\":%.0f,\"reaped\":%.0f,\"connectionDuration\":{"
             "\"avg\":%.6g,\"p50\":%.6g,\"p95\":%.6g,\"max\":%.6g}}\n",
             rpc_in_f64(result, "activeConnections", 0), rpc_in_f64(result, "maxConnections", 0),
             rpc_in_f64(result, "heartbeatSuccess", 0), rpc_in_f64(result, "heartbeatsSent", 0),
             rpc_in_f64(result, "refused", 0), rpc_in_f64(result, "reaped", 0),
             rpc_in_f64(times, "avg", 0), rpc_in_f64(times, "p50", 0), rpc_in_f64(times, "p95", 0),
             rpc_in_f64(times, "max", 0));
}

static void on_stats(void *arg, enum rpc_error code, const char *message,
                     const msgpack_object *result)
{
    struct question *q = arg;
    struct text t = {0};
    (void)message;
    if (code)
        write_no_websocket(q->control, &t);
    else
        write_websocket(result, &t);
    q->made(q->arg, &t);
    free(q);
}

void telemetry_websocket_make(struct control *c, page_made_fn made, void *arg)
{
    struct question *q = malloc(sizeof *q);
    if (!q) {
        made(arg, &(struct text){.failed = true});
        return;
    }
    *q = (struct question){c, made, arg};
    rpc_client_call(&c->peers.supervisor, "ws.stats", NULL, PEERS_ANSWER_MS, on_stats, q);
}

void telemetry_websocket_page(struct control *c, const struct http_call *call)
{
    page_answer_made(c, call, telemetry_websocket_make);
}

/* ---- cost ---- */

#define SHARES_SHOWN 50 /* tenants by name */

static void write_known(struct text *t, const char *name, bool known, double value)
{
    if (known)
        text_put(t, "\"%s\":%.9g", name, value);
    else
        text_put(t, "\"%s\":null", name);
}

static void write_month(struct text *t, const char *name, const struct savings_month *m)
{
    if (m->name)
        text_put(t, "\"%s\":{\"seconds\":%.9g,\"estimatedCost\":%.9g,\"savings\":%.9g}", name,
                 m->seconds, m->money.estimated, m->money.saved_total);
    else
        text_put(t, "\"%s\":null", name);
}

static void write_share(struct text *t, const char *name, const struct share *s, bool first)
{
    text_put(t, "%s{\"tenant\":\"", first ? "" : ",");
    text_put_json(t, name);
    text_put(t, "\",\"apiCalls\":%.0f,\"estimatedCost\":%.9g,\"savingsRealized\":%.9g",
             s->counts.calls, s->money.estimated, s->money.saved_total);
    for (int i = 0; i < COST_OPTIMISATIONS; i++)
        text_put(t, "%s\"%s\":%.9g", i ? "," : ",\"byOptimisation\":{", cost_names[i],
                 s->money.saved[i]);
    text_put(t, "}}");
}

static void add_share(struct share *sum, const struct share *s)
{
    sum->counts.calls += s->counts.calls;
    sum->money.estimated += s->money.estimated;
    sum->money.saved_total += s->money.saved_total;
    for (int i = 0; i < COST_OPTIMISATIONS; i++)
        sum->money.saved[i] += s->money.saved[i];
}

/* The first ones by name; of the rest the sum. */
static void write_shares(struct text *t, const struct control *c, const struct savings *s)
{
    size_t n;
    struct share *share = shares_find(c, s, &n), rest = {0};
    if (!share) {
        text_put(t, ",\"byTenant\":null");
        return;
    }
    const size_t shown = n <= SHARES_SHOWN ? n : SHARES_SHOWN;
    text_put(t, ",\"byTenant\":[");
    for (size_t i = 0; i < shown; i++)
        write_share(t, share[i].name, &share[i], i == 0);
    for (size_t i = shown; i < n; i++)
        add_share(&rest, &share[i]);
    if (shown < n)
        write_share(t, "and the rest", &rest, false);
    text_put(t, "]");
    free(share);
}

struct cost_question {
    const struct control *control;
    page_made_fn made;
    void *arg;
};

static void tell_cost(void *arg, const struct savings *s)
{
    struct cost_question *q = arg;
    struct text t = {0};
    text_put(&t, "{\"currency\":\"");
    text_put_json(&t, s->currency);
    text_put(&t,
             "\",\"apiCalls\":%.0f,\"estimatedCost\":%.9g,\"savingsRealized\":%.9g,"
             "\"projectedMonthly\":%.9g,\"byOptimisation\":{",
             s->counts.calls, s->money.estimated, s->money.saved_total,
             s->month[SAVINGS_SINCE_START].money.estimated);
    for (int i = 0; i < COST_OPTIMISATIONS; i++) {
        text_put(&t, "%s", i ? "," : "");
        write_known(&t, cost_names[i], i != COST_WEBSOCKET || s->counts.websocket_known,
                    s->money.saved[i]);
    }
    text_put(&t, "},\"projections\":{");
    write_month(&t, "sinceStart", &s->month[SAVINGS_SINCE_START]);
    text_put(&t, ",");
    write_month(&t, "lastHour", &s->month[SAVINGS_LAST_HOUR]);
    text_put(&t, ",");
    write_month(&t, "lastDay", &s->month[SAVINGS_LAST_DAY]);
    text_put(&t, "}");
    write_shares(&t, q->control, s);
    text_put(&t, "}\n");
    q->made(q->arg, &t);
    free(q);
}

void telemetry_cost_make(struct control *c, page_made_fn made, void *arg)
{
    struct cost_question *q = malloc(sizeof *q);
    if (!q) {
        made(arg, &(struct text){.failed = true});
        return;
    }
    *q = (struct cost_question){c, made, arg};
    savings_ask(c, tell_cost, q);
}

void telemetry_cost_page(struct control *c, const struct http_call *call)
{
    page_answer_made(c, call, telemetry_cost_make);
}
