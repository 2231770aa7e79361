/* SPDX-License-Identifier: BSD-2-Clause */
/* metrics_cost: see metrics_cost.h. Gauges, for a reload may change the prices. */
#include "daemons/control/ops/metrics_cost.h"
#include "daemons/control/model/savings.h"
#include "daemons/control/peers.h"

void metrics_write_cost(struct metrics_writer *w, struct control *c,
                        const msgpack_object *websocket)
{
    static const char *const window[] = {
        [SAVINGS_SINCE_START] = "start", [SAVINGS_LAST_HOUR] = "hour", [SAVINGS_LAST_DAY] = "day"};
    struct savings s;
    char currency[METRICS_VALUE_MAX];
    const struct peers_leaked leaked = peers_leaked_of(websocket);
    savings_find(c, &leaked, &s);
    if (metrics_family_begin(w, METRIC_COST))
        metrics_u64(w, METRICS_LABELS({"currency", metrics_label_value(s.currency, currency)}), 1);
    if (metrics_family_begin(w, METRIC_COST_ESTIMATED))
        metrics_f64(w, METRICS_NO_LABELS, s.money.estimated);
    if (metrics_family_begin(w, METRIC_COST_SAVINGS))
        for (int i = 0; i < COST_OPTIMISATIONS; i++)
            if (i != COST_WEBSOCKET || s.counts.websocket_known)
                metrics_f64(w, METRICS_LABELS({"optimisation", cost_names[i]}), s.money.saved[i]);
    if (metrics_family_begin(w, METRIC_COST_MONTHLY))
        for (int i = 0; i < SAVINGS_BASES; i++)
            if (s.month[i].name)
                metrics_f64(w, METRICS_LABELS({"window", window[i]}), s.month[i].money.estimated);
}
