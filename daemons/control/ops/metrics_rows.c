/* SPDX-License-Identifier: BSD-2-Clause */
/* metrics_rows: see metrics_rows.h. */
#include "daemons/control/ops/metrics_rows.h"
#include "polder/server_check.h"
#include "polder/server_load.h"

#define ROW(name)                                                                                  \
    static void name(struct metrics_writer *w, const struct metrics_source *from,                  \
                     const struct metrics_row *row)

/* The row's labels, and one more. */
static const struct metrics_label *with(const struct metrics_row *row, const char *name,
                                        const char *value,
                                        struct metrics_label labels[METRICS_LABELS_MAX + 1])
{
    unsigned n = 0;
    for (; row->label[n].name; n++)
        labels[n] = row->label[n];
    labels[n++] = (struct metrics_label){name, value};
    labels[n] = (struct metrics_label){0};
    return labels;
}

static void put_with(struct metrics_writer *w, const struct metrics_row *row, const char *name,
                     const char *value, uint64_t number)
{
    struct metrics_label labels[METRICS_LABELS_MAX + 1];
    metrics_u64(w, with(row, name, value, labels), number);
}

/* ---- routes ---- */

static struct stats_route route_of(const struct metrics_source *from, const struct metrics_row *row)
{
    struct stats_route sums;
    stats_route_of(from->shared->stats, row->id, row->index, &sums);
    return sums;
}

ROW(route_responses)
{
    static const char *const class[STATS_CLASSES] = {"1xx", "2xx", "3xx", "4xx", "5xx"};
    const struct stats_route sums = route_of(from, row);
    for (int i = 0; i < STATS_CLASSES; i++)
        put_with(w, row, "class", class[i], sums.answers[i]);
}

ROW(route_lookups)
{
    const struct stats_route sums = route_of(from, row);
    for (int i = 0; i < STATS_LOOKUPS; i++)
        put_with(w, row, "result", stats_lookup_names[i], sums.lookup[i]);
}

ROW(route_avoided)
{
    const struct stats_route sums = route_of(from, row);
    metrics_u64(w, row->label, stats_route_avoided(&sums));
}

ROW(route_calls)
{
    metrics_u64(w, row->label, route_of(from, row).calls);
}

ROW(route_background)
{
    metrics_u64(w, row->label, route_of(from, row).background);
}

ROW(route_refused)
{
    metrics_u64(w, row->label, route_of(from, row).refused);
}

ROW(route_bytes)
{
    metrics_u64(w, row->label, route_of(from, row).bytes);
}

ROW(route_last_hit)
{
    metrics_f64(w, row->label, (double)route_of(from, row).last_hit_ms / 1000);
}

ROW(route_seconds)
{
    const struct stats_route sums = route_of(from, row);
    metrics_distribution(w, row->label, &sums.latency, NULL);
}

/* ---- limits ---- */

static struct stats_limit limit_of(const struct metrics_source *from, const struct metrics_row *row)
{
    struct stats_limit sums;
    stats_limit_of(from->shared->stats, row->id, row->index, &sums);
    return sums;
}

ROW(limit_requests)
{
    const struct stats_limit sums = limit_of(from, row);
    put_with(w, row, "result", "admitted", sums.admitted);
    put_with(w, row, "result", "refused", sums.refused);
    put_with(w, row, "result", "dry_run_refused", sums.dry_refused);
}

ROW(limit_evaluations)
{
    metrics_u64(w, row->label, limit_of(from, row).checked);
}

ROW(limit_quota)
{
    metrics_u64(w, row->label, from->names->values.limit[row->index].requests);
}

ROW(limit_window)
{
    metrics_f64(w, row->label, (double)from->names->values.limit[row->index].window_ms / 1000);
}

/* ---- servers ---- */

static struct stats_server server_of(const struct metrics_source *from,
                                     const struct metrics_row *row)
{
    struct stats_server sums;
    stats_server_of(from->shared->stats, row->id, row->index, &sums);
    return sums;
}

ROW(server_requests)
{
    const struct server_row *state = server_find(from->shared->servers, row->id);
    metrics_u64(w, row->label,
                server_of(from, row).requests + (state ? atomic_load(&state->upgrades) : 0));
}

ROW(server_errors)
{
    const struct server_row *state = server_find(from->shared->servers, row->id);
    for (unsigned i = SERVER_NONE + 1; i < SERVER_REASONS; i++)
        put_with(w, row, "reason", server_reason_label((enum server_reason)i),
                 state ? atomic_load(&state->errors[i]) : 0);
}

