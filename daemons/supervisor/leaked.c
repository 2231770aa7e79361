/* SPDX-License-Identifier: BSD-2-Clause */
/* leaked: see leaked.h. */
#include "daemons/supervisor/leaked.h"

#define HOUR_MS UINT64_C(3600000)

void leaked_begin(struct leaked *l, uint64_t now_ms)
{
    *l = (struct leaked){.since_ms = now_ms, .counted_ms = now_ms};
}

static void count_to(struct leaked *l, uint64_t ms)
{
    l->hours += (double)l->held * (double)(ms - l->counted_ms) / (double)HOUR_MS;
    l->counted_ms = ms;
}

/* Hour by hour: with each that begins, those of its place in the ring have had their time. */
static void advance(struct leaked *l, uint64_t now_ms)
{
    while (l->held && now_ms / HOUR_MS > l->counted_ms / HOUR_MS) {
        const uint64_t hour = l->counted_ms / HOUR_MS + 1;
        count_to(l, hour * HOUR_MS);
        l->held -= l->reaped[hour % LEAKED_HOURS];
        l->reaped[hour % LEAKED_HOURS] = 0;
    }
    if (now_ms > l->counted_ms)
        count_to(l, now_ms);
}

void leaked_add(struct leaked *l, uint64_t now_ms)
{
    advance(l, now_ms);
    l->reaped[l->counted_ms / HOUR_MS % LEAKED_HOURS]++;
    l->held++;
}

double leaked_hours(struct leaked *l, uint64_t now_ms)
{
    advance(l, now_ms);
    return l->hours;
}
