/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * windows: counts of the last five minutes, hour and day; and connections some time ago.
 *
 * Samples of all counters are taken periodically, WINDOWS_SAMPLES per span; differences between two
 * of them are exact, percentiles too. They are control's: the first control begins with zeros at
 * the service's start, a new one after a crash with the counts at that time.
 */
#ifndef POLDER_CONTROL_WINDOWS_H
#define POLDER_CONTROL_WINDOWS_H
#include "daemons/control/model/cost.h"
#include "polder/stats.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct control;
struct windows;

enum windows_span { WINDOWS_5MIN, WINDOWS_1H, WINDOWS_24H, WINDOWS_SPANS };
#define WINDOWS_SAMPLES 60
extern const char *const windows_names[WINDOWS_SPANS]; /* "5m", ... */

/* Of a span, or of the time since the first sample where that is shorter. */
struct windows_sums {
    double seconds;
    uint64_t requests, hits, misses, errors; /* hits: stale ones too; errors: answers 5xx */
    double calls, avoided, refused;          /* of backends; see cost.h */
    double p50_s, p95_s, p99_s;              /* of answers that no limit refused; 0: none */
    struct cost_money money;
};

struct windows *windows_new(void);
void windows_free(struct windows *w);
void windows_follow(struct control *c); /* each second */
void windows_sum(const struct control *c, enum windows_span span, struct windows_sums *out);
struct windows_open {
    double connections, websockets; /* negative: unknown */
};
struct windows_open windows_open_now(const struct control *c);
/* Of the history, which outlives control. */
struct windows_open windows_open_ago(const struct control *c, unsigned minutes);
#endif
