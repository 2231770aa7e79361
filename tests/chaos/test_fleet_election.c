/* SPDX-License-Identifier: BSD-2-Clause */
/* The master of a fleet is moved by an operator, then killed, and Sentinel makes another one: under load nothing
 * older is served, and the limit holds. */
#include "tests/chaos/trio.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct trio trio;
static const char unguarded[] = "takes writes without a replica";

static int follow_another_than(int old)
{
    const int now = trio_master_but(&trio, old);
    bool good = now >= 0;
    for (int i = 0; good && i < TRIO; i++)
        good = trio_follows(&trio, i, now);
    return good ? now : -1;
}

static int fail_over(int old)
{
    const char *out;
    int now = -1;
    redis_kill(&trio.at[old].store);
    const uint64_t killed_ms = mono_ms();
    wait_until((now = follow_another_than(old)) >= 0, 40000);
    const unsigned member_ms = (unsigned)(mono_ms() - killed_ms);
    assert_int_equal(ctl(&trio.at[old].host, &out, "--timeout 20s cache invalidate --all"), 0);
    assert_non_null(strstr(out, "hosts        2"));
    printf("election: all are members of another master after %u ms, and an invalidation is "
           "acknowledged after %u\n",
           member_ms, (unsigned)(mono_ms() - killed_ms));
    return now;
}

/* An operator moves it. */
static int move(int old)
{
    const char *out;
    int now = -1;
    const uint64_t began_ms = mono_ms();
    assert_string_equal(redis_do(&trio.at[0].sentinel, "SENTINEL FAILOVER prod"), "OK");
    wait_until((now = follow_another_than(old)) >= 0, 40000);
    const unsigned member_ms = (unsigned)(mono_ms() - began_ms);
    assert_int_equal(ctl(&trio.at[old].host, &out, "--timeout 20s cache invalidate --all"), 0);
    assert_non_null(strstr(out, "hosts        2"));
    printf("election: all follow the master that was asked for after %u ms, and an invalidation is "
           "acknowledged after %u\n",
           member_ms, (unsigned)(mono_ms() - began_ms));
    return now;
}

/* It comes back as a replica: it says so to Sentinel first. */
static void bring_back(int old)
{
    nets_enter(old);
    redis_run(&trio.at[old].store);
    nets_enter(-1);
    wait_until(!trio_is_master(&trio, old), 40000);
}

static void a_master_is_replaced_and_nothing_older_is_served(void **state)
{
    const unsigned rounds = chaos_count("CHAOS_ELECTIONS", 5, 1);
    int now = 0;
    (void)state;
    trio_start(&trio);
    assert_false(trio_says(&trio, 1, unguarded));
    now = move(now);
    for (unsigned n = 0; n < rounds; n++) {
        const int old = now;
        now = fail_over(old);
        if (n + 1 < rounds)
            bring_back(old);
    }
    assert_false(trio_says(&trio, 1, unguarded));
    redis_do(&trio.at[now].store, "CONFIG SET min-replicas-to-write 0");
    wait_until(trio_says(&trio, 1, unguarded), 5000);
    trio_stop(&trio, "election");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_master_is_replaced_and_nothing_older_is_served),
    };
    return trio_prepare("election") ? cmocka_run_group_tests(tests, NULL, NULL) : 0;
}
