/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * cost: cost of calls to backends, and savings; arithmetic alone. The formulas are those
 * of polder.conf(5), section cost:
 *
 *   estimated cost  upstream_call  x requests sent to backends
 *   polling         upstream_call  x polls answered from the store within the interval
 *   websocket       websocket_hour x hours that reaped connections would have been held
 *   caching         upstream_call  x (hits + collapsed - polls - refreshes - checks of the leak
 * guard) rateLimiting    upstream_call  x requests refused by a limit
 *
 * Nothing is counted twice: a poll that was answered is a hit too, and is taken from there. Stale
 * answers save nothing here, because most of them cause a backend request.
 */
#ifndef POLDER_CONTROL_COST_H
#define POLDER_CONTROL_COST_H
#include <stdbool.h>
#include <stdint.h>

#define COST_MONTH_S (30. * 24 * 3600)

struct config_cost;

enum cost_optimisation {
    COST_POLLING,
    COST_WEBSOCKET,
    COST_CACHING,
    COST_RATE_LIMITING,
    COST_OPTIMISATIONS
};
extern const char *const cost_names[COST_OPTIMISATIONS]; /* "polling", ... */

/* As counted; the names are those of the counters. */
struct cost_events {
    uint64_t upstream_requests, hits, collapsed, poll_kept, refreshed, guard_requests,
        limit_refused;
    double leaked_hours; /* of WebSockets; negative: unknown */
};

/* What has a price. */
struct cost_counts {
    double seconds, websocket_seconds; /* in which calls and hours were counted */
    double calls;
    double spared[COST_OPTIMISATIONS]; /* calls; COST_WEBSOCKET: hours */
    bool websocket_known;              /* else spared[COST_WEBSOCKET] is 0 */
};

struct cost_money {
    double estimated, saved[COST_OPTIMISATIONS], saved_total;
};

/* Seconds are left to the caller. */
void cost_count(const struct cost_events *events, struct cost_counts *out);
void cost_of(const struct config_cost *prices, const struct cost_counts *counts,
             struct cost_money *out);
/* Projects to a month of 30 days; the first minute counts as a whole one. */
struct cost_counts cost_month(const struct cost_counts *counts);

/* The difference of two of them; counts that are lower now were reset. */
void cost_difference(const struct cost_counts *then, const struct cost_counts *now,
                     struct cost_counts *out);

/* ---- the last hour ---- */

#define COST_HOUR_S   3600.
#define COST_SAMPLE_S 60. /* between samples */
#define COST_SAMPLES  64  /* more than an hour of them */

struct cost_past { /* {0}: empty */
    struct cost_counts sample[COST_SAMPLES];
    unsigned taken; /* in all */
};

bool cost_past_due(const struct cost_past *past, double seconds);
void cost_past_add(struct cost_past *past, const struct cost_counts *now);
/* The counts since the latest sample that is an hour old. False: there is none. */
bool cost_past_hour(const struct cost_past *past, const struct cost_counts *now,
                    struct cost_counts *out);
#endif
