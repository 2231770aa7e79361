/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * proportion: is the share of errors of one server worse than that of others in the same time, or
 * is the difference chance?
 *
 * The two-proportion test: z is the difference of both shares in standard deviations of the share
 * of both together. One side is worse where it has had enough requests, its share is more than
 * PROPORTION_FLOOR higher, z is over PROPORTION_Z, and that holds PROPORTION_ROWS times in a row. Of
 * few errors z says more than there is to know: three of 100 beside three of 900 have a z of 3.3, and
 * are chance in one of 60 cases; so the exact test has to find it as unlikely as that z. With equal
 * sides, less than one look in 500 000 is wrong.
 *
 * That needs many errors before it is sure. Two more tests look at errors alone: each is one of the
 * side that is judged, or of the others, and with equal sides the odds are those of the requests,
 * however many fail. proportion_chance() is exact for any number of them, for one look. The trend of
 * struct proportion_rise is for many looks over a long time: it adds up the evidence of each error
 * that the rate is PROPORTION_RISE times that of the others, forgets what speaks against it (CUSUM),
 * and asks for more the more requests it has seen, so that a day of looks is not wrong much more
 * often than the first minutes. Unlike totals it finds a rise as soon after an hour as at once.
 *
 * Nothing here knows the time or whose counts they are.
 */
#ifndef POLDER_PROPORTION_H
#define POLDER_PROPORTION_H
#include <stdbool.h>
#include <stdint.h>

#define PROPORTION_MIN   100  /* requests of the side that is judged */
#define PROPORTION_FLOOR 0.01 /* a point */
#define PROPORTION_Z     3.
#define PROPORTION_ODDS  0.00135 /* of a z of 3 */
#define PROPORTION_ROWS  2

#define PROPORTION_RISE        8.
#define PROPORTION_RISE_LIMIT  6.   /* of the evidence, which is a natural logarithm, ... */
#define PROPORTION_RISE_SCALE  120. /* ... growing by ln(1 + requests of the judged side / 120) */
#define PROPORTION_RISE_ERRORS 3    /* at least */
#define PROPORTION_RISE_MIN    30   /* requests since the rise began */
#define PROPORTION_RISE_MAX    500  /* by then it has to be over PROPORTION_FLOOR, or is none */
#define PROPORTION_BATCH       20   /* requests of both: what is judged together */

struct proportion {
    uint64_t requests, errors; /* more errors than requests count as so many */
};
double proportion_rate(const struct proportion *p); /* 0 where there were no requests */
/* How far `of` is above the others, below them negative; 0 where a side had no requests or both
 * together have no errors, or nothing else. */
double proportion_z(const struct proportion *of, const struct proportion *others);

/* With equal rates, how often do so many of the errors, or more, fall to `of`? 1 where a side had no
 * requests. */
double proportion_chance(const struct proportion *of, const struct proportion *others);

/* Looks in a row that found it worse. */
struct proportion_trend {
    uint32_t worse;
};
enum proportion_result {
    PROPORTION_TOO_FEW, /* requests: nothing is known, and the trend stays as it was */
    PROPORTION_FINE,
    PROPORTION_SUSPECT, /* worse, but not often enough in a row yet */
    PROPORTION_WORSE,
};
enum proportion_result proportion_look(struct proportion_trend *trend, const struct proportion *of,
                                       const struct proportion *others);

struct proportion_rise {
    double evidence;
    struct proportion of, others;         /* since the evidence was 0 */
    struct proportion batch, other_batch; /* not judged yet */
};
/* What has come since the last call. An error may come later than its request. */
void proportion_rise_add(struct proportion_rise *rise, const struct proportion *of,
                         const struct proportion *others);
/* seen: requests of the judged side in all. */
double proportion_rise_limit(uint64_t seen);
/* SUSPECT: half of the evidence that is needed is there. Never TOO_FEW. */
enum proportion_result proportion_rise_look(const struct proportion_rise *rise, uint64_t seen);
#endif
