/* SPDX-License-Identifier: BSD-2-Clause */
/* shares: see shares.h. */
#include "daemons/control/model/shares.h"
#include "daemons/control/control.h"
#include "polder/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static double less(double a, double b)
{
    return a > b ? a - b : 0;
}

/* Refreshes and checks of the leak guard are calls for hits that others get: each hit pays its part
 * of them, as in the whole. */
static void count(const struct tenant *t, double worth, struct cost_counts *out)
{
    *out = (struct cost_counts){.calls = (double)t->count[TENANTS_CALLS]};
    out->spared[COST_POLLING] = (double)t->count[TENANTS_POLLS];
    out->spared[COST_CACHING] =
        worth * less((double)t->count[TENANTS_HITS], (double)t->count[TENANTS_POLLS]);
    out->spared[COST_RATE_LIMITING] = (double)t->count[TENANTS_REFUSED];
}

/* What a hit of the cache is worth, as a part of a call. */
static double worth_of_hit(const struct control *c, const struct savings *whole)
{
    const struct stats_slab *s = c->shared->stats;
    const double hits =
        less((double)(stats_total(s, STATS_CACHE_HITS) + stats_total(s, STATS_CACHE_COLLAPSED)),
             (double)stats_total(s, STATS_POLL_KEPT));
    const double worth = hits > 0 ? whole->counts.spared[COST_CACHING] / hits : 0;
    return worth < 1 ? worth : 1;
}

static int by_money(const void *a, const void *b)
{
    const struct share *x = a, *y = b;
    const double left = x->money.estimated + x->money.saved_total,
                 right = y->money.estimated + y->money.saved_total;
    return left > right ? -1 : left < right ? 1 : strcmp(x->name, y->name);
}

static void take_away(struct cost_counts *rest, const struct cost_counts *share)
{
    rest->calls = less(rest->calls, share->calls);
    for (int i = 0; i < COST_OPTIMISATIONS; i++)
        rest->spared[i] = less(rest->spared[i], share->spared[i]);
}

static bool is_something(const struct cost_counts *counts)
{
    double sum = counts->calls;
    for (int i = 0; i < COST_OPTIMISATIONS; i++)
        sum += counts->spared[i];
    return sum > 1e-6;
}

struct share *shares_find(const struct control *c, const struct savings *whole, size_t *n)
{
    struct tenant *tenants =
        c->config->n_cost_by ? calloc(TENANTS_ROWS + 1, sizeof *tenants) : NULL;
    struct share *shares = tenants ? calloc(SHARES_MAX, sizeof *shares) : NULL;
    struct cost_counts rest = whole->counts;
    size_t named = 0, last = SHARES_MAX;
    *n = 0;
    if (!shares) {
        free(tenants);
        return NULL;
    }
    const size_t read = tenants_read(c->shared->tenants, tenants);
    const double worth = worth_of_hit(c, whole);
    for (size_t i = 0; i < read; i++) {
        const bool other = tenants[i].row == TENANTS_OTHER;
        struct share *share = &shares[other ? --last : named++];
        snprintf(share->name, sizeof share->name, "%s", other ? "other" : tenants[i].name);
        count(&tenants[i], worth, &share->counts);
        cost_of(&c->config->cost, &share->counts, &share->money);
        take_away(&rest, &share->counts);
    }
    qsort(shares, named, sizeof *shares, by_money);
    *n = named;
    if (last < SHARES_MAX)
        shares[(*n)++] = shares[last];
    if (is_something(&rest)) {
        struct share *share = &shares[(*n)++];
        *share = (struct share){.name = "unassigned", .counts = rest};
        cost_of(&c->config->cost, &rest, &share->money);
    }
    free(tenants);
    return shares;
}

void shares_follow(struct control *c)
{
    tenants_begin(c->shared->tenants, c->config->cost_by_id);
    tenants_recount(c->shared->tenants);
}
