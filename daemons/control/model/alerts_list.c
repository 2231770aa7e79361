/* SPDX-License-Identifier: BSD-2-Clause */
/* alerts_list: alerts as they are shown: in pages, answers, the log and notices. */
#include "daemons/control/control.h"
#include "daemons/control/model/alerts.h"
#include "polder/clock.h"
#include "polder/history.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct config_alert *rule_of(const struct control *c, const char *name)
{
    for (uint32_t i = 0; i < c->config->n_alerts; i++)
        if (!strcmp(c->config->alerts[i].name, name))
            return &c->config->alerts[i];
    return NULL;
}

static const char *metric_in_words(const struct config_alert *rule)
{
    return rule->of_server ? history_server_kind((enum history_server_series)rule->series)->what
                           : history_kind((enum history_series)rule->series)->what;
}

/* "more ... are wanted than may be open: ...: WebSockets open, and those refused within the last
 * minute: 61, alert above 50 (wsDemand)" */
static void put_summary(struct alert_shown *s, const char *reason)
{
    const struct config_alert *rule = s->rule;
    if (!rule) {
        snprintf(s->summary, sizeof s->summary, "the configuration has no such alert any more");
        return;
    }
    const int n = snprintf(s->summary, sizeof s->summary, "%s%s%s", rule->meaning,
                           *reason ? ": " : "", reason);
    if (rule->of_condition || n < 0 || (size_t)n >= sizeof s->summary || isnan(s->value))
        return;
    const char *space = *rule->unit ? " " : "";
    snprintf(s->summary + n, sizeof s->summary - (size_t)n,
             ": %s: %.4g%s%s, alert %s %.4g%s%s (%s)", metric_in_words(rule), s->value, space,
             rule->unit, rule->below ? "below" : "above", s->threshold, space, rule->unit,
             rule->metric);
}

void alerts_show(const struct control *c, const struct alert_row *row, struct alert_shown *s)
{
    const struct alert_view v = alert_view(row);
    const uint64_t now_ms = clock_mono_ms(), ago_ms = now_ms > v.since_ms ? now_ms - v.since_ms : 0;
    *s = (struct alert_shown){.rule = rule_of(c, row->name),
                              .name = row->name,
                              .subject = row->subject,
                              .state = alert_state_name(v.state),
                              .value = atomic_load(&row->value),
                              .threshold = atomic_load(&row->threshold),
                              .since = (double)(clock_real_ms() - ago_ms) / 1000};
    put_summary(s, row->reason);
    if (s->rule && s->rule->built_in)
        snprintf(s->runbook, sizeof s->runbook, "%s %s",
                 s->rule->of_condition ? "condition" : "alert", row->name);
}

size_t alerts_list(const struct control *c, const struct alert_row *out[ALERT_ROWS])
{
    static const enum alert_state order[] = {ALERT_FIRING, ALERT_PENDING, ALERT_RESOLVED};
    const struct alert_page *page = c->shared->alerts;
    size_t n = 0;
    for (size_t k = 0; k < sizeof order / sizeof *order; k++)
        for (size_t i = 0; i < ALERT_ROWS; i++)
            if (atomic_load(&page->row[i].id) && alert_view(&page->row[i]).state == order[k] &&
                n < ALERT_ROWS)
                out[n++] = &page->row[i];
    return n;
}

static json_t *number_or_null(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

/* A string that is cut, or none of UTF-8, loses what is bad. */
static json_t *text_of(const char *text)
{
    json_t *s = json_string(text);
    return s ? s : json_string("?");
}

char *alerts_json(const struct alert_shown *s)
{
    json_t *j = json_object();
    json_object_set_new(j, "name", text_of(s->name));
    json_object_set_new(j, "subject", text_of(s->subject));
    json_object_set_new(j, "state", text_of(s->state));
    json_object_set_new(j, "severity", text_of(s->rule ? s->rule->severity : "info"));
    json_object_set_new(j, "value", number_or_null(s->value));
    json_object_set_new(j, "threshold", number_or_null(s->threshold));
    json_object_set_new(j, "unit", text_of(s->rule ? s->rule->unit : ""));
    json_object_set_new(j, "since", json_real(s->since));
    json_object_set_new(j, "summary", text_of(s->summary));
    json_object_set_new(j, "action", text_of(s->rule ? s->rule->action : ""));
    json_object_set_new(j, "runbook", text_of(s->runbook));
    char *text = json_dumps(j, JSON_COMPACT | JSON_PRESERVE_ORDER);
    json_decref(j);
    return text;
}
