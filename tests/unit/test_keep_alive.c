/* SPDX-License-Identifier: BSD-2-Clause */
/* For how long a connection to a backend is used again, by what its response states. */
#include "daemons/worker/fetch/keep_alive.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define IDLE_MS 4000

static uint32_t kept(const char *lines, uint32_t idle_ms)
{
    char text[1024];
    static struct h1_head head;
    size_t scanned = 0;
    const int n = snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n%s%s\r\n",
                           lines, *lines ? "\r\n" : "");
    assert_int_equal(h1_parse_response(text, (size_t)n, &scanned, false, &head), H1_DONE);
    return keep_alive_ms(&head, idle_ms);
}

static void what_is_stated_is_used_but_for_the_end(void **state)
{
    (void)state;
    assert_int_equal(kept("Keep-Alive: timeout=5", IDLE_MS), 4500);
    assert_int_equal(kept("Keep-Alive: timeout=1", IDLE_MS), 500);
    assert_int_equal(kept("Keep-Alive: timeout=20", IDLE_MS), 18000);
    assert_int_equal(kept("keep-alive: max=100 , TIMEOUT = 5", IDLE_MS), 4500);
    assert_int_equal(kept("Keep-Alive: timeout=5;x", IDLE_MS), 4500);
    assert_int_equal(kept("Keep-Alive: timeout=2.9", IDLE_MS), 1500);
    assert_int_equal(kept("Keep-Alive: timeout=9, timeout=2\r\nKeep-Alive: timeout=3", IDLE_MS),
                     1500); /* the shortest */
}

static void what_is_not_to_be_kept_is_not(void **state)
{
    (void)state;
    assert_int_equal(kept("Keep-Alive: timeout=0", IDLE_MS), 0);
    assert_int_equal(kept("Keep-Alive: timeout=00", IDLE_MS), 0);
    assert_int_equal(kept("Keep-Alive: timeout=5, max=0", IDLE_MS), 0);
    assert_int_equal(kept("Keep-Alive: timeout=5", 0), 0);
    assert_int_equal(kept("", 0), 0);
    assert_int_equal(kept("Keep-Alive: max=1", IDLE_MS), IDLE_MS);
}

static void what_says_nothing_leaves_it_as_configured(void **state)
{
    static const char *const lines[] = {
        "",
        "Keep-Alive:",
        "Keep-Alive: ,,,",
        "Keep-Alive: timeout",
        "Keep-Alive: timeout=",
        "Keep-Alive: timeout=-1",
        "Keep-Alive: timeout=soon",
        "Keep-Alive: =5",
        "Keep-Alive: xtimeout=1",
        "Keep-Alive: max=-1, max=, max=x",
        "Keep-Alive: \"timeout=1",
        "Connection: keep-alive",
    };
    (void)state;
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        assert_int_equal(kept(lines[i], IDLE_MS), IDLE_MS);
}

static void what_is_huge_is_bounded(void **state)
{
    (void)state;
    assert_int_equal(kept("Keep-Alive: timeout=86400", IDLE_MS), KEEP_ALIVE_MAX_MS);
    assert_int_equal(kept("Keep-Alive: timeout=4294967297", IDLE_MS), KEEP_ALIVE_MAX_MS);
    assert_int_equal(kept("Keep-Alive: timeout=99999999999999999999999999", IDLE_MS),
                     KEEP_ALIVE_MAX_MS);
    assert_int_equal(kept("Keep-Alive: timeout=300", 240000), 240000); /* as long as configured */
    assert_int_equal(kept("Keep-Alive: timeout=5", 240000), 4500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_stated_is_used_but_for_the_end),
        cmocka_unit_test(what_is_not_to_be_kept_is_not),
        cmocka_unit_test(what_says_nothing_leaves_it_as_configured),
        cmocka_unit_test(what_is_huge_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
