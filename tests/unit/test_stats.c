/* SPDX-License-Identifier: BSD-2-Clause */
/* Buckets cover everything without gap or overlap; sums and quantiles are right. */
#include "polder/stats.h"
#include "polder/config.h"
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

static struct config_limit limits_of[3] = {
    {.name = "a", .id = 11}, {.name = "b", .id = 12}, {.name = "c", .id = 13}};

/* A configuration with these limits, in this order, and one server less or more. */
static struct config arranged(const char *names, uint32_t n_servers)
{
    static struct config_limit limit[3];
    static struct config_server server[3];
    static struct config_upstream up = {.name = "u"};
    static const char *const address[] = {"127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"};
    uint32_t n = 0;
    for (; names[n]; n++) {
        limit[n] = limits_of[names[n] - 'a'];
        limit[n].index = n;
    }
    for (uint32_t i = 0; i < n_servers; i++) /* the last comes first */
        server[i] = (struct config_server){
            .index = i, .upstream = &up, .address.text = address[n_servers - 1 - i]};
    up.servers = server;
    up.n_servers = n_servers;
    return (struct config){
        .limits = limit, .n_limits = n, .upstreams = &up, .n_upstreams = 1, .n_servers = n_servers};
}

static void rows_follow_their_names_through_a_reload(void **state)
{
    (void)state;
    struct stats_slab *mine = &slabs[PROC_SLOT_WORKER0], *other = mine + 7;
    struct stats_limit l;
    struct stats_server s;
    struct config config = arranged("ab", 1);
    stats_adopt(mine, &config);
    stats_adopt(other, &config);
    stats_bump(&mine->limit[0].admitted, 5);
    stats_bump(&mine->limit[1].refused, 7);
    stats_bump(&other->limit[0].admitted, 100);
    stats_bump(&mine->server[0].requests, 3);
    stats_bump(&mine->server[1].requests, 1000); /* of the ops pages */
    stats_adopt(mine, &config);                  /* a respawn */
    config = arranged("cba", 2);
    stats_adopt(mine, &config); /* a reload; the other slot has gone to rest */
    stats_bump(&mine->limit[2].admitted, 1);
    stats_bump(&mine->limit[0].dry_refused, 9);
    stats_limit_of(slabs, 11, &l);
    assert_int_equal(l.admitted, 106);
    assert_int_equal(l.refused, 0);
    stats_limit_of(slabs, 12, &l);
    assert_int_equal(l.refused, 7);
    stats_limit_of(slabs, 13, &l);
    assert_int_equal(l.dry_refused, 9);
    stats_server_of(slabs, stats_server_id(&config.upstreams[0].servers[0]), &s);
    assert_int_equal(s.requests, 0); /* 127.0.0.1:2 is new */
    stats_server_of(slabs, stats_server_id(&config.upstreams[0].servers[1]), &s);
    assert_int_equal(s.requests, 3);
    assert_int_equal(mine->server[2].requests, 1000);
    config = arranged("b", 1);
    stats_adopt(mine, &config);
    stats_limit_of(slabs, 12, &l);
    assert_int_equal(l.refused, 7);
    assert_int_equal(mine->limit_id[1], 0);
    assert_int_equal(mine->limit[1].refused, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_value_lies_in_its_bucket),
        cmocka_unit_test(buckets_are_at_most_a_sixteenth_wide),
        cmocka_unit_test(totals_add_all_slots),
        cmocka_unit_test(quantiles_are_within_a_bucket),
        cmocka_unit_test(rows_follow_their_names_through_a_reload),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
