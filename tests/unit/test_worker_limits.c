/* SPDX-License-Identifier: BSD-2-Clause */
/* What a worker tells clients of their limits is true, whatever the wall clock does. */
#include "daemons/worker/message/request.h"
#include "daemons/worker/worker.h"
#include "daemons/worker/request/limits.h"
#include "polder/config.h"
#include "polder/limit.h"
#include "polder/runtime.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#define T0  UINT64_C(100000000)
#define DAY UINT64_C(86400000)

struct rig {
    struct worker *w;
    struct shared shared;
    struct config config;
    struct config_limit limit;
    struct config_route route;
    unsigned client; /* the last byte of who asks */
};

static int set_up(void **state)
{
    struct rig *r = calloc(1, sizeof *r);
    struct limit_table *table = mmap(NULL, limit_table_size(4096), PROT_READ | PROT_WRITE,
                                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_ptr_not_equal(table, MAP_FAILED);
    limit_table_init(table, 4096);
    r->limit = (struct config_limit){
        .name = "status", .key = {{CONFIG_KEY_CLIENT, ""}}, .n_key = 1, .id = 7};
    r->route =
        (struct config_route){.pattern = "/*", .limits = {&r->limit}, .n_limits = 1, .cost = 1};
    r->config = (struct config){.limits = &r->limit, .n_limits = 1};
    r->shared.limits = table;
    r->w = worker_alloc();
    r->w->config = &r->config;
    r->w->shared = &r->shared;
    r->w->stats = aligned_alloc(128, sizeof *r->w->stats);
    memset(r->w->stats, 0, sizeof *r->w->stats);
    r->w->limits->state = calloc(1, sizeof *r->w->limits->state);
    r->w->limit_caller = (struct limit_caller){table, NULL, PROC_SLOT_WORKER0, 1};
    *state = r;
    return 0;
}

static int tear_down(void **state)
{
    struct rig *r = *state;
    munmap(r->shared.limits, limit_table_size(4096));
    free(r->w->stats);
    free(r->w->limits->state);
    free(r->w);
    free(r);
    return 0;
}

static void set(struct rig *r, uint32_t algorithm, uint32_t requests, uint64_t window_ms)
{
    r->w->runtime.limit[0] = (struct runtime_limit){
        .requests = requests, .algorithm = algorithm, .window_ms = window_ms};
    limits_prepare(r->w);
}

static struct limit_answer ask(struct rig *r, uint64_t mono_ms)
{
    struct limit_bill bill = {0};
    struct request request = {.worker = r->w, .route = &r->route};
    uint64_t keys[CONFIG_ROUTE_LIMITS_MAX];
    char ip[32];
    const int n = snprintf(ip, sizeof ip, "192.0.2.%u", r->client);
    assert_int_equal(clientip_parse(ip, (size_t)n, &request.ip), 0);
    r->w->mono_ms = mono_ms;
    limits_charge(r->w, &request, keys, false, &bill);
    return bill.answer;
}

/* Asks until it is refused; how often it was not. *retry_s: what the refusal said. */
static unsigned exhaust(struct rig *r, uint64_t mono_ms, uint32_t *retry_s)
{
    for (unsigned n = 0;; n++) {
        const struct limit_answer answer = ask(r, mono_ms);
        *retry_s = answer.retry_s;
        if (answer.refused)
            return n;
    }
}

static void who_obeys_retry_after_is_admitted_and_a_second_earlier_is_not(void **state)
{
    struct rig *r = *state;
    static const uint64_t windows[] = {1000, 1001, 7777, 60000, 3600000, 30 * DAY};
    for (uint32_t algorithm = 0; algorithm <= RUNTIME_GCRA; algorithm++)
        for (size_t i = 0; i < sizeof windows / sizeof *windows; i++)
            for (unsigned offset = 0; offset < 20; offset++) {
                uint32_t retry_s, again;
                const uint64_t now = T0 + offset * (windows[i] / 17 + 1);
                r->client = (unsigned)(i * 20 + offset) % 250;
                set(r, algorithm, 3, windows[i]);
                limit_reset_all(r->shared.limits, 7);
                assert_true(exhaust(r, now - windows[i] / 3, &retry_s) == 3);
                exhaust(r, now, &retry_s); /* a part may be there again */
                assert_true(retry_s >= 1);
                if (retry_s > 1)
                    assert_true(exhaust(r, now + (retry_s - 1) * 1000, &again) == 0);
                assert_true(exhaust(r, now + retry_s * UINT64_C(1000), &again) >= 1);
            }
}

static void the_wall_clock_changes_nothing(void **state)
{
    struct rig *r = *state;
    static const int64_t steps[] = {0, (int64_t)DAY, -(int64_t)DAY, 0, INT32_MAX};
    uint32_t retry_s, first = 0;
    for (uint32_t algorithm = 0; algorithm <= RUNTIME_GCRA; algorithm++) {
        set(r, algorithm, 5, 60000);
        r->client = algorithm;
        for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
            r->w->real_ms = (uint64_t)((int64_t)(UINT64_C(1795000000000)) + steps[i]);
            assert_int_equal(exhaust(r, T0, &retry_s), i ? 0 : 5);
            first = i ? first : retry_s;
            assert_int_equal(retry_s, first);
        }
        assert_int_equal(exhaust(r, T0 + 72000, &retry_s), 5);
    }
}

/* After a suspend the monotonic clock of one process may be seen late by another. */
static void a_clock_that_is_a_day_behind_frees_nobody(void **state)
{
    struct rig *r = *state;
    uint32_t retry_s;
    for (uint32_t algorithm = 0; algorithm <= RUNTIME_GCRA; algorithm++) {
        set(r, algorithm, 5, 60000);
        r->client = algorithm;
        assert_int_equal(exhaust(r, T0, &retry_s), 5);
        assert_int_equal(exhaust(r, T0 - DAY, &retry_s), 0);
        assert_int_equal(exhaust(r, T0, &retry_s), 0);
        assert_int_equal(exhaust(r, T0 + DAY, &retry_s), 5); /* and one ahead: it is over */
    }
}

static void the_largest_and_the_least_are_told_as_they_are(void **state)
{
    struct rig *r = *state;
    uint32_t retry_s;
    for (uint32_t algorithm = RUNTIME_FIXED; algorithm <= RUNTIME_GCRA; algorithm++) {
        set(r, algorithm, UINT32_MAX, 30 * DAY);
        r->client = algorithm;
        const struct limit_answer answer = ask(r, T0);
        assert_false(answer.refused);
        assert_non_null(
            strstr(answer.lines, "RateLimit-Policy: \"status\";q=4294967295;w=2592000\r\n"));
        assert_non_null(strstr(answer.lines, "RateLimit: \"status\";r=4294967294;t="));
    }
    for (uint32_t algorithm = 0; algorithm <= RUNTIME_GCRA; algorithm++) {
        set(r, algorithm, 0, 30 * DAY);
        r->client = 100 + algorithm;
        assert_int_equal(exhaust(r, T0, &retry_s), 0);
        assert_int_equal(retry_s, 2592000);
        set(r, algorithm, 1, 100);
        r->client = 200 + algorithm;
        assert_int_equal(exhaust(r, T0, &retry_s), 1);
        assert_int_equal(retry_s, 1);
        assert_int_equal(exhaust(r, T0 + 120, &retry_s), 1);
    }
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(who_obeys_retry_after_is_admitted_and_a_second_earlier_is_not),
        TEST(the_wall_clock_changes_nothing),
        TEST(a_clock_that_is_a_day_behind_frees_nobody),
        TEST(the_largest_and_the_least_are_told_as_they_are),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
