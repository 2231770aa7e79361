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

enum proportion_result proportion_look(struct proportion_trend *trend, const struct proportion *of,
                                       const struct proportion *others)
{
    if (of->requests < PROPORTION_MIN || !others->requests)
        return PROPORTION_TOO_FEW;
    if (proportion_rate(of) - proportion_rate(others) <= PROPORTION_FLOOR ||
        proportion_z(of, others) <= PROPORTION_Z) {
        trend->worse = 0;
        return PROPORTION_FINE;
    }
    trend->worse += trend->worse < PROPORTION_ROWS;
    return trend->worse < PROPORTION_ROWS ? PROPORTION_SUSPECT : PROPORTION_WORSE;
}
