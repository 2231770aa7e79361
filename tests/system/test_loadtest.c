/* SPDX-License-Identifier: BSD-2-Clause */
/* What `make run`, `make loadtest` and `polderctl verify` show a newcomer, side by side and in
 * short. */
#include "demo.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

static struct house h;

static int set_up(void **state)
{
    (void)state;
    setenv("WS_TIMEOUT", "1s", 1);
    demo_start(&h, "both");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    demo_stop(&h);
    return 0;
}

/* A hundred users are at it, all places for WebSockets are taken, one client is being limited: who
 * verifies sees all of it work, and the users see no difference. */
static void targets_are_met_while_somebody_verifies(void **state)
{
    (void)state;
    char table[8192];
    const char *out;
    char command[256];
    snprintf(command, sizeof command, "LOADTEST_SECONDS=6 tests/demo/loadtest %s 2>&1",
             getenv("POLDER_BUILD") ? getenv("POLDER_BUILD") : "build");
    FILE *f = popen(command, "r");
    assert_non_null(f);
    wait_until(strstr(shell("curl -s http://127.0.0.1:%u/api/telemetry/websocket-health", h.port),
                      "\"activeConnections\":50,"),
               10000);
    assert_int_equal(ctl(&h, &out, "verify"), 0);
    if (!strstr(out, "score 100 of 100"))
        fail_msg("%s", out);
    table[fread(table, 1, sizeof table - 1, f)] = 0;
    const int status = pclose(f);
    if (!WIFEXITED(status) || WEXITSTATUS(status))
        fail_msg("%s", table);
    assert_non_null(strstr(table, "uses the demo that runs"));
    assert_null(strstr(table, "MISSED"));
    assert_non_null(strstr(table, "50 are open, the limit is 50"));
}

/* Nothing is saved, held or refused where Polder is not in between, and that is said. */
static void targets_are_missed_without_polder(void **state)
{
    (void)state;
    const char *backend = getenv("BACKEND_PORT");
    const char *out =
        shell("%s 2 %s %s 2>&1; echo status $?", built("bench/loadtest"), backend, backend);
    assert_non_null(strstr(out, "MISSED backend calls"));
    assert_non_null(strstr(out, "MISSED WebSockets"));
    assert_non_null(strstr(out, "MISSED the abusive client"));
    assert_non_null(strstr(out, "status 1"));
}

int main(void)
{
    const struct CMUnitTest stories[] = {
        cmocka_unit_test(targets_are_met_while_somebody_verifies),
        cmocka_unit_test(targets_are_missed_without_polder),
    };
    return cmocka_run_group_tests(stories, set_up, tear_down);
}
