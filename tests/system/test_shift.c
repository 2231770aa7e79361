/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of traffic that is shifted from one release to another: shares, guard, walks, what
 * outlives which death, and what is refused. */
#include "harness.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct house house;
static struct backend *blue, *green;
static _Atomic unsigned bad_of;          /* green fails one of so many; 0: none */
static atomic_bool unwell, green_unwell; /* what both, or green, answer to checks */
static atomic_bool silent;               /* green does not answer */

static bool is_blue(struct asked *a)
{
    if (!strcmp(a->target, "/check"))
        return reply(a, "HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n",
                     atomic_load(&unwell) ? 503 : 200);
    return reply_ok(a, "", "blue");
}

static bool is_green(struct asked *a)
{
    const unsigned of = atomic_load(&bad_of);
    if (!strcmp(a->target, "/check"))
        return reply(a, "HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n",
                     atomic_load(&unwell) || atomic_load(&green_unwell) ? 503 : 200);
    for (int i = 0; atomic_load(&silent) && i < 4000; i++)
        nap_ms(5);
    if ((of && a->number % of == 0) || !strcmp(a->target, "/broken"))
        return reply(a, "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n");
    return reply_ok(a, "", "green");
}

static int begin(void **state)
{
    (void)state;
    atomic_store(&bad_of, 0);
    atomic_store(&unwell, false);
    atomic_store(&green_unwell, false);
    atomic_store(&silent, false);
    blue = backend_start(is_blue, NULL);
    green = backend_start(is_green, NULL);
    return 0;
}

static int end(void **state)
{
    (void)state;
    atomic_store(&silent, false);
    house_remove(&house);
    backend_stop(blue);
    backend_stop(green);
    return 0;
}

static const char *more = ""; /* of the upstream */

static void routes(char *out, size_t size, bool with_green)
{
    char second[64] = "";
    if (with_green)
        snprintf(second, sizeof second, "server \"127.0.0.1:%u\" { weight = 0 }",
                 backend_port(green));
    snprintf(out, size,
             "upstream \"app\" { server \"127.0.0.1:%u\" { } %s %s }\n"
             "upstream \"one\" { server \"127.0.0.1:1\" { } }\n"
             "route \"/*\" { upstream = \"app\" }\n",
             backend_port(blue), second, more);
}

static void start(unsigned workers)
{
    char text[1024];
    routes(text, sizeof text, true);
    house_start(&house, workers, "%s", text);
}

static int shift(const char *rest, const char **out)
{
    return ctl(&house, out, "upstream shift app 127.0.0.1:%u %s", backend_port(green), rest);
}

static void ask(unsigned n)
{
    unsigned counts[1000] = {0};
    storm(house.port, "/x", n, 4, counts, NULL);
    assert_int_equal(counts[0], 0);
}

/* Which part of n requests does green get? */
static unsigned of_green(unsigned n)
{
    const unsigned before = backend_calls(green);
    ask(n);
    return backend_calls(green) - before;
}

static bool says(const char *command, const char *text)
{
    const char *out;
    return ctl(&house, &out, "%s", command) == 0 && strstr(out, text);
}

static bool why_says(const char *text)
{
    return says("--json upstream why app", text);
}

/* ---- shares ---- */

static void shares_are_exact_and_outlive_everything(void **state)
{
    char text[1024];
    pid_t pid[4];
    (void)state;
    start(2);
    assert_int_equal(of_green(20), 0);
    assert_int_equal(shift("10", NULL), 0);
    assert_in_range(of_green(400), 39, 41); /* each worker takes turns by itself */
    assert_int_equal(shift("50", NULL), 0);
    assert_in_range(of_green(200), 98, 102);
    routes(text, sizeof text, true);
    house_write_conf(&house, 2, text);
    assert_int_equal(ctl(&house, NULL, "reload"), 0);
    assert_in_range(of_green(100), 48, 52);
    assert_int_equal(house_children(&house, "polderd: control", pid, 4), 1);
    kill(pid[0], SIGKILL);
    house_kill(&house);
    house_run(&house);
    assert_in_range(of_green(100), 48, 52);
    assert_int_equal(shift("100", NULL), 0);
    assert_int_equal(of_green(50), 50);
    assert_int_equal(shift("0", NULL), 0);
    assert_int_equal(of_green(50), 0);
    assert_true(why_says("\"percent\": 0"));
    snprintf(text, sizeof text, "\n  127.0.0.1:%u  0\n", backend_port(green));
    assert_true(says("upstream why app", text)); /* an address is no name of a column */
}

