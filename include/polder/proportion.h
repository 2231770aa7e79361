/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * proportion: is the share of errors of one server worse than that of others in the same time, or
 * is the difference chance?
 *
 * The two-proportion test: z is the difference of both shares in standard deviations of the share
 * of both together. One side is worse where it has had enough requests, its share is more than
 * PROPORTION_FLOOR higher, z is over PROPORTION_Z, and that holds PROPORTION_ROWS times in a row:
 * with equal sides, less than one look in 500 000 is wrong.
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
#define PROPORTION_ROWS  2

struct proportion {
    uint64_t requests, errors; /* more errors than requests count as so many */
};
double proportion_rate(const struct proportion *p); /* 0 where there were no requests */
/* How far `of` is above the others, below them negative; 0 where a side had no requests or both
 * together have no errors, or nothing else. */
double proportion_z(const struct proportion *of, const struct proportion *others);

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
#endif
