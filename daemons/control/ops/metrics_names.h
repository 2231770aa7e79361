/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * metrics_names: the routes, limits and servers that a scrape shows. A client may read it slowly
 * and the configuration may change meanwhile, so names, ids and running values are copied when it
 * begins.
 */
#ifndef POLDER_CONTROL_METRICS_NAMES_H
#define POLDER_CONTROL_METRICS_NAMES_H
#include "daemons/control/ops/metrics_writer.h"
#include "polder/runtime.h"

struct control;

enum metrics_rows { METRICS_OF_ROUTES, METRICS_OF_LIMITS, METRICS_OF_SERVERS, METRICS_ROWS };

struct metrics_row {
    uint64_t id;    /* of its counters (polder/stats.h) */
    uint32_t index; /* in the configuration */
    struct metrics_label label[METRICS_LABELS_MAX + 1];
};
struct metrics_names {
    struct metrics_row *row[METRICS_ROWS];
    uint32_t rows[METRICS_ROWS];
    struct runtime_values values;
    char *texts; /* the labels' */
    size_t texts_len;
};

bool metrics_names_take(struct metrics_names *n, const struct control *c); /* false: no memory */
void metrics_names_free(struct metrics_names *n);
#endif
