/* SPDX-License-Identifier: BSD-2-Clause */
/* alerts: see alerts.h. */
#include "daemons/control/model/alerts.h"
#include "daemons/control/control.h"
#include "daemons/control/model/events.h"
#include "daemons/control/model/history.h"
#include "polder/clock.h"
#include "polder/conditions.h"
#include "polder/log.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define UNKNOWN_MS 60000

enum observation { HOLDS, BETWEEN, CLEAR, UNKNOWN };

struct alerts {
    uint64_t unknown_ms[ALERT_ROWS]; /* since when nothing is known of it; 0: something is */
    bool seen[ALERT_ROWS];           /* in this round */
    bool judged;                     /* there are values of the last minute */
    float minute[HISTORY_WIDTH];
};

struct alerts *alerts_new(void)
{
    return calloc(1, sizeof(struct alerts));
}

void alerts_free(struct alerts *a)
{
    free(a);
}

/* ---- what a rule sees ---- */

/* How many requests a minute a value is made of; a value that is counted in itself: enough. */
static double weight_of(const struct config_alert *rule, const float *minute, size_t row)
{
    const float *server = &minute[history_server_column(row, (enum history_server_series)0)];
    if (rule->of_server)
        return rule->series == HISTORY_SERVER_P95 || rule->series == HISTORY_SERVER_MEAN ||
                       rule->series == HISTORY_SERVER_ERROR_RATE
                   ? 60. * (double)(server[HISTORY_SERVER_REQUESTS] + server[HISTORY_SERVER_ERRORS])
                   : ALERT_MIN_REQUESTS;
    switch ((enum history_series)rule->series) {
    case HISTORY_HIT_RATE:
        return 60. *
               (double)(minute[HISTORY_HITS] + minute[HISTORY_STALE] + minute[HISTORY_MISSES]);
    case HISTORY_P50:
    case HISTORY_P95:
    case HISTORY_P99:
    case HISTORY_MEAN:
    case HISTORY_ERROR_RATE:
        return 60. * (double)minute[HISTORY_REQUESTS];
    default:
        return ALERT_MIN_REQUESTS;
    }
}

static enum observation judge(const struct config_alert *rule, double value, double threshold)
{
    const double clear = rule->of_limit ? threshold : rule->clear;
    if (isnan(value) || isnan(threshold))
        return UNKNOWN;
    if (rule->below)
        return value < threshold ? HOLDS : value < clear ? BETWEEN : CLEAR;
    return value > threshold ? HOLDS : value > clear ? BETWEEN : CLEAR;
}

/* ---- what follows ---- */

static void tell(struct control *c, struct alert_row *row)
{
    struct alert_shown shown;
    char *text = NULL;
    if (*c->config->on_alert) {
        alerts_show(c, row, &shown);
        text = alerts_json(&shown);
    }
    alert_tell(c->shared->alerts, row, text);
    if (text)
        shared_wake_notifier(c->shared);
    free(text);
}

static void report(struct control *c, const struct alert_row *row, enum alert_state state)
{
    struct alert_shown s;
    alerts_show(c, row, &s);
    if (state == ALERT_FIRING)
        log_warning("alert %s%s%s is firing: %s; see polder-runbook(7)", s.name,
                    *s.subject ? " " : "", s.subject, s.summary);
    else
        log_info("alert %s%s%s is over", s.name, *s.subject ? " " : "", s.subject);
    events_add(c, "alerts", s.state, s.name, 1, "%s%s%s", s.subject, *s.subject ? ": " : "",
               s.summary);
}

static void move(struct control *c, struct alert_row *row, enum alert_state state, uint64_t now_ms)
{
    alert_move(row, state, now_ms);
    if (state == ALERT_NONE)
        alert_free(row);
    else if (state != ALERT_PENDING)
        report(c, row, state);
}

/* Holds, and has for how long? */
static void step_holding(struct control *c, struct alert_row *row, const struct config_alert *rule,
                         uint64_t now_ms)
{
    struct alert_view v = alert_view(row);
    if (v.state == ALERT_NONE || v.state == ALERT_RESOLVED) {
        move(c, row, ALERT_PENDING, now_ms);
        v = alert_view(row);
    }
    if (v.state == ALERT_PENDING && now_ms - v.since_ms >= rule->for_ms)
        move(c, row, ALERT_FIRING, now_ms);
}

