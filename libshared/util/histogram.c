/* SPDX-License-Identifier: BSD-2-Clause */
/* histogram: see histogram.h. */
#include "polder/histogram.h"

#include <math.h>

double histogram_bound_s(int index)
{
    static const double root[] = {1, 1.189207115002721, 1.4142135623730951, 1.6817928305074292};
    return ldexp(root[index & 3], (index - (index & 3)) / 4);
}

void distribution_add(struct distribution *to, const struct histogram *h)
{
    to->sum_ns += atomic_load_explicit(&h->sum_ns, memory_order_relaxed);
    for (unsigned b = 0; b < HISTOGRAM_BUCKETS; b++) {
        const uint64_t n = atomic_load_explicit(&h->bucket[b], memory_order_relaxed);
        to->bucket[b] += n;
        to->count += n;
    }
}

static uint64_t grown(uint64_t now, uint64_t then)
{
    return now >= then ? now - then : now;
}

void distribution_since(struct distribution *now, const struct distribution *then)
{
    now->sum_ns = grown(now->sum_ns, then->sum_ns);
    now->count = 0;
    for (unsigned b = 0; b < HISTOGRAM_BUCKETS; b++) {
        now->bucket[b] = grown(now->bucket[b], then->bucket[b]);
        now->count += now->bucket[b];
    }
}

/* Within a bucket observations are taken to lie as evenly as the buckets do: by their ratio. The
 * first reaches down to 0. */
static double inside(const struct distribution *d, unsigned bucket, double part)
{
    const double upper = histogram_bound_s((int)d->first + (int)bucket);
    return bucket ? upper * exp2((part - 1) / 4) : upper * part;
}

double distribution_quantile_s(const struct distribution *d, double share)
{
    const double wanted = share * (double)d->count;
    double below = 0;
    unsigned last = 0;
    if (!d->count)
        return 0;
    for (unsigned b = 0; b < HISTOGRAM_BUCKETS; b++) {
        const double here = (double)d->bucket[b];
        if (here <= 0)
            continue;
        last = b;
        if (below + here >= wanted)
            return inside(d, b, wanted > below ? (wanted - below) / here : 0);
        below += here;
    }
    return inside(d, last, 1);
}

double distribution_mean_s(const struct distribution *d)
{
    return d->count ? (double)d->sum_ns / 1e9 / (double)d->count : 0.;
}

uint64_t distribution_at_most(const struct distribution *d, int index)
{
    uint64_t sum = 0;
    for (int b = 0; b < HISTOGRAM_BUCKETS - 1 && (int)d->first + b <= index; b++)
        sum += d->bucket[b];
    return sum;
}
