/* SPDX-License-Identifier: BSD-2-Clause */
/* top: the service at a glance: what is not well, the last seconds, limits, servers and routes. */
#include "daemons/control/control.h"
#include "daemons/control/methods/methods.h"
#include "daemons/control/model/alerts.h"
#include "daemons/control/model/history.h"
#include "polder/clock.h"
#include "polder/config.h"
#include "polder/server_state.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define NOW_S  5 /* what "now" is the mean of */
#define BARS_S 60
#define ROUTES 10

/* ---- what is not well ---- */

static void put_conditions(struct rpc_out *o, const struct health *h)
{
    const uint64_t now_ms = clock_real_ms();
    rpc_out_list(o, "conditions");
    for (size_t i = 0; i < h->n; i++) {
        const struct condition *x = &h->condition[i];
        const struct condition_kind *k = condition_kind(x->id);
        rpc_out_map(o, NULL);
        rpc_out_str(o, "condition", k->name);
        rpc_out_str(o, "severity", condition_severity_name(k->severity));
        rpc_out_str(o, "subject", x->subject);
        rpc_out_u64(o, "since_ms", now_ms > x->since_ms ? now_ms - x->since_ms : 0);
        rpc_out_str(o, "reason", *x->reason ? x->reason : k->meaning);
        rpc_out_end(o);
    }
    rpc_out_end(o);
}

/* Those that fire; a condition is shown as such. */
static void put_alerts(const struct control *c, struct rpc_out *o)
{
    const struct alert_row *list[ALERT_ROWS];
    const size_t n = alerts_list(c, list);
    struct alert_shown shown;
    rpc_out_list(o, "alerts");
    for (size_t i = 0; i < n; i++) {
        alerts_show(c, list[i], &shown);
        if (!shown.rule || shown.rule->of_condition || alert_view(list[i]).state != ALERT_FIRING)
            continue;
        const double now = (double)clock_real_ms() / 1000;
        rpc_out_map(o, NULL);
        rpc_out_str(o, "alert", shown.name);
        rpc_out_str(o, "subject", shown.subject);
        rpc_out_u64(o, "since_ms", now > shown.since ? (uint64_t)((now - shown.since) * 1000) : 0);
        rpc_out_str(o, "summary", shown.summary);
        rpc_out_end(o);
    }
    rpc_out_end(o);
}

/* ---- the last seconds ---- */

static void put_f64(struct rpc_out *o, const char *key, double value)
{
    if (isnan(value))
        rpc_out_nil(o, key);
    else
        rpc_out_f64(o, key, value);
}

/* The mean of a column in the last seconds. */
static double value_now(const struct control *c, size_t column, uint64_t seconds)
{
    struct history_range range;
    double sum = 0;
    unsigned n = 0;
    if (history_range(c->shared->history, seconds, 1, clock_real_ms() / 1000, &range))
        return NAN;
    for (size_t i = 0; i < range.n; i++) {
        const double value = history_value(c->shared->history, &range, column, i);
        n += isnan(value) ? 0u : 1u;
        sum += isnan(value) ? 0 : value;
    }
    return n ? sum / n : NAN;
}

static void put_now(const struct control *c, struct rpc_out *o)
{
    rpc_out_map(o, "now");
    for (size_t i = 0; i < HISTORY_SERIES; i++)
        put_f64(o, history_kind((enum history_series)i)->name, value_now(c, i, NOW_S));
    rpc_out_end(o);
}

static void put_bars(const struct control *c, struct rpc_out *o)
{
    static const enum history_series shown[] = {HISTORY_REQUESTS, HISTORY_HIT_RATE, HISTORY_P95};
    struct history_range range;
    rpc_out_map(o, "last_minute");
    for (size_t k = 0; k < sizeof shown / sizeof *shown; k++) {
        rpc_out_list(o, history_kind(shown[k])->name);
        if (!history_range(c->shared->history, BARS_S, 1, clock_real_ms() / 1000, &range))
            for (size_t i = 0; i < range.n; i++)
                put_f64(o, NULL, history_value(c->shared->history, &range, shown[k], i));
        rpc_out_end(o);
    }
    rpc_out_end(o);
}

/* ---- limits, servers, routes ---- */

static void put_limits(const struct control *c, struct rpc_out *o)
{
    struct runtime_values values;
    runtime_read(c->runtime, &values);
    rpc_out_list(o, "limits");
    for (uint32_t i = 0; i < c->config->n_limits; i++) {
        const struct config_limit *l = &c->config->limits[i];
        struct stats_limit sums;
        stats_limit_of(c->shared->stats, l->id, l->index, &sums);
        rpc_out_map(o, NULL);
        rpc_out_str(o, "limit", l->name);
        rpc_out_u64(o, "requests", values.limit[l->index].requests);
        rpc_out_u64(o, "window_ms", values.limit[l->index].window_ms);
        rpc_out_u64(o, "admitted", sums.admitted);
        rpc_out_u64(o, "refused", sums.refused);
        rpc_out_end(o);
    }
    rpc_out_end(o);
}

