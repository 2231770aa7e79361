/* SPDX-License-Identifier: BSD-2-Clause */
/* metrics_shift: see metrics_shift.h. */
#include "daemons/control/ops/metrics_shift.h"
#include "daemons/control/control.h"
#include "daemons/control/model/shift.h"

static uint64_t percent_of(const struct shift_state *s)
{
    return s->percent;
}

static uint64_t guard_of(const struct shift_state *s)
{
    return shift_guard_number(s);
}

static void write_family(struct metrics_writer *w, const struct control *c, enum metric metric,
                         uint64_t (*value)(const struct shift_state *s))
{
    char upstream[METRICS_VALUE_MAX], server[METRICS_VALUE_MAX];
    bool begun = false;
    for (uint32_t i = 0; i < c->config->n_upstreams; i++) {
        const struct shift_state *s = shift_of(c, &c->config->upstreams[i]);
        if (!s)
            continue;
        if (!begun && !metrics_family_begin(w, metric))
            return;
        begun = true;
        metrics_u64(w,
                    METRICS_LABELS({"upstream", metrics_label_value(s->upstream, upstream)},
                                   {"server", metrics_label_value(s->server, server)}),
                    value(s));
    }
}

void metrics_write_shifts(struct metrics_writer *w, const struct control *c)
{
    write_family(w, c, METRIC_SHIFT_PERCENT, percent_of);
    write_family(w, c, METRIC_SHIFT_GUARD, guard_of);
}
