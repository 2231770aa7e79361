/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A store that stands still, as a suspended machine does, while Sentinel makes another one the master. When it
 * goes on, alone with one host, it still believes that it has its replicas and takes writes: for up to a second,
 * and here for longer, as it is told to believe longer. No host may have a lease of it.
 */
#include "tests/chaos/trio.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct trio trio;

/* It knows, and has let its host be no member until then. */
static bool has_noticed(void)
{
    assert_false(trio_says(&trio, 0, "\"state\": \"member\""));
    return trio_says(&trio, 0, "no replica confirms");
}

static void a_master_that_stood_still_gives_no_lease_by_what_it_remembers(void **state)
{
    const char *out;
    int now = -1;
    (void)state;
    trio_start(&trio);
    redis_do(&trio.at[0].store, "CONFIG SET min-replicas-max-lag 60");
    for (int i = 0; i < TRIO; i++) /* there is nothing to wait for */
        redis_do(&trio.at[i].sentinel, "SENTINEL SET prod down-after-milliseconds 1000");
    kill(trio.at[0].store.pid, SIGSTOP);
    trio_lose_all(0, true);
    wait_until((now = trio_master_but(&trio, 0)) > 0, 20000);
    wait_until(trio_follows(&trio, 1, now) && trio_follows(&trio, 2, now), 15000);
    assert_int_equal(ctl(&trio.at[1].host, &out, "--timeout 20s cache invalidate --all"), 0);
    assert_non_null(strstr(out, "hosts        1"));
    kill(trio.at[0].store.pid, SIGCONT);
    wait_until(has_noticed(), 10000);
    assert_string_equal(redis_do(&trio.at[0].store, "SET x y"), "OK");
    trio_stop(&trio, "stall");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_master_that_stood_still_gives_no_lease_by_what_it_remembers),
    };
    return trio_prepare("stall") ? cmocka_run_group_tests(tests, NULL, NULL) : 0;
}
