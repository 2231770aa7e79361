/* SPDX-License-Identifier: BSD-2-Clause */
/* metrics_cost: see metrics_cost.h. Gauges, for a reload may change the prices. */
#include "daemons/control/ops/metrics_cost.h"
#include "daemons/control/model/savings.h"
#include "daemons/control/peers.h"

#include <stdio.h>

void metrics_write_cost(struct metrics_writer *w, const msgpack_object *websocket)
{
    static const char *const window[] = {
        [SAVINGS_SINCE_START] = "start", [SAVINGS_LAST_HOUR] = "hour"};
    struct savings s;
    char text[128], labels[160];
    const struct peers_leaked leaked = peers_leaked_of(websocket);
    savings_find(w->control, &leaked, &s);
    metrics_family(w, "cost", "info", NULL, "In which currency cost is counted");
    snprintf(labels, sizeof labels, "currency=\"%s\"",
             metrics_escaped(s.currency, text, sizeof text));
    metrics_sample_u64(w, "_info", labels, 1);
    metrics_family(w, "cost_estimated", "gauge", NULL, "What calls to backends have cost");
    metrics_sample(w, "", "", s.money.estimated);
    metrics_family(w, "cost_savings", "gauge", NULL, "What was saved, by optimisation");
    for (int i = 0; i < COST_OPTIMISATIONS; i++) {
        if (i == COST_WEBSOCKET && !s.counts.websocket_known)
            continue;
        snprintf(labels, sizeof labels, "optimisation=\"%s\"", cost_names[i]);
        metrics_sample(w, "", labels, s.money.saved[i]);
    }
    metrics_family(w, "cost_projected_monthly", "gauge", NULL,
                   "What calls to backends will cost in 30 days that go on like the window");
    for (int i = 0; i < SAVINGS_BASES; i++) {
        if (!s.month[i].name)
            continue;
        snprintf(labels, sizeof labels, "window=\"%s\"", window[i]);
        metrics_sample(w, "", labels, s.month[i].money.estimated);
    }
}
