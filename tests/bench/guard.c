/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * guard: how soon the guard of a shift finds a release that fails more often, and how often it
 * takes chance for that: the real rules, fed with many runs of a service in numbers.
 *
 *     build/bench/guard [RUNS]
 *
 * Rates are of requests in all; the new side has its share of them.
 */
#include "tests/unit/release.h"

#include <stdio.h>

#define RUNS_MAX 100000

static unsigned runs = 2000;
static unsigned found[RUNS_MAX]; /* 601: not in 10 minutes */

static void find(const char *name, const struct course *c, double from, double to)
{
    const struct side good = {from, 20}, bad = {to, 20};
    unsigned n = 0, in_time = 0;
    const unsigned limit = c->rate < 100 ? 60 : 20;
    for (unsigned i = 0; i < runs; i++) {
        const unsigned s = trips_after(1000 + i, c, &bad, &good);
        if (s == RUN_FALSE_ALARM)
            continue;
        in_time += s && s <= limit;
        found[n++] = s ? s : c->max_s + 1;
    }
    qsort(found, n, sizeof *found, by_number);
    printf("%-14s %4g /s %3.0f %%  %.1f -> %.1f %%: p50 %3u s, p90 %3u s, p99 %3u s; within %u s "
           "%5.1f %% of %u\n",
           name, c->rate, 100 * c->share, 100 * from, 100 * to, found[n / 2], found[n * 9 / 10],
           found[n * 99 / 100], limit, 100. * in_time / n, n);
}

static void find_all(void)
{
    for (int late = 0; late < 2; late++)
        for (int share = 10; share <= 50; share += 40)
            for (int rate = 20; rate <= 100; rate += 80) {
                const struct course c = {rate, share / 100., late ? 300 : 0, 600};
                find(late ? "after 5 min" : "from the start", &c, .005, .05);
            }
}

static void take_for_bad(double rate, double share, double errors)
{
    const struct course c = {rate, share, 0, 600};
    const struct side side = {errors, 20};
    unsigned soon = 0, all = 0;
    for (unsigned i = 0; i < runs; i++) {
        const unsigned s = trips_after(900000 + i, &c, &side, &side);
        all += s != 0;
        soon += s && s <= 300;
    }
    printf("both the same  %4g /s %3.0f %%  %5.1f %%: false alarms %5.2f %% of 5 min, %5.2f %% of "
           "10 min\n",
           rate, 100 * share, 100 * errors, 100. * soon / runs, 100. * all / runs);
}

int main(int argc, char **argv)
{
    static const double errors[] = {0, .005, .02, .1};
    if (argc > 1)
        runs = (unsigned)strtoul(argv[1], NULL, 10);
    if (!runs || runs > RUNS_MAX)
        return fprintf(stderr, "usage: %s [RUNS]\n", argv[0]), 2;
    find_all();
    for (int share = 10; share <= 50; share += 40)
        for (int rate = 20; rate <= 100; rate += 80)
            for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
                take_for_bad(rate, share / 100., errors[i]);
    return 0;
}
