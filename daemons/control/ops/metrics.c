/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * metrics: see metrics.h. Made from the tables of counters and gauges. Labels hold names from the
 * configuration only, never what clients send, so their number is bounded.
 */
#include "daemons/control/ops/metrics.h"
#include "daemons/control/control.h"
#include "daemons/control/model/health.h"
#include "daemons/control/ops/metrics_cost.h"
#include "daemons/control/ops/metrics_websocket.h"
#include "daemons/control/ops/metrics_writer.h"
#include "daemons/control/ops/page.h"
#include "polder/clock.h"
#include "polder/conditions.h"
#include "polder/config.h"
#include "polder/limit.h"
#include "polder/server_state.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TYPE_OPENMETRICS "application/openmetrics-text; version=1.0.0; charset=utf-8"
#define TYPE_PROMETHEUS  "text/plain; version=0.0.4; charset=utf-8"

/* ---- from the tables ---- */

static void write_counters(struct metrics_writer *w)
{
    static const struct {
        const char *metric, *labels, *help;
    } rows[] = {
#define COUNTER(id, metric, labels, help) {metric, labels, help},
#include "libshared/tables/counters.def"
#undef COUNTER
    };
    for (unsigned i = 0; i < STATS_COUNTERS; i++) {
        metrics_family(w, rows[i].metric, "counter", NULL, rows[i].help);
        metrics_sample_u64(w, "_total", rows[i].labels,
                           stats_total(w->control->shared->stats, (enum stats_counter)i));
    }
}

static const char *unit_of(const char *metric)
{
    static const char *const units[] = {"bytes", "seconds"};
    const size_t len = strlen(metric);
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        const size_t n = strlen(units[i]);
        if (len > n && metric[len - n - 1] == '_' && !strcmp(metric + len - n, units[i]))
            return units[i];
    }
    return NULL;
}

static void write_gauges(struct metrics_writer *w)
{
    static const struct {
        const char *metric, *labels, *help;
    } rows[] = {
#define GAUGE(id, metric, labels, help) {metric, labels, help},
#include "libshared/tables/gauges.def"
#undef GAUGE
    };
    for (unsigned i = 0; i < STATS_GAUGES; i++) {
        metrics_family(w, rows[i].metric, "gauge", unit_of(rows[i].metric), rows[i].help);
        metrics_sample_u64(w, "", rows[i].labels,
                           stats_gauge_total(w->control->shared->stats, (enum stats_gauge)i));
    }
}

/* ---- latencies ---- */

static void write_latencies(struct metrics_writer *w)
{
    static const char *const source[] = {[STATS_LATENCY_HIT] = "hit",
                                         [STATS_LATENCY_MISS] = "miss",
                                         [STATS_LATENCY_PASS] = "pass",
                                         [STATS_LATENCY_REFUSED] = "refused"};
    metrics_family(w, "response_seconds", "histogram", "seconds",
                   "Time to answer a request, by where the answer came from");
    for (int h = 0; h < STATS_HISTOGRAMS; h++) {
        struct distribution d;
        char label[64];
        stats_distribution_of(w->control->shared->stats, (enum stats_histogram)h, &d);
        snprintf(label, sizeof label, "source=\"%s\"", source[h]);
        metrics_histogram(w, label, &d, NULL);
    }
}

/* ---- limits and servers ---- */

static void write_limits(struct metrics_writer *w)
{
    static const char *const result[] = {"admitted", "refused", "dry_run_refused"};
    const struct config *config = w->control->config;
    struct runtime_values values;
    char name[256], labels[320];
    runtime_read(w->control->runtime, &values);
    for (uint32_t i = 0; i < config->n_limits; i++) {
        metrics_family(w, "limit_requests", "counter", NULL,
                       "Requests charged to a limit, by result");
        struct stats_limit sums;
        stats_limit_of(w->control->shared->stats, config->limits[i].id, config->limits[i].index,
                       &sums);
        const uint64_t value[] = {sums.admitted, sums.refused, sums.dry_refused};
        for (int k = 0; k < 3; k++) {
            snprintf(labels, sizeof labels, "limit=\"%s\",result=\"%s\"",
                     metrics_escaped(config->limits[i].name, name, sizeof name), result[k]);
            metrics_sample_u64(w, "_total", labels, value[k]);
        }
    }
    for (uint32_t i = 0; i < config->n_limits; i++) {
        metrics_family(w, "limit_quota", "gauge", NULL,
                       "Requests that a limit admits in a window, now");
        snprintf(labels, sizeof labels, "limit=\"%s\"",
                 metrics_escaped(config->limits[i].name, name, sizeof name));
        metrics_sample_u64(w, "", labels, values.limit[config->limits[i].index].requests);
    }
    for (uint32_t i = 0; i < config->n_limits; i++) {
        metrics_family(w, "limit_window_seconds", "gauge", "seconds", "Window of a limit, now");
        snprintf(labels, sizeof labels, "limit=\"%s\"",
                 metrics_escaped(config->limits[i].name, name, sizeof name));
        metrics_sample(w, "", labels,
                       (double)values.limit[config->limits[i].index].window_ms / 1000);
    }
}

