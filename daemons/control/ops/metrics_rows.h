/* SPDX-License-Identifier: BSD-2-Clause */
/* metrics_rows: families with samples for each route, limit or server. */
#ifndef POLDER_CONTROL_METRICS_ROWS_H
#define POLDER_CONTROL_METRICS_ROWS_H
#include "daemons/control/ops/metrics_names.h"
#include "polder/shared.h"

struct metrics_source {
    const struct shared *shared;
    const struct metrics_names *names;
};
struct metrics_rows_family {
    enum metric metric;
    enum metrics_rows of;
    void (*write)(struct metrics_writer *w, const struct metrics_source *from,
                  const struct metrics_row *row);
};
extern const struct metrics_rows_family metrics_rows_families[];
extern const unsigned metrics_rows_count;
#endif
