/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * savings: cost and savings of this service, from its counters, its supervisor and its prices.
 *
 * Counters are in shared memory and outlive every process but the master. The supervisor counts its
 * WebSockets itself, from its own start. The samples of the last hour are control's: a new control
 * begins without. The last day comes from the history, which survives restarts.
 */
#ifndef POLDER_CONTROL_SAVINGS_H
#define POLDER_CONTROL_SAVINGS_H
#include "daemons/control/model/cost.h"

struct control;
struct peers_leaked;

enum savings_basis { SAVINGS_SINCE_START, SAVINGS_LAST_HOUR, SAVINGS_LAST_DAY, SAVINGS_BASES };

struct savings {
    const char *currency;
    double upstream_call, websocket_hour;
    struct cost_counts counts; /* since the start */
    struct cost_money money;   /* of them */
    struct savings_month {
        const char *name; /* NULL: not known yet */
        double seconds;   /* looked at */
        bool websocket_known;
        struct cost_money money; /* projected to a month */
    } month[SAVINGS_BASES];
};

/* What the history has of the last day, as of its newest sample. */
#define SAVINGS_DAY_SERIES (COST_OPTIMISATIONS + 1) /* what each saves, and behind them the cost */
struct savings_day {
    uint64_t end, newest; /* of the samples; 0: not looked at yet */
    double mean[SAVINGS_DAY_SERIES], seconds[SAVINGS_DAY_SERIES];
};

/* The counters as calls made and avoided, with seconds of 0. leaked_hours of WebSockets: -1: not
 * known; not looked at where no route has WebSockets. */
void savings_count_calls(const struct control *c, double leaked_hours, struct cost_counts *out);
void savings_find(struct control *c, const struct peers_leaked *leaked, struct savings *out);
/* Asks the supervisor, if there are WebSockets, and calls back. */
void savings_ask(struct control *c, void (*done)(void *arg, const struct savings *s), void *arg);
/* Each second: takes the samples of the last hour. */
void savings_follow(struct control *c);
#endif