/* The limiter's table: of all limits and processes. */
static void write_limit_table(struct metrics_writer *w)
{
    struct limit_table_stats s;
    limit_table_counters(w->control->shared->limits, &s);
    const struct {
        const char *name, *help;
        uint64_t value;
    } counter[] = {
        {"limit_evicted_live", "Live entries of a full table that gave way to another key",
         s.evicted_live},
        {"limit_lock_refusals", "Requests refused because a lock could not be had in time",
         s.lock_refusals},
        {"limit_rows_full", "Requests refused for want of room to count those under way",
         s.rows_full},
        {"limit_lock_steals", "Locks taken over from processes that died", s.lock_steals},
    };
    metrics_family(w, "limit_entries", "gauge", NULL,
                   "Keys that all limits together can count at once");
    metrics_sample_u64(w, "", "", s.entries);
    for (size_t i = 0; i < sizeof counter / sizeof *counter; i++) {
        metrics_family(w, counter[i].name, "counter", NULL, counter[i].help);
        metrics_sample_u64(w, "_total", "", counter[i].value);
    }
}

/* One sample for each that is raised, and one of 0 for each name of which none is: at most
 * CONDITIONS + CONDITION_ROWS. */
static void write_conditions(struct metrics_writer *w)
{
    struct condition list[CONDITION_ROWS];
    const size_t n = conditions_list(w->control->shared->conditions, clock_real_ms(), list);
    char subject[2 * CONDITION_SUBJECT], labels[320];
    metrics_family(w, "condition", "gauge", NULL,
                   "1 while something needs somebody, by what it is and what it is about");
    for (size_t i = 0, id = 0; id < CONDITIONS; id++) {
        const char *name = condition_kind((enum condition_id)id)->name;
        if (i == n || list[i].id != id) {
            snprintf(labels, sizeof labels, "name=\"%s\",subject=\"\"", name);
            metrics_sample_u64(w, "", labels, 0);
        }
        for (; i < n && list[i].id == id; i++) {
            snprintf(labels, sizeof labels, "name=\"%s\",subject=\"%s\"", name,
                     metrics_escaped(list[i].subject, subject, sizeof subject));
            metrics_sample_u64(w, "", labels, 1);
        }
    }
    metrics_family(w, "conditions_lost", "counter", NULL,
                   "Conditions for which the table had no room");
    metrics_sample_u64(w, "_total", "", conditions_lost(w->control->shared->conditions));
}

enum server_metric {
    SERVER_METRIC_REQUESTS,
    SERVER_METRIC_ERRORS,
    SERVER_METRIC_SECONDS,
    SERVER_METRIC_WEIGHT,
    SERVER_METRIC_UP,
};

static void write_server_errors(struct metrics_writer *w, const struct server_row *row,
                                const char *server)
{
    char labels[700];
    for (unsigned i = SERVER_NONE + 1; i < SERVER_REASONS; i++) {
        snprintf(labels, sizeof labels, "%s,reason=\"%s\"", server,
                 server_reason_label((enum server_reason)i));
        metrics_sample_u64(w, "_total", labels, row ? atomic_load(&row->errors[i]) : 0);
    }
}