/* ---- the guard ---- */

/* Seconds pass, with traffic in each look of the guard, until it says so. */
static void until_it_says(const char *text, unsigned each)
{
    for (int i = 0; i < 40 && !why_says(text); i++) {
        ask(each);
        house_advance(&house, 5100);
        for (int k = 0; k < 60 && !why_says(text); k++) /* control looks each second */
            nap_ms(20);
    }
    assert_true(why_says(text));
}

static void a_bad_release_is_rolled_back(void **state)
{
    pid_t pid[4];
    (void)state;
    more = "eject = false";
    start(2);
    more = "";
    atomic_store(&bad_of, 5);
    assert_int_equal(shift("50 --guard", NULL), 0);
    ask(40);
    assert_int_equal(house_children(&house, "polderd: control", pid, 4), 1);
    kill(pid[0], SIGKILL); /* in the middle of its watch */
    wait_until(house_ready(&house) && ctl(&house, NULL, "status") == 0, 10000);
    until_it_says("\"rolled_back\"", 300);
    const bool rise = why_says("\"rule\": \"rise\""); /* as its requests fall into seconds */
    assert_true(rise || why_says("\"rule\": \"early\""));
    assert_true(why_says("\"evidence_limit\": "));
    assert_true(why_says("\"percent\": 0"));
    assert_int_equal(of_green(50), 0);
    assert_true(house_logged(&house, rise ? "was rolled back: at 50 %: its errors have risen, "
                                          : "was rolled back: at 50 %: more errors than beside it "
                                            "in its first requests, "));
    wait_until(says("status", "shift_rolled_back"), 5000);
    wait_until(says("alert list", "shift_rolled_back"), 5000);
    assert_int_equal(ctl(&house, NULL, "upstream shift app --stop"), 0);
    wait_until(!says("status", "shift_rolled_back"), 5000);
}

static void one_that_fails_altogether_is_rolled_back_at_once(void **state)
{
    (void)state;
    start(1);
    atomic_store(&bad_of, 1);
    assert_int_equal(shift("50 --guard", NULL), 0);
    ask(20);
    wait_until(why_says("\"rolled_back\""), 5000);
    assert_true(why_says("\"ejected\"") || why_says("\"first\""));
    assert_int_equal(of_green(20), 0);
}

static void one_that_takes_no_connection_is_rolled_back_at_once(void **state)
{
    (void)state;
    start(1);
    assert_int_equal(shift("10 --guard", NULL), 0);
    backend_stop(green);
    for (int i = 0; i < 40 && !why_says("\"rolled_back\""); i++) {
        ask(20);                     /* all are answered by blue */
        house_advance(&house, 4100); /* the next trial of a server that is down */
        nap_ms(100);
    }
    green = backend_start(is_green, NULL);
    const char *out;
    assert_int_equal(ctl(&house, &out, "--json upstream why app"), 0);
    assert_non_null(strstr(out, "\"rolled_back\""));
    assert_non_null(strstr(out, "\"connect\""));
    assert_true(house_logged(&house, "connections in a row have failed"));
}

#define CHECKED "health = \"/check\" health_interval = \"50ms\""

/* No request tells: it gets none any more. */
static void one_whose_checks_fail_is_rolled_back(void **state)
{
    (void)state;
    more = CHECKED;
    start(1);
    more = "";
    assert_int_equal(shift("10 --guard", NULL), 0);
    ask(20);
    atomic_store(&green_unwell, true);
    wait_until(why_says("\"rolled_back\""), 10000);
    assert_true(why_says("\"rule\": \"down\""));
    assert_true(why_says("at 10 %: it gets no requests: its active checks fail; new: "));
    assert_true(house_logged(&house, "was rolled back: at 10 %: it gets no requests: "));
    atomic_store(&green_unwell, false);
    wait_until(shift("10 --guard", NULL) == 0, 10000); /* refused as long as it is down */
    backend_stop(green);
    wait_until(why_says("its active checks get no connection") || why_says("\"connect\""), 10000);
    green = backend_start(is_green, NULL);
}

