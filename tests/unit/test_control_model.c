/* SPDX-License-Identifier: BSD-2-Clause */
/* What control decides, without calls and answers: in which configurations a change goes, when an
 * unconfirmed one ends, and what names and values mean. */
#include "daemons/control/control.h"
#include "daemons/control/model/cache_names.h"
#include "daemons/control/model/limits.h"
#include "daemons/control/regions.h"
#include "polder/config.h"
#include "polder/config_keys.h"
#include "polder/limit_try.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
/* after the others: it wants them */
#include <cmocka.h>

/* Three configurations: 0 is the running one, 1 a worker drains with, 2 nobody serves. */
struct rig {
    struct control control;
    struct shared shared;
    struct process process;
    struct config config[3];
    struct config_limit limit[3][2];
};

static int set_up(void **state)
{
    struct rig *r = calloc(1, sizeof *r);
    r->shared.proc = aligned_alloc(128, (sizeof *r->shared.proc + 127) / 128 * 128);
    memset(r->shared.proc, 0, sizeof *r->shared.proc);
    r->shared.shadow_limits =
        aligned_alloc(128, (sizeof *r->shared.shadow_limits + 127) / 128 * 128);
    memset(r->shared.shadow_limits, 0, sizeof *r->shared.shadow_limits);
    for (unsigned i = 0; i < SHARED_REGIONS; i++) {
        const size_t size = (sizeof *r->shared.region[i] + 127) / 128 * 128;
        r->shared.region[i] = aligned_alloc(128, size);
        memset(r->shared.region[i], 0, size);
        if (i >= 3)
            continue;
        r->shared.region[i]->config = &r->config[i];
        r->shared.region[i]->generation = 3 - i;
        r->config[i].limits = r->limit[i];
        r->config[i].n_limits = 2;
        r->limit[i][0].name = i == 1 ? "other" : "api"; /* the draining one has them turned */
        r->limit[i][1].name = i == 1 ? "api" : "other";
        r->limit[i][1].index = 1;
        r->limit[i][0].value.requests = r->limit[i][1].value.requests = 100;
    }
    atomic_store(&r->shared.proc->slot[PROC_SLOT_WORKER0].pid, 1);
    atomic_store(&r->shared.proc->slot[PROC_SLOT_WORKER0].generation, 2);
    r->control.process = &r->process;
    r->control.shared = &r->shared;
    r->control.config = &r->config[0];
    r->control.runtime = &r->shared.region[0]->runtime;
    *state = r;
    return 0;
}

static int tear_down(void **state)
{
    struct rig *r = *state;
    for (unsigned i = 0; i < SHARED_REGIONS; i++)
        free(r->shared.region[i]);
    free(r->shared.proc);
    free(r->shared.shadow_limits);
    free(r);
    return 0;
}

static uint32_t requests(const struct rig *r, unsigned region, unsigned limit)
{
    struct runtime_values values;
    runtime_read(&r->shared.region[region]->runtime, &values);
    return values.limit[limit].requests;
}

static void a_change_goes_where_somebody_serves(void **state)
{
    struct rig *r = *state;
    struct config_region *live[SHARED_REGIONS];
    const struct limit_terms terms = {.value = {.requests = 7}};
    assert_int_equal(regions_live(&r->control, live), 2);
    limits_publish(&r->control, "api", &terms);
    assert_int_equal(requests(r, 0, 0), 7);
    assert_int_equal(requests(r, 0, 1), 0);
    assert_int_equal(requests(r, 1, 0), 0);
    assert_int_equal(requests(r, 1, 1), 7); /* by name: it is another number there */
    assert_int_equal(requests(r, 2, 0), 0);
    const uint64_t before = runtime_generation(r->control.runtime);
    limits_publish(&r->control, "none", &terms);
    assert_int_equal(runtime_generation(r->control.runtime), before);
    regions_publish(&r->control, NULL, NULL);
    assert_int_not_equal(runtime_generation(r->control.runtime), before);
    assert_int_equal(requests(r, 0, 0), 7);
}

static void what_nobody_confirms_is_as_before(void **state)
{
    struct rig *r = *state;
    const struct config_limit *api = limits_find(&r->config[0], "api");
    const struct limit_terms first = {.value = {.requests = 1}},
                             second = {.value = {.requests = 2}},
                             third = {.value = {.requests = 3}};
    limits_publish(&r->control, "api", &first);
    limits_pending_begin(&r->control, api, 3600000, &first.value);
    limits_publish(&r->control, "api", &second);
    limits_pending_begin(&r->control, api, 3600000, &second.value); /* goes back to before both */
    limits_publish(&r->control, "api", &third);
    limits_follow(&r->control);
    assert_int_equal(requests(r, 0, 0), 3);
    assert_true(limits_pending_until_ms(&r->control, api) > 0);
    atomic_store(&r->shared.region[0]->runtime.trial[0].until_ms, 1); /* long ago */
    limits_follow(&r->control);
    assert_int_equal(requests(r, 0, 0), 1);
    assert_int_equal(requests(r, 1, 1), 1);
    assert_int_equal(limits_pending_until_ms(&r->control, api), 0);
    limits_publish(&r->control, "api", &third);
    limits_follow(&r->control);
    assert_int_equal(requests(r, 0, 0), 3);
}

