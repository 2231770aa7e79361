/* SPDX-License-Identifier: BSD-2-Clause */
/* metrics_family: the families that /metrics can have, all of them from tables: metrics.def,
 * counters.def, gauges.def. Knows nothing of control. */
#ifndef POLDER_CONTROL_METRICS_FAMILY_H
#define POLDER_CONTROL_METRICS_FAMILY_H
#include "polder/histogram.h"
#include "polder/stats.h"
#include <stdbool.h>

enum metric {
#define METRIC(id, name, type, unit, help) METRIC_##id,
#include "libshared/tables/metrics.def"
#undef METRIC
    METRICS
};
enum metrics_type { METRICS_COUNTER, METRICS_GAUGE, METRICS_HISTOGRAM, METRICS_INFO };

#define METRICS_SCOPES(X)                                                                          \
    X(PROCESS, "process")                                                                          \
    X(CLIENTS, "clients")                                                                          \
    X(ROUTES, "routes")                                                                            \
    X(CACHE, "cache")                                                                              \
    X(LIMITS, "limits")                                                                            \
    X(UPSTREAMS, "upstreams")                                                                      \
    X(WEBSOCKETS, "websockets")                                                                    \
    X(COST, "cost")                                                                                \
    X(FLEET, "fleet")
enum metrics_scope {
#define SCOPE(id, name) METRICS_SCOPE_##id,
    METRICS_SCOPES(SCOPE)
#undef SCOPE
        METRICS_SCOPE_COUNT
};
extern const char *const metrics_scope_names[METRICS_SCOPE_COUNT];

struct metrics_family {
    const char *name; /* without "polder_", and without the suffix of its samples */
    enum metrics_type type;
    const char *unit; /* "": none */
    const char *help;
};
const struct metrics_family *metrics_family_of(enum metric id);
/* One row of the tables; several rows of one name are one family. */
struct metrics_family metrics_family_of_counter(enum stats_counter c, const char **labels);
struct metrics_family metrics_family_of_gauge(enum stats_gauge g, const char **labels);
enum metrics_scope metrics_scope_of(const char *name);
/* Is there a family of this name? */
bool metrics_family_exists(const char *name, size_t len);

/* Classic buckets, in all forms: upper bounds, powers of two of a second, which are bounds of the
 * histogram's own, so counts are exact. */
struct metrics_classic {
    int first, last, step;
};
struct metrics_classic metrics_classic_of(enum histogram_first first);
#endif
