/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * shift_watch: the guard of a traffic shift: is the new side worse than the other one at the same
 * time?
 *
 * Pure decisions over counts: it is given totals of both sides once a second, adds up what came
 * since the step began, and says what to think of it. Totals that are lower than before were reset
 * and begin at 0, so a watch goes on over restarts of any process. It knows no clock and no
 * configuration. Its memory is the caller's, without pointers: it may be kept in a file.
 *
 * The rules; errors and p95 are looked at each SHIFT_CHECK_MS, the others each time:
 *
 *   errors   the share of errors is more than one point higher, and z of the two-proportion test
 *            (proportion.h) over 3, twice in a row, with 100 requests or more on the new side
 *   early    when it has had 100 to 125 requests, 3 or more have failed, four times the other side's
 *            share and more than one point higher, and with equal sides so many would have in less
 *            than 4 of 100 cases: a release is most likely to be bad when it is new, and "errors"
 *            wants some ten more failures before it is sure
 *   rise     the evidence of a rise of errors at any time of the step (proportion.h) is enough
 *   p95      it is more than 1.5 times the other side's, and more than 25 ms higher, three times in
 *            a row, with 200 answers or more on both sides
 *   connect  five connections in a row have failed
 *   first    8 or more of the first 20 requests have failed, and the other side is no worse than
 *            half of that
 *   down     it gets no requests because its active checks fail, or because it has not answered, and
 *            three more of the former, or two trials of the latter, have failed since; at once where
 *            checks get no connection. Not where no server of the other side is up
 *   ejected  it was taken out for errors in a row, or as worse than its group, and the other side is
 *            no worse than half of it: then the requests that would tell more do not come any more
 */
#ifndef POLDER_SHIFT_WATCH_H
#define POLDER_SHIFT_WATCH_H
#include "polder/histogram.h"
#include "polder/proportion.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SHIFT_CHECK_MS     5000
#define SHIFT_P95_SAMPLES  200
#define SHIFT_P95_ROWS     3
#define SHIFT_P95_RATIO    1.5
#define SHIFT_P95_MORE_S   0.025
#define SHIFT_CONNECT_ROWS 5
#define SHIFT_FIRST        20
#define SHIFT_FIRST_FAILED 8
#define SHIFT_DOWN_CHECKS  3
#define SHIFT_DOWN_TRIALS  2
#define SHIFT_EARLY_MIN    100
#define SHIFT_EARLY_MAX    125
#define SHIFT_EARLY_ERRORS 3
#define SHIFT_EARLY_RATIO  4.
#define SHIFT_EARLY_CHANCE 0.04
#define SHIFT_SERVERS      64 /* most of an upstream that can be shifted */

enum shift_side { SHIFT_NEW, SHIFT_OTHER, SHIFT_SIDES };
/* Why the new side gets no requests. */
enum shift_out { SHIFT_IN, SHIFT_OUT_CHECKS, SHIFT_OUT_UNREACHABLE, SHIFT_OUT_FAILURES };
/* Of one side; totals, or since the step. */
struct shift_counts {
    uint64_t requests; /* attempts, those that got no connection too */
    uint64_t errors;   /* of them: no answer, or one with an error status (server_state.h) */
    uint64_t unconnected;
    uint64_t ejections;
    uint64_t failed_checks;
    uint32_t out;                       /* now: enum shift_out, of the new side */
    uint32_t up;                        /* now: servers */
    uint64_t bucket[HISTOGRAM_BUCKETS]; /* answers, by their time: HISTOGRAM_LATENCY */
};

enum shift_rule {
    SHIFT_RULE_NONE,
    SHIFT_RULE_ERRORS,
    SHIFT_RULE_P95,
    SHIFT_RULE_CONNECT,
    SHIFT_RULE_FIRST,
    SHIFT_RULE_EJECTED,
    SHIFT_RULE_EARLY,
    SHIFT_RULE_RISE,
    SHIFT_RULE_DOWN,
    SHIFT_RULES
};
const char *shift_rule_name(enum shift_rule rule); /* "errors" */

enum shift_verdict {
    SHIFT_TOO_FEW, /* requests: it holds, and neither passes nor fails */
    SHIFT_FINE,
    SHIFT_SUSPECT, /* worse, but not often enough in a row yet */
    SHIFT_WORSE    /* by watch.rule */
};

struct shift_watch {
    uint64_t begun_ms;   /* the step */
    uint64_t checked_ms; /* by the first two rules; 0: never */
    struct shift_counts last[SHIFT_SIDES], since[SHIFT_SIDES];
    struct proportion_trend errors;
    uint32_t slow;         /* checks in a row that found p95 worse */
    uint32_t unconnected;  /* in a row */
    uint32_t down;         /* checks or trials that have failed since it is out */
    uint32_t first_judged; /* 1: the first requests were looked at */
    uint32_t verdict, rule, pad_;
    double z;      /* of the last check */
    double chance; /* of the last look by the rule "early"; 0: none yet */
    struct proportion_rise rise;
};

/* A step begins with these totals. */
void shift_watch_begin(struct shift_watch *w, const struct shift_counts now[SHIFT_SIDES],
                       uint64_t now_ms);
/* These totals are of other servers than before: nothing is added. */
void shift_watch_rebase(struct shift_watch *w, const struct shift_counts now[SHIFT_SIDES]);
/* Only adds up. */
void shift_watch_count(struct shift_watch *w, const struct shift_counts now[SHIFT_SIDES]);
/* Adds up and judges. Once worse, it stays so. */
enum shift_verdict shift_watch_look(struct shift_watch *w,
                                    const struct shift_counts now[SHIFT_SIDES], uint64_t now_ms);
/* Has the step lasted for so long, with enough requests, and is nothing suspected? */
bool shift_watch_passes(const struct shift_watch *w, uint64_t hold_ms, uint64_t now_ms);

/* ---- what was seen since the step began ---- */
double shift_error_rate(const struct shift_watch *w, enum shift_side side); /* 0..1 */
double shift_p95_s(const struct shift_watch *w, enum shift_side side);
uint64_t shift_answers(const struct shift_watch *w, enum shift_side side);
/* One line, the numbers behind the verdict. */
void shift_explain(const struct shift_watch *w, char *out, size_t size);

/* ---- shares ---- */
/* Weights that give server `at` so many percent (0..100) exactly, and the others the rest in
 * proportion to their base weights: base[at] is not looked at. At least one of the others
 * has a base weight; n is at most SHIFT_SERVERS. None is over 1 000 000. */
void shift_weights(const uint32_t *base, uint32_t n, uint32_t at, uint32_t percent,
                   uint32_t *weight);
#endif
