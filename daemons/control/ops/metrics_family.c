/* SPDX-License-Identifier: BSD-2-Clause */
/* metrics_family: see metrics_family.h. */
#include "daemons/control/ops/metrics_family.h"

#include <string.h>

const char *const metrics_scope_names[METRICS_SCOPE_COUNT] = {
#define SCOPE(id, name) [METRICS_SCOPE_##id] = name,
    METRICS_SCOPES(SCOPE)
#undef SCOPE
};

static const struct metrics_family families[METRICS] = {
#define METRIC(id, name, type, unit, help) [METRIC_##id] = {name, METRICS_##type, unit, help},
#include "libshared/tables/metrics.def"
#undef METRIC
};

struct row {
    const char *name, *labels, *help;
};
static const struct row counters[STATS_COUNTERS] = {
#define COUNTER(id, metric, labels, help) {metric, labels, help},
#include "libshared/tables/counters.def"
#undef COUNTER
};
static const struct row gauges[STATS_GAUGES] = {
#define GAUGE(id, metric, labels, help) {metric, labels, help},
#include "libshared/tables/gauges.def"
#undef GAUGE
};

const struct metrics_family *metrics_family_of(enum metric id)
{
    return &families[id];
}

static bool starts(const char *name, const char *with)
{
    return !strncmp(name, with, strlen(with));
}

static const char *unit_of(const char *name)
{
    static const char *const units[] = {"bytes", "seconds"};
    const size_t len = strlen(name);
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        const size_t n = strlen(units[i]);
        if (len > n && name[len - n - 1] == '_' && !strcmp(name + len - n, units[i]))
            return units[i];
    }
    return "";
}

static struct metrics_family family_of_row(const struct row *r, enum metrics_type type,
                                           const char **labels)
{
    *labels = r->labels;
    return (struct metrics_family){r->name, type, unit_of(r->name), r->help};
}

struct metrics_family metrics_family_of_counter(enum stats_counter c, const char **labels)
{
    return family_of_row(&counters[c], METRICS_COUNTER, labels);
}

struct metrics_family metrics_family_of_gauge(enum stats_gauge g, const char **labels)
{
    return family_of_row(&gauges[g], METRICS_GAUGE, labels);
}

enum metrics_scope metrics_scope_of(const char *name)
{
    static const struct {
        const char *prefix;
        enum metrics_scope scope;
    } prefixes[] = {
        {"route_", METRICS_SCOPE_ROUTES},        {"cache_", METRICS_SCOPE_CACHE},
        {"compress", METRICS_SCOPE_CACHE},       {"poll_", METRICS_SCOPE_CACHE},
        {"limit_", METRICS_SCOPE_LIMITS},        {"upstream_", METRICS_SCOPE_UPSTREAMS},
        {"websocket", METRICS_SCOPE_WEBSOCKETS}, {"cost", METRICS_SCOPE_COST},
        {"client_", METRICS_SCOPE_CLIENTS},      {"request", METRICS_SCOPE_CLIENTS},
        {"response", METRICS_SCOPE_CLIENTS},     {"bad_requests", METRICS_SCOPE_CLIENTS},
        {"access_log_", METRICS_SCOPE_CLIENTS},  {"fleet_", METRICS_SCOPE_FLEET},
    };
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
        if (starts(name, prefixes[i].prefix))
            return prefixes[i].scope;
    return METRICS_SCOPE_PROCESS;
}

static bool is(const char *known, const char *name, size_t len)
{
    return strlen(known) == len && !memcmp(known, name, len);
}

bool metrics_family_exists(const char *name, size_t len)
{
    for (unsigned i = 0; i < METRICS; i++)
        if (is(families[i].name, name, len))
            return true;
    for (unsigned i = 0; i < STATS_COUNTERS; i++)
        if (is(counters[i].name, name, len))
            return true;
    for (unsigned i = 0; i < STATS_GAUGES; i++)
        if (is(gauges[i].name, name, len))
            return true;
    return false;
}

struct metrics_classic metrics_classic_of(enum histogram_first first)
{
    return first == HISTOGRAM_LATENCY ? (struct metrics_classic){-16, 5, 1}
                                      : (struct metrics_classic){-4, 20, 2};
}
