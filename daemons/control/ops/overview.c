/* SPDX-License-Identifier: BSD-2-Clause */
/* overview: see overview.h. */
#include "daemons/control/ops/overview.h"
#include "daemons/control/control.h"
#include "daemons/control/model/windows.h"
#include "polder/clock.h"
#include "polder/config.h"

#include <inttypes.h>
#include <unistd.h>

static void put_service(struct text *t, struct control *c)
{
    struct workers_count workers;
    struct health h;
    char host[256] = "";
    const uint64_t up_ms = clock_mono_ms() - atomic_load(&c->shared->proc->started_ms);
    health_get(c, &h);
    health_count_workers(c, &workers);
    gethostname(host, sizeof host - 1);
    text_put(t, "\"version\":\"" POLDER_VERSION "\",\"host\":\"");
    text_put_json(t, host);
    text_put(t,
             "\",\"started\":%" PRIu64 ",\"ready\":%s,\"workers\":{\"ready\":%u,\"wanted\":%u,"
             "\"draining\":%u}",
             (clock_real_ms() - up_ms + 500) / 1000, h.ready ? "true" : "false", workers.ready,
             workers.wanted, workers.draining);
    text_put(t, ",\"socket\":\"");
    text_put_json(t, c->config->runtime_dir);
    text_put(t, "/admin.sock\"");
}

static void put_window(struct text *t, const struct control *c, enum windows_span span)
{
    struct windows_sums s;
    windows_sum(c, span, &s);
    const uint64_t lookups = s.hits + s.misses;
    text_put(t,
             "%s\"%s\":{\"seconds\":%.0f,\"requests\":%" PRIu64 ",\"hits\":%" PRIu64
             ",\"misses\":%" PRIu64 ",\"hitRate\":",
             span ? "," : "", windows_names[span], s.seconds, s.requests, s.hits, s.misses);
    if (lookups)
        text_put(t, "%.6g", (double)s.hits / (double)lookups);
    else
        text_put(t, "null");
    text_put(t,
             ",\"errors\":%" PRIu64 ",\"backendCalls\":%.0f,\"avoidedCalls\":%.0f,"
             "\"refused\":%.0f,\"p50\":%.6g,\"p95\":%.6g,\"p99\":%.6g,"
             "\"estimatedCost\":%.9g,\"savings\":%.9g}",
             s.errors, s.calls, s.avoided, s.refused, s.p50_s, s.p95_s, s.p99_s, s.money.estimated,
             s.money.saved_total);
}

/* ---- targets ---- */

static bool is_target(const struct config_alert *a)
{
    return a->enabled && a->metric && !a->of_condition && !a->of_server && !a->of_limit;
}

/* Of each metric the first rule's, in the unit of the history. */
static void put_targets(struct text *t, const struct config *config)
{
    const char *comma = "";
    text_put(t, ",\"targets\":{");
    for (uint32_t i = 0; i < config->n_alerts; i++) {
        const struct config_alert *a = &config->alerts[i];
        bool again = !is_target(a);
        for (uint32_t k = 0; k < i && !again; k++)
            again = is_target(&config->alerts[k]) && config->alerts[k].series == a->series;
        if (again)
            continue;
        text_put(t, "%s\"%s\":%.9g", comma, a->metric, a->threshold / a->factor);
        comma = ",";
    }
    text_put(t, "}");
}

/* ---- connections ---- */

static void put_known(struct text *t, const char *name, double value)
{
    if (value < 0)
        text_put(t, "\"%s\":null", name);
    else
        text_put(t, "\"%s\":%.0f", name, value);
}

static void put_open(struct text *t, const char *name, struct windows_open open)
{
    text_put(t, "\"%s\":{", name);
    put_known(t, "clients", open.connections);
    text_put(t, ",");
    put_known(t, "websockets", open.websockets);
    text_put(t, "}");
}

static void put_connections(struct text *t, const struct control *c)
{
    text_put(t, ",\"connections\":{");
    put_open(t, "now", windows_open_now(c));
    text_put(t, ",");
    put_open(t, "15m", windows_open_ago(c, 15));
    text_put(t, ",");
    put_open(t, "30m", windows_open_ago(c, 30));
    text_put(t, ",");
    put_open(t, "60m", windows_open_ago(c, 60));
    text_put(t, "}");
}

/* ---- a restart ---- */

/* New requests wait while those under way are finished: README, polderd(8). */
static void put_restart_of_polder(struct text *t, const struct control *c)
{
    const struct stats_slab *s = c->shared->stats;
    const uint64_t busy = stats_gauge_total(s, STATS_GAUGE_UPSTREAM_BUSY),
                   held = stats_gauge_total(s, STATS_GAUGE_POLL_HELD);
    const uint32_t upgrade = atomic_load(&c->shared->proc->upgrade_state);
    if (atomic_load(&c->shared->proc->reload_state) == PROC_RELOAD_RUNNING)
        text_put(t, "{\"safe\":false,\"why\":\"a reload is under way\"}");
    else if (upgrade == PROC_UPGRADE_RUNNING || upgrade == PROC_UPGRADE_WORKERS)
        text_put(t, "{\"safe\":false,\"why\":\"an upgrade is under way\"}");
    else if (busy || held)
        text_put(t,
                 "{\"safe\":false,\"why\":\"%" PRIu64 " requests are with a backend and %" PRIu64
                 " wait for a change; new ones would wait for them, up to 30 s\"}",
                 busy, held);
    else
        text_put(t, "{\"safe\":true,\"why\":\"no request is under way\"}");
}

static void put_restart_of_supervisor(struct text *t, const struct control *c)
{
    const double open = windows_open_now(c).websockets;
    if (!config_has_websockets(c->config))
        text_put(t, "null");
    else if (open < 0)
        text_put(t, "{\"safe\":false,\"why\":\"it does not say how many WebSockets it has\"}");
    else if (open > 0)
        text_put(t,
                 "{\"safe\":false,\"why\":\"%.0f WebSocket%s: a stop closes them with 1012; "
                 "systemctl restart carries them over, polder-supervisor(8)\"}",
                 open, open == 1 ? "" : "s");
    else
        text_put(t, "{\"safe\":true,\"why\":\"no WebSocket is open\"}");
}

/* ---- all of it ---- */

void overview_make(struct control *c, page_made_fn made, void *arg)
{
    struct text t = {0};
    text_put(&t, "{");
    put_service(&t, c);
    text_put(&t, ",\"windows\":{");
    for (int i = 0; i < WINDOWS_SPANS; i++)
        put_window(&t, c, (enum windows_span)i);
    text_put(&t, "}");
    put_targets(&t, c->config);
    put_connections(&t, c);
    text_put(&t, ",\"restart\":{\"polder\":");
    put_restart_of_polder(&t, c);
    text_put(&t, ",\"supervisor\":");
    put_restart_of_supervisor(&t, c);
    text_put(&t, "}}\n");
    made(arg, &t);
}

void overview_page(struct control *c, const struct http_call *call)
{
    page_answer_made(c, call, overview_make);
}
