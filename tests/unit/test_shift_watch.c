/* SPDX-License-Identifier: BSD-2-Clause */
/* shift_watch: the guard of traffic shifts, fed with counts second by second: what it finds, how
 * soon, how often it is wrong, and what it says of too little traffic. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/release.h"

static const struct side good = {.005, 20}, bad = {.05, 20};

/* ---- errors ---- */

/* Within that many seconds, 9 of 10 runs trip by a rise of errors from 0.5 to 5 %, half of them
 * within `half`. */
static void finds(const struct course *c, unsigned half, unsigned most)
{
    enum { RUNS = 500 };
    static unsigned s[RUNS];
    for (unsigned i = 0; i < RUNS; i++) {
        s[i] = trips_after(1000 + i, c, &bad, &good);
        s[i] = s[i] ? s[i] : UINT32_MAX;
    }
    qsort(s, RUNS, sizeof *s, by_number);
    print_message("%g requests a second, %g %% of them: half of %d runs within %u s, 9 of 10 "
                  "within %u s\n",
                  c->rate, 100 * c->share, RUNS, s[RUNS / 2], s[RUNS * 9 / 10 - 1]);
    assert_in_range(s[RUNS / 2], 1, half);
    assert_in_range(s[RUNS * 9 / 10 - 1], 1, most);
}

static void ten_times_the_errors_are_found_within_a_minute_of_little_traffic(void **state)
{
    (void)state;
    finds(&(struct course){20, .1, 0, 300}, 50, 60);
    finds(&(struct course){20, .5, 0, 300}, 30, 60);
}

static void and_within_20_seconds_of_more(void **state)
{
    (void)state;
    finds(&(struct course){100, .1, 0, 300}, 15, 20);
    finds(&(struct course){100, .5, 0, 300}, 10, 20);
}

static void errors_that_rise_late_in_a_step_are_found_as_well(void **state)
{
    (void)state;
    finds(&(struct course){20, .1, 600, 300}, 75, 150);
    finds(&(struct course){100, .1, 600, 300}, 20, 40);
    finds(&(struct course){20, .5, 600, 300}, 60, 90);
}

/* One request in 20 fails, and one in 200: without luck. */
static void regular_errors_are_found_in_time_each_time(void **state)
{
    (void)state;
    for (unsigned rate = 20; rate <= 100; rate += 80) {
        struct run r;
        unsigned s = 0;
        run_begin(&r, 1);
        do {
            for (unsigned i = 0; i < rate; i++) {
                struct shift_counts *t = &r.total[i % 10 == 9 ? SHIFT_NEW : SHIFT_OTHER];
                t->errors += ++t->requests % (i % 10 == 9 ? 20 : 200) == 0;
                t->bucket[40]++;
            }
            r.now_ms += 1000;
            s++;
        } while (shift_watch_look(&r.watch, r.total, r.now_ms) != SHIFT_WORSE && s < 300);
        assert_int_equal(r.watch.rule, SHIFT_RULE_EARLY);
        assert_in_range(s, 1, rate == 20 ? 60 : 20);
    }
}

/* Of 200 runs of ten minutes, in each of three such series. */
static void equal_sides_trip_at_most_8_times_of_200(void **state)
{
    static const struct {
        double rate, errors;
    } of[] = {{20, .005}, {20, .02}, {100, .005}, {100, .02}};
    (void)state;
    for (unsigned series = 0; series < 3; series++) {
        unsigned wrong = 0;
        for (unsigned i = 0; i < 200; i++) {
            const struct side side = {of[i % 4].errors, 20};
            const struct course c = {of[i % 4].rate, .1, 0, 600};
            wrong += trips_after(200 * series + i, &c, &side, &side) != 0;
        }
        print_message("false alarms: %u of 200 runs of 10 minutes\n", wrong);
        assert_in_range(wrong, 0, 8);
    }
}

/* Whatever the other side's errors are, and where there are none. */
static void few_errors_do_not_trip(void **state)
{
    static const struct side none = {0, 20}, few = {.004, 20};
    (void)state;
    for (unsigned i = 0; i < 20; i++) {
        assert_int_equal(trips_after(i, &(struct course){20, .1, 0, 600}, &none, &none), 0);
        assert_int_equal(trips_after(i, &(struct course){100, .5, 0, 600}, &few, &none), 0);
    }
}

