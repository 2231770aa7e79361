/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * metrics: /metrics, as OpenMetrics 1.0, as the older Prometheus text (0.0.4), or as protobuf with
 * native histograms; all of it or what the query names (metrics_query.h).
 *
 * The page is written in parts while the scraper reads it, so a long one does not block the loop
 * and a slow scraper costs the memory of one part.
 */
#ifndef POLDER_CONTROL_METRICS_H
#define POLDER_CONTROL_METRICS_H
#include "daemons/control/ops/metrics_names.h"
#include "daemons/net/http_server.h"
#include <msgpack.h>

struct control;
void metrics_page(struct control *c, const struct http_call *call);

struct metrics_run {
    const struct control *control;
    struct metrics_writer writer;
    struct metrics_names names;
    unsigned step;
    uint32_t row;
};
/* websocket: what ws.stats has answered, while it is there; NULL: no supervisor. query NULL: all.
 * False: no memory. */
bool metrics_run_begin(struct metrics_run *run, struct control *c, enum metrics_form form,
                       const struct metrics_query *query, const msgpack_object *websocket,
                       struct text *out);
bool metrics_run_step(struct metrics_run *run); /* writes some more; false: that was all */
void metrics_run_free(struct metrics_run *run); /* also after a false, or if it is all 0 */
#endif