static void where_all_checks_fail_it_holds(void **state)
{
    const char *out;
    (void)state;
    more = CHECKED;
    start(1);
    more = "";
    assert_int_equal(shift("10 --auto --hold 5s", NULL), 0);
    atomic_store(&unwell, true);
    wait_until(why_says("holds: it gets no requests, as it is down"), 10000);
    wait_until(ctl(&house, &out, "--json upstream list") == 0 && strstr(out, "\"down\""), 10000);
    wait_until(house_logged(&house, "fails its checks"), 10000);
    house_advance(&house, 20000);
    nap_ms(300);
    assert_true(why_says("\"percent\": 10"));
    assert_true(why_says("\"suspects\""));
    atomic_store(&unwell, false);
    wait_until(!why_says("as it is down"), 10000);
    assert_true(why_says("\"walking\""));
}

static void one_that_hangs_is_rolled_back(void **state)
{
    (void)state;
    more = "timeout = \"100ms\"";
    start(1);
    more = "";
    assert_int_equal(shift("50 --guard", NULL), 0);
    atomic_store(&silent, true);
    for (int i = 0; i < 100 && !why_says("\"rolled_back\""); i++) {
        unsigned counts[1000] = {0};
        storm(house.port, "/x", 4, 2, counts, NULL);
        house_advance(&house, 4100); /* the next trial */
    }
    assert_true(why_says("\"rule\": \"down\""));
    assert_true(why_says("it gets no requests: it does not answer; "));
}

static void too_little_traffic_holds_and_says_so(void **state)
{
    (void)state;
    start(1);
    atomic_store(&bad_of, 1);
    assert_int_equal(shift("10 --auto --hold 5s --max 1m", NULL), 0);
    ask(30); /* three of them fail */
    house_advance(&house, 20000);
    wait_until(why_says("\"too little traffic\"") && why_says("more requests to be judged"), 5000);
    assert_true(why_says("\"percent\": 10"));
    house_advance(&house, 61000);
    wait_until(why_says("\"stalled\""), 5000);
    wait_until(says("status", "shift_stalled"), 5000);
}

/* ---- walks ---- */

static void a_good_release_walks_to_the_end(void **state)
{
    const char *out;
    (void)state;
    start(2);
    assert_int_equal(shift("--auto --hold 10s --smoke /ok --smoke=http://app.example/health", &out),
                     0);
    assert_non_null(strstr(out, "walking"));
    assert_int_equal(backend_calls(green), 2);
    until_it_says("\"percent\": 50", 1200);
    until_it_says("\"percent\": 100", 300);
    assert_int_equal(of_green(20), 20);
    until_it_says("\"done\"", 10);
    assert_int_equal(ctl(&house, &out, "upstream list"), 0);
    assert_non_null(strstr(out, "SHIFT P95"));
    assert_true(house_logged(&house, "the step before has passed, 50 %"));
}

static void a_walk_whose_server_leaves_the_file_ends(void **state)
{
    char text[1024];
    (void)state;
    start(1);
    assert_int_equal(shift("100 --guard", NULL), 0);
    assert_int_equal(of_green(10), 10);
    routes(text, sizeof text, false);
    house_write_conf(&house, 1, text);
    assert_int_equal(ctl(&house, NULL, "reload"), 0);
    const unsigned before = backend_calls(blue);
    ask(10);
    assert_int_equal(backend_calls(blue) - before, 10);
    assert_true(why_says("\"no shift\""));
    assert_true(house_logged(&house, "is not in the configuration any more; the shift is over"));
}

static void another_weight_in_the_file_ends_a_shift(void **state)
{
    char text[1024];
    (void)state;
    start(1);
    assert_int_equal(shift("50 --guard", NULL), 0);
    routes(text, sizeof text, true);
    house_write_conf(&house, 1, text);
    assert_int_equal(ctl(&house, NULL, "reload"), 0);
    assert_true(why_says("\"watched\"")); /* the same file changes nothing */
    memcpy(strstr(text, "weight = 0"), "weight = 9", 10);
    house_write_conf(&house, 1, text);
    assert_int_equal(ctl(&house, NULL, "reload"), 0);
    assert_true(why_says("\"no shift\""));
    assert_true(why_says(": 9"));
}

static void smoke_must_pass_first(void **state)
{
    const char *out;
    (void)state;
    start(1);
    assert_int_equal(shift("10 --smoke /ok --smoke /broken", &out), 1);
    assert_non_null(strstr(out, "smoke /broken: "));
    assert_non_null(strstr(out, "answered 500"));
    assert_non_null(strstr(out, "nothing is changed"));
    assert_true(why_says("\"no shift\""));
    assert_int_equal(shift("10 --smoke ok", &out), 1);
    assert_non_null(strstr(out, "expected a path"));
    assert_int_equal(shift("10 --smoke", &out), 2);
}

