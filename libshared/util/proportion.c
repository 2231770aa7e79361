/* SPDX-License-Identifier: BSD-2-Clause */
/* proportion: see proportion.h. */
#include "polder/proportion.h"

#include <math.h>

static double errors_of(const struct proportion *p)
{
    return (double)(p->errors < p->requests ? p->errors : p->requests);
}

double proportion_rate(const struct proportion *p)
{
    return p->requests ? errors_of(p) / (double)p->requests : 0;
}

double proportion_z(const struct proportion *of, const struct proportion *others)
{
    const double n = (double)of->requests, m = (double)others->requests;
    if (n <= 0 || m <= 0)
        return 0;
    const double both = (errors_of(of) + errors_of(others)) / (n + m);
    const double deviation = sqrt(both * (1 - both) * (1 / n + 1 / m));
    return deviation > 0 ? (proportion_rate(of) - proportion_rate(others)) / deviation : 0;
}

/* P(X >= at) of a binomial distribution: the first term, then each by the one before. */
static double tail(double n, double share, double at)
{
    double term = exp(lgamma(n + 1) - lgamma(at + 1) - lgamma(n - at + 1) + at * log(share) +
                      (n - at) * log1p(-share));
    double sum = 0;
    for (double i = at; i <= n && term > sum * 1e-9; i++) {
        sum += term;
        term *= (n - i) / (i + 1) * share / (1 - share);
    }
    return sum < 1 ? sum : 1;
}

double proportion_chance(const struct proportion *of, const struct proportion *others)
{
    const double mine = errors_of(of), all = mine + errors_of(others);
    const double n = (double)of->requests, m = (double)others->requests;
    if (n <= 0 || m <= 0 || mine <= all * n / (n + m))
        return 1; /* not more than its part: of no interest how much less */
    return tail(all, n / (n + m), mine);
}

enum proportion_result proportion_look(struct proportion_trend *trend, const struct proportion *of,
                                       const struct proportion *others)
{
    if (of->requests < PROPORTION_MIN || !others->requests)
        return PROPORTION_TOO_FEW;
    if (proportion_rate(of) - proportion_rate(others) <= PROPORTION_FLOOR ||
        proportion_z(of, others) <= PROPORTION_Z ||
        proportion_chance(of, others) >= PROPORTION_ODDS) {
        trend->worse = 0;
        return PROPORTION_FINE;
    }
    trend->worse += trend->worse < PROPORTION_ROWS;
    return trend->worse < PROPORTION_ROWS ? PROPORTION_SUSPECT : PROPORTION_WORSE;
}

/* ---- a rise ---- */

static void add(struct proportion *to, const struct proportion *more)
{
    to->requests += more->requests;
    to->errors += more->errors;
}

static bool is_over_floor(const struct proportion_rise *r)
{
    return proportion_rate(&r->of) - proportion_rate(&r->others) > PROPORTION_FLOOR;
}

/* Of each error: how much likelier is its side with a rise than without? */
static double evidence_of(const struct proportion *of, const struct proportion *others)
{
    const double share = (double)of->requests / (double)(of->requests + others->requests);
    const double likelier = log(PROPORTION_RISE * share + 1 - share);
    const double mine = of->requests ? log(PROPORTION_RISE) - likelier : 0;
    return (double)of->errors * mine - (double)others->errors * likelier;
}

double proportion_rise_limit(uint64_t seen)
{
    return PROPORTION_RISE_LIMIT + log1p((double)seen / PROPORTION_RISE_SCALE);
}

void proportion_rise_add(struct proportion_rise *r, const struct proportion *of,
                         const struct proportion *others)
{
    static const struct proportion none;
    add(&r->batch, of);
    add(&r->other_batch, others);
    if (r->batch.requests + r->other_batch.requests < PROPORTION_BATCH)
        return;
    add(&r->of, &r->batch);
    add(&r->others, &r->other_batch);
    r->evidence += evidence_of(&r->batch, &r->other_batch);
    r->batch = r->other_batch = none;
    if (r->evidence <= 0 || (r->of.requests >= PROPORTION_RISE_MAX && !is_over_floor(r)))
        *r = (struct proportion_rise){0};
}

enum proportion_result proportion_rise_look(const struct proportion_rise *r, uint64_t seen)
{
    const double limit = proportion_rise_limit(seen);
    if (r->evidence < limit / 2 || !is_over_floor(r))
        return PROPORTION_FINE;
    return r->evidence >= limit && r->of.errors >= PROPORTION_RISE_ERRORS &&
                   r->of.requests >= PROPORTION_RISE_MIN && r->others.requests
               ? PROPORTION_WORSE
               : PROPORTION_SUSPECT;
}