ROW(server_connections)
{
    metrics_u64(w, row->label, server_of(from, row).connects);
}

ROW(server_reuses)
{
    metrics_u64(w, row->label, server_of(from, row).reuses);
}

ROW(server_bytes)
{
    const struct stats_server sums = server_of(from, row);
    put_with(w, row, "direction", "in", sums.bytes_in);
    put_with(w, row, "direction", "out", sums.bytes_out);
}

ROW(server_seconds)
{
    const struct stats_server sums = server_of(from, row);
    metrics_distribution(w, row->label, &sums.latency, NULL);
}

ROW(server_weight)
{
    metrics_u64(w, row->label, from->names->values.server[row->index].weight);
}

ROW(server_up)
{
    const struct server_row *state = server_find(from->shared->servers, row->id);
    metrics_u64(w, row->label, !state || server_is_up(state));
}

ROW(server_busy)
{
    struct server_loads l;
    const struct server_row *state = server_find(from->shared->servers, row->id);
    server_load_look(&l, from->shared->servers, state);
    metrics_u64(w, row->label, state ? server_load_busy(&l) : 0);
}

ROW(server_ejections)
{
    const struct server_row *state = server_find(from->shared->servers, row->id);
    metrics_u64(w, row->label, state ? atomic_load(&state->ejections) : 0);
}

ROW(health_checks)
{
    const struct server_row *state = server_find(from->shared->servers, row->id);
    for (unsigned i = 0; i < SERVER_CHECK_RESULTS; i++)
        put_with(w, row, "result", server_check_label((enum server_check_result)i),
                 state ? atomic_load(&state->checks[i]) : 0);
}

ROW(health_bad_weights)
{
    const struct server_row *state = server_find(from->shared->servers, row->id);
    metrics_u64(w, row->label, state ? atomic_load(&state->bad_weights) : 0);
}

const struct metrics_rows_family metrics_rows_families[] = {
    {METRIC_ROUTE_RESPONSES, METRICS_OF_ROUTES, route_responses},
    {METRIC_ROUTE_LOOKUPS, METRICS_OF_ROUTES, route_lookups},
    {METRIC_ROUTE_AVOIDED, METRICS_OF_ROUTES, route_avoided},
    {METRIC_ROUTE_CALLS, METRICS_OF_ROUTES, route_calls},
    {METRIC_ROUTE_BACKGROUND, METRICS_OF_ROUTES, route_background},
    {METRIC_ROUTE_REFUSED, METRICS_OF_ROUTES, route_refused},
    {METRIC_ROUTE_BYTES, METRICS_OF_ROUTES, route_bytes},
    {METRIC_ROUTE_LAST_HIT, METRICS_OF_ROUTES, route_last_hit},
    {METRIC_ROUTE_SECONDS, METRICS_OF_ROUTES, route_seconds},
    {METRIC_LIMIT_REQUESTS, METRICS_OF_LIMITS, limit_requests},
    {METRIC_LIMIT_EVALUATIONS, METRICS_OF_LIMITS, limit_evaluations},
    {METRIC_LIMIT_QUOTA, METRICS_OF_LIMITS, limit_quota},
    {METRIC_LIMIT_WINDOW, METRICS_OF_LIMITS, limit_window},
    {METRIC_SERVER_REQUESTS, METRICS_OF_SERVERS, server_requests},
    {METRIC_SERVER_ERRORS, METRICS_OF_SERVERS, server_errors},
    {METRIC_SERVER_CONNECTIONS, METRICS_OF_SERVERS, server_connections},
    {METRIC_SERVER_REUSES, METRICS_OF_SERVERS, server_reuses},
    {METRIC_SERVER_BYTES, METRICS_OF_SERVERS, server_bytes},
    {METRIC_SERVER_SECONDS, METRICS_OF_SERVERS, server_seconds},
    {METRIC_SERVER_WEIGHT, METRICS_OF_SERVERS, server_weight},
    {METRIC_SERVER_UP, METRICS_OF_SERVERS, server_up},
    {METRIC_SERVER_BUSY, METRICS_OF_SERVERS, server_busy},
    {METRIC_SERVER_EJECTIONS, METRICS_OF_SERVERS, server_ejections},
    {METRIC_HEALTH_CHECKS, METRICS_OF_SERVERS, health_checks},
    {METRIC_HEALTH_WEIGHTS_BAD, METRICS_OF_SERVERS, health_bad_weights},
};
const unsigned metrics_rows_count = sizeof metrics_rows_families / sizeof *metrics_rows_families;