/* Errors that are too few to matter are evidence too; they must not hide a rise. */
static void a_rise_after_an_hour_of_few_errors_is_found(void **state)
{
    static const struct side few = {.002, 20}, none = {0, 20};
    struct run r;
    unsigned s = 0;
    (void)state;
    run_begin(&r, 4);
    for (unsigned i = 0; i < 3600; i++)
        assert_int_not_equal(second(&r, 20, .5, &few, &none), SHIFT_WORSE);
    for (; s < 300 && r.watch.verdict != SHIFT_WORSE; s++)
        second(&r, 20, .5, &bad, &none);
    assert_in_range(s, 1, 60);
    assert_int_equal(r.watch.rule, SHIFT_RULE_RISE);
}

static void the_first_requests_trip_at_once(void **state)
{
    static const struct side broken = {1, 20}, half = {.6, 20};
    (void)state;
    assert_in_range(trips_after(1, &(struct course){20, .1, 0, 300}, &broken, &good), 4,
                    5); /* the eighth request */
    assert_int_equal(trips_after(1, &(struct course){1000, .1, 0, 300}, &half, &good), 1);
    /* where both sides fail, it is not the release */
    assert_int_equal(trips_after(1, &(struct course){20, .1, 0, 300}, &half, &half), 0);
}

static void a_server_that_takes_no_connection_trips_at_once(void **state)
{
    static const struct side half = {.6, 20}; /* both: it is not worse by its errors */
    struct run r;
    (void)state;
    run_begin(&r, 1);
    for (int i = 0; i < 4; i++) {
        r.total[SHIFT_NEW].requests++;
        r.total[SHIFT_NEW].errors++;
        r.total[SHIFT_NEW].unconnected++;
        assert_int_not_equal(second(&r, 100, 0, &half, &half), SHIFT_WORSE);
    }
    /* an answer in between: it begins anew */
    for (int i = 0; i < 3; i++)
        second(&r, 100, .1, &half, &half);
    for (int i = 0; i < 5; i++) {
        assert_int_not_equal(r.watch.verdict, SHIFT_WORSE);
        r.total[SHIFT_NEW].requests++;
        r.total[SHIFT_NEW].errors++;
        r.total[SHIFT_NEW].unconnected++;
        second(&r, 100, 0, &half, &half);
    }
    assert_int_equal(r.watch.verdict, SHIFT_WORSE);
    assert_int_equal(r.watch.rule, SHIFT_RULE_CONNECT);
}

static void an_ejected_server_trips_at_once(void **state)
{
    struct run r;
    (void)state;
    run_begin(&r, 1);
    for (int s = 0; s < 20; s++)
        second(&r, 20, .1, &good, &good);
    r.total[SHIFT_NEW].errors += 5;
    r.total[SHIFT_NEW].requests += 5;
    r.total[SHIFT_OTHER].ejections++; /* says nothing of this one */
    assert_int_not_equal(second(&r, 20, 0, &good, &good), SHIFT_WORSE);
    r.total[SHIFT_NEW].ejections++;
    assert_int_equal(second(&r, 20, 0, &good, &good), SHIFT_WORSE);
    assert_int_equal(r.watch.rule, SHIFT_RULE_EJECTED);
}

/* Seconds with one failed check each, until it trips; 0: it does not. */
static unsigned down_trips_after(struct run *r, enum shift_out out, uint32_t others_up)
{
    run_begin(r, 1);
    r->total[SHIFT_OTHER].up = others_up;
    for (int s = 0; s < 20; s++)
        assert_int_not_equal(second(r, 20, .1, &good, &good), SHIFT_WORSE);
    r->total[SHIFT_NEW].out = out;
    for (unsigned s = 1; s <= 20; s++) {
        if (second(r, 20, 0, &good, &good) == SHIFT_WORSE)
            return s;
        r->total[SHIFT_NEW].failed_checks++;
    }
    return 0;
}

