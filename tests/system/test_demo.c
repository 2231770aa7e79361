/* SPDX-License-Identifier: BSD-2-Clause */
/* What `make run` starts, as a newcomer sees it: a real FastAPI application behind, real curl in
 * front. */
#include "demo.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct house h;

static int set_up(void **state)
{
    (void)state;
    demo_start(&h, "json");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    demo_stop(&h);
    return 0;
}

static void twenty_five_curls_and_a_changed_limit(void **state)
{
    (void)state;
    const char *out = shell("for i in $(seq 25); do curl -s -o /dev/null -w '%%{http_code}\\n' "
                            "http://127.0.0.1:%u/api/quota/status; done | uniq -c",
                            h.port);
    int ok, refused;
    assert_int_equal(sscanf(out, " %d 200 %d 429", &ok, &refused), 2);
    assert_int_equal(ok, 20);
    assert_int_equal(refused, 5);
    assert_non_null(strcasestr(shell("curl -si http://127.0.0.1:%u/api/quota/status", h.port),
                               "\nRetry-After: "));
    assert_int_equal(ctl(&h, NULL, "limit set status requests=40 window=60s"), 0);
    out = shell("for i in $(seq 25); do curl -s -o /dev/null -w '%%{http_code}\\n' "
                "http://127.0.0.1:%u/api/quota/status; done | sort | uniq -c",
                h.port);
    assert_int_equal(sscanf(out, " %d 200 %d 429", &ok, &refused), 2);
    assert_int_equal(ok, 20);
}

static void reads_are_hits_and_a_post_cleans_up(void **state)
{
    (void)state;
    assert_non_null(
        strcasestr(shell("curl -si http://127.0.0.1:%u/api/items/1", h.port), "fwd=uri-miss"));
    wait_until(strcasestr(shell("curl -si http://127.0.0.1:%u/api/items/1", h.port),
                          "polder; hit") != NULL,
               3000);
    assert_non_null(
        strstr(shell("curl -s http://127.0.0.1:%u/api/items/1", h.port), "\"version\":1"));
    assert_non_null(
        strstr(shell("curl -s -X POST http://127.0.0.1:%u/api/items/1", h.port), "\"version\":2"));
    assert_non_null(
        strstr(shell("curl -s http://127.0.0.1:%u/api/items/1", h.port), "\"version\":2"));
    assert_non_null(
        strstr(shell("curl -s http://127.0.0.1:%u/api/calls", h.port), "\"GET /api/items/1\":"));
}

static const char *as(const char *user, const char *curl, const char *path)
{
    return shell("curl -s %s -b %s/%s -c %s/%s http://127.0.0.1:%u%s", curl, h.dir, user, h.dir,
                 user, h.port, path);
}

static void two_users_get_each_their_own(void **state)
{
    (void)state;
    static const char *const users[] = {"alice", "bob"};
    assert_non_null(strstr(as("alice", "-X POST", "/api/login/alice"), "alice"));
    assert_non_null(strstr(as("bob", "-X POST", "/api/login/bob"), "bob"));
    for (int round = 0; round < 5; round++)
        for (size_t i = 0; i < 2; i++)
            assert_non_null(strstr(as(users[i], "", "/api/me"), users[i]));
    for (size_t i = 0; i < 2; i++) {
        wait_until(strcasestr(as(users[i], "-i", "/api/me"), "polder; hit") != NULL, 6000);
        wait_until(strcasestr(as(users[i], "-i", "/api/items/7"), "polder; hit") != NULL, 3000);
    }
    assert_non_null(strstr(shell("curl -s http://127.0.0.1:%u/api/me", h.port), "not logged in"));
    assert_non_null(strstr(as("alice", "-X POST", "/api/logout"), "alice"));
    assert_non_null(strstr(as("alice", "", "/api/me"), "not logged in"));
    assert_non_null(strstr(as("bob", "", "/api/me"), "bob"));
}

/* ---- make run FLEET=3 ---- */

static int set_up_fleet(void **state)
{
    setenv("FLEET", "3", 1);
    return set_up(state);
}

static int tear_down_fleet(void **state)
{
    char sock[160];
    const unsigned ports[] = {h.port, h.port + 10, h.port + 20};
    (void)state;
    snprintf(sock, sizeof sock, "%s/redis.sock", h.dir);
    assert_int_equal(access(sock, F_OK), 0);
    demo_stop(&h);
    assert_int_not_equal(access(sock, F_OK), 0); /* Redis has ended, too */
    for (unsigned i = 0; i < 3; i++)
        assert_string_equal(shell("curl -s -o /dev/null http://127.0.0.1:%u/ || echo $?", ports[i]),
                            "7\n");
    return 0;
}

/* The lines of README.md. */
static void what_the_first_host_invalidates_the_second_has_forgotten(void **state)
{
    (void)state;
    const char *out;
    const char again[] = "curl -si http://127.0.0.1:%u/api/items/1 | grep -i ^cache-status";
    wait_until(ctl(&h, &out, "fleet") == 0 && strstr(out, "host3") && strstr(out, "host2") &&
                   !strstr(out, "cut off"),
               10000);
    shell(again, h.port + 10);
    assert_non_null(strstr(shell(again, h.port + 10), "; hit"));
    assert_int_equal(ctl(&h, &out, "cache invalidate /api/items/1"), 0);
    assert_non_null(strstr(out, "hosts        2"));
    assert_non_null(strstr(shell(again, h.port + 10), "fwd="));
}

static void what_is_no_number_of_hosts_is_refused(void **state)
{
    (void)state;
    static const char *const wrong[] = {"x", "0", "10", "3x", " "};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_non_null(strstr(shell("FLEET='%s' tests/demo/run '%s' 2>&1", wrong[i],
                                     getenv("POLDER_BUILD") ? getenv("POLDER_BUILD") : "build"),
                               "expected 1 to 9 hosts"));
}

static void a_second_run_in_its_place_says_so(void **state)
{
    (void)state;
    const char *build = getenv("POLDER_BUILD") ? getenv("POLDER_BUILD") : "build", *out;
    assert_non_null(
        strstr(shell("tests/demo/run '%s' 2>&1", build), "another program listens on port"));
    int tries = 0;
    do /* a port may be another's */
        out = shell("BACKEND_PORT=%u PORT=%u OPS_PORT=%u tests/demo/run '%s' 2>&1", free_port(),
                    free_port(), free_port(), build);
    while (strstr(out, "another program listens on port") && ++tries < 5);
    assert_non_null(strstr(out, "another run has its Redis at"));
    assert_int_equal(ctl(&h, &out, "fleet"), 0); /* which does no harm to the first one */
    assert_null(strstr(out, "cut off"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(twenty_five_curls_and_a_changed_limit),
        cmocka_unit_test(reads_are_hits_and_a_post_cleans_up),
        cmocka_unit_test(two_users_get_each_their_own),
    };
    const struct CMUnitTest of_fleets[] = {
        cmocka_unit_test(what_the_first_host_invalidates_the_second_has_forgotten),
        cmocka_unit_test(what_is_no_number_of_hosts_is_refused),
        cmocka_unit_test(a_second_run_in_its_place_says_so),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down) ||
           cmocka_run_group_tests(of_fleets, set_up_fleet, tear_down_fleet);
}