static void step(struct control *c, struct alert_row *row, const struct config_alert *rule,
                 enum observation o, uint64_t now_ms)
{
    struct alerts *a = c->alerts;
    const struct alert_view v = alert_view(row);
    uint64_t *unknown_ms = &a->unknown_ms[row - c->shared->alerts->row];
    if (o != UNKNOWN)
        *unknown_ms = 0;
    else if (!*unknown_ms)
        *unknown_ms = now_ms;
    if (o == HOLDS)
        step_holding(c, row, rule, now_ms);
    else if (v.state == ALERT_PENDING)
        move(c, row, ALERT_NONE, now_ms);
    else if (v.state == ALERT_FIRING &&
             (o == CLEAR || (o == UNKNOWN && now_ms - *unknown_ms >= UNKNOWN_MS)))
        move(c, row, ALERT_RESOLVED, now_ms);
    else if (v.state == ALERT_RESOLVED && now_ms - v.since_ms >= ALERT_RESOLVED_MS)
        move(c, row, ALERT_NONE, now_ms);
}

/* A row is taken only for what holds. */
static void note(struct control *c, const struct config_alert *rule, const char *subject,
                 enum observation o, double value, double threshold, const char *reason,
                 uint64_t now_ms)
{
    struct alert_page *page = c->shared->alerts;
    struct alert_row *row = o == HOLDS ? alert_take(page, rule->name, subject)
                                       : alert_find(page, alert_id(rule->name, subject));
    if (!row)
        return;
    c->alerts->seen[row - page->row] = true;
    atomic_store(&row->value, value);
    atomic_store(&row->threshold, threshold);
    snprintf(row->reason, sizeof row->reason, "%s", reason);
    step(c, row, rule, o, now_ms);
}

/* ---- rules ---- */

static void look_at_metric(struct control *c, const struct config_alert *rule, const char *subject,
                           size_t row, uint64_t now_ms)
{
    const float *minute = c->alerts->minute;
    const size_t column = rule->of_server
                              ? history_server_column(row, (enum history_server_series)rule->series)
                              : rule->series;
    double value = (double)minute[column] * rule->factor;
    const double threshold = rule->of_limit ? (double)minute[HISTORY_WS_MAX] : rule->threshold;
    if (!(weight_of(rule, minute, row) >= ALERT_MIN_REQUESTS))
        value = NAN;
    note(c, rule, subject, judge(rule, value, threshold), value, threshold, "", now_ms);
}

/* Rows of servers that the configuration does not have any more have no values. */
static void look_at_servers(struct control *c, const struct config_alert *rule, uint64_t now_ms)
{
    const struct history_page *page = c->shared->history;
    char subject[ALERT_SUBJECT];
    for (size_t row = 0; row < HISTORY_SERVERS; row++) {
        if (!atomic_load(&page->server[row].id))
            continue;
        snprintf(subject, sizeof subject, "%s", page->server[row].subject);
        look_at_metric(c, rule, subject, row, now_ms);
    }
}

static void look_at_condition(struct control *c, const struct config_alert *rule,
                              const struct condition *list, size_t n, uint64_t now_ms)
{
    for (size_t i = 0; i < n; i++)
        if (list[i].id == (enum condition_id)rule->condition)
            note(c, rule, list[i].subject, HOLDS, 1, 1, list[i].reason, now_ms);
}

/* Values of metrics are missing for some seconds after a start of control: their alerts stay. */
static void keep_unjudged(struct control *c, const struct config_alert *rule)
{
    struct alert_page *page = c->shared->alerts;
    for (size_t i = 0; i < ALERT_ROWS; i++)
        if (atomic_load(&page->row[i].id) && !strcmp(page->row[i].name, rule->name))
            c->alerts->seen[i] = true;
}

/* What no rule has named in this round is over. */
static void end_others(struct control *c, uint64_t now_ms)
{
    static const struct config_alert none = {.name = ""};
    struct alert_page *page = c->shared->alerts;
    for (size_t i = 0; i < ALERT_ROWS; i++)
        if (atomic_load(&page->row[i].id) && !c->alerts->seen[i])
            step(c, &page->row[i], &none, CLEAR, now_ms);
}

void alerts_follow(struct control *c)
{
    struct alerts *a = c->alerts;
    struct condition list[CONDITION_ROWS];
    const uint64_t now_ms = clock_mono_ms();
    const size_t n = conditions_list(c->shared->conditions, clock_real_ms(), list);
    a->judged = history_minute(c, a->minute);
    memset(a->seen, 0, sizeof a->seen);
    for (uint32_t i = 0; i < c->config->n_alerts; i++) {
        const struct config_alert *rule = &c->config->alerts[i];
        if (!rule->enabled)
            continue;
        if (rule->of_condition)
            look_at_condition(c, rule, list, n, now_ms);
        else if (!a->judged)
            keep_unjudged(c, rule);
        else if (rule->of_server)
            look_at_servers(c, rule, now_ms);
        else
            look_at_metric(c, rule, "", 0, now_ms);
    }
    end_others(c, now_ms);
    for (size_t i = 0; i < ALERT_ROWS; i++)
        if (atomic_load(&c->shared->alerts->row[i].id) &&
            alert_is_untold(&c->shared->alerts->row[i]))
            tell(c, &c->shared->alerts->row[i]);
}