static const char *set(struct runtime_limit *v, const char *key, const char *text)
{
    return config_live_set(config_live_row(CONFIG_SECTION_LIMIT, key), v, text);
}

static void values_are_read_as_they_are_typed(void **state)
{
    struct runtime_limit v = {0};
    (void)state;
    assert_null(set(&v, "requests", "4294967295"));
    assert_null(set(&v, "window", "5m"));
    assert_null(set(&v, "dry_run", "on"));
    assert_null(set(&v, "algorithm", "gcra"));
    assert_null(set(&v, "concurrent", "0"));
    assert_int_equal(v.requests, UINT32_MAX);
    assert_int_equal(v.window_ms, 300000);
    assert_int_equal(v.dry_run, 1);
    assert_int_equal(v.algorithm, RUNTIME_GCRA);
    assert_string_equal(config_word(&config_rows[CONFIG_LIMIT_algorithm], v.algorithm), "gcra");
    static const char *const wrong[][2] = {
        {"requests", "4294967296"}, {"requests", ""},         {"requests", "-1"},
        {"requests", "1e3"},        {"window", "x"},          {"window", "99ms"},
        {"window", "31d"},          {"algorithm", "leaky"},   {"dry_run", "perhaps"},
        {"concurrent", "1.5"},      {"concurrent", "1000001"}};
    const struct runtime_limit before = v;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_non_null(set(&v, wrong[i][0], wrong[i][1]));
    assert_memory_equal(&v, &before, sizeof v);
    assert_null(config_live_row(CONFIG_SECTION_LIMIT, "burst"));
    assert_null(config_live_row(CONFIG_SECTION_LIMIT, "key")); /* a reload changes it */
}

/* A key that a command may change is a row: its name, its range, and where it is. */
static void the_keys_of_commands_are_those_of_the_table(void **state)
{
    char keys[256];
    (void)state;
    config_live_keys(CONFIG_SECTION_LIMIT, keys, sizeof keys);
    assert_string_equal(keys, "requests, algorithm, window, concurrent, dry_run and exempt");
    config_live_keys(CONFIG_SECTION_LIMIT, keys, 12);
    assert_string_equal(keys, "requests, a");
    struct config_cache cache = {0}, top = {.value = {.ttl_ms = 7, .max_body = 8}};
    cache.value.ttl_ms = 1;
    cache.value.stale_if_error_ms = 2;
    struct runtime_cache running = {.ttl_ms = 3, .stale_if_error_ms = 4, .max_items = 5};
    config_live_overlay(CONFIG_SECTION_CACHE, &cache.value, CONFIG_BIT(CACHE, ttl), &running);
    assert_int_equal(running.ttl_ms, 1);
    assert_int_equal(running.stale_if_error_ms, 4);
    assert_int_equal(running.max_items, 5);
    config_inherit(CONFIG_SECTION_CACHE, &cache, CONFIG_BIT(CACHE, ttl), &top);
    assert_int_equal(cache.value.ttl_ms, 1);
    assert_int_equal(cache.value.max_body, 8);
    assert_int_equal(cache.value.stale_if_error_ms, 0);
    assert_false(config_live_equal(CONFIG_SECTION_CACHE, &cache.value, &running));
    assert_true(config_live_equal(CONFIG_SECTION_CACHE, &running, &running));
}

static void prefixes_are_as_stored_urls_begin(void **state)
{
    static const char *const row[][2] = {
        {"/a/b", "/a/b"},
        {"http://EXAMPLE.com/A", "example.com/A"},
        {"https://example.com:80/a/../b", "example.com/b"},
        {"example.com:/x?q=1", "example.com/x?q=1"},
        {"example.com", "example.com/"},
        {"example.com:8080/%41", "example.com:8080/A"},
    };
    char out[256];
    (void)state;
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        assert_int_equal(cache_prefix_normal(row[i][0], out, sizeof out), strlen(row[i][1]));
        assert_string_equal(out, row[i][1]);
    }
    assert_int_equal(cache_prefix_normal("ftp://example.com/", out, sizeof out), -EINVAL);
    assert_int_equal(cache_prefix_normal("/a/very/long/one", out, 8), -ENAMETOOLONG);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_change_goes_where_somebody_serves),
        TEST(what_nobody_confirms_is_as_before),
        cmocka_unit_test(values_are_read_as_they_are_typed),
        cmocka_unit_test(the_keys_of_commands_are_those_of_the_table),
        cmocka_unit_test(prefixes_are_as_stored_urls_begin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