static void write_server(struct metrics_writer *w, const struct config_server *s,
                         enum server_metric metric, const struct runtime_values *values)
{
    char upstream[256], server[256], labels[600];
    struct stats_server sums;
    const uint64_t id = stats_server_id(s);
    const struct server_row *row = server_find(w->control->shared->servers, id);
    stats_server_of(w->control->shared->stats, id, s->index, &sums);
    snprintf(labels, sizeof labels, "upstream=\"%s\",server=\"%s\"",
             metrics_escaped(s->upstream->name, upstream, sizeof upstream),
             metrics_escaped(s->address.text, server, sizeof server));
    switch (metric) {
    case SERVER_METRIC_REQUESTS:
        metrics_sample_u64(w, "_total", labels,
                           sums.requests + (row ? atomic_load(&row->upgrades) : 0));
        break;
    case SERVER_METRIC_ERRORS:
        write_server_errors(w, row, labels);
        break;
    case SERVER_METRIC_SECONDS:
        metrics_sample(w, "_total", labels, (double)sums.latency.sum_ns / 1e9);
        break;
    case SERVER_METRIC_WEIGHT:
        metrics_sample_u64(w, "", labels, values->server[s->index].weight);
        break;
    case SERVER_METRIC_UP:
        metrics_sample_u64(w, "", labels, !row || server_is_up(row));
        break;
    }
}

static void write_servers(struct metrics_writer *w)
{
    static const struct {
        const char *name, *type, *unit, *help;
    } metric[] = {
        [SERVER_METRIC_REQUESTS] = {"upstream_server_requests", "counter", NULL,
                                    "Requests sent to a server"},
        [SERVER_METRIC_ERRORS] = {"upstream_server_errors", "counter", NULL,
                                  "Attempts that failed at a server, by reason"},
        [SERVER_METRIC_SECONDS] = {"upstream_server_seconds", "counter", "seconds",
                                   "Time that a server took to answer, summed"},
        [SERVER_METRIC_WEIGHT] = {"upstream_server_weight", "gauge", NULL,
                                  "Weight of a server, now"},
        [SERVER_METRIC_UP] = {"upstream_server_up", "gauge", NULL, "0 if the server is down"},
    };
    const struct config *config = w->control->config;
    struct runtime_values values;
    runtime_read(w->control->runtime, &values);
    for (int m = SERVER_METRIC_REQUESTS; m <= SERVER_METRIC_UP && config->n_servers; m++) {
        metrics_family(w, metric[m].name, metric[m].type, metric[m].unit, metric[m].help);
        for (uint32_t u = 0; u < config->n_upstreams; u++)
            for (uint32_t s = 0; s < config->upstreams[u].n_servers; s++)
                write_server(w, &config->upstreams[u].servers[s], (enum server_metric)m, &values);
    }
}

/* ---- processes ---- */

static void write_processes(struct metrics_writer *w)
{
    const struct proc_table *proc = w->control->shared->proc;
    uint64_t crashes[PROC_SLOT_WORKER0 + 1] = {0}, up[PROC_SLOT_WORKER0 + 1] = {0};
    char labels[64];
    for (unsigned i = 0; i < PROC_SLOTS; i++) {
        const unsigned kind = i < PROC_SLOT_WORKER0 ? i : PROC_SLOT_WORKER0;
        crashes[kind] += atomic_load(&proc->slot[i].crashes);
        up[kind] +=
            atomic_load(&proc->slot[i].pid) && atomic_load(&proc->slot[i].state) == PROC_READY;
    }
    up[PROC_SLOT_MASTER] = 1; /* control dies with it */
    metrics_family(w, "processes_up", "gauge", NULL, "Processes that are ready, by kind");
    for (unsigned kind = 0; kind <= PROC_SLOT_WORKER0; kind++) {
        if (kind == PROC_SLOT_SUPERVISOR) /* a daemon of its own, not in this table */
            continue;
        snprintf(labels, sizeof labels, "process=\"%s\"", proc_slot_name(kind));
        metrics_sample_u64(w, "", labels, up[kind]);
    }
    metrics_family(w, "process_crashes", "counter", NULL, "Processes that died unexpectedly");
    for (unsigned kind = PROC_SLOT_KEEPER; kind <= PROC_SLOT_WORKER0; kind++) {
        if (kind == PROC_SLOT_SUPERVISOR)
            continue;
        snprintf(labels, sizeof labels, "process=\"%s\"", proc_slot_name(kind));
        metrics_sample_u64(w, "_total", labels, crashes[kind]);
    }
}

