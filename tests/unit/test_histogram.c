/* SPDX-License-Identifier: BSD-2-Clause */
/* Buckets are those of schema 2, to the nanosecond; quantiles are within one of them. */
#include "polder/histogram.h"
#include <math.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>

/* The upper bound in ns, rounded down: what is longer by 1 ns lies in the next bucket. */
static uint64_t bound_ns(int index)
{
    return (uint64_t)floorl(1e9L * powl(2, (long double)index / 4));
}

static void bounds_are_those_of_schema_2(void **state)
{
    (void)state;
    for (int i = -100; i <= 100; i++) {
        const uint64_t ns = bound_ns(i);
        assert_int_equal(histogram_index(ns), i);
        assert_int_equal(histogram_index(ns + 1), i + 1);
        assert_true(fabs(histogram_bound_s(i) / pow(2, i / 4.) - 1) < 1e-12);
    }
    assert_int_equal(histogram_index(UINT64_C(1000000000)), 0);
    assert_int_equal(histogram_index(UINT64_C(1000000001)), 1);
    assert_int_equal(histogram_index(UINT64_C(2000000000)), 4);
    assert_true(histogram_index(0) < -100);
    assert_int_equal(histogram_index(UINT64_MAX), 4 * 63 - 119 + 4);
}

static void the_index_never_falls(void **state)
{
    (void)state;
    int last = histogram_index(0);
    for (uint64_t ns = 0; ns < UINT64_MAX / 2; ns += 1 + ns / 1009) {
        const int at = histogram_index(ns);
        assert_true(at >= last && (at <= last + 1 || ns < 8));
        last = at;
    }
}

static void the_ends_take_what_lies_beyond(void **state)
{
    (void)state;
    assert_int_equal(histogram_bucket(HISTOGRAM_LATENCY, 0), 0);
    assert_int_equal(histogram_bucket(HISTOGRAM_LATENCY, bound_ns(HISTOGRAM_LATENCY)), 0);
    assert_int_equal(histogram_bucket(HISTOGRAM_LATENCY, bound_ns(HISTOGRAM_LATENCY) + 1), 1);
    assert_int_equal(histogram_bucket(HISTOGRAM_LATENCY, UINT64_MAX), HISTOGRAM_BUCKETS - 1);
    assert_int_equal(histogram_bucket(HISTOGRAM_LIFETIME, 1000000), 0);
    /* a latency of ten minutes and a WebSocket of 100 days have their own */
    assert_true(histogram_bucket(HISTOGRAM_LATENCY, UINT64_C(600000000000)) <=
                HISTOGRAM_BUCKETS - 1);
    assert_true(histogram_bucket(HISTOGRAM_LIFETIME, UINT64_C(8640000) * 1000000000) <
                HISTOGRAM_BUCKETS - 1);
}

static void quantiles_are_within_a_bucket(void **state)
{
    (void)state;
    static struct histogram h[2];
    struct distribution d = distribution_empty(HISTOGRAM_LATENCY);
    assert_true(distribution_quantile_s(&d, 0.5) == 0);
    for (uint64_t us = 1; us <= 1000; us++)
        histogram_add(&h[us % 2], histogram_bucket(HISTOGRAM_LATENCY, us * 1000), us * 1000);
    distribution_add(&d, &h[0]);
    distribution_add(&d, &h[1]);
    assert_int_equal(d.count, 1000);
    assert_int_equal(d.sum_ns, UINT64_C(500500000));
    assert_true(fabs(distribution_mean_s(&d) - 500.5e-6) < 1e-12);
    static const double shares[] = {0.01, 0.5, 0.9, 0.95, 0.99, 1.0};
    double last = 0;
    for (size_t i = 0; i < sizeof shares / sizeof *shares; i++) {
        const double got = distribution_quantile_s(&d, shares[i]), want = shares[i] * 1e-3;
        assert_true(got >= want / 1.19 && got <= want * 1.19 && got > last);
        last = got;
    }
    assert_int_equal(distribution_at_most(&d, -40), 976); /* 2^-10 s */
    assert_int_equal(distribution_at_most(&d, 0), 1000);
    assert_int_equal(distribution_at_most(&d, -100), 0);
}

static void what_came_since_is_a_distribution_too(void **state)
{
    (void)state;
    static struct histogram h;
    struct distribution then = distribution_empty(HISTOGRAM_LATENCY), now = then;
    for (int i = 0; i < 10; i++)
        histogram_add(&h, histogram_bucket(HISTOGRAM_LATENCY, 1000), 1000);
    distribution_add(&then, &h);
    for (int i = 0; i < 5; i++)
        histogram_add(&h, histogram_bucket(HISTOGRAM_LATENCY, 1000000), 1000000);
    distribution_add(&now, &h);
    distribution_since(&now, &then);
    assert_int_equal(now.count, 5);
    assert_int_equal(now.sum_ns, 5000000);
    assert_true(distribution_quantile_s(&now, 0.01) > 0.0008);
    now = then; /* counted from 0 again */
    now.bucket[histogram_bucket(HISTOGRAM_LATENCY, 1000)] = 3;
    distribution_since(&now, &then);
    assert_int_equal(now.count, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bounds_are_those_of_schema_2),
        cmocka_unit_test(the_index_never_falls),
        cmocka_unit_test(the_ends_take_what_lies_beyond),
        cmocka_unit_test(quantiles_are_within_a_bucket),
        cmocka_unit_test(what_came_since_is_a_distribution_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