static double server_now(const struct control *c, const char *subject,
                         enum history_server_series series)
{
    char name[HISTORY_NAME];
    size_t column;
    snprintf(name, sizeof name, "%s:%s", history_server_kind(series)->name, subject);
    return history_find(c->shared->history, name, strlen(name), &column)
               ? NAN
               : value_now(c, column, NOW_S);
}

static const char *state_of(const struct server_row *row, uint32_t weight)
{
    return !weight ? "drained" : row && !server_is_up(row) ? "down" : "up";
}

static void put_server(const struct control *c, struct rpc_out *o, const struct config_server *s,
                       uint32_t weight)
{
    char subject[HISTORY_SUBJECT];
    const struct server_row *row = server_find(c->shared->servers, stats_server_id(s));
    snprintf(subject, sizeof subject, "%s/%s", s->upstream->name, s->address.text);
    rpc_out_map(o, NULL);
    rpc_out_str(o, "server", subject);
    rpc_out_str(o, "state", state_of(row, weight));
    rpc_out_u64(o, "weight", weight);
    put_f64(o, "requests_per_second", server_now(c, subject, HISTORY_SERVER_REQUESTS));
    put_f64(o, "p95_seconds", server_now(c, subject, HISTORY_SERVER_P95));
    put_f64(o, "error_rate", server_now(c, subject, HISTORY_SERVER_ERROR_RATE));
    rpc_out_end(o);
}

static void put_servers(const struct control *c, struct rpc_out *o)
{
    struct runtime_values values;
    runtime_read(c->runtime, &values);
    rpc_out_list(o, "servers");
    for (uint32_t u = 0; u < c->config->n_upstreams; u++)
        for (uint32_t i = 0; i < c->config->upstreams[u].n_servers; i++) {
            const struct config_server *s = &c->config->upstreams[u].servers[i];
            put_server(c, o, s, values.server[s->index].weight);
        }
    rpc_out_end(o);
}

struct busy {
    const struct config_route *route;
    uint64_t answers;
};

static int by_answers(const void *a, const void *b)
{
    const struct busy *x = a, *y = b;
    return x->answers > y->answers ? -1 : x->answers < y->answers;
}

static uint64_t sum_of(const uint64_t *at, size_t n)
{
    uint64_t sum = 0;
    while (n--)
        sum += at[n];
    return sum;
}

static void put_route(const struct control *c, struct rpc_out *o, const struct config_route *route)
{
    struct stats_route sums;
    stats_route_of(c->shared->stats, route->id, route->index, &sums);
    rpc_out_map(o, NULL);
    rpc_out_str(o, "route", route->pattern);
    rpc_out_u64(o, "requests", sum_of(sums.answers, STATS_CLASSES));
    rpc_out_u64(o, "avoided", stats_route_avoided(&sums));
    rpc_out_u64(o, "errors", sums.answers[STATS_CLASSES - 1]);
    put_f64(o, "p95_seconds",
            sums.latency.count ? distribution_quantile_s(&sums.latency, 0.95) : NAN);
    rpc_out_end(o);
}

/* The busiest ones. */
static void put_routes(const struct control *c, struct rpc_out *o)
{
    struct busy *all = calloc(c->config->n_routes + 1, sizeof *all);
    struct stats_route sums;
    rpc_out_list(o, "routes");
    for (uint32_t i = 0; all && i < c->config->n_routes; i++) {
        all[i].route = &c->config->routes[i];
        stats_route_of(c->shared->stats, all[i].route->id, i, &sums);
        all[i].answers = sum_of(sums.answers, STATS_CLASSES);
    }
    if (all)
        qsort(all, c->config->n_routes, sizeof *all, by_answers);
    for (uint32_t i = 0; all && i < c->config->n_routes && i < ROUTES && all[i].answers; i++)
        put_route(c, o, all[i].route);
    rpc_out_end(o);
    free(all);
}

void top_show(struct control *c, const struct rpc_call *call)
{
    struct health health;
    struct rpc_out *o = rpc_reply_result(call->reply);
    health_get(c, &health);
    history_follow(c);
    rpc_out_map(o, NULL);
    rpc_out_str(o, "version", POLDER_VERSION);
    rpc_out_u64(o, "uptime_ms", clock_mono_ms() - atomic_load(&c->shared->proc->started_ms));
    rpc_out_u64(o, "mono_ms", clock_mono_ms());
    rpc_out_bool(o, "ready", health.ready);
    rpc_out_str(o, "currency", c->config->cost.currency);
    rpc_out_bool(o, "websockets", config_has_websockets(c->config));
    put_alerts(c, o);
    put_conditions(o, &health);
    put_now(c, o);
    put_bars(c, o);
    put_limits(c, o);
    put_servers(c, o);
    put_routes(c, o);
    rpc_out_end(o);
    rpc_reply_send(call->reply);
}
