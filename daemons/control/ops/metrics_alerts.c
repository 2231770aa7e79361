/* SPDX-License-Identifier: BSD-2-Clause */
/* metrics_alerts: see metrics_alerts.h. One sample for each alert that is pending or fires, and one
 * of 0 for each rule of which none is: at most rules and ALERT_ROWS. */
#include "daemons/control/ops/metrics_alerts.h"
#include "daemons/control/control.h"
#include "daemons/control/model/alerts.h"

#include <string.h>

static void put_state(struct metrics_writer *w, const struct config_alert *rule,
                      const char *subject, uint64_t value)
{
    char name[METRICS_VALUE_MAX], text[METRICS_VALUE_MAX];
    metrics_u64(w,
                METRICS_LABELS({"alert", metrics_label_value(rule->name, name)},
                               {"subject", metrics_label_value(subject, text)},
                               {"severity", rule->severity}),
                value);
}

static void put_rule(struct metrics_writer *w, const struct config_alert *rule,
                     const struct alert_row *const *list, size_t n)
{
    bool put = false;
    for (size_t i = 0; i < n; i++) {
        const enum alert_state state = alert_view(list[i]).state;
        if (strcmp(list[i]->name, rule->name) || state == ALERT_RESOLVED)
            continue;
        put_state(w, rule, list[i]->subject, state == ALERT_FIRING ? 2 : 1);
        put = true;
    }
    if (!put)
        put_state(w, rule, "", 0);
}

void metrics_write_alerts(struct metrics_writer *w, const struct control *c)
{
    const struct alert_page *page = c->shared->alerts;
    const struct alert_row *list[ALERT_ROWS];
    const size_t n = alerts_list(c, list);
    if (metrics_family_begin(w, METRIC_ALERT_STATE))
        for (uint32_t i = 0; i < c->config->n_alerts; i++)
            if (c->config->alerts[i].enabled)
                put_rule(w, &c->config->alerts[i], list, n);
    if (metrics_family_begin(w, METRIC_ALERT_NOTICES)) {
        metrics_u64(w, METRICS_LABELS({"result", "delivered"}), atomic_load(&page->delivered));
        metrics_u64(w, METRICS_LABELS({"result", "failed"}), atomic_load(&page->failed));
        metrics_u64(w, METRICS_LABELS({"result", "lost"}), atomic_load(&page->lost));
    }
}
