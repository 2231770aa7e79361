/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * alerts: which rules hold (polder/alerts.h). A rule of a metric looks at the last minute; one of a
 * share or a percentile needs ALERT_MIN_REQUESTS requests in it, or says nothing. What is raised in the
 * table of conditions is an alert too.
 *
 * Missing values are never judged: a metric without a value ends a pending alert, and a firing one
 * after a minute.
 */
#ifndef POLDER_CONTROL_ALERTS_H
#define POLDER_CONTROL_ALERTS_H
#include "polder/alerts.h"
#include "polder/config.h"

#define ALERT_MIN_REQUESTS 10

struct control;
struct alerts;

struct alerts *alerts_new(void);
void alerts_free(struct alerts *a);
void alerts_follow(struct control *c); /* each second, after history_follow() */

/* An alert as it is shown. Texts: of the row, the rule or the struct itself. */
struct alert_shown {
    const struct config_alert *rule; /* NULL: the file has none any more */
    const char *name, *subject, *state;
    double value, threshold; /* NaN: not known */
    double since;            /* Unix time */
    char summary[640];
    char runbook[ALERT_NAME + 16]; /* its entry in polder-runbook(7); "": one of the file's own */
};
/* The alerts that are pending, firing or resolved, firing ones first. Returns how many. */
size_t alerts_list(const struct control *c, const struct alert_row *out[ALERT_ROWS]);
void alerts_show(const struct control *c, const struct alert_row *row, struct alert_shown *out);
/* As JSON; malloc'd, NULL: no memory. */
char *alerts_json(const struct alert_shown *alert);
#endif
