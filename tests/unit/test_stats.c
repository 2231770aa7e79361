/* SPDX-License-Identifier: BSD-2-Clause */
/* Sums over all slabs are right, whatever processes and configurations come and go. */
#include "polder/stats.h"
#include "polder/config.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

static struct stats_slab slabs[PROC_SLOTS];

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

static struct config_route routes_of[3] = {
    {.pattern = "/a", .id = 21}, {.pattern = "/b", .id = 22}, {.pattern = "/c", .id = 23}};

/* The same for routes. */
static void arrange_routes(struct config *config, const char *names)
{
    static struct config_route route[3];
    uint32_t n = 0;
    for (; names[n]; n++) {
        route[n] = routes_of[names[n] - 'a'];
        route[n].index = n;
    }
    config->routes = route;
    config->n_routes = n;
}

static uint64_t admitted_of(uint64_t id)
{
    struct stats_limit l;
    stats_limit_of(slabs, id, 0, &l);
    return l.admitted;
}

static uint64_t answers_of(uint64_t id)
{
    struct stats_route r;
    stats_route_of(slabs, id, 0, &r);
    assert_int_equal(r.latency.count, r.answers[1]);
    return r.answers[1];
}

static void answer(struct stats_slab *slab, uint64_t id, uint64_t ns)
{
    struct stats_route_row *row = stats_route_row(slab, id);
    stats_bump(&row->answers[1], 1);
    stats_observe(slab, STATS_LATENCY_HIT, row, ns);
}

static void rows_follow_their_names_through_a_reload(void **state)
{
    (void)state;
    struct stats_slab *mine = &slabs[PROC_SLOT_WORKER0], *other = mine + 7;
    struct stats_server s;
    struct config config = arranged("ab", 1);
    arrange_routes(&config, "ab");
    stats_adopt(mine, &config);
    stats_adopt(other, &config);
    const uint64_t server_1 = stats_server_id(&config.upstreams[0].servers[0]);
    stats_bump(&stats_limit_row(mine, 11)->admitted, 5);
    stats_bump(&stats_limit_row(other, 11)->admitted, 100);
    stats_bump(&stats_server_row(mine, server_1)->requests, 3);
    stats_bump(&stats_server_row(mine, STATS_OPS)->requests, 1000);
    answer(mine, 21, 5000);
    answer(other, 21, 7000);
    answer(mine, 22, 9000);
    stats_adopt(mine, &config); /* a respawn */
    assert_int_equal(admitted_of(11), 105);
    config = arranged("cba", 2);
    arrange_routes(&config, "ca");
    stats_adopt(mine, &config); /* a reload; the other slot has gone to rest */
    stats_bump(&stats_limit_row(mine, 11)->admitted, 1);
    stats_bump(&stats_limit_row(mine, 13)->admitted, 9);
    answer(mine, 23, 5000);
    assert_int_equal(admitted_of(11), 106);
    assert_int_equal(admitted_of(12), 0);
    assert_int_equal(admitted_of(13), 9);
    assert_int_equal(answers_of(21), 2);
    assert_int_equal(answers_of(23), 1);
    assert_int_equal(answers_of(22), 1); /* its route is gone, and may come back */
    stats_server_of(slabs, stats_server_id(&config.upstreams[0].servers[0]), 0, &s);
    assert_int_equal(s.requests, 0); /* 127.0.0.1:2 is new */
    stats_server_of(slabs, server_1, 0, &s);
    assert_int_equal(s.requests, 3);
    stats_server_of(slabs, STATS_OPS, 0, &s);
    assert_int_equal(s.requests, 1000);
}

/* As many other routes as fit: what is not among them has to go, but nothing else. */
static void only_a_full_slab_gives_up_what_is_gone(void **state)
{
    (void)state;
    static struct config_route many[RUNTIME_ROUTES_MAX];
    struct stats_slab *mine = &slabs[PROC_SLOT_WORKER0 + 3];
    struct config config = {.routes = many};
    for (uint32_t round = 0; round < 4; round++) {
        config.n_routes = round == 3 ? RUNTIME_ROUTES_MAX : 300;
        for (uint32_t i = 0; i < config.n_routes; i++)
            many[i] = (struct config_route){.id = 1000 + round * 300 + i, .index = i};
        stats_adopt(mine, &config);
        for (uint32_t i = 0; i < config.n_routes; i++)
            answer(mine, many[i].id, 1000);
        /* 900 routes have fitted; 1024 others beside them do not */
        assert_int_equal(answers_of(1000), round < 3);
        assert_int_equal(answers_of(1000 + 899), round >= 2 && round < 3);
        assert_int_equal(answers_of(many[0].id), 1);
        assert_int_equal(answers_of(many[config.n_routes - 1].id), 1);
    }
    stats_adopt(mine, &config);
    assert_int_equal(answers_of(many[5].id), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(totals_add_all_slots),
        cmocka_unit_test(rows_follow_their_names_through_a_reload),
        cmocka_unit_test(only_a_full_slab_gives_up_what_is_gone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