static void write_service(struct metrics_writer *w)
{
    const struct proc_table *proc = w->control->shared->proc;
    struct workers_count workers;
    struct runtime_values values;
    const uint64_t up_ms = clock_mono_ms() - atomic_load(&proc->started_ms);
    health_count_workers(w->control, &workers);
    runtime_read(w->control->runtime, &values);
    metrics_family(w, "build", "info", NULL, "Version of Polder");
    metrics_sample_u64(w, "_info", "version=\"" POLDER_VERSION "\"", 1);
    metrics_family(w, "start_time_seconds", "gauge", "seconds", "When Polder started, Unix time");
    metrics_sample(w, "", "", (double)((clock_real_ms() - up_ms) / 1000));
    metrics_family(w, "workers", "gauge", NULL,
                   "Workers of the current configuration that are ready");
    metrics_sample_u64(w, "", "", workers.ready);
    metrics_family(w, "workers_wanted", "gauge", NULL, "Workers that the configuration wants");
    metrics_sample_u64(w, "", "", workers.wanted);
    metrics_family(w, "workers_draining", "gauge", NULL,
                   "Workers that finish what they have and leave");
    metrics_sample_u64(w, "", "", workers.draining);
    metrics_family(w, "configuration_generation", "gauge", NULL, "Configurations that were loaded");
    metrics_sample_u64(w, "", "", atomic_load(&proc->generation));
    metrics_family(w, "draining", "gauge", NULL, "1 if Polder is stopping");
    metrics_sample_u64(w, "", "", atomic_load(&proc->draining));
    metrics_family(w, "cache_max_items", "gauge", NULL, "Objects that the cache may hold, now");
    metrics_sample_u64(w, "", "", values.cache.max_items);
    metrics_family(w, "cache_max_bytes", "gauge", "bytes", "Bytes that the cache may take, now");
    metrics_sample_u64(w, "", "", values.cache.max_bytes);
}

void metrics_write(const struct control *c, bool openmetrics, const msgpack_object *websocket,
                   struct text *out)
{
    struct metrics_writer w = {.control = c, .t = out, .openmetrics = openmetrics};
    write_service(&w);
    write_processes(&w);
    write_counters(&w);
    write_gauges(&w);
    write_latencies(&w);
    write_limits(&w);
    write_limit_table(&w);
    write_conditions(&w);
    write_servers(&w);
    metrics_write_cost(&w, websocket);
    if (config_has_websockets(c->config))
        metrics_write_websockets(&w, websocket);
    if (openmetrics)
        text_put(out, "# EOF\n");
}

/* ---- the page ---- */

static bool wants_openmetrics(const struct h1_head *h)
{
    char accept[1024];
    struct str rest = {accept, h1_join(h, H1_ACCEPT, accept, sizeof accept)}, element;
    while (rest.len && field_list_next(&rest, &element)) {
        const char *end = memchr(element.at, ';', element.len);
        size_t n = end ? (size_t)(end - element.at) : element.len;
        while (n && element.at[n - 1] == ' ')
            n--;
        if (field_is((struct str){element.at, n}, "application/openmetrics-text"))
            return true;
    }
    return false;
}

struct scrape {
    struct control *control;
    struct http_request *request;
    bool openmetrics;
};

static void on_websockets(void *arg, enum rpc_error code, const char *message,
                          const msgpack_object *result)
{
    struct scrape *s = arg;
    struct text t = {0};
    (void)message;
    metrics_write(s->control, s->openmetrics, code ? NULL : result, &t);
    page_answer(s->request, 200, s->openmetrics ? TYPE_OPENMETRICS : TYPE_PROMETHEUS, &t);
    free(s);
}

void metrics_page(struct control *c, const struct http_call *call)
{
    struct scrape *s = malloc(sizeof *s);
    if (!s) {
        http_answer(call->request, 503, TYPE_PROMETHEUS, "", 0);
        return;
    }
    *s = (struct scrape){c, call->request, wants_openmetrics(call->head)};
    rpc_client_call(&c->peers.supervisor, "ws.stats", NULL, PEERS_ANSWER_MS, on_websockets, s);
}
