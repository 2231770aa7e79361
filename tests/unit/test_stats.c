/* SPDX-License-Identifier: BSD-2-Clause */
/* Buckets cover everything without gap or overlap; sums and quantiles are right. */
#include "polder/stats.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

static struct stats_slab slabs[PROC_SLOTS];

static void each_value_lies_in_its_bucket(void **state)
{
    (void)state;
    for (uint64_t ns = 0; ns < UINT64_C(70000000000); ns += 1 + ns / 37) {
        const unsigned b = stats_bucket_of(ns);
        assert_true(b < STATS_BUCKETS);
        if (b == STATS_BUCKETS - 1)
            continue; /* takes all that is longer */
        assert_true(ns < stats_bucket_limit_ns(b));
        assert_true(b == 0 || ns >= stats_bucket_limit_ns(b - 1));
    }
    assert_int_equal(stats_bucket_of(UINT64_MAX), STATS_BUCKETS - 1);
}

static void buckets_are_at_most_a_sixteenth_wide(void **state)
{
    (void)state;
    for (unsigned b = 17; b < STATS_BUCKETS; b++) {
        const uint64_t low = stats_bucket_limit_ns(b - 1), high = stats_bucket_limit_ns(b);
        assert_true(high > low);
        assert_true((high - low) * 16 <= low);
    }
    assert_true(stats_bucket_limit_ns(STATS_BUCKETS - 1) >= UINT64_C(64000000000));
}

static void totals_add_all_slots(void **state)
{
    (void)state;
    stats_add(&slabs[0], STATS_REQUESTS, 3);
    stats_add(&slabs[PROC_SLOTS - 1], STATS_REQUESTS, 4);
    stats_add(&slabs[PROC_SLOTS - 1], STATS_REQUESTS, 1);
    stats_gauge_set(&slabs[4], STATS_GAUGE_CACHE_ITEMS, 9);
    stats_gauge_set(&slabs[5], STATS_GAUGE_CACHE_ITEMS, 2);
    stats_gauge_set(&slabs[4], STATS_GAUGE_CACHE_ITEMS, 5);
    assert_int_equal(stats_total(slabs, STATS_REQUESTS), 8);
    assert_int_equal(stats_gauge_total(slabs, STATS_GAUGE_CACHE_ITEMS), 7);
}

static void quantiles_are_within_a_bucket(void **state)
{
    (void)state;
    static struct stats_distribution d;
    stats_distribution_of(slabs, STATS_LATENCY_HIT, &d);
    assert_int_equal(stats_quantile_ns(&d, 0.5), 0);
    for (uint64_t us = 1; us <= 1000; us++)
        stats_observe(&slabs[us % 7], STATS_LATENCY_HIT, us * 1000);
    stats_distribution_of(slabs, STATS_LATENCY_HIT, &d);
    assert_int_equal(d.count, 1000);
    assert_int_equal(d.sum_ns, UINT64_C(500500000));
    static const double shares[] = {0.01, 0.5, 0.9, 0.99, 1.0};
    for (size_t i = 0; i < sizeof shares / sizeof *shares; i++) {
        const double got = (double)stats_quantile_ns(&d, shares[i]), want = shares[i] * 1e6;
        assert_true(got >= want * 0.93 && got <= want * 1.07);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_value_lies_in_its_bucket),
        cmocka_unit_test(buckets_are_at_most_a_sixteenth_wide),
        cmocka_unit_test(totals_add_all_slots),
        cmocka_unit_test(quantiles_are_within_a_bucket),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
