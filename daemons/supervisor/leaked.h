/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * leaked: how long reaped WebSockets would have been held by now.
 *
 * A dead one stays open until its process ends. How long that would have been is not known, so each
 * counts from its reaping on, for as long as we run, and no longer than 720 hours: rounded down to
 * the hour.
 */
#ifndef POLDER_SUPERVISOR_LEAKED_H
#define POLDER_SUPERVISOR_LEAKED_H
#include <stdint.h>

#define LEAKED_HOURS 720 /* a month of 30 days */

struct leaked {
    uint64_t since_ms, counted_ms; /* began; is counted up to here */
    uint64_t held;                 /* connections that count now */
    double hours;                  /* connection hours */
    uint32_t reaped[LEAKED_HOURS]; /* by the hour in which they were */
};

void leaked_begin(struct leaked *l, uint64_t now_ms);
void leaked_add(struct leaked *l, uint64_t now_ms); /* one was reaped */
double leaked_hours(struct leaked *l, uint64_t now_ms);
#endif