static void a_server_that_is_down_trips_although_no_request_can_tell(void **state)
{
    struct run r;
    char text[256];
    (void)state;
    assert_int_equal(down_trips_after(&r, SHIFT_OUT_CHECKS, 1), 1 + SHIFT_DOWN_CHECKS);
    assert_int_equal(r.watch.rule, SHIFT_RULE_DOWN);
    shift_explain(&r.watch, text, sizeof text);
    assert_non_null(strstr(text, "it gets no requests: its active checks fail; new: "));
    assert_int_equal(down_trips_after(&r, SHIFT_OUT_FAILURES, 1), 1 + SHIFT_DOWN_TRIALS);
    assert_int_equal(down_trips_after(&r, SHIFT_OUT_UNREACHABLE, 1), 1);
    /* as long as the others are down too, it holds, and does not pass */
    assert_int_equal(down_trips_after(&r, SHIFT_OUT_CHECKS, 0), 0);
    assert_false(shift_watch_passes(&r.watch, 0, r.now_ms));
    r.total[SHIFT_OTHER].up = 1;
    for (int s = 0; s < SHIFT_DOWN_CHECKS - 1; s++) { /* one has failed since the last look */
        assert_int_not_equal(second(&r, 20, 0, &good, &good), SHIFT_WORSE);
        r.total[SHIFT_NEW].failed_checks++;
    }
    assert_int_equal(second(&r, 20, 0, &good, &good), SHIFT_WORSE);
}

static void a_check_that_passes_in_between_begins_the_count_anew(void **state)
{
    static const struct side spotless = {0, 20};
    struct run r;
    (void)state;
    run_begin(&r, 1);
    r.total[SHIFT_OTHER].up = 1;
    for (int s = 0; s < 60; s++) {
        r.total[SHIFT_NEW].out = s % 3 ? SHIFT_OUT_CHECKS : SHIFT_IN;
        assert_int_not_equal(second(&r, 20, .1, &spotless, &good), SHIFT_WORSE);
        r.total[SHIFT_NEW].failed_checks += s % 3 != 0;
    }
}

/* ---- p95 ---- */

static void a_slower_side_trips_by_its_p95(void **state)
{
    static const struct side slow = {.005, 80}, faster = {.005, 5}, fast = {.005, 2};
    struct run r;
    (void)state;
    run_begin(&r, 5);
    for (int s = 0; s < 300 && r.watch.verdict != SHIFT_WORSE; s++)
        second(&r, 100, .1, &slow, &good);
    assert_int_equal(r.watch.verdict, SHIFT_WORSE);
    assert_int_equal(r.watch.rule, SHIFT_RULE_P95);
    assert_in_range(r.now_ms - r.watch.begun_ms, 20000, 31000); /* 200 answers, three looks */
    assert_int_equal(trips_after(5, &(struct course){100, .1, 0, 300}, &faster, &fast),
                     0); /* 4 ms more do not matter */
}

/* ---- too little ---- */

static void too_little_traffic_neither_passes_nor_fails(void **state)
{
    struct run r;
    (void)state;
    run_begin(&r, 3);
    for (int s = 0; s < 300; s++)
        assert_int_equal(second(&r, 2, .1, &bad, &good), SHIFT_TOO_FEW);
    assert_false(shift_watch_passes(&r.watch, 60000, r.now_ms));
}

static void a_good_side_passes_when_its_time_is_over(void **state)
{
    static const struct side spotless = {0, 20};
    struct run r;
    (void)state;
    run_begin(&r, 3);
    for (int s = 0; s < 60; s++) {
        assert_false(shift_watch_passes(&r.watch, 60000, r.now_ms));
        second(&r, 100, .1, &spotless, &good);
    }
    assert_true(shift_watch_passes(&r.watch, 60000, r.now_ms));
}

/* ---- over deaths ---- */

static void counts_that_begin_anew_are_added(void **state)
{
    struct run r;
    (void)state;
    run_begin(&r, 3);
    for (int s = 0; s < 30; s++)
        second(&r, 100, .1, &good, &good);
    const uint64_t before = r.watch.since[SHIFT_OTHER].requests;
    memset(r.total, 0, sizeof r.total); /* a new master */
    for (int s = 0; s < 10; s++)
        second(&r, 100, .1, &good, &good);
    assert_int_equal(r.watch.since[SHIFT_OTHER].requests, before + 900);
}

