/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * release: a service in numbers, of which a new release gets a share: requests of both sides second
 * by second, whose errors and times are chance, as the guard of a shift sees them. The same seed is
 * the same run.
 */
#ifndef POLDER_TESTS_UNIT_RELEASE_H
#define POLDER_TESTS_UNIT_RELEASE_H
#include "polder/shift_watch.h"
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct side {
    double errors; /* probability */
    double ms;
};
struct run {
    struct shift_watch watch;
    struct shift_counts total[SHIFT_SIDES];
    uint64_t now_ms, seed;
    double due[SHIFT_SIDES];
};

static inline double chance(struct run *r)
{
    r->seed += UINT64_C(0x9e3779b97f4a7c15); /* splitmix64 */
    uint64_t z = r->seed;
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return (double)((z ^ z >> 31) >> 11) / 9007199254740992.;
}

/* Seeds one apart would be runs that are the same but for one number. */
static inline void run_begin(struct run *r, uint64_t seed)
{
    memset(r, 0, sizeof *r);
    r->seed = seed;
    r->seed = (uint64_t)(chance(r) * 9007199254740992.) << 11;
    r->now_ms = 1000000;
    shift_watch_begin(&r->watch, r->total, r->now_ms);
}

static inline void serve(struct run *r, enum shift_side at, const struct side *side,
                         double requests)
{
    struct shift_counts *t = &r->total[at];
    for (r->due[at] += requests; r->due[at] >= 1 - 1e-9; r->due[at]--) {
        const double ns = side->ms * 1e6 * (.5 + chance(r));
        t->requests++;
        t->errors += chance(r) < side->errors;
        t->bucket[histogram_bucket(HISTOGRAM_LATENCY, (uint64_t)ns)]++;
    }
}

/* One second of so many requests in all, a share of which the new side has. */
static inline enum shift_verdict second(struct run *r, double rate, double share,
                                        const struct side *new, const struct side *other)
{
    serve(r, SHIFT_NEW, new, rate * share);
    serve(r, SHIFT_OTHER, other, rate * (1 - share));
    r->now_ms += 1000;
    return shift_watch_look(&r->watch, r->total, r->now_ms);
}

struct course {
    double rate, share; /* requests a second, in all; the part of the new side */
    unsigned good_s;    /* for so long the new side is as good as the other one */
    unsigned max_s;     /* from then on */
};
#define RUN_FALSE_ALARM UINT32_MAX /* within good_s */
/* Seconds until it trips, after the first good_s; 0: it does not. */
static inline unsigned trips_after(uint64_t seed, const struct course *c, const struct side *new,
                                   const struct side *other)
{
    struct run r;
    run_begin(&r, seed);
    for (unsigned s = 1; s <= c->good_s + c->max_s; s++)
        if (second(&r, c->rate, c->share, s <= c->good_s ? other : new, other) == SHIFT_WORSE)
            return s > c->good_s ? s - c->good_s : RUN_FALSE_ALARM;
    return 0;
}

static inline int by_number(const void *a, const void *b)
{
    const unsigned x = *(const unsigned *)a, y = *(const unsigned *)b;
    return x < y ? -1 : x > y;
}
#endif