/* ---- what is refused ---- */

static void refused(const char *command, const char *text)
{
    const char *out;
    assert_int_not_equal(ctl(&house, &out, "%s", command), 0);
    if (!strstr(out, text))
        print_message("%s: %s\n", command, out);
    assert_non_null(strstr(out, text));
}

static void what_makes_no_sense_is_refused(void **state)
{
    char text[128];
    (void)state;
    start(1);
    refused("upstream shift ap 127.0.0.1:1 10", "did you mean \"app\"?");
    refused("upstream why ap", "did you mean \"app\"?");
    snprintf(text, sizeof text, "did you mean \"127.0.0.1:%u\"?", backend_port(green));
    char command[128];
    snprintf(command, sizeof command, "upstream shift app 127.0.0.1:%u0 10", backend_port(green));
    refused(command, "did you mean \"127.0.0.1:");
    refused("upstream shift one 127.0.0.1:1 10", "upstream one has no other server");
    refused("upstream shift app", "server is missing");
    refused("upstream shift app --stop", "no guard watches");
    assert_int_equal(shift("101", NULL), 2);
    assert_int_equal(shift("-1", NULL), 2);
    assert_int_equal(shift("ten", NULL), 2);
    assert_int_equal(shift("", NULL), 2);
    assert_int_equal(shift("10 --auto --hold 1s", NULL), 2);
    assert_int_equal(shift("10 --auto --max 8d", NULL), 2);
    assert_int_equal(shift("10 --auto", NULL), 0);
    snprintf(command, sizeof command, "upstream shift app 127.0.0.1:%u 20", backend_port(blue));
    refused(command, "is under way (10 %)");
    assert_int_equal(shift("30", NULL), 0); /* of the same one: by hand from now on */
    assert_true(why_says("\"set\""));
    snprintf(command, sizeof command, "upstream weight app 127.0.0.1:%u 7", backend_port(green));
    assert_int_equal(ctl(&house, NULL, "%s", command), 0);
    assert_true(why_says("\"no shift\""));
}

/* ---- a side that is down ---- */

static void the_last_one_that_is_up_keeps_the_traffic(void **state)
{
    const char *out;
    (void)state;
    start(1);
    assert_int_equal(shift("50", NULL), 0);
    backend_stop(blue);
    ask(10); /* green answers all */
    assert_int_equal(shift("10", &out), 1);
    assert_non_null(strstr(out, "no other server of upstream app is up"));
    assert_int_equal(shift("100", NULL), 0);
    blue = backend_start(is_blue, NULL);
}

int main(void)
{
    const struct CMUnitTest stories[] = {
        cmocka_unit_test_setup_teardown(shares_are_exact_and_outlive_everything, begin, end),
        cmocka_unit_test_setup_teardown(a_bad_release_is_rolled_back, begin, end),
        cmocka_unit_test_setup_teardown(one_that_fails_altogether_is_rolled_back_at_once, begin,
                                        end),
        cmocka_unit_test_setup_teardown(one_that_takes_no_connection_is_rolled_back_at_once, begin,
                                        end),
        cmocka_unit_test_setup_teardown(one_whose_checks_fail_is_rolled_back, begin, end),
        cmocka_unit_test_setup_teardown(where_all_checks_fail_it_holds, begin, end),
        cmocka_unit_test_setup_teardown(one_that_hangs_is_rolled_back, begin, end),
        cmocka_unit_test_setup_teardown(too_little_traffic_holds_and_says_so, begin, end),
        cmocka_unit_test_setup_teardown(a_good_release_walks_to_the_end, begin, end),
        cmocka_unit_test_setup_teardown(a_walk_whose_server_leaves_the_file_ends, begin, end),
        cmocka_unit_test_setup_teardown(another_weight_in_the_file_ends_a_shift, begin, end),
        cmocka_unit_test_setup_teardown(smoke_must_pass_first, begin, end),
        cmocka_unit_test_setup_teardown(what_makes_no_sense_is_refused, begin, end),
        cmocka_unit_test_setup_teardown(the_last_one_that_is_up_keeps_the_traffic, begin, end),
    };
    return cmocka_run_group_tests(stories, NULL, NULL);
}