/* The first run that trips by that rule, with errors after that many good seconds. */
static void trip(struct run *r, enum shift_rule rule, unsigned good_s, char *text, size_t size)
{
    unsigned seed = 0;
    do {
        assert_in_range(++seed, 1, 20);
        run_begin(r, seed);
        for (unsigned s = 0; s < good_s; s++)
            second(r, 100, .1, &good, &good);
        while (second(r, 100, .1, &bad, &good) != SHIFT_WORSE)
            ;
    } while (r->watch.rule != rule);
    shift_explain(&r->watch, text, size);
}

static void it_says_why(void **state)
{
    struct run r;
    char text[256], small[16];
    (void)state;
    trip(&r, SHIFT_RULE_EARLY, 0, text, sizeof text);
    assert_non_null(
        strstr(text, "more errors than beside it in its first requests, by chance in "));
    assert_non_null(strstr(text, " % of cases (limit 4 %); new: "));
    assert_non_null(strstr(text, "; other: "));
    trip(&r, SHIFT_RULE_RISE, 100, text, sizeof text);
    assert_non_null(strstr(text, "its errors have risen, "));
    assert_non_null(strstr(text, " requests, evidence "));
    shift_explain(&r.watch, small, sizeof small);
    assert_int_equal(strlen(small), sizeof small - 1);
    r.watch.rule = SHIFT_RULE_ERRORS;
    shift_explain(&r.watch, text, sizeof text);
    assert_non_null(strstr(text, "more errors than beside it, z "));
}

/* ---- shares ---- */

static void shares_are_exact(void **state)
{
    static const uint32_t two[] = {100, 0}, three[] = {200, 100, 7}, wide[] = {999999, 5, 1000000};
    uint32_t w[3];
    (void)state;
    shift_weights(two, 2, 1, 10, w);
    assert_int_equal(w[0], 90);
    assert_int_equal(w[1], 10);
    shift_weights(two, 2, 1, 50, w);
    assert_int_equal(w[0], w[1]);
    shift_weights(two, 2, 1, 100, w);
    assert_int_equal(w[0], 0);
    assert_int_not_equal(w[1], 0);
    shift_weights(two, 2, 1, 0, w);
    assert_int_equal(w[0], 100);
    assert_int_equal(w[1], 0);
    shift_weights(three, 3, 2, 10, w); /* the rest two to one */
    assert_int_equal(w[0], 2 * w[1]);
    assert_int_equal(9 * w[2], w[0] + w[1]);
    shift_weights(wide, 3, 1, 37, w);
    for (int i = 0; i < 3; i++)
        assert_in_range(w[i], 1, 1000000);
    assert_in_range((uint64_t)w[1] * 1000000 / ((uint64_t)w[0] + w[1] + w[2]), 369990, 370010);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ten_times_the_errors_are_found_within_a_minute_of_little_traffic),
        cmocka_unit_test(and_within_20_seconds_of_more),
        cmocka_unit_test(errors_that_rise_late_in_a_step_are_found_as_well),
        cmocka_unit_test(regular_errors_are_found_in_time_each_time),
        cmocka_unit_test(equal_sides_trip_at_most_8_times_of_200),
        cmocka_unit_test(few_errors_do_not_trip),
        cmocka_unit_test(a_rise_after_an_hour_of_few_errors_is_found),
        cmocka_unit_test(the_first_requests_trip_at_once),
        cmocka_unit_test(a_server_that_takes_no_connection_trips_at_once),
        cmocka_unit_test(an_ejected_server_trips_at_once),
        cmocka_unit_test(a_server_that_is_down_trips_although_no_request_can_tell),
        cmocka_unit_test(a_check_that_passes_in_between_begins_the_count_anew),
        cmocka_unit_test(a_slower_side_trips_by_its_p95),
        cmocka_unit_test(too_little_traffic_neither_passes_nor_fails),
        cmocka_unit_test(a_good_side_passes_when_its_time_is_over),
        cmocka_unit_test(counts_that_begin_anew_are_added),
        cmocka_unit_test(it_says_why),
        cmocka_unit_test(shares_are_exact),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
